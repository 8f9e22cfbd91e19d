//! Small coefficients become zero, and stay it.

use std::fmt;

use serde::Serialize;

use super::factors::Layer;
use super::{Penni, PenniError, Phase, SharedKernels};
use crate::admm::AdmmError;
use crate::shrink::ShrinkPlan;
use crate::table::Table;

/// What is left of a layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SharedLayer {
    /// Path of the weight.
    pub path: String,
    /// Output channels, input channels, height and width of the kernel.
    pub shape: [usize; 4],
    /// Basis kernels.
    pub kernels: usize,
    /// Those that some coefficient uses.
    pub used: usize,
    /// Coefficients.
    pub coefficients: usize,
    /// Those that are not zero.
    pub nnz: usize,
    /// Coefficients that are not zero, and entries of the kernels in use.
    pub parameters: usize,
    /// Multiply-adds for each output position: each kernel in use on each of its channels, then the
    /// coefficients.
    pub macs: usize,
}

impl SharedLayer {
    /// Counts what there is.
    pub fn of(path: impl Into<String>, shared: &SharedKernels) -> Self {
        let shape = shared.shape();
        Self {
            path: path.into(),
            shape: [shape.rows, shape.channels, shape.kernel[0], shape.kernel[1]],
            kernels: shared.count(),
            used: shared.used(),
            coefficients: shared.coefficients().len(),
            nnz: shared.nnz(),
            parameters: shared.parameters(),
            macs: shared.macs(),
        }
    }

    /// Weights of the layer as it was.
    pub fn weights(&self) -> usize {
        self.shape.iter().product()
    }
}

/// What is left of every layer that shares kernels; prints as a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SharedReport {
    /// In traversal order.
    pub layers: Vec<SharedLayer>,
}

impl SharedReport {
    /// Of layers by path, such as [`Penni::shared`] and [`Penni::shrunk`] give them.
    pub fn new(shared: &[(String, SharedKernels)]) -> Self {
        let layers = shared
            .iter()
            .map(|(path, shared)| SharedLayer::of(path, shared));
        Self {
            layers: layers.collect(),
        }
    }

    /// The layer of this path.
    pub fn layer(&self, path: &str) -> Option<&SharedLayer> {
        self.layers.iter().find(|layer| layer.path == path)
    }

    /// The part of all coefficients that is zero.
    pub fn sparsity(&self) -> f64 {
        let sum = |of: fn(&SharedLayer) -> usize| self.layers.iter().map(of).sum::<usize>();
        match sum(|layer| layer.coefficients) {
            0 => 0.0,
            all => 1.0 - sum(|layer| layer.nnz) as f64 / all as f64,
        }
    }

    /// Weights of these layers, dense and shared.
    pub fn parameters(&self) -> [usize; 2] {
        let pairs = self.layers.iter().map(|l| [l.weights(), l.parameters]);
        pairs.fold([0, 0], |sum, pair| [sum[0] + pair[0], sum[1] + pair[1]])
    }
}

impl Penni {
    /// Makes basis kernels orthonormal, sets every coefficient below `t` standard deviations of those of
    /// its layer to zero, and goes on to [`Phase::Tuning`]: zeros stay, both factors move. Start it with a
    /// fresh optimiser, and [`compose`](Self::compose) the model.
    ///
    /// Called again, it prunes what has become small since, of what is left; basis kernels then stay as they
    /// are, because turning them would mix zeros with other coefficients.
    ///
    /// # Errors
    /// [`PenniError::NonFinite`] where training has diverged,
    /// [`AdmmError::Read`] if a device fails.
    pub fn prune(&mut self) -> Result<SharedReport, PenniError> {
        if self.phase != Phase::Tuning {
            self.orthonormalise()?;
        }
        let mut shared = self.shared()?;
        for (index, (_, shared)) in shared.iter_mut().enumerate() {
            let threshold = self.config.threshold * deviation(shared.coefficients());
            let small = |a: &f32| *a == 0.0 || f64::from(a.abs()) < threshold;
            let pruned: Vec<bool> = shared.coefficients().iter().map(small).collect();
            *shared = shared.without(&pruned);
            self.set(index, shared);
            let device = self.factors[index].a().device();
            self.layers[index].prune(pruned, &device);
        }
        self.phase = Phase::Tuning;
        Ok(SharedReport::new(&shared))
    }

    /// The layers with the channels that a [`ShrinkPlan`] leaves, to be counted or run.
    ///
    /// # Errors
    /// As [`shared`](Self::shared), and [`AdmmError::Model`] for the plan of another model.
    pub fn shrunk(&self, plan: &ShrinkPlan) -> Result<Vec<(String, SharedKernels)>, PenniError> {
        let mut layers = self.shared()?;
        for ((path, shared), Layer { spec, .. }) in layers.iter_mut().zip(&self.layers) {
            let Some(cut) = plan.cuts().iter().find(|cut| cut.parameter == *path) else {
                continue;
            };
            if cut.shape != spec.dims {
                return Err(PenniError::Weights(AdmmError::Model {
                    path: path.clone(),
                    expected: spec.dims.clone(),
                    found: Some(cut.shape.clone()),
                }));
            }
            let keep = |axis, len| {
                let cut = cut.axes.iter().find(|cut| cut.axis == axis);
                cut.map_or_else(|| (0..len).collect(), |cut| cut.keep.clone())
            };
            let shape = shared.shape();
            *shared = shared.select(&keep(0, shape.rows), &keep(1, shape.channels));
        }
        Ok(layers)
    }
}

/// The standard deviation of all of them.
fn deviation(values: &[f32]) -> f64 {
    let n = values.len().max(1) as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let squares = values.iter().map(|&v| (f64::from(v) - mean).powi(2));
    (squares.sum::<f64>() / n).sqrt()
}

impl fmt::Display for SharedReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = [
            "parameter",
            "shape",
            "kernels",
            "coefficients",
            "zero",
            "weights",
            "shared",
        ];
        let mut table = Table::new(header).right_aligned(&[2, 3, 4, 5, 6]);
        for layer in &self.layers {
            table.row([
                layer.path.clone(),
                format!("{:?}", layer.shape),
                format!("{} of {}", layer.used, layer.kernels),
                layer.coefficients.to_string(),
                format!(
                    "{:.1} %",
                    100.0 - 100.0 * layer.nnz as f64 / layer.coefficients.max(1) as f64
                ),
                layer.weights().to_string(),
                layer.parameters.to_string(),
            ]);
        }
        write!(f, "{table}")?;
        let [weights, shared] = self.parameters();
        write!(
            f,
            "{:.1} % of the coefficients are zero; {weights} weights → {shared}",
            100.0 * self.sparsity()
        )
    }
}
