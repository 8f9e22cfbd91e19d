//! What a speech classifier is made of.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::SpeechGru;

/// The most layers, and the most features, hidden units or classes: a configuration comes from a
/// file, and its network is allocated.
const MAX_LAYERS: usize = 8;
const MAX_SIZE: usize = 8192;

/// How the states of a recording become one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The mean of the states after each frame: `1/n Σ_{t<n} h_t` for a recording of `n` frames.
    /// Every frame has a short way to the loss.
    #[default]
    Mean,
    /// The state after the last frame, `h_{n-1}`.
    Last,
}

/// Describes a [`SpeechGru`] and builds it.
///
/// ```
/// use burn::module::Module;
/// use burn::tensor::Device;
/// use models::SpeechGruConfig;
///
/// // 40 log-mel bands, ten words: one layer of 128 units.
/// let config = SpeechGruConfig::new(40, 10);
/// assert_eq!(config.recurrent_weights(), 3 * 128 * (40 + 128));
/// let model = config.init(&Device::flex())?;
/// assert_eq!(model.num_params(), config.recurrent_weights() + 2 * 3 * 128 + 128 * 10 + 10);
///
/// // The GRU of RTMobile (Dong et al., DAC 2020): 39 features, two layers of 1024 units.
/// let config = SpeechGruConfig::new(39, 10).with_hidden(1024).with_layers(2);
/// assert_eq!(config.recurrent_weights(), 9_556_992);
/// # Ok::<(), models::SpeechGruError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpeechGruConfig {
    /// Features of a frame.
    pub features: usize,
    /// The number of classes.
    pub classes: usize,
    /// Hidden units of each layer.
    #[serde(default = "hidden")]
    pub hidden: usize,
    /// The number of recurrent layers, one to eight.
    #[serde(default = "layers")]
    pub layers: usize,
    /// How the states of a recording become one vector.
    #[serde(default)]
    pub pooling: Pooling,
}

fn hidden() -> usize {
    128
}

fn layers() -> usize {
    1
}

/// A [`SpeechGruConfig`] that describes no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpeechGruError {
    /// Nothing, or too much of something.
    #[error("a speech classifier with {what} = {value}; choose 1 to {most}")]
    Size {
        /// The field.
        what: &'static str,
        /// Its value.
        value: usize,
        /// The most that is allowed.
        most: usize,
    },
}

impl SpeechGruConfig {
    /// One layer of 128 units, states averaged.
    pub fn new(features: usize, classes: usize) -> Self {
        Self {
            features,
            classes,
            hidden: hidden(),
            layers: layers(),
            pooling: Pooling::default(),
        }
    }

    /// With so many hidden units.
    #[must_use]
    pub fn with_hidden(mut self, hidden: usize) -> Self {
        self.hidden = hidden;
        self
    }

    /// With so many recurrent layers.
    #[must_use]
    pub fn with_layers(mut self, layers: usize) -> Self {
        self.layers = layers;
        self
    }

    /// With another pooling.
    #[must_use]
    pub fn with_pooling(mut self, pooling: Pooling) -> Self {
        self.pooling = pooling;
        self
    }

    /// Whether there is such a network.
    ///
    /// # Errors
    /// [`SpeechGruError::Size`] for features, classes or hidden units outside `1..=8192`, and for
    /// layers outside `1..=8`.
    pub fn check(&self) -> Result<(), SpeechGruError> {
        let sizes = [
            ("features", self.features, MAX_SIZE),
            ("classes", self.classes, MAX_SIZE),
            ("hidden", self.hidden, MAX_SIZE),
            ("layers", self.layers, MAX_LAYERS),
        ];
        match sizes
            .into_iter()
            .find(|(_, n, most)| !(1..=*most).contains(n))
        {
            Some((what, value, most)) => Err(SpeechGruError::Size { what, value, most }),
            None => Ok(()),
        }
    }

    /// Builds the network with fresh parameters: gates as Burn's, Xavier normal; the head uniform
    /// within `±1/√hidden`.
    ///
    /// # Errors
    /// Those of [`check`](Self::check).
    pub fn init(&self, device: &Device) -> Result<SpeechGru, SpeechGruError> {
        self.check()?;
        Ok(SpeechGru::new(self, device))
    }

    /// Weights of all recurrent matrices, biases not counted: what RTMobile prunes and counts rates
    /// over. The first layer has `3 · hidden · (features + hidden)`, each further one
    /// `6 · hidden²`.
    pub fn recurrent_weights(&self) -> usize {
        let hidden = self.hidden as u128;
        let inputs = self.features as u128 + (self.layers as u128).saturating_sub(1) * hidden;
        let all = 3 * hidden * (inputs + self.layers as u128 * hidden);
        usize::try_from(all).unwrap_or(usize::MAX)
    }
}
