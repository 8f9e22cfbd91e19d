//! Dense blocks and what stands between them.

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
use burn::nn::BatchNorm;
use burn::nn::pool::{AvgPool2d, AvgPool2dConfig};
use burn::tensor::{Device, Tensor};
use burn_sparse::nn::{Activation, Conv2d, batch_norm as norm_act};

use super::shape::{BlockShape, HALVE, LayerShape, POINT, WIDE};
use crate::layers::{apply, batch_norm, conv_fan_in, fold};

/// A layer of a dense block: `conv2(relu(norm2(conv1(relu(norm1(x))))))`, a 1×1 convolution that
/// makes a bottleneck and a 3×3 convolution that gives the new channels (section 3 of the paper).
///
/// The fields are torchvision's, so is the path of every parameter.
#[derive(Module, Debug)]
pub struct DenseLayer {
    /// The batch norm before the first convolution, to stay: a ReLU is between them.
    pub norm1: BatchNorm,
    /// The first convolution.
    pub conv1: Conv2d,
    /// Its batch norm, until it is folded.
    pub norm2: Option<BatchNorm>,
    /// The second convolution.
    pub conv2: Conv2d,
}

impl DenseLayer {
    fn new(shape: LayerShape, device: &Device) -> Self {
        let LayerShape {
            input,
            hidden,
            growth,
        } = shape;
        Self {
            norm1: batch_norm(input, device),
            conv1: conv_fan_in([input, hidden], POINT, device),
            norm2: Some(batch_norm(hidden, device)),
            conv2: conv_fan_in([hidden, growth], WIDE, device),
        }
    }

    /// The channels that the layer adds.
    ///
    /// # Shapes
    /// - `x`: `[batch, channels, height, width]`, all channels before it
    /// - output: `[batch, growth, height, width]`
    ///
    /// # Panics
    /// When the number of channels is not the one the layer was built for.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = norm_act(&self.norm1, x, None, Activation::Relu);
        let x = apply(&self.conv1, self.norm2.as_ref(), x, None, Activation::Relu);
        self.conv2.forward(x)
    }

    fn fold(self) -> Self {
        Self {
            conv1: fold(self.conv1, self.norm2),
            norm2: None,
            ..self
        }
    }
}

/// Layers of which each reads what all before it gave.
///
/// In the paths of parameters the layers are `denselayer1`, `denselayer2` and so on, as
/// torchvision's.
#[derive(Debug, Clone)]
pub struct DenseBlock {
    /// The layers; none in a block that the network does not have.
    pub layers: Vec<DenseLayer>,
}

impl DenseBlock {
    pub(super) fn new(shape: &BlockShape, device: &Device) -> Self {
        let layers = shape.layers.iter();
        Self {
            layers: layers
                .map(|&shape| DenseLayer::new(shape, device))
                .collect(),
        }
    }

    pub(super) fn empty() -> Self {
        Self { layers: Vec::new() }
    }

    /// The block's input and, behind it, the channels of each layer.
    ///
    /// # Shapes
    /// - `x`: `[batch, channels, height, width]`
    /// - output: `[batch, channels + layers · growth, height, width]`
    ///
    /// # Panics
    /// When the number of channels is not the one the block was built for.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.layers.iter().fold(x, |x, layer| {
            let new = layer.forward(x.clone());
            Tensor::cat(vec![x, new], 1)
        })
    }

    pub(super) fn fold(self) -> Self {
        self.each(DenseLayer::fold)
    }

    fn each(self, f: impl FnMut(DenseLayer) -> DenseLayer) -> Self {
        Self {
            layers: self.layers.into_iter().map(f).collect(),
        }
    }
}

/// What the layer of this index is called.
pub(super) fn layer_name(index: usize) -> String {
    format!("denselayer{}", index + 1)
}

/// Names no derived implementation gives: neither a field for the sequence nor numbers from zero.
impl Module for DenseBlock {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.layers.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        self.each(|layer| layer.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.each(|layer| layer.to_device(device))
    }

    fn train(self) -> Self {
        self.each(DenseLayer::train)
    }

    fn valid(&self) -> Self {
        Self {
            layers: self.layers.valid(),
        }
    }

    fn materialize(self) -> Self {
        self.each(DenseLayer::materialize)
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        for (index, layer) in self.layers.iter().enumerate() {
            let name = layer_name(index);
            visitor.enter_module(&name, "Struct:DenseBlock");
            layer.visit(visitor);
            visitor.exit_module(&name, "Struct:DenseBlock");
        }
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let layers = self.layers.into_iter().enumerate();
        let layers = layers.map(|(index, layer)| {
            let name = layer_name(index);
            mapper.enter_module(&name, "Struct:DenseBlock");
            let layer = layer.map(mapper);
            mapper.exit_module(&name, "Struct:DenseBlock");
            layer
        });
        Self {
            layers: layers.collect(),
        }
    }
}

impl ModuleDisplayDefault for DenseBlock {
    fn content(&self, content: Content) -> Option<Content> {
        let layers = self.layers.iter().enumerate();
        layers
            .fold(content, |content, (index, layer)| {
                content.add(&layer_name(index), layer)
            })
            .set_top_level_type("DenseBlock")
            .optional()
    }

    fn num_params(&self) -> usize {
        Module::num_params(self)
    }
}

impl ModuleDisplay for DenseBlock {}

/// What stands between two dense blocks: `pool(conv(relu(norm(x))))`, half as many channels and an
/// average over 2×2 positions.
#[derive(Module, Debug)]
pub struct DenseTransition {
    /// The batch norm before the convolution, to stay: a ReLU is between them.
    pub norm: BatchNorm,
    /// A 1×1 convolution.
    pub conv: Conv2d,
    /// The average.
    pub pool: AvgPool2d,
}

impl DenseTransition {
    pub(super) fn new([before, after]: [usize; 2], device: &Device) -> Self {
        Self {
            norm: batch_norm(before, device),
            conv: conv_fan_in([before, after], POINT, device),
            // Without padding there is none to include.
            pool: AvgPool2dConfig::new([HALVE.kernel; 2])
                .with_strides([HALVE.stride; 2])
                .with_count_include_pad(false)
                .init(),
        }
    }

    /// The transition's output.
    ///
    /// # Shapes
    /// - `x`: `[batch, channels, height, width]`
    /// - output: `[batch, channels / 2, height / 2, width / 2]`, rounded down
    ///
    /// # Panics
    /// When the number of channels is not the one the transition was built for.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = norm_act(&self.norm, x, None, Activation::Relu);
        self.pool.forward(self.conv.forward(x))
    }
}
