//! A classifier of sentences: convolutions over word vectors.

mod config;
mod network;

pub use config::{TextCnnConfig, TextCnnError};
pub use network::TextCnn;
