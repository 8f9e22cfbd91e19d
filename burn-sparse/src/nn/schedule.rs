//! In which numbers and how many images at once each layer runs.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use burn::module::ParamId;
use burn::tensor::{DType, FloatDType, Tensor};
use serde::{Deserialize, Serialize};

use crate::ops::Epilogue;

/// How a layer runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAs {
    /// The type of the inputs, of what is added and of the outputs of a packed layer while it runs; a dense one
    /// computes in that of its weight. The layers before and after it see numbers of the type that it was given.
    pub dtype: FloatDType,
    /// Images of one call, at least 1: a batch is cut into as many calls as that takes. (`subBatch` of Pietroń
    /// and Żurek, 2020.)
    pub sub_batch: usize,
}

/// How the layers of a model run, by their weights. Layers that are not in it run as they are given their
/// inputs.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Distribution, FloatDType, Tensor};
/// use burn_sparse::nn::{Conv2dConfig, RunAs, Schedule};
///
/// let device = Device::flex();
/// let conv = Conv2dConfig::new([2, 3], [3, 3]).init(&device);
/// let x = Tensor::<4>::random([5, 2, 8, 8], Distribution::Default, &device);
/// let run = RunAs { dtype: FloatDType::F32, sub_batch: 2 };
/// let schedule = Schedule::new([(conv.weight.id(), run)]);
/// // Images 0 and 1, 2 and 3, and 4.
/// let y = schedule.run(|| conv.forward(x.clone()));
/// assert!((y - conv.forward(x)).abs().max().into_scalar::<f32>() < 1e-6);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Schedule {
    layers: Arc<HashMap<ParamId, RunAs>>,
}

thread_local! {
    static HEEDED: RefCell<Option<Schedule>> = const { RefCell::new(None) };
}

impl Schedule {
    /// A schedule for the layers with these weights.
    pub fn new(layers: impl IntoIterator<Item = (ParamId, RunAs)>) -> Self {
        Self {
            layers: Arc::new(layers.into_iter().collect()),
        }
    }

    /// How the layer with this weight runs, if it is told.
    pub fn of(&self, weight: ParamId) -> Option<RunAs> {
        self.layers.get(&weight).copied()
    }

    /// Runs `forward` with its layers on this thread, and behind [`cpu::on_pool`](crate::cpu::on_pool), as the
    /// schedule says.
    pub fn run<T>(&self, forward: impl FnOnce() -> T) -> T {
        Heeded(Some(self.clone())).during(forward)
    }
}

/// The schedule of a thread, or none, on its way to another.
pub(crate) struct Heeded(Option<Schedule>);

impl Heeded {
    /// That of this thread.
    pub(crate) fn here() -> Self {
        Self(HEEDED.with_borrow(Clone::clone))
    }

    /// Heeds it on this thread while `work` runs.
    pub(crate) fn during<T>(self, work: impl FnOnce() -> T) -> T {
        /// Puts back what was heeded before, also when `work` panics.
        struct Restore(Option<Schedule>);
        impl Drop for Restore {
            fn drop(&mut self) {
                HEEDED.set(self.0.take());
            }
        }
        let _restore = Restore(HEEDED.replace(self.0));
        work()
    }
}

/// Runs a layer as its schedule says, one with a dense weight in the numbers of that. `work` is the layer on some
/// of the images.
pub(super) fn through<const D: usize>(
    id: ParamId,
    weight: Option<DType>,
    input: Tensor<D>,
    epilogue: Epilogue<D>,
    work: impl Fn(Tensor<D>, Epilogue<D>) -> Tensor<D>,
) -> Tensor<D> {
    let run = HEEDED.with_borrow(|heeded| heeded.as_ref().and_then(|schedule| schedule.of(id)));
    let given = input.dtype();
    let dtype = match (weight, run) {
        (Some(weight), _) if weight.is_float() => weight,
        (None, Some(run)) => run.dtype.into(),
        _ => given,
    };
    let images = input.dims()[0];
    let at_once = run.map_or(images, |run| run.sub_batch.max(1));
    if dtype == given && at_once >= images {
        return work(input, epilogue);
    }
    run_parts(input, epilogue, at_once, dtype, &work)
}

/// A batch in calls of at most `at_once` images, in numbers of `dtype`.
pub(crate) fn run_parts<const D: usize>(
    input: Tensor<D>,
    epilogue: Epilogue<D>,
    at_once: usize,
    dtype: DType,
    work: impl Fn(Tensor<D>, Epilogue<D>) -> Tensor<D>,
) -> Tensor<D> {
    let (given, images) = (input.dtype(), input.dims()[0]);
    let Epilogue {
        bias,
        residual,
        activation,
    } = epilogue;
    let bias = bias.map(|bias| as_type(bias, dtype));
    let part = |input: Tensor<D>, residual: Option<Tensor<D>>| {
        let epilogue = Epilogue {
            bias: bias.clone(),
            residual: residual.map(|residual| as_type(residual, dtype)),
            activation,
        };
        as_type(work(as_type(input, dtype), epilogue), given)
    };
    if at_once >= images {
        return part(input, residual);
    }
    let parts = (0..images).step_by(at_once).map(|first| {
        let len = at_once.min(images - first);
        let some = |tensor: &Tensor<D>| tensor.clone().narrow(0, first, len);
        part(some(&input), residual.as_ref().map(some))
    });
    Tensor::cat(parts.collect(), 0)
}

fn as_type<const D: usize>(tensor: Tensor<D>, dtype: DType) -> Tensor<D> {
    if tensor.dtype() == dtype {
        tensor
    } else {
        tensor.cast(FloatDType::from(dtype))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;
    use crate::cpu;
    use crate::nn::{Activation, Conv1dConfig, Conv2dConfig, LinearConfig};

    fn run_as(dtype: FloatDType, sub_batch: usize) -> RunAs {
        RunAs { dtype, sub_batch }
    }

    fn apart<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f32 {
        assert_eq!((a.dims(), a.dtype()), (b.dims(), b.dtype()));
        (a - b).abs().max().into_scalar()
    }

    #[test]
    fn batches_are_cut_and_put_together_again() {
        let device = Device::flex();
        let random =
            |shape: [usize; 4]| Tensor::<4>::random(shape, Distribution::Normal(0.0, 1.0), &device);
        let conv = Conv2dConfig::new([3, 5], [3, 2]).init(&device);
        let (x, residual) = (random([7, 3, 9, 6]), random([7, 5, 7, 5]));
        for conv in [conv.clone(), conv.pack().unwrap()] {
            let forward =
                || conv.forward_fused(x.clone(), Some(residual.clone()), Activation::Relu);
            for (dtype, tolerance) in [(FloatDType::F32, 1e-5), (FloatDType::F16, 2e-2)] {
                // More at once than there are; one left over; evenly.
                for sub_batch in [1, 2, 3, 7, 9] {
                    let run = run_as(dtype, sub_batch);
                    let schedule = Schedule::new([(conv.weight.id(), run)]);
                    assert!(apart(schedule.run(forward), forward()) < tolerance);
                    let pooled = schedule.run(|| cpu::on_pool(forward));
                    assert!(apart(pooled, forward()) < tolerance);
                }
            }
        }
        let line = Conv1dConfig::new(3, 4, 2).init(&device);
        let x1 = Tensor::<3>::random([5, 3, 8], Distribution::Default, &device);
        let schedule = Schedule::new([(line.weight.id(), run_as(FloatDType::F32, 2))]);
        let cut = schedule.run(|| line.forward(x1.clone()));
        assert!(apart(cut, line.forward(x1)) < 1e-5);
        let fc = LinearConfig::new(6, 4).init(&device);
        let x2 = Tensor::<2>::random([5, 6], Distribution::Default, &device);
        let schedule = Schedule::new([(fc.weight.id(), run_as(FloatDType::F32, 2))]);
        let cut = schedule.run(|| fc.forward(x2.clone()));
        assert!(apart(cut, fc.forward(x2)) < 1e-5);
    }

    #[test]
    fn a_dense_layer_computes_in_the_numbers_of_its_weight() {
        let device = Device::flex();
        let conv = Conv2dConfig::new([3, 5], [3, 3]).init(&device);
        let mut half = conv.clone();
        if let crate::nn::Weight::Dense(param) = half.weight {
            half.weight = param.map(|weight| weight.cast(FloatDType::F16)).into();
        }
        let x = Tensor::<4>::random([2, 3, 6, 6], Distribution::Default, &device);
        let y = half.forward(x.clone());
        let difference = apart(y, conv.forward(x));
        assert!(difference > 0.0 && difference < 1e-2, "{difference}");
    }

    #[test]
    fn nothing_is_heeded_afterwards() {
        let device = Device::flex();
        let conv = Conv2dConfig::new([1, 1], [1, 1]).init(&device);
        let schedule = Schedule::new([(conv.weight.id(), run_as(FloatDType::F32, 1))]);
        let panicked = std::panic::catch_unwind(|| schedule.run(|| panic!("as planned")));
        assert!(panicked.is_err());
        assert!(HEEDED.with_borrow(Option::is_none));
        assert_eq!(schedule.of(ParamId::new()), None);
    }
}
