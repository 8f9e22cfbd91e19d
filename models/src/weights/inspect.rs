//! What a file tells about the network its weights belong to.

use std::path::Path;

use super::WeightsError;
use super::checkpoint::Checkpoint;
use crate::{Arch, Cifar6Config, MobileNetV2Config, ModelConfig, Shortcut, Stem};

/// The configuration of `arch` that the weights in a file belong to: the number of classes and of
/// channels, the stem and the shortcuts of a residual network, the stem of a `DenseNet`, the head of a VGG and the width of a
/// `MobileNetV2` or a `Cifar6` show in the shapes. What they do not show (the strides of a `MobileNetV2`) is as
/// published.
///
/// ```
/// use burn::tensor::Device;
/// use models::{Arch, ModelConfig, Stem, weights};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("trained.safetensors");
/// let trained = ModelConfig::new(Arch::ResNet18).with_classes(7).with_stem(Stem::Cifar);
/// weights::save(&trained.init(&Device::flex()), &path)?;
/// let config = weights::config(Arch::ResNet18, &path)?;
/// assert_eq!((config.classes, config.stem), (7, Some(Stem::Cifar)));
/// let model = weights::load(config.init(&Device::flex()), &path)?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When the file cannot be read or is broken.
pub fn config(arch: Arch, path: impl AsRef<Path>) -> Result<ModelConfig, WeightsError> {
    let file = Checkpoint::open(path.as_ref())?;
    let (names, inspect): (&[&str], fn(&mut ModelConfig, &Shapes)) = match arch {
        Arch::ResNet18
        | Arch::ResNet34
        | Arch::ResNet50
        | Arch::ResNet101
        | Arch::ResNet152
        | Arch::ResNet20
        | Arch::ResNet32
        | Arch::ResNet56 => (&["conv1.weight", "fc.weight"], resnet),
        Arch::Vgg16 | Arch::Vgg16Bn => (
            &[FIRST_OF_VGG, "classifier.weight", "classifier.6.weight"],
            vgg,
        ),
        Arch::DenseNet121 | Arch::DenseNet161 | Arch::DenseNet169 | Arch::DenseNet201 => {
            (&[FIRST_OF_DENSENET, "classifier.weight"], densenet)
        }
        Arch::AlexNet => (&[FIRST_OF_VGG, "classifier.6.weight"], alexnet),
        Arch::MobileNetV2 => (&[FIRST_OF_MOBILENET, "classifier.1.weight"], mobilenet),
        Arch::Cifar6 => (&["conv1.weight", "fc2.weight"], cifar6),
        Arch::LeNet5 => (&["conv1.weight", "fc2.weight"], lenet),
        Arch::LeNet300 => (&["fc1.weight", "fc3.weight"], lenet300),
    };
    let prefix = file.prefix(names.iter().copied());
    let mut config = ModelConfig::new(arch);
    inspect(
        &mut config,
        &Shapes {
            file: &file,
            prefix,
        },
    );
    Ok(config)
}

const FIRST_OF_VGG: &str = "features.0.weight";
const FIRST_OF_DENSENET: &str = "features.conv0.weight";
const FIRST_OF_MOBILENET: &str = "features.0.0.weight";

/// The shapes of the tensors that hold anything.
struct Shapes<'a> {
    file: &'a Checkpoint,
    prefix: String,
}

impl Shapes<'_> {
    /// None where there is no such tensor, or it is empty: numbers that no data stands behind are
    /// not believed.
    fn get(&self, name: &str) -> Option<&[usize]> {
        let shape = self.file.shape(&format!("{}{name}", self.prefix))?;
        (!shape.contains(&0)).then_some(shape)
    }

    /// Outputs and inputs of a product.
    fn linear(&self, name: &str) -> Option<[usize; 2]> {
        match self.get(name) {
            Some(&[outputs, inputs]) => Some([outputs, inputs]),
            _ => None,
        }
    }

    /// Outputs, inputs and the height of the kernel of a convolution.
    fn conv(&self, name: &str) -> Option<[usize; 3]> {
        match self.get(name) {
            Some(&[outputs, inputs, kernel, _]) => Some([outputs, inputs, kernel]),
            _ => None,
        }
    }
}

/// The channels of an image and the classes, from the first layer and the last.
fn ends(config: &mut ModelConfig, file: &Shapes, first: &str, last: &str) {
    if let Some([_, channels, _]) = file.conv(first) {
        config.input[0] = channels;
    }
    if let Some([classes, _]) = file.linear(last) {
        config.classes = classes;
    }
}

/// The stem that begins with a convolution of this kernel.
fn stem(kernel: usize) -> Option<Stem> {
    match kernel {
        3 => Some(Stem::Cifar),
        7 => Some(Stem::ImageNet),
        _ => None,
    }
}

fn resnet(config: &mut ModelConfig, file: &Shapes) {
    ends(config, file, "conv1.weight", "fc.weight");
    let Some([_, _, kernel]) = file.conv("conv1.weight") else {
        return;
    };
    config.stem = stem(kernel);
    let projected = file.get("layer2.0.downsample.0.weight").is_some();
    config.shortcut = Some(if projected {
        Shortcut::Projection
    } else {
        Shortcut::ZeroPad
    });
}

fn vgg(config: &mut ModelConfig, file: &Shapes) {
    let (stem, last) = if file.get("classifier.weight").is_some() {
        (Stem::Cifar, "classifier.weight")
    } else {
        (Stem::ImageNet, "classifier.6.weight")
    };
    config.stem = Some(stem);
    ends(config, file, FIRST_OF_VGG, last);
}

fn densenet(config: &mut ModelConfig, file: &Shapes) {
    ends(config, file, FIRST_OF_DENSENET, "classifier.weight");
    let first = file.conv(FIRST_OF_DENSENET);
    config.stem = first.and_then(|[_, _, kernel]| stem(kernel));
}

fn alexnet(config: &mut ModelConfig, file: &Shapes) {
    ends(config, file, FIRST_OF_VGG, "classifier.6.weight");
}

fn mobilenet(config: &mut ModelConfig, file: &Shapes) {
    ends(config, file, FIRST_OF_MOBILENET, "classifier.1.weight");
    let last = file.conv("features.17.conv.2.weight");
    config.width = last.and_then(|[channels, ..]| MobileNetV2Config::width_of(channels));
}

fn lenet300(config: &mut ModelConfig, file: &Shapes) {
    if let Some([classes, _]) = file.linear("fc3.weight") {
        config.classes = classes;
    }
    if let Some([_, pixels]) = file.linear("fc1.weight") {
        // Square images, grey or coloured.
        let shapes = [1, 3].map(|channels| (channels, (pixels / channels).isqrt()));
        let found = shapes.into_iter().find(|(c, side)| {
            *side > 0 && side.checked_mul(*side).and_then(|n| n.checked_mul(*c)) == Some(pixels)
        });
        if let Some((channels, side)) = found {
            config.input = [channels, side, side];
        }
    }
}

fn cifar6(config: &mut ModelConfig, file: &Shapes) {
    ends(config, file, "conv1.weight", "fc2.weight");
    let Some([width, ..]) = file.conv("conv1.weight") else {
        return;
    };
    let published = Cifar6Config::new(1).width;
    config.width = (width != published).then_some(width as f64 / published as f64);
    if let Some([_, features]) = file.linear("fc1.weight") {
        // Square images; of the sizes that pooling rounds to the same, the smallest.
        let pixels = features / width.saturating_mul(2);
        let side = pixels.isqrt();
        if side > 0 && side * side * 2 * width == features {
            config.input[1..].fill(4 * side);
        }
    }
}

fn lenet(config: &mut ModelConfig, file: &Shapes) {
    ends(config, file, "conv1.weight", "fc2.weight");
    if let Some([_, features]) = file.linear("fc1.weight") {
        // Square images; of the sizes that pooling rounds to the same, the smallest.
        let side = (features / 50).isqrt();
        if side > 0 && 50 * side * side == features {
            config.input[1..].fill(2 * (2 * side + 4) + 4);
        }
    }
}
