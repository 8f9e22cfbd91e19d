//! Equal intervals without zero: the error over the interval has several minima, so a grid comes first.

use super::super::Grid;
use super::known_scale;

/// Intervals that the search starts from. With 64 of them a few dozen values were found whose best minimum
/// lies between two.
const STARTS: usize = 256;
/// The interval of nothing but zeros: its multiples are normal numbers, and their squares vanish.
const NOTHING: f32 = 1e-30;
/// Alternations; they end when the codes stay.
const ROUNDS: usize = 50;

/// Magnitudes, ascending, with sums before each: errors of an interval take `O(most · log n)`.
struct Sorted {
    magnitudes: Vec<f32>,
    sums: Vec<f64>,
    squares: f64,
}

impl Sorted {
    fn new(values: &[f32]) -> Self {
        let mut magnitudes: Vec<f32> = values.iter().map(|value| value.abs()).collect();
        magnitudes.sort_by(f32::total_cmp);
        let mut sums = Vec::with_capacity(magnitudes.len() + 1);
        sums.push(0.0);
        let (mut sum, mut squares) = (0.0, 0.0);
        for &magnitude in &magnitudes {
            let magnitude = f64::from(magnitude);
            sum += magnitude;
            squares += magnitude * magnitude;
            sums.push(sum);
        }
        Self {
            magnitudes,
            sums,
            squares,
        }
    }

    /// `Σ |w| c` and `Σ c²` for the codes nearest to multiples of `q`.
    fn moments(&self, q: f64, most: u32) -> (f64, f64) {
        let (mut cross, mut codes, mut start) = (0.0, 0.0, 0);
        for k in 1..=most {
            let end = if k == most {
                self.magnitudes.len()
            } else {
                let edge = (f64::from(k) + 0.5) * q;
                start + self.magnitudes[start..].partition_point(|m| f64::from(*m) < edge)
            };
            cross += f64::from(k) * (self.sums[end] - self.sums[start]);
            codes += f64::from(k).powi(2) * (end - start) as f64;
            start = end;
            if end == self.magnitudes.len() {
                break;
            }
        }
        (cross, codes)
    }

    fn error(&self, q: f64, most: u32) -> f64 {
        let (cross, codes) = self.moments(q, most);
        self.squares - 2.0 * q * cross + q * q * codes
    }
}

pub(super) fn fit(values: &[f32], bits: u8) -> Grid {
    let most = 1 << (bits - 1);
    let largest = values.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    if largest == 0.0 {
        // Zero is no level; these are as near as makes no difference.
        let scale = NOTHING;
        return Grid::Nonzero { scale, most };
    }
    if let Some(scale) = known_scale(values, most) {
        return Grid::Nonzero { scale, most };
    }
    let sorted = Sorted::new(values);
    let widest = 2.0 * f64::from(largest) / f64::from(most).max(1.0);
    let starts = (1..=STARTS).map(|start| widest * start as f64 / STARTS as f64);
    let refined = starts.map(|start| {
        let mut q = start;
        for _ in 0..ROUNDS {
            let (cross, codes) = sorted.moments(q, most);
            let next = cross / codes;
            if next == q || next.is_nan() || next <= 0.0 {
                break;
            }
            q = next;
        }
        q
    });
    let best = refined
        .map(|q| (q, sorted.error(q, most)))
        .min_by(|a, b| a.1.total_cmp(&b.1));
    let scale = best.map_or(largest, |(q, _)| q as f32);
    // An interval of subnormal width may have become zero in f32.
    let scale = if scale > 0.0 { scale } else { largest };
    Grid::Nonzero { scale, most }
}

/// The best of 20,000 intervals.
pub(in crate::quantize) fn uniform_scan(values: &[f32], bits: u8) -> Grid {
    let most = 1 << (bits - 1);
    let largest = values.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    let grid = |step: usize| Grid::Nonzero {
        scale: (f64::from(largest) * 2.0 * step as f64 / 20_000.0) as f32,
        most,
    };
    (1..=20_000)
        .map(grid)
        .min_by(|a, b| a.squared_error(values).total_cmp(&b.squared_error(values)))
        .filter(|_| largest > 0.0)
        .unwrap_or(Grid::Nonzero { scale: 1.0, most })
}
