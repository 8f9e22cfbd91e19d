//! Times of a network's layers over their ranks, measured once for a machine.

use std::path::Path;

use burn::module::Module;
use burn_admm::decompose::{RankPlan, RankTimes, RankTimesError};
use burn_sparse::cpu;

use super::TrainingError;
use crate::bench::Machine;
use crate::device::{Backend, Selected};
use crate::progress::Progress;

/// The times of all layers that `plan` may decompose, for the geometry that it saw: those of the file at
/// `path`, as far as they are of this machine and of ranks in these steps, the others measured and kept there.
///
/// # Errors
/// A file that cannot be read or written, holds no times or those of another machine, version or step; a plan
/// that saw no forward pass.
pub fn rank_times<M: Module + Sync>(
    model: &M,
    plan: &RankPlan,
    selected: &Selected,
    step: usize,
    path: &Path,
) -> Result<RankTimes, TrainingError> {
    // Times are of kernels too.
    let version = env!("CARGO_PKG_VERSION");
    let machine = format!("{}, {version}", Machine::of(selected)?);
    let known = match RankTimes::load(path) {
        Ok(times) if times.device == machine && times.step == step => Some(times),
        Ok(times) => {
            return Err(TrainingError::Times(RankTimesError::Invalid {
                path: path.to_owned(),
                reason: format!(
                    "holds times of {} in steps of {}, not of {machine} in steps of {step}; name another \
                     file (--times)",
                    times.device, times.step
                ),
            }));
        }
        Err(RankTimesError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            None
        }
        Err(error) => return Err(error.into()),
    };
    let mut times = known.unwrap_or_else(|| RankTimes::new(step).on(machine));
    let device = selected.device.clone().inner();
    let before = times.layers.len();
    let mut measure = || {
        let mut progress = None;
        times.measure(model, plan, &device, |done, all| {
            let progress =
                progress.get_or_insert_with(|| Progress::new("timing ranks", all as u64));
            if done > 0 {
                progress.inc(1);
            }
        })
    };
    if selected.backend == Backend::Flex {
        cpu::on_pool(measure)?;
    } else {
        measure()?;
    }
    if times.layers.len() > before {
        times.save(path)?;
    }
    Ok(times)
}
