use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor};
use burn_sparse::Sparsity;

use super::layer::project;
use crate::MatrixView;
use crate::constant::Constant;
use crate::plan::ResolvedLayer;
use crate::projection::{Projection, ProjectionError, projection_of};

/// A constraint set with the feasible copy and the scaled dual that it has of a parameter, in
/// storage order.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) sparsity: Sparsity,
    /// Weights that `Z` may keep.
    pub(super) nnz: usize,
    projection: Arc<dyn Projection>,
    view: MatrixView,
    /// Always feasible.
    pub(super) z: Vec<f32>,
    pub(super) u: Vec<f32>,
    /// `Z − U`.
    target: Constant,
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

impl Set {
    /// With `Z = 0` and no dual. `sparsity` is one of the parts of the constraint of `spec`.
    pub(super) fn new(spec: &ResolvedLayer, sparsity: Sparsity) -> Result<Self, ProjectionError> {
        Self::with(spec, sparsity, projection_of(sparsity)?.into())
    }

    /// With another projection than that of `sparsity`, which then only says what is kept.
    pub(super) fn with(
        spec: &ResolvedLayer,
        sparsity: Sparsity,
        projection: Arc<dyn Projection>,
    ) -> Result<Self, ProjectionError> {
        Ok(Self {
            sparsity,
            nnz: sparsity.nnz(spec.view.shape())?,
            projection,
            view: spec.view,
            z: Vec::new(),
            u: vec![0.0; spec.weights()],
            target: Constant::default(),
            primal: 0.0,
            dual_norm: 0.0,
            growing: 0,
        })
    }

    /// The same set with nothing in it yet.
    pub(super) fn emptied(&self, spec: &ResolvedLayer) -> Result<Self, ProjectionError> {
        Self::with(spec, self.sparsity, self.projection.clone())
    }

    /// `Z = Π(W)`.
    pub(super) fn start(mut self, weights: &[f32]) -> Result<Self, ProjectionError> {
        self.z = self.project(weights)?;
        let norms = self.norms(weights, &self.z, &self.z);
        self.primal = norms.relative(norms.primal);
        Ok(self)
    }

    /// `Z` and `U` as they were saved, if `Z` is feasible.
    pub(super) fn restored(mut self, z: Vec<f32>, u: Vec<f32>) -> Option<Self> {
        let feasible = self.project(&z).is_ok_and(|nearest| nearest == z);
        (self.z, self.u) = (z, u);
        feasible.then_some(self)
    }

    fn project(&self, stored: &[f32]) -> Result<Vec<f32>, ProjectionError> {
        Ok(project(&*self.projection, &self.view, stored)?.values)
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
        self.primal = norms.relative(norms.primal);
        let dual_norm = norms.relative(norms.u);
        self.growing = if dual_norm > self.dual_norm {
            self.growing + 1
        } else {
            0
        };
        self.dual_norm = dual_norm;
        self.target.forget();
        norms
    }

    /// `U ← factor · U`, with `factor = rho / rho'`.
    pub(super) fn rescale(&mut self, factor: f64) {
        if factor != 1.0 {
            self.u
                .iter_mut()
                .for_each(|u| *u = (f64::from(*u) * factor) as f32);
            self.dual_norm *= factor;
            self.target.forget();
        }
    }

    /// `Z − U`, flat, in `dtype` on `device` (without autodiff), copied there once per update.
    pub(super) fn target(&self, device: &Device, dtype: DType) -> Tensor<1> {
        self.target.on(device, dtype, || {
            self.z.iter().zip(&self.u).map(|(z, u)| z - u).collect()
        })
    }
}
