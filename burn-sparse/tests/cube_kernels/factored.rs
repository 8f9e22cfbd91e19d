//! Convolutions by three factors: fused strips, and kernels one after the other.

use burn::tensor::DType;
use burn_cubecl::CubeDevice;
use burn_sparse::{
    ConvProblem,
    kernel::{Choice, Epilogue, FactorTensors, FactoredKernel, StripTile, factored_conv},
    reference,
};

use crate::support::*;

/// Random factors and images; the exact result, and what rounding explains of the difference from it.
struct Operands {
    problem: ConvProblem,
    ranks: [usize; 2],
    dtype: DType,
    input: Vec<f32>,
    factors: [Option<Vec<f32>>; 3],
    bias: Vec<f32>,
    residual: Vec<f32>,
}

impl Operands {
    /// Of these ranks; without a first or last factor where there is no rank.
    fn new(problem: ConvProblem, ranks: [Option<usize>; 2], dtype: DType) -> Self {
        problem.check().expect("a valid problem");
        let (channels, outputs) = (problem.in_channels, problem.out_channels);
        let [d1, d2] = [ranks[0].unwrap_or(channels), ranks[1].unwrap_or(outputs)];
        let mut rng = rng(5);
        let mut random = |len: usize| numbers(&mut rng, len, dtype);
        let taps = problem.kernel[0] * problem.kernel[1];
        Self {
            input: random(problem.input_shape().iter().product()),
            factors: [
                ranks[0].map(|_| random(d1 * channels)),
                Some(random(d2 * d1 * taps)),
                ranks[1].map(|_| random(outputs * d2)),
            ],
            bias: random(outputs),
            residual: random(problem.output_shape().iter().product()),
            problem,
            ranks: [d1, d2],
            dtype,
        }
    }

    fn exact(&self, of: impl Fn(f32) -> f32) -> Vec<f64> {
        let each = |values: &[f32]| -> Vec<f32> { values.iter().map(|&value| of(value)).collect() };
        let factors = self
            .factors
            .each_ref()
            .map(|factor| factor.as_deref().map(each));
        let mut exact = reference::factored_conv2d(
            &each(&self.input),
            factors.each_ref().map(Option::as_deref),
            self.ranks,
            Some(&each(&self.bias)),
            &self.problem,
        );
        for (sum, &residual) in exact.iter_mut().zip(&self.residual) {
            *sum += f64::from(of(residual));
        }
        exact
    }

    fn check(&self, name: &str, device: &CubeDevice, choice: Choice<FactoredKernel>) {
        let Self { problem, dtype, .. } = self;
        let [d1, d2] = self.ranks;
        let (channels, outputs) = (problem.in_channels, problem.out_channels);
        let [r, s] = problem.kernel;
        let shapes = [[d1, channels, 1, 1], [d2, d1, r, s], [outputs, d2, 1, 1]];
        let mut factors = self.factors.iter().zip(shapes).map(|(factor, shape)| {
            let factor = factor.as_ref()?;
            Some(floats(device, factor, shape, *dtype))
        });
        let mut next = || factors.next().expect("three factors");
        let factors = FactorTensors {
            reduce: next(),
            core: next().expect("a core"),
            expand: next(),
        };
        let epilogue = Epilogue {
            bias: Some(floats(device, &self.bias, [outputs], *dtype)),
            residual: Some(floats(
                device,
                &self.residual,
                problem.output_shape(),
                *dtype,
            )),
            relu: true,
        };
        let input = floats(device, &self.input, problem.input_shape(), *dtype);
        poison(device, self.residual.len(), *dtype);
        let got = read(factored_conv(input, factors, epilogue, problem, choice));

        let exact = self.exact(|value| value);
        let sizes = self.exact(f32::abs);
        // Sums of `terms` f32 products; what enters and what leaves the core is rounded to the dtype, and so
        // is the output.
        let terms = channels + d1 * r * s + d2 + 8;
        let unit = match dtype {
            DType::F16 => 2f64.powi(-11),
            _ => 2f64.powi(-24),
        };
        assert_eq!(got.len(), exact.len(), "{name} {problem:?} {choice:?}");
        for (i, ((&got, exact), size)) in got.iter().zip(&exact).zip(&sizes).enumerate() {
            let bound = size * (terms as f64 * 2f64.powi(-24) + 4.0 * unit) + 2f64.powi(-24);
            let error = (f64::from(got) - exact.max(0.0)).abs();
            assert!(
                error <= bound,
                "{name} {problem:?} {:?} {dtype:?} {choice:?}: {got} at {i}, expected {}, allowed {bound:e}",
                self.ranks,
                exact.max(0.0)
            );
        }
    }
}

fn same_3x3() -> ConvProblem {
    ConvProblem::new(3, [10, 9], [9, 11], [3, 3]).with_padding([1, 1])
}

/// Stride, dilation, and zeros on one side only.
fn uneven() -> ConvProblem {
    ConvProblem {
        padding: [[2, 0], [1, 3]],
        ..ConvProblem::new(1, [5, 6], [12, 10], [3, 2])
            .with_stride([2, 3])
            .with_dilation([2, 1])
    }
}

/// A tile with units as the device has them.
fn tile(device: &CubeDevice, sides: [usize; 2], lanes: usize, sums: [usize; 2]) -> StripTile {
    let units = 1 << max_units(device).min(32).ilog2();
    StripTile::new(sides, [units, lanes.min(units)], sums)
}

#[test]
fn strips() {
    for (name, device) in devices() {
        if !has_shared_memory(&device) {
            continue;
        }
        let full = tile(&device, [2, 11], 8, [2, 2]);
        // Ragged on every side, with chunks that do not divide the channels.
        let small = StripTile {
            chunk: 3,
            ..tile(&device, [4, 3], 4, [3, 1])
        };
        let force = |tile| Choice::Forced(FactoredKernel::Strip(tile));
        for (problem, ranks, tile) in [
            (same_3x3(), [Some(5), Some(7)], full),
            (same_3x3(), [Some(5), Some(7)], small),
            (uneven(), [Some(4), Some(3)], small),
            (uneven(), [Some(7), None], full),
            (uneven(), [None, Some(4)], small),
            (same_3x3(), [None, None], full),
            (
                ConvProblem::new(2, [3, 4], [1, 1], [1, 1]),
                [Some(2), Some(1)],
                small,
            ),
        ] {
            Operands::new(problem, ranks, DType::F32).check(name, &device, force(tile));
        }
        let half = Operands::new(same_3x3(), [Some(5), Some(7)], DType::F16);
        half.check(name, &device, force(full));
    }
}

#[test]
fn one_after_the_other_and_tuned() {
    for (name, device) in devices() {
        // The dense factors are Burn's.
        if !has_shared_memory(&device) {
            continue;
        }
        let operands = Operands::new(same_3x3(), [Some(5), Some(7)], DType::F32);
        for choice in [
            Choice::Forced(FactoredKernel::Core),
            Choice::Heuristic,
            Choice::Tuned,
        ] {
            operands.check(name, &device, choice);
        }
        let alone = Operands::new(uneven(), [None, None], DType::F16);
        alone.check(name, &device, Choice::Forced(FactoredKernel::Core));
    }
}

#[test]
#[should_panic(expected = "what is between the factors must fit shared memory")]
fn a_strip_that_does_not_fit_is_refused_with_the_rule() {
    let rule = "what is between the factors must fit shared memory";
    let Some((name, device)) = devices().into_iter().next() else {
        panic!("{rule} (skipped: no device)");
    };
    let problem = ConvProblem::new(1, [4, 4], [512, 512], [3, 3]).with_padding([1, 1]);
    let tile = tile(&device, [512, 512], 8, [1, 1]);
    let operands = Operands::new(problem, [Some(4), Some(4)], DType::F32);
    operands.check(name, &device, Choice::Forced(FactoredKernel::Strip(tile)));
}
