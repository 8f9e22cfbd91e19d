//! Where the dense network comes from: trained here, or from a file.

use std::path::PathBuf;

use clap::Args;
use models::{Arch, ModelConfig, weights};

use super::{Recipe, TrainingError, config_of};
use crate::data::ImageDataset;

/// Where the dense network comes from.
#[derive(Args, Clone, Debug, Default, PartialEq)]
#[command(next_help_heading = "Training and pruning")]
pub struct StartArgs {
    /// Start from trained weights instead of random ones: a .safetensors or .pth file with PyTorch's names, which
    /// says how many classes and which stem the network has
    ///
    /// They are taken as they are, unless --epochs says for how long to train them on first. Images are
    /// normalised as they are for training here.
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
}

impl StartArgs {
    /// The recipe with what is left of dense training; `epochs` are those that were asked for.
    #[must_use]
    pub fn apply(&self, recipe: Recipe, epochs: Option<usize>) -> Recipe {
        match (&self.weights, epochs) {
            (Some(_), None) => Recipe {
                epochs: 0,
                ..recipe
            },
            _ => recipe,
        }
    }

    /// The network for these images: that of the file, where there is one, else [`config_of`].
    ///
    /// # Errors
    /// [`TrainingError::Weights`] when the file cannot be read, [`TrainingError::Settings`] when it is of a network
    /// for other images.
    pub fn config(
        &self,
        arch: Arch,
        width: Option<f64>,
        data: &ImageDataset,
    ) -> Result<ModelConfig, TrainingError> {
        let wanted = config_of(arch, width, data);
        let Some(path) = &self.weights else {
            return Ok(wanted);
        };
        let found = weights::config(arch, path)?;
        for (what, found, wanted) in [
            ("classes", found.classes, wanted.classes),
            ("channels", found.input[0], wanted.input[0]),
        ] {
            if found != wanted {
                return Err(TrainingError::Settings(format!(
                    "{}: weights of a network with {found} {what}, but {} has {wanted}; choose other weights or \
                     another --dataset",
                    path.display(),
                    data.name
                )));
            }
        }
        Ok(ModelConfig {
            width: width.or(found.width),
            input: wanted.input,
            ..found
        })
    }
}
