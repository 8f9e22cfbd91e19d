//! A network that runs whatever its graph says.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{AvgPool2dConfig, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::{leaky_relu, relu, sigmoid, silu, tanh};
use burn::tensor::module::adaptive_avg_pool2d;
use burn::tensor::ops::PadMode;
use burn::tensor::{Device, Tensor, TensorData};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::shrink::*;

#[derive(Module, Debug)]
pub(super) struct Net {
    pub(super) convs: Vec<Conv2d>,
    pub(super) norms: Vec<BatchNorm>,
    pub(super) linears: Vec<Linear>,
    /// Its shapes are those of the network before it was cut.
    #[module(skip)]
    pub(super) graph: ChannelGraph,
}

/// `convs.3` → 3.
fn number(layer: &str) -> usize {
    layer.rsplit('.').next().unwrap().parse().unwrap()
}

impl Net {
    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let batch = x.dims()[0];
        let mut values: Vec<Tensor<4>> = Vec::new();
        for (index, node) in self.graph.nodes().iter().enumerate() {
            let input = |i: usize| values[node.inputs[i]].clone();
            let fold = |f: fn(Tensor<4>, Tensor<4>) -> Tensor<4>| {
                (1..node.inputs.len()).fold(input(0), |sum, i| f(sum, input(i)))
            };
            let value = match &node.op {
                Op::Input { .. } => x.clone(),
                Op::Conv { layer, .. } => self.convs[number(layer)].forward(input(0)),
                Op::Linear { layer, .. } => {
                    let y = self.linears[number(layer)].forward::<2>(input(0).flatten(1, 3));
                    let features = y.dims()[1];
                    y.reshape([batch, features, 1, 1])
                }
                Op::Norm { layer, .. } => self.norms[number(layer)].forward(input(0)),
                Op::Activation { function } => match function {
                    Activation::Identity => input(0),
                    Activation::Relu => relu(input(0)),
                    Activation::LeakyRelu { slope } => leaky_relu(input(0), *slope),
                    Activation::Sigmoid => sigmoid(input(0)),
                    Activation::Tanh => tanh(input(0)),
                    Activation::Silu => silu(input(0)),
                    Activation::ZeroPreserving => input(0).sin(),
                    Activation::Pointwise => input(0).cos(),
                },
                Op::Pool { pool } if pool.kernel == [1, 1] => {
                    let [rows, columns] = [pool.stride[0] as isize, pool.stride[1] as isize];
                    input(0).slice(burn::tensor::s![.., .., ..;rows, ..;columns])
                }
                Op::Pool { pool } => {
                    let Padding::Explicit(padding) = &pool.padding else {
                        panic!("explicit padding in these tests")
                    };
                    let pad = padding[0][0];
                    let padding = PaddingConfig2d::Explicit(pad, pad, pad, pad);
                    let (size, stride) = (pool.kernel[0], pool.stride[0]);
                    if pool.counts_padding {
                        AvgPool2dConfig::new([size; 2])
                            .with_strides([stride; 2])
                            .with_padding(padding)
                            .init()
                            .forward(input(0))
                    } else {
                        MaxPool2dConfig::new([size; 2])
                            .with_strides([stride; 2])
                            .with_padding(padding)
                            .init()
                            .forward(input(0))
                    }
                }
                Op::Resize { size } => adaptive_avg_pool2d(input(0), [size[0], size[1]]),
                Op::Flatten => {
                    let flat = input(0).flatten::<2>(1, 3);
                    let features = flat.dims()[1];
                    flat.reshape([batch, features, 1, 1])
                }
                Op::Add => fold(|a, b| a + b),
                Op::Mul => fold(|a, b| a * b),
                Op::Concat => {
                    Tensor::cat(node.inputs.iter().map(|&i| values[i].clone()).collect(), 1)
                }
                Op::PadChannels { before, after } => {
                    let channels = (*before, *after);
                    input(0).pad([(0, 0), channels, (0, 0), (0, 0)], PadMode::Constant(0.0))
                }
                Op::Opaque { .. } => input(0).flip([1]),
                Op::Output => return input(0).flatten(1, 3),
            };
            assert_eq!(values.len(), index);
            values.push(value);
        }
        unreachable!("a graph has an output")
    }
}

impl ChannelModel for Net {
    fn channel_graph(&self, input: &[usize]) -> Result<ChannelGraph, GraphError> {
        let nodes = self.graph.nodes().iter().map(|node| {
            let mut node = node.clone();
            match &mut node.op {
                Op::Input { shape } => *shape = input.to_vec(),
                Op::Conv { layer, conv } => *conv = ConvSpec::from(&self.convs[number(layer)]),
                Op::Linear { layer, features } => {
                    *features = LinearSpec::from(&self.linears[number(layer)]);
                }
                Op::Norm { layer, norm } => *norm = NormSpec::from(&self.norms[number(layer)]),
                _ => (),
            }
            node
        });
        ChannelGraph::new(nodes.collect())
    }

    fn set_groups(&mut self, layer: &str, groups: usize) -> bool {
        self.convs[number(layer)].groups = groups;
        true
    }
}

/// Appends layers and their nodes.
pub(super) struct Maker {
    pub(super) device: Device,
    convs: Vec<Conv2d>,
    norms: Vec<BatchNorm>,
    linears: Vec<Linear>,
}

/// How a convolution of a test is made: kernel, stride, padding, groups, bias.
#[derive(Clone, Copy)]
pub(super) struct Conv {
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) pad: usize,
    pub(super) groups: usize,
    pub(super) bias: bool,
}

pub(super) const PLAIN: Conv = Conv {
    kernel: 1,
    stride: 1,
    pad: 0,
    groups: 1,
    bias: true,
};

pub(super) const PADDED: Conv = Conv {
    kernel: 3,
    pad: 1,
    ..PLAIN
};

impl Maker {
    pub(super) fn new(device: &Device) -> Self {
        Self {
            device: device.clone(),
            convs: Vec::new(),
            norms: Vec::new(),
            linears: Vec::new(),
        }
    }

    pub(super) fn conv(&mut self, x: &Flow, channels: [usize; 2], conv: Conv) -> Flow {
        let pad = conv.pad;
        let layer = Conv2dConfig::new(channels, [conv.kernel; 2])
            .with_stride([conv.stride; 2])
            .with_groups(conv.groups)
            .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
            .with_bias(conv.bias)
            .init(&self.device);
        let flow = x.conv(format!("convs.{}", self.convs.len()), &layer);
        self.convs.push(layer);
        flow
    }

    pub(super) fn norm(&mut self, x: &Flow, channels: usize) -> Flow {
        let layer = BatchNormConfig::new(channels).init(&self.device);
        let flow = x.norm(format!("norms.{}", self.norms.len()), &layer);
        self.norms.push(layer);
        flow
    }

    pub(super) fn linear(&mut self, x: &Flow, features: [usize; 2]) -> Flow {
        let layer = LinearConfig::new(features[0], features[1]).init(&self.device);
        let flow = x.linear(format!("linears.{}", self.linears.len()), &layer);
        self.linears.push(layer);
        flow
    }

    pub(super) fn finish(self, graph: ChannelGraph) -> Net {
        Net {
            convs: self.convs,
            norms: self.norms,
            linears: self.linears,
            graph,
        }
    }
}

/// A vector of random numbers.
pub(super) fn vector(rng: &mut ChaCha8Rng, range: std::ops::Range<f32>, len: usize) -> Vec<f32> {
    (0..len).map(|_| rng.random_range(range.clone())).collect()
}

pub(super) fn tensor<const D: usize>(
    data: Vec<f32>,
    shape: [usize; D],
    device: &Device,
) -> Tensor<D> {
    Tensor::from_data(TensorData::new(data, shape), device)
}

/// Replaces a parameter.
pub(super) fn set<const D: usize>(param: &mut Param<Tensor<D>>, data: Vec<f32>) {
    let shape = param.dims();
    let device = param.val().device();
    *param = param.clone().map(|_| tensor(data, shape, &device));
}

pub(super) fn get<const D: usize>(param: &Param<Tensor<D>>) -> Vec<f32> {
    param.val().into_data().try_to_vec().unwrap()
}

/// Sets all weights of these filters to zero.
pub(super) fn empty_filters(net: &mut Net, conv: usize, filters: &[usize]) {
    let weight = &mut net.convs[conv].weight;
    let mut data = get(weight);
    let row = data.len() / weight.dims()[0];
    for &filter in filters {
        data[filter * row..(filter + 1) * row].fill(0.0);
    }
    set(weight, data);
}

/// Sets all weights that read these channels to zero.
pub(super) fn empty_inputs(net: &mut Net, conv: usize, channels: &[usize]) {
    let weight = &mut net.convs[conv].weight;
    let [_, inputs, height, width] = weight.dims();
    let mut data = get(weight);
    for (at, kernel) in data.chunks_mut(height * width).enumerate() {
        if channels.contains(&(at % inputs)) {
            kernel.fill(0.0);
        }
    }
    set(weight, data);
}

/// Random weights, biases and statistics, none of them trivial.
pub(super) fn randomise(net: &mut Net, rng: &mut ChaCha8Rng) {
    for conv in &mut net.convs {
        let [_, inputs, height, width] = conv.weight.dims();
        let bound = (3.0 / (inputs * height * width) as f32).sqrt();
        let len = get(&conv.weight).len();
        set(&mut conv.weight, vector(rng, -bound..bound, len));
        if let Some(bias) = &mut conv.bias {
            let len = bias.dims()[0];
            set(bias, vector(rng, -0.5..0.5, len));
        }
    }
    for linear in &mut net.linears {
        let [inputs, outputs] = linear.weight.dims();
        let bound = (3.0 / inputs as f32).sqrt();
        set(
            &mut linear.weight,
            vector(rng, -bound..bound, inputs * outputs),
        );
    }
    for norm in &mut net.norms {
        let len = norm.gamma.dims()[0];
        let device = norm.gamma.val().device();
        set(&mut norm.gamma, vector(rng, 0.5..1.5, len));
        set(&mut norm.beta, vector(rng, -0.5..0.5, len));
        let mean = vector(rng, -0.5..0.5, len);
        let var = vector(rng, 0.3..2.0, len);
        norm.running_mean.update(tensor(mean, [len], &device));
        norm.running_var.update(tensor(var, [len], &device));
        // Reading them makes the update take effect.
        norm.running_mean.value_sync();
        norm.running_var.value_sync();
    }
}
