//! Which channels are the same constant everywhere, whatever enters the network.

use super::{Layer, Matrix};
use crate::shrink::{ChannelGraph, Constants, Op};

/// The constant that a channel is, at every position and for every input; `None` for any other.
pub(in crate::shrink) type Value = Option<f64>;

/// The values of all channels of all nodes.
pub(in crate::shrink) struct Values<'a> {
    graph: &'a ChannelGraph,
    constants: Constants,
    /// Per node, per channel.
    channels: Vec<Vec<Value>>,
}

impl<'a> Values<'a> {
    /// One sweep forward.
    pub(in crate::shrink) fn new(
        graph: &'a ChannelGraph,
        layers: &[Option<Layer>],
        constants: Constants,
    ) -> Self {
        let mut values = Self {
            graph,
            constants,
            channels: Vec::with_capacity(layers.len()),
        };
        for (node, layer) in layers.iter().enumerate() {
            let next = values.node(node, layer.as_ref());
            debug_assert_eq!(next.len(), graph.shape(node)[0]);
            values.channels.push(next);
        }
        values
    }

    /// What a node gives in this channel.
    pub(in crate::shrink) fn of(&self, node: usize, channel: usize) -> Value {
        self.channels[node][channel]
    }

    /// What a convolution or product adds up where it reads this channel of its input: `None` also
    /// for a constant that zero padding breaks off at the border.
    pub(in crate::shrink) fn seen(&self, node: usize, channel: usize) -> Value {
        let nodes = self.graph.nodes();
        let value = self.of(nodes[node].inputs[0], channel)?;
        let Op::Conv { conv, .. } = &nodes[node].op else {
            return Some(value);
        };
        if value == 0.0 || !self.graph.is_padded(node, conv) {
            return Some(value);
        }
        match self.constants {
            Constants::Keep => None,
            Constants::Fold => Some(value),
            Constants::Zero => Some(0.0),
        }
    }

    fn node(&self, node: usize, layer: Option<&Layer>) -> Vec<Value> {
        let Op::Input { shape } = &self.graph.nodes()[node].op else {
            return self.computed(node, layer);
        };
        vec![None; shape[0]]
    }

    fn computed(&self, node: usize, layer: Option<&Layer>) -> Vec<Value> {
        let inputs = &self.graph.nodes()[node].inputs;
        let first = &self.channels[inputs[0]];
        let joined = |join: fn(Value, Value) -> Value| {
            let mut joined = first.clone();
            for &input in &inputs[1..] {
                for (value, &other) in joined.iter_mut().zip(&self.channels[input]) {
                    *value = join(*value, other);
                }
            }
            joined
        };
        match (&self.graph.nodes()[node].op, layer) {
            (_, Some(Layer::Matrix(matrix))) => self.matrix(node, matrix),
            (_, Some(Layer::Norm(norm))) => {
                let channels = first.iter().zip(norm.scale.iter().zip(&norm.shift));
                channels
                    .map(|(value, (&scale, &shift))| match value {
                        Some(c) => Some(scale * c + shift),
                        // A channel that is scaled by zero is a constant whatever it was.
                        None => (scale == 0.0).then_some(shift),
                    })
                    .collect()
            }
            (Op::Activation { function }, _) => first
                .iter()
                .map(|value| value.and_then(|c| function.constant(c)))
                .collect(),
            (Op::Pool { pool }, _) => first
                .iter()
                .map(|value| value.filter(|&c| c == 0.0 || !pool.counts_padding))
                .collect(),
            (Op::Flatten, _) => {
                let input = self.graph.shape(inputs[0]);
                let positions: usize = input[1..].iter().product();
                first
                    .iter()
                    .flat_map(|&value| std::iter::repeat_n(value, positions))
                    .collect()
            }
            (Op::Add, _) => joined(|a, b| Some(a? + b?)),
            (Op::Mul, _) => joined(|a, b| match (a, b) {
                (Some(0.0), _) | (_, Some(0.0)) => Some(0.0),
                _ => Some(a? * b?),
            }),
            (Op::Concat, _) => inputs
                .iter()
                .flat_map(|&input| self.channels[input].iter().copied())
                .collect(),
            (Op::PadChannels { before, after }, _) => {
                let zeros = |count: &usize| std::iter::repeat_n(Some(0.0), *count);
                let middle = first.iter().copied();
                zeros(before).chain(middle).chain(zeros(after)).collect()
            }
            (Op::Opaque { shape, .. }, _) => vec![None; shape[0]],
            _ => first.clone(),
        }
    }

    /// A filter that reads nothing but constants gives one.
    fn matrix(&self, node: usize, matrix: &Matrix) -> Vec<Value> {
        let output = |output: usize| {
            let bias = matrix.bias.as_ref().map_or(0.0, |bias| bias[output]);
            matrix.row(output).try_fold(bias, |sum, (input, weight)| {
                Some(sum + self.seen(node, input)? * weight)
            })
        };
        (0..matrix.outputs).map(output).collect()
    }
}
