//! Which convolution each layer computes, seen in one forward pass.

use std::cell::RefCell;

use burn::module::ParamId;

use crate::ConvProblem;

/// The geometry of every layer of this crate that a forward pass ran.
///
/// Packing chooses kernels by measurement at the sizes that occur; this is how it learns them.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_sparse::nn::{Conv2dConfig, Trace};
///
/// let device = Device::flex();
/// let conv = Conv2dConfig::new([3, 8], [3, 3]).init(&device);
/// let trace = Trace::of(|| {
///     conv.forward(Tensor::zeros([1, 3, 16, 16], &device));
/// });
/// assert_eq!(trace.problem(conv.weight.id()).unwrap().output(), [14, 14]);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Trace {
    layers: Vec<(ParamId, ConvProblem)>,
}

thread_local! {
    static RECORDING: RefCell<Option<Trace>> = const { RefCell::new(None) };
}

impl Trace {
    /// Runs `forward` and records the layers it passes through on this thread, and behind
    /// [`cpu::on_pool`](crate::cpu::on_pool); of a layer that is used several times the first use counts.
    pub fn of(forward: impl FnOnce()) -> Self {
        let ((), Carried(trace)) = Carried(Some(Self::default())).during(forward);
        trace.unwrap_or_default()
    }

    /// The convolution that the layer with this weight computed; a linear layer is a 1x1
    /// convolution of one pixel for each row of its input.
    pub fn problem(&self, weight: ParamId) -> Option<&ConvProblem> {
        self.layers
            .iter()
            .find(|(id, _)| *id == weight)
            .map(|(_, problem)| problem)
    }

    /// The same layers with another batch.
    #[must_use]
    pub fn with_batch(&self, batch: usize) -> Self {
        let layers = self
            .layers
            .iter()
            .map(|(id, problem)| (*id, problem.with_batch(batch)));
        Self {
            layers: layers.collect(),
        }
    }
}

/// A recording, or none, on its way from thread to thread.
pub(crate) struct Carried(Option<Trace>);

impl Carried {
    /// Takes the recording of this thread.
    pub(crate) fn take() -> Self {
        Self(RECORDING.take())
    }

    /// Goes on with it on this thread.
    pub(crate) fn put(self) {
        RECORDING.set(self.0);
    }

    /// Goes on with it on this thread while `work` runs.
    pub(crate) fn during<T>(self, work: impl FnOnce() -> T) -> (T, Self) {
        /// Puts back what was recorded before, also when `work` panics.
        struct Restore(Option<Trace>);
        impl Drop for Restore {
            fn drop(&mut self) {
                RECORDING.set(self.0.take());
            }
        }
        let _restore = Restore(RECORDING.replace(self.0));
        let done = work();
        (done, Self::take())
    }
}

/// Called by every layer in its forward pass.
pub(super) fn record(weight: ParamId, problem: impl FnOnce() -> ConvProblem) {
    RECORDING.with_borrow_mut(|recording| {
        if let Some(trace) = recording
            && trace.problem(weight).is_none()
        {
            trace.layers.push((weight, problem()));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu;

    fn see(weight: ParamId) {
        record(weight, || ConvProblem::new(1, [1, 1], [1, 1], [1, 1]));
    }

    #[test]
    fn a_recording_goes_along_to_the_pool_and_back() {
        let [before, within, after, later] = core::array::from_fn(|_| ParamId::new());
        let trace = Trace::of(|| {
            see(before);
            cpu::on_pool(|| see(within));
            see(after);
        });
        for id in [before, within, after] {
            assert!(trace.problem(id).is_some());
        }
        let panicked = std::panic::catch_unwind(|| {
            Trace::of(|| cpu::on_pool(|| panic!("as planned")));
        });
        assert!(panicked.is_err());
        // Nobody records any more, neither here nor there.
        see(later);
        assert!(Carried::take().0.is_none());
        let there = rayon::broadcast(|_| Carried::take().0.is_none());
        assert!(there.into_iter().all(|none| none));
    }
}
