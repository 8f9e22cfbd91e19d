//! What `gru_speech` is made of: RTMobile's block-structured pruning of recurrent layers, trained on
//! recordings, packed and timed frame by frame.
//!
//! ```text
//! dense ─► column step: ADMM ─► mask ─► retrain ─► row step: ADMM ─► mask ─► retrain ─► deploy
//!      └─► as many epochs more without a mask: the dense network that the pruned one is compared with
//! ```
//!
//! [`Bsp`] says which weights may stay, [`Stage`](crate::sequence::Stage) trains and can be stopped
//! after any epoch, [`deploy`](fn@deploy) packs, and [`StepSweep`] measures steps of layers of several sizes.

mod bsp;
mod deploy;
mod lessons;
mod recipe;
mod summary;
mod sweep;

pub use bsp::{Bsp, BspStep};
pub use deploy::{SpeechDeployed, deploy};
pub use lessons::SpeechContext;
pub use recipe::{limits, recipe};
pub use summary::{DenseResult, StepResult, summarise};
pub use sweep::{StepPoint, StepSweep, sweep};
