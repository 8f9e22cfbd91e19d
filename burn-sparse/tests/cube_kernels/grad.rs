//! Gradients of the sparse convolution for its input and its values.

use burn::tensor::DType;
use burn_sparse::{
    format::Csr,
    kernel::{
        Choice, GradInputTile, GradValuesTile, sparse_conv_grad_input, sparse_conv_grad_values,
    },
};

use crate::support::*;

/// Weight, input and gradient of the output.
fn operands(case: &Case, batch: usize, dtype: DType) -> (Case, Csr, Vec<f32>, Vec<f32>) {
    let case = Case {
        problem: case.problem.with_batch(batch),
        ..*case
    };
    let problem = case.problem;
    let mut rng = rng(31 + batch as u64);
    let csr = weight(
        &mut rng,
        [problem.out_channels, problem.row_len()],
        case.density,
        dtype,
    );
    let input = numbers(&mut rng, problem.input_shape().iter().product(), dtype);
    let grad = numbers(&mut rng, problem.output_shape().iter().product(), dtype);
    (case, csr, input, grad)
}

fn check_input(case: &Case, batch: usize, dtype: DType, tile: Option<[usize; 3]>) {
    let (case, csr, input, grad) = operands(case, batch, dtype);
    let problem = case.problem;
    let dense = csr.to_dense();
    let mut exact = vec![Exact::default(); input.len()];
    for_each_term(&problem, |target, source, weight| {
        if dense[weight] != 0.0 {
            exact[source].add(dense[weight] as f64 * grad[target] as f64);
        }
    });
    for (name, device) in devices() {
        if tile.is_some_and(|[_, _, chunk]| chunk > 0) && !has_shared_memory(&device) {
            continue;
        }
        let choice = match tile {
            None => Choice::Heuristic,
            Some([units, sub_batch, chunk]) => Choice::Forced(GradInputTile {
                units: units.min(max_units(&device)),
                sub_batch,
                chunk,
            }),
        };
        let offsets = csr.offsets(&problem).expect("a valid problem");
        let entries = entries(&device, &csr, &offsets, dtype);
        let transpose = integers(&device, transposed(&csr, &problem));
        let grad = floats(&device, &grad, problem.output_shape(), dtype);
        poison(&device, input.len(), dtype);
        let got = sparse_conv_grad_input(grad, entries, transpose, &problem, choice);
        let what = format!("{name} {} batch {batch} {dtype:?} {choice:?}", case.name);
        check(&read(got), &exact, dtype, &what);
    }
}

fn check_values(case: &Case, batch: usize, dtype: DType, tile: Option<[usize; 3]>) {
    let (case, csr, input, grad) = operands(case, batch, dtype);
    let problem = case.problem;
    let mut dense = vec![Exact::default(); csr.rows() * csr.row_len()];
    for_each_term(&problem, |target, source, weight| {
        dense[weight].add(input[source] as f64 * grad[target] as f64);
    });
    let exact: Vec<Exact> = (0..csr.rows())
        .flat_map(|row| csr.row(row).map(move |(column, _)| (row, column)))
        .map(|(row, column)| dense[row * csr.row_len() + column])
        .collect();
    for (name, device) in devices() {
        if tile.is_some_and(|[_, lanes, _]| lanes > 1) && !has_shared_memory(&device) {
            continue;
        }
        let choice = match tile {
            None => Choice::Heuristic,
            Some([units, lanes, entries]) => Choice::Forced(GradValuesTile {
                units: units.min(max_units(&device)),
                lanes: lanes.min(max_units(&device)),
                entries,
            }),
        };
        let offsets = csr.offsets(&problem).expect("a valid problem");
        let indices = integers(&device, offsets.iter().map(|&o| o as i32).collect());
        let row_ptr = integers(&device, csr.row_ptr().iter().map(|&p| p as i32).collect());
        let input = floats(&device, &input, problem.input_shape(), dtype);
        let grad = floats(&device, &grad, problem.output_shape(), dtype);
        poison(&device, exact.len(), dtype);
        let got = sparse_conv_grad_values(input, grad, indices, row_ptr, &problem, choice);
        let what = format!("{name} {} batch {batch} {dtype:?} {choice:?}", case.name);
        check(&read(got), &exact, dtype, &what);
    }
}

#[test]
fn for_the_input_on_every_shape() {
    for case in cases() {
        for batch in [1, 5] {
            check_input(&case, batch, DType::F32, None);
        }
        check_input(&case, 3, DType::F16, None);
    }
}

#[test]
fn for_the_input_with_every_tile() {
    for case in cases().iter().filter(|case| {
        [
            "same_3x3",
            "dilation_and_stride",
            "rows_longer_than_a_chunk",
        ]
        .contains(&case.name)
    }) {
        for tile in [
            [32, 1, 64],
            [64, 2, 7],
            [128, 4, 64],
            [256, 5, 16],
            [1, 3, 1],
            [32, 1, 0],
            [64, 3, 0],
            [1, 5, 0],
        ] {
            check_input(case, 5, DType::F32, Some(tile));
        }
    }
}

#[test]
fn for_the_values_on_every_shape() {
    for case in cases() {
        for batch in [1, 5] {
            check_values(&case, batch, DType::F32, None);
        }
        check_values(&case, 3, DType::F16, None);
    }
}

#[test]
fn for_the_values_with_every_tile() {
    for case in cases()
        .iter()
        .filter(|case| ["same_3x3", "one_pixel", "rows_longer_than_a_chunk"].contains(&case.name))
    {
        for tile in [
            [32, 32, 1],
            [64, 64, 4],
            [128, 128, 8],
            [256, 256, 3],
            [1, 1, 2],
            [32, 1, 1],
            [64, 1, 5],
        ] {
            check_values(case, 5, DType::F32, Some(tile));
        }
    }
}
