//! What holds for VGG, `DenseNet`, `MobileNetV2` and `AlexNet` alike: outputs, gradients, folding, packing.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use burn_sparse::nn::Trace;
use burn_sparse::pack::{self, Choice, Format, PackConfig};
use burn_sparse::store;
use models::{
    AlexNetConfig, Arch, Classifier, DenseNetConfig, MobileNetStage, MobileNetV2Config, Model,
    ModelConfig, Stem, VggConfig, VggHead, VggLayer,
};

use crate::common::{difference, floats, image, scramble, shapes, values};
use crate::plain::{self, Maps, StateDict};

/// A small network of any family.
#[derive(Clone, Debug)]
enum Small {
    Vgg(VggConfig),
    DenseNet(DenseNetConfig),
    MobileNet(MobileNetV2Config),
    AlexNet(AlexNetConfig),
}

impl Small {
    fn init(&self, device: &Device) -> Model {
        match self {
            Small::Vgg(config) => Model::Vgg(config.init(device)),
            Small::DenseNet(config) => Model::DenseNet(config.init(device)),
            Small::MobileNet(config) => Model::MobileNetV2(config.init(device)),
            Small::AlexNet(config) => Model::AlexNet(config.init(device)),
        }
    }

    /// The scores by plain loops.
    fn reference(&self, file: &StateDict, image: Maps) -> Vec<f64> {
        match self {
            Small::Vgg(config) => plain::vgg(config, file, image),
            Small::DenseNet(config) => plain::densenet(config, file, image),
            Small::MobileNet(config) => plain::mobilenet(config, file, image),
            Small::AlexNet(_) => plain::alexnet(file, image),
        }
    }

    fn without_dropout(self) -> Self {
        match self {
            Small::Vgg(config) => Small::Vgg(config.with_dropout(0.0)),
            Small::DenseNet(_) => self,
            Small::MobileNet(config) => Small::MobileNet(config.with_dropout(0.0)),
            Small::AlexNet(config) => Small::AlexNet(config.with_dropout(0.0)),
        }
    }

    /// Sizes of images: odd ones, and the smallest.
    fn sizes(&self) -> [[usize; 2]; 4] {
        match self {
            // Two pools.
            Small::Vgg(_) => [[32, 32], [33, 17], [7, 30], [4, 4]],
            // Two transitions, the stem's strides before them or not.
            Small::DenseNet(config) if config.stem == Stem::Cifar => {
                [[12, 12], [13, 9], [7, 10], [4, 4]]
            }
            Small::DenseNet(_) => [[64, 64], [33, 17], [15, 30], [13, 13]],
            Small::MobileNet(_) => [[32, 32], [33, 17], [7, 9], [1, 1]],
            Small::AlexNet(_) => [[64, 64], [71, 63], [63, 95], [63, 63]],
        }
    }
}

fn small_vgg() -> VggConfig {
    let mut config = VggConfig::vgg16(5).with_width(3).with_hidden(11);
    config.convs = vec![1, 2];
    config
}

/// Blocks without expansion, with a stride, with and without a residual.
fn small_mobilenet() -> MobileNetV2Config {
    let stage = |expansion, channels, blocks, stride| MobileNetStage {
        expansion,
        channels,
        blocks,
        stride,
    };
    let stages = vec![
        stage(1, 32, 1, 1),
        stage(2, 64, 2, 2),
        stage(3, 32, 1, 1),
        stage(2, 96, 2, 2),
    ];
    let config = MobileNetV2Config::new(5).with_width(0.25);
    config.with_stages(stages)
}

fn small_densenet() -> DenseNetConfig {
    DenseNetConfig::cifar(2, 3, 5).with_blocks([2, 1, 3])
}

/// Every head, stem and both forms with few channels.
fn variants() -> Vec<Small> {
    let mut out = Vec::new();
    for head in [VggHead::ImageNet, VggHead::Cifar] {
        for batch_norm in [false, true] {
            let mut config = small_vgg().with_head(head);
            config.batch_norm = batch_norm;
            out.push(Small::Vgg(config));
        }
    }
    for stem in [Stem::ImageNet, Stem::Cifar] {
        out.push(Small::DenseNet(small_densenet().with_stem(stem)));
        out.push(Small::MobileNet(small_mobilenet().with_stem(stem)));
    }
    out.push(Small::AlexNet(AlexNetConfig::new(5).with_hidden(9)));
    out
}

/// Norms and biases with values, and weights that keep the scale from layer to layer. All are
/// formulas: tests that run at once draw from one generator, in no order.
fn lively<M: Module>(model: M) -> M {
    #[derive(Default)]
    struct Weights {
        path: Vec<String>,
    }
    impl ModuleMapper for Weights {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let shape = param.lazy_shape().as_slice().to_vec();
            let fan_in = match *shape.as_slice() {
                [inputs, _] => inputs,
                [_, channels, height, width] => channels * height * width,
                _ => return param,
            };
            // Uniform within a half: variance 1/12, to become 2 over the number of terms.
            let gain = (24.0 / fan_in as f32).sqrt();
            let count = shape.iter().product();
            let data = values(&self.path.join("."), count);
            let data: Vec<f32> = data.into_iter().map(|v| gain * v).collect();
            param.map(|weight| {
                let data = TensorData::new(data, weight.dims());
                Tensor::from_data(data, &weight.device())
            })
        }
    }
    scramble(model).map(&mut Weights::default())
}

#[test]
fn scores_are_those_of_plain_loops() {
    let device = Device::flex();
    for variant in variants() {
        let model = lively(variant.init(&device));
        let folded = model.clone().fold();
        let file = StateDict::of(&model);
        for ([h, w], batch) in variant.sizes().into_iter().zip([1, 3, 2, 1]) {
            let images: Tensor<4> = image([batch, 3, h, w], &device);
            let logits = model.forward(images.clone());
            assert_eq!(logits.dims(), [batch, 5]);
            let pixels = floats(images.clone());
            let expected: Vec<f32> = pixels
                .chunks(3 * h * w)
                .flat_map(|image| {
                    let data = image.iter().copied().map(f64::from).collect();
                    let size = [3, h, w];
                    variant.reference(&file, Maps { size, data })
                })
                .map(|score| score as f32)
                .collect();
            let at = format!("{variant:?} {h}x{w}");
            // About twenty layers of at most a few hundred terms each in f32, as for the ResNets.
            assert!(difference(&expected, &floats(logits)) < 1e-4, "{at}");
            let folded_logits = floats(folded.forward(images.clone()));
            assert!(difference(&expected, &folded_logits) < 1e-4, "{at}");
            let inferred = floats(model.infer(images));
            assert!(difference(&expected, &inferred) < 1e-4, "{at}");
        }
    }
}

#[test]
fn the_networks_run_at_their_own_sizes() {
    let device = Device::flex();
    for (arch, size) in [(Arch::Vgg16Bn, [33, 32]), (Arch::MobileNetV2, [47, 32])] {
        let config = ModelConfig::new(arch)
            .with_classes(10)
            .with_stem(Stem::Cifar);
        let model = config.init(&device);
        let logits = model.forward(image([1, 3, size[0], size[1]], &device));
        assert_eq!((logits.dims(), model.classes()), ([1, 10], 10));
        assert!(floats(logits).iter().all(|v| v.is_finite()));
    }
}

#[test]
fn nothing_is_left_to_fold_and_no_other_path_changes() {
    let device = Device::flex();
    for variant in variants() {
        let model = lively(variant.init(&device));
        let before = shapes(&model);
        let folded = model.fold();
        let after = shapes(&folded);
        // A norm before the ReLU before a convolution stays.
        let before_relu = ["norm1", "norm5", "transition1", "transition2"];
        let stays = |name: &str| before_relu.iter().any(|norm| name.contains(norm));
        let norms = after
            .keys()
            .filter(|name| name.contains("running") || name.ends_with("gamma"));
        let norms: Vec<_> = norms.filter(|name| !stays(name)).collect();
        assert!(norms.is_empty(), "{norms:?}");
        for (name, shape) in before.iter().filter(|(name, _)| name.ends_with("weight")) {
            assert_eq!(after.get(name), Some(shape), "{name}");
        }
        let [h, w] = variant.sizes()[0];
        let images: Tensor<4> = image([2, 3, h, w], &device);
        let once = floats(folded.forward(images.clone()));
        assert_eq!(once, floats(folded.fold().forward(images)));
    }
}

#[test]
fn gradients_reach_every_parameter_and_are_slopes() {
    let device = Device::flex().autodiff();
    for variant in variants() {
        let variant = variant.without_dropout();
        // Values that a mapper computes are no leaves; training makes them such.
        let model = lively(variant.init(&device)).valid().train();
        let [h, w] = variant.sizes()[0];
        let images: Tensor<4> = image([3, 3, h, w], &device);
        let target: Tensor<2> = image([3, 5], &device);
        let loss = |model: &Model| (model.forward(images.clone()) * target.clone()).sum();
        let grads = loss(&model).backward();
        let mut gather = Gather {
            grads: &grads,
            path: Vec::new(),
            found: BTreeMap::new(),
        };
        model.visit(&mut gather);
        let norm = gather.norm();
        // Along the gradient the loss rises by its length. The step is small beside the weights,
        // and its effect large beside the rounding of an f32.
        let step = 1e-4;
        let at = |sign: f64| {
            let mut mapper = Along {
                found: &gather.found,
                path: Vec::new(),
                factor: sign * step / norm,
            };
            f64::from(loss(&model.clone().map(&mut mapper)).into_scalar::<f32>())
        };
        let slope = (at(1.0) - at(-1.0)) / (2.0 * step);
        // The loss has kinks where a unit or a pool switches, and norms over few values bend it:
        // near, not equal.
        assert!(
            (slope / norm - 1.0).abs() < 2e-2,
            "{variant:?}: {slope} {norm}"
        );
    }
}

/// The gradient of every parameter, row by row.
struct Gather<'a> {
    grads: &'a Gradients,
    path: Vec<String>,
    found: BTreeMap<String, Vec<f32>>,
}

impl Gather<'_> {
    fn norm(&self) -> f64 {
        let all = self.found.values().flatten();
        all.map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt()
    }
}

impl ModuleVisitor for Gather<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.join(".");
        if name.contains("running") {
            return;
        }
        let grad = param.val().grad(self.grads);
        let grad = grad.unwrap_or_else(|| panic!("{name} has no gradient"));
        self.found.insert(name, floats(grad));
    }
}

/// Moves every parameter along its gradient.
struct Along<'a> {
    found: &'a BTreeMap<String, Vec<f32>>,
    path: Vec<String>,
    factor: f64,
}

impl ModuleMapper for Along<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(grad) = self.found.get(&self.path.join(".")) else {
            return param;
        };
        let grad = grad.clone();
        param.map(|tensor| {
            let data = TensorData::new(grad, tensor.dims());
            let grad = Tensor::from_data(data, &tensor.device());
            (tensor + grad * self.factor).detach().require_grad()
        })
    }
}

#[test]
fn dropout_is_for_training() {
    let device = Device::flex().autodiff();
    for variant in variants() {
        // A head for CIFAR has none, nor has a DenseNet.
        if matches!(&variant, Small::Vgg(config) if config.head == VggHead::Cifar)
            || matches!(&variant, Small::DenseNet(_))
        {
            continue;
        }
        let [h, w] = variant.sizes()[0];
        let images: Tensor<4> = image([2, 3, h, w], &device);
        let differs = |model: &_| {
            let train = || floats(Classifier::forward(model, images.clone()));
            train() != train()
        };
        // Of few units all may be negative for once, and a network without any has nothing to drop.
        let mut models = (0..20).map(|_| lively(variant.init(&device)));
        let model = models.find(|model| differs(model));
        let model = model.unwrap_or_else(|| panic!("{variant:?}: nothing is dropped"));
        let valid = model.valid();
        let inner = images.clone().inner();
        let test = || floats(valid.forward(inner.clone()));
        assert_eq!(test(), test(), "{variant:?}");
        // Through training and back it is switched on again: 22 units with a half each or 2560 with a
        // fifth are equal once in four million runs.
        let again = valid.clone().train();
        assert!((0..20).any(|_| differs(&again)), "{variant:?}");
    }
}

/// Keeps about three of ten weights of the layers that `prune` names by their shape.
struct Prune<F: Fn(&[usize]) -> bool> {
    path: Vec<String>,
    prune: F,
}

impl<F: Fn(&[usize]) -> bool> Prune<F> {
    fn new(prune: F) -> Self {
        let path = Vec::new();
        Self { path, prune }
    }
}

impl<F: Fn(&[usize]) -> bool> ModuleMapper for Prune<F> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if D == 1 || !(self.prune)(param.lazy_shape().as_slice()) {
            return param;
        }
        let random = values(&self.path.join("."), param.lazy_shape().num_elements());
        let mask = random.into_iter().map(|v| f32::from(v < -0.2)).collect();
        param.map(|weight| {
            let mask = TensorData::new::<f32, _>(mask, weight.dims());
            let mask = Tensor::from_data(mask, &weight.device());
            weight * mask
        })
    }
}

fn is_depthwise(shape: &[usize]) -> bool {
    matches!(shape, &[_, 1, _, _])
}

#[test]
fn packed_networks_give_the_dense_scores_and_come_back_from_a_file() {
    let device = Device::flex();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("packed.safetensors");
    for variant in variants() {
        let model = lively(variant.init(&device)).map(&mut Prune::new(|_| true));
        let model = model.fold();
        let [h, w] = variant.sizes()[1];
        let images: Tensor<4> = image([3, 3, h, w], &device);
        let dense = floats(model.forward(images.clone()));
        let trace = Trace::of(|| drop(model.forward(images.clone())));
        for trace in [Trace::default(), trace] {
            let config = PackConfig::default()
                .with_choice(Choice::Csr)
                .with_trace(trace)
                .with_runs(1)
                .with_plan_cache(None);
            let (packed, report) = pack::pack(model.clone(), &config).expect("packs");
            assert!(report.layers.iter().all(|l| l.format == Format::Csr));
            let sparse = floats(packed.forward(images.clone()));
            assert!(difference(&dense, &sparse) < 1e-4, "{variant:?}");
            let inferred = floats(packed.infer(images.clone()));
            assert!(difference(&dense, &inferred) < 1e-4, "{variant:?}");

            store::save(&packed, &path).expect("saves");
            let fresh = variant.init(&device).fold();
            let loaded = store::load(fresh, &path).expect("loads");
            let loaded = floats(loaded.forward(images.clone()));
            assert!(difference(&sparse, &loaded) < 1e-5, "{variant:?}");
            let unpacked = pack::unpack(packed);
            assert_eq!(floats(unpacked.forward(images.clone())), dense);
        }
    }
}

#[test]
fn depthwise_convolutions_that_a_plan_leaves_dense_stay_dense() {
    let device = Device::flex();
    let model = lively(small_mobilenet().init(&device));
    let model = model.map(&mut Prune::new(|shape| !is_depthwise(shape)));
    let model = model.fold();
    let images: Tensor<4> = image([2, 3, 16, 16], &device);
    let dense = floats(model.forward(images.clone()));
    let trace = Trace::of(|| drop(model.forward(images.clone())));
    for (trace, traced) in [(Trace::default(), false), (trace, true)] {
        let config = PackConfig::default()
            .with_trace(trace)
            .with_runs(1)
            .with_plan_cache(None);
        let (packed, report) = pack::pack(model.clone(), &config).expect("packs");
        let depthwise = report.layers.iter().filter(|l| is_depthwise(&l.shape));
        let formats: Vec<_> = depthwise.map(|l| l.format).collect();
        assert_eq!(formats.len(), 6);
        for format in formats {
            // Where a measurement finds them faster, all weights run as tiles.
            assert!(
                format == Format::Dense || (traced && format == Format::Tile),
                "{format:?}"
            );
        }
        if !traced {
            let others = report.layers.iter().filter(|l| !is_depthwise(&l.shape));
            assert!(others.into_iter().all(|l| l.format == Format::Csr));
        }
        let sparse = floats(packed.forward(images.clone()));
        assert!(difference(&dense, &sparse) < 1e-4);
    }
}

/// Variance and mean.
fn moments(values: &[f32]) -> [f64; 2] {
    let n = values.len() as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let square = |&v: &f32| (f64::from(v) - mean).powi(2);
    [values.iter().map(square).sum::<f64>() / n, mean]
}

#[test]
fn parameters_start_as_torchvisions() {
    let device = Device::flex();
    device.seed(3);
    let config = VggConfig::vgg16_bn(10).with_width(32).with_hidden(256);
    let vgg = StateDict::of(&config.init(&device));
    let mobilenet = StateDict::of(&MobileNetV2Config::new(10).init(&device));
    let config = DenseNetConfig::cifar(4, 32, 10);
    let densenet = StateDict::of(&config.init(&device));
    let is_zero = |values: &[f64]| values.iter().all(|&v| v == 0.0);
    let is_one = |values: &[f64]| values.iter().all(|&v| v == 1.0);
    for (file, name, variance) in [
        (&vgg, "features.40", 2.0 / (256.0 * 9.0)),
        (&vgg, "classifier.0", 1e-4),
        (&vgg, "classifier.3", 1e-4),
        // The fan out of a depthwise convolution is that of all its groups.
        (&mobilenet, "features.17.conv.1.0", 2.0 / (960.0 * 9.0)),
        (&mobilenet, "features.18.0", 2.0 / 1280.0),
        (&mobilenet, "classifier.1", 1e-4),
        // The fan in; the classifier uniform within one over its root.
        (
            &densenet,
            "features.denseblock2.denselayer1.conv1",
            2.0 / 96.0,
        ),
        (
            &densenet,
            "features.denseblock3.denselayer4.conv2",
            2.0 / (128.0 * 9.0),
        ),
        (&densenet, "classifier", 1.0 / (3.0 * 208.0)),
    ] {
        let weight = file.values(&format!("{name}.weight"));
        let weight: Vec<f32> = weight.iter().map(|&v| v as f32).collect();
        let [found, mean] = moments(&weight);
        // The variance of n samples has a standard error of sqrt(2 / n) of it.
        let error = 6.0 * (2.0 / weight.len() as f64).sqrt();
        assert!((found / variance - 1.0).abs() < error, "{name}: {found}");
        let error = 6.0 * (variance / weight.len() as f64).sqrt();
        assert!(mean.abs() < error, "{name}: {mean}");
    }
    for name in ["features.40.bias", "classifier.6.bias", "features.41.bias"] {
        assert!(is_zero(vgg.values(name)), "{name}");
    }
    assert!(is_one(vgg.values("features.41.weight")));
    assert!(is_zero(densenet.values("classifier.bias")));
    assert!(is_one(densenet.values("features.norm5.weight")));
    assert!(is_zero(mobilenet.values("classifier.1.bias")));
    assert!(is_one(mobilenet.values("features.5.conv.3.weight")));
}

#[test]
fn wrapped_networks_have_the_same_paths() {
    let device = Device::flex();
    let vgg = small_vgg().init(&device);
    assert_eq!(shapes(&vgg), shapes(&Model::Vgg(vgg.clone())));
    let mobilenet = small_mobilenet().init(&device);
    let wrapped = Model::MobileNetV2(mobilenet.clone());
    assert_eq!(shapes(&mobilenet), shapes(&wrapped));
    assert_eq!(mobilenet.blocks().count(), 6);
    assert_eq!(wrapped.num_params(), mobilenet.num_params());
    let densenet = small_densenet().init(&device);
    let dense = Model::DenseNet(densenet.clone());
    assert_eq!(shapes(&densenet), shapes(&dense));
    assert_eq!(densenet.layers().count(), 6);
    assert_eq!(dense.num_params(), densenet.num_params());
    assert!(
        dense.to_string().contains("denselayer3"),
        "{}",
        dense.to_string()
    );
    for text in [wrapped.to_string(), vgg.to_string(), dense.to_string()] {
        assert!(
            text.contains("features") && text.contains("classifier"),
            "{text}"
        );
    }
}

#[test]
#[should_panic(expected = "images of 4x4 at least, not 3x8")]
fn a_vgg_refuses_images_that_its_pools_swallow() {
    let device = Device::flex();
    let model = small_vgg().init(&device);
    model.forward(image([1, 3, 3, 8], &device));
}

#[test]
#[should_panic(expected = "images of 13x13 at least, not 12x40")]
fn a_densenet_refuses_images_that_its_transitions_swallow() {
    let device = Device::flex();
    let config = small_densenet().with_stem(Stem::ImageNet);
    config.init(&device).forward(image([1, 3, 12, 40], &device));
}

#[test]
#[should_panic(expected = "blocks of one layer or more, not [1, 0]")]
fn a_densenet_refuses_an_empty_block() {
    small_densenet().with_blocks([1, 0]).summary([32, 32]);
}

#[test]
#[should_panic(expected = "positive numbers of growth (0)")]
fn a_densenet_refuses_to_grow_by_nothing() {
    small_densenet().with_growth(0).init(&Device::flex());
}

#[test]
#[should_panic(expected = "one convolution or more, not [1, 0]")]
fn a_vgg_refuses_an_empty_stage() {
    let mut config = small_vgg();
    config.convs = vec![1, 0];
    config.init(&Device::flex());
}

#[test]
#[should_panic(expected = "above 0 and of 100 at most, not NaN")]
fn a_mobilenet_refuses_a_width_that_is_no_number() {
    small_mobilenet().with_width(f64::NAN).init(&Device::flex());
}

#[test]
#[should_panic(expected = "below one, not 1")]
fn a_dropout_of_everything_is_refused() {
    small_mobilenet().with_dropout(1.0).summary([32, 32]);
}

#[test]
fn a_convolution_alone_is_a_layer_too() {
    // The position of a folded norm stays empty, and a layer without neighbours runs by itself.
    let device = Device::flex();
    let mut config = small_vgg().with_head(VggHead::Cifar);
    (config.batch_norm, config.convs) = (true, vec![1]);
    let mut model = config.init(&device);
    let whole = lively(model.clone());
    // Without its ReLU the network is the same on maps that are positive: norms shifted up.
    model.features = whole.features.clone();
    for layer in &mut model.features {
        if let VggLayer::Norm(Some(bn)) = layer {
            bn.beta = Initializer::Constant { value: 100.0 }.init([3], &device);
        }
    }
    let images: Tensor<4> = image([1, 3, 6, 5], &device);
    let with = floats(model.forward(images.clone()));
    model
        .features
        .retain(|layer| !matches!(layer, VggLayer::Relu(_)));
    assert_eq!(with, floats(model.forward(images)));
}
