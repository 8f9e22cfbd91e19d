//! What each layer could become.

use burn::module::Module;
use burn_sparse::nn::{Trace, weights};
use burn_sparse::{ConvProblem, SparseError, Sparsity, WeightShape};
use serde::{Deserialize, Serialize};

use super::{LatencyCase, MappingError, Operation};
use crate::Plan;

/// Schemes of one kind, at any sparsity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Any weights, as many in every output channel.
    RowBalanced,
    /// The same weights in so many neighbouring output channels.
    SharedPattern(usize),
    /// Rows and columns of blocks of so many output channels and weights of each.
    Blocks([usize; 2]),
    /// The same positions of all kernels in blocks of so many output and input channels; for kernels of more
    /// than one weight.
    Punched([usize; 2]),
    /// One of so many patterns of four positions for each kernel, and whole kernels; for 3×3.
    KernelPatterns(usize),
    /// Whole columns: the same input and position for all output channels.
    Columns,
}

impl Family {
    /// The scheme for a weight, with blocks no larger than it; none for weights that the family is not for.
    ///
    /// # Errors
    /// [`SparseError::SparsityOutOfRange`], and [`SparseError::Block`] for blocks without sides.
    pub fn at(self, sparsity: f64, shape: WeightShape) -> Result<Option<Sparsity>, SparseError> {
        Ok(match self {
            Self::RowBalanced => Some(Sparsity::row_balanced(sparsity)?),
            Self::SharedPattern(rows) => {
                Some(Sparsity::shared_pattern(sparsity, rows.min(shape.rows))?)
            }
            Self::Blocks([rows, columns]) => {
                let block = [rows.min(shape.rows), columns.min(shape.row_len())];
                Some(Sparsity::block_column_row(sparsity, block)?)
            }
            Self::Punched(_) if shape.positions() == 1 => None,
            Self::Punched([filters, channels]) => {
                let block = [filters.min(shape.rows), channels.min(shape.channels)];
                Some(Sparsity::punched(sparsity, block)?)
            }
            Self::KernelPatterns(_) if shape.kernel != [3, 3] => None,
            // Patterns alone have more zeros.
            Self::KernelPatterns(_) if sparsity < 5.0 / 9.0 => None,
            Self::KernelPatterns(patterns) => Some(Sparsity::kernel_pattern(sparsity, patterns)?),
            Self::Columns => Some(Sparsity::column(sparsity)?),
        })
    }
}

/// Which schemes [`layer_options`] asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptionConfig {
    /// Kinds of schemes.
    pub families: Vec<Family>,
    /// Parts of zeros, each from 0 to below 1.
    pub sparsities: Vec<f64>,
}

impl Default for OptionConfig {
    /// Single weights, four channels that share theirs, blocks of 8×64, kernels punched in 8×4 channels, eight
    /// patterns; from half of the weights to a fiftieth.
    fn default() -> Self {
        Self {
            families: vec![
                Family::RowBalanced,
                Family::SharedPattern(4),
                Family::Blocks([8, 64]),
                Family::Punched([8, 4]),
                Family::KernelPatterns(8),
            ],
            sparsities: vec![0.5, 0.625, 0.75, 0.85, 0.9, 0.95, 0.98],
        }
    }
}

/// A layer and what it could become besides staying dense.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerOptions {
    /// The path of its weight.
    pub path: String,
    /// Which layer.
    pub operation: Operation,
    /// What it computes.
    pub problem: ConvProblem,
    /// The weight as schemes see it.
    pub shape: WeightShape,
    /// The schemes.
    pub schemes: Vec<Sparsity>,
}

impl LayerOptions {
    /// The layer with one of the schemes: what is [measured](super::LatencyTable::measure).
    pub fn case(&self, sparsity: Sparsity) -> LatencyCase {
        LatencyCase::new(self.operation, self.problem, sparsity)
    }

    /// The layer with each of the schemes.
    pub fn cases(&self) -> impl Iterator<Item = LatencyCase> + '_ {
        self.schemes.iter().map(|&sparsity| self.case(sparsity))
    }
}

/// What each layer of a model could become. Those that plans keep dense unless they are named, the first
/// convolution and the last linear layer, have no options, and neither have layers that the forward pass did not
/// run, depthwise ones, and weights of layers that are none of `burn_sparse::nn`.
///
/// Schemes that would leave nothing of a layer are left out.
///
/// # Errors
/// [`MappingError::Settings`] for a configuration without schemes or with senseless ones,
/// [`MappingError::NoLayers`] for a trace without layers of this model.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_admm::mapping::{OptionConfig, layer_options};
/// use burn_sparse::nn::{Conv2dConfig, Trace};
///
/// let device = Device::flex();
/// let model = [3, 1, 3].map(|k| Conv2dConfig::new([8, 8], [k, k]).init(&device));
/// let trace = Trace::of(|| {
///     model.iter().fold(Tensor::<4>::zeros([1, 8, 9, 9], &device), |x, conv| conv.forward(x));
/// });
/// let layers = layer_options(&model, &trace, &OptionConfig::default())?;
/// // The first convolution stays as it is; single weights have neither patterns nor positions. Patterns have more
/// // than half of zeros, and of 18 positions of punched blocks a fiftieth is none.
/// assert_eq!(layers.len(), 2);
/// assert_eq!(layers[0].schemes.len(), 3 * 7);
/// assert_eq!(layers[1].schemes.len(), 5 * 7 - 2);
/// # Ok::<(), burn_admm::mapping::MappingError>(())
/// ```
pub fn layer_options<M: Module>(
    model: &M,
    trace: &Trace,
    config: &OptionConfig,
) -> Result<Vec<LayerOptions>, MappingError> {
    let settings = |error: SparseError| MappingError::Settings(error.to_string());
    if config.families.is_empty() || config.sparsities.is_empty() {
        return Err(MappingError::Settings(
            "no schemes, or no sparsities".into(),
        ));
    }
    let everything = Plan::new(Sparsity::unstructured(0.0).map_err(settings)?);
    let everything = everything.resolve(model)?;
    let mut layers = Vec::new();
    let mut ran = false;
    for named in weights(model) {
        let Some(&problem) = trace.problem(named.weight.id()) else {
            continue;
        };
        ran = true;
        let Some(resolved) = everything.layer(&named.path) else {
            continue;
        };
        let shape = resolved.view.shape();
        if shape.channels == 1 && problem.groups > 1 {
            continue;
        }
        let mut layer = LayerOptions {
            path: named.path,
            operation: Operation::of(&named.weight),
            problem,
            shape,
            schemes: Vec::new(),
        };
        for &family in &config.families {
            for &sparsity in &config.sparsities {
                let Some(scheme) = family.at(sparsity, shape).map_err(settings)? else {
                    continue;
                };
                let keeps = scheme.nnz(shape).is_ok_and(|nnz| nnz > 0);
                if keeps && !layer.schemes.contains(&scheme) {
                    layer.schemes.push(scheme);
                }
            }
        }
        layers.push(layer);
    }
    match ran {
        true => Ok(layers),
        false => Err(MappingError::NoLayers),
    }
}
