//! Dense layers to packed ones: measured, verified, explained.
//!
//! ```
//! use burn::tensor::{Device, Distribution, Tensor};
//! use burn_sparse::{nn::{Conv2dConfig, Trace}, pack::{self, Choice, PackConfig}};
//!
//! let device = Device::flex();
//! let model = vec![Conv2dConfig::new([8, 8], [3, 3]).init(&device)];
//! let x = Tensor::<4>::random([1, 8, 12, 12], Distribution::Default, &device);
//! let trace = Trace::of(|| {
//!     model[0].forward(x.clone());
//! });
//! let config = PackConfig::default().with_choice(Choice::Csr).with_trace(trace);
//! let (packed, report) = pack::pack(model.clone(), &config)?;
//! println!("{report}");
//! let same = pack::verify(|x| model[0].forward(x), |x| packed[0].forward(x), &[x]);
//! assert!(same.max_abs < 1e-4);
//! # Ok::<(), burn_sparse::SparseError>(())
//! ```

#[cfg_attr(
    not(feature = "flex"),
    allow(dead_code, reason = "plans are those of the CPU kernels")
)]
mod cache;
mod config;
mod layer;
mod measure;
mod mixed;
mod report;
mod search;
#[cfg(feature = "flex")]
mod tune;
mod verify;

use burn::module::Module;
use cache::PlanCache;

pub use config::{Choice, PackConfig};
pub use mixed::{Form, Mixed, MixedConfig, MixedLayer, MixedTime, mix, mix_with};
pub use report::{Format, PackReport, PackedLayer};
pub use search::Search;
#[cfg(feature = "flex")]
pub use tune::{Tuned, time_plans, tune_plan};
pub use verify::{Difference, random_inputs, verify};

use crate::{
    SparseError,
    nn::{replace_weights, weights},
};

/// Packs the weights of all layers of this crate inside `module`, in whatever struct they sit;
/// layers of Burn's own stay as they are.
///
/// With [`Choice::Auto`] a layer is packed only if at least
/// [`min_sparsity`](PackConfig::with_min_sparsity) of it is zero and, where a
/// [`Trace`](crate::nn::Trace) tells its geometry, the packed kernel ran faster than the dense
/// one that the layer runs on this device. On a CPU the packed kernel has plans to choose from: those for each form that
/// the layer could take are timed too (see [`PackConfig::with_plan_cache`]), and a convolution that
/// stays dense may run as dense tiles. Every packed layer is checked against its dense form on random input.
///
/// Fold masks before packing: a mask still attached is applied to the weights that are packed, and
/// gone afterwards.
///
/// # Errors
/// [`SparseError::NonFinite`] naming the layer of a NaN or an infinity, [`SparseError::Mismatch`]
/// when a packed layer does not reproduce its dense form.
pub fn pack<M: Module>(module: M, config: &PackConfig) -> Result<(M, PackReport), SparseError> {
    let mut replacements = Vec::new();
    let mut layers = Vec::new();
    let mut plans = PlanCache::open(config.plans.clone());
    for named in weights(&module) {
        let (weight, layer) = layer::pack_layer(named, config, &mut plans)?;
        replacements.push(weight);
        layers.push(layer);
    }
    plans.save();
    Ok((replace_weights(module, replacements), PackReport { layers }))
}

/// The same module with every weight dense again, zeros and all.
pub fn unpack<M: Module>(module: M) -> M {
    let dense = weights(&module)
        .into_iter()
        .map(|named| named.weight.unpack())
        .collect();
    replace_weights(module, dense)
}
