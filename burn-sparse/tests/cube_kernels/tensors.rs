//! The operations on tensors, through dispatch, fusion and autodiff, against the same on Flex.
#![cfg(feature = "flex")]

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, DeviceKind, Tensor, TensorData};
use burn_sparse::{
    format::{CodeWords, Csr, PanelEntries},
    nn::{Linear, LinearConfig},
    ops::{Activation, ConvWindow, Epilogue, SparseWeight, sparse_conv2d, sparse_linear},
};

use crate::support::{Structure, devices, numbers, rng, structured, weight};

/// The CubeCL devices of this machine as users name them.
fn user_devices() -> Vec<(&'static str, Device)> {
    devices()
        .into_iter()
        .map(|(name, _)| match name {
            "vulkan" => (name, Device::vulkan(DeviceKind::Cpu)),
            "cpu" => (name, Device::cpu()),
            _ => (name, Device::default()),
        })
        .collect()
}

fn random<const D: usize>(seed: u64, shape: [usize; D], device: &Device) -> Tensor<D> {
    let data = numbers(
        &mut rng(seed),
        shape.iter().product(),
        burn::tensor::DType::F32,
    );
    Tensor::from_data(TensorData::new(data, shape), device)
}

/// Two weights with kernels of `positions` weights: one whose rows share no inputs, and one of panels.
fn patterns(row_len: usize, positions: usize) -> [Csr; 2] {
    let dtype = burn::tensor::DType::F32;
    let single = weight(&mut rng(3), [6, row_len], 0.3, dtype);
    let bands = Structure::Bands(8);
    let panels = structured(&mut rng(3), [8, row_len], positions, bands, dtype);
    let found = [&single, &panels].map(|csr| PanelEntries::find(csr, positions, 1).is_some());
    assert_eq!(found, [false, true]);
    [single, panels]
}

/// Largest difference between results, which must be finite and as long as each other.
fn assert_close(got: TensorData, expected: TensorData, what: &str) {
    let [got, expected] =
        [got, expected].map(|data| data.try_to_vec::<f32>().expect("f32 results"));
    assert_eq!(got.len(), expected.len(), "{what}: length");
    for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
        // Both are f32 sums of at most a few hundred terms below 1.
        let close = (got - expected).abs() <= 1e-4;
        assert!(close, "{what}: {got} instead of {expected} at {i}");
    }
}

/// A residual block's convolution with everything fused, then one more operation for fusion.
fn convolve(csr: Csr, device: &Device) -> TensorData {
    let rows = csr.rows();
    let weight = SparseWeight::new(csr, device);
    let mut window = ConvWindow::new([3, 3]);
    window.stride = [2, 1];
    window.padding = [[1, 1], [0, 1]];
    let x = random(5, [3, 4, 9, 8], device) * 0.5;
    let [height, width] = window.problem(x.dims(), rows).expect("fits").output();
    let epilogue = Epilogue::new()
        .with_bias(random(6, [rows], device))
        .with_residual(random(7, [3, rows, height, width], device))
        .with_activation(Activation::Relu);
    (sparse_conv2d(x, &weight, &window, epilogue) * 2.0 + 1.0).into_data()
}

#[test]
fn a_convolution_between_fused_operations() {
    for csr in patterns(36, 9) {
        let expected = convolve(csr.clone(), &Device::flex());
        for (name, device) in user_devices() {
            assert_close(convolve(csr.clone(), &device), expected.clone(), name);
        }
    }
}

/// Gradients for input and values of a convolution and a product.
fn gradients([convolution, product]: [&Csr; 2], device: &Device) -> Vec<TensorData> {
    let device = device.clone().autodiff();
    let trained = |csr: &Csr| {
        let weight = SparseWeight::new(csr.clone(), &device);
        SparseWeight::from_parts(weight.values().require_grad(), weight.pattern().clone())
    };
    let mut results = Vec::new();

    let kernel = trained(convolution);
    let x = random(8, [3, 4, 7, 7], &device).require_grad();
    let mut window = ConvWindow::new([3, 3]);
    window.padding = [[1, 1], [1, 1]];
    let y = sparse_conv2d(x.clone(), &kernel, &window, Epilogue::new());
    let factor = random(9, y.dims(), &device);
    let grads = (y * factor).backward();
    results.push(x.grad(&grads).expect("of the input").into_data());
    results.push(kernel.values().grad(&grads).expect("of values").into_data());

    let kernel = trained(product);
    let x = random(10, [5, 20], &device).require_grad();
    let y = sparse_linear(x.clone(), &kernel, Epilogue::new());
    let factor = random(11, y.dims(), &device);
    let grads = (y * factor).backward();
    results.push(x.grad(&grads).expect("of the input").into_data());
    results.push(kernel.values().grad(&grads).expect("of values").into_data());
    results
}

#[test]
fn gradients_are_those_of_flex() {
    let [convolutions, products] = [patterns(36, 9), patterns(20, 1)];
    for csr in convolutions.iter().zip(&products).map(|(c, p)| [c, p]) {
        let expected = gradients(csr, &Device::flex());
        for (name, device) in user_devices() {
            let got = gradients(csr, &device);
            for (i, (got, expected)) in got.into_iter().zip(&expected).enumerate() {
                assert_close(got, expected.clone(), &format!("{name}, gradient {i}"));
            }
        }
    }
}

/// Doubles what it finds, as training might.
struct Twice;

impl ModuleMapper for Twice {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor * 2.0)
    }
}

/// A layer of 24 by 40 whose weights have six levels and zero.
fn coded_layer(device: &Device) -> Linear {
    let mut layer = LinearConfig::new(24, 40).with_bias(false).init(device);
    let levels = (0..24 * 40).map(|at| ((at * 31 % 61) as f32 - 30.0).clamp(-3.0, 4.0) * 0.25);
    let levels = levels.map(|level| if level.abs() > 0.9 { 0.0 } else { level });
    let data = TensorData::new(levels.collect(), [24, 40]);
    layer.weight = Param::from_tensor(Tensor::<2>::from_data(data, device)).into();
    layer.pack().expect("packs")
}

#[test]
fn packed_layers_read_codes_until_their_values_change() {
    let flex = coded_layer(&Device::flex());
    let csr = flex.weight.packed().expect("packed").pattern().csr();
    assert!(CodeWords::find(csr).is_some_and(|codes| codes.bits() <= 4));
    for (name, device) in user_devices() {
        let layer = coded_layer(&device);
        let doubled = layer.clone().map(&mut Twice);
        for m in [1, 3, 40] {
            let x = |device: &Device| random::<2>(12, [m, 24], device);
            let expected = flex.forward(x(&Device::flex()));
            let got = layer.forward(x(&device));
            assert_close(got.into_data(), expected.clone().into_data(), name);
            let got = doubled.forward(x(&device));
            assert_close(got.into_data(), (expected * 2.0).into_data(), name);
        }
    }
}
