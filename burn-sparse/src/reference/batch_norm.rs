//! Batch normalisation by its definition.

/// `y[n,c,p] = act(gamma[c] (x[n,c,p] - mean[c]) / sqrt(variance[c] + epsilon) + beta[c] + residual[n,c,p])`
/// with the mean and the biased variance of every channel of `x`, `[batch, channels, pixels]`; `act` is the
/// identity or `max(0, .)`.
///
/// # Panics
/// If slices are shorter than `shape` says.
pub fn batch_norm_train(
    x: &[f64],
    [batch, channels, pixels]: [usize; 3],
    [gamma, beta]: [&[f64]; 2],
    epsilon: f64,
    residual: Option<&[f64]>,
    relu: bool,
) -> Vec<f64> {
    let mut out = vec![0.0; batch * channels * pixels];
    for c in 0..channels {
        let places =
            || (0..batch).flat_map(|n| (0..pixels).map(move |p| (n * channels + c) * pixels + p));
        let count = (batch * pixels) as f64;
        let mean = places().map(|i| x[i]).sum::<f64>() / count;
        let variance = places().map(|i| (x[i] - mean).powi(2)).sum::<f64>() / count;
        for i in places() {
            let y = gamma[c] * (x[i] - mean) / (variance + epsilon).sqrt() + beta[c];
            let y = y + residual.map_or(0.0, |residual| residual[i]);
            out[i] = if relu { y.max(0.0) } else { y };
        }
    }
    out
}
