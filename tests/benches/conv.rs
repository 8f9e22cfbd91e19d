//! Times `sparse_conv2d` beside the dense convolution, on every convolution of the catalogue's
//! ResNet-50.
//!
//! ```text
//! cargo bench -p tests --bench conv
//! BURN_DEVICE=cuda cargo bench -p tests --bench conv --features cuda -- 3x3
//! ```

use burn::tensor::Device;
use burn_sparse::catalogue::{self, Case, RESNET50};
use burn_sparse::format::Csr;
use burn_sparse::ops::{ConvWindow, Epilogue, SparseWeight, dense_conv2d, sparse_conv2d};
use divan::Bencher;
use examples::device::select;
use tests::tensor;

fn main() {
    divan::main();
}

fn names() -> impl Iterator<Item = &'static str> {
    RESNET50.iter().map(|case| case.name)
}

fn case(name: &str) -> &'static Case {
    let found = RESNET50.iter().find(|case| case.name == name);
    found.expect("a name of the catalogue")
}

/// That of `BURN_DEVICE`, else the one the examples take.
fn device() -> Device {
    let name = std::env::var("BURN_DEVICE").unwrap_or_else(|_| "auto".into());
    let choice = name.parse().expect("BURN_DEVICE names a backend");
    select(choice).expect("BURN_DEVICE can be opened").device
}

fn window(case: &Case) -> ConvWindow<2> {
    ConvWindow {
        kernel: case.problem.kernel,
        stride: case.problem.stride,
        padding: case.problem.padding,
        dilation: case.problem.dilation,
        groups: case.problem.groups,
    }
}

fn operands(case: &Case) -> (Vec<f32>, Vec<f32>) {
    let len = |shape: [usize; 4]| shape.iter().product();
    let input = catalogue::values(len(case.problem.input_shape()), 1);
    let weight = catalogue::weight(len(case.problem.weight_shape()), case.density, 2);
    (input, weight)
}

#[divan::bench(args = names())]
fn sparse(bencher: Bencher, name: &str) {
    let (case, device) = (case(name), device());
    let (input, weight) = operands(case);
    let shape = [case.problem.out_channels, case.problem.row_len()];
    let csr = Csr::from_dense(&weight, shape).expect("a valid weight");
    let weight = SparseWeight::new(csr, &device);
    let (input, window) = (
        tensor(&input, case.problem.input_shape(), &device),
        window(case),
    );
    bencher.bench_local(|| {
        let y = sparse_conv2d(input.clone(), &weight, &window, Epilogue::new());
        device.sync().expect("the device answers");
        y
    });
}

#[divan::bench(args = names())]
fn dense(bencher: Bencher, name: &str) {
    let (case, device) = (case(name), device());
    let (input, weight) = operands(case);
    let input = tensor(&input, case.problem.input_shape(), &device);
    let weight = tensor(&weight, case.problem.weight_shape(), &device);
    let window = window(case);
    bencher.bench_local(|| {
        let y = dense_conv2d(input.clone(), weight.clone(), None, &window);
        device.sync().expect("the device answers");
        y
    });
}
