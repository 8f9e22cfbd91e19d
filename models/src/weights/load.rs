//! From a file into a module.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Tensor, TensorData};

use super::WeightsError;
use super::checkpoint::Checkpoint;
use super::naming::{Cursor, Stored, transpose};

/// What [`load_with`] tolerates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Skip tensors the model has no place for instead of refusing the file.
    pub allow_extra: bool,
}

/// What a file held beside the model's weights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// How many tensors were loaded.
    pub loaded: usize,
    /// The tensors that were skipped, by their names in the file. Those without meaning for
    /// inference (`num_batches_tracked`) and those beside the weights (an optimiser's) are not
    /// listed.
    pub extra: Vec<String>,
}

/// Loads a `state_dict` from a `.safetensors` file or one of `torch.save` into `model`.
///
/// A checkpoint that keeps the weights under a key (`state_dict`, `model`) or with the prefix of
/// `DataParallel` (`module.`) is read as well, and so are the names that torchvision's first files of
/// densely connected networks have (`denselayer1.norm.1.weight` for `denselayer1.norm1.weight`). Values of 16 and 64 bits are converted. Masks and
/// other reparameterizations of the model stay attached; their bases are loaded.
///
/// Load into a freshly built model: nothing is allocated for the parameters that are replaced, and
/// no batch norm holds updates of its statistics that are pending from training.
///
/// # Errors
/// When the file cannot be read, is broken, lacks a tensor, has one of another shape or type, one
/// that the model has no place for, or a value that is not finite. The error names the tensor.
pub fn load<M: Module>(model: M, path: impl AsRef<Path>) -> Result<M, WeightsError> {
    load_with(model, path, LoadOptions::default()).map(|(model, _)| model)
}

/// [`load`] with options and a report.
///
/// # Errors
/// As [`load`], without the error for tensors nobody asked for where `options` allow them.
pub fn load_with<M: Module>(
    model: M,
    path: impl AsRef<Path>,
    options: LoadOptions,
) -> Result<(M, LoadReport), WeightsError> {
    let file = Checkpoint::open(path.as_ref())?;
    let mut wanted = Wanted::default();
    model.visit(&mut wanted);
    let wanted = wanted.stored;

    let prefix = file.prefix(wanted.iter().map(|stored| stored.name.as_str()));
    check_names(&file, &prefix, &wanted)?;
    let extra = extra(&file, &prefix, &wanted);
    if let (Some(first), false) = (extra.first(), options.allow_extra) {
        return Err(WeightsError::Extra {
            name: first.clone(),
            extra: extra.len(),
        });
    }

    let mut values = BTreeMap::new();
    for stored in wanted {
        let tensor = file.values(&format!("{prefix}{}", stored.name))?;
        check_values(&stored.name, &tensor)?;
        let tensor = match (stored.transposed, stored.shape.as_slice()) {
            (true, &[rows, cols]) => transpose(&tensor, rows, cols),
            _ => tensor,
        };
        values.insert(stored.name, tensor);
    }
    let loaded = values.len();
    let model = model.map(&mut Fill {
        cursor: Cursor::default(),
        values,
    });
    Ok((model, LoadReport { loaded, extra }))
}

fn check_names(file: &Checkpoint, prefix: &str, wanted: &[Stored]) -> Result<(), WeightsError> {
    let shape = |stored: &Stored| file.shape(&format!("{prefix}{}", stored.name));
    let mut missing = wanted.iter().filter(|stored| shape(stored).is_none());
    if let Some(first) = missing.next() {
        return Err(WeightsError::Missing {
            name: first.name.clone(),
            shape: first.shape.clone(),
            missing: 1 + missing.count(),
            near: near(file, &first.name),
        });
    }
    for stored in wanted {
        let found = shape(stored).unwrap_or_default();
        if found != stored.shape {
            return Err(WeightsError::Shape {
                name: stored.name.clone(),
                expected: stored.shape.clone(),
                found: found.to_vec(),
            });
        }
    }
    Ok(())
}

/// Up to three names of the file that end as `name` does.
fn near(file: &Checkpoint, name: &str) -> Vec<String> {
    let parts = |name: &str| name.rsplit('.').map(str::to_owned).collect::<Vec<_>>();
    let wanted = parts(name);
    let common = |other: &str| {
        parts(other)
            .iter()
            .zip(&wanted)
            .take_while(|(a, b)| a == b)
            .count()
    };
    let mut names: Vec<(usize, &str)> = file
        .names()
        .map(|other| (common(other), other))
        .filter(|(n, _)| *n >= 2)
        .collect();
    names.sort_by_key(|&(n, other)| (usize::MAX - n, other.len().abs_diff(name.len())));
    names
        .into_iter()
        .take(3)
        .map(|(_, other)| other.to_owned())
        .collect()
}

/// The tensors beside the wanted ones.
fn extra(file: &Checkpoint, prefix: &str, wanted: &[Stored]) -> Vec<String> {
    let key = |stored: &Stored| file.key(&format!("{prefix}{}", stored.name));
    let wanted: BTreeSet<&str> = wanted.iter().filter_map(key).collect();
    file.names()
        .filter(|name| !name.ends_with("num_batches_tracked") && !wanted.contains(name))
        .filter_map(|name| name.strip_prefix(prefix))
        .map(str::to_owned)
        .collect()
}

fn check_values(name: &str, values: &[f32]) -> Result<(), WeightsError> {
    let variance = name.ends_with("running_var");
    let bad = |value: f32| !value.is_finite() || (variance && value < 0.0);
    match values.iter().position(|&value| bad(value)) {
        None => Ok(()),
        Some(index) => Err(WeightsError::Value {
            name: name.to_owned(),
            index,
            value: values[index],
            rule: if variance {
                "a variance is finite and not negative"
            } else {
                "weights are finite"
            },
        }),
    }
}

/// Collects how each parameter is stored, without initialising any.
#[derive(Default)]
struct Wanted {
    cursor: Cursor,
    stored: Vec<Stored>,
}

impl ModuleVisitor for Wanted {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.cursor.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.cursor.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !self.cursor.in_reparameterization() {
            self.stored.push(self.cursor.stored(&param.lazy_shape()));
        }
    }
}

/// Puts the values, by now in the module's layout, into the parameters.
struct Fill {
    cursor: Cursor,
    values: BTreeMap<String, Vec<f32>>,
}

impl ModuleMapper for Fill {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.cursor.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.cursor.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.cursor.in_reparameterization() {
            return param;
        }
        let shape = param.lazy_shape();
        let Some(values) = self.values.remove(&self.cursor.stored(&shape).name) else {
            return param;
        };
        let id: ParamId = param.id;
        let data = TensorData::new(values, shape.as_slice().to_vec());
        let tensor = Tensor::from_data(data, &param.lazy_device());
        param.transform_for_load(tensor, id)
    }
}
