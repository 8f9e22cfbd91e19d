//! The network.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Embedding, EmbeddingConfig, Initializer, PaddingConfig1d};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor};
use burn_sparse::nn::{Conv1d, Conv1dConfig, Linear, LinearConfig, Weight};

use super::TextCnnConfig;

/// Word vectors start within this distance of zero.
const START: f64 = 0.25;

/// A classifier of sentences (Kim, *Convolutional Neural Networks for Sentence Classification*, 2014,
/// section 2, the variants whose word vectors are trained): a convolution over the words for each
/// window, of each map its largest value, one product.
///
/// ```text
/// x_t  = vector of word t, zero for padding
/// c_t  = relu(b + Σ_{i<k} W_i x_{t+i})      t = 1-k … , windows of k words
/// m    = max_t c_t                          for each map
/// y    = dropout([m of all windows]) V + d
/// ```
///
/// A window may hang over either end of the sentence, where vectors are zero, and one window of each
/// length holds no word at all: its value is `relu(b)`. So a sentence is as long as its words are,
/// however much padding follows, and may be shorter than a window.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Int, Tensor};
/// use models::TextCnnConfig;
///
/// let device = Device::flex();
/// let model = TextCnnConfig::new(50, 2).with_embedding(16).with_maps(8).init(&device)?;
/// // Sentences of five words and of two, the second padded with zeros.
/// let words = Tensor::<2, Int>::from_data([[4, 9, 23, 7, 30], [11, 2, 0, 0, 0]], &device);
/// let logits = model.forward(words.clone());
/// assert_eq!(logits.dims(), [2, 2]);
///
/// // The second alone.
/// let alone = model.forward(words.slice([1..2, 0..2]));
/// let difference = (alone - logits.narrow(0, 1, 1)).abs().max();
/// assert!(difference.into_scalar::<f32>() < 1e-5);
/// # Ok::<(), models::TextCnnError>(())
/// ```
#[derive(Module, Debug)]
pub struct TextCnn {
    /// The vector of each word. That of [`PADDING`](Self::PADDING) is never used.
    pub embedding: Embedding,
    /// A convolution over the words for each window.
    pub convs: Vec<Conv1d>,
    /// In front of the head, while training.
    pub dropout: Dropout,
    /// The classifier.
    pub head: Linear,
}

impl TextCnn {
    /// The word number that stands for no word: what fills up a batch behind the end of a sentence.
    pub const PADDING: usize = 0;

    pub(super) fn new(config: &TextCnnConfig, device: &Device) -> Self {
        let start = Initializer::Uniform {
            min: -START,
            max: START,
        };
        let conv = |&window: &usize| {
            Conv1dConfig::new(config.embedding, config.maps, window)
                .with_padding(PaddingConfig1d::Explicit(window - 1, window))
                .init(device)
        };
        Self {
            embedding: EmbeddingConfig::new(config.words, config.embedding)
                .with_initializer(start)
                .init(device),
            convs: config.windows.iter().map(conv).collect(),
            dropout: DropoutConfig::new(config.dropout).init(),
            head: LinearConfig::new(config.features(), config.classes).init(device),
        }
    }

    /// Class scores before the softmax.
    ///
    /// # Shapes
    /// - `words`: `[batch, length]`, numbers of words; [`PADDING`](Self::PADDING) behind the end of a sentence
    /// - output: `[batch, classes]`
    ///
    /// # Panics
    /// Without words, and for numbers of words that have no vector.
    pub fn forward(&self, words: Tensor<2, Int>) -> Tensor<2> {
        let maxima = self.maxima(self.vectors(words));
        self.head.forward(self.dropout.forward(maxima))
    }

    /// The vectors of words, zero for padding.
    ///
    /// # Shapes
    /// - `words`: `[batch, length]`
    /// - output: `[batch, embedding, length]`, what the convolutions take
    ///
    /// # Panics
    /// Without words, and for numbers of words that have no vector.
    pub fn vectors(&self, words: Tensor<2, Int>) -> Tensor<3> {
        let [batch, length] = words.dims();
        assert!(
            batch > 0 && length > 0,
            "TextCnn: {batch} sentences of {length} words; both must be positive"
        );
        let there = words.clone().not_equal_elem(Self::PADDING as i64).float();
        let vectors = self.embedding.forward(words) * there.unsqueeze_dim::<3>(2);
        vectors.swap_dims(1, 2)
    }

    /// Of every map of every window its largest value, from vectors of words.
    ///
    /// # Shapes
    /// - `vectors`: `[batch, embedding, length]`
    /// - output: `[batch, features]`, the maps of the first window first
    ///
    /// # Panics
    /// On shapes that do not fit.
    pub fn maxima(&self, vectors: Tensor<3>) -> Tensor<2> {
        let largest = |conv: &Conv1d| {
            let values = conv.forward(vectors.clone());
            // The largest first: relu does not change which one that is.
            relu(values.max_dim(2).squeeze_dim::<2>(2))
        };
        Tensor::cat(self.convs.iter().map(largest).collect(), 1)
    }

    /// With the weights that lead to each class scaled down to at most this norm: Kim's constraint
    /// after each step of training (section 2.1; he takes 3). A packed head stays as it is.
    ///
    /// `w_c ← w_c · min(1, most / ‖w_c‖₂)`
    #[must_use]
    pub fn with_head_norm(mut self, most: f64) -> Self {
        self.head.weight = match self.head.weight {
            Weight::Dense(weight) => Weight::Dense(weight.map(|weight| {
                let trained = weight.is_require_grad();
                let norm = weight.clone().square().sum_dim(0).sqrt();
                // A class without weights is divided by more than nothing.
                let scale = (norm.clamp_min(1e-12).recip() * most).clamp_max(1.0);
                (weight * scale).detach().set_require_grad(trained)
            })),
            other => other,
        };
        self
    }

    /// Scores for so many classes.
    pub fn classes(&self) -> usize {
        self.head.weight.dims()[1]
    }

    /// The longest window, in words.
    pub fn longest_window(&self) -> usize {
        let windows = self.convs.iter().map(|conv| conv.kernel_size);
        windows.max().unwrap_or(0)
    }
}
