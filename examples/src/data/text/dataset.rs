//! Sentences as numbers, with their labels.

use serde::{Deserialize, Serialize};

use super::Vocabulary;
use crate::data::{DataError, carve};

/// How sentences become sequences of word numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextConfig {
    /// Words seen fewer times in the training sentences are unknown words.
    pub min_count: usize,
    /// Words of the longest sequence; what is longer loses its end.
    pub max_words: usize,
}

impl Default for TextConfig {
    /// Every word that was seen twice, at most 64 words.
    fn default() -> Self {
        Self {
            min_count: 2,
            max_words: 64,
        }
    }
}

/// A sentence before its words have numbers, and its class number.
pub(super) type Labelled = (Vec<String>, u32);

/// Sentences of one purpose (training, validation or test): word numbers, one sentence after another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sentences {
    words: Vec<u32>,
    /// Where each sentence ends, in words.
    ends: Vec<usize>,
    labels: Vec<u32>,
}

impl Sentences {
    /// Adds a sentence and its class number.
    ///
    /// # Errors
    /// [`DataError::Options`] for a sentence without words.
    pub fn push(&mut self, words: &[u32], label: u32) -> Result<(), DataError> {
        if words.is_empty() {
            return Err(DataError::Options("a sentence without words".into()));
        }
        self.words.extend_from_slice(words);
        self.ends.push(self.words.len());
        self.labels.push(label);
        Ok(())
    }

    /// Number of sentences.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no sentences.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The word numbers of sentence `index`.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len).
    #[must_use]
    pub fn sentence(&self, index: usize) -> &[u32] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.words[start..self.ends[index]]
    }

    /// The class number of every sentence.
    #[must_use]
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// The index of a sentence of median length; nothing without sentences.
    #[must_use]
    pub fn median(&self) -> Option<usize> {
        let mut by_length: Vec<usize> = (0..self.len()).collect();
        by_length.sort_by_key(|&index| self.sentence(index).len());
        by_length.get(by_length.len() / 2).copied()
    }

    /// Copies the sentences at `indices`, in that order.
    ///
    /// # Panics
    /// If an index is not below [`len`](Self::len).
    #[must_use]
    pub fn select(&self, indices: &[usize]) -> Self {
        let mut chosen = Self::default();
        for &index in indices {
            chosen.words.extend_from_slice(self.sentence(index));
            chosen.ends.push(chosen.words.len());
            chosen.labels.push(self.labels[index]);
        }
        chosen
    }

    /// How many words are [`Vocabulary::UNKNOWN`].
    #[must_use]
    pub fn unknown(&self) -> usize {
        let unknown = |&&word: &&u32| word == Vocabulary::UNKNOWN;
        self.words.iter().filter(unknown).count()
    }

    fn of(labelled: &[Labelled], vocabulary: &Vocabulary, max_words: usize) -> Self {
        let mut all = Self::default();
        for (words, label) in labelled {
            let words = words.iter().take(max_words);
            all.words.extend(words.map(|word| vocabulary.number(word)));
            all.ends.push(all.words.len());
            all.labels.push(*label);
        }
        all
    }
}

/// A labelled set of sentences with its three splits, ready for [`TextLoader`](super::TextLoader).
///
/// The vocabulary is that of the training split alone: words of the other two that were never trained
/// on are unknown. Checkpoints are chosen on the validation split, so the test split stays unseen
/// until the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextDataset {
    /// The set's name, such as `movie-reviews`.
    pub name: String,
    /// Class names, in label order.
    pub classes: Vec<String>,
    /// How sentences became numbers.
    pub config: TextConfig,
    /// The words that have numbers.
    pub vocabulary: Vocabulary,
    /// Sentences to train on.
    pub train: Sentences,
    /// Sentences to choose a checkpoint on.
    pub valid: Sentences,
    /// Sentences for the final accuracy.
    pub test: Sentences,
    /// What the reader of the results must know, such as a fallback; print it.
    pub notices: Vec<String>,
}

impl TextDataset {
    /// Moves `fraction` of every class of `train` into the validation split, counts the words of what
    /// is left, and gives numbers to all.
    pub(super) fn of(
        (name, classes): (&str, &[&str]),
        (train, test): (Vec<Labelled>, Vec<Labelled>),
        config: &TextConfig,
        (fraction, seed): (f64, u64),
    ) -> Self {
        let labels: Vec<u32> = train.iter().map(|(_, label)| *label).collect();
        let (kept, held) = match fraction > 0.0 {
            true => carve(&labels, classes.len(), fraction, seed),
            false => ((0..train.len()).collect(), Vec::new()),
        };
        let mut sentences: Vec<Option<Labelled>> = train.into_iter().map(Some).collect();
        let mut take = |indices: Vec<usize>| -> Vec<Labelled> {
            let chosen = indices.into_iter().filter_map(|i| sentences[i].take());
            chosen.collect()
        };
        let (train, valid) = (take(kept), take(held));
        let seen = train.iter().flat_map(|(words, _)| words);
        let vocabulary = Vocabulary::of(seen.map(String::as_str), config.min_count);
        let mut notices = Vec::new();
        let all = || train.iter().chain(&valid).chain(&test);
        let cut = all().filter(|(words, _)| words.len() > config.max_words);
        let cut = cut.count();
        if cut > 0 {
            notices.push(format!(
                "{cut} of {} sentences have more than {} words and lost their end",
                all().count(),
                config.max_words
            ));
        }
        let [train, valid, test] = [&train, &valid, &test]
            .map(|split| Sentences::of(split, &vocabulary, config.max_words));
        Self {
            name: name.into(),
            classes: classes.iter().map(ToString::to_string).collect(),
            config: config.clone(),
            vocabulary,
            train,
            valid,
            test,
            notices,
        }
    }

    /// Number of classes.
    #[must_use]
    pub fn num_classes(&self) -> usize {
        self.classes.len()
    }

    /// One line on what was loaded, then one per notice.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = format!(
            "{}: {} classes, {} words, at most {} in a sentence; {} train, {} validation, {} test",
            self.name,
            self.num_classes(),
            self.vocabulary.len(),
            self.config.max_words,
            self.train.len(),
            self.valid.len(),
            self.test.len()
        );
        for notice in &self.notices {
            text.push_str(&format!("\nnotice: {notice}"));
        }
        text
    }
}

impl TextConfig {
    /// Refuses numbers that leave nothing to do.
    pub(super) fn check(&self) -> Result<(), DataError> {
        if self.max_words == 0 {
            return Err(DataError::Options(
                "sentences of at most 0 words hold nothing; take more".into(),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labelled(text: &str, label: u32) -> Labelled {
        (text.split(' ').map(String::from).collect(), label)
    }

    #[test]
    fn sentences_keep_their_lengths() {
        let mut set = Sentences::default();
        assert_eq!(set.median(), None);
        set.push(&[5, 6, 7], 1).unwrap();
        set.push(&[8], 0).unwrap();
        set.push(&[9, 1], 1).unwrap();
        assert!(set.push(&[], 0).is_err());
        assert_eq!((set.len(), set.unknown()), (3, 1));
        assert_eq!(set.sentence(2), [9, 1]);
        assert_eq!(set.median(), Some(2));
        let chosen = set.select(&[2, 0, 2]);
        assert_eq!(chosen.labels(), [1, 1, 1]);
        assert_eq!(
            (chosen.sentence(1), chosen.sentence(2)),
            (&[5, 6, 7][..], &[9, 1][..])
        );
        assert!(set.select(&[]).is_empty());
    }

    #[test]
    fn only_training_sentences_teach_words() {
        let train: Vec<Labelled> = (0..10)
            .map(|i| labelled(&format!("same word{i}"), i % 2))
            .collect();
        let test = vec![labelled("same other word0", 0)];
        let config = TextConfig {
            min_count: 1,
            max_words: 2,
        };
        let of = |fraction| {
            TextDataset::of(
                ("tiny", &["no", "yes"]),
                (train.clone(), test.clone()),
                &config,
                (fraction, 3),
            )
        };
        let set = of(0.4);
        assert_eq!(
            (set.train.len(), set.valid.len(), set.test.len()),
            (6, 4, 1)
        );
        // `same` and those of six sentences; what is held out has words that nobody knows.
        assert_eq!(set.vocabulary.len(), 2 + 1 + 6);
        assert_eq!((set.train.unknown(), set.valid.unknown()), (0, 4));
        assert_eq!(set.test.sentence(0), [2, Vocabulary::UNKNOWN]);
        assert!(
            set.summary().contains("1 of 11 sentences"),
            "{}",
            set.summary()
        );
        assert_eq!(set, of(0.4));
        let whole = of(0.0);
        assert_eq!((whole.train.len(), whole.valid.len()), (10, 0));
        assert_eq!(whole.vocabulary.len(), 2 + 1 + 10);
    }
}
