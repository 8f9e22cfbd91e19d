//! Changes over time beside the features themselves.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Frames on each side from which a change is estimated.
const REACH: usize = 2;

/// Which changes over time stand beside the log-mel features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deltas {
    /// None: `bands` features per frame
    #[default]
    None,
    /// First differences: `2 * bands` features per frame
    First,
    /// First and second differences: `3 * bands` features per frame
    Second,
}

impl Deltas {
    /// Features per frame for each band: 1, 2 or 3.
    #[must_use]
    pub fn factor(self) -> usize {
        match self {
            Self::None => 1,
            Self::First => 2,
            Self::Second => 3,
        }
    }

    /// Puts the changes beside features of `bands` values per frame: each frame becomes
    /// `[features, first differences, second differences]`.
    pub(crate) fn beside(self, features: Vec<f64>, bands: usize) -> Vec<f64> {
        let mut parts = vec![features];
        while parts.len() < self.factor() {
            let next = regression(&parts[parts.len() - 1], bands);
            parts.push(next);
        }
        if let [only] = &mut parts[..] {
            return std::mem::take(only);
        }
        let frames = parts[0].len() / bands;
        let mut all = Vec::with_capacity(frames * bands * parts.len());
        for frame in 0..frames {
            for part in &parts {
                all.extend_from_slice(&part[frame * bands..(frame + 1) * bands]);
            }
        }
        all
    }
}

/// The slope of the line through `2 R + 1` frames, `d[t] = sum_n n (c[t+n] - c[t-n]) / (2 sum_n n²)`
/// with `n` from 1 to `R`, the first and last frame repeated beyond the ends (*The HTK Book*,
/// section "Delta, Acceleration and Third Differential Coefficients").
fn regression(features: &[f64], bands: usize) -> Vec<f64> {
    let frames = features.len() / bands;
    let norm = 2.0 * (1..=REACH).map(|n| (n * n) as f64).sum::<f64>();
    let mut slopes = Vec::with_capacity(features.len());
    for t in 0..frames {
        for band in 0..bands {
            let change = (1..=REACH).map(|n| {
                let after = (t + n).min(frames - 1) * bands + band;
                let before = t.saturating_sub(n) * bands + band;
                n as f64 * (features[after] - features[before])
            });
            slopes.push(change.sum::<f64>() / norm);
        }
    }
    slopes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_slope_and_a_parabola_its_curvature() {
        let frames = 20;
        let curve = |t: usize| [3.0 * t as f64 - 7.0, 0.5 * (t * t) as f64];
        let features: Vec<f64> = (0..frames).flat_map(curve).collect();
        let all = Deltas::Second.beside(features.clone(), 2);
        assert_eq!(all.len(), 3 * features.len());
        // Away from the repeated ends the estimates are exact.
        for t in 4..frames - 4 {
            let [line, parabola] = curve(t);
            let wanted = [line, parabola, 3.0, t as f64, 0.0, 1.0];
            for (got, wanted) in all[6 * t..6 * t + 6].iter().zip(wanted) {
                assert!((got - wanted).abs() < 1e-12, "{t}: {got} {wanted}");
            }
        }
        assert_eq!(Deltas::None.beside(features.clone(), 2), features);
    }

    #[test]
    fn the_ends_repeat_and_one_frame_does_not_change() {
        assert_eq!(
            Deltas::Second.beside(vec![5.0, 6.0], 2),
            [5.0, 6.0, 0.0, 0.0, 0.0, 0.0]
        );
        // (1 * (1 - 0) + 2 * (1 - 0)) / 10 at both ends of two frames.
        assert_eq!(
            Deltas::First.beside(vec![0.0, 1.0], 1),
            [0.0, 0.3, 1.0, 0.3]
        );
        assert!(Deltas::First.beside(Vec::new(), 3).is_empty());
    }
}
