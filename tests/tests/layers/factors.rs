//! Layers whose weights are chains of factors.

use burn::module::Module;
use burn::nn::{BatchNorm, BatchNormConfig, PaddingConfig1d, PaddingConfig2d};
use burn::tensor::{Device, Distribution, Tensor, TensorData};
use burn_sparse::{
    SparseError, catalogue,
    nn::{
        Activation, Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Factors, Linear, LinearConfig,
        Profile, Trace, Weight, fold_batch_norm, multiply_factors, replace_weights, weights,
    },
    ops::ConvWindow,
    pack::{self, Choice, PackConfig},
    reference::{self, error_bound},
};
use tests::{assert_close, devices_with_shared_memory as devices, floats, tensor};

const F32: f64 = f32::EPSILON as f64;

fn data(shape: &[usize], seed: u64) -> TensorData {
    let values = catalogue::values(shape.iter().product(), seed);
    TensorData::new(values, shape.to_vec())
}

/// The weight with factors of these ranks, of random values; without one where its rank is `None`.
fn factored<const D: usize>(
    weight: Weight<D>,
    [reduce, expand]: [Option<usize>; 2],
    seed: u64,
) -> Weight<D> {
    let dims = weight.dims();
    let [out, input] = if D == 2 { [1, 0] } else { [0, 1] };
    let shape = |rows: usize, columns: usize, kernel: bool| {
        let mut shape = if kernel { dims } else { [1; D] };
        (shape[out], shape[input]) = (rows, columns);
        shape
    };
    let d1 = reduce.unwrap_or(dims[input]);
    let d2 = expand.unwrap_or(dims[out]);
    let factor = |shape: [usize; D], seed| {
        let device = weight.device();
        Weight::Dense(burn::module::Param::from_tensor(Tensor::<D>::from_data(
            data(&shape, seed),
            &device,
        )))
    };
    let reduce = reduce.map(|rank| factor(shape(rank, dims[input], false), seed));
    let core = factor(shape(d2, d1, true), seed + 1);
    let expand = expand.map(|rank| factor(shape(dims[out], rank, false), seed + 2));
    let factors = Factors::new(reduce, core, expand).unwrap();
    factors.with_id(weight.id()).into()
}

const RANKS: [[Option<usize>; 2]; 4] = [
    [Some(4), Some(5)],
    [Some(3), None],
    [None, Some(2)],
    [None, None],
];

/// `W[o,i,p] = sum_{a,b} expand[o,a] core[a,b,p] reduce[b,i]` of a convolution, in f64.
fn product(weight: &Weight<4>) -> Vec<f64> {
    let factors = weight.factors().unwrap();
    let [out, input, height, width] = weight.dims();
    let [d1, d2] = factors.ranks();
    let host = |weight: &Weight<4>| -> Vec<f64> {
        let values = floats(weight.val());
        values.into_iter().map(f64::from).collect()
    };
    let identity = |len: usize| {
        let one = |at: usize| f64::from(u8::from(at / len == at % len));
        (0..len * len).map(one).collect()
    };
    let reduce: Vec<f64> = factors.reduce().map_or_else(|| identity(input), host);
    let expand: Vec<f64> = factors.expand().map_or_else(|| identity(out), host);
    let core = host(factors.core());
    let positions = height * width;
    let mut product = vec![0.0; out * input * positions];
    for (index, value) in product.iter_mut().enumerate() {
        let (o, i, p) = (
            index / positions / input,
            index / positions % input,
            index % positions,
        );
        for a in 0..d2 {
            for b in 0..d1 {
                *value +=
                    expand[o * d2 + a] * core[(a * d1 + b) * positions + p] * reduce[b * input + i];
            }
        }
    }
    product
}

#[test]
fn factored_convolutions_equal_the_convolution_with_their_product() {
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
        Conv2dConfig::new([6, 7], [1, 1]).with_stride([2, 1]),
        Conv2dConfig::new([6, 7], [10, 9]),
    ];
    for (name, device) in devices() {
        // Elsewhere the factors are dense convolutions of the device's own, and compiling them takes its time.
        let few = if name == "flex" { usize::MAX } else { 1 };
        for (case, config) in configs.iter().enumerate().take(few) {
            for (seed, ranks) in (0..).zip(RANKS).take(few) {
                let mut conv = config.init(&device);
                conv.weight = factored(conv.weight, ranks, 10 * seed);
                let x = catalogue::values(3 * 6 * 10 * 9, 77);
                let window: ConvWindow<2> = conv.window([10, 9]);
                let problem = window.problem([3, 6, 10, 9], 7).unwrap();
                let exact = product(&conv.weight);
                // The product rounded to f32 is off by one rounding of each weight.
                let weight: Vec<f32> = exact.iter().map(|&w| w as f32).collect();
                let bias = conv.bias.as_ref().map(|bias| floats(bias.val()));
                let expected = reference::conv2d(&x, &weight, bias.as_deref(), &problem);
                let [d1, d2] = conv.weight.factors().unwrap().ranks();
                let terms = 6 + d1 * problem.kernel[0] * problem.kernel[1] + d2 + 2;
                // Values lie in [-1, 1): an output is at most the sum of all products.
                let most = (6 * d1 * d2 * problem.kernel[0] * problem.kernel[1]) as f64 + 1.0;
                let bound = error_bound(terms, most, F32);
                let label = format!("{name}, case {case}, ranks {ranks:?}");
                let y = conv.forward(tensor(&x, [3, 6, 10, 9], &device));
                assert_close(&label, &floats(y.clone()), &expected, bound);

                let product = floats(conv.weight.val());
                assert_close(&label, &product, &exact, error_bound(d1 + d2, most, F32));

                // Bias, residual and activation come once, after the last factor.
                let residual = y.clone().neg() + 0.5;
                let fused = conv.forward_fused(
                    tensor(&x, [3, 6, 10, 9], &device),
                    Some(residual),
                    Activation::Relu,
                );
                let half = vec![0.5; expected.len()];
                assert_close(&label, &floats(fused), &half, 2.0 * bound);
            }
        }
    }
}

#[test]
fn factored_lines_and_products_equal_their_dense_layers() {
    for (name, device) in devices() {
        let few = if name == "flex" { usize::MAX } else { 2 };
        for (seed, ranks) in (0..).zip(RANKS).take(few) {
            let label = format!("{name}, ranks {ranks:?}");
            let mut line = Conv1dConfig::new(6, 7, 3)
                .with_stride(2)
                .with_padding(PaddingConfig1d::Same)
                .init(&device);
            line.weight = factored(line.weight, ranks, 10 * seed);
            let x = tensor(&catalogue::values(2 * 6 * 11, 3), [2, 6, 11], &device);
            let bound = error_bound(64, 6.0 * 3.0 * 42.0 + 1.0, F32);
            let same = |label: &str, a: Vec<f32>, b: Vec<f32>| {
                let b: Vec<f64> = b.into_iter().map(f64::from).collect();
                assert_close(label, &a, &b, 2.0 * bound);
            };
            let dense: Conv1d = line.clone().unpack();
            assert!(dense.weight.dense().is_some());
            same(
                &label,
                floats(line.forward(x.clone())),
                floats(dense.forward(x)),
            );

            let mut linear = LinearConfig::new(6, 7).init(&device);
            linear.weight = factored(linear.weight, ranks, 10 * seed);
            let x = tensor(&catalogue::values(2 * 3 * 6, 3), [2, 3, 6], &device);
            let dense: Linear = linear.clone().unpack();
            let relu = Activation::Relu;
            same(
                &label,
                floats(linear.forward_fused(x.clone(), None, relu)),
                floats(dense.forward_fused(x, None, relu)),
            );
        }
    }
}

#[test]
fn gradients_of_factors_are_those_through_their_product() {
    for (name, device) in devices() {
        let device = device.autodiff();
        let mut conv = Conv2dConfig::new([6, 7], [3, 3])
            .with_stride([2, 1])
            .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
            .init(&device);
        conv.weight = factored(conv.weight, [Some(4), Some(5)], 30);
        let x = tensor(&catalogue::values(2 * 6 * 8 * 7, 5), [2, 6, 8, 7], &device);
        let upstream = tensor(&catalogue::values(2 * 7 * 4 * 7, 6), [2, 7, 4, 7], &device);
        let factors = conv.weight.factors().unwrap().clone();
        let gradients = |loss: Tensor<1>| {
            let gradients = loss.backward();
            let grad = |(_, factor): (_, &Weight<4>)| {
                let param = factor.dense().unwrap().val();
                floats(param.grad(&gradients).expect("a gradient"))
            };
            factors.named().map(grad).collect::<Vec<_>>()
        };
        let chain = gradients((conv.forward(x.clone()) * upstream.clone()).sum());
        let y = burn::tensor::module::conv2d(
            x,
            factors.val(),
            None,
            burn::tensor::ops::ConvOptions::new([2, 1], [1, 1], [1, 1], 1),
        );
        let through_product = gradients((y * upstream).sum());
        // A gradient is a sum over all outputs of products of the input and two factors.
        let terms = 2 * 4 * 7 * 7 * 6 * 9;
        let bound = 2.0 * error_bound(terms, terms as f64, F32);
        for ((factor, _), (a, b)) in factors.named().zip(chain.iter().zip(&through_product)) {
            let b: Vec<f64> = b.iter().map(|&value| value.into()).collect();
            assert!(b.iter().any(|value| value.abs() > 1e-3));
            assert_close(&format!("{name}, {factor}"), a, &b, bound);
        }
    }
}

#[derive(Module, Debug)]
struct Net {
    conv: Conv2d,
    norm: BatchNorm,
    head: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        Self {
            conv: Conv2dConfig::new([6, 8], [3, 3]).init(device),
            norm: BatchNormConfig::new(8).init(device),
            head: LinearConfig::new(8, 5).init(device),
        }
    }

    /// With factors in both layers.
    fn factored(device: &Device) -> Self {
        let net = Self::new(device);
        let named = weights(&net);
        let conv = [[3, 6, 1, 1], [4, 3, 3, 3], [8, 4, 1, 1]];
        let factor = |(seed, shape): (u64, [usize; 4])| Some(data(&shape, seed));
        let conv = [(1, conv[0]), (2, conv[1]), (3, conv[2])].map(factor);
        let head = [None, Some(data(&[8, 2], 4)), Some(data(&[2, 5], 5))];
        let [a, b] = [(0, conv), (1, head)]
            .map(|(index, factors)| named[index].weight.with_factors(factors).unwrap());
        replace_weights(net, vec![a, b])
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.norm.forward(self.conv.forward(x));
        self.head.forward(x.mean_dims(&[2, 3]).flatten::<2>(1, 3))
    }
}

fn input(device: &Device) -> Tensor<4> {
    tensor(&catalogue::values(2 * 6 * 7 * 7, 9), [2, 6, 7, 7], device)
}

const NAMES: [[&str; 2]; 5] = [
    ["conv.reduce", "conv.weight.reduce"],
    ["conv.core", "conv.weight.core"],
    ["conv.expand", "conv.weight.expand"],
    ["head.core", "head.weight.core"],
    ["head.expand", "head.weight.expand"],
];

#[test]
fn each_factor_is_a_layer_to_those_who_look() {
    for (name, device) in devices() {
        let net = Net::factored(&device);
        let named = weights(&net);
        let names: Vec<_> = named
            .iter()
            .map(|n| [n.layer.as_str(), n.path.as_str()])
            .collect();
        assert_eq!(names, NAMES, "{name}");
        // Factors, biases and the norm with its statistics.
        assert_eq!(net.num_params(), 18 + 108 + 32 + 16 + 10 + 8 + 5 + 4 * 8);

        let trace = Trace::of(|| drop(net.forward(input(&device))));
        let core = trace.problem(named[1].weight.id()).unwrap();
        assert_eq!(
            [core.in_channels, core.out_channels, core.output()[0]],
            [3, 4, 5]
        );
        let profile = Profile::of(1, &device, || drop(net.forward(input(&device))));
        // Dense factors of a 2-D convolution run as one.
        assert_eq!(profile.layers.len(), 3);

        // Packing makes its choice for each of them.
        let config = PackConfig::default()
            .with_choice(Choice::Csr)
            .with_trace(trace);
        let (packed, report) = pack::pack(net.clone(), &config).unwrap();
        let layers: Vec<_> = report.layers.iter().map(|l| l.layer.as_str()).collect();
        assert_eq!(layers, NAMES.map(|[layer, _]| layer));
        assert!(weights(&packed).iter().all(|n| n.weight.is_packed()));
        let expected: Vec<f64> = floats(net.forward(input(&device)))
            .into_iter()
            .map(f64::from)
            .collect();
        let bound = error_bound(256, 1e4, F32);
        let y = floats(packed.forward(input(&device)));
        assert_close(name, &y, &expected, bound);

        // And the product of all is a network of whole weights again.
        for net in [net, packed] {
            let whole = multiply_factors(net.clone());
            let names: Vec<_> = weights(&whole).into_iter().map(|n| n.layer).collect();
            assert_eq!(names, ["conv", "head"]);
            assert_eq!(
                whole.conv.weight.id(),
                net.conv.weight.factors().unwrap().id()
            );
            let y = floats(whole.forward(input(&device)));
            assert_close(name, &y, &expected, bound);
        }
    }
}

#[test]
fn a_norm_folds_into_the_last_factor() {
    for (name, device) in devices() {
        let mut net = Net::factored(&device);
        let values = |seed| tensor(&catalogue::values(8, seed), [8], &device);
        net.norm.gamma = burn::module::Param::from_tensor(values(1));
        net.norm.running_mean.update(values(2));
        net.norm.running_var.update(values(3).abs() + 0.5);
        let net = net.valid();
        let conv = fold_batch_norm(net.conv.clone(), &net.norm);
        assert!(conv.weight.factors().is_some());
        let expected = floats(net.norm.forward(net.conv.forward(input(&device))));
        let expected: Vec<f64> = expected.into_iter().map(f64::from).collect();
        let y = floats(conv.forward(input(&device)));
        assert_close(name, &y, &expected, error_bound(64, 1e4, F32));
    }
}

#[test]
fn chains_that_do_not_hold_together_are_refused() {
    let device = Device::flex();
    let weight = |shape: [usize; 4]| -> Weight<4> {
        let x = Tensor::<4>::random(shape, Distribution::Default, &device);
        burn::module::Param::from_tensor(x).into()
    };
    let text = |result: Result<Factors<4>, SparseError>| result.unwrap_err().to_string();
    let core = || weight([4, 3, 3, 3]);
    let refused = [
        (
            Some(weight([2, 6, 1, 1])),
            core(),
            None,
            "`reduce` gives 2 channels, but `core` takes 3",
        ),
        (
            None,
            core(),
            Some(weight([8, 5, 1, 1])),
            "`core` gives 4 channels, but `expand` takes 5",
        ),
        (
            Some(weight([3, 6, 3, 3])),
            core(),
            None,
            "should look at one position",
        ),
        (
            Some(weight([3, 2, 1, 1])),
            core(),
            None,
            "rank 3 of 2 channels",
        ),
        (
            None,
            core(),
            Some(weight([3, 4, 1, 1])),
            "rank 4 of 3 channels",
        ),
    ];
    for (reduce, core, expand, reason) in refused {
        let found = text(Factors::new(reduce, core, expand));
        assert!(found.contains(reason), "{found}");
    }
    let chain: Weight<4> = Factors::new(Some(weight([3, 6, 1, 1])), core(), None)
        .unwrap()
        .into();
    let found = text(Factors::new(None, chain, Some(weight([8, 4, 1, 1]))));
    assert!(found.contains("factors of its own"), "{found}");

    // In the place of a weight they make its shape, and have its rank.
    let conv = Conv2dConfig::new([6, 8], [3, 3]).init(&device);
    let named = weights(&conv).remove(0).weight;
    for core in [vec![8, 6, 5, 3], vec![8, 6]] {
        let factors = [None, Some(data(&core, 1)), None];
        assert!(matches!(
            named.with_factors(factors),
            Err(SparseError::Shape(_))
        ));
    }
    assert!(named.with_factors([None, None, None]).is_err());
}

/// On a CPU weights are ordered once for the kernel; what is kept must be that of the weights as they are.
#[test]
fn factors_that_changed_run_as_they_are() {
    struct Twice;
    impl burn::module::ModuleMapper for Twice {
        fn map_float<const D: usize>(
            &mut self,
            param: burn::module::Param<Tensor<D>>,
        ) -> burn::module::Param<Tensor<D>> {
            param.map(|tensor| tensor * 2.0)
        }
    }
    for (name, device) in devices() {
        let mut conv = Conv2dConfig::new([6, 7], [3, 3])
            .with_bias(false)
            .init(&device);
        conv.weight = factored(conv.weight, [Some(4), Some(5)], 50);
        let input = |batch: usize| {
            let x = catalogue::values(batch * 6 * 8 * 7, 5);
            tensor(&x, [batch, 6, 8, 7], &device)
        };
        let before = [1, 3, 1].map(|batch| floats(conv.forward(input(batch))));
        assert_eq!(before[0], before[2], "{name}");
        // Three factors, each twice as large.
        let doubled = conv.clone().map(&mut Twice);
        for (batch, before) in [1, 3].into_iter().zip(&before) {
            let after = floats(doubled.forward(input(batch)));
            let expected: Vec<f32> = before.iter().map(|y| 8.0 * y).collect();
            assert_eq!(after, expected, "{name}");
            assert_eq!(&floats(conv.forward(input(batch))), before, "{name}");
        }
    }
}
