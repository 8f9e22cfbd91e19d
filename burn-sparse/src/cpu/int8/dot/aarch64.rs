//! `sdot`, four products of signed bytes in each lane.

use std::arch::{aarch64::int32x4_t, asm, is_aarch64_feature_detected};

use super::{BLOCK, DEPTH, Dot, ROWS, Work};

/// `sdot` on registers of 16 bytes. Rust has no stable intrinsic for it.
#[derive(Clone, Copy)]
pub(crate) struct Sdot(());

impl Sdot {
    pub(crate) fn try_new() -> Option<Self> {
        is_aarch64_feature_detected!("dotprod").then_some(Self(()))
    }

    pub(super) fn run(self, work: impl Work) {
        // Four sums of four rows each for five inputs, in 32 registers.
        work.run::<_, 5, 1>(self);
    }
}

impl Dot for Sdot {
    type Sums = [int32x4_t; 4];

    const SHIFT: i32 = 128;

    #[inline(always)]
    fn zero(self) -> Self::Sums {
        pulp::cast([0i32; ROWS])
    }

    #[inline(always)]
    fn add(self, mut sums: Self::Sums, weights: &[i8; BLOCK], x: [u8; DEPTH]) -> Self::Sums {
        // The highest bit turned over: 0 to 255 become -128 to 127.
        let x: int32x4_t = pulp::cast([u32::from_ne_bytes(x) ^ 0x8080_8080; 4]);
        let weights: [int32x4_t; 4] = pulp::cast(*weights);
        for (sum, weights) in sums.iter_mut().zip(weights) {
            // SAFETY: there is no value of this type without the feature, and the instruction reads and
            // writes nothing but these registers.
            unsafe {
                asm!(
                    ".arch_extension dotprod",
                    "sdot {sum:v}.4s, {weights:v}.16b, {x:v}.16b",
                    sum = inout(vreg) *sum,
                    weights = in(vreg) weights,
                    x = in(vreg) x,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
        }
        sums
    }

    #[inline(always)]
    fn total(self, sums: Self::Sums) -> [i32; ROWS] {
        pulp::cast(sums)
    }
}
