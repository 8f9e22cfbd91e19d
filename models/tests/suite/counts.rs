//! Parameters and multiply-accumulates are the published ones.

use burn::module::Module;
use burn::tensor::Device;
use models::{
    Arch, Cifar6Config, DenseNetConfig, LayerKind, LeNet5Config, LeNet300Config, ModelConfig,
    ResNetConfig, Shortcut, Stem,
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
        (Arch::DenseNet121, 7_978_856, 2_834_161_664),
        (Arch::DenseNet161, 28_681_000, 7_727_907_072),
        (Arch::DenseNet169, 14_149_480, 3_359_843_328),
        (Arch::DenseNet201, 20_013_928, 4_291_365_888),
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
fn densenets_cost_what_torchvision_and_the_paper_say() {
    // Torchvision documents them in thousand millions, to two digits.
    for (arch, documented) in [
        (Arch::DenseNet121, 2.83),
        (Arch::DenseNet161, 7.73),
        (Arch::DenseNet169, 3.36),
        (Arch::DenseNet201, 4.29),
    ] {
        let macs = ModelConfig::new(arch).summary([224, 224]).macs() as f64 / 1e9;
        assert!((macs - documented).abs() <= 0.005, "{arch}: {macs}");
    }
    // By hand for a small one: stem, two layers at 8x8 before and two at 4x4 after a transition
    // from 12 + 2·6 = 24 channels to 12, then the classifier on 12 + 2·6 of them.
    let config = DenseNetConfig::imagenet(6, [2; 4], 5).with_blocks([2, 2]);
    let layers = |input: u64| 24 * input + 24 * 6 * 9 + 24 * (input + 6) + 24 * 6 * 9;
    let norms = |input: u64| 2 * (input + 24) + 2 * (input + 6 + 24);
    let stem = 12 * 3 * 49;
    let weights = stem + layers(12) + 24 * 12 + layers(12) + 24 * 5;
    let affine = 2 * 12 + norms(12) + 2 * 24 + norms(12) + 2 * 24;
    let summary = config.summary([32, 32]);
    assert_eq!(summary.weights(), weights);
    assert_eq!(summary.params(), weights + affine + 5);
    let macs = 256 * stem + 64 * (layers(12) + 24 * 12) + 16 * layers(12) + 24 * 5;
    assert_eq!((summary.macs(), summary.name()), (macs, "densenet11"));
    // Table 2 of Huang et al.: DenseNet-BC for CIFAR.
    for (n, growth, millions) in [(16, 12, 0.8), (41, 24, 15.3), (31, 40, 25.6)] {
        let params = DenseNetConfig::cifar(n, growth, 10).summary([32, 32]);
        let found = params.params() as f64 / 1e6;
        assert!((found - millions).abs() <= 0.05, "{growth}: {found}");
    }
    // Half as wide, with a stem for CIFAR: an eighth of the size is left.
    let half = ModelConfig::new(Arch::DenseNet121)
        .with_width(0.5)
        .with_stem(Stem::Cifar);
    let densenet = half.densenet().expect("is one");
    assert_eq!((densenet.growth, densenet.width), (16, 32));
    let summary = half.summary([32, 32]);
    let last = summary.weighted().nth_back(1).expect("many layers");
    assert_eq!(last.output, [16, 4, 4]);
    assert_eq!(summary.weighted().next_back().expect("one").input, [512]);
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
fn six_layers_for_cifar_cost_what_they_add_up_to() {
    let summary = ModelConfig::new(Arch::Cifar6).summary([32, 32]);
    let rows: Vec<_> = summary
        .weighted()
        .map(|l| (l.path.as_str(), l.weight.iter().product::<usize>(), l.macs))
        .collect();
    let expected = [
        ("conv1", 864, 864 * 1024),
        ("conv2", 9_216, 9_216 * 1024),
        ("conv3", 18_432, 18_432 * 256),
        ("conv4", 36_864, 36_864 * 256),
        ("fc1", 524_288, 524_288),
        ("fc2", 1_280, 1_280),
    ];
    assert_eq!(rows, expected);
    assert_eq!(summary.name(), "cifar6");
    // Two numbers for each channel of the norms, and the biases of the products.
    assert_eq!(summary.params(), 590_944 + 2 * (2 * 32 + 2 * 64) + 138);
    let half = ModelConfig::new(Arch::Cifar6).with_width(0.5);
    let halved = Cifar6Config::new(10).with_width(16).with_hidden(64);
    assert_eq!(half.summary([32, 32]).params(), halved.summary().params());
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
        (Arch::DenseNet121, 727),
        (Arch::DenseNet161, 967),
        (Arch::DenseNet169, 1015),
        (Arch::DenseNet201, 1207),
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
