use std::collections::HashMap;

use burn::module::{Module, ModuleVisitor, Param, Reparameterization, Reparameterizer};
use burn::tensor::{Bool, Tensor};

use super::Mask;
use crate::admm::{AdmmError, project, read_layers};
use crate::evolve::LiveMask;
use crate::params::{Position, parameters};
use crate::plan::ResolvedPlan;
use crate::projection::projection_of;
use crate::quantize::OnLevels;

/// The mask of one parameter, on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerMask {
    /// Dotted path of the parameter.
    pub path: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// `true` where the weight is kept, in storage order.
    pub keep: Vec<bool>,
}

impl LayerMask {
    /// Weights kept.
    pub fn nnz(&self) -> usize {
        self.keep.iter().filter(|&&keep| keep).count()
    }
}

/// The masks of a model.
///
/// # Example
/// ```
/// use burn::module::Module;
/// use burn::nn::transformer::TransformerEncoderConfig;
/// use burn::tensor::Device;
/// use burn_admm::{Masks, Plan, SparsityReport, fold};
/// use burn_sparse::Sparsity;
///
/// let device = Device::flex().autodiff();
/// let model = TransformerEncoderConfig::new(16, 32, 2, 2).init(&device);
/// let plan = Plan::new(Sparsity::row_balanced(0.75)?).resolve(&model)?;
///
/// // Masks come from the projection, so a kept weight that happens to be zero stays trainable.
/// let masks = Masks::project(&model, &plan)?;
/// let model = masks.attach(model)?;
/// // ... retrain with a fresh optimiser: pruned weights stay exactly zero ...
/// let model = fold(model);
/// let report = SparsityReport::new(&model)?;
/// assert_eq!(report.layer("layers.0.mha.query.weight").unwrap().nnz, 16 * 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Masks {
    layers: Vec<LayerMask>,
}

impl Masks {
    /// Projects the effective weights of `model` (masks it already has applied) onto the plan's
    /// constraints and takes the masks of the projections. The model is not changed.
    ///
    /// What an attached mask has pruned stays pruned: constraints that keep whole groups would keep
    /// such zeros too, and let them train again. So stages add up, and the zeros of the first hold
    /// through the second; [`fold`] the model before if they are to compete anew.
    ///
    /// ```
    /// # use burn::{module::Module, nn::transformer::TransformerEncoderConfig, tensor::Device};
    /// # use burn_admm::{Masks, Plan};
    /// use burn_sparse::{BlockSearch, Budget, Sparsity};
    ///
    /// # let device = Device::flex();
    /// # let model = TransformerEncoderConfig::new(16, 32, 2, 1).init(&device);
    /// // RTMobile's two steps (Dong et al., DAC 2020): columns of blocks, then whole rows of what is
    /// // left. Each would be trained under ADMM, and retrained.
    /// let columns = Sparsity::BlockColumnRow {
    ///     block: [8, 8],
    ///     rows: Budget::Sparsity(0.0), // all rows
    ///     budget: Budget::Sparsity(0.5),
    ///     search: BlockSearch::Sequential,
    /// };
    /// let columns = Plan::new(columns).resolve(&model)?;
    /// let model = Masks::project(&model, &columns)?.attach(model)?;
    /// let rows = Plan::new(Sparsity::filter(0.75)?).resolve(&model)?;
    /// let both = Masks::project(&model, &rows)?;
    /// assert_eq!(both.nnz(), columns.nnz() / 4);
    /// let model = both.attach(model)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`AdmmError::Model`] if the plan was resolved for another model,
    /// [`AdmmError::Projection`] for non-finite weights, [`AdmmError::Read`] if a device fails.
    ///
    /// # Panics
    /// If a mask cannot be read from its device.
    pub fn project<M: Module>(model: &M, plan: &ResolvedPlan) -> Result<Self, AdmmError> {
        let weights = read_layers(model, plan.layers())?;
        let layers = plan.layers().iter().zip(weights).map(|(spec, weight)| {
            let error = |source| AdmmError::Projection {
                path: spec.path.clone(),
                source,
            };
            let projection = projection_of(spec.sparsity).map_err(error)?;
            let keep = project(&*projection, &spec.view, &weight.data)
                .map_err(error)?
                .mask;
            Ok(LayerMask {
                path: spec.path.clone(),
                shape: spec.shape.clone(),
                keep,
            })
        });
        let layers = layers.collect::<Result<_, AdmmError>>()?;
        Ok(Self::within(layers, &Self::attached(model)))
    }

    /// These, where earlier masks keep the weight too.
    pub(crate) fn within(mut layers: Vec<LayerMask>, earlier: &Self) -> Self {
        for layer in &mut layers {
            if let Some(earlier) = earlier.layer(&layer.path) {
                let pairs = layer.keep.iter_mut().zip(&earlier.keep);
                pairs.for_each(|(keep, &earlier)| *keep &= earlier);
            }
        }
        Self { layers }
    }

    /// Masks that keep everything: attached to a fresh model, they give it the structure that a
    /// saved masked model's record loads into.
    ///
    /// ```
    /// # use burn::{module::Module, nn::transformer::TransformerEncoderConfig, tensor::Device};
    /// # use burn_admm::{Masks, Plan};
    /// # use burn_sparse::Sparsity;
    /// # let device = Device::flex();
    /// # let plan = Plan::new(Sparsity::row_balanced(0.75)?);
    /// # let init = || TransformerEncoderConfig::new(16, 32, 2, 1).init(&device);
    /// # let model = init();
    /// # let plan = plan.resolve(&model)?;
    /// # let masked = Masks::project(&model, &plan)?.attach(model)?;
    /// let record = masked.clone().into_record();
    /// // ... in another process ...
    /// let fresh = init();
    /// let restored = Masks::keep_all(&plan).attach(fresh)?.load_record(record);
    /// assert_eq!(Masks::attached(&restored), Masks::attached(&masked));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn keep_all(plan: &ResolvedPlan) -> Self {
        let layers = plan.layers().iter().map(|spec| LayerMask {
            path: spec.path.clone(),
            shape: spec.shape.clone(),
            keep: vec![true; spec.weights()],
        });
        Self {
            layers: layers.collect(),
        }
    }

    /// The masks that are attached to `model`.
    ///
    /// # Panics
    /// If a mask cannot be read from its device.
    pub fn attached<M: Module>(model: &M) -> Self {
        let mut read = ReadMasks::default();
        model.visit(&mut read);
        Self {
            layers: read.layers,
        }
    }

    /// The masks, in traversal order.
    pub fn layers(&self) -> &[LayerMask] {
        &self.layers
    }

    /// The mask of the parameter of this path.
    pub fn layer(&self, path: &str) -> Option<&LayerMask> {
        self.layers.iter().find(|layer| layer.path == path)
    }

    /// Weights kept, over all masks.
    pub fn nnz(&self) -> usize {
        self.layers.iter().map(LayerMask::nnz).sum()
    }

    /// Attaches the masks and sets the pruned weights of the stored parameters to zero too.
    /// Whatever reparameterization the model has already is folded first: masks are replaced.
    ///
    /// Parameter ids stay, but an optimiser that has trained the dense model keeps momentum for
    /// pruned weights: start masked retraining with a fresh one.
    ///
    /// # Errors
    /// [`AdmmError::Model`] if the model lacks a masked parameter or has it in another shape.
    pub fn attach<M: Module>(&self, model: M) -> Result<M, AdmmError> {
        self.attach_beside(fold(model))
    }

    /// Attaches the masks and leaves what other parameters have.
    pub(crate) fn attach_beside<M: Module>(&self, model: M) -> Result<M, AdmmError> {
        self.check(&model)?;
        let by_path = self
            .layers
            .iter()
            .map(|layer| (layer.path.as_str(), layer))
            .collect();
        Ok(model.apply_reparameterization(Attach { by_path }))
    }

    /// That a model has all masked parameters, in their shapes.
    pub(crate) fn check<M: Module>(&self, model: &M) -> Result<(), AdmmError> {
        let shapes: HashMap<String, Vec<usize>> = parameters(model)
            .into_iter()
            .map(|p| (p.path, p.shape))
            .collect();
        for layer in &self.layers {
            let found = shapes.get(&layer.path);
            if found != Some(&layer.shape) {
                return Err(AdmmError::Model {
                    path: layer.path.clone(),
                    expected: layer.shape.clone(),
                    found: found.cloned(),
                });
            }
        }
        Ok(())
    }

    /// The same as the free function [`fold`], for symmetry with [`attach`](Self::attach).
    pub fn fold<M: Module>(&self, model: M) -> M {
        fold(model)
    }
}

/// Writes the effective weights back into the parameters and drops the masks (and any other
/// reparameterization): pruned weights become exact zeros, parameter ids stay.
///
/// Fold before inference, packing and timing; a masked parameter is computed anew at every use.
pub fn fold<M: Module>(model: M) -> M {
    model.materialize()
}

struct Attach<'a> {
    by_path: HashMap<&'a str, &'a LayerMask>,
}

impl Reparameterizer for Attach<'_> {
    type Reparam = Mask;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<Mask>) {
        let Some(layer) = self.by_path.get(path) else {
            return (param, None);
        };
        let mask = Mask::new(&layer.keep, &param.lazy_device());
        let param = param.map(|weight| {
            // A new leaf that trains as the old one did.
            let require_grad = weight.is_require_grad();
            let weight = mask.apply_to(weight).detach();
            if require_grad {
                weight.require_grad()
            } else {
                weight
            }
        });
        (param, Some(mask))
    }
}

#[derive(Default)]
struct ReadMasks {
    position: Position,
    shape: Vec<usize>,
    layers: Vec<LayerMask>,
}

impl ModuleVisitor for ReadMasks {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.position.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.position.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // A mask is visited right after the parameter that it is attached to.
        if !self.position.inside_reparameterization() {
            self.shape = param.dims().to_vec();
        }
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        let names = self.position.names();
        let masked = names.len() >= 2 && names[names.len() - 2] == Mask::NAME;
        if !(self.position.inside_reparameterization() && masked) {
            return;
        }
        let mut owner = &names[..names.len() - 2];
        // A mask may be part of the levels of its parameter, or change with every batch.
        if let [parameter @ .., last] = owner
            && (last == OnLevels::NAME || last == LiveMask::NAME)
        {
            owner = parameter;
        }
        let path = owner.join(".");
        let pruned = param.val().into_data();
        let keep = pruned.iter::<bool>().map(|pruned| !pruned).collect();
        self.layers.push(LayerMask {
            path,
            shape: self.shape.clone(),
            keep,
        });
    }
}
