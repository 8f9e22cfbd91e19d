use serde::{Deserialize, Serialize};

/// A function of each element by itself.
///
/// It decides what a channel without weights emits after it: `f(c)` of its constant `c`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Activation {
    /// `x`: a dropout at inference, a change of dtype.
    Identity,
    /// `max(x, 0)`.
    Relu,
    /// `x` where positive, `slope · x` elsewhere.
    LeakyRelu {
        /// Its slope for negative values.
        slope: f64,
    },
    /// `1 / (1 + exp(−x))`.
    Sigmoid,
    /// `tanh(x)`.
    Tanh,
    /// `x / (1 + exp(−x))`.
    Silu,
    /// Any function with `f(0) = 0`, such as GELU: a channel of zeros stays one.
    ZeroPreserving,
    /// Any function: nothing is known about what becomes of a constant.
    Pointwise,
}

impl Activation {
    /// `f(c)`, where it is known.
    pub(crate) fn constant(self, c: f64) -> Option<f64> {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        match self {
            Self::Identity => Some(c),
            Self::Relu => Some(c.max(0.0)),
            Self::LeakyRelu { slope } => Some(if c > 0.0 { c } else { slope * c }),
            Self::Sigmoid => Some(sigmoid(c)),
            Self::Tanh => Some(c.tanh()),
            Self::Silu => Some(c * sigmoid(c)),
            Self::ZeroPreserving => (c == 0.0).then_some(0.0),
            Self::Pointwise => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Relu => "relu",
            Self::LeakyRelu { .. } => "leaky relu",
            Self::Sigmoid => "sigmoid",
            Self::Tanh => "tanh",
            Self::Silu => "silu",
            Self::ZeroPreserving => "zero-preserving",
            Self::Pointwise => "pointwise",
        }
    }
}
