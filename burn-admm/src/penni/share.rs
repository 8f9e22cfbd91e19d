//! From composed weights to shared kernels that run.

use burn::module::Module;
use burn::tensor::TensorData;
use burn_sparse::nn::{AnyWeight, NamedWeight, replace_weights, weights};

use super::{PenniError, SharedKernels};

/// Largest difference between a weight and the product that it was composed from, in parts of the largest
/// element; cards may multiply in TF32.
const COMPOSED: f32 = 1e-2;

/// The model with these layers as kernels that all their channels share, and coefficients
/// ([`burn_sparse::nn::Factors`], core and `expand`), to be [packed](fn@burn_sparse::pack::pack): what a layer
/// then computes is what it computed with the composed weight, by fewer multiplications.
///
/// Layers of one input channel or of 1×1 kernels have nothing to share and keep their weights, as do those
/// that `shared` does not name. Batch norms are folded afterwards: a folded weight is another one. For layers of
/// one group, as [`burn_sparse::nn::Factors`] are.
///
/// # Errors
/// [`PenniError::NoKernels`] for a path that is no weight of a 2-D convolution of
/// [`burn_sparse::nn`], [`PenniError::Form`] for one of several groups and for kernels of another shape, or of another product, than the
/// weight.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_admm::penni::{KernelSpectrum, share};
/// use burn_sparse::WeightShape;
/// use burn_sparse::nn::Conv2dConfig;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let device = Device::flex();
/// let conv = Conv2dConfig::new([4, 8], [3, 3]).init(&device);
/// let weights: Vec<f32> = conv.weight.val().into_data().try_to_vec()?;
/// let kernels = KernelSpectrum::new(&weights, WeightShape::new(8, 4, [3, 3]))?.decompose(9)?;
///
/// let x = Tensor::<4>::random([1, 4, 6, 6], Distribution::Default, &device);
/// let dense = conv.forward(x.clone());
/// let shared = share(conv, &[("weight".to_string(), kernels)])?;
/// assert!(shared.weight.factors().is_some_and(|factors| factors.is_shared()));
/// assert!((shared.forward(x) - dense).abs().max().into_scalar::<f32>() < 1e-5);
/// # Ok(())
/// # }
/// ```
pub fn share<M: Module>(model: M, shared: &[(String, SharedKernels)]) -> Result<M, PenniError> {
    let named = weights(&model);
    for (path, _) in shared {
        let found = named.iter().find(|named| named.path == *path);
        let conv = found.filter(|n| matches!(n.weight, AnyWeight::Conv2d(_)) && !n.factor);
        if let Some(grouped) = conv.filter(|named| named.groups > 1) {
            return Err(PenniError::Form {
                path: path.clone(),
                source: burn_sparse::SparseError::shape(format!(
                    "shared kernels for a layer of {} groups, which cannot have any",
                    grouped.groups
                )),
            });
        }
        if conv.is_none() {
            return Err(PenniError::NoKernels {
                path: path.clone(),
                shape: found.map_or_else(Vec::new, |named| named.weight.shape()),
            });
        }
    }
    let replaced =
        named.into_iter().map(
            |named| match shared.iter().find(|(path, _)| *path == named.path) {
                Some((_, kernels)) => factors(&named, kernels),
                None => Ok(named.weight),
            },
        );
    let replaced = replaced.collect::<Result<_, _>>()?;
    Ok(replace_weights(model, replaced))
}

fn factors(named: &NamedWeight, kernels: &SharedKernels) -> Result<AnyWeight, PenniError> {
    let shape = kernels.shape();
    let dims = named.weight.shape();
    let wanted = [shape.rows, shape.channels, shape.kernel[0], shape.kernel[1]];
    if dims != wanted {
        return Err(PenniError::Form {
            path: named.path.clone(),
            source: burn_sparse::SparseError::shape(format!(
                "shared kernels of a weight {wanted:?} for a weight {dims:?}"
            )),
        });
    }
    if shape.channels == 1 || shape.positions() == 1 {
        return Ok(named.weight.clone());
    }
    let product = kernels.reconstruct();
    let weight = named.weight.to_csr().map(|csr| csr.to_dense());
    let weight = weight.map_err(|source| PenniError::Form {
        path: named.path.clone(),
        source,
    })?;
    let largest = product.iter().fold(0.0f32, |most, w| most.max(w.abs()));
    let off = product.iter().zip(&weight).map(|(a, b)| (a - b).abs());
    let off = off.fold(0.0f32, f32::max);
    // NaN does not fit either.
    let fits = off <= COMPOSED * largest;
    if !fits {
        return Err(PenniError::Form {
            path: named.path.clone(),
            source: burn_sparse::SparseError::shape(format!(
                "shared kernels whose product differs by {off} from the weight, of {largest} at most; compose \
                 the model first, and fold its batch norms afterwards"
            )),
        });
    }
    // Pairs of output and input channel are rows of the coefficients: the same numbers in the same order.
    let core = [kernels.count(), 1, dims[2], dims[3]];
    let expand = [dims[0], dims[1] * kernels.count(), 1, 1];
    let data = |values: &[f32], shape: [usize; 4]| TensorData::new(values.to_vec(), shape);
    let factors = [
        None,
        Some(data(kernels.basis(), core)),
        Some(data(kernels.coefficients(), expand)),
    ];
    let made = named.weight.with_factors(factors);
    made.map_err(|source| PenniError::Form {
        path: named.path.clone(),
        source,
    })
}
