use burn::module::Module;

use super::{ChannelGraph, GraphError};

/// A network that can say who feeds whom.
///
/// Implement it for your own networks; for one that is not yours, build a [`ChannelGraph`] and call
/// [`shrink_with`](super::shrink_with).
pub trait ChannelModel: Module {
    /// The graph of a forward pass over an input `[channels, positions..]`.
    ///
    /// # Errors
    /// [`GraphError`] if the input does not fit.
    fn channel_graph(&self, input: &[usize]) -> Result<ChannelGraph, GraphError>;

    /// Sets the number of groups of a depthwise convolution, by its path, and says whether there is
    /// such a layer. Only networks that are shrunk with
    /// [`with_depthwise`](super::ShrinkOptions::with_depthwise) need it.
    fn set_groups(&mut self, _layer: &str, _groups: usize) -> bool {
        false
    }
}
