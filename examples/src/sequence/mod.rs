//! Stages of training for networks that classify sequences, recordings or sentences: what
//! `gru_speech` and `text_cnn_prune` share.
//!
//! [`Lessons`] is a data set with its network; a [`Stage`] trains the network for some epochs, is
//! saved after each, and can be stopped and resumed; [`Towards`] is what prunes meanwhile.

mod lessons;
mod score;
mod stage;

pub use lessons::{Batches, Lessons, Part};
pub(crate) use score::EVAL_BATCH;
pub use score::{Score, score};
pub use stage::{Context, Stage, StageProgress, Towards, Trained};
