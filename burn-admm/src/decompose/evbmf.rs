//! Ranks from the statistics of noise.

/// The rank of an `l × m` matrix that stands out of noise, by its squared singular values.
///
/// The empirical variational Bayes solution of matrix factorisation: the noise variance `σ²` is the one
/// under which the spectrum is most probable, and singular values above its threshold count. With
/// `L ≤ M`, `α = L / M`, `τ̄ = 2.5129 √α`, `x̄ = (1 + τ̄)(1 + α / τ̄)` and `x = s² / (M σ²)`,
///
/// ```text
/// σ² = argmin Σ_{x ≤ x̄} (x − ln x) + Σ_{x > x̄} (x − τ + ln((τ + 1) / x) + α ln(τ / α + 1))
/// τ(x) = ½ (x − (1 + α) + √((x − (1 + α))² − 4α))
/// rank = #{s² > M σ² x̄}
/// ```
///
/// Nakajima, Sugiyama, Babacan, Tomioka: *Global analytic solution of fully-observed variational Bayesian
/// matrix factorization*, JMLR 14, 2013, theorem 2 and corollary 2. Small and noisy matrices come out too
/// low, pure noise as 0: round up.
///
/// `squared` are the squares of all singular values, or eigenvalues of the Gram matrix of the shorter side,
/// in any order. Without noise it is the number of those that are not zero beside the largest.
///
/// # Example
/// ```
/// use burn_admm::decompose::evbmf_rank;
///
/// // Two directions far above the others of an 8 × 64 matrix.
/// let squared = [9000.0, 4000.0, 85.0, 75.0, 66.0, 58.0, 50.0, 42.0];
/// assert_eq!(evbmf_rank(&squared, [8, 64]), 2);
/// ```
pub fn evbmf_rank(squared: &[f64], [l, m]: [usize; 2]) -> usize {
    let (l, m) = (l.min(m), l.max(m));
    let mut squared: Vec<f64> = squared.iter().map(|s| s.max(0.0)).collect();
    squared.sort_by(|a, b| b.total_cmp(a));
    squared.truncate(l);
    let total: f64 = squared.iter().sum();
    let Some(&largest) = squared.first().filter(|s| **s > 0.0) else {
        return 0;
    };
    let (length, alpha) = (squared.len(), l as f64 / m as f64);
    let tau_bar = 2.5129 * alpha.sqrt();
    let x_bar = (1.0 + tau_bar) * (1.0 + alpha / tau_bar);

    let end = ((l as f64 / (1.0 + alpha)).ceil() as usize).saturating_sub(1);
    let tail = &squared[end.clamp(1, length) - 1..];
    let tail = tail.get(1..).unwrap_or_default();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let first = tail.first().copied().unwrap_or(0.0);
    let lower = (first / (m as f64 * x_bar)).max(mean(tail) / m as f64);
    let upper = total / (l * m) as f64;
    // Eigenvalues of a Gram matrix carry an error of about this.
    let zero = largest * length as f64 * 4.0 * f64::EPSILON;
    let quiet = length == l && squared[l - 1] <= zero;
    if quiet || lower * m as f64 <= zero {
        return squared.iter().filter(|s| **s > zero).count();
    }
    let objective = |ln_variance: f64| {
        let scale = m as f64 * ln_variance.exp();
        squared
            .iter()
            .map(|s| free_energy((s / scale).max(f64::MIN_POSITIVE), alpha, x_bar))
            .sum::<f64>()
            + (l - length) as f64 * ln_variance
    };
    let variance = minimum(objective, lower.ln(), upper.max(lower).ln()).exp();
    let threshold = m as f64 * variance * x_bar;
    squared.iter().filter(|s| **s > threshold).count()
}

/// What a singular value adds to the objective.
fn free_energy(x: f64, alpha: f64, x_bar: f64) -> f64 {
    if x <= x_bar {
        return x - x.ln();
    }
    let middle = x - (1.0 + alpha);
    let tau = 0.5 * (middle + (middle * middle - 4.0 * alpha).max(0.0).sqrt());
    x - tau + ((tau + 1.0) / x).ln() + alpha * (tau / alpha + 1.0).ln()
}

/// Where a function is smallest: the best of a grid, because it has kinks where singular values cross the
/// threshold, and the golden section around it.
fn minimum(function: impl Fn(f64) -> f64, from: f64, to: f64) -> f64 {
    const GRID: usize = 64;
    let step = (to - from) / GRID as f64;
    let at = |i: usize| from + step * i as f64;
    let best = (0..=GRID)
        .map(|i| (i, function(at(i))))
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .map_or(0, |(i, _)| i);
    let (mut from, mut to) = (at(best.saturating_sub(1)), at((best + 1).min(GRID)));
    let part = (5.0_f64.sqrt() - 1.0) / 2.0;
    for _ in 0..60 {
        let (a, b) = (to - part * (to - from), from + part * (to - from));
        if function(a) <= function(b) {
            to = b;
        } else {
            from = a;
        }
    }
    0.5 * (from + to)
}
