//! The inner loops: sums in registers, one operand in vectors and the other broadcast.

use pulp::Simd;

/// Vectors of output channels whose sums are kept for every pixel.
pub(super) const VECTORS: usize = 2;

/// Output channels whose sums are kept for every vector of pixels, with 16 and with 32 registers.
pub(super) const ROWS_OF_FEW: usize = 6;
pub(super) const ROWS_OF_MANY: usize = 8;

/// Numbers of pixels that [`across`] exists for, most first.
const PIXELS: [usize; 7] = [12, 10, 8, 6, 4, 2, 1];

/// Most pixels of a block.
pub(super) const MOST_PIXELS: usize = PIXELS[0];

/// Pixels of a block of [`across`]: those that waste least of `pixels`.
pub(super) fn pixels_of_block(pixels: usize, registers: usize) -> usize {
    // Two vectors of weights and what is broadcast stay in registers as well.
    let most = (registers - 3) / VECTORS;
    let fits = |&&p: &&usize| p <= most && p <= pixels.max(1);
    // A step of a block costs its pixels, and the loads of the weights.
    let cost = |&&p: &&usize| pixels.div_ceil(p) * (p + 1);
    PIXELS
        .iter()
        .filter(fits)
        .min_by_key(cost)
        .copied()
        .unwrap_or(1)
}

/// Where the terms of a sum lie: for every tap, `channels` of them at a distance.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    /// Offset of each tap.
    pub(super) taps: &'a [usize],
    pub(super) channels: usize,
    /// Elements between channels.
    pub(super) stride: usize,
    /// Elements from these pixels to those whose turn is next.
    pub(super) ahead: usize,
}

/// Asks for the cache line at `address`, which need not exist. Channels far apart are more streams than a
/// processor follows by itself.
#[inline(always)]
fn prefetch(address: *const f32) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is part of the architecture, and a hint reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Where the sums of pixels are written, and of how many of them.
pub(super) type Outputs<'a> = (*mut f32, &'a [usize; MOST_PIXELS], usize);

/// Sums of output channels in `N` vectors for each of `P` pixels:
/// `out[pixel][channel] = Σ_term weights[term][channel] · input[place[pixel] + offset(term)]`.
///
/// # Safety
/// `input` must be readable at every place plus the offset of every term, `weights` must hold `N` vectors for
/// each term (of `width` elements), `out` `N` vectors at each of its places, which nobody else may use.
#[inline(always)]
unsafe fn across<S: Simd, const P: usize, const N: usize>(
    simd: S,
    weights: (*const f32, usize),
    input: *const f32,
    places: &[usize; MOST_PIXELS],
    terms: Terms<'_>,
    (out, out_places, valid): Outputs<'_>,
) {
    let lanes = S::F32_LANES;
    let (mut weight, width) = weights;
    let mut sums = [[simd.splat_f32s(0.0); N]; P];
    for &tap in terms.taps {
        let from: [*const f32; P] = core::array::from_fn(|p| input.wrapping_add(places[p] + tap));
        let mut at = 0;
        for _ in 0..terms.channels {
            // SAFETY: the caller vouches for the weights of every term.
            let w: [S::f32s; N] = core::array::from_fn(|n| unsafe {
                weight.add(n * lanes).cast::<S::f32s>().read_unaligned()
            });
            prefetch(from[0].wrapping_add(at + terms.ahead));
            for (sums, from) in sums.iter_mut().zip(from) {
                // SAFETY: and for its input at every place.
                let x = simd.splat_f32s(unsafe { *from.wrapping_add(at) });
                for (sum, &w) in sums.iter_mut().zip(&w) {
                    *sum = simd.mul_add_e_f32s(w, x, *sum);
                }
            }
            weight = weight.wrapping_add(width);
            at += terms.stride;
        }
    }
    // By number, not by a slice of places: sums whose index is unknown could not stay in registers.
    for (p, sums) in sums.iter().enumerate() {
        if p < valid {
            for (n, &sum) in sums.iter().enumerate() {
                // SAFETY: the caller vouches for the output at its places.
                unsafe {
                    out.add(out_places[p] + n * lanes)
                        .cast::<S::f32s>()
                        .write_unaligned(sum);
                }
            }
        }
    }
}

/// [`across`] for the number of places of `out_places` and of vectors.
///
/// # Safety
/// As there, for `pixels` places, which [`pixels_of_block`] has given.
#[allow(
    clippy::too_many_arguments,
    reason = "what a kernel reads, how, and where it writes"
)]
#[inline(always)]
pub(super) unsafe fn across_any<S: Simd>(
    simd: S,
    vectors: usize,
    pixels: usize,
    weights: (*const f32, usize),
    input: *const f32,
    places: &[usize; MOST_PIXELS],
    terms: Terms<'_>,
    out: Outputs<'_>,
) {
    macro_rules! cases {
        ($($p:literal)*) => {
            match (pixels, vectors) {
                $(
                    // SAFETY: as the caller promises.
                    ($p, 1) => unsafe {
                        across::<S, $p, 1>(simd, weights, input, places, terms, out)
                    },
                    // SAFETY: as the caller promises.
                    ($p, _) => unsafe {
                        across::<S, $p, VECTORS>(simd, weights, input, places, terms, out)
                    },
                )*
                _ => unreachable!("no kernel for {pixels} pixels"),
            }
        };
    }
    cases!(1 2 4 6 8 10 12);
}

/// Sums of neighbouring pixels in `V` vectors for each of `R` output channels:
/// `out[channel][pixel] = Σ_term weights[term][channel] · input[term · stride + pixel]`.
///
/// # Safety
/// `input` must be readable for `V` vectors at every term, `weights` hold `R` elements for each of `terms`.
#[inline(always)]
unsafe fn along<S: Simd, const R: usize, const V: usize>(
    simd: S,
    mut weights: *const f32,
    mut input: *const f32,
    terms: usize,
    stride: usize,
    out: &mut [f32],
) {
    let lanes = S::F32_LANES;
    let mut sums = [[simd.splat_f32s(0.0); V]; R];
    for _ in 0..terms {
        // SAFETY: the caller vouches for the input of every term.
        let x: [S::f32s; V] = core::array::from_fn(|v| unsafe {
            input.add(v * lanes).cast::<S::f32s>().read_unaligned()
        });
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: and for its weights.
            let w = simd.splat_f32s(unsafe { *weights.add(r) });
            for (sum, &x) in sums.iter_mut().zip(&x) {
                *sum = simd.mul_add_e_f32s(w, x, *sum);
            }
        }
        weights = weights.wrapping_add(R);
        input = input.wrapping_add(stride);
    }
    let out = &mut out[..R * V * lanes];
    for (r, sums) in sums.iter().enumerate() {
        for (v, &sum) in sums.iter().enumerate() {
            let to = out[(r * V + v) * lanes..][..lanes].as_mut_ptr();
            // SAFETY: a vector's worth of elements, as the slice says.
            unsafe { to.cast::<S::f32s>().write_unaligned(sum) };
        }
    }
}

/// Most elements that [`along_any`] writes.
pub(super) const ALONG: usize = ROWS_OF_MANY * MOST_VECTORS * 16;

/// Most vectors of pixels of [`along_any`].
const MOST_VECTORS: usize = 3;

/// Vectors of pixels that [`along_any`] takes at a time.
pub(super) fn vectors_of_pixels(rows: usize) -> usize {
    if rows == ROWS_OF_FEW { 2 } else { MOST_VECTORS }
}

/// [`along`] for these rows and vectors, row after row of whole vectors in `out`.
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn along_any<S: Simd>(
    simd: S,
    [rows, vectors]: [usize; 2],
    weights: *const f32,
    (input, stride): (*const f32, usize),
    terms: usize,
    out: &mut [f32],
) {
    macro_rules! cases {
        ($(($r:ident, $v:literal))*) => {
            match (rows, vectors) {
                $(
                    // SAFETY: as the caller promises.
                    ($r, $v) => unsafe {
                        along::<S, $r, $v>(simd, weights, input, terms, stride, out)
                    },
                )*
                _ => unreachable!("no kernel for {rows} rows by {vectors} vectors"),
            }
        };
    }
    cases!((ROWS_OF_FEW, 1)(ROWS_OF_FEW, 2)(ROWS_OF_MANY, 1)(
        ROWS_OF_MANY,
        2
    )(ROWS_OF_MANY, 3));
}
