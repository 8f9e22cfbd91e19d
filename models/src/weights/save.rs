//! From a module into a file.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor};
use safetensors::tensor::{Dtype, TensorView};

use super::WeightsError;
use super::naming::{Cursor, transpose};

/// Saves the parameters and running statistics of `model` as a `state_dict` of f32 in a
/// `.safetensors` file: PyTorch's names and layouts, so that
/// `load_state_dict(safetensors.torch.load_file(path))` takes it.
///
/// Masks and other reparameterizations are applied. The file appears complete or not at all.
///
/// # Errors
/// When the file cannot be written, or the model holds what a `state_dict` has no place for.
pub fn save<M: Module>(model: &M, path: impl AsRef<Path>) -> Result<(), WeightsError> {
    let path = path.as_ref();
    let bytes = to_bytes(model)?;
    let io = |source| WeightsError::Io {
        path: path.to_owned(),
        source,
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io)?;
    file.write_all(&bytes).map_err(io)?;
    file.as_file().sync_all().map_err(io)?;
    file.persist(path).map_err(|error| io(error.error))?;
    Ok(())
}

/// The bytes that [`save`] writes.
///
/// # Errors
/// When the model holds what a `state_dict` has no place for.
pub fn to_bytes<M: Module>(model: &M) -> Result<Vec<u8>, WeightsError> {
    let mut tensors = Tensors::default();
    // `valid` also settles the updates of running statistics that training leaves pending.
    model.valid().materialize().visit(&mut tensors);
    if let Some(error) = tensors.error {
        return Err(error);
    }
    let encode = |source| WeightsError::Encode { source };
    let mut views = Vec::with_capacity(tensors.values.len());
    for (name, (shape, bytes)) in &tensors.values {
        views.push((
            name,
            TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(encode)?,
        ));
    }
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize(views, Some(format)).map_err(encode)
}

/// Shape and bytes of each tensor by name, in the file's layout.
#[derive(Default)]
struct Tensors {
    cursor: Cursor,
    values: BTreeMap<String, (Vec<usize>, Vec<u8>)>,
    error: Option<WeightsError>,
}

impl ModuleVisitor for Tensors {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.cursor.enter(name, container_type);
        let reason = match container_type {
            "Struct:PackedWeight" => "its layer is packed; unpack the model first",
            kind if kind.ends_with("Factors") => {
                "its layer is a chain of factors; multiply them first (`nn::multiply_factors`)"
            }
            _ => return,
        };
        self.error.get_or_insert(WeightsError::Unsupported {
            name: name.to_owned(),
            reason,
        });
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.cursor.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let stored = self.cursor.stored(&param.lazy_shape());
        let data = param.val().into_data().convert_dtype(DType::F32);
        let Ok(values) = data.try_to_vec::<f32>() else {
            self.error.get_or_insert(WeightsError::Unsupported {
                name: stored.name,
                reason: "its values cannot be read as f32",
            });
            return;
        };
        let values = match (stored.transposed, stored.shape.as_slice()) {
            // The file's rows are the module's columns.
            (true, &[rows, cols]) => transpose(&values, cols, rows),
            _ => values,
        };
        let bytes = values.into_iter().flat_map(f32::to_le_bytes).collect();
        self.values.insert(stored.name, (stored.shape, bytes));
    }
}
