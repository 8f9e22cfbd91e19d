//! The mel scale and its bank of triangular filters.

use crate::data::DataError;

/// The pitch `m` in mel of a frequency `f` in Hz: `m = 2595 log10(1 + f / 700)` (O'Shaughnessy,
/// *Speech Communication*, 1987; the formula of HTK, not Slaney's).
#[must_use]
pub fn hz_to_mel(hz: f64) -> f64 {
    2595.0 * (1.0 + hz / 700.0).log10()
}

/// The frequency `f` in Hz of a pitch `m` in mel: `f = 700 (10^(m / 2595) - 1)`.
#[must_use]
pub fn mel_to_hz(mel: f64) -> f64 {
    700.0 * (10f64.powf(mel / 2595.0) - 1.0)
}

/// Triangular filters over the bins of a power spectrum (Davis and Mermelstein, *Comparison of
/// Parametric Representations for Monosyllabic Word Recognition*, 1980).
///
/// `bands + 2` corner frequencies lie at equal distances in mel. Band `b` rises linearly in Hz from
/// corner `b` to 1 at corner `b + 1` and falls to 0 at corner `b + 2`; its area is not normalised,
/// as the features are normalised per band anyway.
#[derive(Clone, Debug)]
pub(crate) struct MelBank {
    /// For each band the first bin and the weights from there on.
    bands: Vec<(usize, Vec<f64>)>,
}

impl MelBank {
    /// Filters from `low` to `high` Hz over `bins` bins that are `bin_hz` Hz apart, from 0 Hz.
    ///
    /// # Errors
    /// [`DataError::Options`] for a band that lies between two bins.
    pub(crate) fn new(
        bands: usize,
        low: f64,
        high: f64,
        bins: usize,
        bin_hz: f64,
    ) -> Result<Self, DataError> {
        let (first, last) = (hz_to_mel(low), hz_to_mel(high));
        let corner = |i: usize| mel_to_hz(first + (last - first) * i as f64 / (bands + 1) as f64);
        let band = |b: usize| {
            let (left, middle, right) = (corner(b), corner(b + 1), corner(b + 2));
            let weights = (0..bins).map(|bin| {
                let hz = bin as f64 * bin_hz;
                let (rise, fall) = (
                    (hz - left) / (middle - left),
                    (right - hz) / (right - middle),
                );
                rise.min(fall).max(0.0)
            });
            let weights: Vec<(usize, f64)> = weights.enumerate().filter(|w| w.1 > 0.0).collect();
            let Some(&(start, _)) = weights.first() else {
                return Err(DataError::Options(format!(
                    "mel band {b} of {bands}, {left:.1} to {right:.1} Hz, lies between two bins of \
                     {bin_hz:.1} Hz; take fewer bands, a wider range or a longer window"
                )));
            };
            Ok((start, weights.into_iter().map(|w| w.1).collect()))
        };
        let bands = (0..bands).map(band).collect::<Result<_, _>>()?;
        Ok(Self { bands })
    }

    /// Energy of each band: the weighted sums of the powers of the bins.
    pub(crate) fn apply<'a>(&'a self, power: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
        self.bands.iter().map(|(start, weights)| {
            let bins = &power[*start..start + weights.len()];
            weights.iter().zip(bins).map(|(w, p)| w * p).sum()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_has_its_known_values() {
        // 1000 Hz is 1000 mel, to the digits of the constant 2595.
        assert!((hz_to_mel(1000.0) - 1000.0).abs() < 0.02);
        assert_eq!(hz_to_mel(0.0), 0.0);
        for hz in [1.0, 100.0, 4000.0, 22_050.0] {
            assert!((mel_to_hz(hz_to_mel(hz)) - hz).abs() < 1e-12 * hz.max(700.0));
        }
    }

    #[test]
    fn neighbours_share_each_bin_between_the_outer_middles() {
        let (bands, low, high, bins, bin_hz) = (40, 100.0, 4000.0, 129, 31.25);
        let bank = MelBank::new(bands, low, high, bins, bin_hz).unwrap();
        let step = (hz_to_mel(high) - hz_to_mel(low)) / 41.0;
        let (first, last) = (
            mel_to_hz(hz_to_mel(low) + step),
            mel_to_hz(hz_to_mel(high) - step),
        );
        for bin in 0..bins {
            let mut power = vec![0.0; bins];
            power[bin] = 1.0;
            let sum: f64 = bank.apply(&power).sum();
            let hz = bin as f64 * bin_hz;
            if hz <= low || hz >= high {
                assert_eq!(sum, 0.0, "{hz} Hz");
            } else if (first..=last).contains(&hz) {
                assert!((sum - 1.0).abs() < 1e-12, "{hz} Hz: {sum}");
            } else {
                assert!(sum > 0.0 && sum < 1.0, "{hz} Hz: {sum}");
            }
        }
    }

    #[test]
    fn a_band_without_a_bin_is_an_error_that_names_it() {
        let error = MelBank::new(40, 100.0, 4000.0, 33, 125.0).unwrap_err();
        assert!(error.to_string().contains("mel band"), "{error}");
        assert!(error.to_string().contains("125.0 Hz"), "{error}");
    }
}
