//! A roofline: what a layer multiplies, reads and writes, and what each of these takes.

use super::LatencyCase;

/// Terms of a roofline.
const TERMS: usize = 4;

/// Rounds of the fit; it converges long before.
const ROUNDS: usize = 2000;

/// Milliseconds of a layer as a sum of what it does: `Σ rate · amount`, no rate below 0. A sum, since of what
/// the processor does at the same time only the larger part counts in full, and both parts grow alike.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Roofline {
    rates: [f64; TERMS],
}

/// Multiply-adds, elements read and written, weights, and the call itself: in millions but for the last.
pub(super) fn amounts(case: &LatencyCase, density: f64) -> [f64; TERMS] {
    let problem = &case.problem;
    let pixels: usize = problem.output().iter().product();
    let weights = case.shape().len() as f64 * density;
    let inputs: usize = problem.input_shape().iter().product();
    let outputs = problem.batch * problem.out_channels * pixels;
    [
        1e-6 * weights * (problem.batch * pixels) as f64,
        1e-6 * (inputs + outputs) as f64,
        1e-6 * weights,
        1.0,
    ]
}

impl Roofline {
    /// The rates that make the relative errors of some times least in the square: `min ‖A r − 1‖`, `r ≥ 0`, by
    /// coordinate descent, with rows `amounts / time`.
    pub(super) fn fit(rows: &[([f64; TERMS], f64)]) -> Self {
        let scaled: Vec<[f64; TERMS]> = rows
            .iter()
            .map(|(amounts, ms)| amounts.map(|amount| amount / ms))
            .collect();
        let mut gram = [[0.0; TERMS]; TERMS];
        let mut right = [0.0; TERMS];
        for row in &scaled {
            for i in 0..TERMS {
                right[i] += row[i];
                for j in 0..TERMS {
                    gram[i][j] += row[i] * row[j];
                }
            }
        }
        let mut rates = [0.0; TERMS];
        for _ in 0..ROUNDS {
            for i in 0..TERMS {
                let others: f64 = (0..TERMS)
                    .filter(|&j| j != i)
                    .map(|j| gram[i][j] * rates[j])
                    .sum();
                if gram[i][i] > 0.0 {
                    rates[i] = ((right[i] - others) / gram[i][i]).max(0.0);
                }
            }
        }
        Self { rates }
    }

    /// Milliseconds; above 0 where any rate is.
    pub(super) fn ms(&self, amounts: [f64; TERMS]) -> f64 {
        let terms = self.rates.iter().zip(amounts);
        terms.map(|(rate, amount)| rate * amount).sum()
    }
}
