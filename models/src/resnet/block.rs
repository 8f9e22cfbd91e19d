//! One residual block.

use burn::module::{Module, Param};
use burn::nn::BatchNorm;
use burn::tensor::ops::PadMode;
use burn::tensor::{Device, Tensor, TensorData, s};
use burn_sparse::nn::{Activation, Conv2d};
use serde::{Deserialize, Serialize};

use super::shape::BlockShape;
use crate::layers::{ConvNorm, apply, conv_bn, fold};

/// The layers of the residual branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlockKind {
    /// Two 3×3 convolutions.
    Basic,
    /// A 1×1, a 3×3 and a 1×1 convolution that widens four times.
    Bottleneck,
}

/// What the shortcut does where a block changes the shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shortcut {
    /// Option A: every second row and column, and channels of zeros before and after the others.
    /// It has no parameters.
    ZeroPad,
    /// Option B: a 1×1 convolution with its batch norm.
    Projection,
}

/// A residual block: `relu(branch(x) + shortcut(x))`.
///
/// The fields are torchvision's, so is the path of every parameter.
#[derive(Module, Debug)]
pub struct Block {
    /// First convolution of the branch.
    pub conv1: Conv2d,
    /// Its batch norm, until it is folded.
    pub bn1: Option<BatchNorm>,
    /// Second convolution of the branch.
    pub conv2: Conv2d,
    /// Its batch norm, until it is folded.
    pub bn2: Option<BatchNorm>,
    /// Third convolution of a bottleneck's branch.
    pub conv3: Option<Conv2d>,
    /// Its batch norm, until it is folded.
    pub bn3: Option<BatchNorm>,
    /// The projection of the shortcut with its batch norm: `downsample.0` and `downsample.1`.
    pub downsample: Option<ConvNorm>,
    /// Stride and added channels of a shortcut without parameters.
    #[module(skip)]
    pub(crate) zero_pad: Option<ZeroPad>,
}

/// A shortcut of option A.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ZeroPad {
    pub(super) stride: usize,
    pub(super) before: usize,
    pub(super) after: usize,
}

impl ZeroPad {
    fn forward(self, x: Tensor<4>) -> Tensor<4> {
        let step = self.stride as isize;
        let x = if step == 1 {
            x
        } else {
            x.slice(s![.., .., ..;step, ..;step])
        };
        let channels = (self.before, self.after);
        x.pad([(0, 0), channels, (0, 0), (0, 0)], PadMode::Constant(0.0))
    }
}

impl Block {
    pub(super) fn new(shape: BlockShape, zero_init: bool, device: &Device) -> Self {
        let mut channels = shape.input;
        let mut layers = shape.convs().into_iter().map(|(out, window)| {
            let layer = conv_bn([channels, out], window, 1, device);
            channels = out;
            layer
        });
        let (conv1, bn1) = layers.next().expect("a branch has two layers at least");
        let (conv2, bn2) = layers.next().expect("a branch has two layers at least");
        let (conv3, bn3) = layers.next().unzip();
        let (mut bn2, mut bn3) = (Some(bn2), bn3);
        let downsample = shape.projection().map(|window| {
            let (conv, bn) = conv_bn([shape.input, shape.output()], window, 1, device);
            (conv, Some(bn))
        });
        let added = shape.output().saturating_sub(shape.input);
        let pads = shape.reshapes() && downsample.is_none();
        let zero_pad = pads.then_some(ZeroPad {
            stride: shape.stride,
            before: added / 2,
            after: added - added / 2,
        });
        if zero_init && let Some(last) = bn3.as_mut().or(bn2.as_mut()) {
            // Where the shortcut brings zeros, a branch of zeros would leave the ReLU nothing to pass gradients for, and
            // such channels would never train.
            let padded = zero_pad
                .as_ref()
                .map_or([0; 2], |pad| [pad.before, pad.after]);
            last.gamma = gamma(shape.output(), padded, device);
        }
        Self {
            conv1,
            bn1: Some(bn1),
            conv2,
            bn2,
            conv3,
            bn3,
            downsample,
            zero_pad,
        }
    }

    /// The block's output.
    ///
    /// # Shapes
    /// - `x`: `[batch, channels_in, height, width]`
    /// - output: `[batch, channels_out, height / stride, width / stride]`, rounded up
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let shortcut = match (&self.downsample, self.zero_pad) {
            (Some((conv, bn)), _) => apply(conv, bn.as_ref(), x.clone(), None, Activation::None),
            (None, Some(pad)) => pad.forward(x.clone()),
            (None, None) => x.clone(),
        };
        let y = apply(&self.conv1, self.bn1.as_ref(), x, None, Activation::Relu);
        match &self.conv3 {
            None => apply(
                &self.conv2,
                self.bn2.as_ref(),
                y,
                Some(shortcut),
                Activation::Relu,
            ),
            Some(conv3) => {
                let y = apply(&self.conv2, self.bn2.as_ref(), y, None, Activation::Relu);
                apply(
                    conv3,
                    self.bn3.as_ref(),
                    y,
                    Some(shortcut),
                    Activation::Relu,
                )
            }
        }
    }

    /// With every batch norm folded into the convolution before it.
    pub(super) fn fold(self) -> Self {
        let (conv1, conv2) = (fold(self.conv1, self.bn1), fold(self.conv2, self.bn2));
        Self {
            conv1,
            bn1: None,
            conv2,
            bn2: None,
            conv3: self.conv3.map(|conv3| fold(conv3, self.bn3)),
            bn3: None,
            downsample: self.downsample.map(|(conv, bn)| (fold(conv, bn), None)),
            zero_pad: self.zero_pad,
        }
    }
}

/// Zeros, but ones for so many channels before and after the others.
fn gamma(channels: usize, [before, after]: [usize; 2], device: &Device) -> Param<Tensor<1>> {
    let padded = |at: usize| at < before || at + after >= channels;
    let values: Vec<f32> = (0..channels)
        .map(|at| f32::from(u8::from(padded(at))))
        .collect();
    let data = TensorData::new(values, [channels]);
    Param::from_tensor(Tensor::from_data(data, device))
}
