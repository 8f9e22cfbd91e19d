//! Features with mean 0 and deviation 1.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Deviations below this divide by it instead: a feature that never changes becomes 0.
const LEAST_STD: f64 = 1e-3;

/// Whose mean and deviation features are brought to 0 and 1 with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Normalize {
    /// Those of all training frames, validation and test not looked at
    #[default]
    Dataset,
    /// Those of the recording's own frames: takes out the microphone and the loudness, and what is
    /// constant in a word with them
    Utterance,
    /// Nobody's: logarithms of energies as they are
    None,
}

/// Mean and deviation of each feature: `y = (x - mean) / std`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureNormalization {
    /// One mean per feature.
    pub mean: Vec<f32>,
    /// One standard deviation per feature, 1e-3 at least.
    pub std: Vec<f32>,
}

impl FeatureNormalization {
    /// Mean and deviation over all frames, `features` values each. Sums are in f64, in two passes.
    /// Without a frame, mean 0 and deviation 1.
    ///
    /// # Panics
    /// If `features` is zero, or the values are no whole number of frames.
    ///
    /// ```
    /// use examples::data::speech::FeatureNormalization;
    ///
    /// let of = FeatureNormalization::of(&[1.0, 10.0, 3.0, 10.0], 2);
    /// assert_eq!((of.mean, of.std), (vec![2.0, 10.0], vec![1.0, 1e-3]));
    /// ```
    #[must_use]
    pub fn of(values: &[f32], features: usize) -> Self {
        assert!(
            features > 0 && values.len().is_multiple_of(features),
            "{} values are no whole number of frames of {features} features",
            values.len()
        );
        if values.is_empty() {
            return Self {
                mean: vec![0.0; features],
                std: vec![1.0; features],
            };
        }
        let frames = (values.len() / features) as f64;
        let mut mean = vec![0f64; features];
        for frame in values.chunks_exact(features) {
            for (sum, &value) in mean.iter_mut().zip(frame) {
                *sum += f64::from(value);
            }
        }
        mean.iter_mut().for_each(|sum| *sum /= frames);
        let mut variance = vec![0f64; features];
        for frame in values.chunks_exact(features) {
            for ((sum, mean), &value) in variance.iter_mut().zip(&mean).zip(frame) {
                *sum += (f64::from(value) - mean).powi(2);
            }
        }
        let std = |sum: f64| (sum / frames).sqrt().max(LEAST_STD) as f32;
        Self {
            mean: mean.into_iter().map(|mean| mean as f32).collect(),
            std: variance.into_iter().map(std).collect(),
        }
    }

    /// Normalises frames in place.
    ///
    /// # Panics
    /// If the values are no whole number of frames.
    pub fn apply(&self, values: &mut [f32]) {
        let features = self.mean.len();
        assert!(
            values.len().is_multiple_of(features),
            "{} values are no whole number of frames of {features} features",
            values.len()
        );
        for frame in values.chunks_exact_mut(features) {
            for ((value, mean), std) in frame.iter_mut().zip(&self.mean).zip(&self.std) {
                *value = (*value - mean) / std;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalised_frames_have_mean_0_and_deviation_1() {
        let (frames, features) = (301, 3);
        let value = |i: usize| {
            let (t, band) = (i / features, i % features);
            (t * t % 17) as f32 * 10f32.powi(band as i32 - 1) - 20.0
        };
        let mut values: Vec<f32> = (0..frames * features).map(value).collect();
        FeatureNormalization::of(&values, features).apply(&mut values);
        for band in 0..features {
            let of = || values.iter().skip(band).step_by(features);
            let mean = of().map(|&v| f64::from(v)).sum::<f64>() / frames as f64;
            let square = of().map(|&v| f64::from(v).powi(2)).sum::<f64>() / frames as f64;
            // The mean is rounded to f32 near 20, and the least deviation is about 0.5.
            let tolerance = 20.0 / 0.4 * f64::from(f32::EPSILON);
            assert!(mean.abs() < tolerance, "{band}: {mean}");
            assert!((square - 1.0).abs() < 2.0 * tolerance, "{band}: {square}");
        }
    }

    #[test]
    fn what_never_changes_becomes_0_and_nothing_stays_nothing() {
        for frames in [1, 7] {
            let mut values = vec![-18.42; frames * 2];
            FeatureNormalization::of(&values, 2).apply(&mut values);
            assert_eq!(values, vec![0.0; frames * 2]);
        }
        let of = FeatureNormalization::of(&[], 2);
        assert_eq!((of.mean, of.std), (vec![0.0; 2], vec![1.0; 2]));
    }
}
