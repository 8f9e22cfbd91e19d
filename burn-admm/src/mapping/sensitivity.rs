//! What each layer's schemes cost a trained network, one layer at a time.

use std::path::Path;

use burn::module::Module;
use burn_sparse::Sparsity;
use serde::{Deserialize, Serialize};

use super::file::{Kept, Opened};
use super::{LatencyFileError, LayerOptions, MappingError};
use crate::{Masks, Plan};

/// The loss of a network with one layer pruned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SensitivityEntry {
    /// The path of the layer's weight.
    pub path: String,
    /// Its scheme.
    pub sparsity: Sparsity,
    /// Of the whole network, with this layer projected and nothing trained.
    pub loss: f64,
}

/// How much a trained network minds that a layer is pruned, for all layers and their schemes: the loss on some
/// samples with the weights of one layer [projected](crate::Masks::project), and all others as they are.
///
/// Nothing is trained, so it is a matter of one evaluation for each scheme of each layer; losses after training
/// are smaller, but layers keep their order.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_admm::mapping::{OptionConfig, Sensitivity, layer_options};
/// use burn_sparse::nn::{Conv2d, Conv2dConfig, Trace};
///
/// let device = Device::flex();
/// let model = [3, 3].map(|k| Conv2dConfig::new([8, 8], [k, k]).init(&device));
/// let x = Tensor::<4>::random([1, 8, 9, 9], Distribution::Default, &device);
/// let forward = |model: &[Conv2d; 2]| model[1].forward(model[0].forward(x.clone()));
/// let trace = Trace::of(|| drop(forward(&model)));
/// let layers = layer_options(&model, &trace, &OptionConfig::default())?;
///
/// // How far outputs are from those of the dense network stands for a loss.
/// let wanted = forward(&model);
/// let loss = |model: &[Conv2d; 2]| {
///     let off = forward(model) - wanted.clone();
///     Ok(f64::from(off.powi_scalar(2).mean().into_scalar::<f32>()))
/// };
/// let mut sensitivity = Sensitivity::new("this network");
/// sensitivity.measure(&model, &layers, loss, |_, _, _| Ok(()))?;
/// let [some, many] = [0, 6].map(|at| sensitivity.harm("1.weight", layers[0].schemes[at]).unwrap());
/// assert!(0.0 < some && some < many);
/// # Ok::<(), burn_admm::mapping::MappingError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sensitivity {
    /// Which network and samples it is of, as [`new`](Self::new) was told.
    pub network: String,
    /// The loss of the dense network, once it is known.
    pub dense: Option<f64>,
    entries: Vec<SensitivityEntry>,
}

impl Sensitivity {
    /// Nothing yet. The name must differ for other weights and other samples.
    pub fn new(network: impl Into<String>) -> Self {
        Self {
            network: network.into(),
            dense: None,
            entries: Vec::new(),
        }
    }

    /// What is known, in the order in which it was measured.
    pub fn entries(&self) -> &[SensitivityEntry] {
        &self.entries
    }

    /// How much larger the loss is with a layer pruned, at least 0; none if that was not measured.
    pub fn harm(&self, path: &str, sparsity: Sparsity) -> Option<f64> {
        let mut entries = self.entries.iter();
        let entry = entries.find(|entry| entry.path == path && entry.sparsity == sparsity)?;
        Some((entry.loss - self.dense?).max(0.0))
    }

    /// Measures what is not known yet. `loss` evaluates a model on the same samples each time; a loss that is no
    /// number counts as infinite. `progress` is called as that of [`LatencyTable::measure`](super::LatencyTable::measure).
    ///
    /// # Errors
    /// [`MappingError::Pruning`] for a layer that cannot be projected, and what `loss` and `progress` give.
    pub fn measure<M: Module>(
        &mut self,
        model: &M,
        layers: &[LayerOptions],
        mut loss: impl FnMut(&M) -> Result<f64, MappingError>,
        mut progress: impl FnMut(&Self, usize, usize) -> Result<(), MappingError>,
    ) -> Result<(), MappingError> {
        if self.dense.is_none() {
            self.dense = Some(loss(model)?);
        }
        let pairs = layers.iter().flat_map(|layer| {
            layer
                .schemes
                .iter()
                .map(|&scheme| (layer.path.as_str(), scheme))
        });
        let wanted: Vec<_> = pairs
            .filter(|(path, scheme)| self.harm(path, *scheme).is_none())
            .collect();
        progress(self, 0, wanted.len())?;
        for (done, (path, sparsity)) in (1..).zip(wanted.iter().copied()) {
            let plan = Plan::dense()
                .with_sparsity(path, sparsity)?
                .resolve(model)?;
            let masks = Masks::project(model, &plan)?;
            let loss = loss(&masks.attach(model.clone())?)?;
            self.entries.push(SensitivityEntry {
                path: path.to_owned(),
                sparsity,
                loss: if loss.is_nan() {
                    f64::MAX
                } else {
                    loss.min(f64::MAX)
                },
            });
            progress(self, done, wanted.len())?;
        }
        Ok(())
    }

    /// As [`LatencyTable::open`](super::LatencyTable::open): what is damaged, or of another network, begins anew.
    ///
    /// # Errors
    /// [`LatencyFileError::Io`] if there is a file that cannot be read.
    pub fn open(path: &Path, network: &str) -> Result<Opened<Self>, LatencyFileError> {
        super::file::open(
            path,
            || Self::new(network),
            |found| match found.network == network {
                true => None,
                false => Some(format!("losses of `{}`, not of `{network}`", found.network)),
            },
        )
    }

    /// As [`LatencyTable::save`](super::LatencyTable::save).
    ///
    /// # Errors
    /// [`LatencyFileError::Io`].
    pub fn save(&self, path: &Path) -> Result<(), LatencyFileError> {
        super::file::save(self, path)
    }
}

impl Kept for Sensitivity {
    fn check(&self) -> Result<(), String> {
        let losses = self.entries.iter().map(|entry| entry.loss);
        match losses.chain(self.dense).find(|loss| !loss.is_finite()) {
            Some(loss) => Err(format!("a loss of {loss}")),
            None => Ok(()),
        }
    }
}
