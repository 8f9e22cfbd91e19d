use burn::module::Module;
use serde::{Deserialize, Serialize};

use crate::admm::AdmmError;
use crate::mask::Masks;
use crate::plan::{ResolvedLayer, ResolvedPlan};

/// A [`GradualSchedule`] out of range.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum ScheduleError {
    /// An initial sparsity outside `[0, 1)`.
    #[error("initial sparsity must lie in [0, 1), got {0}")]
    Initial(f64),
    /// A schedule that ends before it starts.
    #[error("gradual pruning ends at step {end}, before it starts at step {start}")]
    Ends {
        /// First step.
        start: u64,
        /// Last step.
        end: u64,
    },
    /// Pruning every zero steps.
    #[error("the frequency of gradual pruning must be at least one step, got 0")]
    Frequency,
}

/// The cubic schedule of Zhu and Gupta, "To prune, or not to prune" (2017), equation 1:
///
/// `s(t) = s_f + (s_i − s_f) (1 − (t − t_0) / (t_1 − t_0))³` for `t_0 ≤ t ≤ t_1`, every `frequency`
/// steps, with `s_i` the initial and `s_f` the final sparsity.
///
/// The final sparsity is that of each layer in the plan, so that a layer ends exactly where ADMM
/// would put it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawSchedule")]
pub struct GradualSchedule {
    initial: f64,
    start_step: u64,
    end_step: u64,
    frequency: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSchedule {
    initial: f64,
    start_step: u64,
    end_step: u64,
    frequency: u64,
}

impl TryFrom<RawSchedule> for GradualSchedule {
    type Error = ScheduleError;

    fn try_from(raw: RawSchedule) -> Result<Self, ScheduleError> {
        Self::new(raw.initial, raw.start_step, raw.end_step, raw.frequency)
    }
}

impl GradualSchedule {
    /// From sparsity `initial` at `start_step` to the plan's at `end_step`, in optimiser steps
    /// counted from 1, pruning every `frequency` steps and at the last one.
    ///
    /// # Errors
    /// [`ScheduleError`] for an initial sparsity outside `[0, 1)`, an end before the start, a
    /// frequency of zero.
    pub fn new(
        initial: f64,
        start_step: u64,
        end_step: u64,
        frequency: u64,
    ) -> Result<Self, ScheduleError> {
        if !(0.0..1.0).contains(&initial) {
            Err(ScheduleError::Initial(initial))
        } else if end_step < start_step {
            Err(ScheduleError::Ends {
                start: start_step,
                end: end_step,
            })
        } else if frequency == 0 {
            Err(ScheduleError::Frequency)
        } else {
            Ok(Self {
                initial,
                start_step,
                end_step,
                frequency,
            })
        }
    }

    /// Whether masks are made anew after this step.
    pub fn prunes_at(&self, step: u64) -> bool {
        step == self.end_step
            || (self.start_step..self.end_step).contains(&step)
                && (step - self.start_step).is_multiple_of(self.frequency)
    }

    /// The sparsity at a step, on the way to `final_sparsity`: constant before the start and after
    /// the end. A layer whose final sparsity is below the initial one has its own from the start.
    pub fn sparsity(&self, step: u64, final_sparsity: f64) -> f64 {
        if step >= self.end_step {
            return final_sparsity;
        }
        let initial = self.initial.min(final_sparsity);
        let done = step.saturating_sub(self.start_step) as f64;
        let left = 1.0 - done / (self.end_step - self.start_step).max(1) as f64;
        final_sparsity + (initial - final_sparsity) * left.powi(3)
    }

    fn layer(&self, step: u64, layer: &ResolvedLayer) -> Result<ResolvedLayer, AdmmError> {
        let mut layer = layer.clone();
        // Past the end the plan's own budget holds, so that counts are exact.
        if step < self.end_step && layer.weights() > 0 {
            let last = 1.0 - layer.nnz as f64 / layer.weights() as f64;
            layer.sparsity = layer.sparsity.at(self.sparsity(step, last));
            let nnz = layer.sparsity.nnz(layer.view.shape());
            layer.nnz = nnz.map_err(|source| AdmmError::Projection {
                path: layer.path.clone(),
                source: source.into(),
            })?;
        }
        Ok(layer)
    }
}

/// Gradual magnitude pruning: trains under masks that grow by a cubic schedule.
///
/// Call [`step`](Self::step) after every optimiser step. Where the choices of two steps need not lie
/// within each other (rows and columns of blocks, patterns of kernels) what went stays away, and a few
/// weights fewer may be left than the plan allows. To resume, load the model's record into
/// [`Masks::keep_all`]`.attach(fresh)` and continue [`at_step`](Self::at_step).
///
/// # Example
/// ```
/// use burn::nn::transformer::TransformerEncoderConfig;
/// use burn::tensor::Device;
/// use burn_admm::baseline::{Gradual, GradualSchedule};
/// use burn_admm::{Masks, Plan};
/// use burn_sparse::Sparsity;
///
/// let mut model = TransformerEncoderConfig::new(16, 32, 1, 2).init(&Device::flex());
/// let plan = Plan::new(Sparsity::unstructured(0.9)?).resolve(&model)?;
/// let mut gradual = Gradual::new(GradualSchedule::new(0.0, 1, 100, 10)?, plan.clone());
/// for _ in 0..100 {
///     // ... forward, backward, optimiser step ...
///     let (stepped, _pruned) = gradual.step(model)?;
///     model = stepped;
/// }
/// assert_eq!(Masks::attached(&model).nnz(), plan.nnz());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gradual {
    schedule: GradualSchedule,
    plan: ResolvedPlan,
    step: u64,
}

impl Gradual {
    /// Before its first step.
    pub fn new(schedule: GradualSchedule, plan: ResolvedPlan) -> Self {
        Self {
            schedule,
            plan,
            step: 0,
        }
    }

    /// As after `step` steps: how a run is resumed.
    #[must_use]
    pub fn at_step(mut self, step: u64) -> Self {
        self.step = step;
        self
    }

    /// Optimiser steps counted so far.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// The schedule.
    pub fn schedule(&self) -> &GradualSchedule {
        &self.schedule
    }

    /// The plan with the budgets of a step.
    ///
    /// # Errors
    /// [`AdmmError::Projection`] if a budget does not fit, which a resolved plan rules out.
    pub fn plan_at(&self, step: u64) -> Result<ResolvedPlan, AdmmError> {
        let layers = self
            .plan
            .layers()
            .iter()
            .map(|layer| self.schedule.layer(step, layer));
        Ok(ResolvedPlan::new(layers.collect::<Result<_, _>>()?))
    }

    /// Counts an optimiser step; when the schedule says so, makes new masks from the present
    /// magnitudes and attaches them. Weights that are pruned stay so.
    ///
    /// Returns the model and, if it was pruned, the sparsity of the constrained weights.
    ///
    /// # Errors
    /// As [`Masks::project`] and [`Masks::attach`].
    pub fn step<M: Module>(&mut self, model: M) -> Result<(M, Option<f64>), AdmmError> {
        self.step += 1;
        if !self.schedule.prunes_at(self.step) {
            return Ok((model, None));
        }
        let plan = self.plan_at(self.step)?;
        let model = Masks::project(&model, &plan)?.attach(model)?;
        Ok((model, Some(plan.sparsity())))
    }
}
