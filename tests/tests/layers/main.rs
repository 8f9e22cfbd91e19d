//! Drop-in layers against Burn's own, dense and packed, on every device.

mod factors;
mod forms;
mod grouped;
mod mixed;
mod shared;

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::{BatchNorm, BatchNormConfig, PaddingConfig1d, PaddingConfig2d};
use burn::tensor::{Device, Distribution, Tensor};
use burn_sparse::{
    SparseError, catalogue,
    nn::{
        Activation, Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Linear, LinearConfig, Trace,
        Weight, fold_batch_norm, weights,
    },
    pack::{self, Choice, Difference, Format, PackConfig},
    reference::error_bound,
};
use tests::{assert_close, devices_with_shared_memory as devices, floats, tensor};

const F32: f64 = f32::EPSILON as f64;

/// Every kind of layer in every kind of container.
#[derive(Module, Debug)]
struct Net {
    stem: Conv2d,
    norm: BatchNorm,
    body: Vec<Conv2d>,
    sequence: Option<Conv1d>,
    head: (Linear, Linear),
}

impl Net {
    fn new(device: &Device) -> Self {
        let conv = |channels: [usize; 2]| {
            Conv2dConfig::new(channels, [3, 3]).with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
        };
        Self {
            stem: conv([3, 8])
                .with_stride([2, 2])
                .with_bias(false)
                .init(device),
            norm: BatchNormConfig::new(8).init(device),
            body: vec![
                conv([8, 8]).with_groups(2).init(device),
                conv([8, 12])
                    .with_padding(PaddingConfig2d::Same)
                    .init(device),
            ],
            sequence: Some(
                Conv1dConfig::new(12, 6, 4)
                    .with_padding(PaddingConfig1d::Same)
                    .with_stride(2)
                    .init(device),
            ),
            head: (
                LinearConfig::new(6 * 13, 20).init(device),
                LinearConfig::new(20, 5).with_bias(false).init(device),
            ),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = burn::tensor::activation::relu(self.norm.forward(self.stem.forward(x)));
        let y = self.body[0].forward_fused(x.clone(), Some(x), Activation::Relu);
        let y = self.body[1].forward_fused(y, None, Activation::Relu);
        let y = self
            .sequence
            .as_ref()
            .unwrap()
            .forward(y.flatten::<3>(2, 3));
        let y = self
            .head
            .0
            .forward_fused(y.flatten::<2>(1, 2), None, Activation::Relu);
        self.head.1.forward(y)
    }
}

/// Zeroes all but a fraction of every layer's weights.
fn sparsify<M: Module>(model: M, density: f64) -> M {
    struct Sparsify(f64, u64);
    impl burn::module::ModuleMapper for Sparsify {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if D < 2 {
                return param;
            }
            self.1 += 1;
            param.map(|weight| {
                let shape = weight.dims();
                let keep = catalogue::weight(shape.iter().product(), self.0, self.1);
                let mask = keep
                    .iter()
                    .map(|&k| f32::from(k != 0.0))
                    .collect::<Vec<_>>();
                let mask = tensor(&mask, shape, &weight.device());
                weight * mask
            })
        }
    }
    model.map(&mut Sparsify(density, 40))
}

fn input(device: &Device, batch: usize) -> Tensor<4> {
    Tensor::random([batch, 3, 10, 9], Distribution::Normal(0.0, 1.0), device)
}

#[test]
fn dense_layers_equal_burns_own() {
    for (name, device) in devices() {
        let x = input(&device, 2);
        let burn_conv = burn::nn::conv::Conv2dConfig::new([3, 4], [2, 3])
            .with_stride([2, 1])
            .with_padding(PaddingConfig2d::Same)
            .init(&device);
        let ours = Conv2d::from(burn_conv.clone());
        // The sums run over the same 18 products and the bias, not in the same order.
        let largest = |values: Vec<f32>| values.iter().fold(0.0f64, |a, v| a.max(v.abs().into()));
        let magnitude =
            19.0 * largest(floats(x.clone())).max(1.0) * largest(floats(burn_conv.weight.val()));
        let theirs: Vec<f64> = floats(burn_conv.forward(x.clone()))
            .into_iter()
            .map(f64::from)
            .collect();
        assert_close(
            name,
            &floats(ours.forward(x)),
            &theirs,
            2.0 * error_bound(19, magnitude, F32),
        );
        let x = Tensor::<3>::random([2, 3, 5], Distribution::Default, &device);
        let burn_linear = burn::nn::LinearConfig::new(5, 4).init(&device);
        let ours = Linear::from(burn_linear.clone());
        assert_eq!(
            floats(ours.forward(x.clone())),
            floats(burn_linear.forward(x.clone()))
        );
        let burn_conv = burn::nn::conv::Conv1dConfig::new(3, 4, 2)
            .with_padding(PaddingConfig1d::Same)
            .init(&device);
        let ours = Conv1d::from(burn_conv.clone());
        assert_eq!(
            floats(ours.forward(x.clone())),
            floats(burn_conv.forward(x))
        );
    }
}

struct Paths(Vec<String>, Vec<String>);

impl ModuleVisitor for Paths {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.0.push(format!("{name}:{container}"));
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.0.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.1
            .push(format!("{} {:?}", self.0.join("."), param.lazy_shape()));
    }
}

#[test]
fn paths_and_records_are_those_of_burn() {
    let device = Device::flex();
    let paths = |module: &dyn Fn(&mut Paths)| {
        let mut paths = Paths(Vec::new(), Vec::new());
        module(&mut paths);
        paths.1
    };
    let burn_conv = burn::nn::conv::Conv2dConfig::new([3, 4], [2, 3]).init(&device);
    let ours = Conv2d::from(burn_conv.clone());
    assert_eq!(paths(&|p| ours.visit(p)), paths(&|p| burn_conv.visit(p)));
    // A record of Burn's layer loads into ours.
    let loaded = Conv2dConfig::new([3, 4], [2, 3])
        .init(&device)
        .load_record(burn_conv.clone().into_record());
    assert_eq!(floats(loaded.weight.val()), floats(burn_conv.weight.val()));
    let burn_linear = burn::nn::LinearConfig::new(5, 4).init(&device);
    let ours = LinearConfig::new(5, 4)
        .init(&device)
        .load_record(burn_linear.clone().into_record());
    assert_eq!(floats(ours.weight.val()), floats(burn_linear.weight.val()));
}

#[test]
fn a_packed_model_gives_the_dense_output_and_unpacks_to_it() {
    for (name, device) in devices() {
        device.seed(3);
        let model = sparsify(Net::new(&device), 0.2).valid();
        let x = input(&device, 3);
        let trace = Trace::of(|| {
            model.forward(x.clone());
        });
        let config = PackConfig::default()
            .with_choice(Choice::Csr)
            .with_trace(trace)
            .with_runs(1);
        let (packed, report) = pack::pack(model.clone(), &config).unwrap();
        assert_eq!(report.layers.len(), 6, "{name}");
        let layers: Vec<_> = report
            .layers
            .iter()
            .map(|layer| layer.layer.as_str())
            .collect();
        assert_eq!(
            layers,
            ["stem", "body.0", "body.1", "sequence", "head.0", "head.1"]
        );
        assert!(
            report
                .layers
                .iter()
                .all(|layer| layer.format == Format::Csr)
        );
        assert!(report.layers.iter().all(|layer| layer.packed_ms.is_some()));
        assert!(packed.num_params() < model.num_params() / 2, "{name}");
        let mut inputs = pack::random_inputs([1, 3, 10, 9], 2, &device);
        inputs.push(x);
        let same = pack::verify(|x| model.forward(x), |x| packed.forward(x), &inputs);
        assert!(same.max_abs < 1e-4, "{name}: {same:?}");

        let dense = pack::unpack(packed);
        for (a, b) in weights(&model).iter().zip(weights(&dense)) {
            assert_eq!(a.layer, b.layer);
            assert_eq!(a.weight.id(), b.weight.id());
            let bits = |w: &burn_sparse::nn::AnyWeight| w.to_csr().unwrap().to_dense();
            assert_eq!(bits(&a.weight), bits(&b.weight), "{name}: {}", a.layer);
        }
    }
}

#[test]
fn choices_are_obeyed_and_explained() {
    let device = Device::flex();
    let model = Net::new(&device);
    let (packed, report) = pack::pack(model.clone(), &PackConfig::default()).unwrap();
    assert!(
        weights(&packed)
            .iter()
            .all(|named| !named.weight.is_packed())
    );
    assert!(report.to_string().contains("fewer than 50 %"), "{report}");
    let config = PackConfig::default().with_choice(Choice::Dense);
    let (_, report) = pack::pack(sparsify(model.clone(), 0.1), &config).unwrap();
    assert!(
        report.to_string().contains("asked to stay dense"),
        "{report}"
    );
    // Nearly all zeros and not traced: sparsity decides.
    let (packed, report) = pack::pack(sparsify(model, 0.05), &PackConfig::default()).unwrap();
    assert!(
        weights(&packed)
            .iter()
            .all(|named| named.weight.is_packed()),
        "{report}"
    );
}

#[test]
fn plans_are_found_kept_and_change_nothing() {
    let device = Device::flex();
    device.seed(4);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plans.json");
    let dense = vec![Conv2dConfig::new([3, 8], [3, 3]).init(&device)];
    let sparse = sparsify(dense.clone(), 0.2);
    let x = input(&device, 1);
    for (choice, model) in [
        (Choice::Auto, &dense),
        (Choice::Auto, &sparse),
        (Choice::Csr, &sparse),
    ] {
        let trace = Trace::of(|| drop(model[0].forward(x.clone())));
        let config = PackConfig::measure(trace)
            .with_choice(choice)
            .with_plan_cache(file.clone());
        let (_, first) = pack::pack(model.clone(), &config).unwrap();
        assert!(first.explain().contains(&first.layers[0].reason));
        let (packed, second) = pack::pack(model.clone(), &config).unwrap();
        let (first, second) = (&first.layers[0], &second.layers[0]);
        // Which form wins is for the clock to say; the plan of a form was kept.
        if let (Some(first), Some(second)) = (first.plan, second.plan) {
            assert_eq!(first, second);
        }
        if choice == Choice::Csr {
            assert_eq!(second.plan.map(|plan| plan.shares_positions()), Some(false));
        }
        let same = pack::verify(
            |x| model[0].forward(x),
            |x| packed[0].forward(x),
            std::slice::from_ref(&x),
        );
        assert!(same.max_abs < 1e-4, "{same:?}");
    }
    assert!(file.exists());
}

/// Where planes start on cache lines, the tensor has gaps: Burn's own operations must see through
/// them, in place and not, and hand the layers of this crate what they expect.
#[test]
fn outputs_with_gaps_are_ordinary_tensors() {
    use burn::tensor::activation::{relu, softmax};
    use burn::tensor::module::{adaptive_avg_pool2d, max_pool2d};
    use burn::tensor::ops::MaxPoolOptions;
    for (name, device) in devices() {
        device.seed(5);
        let conv = sparsify(Conv2dConfig::new([3, 5], [3, 3]).init(&device), 0.5);
        let conv = conv.pack().unwrap();
        let x = input(&device, 2);
        let gaps = || conv.forward_fused(x.clone(), None, Activation::Relu);
        let shape = gaps().dims();
        assert_eq!(shape[2..], [8, 7]);
        let y = tensor(&floats(gaps()), shape, &device);
        let next = Conv2dConfig::new([5, 4], [1, 1]).init(&device);
        let next = next.pack().unwrap();
        let flat = |t: Tensor<4>| -> Tensor<4> {
            let [n, c, h, w] = t.dims();
            t.reshape([1, n, c, h * w])
        };
        type Op<'a> = Box<dyn Fn(Tensor<4>) -> Tensor<4> + 'a>;
        let ops: Vec<(&str, Op)> = vec![
            ("add", Box::new(|t| t.clone() + t)),
            ("in place", Box::new(|t| t * 2.0 + 1.0)),
            ("relu", Box::new(|t| relu(t - 0.1))),
            ("exp", Box::new(Tensor::exp)),
            ("sum", Box::new(|t| t.sum_dim(1))),
            ("mean of rows", Box::new(|t| t.mean_dim(3))),
            ("reshape", Box::new(flat)),
            ("permute", Box::new(|t| t.permute([0, 2, 3, 1]))),
            ("slice", Box::new(|t| t.slice([0..2, 1..3, 2..7, 0..5]))),
            ("slice of one image", Box::new(|t| t.narrow(0, 1, 1))),
            ("cat", Box::new(|t| Tensor::cat(vec![t.clone(), t], 1))),
            ("average", Box::new(|t| adaptive_avg_pool2d(t, [1, 1]))),
            (
                "maximum",
                Box::new(|t| max_pool2d(t, MaxPoolOptions::new([2, 2]))),
            ),
            ("softmax", Box::new(|t| softmax(t, 1))),
            ("matmul", Box::new(|t| t.clone().matmul(t.transpose()))),
            ("packed", Box::new(|t| next.forward(t))),
            (
                "as residual",
                Box::new(|t| conv.forward_fused(x.clone(), Some(t), Activation::None)),
            ),
        ];
        for (op, run) in ops {
            let expected: Vec<f64> = floats(run(y.clone())).into_iter().map(f64::from).collect();
            let label = format!("{name}: {op}");
            assert_close(&label, &floats(run(gaps())), &expected, 1e-4);
        }
    }
}

#[test]
fn images_one_by_one_give_the_batch() {
    use burn_sparse::nn::{at_once, image_by_image};
    for (name, device) in devices() {
        let model = sparsify(Net::new(&device), 0.3).valid();
        let x = input(&device, 3);
        let expected = floats(model.forward(x.clone()));
        let y = floats(image_by_image(x.clone(), |x| model.forward(x)));
        assert!(
            expected.iter().zip(&y).all(|(a, b)| (a - b).abs() < 1e-4),
            "{name}"
        );
        let images = at_once(x).dims()[0];
        assert_eq!(images, if name == "flex" { 1 } else { 3 });
    }
}

#[test]
fn a_packed_layer_can_be_trained() {
    use burn::optim::{GradientsParams, ModuleOptimizer, SgdConfig};
    for (name, device) in devices() {
        let device = device.autodiff();
        let mut layer = sparsify(LinearConfig::new(8, 4).init(&device), 0.4)
            .pack()
            .unwrap();
        let x = Tensor::<2>::random([16, 8], Distribution::Default, &device);
        let target = Tensor::<2>::random([16, 4], Distribution::Default, &device);
        let loss = |layer: &Linear| {
            (layer.forward(x.clone()) - target.clone())
                .powi_scalar(2)
                .mean()
        };
        let before = loss(&layer).into_scalar::<f32>();
        let mut optim: ModuleOptimizer = SgdConfig::new().init();
        for _ in 0..20 {
            let grads = GradientsParams::from_grads(loss(&layer).backward(), &layer);
            layer = optim.step(0.1, layer, grads);
        }
        let after = loss(&layer).into_scalar::<f32>();
        assert!(after < before, "{name}: {before} to {after}");
        assert!(matches!(layer.weight, Weight::Packed(_)));
    }
}

#[test]
fn batch_norm_folds_into_the_convolution() {
    for (name, device) in devices() {
        let autodiff = device.clone().autodiff();
        let conv = Conv2dConfig::new([3, 6], [3, 3]).init(&autodiff);
        let norm = BatchNormConfig::new(6).init(&autodiff);
        for _ in 0..3 {
            norm.forward(conv.forward(input(&autodiff, 4) * 2.0 + 0.5));
        }
        let (mut conv, mut norm) = (conv.valid(), norm.valid());
        norm.gamma = Param::from_tensor(tensor(&[1.0, -0.5, -0.5, 2.0, 0.0, 1.5], [6], &device));
        let pruned = conv.weight.val().slice_fill([0..6, 1..2], 0.0);
        conv.weight = Weight::Dense(Param::from_tensor(pruned));
        let folded = fold_batch_norm(conv.clone(), &norm);
        let zeros = floats(folded.weight.val())
            .into_iter()
            .filter(|w| *w == 0.0);
        assert!(zeros.clone().all(f32::is_sign_positive), "{name}");
        assert_eq!(zeros.count(), 5 * 9 + 27, "{name}");
        let x = input(&device, 2);
        let difference = pack::verify(
            |x| norm.forward(conv.forward(x)),
            |x| folded.forward(x),
            &[x],
        );
        assert!(difference.max_rel < 1e-5, "{name}: {difference:?}");
    }
}

#[test]
fn weights_that_are_not_finite_are_refused_by_name() {
    let device = Device::flex();
    let mut model = Net::new(&device);
    let poisoned = model.body[1]
        .weight
        .val()
        .slice_fill([0..1, 0..1, 0..1, 1..2], f32::NAN);
    model.body[1].weight = Weight::Dense(Param::from_tensor(poisoned));
    let error = pack::pack(model, &PackConfig::default()).unwrap_err();
    let SparseError::NonFinite { index, value, what } = &error else {
        panic!("{error}")
    };
    assert_eq!((*index, what.as_str()), (1, "body.1"));
    assert!(value.is_nan());
}

#[test]
fn a_layer_that_packing_would_change_is_refused() {
    let device = Device::flex();
    let config = PackConfig::default()
        .with_choice(Choice::Csr)
        .with_tolerance(0.0);
    let model = LinearConfig::new(301, 64).init(&device);
    let error = pack::pack(model, &config).unwrap_err();
    assert!(matches!(error, SparseError::Mismatch { .. }), "{error}");
    assert_eq!(Difference::default().max_abs, 0.0);
}
