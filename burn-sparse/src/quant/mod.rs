//! Values in few bits: codes, the levels they stand for, and how both are found in weights.
//!
//! A quantised weight is stored as a code of 1 to 16 bits for each of its values, and the [`Levels`]
//! that turn codes back into numbers:
//!
//! | [`Levels`] | value of code `c` in row `r` | made by |
//! |---|---|---|
//! | `Nonzero` | `k · scale[r]`, `k` among `±1 .. ±2^(bits−1)` | ADMM-NN's equal intervals: zero is a pruned weight, not a level |
//! | `Signed` | `k · scale[r]`, `k` in `−2^(bits−1) .. 2^(bits−1) − 1` | fixed point |
//! | `Codebook` | `codebook[c]` | k-means, powers of two, anything with few distinct values |
//!
//! Nothing has to be said about how a weight was trained: [`Quantized::find`] recognises its levels
//! bit for bit, or finds none.

mod bit_codes;
mod find;
mod levels;

pub use bit_codes::BitCodes;
pub use find::common_scale;
pub use levels::{Levels, Quantized};

/// Most bits of a code.
pub const MAX_BITS: u8 = 16;
