//! Weights whose rows share inputs: patterns, heights, tiles, matrix units in emulation, wrong indices.

use burn::tensor::DType;
use burn_cubecl::CubeDevice;
use burn_sparse::{
    ConvProblem,
    format::{Csr, PanelEntries},
    kernel::{
        Choice, ConvKernel, Entries, Epilogue, GatherTile, LinearTile, MatrixTile, PanelTile,
        Panels, sparse_conv, sparse_linear,
    },
};

use crate::{
    conv::{Fused, Operands},
    support::*,
};

/// Patterns on convolutions at the edges, with the heights and widths of their panels.
fn patterns() -> Vec<(ConvProblem, Structure, [usize; 2])> {
    use Structure::{Bands, BlockColumnRow, Empty, KernelPatterns, Punched};
    let plain = |channels, input, kernel| ConvProblem::new(1, channels, input, kernel);
    vec![
        // Blocks that the edges cut off, below and to the right.
        (
            plain([8, 19], [7, 6], [3, 3]).with_padding([1, 1]),
            BlockColumnRow([8, 32]),
            [8, 32],
        ),
        (
            plain([6, 14], [9, 8], [3, 3])
                .with_stride([2, 2])
                .with_padding([1, 0])
                .with_groups(2),
            Punched([4, 2]),
            [4, 9],
        ),
        (
            plain([4, 21], [9, 10], [3, 3])
                .with_dilation([2, 2])
                .with_padding([1, 2]),
            KernelPatterns,
            [16, 9],
        ),
        (plain([24, 10], [1, 1], [1, 1]), Bands(4), [4, 24]),
        // Panels of one row each.
        (
            plain([5, 6], [4, 5], [2, 3]),
            BlockColumnRow([1, 7]),
            [4, 7],
        ),
        (plain([3, 5], [3, 4], [3, 3]), Empty, [8, 9]),
    ]
}

fn operands(
    (problem, structure, [height, width]): &(ConvProblem, Structure, [usize; 2]),
    batch: usize,
    dtype: DType,
) -> Operands {
    let problem = problem.with_batch(batch);
    problem.check().expect("a valid problem");
    let shape = [problem.out_channels, problem.row_len()];
    let positions = problem.kernel[0] * problem.kernel[1];
    let csr = structured(&mut rng(3), shape, positions, *structure, dtype);
    Operands::of(problem, csr, dtype).with_panels(*height, *width)
}

#[test]
fn every_pattern() {
    for (name, device) in devices() {
        for pattern in patterns() {
            for (batch, dtype, fused) in [
                (1, DType::F32, Fused::Nothing),
                (3, DType::F32, Fused::All),
                (3, DType::F16, Fused::All),
            ] {
                let operands = operands(&pattern, batch, dtype);
                let got = operands.run(&device, fused, Choice::Heuristic);
                let what = format!("{name} {pattern:?} batch {batch} {dtype:?}");
                check(&got, &operands.exact(fused), dtype, &what);
            }
        }
    }
}

/// Chunks shorter and longer than panels, remainders of every kind, more pixels than there are.
fn tiles(device: &CubeDevice) -> Vec<PanelTile> {
    let units = max_units(device);
    let odd = |tile: PanelTile, chunk, unroll| PanelTile {
        chunk,
        unroll,
        ..tile
    };
    [
        PanelTile::staged([units.min(32), 1, 1]),
        PanelTile::staged([units.min(64), 2, 4]),
        odd(PanelTile::staged([units.min(48), 3, 1]), 7, 3),
        odd(PanelTile::staged([1, 1, 2]), 5, 2),
        PanelTile::direct([units.min(32), 2, 2]),
        odd(PanelTile::direct([1, 1, 5]), 0, 3),
    ]
    .into_iter()
    .filter(|tile| tile.chunk == 0 || has_shared_memory(device))
    .collect()
}

#[test]
fn every_plain_tile_computes_every_image() {
    let patterns = patterns();
    for (name, device) in devices() {
        for (pattern, batch) in [(&patterns[0], 5), (&patterns[1], 4), (&patterns[2], 5)] {
            let operands = operands(pattern, batch, DType::F32);
            let exact = operands.exact(Fused::Bias);
            let height = pattern.2[0];
            for tile in tiles(&device) {
                let client = device.client();
                if tile
                    .check(height, batch, &client.properties().hardware)
                    .is_err()
                {
                    continue;
                }
                let kernel = ConvKernel::Panels(tile);
                let got = operands.run(&device, Fused::Bias, Choice::Forced(kernel));
                let what = format!("{name} {pattern:?} batch {batch} {kernel}");
                check(&got, &exact, DType::F32, &what);
            }
        }
    }
}

/// Two planes of as many units as this device lets them have, with tiles multiplied by plain loops.
fn emulated(device: &CubeDevice) -> MatrixTile {
    let plane = 1 << (max_units(device) / 2).clamp(1, 8).ilog2();
    MatrixTile::new([2, plane, 32 / plane]).emulated()
}

/// Everything of the kernel for matrix units but the instruction itself; the instruction where there
/// is one.
fn matrix_tiles(device: &CubeDevice, height: usize) -> Vec<MatrixTile> {
    if !has_shared_memory(device) {
        return Vec::new();
    }
    let client = device.client();
    let plane = client.properties().hardware.plane_size_max as usize;
    let f16 = cubecl::ir::ElemType::Float(cubecl::ir::FloatKind::F16);
    let wide = MatrixTile {
        planes: 1,
        pixels: 2 * emulated(device).pixels,
        chunk: 16,
        ..emulated(device)
    };
    [
        emulated(device),
        wide,
        MatrixTile::new([4, plane, 1]),
        MatrixTile::new([2, plane, 2]),
    ]
    .into_iter()
    .filter(|tile| tile.check(height, f16, client.properties()).is_ok())
    .collect()
}

#[test]
fn tiles_of_matrix_units_hold_what_they_should() {
    let patterns = patterns();
    for (name, device) in devices() {
        // Bands of 8 and 4 rows in tiles of 8, of 16 in tiles of 16; nothing at all.
        for (pattern, batch) in [
            (&patterns[0], 2),
            (&patterns[1], 3),
            (&patterns[2], 1),
            (&patterns[5], 2),
        ] {
            for tile in matrix_tiles(&device, pattern.2[0]) {
                let kernel = ConvKernel::MatrixUnits(tile);
                for (dtype, fused) in [(DType::F16, Fused::All), (DType::F32, Fused::Nothing)] {
                    if dtype == DType::F32 && !tile.emulated {
                        continue;
                    }
                    let operands = operands(pattern, batch, dtype);
                    let got = operands.run(&device, fused, Choice::Forced(kernel));
                    let what = format!("{name} {pattern:?} batch {batch} {dtype:?} {kernel}");
                    check(&got, &operands.exact(fused), dtype, &what);
                }
            }
        }
    }
}

#[test]
fn the_tuned_kernel_computes_the_same() {
    for (name, device) in devices() {
        let operands = operands(&patterns()[0], 5, DType::F32);
        for round in 0..2 {
            let got = operands.run(&device, Fused::All, Choice::Tuned);
            let what = format!("{name} tuned, round {round}");
            check(&got, &operands.exact(Fused::All), DType::F32, &what);
        }
    }
}

/// A product of `m` inputs with a structured weight, and what it is exactly.
struct Product {
    sizes: [usize; 3],
    dtype: DType,
    csr: Csr,
    panels: PanelEntries,
    input: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
    exact: Vec<Exact>,
}

impl Product {
    fn new(
        [m, features, rows]: [usize; 3],
        structure: Structure,
        [height, width]: [usize; 2],
        dtype: DType,
    ) -> Self {
        let mut rng = rng((m * 1000 + features + rows) as u64);
        let csr = structured(&mut rng, [rows, features], 1, structure, dtype);
        let mut random = |len| numbers(&mut rng, len, dtype);
        let [input, bias, residual] = [m * features, rows, m * rows].map(&mut random);
        let exact = exact_product(&csr, csr.values(), &input, Some((&bias, &residual)));
        Self {
            sizes: [m, features, rows],
            panels: PanelEntries::new(&csr, 1, height, width).expect("a valid height and width"),
            dtype,
            csr,
            input,
            bias,
            residual,
            exact,
        }
    }

    fn check(&self, name: &str, device: &CubeDevice, choice: Choice<LinearTile>) {
        let Self { sizes, dtype, .. } = self;
        let [m, features, rows] = *sizes;
        let epilogue = Epilogue {
            bias: Some(floats(device, &self.bias, [rows], *dtype)),
            residual: Some(floats(device, &self.residual, [m, rows], *dtype)),
            relu: true,
        };
        let index = integers(device, self.panels.index().to_vec());
        let entries = entries(device, &self.csr, self.csr.columns(), *dtype)
            .with_panels(Panels::new(index, &self.panels));
        let input = floats(device, &self.input, [m, features], *dtype);
        poison(device, m * rows, *dtype);
        let got = sparse_linear(input, entries, epilogue, rows, choice);
        let what = format!("{name} {sizes:?} {dtype:?} {choice:?}");
        check(&read(got), &self.exact, *dtype, &what);
    }
}

#[test]
fn products_of_few_and_of_many_inputs() {
    let blocks = Structure::BlockColumnRow([8, 16]);
    for (sizes, structure, panel) in [
        ([1, 70, 29], blocks, [8, 16]),
        ([5, 70, 29], blocks, [8, 16]),
        ([35, 70, 29], blocks, [8, 16]),
        ([3, 40, 17], Structure::Bands(4), [4, 40]),
        ([2, 9, 1], Structure::Empty, [4, 9]),
        ([1, 1, 1], Structure::Bands(1), [16, 1]),
    ] {
        for dtype in [DType::F32, DType::F16] {
            let product = Product::new(sizes, structure, panel, dtype);
            for (name, device) in devices() {
                product.check(name, &device, Choice::Heuristic);
            }
        }
    }
}

#[test]
fn products_with_every_tile() {
    let blocks = Structure::BlockColumnRow([8, 16]);
    for height in [4, 16] {
        let product = Product::new([5, 100, 43], blocks, [height, 16], DType::F32);
        for (name, device) in devices() {
            let shared = has_shared_memory(&device);
            let units = max_units(&device);
            let gather = [[32, 8, 1], [16, 16, 4], [8, 1, 3], [1, 1, 2]]
                .into_iter()
                .filter(|&[wide, lanes, _]| wide <= units && (lanes == 1 || shared))
                .map(|tile| LinearTile::GatherPanels(GatherTile::new(tile)));
            let mut stream = vec![ConvKernel::Panels(PanelTile::direct([units.min(32), 2, 1]))];
            if shared {
                stream.push(ConvKernel::Panels(PanelTile::staged([units.min(32), 1, 1])));
                stream.push(ConvKernel::MatrixUnits(emulated(&device)));
            }
            for tile in gather.chain(stream.into_iter().map(LinearTile::Stream)) {
                product.check(name, &device, Choice::Forced(tile));
            }
            if height == 4 {
                product.check(name, &device, Choice::Tuned);
            }
        }
    }
}

/// Indices are data: wrong ones must not reach outside of a tensor. Inputs and values are ones, so
/// what is added up counts what was read.
#[test]
fn wrong_indices_stay_in_bounds() {
    let problem = ConvProblem::new(2, [2, 5], [4, 4], [3, 3]).with_padding([1, 1]);
    let csr = structured(&mut rng(3), [5, 18], 9, Structure::Bands(2), DType::F32);
    let panels = PanelEntries::new(&csr, 1, 4, 18).expect("a valid height and width");
    let len = panels.index().len();
    let wild = [i32::MAX, -1, i32::MIN, 1_000_000, 3, 0, -7, 65_536];
    for (name, device) in devices() {
        let shared = has_shared_memory(&device);
        let units = max_units(&device).min(32);
        for shift in 0..wild.len() {
            let index = (0..len).map(|i| wild[(i * 5 + shift + i / 8) % wild.len()]);
            let entries = |indices: Vec<i32>| {
                Entries::new(
                    floats(
                        &device,
                        &vec![1.0; csr.stored()],
                        [csr.stored()],
                        DType::F32,
                    ),
                    integers(&device, indices),
                    integers(&device, vec![0; 6]),
                )
                .with_panels(Panels::new(
                    integers(&device, index.clone().collect()),
                    &panels,
                ))
            };
            let indices: Vec<i32> = (0..csr.stored()).map(|i| wild[i % wild.len()]).collect();
            let most = 4.0 * panels.columns() as f32 * csr.stored() as f32;
            let fits = |out: Vec<f32>| {
                // Rows that no band names any more are left as they were.
                let read = |value: &f32| !(*value > most && value.is_finite());
                assert!(out.iter().all(read), "{name}: something outside was read");
            };
            let mut kernels = vec![ConvKernel::Panels(PanelTile::direct([units, 1, 2]))];
            if shared {
                kernels.push(ConvKernel::Panels(PanelTile::staged([units, 1, 2])));
                kernels.push(ConvKernel::MatrixUnits(emulated(&device)));
            }
            for kernel in kernels {
                let input = floats(&device, &[1.0; 64], problem.input_shape(), DType::F32);
                let entries = entries(indices.clone());
                // What no band writes is to be NaN, not what another test has left there.
                poison(&device, 2 * 5 * 4 * 4, DType::F32);
                fits(read(sparse_conv(
                    input,
                    entries,
                    Epilogue::default(),
                    &problem,
                    Choice::Forced(kernel),
                )));
            }
            let tile = LinearTile::GatherPanels(GatherTile::new([units, 1, 2]));
            let input = floats(&device, &[1.0; 2 * 18], [2, 18], DType::F32);
            let entries = entries(indices.clone());
            let choice = Choice::Forced(tile);
            poison(&device, 2 * 5, DType::F32);
            fits(read(sparse_linear(
                input,
                entries,
                Epilogue::default(),
                5,
                choice,
            )));
        }
    }
}

#[test]
#[should_panic(expected = "this weight comes without panels; run it by its entries")]
fn a_weight_without_panels_is_refused_by_kernels_for_them() {
    let Some((_, device)) = devices().into_iter().next() else {
        panic!("this weight comes without panels; run it by its entries (skipped: no device)");
    };
    let mut operands = operands(&patterns()[3], 1, DType::F32);
    operands.panels = None;
    let kernel = ConvKernel::Panels(PanelTile::direct([1, 1, 1]));
    operands.run(&device, Fused::Nothing, Choice::Forced(kernel));
}

#[test]
#[should_panic(expected = "rows of a band * pixels * sub_batch must not exceed 64 sums")]
fn a_tile_of_too_many_sums_is_refused_with_the_rule() {
    let Some((_, device)) = devices().into_iter().next() else {
        panic!("rows of a band * pixels * sub_batch must not exceed 64 sums (skipped: no device)");
    };
    let operands = operands(&patterns()[2], 1, DType::F32);
    let kernel = ConvKernel::Panels(PanelTile::direct([1, 5, 1]));
    operands.run(&device, Fused::Nothing, Choice::Forced(kernel));
}
