use serde::Serialize;

use crate::table::Table;

/// One layer after an outer iteration.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LayerInfo {
    /// Dotted path of the parameter.
    pub path: String,
    /// Primal residual `‖W − Z‖ / ‖W‖`: how far the weights are from the constraint.
    pub primal_residual: f64,
    /// Dual residual `‖Z − Z_prev‖ / ‖W‖`: how much the feasible point still moves.
    pub dual_residual: f64,
    /// `‖U‖ / ‖W‖`, before any rescaling for the next rho.
    pub dual_norm: f64,
    /// Weights that `Z` keeps.
    pub nnz: usize,
    /// All weights.
    pub weights: usize,
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
    /// Primal residual over all layers: `sqrt(Σ‖W − Z‖²) / sqrt(Σ‖W‖²)`.
    pub primal_residual: f64,
    /// Dual residual over all layers: `sqrt(Σ‖Z − Z_prev‖²) / sqrt(Σ‖W‖²)`.
    pub dual_residual: f64,
    /// Fraction of zeros in `Z`, over all constrained weights.
    pub sparsity: f64,
    /// The layers, in traversal order.
    pub layers: Vec<LayerInfo>,
}

impl AdmmInfo {
    /// An aligned table with a line per layer.
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
