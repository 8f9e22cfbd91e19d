//! Drop-in layers: the configurations, parameter paths and records of Burn's own, with a weight
//! that is dense, packed or a chain of factors. The recurrent ones ([`Gru`], [`Lstm`]) hold the gates of a layer in one
//! matrix, so their parameters have paths of their own.
//!
//! A model written on these layers trains, prunes and records as any other. Packing
//! ([`pack`](crate::pack)) replaces weights inside it and leaves its struct as it is.

mod batch;
mod batch_norm;
mod condense;
mod conv1d;
mod conv2d;
mod factors;
mod flow;
mod fold;
mod grouped;
mod gru;
mod linear;
mod lstm;
mod pool;
mod profile;
mod quant;
mod recurrent;
mod schedule;
mod trace;
mod traverse;
mod weight;

pub use crate::ops::Activation;
pub use batch::{at_once, early_and_late, image_by_image};
pub use batch_norm::batch_norm;
pub use condense::condense_batch_norms;
pub use conv1d::{Conv1d, Conv1dConfig};
pub use conv2d::{Conv2d, Conv2dConfig};
pub use factors::{FactorForm, Factors};
pub(crate) use flow::is_followed as flow_is_followed;
pub use flow::{Flow, FlowLayer, Place};
pub use fold::fold_batch_norm;
pub use gru::{Gru, GruConfig};
pub use linear::{Linear, LinearConfig};
pub use lstm::{Lstm, LstmConfig};
pub use pool::max_pool2d;
pub use profile::{LayerTime, Profile};
pub use quant::{QuantConv2d, QuantLinear};
pub(crate) use schedule::{Heeded, run_parts};
pub use schedule::{RunAs, Schedule};
pub(crate) use trace::Carried;
pub use trace::Trace;
pub use traverse::{
    AnyWeight, NamedWeight, SharedPart, multiply_factors, replace_weights, weights,
};
pub use weight::{PackedWeight, Weight};
