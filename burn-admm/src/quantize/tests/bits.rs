use core::convert::Infallible;

use burn::nn::{Linear, LinearConfig};
use burn::tensor::Device;

use super::super::{BitBudget, BitsError, QuantPlan, Quantization};
use crate::testing::get;

fn model() -> Vec<Linear> {
    let device = Device::flex();
    device.seed(5);
    vec![
        LinearConfig::new(20, 30).init(&device),
        LinearConfig::new(30, 10).init(&device),
    ]
}

/// One minus the relative error of the weights, the second layer's counted ten times.
fn closeness(original: &[Linear], model: &[Linear]) -> f64 {
    let error = |index: usize| {
        let (a, b) = (
            get(&original[index], "weight"),
            get(&model[index], "weight"),
        );
        let square = |x: f32| f64::from(x) * f64::from(x);
        let off: f64 = a.iter().zip(&b).map(|(a, b)| square(a - b)).sum();
        off / a.iter().map(|&a| square(a)).sum::<f64>()
    };
    1.0 - error(0) - 10.0 * error(1)
}

#[test]
fn sensitive_layers_get_more_bits_within_either_budget() {
    let model = model();
    let plan = QuantPlan::new(Quantization::uniform(8).unwrap());
    let choose = |budget| {
        plan.choose_bits(&model, [1, 8], budget, |other| {
            Ok::<_, Infallible>(closeness(&model, other))
        })
    };
    let lost = choose(BitBudget::Lost(0.02)).unwrap();
    let bits: Vec<u8> = lost.layers.iter().map(|l| l.quantization.bits()).collect();
    assert!(bits[1] > bits[0], "{bits:?}");
    assert!(lost.before - lost.after <= 0.02, "{lost}");
    let again = closeness(
        &model,
        &crate::fold(lost.plan().unwrap().attach(model.clone()).unwrap()),
    );
    assert!((again - lost.after).abs() < 1e-9);
    assert_eq!(
        lost.bytes,
        (600 * u64::from(bits[0])).div_ceil(8) + (300 * u64::from(bits[1])).div_ceil(8)
    );

    let small = choose(BitBudget::Bytes(300)).unwrap();
    assert!(small.bytes <= 300, "{small}");
    let bits: Vec<u8> = small.layers.iter().map(|l| l.quantization.bits()).collect();
    assert!(bits[1] > bits[0], "{bits:?}");
    assert_eq!(
        small.evaluations,
        1 + 16 + 1 + 16 - usize::from(bits[0] + bits[1])
    );
}

#[test]
fn budgets_that_cannot_be_met_name_the_nearest() {
    let model = model();
    let plan = QuantPlan::new(Quantization::uniform(8).unwrap());
    let choose = |bits, budget| {
        plan.choose_bits(&model, bits, budget, |other| {
            Ok::<_, Infallible>(closeness(&model, other))
        })
    };
    let error = choose([1, 4], BitBudget::Bytes(100))
        .unwrap_err()
        .to_string();
    assert!(error.contains("113 bytes with 1 bits"), "{error}");
    let error = choose([1, 2], BitBudget::Lost(1e-6))
        .unwrap_err()
        .to_string();
    assert!(error.contains("points with 2 bits everywhere"), "{error}");
    assert!(matches!(
        choose([5, 4], BitBudget::Bytes(1)),
        Err(BitsError::Range { .. })
    ));
    assert!(matches!(
        choose([0, 4], BitBudget::Bytes(1)),
        Err(BitsError::Quantize(_))
    ));
    let failed = plan.choose_bits(&model, [1, 2], BitBudget::Bytes(500), |_| {
        Err::<f64, _>("no data")
    });
    assert_eq!(
        failed.unwrap_err().to_string(),
        "evaluating the network: no data"
    );
}
