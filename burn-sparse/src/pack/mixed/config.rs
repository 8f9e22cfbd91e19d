//! What a mixed network may consist of.

use std::path::PathBuf;

use burn::tensor::FloatDType;

use super::super::PackConfig;
use crate::nn::Trace;

/// Settings of [`mix`](super::mix).
#[derive(Debug, Clone)]
pub struct MixedConfig {
    pub(super) pack: PackConfig,
    pub(super) dtypes: Vec<FloatDType>,
    pub(super) sub_batches: Option<Vec<usize>>,
}

impl MixedConfig {
    /// f32 and f16, and 1, 2, 4, 8, … images at once up to the batch that `trace` saw; sparse from half of the
    /// weights zero on. A type that a device does not compute in is left out for it.
    pub fn new(trace: Trace) -> Self {
        Self {
            pack: PackConfig::measure(trace),
            dtypes: vec![FloatDType::F32, FloatDType::F16],
            sub_batches: None,
        }
    }

    /// The types of numbers to measure. f32 is always among them.
    #[must_use]
    pub fn with_dtypes(mut self, dtypes: impl IntoIterator<Item = FloatDType>) -> Self {
        self.dtypes = vec![FloatDType::F32];
        for dtype in dtypes {
            if !self.dtypes.contains(&dtype) {
                self.dtypes.push(dtype);
            }
        }
        self
    }

    /// How many images at once to measure, besides the whole batch.
    #[must_use]
    pub fn with_sub_batches(mut self, images: impl IntoIterator<Item = usize>) -> Self {
        self.sub_batches = Some(images.into_iter().collect());
        self
    }

    /// Fraction of zeros below which no sparse form is measured; 0.5 by default.
    #[must_use]
    pub fn with_min_sparsity(mut self, min_sparsity: f64) -> Self {
        self.pack = self.pack.with_min_sparsity(min_sparsity);
        self
    }

    /// Timed runs of each form, of which the median counts; 9 by default. Slow layers get fewer, never fewer than
    /// three.
    #[must_use]
    pub fn with_runs(mut self, runs: usize) -> Self {
        self.pack = self.pack.with_runs(runs);
        self
    }

    /// As [`PackConfig::with_plan_cache`].
    #[must_use]
    pub fn with_plan_cache(mut self, path: impl Into<Option<PathBuf>>) -> Self {
        self.pack = self.pack.with_plan_cache(path);
        self
    }

    /// Numbers of images at once for a batch, in rising order, the whole batch last.
    pub(super) fn sub_batches(&self, batch: usize) -> Vec<usize> {
        let mut images = match &self.sub_batches {
            Some(images) => images.clone(),
            None => (0..usize::BITS).map(|power| 1 << power).collect(),
        };
        images.retain(|&images| images >= 1 && images < batch);
        images.push(batch.max(1));
        images.sort_unstable();
        images.dedup();
        images
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two_and_the_batch() {
        let config = MixedConfig::new(Trace::default());
        assert_eq!(config.sub_batches(1), [1]);
        assert_eq!(config.sub_batches(6), [1, 2, 4, 6]);
        assert_eq!(config.sub_batches(8), [1, 2, 4, 8]);
        let config = config.with_sub_batches([3, 0, 3, 50]);
        assert_eq!(config.sub_batches(5), [3, 5]);
    }

    #[test]
    fn f32_is_always_measured() {
        let half = [FloatDType::F16, FloatDType::F16];
        let config = MixedConfig::new(Trace::default()).with_dtypes(half);
        assert_eq!(config.dtypes, [FloatDType::F32, FloatDType::F16]);
    }
}
