//! What becomes smaller, and what does not and why.

use core::fmt;

use serde::{Deserialize, Serialize};

use super::analysis::{Analysis, Cause, Layer, Matrix};
use super::{ChannelGraph, ConvSpec, Op};
use crate::table::Table;

/// Why channels stay that carry nothing of their own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// They are added to (or multiplied with) channels that are needed.
    Residual {
        /// The node that needs the sum.
        reader: String,
    },
    /// Another node needs them.
    Read {
        /// That node.
        reader: String,
    },
    /// They emit a constant that this convolution reads under zero padding.
    Border {
        /// The convolution.
        reader: String,
    },
    /// They emit a constant, and this layer has neither a bias nor a norm right after it.
    NoBias {
        /// The layer.
        reader: String,
    },
    /// This node keeps all its channels: it enters or leaves the network, or cannot be cut.
    Whole {
        /// The node.
        node: String,
    },
    /// A layer would have none left.
    Last,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Residual { reader } => write!(f, "added to channels that {reader} needs"),
            Self::Read { reader } => write!(f, "{reader} reads them"),
            Self::Border { reader } => {
                write!(f, "{reader} reads their constant under zero padding")
            }
            Self::NoBias { reader } => write!(f, "{reader} has no bias to take their constant"),
            Self::Whole { node } => write!(f, "{node} keeps all channels"),
            Self::Last => f.write_str("a layer keeps one channel at least"),
        }
    }
}

/// Channels of a layer that stay although they carry nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KeptChannels {
    /// Whether they are inputs that the layer does not read; otherwise outputs that are
    /// constant, at the latest after the layer's norm.
    pub inputs: bool,
    /// How many.
    pub channels: usize,
    /// Why.
    pub reason: Reason,
}

/// What becomes of one layer. Arrays hold the number before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ShrunkLayer {
    /// Path of the layer.
    pub layer: String,
    /// `conv`, `linear` or `norm`.
    pub kind: String,
    /// Input channels.
    pub inputs: [usize; 2],
    /// Output channels.
    pub outputs: [usize; 2],
    /// Trainable parameters: weight and bias, gamma and beta.
    pub params: [u64; 2],
    /// Multiply–accumulate operations of a convolution or product, for one input.
    pub macs: [u64; 2],
    /// Channels that stay although they carry nothing.
    pub kept: Vec<KeptChannels>,
}

/// What a [`ShrinkPlan`](super::ShrinkPlan) makes of a model.
///
/// [`Display`](fmt::Display) prints an aligned table; its last line adds up. Parameters of opaque
/// layers, and running statistics, are not counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ShrinkReport {
    /// The layers with parameters, in the order of a forward pass.
    pub layers: Vec<ShrunkLayer>,
}

impl ShrinkReport {
    /// The layer of this path.
    pub fn layer(&self, layer: &str) -> Option<&ShrunkLayer> {
        self.layers.iter().find(|entry| entry.layer == layer)
    }

    /// Trainable parameters before and after.
    pub fn params(&self) -> [u64; 2] {
        self.sum(|layer| layer.params)
    }

    /// Multiply–accumulate operations before and after, for one input.
    pub fn macs(&self) -> [u64; 2] {
        self.sum(|layer| layer.macs)
    }

    fn sum(&self, of: impl Fn(&ShrunkLayer) -> [u64; 2]) -> [u64; 2] {
        self.layers.iter().map(of).fold([0, 0], |sum, n| {
            [sum[0].saturating_add(n[0]), sum[1].saturating_add(n[1])]
        })
    }

    pub(super) fn new(analysis: &Analysis<'_>) -> Self {
        let graph = analysis.graph;
        let mut layers = Vec::new();
        for (node, layer) in analysis.layers.iter().enumerate() {
            let Some(layer) = layer else { continue };
            let op = &graph.nodes()[node].op;
            let count = |node| [graph.shape(node)[0], analysis.kept(node).len()];
            let (inputs, outputs) = (count(graph.nodes()[node].inputs[0]), count(node));
            let (params, macs, kept) = match layer {
                Layer::Norm(_) => (outputs.map(|c| 2 * c as u64), [0; 2], Vec::new()),
                Layer::Matrix(matrix) => {
                    // A group of a grouped convolution reads as many channels as before.
                    let reads = if matrix.groups == 1 {
                        inputs
                    } else {
                        [matrix.inputs; 2]
                    };
                    let kernel = kernel(op);
                    let weights = [0, 1].map(|i| product([outputs[i], reads[i], kernel]));
                    let bias = u64::from(matrix.bias.is_some());
                    let positions = positions(graph, node);
                    (
                        [0, 1].map(|i| weights[i].saturating_add(bias * outputs[i] as u64)),
                        weights.map(|weights| weights.saturating_mul(positions)),
                        kept(analysis, node, matrix),
                    )
                }
            };
            layers.push(ShrunkLayer {
                layer: op.layer().unwrap_or_default().to_owned(),
                kind: op.kind().to_owned(),
                inputs,
                outputs,
                params,
                macs,
                kept,
            });
        }
        Self { layers }
    }
}

fn kernel(op: &Op) -> usize {
    match op {
        Op::Conv {
            conv: ConvSpec { kernel, .. },
            ..
        } => kernel.iter().product(),
        _ => 1,
    }
}

fn positions(graph: &ChannelGraph, node: usize) -> u64 {
    graph.shape(node)[1..].iter().product::<usize>() as u64
}

fn product(numbers: [usize; 3]) -> u64 {
    numbers
        .into_iter()
        .fold(1u64, |product, n| product.saturating_mul(n as u64))
}

/// Outputs that are constant and inputs that are unread, but stay.
fn kept(analysis: &Analysis<'_>, node: usize, matrix: &Matrix) -> Vec<KeptChannels> {
    let input = analysis.graph.nodes()[node].inputs[0];
    let mut read = vec![false; analysis.graph.shape(input)[0]];
    for output in analysis.kept(node) {
        matrix
            .row(output)
            .for_each(|(channel, _)| read[channel] = true);
    }
    let unread = analysis.kept(input).into_iter().filter(|&c| !read[c]);
    let constant = analysis.kept(node).into_iter();
    let constant = constant.filter(|&c| analysis.is_constant(node, c));
    let mut reasons: Vec<(bool, Reason)> = unread
        .map(|channel| (true, reason(analysis, input, channel)))
        .chain(constant.map(|channel| (false, reason(analysis, node, channel))))
        .collect();
    reasons.sort();
    let groups = reasons.chunk_by(|a, b| a == b);
    groups
        .map(|group| KeptChannels {
            inputs: group[0].0,
            channels: group.len(),
            reason: group[0].1.clone(),
        })
        .collect()
}

fn reason(analysis: &Analysis<'_>, node: usize, channel: usize) -> Reason {
    let label = |node: usize| analysis.graph.nodes()[node].op.label();
    match analysis.cause(node, channel) {
        Some(Cause::Read(reader)) if analysis.is_joined(node, channel) => Reason::Residual {
            reader: label(reader),
        },
        Some(Cause::Read(reader)) => Reason::Read {
            reader: label(reader),
        },
        Some(Cause::Border(reader)) => Reason::Border {
            reader: label(reader),
        },
        Some(Cause::NoBias(reader)) => Reason::NoBias {
            reader: label(reader),
        },
        Some(Cause::Fixed(node)) => Reason::Whole { node: label(node) },
        Some(Cause::Last) | None => Reason::Last,
    }
}

impl fmt::Display for ShrinkReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new([
            "layer",
            "kind",
            "in",
            "out",
            "params",
            "MACs",
            "kept and why",
        ])
        .right_aligned(&[2, 3, 4, 5]);
        for layer in &self.layers {
            let kept = layer.kept.iter().map(|kept| {
                let what = if kept.inputs {
                    "unread in"
                } else {
                    "constant out"
                };
                format!("{} {what}: {}", kept.channels, kept.reason)
            });
            table.row([
                layer.layer.clone(),
                layer.kind.clone(),
                change(layer.inputs.map(|n| n as u64)),
                change(layer.outputs.map(|n| n as u64)),
                change(layer.params),
                change(layer.macs),
                kept.collect::<Vec<_>>().join("; "),
            ]);
        }
        write!(f, "{table}")?;
        let ([params, few], [macs, less]) = (self.params(), self.macs());
        write!(
            f,
            "parameters {params} → {few} ({:.2}x), MACs {macs} → {less} ({:.2}x)",
            ratio(params, few),
            ratio(macs, less)
        )
    }
}

/// `64 → 48`, or the number alone where it stays.
fn change([before, after]: [u64; 2]) -> String {
    if before == after {
        before.to_string()
    } else {
        format!("{before} → {after}")
    }
}

fn ratio(before: u64, after: u64) -> f64 {
    if before == after {
        1.0
    } else {
        before as f64 / after as f64
    }
}
