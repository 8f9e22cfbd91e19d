//! Channels that can only go together.

use crate::shrink::{ChannelGraph, Op};

/// Channels of all nodes in classes: two are of one class where an operation ties them, such as
/// the terms of a sum. A class is kept or cut as a whole.
pub(in crate::shrink) struct Classes {
    /// Where the channels of each node begin.
    first: Vec<usize>,
    /// Union–find with path halving.
    parent: Vec<usize>,
    /// By representative: whether the class runs through a sum or a product of channels.
    joined: Vec<bool>,
}

impl Classes {
    /// The classes of a graph; depthwise convolutions tie their channels if they are cut at all.
    pub(in crate::shrink) fn new(graph: &ChannelGraph, depthwise: bool) -> Self {
        let mut first = Vec::with_capacity(graph.nodes().len());
        let mut total = 0;
        for node in 0..graph.nodes().len() {
            first.push(total);
            total += graph.shape(node)[0];
        }
        let mut classes = Self {
            first,
            parent: (0..total).collect(),
            joined: vec![false; total],
        };
        for node in 0..graph.nodes().len() {
            classes.tie(graph, node, depthwise);
        }
        classes
    }

    fn tie(&mut self, graph: &ChannelGraph, node: usize, depthwise: bool) {
        let inputs = &graph.nodes()[node].inputs;
        let channels = graph.shape(node)[0];
        match &graph.nodes()[node].op {
            Op::Norm { .. }
            | Op::Activation { .. }
            | Op::Pool { .. }
            | Op::Resize { .. }
            | Op::Output => {
                (0..channels).for_each(|c| self.union([inputs[0], c], [node, c]));
            }
            Op::Flatten => {
                let positions = channels / graph.shape(inputs[0])[0];
                (0..channels).for_each(|c| self.union([inputs[0], c / positions], [node, c]));
            }
            Op::Add | Op::Mul => {
                for channel in 0..channels {
                    for &input in inputs {
                        self.union([input, channel], [node, channel]);
                    }
                    let class = self.of(node, channel);
                    self.joined[class] = true;
                }
            }
            Op::Concat => {
                let mut start = 0;
                for &input in inputs {
                    let channels = graph.shape(input)[0];
                    (0..channels).for_each(|c| self.union([input, c], [node, start + c]));
                    start += channels;
                }
            }
            Op::PadChannels { before, .. } => {
                let channels = graph.shape(inputs[0])[0];
                (0..channels).for_each(|c| self.union([inputs[0], c], [node, before + c]));
            }
            Op::Conv { conv, .. } if depthwise && conv.groups > 1 => {
                let [c_in, c_out] = conv.channels;
                if conv.groups == c_in {
                    let each = c_out / c_in;
                    (0..c_out).for_each(|c| self.union([inputs[0], c / each], [node, c]));
                }
            }
            Op::Conv { .. } | Op::Linear { .. } | Op::Input { .. } | Op::Opaque { .. } => (),
        }
    }

    fn union(&mut self, a: [usize; 2], b: [usize; 2]) {
        let (a, b) = (self.of(a[0], a[1]), self.of(b[0], b[1]));
        let joined = self.joined[a] || self.joined[b];
        self.parent[b] = a;
        self.joined[a] = joined;
    }

    /// The class of a node's channel: its representative.
    pub(in crate::shrink) fn of(&mut self, node: usize, channel: usize) -> usize {
        let mut at = self.first[node] + channel;
        while self.parent[at] != at {
            self.parent[at] = self.parent[self.parent[at]];
            at = self.parent[at];
        }
        at
    }

    /// Whether the class runs through a sum or a product.
    pub(in crate::shrink) fn is_joined(&self, class: usize) -> bool {
        self.joined[class]
    }

    /// Channels of all nodes.
    pub(in crate::shrink) fn len(&self) -> usize {
        self.parent.len()
    }
}
