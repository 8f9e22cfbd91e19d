//! The sparse product, gathered and streamed.

use burn::tensor::DType;
use burn_cubecl::CubeDevice;
use burn_sparse::kernel::{Choice, ConvTile, Epilogue, GatherTile, LinearTile, sparse_linear};

use crate::support::*;

fn run(
    [m, features, rows]: [usize; 3],
    density: f64,
    dtype: DType,
    fused: bool,
    choices: impl Fn(&CubeDevice) -> Vec<Choice<LinearTile>>,
) {
    let mut rng = rng((m * 1000 + features + rows) as u64);
    let csr = weight(&mut rng, [rows, features], density, dtype);
    let input = numbers(&mut rng, m * features, dtype);
    let bias = numbers(&mut rng, rows, dtype);
    let residual = numbers(&mut rng, m * rows, dtype);
    let more = fused.then_some((&bias[..], &residual[..]));
    let exact = exact_product(&csr, csr.values(), &input, more);
    for (name, device) in devices() {
        for choice in choices(&device) {
            let epilogue = Epilogue {
                bias: fused.then(|| floats(&device, &bias, [rows], dtype)),
                residual: fused.then(|| floats(&device, &residual, [m, rows], dtype)),
                relu: fused,
            };
            let entries = entries(&device, &csr, csr.columns(), dtype);
            let input = floats(&device, &input, [m, features], dtype);
            poison(&device, m * rows, dtype);
            let got = sparse_linear(input, entries, epilogue, rows, choice);
            let what = format!("{name} [{m}, {features}] x {rows} {dtype:?} {choice:?}");
            check(&read(got), &exact, dtype, &what);
        }
    }
}

const SHAPES: [[usize; 3]; 8] = [
    [1, 40, 17],
    [3, 300, 5],
    [5, 1, 9],
    [33, 29, 31],
    [2, 64, 1],
    [70, 100, 8],
    [1, 1, 1],
    [7, 13, 130],
];

#[test]
fn every_shape() {
    for shape in SHAPES {
        run(shape, 0.3, DType::F32, false, |_| vec![Choice::Heuristic]);
        run(shape, 0.3, DType::F16, true, |_| vec![Choice::Heuristic]);
    }
}

#[test]
fn no_non_zeros_leave_the_epilogue() {
    for fused in [false, true] {
        run([3, 8, 6], 0.0, DType::F32, fused, |_| {
            vec![
                Choice::Heuristic,
                Choice::Forced(LinearTile::Stream(ConvTile::direct([1, 2, 1]).into())),
            ]
        });
    }
}

#[test]
fn every_tile() {
    for shape in [[5, 300, 17], [33, 29, 31], [1, 40, 9]] {
        run(shape, 0.4, DType::F32, true, |device| {
            let units = max_units(device);
            let gather = [
                [64, 32, 1],
                [128, 8, 4],
                [32, 1, 1],
                [128, 4, 5],
                [64, 64, 3],
                [96, 16, 1],
                [1, 1, 1],
                [2, 2, 1],
                [8, 4, 3],
            ]
            .into_iter()
            .chain([[units.min(48), 1, 3], [units.min(32), 1, 5]])
            .filter(|&[wide, lanes, inputs]| {
                let shared = lanes == 1 || has_shared_memory(device);
                wide <= units && inputs <= shape[0] && shared
            })
            .map(|tile| LinearTile::Gather(GatherTile::new(tile)));
            let stream = [[128, 1, 1], [32, 4, 1], [64, 2, 1]]
                .into_iter()
                .map(|[wide, pixels, images]| [wide.min(units), pixels, images])
                .flat_map(|tile| [ConvTile::staged(tile), ConvTile::direct(tile)])
                .filter(|tile| tile.chunk == 0 || has_shared_memory(device))
                .map(|tile| LinearTile::Stream(tile.into()));
            gather.chain(stream).map(Choice::Forced).collect()
        });
    }
}

#[test]
fn the_tuned_tile_computes_the_same() {
    run([5, 300, 17], 0.2, DType::F32, true, |_| {
        vec![Choice::Tuned; 2]
    });
}
