//! The sparse convolution: shapes, batches, tiles, epilogues, dtypes, tuning, wrong indices.

use burn::tensor::DType;
use burn_cubecl::CubeDevice;
use burn_sparse::{
    ConvProblem,
    format::{Csr, PanelEntries},
    kernel::{Choice, ConvKernel, ConvTile, Entries, Epilogue, Panels, sparse_conv},
};

use crate::support::*;

/// Random operands of a convolution and its exact result.
pub(crate) struct Operands {
    pub(crate) problem: ConvProblem,
    dtype: DType,
    pub(crate) csr: Csr,
    pub(crate) panels: Option<PanelEntries>,
    input: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fused {
    Nothing,
    Bias,
    Residual,
    All,
}

impl Operands {
    fn new(case: &Case, batch: usize, dtype: DType) -> Self {
        let problem = case.problem.with_batch(batch);
        let mut rng = rng(7 + batch as u64);
        let csr = weight(
            &mut rng,
            [problem.out_channels, problem.row_len()],
            case.density,
            dtype,
        );
        Self::of(problem, csr, dtype)
    }

    /// With this weight.
    pub(crate) fn of(problem: ConvProblem, csr: Csr, dtype: DType) -> Self {
        let mut rng = rng(11 + problem.batch as u64);
        let mut random = |shape: [usize; 4]| numbers(&mut rng, shape.iter().product(), dtype);
        Self {
            input: random(problem.input_shape()),
            bias: random([1, 1, 1, problem.out_channels]),
            residual: random(problem.output_shape()),
            problem,
            dtype,
            csr,
            panels: None,
        }
    }

    /// With panels of bands of `height` rows, looked for in blocks of `width` columns.
    pub(crate) fn with_panels(mut self, height: usize, width: usize) -> Self {
        let panels = PanelEntries::new(&self.csr, self.problem.groups, height, width);
        self.panels = Some(panels.expect("a valid height and width"));
        self
    }

    pub(crate) fn exact(&self, fused: Fused) -> Vec<Exact> {
        let dense = self.csr.to_dense();
        let mut sums = vec![Exact::default(); self.residual.len()];
        for_each_term(&self.problem, |target, source, weight| {
            if dense[weight] != 0.0 {
                sums[target].add(dense[weight] as f64 * self.input[source] as f64);
            }
        });
        let pixels: usize = self.problem.output().iter().product();
        for (i, sum) in sums.iter_mut().enumerate() {
            if matches!(fused, Fused::Bias | Fused::All) {
                sum.add(self.bias[i / pixels % self.problem.out_channels] as f64);
            }
            if matches!(fused, Fused::Residual | Fused::All) {
                sum.add(self.residual[i] as f64);
            }
            if fused == Fused::All {
                *sum = sum.relu();
            }
        }
        sums
    }

    fn entries(&self, device: &CubeDevice) -> Entries {
        let offsets = self.csr.offsets(&self.problem).expect("a valid problem");
        let panels = self.panels.as_ref().map(|panels| {
            let index = integers(device, panels.index().to_vec());
            Panels::new(index, panels)
        });
        entries(device, &self.csr, &offsets, self.dtype).with_panels(panels)
    }

    pub(crate) fn run(
        &self,
        device: &CubeDevice,
        fused: Fused,
        choice: Choice<ConvKernel>,
    ) -> Vec<f32> {
        let Self { problem, dtype, .. } = self;
        let bias = || floats(device, &self.bias, [self.bias.len()], *dtype);
        let residual = || floats(device, &self.residual, problem.output_shape(), *dtype);
        let epilogue = Epilogue {
            bias: matches!(fused, Fused::Bias | Fused::All).then(bias),
            residual: matches!(fused, Fused::Residual | Fused::All).then(residual),
            relu: fused == Fused::All,
        };
        let input = floats(device, &self.input, problem.input_shape(), *dtype);
        let entries = self.entries(device);
        poison(device, self.residual.len(), *dtype);
        read(sparse_conv(input, entries, epilogue, problem, choice))
    }
}

/// Tiles that a device can run for a batch: many, one and too many pixels per cube, all sub-batches,
/// chunks shorter than rows, remainders of every kind.
fn tiles(device: &CubeDevice, batch: usize) -> Vec<ConvTile> {
    let units = max_units(device);
    let odd = |tile: ConvTile, chunk, unroll| ConvTile {
        chunk,
        unroll,
        ..tile
    };
    let large = units.min(128);
    [
        ConvTile::staged([large, 1, 1]),
        ConvTile::staged([units.min(32), 4, 1]),
        ConvTile::staged([units.min(64), 1, 2]),
        ConvTile::staged([units.min(32), 2, 4]),
        ConvTile::staged([units.min(256), 1, 4]),
        ConvTile::staged([large, 1, 8]),
        ConvTile::direct([large, 1, 1]),
        ConvTile::direct([units.min(48), 3, 2]),
        ConvTile::direct([units.min(32), 4, 8]),
        ConvTile::direct([1, 2, 4]),
        odd(ConvTile::staged([units.min(32), 1, 1]), 7, 3),
        odd(ConvTile::staged([1, 2, 1]), 5, 2),
        odd(ConvTile::staged([units.min(96), 1, 3]), 3, 4),
    ]
    .into_iter()
    .filter(|tile| {
        let client = device.client();
        let hardware = &client.properties().hardware;
        tile.check(batch, hardware).is_ok() && (tile.chunk == 0 || has_shared_memory(device))
    })
    .collect()
}

#[test]
fn every_shape_and_batch() {
    for (name, device) in devices() {
        for case in cases() {
            for batch in [1, 3] {
                let operands = Operands::new(&case, batch, DType::F32);
                let got = operands.run(&device, Fused::Nothing, Choice::Heuristic);
                let what = format!("{name} {} batch {batch}", case.name);
                check(&got, &operands.exact(Fused::Nothing), DType::F32, &what);
            }
        }
    }
}

/// Escoin's kernels left the last image of an odd batch to whatever was in memory.
#[test]
fn every_tile_computes_every_image() {
    for (name, device) in devices() {
        for case in cases().iter().filter(|case| {
            ["same_3x3", "rows_longer_than_a_chunk", "stride_2"].contains(&case.name)
        }) {
            for batch in [1, 3, 5, 8] {
                let operands = Operands::new(case, batch, DType::F32);
                let exact = operands.exact(Fused::Nothing);
                for tile in tiles(&device, batch) {
                    let got = operands.run(&device, Fused::Nothing, Choice::Forced(tile.into()));
                    let what = format!("{name} {} batch {batch} {tile}", case.name);
                    check(&got, &exact, DType::F32, &what);
                }
            }
        }
    }
}

#[test]
fn epilogues() {
    for (name, device) in devices() {
        for case in cases()
            .iter()
            .filter(|case| ["groups", "no_non_zeros", "one_pixel"].contains(&case.name))
        {
            let operands = Operands::new(case, 5, DType::F32);
            for fused in [Fused::Bias, Fused::Residual, Fused::All] {
                let got = operands.run(&device, fused, Choice::Heuristic);
                let what = format!("{name} {} {fused:?}", case.name);
                check(&got, &operands.exact(fused), DType::F32, &what);
            }
        }
    }
}

#[test]
fn half_precision_sums_in_single() {
    for (name, device) in devices() {
        for case in cases() {
            let operands = Operands::new(&case, 3, DType::F16);
            let got = operands.run(&device, Fused::All, Choice::Heuristic);
            let what = format!("{name} {} f16", case.name);
            check(&got, &operands.exact(Fused::All), DType::F16, &what);
        }
    }
}

#[test]
fn the_tuned_tile_computes_the_same() {
    for (name, device) in devices() {
        for case in cases()
            .iter()
            .filter(|case| ["seven_by_seven", "stride_2", "no_non_zeros"].contains(&case.name))
        {
            let operands = Operands::new(case, 5, DType::F32);
            for round in 0..2 {
                let got = operands.run(&device, Fused::All, Choice::Tuned);
                let what = format!("{name} {} tuned, round {round}", case.name);
                check(&got, &operands.exact(Fused::All), DType::F32, &what);
            }
        }
    }
}

#[test]
fn an_empty_batch_gives_an_empty_result() {
    for (_, device) in devices() {
        let operands = Operands::new(&cases()[2], 0, DType::F32);
        for choice in [Choice::Tuned, Choice::Heuristic] {
            let input = floats(&device, &[], operands.problem.input_shape(), DType::F32);
            let entries = operands.entries(&device);
            let out = sparse_conv(
                input,
                entries,
                Epilogue::default(),
                &operands.problem,
                choice,
            );
            assert!(read(out).is_empty());
        }
    }
}

/// Indices are data: wrong ones must not reach outside of a tensor.
#[test]
fn wrong_indices_stay_in_bounds() {
    for (name, device) in devices() {
        let problem = ConvProblem::new(2, [2, 3], [4, 4], [3, 3]).with_padding([1, 1]);
        let input = floats(&device, &[1.0; 64], problem.input_shape(), DType::F32);
        for staged in [false, has_shared_memory(&device)] {
            let entries = Entries::new(
                floats(&device, &[1.0; 4], [4], DType::F32),
                integers(&device, vec![i32::MAX, -1, i32::MIN, 1_000_000]),
                integers(&device, vec![-5, 2, 99, i32::MAX]),
            );
            let tile = match staged {
                true => ConvTile::staged([max_units(&device).min(32), 1, 2]),
                false => ConvTile::direct([max_units(&device).min(32), 1, 2]),
            };
            let out = sparse_conv(
                input.clone(),
                entries,
                Epilogue::default(),
                &problem,
                Choice::Forced(tile.into()),
            );
            assert!(
                read(out).iter().all(|value| (0.0..=4.0).contains(value)),
                "{name}: something outside of the input was read"
            );
        }
    }
}

#[test]
#[should_panic(expected = "sub_batch must not exceed the batch")]
fn a_tile_that_breaks_its_rules_is_refused_with_the_rule() {
    let Some((_, device)) = devices().into_iter().next() else {
        panic!("sub_batch must not exceed the batch (skipped: no device)");
    };
    let operands = Operands::new(&cases()[0], 3, DType::F32);
    let tile = ConvTile::direct([1, 1, 4]);
    operands.run(&device, Fused::Nothing, Choice::Forced(tile.into()));
}
