use core::convert::Infallible;

use burn::tensor::{Device, Tensor};
use burn_sparse::nn::{Conv2dConfig, LinearConfig};
use burn_sparse::{Budget, Sparsity};

use super::*;
use crate::Plan;
use crate::plan::Constraint;

fn layer(weight: &str, macs: u64, break_even: Option<f64>, start: f64) -> HardwareLayer {
    HardwareLayer {
        weight: weight.into(),
        macs,
        break_even,
        start,
        most: 1000.0,
    }
}

/// The ratio that a plan asks of a weight.
fn asked(plan: &Plan, weight: &str) -> f64 {
    let rule = plan
        .rules()
        .iter()
        .find(|rule| rule.pattern.as_str() == weight);
    match rule.map(|rule| rule.constraint) {
        Some(Constraint::Sparse(Sparsity::RowBalanced(Budget::Sparsity(s)))) => 1.0 / (1.0 - s),
        _ => 1.0,
    }
}

/// Accuracy falls by the logarithm of each ratio, times how sensitive its layer is.
fn model(sensitive: [(&'static str, f64); 3]) -> impl Fn(&Plan) -> f64 {
    move |plan| {
        let lost = sensitive
            .iter()
            .map(|(weight, by)| by * asked(plan, weight).ln());
        0.99 - lost.sum::<f64>()
    }
}

#[test]
fn layers_below_break_even_stay_dense_and_the_others_get_their_share() {
    let layers = [
        layer("a", 100, Some(4.0), 1.3),
        layer("b", 5000, Some(2.0), 3.0),
        layer("c", 800, None, 9.0),
    ];
    let accuracy = model([("a", 0.01), ("b", 0.001), ("c", 0.002)]);
    let config = HardwareConfig::default();
    let mut full = 0;
    let found = hardware_aware(&layers, 0.99, config, |plan, effort| {
        full += usize::from(effort == Effort::Full);
        Ok::<_, Infallible>(accuracy(plan))
    })
    .unwrap();
    let ratio = |index: usize| found.layers[index].ratio;
    assert_eq!((ratio(0), ratio(2)), (1.0, 1.0), "{found}");
    // With the whole accuracy to itself, it goes further than in the first round with all.
    assert!(ratio(1) > 20.0, "{found}");
    assert!(0.99 - found.accuracy <= config.lost + 1e-12);
    assert_eq!((found.runs[1], full), (1, 1));
    assert!(found.layers[2].reason.contains("never"), "{found}");
    assert!(found.layers[0].reason.contains("4.00x"), "{found}");
    let plan = found.plan().unwrap();
    assert_eq!(plan.rules().len(), 1);
    let left = (100.0 + 5000.0 / ratio(1) + 800.0) / 5900.0;
    assert!((found.macs_left() - left).abs() < 1e-12);
}

#[test]
fn a_proxy_that_was_too_hopeful_is_corrected_at_full_length() {
    let layers = [
        layer("a", 100, Some(1.5), 4.0),
        layer("b", 50, Some(1.5), 4.0),
    ];
    let proxy = model([("a", 0.001), ("b", 0.001), ("-", 0.0)]);
    let real = model([("a", 0.0013), ("b", 0.0013), ("-", 0.0)]);
    let found = hardware_aware(&layers, 0.99, HardwareConfig::default(), |plan, effort| {
        Ok::<_, Infallible>(match effort {
            Effort::Proxy => proxy(plan),
            Effort::Full => real(plan),
        })
    })
    .unwrap();
    assert!(found.runs[1] > 1, "{found}");
    assert!(0.99 - found.accuracy <= 0.005 + 1e-12, "{found}");
}

#[test]
fn what_cannot_be_is_said() {
    let none = |_: &Plan, _: Effort| Ok::<f64, Infallible>(0.5);
    let config = HardwareConfig::default();
    let error = hardware_aware(&[], 0.9, config, none).unwrap_err();
    assert!(error.to_string().contains("no layers"), "{error}");
    let odd = [layer("a", 1, None, 0.5)];
    let error = hardware_aware(&odd, 0.9, config, none).unwrap_err();
    assert!(
        error.to_string().contains("`a` starts from a ratio of 0.5"),
        "{error}"
    );
    let negative = HardwareConfig {
        lost: -1.0,
        ..config
    };
    let one = [layer("a", 1, Some(2.0), 3.0)];
    assert!(hardware_aware(&one, 0.9, negative, none).is_err());
    let error = hardware_aware(&one, 0.9, config, none).unwrap_err();
    assert!(error.to_string().contains("lose 40.00"), "{error}");
    let never = [layer("a", 1, None, 3.0), layer("b", 1, None, 3.0)];
    let error = hardware_aware(&never, 0.9, config, none).unwrap_err();
    assert!(matches!(error, HardwareError::NeverFaster), "{error}");
    assert!(hardware_aware(&one, f64::NAN, config, none).is_err());
    let nan = [layer("a", 1, Some(f64::NAN), 3.0)];
    assert!(hardware_aware(&nan, 0.9, config, none).is_err());
    // However mild, the full run loses too much: it is not asked for ever.
    let at_once = [layer("a", 1, Some(1.0), 3.0)];
    let mut full = 0;
    let found = hardware_aware(&at_once, 0.9, config, |_, effort| {
        full += usize::from(effort == Effort::Full);
        let accuracy = if effort == Effort::Full { 0.5 } else { 0.9 };
        Ok::<_, Infallible>(accuracy)
    });
    assert!(found.is_err() && full == 20, "{full}");
    let failing = |_: &Plan, _: Effort| Err::<f64, _>("no data");
    let error = hardware_aware(&one, 0.9, config, failing).unwrap_err();
    assert_eq!(error.to_string(), "training under the ratios: no data");
}

#[test]
fn every_layer_is_measured_from_half_to_a_hundredth() {
    #[derive(burn::module::Module, Debug)]
    struct Net {
        conv: burn_sparse::nn::Conv2d,
        fc: burn_sparse::nn::Linear,
    }
    let device = Device::flex();
    let net = Net {
        conv: Conv2dConfig::new([4, 8], [3, 3]).init(&device),
        fc: LinearConfig::new(8 * 16, 300).init(&device),
    };
    let x = Tensor::<4>::zeros([1, 4, 6, 6], &device);
    let mut steps = Vec::new();
    let forward = |net: &Net| {
        let x = net.conv.forward(x);
        drop(net.fc.forward(x.flatten::<2>(1, 3)));
    };
    let layers = break_even(&net, forward, |done, of| steps.push((done, of))).unwrap();
    assert_eq!(layers.len(), 2);
    assert_eq!(
        (layers[0].layer.as_str(), layers[1].layer.as_str()),
        ("conv", "fc")
    );
    assert_eq!(layers[1].macs, 128 * 300);
    for layer in &layers {
        assert_eq!(layer.points.len(), 9);
        assert!(
            layer.points.windows(2).all(|pair| pair[0].0 <= pair[1].0),
            "{layer:?}"
        );
        assert!(layer.points.iter().all(|(_, time)| *time > 0.0));
    }
    assert_eq!(steps.last(), Some(&(9, 9)));
    let error = break_even(&net, |_| {}, |_, _| {}).unwrap_err();
    assert!(matches!(error, BreakEvenError::NoLayers), "{error}");
}
