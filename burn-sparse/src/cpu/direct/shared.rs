//! Convolution by kernels that all channels share: the answers of a few channels to them stay in the first
//! cache while sparse coefficients add them up.

use core::ops::Range;

use super::{
    Direct, Plan, Working,
    gather::gather,
    responses::Responses,
    run::Target,
    stream::Stream,
    tile::{Then, Tile},
};
use crate::{
    ConvProblem, SparseError,
    cpu::{self, Buffer, Finish, Images, ImagesMut, Isa, Residual, Rows, team},
};

/// Bytes of responses of a block of channels: most of the first cache.
const RESPONSES: usize = 32 << 10;

/// Coefficients of an output channel in a block below which fetching and storing its sums costs more than the
/// cache gains.
const FEWEST_ENTRIES: usize = 12;

/// Vectors of outputs of a tile: enough sums that none waits for the last one.
const VECTORS: usize = 8;

/// Multiply-accumulates below which splitting a layer costs more than a second thread gains.
const LEAST_WORK: u64 = 1 << 17;

/// Kernels that all channels share, and which of their responses each output adds up.
#[derive(Debug, Clone, Copy)]
pub struct SharedWeights<'a> {
    /// `[kernels, height, width]`.
    pub basis: &'a [f32],
    /// One row per output channel; column `c * kernels + b` is the response of channel `c` to kernel `b`.
    pub coefficients: Rows<'a>,
}

/// A convolution whose kernels are combinations of a few, made ready for inputs of one size:
///
/// ```text
/// r[n,c,b,e,f] = Σ_{y,x} basis[b,y,x] input[n, c, e·u + y·d − top, f·v + x·d − left]
/// out[n,k,e,f] = act(bias[k] + residual[n,k,e,f] + Σ_{c,b} a[k, c·B + b] r[n,c,b,e,f])
/// ```
///
/// Every tile of outputs goes through the input channels some at a time. Their responses are computed in
/// registers, wait in the first cache, and are added to the sums of those output channels that have
/// coefficients for them; none is computed twice, and none goes to memory.
///
/// # References
/// Li, Liu, Wu, Chen, *PENNI*, ICML 2020, section 3.1 (the order of execution that computes shared kernels
/// first).
///
/// # Example
/// ```
/// use burn_sparse::{ConvProblem, cpu::{Finish, Images, ImagesMut, Isa, Rows, SharedConv, SharedWeights}};
///
/// // Sum and difference of neighbours; the one output adds up the sum on channel 0 and twice the
/// // difference on channel 1.
/// let problem = ConvProblem::new(1, [2, 1], [1, 3], [1, 2]);
/// let weights = SharedWeights {
///     basis: &[1.0, 1.0, -1.0, 1.0],
///     coefficients: Rows { row_ptr: &[0, 2], columns: &[0, 3], values: &[1.0, 2.0] },
/// };
/// let conv = SharedConv::new(&problem, weights, Isa::current())?;
/// let mut out = [0.0; 2];
/// let input = Images::contiguous(&[1., 2., 3., 5., 5., 6.], [2, 3]);
/// conv.run(1, input, Finish::default(), ImagesMut::contiguous(&mut out, [1, 2]));
/// assert_eq!(out, [3., 7.]);
/// # Ok::<(), burn_sparse::SparseError>(())
/// ```
#[derive(Debug, Clone)]
pub struct SharedConv {
    problem: ConvProblem,
    isa: Isa,
    /// `[kernels, taps]`.
    basis: Vec<f32>,
    kernels: usize,
    working: Working,
    /// Where each position of a kernel finds its input in the first channel.
    offsets: Vec<usize>,
    /// Coefficients in blocks of responses.
    stream: Stream,
    blocks: usize,
    /// Elements between responses, and most vectors of a tile.
    plane: usize,
    vectors: usize,
}

/// What one thread does of a piece.
struct Part {
    tiles: Range<usize>,
    channels: Range<usize>,
}

impl SharedConv {
    /// Orders the coefficients. The batch of `problem` does not matter.
    ///
    /// # Errors
    /// [`SparseError::Shape`] for a problem that is none, has groups or no outputs, a basis that is empty or
    /// not of whole kernels, coefficients that are no matrix of these rows and columns, and responses of a tile
    /// whose offsets exceed 32 bits.
    pub fn new(
        problem: &ConvProblem,
        weights: SharedWeights<'_>,
        isa: Isa,
    ) -> Result<Self, SparseError> {
        problem.check()?;
        let problem = problem.with_batch(1);
        let [height, width] = problem.output();
        let taps = problem.kernel[0].saturating_mul(problem.kernel[1]);
        let kernels = weights.basis.len() / taps.max(1);
        let rows = weights.coefficients;
        let responses = problem.in_channels.saturating_mul(kernels);
        let fits = problem.groups == 1
            && height.min(width).min(responses) > 0
            && weights.basis.len() == kernels * taps
            && rows.row_ptr.len() == problem.out_channels + 1
            && rows.is_matrix(responses);
        if !fits {
            return Err(SparseError::shape(format!(
                "{} weights of shared kernels of {:?} and {} coefficients in {} rows for {} to {} channels \
                 in {} groups, {height}x{width} outputs",
                weights.basis.len(),
                problem.kernel,
                rows.columns.len(),
                rows.row_ptr.len().saturating_sub(1),
                problem.in_channels,
                problem.out_channels,
                problem.groups,
            )));
        }
        let working = Working::new(&problem, &Plan::gapless(&problem));
        let vectors = working.vectors(isa.lanes()).min(VECTORS);
        // Responses lie one after the other, as channels of a layer of one row.
        let inner = ConvProblem::new(
            1,
            [responses, problem.out_channels],
            [1, vectors * isa.lanes()],
            [1, 1],
        );
        let bytes = responses.saturating_mul(4 * vectors * isa.lanes());
        let by_cache = bytes.div_ceil(RESPONSES);
        let entries = rows.columns.len() / problem.out_channels.max(1);
        let blocks = by_cache.min(entries / FEWEST_ENTRIES);
        let plan = Plan {
            vectors,
            blocks: blocks.clamp(1, responses),
            strip: 1,
            ..Plan::gapless(&inner)
        };
        let sums = Direct::new(&inner, rows, plan, isa)?;
        let plan = sums.plan();
        let width = problem.kernel[1];
        let offsets = (0..taps).map(|tap| working.offset(0, tap / width, tap % width));
        Ok(Self {
            offsets: offsets.collect(),
            basis: weights.basis.to_vec(),
            kernels,
            plane: sums.working.channel_stride(),
            blocks: plan.blocks,
            vectors,
            stream: sums.stream,
            working,
            problem,
            isa,
        })
    }

    /// Multiply-accumulates for an image: shared kernels on every channel, and stored coefficients.
    pub fn macs(&self) -> u64 {
        let outputs: usize = self.problem.output().iter().product();
        let basis = self.problem.in_channels * self.basis.len();
        // A word of offset and one of value.
        (outputs * (basis + self.stream.words.len() / 2)) as u64
    }

    /// `act(bias + residual + sums)` for `batch` images. Every output is written.
    ///
    /// # Panics
    /// If a slice is shorter than its strides and the geometry say.
    pub fn run(&self, batch: usize, input: Images<'_>, finish: Finish<'_>, out: ImagesMut<'_>) {
        let problem = &self.problem;
        let [height, width] = problem.output();
        let channels = problem.out_channels;
        if batch * channels == 0 {
            return;
        }
        let pixels = problem.input[0] * problem.input[1];
        input.check("input", [batch, problem.in_channels, pixels]);
        if let Residual::Images(residual) = &finish.residual {
            residual.check("residual", [batch, channels, height * width]);
        }
        if let Some(bias) = finish.bias {
            let count = bias.len();
            assert!(count >= channels, "{count} biases for {channels} channels");
        }
        let target = out.target([batch, channels, height * width]);
        let pieces = batch * self.working.strips();
        let threads = match batch as u64 * self.macs() < LEAST_WORK {
            true => 1,
            false => cpu::threads(),
        };
        if pieces >= threads {
            let one = |piece: usize| {
                let copy = self.copy(piece, input, 1);
                let tiles = self.tiles(piece);
                let part = Part {
                    tiles: 0..tiles,
                    channels: 0..channels,
                };
                self.some(piece, part, &copy, finish, target);
            };
            match threads {
                1 => (0..pieces).for_each(one),
                _ => team::indices(pieces, one),
            }
            return;
        }
        // Few images: threads share the tiles of each, or of a small one its output channels, though each
        // of them then computes all responses.
        for piece in 0..pieces {
            let copy = self.copy(piece, input, threads);
            let tiles = self.tiles(piece);
            let by_tiles = tiles >= threads;
            let all = if by_tiles { tiles } else { channels };
            let parts = threads.min(all);
            team::indices(parts, |part| {
                let share = part * all / parts..(part + 1) * all / parts;
                let part = Part {
                    tiles: if by_tiles { share.clone() } else { 0..tiles },
                    channels: if by_tiles { 0..channels } else { share },
                };
                self.some(piece, part, &copy, finish, target);
            });
        }
    }

    /// Image, first row and number of rows.
    fn place(&self, piece: usize) -> [usize; 3] {
        let strips = self.working.strips();
        let start = piece % strips * self.working.strip;
        let rows = self.working.strip.min(self.problem.output()[0] - start);
        [piece / strips, start, rows]
    }

    fn tiles(&self, piece: usize) -> usize {
        let [.., rows] = self.place(piece);
        let vectors = self.working.vectors_of(rows, self.isa.lanes());
        vectors.div_ceil(self.vectors)
    }

    /// The input of a piece in the layout of the kernel.
    fn copy(&self, piece: usize, input: Images<'_>, threads: usize) -> Buffer {
        let [image, start, _] = self.place(piece);
        let mut copy = Buffer::new(self.working.image());
        let (channels, stride) = (self.problem.in_channels, self.working.channel_stride());
        let share = channels.div_ceil(threads);
        team::chunks(
            &mut copy[..channels * stride],
            share * stride,
            1,
            |part, out| {
                let place = [image, part * share, start];
                gather(input, place, &self.problem, &self.working, self.isa, out);
            },
        );
        copy
    }

    /// Some tiles and output channels of a piece.
    fn some(
        &self,
        piece: usize,
        part: Part,
        input: &[f32],
        finish: Finish<'_>,
        target: Target<f32>,
    ) {
        let lanes = self.isa.lanes();
        let [image, start, rows] = self.place(piece);
        let width = self.problem.output()[1];
        let vectors = self.working.vectors_of(rows, lanes);
        let all = self.tiles(piece);
        let responses = self.problem.in_channels * self.kernels;
        let most = responses.div_ceil(self.blocks) * self.plane;
        let (mut waiting, mut sums) = (Buffer::new(most), Buffer::new(0));
        let count = part.channels.len();
        for tile in part.tiles {
            // Tiles of nearly equal size.
            let [from, to] = [tile, tile + 1].map(|edge| edge * vectors / all);
            let (first, stride) = (from * lanes, (to - from) * lanes);
            if sums.len() < count * stride {
                sums = Buffer::new(count * stride);
            }
            for block in 0..self.blocks {
                let [low, high] = [block, block + 1].map(|edge| edge * responses / self.blocks);
                self.isa.dispatch(Responses {
                    input,
                    first,
                    vectors: to - from,
                    offsets: &self.offsets,
                    channel: self.working.channel_stride(),
                    basis: &self.basis,
                    kernels: self.kernels,
                    responses: low..high,
                    plane: self.plane,
                    registers: self.isa.registers(),
                    out: &mut waiting,
                });
                // The offsets of a block address its own responses, which lie in `waiting`, `plane` elements
                // each, from its first one on; a tile has no more vectors than a plane.
                self.isa.dispatch(Tile::<1> {
                    words: &self.stream.words,
                    starts: self.stream.block(block),
                    groups: part.channels.clone(),
                    members: None,
                    input: waiting.as_ptr().wrapping_sub(low * self.plane),
                    width: to - from,
                    out: sums.as_mut_ptr(),
                    stride,
                    channels: self.problem.out_channels,
                    then: Then::Keep { add: block > 0 },
                });
            }
            let valid = stride.min(rows * width - first);
            let at = start * width + first;
            for (channel, sums) in part.channels.clone().zip(sums.chunks_exact(stride)) {
                // SAFETY: no other task has this tile of this channel and image.
                let out = unsafe { target.part(image, channel, at, valid) };
                finish.store(&sums[..valid], image, channel, at, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{self, AWKWARD};
    use crate::format::Csr;
    use crate::reference::{self, error_bound};

    fn isas() -> impl Iterator<Item = Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_available())
    }

    fn conv(problem: &ConvProblem, basis: &[f32], dense: &[f32], isa: Isa) -> SharedConv {
        let columns = dense.len() / problem.out_channels;
        let csr = Csr::from_dense(dense, [problem.out_channels, columns]).unwrap();
        let weights = SharedWeights {
            basis,
            coefficients: Rows::from(&csr),
        };
        SharedConv::new(problem, weights, isa).unwrap()
    }

    #[test]
    fn awkward_shapes_match_the_reference_on_every_instruction_set() {
        let cases = AWKWARD.iter().filter(|case| {
            let p = &case.problem;
            let outputs: usize = p.output_shape().iter().product();
            p.groups == 1 && outputs > 0 && p.in_channels > 0
        });
        for (seed, case) in cases.enumerate() {
            let problem = &case.problem;
            let taps = problem.kernel[0] * problem.kernel[1];
            let seed = 50 + 7 * seed as u64;
            let input = catalogue::values(problem.input_shape().iter().product(), seed);
            let bias = catalogue::values(problem.out_channels, seed + 1);
            let residual = catalogue::values(problem.output_shape().iter().product(), seed + 2);
            // Fewer kernels than positions, and more than registers have room for at once.
            for (kernels, density) in [(1, 1.0), (5, 0.2), (8, 0.5), (2, 0.0)] {
                let basis = catalogue::values(kernels * taps, seed + 3);
                let count = problem.out_channels * problem.in_channels * kernels;
                let dense = catalogue::weight(count, density, seed + 4);
                let expected =
                    reference::shared_conv2d(&input, &basis, &dense, Some(&bias), problem);
                // Operands lie in [-1, 1).
                let terms = problem.in_channels * kernels * taps;
                let bound = error_bound(terms + 2, terms as f64 + 2.0, f64::from(f32::EPSILON));
                for isa in isas() {
                    let label = format!("{} {} {kernels} {density}", case.name, isa.name());
                    let conv = conv(problem, &basis, &dense, isa);
                    let (pixels, plane) = (
                        problem.input[0] * problem.input[1],
                        problem.output().iter().product(),
                    );
                    let images = Images::contiguous(&input, [problem.in_channels, pixels]);
                    let shape = [problem.out_channels, plane];
                    let mut out = vec![f32::NAN; expected.len()];
                    let finish = Finish {
                        bias: Some(&bias),
                        ..Finish::default()
                    };
                    conv.run(
                        problem.batch,
                        images,
                        finish,
                        ImagesMut::contiguous(&mut out, shape),
                    );
                    for (index, (&a, &e)) in out.iter().zip(&expected).enumerate() {
                        let off = (f64::from(a) - e).abs();
                        assert!(off <= bound, "{label}: {a} at {index}, expected {e}");
                    }
                    let mut finished = vec![f32::NAN; expected.len()];
                    let finish = Finish {
                        bias: Some(&bias),
                        residual: Residual::Images(Images::contiguous(&residual, shape)),
                        relu: true,
                    };
                    let target = ImagesMut::contiguous(&mut finished, shape);
                    conv.run(problem.batch, images, finish, target);
                    for ((&y, &sum), &more) in finished.iter().zip(&expected).zip(&residual) {
                        let wanted = (sum + f64::from(more)).max(0.0);
                        assert!(
                            (f64::from(y) - wanted).abs() <= bound,
                            "{label}: {y}, {wanted}"
                        );
                    }
                }
            }
        }
    }

    /// More responses than the first cache holds, strips, and images that threads share.
    #[test]
    fn blocks_and_strips_change_nothing_but_rounding() {
        for (batch, size) in [(1, [40, 37]), (3, [9, 9]), (1, [5, 5])] {
            let problem = ConvProblem {
                padding: [[1, 1], [1, 1]],
                ..ConvProblem::new(batch, [70, 33], size, [3, 3])
            };
            let input = catalogue::values(problem.input_shape().iter().product(), 1);
            let basis = catalogue::values(7 * 9, 2);
            let dense = catalogue::weight(33 * 70 * 7, 0.1, 3);
            let expected = reference::shared_conv2d(&input, &basis, &dense, None, &problem);
            for isa in isas() {
                let conv = conv(&problem, &basis, &dense, isa);
                // Ends of blocks divide the responses of a channel.
                assert!(conv.blocks > 1 || isa.lanes() < 16, "{}", isa.name());
                let plane = size[0] * size[1];
                let mut out = vec![f32::NAN; expected.len()];
                conv.run(
                    batch,
                    Images::contiguous(&input, [70, plane]),
                    Finish::default(),
                    ImagesMut::contiguous(&mut out, [33, plane]),
                );
                let bound = error_bound(70 * 63, 70.0 * 63.0, f64::from(f32::EPSILON));
                for (&a, &e) in out.iter().zip(&expected) {
                    assert!((f64::from(a) - e).abs() <= bound, "{a}, expected {e}");
                }
            }
        }
    }

    #[test]
    fn weights_that_do_not_fit_are_refused() {
        let problem = ConvProblem::new(1, [2, 2], [4, 4], [3, 3]);
        let rows = |row_ptr, columns, values| Rows {
            row_ptr,
            columns,
            values,
        };
        let good = rows(&[0, 1, 2], &[0, 3], &[1.0, 1.0]);
        let wide = ConvProblem::new(1, [65, 1], [1, 128], [1, 1]);
        let descending: Vec<u32> = (0..65).rev().collect();
        let ones = [1.0; 65];
        let cases: [(&[f32], Rows<'_>, ConvProblem); 9] = [
            // Columns that do not ascend would be looked for in the wrong block.
            (&[1.0], rows(&[0, 65], &descending, &ones), wide),
            (&[1.0; 18], rows(&[0, 1, 5], &[0, 3], &[1.0, 1.0]), problem),
            (&[1.0; 18], rows(&[0, 2, 1], &[0, 3], &[1.0, 1.0]), problem),
            (&[1.0; 18], rows(&[1, 1, 2], &[0, 3], &[1.0, 1.0]), problem),
            (&[], good, problem),
            (&[1.0; 10], good, problem),
            (&[1.0; 9], good, problem),
            (&[1.0; 18], rows(&[0, 2], &[0, 3], &[1.0, 1.0]), problem),
            (
                &[1.0; 18],
                good,
                ConvProblem {
                    groups: 2,
                    ..problem
                },
            ),
        ];
        for (index, (basis, coefficients, problem)) in cases.into_iter().enumerate() {
            let weights = SharedWeights {
                basis,
                coefficients,
            };
            let result = SharedConv::new(&problem, weights, Isa::current());
            assert!(matches!(result, Err(SparseError::Shape { .. })), "{index}");
        }
    }
}
