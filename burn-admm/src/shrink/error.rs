use burn::tensor::TensorReadError;

use super::GraphError;

/// Why channels cannot be cut out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShrinkError {
    /// The graph contradicts itself.
    #[error("channel graph: {0}")]
    Graph(#[from] GraphError),
    /// A layer of the graph or of a plan whose parameter the model lacks.
    #[error(
        "the model has no parameter `{parameter}`{}; name layers by the paths of the model, and \
         unpack packed layers first", suggest(.near)
    )]
    Missing {
        /// The parameter.
        parameter: String,
        /// The most similar parameter of the model.
        near: Option<String>,
    },
    /// A parameter of the model that the graph does not place.
    #[error(
        "parameter `{parameter}` has no place in the channel graph; add its layer, as `opaque` if \
         nothing else describes it"
    )]
    Undeclared {
        /// The parameter.
        parameter: String,
    },
    /// A parameter of another shape than expected.
    #[error(
        "parameter `{parameter}` is {found:?}, but {expected:?} was expected; a plan fits only the \
         model that it was made for, and only once"
    )]
    Shape {
        /// The parameter.
        parameter: String,
        /// What the graph or the plan says.
        expected: Vec<usize>,
        /// What the model has.
        found: Vec<usize>,
    },
    /// A NaN or an infinity, or a variance that is negative.
    #[error("parameter `{parameter}` holds a value that is not finite or a negative variance")]
    NonFinite {
        /// The parameter.
        parameter: String,
    },
    /// A parameter that its device cannot give.
    #[error("parameter `{parameter}` cannot be read: {source}")]
    Read {
        /// The parameter.
        parameter: String,
        /// Why not.
        source: TensorReadError,
    },
    /// A layer of which nothing would be left.
    #[error(
        "{layer} would lose all its channels; prune it less, or keep one with `Emptied::KeepOne`"
    )]
    Emptied {
        /// The layer.
        layer: String,
    },
    /// A depthwise convolution whose number of groups was not changed.
    #[error(
        "layer `{layer}` needs {groups} groups; set them in `ChannelModel::set_groups` or in the \
         function given to `apply_with` or `shrink_with`, and return true"
    )]
    Groups {
        /// The layer.
        layer: String,
        /// Its groups from now on.
        groups: usize,
    },
    /// A plan that contradicts itself.
    #[error("shrink plan: {0}")]
    Plan(String),
    /// Text that is no plan.
    #[error("shrink plan is not valid JSON of a plan: {0}")]
    Json(#[from] serde_json::Error),
    /// An option out of range.
    #[error("tolerance must be positive and finite, got {0}")]
    Tolerance(f64),
    /// A network that cannot be verified with one random input of the wanted rank.
    #[error(
        "the graph has inputs {inputs:?} (`[channels, positions..]`), so one random tensor of rank \
         {rank} cannot be made; use `ShrinkPlan::apply` and `compare` with inputs of your own"
    )]
    Input {
        /// The shapes of the graph's inputs.
        inputs: Vec<Vec<usize>>,
        /// The rank of the tensor that `forward` takes.
        rank: usize,
    },
    /// The smaller network gives another output.
    #[error(
        "the smaller network differs from the masked one by {max_abs_diff:e} where outputs reach \
         {largest:e} (tolerance {tolerance:e}); the channel graph does not describe what `forward` \
         computes"
    )]
    Differs {
        /// The largest difference of an output.
        max_abs_diff: f64,
        /// The largest output of the masked network.
        largest: f64,
        /// What was tolerated, as a fraction of it.
        tolerance: f64,
    },
}

fn suggest(near: &Option<String>) -> String {
    match near {
        Some(near) => format!(" (did you mean `{near}`?)"),
        None => String::new(),
    }
}
