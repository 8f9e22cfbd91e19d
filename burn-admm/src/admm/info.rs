use burn_sparse::Sparsity;
use serde::Serialize;

use crate::table::Table;

/// One constraint set of a layer after an outer iteration.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SetInfo {
    /// The set.
    pub sparsity: Sparsity,
    /// Primal residual `‖W − Z‖ / ‖W‖`: how far the weights are from the set.
    pub primal_residual: f64,
    /// Dual residual `‖Z − Z_prev‖ / ‖W‖`: how much the feasible point still moves.
    pub dual_residual: f64,
    /// `‖U‖ / ‖W‖`, before any rescaling for the next rho.
    pub dual_norm: f64,
    /// Weights that `Z` may keep.
    pub nnz: usize,
}

/// One layer after an outer iteration.
///
/// Most constraints are one set. Where there are several, each with a feasible copy and a dual of
/// its own ([`parts_of`](crate::projection::parts_of)), the layer's numbers are the largest of theirs:
/// sets pull against each other, and a layer is done when all of them are.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LayerInfo {
    /// Dotted path of the parameter.
    pub path: String,
    /// Primal residual `‖W − Z‖ / ‖W‖`, the largest of its sets.
    pub primal_residual: f64,
    /// Dual residual `‖Z − Z_prev‖ / ‖W‖`, the largest of its sets.
    pub dual_residual: f64,
    /// `‖U‖ / ‖W‖`, before any rescaling for the next rho, the largest of its sets.
    pub dual_norm: f64,
    /// Weights that the constraint, with all its sets, keeps.
    pub nnz: usize,
    /// All weights.
    pub weights: usize,
    /// The sets, at least one.
    pub sets: Vec<SetInfo>,
}

impl LayerInfo {
    pub(super) fn new(path: &str, nnz: usize, weights: usize, sets: Vec<SetInfo>) -> Self {
        let largest = |of: fn(&SetInfo) -> f64| sets.iter().map(of).fold(0.0, f64::max);
        Self {
            path: path.to_owned(),
            primal_residual: largest(|set| set.primal_residual),
            dual_residual: largest(|set| set.dual_residual),
            dual_norm: largest(|set| set.dual_norm),
            nnz,
            weights,
            sets,
        }
    }
}

/// One outer iteration, as [`Admm::update`](crate::Admm::update) reports it.
///
/// [`Display`](core::fmt::Display) is one line; [`to_table`](Self::to_table) has one per layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AdmmInfo {
    /// Outer iterations done, this one included.
    pub iteration: usize,
    /// The rho under which the weights of this iteration were trained.
    pub rho: f64,
    /// The rho of the next iteration.
    pub next_rho: f64,
    /// Primal residual over all layers and sets: `sqrt(Σ‖W − Z‖²) / sqrt(Σ‖W‖²)`.
    pub primal_residual: f64,
    /// Dual residual over all layers and sets: `sqrt(Σ‖Z − Z_prev‖²) / sqrt(Σ‖W‖²)`.
    pub dual_residual: f64,
    /// Fraction of zeros that the plan asks for, over all constrained weights; that of `Z` where a
    /// constraint is one set.
    pub sparsity: f64,
    /// The layers, in traversal order.
    pub layers: Vec<LayerInfo>,
}

impl AdmmInfo {
    /// An aligned table with a line per layer, and a line more for each set of a layer with several.
    pub fn to_table(&self) -> String {
        let mut table = Table::new(["layer", "primal", "dual", "|U|/|W|", "nnz", "of"])
            .right_aligned(&[1, 2, 3, 4, 5]);
        for layer in &self.layers {
            table.row([
                layer.path.clone(),
                format!("{:.3e}", layer.primal_residual),
                format!("{:.3e}", layer.dual_residual),
                format!("{:.3e}", layer.dual_norm),
                layer.nnz.to_string(),
                layer.weights.to_string(),
            ]);
            for set in layer.sets.iter().filter(|_| layer.sets.len() > 1) {
                table.row([
                    format!("  {}", set.sparsity.name()),
                    format!("{:.3e}", set.primal_residual),
                    format!("{:.3e}", set.dual_residual),
                    format!("{:.3e}", set.dual_norm),
                    set.nnz.to_string(),
                    layer.weights.to_string(),
                ]);
            }
        }
        table.to_string()
    }
}

impl core::fmt::Display for AdmmInfo {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "iteration {}: rho {:.3e}, primal residual {:.3e}, dual residual {:.3e}, sparsity of Z {:.2} %",
            self.iteration,
            self.rho,
            self.primal_residual,
            self.dual_residual,
            100.0 * self.sparsity
        )
    }
}
