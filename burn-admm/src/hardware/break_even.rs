use burn::module::Module;
use burn_sparse::nn::{Trace, weights};
use burn_sparse::pack::{PackConfig, pack};
use burn_sparse::{SparseError, Sparsity};
use serde::{Deserialize, Serialize};

use crate::{AdmmError, Masks, Plan, PlanError, fold};

/// Sparsities at which layers are measured.
const SPARSITIES: [f64; 9] = [0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.97, 0.99];

/// From which pruning ratio on a layer is faster sparse than dense.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BreakEven {
    /// Path of the layer, such as `layer1.0.conv1`.
    pub layer: String,
    /// Multiplications of the dense layer for one forward pass.
    pub macs: u64,
    /// Weights of an output channel: of which one stays at least, so the largest ratio.
    pub row_len: usize,
    /// Sparsity and time of the sparse layer over time of the dense one, ascending.
    pub points: Vec<(f64, f64)>,
    /// Weights for each that stays at the break-even; none if dense won at every sparsity.
    pub ratio: Option<f64>,
}

impl BreakEven {
    /// From measured points, ascending in sparsity: the first crossing of 1, on the line between the
    /// points around it, logarithmic in the ratio and in time. A layer that wins at the first point
    /// breaks even there.
    ///
    /// ```
    /// use burn_admm::hardware::BreakEven;
    ///
    /// let layer = BreakEven::of("conv1", 1_000, 64, vec![(0.5, 1.6), (0.75, 1.25), (0.875, 0.8)]);
    /// // Half way between 4x and 8x, as 1 is between 1.25 and 0.8 by factors.
    /// assert!((layer.ratio.unwrap() - 32f64.sqrt()).abs() < 1e-9);
    /// assert_eq!(BreakEven::of("fc", 10, 64, vec![(0.9, 1.1)]).ratio, None);
    /// ```
    pub fn of(
        layer: impl Into<String>,
        macs: u64,
        row_len: usize,
        points: Vec<(f64, f64)>,
    ) -> Self {
        let ratio_of = |sparsity: f64| 1.0 / (1.0 - sparsity);
        let wins = |time: f64| time <= 1.0;
        let first = points.first().filter(|(_, time)| wins(*time));
        let ratio = first.map(|&(sparsity, _)| ratio_of(sparsity)).or_else(|| {
            let pairs = points.windows(2).map(|pair| (pair[0], pair[1]));
            let crossing = pairs.into_iter().find(|(a, b)| !wins(a.1) && wins(b.1))?;
            let ((s0, t0), (s1, t1)) = crossing;
            let part = t0.ln() / (t0.ln() - t1.ln());
            let (r0, r1) = (ratio_of(s0).ln(), ratio_of(s1).ln());
            Some((r0 + part * (r1 - r0)).exp())
        });
        Self {
            layer: layer.into(),
            macs,
            row_len,
            points,
            ratio,
        }
    }
}

/// Why break-even ratios could not be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BreakEvenError {
    /// The weights.
    #[error(transparent)]
    Admm(#[from] AdmmError),
    /// Packing and measuring.
    #[error(transparent)]
    Sparse(#[from] SparseError),
    /// A trace without layers.
    #[error(
        "the forward pass ran no layer of `burn_sparse::nn`; pack and measure models built of those"
    )]
    NoLayers,
}

impl From<PlanError> for BreakEvenError {
    fn from(error: PlanError) -> Self {
        Self::Admm(error.into())
    }
}

/// Measures every layer of `model` that `forward` runs, dense and with the same number of weights in every
/// output channel, from half of the weights to one in a hundred. The kernels are those that packing
/// would choose, on the model's device, at the batch that `forward` has. Takes as long as nine
/// [`pack`]s.
///
/// `progress` is called with how many of the nine are done, and their number.
///
/// # Errors
/// [`BreakEvenError::NoLayers`] if `forward` runs no layer that can be packed; otherwise those of packing.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_admm::hardware::break_even;
/// use burn_sparse::nn::Conv2dConfig;
///
/// let device = Device::flex();
/// let model = vec![Conv2dConfig::new([8, 16], [3, 3]).init(&device)];
/// let x = Tensor::<4>::zeros([1, 8, 12, 12], &device);
/// let layers = break_even(&model, |model| drop(model[0].forward(x)), |_, _| {})?;
/// assert_eq!((layers[0].layer.as_str(), layers[0].points.len()), ("0", 9));
/// # Ok::<(), burn_admm::hardware::BreakEvenError>(())
/// ```
pub fn break_even<M: Module>(
    model: &M,
    forward: impl FnOnce(&M),
    mut progress: impl FnMut(usize, usize),
) -> Result<Vec<BreakEven>, BreakEvenError> {
    let model = fold(model.clone());
    let trace = Trace::of(|| forward(&model));
    let known = weights(&model).into_iter().filter_map(|named| {
        let problem = trace.problem(named.weight.id())?;
        let row_len = named.weight.matrix()[1];
        Some(BreakEven::of(
            named.layer,
            problem.dense_macs(),
            row_len,
            Vec::new(),
        ))
    });
    let mut layers: Vec<BreakEven> = known.collect();
    if layers.is_empty() {
        return Err(BreakEvenError::NoLayers);
    }
    let config = PackConfig::measure(trace).with_min_sparsity(0.0);
    for (done, &sparsity) in SPARSITIES.iter().enumerate() {
        progress(done, SPARSITIES.len());
        let mut plan = Plan::dense();
        for layer in &layers {
            let name = match layer.layer.as_str() {
                "" => "weight".to_owned(),
                layer => format!("{layer}.weight"),
            };
            plan = plan.with_sparsity(name, Sparsity::row_balanced(sparsity)?)?;
        }
        let resolved = plan.resolve(&model)?;
        let sparse = fold(Masks::project(&model, &resolved)?.attach(model.clone())?);
        let (_, report) = pack(sparse, &config)?;
        for packed in report.layers {
            let (Some(dense), Some(time)) = (packed.dense_ms, packed.packed_ms) else {
                continue;
            };
            if let Some(layer) = layers.iter_mut().find(|l| l.layer == packed.layer) {
                layer.points.push((packed.sparsity(), time / dense));
            }
        }
    }
    progress(SPARSITIES.len(), SPARSITIES.len());
    let layers = layers.into_iter();
    Ok(layers
        .map(|layer| BreakEven::of(layer.layer, layer.macs, layer.row_len, layer.points))
        .collect())
}
