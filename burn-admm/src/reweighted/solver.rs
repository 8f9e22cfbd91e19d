use std::collections::HashMap;

use burn::module::Module;
use burn::tensor::Tensor;

use super::families::{above, coefficients, families, overlap};
use super::{ReweightedConfig, ReweightedError, Threshold};
use crate::admm::{AdmmError, read_layers};
use crate::constant::{Constant, compute_dtype};
use crate::mask::{LayerMask, Masks};
use crate::params::{FlatWeight, Weight, flat};
use crate::plan::{Plan, ResolvedLayer, ResolvedPlan};
use crate::projection::ProjectionError;

/// Reweighted regularisation of the groups of a module's weights; see the
/// [module documentation](crate::reweighted).
#[derive(Debug)]
pub struct Reweighted {
    pub(super) plan: ResolvedPlan,
    config: ReweightedConfig,
    pub(super) layers: Vec<Layer>,
    index: HashMap<String, usize>,
    pub(super) refreshes: u64,
}

/// The coefficients of a weight, in storage order.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) coefficients: Vec<f32>,
    on_devices: Constant,
}

impl Layer {
    pub(super) fn new(coefficients: Vec<f32>) -> Self {
        Self {
            coefficients,
            on_devices: Constant::default(),
        }
    }
}

impl Reweighted {
    /// Starts with coefficients from the weights as they are. The plan says which parameters have
    /// which pattern; its budgets are not used.
    ///
    /// # Errors
    /// [`ReweightedError::Config`] for settings out of range, [`ReweightedError::Unstable`] if
    /// epsilon is too small for the learning rate, [`ReweightedError::Plan`] for a plan that does not
    /// fit the model, [`ReweightedError::NothingConstrained`], [`ReweightedError::NoGroups`] for
    /// patterns without groups, [`ReweightedError::Weights`] for non-finite weights or if a device
    /// fails.
    pub fn new<M: Module>(
        model: &M,
        plan: &Plan,
        config: ReweightedConfig,
    ) -> Result<Self, ReweightedError> {
        config.validate()?;
        let plan = plan.resolve(model)?;
        if plan.layers().is_empty() {
            return Err(ReweightedError::NothingConstrained);
        }
        for layer in plan.layers() {
            let Some(groups) = overlap(layer.sparsity) else {
                return Err(ReweightedError::NoGroups {
                    path: layer.path.clone(),
                    scheme: layer.sparsity.name(),
                });
            };
            let least = config.least_epsilon(groups);
            if config.epsilon < least {
                return Err(ReweightedError::Unstable {
                    path: layer.path.clone(),
                    lambda: config.lambda,
                    learning_rate: config.learning_rate,
                    epsilon: config.epsilon,
                    least,
                });
            }
        }
        let paths = plan.layers().iter().map(|layer| layer.path.clone());
        let index = paths.enumerate().map(|(i, path)| (path, i)).collect();
        let mut reweighted = Self {
            plan,
            config,
            layers: Vec::new(),
            index,
            refreshes: 0,
        };
        reweighted.layers = reweighted.fresh(model)?;
        Ok(reweighted)
    }

    /// `lambda Σ_g alpha_g ‖W_g‖²` over the groups of all constrained parameters: a tensor of one
    /// element on the model's device, to be added to the loss before `backward()`.
    ///
    /// The coefficients `alpha` are constants between refreshes, the norms are not: the gradient of a
    /// weight is `2 lambda w Σ alpha` over its groups. Computed in f32 (f64 for f64 weights) and
    /// returned in the dtype of the first constrained parameter.
    ///
    /// # Panics
    /// If the model lacks a constrained parameter or has it in another shape.
    pub fn penalty<M: Module>(&self, model: &M) -> Tensor<1> {
        let weights = flat(model, |path| self.index.contains_key(path));
        assert_eq!(
            weights.len(),
            self.layers.len(),
            "the model has {} of the {} constrained parameters",
            weights.len(),
            self.layers.len()
        );
        let dtype = weights[0].values.dtype();
        let mut sum: Option<Tensor<1>> = None;
        for FlatWeight {
            path,
            shape,
            values,
        } in weights
        {
            let slot = self.index[&path];
            assert_eq!(
                shape,
                self.plan.layers()[slot].shape,
                "shape of parameter `{path}` has changed"
            );
            let compute = compute_dtype(values.dtype());
            let layer = &self.layers[slot];
            let coefficients = layer.on_devices.on(&values.device().inner(), compute, || {
                layer.coefficients.clone()
            });
            let coefficients = if values.is_autodiff() {
                Tensor::from_inner(coefficients)
            } else {
                coefficients
            };
            let values = values.cast(compute);
            let term = (values.clone() * values * coefficients).sum();
            sum = Some(match sum {
                None => term,
                // The first layer's device and precision decide where the sum is formed.
                Some(sum) => {
                    let term = term.to_device(&sum.device()).cast(sum.dtype());
                    sum + term
                }
            });
        }
        let sum = sum.expect("at least one layer");
        sum.mul_scalar(self.config.lambda).cast(dtype)
    }

    /// Computes the coefficients anew from the weights as they are now. Published schedules refresh
    /// every 10 to 25 epochs.
    ///
    /// # Errors
    /// [`ReweightedError::Weights`] for non-finite weights, if a constrained parameter is gone or
    /// has another shape, or if a device fails. The coefficients are then as before the call.
    pub fn refresh<M: Module>(&mut self, model: &M) -> Result<(), ReweightedError> {
        self.layers = self.fresh(model)?;
        self.refreshes += 1;
        Ok(())
    }

    fn fresh<M: Module>(&self, model: &M) -> Result<Vec<Layer>, ReweightedError> {
        let of_layer = |(spec, weight): (&ResolvedLayer, Vec<f32>)| {
            let families = families(spec.sparsity, spec.view.shape(), &weight);
            let coefficients = coefficients(&families, &weight, self.config.epsilon);
            Layer::new(spec.view.scatter(&coefficients))
        };
        let weights = self.weights(model)?;
        Ok(self
            .plan
            .layers()
            .iter()
            .zip(weights)
            .map(of_layer)
            .collect())
    }

    /// Masks without the groups that have become small: the rates of all layers follow from one
    /// threshold. Kernels that stay keep their best pattern, blocks the rows and columns that both
    /// stay. What an attached mask has pruned stays pruned.
    ///
    /// # Errors
    /// [`ReweightedError::Empties`] for a layer without a group that is large enough, unless the
    /// threshold keeps one; [`ReweightedError::Weights`] as [`refresh`](Self::refresh).
    ///
    /// # Panics
    /// If an attached mask cannot be read from its device.
    pub fn prune<M: Module>(
        &self,
        model: &M,
        threshold: Threshold,
    ) -> Result<Masks, ReweightedError> {
        let weights = self.weights(model)?;
        let layers = self
            .plan
            .layers()
            .iter()
            .zip(weights)
            .map(|(spec, weight)| {
                let families = families(spec.sparsity, spec.view.shape(), &weight);
                let (tau, keep_one) = (threshold.tau(), threshold.keeps_one());
                let keep = above(&families, &weight, tau, keep_one);
                if !keep.contains(&true) {
                    let path = spec.path.clone();
                    return Err(ReweightedError::Empties { path, tau });
                }
                Ok(LayerMask {
                    path: spec.path.clone(),
                    shape: spec.shape.clone(),
                    keep: spec.view.scatter(&keep),
                })
            });
        let layers = layers.collect::<Result<_, _>>()?;
        Ok(Masks::within(layers, &Masks::attached(model)))
    }

    /// The constrained weights, finite and row after row.
    fn weights<M: Module>(&self, model: &M) -> Result<Vec<Vec<f32>>, ReweightedError> {
        let rows = |(spec, Weight { path, data, .. }): (&ResolvedLayer, Weight)| {
            if let Some(index) = data.iter().position(|w| !w.is_finite()) {
                let value = data[index];
                let source = ProjectionError::NonFinite { index, value };
                return Err(AdmmError::Projection { path, source }.into());
            }
            Ok(spec.view.gather(&data))
        };
        let weights = read_layers(model, self.plan.layers())?;
        self.plan.layers().iter().zip(weights).map(rows).collect()
    }

    /// The constrained parameters, with the pools of kernel patterns that were found at the start.
    pub fn plan(&self) -> &ResolvedPlan {
        &self.plan
    }

    /// The settings.
    pub fn config(&self) -> &ReweightedConfig {
        &self.config
    }

    /// Refreshes done.
    pub fn refreshes(&self) -> u64 {
        self.refreshes
    }

    /// `Σ alpha` over the groups of each weight of a constrained parameter, in storage order.
    pub fn coefficients(&self, path: &str) -> Option<&[f32]> {
        let layer = &self.layers[*self.index.get(path)?];
        Some(&layer.coefficients)
    }
}
