//! What `resnet50_infer` and `text_cnn_infer` do with a network that was pruned elsewhere: store its
//! layers, read the images or word vectors, write the class scores.

use std::fs;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use burn_sparse::SparseError;
use burn_sparse::nn::{Trace, at_once, weights};
use burn_sparse::pack::{Choice, PackConfig, PackReport, Search, pack};
use clap::ValueEnum;
use models::Classifier;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use crate::output::{OutputError, write_atomic};

/// How the layers are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Packing {
    /// Whichever runs faster, layer by layer
    #[default]
    Auto,
    /// The same, with a search of all plans of the CPU kernels in place of a few dozen: takes a minute
    /// where no such search was done before
    Thorough,
    /// Every layer that holds zeros as CSR
    Csr,
    /// As they are
    Dense,
}

/// Why an input could not be read or an output not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InferError {
    /// The file with the images.
    #[error("{}: {reason}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Packing failed.
    #[error(transparent)]
    Sparse(#[from] SparseError),
    /// Writing failed.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The class scores cannot be read from the device or put into a file.
    #[error("logits: {0}")]
    Logits(String),
}

/// The network with its layers stored as asked for, chosen for images like `input`.
///
/// # Errors
/// [`InferError::Sparse`] for weights that are not finite, or where a packed layer does not give
/// what the dense one gives.
pub fn store<M: Classifier>(
    model: M,
    packing: Packing,
    input: &Tensor<4>,
) -> Result<(M, PackReport), InferError> {
    let choice = match packing {
        Packing::Auto | Packing::Thorough => Choice::Auto,
        Packing::Csr => Choice::Csr,
        Packing::Dense => Choice::Dense,
    };
    let trace = match packing {
        Packing::Auto | Packing::Thorough => {
            Trace::of(|| drop(model.forward(at_once(input.clone()))))
        }
        // Nothing to choose, so nothing to measure.
        Packing::Csr | Packing::Dense => Trace::default(),
    };
    let search = match packing {
        Packing::Thorough => Search::thorough(),
        _ => Search::default(),
    };
    let config = PackConfig::default()
        .with_choice(choice)
        .with_search(search)
        .with_trace(trace);
    Ok(pack(model, &config)?)
}

/// How many weights the layers have, and how many of them are not zero.
///
/// # Errors
/// [`InferError::Sparse`] for weights that are not finite.
pub fn count<M: Module>(model: &M) -> Result<(u64, u64), InferError> {
    let (mut all, mut nnz) = (0, 0);
    for layer in weights(model) {
        all += layer.weight.shape().iter().product::<usize>() as u64;
        let csr = layer.weight.to_csr()?;
        nnz += csr.values().iter().filter(|&&value| value != 0.0).count() as u64;
    }
    Ok((all, nnz))
}

/// The tensor `input` (N×C×H×W, f32) of a `.safetensors` file.
///
/// # Errors
/// [`InferError::Input`] for a file that is missing or broken, without such a tensor, or with
/// another number of channels, type or shape.
pub fn read_input(path: &Path, channels: usize, device: &Device) -> Result<Tensor<4>, InferError> {
    read_channels(path, channels, "×H×W", device)
}

/// The tensor `input` (sentences × numbers × words, f32) of a `.safetensors` file.
///
/// # Errors
/// Those of [`read_input`].
pub fn read_vectors(path: &Path, numbers: usize, device: &Device) -> Result<Tensor<3>, InferError> {
    read_channels(path, numbers, "×L", device)
}

/// The tensor `input` with so many channels and further axes of these names.
fn read_channels<const D: usize>(
    path: &Path,
    channels: usize,
    axes: &str,
    device: &Device,
) -> Result<Tensor<D>, InferError> {
    let failed = |reason: String| InferError::Input {
        path: path.to_path_buf(),
        reason,
    };
    let bytes = fs::read(path).map_err(|error| failed(error.to_string()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| failed(error.to_string()))?;
    let tensor = file
        .tensor("input")
        .map_err(|_| failed(format!("has no tensor `input`; it has {:?}", file.names())))?;
    if tensor.dtype() != Dtype::F32 {
        return Err(failed(format!(
            "`input` holds {:?}, not F32",
            tensor.dtype()
        )));
    }
    let Ok(shape) = <[usize; D]>::try_from(tensor.shape()) else {
        let shape = tensor.shape();
        return Err(failed(format!("`input` is {shape:?}, not N×C{axes}")));
    };
    if shape[1] != channels || shape.contains(&0) {
        return Err(failed(format!(
            "`input` is {shape:?}; the network takes N×{channels}{axes}"
        )));
    }
    let values: Vec<f32> = tensor
        .data()
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect();
    Ok(Tensor::from_data(TensorData::new(values, shape), device))
}

/// Writes the tensor `logits` (N×classes, f32) into a `.safetensors` file.
///
/// # Errors
/// [`InferError::Logits`] if they cannot be read from the device, [`InferError::Output`] if the
/// file cannot be written.
pub fn write_logits(path: &Path, logits: Tensor<2>) -> Result<(), InferError> {
    let shape = logits.dims();
    let data = logits
        .try_to_data_as::<f32>()
        .map_err(|error| InferError::Logits(error.to_string()))?;
    let bytes: Vec<u8> = data.iter::<f32>().flat_map(f32::to_le_bytes).collect();
    let file = TensorView::new(Dtype::F32, shape.to_vec(), &bytes)
        .and_then(|view| safetensors::serialize([("logits", view)], None))
        .map_err(|error| InferError::Logits(error.to_string()))?;
    write_atomic(path, |out| out.write_all(&file))?;
    Ok(())
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::Distribution;
    use burn_sparse::pack::Format;
    use models::ResNetConfig;

    use super::*;

    fn save(path: &Path, name: &str, dtype: Dtype, shape: &[usize], bytes: &[u8]) {
        let view = TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
        fs::write(path, safetensors::serialize([(name, view)], None).unwrap()).unwrap();
    }

    #[test]
    fn every_packing_gives_the_same_logits() {
        let device = Device::flex();
        let model = Classifier::fold(ResNetConfig::cifar(1, 10).with_width(8).init(&device));
        let input = Tensor::<4>::random([2, 3, 16, 16], Distribution::Default, &device);
        let floats = |t: Tensor<2>| t.into_data().try_to_vec::<f32>().unwrap();
        let expected = floats(model.forward(input.clone()));
        for packing in [Packing::Auto, Packing::Csr, Packing::Dense] {
            let (packed, report) = store(model.clone(), packing, &input).unwrap();
            let got = floats(packed.forward(input.clone()));
            let close = got.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4);
            assert!(close, "{packing:?}");
            let csr = report.layers.iter().any(|l| l.format == Format::Csr);
            // Nothing in this network is zero, so only an order packs it.
            assert_eq!(csr, packing == Packing::Csr, "{packing:?}");
            assert_eq!(count(&packed).unwrap(), count(&model).unwrap());
        }
    }

    #[test]
    fn inputs_that_do_not_fit_are_errors_that_say_why() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let device = Device::flex();
        let read = || read_input(&path, 3, &device).unwrap_err().to_string();
        assert!(read().contains("x.safetensors"));
        fs::write(&path, b"no").unwrap();
        read();
        save(&path, "other", Dtype::F32, &[1], &[0; 4]);
        assert!(read().contains("other"), "{}", read());
        save(&path, "input", Dtype::U8, &[1, 3, 1, 1], &[0; 3]);
        assert!(read().contains("U8"), "{}", read());
        save(&path, "input", Dtype::F32, &[3], &[0; 12]);
        assert!(read().contains("N×C×H×W"), "{}", read());
        save(&path, "input", Dtype::F32, &[1, 1, 1, 1], &[0; 4]);
        assert!(read().contains("N×3×H×W"), "{}", read());
        save(&path, "input", Dtype::F32, &[0, 3, 1, 1], &[]);
        read();
        let error = read_vectors(&path, 3, &device).unwrap_err().to_string();
        assert!(error.contains("N×C×L"), "{error}");
        save(&path, "input", Dtype::F32, &[1, 3, 1, 1], &[0; 12]);
        assert_eq!(read_input(&path, 3, &device).unwrap().dims(), [1, 3, 1, 1]);
    }

    #[test]
    fn logits_come_back_as_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("y.safetensors");
        let logits = Tensor::<2>::from_data([[1.5f32, -2.0, 3.25]], &Device::flex());
        write_logits(&path, logits).unwrap();
        let bytes = fs::read(&path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = file.tensor("logits").unwrap();
        assert_eq!(tensor.shape(), [1, 3]);
        assert_eq!(tensor.data()[..4], 1.5f32.to_le_bytes());
    }
}
