//! Weights as machine code: every non-zero is one instruction.
//!
//! A kernel that reads positions from memory cannot choose registers by them: the sums of a row stay in
//! registers, and each non-zero loads its own inputs. Code that is written for one weight can. Sums of up to
//! [`MOST_ROWS`] output channels over one vector of neighbouring outputs fill the registers, each input is
//! loaded once for all of them, and
//!
//! ```text
//! vmovups     zmm28, [input + position]           once for each position that some channel has
//! vfmadd231ps zmm5, zmm28, [values + 4i]{1to16}   for each channel that has it
//! ```
//!
//! are all there is: no positions to read, no loops, nothing to predict.
//!
//! Code takes 7 to 11 bytes for a non-zero and its values four more, where positions and values take eight, and a
//! processor fetches it more slowly than data. So it is cut into blocks of input channels, as lists of positions are:
//! the code of some channels' block is short enough for the first cache, runs for one vector of the tile after the
//! other, and leaves its sums where the next block finds them. Where the weights of a network stream through memory,
//! bytes count all the same, so packing times both.

#[cfg(target_arch = "x86_64")]
mod assembler;
#[cfg(target_arch = "x86_64")]
mod code;
#[cfg(not(target_arch = "x86_64"))]
mod none;

#[cfg(target_arch = "x86_64")]
pub(super) use code::Code;
#[cfg(not(target_arch = "x86_64"))]
pub(super) use none::Code;

use std::sync::OnceLock;

use crate::cpu::Isa;

/// Most output channels whose sums stay in registers: as many as leave room for inputs on their way.
pub const MOST_ROWS: usize = 28;

/// What a unit of code runs on: one vector of outputs for each of its channels.
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "there is no code to read it")
)]
pub(super) struct Run<'a> {
    /// The working image at the first output.
    pub(super) input: *const f32,
    /// Where the outputs of the unit's first channel go.
    pub(super) out: *mut f32,
    /// Elements between channels there.
    pub(super) out_stride: usize,
    /// One for every channel of the layer.
    pub(super) bias: Option<&'a [f32]>,
    /// What is added to the outputs of the unit's first channel, and the elements between channels.
    pub(super) residual: Option<(*const f32, usize)>,
    pub(super) relu: bool,
}

/// The environment variable that, set to `off`, keeps weights from becoming code.
const CODE_VARIABLE: &str = "BURN_SPARSE_CODE";

/// Whether weights can become code for an instruction set.
pub(super) fn exists(isa: Isa) -> bool {
    static WANTED: OnceLock<bool> = OnceLock::new();
    let wanted = || std::env::var_os(CODE_VARIABLE).is_none_or(|value| value != "off");
    cfg!(target_arch = "x86_64") && isa == Isa::Avx512 && *WANTED.get_or_init(wanted)
}
