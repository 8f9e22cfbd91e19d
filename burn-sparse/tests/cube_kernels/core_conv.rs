//! The core convolution: shapes, tiles, splits of the input channels, epilogues, dtypes, tuning.

use burn::tensor::DType;
use burn_cubecl::CubeDevice;
use burn_sparse::{
    ConvProblem,
    kernel::{Choice, CoreTile, Epilogue, catalogue_times, core_conv, core_weight},
};

use crate::support::*;

/// Random operands of a dense convolution and its exact result, with bias, residual and ReLU.
struct Operands {
    problem: ConvProblem,
    dtype: DType,
    input: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
}

impl Operands {
    fn new(problem: ConvProblem, dtype: DType) -> Self {
        problem.check().expect("a valid problem");
        let mut rng = rng(3 + problem.batch as u64);
        let mut random = |shape: [usize; 4]| numbers(&mut rng, shape.iter().product(), dtype);
        Self {
            input: random(problem.input_shape()),
            weight: random(problem.weight_shape()),
            bias: random([1, 1, 1, problem.out_channels]),
            residual: random(problem.output_shape()),
            problem,
            dtype,
        }
    }

    fn exact(&self, fused: bool) -> Vec<Exact> {
        let mut sums = vec![Exact::default(); self.residual.len()];
        for_each_term(&self.problem, |target, source, weight| {
            sums[target].add(f64::from(self.weight[weight]) * f64::from(self.input[source]));
        });
        let pixels: usize = self.problem.output().iter().product();
        for (i, sum) in sums.iter_mut().enumerate().filter(|_| fused) {
            sum.add(f64::from(self.bias[i / pixels % self.problem.out_channels]));
            sum.add(f64::from(self.residual[i]));
            *sum = sum.relu();
        }
        sums
    }

    fn epilogue(&self, device: &CubeDevice, fused: bool) -> Epilogue {
        let bias = || floats(device, &self.bias, [self.bias.len()], self.dtype);
        let shape = self.problem.output_shape();
        let residual = || floats(device, &self.residual, shape, self.dtype);
        Epilogue {
            bias: fused.then(bias),
            residual: fused.then(residual),
            relu: fused,
        }
    }

    fn check(&self, name: &str, device: &CubeDevice, fused: bool, choice: Choice<CoreTile>) {
        let Self { problem, dtype, .. } = self;
        let input = floats(device, &self.input, problem.input_shape(), *dtype);
        let weight = floats(device, &self.weight, problem.weight_shape(), *dtype);
        let weight = core_weight(weight);
        let epilogue = self.epilogue(device, fused);
        poison(device, self.residual.len(), *dtype);
        let got = read(core_conv(input, weight, epilogue, problem, choice));
        let what = format!("{name} {problem:?} {dtype:?} fused {fused} {choice:?}");
        check(&got, &self.exact(fused), *dtype, &what);
    }
}

/// Strides, paddings, dilations, kernels of any size, one pixel, one row; batches of three.
fn problems() -> Vec<ConvProblem> {
    let cases = cases().into_iter().filter(|case| case.problem.groups == 1);
    cases.map(|case| case.problem.with_batch(3)).collect()
}

fn same_3x3() -> ConvProblem {
    ConvProblem::new(2, [10, 6], [9, 11], [3, 3]).with_padding([1, 1])
}

#[test]
fn every_shape() {
    for (name, device) in devices() {
        for problem in problems() {
            let operands = Operands::new(problem, DType::F32);
            operands.check(name, &device, true, Choice::Heuristic);
        }
    }
}

/// Ragged tiles, strips of columns and blocks of output channels, chunks that do not divide the channels.
#[test]
fn every_tile() {
    for (name, device) in devices() {
        let client = device.client();
        let hardware = &client.properties().hardware;
        let operands = Operands::new(same_3x3(), DType::F32);
        let strided = ConvProblem::new(1, [7, 5], [12, 10], [3, 2])
            .with_stride([2, 3])
            .with_dilation([2, 1])
            .with_padding([2, 1]);
        let strided = Operands::new(strided, DType::F32);
        for tile in [
            CoreTile::staged([2, 3, 4]).with_units(32),
            CoreTile::staged([1, 4, 16]).with_units(12),
            CoreTile::staged([4, 2, 3]).with_units(4).with_splits(2),
            CoreTile::direct([3, 2], 8).with_splits(3),
        ] {
            let tile = tile.with_units(tile.units.min(max_units(&device)));
            if tile.chunk > 0 && !has_shared_memory(&device) {
                continue;
            }
            for operands in [&operands, &strided] {
                if tile.check(&operands.problem, 4, hardware).is_ok() {
                    operands.check(name, &device, true, Choice::Forced(tile));
                }
            }
        }
    }
}

#[test]
fn half_precision_sums_in_single() {
    for (name, device) in devices() {
        let operands = Operands::new(same_3x3(), DType::F16);
        operands.check(name, &device, true, Choice::Heuristic);
        if has_shared_memory(&device) {
            let tile = CoreTile::staged([2, 2, 4]).with_units(max_units(&device).min(32));
            let tile = tile.with_splits(2);
            operands.check(name, &device, false, Choice::Forced(tile));
        }
    }
}

#[test]
fn the_tuned_tile_computes_the_same_and_the_catalogue_is_timed() {
    for (name, device) in devices() {
        let operands = Operands::new(same_3x3(), DType::F32);
        for _ in 0..2 {
            operands.check(name, &device, true, Choice::Tuned);
        }
        let problem = &operands.problem;
        let input = floats(&device, &operands.input, problem.input_shape(), DType::F32);
        let shape = problem.weight_shape();
        let weight = core_weight(floats(&device, &operands.weight, shape, DType::F32));
        let times = catalogue_times(input, weight, Epilogue::default(), problem, 3).unwrap();
        let best = times.best().unwrap();
        assert!(best.seconds > 0.0 && times.tiles.len() > 1, "{times:?}");
        // The model is of cards with shared memory.
        if let Some(ratio) = times.model_over_best() {
            assert!(ratio >= 1.0, "{times:?}");
        }
    }
}

#[test]
fn an_empty_batch_gives_an_empty_result() {
    for (name, device) in devices() {
        let operands = Operands::new(same_3x3().with_batch(0), DType::F32);
        for choice in [Choice::Tuned, Choice::Heuristic] {
            operands.check(name, &device, false, choice);
        }
    }
}

#[test]
#[should_panic(expected = "there must not be more splits than chunks of input channels")]
fn a_tile_that_breaks_its_rules_is_refused_with_the_rule() {
    let rule = "there must not be more splits than chunks of input channels";
    let Some((name, device)) = devices().into_iter().next() else {
        panic!("{rule} (skipped: no device)");
    };
    let tile = CoreTile::direct([1, 1], 8).with_splits(11);
    let operands = Operands::new(same_3x3(), DType::F32);
    operands.check(name, &device, false, Choice::Forced(tile));
}
