//! Recurrent layers by their equations, with sigmoid and tanh.

/// The parameters of a recurrent layer, row-major, the gates of each matrix side by side.
#[derive(Debug, Clone, Copy)]
pub struct Recurrent<'a> {
    /// Input features.
    pub d_input: usize,
    /// Features of the hidden state.
    pub d_hidden: usize,
    /// `[d_input, gates · d_hidden]`.
    pub input: &'a [f32],
    /// `[d_hidden, gates · d_hidden]`.
    pub state: &'a [f32],
    /// `[gates · d_hidden]`, added to the input's product.
    pub input_bias: &'a [f32],
    /// `[gates · d_hidden]`, added to the state's product.
    pub state_bias: &'a [f32],
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `bias[g] + sum_i x[i] weight[i, g]` for gate output `g` of `outputs`.
fn product(x: &[f64], weight: &[f32], bias: &[f32], g: usize, outputs: usize) -> f64 {
    let products = x.iter().enumerate();
    let sum: f64 = products
        .map(|(i, x)| x * f64::from(weight[i * outputs + g]))
        .sum();
    sum + f64::from(bias[g])
}

/// States of a gated recurrent unit after each step, `[batch, steps, d_hidden]`, for an input
/// `x [batch, steps, d_input]` and a first state `[batch, d_hidden]`; gates in the order update,
/// reset, candidate. See [`nn::Gru`](crate::nn::Gru) for the equations.
///
/// # Panics
/// If a slice is too short.
pub fn gru(
    weights: &Recurrent<'_>,
    reset_after: bool,
    x: &[f32],
    first: &[f32],
    [batch, steps]: [usize; 2],
) -> Vec<f64> {
    let (d, outputs) = (weights.d_hidden, 3 * weights.d_hidden);
    let mut states = Vec::new();
    for n in 0..batch {
        let mut h: Vec<f64> = widened(&first[n * d..][..d]);
        for t in 0..steps {
            let x = widened(&x[(n * steps + t) * weights.d_input..][..weights.d_input]);
            let of_input = |g| product(&x, weights.input, weights.input_bias, g, outputs);
            let of_state = |h: &[f64], g| product(h, weights.state, weights.state_bias, g, outputs);
            let update: Vec<f64> = (0..d)
                .map(|k| sigmoid(of_input(k) + of_state(&h, k)))
                .collect();
            let reset: Vec<f64> = (d..2 * d)
                .map(|k| sigmoid(of_input(k) + of_state(&h, k)))
                .collect();
            let scaled: Vec<f64> = h.iter().zip(&reset).map(|(h, r)| h * r).collect();
            let candidate = |k: usize| {
                let of_state = if reset_after {
                    reset[k] * of_state(&h, 2 * d + k)
                } else {
                    of_state(&scaled, 2 * d + k)
                };
                (of_input(2 * d + k) + of_state).tanh()
            };
            h = (0..d)
                .map(|k| (1.0 - update[k]) * candidate(k) + update[k] * h[k])
                .collect();
            states.extend(&h);
        }
    }
    states
}

/// Hidden states of a long short-term memory after each step, `[batch, steps, d_hidden]`, for an
/// input `x [batch, steps, d_input]` and a first cell and hidden state, each `[batch, d_hidden]`;
/// gates in the order input, forget, output, cell. See [`nn::Lstm`](crate::nn::Lstm) for the
/// equations.
///
/// # Panics
/// If a slice is too short.
pub fn lstm(
    weights: &Recurrent<'_>,
    x: &[f32],
    [cell, hidden]: [&[f32]; 2],
    [batch, steps]: [usize; 2],
) -> Vec<f64> {
    let (d, outputs) = (weights.d_hidden, 4 * weights.d_hidden);
    let mut states = Vec::new();
    for n in 0..batch {
        let mut c = widened(&cell[n * d..][..d]);
        let mut h = widened(&hidden[n * d..][..d]);
        for t in 0..steps {
            let x = widened(&x[(n * steps + t) * weights.d_input..][..weights.d_input]);
            let sum = |g| {
                product(&x, weights.input, weights.input_bias, g, outputs)
                    + product(&h, weights.state, weights.state_bias, g, outputs)
            };
            c = (0..d)
                .map(|k| sigmoid(sum(d + k)) * c[k] + sigmoid(sum(k)) * sum(3 * d + k).tanh())
                .collect();
            h = (0..d)
                .map(|k| sigmoid(sum(2 * d + k)) * c[k].tanh())
                .collect();
            states.extend(&h);
        }
    }
    states
}

fn widened(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_unit_by_hand() {
        let weights = Recurrent {
            d_input: 1,
            d_hidden: 1,
            input: &[0.0, 0.0, 1.0, 0.0],
            state: &[0.0, 0.0, 2.0, 0.0],
            input_bias: &[0.0; 4],
            state_bias: &[0.0; 4],
        };
        // All gates are one half: h' = (tanh(1 + h) + h) / 2, the candidate's state weight being 2.
        let gru = |reset_after| gru(&weights, reset_after, &[1.0], &[0.5], [1, 1]);
        let expected = (1.5f64.tanh() + 0.5) / 2.0;
        assert!((gru(true)[0] - expected).abs() < 1e-12);
        assert!((gru(false)[0] - expected).abs() < 1e-12);
        // c' = c / 2, and the output gate is sigmoid(1 + 2 h).
        let lstm = lstm(&weights, &[1.0], [&[0.5], &[0.25]], [1, 1]);
        assert!((lstm[0] - sigmoid(1.5) * 0.25f64.tanh()).abs() < 1e-12);
    }
}
