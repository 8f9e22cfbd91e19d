//! Tiles of inputs by output channels.

use super::{
    BLOCK, DEPTH, InputScale, Int8Weight, ROWS,
    dot::{Dot, Work},
};
use crate::cpu::RowFinish;

/// The outputs of some blocks of rows of a group, for inputs that lie at `bases` of `x`, every four of
/// them at the distances `taps`.
pub(super) struct Tiles<'a> {
    pub(super) weight: &'a Int8Weight,
    pub(super) scale: InputScale,
    pub(super) group: usize,
    /// The first block of the group.
    pub(super) block: usize,
    pub(super) x: &'a [u8],
    pub(super) bases: &'a [u32],
    pub(super) taps: &'a [u32],
    /// Bias of all rows of the weight; the residual lies as `out`.
    pub(super) finish: RowFinish<'a>,
    /// `[row, input]`, as many rows as there are; the last block of a group may be cut off.
    pub(super) out: &'a mut [f32],
}

impl Work for Tiles<'_> {
    #[inline(always)]
    fn run<D: Dot, const M: usize, const B: usize>(mut self, dot: D) {
        let inputs = self.bases.len();
        let blocks = (self.out.len() / inputs).div_ceil(ROWS);
        let mut at = 0;
        while at + B <= blocks {
            self.blocks::<D, M, B>(dot, at);
            at += B;
        }
        for at in at..blocks {
            self.blocks::<D, M, 1>(dot, at);
        }
    }
}

impl Tiles<'_> {
    #[inline(always)]
    fn blocks<D: Dot, const M: usize, const B: usize>(&mut self, dot: D, at: usize) {
        let weights = core::array::from_fn(|b| self.weight.block(self.group, self.block + at + b));
        let (tiles, rest) = self.bases.as_chunks::<M>();
        for (tile, bases) in tiles.iter().enumerate() {
            let sums = sums::<D, M, B>(dot, self.x, bases, self.taps, weights);
            self.store::<D, M, B>(&sums, at, tile * M);
        }
        for (i, &base) in rest.iter().enumerate() {
            let sums = sums::<D, 1, B>(dot, self.x, &[base], self.taps, weights);
            self.store::<D, 1, B>(&sums, at, tiles.len() * M + i);
        }
    }

    #[inline(always)]
    fn store<D: Dot, const M: usize, const B: usize>(
        &mut self,
        sums: &[[[i32; ROWS]; B]; M],
        block: usize,
        first: usize,
    ) {
        let inputs = self.bases.len();
        let rows = self.out.len() / inputs;
        let zero = i32::from(self.scale.zero()) - D::SHIFT;
        let of_group = self.group * self.weight.group_rows() + self.block * ROWS;
        for at in 0..(B * ROWS).min(rows - block * ROWS) {
            let (b, lane) = (at / ROWS, at % ROWS);
            let row = block * ROWS + at;
            let channel = of_group + row;
            let offset = zero.wrapping_mul(self.weight.sums()[channel]);
            let factor = self.weight.scales()[channel] * self.scale.step();
            let bias = self.finish.bias.map_or(0.0, |bias| bias[channel]);
            let place = row * inputs + first..row * inputs + first + M;
            let mut line: [f32; M] = core::array::from_fn(|m| {
                sums[m][b][lane].wrapping_sub(offset) as f32 * factor + bias
            });
            if let Some(residual) = self.finish.residual {
                for (y, residual) in line.iter_mut().zip(&residual[place.clone()]) {
                    *y += residual;
                }
            }
            if self.finish.relu {
                // A comparison lets NaN through, as the dense activation does.
                line = line.map(|y| if y < 0.0 { 0.0 } else { y });
            }
            self.out[place].copy_from_slice(&line);
        }
    }
}

/// The integer sums of `M` inputs, less what `D` shifts them by, and `B` blocks.
#[inline(always)]
fn sums<D: Dot, const M: usize, const B: usize>(
    dot: D,
    x: &[u8],
    bases: &[u32; M],
    taps: &[u32],
    weights: [&[[i8; BLOCK]]; B],
) -> [[[i32; ROWS]; B]; M] {
    let mut acc = [[dot.zero(); B]; M];
    let weights = weights.map(|weights| &weights[..taps.len()]);
    for (step, &tap) in taps.iter().enumerate() {
        for m in 0..M {
            let at = bases[m] as usize + tap as usize;
            let x: [u8; DEPTH] = *x[at..].first_chunk().expect("inputs filled up to fours");
            for b in 0..B {
                acc[m][b] = dot.add(acc[m][b], &weights[b][step], x);
            }
        }
    }
    acc.map(|acc| acc.map(|acc| dot.total(acc)))
}
