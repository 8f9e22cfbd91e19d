//! The parameters of VGG, `DenseNet` and `MobileNetV2` have torchvision's names and shapes. They are derived
//! here from torchvision's way of numbering: the position in an `nn.Sequential`.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::Device;
use models::{DenseNetConfig, MobileNetV2Config, ModelConfig, Stem, VggConfig, VggHead};

/// Shapes by the names of a `state_dict`, without the counters of batches.
#[derive(Debug, Default, PartialEq)]
struct Names(BTreeMap<String, Vec<usize>>);

impl Names {
    fn put(&mut self, name: String, shape: &[usize]) {
        assert!(self.0.insert(name, shape.to_vec()).is_none());
    }

    fn norm(&mut self, name: &str, channels: usize) {
        for part in ["weight", "bias", "running_mean", "running_var"] {
            self.put(format!("{name}.{part}"), &[channels]);
        }
    }

    fn linear(&mut self, name: &str, outputs: usize, inputs: usize) {
        self.put(format!("{name}.weight"), &[outputs, inputs]);
        self.put(format!("{name}.bias"), &[outputs]);
    }

    /// What the module has, by its own paths put into PyTorch's words.
    fn of<M: Module>(model: &M) -> Self {
        let translate = |(path, mut shape): (String, Vec<usize>)| {
            if shape.len() == 2 {
                shape.reverse();
            }
            let name = match path.rsplit_once('.') {
                Some((layer, "gamma")) => format!("{layer}.weight"),
                Some((layer, "beta")) => format!("{layer}.bias"),
                _ => path,
            };
            (name, shape)
        };
        let shapes = crate::common::shapes(model);
        Self(shapes.into_iter().map(translate).collect())
    }
}

/// `torchvision.models.vgg.make_layers` for configuration D; zero stands for a pool.
fn vgg16(norm: bool) -> Names {
    let mut names = Names::default();
    let layers = [
        64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0,
    ];
    let (mut at, mut inputs) = (0, 3);
    for outputs in layers {
        if outputs == 0 {
            at += 1;
            continue;
        }
        names.put(format!("features.{at}.weight"), &[outputs, inputs, 3, 3]);
        names.put(format!("features.{at}.bias"), &[outputs]);
        if norm {
            at += 1;
            names.norm(&format!("features.{at}"), outputs);
        }
        at += 2;
        inputs = outputs;
    }
    names
}

#[test]
fn those_of_vgg16_are_torchvisions() {
    let device = Device::flex();
    for (norm, config) in [
        (false, VggConfig::vgg16(1000)),
        (true, VggConfig::vgg16_bn(1000)),
    ] {
        let mut names = vgg16(norm);
        // The last convolution of each as torchvision's documentation prints it.
        let last = if norm {
            "features.40.weight"
        } else {
            "features.28.weight"
        };
        assert_eq!(names.0.get(last), Some(&vec![512, 512, 3, 3]));
        names.linear("classifier.0", 4096, 512 * 7 * 7);
        names.linear("classifier.3", 4096, 4096);
        names.linear("classifier.6", 1000, 4096);
        assert_eq!(Names::of(&config.init(&device)), names);

        // The head for CIFAR is one layer.
        let config = VggConfig {
            classes: 10,
            ..config.with_head(VggHead::Cifar)
        };
        let mut names = vgg16(norm);
        names.linear("classifier", 10, 512);
        assert_eq!(Names::of(&config.init(&device)), names);
    }
}

/// `torchvision.models.DenseNet`.
fn densenet([growth, width, kernel]: [usize; 3], blocks: &[usize], classes: usize) -> Names {
    let mut names = Names::default();
    let conv = |names: &mut Names, name: String, shape: [usize; 4]| {
        names.put(format!("{name}.weight"), &shape);
    };
    let conv0 = "features.conv0".to_owned();
    conv(&mut names, conv0, [width, 3, kernel, kernel]);
    names.norm("features.norm0", width);
    let mut channels = width;
    for (index, &layers) in blocks.iter().enumerate() {
        for layer in 1..=layers {
            let path = format!("features.denseblock{}.denselayer{layer}", index + 1);
            names.norm(&format!("{path}.norm1"), channels);
            let hidden = 4 * growth;
            conv(
                &mut names,
                format!("{path}.conv1"),
                [hidden, channels, 1, 1],
            );
            names.norm(&format!("{path}.norm2"), hidden);
            conv(&mut names, format!("{path}.conv2"), [growth, hidden, 3, 3]);
            channels += growth;
        }
        if index + 1 < blocks.len() {
            let path = format!("features.transition{}", index + 1);
            names.norm(&format!("{path}.norm"), channels);
            let shape = [channels / 2, channels, 1, 1];
            conv(&mut names, format!("{path}.conv"), shape);
            channels /= 2;
        }
    }
    names.norm("features.norm5", channels);
    names.linear("classifier", classes, channels);
    names
}

#[test]
fn those_of_densenets_are_torchvisions_whatever_the_blocks() {
    let device = Device::flex();
    let config = DenseNetConfig::densenet121(1000);
    let names = densenet([32, 64, 7], &[6, 12, 24, 16], 1000);
    // The last layer as torchvision's documentation prints it.
    let last = "features.denseblock4.denselayer16.conv1.weight";
    assert_eq!(names.0.get(last), Some(&vec![128, 992, 1, 1]));
    assert_eq!(Names::of(&config.init(&device)), names);
    let config = DenseNetConfig::densenet161(7);
    let names = densenet([48, 96, 7], &[6, 12, 36, 24], 7);
    assert_eq!(Names::of(&config.init(&device)), names);
    let config = DenseNetConfig::cifar(3, 5, 10);
    let names = densenet([5, 10, 3], &[3, 3, 3], 10);
    assert_eq!(Names::of(&config.init(&device)), names);
}

/// `torchvision.models.MobileNetV2` of width one.
fn mobilenet_v2(classes: usize) -> Names {
    let mut names = Names::default();
    let conv_norm = |names: &mut Names, name: &str, shape: [usize; 4]| {
        names.put(format!("{name}.0.weight"), &shape);
        names.norm(&format!("{name}.1"), shape[0]);
    };
    conv_norm(&mut names, "features.0", [32, 3, 3, 3]);
    // Expansion, channels and blocks of the paper's table.
    let table = [
        (1, 16, 1),
        (6, 24, 2),
        (6, 32, 3),
        (6, 64, 4),
        (6, 96, 3),
        (6, 160, 3),
        (6, 320, 1),
    ];
    let (mut at, mut inputs) = (1, 32);
    for (expansion, outputs, blocks) in table {
        for _ in 0..blocks {
            let hidden = inputs * expansion;
            let mut next = 0;
            if expansion != 1 {
                let name = format!("features.{at}.conv.{next}");
                conv_norm(&mut names, &name, [hidden, inputs, 1, 1]);
                next += 1;
            }
            let name = format!("features.{at}.conv.{next}");
            conv_norm(&mut names, &name, [hidden, 1, 3, 3]);
            let name = format!("features.{at}.conv.{}.weight", next + 1);
            names.put(name, &[outputs, hidden, 1, 1]);
            names.norm(&format!("features.{at}.conv.{}", next + 2), outputs);
            inputs = outputs;
            at += 1;
        }
    }
    conv_norm(&mut names, &format!("features.{at}"), [1280, inputs, 1, 1]);
    names.linear("classifier.1", classes, 1280);
    names
}

#[test]
fn those_of_mobilenet_v2_are_torchvisions_whatever_the_stem() {
    let device = Device::flex();
    for stem in [Stem::ImageNet, Stem::Cifar] {
        let config = MobileNetV2Config::new(1000).with_stem(stem);
        assert_eq!(Names::of(&config.init(&device)), mobilenet_v2(1000));
    }
    let config = ModelConfig::new(models::Arch::MobileNetV2).with_classes(7);
    assert_eq!(Names::of(&config.init(&device)), mobilenet_v2(7));
}
