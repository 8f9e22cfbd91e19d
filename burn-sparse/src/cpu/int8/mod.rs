//! Dense layers in 8-bit integers: weights with a scale for each output channel, inputs with one scale
//! and a zero point, sums of 32 bits.
//!
//! With weights `w = scale[k] · q`, `q` from -127 to 127, and inputs `x = step · (u - zero)`, `u` from 0
//! to 255 ([`InputScale`]),
//!
//! ```text
//! Σ w x = scale[k] · step · (Σ q u - zero · Σ q)
//! ```
//!
//! where the first sum is of integers and exact, and the second is known when the weight is made
//! ([`Int8Weight`]). This is the scheme of Jacob et al., "Quantization and Training of Neural Networks
//! for Efficient Integer-Arithmetic-Only Inference" (2018), section 2, with weights symmetric around
//! zero; outputs leave as f32, after bias, residual and activation.
//!
//! Products of four neighbouring inputs are added by one instruction where there is one (`vpdpbusd` of
//! AVX-512 VNNI and AVX-VNNI, `sdot` of Arm), or else as pairs of 16 bits (AVX2), or by plain code.

mod conv;
mod dot;
mod linear;
mod scale;
#[cfg(test)]
mod tests;
mod tile;
mod weight;

pub use conv::int8_conv;
pub use linear::int8_linear;
pub use scale::InputScale;
pub use weight::Int8Weight;

/// Output channels that are computed side by side.
const ROWS: usize = 16;

/// Inputs that one instruction multiplies and adds.
const DEPTH: usize = 4;

/// Bytes of weights for them.
const BLOCK: usize = ROWS * DEPTH;
