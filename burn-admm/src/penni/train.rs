use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{DType, Tensor};

use super::factors::{Factors, Layer};
use super::plan::Spec;
use super::{PenniConfig, PenniError, PenniPlan, Phase, SharedKernels};
use crate::admm::AdmmError;
use crate::params::{Position, flat, parameters};

/// Training of shared kernels, on any unmodified Burn module.
///
/// The factors `A` and `M` of every layer live here, beside the model, and the model's weights are always
/// their product. A training step takes the gradient of the product out of the optimiser's hands and turns
/// it into gradients of the factors, exactly:
///
/// ```text
/// ∂L/∂A = ∂L/∂W · Mᵀ + λ sign(A)        ∂L/∂M = Aᵀ · ∂L/∂W
/// ```
///
/// Any optimiser moves them. The factor that rests has no gradient at all, so neither its momentum
/// nor its weight decay moves it.
///
/// A mask on a weight that is shared would stand between it and its factors: [`fold`](crate::fold) the model
/// first. See the [module's page](super) for a complete loop.
#[derive(Debug)]
pub struct Penni {
    pub(super) config: PenniConfig,
    pub(super) layers: Vec<Layer>,
    pub(super) factors: Vec<Factors>,
    pub(super) index: HashMap<String, usize>,
    pub(super) phase: Phase,
    pub(super) epochs: usize,
}

impl Penni {
    /// Starts with the nearest weights of so few basis kernels, and with the coefficients'
    /// phase. The model is not changed: [`compose`](Self::compose) does that.
    ///
    /// # Errors
    /// [`PenniError::Config`] for settings out of range, [`PenniError::NothingShared`], and as
    /// [`PenniPlan::explain`].
    pub fn new<M: Module>(
        model: &M,
        plan: &PenniPlan,
        config: PenniConfig,
    ) -> Result<Self, PenniError> {
        config.validate()?;
        let resolved = plan.resolve(model)?;
        let specs: HashMap<&str, &Spec> = resolved
            .iter()
            .map(|(spec, _)| (spec.path.as_str(), spec))
            .collect();
        let devices: HashMap<String, _> = flat(model, |path| specs.contains_key(path))
            .into_iter()
            .map(|weight| (weight.path, weight.values.device().inner()))
            .collect();
        let (mut layers, mut factors) = (Vec::new(), Vec::new());
        for (spec, spectrum) in &resolved {
            let shared = spectrum.decompose(spec.kernels);
            let shared = shared.map_err(|source| PenniError::Layer {
                path: spec.path.clone(),
                source,
            })?;
            let ids = [ParamId::new(), ParamId::new()];
            factors.push(Factors::new(&shared, ids, &devices[&spec.path]));
            layers.push(Layer {
                spec: spec.clone(),
                pruned: None,
            });
        }
        let paths = layers.iter().enumerate();
        let index = paths
            .map(|(i, layer)| (layer.spec.path.clone(), i))
            .collect();
        Ok(Self {
            config,
            layers,
            factors,
            index,
            phase: Phase::Coefficients,
            epochs: 0,
        })
    }

    /// The settings.
    pub fn config(&self) -> &PenniConfig {
        &self.config
    }

    /// Which factor moves.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Epochs that [`end_epoch`](Self::end_epoch) has counted.
    pub fn epochs(&self) -> usize {
        self.epochs
    }

    /// Puts the products of the factors into the model. Parameter ids stay, and which of them train.
    ///
    /// # Errors
    /// [`AdmmError::Model`] if the model lacks a layer or has it in another shape.
    pub fn compose<M: Module>(&self, model: M) -> Result<M, PenniError> {
        self.check(&model)?;
        Ok(model.map(&mut Compose {
            penni: self,
            position: Position::default(),
        }))
    }

    /// Moves the factors by one step of the optimiser, and gives back the gradients of all other
    /// parameters. Step the model with those, by the same optimiser or another, then
    /// [`compose`](Self::compose) it.
    ///
    /// A layer without a gradient, one that is frozen in the model, stays as it is.
    ///
    /// # Errors
    /// As [`compose`](Self::compose).
    pub fn step<M: Module>(
        &mut self,
        model: &M,
        rate: f64,
        optimizer: &mut ModuleOptimizer,
        gradients: GradientsParams,
    ) -> Result<GradientsParams, PenniError> {
        self.check(model)?;
        let mut take = Take {
            penni: self,
            position: Position::default(),
            gradients,
            own: GradientsParams::new(),
        };
        model.visit(&mut take);
        let Take { gradients, own, .. } = take;
        let factors = std::mem::take(&mut self.factors);
        self.factors = optimizer.step(rate, factors, own);
        for (factors, layer) in self.factors.iter_mut().zip(&self.layers) {
            // Momentum of earlier steps would move what has been pruned since.
            if layer.pruned.is_some() {
                let coefficients = factors.coefficients.clone();
                factors.coefficients = coefficients
                    .map(|a| Tensor::from_inner(layer.masked(a.inner())).require_grad());
            }
        }
        Ok(gradients)
    }

    /// `λ Σ|A|` as it is now: what [`step`](Self::step) adds to the loss; 0 after pruning.
    ///
    /// # Errors
    /// [`AdmmError::Read`] if a device fails.
    pub fn penalty(&self) -> Result<f64, PenniError> {
        if self.phase == Phase::Tuning {
            return Ok(0.0);
        }
        let mut sum = 0.0;
        for (_, shared) in self.shared()? {
            sum += shared
                .coefficients()
                .iter()
                .map(|a| f64::from(a.abs()))
                .sum::<f64>();
        }
        Ok(self.config.lambda * sum)
    }

    /// Counts an epoch, and changes the factor that moves after every [`interval`](PenniConfig::interval)
    /// of them. Basis kernels are made orthonormal when they come to rest, so that the penalty weighs all
    /// coefficients alike; the weights stay what they are, up to rounding.
    ///
    /// # Errors
    /// [`PenniError::NonFinite`] where training has diverged, [`AdmmError::Read`] if a device fails.
    pub fn end_epoch(&mut self) -> Result<Phase, PenniError> {
        // A state file may claim any number of them.
        self.epochs = self.epochs.saturating_add(1);
        let change = self.epochs.is_multiple_of(self.config.interval);
        match self.phase {
            Phase::Coefficients if change => self.phase = Phase::Basis,
            Phase::Basis if change => {
                self.orthonormalise()?;
                self.phase = Phase::Coefficients;
            }
            _ => {}
        }
        Ok(self.phase)
    }

    /// The layers by path, in traversal order, with their factors as they are.
    ///
    /// # Errors
    /// [`AdmmError::Read`] if a device fails, [`PenniError::NonFinite`] where training has diverged.
    pub fn shared(&self) -> Result<Vec<(String, SharedKernels)>, PenniError> {
        let layers = self.layers.iter().zip(&self.factors);
        let shared = layers.map(|(layer, factors)| {
            let path = &layer.spec.path;
            let read = |tensor: Tensor<2>, factor| {
                let values = tensor.try_into_vec_as::<f32>();
                let values = values.map_err(|source| AdmmError::from((path.clone(), source)))?;
                match values.iter().find(|value| !value.is_finite()) {
                    None => Ok(values),
                    Some(&value) => Err(PenniError::NonFinite {
                        path: path.clone(),
                        factor,
                        value,
                    }),
                }
            };
            let coefficients = read(factors.a(), "coefficients")?;
            let basis = read(factors.m(), "basis kernels")?;
            let Spec { shape, kernels, .. } = layer.spec;
            match SharedKernels::new(shape, kernels, coefficients, basis) {
                Ok(shared) => Ok((path.clone(), shared)),
                Err(source) => Err(PenniError::Layer {
                    path: path.clone(),
                    source,
                }),
            }
        });
        shared.collect()
    }

    pub(super) fn orthonormalise(&mut self) -> Result<(), PenniError> {
        let shared = self.shared()?;
        for (index, (_, shared)) in shared.iter().enumerate() {
            if self.layers[index].has_basis() {
                self.set(index, &shared.orthonormal());
            }
        }
        Ok(())
    }

    /// Other factors for a layer, on the device of the old ones.
    pub(super) fn set(&mut self, index: usize, shared: &SharedKernels) {
        let factors = &mut self.factors[index];
        let device = factors.a().device();
        *factors = Factors::new(shared, factors.ids(), &device);
    }

    fn check<M: Module>(&self, model: &M) -> Result<(), PenniError> {
        let found = parameters(model);
        let shapes: HashMap<&str, &[usize]> = found.iter().map(|p| (&*p.path, &*p.shape)).collect();
        for Layer { spec, .. } in &self.layers {
            let shape = shapes.get(spec.path.as_str()).copied();
            if shape != Some(&spec.dims[..]) {
                return Err(PenniError::Weights(AdmmError::Model {
                    path: spec.path.clone(),
                    expected: spec.dims.clone(),
                    found: shape.map(<[usize]>::to_vec),
                }));
            }
        }
        Ok(())
    }
}

struct Compose<'a> {
    penni: &'a Penni,
    position: Position,
}

impl ModuleMapper for Compose<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.position.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.position.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(&index) = self.penni.index.get(&self.position.path()) else {
            return param;
        };
        let factors = &self.penni.factors[index];
        let product = factors.a().matmul(factors.m());
        param.map(|old| {
            let (device, dtype) = (old.device().inner(), old.dtype());
            let product = product.to_device(&device).reshape(old.dims()).cast(dtype);
            // A new leaf that trains as the old one did.
            let require_grad = old.is_require_grad();
            let weight = match old.is_autodiff() {
                true => Tensor::from_inner(product),
                false => product,
            };
            match require_grad {
                true => weight.require_grad(),
                false => weight,
            }
        })
    }
}

/// Takes the gradients of shared weights out, and turns them into those of their factors.
struct Take<'a> {
    penni: &'a Penni,
    position: Position,
    gradients: GradientsParams,
    own: GradientsParams,
}

impl ModuleVisitor for Take<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.position.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.position.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let penni = self.penni;
        let Some(&index) = penni.index.get(&self.position.path()) else {
            return;
        };
        let Some(gradient) = self.gradients.remove::<D>(param.id) else {
            return;
        };
        let (layer, factors) = (&penni.layers[index], &penni.factors[index]);
        let (a, m) = (factors.a(), factors.m());
        let dims = [a.dims()[0], m.dims()[1]];
        let gradient = gradient.cast(DType::F32).to_device(&a.device());
        let gradient = gradient.reshape(dims);
        // The weights of a 1×1 convolution are trained in every phase, as those of other layers are.
        if penni.phase.moves_coefficients() || !layer.has_basis() {
            let mut da = gradient.clone().matmul(m.transpose());
            if penni.phase != Phase::Tuning {
                da = da + a.clone().sign().mul_scalar(penni.config.lambda);
            }
            self.own.register(factors.coefficients.id, layer.masked(da));
        }
        if penni.phase.moves_basis() && layer.has_basis() {
            let dm = a.transpose().matmul(gradient);
            self.own.register(factors.basis.id, dm);
        }
    }
}
