//! What a weight is worth, and which weights a layer keeps.

use crate::admm::{AdmmError, project};
use crate::plan::ResolvedLayer;
use crate::projection::projection_of;

/// `c_j = a · |w_j| / mean|w| + b · |g_j| / mean|g|` (Pietroń and Żurek, equation 2, normalised by
/// layer), in the order of `weights`.
///
/// Weights and gradients differ by orders of magnitude, and by other orders in every layer: without the
/// means one of the terms would be none. A term whose numbers are all zero counts nothing. Without
/// `gradients` magnitude alone counts.
///
/// # Panics
/// If there is not one gradient for each weight.
///
/// # Example
/// ```
/// use burn_admm::evolve::scores;
///
/// let (weights, gradients) = ([1.0, -3.0], [2e-4, 0.0]);
/// assert_eq!(scores(&weights, Some(&gradients), 1.0, 0.5), [0.5 + 1.0, 1.5]);
/// assert_eq!(scores(&weights, Some(&[0.0, 0.0]), 1.0, 0.5), [0.5, 1.5]);
/// ```
pub fn scores(
    weights: &[f32],
    gradients: Option<&[f32]>,
    magnitude: f64,
    gradient: f64,
) -> Vec<f32> {
    let of_weights = per_mean(weights, magnitude);
    let Some(gradients) = gradients else {
        let score = |w: &f32| (of_weights * f64::from(w.abs())) as f32;
        return weights.iter().map(score).collect();
    };
    assert_eq!(weights.len(), gradients.len(), "one gradient for a weight");
    let of_gradients = per_mean(gradients, gradient);
    let score = |(w, g): (&f32, &f32)| {
        (of_weights * f64::from(w.abs()) + of_gradients * f64::from(g.abs())) as f32
    };
    weights.iter().zip(gradients).map(score).collect()
}

/// A coefficient, divided by the mean magnitude; zero if that is.
fn per_mean(values: &[f32], coefficient: f64) -> f64 {
    let sum: f64 = values.iter().map(|value| f64::from(value.abs())).sum();
    let mean = sum / values.len().max(1) as f64;
    if mean > 0.0 { coefficient / mean } else { 0.0 }
}

/// The mask that keeps the highest scores that `spec` allows: for unstructured sparsity those at or
/// above a quantile, exactly as many as the budget says, of equal ones those of the lowest index
/// (equation 3). In storage order.
pub(super) fn mask(spec: &ResolvedLayer, scores: &[f32]) -> Result<Vec<bool>, AdmmError> {
    projection_of(spec.sparsity)
        .and_then(|projection| project(&*projection, &spec.view, scores))
        .map(|projected| projected.mask)
        .map_err(|source| AdmmError::Projection {
            path: spec.path.clone(),
            source,
        })
}
