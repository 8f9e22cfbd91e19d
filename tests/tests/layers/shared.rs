//! Layers whose channels share their kernels.

use burn::module::Param;
use burn::nn::PaddingConfig2d;
use burn::tensor::{Device, Distribution, Tensor};
use burn_sparse::{
    SparseError, catalogue,
    nn::{Activation, Conv2d, Conv2dConfig, Factors, Trace, Weight, weights},
    ops::{ConvWindow, Epilogue, dense_conv2d},
    pack::{self, Choice, PackConfig},
    reference::{self, error_bound},
    store,
};
use tests::{assert_close, devices_with_shared_memory as devices, floats, tensor};

const F32: f64 = f32::EPSILON as f64;

fn weight(values: &[f32], shape: [usize; 4], device: &Device) -> Weight<4> {
    Param::from_tensor(tensor(values, shape, device)).into()
}

/// The layer with `kernels` shared kernels and so many coefficients; basis and coefficients as well.
fn shared(
    config: &Conv2dConfig,
    kernels: usize,
    density: f64,
    device: &Device,
) -> (Conv2d, Vec<f32>, Vec<f32>) {
    let mut conv = config.init(device);
    let [out, channels, height, width] = conv.weight.dims();
    let basis = catalogue::values(kernels * height * width, 5);
    let coefficients = catalogue::weight(out * channels * kernels, density, 6);
    let core = weight(&basis, [kernels, 1, height, width], device);
    let expand = weight(&coefficients, [out, channels * kernels, 1, 1], device);
    let factors = Factors::new(None, core, Some(expand)).unwrap();
    assert!(factors.is_shared() && factors.dims() == conv.weight.dims());
    conv.weight = factors.with_id(conv.weight.id()).into();
    (conv, basis, coefficients)
}

#[test]
fn shared_kernels_match_the_reference_dense_and_packed() {
    let plain = Conv2dConfig::new([6, 7], [3, 3]);
    let configs = [
        plain
            .clone()
            .with_stride([2, 2])
            .with_padding(PaddingConfig2d::Explicit(1, 0, 2, 1)),
        plain
            .clone()
            .with_dilation([2, 1])
            .with_padding(PaddingConfig2d::Same)
            .with_bias(false),
        Conv2dConfig::new([6, 7], [10, 9]),
    ];
    for (name, device) in devices() {
        // Elsewhere they are two convolutions of the device's own, and compiling them takes its time.
        let few = if name == "flex" { usize::MAX } else { 1 };
        for (case, config) in configs.iter().enumerate().take(few) {
            for (kernels, density) in [(5, 0.3), (1, 1.0), (3, 0.0)].into_iter().take(few) {
                let (conv, basis, coefficients) = shared(config, kernels, density, &device);
                let shape = [3, 6, 10, 9];
                let x = catalogue::values(shape.iter().product(), 77);
                let window: ConvWindow<2> = conv.window([10, 9]);
                let problem = window.problem(shape, 7).unwrap();
                let bias = conv.bias.as_ref().map(|bias| floats(bias.val()));
                let bias = bias.as_deref();
                let expected = reference::shared_conv2d(&x, &basis, &coefficients, bias, &problem);
                // Values lie in [-1, 1), and so do those of a bias.
                let terms = 6 * kernels * problem.kernel[0] * problem.kernel[1] + 2;
                let bound = error_bound(terms, terms as f64, F32);
                let label = format!("{name}, case {case}, {kernels} kernels, density {density}");
                let input = || tensor(&x, shape, &device);
                assert_close(&label, &floats(conv.forward(input())), &expected, bound);

                let packed = conv.clone().pack().unwrap();
                let [core, expand] = [0, 1].map(|at| {
                    let factors = packed.weight.factors().unwrap();
                    let (_, factor) = factors.named().nth(at).unwrap();
                    factor.packed().is_some()
                });
                assert!(
                    !core && expand,
                    "{label}: kernels stay, coefficients are packed"
                );
                let label = format!("{label}, packed");
                let y = packed.forward(input());
                assert_close(&label, &floats(y.clone()), &expected, bound);

                let residual = y.neg() + 0.5;
                let fused = packed.forward_fused(input(), Some(residual), Activation::Relu);
                let half = vec![0.5; expected.len()];
                assert_close(&label, &floats(fused), &half, 2.0 * bound);

                let product = packed.unpack();
                assert!(product.weight.dense().is_some());
                assert_close(
                    &label,
                    &floats(product.forward(input())),
                    &expected,
                    2.0 * bound,
                );
            }
        }
    }
}

#[test]
fn gradients_are_those_through_the_product() {
    let device = Device::flex().autodiff();
    let (conv, ..) = shared(&Conv2dConfig::new([4, 5], [3, 3]), 3, 0.6, &device);
    let x = Tensor::<4>::random([2, 4, 7, 6], Distribution::Default, &device);
    let window = conv.window([7, 6]);
    let gradients = |y: Tensor<4>| {
        let grads = y.square().sum().backward();
        let factors = conv.weight.factors().unwrap();
        factors
            .named()
            .map(|(_, factor)| floats(factor.val().grad(&grads).unwrap()))
            .collect::<Vec<_>>()
    };
    let bias = conv.bias.as_ref().map(Param::val);
    let through = gradients(dense_conv2d(x.clone(), conv.weight.val(), bias, &window));
    let own = gradients(conv.forward(x));
    for (own, through) in own.iter().zip(&through) {
        let scale = through.iter().fold(1.0f32, |most, g| most.max(g.abs()));
        for (a, b) in own.iter().zip(through) {
            assert!((a - b).abs() <= 1e-4 * scale, "{a} and {b}");
        }
    }
}

#[test]
fn packing_measures_and_files_keep_shared_kernels() {
    let device = Device::flex();
    let config = Conv2dConfig::new([16, 24], [3, 3]).with_padding(PaddingConfig2d::Same);
    let (conv, ..) = shared(&config, 5, 0.1, &device);
    let x = Tensor::<4>::random([2, 16, 12, 12], Distribution::Default, &device);
    let expected = conv.forward(x.clone());
    let trace = Trace::of(|| drop(conv.forward(x.clone())));
    let options = PackConfig::default().with_trace(trace);
    let options = options.with_choice(Choice::Csr);
    let (packed, report) = pack::pack(conv, &options).unwrap();
    assert_eq!(report.layers.len(), 2, "kernels and coefficients");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shared.safetensors");
    let written = store::save(&packed, &path).unwrap();
    let loaded = store::load(config.init(&device), &path).unwrap();
    assert!(loaded.weight.factors().is_some_and(Factors::is_shared));
    for layer in [&packed, &loaded] {
        let off = (layer.forward(x.clone()) - expected.clone()).abs().max();
        assert!(off.into_scalar::<f32>() < 1e-4);
    }
    let core = |layer: &Conv2d| layer.weight.factors().unwrap().core().dense().is_some();
    assert!(core(&packed) && core(&loaded), "kernels are never packed");
    // Coefficients hold no zeros: rows alike gain nothing here.
    let stored = packed.weight.factors().unwrap().expand().unwrap();
    let csr = stored.packed().unwrap().pattern().csr().clone();
    assert_eq!(csr.stored(), csr.nnz());
    // Five kernels and a tenth of the coefficients are smaller than the layer.
    let dense = 4 * (16 * 24 * 9 + 24);
    assert!(
        2 * std::fs::metadata(&path).unwrap().len() < dense,
        "{written:?}"
    );
    assert_eq!(weights(&loaded).len(), 2);
}

#[test]
fn kernels_that_are_not_shared_by_whole_channels_are_refused() {
    let device = Device::flex();
    let zeros = |shape: [usize; 4]| weight(&vec![0.0; shape.iter().product()], shape, &device);
    let text = |core: [usize; 4], expand: [usize; 4]| -> Result<(), String> {
        Factors::new(None, zeros(core), Some(zeros(expand)))
            .map(drop)
            .map_err(|error: SparseError| error.to_string())
    };
    assert_eq!(text([3, 1, 3, 3], [5, 12, 1, 1]), Ok(()));
    for (core, expand, wanted) in [
        ([3, 1, 3, 3], [5, 11, 1, 1], "rank 11 of 5 channels"),
        (
            [10, 1, 3, 3],
            [5, 40, 1, 1],
            "10 shared kernels of 9 positions",
        ),
        ([3, 2, 3, 3], [5, 12, 1, 1], "rank 12 of 5 channels"),
        ([3, 1, 3, 3], [5, 12, 3, 3], "should look at one position"),
    ] {
        let error = text(core, expand).unwrap_err();
        assert!(error.contains(wanted), "{error}");
    }
    // A single channel has nothing to share: two factors of rank 3.
    let chain = Factors::new(None, zeros([3, 1, 3, 3]), Some(zeros([5, 3, 1, 1]))).unwrap();
    assert!(!chain.is_shared());
    // An input of other channels.
    let (conv, ..) = shared(&Conv2dConfig::new([4, 5], [3, 3]), 3, 0.6, &device);
    let wrong = Tensor::<4>::zeros([1, 5, 6, 6], &device);
    let factors = conv.weight.factors().unwrap();
    let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        burn_sparse::ops::shared_conv2d(
            wrong,
            factors.core().val(),
            burn_sparse::ops::Coefficients::Dense(&factors.expand().unwrap().val()),
            &ConvWindow::new([3, 3]),
            Epilogue::new(),
        )
    }));
    assert!(run.is_err());
}
