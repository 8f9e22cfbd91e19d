use serde::{Deserialize, Serialize};

use super::{Activation, ConvSpec, LinearSpec, NormSpec, PoolSpec};

/// What a node computes.
///
/// Layers are named by the path that their parameters share: `conv1` for `conv1.weight` and
/// `conv1.bias`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "op", deny_unknown_fields)]
#[non_exhaustive]
pub enum Op {
    /// What enters the network: `[channels, positions..]`, the batch left out.
    Input {
        /// Channels, then the size of each axis.
        shape: Vec<usize>,
    },
    /// A convolution: `weight` of `[out, in / groups, kernel..]`, and maybe a `bias`.
    Conv {
        /// Path of the layer.
        layer: String,
        /// Its geometry.
        conv: ConvSpec,
    },
    /// A product over channels, at every position: `weight` of `[in, out]`, and maybe a `bias`.
    Linear {
        /// Path of the layer.
        layer: String,
        /// Its features.
        features: LinearSpec,
    },
    /// A batch norm: `gamma`, `beta`, `running_mean` and `running_var`.
    Norm {
        /// Path of the layer.
        layer: String,
        /// Its channels.
        norm: NormSpec,
    },
    /// A function of each element.
    Activation {
        /// Which.
        function: Activation,
    },
    /// A pooling.
    Pool {
        /// Its geometry.
        pool: PoolSpec,
    },
    /// Any other operation on each channel by itself that turns a constant map into the same
    /// constant: an adaptive or global average, an interpolation.
    Resize {
        /// The size of each axis afterwards.
        size: Vec<usize>,
    },
    /// `[channels, positions..]` → `[channels · positions]`, channel after channel.
    Flatten,
    /// The sum of two or more, channel by channel.
    Add,
    /// The product of two or more, channel by channel.
    Mul,
    /// The channels of one after those of the other.
    Concat,
    /// Channels of zeros before and after the others, their number fixed in the model.
    PadChannels {
        /// Channels before.
        before: usize,
        /// Channels after.
        after: usize,
    },
    /// Anything else. All channels that it reads and gives are kept.
    Opaque {
        /// Path of what computes it: its parameters, and all below it, are left as they are.
        layer: String,
        /// `[channels, positions..]` of what comes out.
        shape: Vec<usize>,
    },
    /// What leaves the network. All channels are kept.
    Output,
}

impl Op {
    /// The path of the layer, where it has parameters.
    pub fn layer(&self) -> Option<&str> {
        match self {
            Self::Conv { layer, .. }
            | Self::Linear { layer, .. }
            | Self::Norm { layer, .. }
            | Self::Opaque { layer, .. } => Some(layer),
            _ => None,
        }
    }

    /// Its kind in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Input { .. } => "input",
            Self::Conv { .. } => "conv",
            Self::Linear { .. } => "linear",
            Self::Norm { .. } => "norm",
            Self::Activation { function } => function.name(),
            Self::Pool { .. } => "pool",
            Self::Resize { .. } => "resize",
            Self::Flatten => "flatten",
            Self::Add => "add",
            Self::Mul => "mul",
            Self::Concat => "concat",
            Self::PadChannels { .. } => "pad channels",
            Self::Opaque { .. } => "opaque",
            Self::Output => "output",
        }
    }

    /// The kind and the layer.
    pub(crate) fn label(&self) -> String {
        match self.layer() {
            Some(layer) => format!("{} `{layer}`", self.kind()),
            None => self.kind().to_owned(),
        }
    }
}

/// A node of a [`ChannelGraph`](super::ChannelGraph): an operation and the nodes it reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// What it computes.
    #[serde(rename = "computes")]
    pub op: Op,
    /// The nodes it reads, by index; all of them come before it.
    pub inputs: Vec<usize>,
}
