use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Tensor};

use super::super::{ActivationQuantizer, Observer, QuantizeError, Saturation};

fn vec<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_into_vec().unwrap()
}

#[test]
fn activations_are_on_levels_with_an_exact_zero() {
    let device = Device::flex();
    for (range, bits) in [
        ([-1.0, 3.0], 2),
        ([0.0, 6.0], 8),
        ([-0.3, 0.9], 4),
        ([-2.0, 0.0], 3),
    ] {
        let quantizer = ActivationQuantizer::new(range, bits, &device).unwrap();
        let x: Vec<f32> = (-200..=200).map(|i| i as f32 * 0.05).collect();
        let y = vec(quantizer.forward(Tensor::<1>::from_floats(&x[..], &device)));
        let scale = (range[1] - range[0]) / ((1u32 << bits) - 1) as f32;
        let mut levels: Vec<u32> = y.iter().map(|v| v.to_bits()).collect();
        levels.sort_unstable();
        levels.dedup();
        assert!(
            levels.len() <= 1 << bits,
            "{range:?} {bits}: {}",
            levels.len()
        );
        assert_eq!(y[200], 0.0);
        for (x, y) in x.iter().zip(&y) {
            let inside = x.clamp(range[0], range[1]);
            // The zero point is whole, so the ends may lie half a step off.
            assert!(
                (y - inside).abs() <= scale * 1.001,
                "{range:?} {bits}: {x} to {y}"
            );
        }
    }
}

#[test]
fn gradients_pass_inside_and_move_the_ends_outside() {
    let device = Device::flex().autodiff();
    let quantizer = ActivationQuantizer::new([-1.0, 1.0], 4, &device)
        .unwrap()
        .learned();
    let x = Tensor::<2>::from_floats([[-3.0, -0.4, 0.3, 5.0, 7.0]], &device).require_grad();
    let y = quantizer.forward(x.clone());
    let gradients = y.sum().backward();
    assert_eq!(vec(x.grad(&gradients).unwrap()), [0.0, 1.0, 1.0, 0.0, 0.0]);
    let mut gradients = GradientsParams::from_grads(gradients, &quantizer);
    // Of the logarithms: one value at the low end of -1, two at the high end of 1.
    let growth = gradients.remove::<1>(quantizer.growth_id()).unwrap();
    assert_eq!(vec(growth), [-1.0, 2.0]);
}

#[test]
fn a_learned_range_finds_the_data() {
    let device = Device::flex().autodiff();
    let x: Vec<f32> = (0..64).map(|i| i as f32 / 16.0).collect();
    let x = Tensor::<1>::from_floats(&x[..], &device);
    let mut quantizer = ActivationQuantizer::new([0.0, 1.0], 8, &device)
        .unwrap()
        .learned();
    let error = |q: &ActivationQuantizer| (q.forward(x.clone()) - x.clone()).square().mean();
    let before = error(&quantizer).into_scalar::<f32>();
    let mut optimizer = SgdConfig::new().init();
    for _ in 0..60 {
        let gradients = GradientsParams::from_grads(error(&quantizer).backward(), &quantizer);
        quantizer = optimizer.step(0.1, quantizer, gradients);
    }
    let after = error(&quantizer).into_scalar::<f32>();
    assert!(after < 0.02 * before, "{before} to {after}");
    assert!(quantizer.range().unwrap()[1] > 3.0);
}

#[test]
fn ranges_and_bits_that_make_no_sense_are_refused() {
    let device = Device::flex();
    for (range, says) in [
        ([f32::NAN, 1.0], "finite"),
        ([-1.0, f32::INFINITY], "finite"),
        ([f32::MIN, f32::MAX], "finite"),
        ([1.0, 2.0], "zero must be in it"),
        ([0.0, 0.0], "empty"),
    ] {
        let error = ActivationQuantizer::new(range, 8, &device)
            .unwrap_err()
            .to_string();
        assert!(error.contains(says), "{range:?}: {error}");
    }
    for bits in [0, 1, 17] {
        let error = ActivationQuantizer::new([0.0, 1.0], bits, &device).unwrap_err();
        assert!(matches!(error, QuantizeError::Bits { .. }));
    }
    let mut observer = Observer::new();
    assert!(observer.range(8, Saturation::MinMax).is_err());
    let nan = Tensor::<1>::from_floats([1.0, f32::NAN], &device);
    assert!(observer.observe(&nan).is_err());
    observer
        .observe(&Tensor::<1>::from_floats([1.0, 3.0], &device))
        .unwrap();
    assert_eq!(observer.range(8, Saturation::MinMax).unwrap(), [0.0, 3.0]);
}
