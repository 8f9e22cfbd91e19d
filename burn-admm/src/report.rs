//! True sparsity, counted on the weights as they are.

use burn::module::Module;
use serde::{Deserialize, Serialize};

use crate::admm::AdmmError;
use crate::params::{Role, parameters, read};
use crate::table::Table;

/// Zeros of one parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LayerSparsity {
    /// Dotted path of the parameter.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Weights that are not zero.
    pub nnz: usize,
    /// All weights.
    pub weights: usize,
}

impl LayerSparsity {
    /// Fraction of zeros; 0 for an empty parameter.
    pub fn sparsity(&self) -> f64 {
        fraction(self.nnz, self.weights)
    }
}

/// The true sparsity of a model: counted on its effective weights, never taken from a plan.
///
/// The denominator is every parameter of rank two or more outside normalisation layers: biases and
/// norms do not count, embeddings and layers that were kept dense do.
///
/// [`Display`](core::fmt::Display) prints an aligned table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SparsityReport {
    /// Fraction of zeros over all of them.
    pub sparsity: f64,
    /// Weights that are not zero.
    pub nnz: usize,
    /// All weights.
    pub weights: usize,
    /// The parameters, in traversal order.
    pub layers: Vec<LayerSparsity>,
}

impl SparsityReport {
    /// Counts the zeros of `model`; masks that it has are applied.
    ///
    /// # Errors
    /// [`AdmmError::Read`] if a device fails.
    pub fn new<M: Module>(model: &M) -> Result<Self, AdmmError> {
        let counted: Vec<String> = parameters(model)
            .into_iter()
            .filter(|p| !matches!(p.role, Role::Vector | Role::Norm))
            .map(|p| p.path)
            .collect();
        let counted: std::collections::HashSet<&str> = counted.iter().map(String::as_str).collect();
        let layers: Vec<LayerSparsity> = read(model, |path| counted.contains(path))?
            .into_iter()
            .map(|weight| LayerSparsity {
                nnz: weight.data.iter().filter(|&&w| w != 0.0).count(),
                weights: weight.data.len(),
                name: weight.path,
                shape: weight.shape,
            })
            .collect();
        let nnz = layers.iter().map(|layer| layer.nnz).sum();
        let weights = layers.iter().map(|layer| layer.weights).sum();
        Ok(Self {
            sparsity: fraction(nnz, weights),
            nnz,
            weights,
            layers,
        })
    }

    /// The parameter of this path.
    pub fn layer(&self, name: &str) -> Option<&LayerSparsity> {
        self.layers.iter().find(|layer| layer.name == name)
    }
}

impl core::fmt::Display for SparsityReport {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut table =
            Table::new(["layer", "shape", "nnz", "of", "zeros"]).right_aligned(&[2, 3, 4]);
        for layer in &self.layers {
            table.row([
                layer.name.clone(),
                crate::table::shape(&layer.shape),
                layer.nnz.to_string(),
                layer.weights.to_string(),
                format!("{:.2} %", 100.0 * layer.sparsity()),
            ]);
        }
        write!(f, "{table}")?;
        write!(
            f,
            "{} of {} weights are not zero: {:.2} % zeros (biases and norms not counted)",
            self.nnz,
            self.weights,
            100.0 * self.sparsity
        )
    }
}

fn fraction(nnz: usize, weights: usize) -> f64 {
    if weights == 0 {
        0.0
    } else {
        1.0 - nnz as f64 / weights as f64
    }
}
