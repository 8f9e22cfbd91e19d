use std::io;
use std::path::PathBuf;

/// Why weights could not be loaded or saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The file could not be opened, read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no safetensors file, or a broken one.
    #[error("{}: not a valid safetensors file: {source}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: safetensors::SafeTensorError,
    },
    /// The file is none that `torch.save` writes, or a broken one.
    #[error("{}: not a valid PyTorch checkpoint: {reason}", path.display())]
    Pytorch {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file lacks tensors of the model.
    #[error(
        "the file has no tensor `{name}` of shape {shape:?}{}{}",
        others(*missing),
        similar(near)
    )]
    Missing {
        /// The first of them, by the file's naming.
        name: String,
        /// The shape it should have, by the file's layout.
        shape: Vec<usize>,
        /// How many the file lacks.
        missing: usize,
        /// Names in the file that resemble it.
        near: Vec<String>,
    },
    /// A tensor has another shape than the model's.
    #[error("tensor `{name}` has the shape {found:?}; the model needs {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// The shape it should have, by the file's layout.
        expected: Vec<usize>,
        /// The shape it has.
        found: Vec<usize>,
    },
    /// A tensor holds something else than floating-point numbers of 16, 32 or 64 bits.
    #[error("tensor `{name}` holds {dtype}; weights are read from F16, BF16, F32 and F64")]
    Dtype {
        /// The tensor.
        name: String,
        /// What it holds.
        dtype: String,
    },
    /// A value that no trained network has.
    #[error("tensor `{name}` holds {value} at index {index}; {rule}")]
    Value {
        /// The tensor.
        name: String,
        /// The position in row-major order, by the file's layout.
        index: usize,
        /// The value.
        value: f32,
        /// Which values are allowed.
        rule: &'static str,
    },
    /// The file holds tensors the model has no place for.
    #[error(
        "the model has no place for tensor `{name}`{}; is this the architecture the weights \
         belong to? (LoadOptions::allow_extra skips them)",
        others(*extra)
    )]
    Extra {
        /// The first of them.
        name: String,
        /// How many there are.
        extra: usize,
    },
    /// The weights could not be put into the safetensors format.
    #[error("the weights cannot be written as safetensors: {source}")]
    Encode {
        /// What is wrong with them.
        source: safetensors::SafeTensorError,
    },
    /// The model holds packed layers or other values that a `state_dict` has no place for.
    #[error("parameter `{name}` of the model cannot be part of a state_dict: {reason}")]
    Unsupported {
        /// The parameter.
        name: String,
        /// Why.
        reason: &'static str,
    },
}

/// ` and 3 more` after the first of `count`.
fn others(count: usize) -> String {
    match count {
        0 | 1 => String::new(),
        2 => " and one more".to_owned(),
        n => format!(" and {} more", n - 1),
    }
}

fn similar(near: &[String]) -> String {
    match near {
        [] => String::new(),
        names => format!("; it has `{}`", names.join("`, `")),
    }
}
