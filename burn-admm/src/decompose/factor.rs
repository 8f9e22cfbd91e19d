//! Factors in the place of weights.

use burn::module::Module;
use burn::tensor::TensorData;
use burn_sparse::SparseError;
use burn_sparse::nn::{AnyWeight, NamedWeight, replace_weights, weights};
use faer::Mat;

use super::matrix::to_f32;
use super::{Cp, Decomposed, LayerFactors, RankPlanError, SpatialSvd, Tucker2};

/// The model with [`Factors`](burn_sparse::nn::Factors) in the place of the weights that were
/// decomposed: smaller layers in a row, each with parameters of its own to fine-tune. Structs, biases
/// and all other parameters stay as they are.
///
/// Layers are those of [`burn_sparse::nn`], of one group. A mask attached to a decomposed weight is gone afterwards.
///
/// # Errors
/// [`RankPlanError::NoLayer`] for a parameter that is not the weight of such a layer,
/// [`RankPlanError::Groups`] for one of several groups (depthwise ones among them),
/// [`RankPlanError::Factors`] for factors of another shape and for weights that are factors already.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_admm::decompose::{HooiConfig, RankChoice, RankPlan, RankRule, Ranks, factor};
/// use burn_sparse::nn::Conv2dConfig;
///
/// let device = Device::flex();
/// let conv = Conv2dConfig::new([32, 64], [3, 3]).init(&device);
/// let plan = RankPlan::new(RankChoice::new(RankRule::Fixed(Ranks::new(16, 8))));
/// let factors = plan.decompose(&conv, HooiConfig::default())?;
/// let small = factor(conv, &factors)?;
/// assert_eq!(small.weight.factors().unwrap().parameters(), 8 * 32 + 16 * 8 * 9 + 64 * 16);
/// let y = small.forward(Tensor::zeros([1, 32, 8, 8], &device));
/// assert_eq!(y.dims(), [1, 64, 6, 6]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn factor<M: Module>(model: M, factors: &[Decomposed]) -> Result<M, RankPlanError> {
    let named = weights(&model);
    let missing = |layer: &&Decomposed| !named.iter().any(|n| n.path == layer.path);
    if let Some(layer) = factors.iter().find(missing) {
        return Err(RankPlanError::NoLayer {
            path: layer.path.clone(),
        });
    }
    let replaced = named.into_iter().map(|named| {
        match factors.iter().find(|layer| layer.path == named.path) {
            Some(layer) if named.factor => Err(RankPlanError::Factors {
                path: layer.path.clone(),
                source: SparseError::shape("a factor cannot have factors of its own"),
            }),
            Some(layer) if named.groups > 1 => Err(RankPlanError::Groups {
                path: layer.path.clone(),
                groups: named.groups,
            }),
            Some(layer) => chained(&named, layer),
            None => Ok(named.weight),
        }
    });
    let replaced = replaced.collect::<Result<_, _>>()?;
    Ok(replace_weights(model, replaced))
}

fn chained(named: &NamedWeight, layer: &Decomposed) -> Result<AnyWeight, RankPlanError> {
    let shape = named.weight.shape();
    let kernel = shape.get(2..).unwrap_or_default();
    let factors = match &layer.factors {
        LayerFactors::Tucker(tucker) => {
            let linear = matches!(named.weight, AnyWeight::Linear(_));
            tucker_chain(tucker, kernel, linear)
        }
        LayerFactors::Spatial(spatial) => spatial_chain(spatial),
        LayerFactors::Cp(cp) => cp_chain(cp, kernel),
    };
    let with = named.weight.with_factors(factors);
    with.map_err(|source| RankPlanError::Factors {
        path: named.path.clone(),
        source,
    })
}

fn tucker_chain(tucker: &Tucker2, kernel: &[usize], linear: bool) -> [Option<TensorData>; 3] {
    let data = |(factor, matrix): (usize, Option<Mat<f64>>)| {
        let matrix = matrix?;
        // Weights of linear layers lie the other way round.
        if linear {
            let matrix = matrix.transpose();
            return Some(TensorData::new(
                to_f32(matrix),
                vec![matrix.nrows(), matrix.ncols()],
            ));
        }
        let positions: usize = if factor == CORE {
            kernel.iter().product()
        } else {
            1
        };
        let mut dims = vec![matrix.nrows(), matrix.ncols() / positions.max(1)];
        dims.extend(
            kernel
                .iter()
                .map(|&len| if factor == CORE { len } else { 1 }),
        );
        Some(TensorData::new(to_f32(matrix.as_ref()), dims))
    };
    let [reduce, core, expand] = tucker.chain();
    [(0, reduce), (CORE, core), (2, expand)].map(data)
}

/// A convolution along columns and one along rows.
fn spatial_chain(spatial: &SpatialSvd) -> [Option<TensorData>; 3] {
    let (shape, rank) = (spatial.shape(), spatial.factors().rank());
    let [height, width] = shape.kernel;
    let vertical = [rank, shape.channels, height, 1];
    let horizontal = [shape.rows, rank, 1, width];
    [
        None,
        Some(TensorData::new(spatial.vertical(), vertical)),
        Some(TensorData::new(spatial.horizontal(), horizontal)),
    ]
}

/// A depthwise convolution between two of 1×1.
fn cp_chain(cp: &Cp, kernel: &[usize]) -> [Option<TensorData>; 3] {
    let (shape, rank) = (cp.shape(), cp.rank());
    let points = vec![1; kernel.len()];
    let data = |values: Vec<f32>, [rows, columns]: [usize; 2], rest: &[usize]| {
        let dims = [&[rows, columns], rest].concat();
        Some(TensorData::new(values, dims))
    };
    [
        data(cp.reduce(), [rank, shape.channels], &points),
        data(cp.depthwise(), [rank, 1], kernel),
        data(cp.expand(), [shape.rows, rank], &points),
    ]
}

const CORE: usize = 1;
