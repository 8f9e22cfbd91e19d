use serde::{Deserialize, Serialize};

use super::ShrinkError;

/// What to do with a channel that emits the same constant everywhere, where a convolution with
/// zero padding reads it.
///
/// Inside the picture the constant adds the same number to every output, so the bias can take it.
/// At the border the kernel sees the zeros of the padding instead of some of the copies, so it
/// cannot. Everywhere else (without padding, through pools and flattening into a linear layer) the
/// bias takes it exactly, whatever is chosen here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Constants {
    /// Keep such channels: the output stays what it is.
    #[default]
    Keep,
    /// Cut them out and let the bias take the constant: right inside, wrong at the border.
    Fold,
    /// Cut them out with their constant, as if `gamma` and `beta` of the norm before were zero.
    Zero,
}

/// What to do with a layer of which no channel is needed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Emptied {
    /// Keep the channel that reads the fewest others, because tensors without channels are not for every backend.
    #[default]
    KeepOne,
    /// Refuse, with the layer's name.
    Refuse,
}

/// How channels are cut out.
///
/// # Example
/// ```
/// use burn_admm::shrink::{Constants, ShrinkOptions};
///
/// let options = ShrinkOptions::new().with_constants(Constants::Zero);
/// assert_eq!(options.tolerance, 1e-4);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShrinkOptions {
    /// Constants under zero padding.
    pub constants: Constants,
    /// Layers of which no channel is needed.
    pub emptied: Emptied,
    /// Whether depthwise convolutions are cut too. Their number of groups is a plain field of the
    /// layer, which only the model itself can change: see
    /// [`set_groups`](super::ChannelModel::set_groups). Otherwise they are kept whole.
    pub depthwise: bool,
    /// The largest difference of an output, as a fraction of the largest output, that
    /// [`shrink`](super::shrink()) takes for rounding.
    pub tolerance: f64,
}

impl Default for ShrinkOptions {
    fn default() -> Self {
        Self {
            constants: Constants::default(),
            emptied: Emptied::default(),
            depthwise: false,
            tolerance: 1e-4,
        }
    }
}

impl ShrinkOptions {
    /// The defaults: the output stays what it is.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another choice for constants under zero padding.
    #[must_use]
    pub fn with_constants(mut self, constants: Constants) -> Self {
        self.constants = constants;
        self
    }

    /// Another choice for layers of which no channel is needed.
    #[must_use]
    pub fn with_emptied(mut self, emptied: Emptied) -> Self {
        self.emptied = emptied;
        self
    }

    /// Whether depthwise convolutions are cut too.
    #[must_use]
    pub fn with_depthwise(mut self, depthwise: bool) -> Self {
        self.depthwise = depthwise;
        self
    }

    /// Another tolerance.
    #[must_use]
    pub fn with_tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance;
        self
    }

    pub(crate) fn validate(&self) -> Result<(), ShrinkError> {
        if self.tolerance.is_finite() && self.tolerance > 0.0 {
            Ok(())
        } else {
            Err(ShrinkError::Tolerance(self.tolerance))
        }
    }
}
