//! What channels answer to shared kernels, a few kernels and vectors of outputs at a time in registers.

use core::ops::Range;

use pulp::{Simd, WithSimd};

/// Most kernels whose sums are formed together.
const KERNELS: usize = 6;

/// Vectors of outputs of each, with 32 registers and with 16.
const VECTORS_OF_MANY: usize = 4;
const VECTORS_OF_FEW: usize = 2;

/// `out[i - first][p] = Σ_tap basis[i % kernels][tap] · input[channel i / kernels, tap, p]` for some responses
/// `i` and neighbouring outputs `p`.
pub(super) struct Responses<'a> {
    /// The strip as the kernel reads it, and its first output.
    pub(super) input: &'a [f32],
    pub(super) first: usize,
    /// Vectors of outputs.
    pub(super) vectors: usize,
    /// Where each position of a kernel finds its input in the first channel, and elements between channels.
    pub(super) offsets: &'a [usize],
    pub(super) channel: usize,
    /// `[kernels, taps]`.
    pub(super) basis: &'a [f32],
    pub(super) kernels: usize,
    pub(super) responses: Range<usize>,
    /// Elements between responses.
    pub(super) plane: usize,
    pub(super) registers: usize,
    pub(super) out: &'a mut [f32],
}

impl WithSimd for Responses<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let most = match self.registers >= 32 {
            true => VECTORS_OF_MANY,
            false => VECTORS_OF_FEW,
        };
        let taps = self.offsets.len();
        let mut response = self.responses.start;
        while response < self.responses.end {
            let (channel, kernel) = (response / self.kernels, response % self.kernels);
            let rows = KERNELS
                .min(self.kernels - kernel)
                .min(self.responses.end - response);
            let basis = &self.basis[kernel * taps..(kernel + rows) * taps];
            let mut vector = 0;
            while vector < self.vectors {
                let count = most.min(self.vectors - vector);
                let at = vector * S::F32_LANES;
                let place = (response - self.responses.start) * self.plane + at;
                let sums = Sums {
                    input: &self.input[channel * self.channel + self.first + at..],
                    offsets: self.offsets,
                    basis,
                    plane: self.plane,
                    out: &mut self.out[place..],
                };
                macro_rules! cases {
                    ($($r:literal)*) => {
                        match (rows, count) {
                            $(
                                ($r, 1) => sums.run::<S, $r, 1>(simd),
                                ($r, 2) => sums.run::<S, $r, 2>(simd),
                                ($r, 3) => sums.run::<S, $r, 3>(simd),
                                ($r, 4) => sums.run::<S, $r, 4>(simd),
                            )*
                            _ => unreachable!("no kernel for {rows} rows by {count} vectors"),
                        }
                    };
                }
                cases!(1 2 3 4 5 6);
                vector += count;
            }
            response += rows;
        }
    }
}

/// Some responses of one channel.
struct Sums<'a> {
    input: &'a [f32],
    offsets: &'a [usize],
    /// `[R, taps]`.
    basis: &'a [f32],
    plane: usize,
    out: &'a mut [f32],
}

impl Sums<'_> {
    #[inline(always)]
    fn run<S: Simd, const R: usize, const V: usize>(self, simd: S) {
        let (lanes, taps) = (S::F32_LANES, self.offsets.len());
        assert!(R * taps == self.basis.len() && (R - 1) * self.plane + V * lanes <= self.out.len());
        let mut sums = [[simd.splat_f32s(0.0); V]; R];
        for (tap, &offset) in self.offsets.iter().enumerate() {
            let (x, _) = S::as_simd_f32s(&self.input[offset..][..V * lanes]);
            for (r, sums) in sums.iter_mut().enumerate() {
                let weight = simd.splat_f32s(self.basis[r * taps + tap]);
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = simd.mul_add_e_f32s(weight, x[v], *sum);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            let (out, _) = S::as_mut_simd_f32s(&mut self.out[r * self.plane..][..V * lanes]);
            out.copy_from_slice(sums);
        }
    }
}
