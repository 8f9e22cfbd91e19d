//! Log-mel spectrograms: how much energy each band of frequencies has, every few milliseconds.

use std::f64::consts::TAU;
use std::fmt;
use std::sync::Arc;

use realfft::{RealFftPlanner, RealToComplex};
use serde::{Deserialize, Serialize};

use super::Deltas;
use super::mel::MelBank;
use crate::data::DataError;

/// Most samples of a window.
const MAX_WINDOW: usize = 1 << 16;
/// Most bands.
const MAX_BANDS: usize = 512;

/// Numbers of a log-mel spectrogram; the default is for speech at 8 kHz.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogMelConfig {
    /// Samples per second, in Hz.
    pub sample_rate: u32,
    /// Length of a window, in ms.
    pub window_ms: f64,
    /// From the start of a window to the start of the next, in ms.
    pub hop_ms: f64,
    /// Number of mel bands.
    pub bands: usize,
    /// Lower end of the first band, in Hz.
    pub low_hz: f64,
    /// Upper end of the last band, in Hz.
    pub high_hz: f64,
    /// Least energy whose logarithm is taken. The default, 1e-8, is about what rounding to 16 bits
    /// leaves in a band of silence.
    pub floor: f64,
    /// Changes over time beside the bands.
    pub deltas: Deltas,
}

impl Default for LogMelConfig {
    /// 8 kHz, windows of 25 ms every 10 ms, 40 bands from 100 to 4000 Hz, no deltas.
    fn default() -> Self {
        Self {
            sample_rate: 8000,
            window_ms: 25.0,
            hop_ms: 10.0,
            bands: 40,
            low_hz: 100.0,
            high_hz: 4000.0,
            floor: 1e-8,
            deltas: Deltas::None,
        }
    }
}

impl LogMelConfig {
    /// Features per frame: bands, and their changes if asked for.
    #[must_use]
    pub fn features(&self) -> usize {
        self.bands.saturating_mul(self.deltas.factor())
    }

    /// Samples of a window and of a hop.
    fn check(&self) -> Result<(usize, usize), DataError> {
        let rate = f64::from(self.sample_rate);
        let samples = |ms: f64| (ms / 1000.0 * rate).round();
        let (window, hop) = (samples(self.window_ms), samples(self.hop_ms));
        let whole = |samples: f64| (1.0..=MAX_WINDOW as f64).contains(&samples);
        let fault = if !whole(window) || !whole(hop) || window < 2.0 {
            format!(
                "windows of {} ms every {} ms are {window} and {hop} samples at {rate} Hz; windows \
                 take 2 to {MAX_WINDOW} samples, hops 1 to {MAX_WINDOW}",
                self.window_ms, self.hop_ms
            )
        } else if !(1..=MAX_BANDS).contains(&self.bands) {
            format!("{} mel bands; take 1 to {MAX_BANDS}", self.bands)
        } else if !(0.0 <= self.low_hz && self.low_hz < self.high_hz && self.high_hz <= rate / 2.0)
        {
            format!(
                "bands from {} to {} Hz; frequencies must rise and lie between 0 and {} Hz, half \
                 the sample rate",
                self.low_hz,
                self.high_hz,
                rate / 2.0
            )
        } else if !(self.floor > 0.0 && self.floor.is_finite()) {
            format!("a least energy of {}; take a positive number", self.floor)
        } else {
            return Ok((window as usize, hop as usize));
        };
        Err(DataError::Options(fault))
    }
}

/// Makes log-mel spectrograms.
///
/// Frame `t` holds `ln(max(e[b], floor))` for each band `b`, where
/// `e[b] = sum_k H[b, k] |X[k]|²`, `H` are triangles on the mel scale of HTK (1 at their middle, see
/// [`hz_to_mel`](super::hz_to_mel)), and `X` is the Fourier transform of the samples
/// `[t * hop, t * hop + window)` under a periodic Hann window, `0.5 - 0.5 cos(2 π n / window)`,
/// filled with zeros to the next power of two. Sums are in f64.
///
/// ```
/// use examples::data::speech::{LogMel, LogMelConfig};
///
/// let log_mel = LogMel::new(&LogMelConfig::default())?;
/// let second = vec![0.0; 8000];
/// assert_eq!((log_mel.frames(8000), log_mel.features()), (98, 40));
/// assert_eq!(log_mel.extract(&second), vec![1e-8f32.ln(); 98 * 40]);
/// # Ok::<(), examples::data::DataError>(())
/// ```
#[derive(Clone)]
pub struct LogMel {
    window: Vec<f64>,
    hop: usize,
    fft: Arc<dyn RealToComplex<f64>>,
    bank: MelBank,
    config: LogMelConfig,
}

impl LogMel {
    /// Plans the transform and the filters.
    ///
    /// # Errors
    /// [`DataError::Options`] for numbers that make no spectrogram.
    pub fn new(config: &LogMelConfig) -> Result<Self, DataError> {
        let (window, hop) = config.check()?;
        let points = window.next_power_of_two();
        let bank = MelBank::new(
            config.bands,
            config.low_hz,
            config.high_hz,
            points / 2 + 1,
            f64::from(config.sample_rate) / points as f64,
        )?;
        let hann = |n| 0.5 - 0.5 * (TAU * n as f64 / window as f64).cos();
        Ok(Self {
            window: (0..window).map(hann).collect(),
            hop,
            fft: RealFftPlanner::new().plan_fft_forward(points),
            bank,
            config: config.clone(),
        })
    }

    /// The numbers it was made with.
    #[must_use]
    pub fn config(&self) -> &LogMelConfig {
        &self.config
    }

    /// Features per frame.
    #[must_use]
    pub fn features(&self) -> usize {
        self.config.features()
    }

    /// Frames of so many samples: windows that lie wholly inside. A recording shorter than one
    /// window is filled with zeros to a single frame; without samples there is none.
    #[must_use]
    pub fn frames(&self, samples: usize) -> usize {
        match samples.checked_sub(self.window.len()) {
            Some(rest) => 1 + rest / self.hop,
            None => usize::from(samples > 0),
        }
    }

    /// The spectrogram of samples whose full scale is 1: `[frames, features]`, frame after frame.
    #[must_use]
    pub fn extract(&self, samples: &[f32]) -> Vec<f32> {
        let frames = self.frames(samples.len());
        let mut energies = Vec::with_capacity(frames * self.config.bands);
        let mut spectrum = Spectrum::new(self);
        for frame in 0..frames {
            let start = frame * self.hop;
            let end = samples.len().min(start + self.window.len());
            let power = spectrum.power(&samples[start..end]);
            let logs = self
                .bank
                .apply(power)
                .map(|e| e.max(self.config.floor).ln());
            energies.extend(logs);
        }
        let all = self.config.deltas.beside(energies, self.config.bands);
        all.into_iter().map(|value| value as f32).collect()
    }
}

impl fmt::Debug for LogMel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogMel")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Power spectra of single windows, in memory that is used again.
struct Spectrum<'a> {
    plan: &'a LogMel,
    input: Vec<f64>,
    output: Vec<realfft::num_complex::Complex<f64>>,
    scratch: Vec<realfft::num_complex::Complex<f64>>,
    power: Vec<f64>,
}

impl<'a> Spectrum<'a> {
    fn new(plan: &'a LogMel) -> Self {
        let output = plan.fft.make_output_vec();
        Self {
            plan,
            input: plan.fft.make_input_vec(),
            power: vec![0.0; output.len()],
            output,
            scratch: plan.fft.make_scratch_vec(),
        }
    }

    /// `|X[k]|²` of at most a window of samples, `k` from 0 to half the points of the transform.
    fn power(&mut self, samples: &[f32]) -> &[f64] {
        self.input.fill(0.0);
        for ((to, &sample), weight) in self.input.iter_mut().zip(samples).zip(&self.plan.window) {
            *to = f64::from(sample) * weight;
        }
        self.plan
            .fft
            .process_with_scratch(&mut self.input, &mut self.output, &mut self.scratch)
            .expect("the plan itself made these vectors");
        for (power, value) in self.power.iter_mut().zip(&self.output) {
            *power = value.norm_sqr();
        }
        &self.power
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::seed::{Purpose, rng};
    use crate::data::speech::{hz_to_mel, mel_to_hz};
    use rand::Rng;

    fn noise(count: usize, seed: u64) -> Vec<f32> {
        let mut random = rng(seed, Purpose::Subset, 0);
        (0..count).map(|_| random.random_range(-1.0..1.0)).collect()
    }

    fn tone(hz: f64, count: usize) -> Vec<f32> {
        (0..count)
            .map(|n| (0.5 * (TAU * hz * n as f64 / 8000.0).sin()) as f32)
            .collect()
    }

    /// The definition, as loops: window, slow Fourier transform, triangles, floor, logarithm.
    fn naive(config: &LogMelConfig, samples: &[f32]) -> Vec<f64> {
        let rate = f64::from(config.sample_rate);
        let window = (config.window_ms * rate / 1000.0).round() as usize;
        let hop = (config.hop_ms * rate / 1000.0).round() as usize;
        let mut points = 1;
        while points < window {
            points *= 2;
        }
        let mut padded = samples.to_vec();
        while !padded.is_empty() && padded.len() < window {
            padded.push(0.0);
        }
        let mut out = Vec::new();
        let mut start = 0;
        while start + window <= padded.len() {
            let mut power = vec![0.0; points / 2 + 1];
            for (k, power) in power.iter_mut().enumerate() {
                let (mut re, mut im) = (0.0, 0.0);
                for n in 0..window {
                    let hann = (std::f64::consts::PI * n as f64 / window as f64)
                        .sin()
                        .powi(2);
                    let angle = -TAU * ((k * n) % points) as f64 / points as f64;
                    re += f64::from(padded[start + n]) * hann * angle.cos();
                    im += f64::from(padded[start + n]) * hann * angle.sin();
                }
                *power = re * re + im * im;
            }
            let (low, high) = (hz_to_mel(config.low_hz), hz_to_mel(config.high_hz));
            let step = (high - low) / (config.bands + 1) as f64;
            for b in 0..config.bands {
                let corner = |i: usize| mel_to_hz(low + step * (b + i) as f64);
                let mut energy = 0.0;
                for (k, power) in power.iter().enumerate() {
                    let hz = k as f64 * rate / points as f64;
                    if hz > corner(0) && hz <= corner(1) {
                        energy += power * (hz - corner(0)) / (corner(1) - corner(0));
                    } else if hz > corner(1) && hz < corner(2) {
                        energy += power * (corner(2) - hz) / (corner(2) - corner(1));
                    }
                }
                out.push(if energy < config.floor {
                    config.floor.ln()
                } else {
                    energy.ln()
                });
            }
            start += hop;
        }
        out
    }

    #[test]
    fn features_equal_the_slow_definition() {
        let usual = LogMelConfig::default();
        // Windows of 3, 80 and 201 samples, hops longer than a window, a range that starts at 0.
        let odd = [
            usual.clone(),
            LogMelConfig {
                window_ms: 10.0,
                hop_ms: 12.5,
                bands: 13,
                ..usual.clone()
            },
            LogMelConfig {
                window_ms: 25.1,
                hop_ms: 0.9,
                bands: 7,
                low_hz: 0.0,
                ..usual.clone()
            },
            LogMelConfig {
                window_ms: 0.375,
                bands: 1,
                high_hz: 3999.0,
                ..usual.clone()
            },
            LogMelConfig {
                sample_rate: 16_000,
                high_hz: 7600.0,
                ..usual
            },
        ];
        for config in odd {
            let log_mel = LogMel::new(&config).unwrap();
            for count in [0, 1, 2, 3, 79, 199, 200, 201, 279, 280, 281, 777] {
                let loud = noise(count, count as u64);
                let quiet: Vec<f32> = loud.iter().map(|v| v * 1e-6).collect();
                for samples in [loud, quiet] {
                    let got = log_mel.extract(&samples);
                    let wanted = naive(&config, &samples);
                    assert_eq!(got.len(), wanted.len(), "{count} samples");
                    assert_eq!(got.len(), log_mel.frames(count) * log_mel.features());
                    for (got, wanted) in got.iter().zip(&wanted) {
                        // f64 sums of 512 terms leave 1e-13 of the largest power, which no band
                        // undercuts by more than 1e6 here; then one rounding to f32.
                        let tolerance = 1e-7 + wanted.abs() * f64::from(f32::EPSILON);
                        assert!(
                            (f64::from(*got) - wanted).abs() < tolerance,
                            "{got} {wanted}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_spectrum_keeps_the_energy_of_its_window() {
        let log_mel = LogMel::new(&LogMelConfig::default()).unwrap();
        let mut spectrum = Spectrum::new(&log_mel);
        for count in [1, 7, 199, 200] {
            let samples = noise(count, 9);
            let power = spectrum.power(&samples);
            // Parseval: all bins of the transform, the inner ones standing for their mirror too.
            let inner: f64 = power[1..128].iter().sum();
            let bins = (power[0] + 2.0 * inner + power[128]) / 256.0;
            let time: f64 = samples
                .iter()
                .zip(&log_mel.window)
                .map(|(&x, w)| (f64::from(x) * w).powi(2))
                .sum();
            assert!(
                (bins - time).abs() <= 1e-13 * time.max(1.0),
                "{bins} {time}"
            );
        }
    }

    #[test]
    fn a_tone_lands_in_its_band_and_doubling_it_adds_ln_4() {
        let config = LogMelConfig::default();
        let log_mel = LogMel::new(&config).unwrap();
        let low = hz_to_mel(config.low_hz);
        let step = (hz_to_mel(config.high_hz) - low) / 41.0;
        // Below band 4 the bands are narrower than the window resolves.
        for band in 4..40 {
            let hz = mel_to_hz(low + step * (band + 1) as f64);
            let samples = tone(hz, 1000);
            let features = log_mel.extract(&samples);
            let double: Vec<f32> = samples.iter().map(|s| 2.0 * s).collect();
            let double = log_mel.extract(&double);
            for (frame, louder) in features.chunks(40).zip(double.chunks(40)) {
                let top = (0..40)
                    .max_by(|&a, &b| frame[a].total_cmp(&frame[b]))
                    .unwrap();
                assert_eq!(top, band, "{hz} Hz");
                assert!((louder[band] - frame[band] - 4f32.ln()).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn deltas_follow_the_bands() {
        let plain = LogMel::new(&LogMelConfig::default()).unwrap();
        let config = LogMelConfig {
            deltas: Deltas::Second,
            ..LogMelConfig::default()
        };
        let with = LogMel::new(&config).unwrap();
        let samples = noise(1500, 4);
        let (plain, all) = (plain.extract(&samples), with.extract(&samples));
        assert_eq!((with.features(), all.len()), (120, 3 * plain.len()));
        for (bands, all) in plain.chunks(40).zip(all.chunks(120)) {
            assert_eq!(bands, &all[..40]);
        }
    }

    #[test]
    fn senseless_numbers_are_errors() {
        let usual = LogMelConfig::default();
        for config in [
            LogMelConfig {
                sample_rate: 0,
                ..usual.clone()
            },
            LogMelConfig {
                window_ms: 0.1,
                ..usual.clone()
            },
            LogMelConfig {
                window_ms: f64::NAN,
                ..usual.clone()
            },
            LogMelConfig {
                window_ms: 1e12,
                ..usual.clone()
            },
            LogMelConfig {
                hop_ms: 0.0,
                ..usual.clone()
            },
            LogMelConfig {
                hop_ms: f64::INFINITY,
                ..usual.clone()
            },
            LogMelConfig {
                bands: 0,
                ..usual.clone()
            },
            LogMelConfig {
                bands: usize::MAX,
                ..usual.clone()
            },
            LogMelConfig {
                bands: 200,
                ..usual.clone()
            },
            LogMelConfig {
                low_hz: -1.0,
                ..usual.clone()
            },
            LogMelConfig {
                low_hz: 4000.0,
                ..usual.clone()
            },
            LogMelConfig {
                high_hz: 4000.1,
                ..usual.clone()
            },
            LogMelConfig {
                high_hz: f64::NAN,
                ..usual.clone()
            },
            LogMelConfig {
                floor: 0.0,
                ..usual.clone()
            },
        ] {
            let error = LogMel::new(&config).unwrap_err();
            assert!(matches!(error, DataError::Options(_)), "{error}");
        }
        let json = serde_json::to_string(&usual).unwrap();
        assert_eq!(serde_json::from_str::<LogMelConfig>(&json).unwrap(), usual);
    }
}
