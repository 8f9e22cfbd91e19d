//! Recordings in memory: WAV files, log-mel features, splits and batches.
//!
//! [`digits::load`] is the way in: it finds the spoken digits, reads each recording
//! ([`read_wav`]), turns it into a log-mel spectrogram once ([`LogMel`]), splits and normalises.
//! [`SpeechDataset::loaders`] turns the splits into batches `[batch, time, features]` with true
//! lengths.
//!
//! ```
//! use examples::data::speech::{LogMel, LogMelConfig, Padding, Utterances};
//!
//! let log_mel = LogMel::new(&LogMelConfig::default())?;
//! let tone = |hz: f32| (0..2000).map(move |n| (n as f32 * hz / 8000.0 * 6.2832).sin());
//! let mut recordings = Utterances::new(log_mel.features());
//! for (label, hz) in [(0, 300.0), (1, 2000.0)] {
//!     let samples: Vec<f32> = tone(hz).collect();
//!     recordings.push(&log_mel.extract(&samples), label, format!("{hz} Hz"))?;
//! }
//!
//! let device = burn::tensor::Device::flex();
//! let batch = recordings.batch(&[0, 1], Padding::To(30), &device);
//! assert_eq!(batch.features.dims(), [2, 30, 40]);
//! assert_eq!(batch.mask().sum().into_scalar::<f32>(), 2.0 * 23.0);
//! # Ok::<(), examples::data::DataError>(())
//! ```

mod args;
mod batch;
mod dataset;
mod deltas;
pub mod digits;
mod features;
mod mel;
mod normalize;
mod recording;
#[cfg(test)]
pub(super) mod testing;
mod wav;

pub use args::SpeechArgs;
pub use batch::{Padding, SpeechBatch, SpeechBatches, SpeechLoader};
pub use dataset::{SpeechConfig, SpeechDataset, SpeechLoaders, Utterances};
pub use deltas::Deltas;
pub use features::{LogMel, LogMelConfig};
pub use mel::{hz_to_mel, mel_to_hz};
pub use normalize::{FeatureNormalization, Normalize};
pub use wav::{WavError, decode_wav, read_wav};
