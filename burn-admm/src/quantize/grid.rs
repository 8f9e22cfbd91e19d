//! The levels of one weight or channel.

/// Levels that were fitted to values.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Grid {
    /// `±k · scale` for `k` from 1 to `most`.
    Nonzero {
        /// The interval; positive.
        scale: f32,
        /// The largest multiple.
        most: u32,
    },
    /// `±2^(top − j)` for `j` from 0 to `count − 1`.
    Powers {
        /// Exponent of the largest level.
        top: i32,
        /// How many exponents.
        count: u32,
    },
    /// Any numbers, ascending.
    Codebook(Vec<f32>),
    /// `k · scale` for `k` from `low` to `high`.
    Signed {
        /// The interval; positive.
        scale: f32,
        /// The least multiple, not above zero.
        low: i32,
        /// The largest, not below zero.
        high: i32,
    },
}

impl Grid {
    /// The level nearest to a finite number; of zero the positive one where zero is no level.
    ///
    /// # Panics
    /// For an empty codebook.
    pub fn nearest(&self, value: f32) -> f32 {
        match self {
            Self::Nonzero { scale, most } => {
                let k = (value.abs() / scale).round().clamp(1.0, *most as f32);
                let level = k * scale;
                if value < 0.0 { -level } else { level }
            }
            Self::Powers { top, count } => {
                let bottom = top - (*count as i32 - 1);
                let magnitude = value.abs();
                // The next power below or equal, and the one above it if that is nearer.
                let below = exponent(magnitude).clamp(bottom, *top);
                let up = below < *top && magnitude > 1.5 * power(below);
                let level = power(below + i32::from(up));
                if value < 0.0 { -level } else { level }
            }
            Self::Codebook(codebook) => {
                let above = codebook.partition_point(|level| *level < value);
                let near = above.saturating_sub(1)..=above.min(codebook.len() - 1);
                let candidates = codebook[near].iter().copied();
                candidates
                    .min_by(|a, b| (a - value).abs().total_cmp(&(b - value).abs()))
                    .expect("a codebook has entries")
            }
            Self::Signed { scale, low, high } => {
                let k = (value / scale).round().clamp(*low as f32, *high as f32);
                // Not `-0.0`, which would be no level.
                k * scale + 0.0
            }
        }
    }

    /// All levels, ascending.
    pub fn levels(&self) -> Vec<f32> {
        match self {
            Self::Nonzero { scale, most } => {
                let positive = (1..=*most).map(|k| k as f32 * scale);
                let negative = positive.clone().rev().map(|level| -level);
                negative.chain(positive).collect()
            }
            Self::Powers { top, count } => {
                let positive = (0..*count as i32).rev().map(|j| power(top - j));
                let negative = positive.clone().rev().map(|level| -level);
                negative.chain(positive).collect()
            }
            Self::Codebook(codebook) => codebook.clone(),
            Self::Signed { scale, low, high } => {
                (*low..=*high).map(|k| k as f32 * scale + 0.0).collect()
            }
        }
    }

    /// `Σ (v − nearest level)²` in f64.
    pub fn squared_error(&self, values: &[f32]) -> f64 {
        let errors = values.iter().map(|&value| {
            let difference = f64::from(value) - f64::from(self.nearest(value));
            difference * difference
        });
        errors.sum()
    }
}

/// `2^exponent`, exactly.
pub(super) fn power(exponent: i32) -> f32 {
    2.0f64.powi(exponent) as f32
}

/// The largest `e` with `2^e ≤ magnitude`; the least of f32 for zero.
pub(super) fn exponent(magnitude: f32) -> i32 {
    let bits = magnitude.to_bits() >> 23 & 0xff;
    if bits == 0 { -126 } else { bits as i32 - 127 }
}
