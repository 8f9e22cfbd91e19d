//! Who feeds whom: the channels of a network as plain data.

mod activation;
mod builder;
mod error;
mod node;
mod shape;
mod spec;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

pub use activation::Activation;
pub use builder::{Flow, GraphBuilder};
pub use error::GraphError;
pub use node::{Node, Op};
pub use spec::{ConvSpec, LinearSpec, NormSpec, Padding, PoolSpec};

use crate::table::{Table, shape as shape_text};

/// The layers of a network in the order of a forward pass, and which of them reads which.
///
/// It is plain data: it can be built ([`of`](Self::of), [`GraphBuilder`]), printed, saved with
/// serde and compared. A graph that exists is consistent: shapes fit, no layer appears twice.
/// Whether it describes a given model is checked when a
/// [`ShrinkPlan`](crate::shrink::ShrinkPlan) is made: every parameter must have its place in it.
///
/// # Example
/// ```
/// use burn::module::Module;
/// use burn::nn::conv::{Conv2d, Conv2dConfig};
/// use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
/// use burn::tensor::Device;
/// use burn_admm::shrink::ChannelGraph;
///
/// #[derive(Module, Debug)]
/// struct Net {
///     conv1: Conv2d,
///     bn1: BatchNorm,
///     conv2: Conv2d,
///     fc: Linear,
/// }
///
/// let device = Device::flex();
/// let net = Net {
///     conv1: Conv2dConfig::new([3, 8], [3, 3]).init(&device),
///     bn1: BatchNormConfig::new(8).init(&device),
///     conv2: Conv2dConfig::new([8, 8], [1, 1]).init(&device),
///     fc: LinearConfig::new(8, 10).init(&device),
/// };
/// // The forward pass once more, with the layers' paths; the geometry is read from the layers.
/// let graph = ChannelGraph::of([3, 16, 16], |x| {
///     let x = x.conv("conv1", &net.conv1).norm("bn1", &net.bn1).relu();
///     let y = x.conv("conv2", &net.conv2);
///     x.add(&y).relu().resize([1, 1]).flatten().linear("fc", &net.fc)
/// })?;
/// println!("{graph}");
/// assert_eq!(graph.shape(1), [8, 14, 14]);
/// # Ok::<(), burn_admm::shrink::GraphError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Node>", into = "Vec<Node>")]
pub struct ChannelGraph {
    nodes: Vec<Node>,
    /// `[channels, positions..]` of every node.
    shapes: Vec<Vec<usize>>,
}

impl ChannelGraph {
    /// A graph of these nodes, in the order of a forward pass.
    ///
    /// # Errors
    /// [`GraphError`] for a node that reads one after it, has too many or too few inputs or inputs
    /// of a wrong shape, for a layer that appears twice, and where no output is.
    pub fn new(nodes: Vec<Node>) -> Result<Self, GraphError> {
        let shapes = shape::infer(&nodes)?;
        let mut seen = HashSet::new();
        for node in &nodes {
            // Whatever an opaque node shares stays as it is anyway.
            let opaque = matches!(node.op, Op::Opaque { .. });
            if let Some(layer) = node.op.layer()
                && !opaque
                && !seen.insert(layer)
            {
                return Err(GraphError::Shared {
                    layer: layer.to_owned(),
                });
            }
        }
        if !nodes.iter().any(|node| node.op == Op::Output) {
            return Err(GraphError::NoOutput);
        }
        Ok(Self { nodes, shapes })
    }

    /// The graph of a network with one input of `[channels, positions..]` and one output.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of(
        input: impl Into<Vec<usize>>,
        forward: impl FnOnce(Flow) -> Flow,
    ) -> Result<Self, GraphError> {
        let builder = GraphBuilder::new();
        let output = forward(builder.input(input));
        builder.finish([output])
    }

    /// The nodes, in the order of a forward pass.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// `[channels, positions..]` of what a node gives.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn shape(&self, node: usize) -> &[usize] {
        &self.shapes[node]
    }

    /// The inputs of the network: their nodes.
    pub fn inputs(&self) -> impl Iterator<Item = usize> {
        self.nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| matches!(node.op, Op::Input { .. }))
            .map(|(index, _)| index)
    }

    /// Whether zeros surround the input of this convolution.
    pub(crate) fn is_padded(&self, node: usize, conv: &ConvSpec) -> bool {
        let size = &self.shapes[self.nodes[node].inputs[0]][1..];
        let padding = conv.padding.resolve(&conv.kernel, &conv.stride, size);
        padding.iter().any(|&pad| pad != [0, 0])
    }
}

impl TryFrom<Vec<Node>> for ChannelGraph {
    type Error = GraphError;

    fn try_from(nodes: Vec<Node>) -> Result<Self, GraphError> {
        Self::new(nodes)
    }
}

impl From<ChannelGraph> for Vec<Node> {
    fn from(graph: ChannelGraph) -> Self {
        graph.nodes
    }
}

impl core::fmt::Display for ChannelGraph {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut table = Table::new(["node", "op", "layer", "reads", "shape"]).right_aligned(&[0]);
        for (index, node) in self.nodes.iter().enumerate() {
            let reads: Vec<String> = node.inputs.iter().map(usize::to_string).collect();
            table.row([
                index.to_string(),
                node.op.kind().to_owned(),
                node.op.layer().unwrap_or_default().to_owned(),
                reads.join(", "),
                shape_text(&self.shapes[index]),
            ]);
        }
        write!(f, "{table}")
    }
}
