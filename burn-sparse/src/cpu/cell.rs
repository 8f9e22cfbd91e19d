//! The part of a recurrent step that goes element by element, in one pass over the gates.

use pulp::{Simd, WithSimd};

use super::Isa;

/// `h' = (1 - z) n + z h` with `z = sigmoid(x_z + s_z)`, `r = sigmoid(x_r + s_r)` and
/// `n = tanh(x_n + r s_n)`, for the products `x` of the input and `s` of the state, biases
/// included, gates in the order z, r, n.
///
/// # Panics
/// If `x` and `s` are not three times as long as `hidden` and `out`.
pub fn gru_cell(x: &[f32], s: &[f32], hidden: &[f32], out: &mut [f32]) {
    let d = out.len();
    assert!(
        x.len() == 3 * d && s.len() == 3 * d && hidden.len() == d,
        "gates of {} and {} and a state of {} for {d} outputs",
        x.len(),
        s.len(),
        hidden.len()
    );
    Isa::current().dispatch(Gru {
        x: gates(x, d),
        s: gates(s, d),
        hidden,
        out,
    });
}

/// `c' = f c + i g` and `h' = o tanh(c')` with `i`, `f` and `o` the sigmoids and `g` the tanh of the
/// gates' sums, in the order i, f, o, g.
///
/// # Panics
/// If `sums` are not four times as long as each of the others.
pub fn lstm_cell(sums: &[f32], cell: &[f32], [new_cell, hidden]: [&mut [f32]; 2]) {
    let d = cell.len();
    assert!(
        sums.len() == 4 * d && new_cell.len() == d && hidden.len() == d,
        "gates of {} for a cell state of {d} and outputs of {} and {}",
        sums.len(),
        new_cell.len(),
        hidden.len()
    );
    Isa::current().dispatch(Lstm {
        sums: gates(sums, d),
        cell,
        new_cell,
        hidden,
    });
}

fn gates<const N: usize>(sums: &[f32], d: usize) -> [&[f32]; N] {
    core::array::from_fn(|gate| &sums[gate * d..][..d])
}

struct Gru<'a> {
    x: [&'a [f32]; 3],
    s: [&'a [f32]; 3],
    hidden: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for Gru<'_> {
    type Output = ();

    /// Plain loops over slices of one length, which the compiler turns into vectors of the set.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let d = self.out.len();
        let ([xz, xr, xn], [sz, sr, sn]) = (self.x.map(|x| &x[..d]), self.s.map(|s| &s[..d]));
        let (hidden, out) = (&self.hidden[..d], self.out);
        for k in 0..d {
            let update = sigmoid(xz[k] + sz[k]);
            let reset = sigmoid(xr[k] + sr[k]);
            let new = tanh(xn[k] + reset * sn[k]);
            out[k] = new * (1.0 - update) + update * hidden[k];
        }
    }
}

struct Lstm<'a> {
    sums: [&'a [f32]; 4],
    cell: &'a [f32],
    new_cell: &'a mut [f32],
    hidden: &'a mut [f32],
}

impl WithSimd for Lstm<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let d = self.cell.len();
        let [input, forget, output, candidate] = self.sums.map(|sums| &sums[..d]);
        let (new_cell, hidden) = (&mut self.new_cell[..d], &mut self.hidden[..d]);
        for k in 0..d {
            let cell = sigmoid(forget[k]) * self.cell[k] + sigmoid(input[k]) * tanh(candidate[k]);
            new_cell[k] = cell;
            hidden[k] = sigmoid(output[k]) * tanh(cell);
        }
    }
}

/// `1.5 * 2^23`: adding it rounds to an integer, which is then in the lowest bits.
const ROUND: f32 = 12_582_912.0;

/// The logarithm of 2 in two parts, of which the first has so few bits that its multiples are exact.
const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];

/// `[2^n, e^r - 1]` with `x = n ln 2 + r` and `|r| <= ln 2 / 2`, for `x` from -87 to 88; a NaN stays
/// one. The series of the exponential ends at `r^7 / 7!`; what is left out is below `6e-9 e^r`.
#[inline(always)]
fn exp_parts(x: f32) -> [f32; 2] {
    let shifted = x * core::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let power = shifted.to_bits().wrapping_sub(ROUND.to_bits());
    let scale = f32::from_bits(power.wrapping_add(127) << 23);
    let r = (x - n * LN2[0]) - n * LN2[1];
    let mut series = 1.0 / 5040.0;
    for term in [720.0, 120.0, 24.0, 6.0, 2.0] {
        series = series * r + 1.0 / term;
    }
    [scale, series * r * r + r]
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    let [scale, rest] = exp_parts(within(-x, 87.0));
    1.0 / (1.0 + (scale + scale * rest))
}

/// `(e^2x - 1) / (e^2x + 1)`; the numerator is formed without cancellation, so that small results
/// are as exact as large ones.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    let [scale, rest] = exp_parts(within(2.0 * x, 40.0));
    let less_one = scale * rest + (scale - 1.0);
    less_one / (less_one + 2.0)
}

/// `x` cut off at `±most`; a NaN stays one.
#[inline(always)]
fn within(x: f32, most: f32) -> f32 {
    let x = if x > most { most } else { x };
    if x < -most { -most } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_exact_to_few_roundings() {
        let magnitudes = (-100..70).map(|step| 1.3f32.powi(step) * 1e-3);
        for x in magnitudes
            .flat_map(|x| [x, -x])
            .chain([0.0, 87.0, -87.0, 1e30])
        {
            let wide = f64::from(x);
            let (s, t) = (1.0 / (1.0 + (-wide).exp()), wide.tanh());
            let bound = |y: f64| 6.0 * f64::from(f32::EPSILON) * y.abs() + 2e-38;
            assert!(
                (f64::from(sigmoid(x)) - s).abs() <= bound(s),
                "sigmoid({x})"
            );
            assert!((f64::from(tanh(x)) - t).abs() <= bound(t), "tanh({x})");
        }
        assert_eq!(tanh(0.0), 0.0);
        assert_eq!([tanh(f32::INFINITY), tanh(f32::NEG_INFINITY)], [1.0, -1.0]);
        assert_eq!(sigmoid(f32::INFINITY), 1.0);
        assert!(tanh(f32::NAN).is_nan() && sigmoid(f32::NAN).is_nan());
    }

    #[test]
    #[should_panic(expected = "gates of 6 and 5 and a state of 2 for 2 outputs")]
    fn gates_of_another_length_panic() {
        gru_cell(&[0.0; 6], &[0.0; 5], &[0.0; 2], &mut [0.0; 2]);
    }
}
