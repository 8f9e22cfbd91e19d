//! Probabilities that learn, and how several become one; all in integers.
//!
//! A [`Mixer`] adds the log-odds of several predictions, each times a weight, and moves the weights
//! along the gradient of the coding cost after each bit (logistic mixing: M. Mahoney, "Adaptive
//! Weighing of Context Models for Lossless Data Compression", 2005, section 2.2). Encoder and decoder
//! must agree to the last bit on every machine, so logarithms come from tables that integer
//! arithmetic fills.

use std::sync::LazyLock;

/// Log-odds are in units of 1/256.
pub(super) const UNIT: i32 = 256;
/// The largest log-odds, those of a probability of nearly 65535/65536.
const MOST: i32 = 2_839;
/// `e^(−1/256) · 2^62`.
const STEP: u128 = 4_593_706_758_521_714_574;

struct Tables {
    /// The probability of log-odds `i − MOST`.
    squash: Vec<u16>,
    /// The log-odds of each probability.
    stretch: Vec<i16>,
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| {
    let one = 1u128 << 62;
    let mut squash = vec![0u16; 2 * MOST as usize + 1];
    let mut power = one;
    for odds in 0..=MOST as usize {
        let whole = one + power;
        let p = (((one << 16) + whole / 2) / whole).min(65_535) as u16;
        squash[MOST as usize + odds] = p;
        squash[MOST as usize - odds] = p.wrapping_neg();
        power = (power * STEP) >> 62;
    }
    let mut stretch = vec![0i16; 1 << 16];
    let mut at = 0;
    for (p, odds) in stretch.iter_mut().enumerate() {
        while at + 1 < squash.len() && usize::from(squash[at]) < p {
            at += 1;
        }
        *odds = (at as i32 - MOST) as i16;
    }
    Tables { squash, stretch }
});

/// `65536 / (1 + e^(−odds / 256))`, from 1 to 65535.
fn squash(odds: i32) -> u16 {
    TABLES.squash[(odds.clamp(-MOST, MOST) + MOST) as usize]
}

/// `256 · ln(p / (65536 − p))`.
pub(super) fn stretch(p: u16) -> i32 {
    i32::from(TABLES.stretch[usize::from(p)])
}

/// The log-odds of `of` in `all`, pulled a little towards one half.
pub(super) fn rate(of: u64, all: u64) -> u16 {
    let p = (2 * of + 1) * 32_768 / (all + 1);
    p.clamp(1, 65_535) as u16
}

/// The probability of a one, learnt from the bits of one context.
#[derive(Debug, Clone, Copy)]
pub(super) struct Learnt {
    p: u16,
    seen: u16,
}

impl Learnt {
    /// Knows nothing, but expects `p`.
    pub(super) fn new(p: u16) -> Self {
        Self { p, seen: 0 }
    }

    /// The probability of a one, of 65536.
    pub(super) fn p(self) -> u16 {
        self.p
    }

    /// Learns a bit: the mean of all bits at first, of about the last `limit` later.
    pub(super) fn learn(&mut self, bit: bool, limit: u16) {
        let target = if bit { 65_535 } else { 0 };
        let distance = target - i32::from(self.p);
        // One and a half for what was expected before any bit.
        let step = 2 * distance / (2 * i32::from(self.seen) + 3);
        self.p = (i32::from(self.p) + step).clamp(1, 65_535) as u16;
        self.seen = (self.seen + 1).min(limit);
    }
}

/// Weighs `N` predictions.
#[derive(Debug, Clone)]
pub(super) struct Mixer<const N: usize> {
    /// In units of 1/65536.
    weights: Vec<[i32; N]>,
    inputs: [i32; N],
    set: usize,
    p: u16,
    rate: i32,
}

impl<const N: usize> Mixer<N> {
    /// `sets` sets of weights that start as given; they move the faster, the larger `rate` is.
    pub(super) fn new(sets: usize, weights: [i32; N], rate: i32) -> Self {
        Self {
            weights: vec![weights; sets],
            inputs: [0; N],
            set: 0,
            p: 1 << 15,
            rate,
        }
    }

    /// The probability of a one from log-odds.
    pub(super) fn mix(&mut self, set: usize, inputs: [i32; N]) -> u16 {
        let weights = &self.weights[set];
        let sum: i64 = (weights.iter().zip(&inputs))
            .map(|(&weight, &input)| i64::from(weight) * i64::from(input))
            .sum();
        let odds = (sum >> 16).clamp(i64::from(-MOST), i64::from(MOST)) as i32;
        (self.inputs, self.set, self.p) = (inputs, set, squash(odds));
        self.p
    }

    /// Learns what the bit after [`mix`](Self::mix) was.
    pub(super) fn learn(&mut self, bit: bool) {
        let error = (i32::from(bit) << 16) - i32::from(self.p);
        for (weight, input) in self.weights[self.set].iter_mut().zip(self.inputs) {
            let step = (i64::from(input) * i64::from(error) * i64::from(self.rate)) >> 20;
            *weight = (*weight + step as i32).clamp(-(1 << 20), 1 << 20);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What integers compute, through logarithms.
    #[test]
    fn tables_are_the_logistic_function() {
        for odds in (-MOST..=MOST).step_by(7) {
            let exact = 65_536.0 / (1.0 + (-f64::from(odds) / f64::from(UNIT)).exp());
            assert!((f64::from(squash(odds)) - exact).abs() <= 1.0, "{odds}");
        }
        for p in 1..=65_535u16 {
            let p_exact = f64::from(p) / 65_536.0;
            let exact = f64::from(UNIT) * (p_exact / (1.0 - p_exact)).ln();
            // A unit, and what a step of probabilities is in log-odds.
            let step = f64::from(UNIT) / 65_536.0 / (p_exact * (1.0 - p_exact));
            let found = f64::from(stretch(p));
            assert!((found - exact).abs() <= 1.0 + step, "{p}: {found} {exact}");
        }
    }

    #[test]
    fn rates_and_learnt_probabilities_are_means() {
        assert_eq!(rate(0, 0), 32_768);
        assert_eq!((rate(1, 1), rate(0, 1)), (49_152, 16_384));
        assert!(rate(0, u64::from(u32::MAX)) == 1 && rate(1 << 31, 1 << 31) == 65_535);
        let mut learnt = Learnt::new(1 << 15);
        for at in 0..4_000 {
            learnt.learn(at % 10 == 3, 1_000);
        }
        assert!((f64::from(learnt.p()) / 65_536.0 - 0.1).abs() < 0.01);
    }

    #[test]
    fn weights_go_to_the_input_that_knows() {
        let mut mixer = Mixer::new(1, [0, 0], 6);
        for at in 0..2_000u32 {
            let bit = at * 7 % 5 < 2;
            let knows = if bit { 3 * UNIT } else { -3 * UNIT };
            let noise = if at % 3 == 0 { UNIT } else { -UNIT };
            mixer.mix(0, [knows, noise]);
            mixer.learn(bit);
        }
        assert!(mixer.mix(0, [3 * UNIT, 0]) > 60_000);
        assert!(mixer.mix(0, [-3 * UNIT, 0]) < 5_000);
    }
}
