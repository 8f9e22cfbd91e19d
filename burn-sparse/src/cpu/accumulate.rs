//! The inner loop: one output channel over a run of neighbouring outputs, sums in registers.

use pulp::{Arch, Simd, WithSimd};

use super::Entries;

/// Most vectors of sums held in registers at once; with the broadcast weight this fits the 16
/// registers of AVX2 and leaves AVX-512's 32 room for loads.
const MAX_VECTORS: usize = 12;

/// `sums[p] = sum_j values[j] * input[offsets[j] * distance + p]` for one row of `entries`.
///
/// `sums` must be a multiple of 16 long, and `input` reach 16-aligned runs past every offset.
pub(crate) struct Row<'a> {
    pub(crate) entries: Entries<'a>,
    pub(crate) row: usize,
    pub(crate) input: &'a [f32],
    pub(crate) distance: usize,
    pub(crate) sums: &'a mut [f32],
}

impl WithSimd for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (values, offsets) = self.entries.row(self.row);
        let vectors = self.sums.len() / S::F32_LANES;
        if vectors == 0 {
            return;
        }
        // Tiles of nearly equal size: no last tile of a single vector that pays the whole loop.
        let tiles = vectors.div_ceil(MAX_VECTORS);
        let (small, larger) = (vectors / tiles, vectors % tiles);
        let mut start = 0;
        for tile in 0..tiles {
            let width = small + usize::from(tile < larger);
            let end = start + width * S::F32_LANES;
            let (sums, input) = (&mut self.sums[start..end], &self.input[start..]);
            macro_rules! dispatch {
                ($($v:literal)*) => {
                    match width {
                        $($v => accumulate::<S, $v>(
                            simd, values, offsets, input, self.distance, sums,
                        ),)*
                        _ => unreachable!("a tile has at most {MAX_VECTORS} vectors"),
                    }
                };
            }
            dispatch!(1 2 3 4 5 6 7 8 9 10 11 12);
            start = end;
        }
    }
}

#[inline(always)]
fn accumulate<S: Simd, const V: usize>(
    simd: S,
    values: &[f32],
    offsets: &[i32],
    input: &[f32],
    distance: usize,
    sums: &mut [f32],
) {
    let mut acc = [simd.splat_f32s(0.0); V];
    for (&value, &offset) in values.iter().zip(offsets) {
        let weight = simd.splat_f32s(value);
        let window = &input[offset as usize * distance..][..V * S::F32_LANES];
        let (window, _) = S::as_simd_f32s(window);
        for (acc, &x) in acc.iter_mut().zip(window) {
            *acc = simd.mul_add_e_f32s(weight, x, *acc);
        }
    }
    let (sums, _) = S::as_mut_simd_f32s(sums);
    for (sum, acc) in sums.iter_mut().zip(acc) {
        *sum = acc;
    }
}

/// `sum_p a[p] * b[p]`.
pub(crate) struct Dot<'a> {
    pub(crate) a: &'a [f32],
    pub(crate) b: &'a [f32],
}

impl WithSimd for Dot<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let (a, a_tail) = S::as_simd_f32s(self.a);
        let (b, b_tail) = S::as_simd_f32s(self.b);
        let mut acc = [simd.splat_f32s(0.0); 4];
        let (a4, a1) = a.as_chunks::<4>();
        let (b4, b1) = b.as_chunks::<4>();
        for (a, b) in a4.iter().zip(b4) {
            for ((acc, &a), &b) in acc.iter_mut().zip(a).zip(b) {
                *acc = simd.mul_add_f32s(a, b, *acc);
            }
        }
        for (&a, &b) in a1.iter().zip(b1) {
            acc[0] = simd.mul_add_f32s(a, b, acc[0]);
        }
        let sum = simd.add_f32s(simd.add_f32s(acc[0], acc[1]), simd.add_f32s(acc[2], acc[3]));
        let tail: f32 = a_tail.iter().zip(b_tail).map(|(a, b)| a * b).sum();
        simd.reduce_sum_f32s(sum) + tail
    }
}

/// `y[p] += scale * x[p]`.
pub(crate) struct Axpy<'a> {
    pub(crate) scale: f32,
    pub(crate) x: &'a [f32],
    pub(crate) y: &'a mut [f32],
}

impl WithSimd for Axpy<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let scale = simd.splat_f32s(self.scale);
        let (x, x_tail) = S::as_simd_f32s(self.x);
        let (y, y_tail) = S::as_mut_simd_f32s(self.y);
        for (y, &x) in y.iter_mut().zip(x) {
            *y = simd.mul_add_f32s(scale, x, *y);
        }
        for (y, &x) in y_tail.iter_mut().zip(x_tail) {
            *y += self.scale * x;
        }
    }
}

/// The widest instruction set of this machine, looked up once per call and cached by `pulp`.
pub(crate) fn arch() -> Arch {
    Arch::new()
}
