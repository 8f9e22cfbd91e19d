//! Levels for given values. Values that are on such levels already keep them: fitting is idempotent.

pub(in crate::quantize) mod codebook;
mod fixed;
mod powers;
mod uniform;

use burn_sparse::quant::common_scale;

use super::{Grid, LevelKind, Quantization, QuantizeError};

use codebook::kmeans_exact;
use uniform::uniform_scan;

impl Quantization {
    /// Levels of this kind with a small squared error for `values`, survivors of pruning: whole
    /// weights, or those of one output channel.
    ///
    /// | kind | how | how near |
    /// |---|---|---|
    /// | uniform | 256 intervals, each refined by alternating codes and `q = Σ w c / Σ c²` | within 0.2 % of a fine scan (the error has several minima) |
    /// | powers of two | every largest exponent | exact |
    /// | codebook | k-means: exact where that takes a moment; of more values Lloyd's algorithm from quantiles, equal intervals, k-means++ and the exact solution for a part of them, empty clusters filled | exact, or within a tenth |
    /// | fixed point, symmetric, asymmetric | the range that [`Saturation`](super::Saturation) picks | as that says |
    ///
    /// # Errors
    /// [`QuantizeError::NonFinite`] for a NaN or an infinity.
    pub fn fit(self, values: &[f32]) -> Result<Grid, QuantizeError> {
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            let value = values[index];
            return Err(QuantizeError::NonFinite { index, value });
        }
        let bits = self.bits();
        match self.kind() {
            LevelKind::Uniform => Ok(uniform::fit(values, bits)),
            LevelKind::PowersOfTwo => Ok(powers::fit(values, bits)),
            LevelKind::Codebook => Ok(codebook::fit(values, 1 << bits)),
            LevelKind::FixedPoint(saturation) => fixed::point(values, bits, saturation),
            LevelKind::Symmetric(saturation) => fixed::symmetric(values, bits, saturation),
            LevelKind::Asymmetric(saturation) => fixed::asymmetric(values, bits, saturation),
        }
    }

    /// As [`fit`](Self::fit) by the plainest possible search: the oracle of the tests.
    ///
    /// # Errors
    /// As [`fit`](Self::fit).
    pub fn fit_naive(self, values: &[f32]) -> Result<Grid, QuantizeError> {
        match self.kind() {
            LevelKind::Uniform => Ok(uniform_scan(values, self.bits())),
            LevelKind::Codebook => Ok(kmeans_exact(values, 1 << self.bits())),
            LevelKind::PowersOfTwo => Ok(powers::scan(values, self.bits())),
            _ => self.fit(values),
        }
    }
}

/// The scale of which `values` are multiples already; zeros of either sign are multiples of any.
fn known_scale(values: &[f32], most: u32) -> Option<f32> {
    let survivors: Vec<f32> = values.iter().copied().filter(|v| *v != 0.0).collect();
    common_scale(&survivors, most)
}
