//! What a text classifier is made of.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::TextCnn;

/// The most words, and the most of anything else: a configuration comes from a file, and its network
/// is allocated.
const MAX_WORDS: usize = 1 << 24;
const MAX_SIZE: usize = 8192;
const MAX_WINDOW: usize = 64;

/// Describes a [`TextCnn`] and builds it.
///
/// ```
/// use burn::module::Module;
/// use burn::tensor::Device;
/// use models::TextCnnConfig;
///
/// // Kim 2014: 300 numbers a word, windows of 3, 4 and 5 words with 100 maps each, two classes.
/// let config = TextCnnConfig::new(1000, 2);
/// let windows = (3 + 4 + 5) * 300 * 100 + 3 * 100;
/// assert_eq!(config.params(), 1000 * 300 + windows + 300 * 2 + 2);
/// assert_eq!(config.conv_weights(), 360_000);
/// let model = config.init(&Device::flex())?;
/// assert_eq!(model.num_params(), config.params());
/// # Ok::<(), models::TextCnnError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextCnnConfig {
    /// Words with a vector, [padding](TextCnn::PADDING) among them.
    pub words: usize,
    /// The number of classes.
    pub classes: usize,
    /// Numbers of a word's vector.
    #[serde(default = "embedding")]
    pub embedding: usize,
    /// Words under each kernel: one convolution for each entry.
    #[serde(default = "windows")]
    pub windows: Vec<usize>,
    /// Output channels of each convolution.
    #[serde(default = "maps")]
    pub maps: usize,
    /// Probability with which training drops a feature in front of the classifier.
    #[serde(default = "dropout")]
    pub dropout: f64,
}

fn embedding() -> usize {
    300
}

fn windows() -> Vec<usize> {
    vec![3, 4, 5]
}

fn maps() -> usize {
    100
}

fn dropout() -> f64 {
    0.5
}

/// A [`TextCnnConfig`] that describes no network.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TextCnnError {
    /// Nothing, or too much of something.
    #[error("a text classifier with {what} = {value}; choose 1 to {most}")]
    Size {
        /// The field.
        what: &'static str,
        /// Its value.
        value: usize,
        /// The most that is allowed.
        most: usize,
    },
    /// A probability that is none, or that leaves nothing.
    #[error("a text classifier with dropout = {0}; choose a probability from 0 to below 1")]
    Dropout(f64),
}

impl TextCnnConfig {
    /// Kim's sizes: 300 numbers a word, windows of 3, 4 and 5 words, 100 maps each, dropout 0.5.
    pub fn new(words: usize, classes: usize) -> Self {
        Self {
            words,
            classes,
            embedding: embedding(),
            windows: windows(),
            maps: maps(),
            dropout: dropout(),
        }
    }

    /// With so many numbers a word.
    #[must_use]
    pub fn with_embedding(mut self, embedding: usize) -> Self {
        self.embedding = embedding;
        self
    }

    /// With other windows.
    #[must_use]
    pub fn with_windows(mut self, windows: impl Into<Vec<usize>>) -> Self {
        self.windows = windows.into();
        self
    }

    /// With so many maps of each window.
    #[must_use]
    pub fn with_maps(mut self, maps: usize) -> Self {
        self.maps = maps;
        self
    }

    /// With another probability of dropout.
    #[must_use]
    pub fn with_dropout(mut self, dropout: f64) -> Self {
        self.dropout = dropout;
        self
    }

    /// Whether there is such a network.
    ///
    /// # Errors
    /// [`TextCnnError::Size`] for more than 2²⁴ words, more than 8192 classes, numbers a word, maps or
    /// features in front of the classifier, more than 64 windows or words in one, and for none of any
    /// of these; [`TextCnnError::Dropout`] outside `[0, 1)`.
    pub fn check(&self) -> Result<(), TextCnnError> {
        let widest = self.windows.iter().copied().max().unwrap_or(0);
        let narrowest = self.windows.iter().copied().min().unwrap_or(0);
        let sizes = [
            ("words", self.words, MAX_WORDS),
            ("classes", self.classes, MAX_SIZE),
            ("embedding", self.embedding, MAX_SIZE),
            ("maps", self.maps, MAX_SIZE),
            ("windows", self.windows.len(), MAX_WINDOW),
            ("a window", widest, MAX_WINDOW),
            ("a window", narrowest, MAX_WINDOW),
            ("features", self.features(), MAX_SIZE),
        ];
        let wrong = |&(_, n, most): &(&str, usize, usize)| !(1..=most).contains(&n);
        if let Some((what, value, most)) = sizes.into_iter().find(wrong) {
            return Err(TextCnnError::Size { what, value, most });
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(TextCnnError::Dropout(self.dropout));
        }
        Ok(())
    }

    /// Builds the network with fresh parameters: word vectors uniform within `±0.25`, as Kim draws
    /// those of words that no pretrained set has; convolutions and head as Burn's.
    ///
    /// # Errors
    /// Those of [`check`](Self::check).
    pub fn init(&self, device: &Device) -> Result<TextCnn, TextCnnError> {
        self.check()?;
        Ok(TextCnn::new(self, device))
    }

    /// Features in front of the classifier: `maps` for each window.
    pub fn features(&self) -> usize {
        self.windows.len().saturating_mul(self.maps)
    }

    /// Weights of all convolutions, biases not counted: `Σ window · embedding · maps`.
    pub fn conv_weights(&self) -> usize {
        let one = self.embedding.saturating_mul(self.maps);
        self.windows.iter().fold(0usize, |sum, window| {
            sum.saturating_add(window.saturating_mul(one))
        })
    }

    /// All parameters, word vectors and biases included.
    pub fn params(&self) -> usize {
        let words = self.words.saturating_mul(self.embedding);
        let head = (self.features().saturating_add(1)).saturating_mul(self.classes);
        [self.conv_weights(), self.features(), head]
            .into_iter()
            .fold(words, usize::saturating_add)
    }
}
