/// Why nodes do not make a [`ChannelGraph`](super::ChannelGraph).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// A node with too few or too many inputs.
    #[error("{node} takes {expected}, not {found}")]
    Inputs {
        /// The node, as it is printed.
        node: String,
        /// What it takes.
        expected: &'static str,
        /// How many it has.
        found: usize,
    },
    /// A node that reads itself or one after it.
    #[error(
        "{node} reads node {input}, which is not before it; list the nodes in the order of a \
         forward pass"
    )]
    Order {
        /// The node, as it is printed.
        node: String,
        /// What it reads.
        input: usize,
    },
    /// Channels or sizes that do not fit.
    #[error("{node}: {reason}")]
    Shape {
        /// The node, as it is printed.
        node: String,
        /// What does not fit.
        reason: String,
    },
    /// A layer that is used twice.
    #[error(
        "layer `{layer}` is used more than once; layers that share parameters cannot be cut: \
         declare each use as `opaque`"
    )]
    Shared {
        /// Its path.
        layer: String,
    },
    /// A graph from which nothing comes out.
    #[error("the graph has no output; hand the last flow to `finish`")]
    NoOutput,
    /// A flow of another builder.
    #[error("a flow of one builder was used with a flow of another; use one builder for a model")]
    Foreign,
    /// More channels than any network has.
    #[error("the graph has more than {limit} channels; check the shapes of its inputs")]
    TooLarge {
        /// The largest number of channels, added up over all nodes.
        limit: usize,
    },
}
