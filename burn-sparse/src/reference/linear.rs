//! A linear map by its definition.

/// `out[m,k] = bias[k] + sum_i w[k,i] x[m,i]` for `x [m, d_input]` and `weight [rows, d_input]`.
///
/// # Panics
/// If a slice is not a multiple of `d_input` long, or `d_input` is 0.
pub fn linear(x: &[f32], weight: &[f32], bias: Option<&[f32]>, d_input: usize) -> Vec<f64> {
    let mut out = Vec::new();
    for x in x.chunks_exact(d_input) {
        for (k, w) in weight.chunks_exact(d_input).enumerate() {
            let dot: f64 = x
                .iter()
                .zip(w)
                .map(|(&x, &w)| f64::from(x) * f64::from(w))
                .sum();
            out.push(dot + bias.map_or(0.0, |bias| f64::from(bias[k])));
        }
    }
    out
}
