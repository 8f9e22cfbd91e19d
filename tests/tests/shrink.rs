//! Emptied channels cut out of the networks of `models`: the same output from less.

use burn::module::{Module, ModuleMapper, Param};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Distribution, Tensor};
use burn_admm::shrink::{
    ChannelModel, Constants, GraphError, KeptChannels, Reason, ShrinkOptions, ShrinkPlan, Shrunk,
    compare, shrink,
};
use burn_admm::{Masks, Plan, SparsityReport, fold};
use burn_sparse::Sparsity;
use models::{
    Arch, BlockKind, Classifier, DenseNetConfig, LeNet5Config, MobileNetStage, MobileNetV2Config,
    Model, ModelConfig, ResNet, ResNetConfig, Shortcut, Stem, VggConfig, VggHead,
};
use tests::devices_with_shared_memory as devices;

/// Norms with statistics that are not trivial, then every third filter of each convolution without
/// weights, and every fourth channel of each norm without scale and shift.
struct Prune {
    path: Vec<String>,
    filters: bool,
    norms: bool,
}

impl Prune {
    fn every<M: Module>(model: M, filters: bool, norms: bool) -> M {
        model.map(&mut Self {
            path: Vec::new(),
            filters,
            norms,
        })
    }
}

impl ModuleMapper for Prune {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.last().map(String::as_str).unwrap_or_default();
        let random = |low, high| Distribution::Uniform(low, high);
        let every = |tensor: Tensor<D>, step: usize| {
            let len = tensor.dims()[0];
            (1..len).step_by(step).fold(tensor, |tensor, at| {
                tensor.slice_fill(burn::tensor::s![at..at + 1], 0.0)
            })
        };
        param.map(|tensor| {
            let of = |distribution| tensor.random_like(distribution);
            match (D, name) {
                (4, _) if self.filters => every(tensor, 3),
                (1, "gamma") if self.norms => every(of(random(0.5, 1.5)), 4),
                (1, "beta") if self.norms => every(of(random(-0.5, 0.5)), 4),
                (1, "gamma") => of(random(0.5, 1.5)),
                (1, "beta" | "running_mean") => of(random(-0.5, 0.5)),
                (1, "running_var") => of(random(0.5, 1.5)),
                _ => tensor,
            }
        })
    }
}

fn exact<M: ChannelModel + Classifier>(model: M, input: &[usize]) -> Shrunk<M> {
    let options = ShrinkOptions::new().with_tolerance(1e-5);
    shrink(model, input, &options, |model, x| {
        Classifier::forward(model, x)
    })
    .unwrap()
}

#[test]
fn lenet_loses_filters_and_hidden_units_everywhere() {
    for (name, device) in devices() {
        let mut model = Prune::every(LeNet5Config::new(10).init(&device), true, false);
        // Of 500 hidden units, only a hundred have weights.
        let fc1 = model
            .fc1
            .weight
            .val()
            .slice_fill(burn::tensor::s![.., 100..], 0.0);
        model.fc1.weight = Param::from_tensor(fc1).into();
        let small = exact(model, &[1, 28, 28]);
        // The emptied filters emit relu(bias), which moves through pools into the next bias.
        let dims = [&small.model.conv1, &small.model.conv2].map(|conv| conv.weight.dims());
        assert_eq!(dims, [[13, 1, 5, 5], [33, 13, 5, 5]], "{name}");
        assert_eq!(small.model.fc1.weight.dims(), [33 * 16, 100], "{name}");
        assert_eq!(small.model.fc2.weight.dims(), [100, 10], "{name}");
        assert!(
            small
                .plan
                .report()
                .layers
                .iter()
                .all(|layer| layer.kept.is_empty())
        );
    }
}

fn networks() -> Vec<ResNetConfig> {
    let mut configs = Vec::new();
    for kind in [BlockKind::Basic, BlockKind::Bottleneck] {
        for shortcut in [Shortcut::Projection, Shortcut::ZeroPad] {
            for stem in [Stem::Cifar, Stem::ImageNet] {
                configs.push(ResNetConfig {
                    kind,
                    blocks: vec![2, 1, 1],
                    width: 12,
                    shortcut,
                    stem,
                    channels: 3,
                    classes: 5,
                    zero_init_residual: false,
                });
            }
        }
    }
    configs
}

#[test]
fn every_kind_of_residual_network_computes_the_same() {
    let device = Device::flex();
    for config in networks() {
        let init = || Prune::every(config.init(&device), true, true);
        for model in [init(), init().fold_batch_norm()] {
            let folded = model.bn1.is_none();
            let small = exact(model, &[3, 32, 32]);
            let [before, after] = small.plan.report().params();
            // A stage that begins with added zero channels keeps those.
            let fraction = if config.shortcut == Shortcut::Projection {
                0.75
            } else {
                0.9
            };
            assert!(
                (after as f64) < fraction * before as f64,
                "{config:?}, folded: {folded}\n{}",
                small.plan.report()
            );
        }
    }
}

#[test]
fn vgg_with_either_head_loses_filters() {
    let device = Device::flex();
    for head in [VggHead::ImageNet, VggHead::Cifar] {
        let config = VggConfig {
            convs: vec![1, 2],
            width: 12,
            hidden: 20,
            head,
            channels: 3,
            ..VggConfig::vgg16_bn(5)
        };
        let init = || Prune::every(config.init(&device), true, true);
        for model in [init(), init().fold_batch_norm()] {
            let small = exact(model, &[3, 16, 16]);
            let [before, after] = small.plan.report().params();
            assert!(after < before, "{head:?}\n{}", small.plan.report());
        }
    }
}

/// Projects, trains what is left for some steps, folds the masks and cuts.
fn prune_and_cut<M: ChannelModel + Classifier>(model: M, plan: &Plan) -> Shrunk<M> {
    let plan = plan.resolve(&model).unwrap();
    let mut model = Masks::project(&model, &plan)
        .unwrap()
        .attach(model)
        .unwrap();
    let device = Device::flex().autodiff();
    let mut optimizer = SgdConfig::new().init();
    for _ in 0..3 {
        let x = Tensor::random([4, 3, 16, 16], Distribution::Normal(0.0, 1.0), &device);
        let loss = model.forward(x).powi_scalar(2).mean();
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(1e-2, model, gradients);
    }
    let masked = fold(model).valid();
    let report = SparsityReport::new(&masked).unwrap();
    assert!(report.nnz < report.weights, "{report}");
    exact(masked, &[3, 16, 16])
}

/// The whole path of structured removal: a plan, masks, training, and a smaller dense network.
#[test]
fn filters_that_a_plan_emptied_are_cut_out_after_training() {
    let device = Device::flex().autodiff();
    let vgg = VggConfig {
        convs: vec![1, 2],
        width: 12,
        hidden: 20,
        head: VggHead::Cifar,
        channels: 3,
        ..VggConfig::vgg16_bn(5)
    };
    let half = Sparsity::filter(0.5).unwrap();
    let plan = Plan::dense().with_sparsity("features.*.weight", half);
    let small = prune_and_cut(vgg.init(&device), &plan.unwrap());
    let [before, after] = small.plan.report().params();
    assert!((after as f64) < 0.45 * before as f64, "{after} of {before}");

    let resnet = ResNetConfig {
        blocks: vec![1, 1],
        ..ResNetConfig::resnet20(5).with_width(8)
    };
    // What lies inside of a block is read by nobody else.
    let plan = Plan::dense().with_sparsity("layer*.*.conv1.weight", half);
    let small = prune_and_cut(resnet.init(&device), &plan.unwrap());
    let [before, after] = small.plan.report().params();
    assert!((after as f64) < 0.65 * before as f64, "{after} of {before}");
}

#[test]
fn mobilenet_loses_depthwise_channels_with_what_feeds_them() {
    let device = Device::flex();
    let config = MobileNetV2Config {
        stages: vec![
            MobileNetStage {
                expansion: 1,
                channels: 8,
                blocks: 1,
                stride: 1,
            },
            MobileNetStage {
                expansion: 3,
                channels: 16,
                blocks: 2,
                stride: 2,
            },
        ],
        width: 0.5,
        channels: 3,
        ..MobileNetV2Config::new(5)
    };
    let init = || Prune::every(config.init(&device), true, true);
    for model in [init(), init().fold_batch_norm()] {
        for depthwise in [false, true] {
            let options = ShrinkOptions::new()
                .with_tolerance(1e-5)
                .with_depthwise(depthwise);
            let small = shrink(model.clone(), &[3, 32, 32], &options, |model, x| {
                Classifier::forward(model, x)
            })
            .unwrap();
            let [before, after] = small.plan.report().params();
            assert!(after < before, "{}", small.plan.report());
        }
    }
}

#[test]
fn a_residual_stream_becomes_narrower_where_all_its_norms_agree() {
    let config = &networks()[0];
    let model = Prune::every(config.init(&Device::flex()), false, true);
    let small = exact(model, &[3, 32, 32]);
    // Channels 1, 5 and 9 of the first stage go, from the stem and both blocks.
    assert_eq!(small.model.conv1.weight.dims(), [9, 3, 3, 3]);
    for block in &small.model.layer1 {
        assert_eq!(block.conv1.weight.dims(), [9, 9, 3, 3]);
        assert_eq!(block.conv2.weight.dims(), [9, 9, 3, 3]);
        assert_eq!(block.bn2.as_ref().unwrap().gamma.dims(), [9]);
    }
    assert_eq!(
        small.model.layer2[0]
            .downsample
            .as_ref()
            .unwrap()
            .0
            .weight
            .dims(),
        [18, 9, 1, 1]
    );
    assert_eq!(small.model.fc.weight.dims(), [36, 5]);

    // If one block still writes them, they stay, and the report says why.
    let mut model = Prune::every(config.init(&Device::flex()), false, true);
    let bn2 = model.layer1[1].bn2.as_mut().unwrap();
    bn2.gamma = Param::from_tensor(bn2.gamma.val().ones_like());
    let small = exact(model, &[3, 32, 32]);
    assert_eq!(small.model.conv1.weight.dims(), [12, 3, 3, 3]);
    let report = small.plan.report();
    let kept = &report.layer("conv1").unwrap().kept;
    let tied = |kept: &&KeptChannels| matches!(kept.reason, Reason::Residual { .. });
    assert_eq!(kept.iter().find(tied).unwrap().channels, 3, "{report}");
}

#[test]
fn densenets_lose_channels_that_many_layers_read() {
    let device = Device::flex();
    for stem in [Stem::Cifar, Stem::ImageNet] {
        let config = DenseNetConfig::cifar(2, 6, 5).with_stem(stem);
        let init = || Prune::every(config.init(&device), true, true);
        for model in [init(), init().fold_batch_norm()] {
            let folded = model.features.norm0.is_none();
            let small = exact(model, &[3, 32, 32]);
            let [before, after] = small.plan.report().params();
            assert!(
                (after as f64) < 0.9 * before as f64,
                "{stem:?}, folded: {folded}\n{}",
                small.plan.report()
            );
        }
    }

    // Two of six channels that the first layer adds are empty: they go from all that read them,
    // wherever they stand among the others.
    let model = DenseNetConfig::cifar(3, 6, 5).init(&device);
    let mut model = Prune::every(model, false, false);
    let conv = &mut model.features.denseblock3.layers[0].conv2;
    let weight = conv.weight.val();
    let weight = weight.slice_fill(burn::tensor::s![1..5;3], 0.0);
    conv.weight = Param::from_tensor(weight).into();
    let small = exact(model, &[3, 32, 32]).model;
    let [first, second, third] = &small.features.denseblock3.layers[..] else {
        panic!("three layers");
    };
    assert_eq!(first.conv2.weight.dims(), [4, 24, 3, 3]);
    assert_eq!(second.norm1.gamma.dims(), [16 + 4]);
    assert_eq!(second.conv1.weight.dims(), [24, 16 + 4, 1, 1]);
    assert_eq!(third.conv1.weight.dims(), [24, 16 + 4 + 6, 1, 1]);
    assert_eq!(small.classifier.weight.dims(), [16 + 4 + 6 + 6, 5]);
}

#[test]
fn a_densenets_graph_refuses_images_that_leave_nothing() {
    let model = DenseNetConfig::cifar(1, 2, 5).init(&Device::flex());
    assert!(model.channel_graph(&[3, 4, 4]).is_ok());
    let error = model.channel_graph(&[3, 3, 4]).unwrap_err();
    assert!(matches!(error, GraphError::Shape { .. }), "{error}");
}

#[test]
fn constants_before_padded_convolutions_go_on_request() {
    let model = || Prune::every(networks()[0].init(&Device::flex()), true, false);
    let keep = exact(model(), &[3, 32, 32]);
    let report = keep.plan.report().to_string();
    assert!(
        report.contains("reads their constant under zero padding"),
        "{report}"
    );
    let options = ShrinkOptions::new().with_constants(Constants::Zero);
    let zero = shrink(model(), &[3, 32, 32], &options, ResNet::forward).unwrap();
    assert!(zero.difference.max_abs_diff > 0.0);
    assert!(zero.plan.report().params()[1] < keep.plan.report().params()[1]);
}

#[test]
fn the_report_counts_as_the_summary_does() {
    let device = Device::flex();
    for arch in [
        Arch::LeNet5,
        Arch::LeNet300,
        Arch::Cifar6,
        Arch::AlexNet,
        Arch::ResNet20,
        Arch::ResNet56,
        Arch::ResNet18,
        Arch::ResNet50,
        Arch::DenseNet121,
    ] {
        let config = ModelConfig::new(arch);
        let model: Model = config.init(&device);
        let graph = model.channel_graph(&config.input).unwrap();
        let plan = ShrinkPlan::new(&model, &graph, &ShrinkOptions::new()).unwrap();
        let summary = config.summary([config.input[1], config.input[2]]);
        assert_eq!(plan.report().params()[0], summary.params(), "{arch}");
        assert_eq!(plan.report().macs()[0], summary.macs(), "{arch}");
        assert!(plan.cuts().is_empty(), "{arch} {}", plan.report());
    }
}

#[test]
fn a_shrunk_network_is_saved_and_loaded() {
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.bpk");
    let config = &networks()[1];
    let small = exact(Prune::every(config.init(&device), true, true), &[3, 32, 32]);
    let x = Tensor::random([1, 3, 32, 32], Distribution::Default, &device);
    let expected = small.model.forward(x.clone());
    let json = small.plan.to_json();
    small.model.save_file(&path).unwrap();

    let plan = ShrinkPlan::from_json(&json).unwrap();
    let loaded = plan
        .apply(config.init(&device))
        .unwrap()
        .try_load_file(&path)
        .unwrap();
    assert_eq!(compare(expected, loaded.forward(x)).max_abs_diff, 0.0);
}
