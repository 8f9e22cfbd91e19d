//! A mixed network: every layer sparse or dense, in the numbers and with as many images at once as were measured
//! to be fastest (Pietroń and Żurek, 2020, Algorithm 2).

mod config;
mod layer;
mod report;

use burn::module::Module;

pub use config::MixedConfig;
pub use report::{Form, Mixed, MixedLayer, MixedTime};

use super::cache::PlanCache;
use crate::{
    SparseError,
    nn::{Schedule, replace_weights, weights},
};

/// Times every layer of this crate inside `module` in all ways that `config` allows: dense and sparse, in each type
/// of numbers, with each number of images at once. Each gets the fastest.
///
/// The model that comes back holds dense weights in the types that were chosen; [`Mixed::run`] runs it as it was
/// measured. Equalise the rows first where pruning has not done it (`Sparsity::row_balanced`), and quantise before
/// rather than after: weights of few levels are read as codes where that is faster.
///
/// A layer stays dense and in its numbers where the [`Trace`](crate::nn::Trace) has not seen it, and where it is a
/// factor. Casts from and to the numbers of the neighbours, and cutting a batch and putting it together again, are part
/// of what is timed.
///
/// # Errors
/// [`SparseError::NonFinite`] naming the layer of a NaN or an infinity, [`SparseError::Mismatch`] when a form does
/// not give what the dense layer gives, within what its numbers can hold.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_sparse::{nn::{Conv2dConfig, Trace}, pack::{self, MixedConfig}};
///
/// let device = Device::flex();
/// let model = vec![Conv2dConfig::new([8, 8], [3, 3]).init(&device)];
/// let x = Tensor::<4>::random([4, 8, 12, 12], Distribution::Default, &device);
/// let trace = Trace::of(|| drop(model[0].forward(x.clone())));
/// let config = MixedConfig::new(trace).with_plan_cache(None);
/// let (fast, mixed) = pack::mix(model.clone(), &config)?;
/// println!("{mixed}");
/// let same = pack::verify(|x| model[0].forward(x), |x| mixed.run(|| fast[0].forward(x)), &[x]);
/// assert!(same.max_rel < 1e-2);
/// # Ok::<(), burn_sparse::SparseError>(())
/// ```
pub fn mix<M: Module>(module: M, config: &MixedConfig) -> Result<(M, Mixed), SparseError> {
    mix_with(module, config, |_, _, _| {})
}

/// [`mix`], which shows each layer when it is done, the number of layers that are done, and that of all.
///
/// # Errors
/// As [`mix`].
pub fn mix_with<M: Module>(
    module: M,
    config: &MixedConfig,
    mut done: impl FnMut(&MixedLayer, usize, usize),
) -> Result<(M, Mixed), SparseError> {
    let (mut replacements, mut layers, mut runs) = (Vec::new(), Vec::new(), Vec::new());
    let mut plans = PlanCache::open(config.pack.plans.clone());
    let named = weights(&module);
    let all = named.len();
    for named in named {
        let id = named.weight.id();
        let (weight, run, layer) = layer::mix_layer(named, config, &mut plans)?;
        runs.extend(run.map(|run| (id, run)));
        replacements.push(weight);
        done(&layer, layers.len() + 1, all);
        layers.push(layer);
    }
    plans.save();
    let module = replace_weights(module, replacements);
    let schedule = Schedule::new(runs);
    Ok((module, Mixed { layers, schedule }))
}
