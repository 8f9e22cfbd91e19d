//! Recurrent layers on every device, dense and packed, against the CPU's dense ones.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor};
use burn_sparse::catalogue;
use burn_sparse::nn::{GruConfig, LstmConfig};
use tests::{devices_with_shared_memory as devices, floats, tensor};

const STEPS: usize = 100;
const SIZES: [usize; 2] = [7, 20];

/// Matrices of which a quarter is not zero, and small biases.
struct Fill(u64);

impl ModuleMapper for Fill {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.0 += 1;
        param.map(|old| {
            let shape: [usize; D] = old.dims();
            let density = if D == 2 { 0.25 } else { 1.0 };
            let values = catalogue::weight(shape.iter().product(), density, self.0);
            tensor(&values, shape, &old.device()) * 0.5
        })
    }
}

/// Sums of some twenty products in each step, through functions whose slope is at most one, of states that the
/// gates let fade: errors of single steps, some 1e-7 each, do not add up over a hundred.
fn close(name: &str, got: Tensor<3>, expected: &[f32]) {
    let got = floats(got);
    assert_eq!(got.len(), expected.len(), "{name}");
    let worst = got
        .iter()
        .zip(expected)
        .map(|(a, b)| {
            if a.is_finite() {
                (a - b).abs()
            } else {
                f32::INFINITY
            }
        })
        .fold(0.0, f32::max);
    assert!(worst < 1e-5, "{name}: {worst}");
}

fn input(batch: usize, device: &Device) -> Tensor<3> {
    let values = catalogue::values(batch * STEPS * SIZES[0], 3);
    tensor(&values, [batch, STEPS, SIZES[0]], device)
}

#[test]
fn gru_is_the_same_on_every_device() {
    for reset_after in [true, false] {
        let config = GruConfig::new(SIZES[0], SIZES[1], true).with_reset_after(reset_after);
        let flex = Device::flex();
        let model = config.init(&flex).map(&mut Fill(10));
        for batch in [1, 5] {
            let expected = floats(model.forward(input(batch, &flex), None));
            for (name, device) in devices() {
                let there = model.clone().fork(&device);
                let x = input(batch, &device);
                let name = format!("{name}, batch {batch}, reset_after {reset_after}");
                close(&name, there.forward(x.clone(), None), &expected);
                let packed = there.pack().unwrap();
                close(
                    &format!("{name}, packed"),
                    packed.forward(x.clone(), None),
                    &expected,
                );
                // Step by step, with the state in between.
                let mut state = None;
                let mut steps = Vec::new();
                for step in 0..STEPS {
                    let next = packed.step(x.clone().narrow(1, step, 1).squeeze_dim(1), state);
                    steps.push(next.clone().unsqueeze_dim(1));
                    state = Some(next);
                }
                close(
                    &format!("{name}, by steps"),
                    Tensor::cat(steps, 1),
                    &expected,
                );
            }
        }
    }
}

#[test]
fn lstm_is_the_same_on_every_device() {
    let flex = Device::flex();
    let config = LstmConfig::new(SIZES[0], SIZES[1], true);
    let model = config.init(&flex).map(&mut Fill(50));
    for batch in [1, 5] {
        let expected = floats(model.forward(input(batch, &flex), None).0);
        for (name, device) in devices() {
            let there = model.clone().fork(&device);
            let x = input(batch, &device);
            let name = format!("{name}, batch {batch}");
            close(&name, there.forward(x.clone(), None).0, &expected);
            let packed = there.pack().unwrap();
            close(
                &format!("{name}, packed"),
                packed.forward(x.clone(), None).0,
                &expected,
            );
            let mut state = None;
            let mut steps = Vec::new();
            for step in 0..STEPS {
                let next = packed.step(x.clone().narrow(1, step, 1).squeeze_dim(1), state);
                steps.push(next.hidden.clone().unsqueeze_dim(1));
                state = Some(next);
            }
            close(
                &format!("{name}, by steps"),
                Tensor::cat(steps, 1),
                &expected,
            );
        }
    }
}
