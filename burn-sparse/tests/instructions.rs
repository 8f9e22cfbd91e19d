//! Layers whose instructions `scripts/instructions` counts under valgrind's callgrind. Run as
//! ordinary tests, they only look at the outputs.
//!
//! Everything is fixed, plans too: the counts are those of the kernels, whatever plans are guessed.

use std::hint::black_box;
use std::sync::Arc;

use burn_sparse::ConvProblem;
use burn_sparse::catalogue::{values, weight};
use burn_sparse::cpu::{
    self, Bundles, Direct, Entries, Finish, Images, ImagesMut, Isa, Order, Plan, RowFinish, Rows,
    Storage, padded_plane,
};
use burn_sparse::format::Csr;
use half::f16;

/// A tile of one row and seven vectors over the whole image.
const PLAN: Plan = Plan {
    rows: 1,
    vectors: 7,
    blocks: 2,
    shifted: true,
    align: 8,
    strip: usize::MAX,
    panel: None,
    compiled: false,
};

/// A tile of four rows that share their loads.
const SHARED: Plan = Plan {
    rows: 4,
    vectors: 3,
    blocks: 1,
    shifted: false,
    align: 1,
    strip: usize::MAX,
    panel: None,
    compiled: false,
};

/// What is counted: callgrind collects while a function of this name runs.
#[inline(never)]
fn counted_kernel(work: &mut (dyn FnMut() + Send)) {
    work();
}

/// Runs a kernel twice on a thread of the pool, with one to which nothing is handed over: the first
/// time it finds its instruction set and allocates, the second time it is counted.
fn count(mut work: impl FnMut() + Send) {
    cpu::on_pool(|| {
        work();
        counted_kernel(&mut work);
    });
}

fn check(out: &[f32]) {
    assert!(out.iter().all(|y| y.is_finite() && *y >= 0.0));
    assert!(out.iter().any(|y| *y > 0.0));
}

/// Rows of which a tenth is not zero, `shared` of them at a time at the same places.
fn pruned(problem: &ConvProblem, shared: usize) -> Csr {
    let len = problem.row_len();
    let mut dense = values(problem.out_channels * len, 1);
    for (row, weights) in dense.chunks_mut(len).enumerate() {
        // Near seeds give the same numbers, shifted by a few.
        let kept = weight(len, 0.1, 1_000_003 * (row / shared) as u64);
        let pairs = weights.iter_mut().zip(kept);
        pairs
            .filter(|pair| pair.1 == 0.0)
            .for_each(|pair| *pair.0 = 0.0);
    }
    Csr::from_dense(&dense, [problem.out_channels, len]).unwrap()
}

fn same(channels: [usize; 2], size: usize, kernel: usize) -> ConvProblem {
    let problem = ConvProblem::new(1, channels, [size; 2], [kernel; 2]);
    problem.with_padding([kernel / 2; 2])
}

fn conv<T: Storage + From<f16>>(problem: &ConvProblem, csr: &Csr, plan: Plan)
where
    f32: From<T>,
{
    let direct = Direct::new(problem, Rows::from(csr), plan, Isa::current()).unwrap();
    // As the layers of a network hand images to each other.
    let planes = [padded_plane(problem.input), padded_plane(problem.output())];
    let input = values(problem.in_channels * planes[0], 2);
    let input: Vec<T> = input
        .into_iter()
        .map(|x| T::from(f16::from_f32(x)))
        .collect();
    let mut out = vec![T::from(f16::ZERO); problem.out_channels * planes[1]];
    let finish = Finish {
        relu: true,
        ..Finish::default()
    };
    count(|| {
        let input = Images::contiguous(black_box(&input), [problem.in_channels, planes[0]]);
        let out = ImagesMut::contiguous(black_box(&mut out), [problem.out_channels, planes[1]]);
        direct.run(1, input, finish, out);
    });
    let [height, width] = problem.output();
    let out: Vec<f32> = out.into_iter().map(f32::from).collect();
    for plane in out.chunks(planes[1]) {
        check(&plane[..height * width]);
    }
}

#[test]
fn conv_3x3() {
    let problem = same([128, 128], 28, 3);
    conv::<f32>(&problem, &pruned(&problem, 1), PLAN);
}

#[test]
fn conv_3x3_stride_2() {
    let problem = same([128, 128], 28, 3).with_stride([2, 2]);
    conv::<f32>(&problem, &pruned(&problem, 1), PLAN);
}

#[test]
fn conv_3x3_blocks_of_4() {
    let problem = same([128, 128], 28, 3);
    conv::<f32>(&problem, &pruned(&problem, 4), SHARED);
}

#[test]
fn conv_3x3_dense() {
    let problem = same([64, 64], 14, 3);
    let dense = values(64 * problem.row_len(), 1);
    let csr = Csr::from_dense(&dense, [64, problem.row_len()]).unwrap();
    conv::<f32>(&problem, &csr, SHARED);
}

/// Read where it lies.
#[test]
fn conv_1x1() {
    let problem = same([512, 256], 14, 1);
    let plan = Plan {
        shifted: false,
        ..PLAN
    };
    conv::<f32>(&problem, &pruned(&problem, 1), plan);
}

/// Widened on the way in, rounded on the way out.
#[test]
fn conv_1x1_f16() {
    let problem = same([512, 256], 14, 1);
    let plan = Plan {
        shifted: false,
        ..PLAN
    };
    conv::<f16>(&problem, &pruned(&problem, 1), plan);
}

/// `rows` vectors by a matrix of entries.
fn rows(rows: usize) {
    let problem = ConvProblem::new(rows, [1024, 1000], [1, 1], [1, 1]);
    let csr = pruned(&problem, 1);
    let signed = |indices: &[u32]| indices.iter().map(|&i| i as i32).collect::<Vec<_>>();
    let (columns, row_ptr) = (signed(csr.columns()), signed(csr.row_ptr()));
    let entries = Entries {
        values: csr.values(),
        offsets: &columns,
        row_ptr: &row_ptr,
    };
    let input = values(rows * problem.in_channels, 2);
    let mut out = vec![0.0; rows * problem.out_channels];
    let finish = Finish {
        relu: true,
        ..Finish::default()
    };
    count(|| {
        cpu::sparse_linear(
            black_box(&input),
            1024,
            entries,
            finish,
            black_box(&mut out),
        )
    });
    check(&out);
}

#[test]
fn linear() {
    rows(1);
}

#[test]
fn linear_32_rows() {
    rows(32);
}

/// One vector by a matrix in bundles.
fn row(shared: usize, layout: &str) {
    let problem = ConvProblem::new(1, [1024, 1000], [1, 1], [1, 1]);
    let csr = pruned(&problem, shared);
    let order = Order::new(Rows::from(&csr), csr.row_len(), Isa::current());
    if Isa::current() == Isa::Avx2 {
        assert_eq!(order.layout(), layout);
    }
    let bundles = Bundles::new(Arc::new(order), csr.values());
    let input = values(problem.in_channels, 2);
    let mut out = vec![0.0; problem.out_channels];
    let finish = RowFinish {
        relu: true,
        ..RowFinish::default()
    };
    count(|| bundles.run(black_box(&input), finish, black_box(&mut out)));
    check(&out);
}

#[test]
fn linear_row() {
    row(1, "windows");
}

#[test]
fn linear_row_blocks_of_16() {
    row(16, "shared");
}
