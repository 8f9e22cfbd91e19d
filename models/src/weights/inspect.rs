//! What a file tells about the network its weights belong to.

use std::path::Path;

use super::WeightsError;
use super::checkpoint::Checkpoint;
use crate::{Arch, ModelConfig, Shortcut, Stem};

/// The configuration of `arch` that the weights in a file belong to: the number of classes and of
/// channels, the stem and the shortcuts show in the shapes. What they do not show is as published.
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
    let prefix = file.prefix(["conv1.weight", "fc.weight", "fc2.weight"].into_iter());
    let shape = |name: &str| file.shape(&format!("{prefix}{name}"));

    let mut config = ModelConfig::new(arch);
    let classifier = if arch == Arch::LeNet5 {
        "fc2.weight"
    } else {
        "fc.weight"
    };
    if let Some(&[classes, _]) = shape(classifier)
        && classes > 0
    {
        config.classes = classes;
    }
    let Some(&[_, channels, kernel, _]) = shape("conv1.weight") else {
        return Ok(config);
    };
    if channels > 0 {
        config.input[0] = channels;
    }
    match (arch, shape("fc1.weight")) {
        (Arch::LeNet5, Some(&[_, features])) => {
            // Square images; of the sizes that pooling rounds to the same, the smallest.
            let side = (features / 50).isqrt();
            if side > 0 && 50 * side * side == features {
                config.input[1..].fill(2 * (2 * side + 4) + 4);
            }
        }
        _ => {
            config.stem = match kernel {
                3 => Some(Stem::Cifar),
                7 => Some(Stem::ImageNet),
                _ => None,
            };
            let projected = shape("layer2.0.downsample.0.weight").is_some();
            config.shortcut = Some(if projected {
                Shortcut::Projection
            } else {
                Shortcut::ZeroPad
            });
        }
    }
    Ok(config)
}
