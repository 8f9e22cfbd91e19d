//! Where a forward pass spends its time, layer by layer.

use std::cell::RefCell;
use std::time::Instant;

use burn::module::ParamId;
use burn::tensor::Device;

use crate::ConvProblem;

/// One layer of this crate within a forward pass.
#[derive(Debug, Clone)]
pub struct LayerTime {
    /// The id of its weight; [`weights`](super::weights) knows the layer's path by it.
    pub weight: ParamId,
    /// What it computed when first used; a linear layer is a 1x1 convolution of one pixel for each
    /// row of its input.
    pub problem: ConvProblem,
    /// Median seconds of all its uses in a pass.
    pub seconds: f64,
}

/// Times of the layers of this crate within whole forward passes.
///
/// A layer alone is timed with its input in the caches. Here it finds what the layer before it
/// left, so these are the times to look at when a network is slower than the sum of its layers.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_sparse::nn::{Conv2dConfig, Profile};
///
/// let device = Device::flex();
/// let conv = Conv2dConfig::new([3, 8], [3, 3]).init(&device);
/// let x = Tensor::<4>::zeros([1, 3, 16, 16], &device);
/// let profile = Profile::of(5, &device, || drop(conv.forward(x.clone())));
/// assert_eq!(profile.layers[0].weight, conv.weight.id());
/// assert!(profile.layers[0].seconds <= profile.seconds);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Profile {
    /// The layers, in the order in which they first ran.
    pub layers: Vec<LayerTime>,
    /// Median seconds of a pass, everything between the layers included.
    pub seconds: f64,
}

/// Uses of a layer in the passes so far.
struct Uses {
    weight: ParamId,
    problem: ConvProblem,
    /// Seconds, by pass.
    passes: Vec<f64>,
}

struct Recording {
    device: Device,
    layers: Vec<Uses>,
    pass: usize,
}

thread_local! {
    static RECORDING: RefCell<Option<Recording>> = const { RefCell::new(None) };
}

/// Waits for what is queued on a device. What fails to run fails again where results are read.
fn sync(device: &Device) {
    device.sync().ok();
}

impl Profile {
    /// Runs `forward` once to warm up and `passes` times (at least once) to measure, on this
    /// thread; layers that it runs on other threads are not seen. The device is synchronised after
    /// every layer, which a device that queues its work pays for.
    pub fn of(passes: usize, device: &Device, mut forward: impl FnMut()) -> Self {
        struct Restore(Option<Recording>);
        impl Drop for Restore {
            fn drop(&mut self) {
                RECORDING.set(self.0.take());
            }
        }
        forward();
        sync(device);
        let _restore = Restore(RECORDING.replace(Some(Recording {
            device: device.clone(),
            layers: Vec::new(),
            pass: 0,
        })));
        let mut seconds = Vec::new();
        for pass in 0..passes.max(1) {
            RECORDING.with_borrow_mut(|recording| {
                if let Some(recording) = recording {
                    recording.pass = pass;
                }
            });
            let start = Instant::now();
            forward();
            sync(device);
            seconds.push(start.elapsed().as_secs_f64());
        }
        let recorded = RECORDING.take().into_iter();
        Self {
            layers: recorded
                .flat_map(|recording| recording.layers)
                .map(|uses| LayerTime {
                    weight: uses.weight,
                    problem: uses.problem,
                    seconds: median(uses.passes),
                })
                .collect(),
            seconds: median(seconds),
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Runs a layer, and records how long that took where somebody asked.
pub(super) fn timed<T>(
    weight: ParamId,
    problem: impl FnOnce() -> ConvProblem,
    work: impl FnOnce() -> T,
) -> T {
    let device = RECORDING.with_borrow(|recording| recording.as_ref().map(|r| r.device.clone()));
    let Some(device) = device else {
        return work();
    };
    sync(&device);
    let start = Instant::now();
    let out = work();
    sync(&device);
    let seconds = start.elapsed().as_secs_f64();
    RECORDING.with_borrow_mut(|recording| {
        let Some(recording) = recording else {
            return;
        };
        let pass = recording.pass;
        let known = recording.layers.iter().position(|l| l.weight == weight);
        let index = known.unwrap_or_else(|| {
            recording.layers.push(Uses {
                weight,
                problem: problem(),
                passes: Vec::new(),
            });
            recording.layers.len() - 1
        });
        let passes = &mut recording.layers[index].passes;
        passes.resize(passes.len().max(pass + 1), 0.0);
        passes[pass] += seconds;
    });
    out
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::Tensor;

    use super::*;
    use crate::nn::{Conv2dConfig, LinearConfig};

    #[test]
    fn layers_come_in_order_and_uses_add_up() {
        let device = Device::flex();
        let conv = Conv2dConfig::new([4, 4], [1, 1]).init(&device);
        let fc = LinearConfig::new(4, 2).init(&device);
        let forward = || {
            let x = Tensor::<4>::ones([2, 4, 3, 3], &device);
            let y = conv.forward(conv.forward(x));
            drop(fc.forward(y.mean_dims(&[2, 3]).flatten::<2>(1, 3)));
        };
        let profile = Profile::of(3, &device, forward);
        let ids: Vec<_> = profile.layers.iter().map(|layer| layer.weight).collect();
        assert_eq!(ids, [conv.weight.id(), fc.weight.id()]);
        assert_eq!(profile.layers[0].problem.input, [3, 3]);
        assert_eq!(profile.layers[1].problem.batch, 2);
        let layers: f64 = profile.layers.iter().map(|layer| layer.seconds).sum();
        assert!(layers > 0.0 && profile.seconds > 0.0);
        // Nothing is recorded any more.
        forward();
        assert!(RECORDING.with_borrow(Option::is_none));
    }
}
