//! Cutting channels out: from a network with emptied filters to a smaller dense one.
//!
//! Pruning whole filters or channels leaves a network of the same shapes with blocks of zeros.
//! [`shrink`] removes them: a filter that reads nothing, the channel it fed in every later layer,
//! the filters that fed only channels nobody reads, and so on until nothing changes (*purification*
//! in the words of `StructADMM`). The result is the same Rust struct with smaller parameters, which
//! runs on the ordinary dense kernels of every backend.
//!
//! | Question | Here |
//! |---|---|
//! | who feeds whom? | [`ChannelGraph`], declared by [`ChannelModel`] or built by hand |
//! | which channels go? | [`ShrinkPlan`], with a [`ShrinkReport`] that says what stays and why |
//! | is the output the same? | [`shrink`] runs both networks; [`compare`] |
//! | how is it saved and loaded? | the plan as JSON beside the record, see [`ShrinkPlan`] |
//!
//! # Why the graph is declared
//! Burn can record the operations of a forward pass, but on a device of its own that knows no
//! operation which an extension such as [`burn_sparse::ops`] adds, and layers, flattening and
//! shortcuts come out as reshapes and slices from which channels would have to be guessed. A
//! declared graph reads like the forward pass, takes its geometry from the layers, and is checked:
//! every parameter must have its place, all shapes must fit, and both networks are run.
//!
//! # Which channels go
//! Going forward, every channel is found that is the same constant `c` at every position for every
//! input. With filter weights `w`, bias `b`, and a batch norm's `γ, β, μ, σ²`:
//!
//! ```text
//! filter that reads only constants   b + Σ c_i Σ w_i     (b alone, once it is emptied)
//! batch norm                         β + γ (c − μ) / √(σ² + ε), and β for any channel if γ = 0
//! activation                         f(c)
//! sum, product                       of the constants; a product with zero is zero
//! ```
//!
//! Going backward from the outputs, a channel is kept if a filter that is kept reads it, unless it
//! is a constant that can move into that layer's bias, `b_o += c_i Σ w_oi`; a layer without a bias
//! moves it into the running means of the norms after it. Zero padding breaks a constant off at the
//! border, so there it is kept, unless it is zero or [`Constants`] says otherwise. Everything else
//! goes. Channels that a sum or product ties together are kept or cut as one: a residual stream
//! loses a channel only where all its branches agree.
//!
//! Convolutions with groups keep all their channels, except depthwise ones on request
//! ([`ShrinkOptions::depthwise`]); whatever the graph calls opaque keeps all of its own.
//!
//! # Source
//! Zhang et al., `StructADMM`: *A systematic, high-efficiency framework of structured weight pruning
//! for DNNs*, 2018 (purification and unused path removal); the constants and their folding are
//! derived here.

mod analysis;
mod cut;
mod error;
mod graph;
mod model;
mod options;
mod plan;
mod report;
#[cfg(test)]
mod tests;
mod verify;

pub use cut::{AxisCut, ParameterCut};
pub use error::ShrinkError;
pub use graph::{
    Activation, ChannelGraph, ConvSpec, Flow, GraphBuilder, GraphError, LinearSpec, Node, NormSpec,
    Op, Padding, PoolSpec,
};
pub use model::ChannelModel;
pub use options::{Constants, Emptied, ShrinkOptions};
pub use plan::ShrinkPlan;
pub use report::{KeptChannels, Reason, ShrinkReport, ShrunkLayer};
pub(crate) use verify::shrink_compared;
pub use verify::{Difference, Shrunk, compare, shrink, shrink_with};
