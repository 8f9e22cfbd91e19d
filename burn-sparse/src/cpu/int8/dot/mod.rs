//! Four products and their sum in each lane.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::{BLOCK, DEPTH, ROWS};
use crate::cpu::Isa;

/// An instruction set's way to multiply bytes and add the products.
pub(super) trait Dot: Copy {
    /// Sums of sixteen rows.
    type Sums: Copy;

    /// What is taken from every input before it is multiplied, for instructions whose operands are both
    /// signed.
    const SHIFT: i32 = 0;

    fn zero(self) -> Self::Sums;

    /// `sums[row] += Σ_i weights[4 row + i] (x[i] - SHIFT)`.
    fn add(self, sums: Self::Sums, weights: &[i8; BLOCK], x: [u8; DEPTH]) -> Self::Sums;

    fn total(self, sums: Self::Sums) -> [i32; ROWS];
}

/// Work that an instruction set does, on tiles that fill its registers.
pub(super) trait Work {
    /// `M` inputs by `B` blocks of rows.
    fn run<D: Dot, const M: usize, const B: usize>(self, dot: D);
}

/// Runs `work` with the best instructions of a set that this machine has.
pub(super) fn dispatch(isa: Isa, work: impl Work) {
    #[cfg(target_arch = "x86_64")]
    match isa {
        Isa::Avx512 => {
            if let Some(dot) = x86::Vnni512::try_new() {
                return dot.run(work);
            }
            if let Some(dot) = x86::Pairs::try_new() {
                return dot.run(work);
            }
        }
        Isa::Avx2 => {
            if let Some(dot) = x86::Vnni256::try_new() {
                return dot.run(work);
            }
            if let Some(dot) = x86::Pairs::try_new() {
                return dot.run(work);
            }
        }
        Isa::Neon | Isa::Portable => {}
    }
    #[cfg(target_arch = "aarch64")]
    if isa == Isa::Neon
        && let Some(dot) = aarch64::Sdot::try_new()
    {
        return dot.run(work);
    }
    let _ = isa;
    work.run::<Plain, 2, 1>(Plain);
}

/// Plain code, of which the compiler makes what it can.
#[derive(Clone, Copy)]
pub(super) struct Plain;

impl Dot for Plain {
    type Sums = [i32; ROWS];

    #[inline(always)]
    fn zero(self) -> Self::Sums {
        [0; ROWS]
    }

    #[inline(always)]
    fn add(self, mut sums: Self::Sums, weights: &[i8; BLOCK], x: [u8; DEPTH]) -> Self::Sums {
        let (rows, _) = weights.as_chunks::<DEPTH>();
        for (sum, weights) in sums.iter_mut().zip(rows) {
            for (&w, &x) in weights.iter().zip(&x) {
                *sum = sum.wrapping_add(i32::from(w) * i32::from(x));
            }
        }
        sums
    }

    #[inline(always)]
    fn total(self, sums: Self::Sums) -> [i32; ROWS] {
        sums
    }
}
