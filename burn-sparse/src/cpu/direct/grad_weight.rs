//! The gradient of a dense weight: each of its elements is the product of a plane of the output's gradient
//! and a shifted plane of the input, summed over pixels and images.

use core::ops::Range;

use pulp::{Simd, WithSimd};

use super::{Plan, Working, gather::gather};
use crate::{
    ConvProblem,
    cpu::{self, Buffer, Images, Isa, team},
};

/// Bytes of input and gradient whose products are formed together: part of a second cache.
const TOGETHER: usize = 1 << 20;

/// Outputs beyond which the planes of a tile would no longer stay in the first cache.
const MOST_OUTPUTS: usize = 1024;

/// Multiply-accumulates below which a second thread costs more than it gains.
const LEAST_WORK: u64 = 1 << 17;

/// Elements that a thread adds up at a time.
const CHUNK: usize = 1 << 14;

/// Gradients and weight positions of a tile, whose sums stay in registers: with 32 of them, and with 16.
const TILE_OF_MANY: [usize; 2] = [4, 6];
const TILE_OF_FEW: [usize; 2] = [2, 5];

/// Pieces that are worked off together: sums stay in registers over all of them.
fn pieces_together(problem: &ConvProblem, working: &Working) -> usize {
    let outputs = working.strip * problem.output()[1];
    let bytes = 4 * (working.image() + outputs * problem.out_channels);
    (TOGETHER / bytes.max(1))
        .min(MOST_OUTPUTS / outputs.max(1))
        .max(1)
}

/// Outputs of a batch over which [`grad_weight`] keeps its sums in registers.
pub(crate) fn outputs_together(problem: &ConvProblem) -> usize {
    let outputs: usize = problem.output().iter().product();
    if problem.batch * outputs == 0 {
        return 0;
    }
    let working = Working::new(problem, &Plan::gapless(problem));
    let pieces = pieces_together(problem, &working).min(problem.batch * working.strips());
    pieces * working.strip * problem.output()[1]
}

/// Some rows of an image.
#[derive(Clone, Copy)]
struct Piece<'a> {
    /// The input, from which the positions count.
    input: &'a [f32],
    /// The gradient from the first of its outputs on, of all channels.
    grad: &'a [f32],
    /// Outputs.
    outputs: usize,
}

/// What all tiles of a call share.
struct Layer<'a> {
    problem: &'a ConvProblem,
    isa: Isa,
    working: Working,
    /// Whether the input is read where it lies.
    in_place: bool,
    input: Images<'a>,
    grad: Images<'a>,
    /// Where each weight position of a group of channels finds its input.
    offsets: Vec<usize>,
    /// Elements between the inputs of groups.
    group: usize,
}

/// `out[k,c,r,s] = sum_{n,e,f} grad[n,k,e,f] x[n,c,e*u+r*d,f*v+s*d]`, every element written.
///
/// Sums of a vector's lanes and of threads are added at the end.
///
/// # Panics
/// If a slice is shorter than the geometry says.
pub(crate) fn grad_weight(
    input: Images<'_>,
    grad: Images<'_>,
    problem: &ConvProblem,
    isa: Isa,
    out: &mut [f32],
) {
    let [height, width] = problem.output();
    let plane = problem.input[0] * problem.input[1];
    input.check("input", [problem.batch, problem.in_channels, plane]);
    grad.check(
        "grad",
        [problem.batch, problem.out_channels, height * width],
    );
    let out = &mut out[..problem.weight_shape().iter().product()];
    out.fill(0.0);
    if out.is_empty() || problem.batch * height * width == 0 {
        return;
    }
    let layer = Layer::new(input, grad, problem, isa);
    let pieces = problem.batch * layer.working.strips();
    let work = problem.macs(out.len());
    let threads = match work < LEAST_WORK {
        true => 1,
        false => cpu::threads().min(pieces),
    };
    let share = |thread: usize| thread * pieces / threads..(thread + 1) * pieces / threads;
    // Each is touched by its thread first.
    let mut others: Vec<_> = (1..threads).map(|_| vec![0.0; out.len()]).collect();
    let sums: Vec<&mut [f32]> = core::iter::once(&mut *out)
        .chain(others.iter_mut().map(Vec::as_mut_slice))
        .collect();
    team::for_each(sums.into_iter().enumerate(), |(thread, sums)| {
        layer.add(share(thread), sums);
    });
    if others.is_empty() {
        return;
    }
    team::chunks(out, CHUNK, 1, |index, out| {
        for other in &others {
            let other = &other[index * CHUNK..][..out.len()];
            out.iter_mut()
                .zip(other)
                .for_each(|(out, other)| *out += other);
        }
    });
}

impl<'a> Layer<'a> {
    fn new(input: Images<'a>, grad: Images<'a>, problem: &'a ConvProblem, isa: Isa) -> Self {
        let working = Working::new(problem, &Plan::gapless(problem));
        // Only 1x1 kernels on plain images have as many inputs as outputs, at the same places.
        let in_place =
            problem.kernel == [1, 1] && problem.stride == [1, 1] && problem.padding == [[0; 2]; 2];
        let channel = match in_place {
            true => input.channel_stride,
            false => working.channel_stride(),
        };
        let channels = problem.in_channels / problem.groups;
        let [kh, kw] = problem.kernel;
        let offsets = (0..problem.row_len()).map(|column| {
            let (channel_of, tap) = (column / (kh * kw), column % (kh * kw));
            match in_place {
                true => channel_of * channel,
                false => working.offset(channel_of, tap / kw, tap % kw),
            }
        });
        Self {
            offsets: offsets.collect(),
            group: channels * channel,
            problem,
            isa,
            working,
            in_place,
            input,
            grad,
        }
    }

    /// Adds the products of some pieces.
    fn add(&self, mut pieces: Range<usize>, out: &mut [f32]) {
        let together = pieces_together(self.problem, &self.working);
        let size = if self.in_place {
            0
        } else {
            self.working.image()
        };
        let mut copies = Buffer::new((together * size).max(1));
        while !pieces.is_empty() {
            let some = pieces.start..pieces.end.min(pieces.start + together);
            pieces.start = some.end;
            if !self.in_place {
                let copies = copies.chunks_exact_mut(size);
                for (index, copy) in some.clone().zip(copies) {
                    let [image, start, _] = self.place(index);
                    let copy =
                        &mut copy[..self.problem.in_channels * self.working.channel_stride()];
                    let place = [image, 0, start];
                    gather(
                        self.input,
                        place,
                        self.problem,
                        &self.working,
                        self.isa,
                        copy,
                    );
                }
            }
            let some: Vec<_> = some
                .enumerate()
                .map(|(at, index)| self.piece(index, at, &copies))
                .collect();
            self.isa.dispatch(Products {
                layer: self,
                pieces: &some,
                out: &mut *out,
            });
        }
    }

    /// Image, first row, and number of rows.
    fn place(&self, index: usize) -> [usize; 3] {
        let strips = self.working.strips();
        let start = index % strips * self.working.strip;
        let [height, _] = self.problem.output();
        [
            index / strips,
            start,
            self.working.strip.min(height - start),
        ]
    }

    fn piece<'b>(&'b self, index: usize, at: usize, copies: &'b [f32]) -> Piece<'b> {
        let [image, start, rows] = self.place(index);
        let width = self.problem.output()[1];
        let grad = &self.grad.plane(image, 0)[start * width..];
        let input = match self.in_place {
            true => &self.input.plane(image, 0)[start * width..],
            false => &copies[at * self.working.image()..][..self.working.image()],
        };
        let outputs = rows * width;
        // The last element that a tile reads of each; loads of whole vectors end before it.
        let farthest = self.offsets.iter().max().copied().unwrap_or(0);
        let groups = self.problem.groups - 1;
        assert!(groups * self.group + farthest + outputs <= input.len());
        let channels = self.problem.out_channels - 1;
        assert!(channels * self.grad.channel_stride + outputs <= grad.len());
        Piece {
            input,
            grad,
            outputs,
        }
    }
}

/// Adds the products of all tiles over some pieces.
struct Products<'a> {
    layer: &'a Layer<'a>,
    pieces: &'a [Piece<'a>],
    out: &'a mut [f32],
}

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if self.layer.isa.registers() >= 32 {
            self.tiles::<S, { TILE_OF_MANY[0] }, { TILE_OF_MANY[1] }>(simd);
        } else {
            self.tiles::<S, { TILE_OF_FEW[0] }, { TILE_OF_FEW[1] }>(simd);
        }
    }
}

impl Products<'_> {
    #[inline(always)]
    fn tiles<S: Simd, const R: usize, const T: usize>(self, simd: S) {
        let Self { layer, pieces, out } = self;
        let problem = layer.problem;
        let columns = layer.offsets.len();
        let rows = problem.out_channels / problem.groups;
        for group in 0..problem.groups {
            // The inputs of a tile's columns stay in the first cache while all gradients pass over them.
            for column in (0..columns).step_by(T) {
                let some_columns = T.min(columns - column);
                // Beyond the last, the last again: computed, and not stored.
                let offsets = core::array::from_fn(|t| {
                    group * layer.group + layer.offsets[column + t.min(some_columns - 1)]
                });
                for row in (0..rows).step_by(R) {
                    let some_rows = R.min(rows - row);
                    let first = group * rows + row;
                    let planes = core::array::from_fn(|r| {
                        (first + r.min(some_rows - 1)) * layer.grad.channel_stride
                    });
                    // SAFETY: every piece is known to hold its outputs at the farthest offset and in the
                    // plane of the last channel.
                    let sums = unsafe { tile::<S, R, T>(simd, pieces, offsets, planes) };
                    for (r, sums) in sums.iter().enumerate().take(some_rows) {
                        let out = &mut out[(first + r) * columns + column..][..some_columns];
                        out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
                    }
                }
            }
        }
    }
}

/// `sums[r][t] = Σ_piece Σ_output grad[planes[r] + output] · input[offsets[t] + output]`.
///
/// # Safety
/// Every piece must hold all its outputs at each of these places.
#[inline(always)]
unsafe fn tile<S: Simd, const R: usize, const T: usize>(
    simd: S,
    pieces: &[Piece<'_>],
    offsets: [usize; T],
    planes: [usize; R],
) -> [[f32; T]; R] {
    let lanes = S::F32_LANES;
    let mut sums = [[simd.splat_f32s(0.0); T]; R];
    for piece in pieces {
        let whole = piece.outputs / lanes * lanes;
        let inputs: [*const f32; T] =
            core::array::from_fn(|t| piece.input.as_ptr().wrapping_add(offsets[t]));
        let grads: [*const f32; R] =
            core::array::from_fn(|r| piece.grad.as_ptr().wrapping_add(planes[r]));
        let mut at = 0;
        while at < whole {
            // SAFETY: a vector before the end of the piece's outputs.
            unsafe { step(simd, &mut sums, inputs, grads, at) };
            at += lanes;
        }
        let rest = piece.outputs - whole;
        if rest > 0 {
            // What lies beyond may be anything, so both are filled up with zeros.
            let (mut filled_inputs, mut filled_grads) =
                ([[0.0f32; LANES]; T], [[0.0f32; LANES]; R]);
            let filled = filled_inputs.iter_mut().chain(&mut filled_grads);
            for (&from, to) in inputs.iter().chain(&grads).zip(filled) {
                // SAFETY: the last of the piece's outputs, fewer than a vector.
                let from = unsafe { core::slice::from_raw_parts(from.wrapping_add(whole), rest) };
                to[..rest].copy_from_slice(from);
            }
            let inputs = core::array::from_fn(|t| filled_inputs[t].as_ptr());
            let grads = core::array::from_fn(|r| filled_grads[r].as_ptr());
            // SAFETY: arrays of the widest vector.
            unsafe { step(simd, &mut sums, inputs, grads, 0) };
        }
    }
    // Plain loops: closures would not be compiled for the instruction set.
    let mut total = [[0.0; T]; R];
    for (total, sums) in total.iter_mut().zip(&sums) {
        for (total, &sum) in total.iter_mut().zip(sums) {
            *total = simd.reduce_sum_f32s(sum);
        }
    }
    total
}

/// Lanes of the widest vector.
const LANES: usize = 16;

/// Adds the products of a vector of each, `at` elements from its start.
///
/// # Safety
/// All pointers must be readable for a vector there.
#[inline(always)]
unsafe fn step<S: Simd, const R: usize, const T: usize>(
    simd: S,
    sums: &mut [[S::f32s; T]; R],
    inputs: [*const f32; T],
    grads: [*const f32; R],
    at: usize,
) {
    let grads: [S::f32s; R] = core::array::from_fn(|r| {
        // SAFETY: as the caller promises.
        unsafe { grads[r].wrapping_add(at).cast::<S::f32s>().read_unaligned() }
    });
    for (t, input) in inputs.into_iter().enumerate() {
        // SAFETY: as above.
        let input = unsafe { input.wrapping_add(at).cast::<S::f32s>().read_unaligned() };
        for (sums, &grad) in sums.iter_mut().zip(&grads) {
            sums[t] = simd.mul_add_e_f32s(grad, input, sums[t]);
        }
    }
}
