//! The candidates of a round, each on a device of its own.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use burn::module::Module;
use burn::tensor::Device;

use crate::mapping::MappingError;

/// Devices that evaluate the candidates of a round at the same time: those of [`search`](super::search), or whatever
/// else does not depend on each other.
///
/// Each device has a thread, a copy of the model ([`fork`](Module::fork)), and takes the next candidate that is left.
/// Results come in the order of the candidates, so that what a search finds does not depend on how many devices there
/// are, as long as the devices compute the same: list devices of one kind, and draw nothing from a generator that
/// several of them share. The same device may be listed twice.
///
/// Any of Burn's devices will do: `Device::enumerate(DeviceType::Cuda)` gives all cards of a machine, and
/// `Device::enumerate(DeviceType::Remote(host))`, with Burn's feature `remote`, those of another one.
///
/// A device that fails or panics is dropped for good, and its candidate goes to another one; see
/// [`warnings`](Self::warnings).
///
/// # Example
/// ```
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor};
/// use burn_admm::mapping::{MappingError, SearchDevices};
///
/// let model: Linear = LinearConfig::new(4, 2).with_bias(false).init(&Device::flex());
/// let mut devices = SearchDevices::new([Device::flex(), Device::flex()])?;
/// let scales = [0.0, 1.0, 2.0, 3.0];
/// let sums = devices.evaluate(&model, &scales, |model: Linear, scale, device| {
///     let x = Tensor::<2>::ones([1, 4], device).mul_scalar(*scale);
///     Ok::<f32, MappingError>(model.forward(x).sum().into_scalar())
/// })?;
/// assert!((sums[3] - 3.0 * sums[1]).abs() < 1e-5);
/// # Ok::<(), MappingError>(())
/// ```
#[derive(Debug)]
pub struct SearchDevices {
    devices: Vec<Device>,
    warnings: Vec<String>,
}

/// What the workers of a turn share.
struct Turn<R, E> {
    /// Candidates that nobody has taken.
    left: Mutex<VecDeque<usize>>,
    results: Mutex<Vec<Option<R>>>,
    failures: Mutex<Vec<Failure<E>>>,
}

/// A device that is dropped.
struct Failure<E> {
    device: usize,
    reason: String,
    /// None after a panic.
    error: Option<E>,
}

/// Nobody panics while holding a lock, so that what it guards is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SearchDevices {
    /// These devices, each with a thread.
    ///
    /// # Errors
    /// [`MappingError::NoDevice`] for none.
    pub fn new(devices: impl Into<Vec<Device>>) -> Result<Self, MappingError> {
        let devices: Vec<Device> = devices.into();
        let devices: Vec<Device> = devices.into_iter().map(Device::inner).collect();
        match devices.is_empty() {
            true => Err(MappingError::NoDevice("none was given".to_owned())),
            false => Ok(Self {
                devices,
                warnings: Vec::new(),
            }),
        }
    }

    /// Devices that are still there.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// What happened to those that are not, since it was asked last: to be shown.
    pub fn warnings(&mut self) -> Vec<String> {
        core::mem::take(&mut self.warnings)
    }

    /// Evaluates all candidates and gives the results in their order. `evaluate` is given a copy of the model of its own
    /// on a device, with gradients if the model has some, and that device, without autodiff.
    ///
    /// # Errors
    /// Only when no device is left: what the last one gave, or [`MappingError::NoDevice`] if it panicked.
    pub fn evaluate<M, C, R, E>(
        &mut self,
        model: &M,
        candidates: &[C],
        evaluate: impl Fn(M, &C, &Device) -> Result<R, E> + Sync,
    ) -> Result<Vec<R>, E>
    where
        M: Module,
        C: Sync,
        R: Send,
        E: From<MappingError> + core::fmt::Display + Send,
    {
        let gradients = model.devices().iter().any(Device::is_autodiff);
        let turn: Turn<R, E> = Turn {
            left: Mutex::new((0..candidates.len()).collect()),
            results: Mutex::new(candidates.iter().map(|_| None).collect()),
            failures: Mutex::new(Vec::new()),
        };
        let evaluate = &evaluate;
        if self.devices.is_empty() {
            return Err(MappingError::NoDevice("all have failed before".to_owned()).into());
        }
        while !lock(&turn.left).is_empty() {
            thread::scope(|scope| {
                for (at, device) in self.devices.iter().enumerate() {
                    // A snapshot: clones of a model share its running statistics, and moving one moves them all.
                    let (snapshot, turn) = (model.valid(), &turn);
                    scope.spawn(move || {
                        work(
                            turn,
                            snapshot,
                            candidates,
                            (at, device),
                            &|model, candidate| {
                                let model = if gradients { model.train() } else { model };
                                evaluate(model, candidate, device)
                            },
                        );
                    });
                }
            });
            let mut failures = core::mem::take(&mut *lock(&turn.failures));
            // In the order of the devices, whichever was first.
            failures.sort_by_key(|failure| failure.device);
            for failure in &failures {
                let device = &self.devices[failure.device];
                let reason = &failure.reason;
                self.warnings
                    .push(format!("{device:?} is no longer used: {reason}"));
            }
            let gone: Vec<usize> = failures.iter().map(|failure| failure.device).collect();
            let mut at = 0;
            self.devices.retain(|_| {
                at += 1;
                !gone.contains(&(at - 1))
            });
            if self.devices.is_empty()
                && let Some(last) = failures.pop()
            {
                let reason = last.reason;
                let error = last.error;
                return Err(error.unwrap_or_else(|| MappingError::NoDevice(reason).into()));
            }
        }
        let results = core::mem::take(&mut *lock(&turn.results));
        Ok(results.into_iter().flatten().collect())
    }
}

/// Takes candidates until none is left, or until one fails, which is then left for another device.
fn work<M: Module, C, R, E: core::fmt::Display>(
    turn: &Turn<R, E>,
    snapshot: M,
    candidates: &[C],
    (at, device): (usize, &Device),
    evaluate: &dyn Fn(M, &C) -> Result<R, E>,
) {
    let mut snapshot = Some(snapshot);
    let mut here: Option<M> = None;
    loop {
        let Some(candidate) = lock(&turn.left).pop_front() else {
            return;
        };
        // What a panic leaves behind is not looked at again.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            if let Some(snapshot) = snapshot.take() {
                here = Some(snapshot.fork(device));
            }
            let model = here.as_ref().map(Module::valid);
            model.map(|model| evaluate(model, &candidates[candidate]))
        }));
        let (reason, error) = match outcome {
            Ok(Some(Ok(result))) => {
                lock(&turn.results)[candidate] = Some(result);
                continue;
            }
            Ok(Some(Err(error))) => (error.to_string(), Some(error)),
            Ok(None) => ("the model is gone".to_owned(), None),
            Err(panic) => (said(&*panic), None),
        };
        lock(&turn.left).push_front(candidate);
        lock(&turn.failures).push(Failure {
            device: at,
            reason,
            error,
        });
        return;
    }
}

/// The message of a panic.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it panicked").to_owned()
}
