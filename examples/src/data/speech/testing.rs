//! Drawn recordings for the tests of this module.

use std::f32::consts::TAU;
use std::path::Path;

use hound::{SampleFormat, WavSpec, WavWriter};

use super::{SpeechConfig, SpeechDataset, Utterances};

/// A pitch for each digit.
pub(super) const DIGIT_HZ: [f32; 10] = [
    250.0, 400.0, 560.0, 750.0, 980.0, 1250.0, 1580.0, 1960.0, 2430.0, 3000.0,
];

/// Writes a tone: 8 kHz, one channel, 16 bits.
pub(super) fn write_tone(path: &Path, hz: f32, samples: usize) {
    let spec = WavSpec {
        channels: 1,
        sample_rate: 8000,
        bits_per_sample: 16,
        sample_format: SampleFormat::Int,
    };
    let mut writer = WavWriter::create(path, spec).unwrap();
    for n in 0..samples {
        let value = (n as f32 * hz / 8000.0 * TAU).sin();
        writer.write_sample((value * 9000.0) as i16).unwrap();
    }
    writer.finalize().unwrap();
}

/// A set of sequences with 1 to 9 frames of 3 features, every value its own, nothing for validation.
pub(in crate::data) fn drawn(count: usize) -> SpeechDataset {
    let mut train = Utterances::new(3);
    for i in 0..count {
        let frames = 1 + i * 7 % 9;
        let values: Vec<f32> = (0..frames * 3).map(|v| (1 + i * 27 + v) as f32).collect();
        train.push(&values, i as u32 % 4, i.to_string()).unwrap();
    }
    SpeechDataset {
        name: "drawn".into(),
        classes: (0..4).map(|class| class.to_string()).collect(),
        speakers: vec!["nobody".into()],
        config: SpeechConfig {
            max_frames: 9,
            ..SpeechConfig::default()
        },
        normalization: None,
        valid: Utterances::new(3),
        test: train.select(&[1, 0, 2]),
        train,
        skipped: Vec::new(),
        notices: Vec::new(),
    }
}
