//! What `gru_speech` is made of: RTMobile's block-structured pruning of recurrent layers, trained on
//! recordings, packed and timed frame by frame.
//!
//! ```text
//! dense ─► column step: ADMM ─► mask ─► retrain ─► row step: ADMM ─► mask ─► retrain ─► deploy
//!      └─► as many epochs more without a mask: the dense network that the pruned one is compared with
//! ```
//!
//! [`Bsp`] says which weights may stay, [`Stage`] trains and can be stopped after any epoch,
//! [`deploy`](fn@deploy) packs, and [`StepSweep`] measures steps of layers of several sizes.

mod bsp;
mod deploy;
mod evaluate;
mod recipe;
mod stage;
mod summary;
mod sweep;

pub use bsp::{Bsp, BspStep};
pub use deploy::{SpeechDeployed, deploy};
pub use evaluate::{SpeechScore, score};
pub use recipe::{limits, recipe};
pub use stage::{SpeechContext, SpeechProgress, Stage, Trained};
pub use summary::{DenseResult, StepResult, summarise};
pub use sweep::{StepPoint, StepSweep, sweep};
