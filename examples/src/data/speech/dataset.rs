//! Features of recordings with their labels.

use serde::{Deserialize, Serialize};

use super::{FeatureNormalization, LogMelConfig, Normalize, SpeechLoader};
use crate::data::{DataError, SkippedFile, carve};

/// How recordings become sequences of features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpeechConfig {
    /// The spectrogram.
    pub features: LogMelConfig,
    /// How features are normalised.
    pub normalize: Normalize,
    /// Frames of the longest sequence; what is longer loses its end. The default, 100, is a second.
    pub max_frames: usize,
}

impl Default for SpeechConfig {
    /// 40 bands at 8 kHz, normalised with the training set's statistics, at most 100 frames.
    fn default() -> Self {
        Self {
            features: LogMelConfig::default(),
            normalize: Normalize::default(),
            max_frames: 100,
        }
    }
}

/// Recordings of one purpose (training, validation or test): sequences of frames, one after another.
#[derive(Clone, Debug, PartialEq)]
pub struct Utterances {
    features: usize,
    values: Vec<f32>,
    /// Where each sequence ends, in values.
    ends: Vec<usize>,
    labels: Vec<u32>,
    names: Vec<String>,
}

impl Utterances {
    /// No recordings yet, with so many features per frame.
    ///
    /// # Panics
    /// If `features` is zero.
    #[must_use]
    pub fn new(features: usize) -> Self {
        assert!(features > 0, "a frame needs at least one feature");
        Self {
            features,
            values: Vec::new(),
            ends: Vec::new(),
            labels: Vec::new(),
            names: Vec::new(),
        }
    }

    /// Adds a recording: its frames, its class number and the name it goes by.
    ///
    /// # Errors
    /// [`DataError::Options`] if the values are no whole number of frames, or none at all.
    pub fn push(
        &mut self,
        frames: &[f32],
        label: u32,
        name: impl Into<String>,
    ) -> Result<(), DataError> {
        if frames.is_empty() || !frames.len().is_multiple_of(self.features) {
            return Err(DataError::Options(format!(
                "{} values are no whole number of frames of {} features",
                frames.len(),
                self.features
            )));
        }
        self.values.extend_from_slice(frames);
        self.ends.push(self.values.len());
        self.labels.push(label);
        self.names.push(name.into());
        Ok(())
    }

    /// Features per frame.
    #[must_use]
    pub fn features(&self) -> usize {
        self.features
    }

    /// Number of recordings.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no recordings.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The features of recording `index`, `[frames, features]`.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len).
    #[must_use]
    pub fn utterance(&self, index: usize) -> &[f32] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.values[start..self.ends[index]]
    }

    /// Frames of recording `index`.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len).
    #[must_use]
    pub fn frames(&self, index: usize) -> usize {
        self.utterance(index).len() / self.features
    }

    /// The features of all recordings, one after another.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The class number of every recording.
    #[must_use]
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// The name of every recording, such as `7_theo_12`.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Recordings per class, for `classes` classes.
    ///
    /// # Panics
    /// If a label is not below `classes`.
    #[must_use]
    pub fn class_counts(&self, classes: usize) -> Vec<usize> {
        let mut counts = vec![0; classes];
        for &label in &self.labels {
            counts[label as usize] += 1;
        }
        counts
    }

    /// Copies the recordings at `indices`, in that order.
    ///
    /// # Panics
    /// If an index is not below [`len`](Self::len).
    #[must_use]
    pub fn select(&self, indices: &[usize]) -> Self {
        let mut chosen = Self::new(self.features);
        for &index in indices {
            chosen.values.extend_from_slice(self.utterance(index));
            chosen.ends.push(chosen.values.len());
            chosen.labels.push(self.labels[index]);
            chosen.names.push(self.names[index].clone());
        }
        chosen
    }

    /// Normalises every recording by its own statistics, or all by the given ones.
    fn normalize(&mut self, by: Option<&FeatureNormalization>) {
        if let Some(by) = by {
            by.apply(&mut self.values);
            return;
        }
        let mut start = 0;
        for &end in &self.ends {
            let own = &mut self.values[start..end];
            FeatureNormalization::of(own, self.features).apply(own);
            start = end;
        }
    }
}

/// A labelled set of recordings with its three splits, ready for [`SpeechLoader`].
///
/// The validation split is carved out of the training recordings: checkpoints are chosen on it, so
/// the test split stays unseen until the end.
#[derive(Clone, Debug)]
pub struct SpeechDataset {
    /// The set's name, such as `spoken-digits`.
    pub name: String,
    /// Class names, in label order.
    pub classes: Vec<String>,
    /// Who speaks, sorted.
    pub speakers: Vec<String>,
    /// How the features were made.
    pub config: SpeechConfig,
    /// The training set's statistics, where features were normalised with them; keep them with the
    /// network.
    pub normalization: Option<FeatureNormalization>,
    /// Recordings to train on.
    pub train: Utterances,
    /// Recordings to choose a checkpoint on.
    pub valid: Utterances,
    /// Recordings for the final accuracy.
    pub test: Utterances,
    /// Files that were left out.
    pub skipped: Vec<SkippedFile>,
    /// What the reader of the results must know, such as recordings that were cut; print it.
    pub notices: Vec<String>,
}

/// The batches of all three splits.
#[derive(Clone, Debug)]
pub struct SpeechLoaders<'a> {
    /// Shuffled training batches.
    pub train: SpeechLoader<'a>,
    /// Validation batches in stored order.
    pub valid: SpeechLoader<'a>,
    /// Test batches in stored order.
    pub test: SpeechLoader<'a>,
}

impl SpeechDataset {
    /// Number of classes.
    #[must_use]
    pub fn num_classes(&self) -> usize {
        self.classes.len()
    }

    /// Features per frame: the input size of a network.
    #[must_use]
    pub fn features(&self) -> usize {
        self.train.features()
    }

    /// The batches of the three splits, at most `batch` recordings each, the training split shuffled
    /// by `seed`.
    ///
    /// # Panics
    /// If `batch` is zero.
    #[must_use]
    pub fn loaders(&self, batch: usize, seed: u64) -> SpeechLoaders<'_> {
        SpeechLoaders {
            train: SpeechLoader::train(self, batch, seed),
            valid: SpeechLoader::eval(self, &self.valid, batch),
            test: SpeechLoader::eval(self, &self.test, batch),
        }
    }

    /// Moves `fraction` of every class of the training recordings into the validation split, then
    /// normalises, with what the remaining training recordings say.
    pub(crate) fn finish(mut self, fraction: f64, seed: u64) -> Self {
        if fraction > 0.0 {
            let (train, valid) = carve(self.train.labels(), self.num_classes(), fraction, seed);
            self.valid = self.train.select(&valid);
            self.train = self.train.select(&train);
        }
        if self.config.normalize == Normalize::Dataset {
            let features = self.features();
            self.normalization = Some(FeatureNormalization::of(self.train.values(), features));
        }
        if self.config.normalize != Normalize::None {
            for split in [&mut self.train, &mut self.valid, &mut self.test] {
                split.normalize(self.normalization.as_ref());
            }
        }
        self
    }

    /// One line on what was loaded, then one per notice and per skipped file (the first five).
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = format!(
            "{}: {} classes, {} speakers, {} features, at most {} frames; {} train, {} validation, \
             {} test",
            self.name,
            self.num_classes(),
            self.speakers.len(),
            self.features(),
            self.config.max_frames,
            self.train.len(),
            self.valid.len(),
            self.test.len()
        );
        for notice in &self.notices {
            text.push_str(&format!("\nnotice: {notice}"));
        }
        text.push_str(&SkippedFile::list(&self.skipped));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ragged() -> Utterances {
        let mut set = Utterances::new(2);
        set.push(&[1.0, 2.0], 0, "a").unwrap();
        set.push(&[3.0, 4.0, 5.0, 6.0, 7.0, 8.0], 1, "b").unwrap();
        set.push(&[9.0, 0.0, 1.0, 0.0], 1, "c").unwrap();
        set
    }

    #[test]
    fn sequences_keep_their_lengths_and_names() {
        let set = ragged();
        assert_eq!((set.len(), set.features()), (3, 2));
        assert_eq!([0, 1, 2].map(|i| set.frames(i)), [1, 3, 2]);
        assert_eq!(set.utterance(2), [9.0, 0.0, 1.0, 0.0]);
        assert_eq!(set.class_counts(2), [1, 2]);
        let chosen = set.select(&[2, 0, 2]);
        assert_eq!(chosen.names(), ["c", "a", "c"]);
        assert_eq!(chosen.labels(), [1, 0, 1]);
        assert_eq!(chosen.utterance(1), set.utterance(0));
        assert_eq!(chosen.utterance(2), set.utterance(2));
        assert!(set.select(&[]).is_empty());
    }

    #[test]
    fn incomplete_frames_are_errors() {
        let mut set = Utterances::new(3);
        for values in [&[][..], &[1.0], &[1.0; 4]] {
            assert!(set.push(values, 0, "x").is_err());
        }
        assert!(set.is_empty() && set.values().is_empty());
    }

    #[test]
    fn statistics_come_from_training_alone_or_from_each_recording() {
        let set = |normalize| SpeechDataset {
            name: "tiny".into(),
            classes: vec!["0".into(), "1".into()],
            speakers: vec!["x".into()],
            config: SpeechConfig {
                normalize,
                ..SpeechConfig::default()
            },
            normalization: None,
            train: ragged(),
            valid: Utterances::new(2),
            test: ragged().select(&[1]),
            skipped: Vec::new(),
            notices: vec!["two recordings were cut".into()],
        };
        let by_set = set(Normalize::Dataset).finish(0.5, 0);
        assert_eq!((by_set.train.len(), by_set.valid.len()), (2, 1));
        // The lone recording of class 0 and one of class 1 remain.
        let kept = by_set.train.names().iter().any(|name| name == "b");
        let kept = ragged().select(&[0, if kept { 1 } else { 2 }]);
        let statistics = FeatureNormalization::of(kept.values(), 2);
        assert_eq!(by_set.normalization, Some(statistics.clone()));
        let mut test = ragged().utterance(1).to_vec();
        statistics.apply(&mut test);
        assert_eq!(by_set.test.values(), test);

        let by_own = set(Normalize::Utterance).finish(0.0, 0);
        assert_eq!(by_own.normalization, None);
        assert_eq!(by_own.train.utterance(0), [0.0, 0.0]);
        assert_eq!(by_own.train.utterance(1), by_own.test.utterance(0));
        assert_eq!(by_own.test.utterance(0)[2..4], [0.0, 0.0]);
        let as_is = set(Normalize::None).finish(0.0, 0);
        assert_eq!(as_is.train, ragged());
        assert!(
            as_is.summary().contains("notice: two recordings"),
            "{}",
            as_is.summary()
        );
    }
}
