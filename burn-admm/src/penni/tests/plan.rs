//! What shares its kernels, and why the rest does not.

use burn_sparse::nn::{Conv2d, Conv2dConfig, Trace};

use super::*;
use crate::PlanError;

#[test]
fn kernels_are_shared_where_there_are_some() {
    let model = Net::new(&device());
    let report = PenniPlan::new(4).explain(&model).unwrap();
    let of = |path: &str| report.layer(path).unwrap();
    assert_eq!(of("body.weight").kernels, Some(4));
    assert!(of("body.weight").relative_error > 0.1);
    for (path, why) in [
        ("stem.weight", "one input channel"),
        ("pointwise.weight", "1×1"),
        ("head.weight", "no convolution"),
    ] {
        assert!(
            of(path).kernels.is_none() && of(path).reason.contains(why),
            "{path}"
        );
    }
    assert!(report.layer("body.bias").is_none());
    let text = report.to_string();
    assert!(
        text.contains("one input channel") && text.contains("default"),
        "{text}"
    );

    // No more kernels than positions, and 1×1 on request.
    let report = PenniPlan::new(7)
        .with_pointwise(true)
        .explain(&model)
        .unwrap();
    let of = |path: &str| report.layer(path).unwrap();
    assert_eq!(of("wide.weight").kernels, Some(6));
    assert_eq!(of("wide.weight").relative_error, 0.0);
    assert_eq!(of("pointwise.weight").kernels, Some(1));
    assert!(of("pointwise.weight").relative_error < 1e-6);
}

#[test]
fn the_last_rule_wins_and_may_name_any_convolution() {
    let model = Net::new(&device());
    let plan = PenniPlan::new(4)
        .with_rule("**.weight", None)
        .unwrap()
        .with_rule("stem.weight", 3)
        .unwrap();
    let report = plan.explain(&model).unwrap();
    let shared: Vec<_> = report
        .layers
        .iter()
        .filter(|l| l.kernels.is_some())
        .collect();
    assert_eq!((shared.len(), shared[0].path.as_str()), (1, "stem.weight"));
    assert_eq!(PenniPlan::from_json(&plan.to_json()).unwrap(), plan);
    assert!(PenniPlan::from_json("{\"default\": 3, \"other\": 1}").is_err());

    let plan =
        |pattern: &str, kernels: usize| PenniPlan::none().with_rule(pattern, kernels).unwrap();
    let error = plan("boddy.weight", 2).explain(&model).unwrap_err();
    assert!(matches!(
        error,
        PenniError::Plan(PlanError::UnknownPattern { .. })
    ));
    for path in ["head.weight", "body.bias"] {
        let error = plan(path, 2).explain(&model).unwrap_err();
        assert!(matches!(error, PenniError::NoKernels { .. }), "{error}");
    }
    let error = plan("body.weight", 0).explain(&model).unwrap_err();
    assert!(error.to_string().contains("body.weight"), "{error}");
    let error = Penni::new(&model, &PenniPlan::none(), PenniConfig::new()).unwrap_err();
    assert!(matches!(error, PenniError::NothingShared));
}

#[test]
fn groups_and_transposed_kernels_are_left_alone() {
    let device = Device::flex();
    let grouped: Conv2d = Conv2dConfig::new([6, 8], [3, 3])
        .with_groups(2)
        .init(&device);
    let trace = Trace::of(|| drop(grouped.forward(Tensor::zeros([1, 6, 5, 5], &device))));
    let plan = PenniPlan::new(4).with_geometry(&grouped, &trace);
    let report = plan.explain(&grouped).unwrap();
    assert_eq!(report.layers[0].reason, "2 groups");
    assert!(report.layers[0].kernels.is_none());
    // No forward pass is needed to see it.
    let report = PenniPlan::new(4).explain(&grouped).unwrap();
    assert_eq!(report.layers[0].reason, "2 groups");
    let depthwise: Conv2d = Conv2dConfig::new([6, 6], [3, 3])
        .with_groups(6)
        .init(&device);
    let report = PenniPlan::new(4).explain(&depthwise).unwrap();
    assert_eq!(report.layers[0].reason, "6 groups");
    let back: ConvTranspose2d = ConvTranspose2dConfig::new([4, 3], [3, 3]).init(&device);
    let report = PenniPlan::new(4).explain(&back).unwrap();
    assert_eq!(report.layers[0].reason, "transposed");
}

#[test]
fn weights_that_are_no_numbers_are_refused() {
    let model = set(
        Net::new(&device()),
        "wide.weight",
        vec![f32::NAN; 4 * 5 * 6],
    );
    let error = PenniPlan::new(4).explain(&model).unwrap_err();
    assert!(
        matches!(&error, PenniError::Layer { path, .. } if path == "wide.weight"),
        "{error}"
    );
    assert!(Penni::new(&model, &PenniPlan::new(4), PenniConfig::new()).is_err());
}

#[test]
fn settings_out_of_range_are_refused() {
    let model = Net::new(&device());
    for config in [
        PenniConfig::new().with_lambda(-1.0),
        PenniConfig::new().with_lambda(f64::NAN),
        PenniConfig::new().with_threshold(f64::INFINITY),
        PenniConfig::new().with_interval(0),
    ] {
        let error = Penni::new(&model, &PenniPlan::new(4), config).unwrap_err();
        assert!(matches!(error, PenniError::Config { .. }), "{error}");
    }
}
