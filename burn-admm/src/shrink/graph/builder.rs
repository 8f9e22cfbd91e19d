//! Writing a graph as one writes a forward pass.

use std::cell::RefCell;
use std::rc::Rc;

use super::{
    Activation, ChannelGraph, ConvSpec, GraphError, LinearSpec, Node, NormSpec, Op, PoolSpec,
};

#[derive(Debug, Default)]
struct Nodes {
    list: Vec<Node>,
    foreign: bool,
}

/// Builds a [`ChannelGraph`] with any number of inputs and outputs.
///
/// # Example
/// ```
/// use burn_admm::shrink::{GraphBuilder, LinearSpec};
///
/// let builder = GraphBuilder::new();
/// let left = builder.input([8]).linear("left", LinearSpec([8, 4]));
/// let right = builder.input([6]).linear("right", LinearSpec([6, 4]));
/// let graph = builder.finish([left.add(&right).relu().linear("head", LinearSpec([4, 2]))])?;
/// assert_eq!(graph.shape(graph.nodes().len() - 1), [2]);
/// # Ok::<(), burn_admm::shrink::GraphError>(())
/// ```
#[derive(Debug, Default)]
pub struct GraphBuilder {
    nodes: Rc<RefCell<Nodes>>,
}

/// What flows between two operations of a graph that is being built.
///
/// Every method appends a node and gives what comes out of it. Mistakes show in
/// [`finish`](GraphBuilder::finish).
#[derive(Debug, Clone)]
pub struct Flow {
    nodes: Rc<RefCell<Nodes>>,
    node: usize,
}

impl GraphBuilder {
    /// Without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// What enters the network: `[channels, positions..]`, the batch left out.
    pub fn input(&self, shape: impl Into<Vec<usize>>) -> Flow {
        let shape = shape.into();
        push(&self.nodes, Op::Input { shape }, Vec::new())
    }

    /// The graph, with these flows as its outputs.
    ///
    /// # Errors
    /// [`GraphError`], as [`ChannelGraph::new`].
    pub fn finish(
        self,
        outputs: impl IntoIterator<Item = Flow>,
    ) -> Result<ChannelGraph, GraphError> {
        for flow in outputs {
            if !Rc::ptr_eq(&flow.nodes, &self.nodes) {
                return Err(GraphError::Foreign);
            }
            push(&self.nodes, Op::Output, vec![flow.node]);
        }
        let nodes = self.nodes.take();
        if nodes.foreign {
            return Err(GraphError::Foreign);
        }
        ChannelGraph::new(nodes.list)
    }
}

fn push(nodes: &Rc<RefCell<Nodes>>, op: Op, inputs: Vec<usize>) -> Flow {
    let mut borrowed = nodes.borrow_mut();
    borrowed.list.push(Node { op, inputs });
    Flow {
        nodes: nodes.clone(),
        node: borrowed.list.len() - 1,
    }
}

impl Flow {
    fn then(&self, op: Op) -> Self {
        push(&self.nodes, op, vec![self.node])
    }

    fn join<'a>(&self, op: Op, others: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut inputs = vec![self.node];
        for other in others {
            if !Rc::ptr_eq(&self.nodes, &other.nodes) {
                self.nodes.borrow_mut().foreign = true;
            }
            inputs.push(other.node);
        }
        push(&self.nodes, op, inputs)
    }

    /// A convolution with the parameters `layer.weight` and maybe `layer.bias`. Pass the layer
    /// itself (`&model.conv1`), or a [`ConvSpec`].
    #[must_use]
    pub fn conv(&self, layer: impl Into<String>, conv: impl Into<ConvSpec>) -> Self {
        let (layer, conv) = (layer.into(), conv.into());
        self.then(Op::Conv { layer, conv })
    }

    /// A linear layer with the parameters `layer.weight` and maybe `layer.bias`. Pass the layer
    /// itself, or a [`LinearSpec`].
    #[must_use]
    pub fn linear(&self, layer: impl Into<String>, features: impl Into<LinearSpec>) -> Self {
        let (layer, features) = (layer.into(), features.into());
        self.then(Op::Linear { layer, features })
    }

    /// A batch norm. Pass the layer itself, or a [`NormSpec`].
    #[must_use]
    pub fn norm(&self, layer: impl Into<String>, norm: impl Into<NormSpec>) -> Self {
        let (layer, norm) = (layer.into(), norm.into());
        self.then(Op::Norm { layer, norm })
    }

    /// `max(x, 0)`.
    #[must_use]
    pub fn relu(&self) -> Self {
        self.activation(Activation::Relu)
    }

    /// A function of each element.
    #[must_use]
    pub fn activation(&self, function: Activation) -> Self {
        self.then(Op::Activation { function })
    }

    /// A pooling. Pass the layer itself, or a [`PoolSpec`].
    #[must_use]
    pub fn pool(&self, pool: impl Into<PoolSpec>) -> Self {
        let pool = pool.into();
        self.then(Op::Pool { pool })
    }

    /// An adaptive average or an interpolation to this size; see [`Op::Resize`].
    #[must_use]
    pub fn resize(&self, size: impl Into<Vec<usize>>) -> Self {
        let size = size.into();
        self.then(Op::Resize { size })
    }

    /// `[channels, positions..]` → `[channels · positions]`, as `x.flatten(1, 3)`.
    #[must_use]
    pub fn flatten(&self) -> Self {
        self.then(Op::Flatten)
    }

    /// The sum with another, channel by channel.
    #[must_use]
    pub fn add(&self, other: &Self) -> Self {
        self.join(Op::Add, [other])
    }

    /// The product with another, channel by channel.
    #[must_use]
    pub fn mul(&self, other: &Self) -> Self {
        self.join(Op::Mul, [other])
    }

    /// The channels of this one, then those of the others.
    #[must_use]
    pub fn concat<'a>(&self, others: impl IntoIterator<Item = &'a Self>) -> Self {
        self.join(Op::Concat, others)
    }

    /// Channels of zeros before and after these, their number fixed in the model.
    #[must_use]
    pub fn pad_channels(&self, before: usize, after: usize) -> Self {
        self.then(Op::PadChannels { before, after })
    }

    /// Anything else that gives `[channels, positions..]`: its parameters are those at and below
    /// `layer`, and all channels that it reads and gives are kept.
    #[must_use]
    pub fn opaque(&self, layer: impl Into<String>, shape: impl Into<Vec<usize>>) -> Self {
        let (layer, shape) = (layer.into(), shape.into());
        self.then(Op::Opaque { layer, shape })
    }

    /// As [`opaque`](Self::opaque), reading others too.
    #[must_use]
    pub fn opaque_with<'a>(
        &self,
        layer: impl Into<String>,
        others: impl IntoIterator<Item = &'a Self>,
        shape: impl Into<Vec<usize>>,
    ) -> Self {
        let (layer, shape) = (layer.into(), shape.into());
        self.join(Op::Opaque { layer, shape }, others)
    }
}
