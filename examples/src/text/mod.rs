//! What `text_cnn_prune` is made of: Kim's network for sentences, pruned in its 1-D convolutions,
//! packed and timed.
//!
//! ```text
//! dense ─► ADMM, gradual or nothing ─► mask ─► retrain ─► deploy
//!      └─► as many epochs more without a mask: the dense network that the pruned one is compared with
//! ```
//!
//! [`TextLessons`] are sentences and the network that learns them, [`plan`](fn@plan) says which weights
//! may stay, [`deploy`](fn@deploy) packs, and [`latency`](fn@latency) measures layers and the whole
//! network without training. `text_cnn_infer` runs a [`TextPart`] of a network from a file.

mod deploy;
mod infer;
mod latency;
mod lessons;
mod plan;
mod recipe;
mod summary;

pub use deploy::{BATCHES, ConvTime, TextDeployed, deploy};
pub use infer::{TextPart, config_of, store};
pub use latency::{TABLES, latency};
pub use lessons::{TextContext, TextLessons};
pub use plan::plan;
pub use recipe::{HEAD_NORM, WORD_DROPOUT, limits, recipe};
pub use summary::{DenseResult, PruneResult, summarise};
