use super::QuantizeError;

/// Counts of values in equal bins, over a range that grows with what is seen.
///
/// # Example
/// ```
/// use burn_admm::quantize::{Histogram, Saturation};
///
/// // Many small values and one outlier.
/// let mut histogram = Histogram::new();
/// let values: Vec<f32> = (0..1000).map(|i| (i as f32 / 500.0) - 1.0).chain([40.0]).collect();
/// histogram.add(&values)?;
/// let [low, high] = Saturation::Percentile(99.9).range(&histogram, 256)?;
/// assert!(low < -0.9 && high < 2.0);
/// assert_eq!(Saturation::MinMax.range(&histogram, 256)?, [-1.0, 40.0]);
/// # Ok::<(), burn_admm::quantize::QuantizeError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    low: f32,
    high: f32,
    counts: Vec<u64>,
    total: u64,
}

/// Bins, as calibration of activations uses them elsewhere.
const BINS: usize = 2048;

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self {
            low: 0.0,
            high: 0.0,
            counts: vec![0; BINS],
            total: 0,
        }
    }

    /// Counts values. When they leave the range, it grows to hold them, and older counts move to the
    /// bins that hold the middles of theirs.
    ///
    /// # Errors
    /// [`QuantizeError::NonFinite`] for a NaN or an infinity; nothing is counted then.
    pub fn add(&mut self, values: &[f32]) -> Result<(), QuantizeError> {
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            let value = values[index];
            return Err(QuantizeError::NonFinite { index, value });
        }
        let Some(&first) = values.first() else {
            return Ok(());
        };
        let (mut low, mut high) = if self.total == 0 {
            (first, first)
        } else {
            (self.low, self.high)
        };
        for &value in values {
            (low, high) = (low.min(value), high.max(value));
        }
        if self.total == 0 {
            (self.low, self.high) = (low, high);
        } else if low < self.low || high > self.high {
            self.grow(low, high);
        }
        for &value in values {
            let bin = self.bin(value);
            self.counts[bin] += 1;
        }
        self.total += values.len() as u64;
        Ok(())
    }

    fn grow(&mut self, low: f32, high: f32) {
        let old = self.clone();
        (self.low, self.high) = (low, high);
        self.counts.fill(0);
        for (bin, &count) in old.counts.iter().enumerate() {
            if count > 0 {
                let bin = self.bin(old.middle(bin) as f32);
                self.counts[bin] += count;
            }
        }
    }

    fn width(&self) -> f64 {
        (f64::from(self.high) - f64::from(self.low)) / BINS as f64
    }

    fn bin(&self, value: f32) -> usize {
        let width = self.width();
        if width <= 0.0 {
            return 0;
        }
        let bin = (f64::from(value) - f64::from(self.low)) / width;
        (bin.max(0.0) as usize).min(BINS - 1)
    }

    fn middle(&self, bin: usize) -> f64 {
        f64::from(self.low) + (bin as f64 + 0.5) * self.width()
    }

    /// Where a bin begins.
    pub(super) fn edge(&self, bin: usize) -> f32 {
        if bin >= BINS {
            return self.high;
        }
        (f64::from(self.low) + bin as f64 * self.width()) as f32
    }

    pub(super) fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Values counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The least and the largest value; zeros before any.
    pub fn range(&self) -> [f32; 2] {
        [self.low, self.high]
    }

    /// `Σ (v − nearest level)²` of `levels` equal levels over a range, taking each value to be in the
    /// middle of its bin.
    pub(super) fn squared_error(&self, [low, high]: [f32; 2], levels: usize) -> f64 {
        let (low, high) = (f64::from(low), f64::from(high));
        let step = (high - low) / (levels.max(2) - 1) as f64;
        let bins = self.counts.iter().enumerate().filter(|(_, n)| **n > 0);
        bins.map(|(bin, &count)| {
            let value = self.middle(bin);
            let level = if step > 0.0 {
                low + ((value - low) / step)
                    .round()
                    .clamp(0.0, (levels - 1) as f64)
                    * step
            } else {
                low
            };
            count as f64 * (value - level).powi(2)
        })
        .sum()
    }

    /// The Kullback-Leibler divergence of what is left of the distribution after it is cut to a range
    /// (outliers counted at its ends) and quantised to `levels` levels from the cut one.
    pub(super) fn divergence(&self, [low, high]: [f32; 2], levels: usize) -> f64 {
        let (first, last) = (self.bin(low), self.bin(high));
        let bins = last - first + 1;
        if bins < levels {
            return f64::INFINITY;
        }
        let inside = &self.counts[first..=last];
        let mut cut: Vec<f64> = inside.iter().map(|&n| n as f64).collect();
        cut[0] += self.counts[..first].iter().sum::<u64>() as f64;
        cut[bins - 1] += self.counts[last + 1..].iter().sum::<u64>() as f64;
        // Each level spreads its count over those of its bins that are not empty.
        let mut quantised = vec![0.0; bins];
        for level in 0..levels {
            let (start, end) = (level * bins / levels, (level + 1) * bins / levels);
            let filled = inside[start..end].iter().filter(|&&n| n > 0).count();
            let sum: u64 = inside[start..end].iter().sum();
            for bin in start..end {
                if inside[bin] > 0 {
                    quantised[bin] = sum as f64 / filled as f64;
                }
            }
        }
        let (p_sum, q_sum) = (cut.iter().sum::<f64>(), quantised.iter().sum::<f64>());
        if p_sum == 0.0 || q_sum == 0.0 {
            return f64::INFINITY;
        }
        let pairs = cut.iter().zip(&quantised).filter(|(p, _)| **p > 0.0);
        pairs
            .map(|(p, q)| {
                let (p, q) = (p / p_sum, (q / q_sum).max(1e-12));
                p * (p / q).ln()
            })
            .sum()
    }
}
