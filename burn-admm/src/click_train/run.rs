use std::collections::HashMap;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use super::importance::importances;
use super::{ClickTrainConfig, ClickTrainError, Stage};
use crate::admm::AdmmError;
use crate::constant::{Constant, compute_dtype};
use crate::mask::{LayerMask, Masks};
use crate::params::{FlatWeight, flat};
use crate::plan::{Plan, ResolvedLayer, ResolvedPlan};
use crate::projection::{Preferences, ProjectionError, projection_of};

/// Keeps the norm of a kernel that is zero from having no gradient.
const SMALL: f64 = 1e-12;

/// A run that prunes while it trains; see the [module documentation](crate::click_train).
#[derive(Debug)]
pub struct ClickTrain {
    pub(super) plan: ResolvedPlan,
    config: ClickTrainConfig,
    index: HashMap<String, usize>,
    pub(super) layers: Vec<Layer>,
    pub(super) steps: u64,
}

/// What is known of a constrained parameter, in storage order.
#[derive(Debug, Default)]
pub(super) struct Layer {
    /// On the device of the parameter.
    pub(super) importance: Option<Tensor<1>>,
    /// What is dropped, once it is chosen.
    pub(super) dropped: Option<Vec<bool>>,
    on_devices: Constant,
}

impl Layer {
    pub(super) fn drop_these(&mut self, dropped: Vec<bool>) {
        self.dropped = Some(dropped);
        self.on_devices.forget();
    }
}

impl ClickTrain {
    /// Begins a run.
    ///
    /// # Errors
    /// [`ClickTrainError::Stages`] and [`Config`](ClickTrainError::Config) for settings out of range,
    /// [`Plan`](ClickTrainError::Plan) for a plan that does not fit the model,
    /// [`NothingConstrained`](ClickTrainError::NothingConstrained).
    pub fn new<M: Module>(
        model: &M,
        plan: &Plan,
        config: ClickTrainConfig,
    ) -> Result<Self, ClickTrainError> {
        config.validate()?;
        let plan = plan.resolve(model)?;
        if plan.layers().is_empty() {
            return Err(ClickTrainError::NothingConstrained);
        }
        let paths = plan.layers().iter().map(|layer| layer.path.clone());
        Ok(Self {
            index: paths.enumerate().map(|(i, path)| (path, i)).collect(),
            layers: plan.layers().iter().map(|_| Layer::default()).collect(),
            plan,
            config,
            steps: 0,
        })
    }

    /// Gathers importance from the gradients of a step, before the optimiser takes them; nothing after
    /// the warm-up. Parameters without a gradient in this step keep what they have.
    pub fn observe<M: Module>(&mut self, model: &M, gradients: &GradientsParams) {
        if self.stage() != Stage::WarmUp {
            return;
        }
        let slot = |path: &str| self.index.get(path).copied();
        for (slot, now) in importances(model, gradients, slot) {
            let importance = &mut self.layers[slot].importance;
            let now = now.mul_scalar(1.0 - self.config.decay);
            *importance = Some(match importance.take() {
                None => now,
                Some(before) => {
                    let before = before.to_device(&now.device());
                    before.mul_scalar(self.config.decay) + now
                }
            });
        }
    }

    /// `lambda Σ_k ‖W_k outside‖₂` over the kernels of all constrained parameters, to be added to the
    /// loss before `backward()`; `None` outside of the regularised stage. `W_k outside` is what the
    /// mask drops of kernel `k`: all of a kernel that goes. On 1×1 kernels and matrices a kernel is a
    /// weight.
    ///
    /// # Panics
    /// If the model has a constrained parameter in another shape, or lacks all of them.
    pub fn penalty<M: Module>(&self, model: &M) -> Option<Tensor<1>> {
        if self.stage() != Stage::Regularised {
            return None;
        }
        let mut sum: Option<(Tensor<1>, _)> = None;
        for FlatWeight {
            path,
            shape,
            values,
        } in flat(model, |path| self.index.contains_key(path))
        {
            let slot = self.index[&path];
            let spec = &self.plan.layers()[slot];
            assert_eq!(shape, spec.shape, "shape of parameter `{path}` has changed");
            let layer = &self.layers[slot];
            let Some(dropped) = &layer.dropped else {
                continue;
            };
            let (dtype, positions) = (values.dtype(), spec.view.shape().positions());
            let compute = compute_dtype(dtype);
            let outside = layer.on_devices.on(&values.device().inner(), compute, || {
                dropped.iter().map(|&d| f32::from(u8::from(d))).collect()
            });
            let outside = if values.is_autodiff() {
                Tensor::from_inner(outside)
            } else {
                outside
            };
            // The positions of a kernel are neighbours in every layout of weights.
            let kernels = (values.cast(compute) * outside).reshape([-1, positions as i32]);
            let squares: Tensor<2> = kernels.square().sum_dim(1);
            let term = squares.add_scalar(SMALL).sqrt().sum();
            sum = Some(match sum {
                None => (term, dtype),
                Some((sum, dtype)) => {
                    let term = term.to_device(&sum.device()).cast(sum.dtype());
                    (sum + term, dtype)
                }
            });
        }
        let (sum, dtype) = sum.expect("the model has constrained parameters");
        Some(sum.mul_scalar(self.config.lambda).cast(dtype))
    }

    /// Ends a step, after the optimiser: chooses the masks when the warm-up is over, and attaches them
    /// when the regularised stage is. An optimiser with momentum may go on; the masks hold.
    ///
    /// # Errors
    /// [`ClickTrainError::Unobserved`] for a layer without importance,
    /// [`Weights`](ClickTrainError::Weights) for importances that are not finite, a model that lacks a
    /// constrained parameter, or a device that fails.
    pub fn step<M: Module>(&mut self, model: M) -> Result<M, ClickTrainError> {
        self.steps += 1;
        if self.steps == self.config.patterns_at {
            self.choose()?;
        }
        if self.steps == self.config.prune_at {
            return Ok(self.masks()?.attach(model)?);
        }
        Ok(model)
    }

    /// Of each layer the mask that keeps most importance.
    fn choose(&mut self) -> Result<(), ClickTrainError> {
        let mut roots = Vec::with_capacity(self.layers.len());
        for (spec, layer) in self.plan.layers().iter().zip(&self.layers) {
            roots.push(spec.view.gather(&root_importance(spec, layer)?));
        }
        // Patterns are found by what is important, not by the weights that the run began with.
        let mut specs = self.plan.layers().to_vec();
        let mut counts: Vec<usize> = specs.iter().filter_map(|spec| spec.patterns).collect();
        counts.sort_unstable();
        counts.dedup();
        for patterns in counts {
            let mut preferences = Preferences::default();
            let of_these = |spec: &ResolvedLayer| spec.patterns == Some(patterns);
            for (_, root) in specs.iter().zip(&roots).filter(|(spec, _)| of_these(spec)) {
                preferences.add(root);
            }
            let pool = preferences.pool(patterns).map_err(|source| {
                let path = specs.iter().find(|spec| of_these(spec));
                weights(&path.expect("asked for by one").path, source.into())
            })?;
            specs
                .iter_mut()
                .filter(|spec| of_these(spec))
                .for_each(|spec| spec.set_pool(pool));
        }
        for ((spec, root), layer) in specs.iter().zip(&roots).zip(&mut self.layers) {
            let kept = projection_of(spec.sparsity)
                .and_then(|projection| projection.project(root, spec.view.shape()))
                .map_err(|source| weights(&spec.path, source))?;
            let dropped: Vec<bool> = kept.mask.iter().map(|keep| !keep).collect();
            layer.drop_these(spec.view.scatter(&dropped));
        }
        self.plan = ResolvedPlan::new(specs);
        Ok(())
    }

    /// The masks that were chosen.
    ///
    /// # Errors
    /// [`ClickTrainError::Unobserved`] before the end of the warm-up.
    pub fn masks(&self) -> Result<Masks, ClickTrainError> {
        let layers = self.plan.layers().iter().zip(&self.layers);
        let masks = layers.map(|(spec, layer)| match &layer.dropped {
            None => Err(ClickTrainError::Unobserved(spec.path.clone())),
            Some(dropped) => Ok(LayerMask {
                path: spec.path.clone(),
                shape: spec.shape.clone(),
                keep: dropped.iter().map(|dropped| !dropped).collect(),
            }),
        });
        Ok(Masks::within(
            masks.collect::<Result<_, _>>()?,
            &Masks::default(),
        ))
    }

    /// Where the run is.
    pub fn stage(&self) -> Stage {
        self.config.stage(self.steps)
    }

    /// Steps done.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The constrained parameters; from the end of the warm-up on with the patterns found then.
    pub fn plan(&self) -> &ResolvedPlan {
        &self.plan
    }

    /// The settings.
    pub fn config(&self) -> &ClickTrainConfig {
        &self.config
    }
}

/// `√I` of each weight: what is projected like weights keeps what is most important.
fn root_importance(spec: &ResolvedLayer, layer: &Layer) -> Result<Vec<f32>, ClickTrainError> {
    let Some(importance) = &layer.importance else {
        return Err(ClickTrainError::Unobserved(spec.path.clone()));
    };
    let values = importance.clone().sqrt().try_into_vec_as::<f32>();
    values.map_err(|source| ClickTrainError::Weights(AdmmError::from((spec.path.clone(), source))))
}

fn weights(path: &str, source: ProjectionError) -> ClickTrainError {
    let path = path.to_owned();
    AdmmError::Projection { path, source }.into()
}
