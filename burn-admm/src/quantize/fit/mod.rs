//! Levels for given values. Values that are on such levels already keep them: fitting is idempotent.

pub(in crate::quantize) mod codebook;
mod fixed;
mod powers;
mod uniform;

use super::{Grid, LevelKind, Quantization, QuantizeError};

use codebook::kmeans_exact;
use uniform::uniform_scan;

impl Quantization {
    /// Levels of this kind with a small squared error for `values`, survivors of pruning: whole
    /// weights, or those of one output channel.
    ///
    /// | kind | how | how near |
    /// |---|---|---|
    /// | uniform | 64 intervals, each refined by alternating codes and `q = Σ w c / Σ c²` | within 0.2 % of a fine scan (the error has several minima) |
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

/// The interval of which all values are whole multiples of at most `most`, if there is one.
fn known_scale(values: &[f32], most: u32) -> Option<f32> {
    let rows = [0, u32::try_from(values.len()).ok()?];
    let found = burn_sparse::quant::Quantized::find(values, &rows)?;
    use burn_sparse::quant::Levels;
    let scale = match found.levels() {
        Levels::Nonzero { scales } | Levels::Signed { scales } => scales[0],
        Levels::Codebook(codebook) => {
            // A codebook may be smaller than integers that would do as well.
            let bits = found.codes().bits();
            let scaled = (0..codebook.len()).map(|code| found.levels().value(code as u16, bits, 0));
            return scale_of(scaled.collect(), most);
        }
    };
    let fits = |value: &f32| (value / scale).abs().round() <= most as f32;
    values.iter().all(fits).then_some(scale)
}

/// The same of a few different values.
fn scale_of(levels: Vec<f32>, most: u32) -> Option<f32> {
    let magnitudes: Vec<f32> = levels
        .iter()
        .map(|l| l.abs())
        .filter(|l| *l > 0.0)
        .collect();
    let least = magnitudes.iter().copied().fold(f32::INFINITY, f32::min);
    if !least.is_finite() {
        return None;
    }
    let multiple = |value: f32, scale: f32| {
        let k = (value / scale).round();
        k >= 1.0 && k <= most as f32 && k * scale == value
    };
    (1..=most)
        .flat_map(|k| {
            let scale = least / k as f32;
            [
                scale,
                scale.next_down(),
                scale.next_up(),
                scale.next_down().next_down(),
                scale.next_up().next_up(),
            ]
        })
        .find(|&scale| scale > 0.0 && magnitudes.iter().all(|&value| multiple(value, scale)))
}
