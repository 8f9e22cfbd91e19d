//! Networks of convolutions: how they start, and their presets.

use burn::tensor::Device;
use models::{Arch, Model, ModelConfig, Stem};

use super::args::admm;
use super::{EvolveRecipe, Optimizer, Recipe, ReweightedRecipe, TrainingError, lenet_recipe};
use crate::cli::Preset;
use crate::data::ImageDataset;

/// Largest image that the full preset gives to a stem without stride.
const SMALL_IMAGE: usize = 64;

/// The numbers of a preset.
///
/// `quick` is made for minutes on two cores: few images, few epochs, and a rho large enough to
/// matter within them. `full` follows the published recipes for CIFAR: 200 epochs, ADMM with an
/// update every ten epochs and rho from 1e-3 by 1.3, SGD with momentum 0.9.
#[must_use]
pub fn resnet_recipe(preset: Preset, seed: u64) -> Recipe {
    let recipe = Recipe {
        // Within a few hundred steps Adam gets further than SGD, and it forgives the rate.
        optimizer: Optimizer::Adam { weight_decay: 0.0 },
        batch: 32,
        lr: 1e-3,
        compress_lr: 5e-4,
        retrain_lr: 5e-4,
        warmup_epochs: 0.5,
        epochs: 5,
        admm_iterations: 4,
        admm_epochs: 1,
        retrain_epochs: 4,
        admm: admm(1e-1, 3.0),
        evolve: EvolveRecipe::default(),
        reweighted: ReweightedRecipe::default(),
        seed,
    };
    match preset {
        Preset::Quick => recipe,
        Preset::Full => Recipe {
            optimizer: Optimizer::Sgd {
                momentum: 0.9,
                weight_decay: 5e-4,
            },
            batch: 128,
            lr: 0.1,
            compress_lr: 0.01,
            retrain_lr: 0.05,
            warmup_epochs: 5.0,
            epochs: 200,
            admm_iterations: 10,
            admm_epochs: 10,
            retrain_epochs: 100,
            admm: admm(1e-3, 1.3),
            ..recipe
        },
    }
}

/// The numbers of a preset for this architecture.
#[must_use]
pub fn recipe_of(arch: Arch, preset: Preset, seed: u64) -> Recipe {
    match arch {
        Arch::LeNet5 | Arch::LeNet300 => lenet_recipe(preset, seed),
        _ => resnet_recipe(preset, seed),
    }
}

/// Checks that images are large enough for an architecture.
///
/// # Errors
/// [`TrainingError::Settings`] that names the smallest size.
pub fn check_images(arch: Arch, size: [usize; 2]) -> Result<(), TrainingError> {
    let smallest = match arch {
        // Five halvings, and two convolutions of 5x5 without padding before halvings.
        Arch::Vgg16 | Arch::Vgg16Bn => 32,
        // Two halvings that round up, then three that round down.
        Arch::DenseNet121 | Arch::DenseNet161 | Arch::DenseNet169 | Arch::DenseNet201 => 29,
        // A stride of four, and three pools of 3x3.
        Arch::AlexNet => 63,
        Arch::LeNet5 => 16,
        // Two halvings.
        Arch::Cifar6 => 4,
        _ => 1,
    };
    let [height, width] = size;
    if height.min(width) < smallest {
        return Err(TrainingError::Settings(format!(
            "{arch} needs images of {smallest}x{smallest} pixels at least, these have {height}x{width}; \
             choose another --arch or --dataset"
        )));
    }
    Ok(())
}

/// The network for these images, with the stem of the full preset.
#[must_use]
pub fn config_of(arch: Arch, width: Option<f64>, data: &ImageDataset) -> ModelConfig {
    let shape = data.shape;
    let mut config = ModelConfig::new(arch)
        .with_classes(data.num_classes())
        .with_input([shape.channels, shape.height, shape.width])
        .with_stem(resnet_stem(arch, Preset::Full, [shape.height, shape.width]));
    config.width = width;
    config
}

/// A fresh network. Residual branches start at zero: few steps are enough to see accuracy rise.
#[must_use]
pub fn network(config: &ModelConfig, device: &Device) -> Model {
    match config.resnet() {
        Some(network) => Model::ResNet(network.with_zero_init_residual(true).init(device)),
        None => config.init(device),
    }
}

/// At most so many training and test images, unless others are asked for.
#[must_use]
pub fn resnet_limits(preset: Preset) -> (Option<usize>, Option<usize>) {
    match preset {
        Preset::Quick => (Some(2_000), Some(500)),
        Preset::Full => (None, None),
    }
}

/// The stem for images of some height and width.
///
/// Small images keep their resolution in the full preset, as published for CIFAR. In the quick one
/// the networks made for ImageNet keep their own stem, which makes a step ten times cheaper and the
/// accuracy lower. The networks made for CIFAR have only one.
#[must_use]
pub fn resnet_stem(arch: Arch, preset: Preset, size: [usize; 2]) -> Stem {
    let small = size.into_iter().max() <= Some(SMALL_IMAGE);
    match (arch, preset) {
        (Arch::ResNet20 | Arch::ResNet32 | Arch::ResNet56, _) => Stem::Cifar,
        (_, Preset::Full) if small => Stem::Cifar,
        _ => Stem::ImageNet,
    }
}
