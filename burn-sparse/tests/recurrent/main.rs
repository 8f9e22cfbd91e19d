//! Recurrent layers against Burn's own and against f64 loops, dense and packed, with gradients.

mod common;
mod gradients;
mod gru;
mod house;
mod lstm;
