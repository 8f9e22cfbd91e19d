//! Networks that were pruned elsewhere: what their files say of them, and which part is to run.

use std::fs;
use std::path::Path;

use burn::tensor::Tensor;
use burn_sparse::nn::Trace;
use burn_sparse::pack::{Choice, PackConfig, PackReport, pack};
use clap::ValueEnum;
use models::{TextCnn, TextCnnConfig};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use crate::infer::{InferError, Packing};

/// What of a network runs, from word vectors `[batch, numbers, words]` on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextPart {
    /// Convolutions, largest values and classifier: all but the look-up of word vectors
    #[default]
    Network,
    /// The first convolution alone
    Conv0,
    /// The second one
    Conv1,
    /// The third one
    Conv2,
}

impl TextPart {
    /// Which convolution, if one.
    fn conv(self) -> Option<usize> {
        match self {
            Self::Network => None,
            Self::Conv0 => Some(0),
            Self::Conv1 => Some(1),
            Self::Conv2 => Some(2),
        }
    }

    /// Class scores, or what a convolution gives, `[batch, maps · positions]`.
    ///
    /// # Errors
    /// [`InferError::Logits`] where the network has no such convolution.
    ///
    /// # Panics
    /// On vectors that do not fit.
    pub fn run(self, model: &TextCnn, vectors: Tensor<3>) -> Result<Tensor<2>, InferError> {
        let Some(index) = self.conv() else {
            return Ok(model.head.forward(model.maxima(vectors)));
        };
        match model.convs.get(index) {
            Some(conv) => Ok(conv.forward(vectors).flatten(1, 2)),
            None => Err(InferError::Logits(format!(
                "the network has {} convolutions, none of number {index}",
                model.convs.len()
            ))),
        }
    }
}

/// The network with its layers stored as asked for, chosen for vectors like these.
///
/// # Errors
/// As [`infer::store`](crate::infer::store); [`InferError::Logits`] where the network has no such
/// part.
pub fn store(
    model: TextCnn,
    packing: Packing,
    part: TextPart,
    vectors: &Tensor<3>,
) -> Result<(TextCnn, PackReport), InferError> {
    part.run(&model, vectors.clone())?;
    let trace = Trace::of(|| drop(part.run(&model, vectors.clone())));
    let config = match packing {
        Packing::Auto | Packing::Thorough => PackConfig::measure(trace),
        Packing::Csr => PackConfig::default()
            .with_choice(Choice::Csr)
            .with_trace(trace),
        Packing::Dense => PackConfig::default().with_choice(Choice::Dense),
    };
    Ok(pack(model, &config)?)
}

/// The configuration of the network whose weights a `.safetensors` file holds, by the names of its
/// parameters: `embedding.weight`, `convs.0.weight`, `head.weight`.
///
/// # Errors
/// [`InferError::Input`] for a file that is missing, broken or of something else.
pub fn config_of(path: &Path) -> Result<TextCnnConfig, InferError> {
    let failed = |reason: String| InferError::Input {
        path: path.to_path_buf(),
        reason,
    };
    let bytes = fs::read(path).map_err(|error| failed(error.to_string()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| failed(error.to_string()))?;
    let shape = |name: &str| file.tensor(name).ok().map(|tensor| tensor.shape().to_vec());
    let no = |name: &str| failed(format!("has no `{name}` of a text classifier"));
    let matrix = |name: &str| match shape(name).as_deref() {
        Some(&[rows, columns]) => Ok([rows, columns]),
        _ => Err(no(name)),
    };
    let [words, embedding] = matrix("embedding.weight")?;
    let [classes, _] = matrix("head.weight")?;
    let mut windows = Vec::new();
    let mut maps = 0;
    loop {
        let name = format!("convs.{}.weight", windows.len());
        match shape(&name).as_deref() {
            Some(&[outputs, _, window]) => {
                maps = outputs;
                windows.push(window);
            }
            None if !windows.is_empty() => break,
            _ => return Err(no(&name)),
        }
    }
    let config = TextCnnConfig::new(words, classes)
        .with_embedding(embedding)
        .with_windows(windows)
        .with_maps(maps);
    config.check().map_err(|error| failed(error.to_string()))?;
    Ok(config)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{Device, Distribution};
    use models::weights;

    use super::*;

    #[test]
    fn a_file_says_what_its_network_is_and_every_part_runs_packed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let device = Device::flex();
        let config = TextCnnConfig::new(9, 3)
            .with_embedding(8)
            .with_maps(4)
            .with_windows([2, 3]);
        let model = config.init(&device).unwrap();
        weights::save(&model, &path).unwrap();
        assert_eq!(config_of(&path).unwrap(), config);
        let x = Tensor::<3>::random([2, 8, 11], Distribution::Default, &device);
        let floats = |t: Tensor<2>| t.into_data().try_to_vec::<f32>().unwrap();
        for part in [TextPart::Network, TextPart::Conv0, TextPart::Conv1] {
            let expected = floats(part.run(&model, x.clone()).unwrap());
            for packing in [Packing::Auto, Packing::Csr, Packing::Dense] {
                let (packed, _) = store(model.clone(), packing, part, &x).unwrap();
                let got = floats(part.run(&packed, x.clone()).unwrap());
                let close = got.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5);
                assert!(close, "{part:?} {packing:?}");
            }
        }
        let error = store(model, Packing::Auto, TextPart::Conv2, &x).unwrap_err();
        assert!(error.to_string().contains("2 convolutions"), "{error}");
    }

    #[test]
    fn files_of_something_else_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        assert!(config_of(&path).is_err());
        std::fs::write(&path, b"no").unwrap();
        assert!(config_of(&path).is_err());
        let other = models::LeNet300Config::new(10).init(&Device::flex());
        weights::save(&other, &path).unwrap();
        let error = config_of(&path).unwrap_err().to_string();
        assert!(error.contains("embedding.weight"), "{error}");
    }
}
