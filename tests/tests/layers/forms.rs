//! Factors that are no 1×1, core and 1×1: by columns and rows, and with depthwise cores.

use burn::module::{Module, Param};
use burn::nn::{BatchNormConfig, PaddingConfig1d, PaddingConfig2d};
use burn::tensor::{Device, Tensor, TensorData};
use burn_sparse::{
    catalogue,
    nn::{
        Activation, Conv1dConfig, Conv2d, Conv2dConfig, FactorForm, Factors, Trace, Weight,
        fold_batch_norm, multiply_factors, weights,
    },
    pack::{self, Choice, PackConfig},
    reference::{self, error_bound},
};
use tests::{assert_close, devices_with_shared_memory as devices, floats, tensor};

const F32: f64 = f32::EPSILON as f64;

fn weight<const D: usize>(shape: [usize; D], seed: u64, device: &Device) -> Weight<D> {
    let values = catalogue::values(shape.iter().product(), seed);
    let data = TensorData::new(values, shape);
    Param::from_tensor(Tensor::<D>::from_data(data, device)).into()
}

/// Seven outputs of six channels, kernels of 3×5.
fn chains(device: &Device) -> [(FactorForm, Weight<4>); 3] {
    let of = |shape, seed| weight::<4>(shape, seed, device);
    let spatial = |rank| {
        let (core, expand) = (of([rank, 6, 3, 1], 1), of([7, rank, 1, 5], 2));
        Factors::new(None, core, Some(expand)).unwrap().into()
    };
    let depthwise = Factors::new(
        Some(of([9, 6, 1, 1], 3)),
        of([9, 1, 3, 5], 4),
        Some(of([7, 9, 1, 1], 5)),
    );
    [
        (FactorForm::Spatial, spatial(4)),
        // As many channels as the kernel has rows of weights: more than there are outputs.
        (FactorForm::Spatial, spatial(18)),
        (FactorForm::Depthwise, depthwise.unwrap().into()),
    ]
}

/// The weight in f64.
fn product(weight: &Weight<4>) -> Vec<f64> {
    let factors = weight.factors().unwrap();
    let host = |weight: &Weight<4>| -> Vec<f64> {
        floats(weight.val()).into_iter().map(f64::from).collect()
    };
    let [out, input, height, width] = weight.dims();
    let rank = factors.ranks()[1];
    let (core, expand) = (host(factors.core()), host(factors.expand().unwrap()));
    let reduce = factors.reduce().map(host);
    let mut product = Vec::new();
    for o in 0..out {
        for i in 0..input {
            for (r, s) in (0..height).flat_map(|r| (0..width).map(move |s| (r, s))) {
                let term = |a: usize| match &reduce {
                    None => core[(a * input + i) * height + r] * expand[(o * rank + a) * width + s],
                    Some(reduce) => {
                        reduce[a * input + i]
                            * core[(a * height + r) * width + s]
                            * expand[o * rank + a]
                    }
                };
                product.push((0..rank).map(term).sum());
            }
        }
    }
    product
}

#[test]
fn they_equal_the_convolution_with_their_product() {
    let plain = Conv2dConfig::new([6, 7], [3, 5]);
    let configs = [
        plain
            .clone()
            .with_stride([2, 3])
            .with_padding(PaddingConfig2d::Explicit(1, 0, 2, 3)),
        plain
            .clone()
            .with_dilation([2, 1])
            .with_padding(PaddingConfig2d::Same)
            .with_bias(false),
        plain.with_stride([1, 2]),
    ];
    for (name, device) in devices() {
        let few = if name == "flex" { usize::MAX } else { 1 };
        for (case, config) in configs.iter().enumerate().take(few) {
            for (form, weight) in chains(&device) {
                let mut conv = config.init(&device);
                conv.weight = weight;
                assert_eq!(conv.weight.dims(), [7, 6, 3, 5]);
                assert_eq!(conv.weight.factors().unwrap().form(), form);
                let x = catalogue::values(3 * 6 * 11 * 9, 77);
                let problem = conv.window([11, 9]).problem([3, 6, 11, 9], 7).unwrap();
                let exact = product(&conv.weight);
                let weight: Vec<f32> = exact.iter().map(|&w| w as f32).collect();
                let bias = conv.bias.as_ref().map(|bias| floats(bias.val()));
                let expected = reference::conv2d(&x, &weight, bias.as_deref(), &problem);
                let rank = conv.weight.factors().unwrap().ranks()[1];
                // Values lie in [-1, 1): an output is at most the sum of all products.
                let most = (6 * rank * 15) as f64 + 1.0;
                let bound = error_bound(6 * 3 + 5 * rank + 15, most, F32);
                let label = format!("{name}, case {case}, {form:?} of {rank}");
                let y = conv.forward(tensor(&x, [3, 6, 11, 9], &device));
                assert_close(&label, &floats(y.clone()), &expected, bound);
                let found = floats(conv.weight.val());
                assert_close(&label, &found, &exact, error_bound(rank + 2, most, F32));

                // Bias, residual and activation come once, after the last factor.
                let residual = y.neg() + 0.5;
                let x = tensor(&x, [3, 6, 11, 9], &device);
                let fused = conv.forward_fused(x, Some(residual), Activation::Relu);
                let half = vec![0.5; expected.len()];
                assert_close(&label, &floats(fused), &half, 2.0 * bound);
            }
        }
    }
}

/// The loss and its gradients for the factors.
fn gradients(conv: &Conv2d, x: &Tensor<4>, upstream: &Tensor<4>) -> Vec<Vec<f32>> {
    let loss = (conv.forward(x.clone()) * upstream.clone()).sum();
    let gradients = loss.backward();
    let factors = conv.weight.factors().unwrap();
    let of = |(_, factor): (_, &Weight<4>)| {
        let param = factor.dense().unwrap().val();
        floats(param.grad(&gradients).expect("a gradient"))
    };
    factors.named().map(of).collect()
}

#[test]
fn gradients_are_those_of_small_steps_and_of_the_product() {
    for (name, device) in devices() {
        let autodiff = device.clone().autodiff();
        for (form, weight) in chains(&autodiff) {
            let mut conv = Conv2dConfig::new([6, 7], [3, 5])
                .with_stride([2, 1])
                .with_padding(PaddingConfig2d::Explicit(1, 2, 1, 2))
                .init(&autodiff);
            conv.weight = weight;
            let x = tensor(
                &catalogue::values(2 * 6 * 7 * 6, 5),
                [2, 6, 7, 6],
                &autodiff,
            );
            let shape = conv.forward(x.clone()).dims();
            let upstream = catalogue::values(shape.iter().product(), 6);
            let upstream = tensor(&upstream, shape, &autodiff);
            let found = gradients(&conv, &x, &upstream);

            // Through the product, by the dense convolution's own gradients.
            let factors = conv.weight.factors().unwrap().clone();
            let options = burn::tensor::ops::ConvOptions::new([2, 1], [1, 2], [1, 1], 1);
            let y = burn::tensor::module::conv2d(x.clone(), factors.val(), None, options);
            let loss = (y * upstream.clone()).sum().backward();
            let terms = 2 * 7 * 7 * 6 * 15 * 9;
            let bound = 2.0 * error_bound(terms, terms as f64, F32);
            for ((factor, weight), found) in factors.named().zip(&found) {
                let dense = floats(weight.dense().unwrap().val().grad(&loss).unwrap());
                let dense: Vec<f64> = dense.into_iter().map(f64::from).collect();
                assert!(dense.iter().any(|value| value.abs() > 1e-3));
                assert_close(&format!("{name}, {form:?}, {factor}"), found, &dense, bound);
            }
            if name != "flex" {
                continue;
            }
            // The loss is linear in each entry of each factor: steps need not be small.
            let loss = |conv: &Conv2d| -> f64 {
                let y = conv.forward(x.clone()) * upstream.clone();
                floats(y).into_iter().map(f64::from).sum()
            };
            for (index, (factor, weight)) in factors.named().enumerate() {
                let values = floats(weight.val());
                for at in [0, values.len() / 2, values.len() - 1] {
                    let stepped = |by: f32| {
                        let mut conv = conv.clone();
                        let mut values = values.clone();
                        values[at] += by;
                        let data = TensorData::new(values, weight.dims());
                        let changed: Weight<4> =
                            Param::from_tensor(Tensor::<4>::from_data(data, &autodiff)).into();
                        let [mut reduce, mut core, mut expand] = [
                            factors.reduce().cloned(),
                            Some(factors.core().clone()),
                            factors.expand().cloned(),
                        ];
                        match factor {
                            "reduce" => reduce = Some(changed),
                            "core" => core = Some(changed),
                            _ => expand = Some(changed),
                        }
                        conv.weight = Factors::new(reduce, core.unwrap(), expand).unwrap().into();
                        loss(&conv)
                    };
                    let slope = (stepped(0.5) - stepped(-0.5)) as f32;
                    let gradient = found[index][at];
                    let close = (slope - gradient).abs() < 2e-3 * (1.0 + gradient.abs());
                    assert!(close, "{form:?}, {factor}: {slope} and {gradient}");
                }
            }
        }
    }
}

#[test]
fn each_factor_is_a_layer_that_packs_folds_and_multiplies() {
    for (name, device) in devices() {
        for (form, weight) in chains(&device) {
            let mut conv = Conv2dConfig::new([6, 7], [3, 5]).init(&device);
            conv.weight = weight;
            let x = tensor(&catalogue::values(6 * 9 * 8, 9), [1, 6, 9, 8], &device);
            let trace = Trace::of(|| drop(conv.forward(x.clone())));
            let named = weights(&conv);
            assert!(named.iter().all(|n| n.factor));
            for factor in &named {
                let problem = trace.problem(factor.weight.id()).unwrap();
                assert_eq!(problem.groups, factor.groups);
                let macs = problem.weight_shape().iter().product::<usize>();
                assert_eq!(macs, factor.weight.shape().iter().product::<usize>());
            }
            let expected: Vec<f64> = floats(conv.forward(x.clone()))
                .into_iter()
                .map(f64::from)
                .collect();
            let bound = error_bound(256, 1e4, F32);
            let label = format!("{name}, {form:?}");
            let config = PackConfig::default()
                .with_choice(Choice::Csr)
                .with_trace(trace);
            let (packed, _) = pack::pack(conv.clone(), &config).unwrap();
            assert!(weights(&packed).iter().all(|n| n.weight.is_packed()));
            let y = floats(packed.forward(x.clone()));
            assert_close(&label, &y, &expected, bound);
            let whole = multiply_factors(conv.clone());
            assert!(whole.weight.dense().is_some());
            let y = floats(whole.forward(x.clone()));
            assert_close(&label, &y, &expected, bound);

            let mut norm = BatchNormConfig::new(7).init(&device);
            let values = |seed| tensor(&catalogue::values(7, seed), [7], &device);
            norm.gamma = Param::from_tensor(values(1));
            norm.running_mean.update(values(2));
            norm.running_var.update(values(3).abs() + 0.5);
            let norm = norm.valid();
            let folded = fold_batch_norm(conv.clone(), &norm);
            assert_eq!(folded.weight.factors().unwrap().form(), form);
            let expected = floats(norm.forward(conv.forward(x.clone())));
            let expected: Vec<f64> = expected.into_iter().map(f64::from).collect();
            let y = floats(folded.forward(x));
            assert_close(&label, &y, &expected, error_bound(64, 1e4, F32));
        }
    }
}

#[test]
fn lines_have_depthwise_cores_too() {
    for (name, device) in devices() {
        let mut line = Conv1dConfig::new(6, 7, 3)
            .with_stride(2)
            .with_padding(PaddingConfig1d::Same)
            .init(&device);
        let of = |shape, seed| weight::<3>(shape, seed, &device);
        let factors = Factors::new(
            Some(of([5, 6, 1], 1)),
            of([5, 1, 3], 2),
            Some(of([7, 5, 1], 3)),
        );
        line.weight = factors.unwrap().into();
        let x = tensor(&catalogue::values(2 * 6 * 11, 3), [2, 6, 11], &device);
        let dense = line.clone().unpack();
        let expected = floats(dense.forward(x.clone()));
        let expected: Vec<f64> = expected.into_iter().map(f64::from).collect();
        let bound = error_bound(64, 6.0 * 3.0 * 5.0 + 1.0, F32);
        assert_close(name, &floats(line.forward(x)), &expected, bound);
    }
}

#[test]
fn chains_of_the_wrong_shape_are_refused() {
    let device = Device::flex();
    let of = |shape| weight::<4>(shape, 1, &device);
    let text = |reduce: Option<[usize; 4]>, core, expand| {
        let factors = Factors::new(reduce.map(of), of(core), Some(of(expand)));
        factors.unwrap_err().to_string()
    };
    // More channels than min(6·3, 7·5), and more than 6·7.
    let found = text(None, [19, 6, 3, 1], [7, 19, 1, 5]);
    assert!(found.contains("rank 19"), "{found}");
    let found = text(Some([43, 6, 1, 1]), [43, 1, 3, 5], [7, 43, 1, 1]);
    assert!(found.contains("rank 43"), "{found}");
    let found = text(None, [4, 6, 3, 1], [7, 5, 1, 5]);
    assert!(found.contains("`core` gives 4"), "{found}");
    // A row after a whole kernel, and a kernel after a column.
    for (core, expand) in [([4, 6, 3, 3], [7, 4, 1, 5]), ([4, 6, 3, 1], [7, 4, 2, 5])] {
        let found = text(None, core, expand);
        assert!(found.contains("should look at one position"), "{found}");
    }
}
