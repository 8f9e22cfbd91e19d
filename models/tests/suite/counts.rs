//! Parameters and multiply-accumulates are the published ones.

use burn::module::Module;
use burn::tensor::Device;
use models::{
    Arch, LayerKind, LeNet5Config, LeNet300Config, ModelConfig, ResNetConfig, Shortcut, Stem,
};

#[test]
fn networks_for_imagenet_have_the_published_costs() {
    // Parameters as documented by torchvision, multiply-accumulates as fvcore counts them.
    let published = [
        (Arch::ResNet18, 11_689_512, 1_814_073_344),
        (Arch::ResNet34, 21_797_672, 3_663_761_408),
        (Arch::ResNet50, 25_557_032, 4_089_184_256),
        (Arch::ResNet101, 44_549_160, 7_801_405_440),
        (Arch::ResNet152, 60_192_808, 11_513_626_624),
        (Arch::Vgg16, 138_357_544, 15_470_264_320),
        (Arch::Vgg16Bn, 138_365_992, 15_470_264_320),
        (Arch::MobileNetV2, 3_504_872, 300_774_272),
        (Arch::AlexNet, 61_100_840, 714_188_480),
    ];
    for (arch, params, macs) in published {
        let summary = ModelConfig::new(arch).summary([224, 224]);
        assert_eq!((summary.params(), summary.macs()), (params, macs), "{arch}");
        assert_eq!(summary.name(), arch.name());
    }
}

#[test]
fn networks_for_cifar_have_the_published_costs() {
    // Table 6 of He et al.: 0.27 M, 0.46 M and 0.85 M.
    let published = [
        (Arch::ResNet20, 269_722, 40_551_040),
        (Arch::ResNet32, 464_154, 68_862_592),
        (Arch::ResNet56, 853_018, 125_485_696),
    ];
    for (arch, params, macs) in published {
        let summary = ModelConfig::new(arch).summary([32, 32]);
        assert_eq!((summary.params(), summary.macs()), (params, macs), "{arch}");
    }
    let projected = ResNetConfig::resnet20(10).with_shortcut(Shortcut::Projection);
    // Two projections, 16 to 32 and 32 to 64, with their batch norms.
    assert_eq!(
        projected.summary([32, 32]).params(),
        269_722 + 512 + 64 + 2048 + 128
    );
}

#[test]
fn a_vgg16_for_cifar_costs_what_its_layers_add_up_to() {
    // Inputs, outputs and edge of the thirteen convolutions on a 32x32 image.
    let convs = [
        [3, 64, 32],
        [64, 64, 32],
        [64, 128, 16],
        [128, 128, 16],
        [128, 256, 8],
        [256, 256, 8],
        [256, 256, 8],
        [256, 512, 4],
        [512, 512, 4],
        [512, 512, 4],
        [512, 512, 2],
        [512, 512, 2],
        [512, 512, 2],
    ];
    let weights: u64 = convs.iter().map(|[i, o, _]| 9 * i * o).sum();
    let macs: u64 = convs
        .iter()
        .map(|[i, o, edge]| 9 * i * o * edge * edge)
        .sum();
    let units: u64 = convs.iter().map(|[_, o, _]| o).sum();
    assert_eq!((weights, units), (14_710_464, 4_224));
    for (arch, norms) in [(Arch::Vgg16, 0), (Arch::Vgg16Bn, 2 * units)] {
        let config = ModelConfig::new(arch)
            .with_classes(10)
            .with_stem(Stem::Cifar);
        let summary = config.summary([32, 32]);
        assert_eq!(
            summary.params(),
            weights + units + norms + 512 * 10 + 10,
            "{arch}"
        );
        assert_eq!(summary.macs(), macs + 512 * 10, "{arch}");
    }
    let config = ModelConfig::new(Arch::Vgg16Bn)
        .with_classes(10)
        .with_stem(Stem::Cifar);
    assert_eq!(config.summary([32, 32]).params(), 14_728_266);
}

#[test]
fn mobilenets_of_other_widths_and_strides_have_the_published_costs() {
    // The sums of table 2 with channels rounded by the authors' rule; for width 1.4 the paper has
    // 585 M in table 4.
    let published = [
        (0.35, 1_677_128, 59_285_808),
        (0.5, 1_968_680, 97_131_840),
        (0.75, 2_636_424, 209_069_792),
        (1.4, 6_108_776, 582_195_824),
    ];
    for (width, params, macs) in published {
        let config = ModelConfig::new(Arch::MobileNetV2).with_width(width);
        let summary = config.summary([224, 224]);
        assert_eq!(
            (summary.params(), summary.macs()),
            (params, macs),
            "{width}"
        );
    }
    // Two strides fewer: on a 32x32 image as many positions as on a 128x128 image otherwise.
    let config = ModelConfig::new(Arch::MobileNetV2);
    let cifar = config.clone().with_stem(Stem::Cifar);
    assert_eq!(cifar.summary([32, 32]).params(), 3_504_872);
    let last = |config: &ModelConfig, size: usize| {
        let summary = config.summary([size; 2]);
        let last = summary.weighted().nth_back(1).expect("many layers");
        last.output.clone()
    };
    assert_eq!(last(&config, 32), [1280, 1, 1]);
    assert_eq!(last(&cifar, 32), [1280, 4, 4]);
    assert_eq!(last(&cifar, 32), last(&config, 128));
}

#[test]
fn lenet300_has_the_published_weights() {
    let summary = LeNet300Config::new(10).summary();
    let weights: Vec<usize> = summary
        .weighted()
        .map(|l| l.weight.iter().product())
        .collect();
    assert_eq!(weights, [235_200, 30_000, 1_000]);
    assert_eq!((summary.weights(), summary.params()), (266_200, 266_610));
}

#[test]
fn lenet5_has_the_published_weights() {
    let summary = LeNet5Config::new(10).summary();
    let rows: Vec<_> = summary
        .weighted()
        .map(|l| (l.path.as_str(), l.weight.iter().product::<usize>(), l.macs))
        .collect();
    let expected = [
        ("conv1", 500, 288_000),
        ("conv2", 25_000, 1_600_000),
        ("fc1", 400_000, 400_000),
        ("fc2", 5_000, 5_000),
    ];
    assert_eq!(rows, expected);
    assert_eq!((summary.weights(), summary.params()), (430_500, 431_080));
}

#[test]
fn a_summary_describes_the_module_that_is_built() {
    let device = Device::flex();
    for arch in Arch::ALL {
        for stem in [Stem::ImageNet, Stem::Cifar] {
            let config = ModelConfig::new(arch).with_classes(7).with_stem(stem);
            let model = config.init(&device);
            let [_, h, w] = config.input;
            let summary = config.summary([h, w]);
            let mut shapes = crate::common::shapes(&model);
            let mut statistics = 0;
            for layer in summary.layers() {
                let mut take = |name: &str| shapes.remove(&format!("{}.{name}", layer.path));
                match layer.kind {
                    LayerKind::BatchNorm => {
                        for name in ["gamma", "beta", "running_mean", "running_var"] {
                            assert_eq!(take(name).as_ref(), Some(&layer.weight), "{}", layer.path);
                        }
                        statistics += layer.params;
                    }
                    LayerKind::Conv2d | LayerKind::Linear => {
                        assert_eq!(
                            take("weight").as_ref(),
                            Some(&layer.weight),
                            "{}",
                            layer.path
                        );
                        let weights: usize = layer.weight.iter().product();
                        let bias = take("bias").map_or(0, |shape| shape[0]);
                        assert_eq!(layer.params as usize, weights + bias, "{}", layer.path);
                    }
                }
            }
            assert!(shapes.is_empty(), "{arch}: not in the summary: {shapes:?}");
            assert_eq!(
                model.num_params() as u64,
                summary.params() + statistics,
                "{arch}"
            );
        }
    }
}

#[test]
fn a_summary_prints_one_row_for_each_layer_and_the_sums() {
    let summary = ModelConfig::new(Arch::ResNet50).summary([224, 224]);
    let text = summary.to_string();
    assert_eq!(text.lines().count(), 2 + summary.layers().len());
    assert!(text.contains("layer4.2.conv3"));
    assert!(text.contains("512x512x3x3"));
    assert!(
        text.ends_with("25 502 912 of them weights, 4 089 184 256 MACs per image"),
        "{text}"
    );
}

#[test]
fn a_cifar_stem_keeps_the_size() {
    let config = ResNetConfig::resnet18(10).with_stem(Stem::Cifar);
    let summary = config.summary([32, 32]);
    assert_eq!(summary.params(), 11_173_962);
    assert_eq!(summary.layers()[0].output, [64, 32, 32]);
    let last = summary.weighted().nth_back(1).expect("many layers");
    assert_eq!(last.output, [512, 4, 4]);
}

#[test]
fn a_state_dict_has_as_many_entries_as_torchvisions() {
    let device = Device::flex();
    let entries = [
        (Arch::ResNet18, 122),
        (Arch::ResNet34, 218),
        (Arch::ResNet50, 320),
        (Arch::ResNet101, 626),
        (Arch::ResNet152, 932),
        (Arch::Vgg16, 32),
        (Arch::Vgg16Bn, 97),
        (Arch::MobileNetV2, 314),
        (Arch::AlexNet, 16),
    ];
    for (arch, count) in entries {
        let config = ModelConfig::new(arch);
        let summary = config.summary([224, 224]);
        // PyTorch counts the batches of each norm as well.
        let norms = summary
            .layers()
            .iter()
            .filter(|l| l.kind == LayerKind::BatchNorm)
            .count();
        assert_eq!(
            crate::common::shapes(&config.init(&device)).len() + norms,
            count,
            "{arch}"
        );
    }
}
