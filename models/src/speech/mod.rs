//! A classifier of spoken words: gated recurrent units over log-mel features.

mod config;
mod network;

pub use config::{Pooling, SpeechGruConfig, SpeechGruError};
pub use network::{SpeechGru, SpeechState};
