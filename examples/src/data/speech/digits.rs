//! Spoken digits: 3,000 recordings of six speakers who say zero to nine in English, 8 kHz
//! (Jakobovski and others, *Free Spoken Digit Dataset*, CC BY-SA 4.0).
//!
//! A recording is called `{digit}_{speaker}_{index}.wav`; indices 0 to 4 are the test set, as its
//! authors ask for. So every speaker is heard in training and in the test: accuracies are those for
//! known voices.
//!
//! The validation split is drawn likewise, by recording: a part of every digit of the training
//! recordings, from all speakers. It does not leak, as no recording is there twice, and statistics
//! come from what is left for training. A split by speaker would choose checkpoints for a harder
//! task than the test sets.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::recording::{CLASSES, Recording, limited, list};
use super::{LogMel, SpeechConfig, SpeechDataset, Utterances, read_wav};
use crate::data::decode::check_total;
use crate::data::{DataError, LoadOptions, SkippedFile, cache};
use crate::progress::Progress;

const DATASET: &str = "spoken-digits";
/// The set's folder in the cache, and the one in it (and in its repository) with the recordings.
const FOLDER: &str = "fsdd";
const RECORDINGS: &str = "recordings";
/// Recordings of the complete set.
const COMPLETE: usize = 3000;
/// Indices below this are the test set.
const TEST_INDICES: u32 = 5;
/// Where the set is published.
const REPOSITORY: &str = "https://github.com/Jakobovski/free-spoken-digit-dataset";

/// Loads the set from `options.data` (a clone of its repository, or the folder with the recordings)
/// or from `fsdd` in the cache, and makes the features of all recordings, in parallel.
///
/// `options.limit` and `test_limit` choose recordings, evenly from all digits; `size` and `grey` are
/// for images and mean nothing here. A recording that cannot be used is left out and named in
/// [`SpeechDataset::skipped`]. The same options and files give the same set, to the bit.
///
/// The set is not downloaded: the error says how to get it.
///
/// # Errors
/// [`DataError::Missing`] if it is nowhere to be had, [`DataError::Incomplete`] if recordings are
/// missing in the cache, [`DataError::Empty`] without training or test recordings,
/// [`DataError::AllBroken`] if none can be read, [`DataError::Options`] for options or
/// features that make no sense, [`DataError::TooLarge`] for too much of it.
///
/// ```no_run
/// use examples::data::LoadOptions;
/// use examples::data::speech::{SpeechConfig, digits};
///
/// let data = digits::load(&LoadOptions::default(), &SpeechConfig::default())?;
/// println!("{}", data.summary());
/// let loaders = data.loaders(32, 42);
/// let device = burn::tensor::Device::default();
/// for batch in loaders.train.epoch(0, &device) {
///     assert_eq!(batch.features.dims()[1..], [100, 40]);
/// }
/// # Ok::<(), examples::data::DataError>(())
/// ```
pub fn load(options: &LoadOptions, config: &SpeechConfig) -> Result<SpeechDataset, DataError> {
    match &options.data {
        Some(dir) => load_from(dir, None, options, config),
        None => load_from(&find(cache::root())?, Some(COMPLETE), options, config),
    }
}

/// The set's folder in the cache.
fn find(root: Option<PathBuf>) -> Result<PathBuf, DataError> {
    let missing = |tried: String, help: String| DataError::Missing {
        dataset: DATASET,
        tried: vec![tried],
        help,
    };
    let Some(folder) = root.map(|root| root.join(FOLDER)) else {
        return Err(missing(
            "this system has no cache folder (is HOME set?)".into(),
            format!("Run `git clone {REPOSITORY}` and point --data at the clone"),
        ));
    };
    if folder.is_dir() {
        return Ok(folder);
    }
    let place = folder.display();
    Err(missing(
        format!("not in the cache ({place})"),
        format!("Run `git clone --depth 1 {REPOSITORY} {place}`, or point --data at a copy of it"),
    ))
}

fn load_from(
    dir: &Path,
    complete: Option<usize>,
    options: &LoadOptions,
    config: &SpeechConfig,
) -> Result<SpeechDataset, DataError> {
    options.check()?;
    let log_mel = LogMel::new(&config.features)?;
    if config.max_frames == 0 {
        return Err(DataError::Options(
            "sequences of at most 0 frames hold nothing; take more".into(),
        ));
    }
    let nested = dir.join(RECORDINGS);
    let dir = if nested.is_dir() { &nested } else { dir };
    let (recordings, mut skipped) = list(dir)?;
    if let Some(expected) = complete.filter(|&expected| expected != recordings.len()) {
        return Err(DataError::Incomplete {
            path: dir.to_path_buf(),
            found: recordings.len(),
            expected,
        });
    }
    let mut speakers: Vec<String> = recordings.iter().map(|r| r.speaker.clone()).collect();
    speakers.sort();
    speakers.dedup();
    let (test, train): (Vec<_>, Vec<_>) =
        recordings.into_iter().partition(|r| r.index < TEST_INDICES);
    let wanted = "recordings {digit}_{speaker}_{index}.wav, indices 0 to 4 for the test, others to \
                  train on";
    if train.is_empty() || test.is_empty() {
        return Err(DataError::Empty {
            path: dir.to_path_buf(),
            wanted,
        });
    }
    let train = limited(train, options.limit, options.seed);
    let test = limited(test, options.test_limit, options.seed);
    let count = train.len() + test.len();
    let bytes = config
        .max_frames
        .saturating_mul(log_mel.features())
        .saturating_mul(4);
    check_total(count, bytes)?;
    let progress = Progress::when(options.progress, "spectrograms", count as u64);
    let train = features(dir, &train, &log_mel, config.max_frames, &progress);
    let test = features(dir, &test, &log_mel, config.max_frames, &progress);
    progress.finish();
    let (train, test) = (train?, test?);
    skipped.extend(train.skipped);
    skipped.extend(test.skipped);
    let mut notices = Vec::new();
    let cut = train.cut + test.cut;
    if cut > 0 {
        notices.push(format!(
            "{cut} of {count} recordings have more than {} frames and lost their end",
            config.max_frames
        ));
    }
    let set = SpeechDataset {
        name: DATASET.into(),
        classes: (0..CLASSES).map(|digit| digit.to_string()).collect(),
        speakers,
        config: config.clone(),
        normalization: None,
        valid: Utterances::new(log_mel.features()),
        train: train.utterances,
        test: test.utterances,
        skipped,
        notices,
    };
    Ok(set.finish(options.valid_fraction, options.seed))
}

/// Recordings turned into features.
struct Made {
    utterances: Utterances,
    skipped: Vec<SkippedFile>,
    /// How many were longer than allowed.
    cut: usize,
}

fn features(
    dir: &Path,
    recordings: &[Recording],
    log_mel: &LogMel,
    max_frames: usize,
    progress: &Progress,
) -> Result<Made, DataError> {
    let most = max_frames.saturating_mul(log_mel.features());
    let path = |recording: &Recording| dir.join(recording.name() + ".wav");
    let make = |recording: &Recording| {
        let made = read_wav(&path(recording), log_mel.config().sample_rate).map(|samples| {
            let mut frames = log_mel.extract(&samples);
            let cut = frames.len() > most;
            frames.truncate(most);
            frames.shrink_to_fit();
            (frames, cut)
        });
        progress.inc(1);
        made
    };
    let results: Vec<_> = recordings.par_iter().map(make).collect();
    let mut made = Made {
        utterances: Utterances::new(log_mel.features()),
        skipped: Vec::new(),
        cut: 0,
    };
    for (recording, result) in recordings.iter().zip(results) {
        match result {
            Ok((frames, cut)) => {
                made.cut += usize::from(cut);
                let name = recording.name();
                made.utterances.push(&frames, recording.digit, name)?;
            }
            Err(error) => made.skipped.push(SkippedFile {
                path: path(recording),
                reason: error.to_string(),
            }),
        }
    }
    if let (true, Some(first)) = (made.utterances.is_empty(), made.skipped.first()) {
        return Err(DataError::AllBroken {
            path: dir.to_path_buf(),
            count: made.skipped.len(),
            first: format!("{}: {}", first.path.display(), first.reason),
        });
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::speech::testing::{DIGIT_HZ, write_tone};
    use crate::data::speech::{Deltas, LogMelConfig};
    use crate::testing::skip;
    use std::collections::BTreeSet;
    use std::fs;

    /// Digits 0 to 9 by two speakers with so many indices each, as tones.
    fn write_tiny(dir: &Path, indices: u32) {
        fs::create_dir_all(dir).unwrap();
        for digit in 0..10 {
            for speaker in ["ann", "bob_b"] {
                for index in 0..indices {
                    let path = dir.join(format!("{digit}_{speaker}_{index}.wav"));
                    write_tone(&path, DIGIT_HZ[digit as usize], 400 + 80 * index as usize);
                }
            }
        }
    }

    fn options(dir: &Path) -> LoadOptions {
        LoadOptions {
            data: Some(dir.into()),
            valid_fraction: 0.2,
            ..LoadOptions::default()
        }
    }

    fn names(split: &Utterances) -> BTreeSet<String> {
        split.names().iter().cloned().collect()
    }

    #[test]
    fn a_tiny_set_is_split_by_index_then_by_seed() {
        let dir = tempfile::tempdir().unwrap();
        write_tiny(&dir.path().join(RECORDINGS), 10);
        let config = SpeechConfig::default();
        let set = load(&options(dir.path()), &config).unwrap();
        assert_eq!(set.speakers, ["ann", "bob_b"]);
        assert_eq!(set.train.class_counts(10), [8; 10]);
        assert_eq!(set.valid.class_counts(10), [2; 10]);
        assert_eq!(set.test.class_counts(10), [10; 10]);
        let [train, valid, test] = [&set.train, &set.valid, &set.test].map(names);
        assert_eq!((train.len(), valid.len(), test.len()), (80, 20, 100));
        assert!(train.is_disjoint(&valid) && train.is_disjoint(&test) && valid.is_disjoint(&test));
        let index = |name: &String| name.rsplit('_').next().unwrap().parse::<u32>().unwrap();
        assert!(test.iter().all(|name| index(name) < 5));
        assert!(train.union(&valid).all(|name| index(name) >= 5));
        assert!(
            set.skipped.is_empty() && set.notices.is_empty(),
            "{}",
            set.summary()
        );
        // The folder of the recordings itself loads the same set.
        let again = load(&options(&dir.path().join(RECORDINGS)), &config).unwrap();
        assert_eq!(
            (&set.train, &set.valid, &set.test),
            (&again.train, &again.valid, &again.test)
        );
        let other = LoadOptions {
            seed: 1,
            ..options(dir.path())
        };
        let other = load(&other, &config).unwrap();
        assert_ne!(names(&other.valid), valid);
        assert_eq!(names(&other.test), test);
    }

    #[test]
    fn limits_are_even_over_the_digits() {
        let dir = tempfile::tempdir().unwrap();
        write_tiny(dir.path(), 10);
        let options = LoadOptions {
            limit: Some(50),
            test_limit: Some(20),
            ..options(dir.path())
        };
        let set = load(&options, &SpeechConfig::default()).unwrap();
        assert_eq!(set.train.class_counts(10), [4; 10]);
        assert_eq!(set.valid.class_counts(10), [1; 10]);
        assert_eq!(set.test.class_counts(10), [2; 10]);
    }

    #[test]
    fn features_belong_to_their_labels_and_long_recordings_are_cut() {
        let dir = tempfile::tempdir().unwrap();
        write_tiny(dir.path(), 6);
        let config = SpeechConfig {
            normalize: crate::data::speech::Normalize::None,
            max_frames: 7,
            features: LogMelConfig {
                deltas: Deltas::First,
                ..LogMelConfig::default()
            },
        };
        let options = LoadOptions {
            valid_fraction: 0.0,
            ..options(dir.path())
        };
        let set = load(&options, &config).unwrap();
        let log_mel = LogMel::new(&config.features).unwrap();
        for split in [&set.train, &set.test] {
            for i in 0..split.len() {
                let name = &split.names()[i];
                assert!(name.starts_with(&format!("{}_", split.labels()[i])));
                let path = dir.path().join(format!("{name}.wav"));
                let mut wanted = log_mel.extract(&read_wav(&path, 8000).unwrap());
                wanted.truncate(7 * 80);
                assert_eq!(split.utterance(i), wanted);
            }
        }
        // 400 + 80 i samples have 3 + i frames: one index of each digit and speaker is too long.
        assert_eq!(set.notices.len(), 1);
        assert!(
            set.notices[0].starts_with("20 of 120"),
            "{}",
            set.notices[0]
        );
    }

    #[test]
    fn broken_and_misnamed_files_are_left_out_by_name() {
        let dir = tempfile::tempdir().unwrap();
        write_tiny(dir.path(), 6);
        fs::write(dir.path().join("3_ann_5.wav"), b"broken").unwrap();
        for name in [
            "10_ann_9.wav",
            "1_ann_05.wav",
            "1__5.wav",
            "1_ann.wav",
            "x.wav",
        ] {
            fs::write(dir.path().join(name), b"").unwrap();
        }
        fs::write(dir.path().join("readme.txt"), b"").unwrap();
        let set = load(&options(dir.path()), &SpeechConfig::default()).unwrap();
        assert_eq!(set.skipped.len(), 6);
        assert_eq!(set.train.len() + set.valid.len(), 19);
        assert!(set.summary().contains("skipped 6"), "{}", set.summary());
        let broken = set
            .skipped
            .iter()
            .find(|file| file.path.ends_with("3_ann_5.wav"));
        assert!(broken.unwrap().reason.contains("WAV"));
    }

    #[test]
    fn what_is_missing_or_wrong_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let config = SpeechConfig::default();
        for root in [None, Some(dir.path().to_path_buf())] {
            let error = find(root).unwrap_err();
            assert!(error.is_missing());
            let text = error.to_string();
            assert!(
                text.contains("git clone") && text.contains("--data"),
                "{text}"
            );
        }
        let error = load(&options(&dir.path().join("absent")), &config).unwrap_err();
        assert!(matches!(error, DataError::Io { .. }), "{error}");
        let error = load(&options(dir.path()), &config).unwrap_err();
        assert!(matches!(error, DataError::Empty { .. }), "{error}");
        write_tiny(dir.path(), 5);
        let error = load(&options(dir.path()), &config).unwrap_err();
        assert!(matches!(error, DataError::Empty { .. }), "{error}");
        let error = load_from(dir.path(), Some(COMPLETE), &options(dir.path()), &config);
        let error = error.unwrap_err();
        assert!(
            matches!(
                error,
                DataError::Incomplete {
                    found: 100,
                    expected: COMPLETE,
                    ..
                }
            ),
            "{error}"
        );
        fs::write(dir.path().join("0_ann_7.wav"), b"broken").unwrap();
        let error = load(&options(dir.path()), &config).unwrap_err();
        assert!(
            matches!(error, DataError::AllBroken { count: 1, .. }),
            "{error}"
        );
        write_tone(&dir.path().join("0_ann_7.wav"), 440.0, 400);
        for max_frames in [0, usize::MAX] {
            let config = SpeechConfig {
                max_frames,
                ..config.clone()
            };
            assert!(load(&options(dir.path()), &config).is_err());
        }
        let senseless = LoadOptions {
            valid_fraction: 1.0,
            ..options(dir.path())
        };
        assert!(load(&senseless, &config).is_err());
        let nothing = LoadOptions {
            limit: Some(0),
            ..options(dir.path())
        };
        assert!(load(&nothing, &config).is_err());
    }

    #[test]
    fn the_real_set_loads_whole() {
        let set = match load(&LoadOptions::default(), &SpeechConfig::default()) {
            Err(error) if error.is_missing() => {
                return skip(
                    "digits::the_real_set_loads_whole",
                    "data",
                    &error.to_string(),
                );
            }
            set => set.unwrap(),
        };
        assert!(set.skipped.is_empty(), "{}", set.summary());
        assert_eq!(set.speakers.len(), 6);
        assert_eq!(set.train.class_counts(10), [243; 10]);
        assert_eq!(set.valid.class_counts(10), [27; 10]);
        assert_eq!(set.test.class_counts(10), [30; 10]);
        let [train, valid, test] = [&set.train, &set.valid, &set.test].map(names);
        assert!(train.is_disjoint(&valid) && train.is_disjoint(&test) && valid.is_disjoint(&test));
        for split in [&set.train, &set.valid, &set.test] {
            assert!(split.values().iter().all(|value| value.is_finite()));
            assert!((0..split.len()).all(|i| (1..=100).contains(&split.frames(i))));
        }
        // Few are longer than a second, and most test recordings are shorter than half of one.
        assert_eq!(set.notices.len(), 1, "{}", set.summary());
        let half = (0..set.test.len())
            .filter(|&i| set.test.frames(i) < 50)
            .count();
        assert!(half > 200, "{half}");
        let normalised = super::super::FeatureNormalization::of(set.train.values(), 40);
        for (mean, std) in normalised.mean.iter().zip(&normalised.std) {
            assert!(
                mean.abs() < 1e-4 && (std - 1.0).abs() < 1e-4,
                "{mean} {std}"
            );
        }
    }
}
