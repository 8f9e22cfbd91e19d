//! How large the file of a network will be, without training it.

use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Distribution, Tensor};
use burn_admm::{Masks, SparsityReport, fold};
use burn_sparse::pack::{random_inputs, verify};
use burn_sparse::store::compact::Ledger;
use models::{Arch, Classifier};
use serde::{Deserialize, Serialize};

use super::file::stored;
use super::{Levels, prune_plan};
use crate::training::{Densities, TrainingError};

/// A network that was pruned and rounded as it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Size {
    /// The architecture.
    pub arch: Arch,
    /// Whether its weights were drawn at random.
    pub random: bool,
    /// Weights for each that should stay.
    pub ratio: f64,
    /// Its levels.
    pub levels: Levels,
    /// Weights of all layers, without biases.
    pub weights: usize,
    /// Those that are not zero.
    pub nnz: usize,
    /// Bytes on disk.
    pub bytes: u64,
    /// Largest difference of any logit between the network that was read back and the one with masks
    /// and levels attached.
    pub max_abs_diff: f64,
    /// Where the bytes went.
    pub ledger: Ledger,
}

/// Prunes a network by magnitude, rounds what is left to levels, stores it in `folder`, and compares
/// what comes back. Nothing is trained: the size is that of a file, the accuracy that of nothing.
///
/// # Errors
/// Those of plans and of files; see [`TrainingError`].
pub fn size_of<M: Classifier>(
    (arch, random): (Arch, bool),
    build: impl Fn(&Device) -> M,
    model: M,
    (ratio, levels): (f64, &Levels),
    image: [usize; 3],
    folder: &Path,
) -> Result<Size, TrainingError> {
    let device = model.devices().into_iter().next().unwrap_or_default();
    let plan = prune_plan(arch, &model, ratio, &Densities::default())?.resolve(&model)?;
    let masked = Masks::project(&model, &plan)?.attach(model)?;
    let rounded = levels.plan(&masked)?.attach(masked)?;
    let unmasked = fold(rounded.clone());
    let report = SparsityReport::new(&unmasked)?;
    let stored = stored(&build, &unmasked, folder, &device)?;
    let inputs = random_inputs([1, image[0], image[1], image[2]], 1, &device);
    let difference = verify(|x| rounded.forward(x), |x| stored.model.forward(x), &inputs);
    Ok(Size {
        arch,
        random,
        ratio,
        levels: levels.clone(),
        weights: report.weights,
        nnz: report.nnz,
        bytes: stored.bytes,
        max_abs_diff: difference.max_abs,
        ledger: stored.ledger,
    })
}

/// Draws all weights of layers from normal distributions of variance `1 / fan_in`. Initial weights of
/// some layers are uniform: of those, pruning would leave only the two ends. What batch norms multiply by and add is drawn
/// as well: all alike, as they start, they would take no room in a file.
pub fn normal_weights<M: Module>(model: M) -> M {
    struct Normal {
        /// Whether this is a field of a batch norm that training changes.
        norm: bool,
    }
    impl ModuleMapper for Normal {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.norm = container == "Struct:BatchNorm" && ["gamma", "beta"].contains(&name);
        }

        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let fan_in = match *param.lazy_shape().as_slice() {
                [inputs, _] => inputs,
                [_, channels, height, width] => channels * height * width,
                [_] if self.norm => {
                    let drawn = Distribution::Uniform(0.5, 1.5);
                    return param.map(|old| Tensor::random(old.dims(), drawn, &old.device()));
                }
                _ => return param,
            };
            let deviation = 1.0 / (fan_in.max(1) as f64).sqrt();
            param.map(|weight| {
                let normal = Distribution::Normal(0.0, deviation);
                Tensor::random(weight.dims(), normal, &weight.device())
            })
        }
    }
    model.map(&mut Normal { norm: false })
}
