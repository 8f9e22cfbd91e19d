//! What the networks compute.

use crate::common::{difference, floats, image, scramble, tiny};
use crate::plain::{self, Maps, StateDict};
use burn::module::Module;
use burn::nn::Initializer;
use burn::tensor::{Device, Distribution, Tensor};
use models::{
    Arch, BlockKind, Cifar6Config, Classifier, LeNet5Config, Model, ModelConfig, ResNetConfig,
    Shortcut, Stem,
};

/// Every kind of block, shortcut and stem on few channels.
fn variants() -> Vec<ResNetConfig> {
    let mut out = Vec::new();
    for kind in [BlockKind::Basic, BlockKind::Bottleneck] {
        for shortcut in [Shortcut::ZeroPad, Shortcut::Projection] {
            for stem in [Stem::ImageNet, Stem::Cifar] {
                let config = ResNetConfig::imagenet(kind, [1, 2, 1, 1], 5).with_width(3);
                out.push(config.with_shortcut(shortcut).with_stem(stem));
            }
        }
    }
    out
}

#[test]
fn logits_have_a_row_for_each_image_whatever_the_size() {
    let device = Device::flex();
    for config in variants() {
        let model = config.init(&device);
        for (batch, size) in [(1, [32, 32]), (3, [64, 48]), (2, [33, 31]), (1, [7, 9])] {
            let images = image([batch, 3, size[0], size[1]], &device);
            let logits = model.forward(images);
            assert_eq!(logits.dims(), [batch, 5], "{config:?} {size:?}");
            assert!(floats(logits).iter().all(|v| v.is_finite()));
        }
    }
}

#[test]
fn images_of_a_batch_do_not_mix() {
    let device = Device::flex();
    for config in variants() {
        let model = scramble(config.init(&device));
        let images: Tensor<4> = image([3, 3, 33, 32], &device);
        let all = floats(model.forward(images.clone()));
        for i in 0..3 {
            let one = floats(model.forward(images.clone().narrow(0, i, 1)));
            assert!(difference(&all[5 * i..5 * (i + 1)], &one) < 1e-5);
        }
    }
}

#[test]
fn folded_networks_compute_the_same() {
    let device = Device::flex();
    for config in variants() {
        let model = scramble(config.init(&device));
        let images: Tensor<4> = image([2, 3, 33, 32], &device);
        let before = floats(model.forward(images.clone()));
        let folded = model.fold_batch_norm();
        let names = crate::common::shapes(&folded);
        assert!(
            !names.keys().any(|name| name.contains("running")),
            "{names:?}"
        );
        let after = floats(folded.forward(images.clone()));
        // About ten layers of a few hundred terms each in f32.
        assert!(difference(&before, &after) < 1e-4, "{config:?}");
        // Nothing is left to fold.
        let again = floats(folded.fold_batch_norm().forward(images));
        assert_eq!(after, again);
    }
}

#[test]
fn a_zero_pad_shortcut_subsamples_and_pads_channels() {
    let device = Device::flex();
    let config = ResNetConfig::cifar(1, 2)
        .with_width(2)
        .with_zero_init_residual(true);
    let model = config.init(&device);
    // With an empty branch a block is relu(shortcut(x)); where the shortcut pads, the branch is not empty.
    let x: Tensor<4> = image([1, 2, 5, 4], &device);
    let block = model.blocks().nth(1).expect("three blocks");
    let out = floats(block.forward(x.clone()));
    let x = floats(x);
    let (rows, cols) = (3, 2);
    for c in 0..4 {
        for r in 0..rows {
            for q in 0..cols {
                if let 1 | 2 = c {
                    let expected = x[(c - 1) * 20 + 2 * r * 4 + 2 * q].max(0.0);
                    assert_eq!(out[(c * rows + r) * cols + q], expected, "{c} {r} {q}");
                }
            }
        }
    }
}

#[test]
fn every_channel_trains_although_branches_start_at_zero() {
    let device = Device::flex().autodiff();
    let config = ResNetConfig::resnet20(10).with_width(4);
    let model = config.with_zero_init_residual(true).init(&device);
    let x = Tensor::<4>::random([8, 3, 16, 16], Distribution::Default, &device);
    let gradients = model.forward(x).powi_scalar(2).mean().backward();
    for block in model.blocks() {
        let gamma = block.bn2.as_ref().expect("a norm").gamma.val();
        let gradient = gamma.grad(&gradients).expect("it trains").into_data();
        let zero = gradient.iter::<f32>().filter(|&g| g == 0.0).count();
        assert_eq!(zero, 0, "channels without a gradient");
    }
}

#[test]
fn a_block_is_what_its_formula_says() {
    // A one-channel network on a constant image: sums of the kernel are all that counts inside.
    let device = Device::flex();
    let mut model = ResNetConfig::cifar(1, 2).with_width(1).init(&device);
    let block = &mut model.layer1[0];
    for bn in [&mut block.bn1, &mut block.bn2].into_iter().flatten() {
        bn.gamma = Initializer::Constant { value: 2.0 }.init([1], &device);
        bn.beta = Initializer::Constant { value: -0.5 }.init([1], &device);
    }
    let sum = |conv: Tensor<4>| floats(conv).iter().sum::<f32>();
    let (k1, k2) = (sum(block.conv1.weight.val()), sum(block.conv2.weight.val()));
    let norm = |v: f32| 2.0 * v / (1.0_f32 + 1e-5).sqrt() - 0.5;
    let x = 0.75;
    let expected = (norm(k2 * norm(k1 * x).max(0.0)) + x).max(0.0);
    let out = floats(block.forward(Tensor::full([1, 1, 9, 9], x, &device)));
    // Away from the borders, where zeros enter.
    assert!(
        (out[4 * 9 + 4] - expected).abs() < 1e-5,
        "{} {expected}",
        out[4 * 9 + 4]
    );
}

#[test]
fn gradients_reach_every_parameter() {
    let device = Device::flex().autodiff();
    for config in variants() {
        let model = config.init(&device);
        let images: Tensor<4> = image([2, 3, 32, 32], &device);
        let loss = model.forward(images).powi_scalar(2).sum();
        let grads = loss.backward();
        let mut missing = Missing {
            grads: &grads,
            path: Vec::new(),
            missing: Vec::new(),
        };
        model.visit(&mut missing);
        assert!(
            missing.missing.is_empty(),
            "{config:?}: {:?}",
            missing.missing
        );
    }
}

struct Missing<'a> {
    grads: &'a burn::tensor::Gradients,
    path: Vec<String>,
    missing: Vec<String>,
}

impl burn::module::ModuleVisitor for Missing<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
        let name = self.path.join(".");
        if !name.contains("running") && param.val().grad(self.grads).is_none() {
            self.missing.push(name);
        }
    }
}

#[test]
fn convolutions_start_with_the_variance_of_their_fan_out() {
    let device = Device::flex();
    device.seed(3);
    let model = ResNetConfig::resnet18(10).init(&device);
    let weight = floats(model.layer4[1].conv1.weight.val());
    let n = weight.len() as f64;
    let mean = weight.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let var = weight
        .iter()
        .map(|&v| (f64::from(v) - mean).powi(2))
        .sum::<f64>()
        / n;
    let expected = 2.0 / (512.0 * 9.0);
    // 2.4 million samples: a standard error of about 0.1 % of the variance.
    assert!((var / expected - 1.0).abs() < 0.01, "{var} {expected}");
    assert!(mean.abs() < 1e-4);
}

#[test]
fn six_layers_for_cifar_compute_what_plain_loops_do() {
    let device = Device::flex();
    for input in [[3, 32, 32], [1, 13, 9], [3, 4, 4]] {
        let config = Cifar6Config::new(5).with_width(4).with_hidden(7);
        let model = scramble(config.with_input(input).init(&device));
        let file = StateDict::of(&model);
        let [c, h, w] = input;
        let images: Tensor<4> = image([2, c, h, w], &device);
        let expected: Vec<f32> = floats(images.clone())
            .chunks(c * h * w)
            .flat_map(|pixels| {
                let data = pixels.iter().copied().map(f64::from).collect();
                plain::cifar6(&file, Maps { size: input, data })
            })
            .map(|score| score as f32)
            .collect();
        let near = |logits| difference(&expected, &floats(logits)) < 1e-4;
        assert!(near(model.forward(images.clone())), "{input:?}");
        assert!(near(model.infer(images.clone())), "{input:?}");
        let folded = model.fold_batch_norm();
        assert!(near(folded.forward(images.clone())), "{input:?}");
        let again = floats(folded.clone().fold_batch_norm().forward(images.clone()));
        assert_eq!(again, floats(folded.forward(images)));
    }
}

#[test]
#[should_panic(expected = "4x4 at least (not 3x8)")]
fn six_layers_for_cifar_refuse_too_small_images() {
    Cifar6Config::new(10)
        .with_input([3, 3, 8])
        .init(&Device::flex());
}

#[test]
fn lenet5_takes_images_of_its_size() {
    let device = Device::flex();
    for input in [[1, 28, 28], [3, 32, 32], [1, 16, 19]] {
        let model = LeNet5Config::new(10).with_input(input).init(&device);
        let [c, h, w] = input;
        assert_eq!(model.forward(image([3, c, h, w], &device)).dims(), [3, 10]);
    }
}

#[test]
#[should_panic(expected = "built for images of [28, 28]")]
fn lenet5_refuses_images_of_another_size() {
    let device = Device::flex();
    LeNet5Config::new(10)
        .init(&device)
        .forward(image([1, 1, 32, 32], &device));
}

#[test]
#[should_panic(expected = "16x16 at least (not 12x28)")]
fn lenet5_refuses_too_small_images() {
    LeNet5Config::new(10)
        .with_input([1, 12, 28])
        .init(&Device::flex());
}

#[test]
#[should_panic(expected = "one to four stages, not 5")]
fn a_fifth_stage_is_refused() {
    let config = ResNetConfig {
        blocks: vec![1; 5],
        ..ResNetConfig::cifar(1, 2)
    };
    config.init(&Device::flex());
}

#[test]
fn a_wrapped_network_has_the_same_paths_and_outputs() {
    let device = Device::flex();
    let inner = tiny().init(&device);
    let model = Model::ResNet(inner.clone());
    assert_eq!(crate::common::shapes(&inner), crate::common::shapes(&model));
    assert!(crate::common::shapes(&model).contains_key("layer2.0.downsample.0.weight"));
    assert!(crate::common::shapes(&model).contains_key("layer2.0.downsample.1.running_var"));
    let x: Tensor<4> = image([1, 3, 16, 16], &device);
    assert_eq!(
        floats(inner.forward(x.clone())),
        floats(model.forward(x.clone()))
    );
    assert_eq!(
        (model.classes(), model.num_params()),
        (3, inner.num_params())
    );
    assert!(model.to_string().contains("fc"));

    // Through training and back, and folded.
    let trained = model.clone().train();
    assert_eq!(
        floats(trained.valid().forward(x.clone())),
        floats(model.forward(x.clone()))
    );
    let folded = model.clone().fold();
    assert!(
        difference(
            &floats(model.forward(x.clone())),
            &floats(folded.forward(x))
        ) < 1e-4
    );
}

#[test]
fn every_architecture_is_built_by_its_name() {
    for arch in Arch::ALL {
        assert_eq!(arch.to_string().parse(), Ok(arch));
        assert_eq!(arch.name().to_uppercase().parse(), Ok(arch));
        let json = serde_json::to_string(&ModelConfig::new(arch)).expect("serialises");
        assert!(json.contains(&format!("\"{arch}\"")), "{json}");
        assert_eq!(
            serde_json::from_str::<ModelConfig>(&json).expect("reads"),
            ModelConfig::new(arch)
        );
    }
    // Torchvision's names.
    assert_eq!("vgg16_bn".parse(), Ok(Arch::Vgg16Bn));
    assert_eq!("mobilenet_v2".parse(), Ok(Arch::MobileNetV2));
    let error = "vgg99".parse::<Arch>().expect_err("unknown").to_string();
    assert!(
        error.contains("`vgg99`") && error.contains("resnet18, resnet34, resnet50"),
        "{error}"
    );
}
