use std::sync::{Mutex, PoisonError};

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::plan::ResolvedLayer;
use crate::projection::{Projected, Projection, ProjectionError};

/// A constrained parameter with its feasible copy and its scaled dual, in storage order.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) spec: ResolvedLayer,
    projection: Box<dyn Projection>,
    /// Always feasible.
    pub(super) z: Vec<f32>,
    pub(super) u: Vec<f32>,
    /// `Z − U` on each device that has asked for it, so that no step has to copy from the host.
    targets: Mutex<Vec<Tensor<1>>>,
    /// Primal residual of the last update.
    pub(super) primal: f64,
    /// `‖U‖ / ‖W‖` as the next update will find it.
    pub(super) dual_norm: f64,
    /// Updates in a row for which `‖U‖ / ‖W‖` has grown.
    pub(super) growing: usize,
}

/// Sums of squares of one update.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Norms {
    pub(super) w: f64,
    pub(super) primal: f64,
    pub(super) dual: f64,
    pub(super) u: f64,
}

impl Norms {
    pub(super) fn add(&mut self, other: Self) {
        self.w += other.w;
        self.primal += other.primal;
        self.dual += other.dual;
        self.u += other.u;
    }

    /// `sqrt(part) / sqrt(w)`, 0 where there is nothing to compare.
    pub(super) fn relative(&self, part: f64) -> f64 {
        if part == 0.0 {
            0.0
        } else {
            part.sqrt() / self.w.sqrt().max(f64::MIN_POSITIVE)
        }
    }
}

impl Layer {
    /// `Z = Π(W)`, `U = 0`.
    pub(super) fn new(spec: ResolvedLayer, weights: &[f32]) -> Result<Self, ProjectionError> {
        let projection = crate::projection::projection_of(spec.sparsity)?;
        let mut layer = Self {
            projection,
            z: Vec::new(),
            u: vec![0.0; weights.len()],
            targets: Mutex::new(Vec::new()),
            primal: 0.0,
            dual_norm: 0.0,
            growing: 0,
            spec,
        };
        layer.z = layer.project(weights)?;
        layer.primal = layer.norms(weights, &layer.z, &layer.z).relative_primal();
        Ok(layer)
    }

    fn project(&self, stored: &[f32]) -> Result<Vec<f32>, ProjectionError> {
        Ok(project(&*self.projection, &self.spec, stored)?.values)
    }

    fn norms(&self, w: &[f32], z: &[f32], z_prev: &[f32]) -> Norms {
        let mut norms = Norms::default();
        let square = |x: f64| x * x;
        for (((&w, &z), &z_prev), &u) in w.iter().zip(z).zip(z_prev).zip(&self.u) {
            let (w, z, z_prev) = (f64::from(w), f64::from(z), f64::from(z_prev));
            norms.w += square(w);
            norms.primal += square(w - z);
            norms.dual += square(z - z_prev);
            norms.u += square(f64::from(u));
        }
        norms
    }

    /// The next `Z = Π(W + U)` without taking it over.
    pub(super) fn next_z(&self, w: &[f32]) -> Result<Vec<f32>, ProjectionError> {
        let v: Vec<f32> = w.iter().zip(&self.u).map(|(w, u)| w + u).collect();
        self.project(&v)
    }

    /// Takes `Z` over and sets `U ← U + W − Z`.
    pub(super) fn advance(&mut self, w: &[f32], z: Vec<f32>) -> Norms {
        for ((u, &w), &z) in self.u.iter_mut().zip(w).zip(&z) {
            // (U + W) first: it is what was projected, so a kept entry leaves exactly zero.
            *u = (w + *u) - z;
        }
        let norms = self.norms(w, &z, &self.z);
        self.z = z;
        self.primal = norms.relative_primal();
        let dual_norm = norms.relative(norms.u);
        self.growing = if dual_norm > self.dual_norm {
            self.growing + 1
        } else {
            0
        };
        self.dual_norm = dual_norm;
        self.forget_target();
        norms
    }

    /// `U ← factor · U`, with `factor = rho / rho'`.
    pub(super) fn rescale(&mut self, factor: f64) {
        if factor != 1.0 {
            self.u
                .iter_mut()
                .for_each(|u| *u = (f64::from(*u) * factor) as f32);
            self.dual_norm *= factor;
            self.forget_target();
        }
    }

    pub(super) fn restore(&mut self, z: Vec<f32>, u: Vec<f32>) {
        self.z = z;
        self.u = u;
        self.forget_target();
    }

    fn forget_target(&mut self) {
        self.targets
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// `Z − U`, flat, in `dtype` on `device` (without autodiff), copied there once per update.
    pub(super) fn target(&self, device: &Device, dtype: DType) -> Tensor<1> {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let cached = targets
            .iter()
            .find(|t| t.device() == *device && t.dtype() == dtype);
        if let Some(target) = cached {
            return target.clone();
        }
        let data: Vec<f32> = self.z.iter().zip(&self.u).map(|(z, u)| z - u).collect();
        let len = data.len();
        let target = Tensor::from_data(TensorData::new(data, [len]), (device, dtype));
        targets.push(target.clone());
        target
    }
}

impl Norms {
    fn relative_primal(&self) -> f64 {
        self.relative(self.primal)
    }
}

/// Projects a weight in storage order; the result is in storage order too.
pub(crate) fn project(
    projection: &dyn Projection,
    spec: &ResolvedLayer,
    stored: &[f32],
) -> Result<Projected, ProjectionError> {
    let view = &spec.view;
    let rows = view.gather(stored);
    let projected = projection.project(&rows, view.shape())?;
    Ok(Projected {
        values: view.scatter(&projected.values),
        mask: view.scatter(&projected.mask),
    })
}
