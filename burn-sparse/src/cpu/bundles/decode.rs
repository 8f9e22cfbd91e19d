//! How a line of codes becomes numbers.

use super::unit::Unit;

/// A way from codes to numbers.
pub(super) trait Decode<S: Unit>: Copy {
    /// Lines of a chunk.
    const LINES: usize;

    /// Register `v` of a line of a chunk.
    fn line(self, simd: S, chunk: &[u32], line: usize, v: usize) -> S::f32s;
}

/// Entries of a table in registers, by `BITS` bits.
#[derive(Clone, Copy)]
pub(super) struct Table<T, const BITS: u32>(pub(super) T);

impl<S: Unit, const BITS: u32> Decode<S> for Table<S::Table, BITS> {
    const LINES: usize = 32 / BITS as usize;

    #[inline(always)]
    fn line(self, simd: S, chunk: &[u32], line: usize, v: usize) -> S::f32s {
        let words = S::as_simd_u32s(chunk).0[v];
        simd.pick::<BITS>(self.0, simd.shifted(words, line as u32 * BITS))
    }
}

/// Signed integers of `BITS` bits.
#[derive(Clone, Copy)]
pub(super) struct Integers<const BITS: u32>;

impl<S: Unit, const BITS: u32> Decode<S> for Integers<BITS> {
    const LINES: usize = 32 / BITS as usize;

    #[inline(always)]
    fn line(self, simd: S, chunk: &[u32], line: usize, v: usize) -> S::f32s {
        let words = S::as_simd_u32s(chunk).0[v];
        let below = line as u32 * BITS;
        simd.integers(words, 32 - BITS - below, below)
    }
}

/// The bytes of a register's lanes.
#[inline(always)]
fn bytes<S: Unit>(chunk: &[u32], line: usize, v: usize) -> &[u8] {
    let lanes = chunk.len();
    &bytemuck::cast_slice(chunk)[line * lanes + v * S::F32_LANES..][..S::F32_LANES]
}

/// Signed integers of a byte.
#[derive(Clone, Copy)]
pub(super) struct IntegerBytes;

impl<S: Unit> Decode<S> for IntegerBytes {
    const LINES: usize = 4;

    #[inline(always)]
    fn line(self, simd: S, chunk: &[u32], line: usize, v: usize) -> S::f32s {
        simd.widened(bytes::<S>(chunk, line, v))
    }
}

/// Entries of a table in memory, by a byte.
#[derive(Clone, Copy)]
pub(super) struct Memory<'a>(pub(super) &'a [f32; 256]);

impl<S: Unit> Decode<S> for Memory<'_> {
    const LINES: usize = 4;

    #[inline(always)]
    fn line(self, simd: S, chunk: &[u32], line: usize, v: usize) -> S::f32s {
        let mut register = simd.splat_f32s(0.0);
        let lanes: &mut [f32] = bytemuck::cast_slice_mut(core::slice::from_mut(&mut register));
        for (lane, &code) in lanes.iter_mut().zip(bytes::<S>(chunk, line, v)) {
            *lane = self.0[usize::from(code)];
        }
        register
    }
}
