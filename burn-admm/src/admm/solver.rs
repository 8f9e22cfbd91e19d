use std::collections::HashMap;

use burn::module::Module;

use burn_sparse::Sparsity;

use super::layer::Layer;
use super::set::Norms;
use super::{AdmmConfig, AdmmError, AdmmInfo, Divergence, LayerInfo, SetInfo};
use crate::params::{Weight, read};
use crate::plan::{Plan, ResolvedLayer, ResolvedPlan};
use crate::projection::ProjectionError;

/// One of the sets whose intersection is the constraint of a parameter, as [`Admm::sets`] shows it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct SetState<'a> {
    /// The set.
    pub sparsity: Sparsity,
    /// Its feasible copy of the weights, in storage order.
    pub z: &'a [f32],
    /// Its scaled dual, in storage order.
    pub u: &'a [f32],
}

/// ADMM over the constrained weights of a module.
///
/// Holds for each of them a feasible copy `Z` and a scaled dual `U`; for kernel patterns two of both,
/// one for the patterns and one for connectivity
/// ([`parts_of`](crate::projection::parts_of)). Training adds [`penalty`](Self::penalty) to its loss; every outer iteration ends with
/// [`update`](Self::update). See the [crate documentation](crate) for the algorithm and a complete
/// loop.
#[derive(Debug)]
pub struct Admm {
    pub(super) plan: ResolvedPlan,
    pub(super) config: AdmmConfig,
    pub(super) layers: Vec<Layer>,
    pub(super) index: HashMap<String, usize>,
    pub(super) rho: f64,
    pub(super) iteration: usize,
    pub(super) steps: u64,
}

impl Admm {
    /// Starts with `Z = Π(W)` and `U = 0`. The weights are copied, never aliased or changed.
    ///
    /// # Errors
    /// [`AdmmError::Config`] for settings out of range, [`AdmmError::Plan`] for a plan that does
    /// not fit the model, [`AdmmError::NothingConstrained`], [`AdmmError::Projection`] for
    /// non-finite weights, [`AdmmError::Read`] if a device fails.
    pub fn new<M: Module>(model: &M, plan: &Plan, config: AdmmConfig) -> Result<Self, AdmmError> {
        config.validate()?;
        let plan = plan.resolve(model)?;
        if plan.layers().is_empty() {
            return Err(AdmmError::NothingConstrained);
        }
        let layers = read_layers(model, plan.layers())?
            .into_iter()
            .zip(plan.layers())
            .map(|(weight, spec)| {
                Layer::new(spec.clone(), &weight.data)
                    .map_err(|source| projection_error(&spec.path, source))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self::of(plan, layers, config))
    }

    /// Levels on what is kept of each layer instead of sparsity.
    pub(crate) fn on_levels<M: Module>(
        model: &M,
        specs: Vec<ResolvedLayer>,
        keeps: Vec<Vec<bool>>,
        config: AdmmConfig,
    ) -> Result<Self, AdmmError> {
        config.validate()?;
        let layers = read_layers(model, &specs)?
            .into_iter()
            .zip(specs.iter().zip(&keeps))
            .map(|(weight, (spec, keep))| {
                Layer::on_levels(spec.clone(), keep, &weight.data)
                    .map_err(|source| projection_error(&spec.path, source))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self::of(ResolvedPlan::new(specs), layers, config))
    }

    /// Tucker ranks instead of sparsity.
    pub(crate) fn of_ranks<M: Module>(
        model: &M,
        specs: Vec<ResolvedLayer>,
        config: AdmmConfig,
    ) -> Result<Self, AdmmError> {
        config.validate()?;
        let layers = read_layers(model, &specs)?
            .into_iter()
            .zip(&specs)
            .map(|(weight, spec)| {
                Layer::of_ranks(spec.clone(), &weight.data)
                    .map_err(|source| projection_error(&spec.path, source))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self::of(ResolvedPlan::new(specs), layers, config))
    }

    fn of(plan: ResolvedPlan, layers: Vec<Layer>, config: AdmmConfig) -> Self {
        let paths = layers.iter().enumerate();
        let index = paths
            .map(|(i, layer)| (layer.spec.path.clone(), i))
            .collect();
        Self {
            plan,
            config,
            layers,
            index,
            rho: config.rho,
            iteration: 0,
            steps: 0,
        }
    }

    /// Ends an outer iteration: `Z ← Π(W + U)`, `U ← U + W − Z`, then rho by its schedule with
    /// `U ← U · rho / rho'`.
    ///
    /// # Errors
    /// [`AdmmError::Diverged`] for a non-finite weight or a dual that keeps growing,
    /// [`AdmmError::Model`] if a constrained parameter is gone or has another shape,
    /// [`AdmmError::Read`] if a device fails. Only after a growing dual has the state moved on;
    /// otherwise it is as before the call.
    pub fn update<M: Module>(&mut self, model: &M) -> Result<AdmmInfo, AdmmError> {
        let iteration = self.iteration + 1;
        let weights = read_layers(model, self.plan.layers())?;
        let mut next = Vec::with_capacity(weights.len());
        for (layer, weight) in self.layers.iter().zip(&weights) {
            if let Some(index) = weight.data.iter().position(|w| !w.is_finite()) {
                let value = weight.data[index];
                return Err(self.diverged(layer, Divergence::Weight { index, value }));
            }
            let of_sets = layer.sets.iter().map(|set| set.next_z(&weight.data));
            next.push(of_sets.collect::<Result<Vec<_>, _>>().map_err(|source| {
                match source {
                    // The weights are finite, so W + U has overflowed.
                    ProjectionError::NonFinite { .. } => self.diverged(
                        layer,
                        Divergence::GrowingDual {
                            ratio: f64::INFINITY,
                            limit: self.config.dual_limit,
                        },
                    ),
                    source => projection_error(&layer.spec.path, source),
                }
            })?);
        }

        let mut total = Norms::default();
        let mut infos = Vec::with_capacity(weights.len());
        for ((layer, weight), next) in self.layers.iter_mut().zip(&weights).zip(next) {
            let sets = layer.sets.iter_mut().zip(next).map(|(set, z)| {
                let norms = set.advance(&weight.data, z);
                total.add(norms);
                SetInfo {
                    sparsity: set.sparsity,
                    primal_residual: set.primal,
                    dual_residual: norms.relative(norms.dual),
                    dual_norm: set.dual_norm,
                    nnz: set.nnz,
                }
            });
            let sets = sets.collect();
            let spec = &layer.spec;
            infos.push(LayerInfo::new(&spec.path, spec.nnz, spec.weights(), sets));
        }
        self.iteration = iteration;
        let (primal, dual) = (total.relative(total.primal), total.relative(total.dual));
        let rho = self.rho;
        let next_rho = self.config.schedule.next(rho, primal, dual);

        let limit = self.config.dual_limit;
        let patience = self.config.dual_patience.max(1);
        let mut sets = self.layers.iter().flat_map(|layer| {
            let sets = layer.sets.iter();
            sets.map(move |set| (layer, set))
        });
        let growing = sets.find(|(_, set)| set.dual_norm > limit && set.growing >= patience);
        if let Some((layer, set)) = growing {
            return Err(AdmmError::Diverged {
                iteration,
                layer: layer.spec.path.clone(),
                residual: set.primal,
                cause: Divergence::GrowingDual {
                    ratio: set.dual_norm,
                    limit,
                },
            });
        }
        for layer in &mut self.layers {
            let sets = layer.sets.iter_mut();
            sets.for_each(|set| set.rescale(rho / next_rho));
        }
        self.rho = next_rho;
        Ok(AdmmInfo {
            iteration,
            rho,
            next_rho,
            primal_residual: primal,
            dual_residual: dual,
            sparsity: self.plan.sparsity(),
            layers: infos,
        })
    }

    /// Counts an optimiser step, and ends the outer iteration with [`update`](Self::update) after
    /// every `steps_per_iteration` of them. The count is saved with the state.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    ///
    /// # Panics
    /// If `steps_per_iteration` is zero.
    pub fn step<M: Module>(
        &mut self,
        model: &M,
        steps_per_iteration: usize,
    ) -> Result<Option<AdmmInfo>, AdmmError> {
        assert!(
            steps_per_iteration > 0,
            "an outer iteration needs at least one step, got 0"
        );
        self.steps += 1;
        if self.steps < steps_per_iteration as u64 {
            return Ok(None);
        }
        self.steps = 0;
        self.update(model).map(Some)
    }

    /// Checks the loss of a training step.
    ///
    /// # Errors
    /// [`AdmmError::Diverged`] if it is a NaN or an infinity, naming the layer whose primal
    /// residual was largest at the last update.
    pub fn check_loss(&self, loss: f64) -> Result<(), AdmmError> {
        match self
            .layers
            .iter()
            .max_by(|a, b| a.primal().total_cmp(&b.primal()))
        {
            Some(worst) if !loss.is_finite() => Err(self.diverged(worst, Divergence::Loss(loss))),
            _ => Ok(()),
        }
    }

    fn diverged(&self, layer: &Layer, cause: Divergence) -> AdmmError {
        AdmmError::Diverged {
            iteration: self.iteration + 1,
            layer: layer.spec.path.clone(),
            residual: layer.primal(),
            cause,
        }
    }

    /// The constrained parameters, with the pools of kernel patterns that this run was started with,
    /// also after [`restore`](Self::restore); [`Masks::project`](crate::Masks::project) takes it.
    pub fn plan(&self) -> &ResolvedPlan {
        &self.plan
    }

    /// The settings.
    pub fn config(&self) -> &AdmmConfig {
        &self.config
    }

    /// The rho of the current outer iteration.
    pub fn rho(&self) -> f64 {
        self.rho
    }

    /// Outer iterations done.
    pub fn iteration(&self) -> usize {
        self.iteration
    }

    /// Optimiser steps that [`step`](Self::step) has counted since the last update.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The feasible copy `Z` of a constrained parameter, in storage order. Of a constraint of several
    /// sets it is that of the first: the patterns of kernel patterns. [`sets`](Self::sets) has all.
    pub fn z(&self, path: &str) -> Option<&[f32]> {
        Some(self.sets(path)?.next()?.z)
    }

    /// The scaled dual `U` of a constrained parameter, in storage order; of a constraint of several
    /// sets that of the first, as [`z`](Self::z).
    pub fn u(&self, path: &str) -> Option<&[f32]> {
        Some(self.sets(path)?.next()?.u)
    }

    /// The sets whose intersection is the constraint of a parameter, each with its feasible copy and
    /// its dual, in the order of [`parts_of`](crate::projection::parts_of).
    pub fn sets(&self, path: &str) -> Option<impl ExactSizeIterator<Item = SetState<'_>>> {
        let layer = &self.layers[*self.index.get(path)?];
        Some(layer.sets.iter().map(|set| SetState {
            sparsity: set.sparsity,
            z: &set.z,
            u: &set.u,
        }))
    }
}

fn projection_error(path: &str, source: ProjectionError) -> AdmmError {
    AdmmError::Projection {
        path: path.to_owned(),
        source,
    }
}

/// Reads the constrained parameters of a model, in the order of `specs`.
pub(crate) fn read_layers<M: Module>(
    model: &M,
    specs: &[ResolvedLayer],
) -> Result<Vec<Weight>, AdmmError> {
    let wanted = by_path(specs);
    in_order(read(model, |path| wanted.contains_key(path))?, specs)
}

fn by_path(specs: &[ResolvedLayer]) -> HashMap<&str, usize> {
    let paths = specs.iter().map(|spec| spec.path.as_str());
    paths.enumerate().map(|(i, path)| (path, i)).collect()
}

/// Weights that were read, in the order of the layers that they are of.
pub(crate) fn in_order(
    read: Vec<Weight>,
    specs: &[ResolvedLayer],
) -> Result<Vec<Weight>, AdmmError> {
    let wanted = by_path(specs);
    let mut weights: Vec<Option<Weight>> = specs.iter().map(|_| None).collect();
    for weight in read {
        let slot = wanted[weight.path.as_str()];
        weights[slot] = Some(weight);
    }
    weights
        .into_iter()
        .zip(specs)
        .map(|(weight, spec)| match weight {
            Some(weight) if weight.shape == spec.shape => Ok(weight),
            other => Err(AdmmError::Model {
                path: spec.path.clone(),
                expected: spec.shape.clone(),
                found: other.map(|weight| weight.shape),
            }),
        })
        .collect()
}
