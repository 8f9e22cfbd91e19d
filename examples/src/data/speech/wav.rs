//! From a WAV file to samples of one channel: bounded, checked, never a panic.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use hound::{SampleFormat, WavReader};

use crate::data::decode::read_bounded;

/// Bytes of the longest file read.
const MAX_FILE: u64 = 16 << 20;
/// Seconds of the longest recording.
const MAX_SECONDS: u32 = 60;

/// Why a WAV file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WavError {
    /// The file cannot be read, is no ordinary file or is too large.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// The header contradicts itself or is none.
    #[error("no usable WAV file: {0}; convert it, for example with sox")]
    Malformed(String),
    /// Compressed sound, or samples of an unusual width.
    #[error("{0}; convert it to 16-bit PCM, for example with sox")]
    Unsupported(String),
    /// Another sampling rate than the features are made for.
    #[error("{found} samples per second instead of {wanted}; resample it, for example with sox")]
    SampleRate {
        /// Samples per second of the file, in Hz.
        found: u32,
        /// Samples per second wanted, in Hz.
        wanted: u32,
    },
    /// The header promises more sound than is taken.
    #[error("{seconds} s of sound, more than the {limit} s allowed; cut it into words")]
    TooLong {
        /// Whole seconds promised.
        seconds: u32,
        /// Seconds allowed.
        limit: u32,
    },
    /// The file ends before its last sample.
    #[error("{promised} samples promised, {found} read; fetch the file again")]
    Truncated {
        /// Samples promised by the header, all channels together.
        promised: u32,
        /// Samples that could be read.
        found: u32,
    },
    /// There is not a single sample.
    #[error("holds no sound; leave it out")]
    Silent,
    /// A floating-point sample is infinite or no number.
    #[error("sample {at} is not finite; record or convert it again")]
    NotFinite {
        /// Its number, all channels counted.
        at: usize,
    },
}

/// Reads a WAV file: the mean of its channels, full scale being 1.
///
/// PCM of 8, 16, 24 and 32 bits and 32-bit floats are understood. `sample_rate` is in Hz; files of
/// another rate are refused and not resampled.
///
/// # Errors
/// [`WavError`], each with what to do about it. Files above 16 MiB and recordings above 60 s are
/// refused; memory grows with what is read, whatever the header promises.
pub fn read_wav(path: &Path, sample_rate: u32) -> Result<Vec<f32>, WavError> {
    let bytes = read_bounded(path, MAX_FILE).map_err(WavError::Unreadable)?;
    decode_wav(&bytes, sample_rate)
}

/// [`read_wav`] of a file that is already in memory.
///
/// # Errors
/// Those of [`read_wav`], except [`WavError::Unreadable`].
///
/// ```
/// use examples::data::speech::{WavError, decode_wav};
///
/// let error = decode_wav(b"no sound", 8000).unwrap_err();
/// assert!(matches!(error, WavError::Malformed(_)));
/// ```
pub fn decode_wav(bytes: &[u8], sample_rate: u32) -> Result<Vec<f32>, WavError> {
    // A panic inside the decoder is the file's fault too.
    catch_unwind(AssertUnwindSafe(|| decode(bytes, sample_rate)))
        .unwrap_or_else(|_| Err(WavError::Malformed("the decoder panicked".into())))
}

fn decode(bytes: &[u8], sample_rate: u32) -> Result<Vec<f32>, WavError> {
    let mut reader = WavReader::new(Cursor::new(bytes)).map_err(|error| match error {
        hound::Error::Unsupported => WavError::Unsupported("compressed sound".into()),
        error => WavError::Malformed(error.to_string()),
    })?;
    let spec = reader.spec();
    if spec.sample_rate != sample_rate {
        return Err(WavError::SampleRate {
            found: spec.sample_rate,
            wanted: sample_rate,
        });
    }
    let seconds = reader.duration() / sample_rate.max(1);
    if reader.duration() > sample_rate.saturating_mul(MAX_SECONDS) {
        return Err(WavError::TooLong {
            seconds,
            limit: MAX_SECONDS,
        });
    }
    let promised = reader.len();
    let samples: Vec<f32> = match (spec.sample_format, spec.bits_per_sample) {
        (SampleFormat::Int, bits @ (8 | 16 | 24 | 32)) => {
            let full_scale = 2f64.powi(i32::from(bits) - 1);
            let scaled = |sample: i32| (f64::from(sample) / full_scale) as f32;
            let samples = reader.samples::<i32>().map_while(Result::ok);
            samples.map(scaled).collect()
        }
        (SampleFormat::Float, 32) => reader.samples::<f32>().map_while(Result::ok).collect(),
        (format, bits) => {
            return Err(WavError::Unsupported(format!(
                "samples of {bits} bits ({format:?})"
            )));
        }
    };
    if samples.len() as u32 != promised {
        return Err(WavError::Truncated {
            promised,
            found: samples.len() as u32,
        });
    }
    if let Some(at) = samples.iter().position(|sample| !sample.is_finite()) {
        return Err(WavError::NotFinite { at });
    }
    if samples.is_empty() {
        return Err(WavError::Silent);
    }
    let channels = usize::from(spec.channels);
    if channels == 1 {
        return Ok(samples);
    }
    let mean = |all: &[f32]| {
        let sum: f64 = all.iter().map(|&sample| f64::from(sample)).sum();
        (sum / channels as f64) as f32
    };
    Ok(samples.chunks_exact(channels).map(mean).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::seed::{Purpose, rng};
    use hound::{WavSpec, WavWriter};
    use rand::Rng;

    fn spec(channels: u16, bits: u16, format: SampleFormat) -> WavSpec {
        WavSpec {
            channels,
            sample_rate: 8000,
            bits_per_sample: bits,
            sample_format: format,
        }
    }

    fn ints(spec: WavSpec, samples: &[i32]) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        let mut writer = WavWriter::new(&mut file, spec).unwrap();
        for &sample in samples {
            writer.write_sample(sample).unwrap();
        }
        writer.finalize().unwrap();
        file.into_inner()
    }

    fn floats(samples: &[f32]) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        let mut writer = WavWriter::new(&mut file, spec(1, 32, SampleFormat::Float)).unwrap();
        for &sample in samples {
            writer.write_sample(sample).unwrap();
        }
        writer.finalize().unwrap();
        file.into_inner()
    }

    /// The 44 bytes in front of plain 16-bit PCM, with any numbers in them, then the data.
    fn header(
        tag: u16,
        channels: u16,
        rate: u32,
        bits: u16,
        promised: u32,
        data: &[u8],
    ) -> Vec<u8> {
        let align = channels.wrapping_mul(bits / 8);
        let mut file = b"RIFF\xff\xff\xff\x7fWAVEfmt \x10\0\0\0".to_vec();
        file.extend(tag.to_le_bytes());
        file.extend(channels.to_le_bytes());
        file.extend(rate.to_le_bytes());
        file.extend(rate.wrapping_mul(u32::from(align)).to_le_bytes());
        file.extend(align.to_le_bytes());
        file.extend(bits.to_le_bytes());
        file.extend(b"data");
        file.extend(promised.to_le_bytes());
        file.extend(data);
        file
    }

    #[test]
    fn every_width_is_scaled_to_one() {
        for bits in [8, 16, 24, 32u16] {
            let top = (1i64 << (bits - 1)) as f64;
            let samples = [
                0,
                1,
                -1,
                (top - 1.0) as i32,
                -top as i32,
                (top / 2.0) as i32,
            ];
            let file = ints(spec(1, bits, SampleFormat::Int), &samples);
            let wanted = samples.map(|s| (f64::from(s) / top) as f32);
            assert_eq!(decode_wav(&file, 8000).unwrap(), wanted, "{bits} bits");
        }
        let samples = [0.0, 0.5, -1.0, 1.5];
        assert_eq!(decode_wav(&floats(&samples), 8000).unwrap(), samples);
    }

    #[test]
    fn channels_are_averaged() {
        let stereo = ints(
            spec(2, 16, SampleFormat::Int),
            &[16384, 0, -8192, 8192, 1, 2],
        );
        assert_eq!(
            decode_wav(&stereo, 8000).unwrap(),
            [0.25, 0.0, 1.5 / 32768.0]
        );
    }

    #[test]
    fn hostile_files_get_typed_errors() {
        let pcm = |promised: u32, data: &[u8]| header(1, 1, 8000, 16, promised, data);
        let whole = pcm(8, &[0; 8]);
        assert_eq!(decode_wav(&whole, 8000).unwrap(), [0.0; 4]);
        for end in 0..44 {
            let error = decode_wav(&whole[..end], 8000).unwrap_err();
            assert!(matches!(error, WavError::Malformed(_)), "{end}: {error}");
        }
        let truncated = |promised, found| WavError::Truncated { promised, found };
        assert_eq!(decode_wav(&whole[..49], 8000), Err(truncated(4, 2)));
        assert_eq!(
            decode_wav(&pcm(8000, &[0; 10]), 8000),
            Err(truncated(4000, 5))
        );
        assert_eq!(decode_wav(&pcm(0, &[]), 8000), Err(WavError::Silent));
        assert_eq!(
            decode_wav(&pcm(u32::MAX - 1, &[0; 8]), 8000),
            Err(WavError::TooLong {
                seconds: 268_435,
                limit: 60
            })
        );
        let rate = header(1, 1, 16_000, 16, 8, &[0; 8]);
        let error = decode_wav(&rate, 8000).unwrap_err();
        assert_eq!(
            error,
            WavError::SampleRate {
                found: 16_000,
                wanted: 8000
            }
        );
        assert!(error.to_string().contains("16000"), "{error}");
        assert_eq!(
            decode_wav(&floats(&[0.0, f32::NAN]), 8000),
            Err(WavError::NotFinite { at: 1 })
        );
        for broken in [
            header(1, 0, 8000, 16, 8, &[0; 8]),
            header(1, 1, 8000, 0, 8, &[0; 8]),
            header(1, 1, 8000, 12, 8, &[0; 8]),
            header(1, u16::MAX, 8000, 16, 8, &[0; 8]),
            header(1, 3, 8000, 16, 8, &[0; 8]),
            header(3, 1, 8000, 16, 8, &[0; 8]),
            pcm(7, &[0; 7]),
            b"RIFF".repeat(50),
        ] {
            let error = decode_wav(&broken, 8000).unwrap_err();
            assert!(matches!(error, WavError::Malformed(_)), "{error}");
        }
        for tag in [2, 6, 85] {
            let error = decode_wav(&header(tag, 1, 8000, 16, 8, &[0; 8]), 8000).unwrap_err();
            assert!(matches!(error, WavError::Unsupported(_)), "{error}");
        }
        let odd = header(1, 1, 8000, 40, 10, &[0; 10]);
        assert!(matches!(
            decode_wav(&odd, 8000),
            Err(WavError::Unsupported(_))
        ));
    }

    #[test]
    fn files_that_are_none_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().to_path_buf(), dir.path().join("absent.wav")] {
            let error = read_wav(&path, 8000).unwrap_err();
            assert!(matches!(error, WavError::Unreadable(_)), "{error}");
        }
        let path = dir.path().join("huge.wav");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(MAX_FILE + 1).unwrap();
        let error = read_wav(&path, 8000).unwrap_err();
        assert!(error.to_string().contains("allowed"), "{error}");
    }

    #[test]
    fn mutated_files_never_panic() {
        let mut random = rng(1, Purpose::Subset, 0);
        let whole = ints(spec(2, 24, SampleFormat::Int), &[123_456; 64]);
        for _ in 0..4000 {
            let mut bytes = whole.clone();
            for _ in 0..random.random_range(1..6) {
                // Mostly in the header, where the decisions are.
                let end = if random.random() { 68 } else { bytes.len() };
                bytes[random.random_range(0..end)] = random.random();
            }
            bytes.truncate(random.random_range(0..=bytes.len()));
            // The decoder itself, without the net below it.
            if let Ok(samples) = decode(&bytes, 8000) {
                assert!(samples.len() <= bytes.len());
                assert!(samples.iter().all(|sample| sample.is_finite()));
            }
        }
    }
}
