//! Factors of a convolution, strip by strip.
//!
//! | file | |
//! |---|---|
//! | `strips` | which rows a task takes through all factors |
//! | `weights` | factors in the order in which they are read |
//! | `kernel` | the inner loops |
//! | `stage` | a factor on a strip, in units that threads may share |
//!
//! What the first factor leaves lies pixel by pixel, its channels in vectors, in an image with its padding: a
//! tap of the core is a distance, whatever the stride. What the core leaves lies channel by channel, so that
//! the last factor writes planes.

mod kernel;
mod stage;
mod strips;
mod weights;

#[cfg(test)]
mod tests;

use core::ops::Range;

use self::kernel::Terms;
use self::stage::{Across, Along, Grid, Shared, To};
use self::strips::{Strip, strips};
use self::weights::Blocks;
use super::{Buffer, Finish, Images, ImagesMut, Isa, Residual, team, threads};
use crate::{ConvProblem, SparseError};

/// Multiply-accumulates below which splitting a layer costs more than a second thread gains.
const LEAST_WORK: u64 = 1 << 17;

/// Parts of a stage for each thread, where they share its units: some for whoever is done first.
const PARTS: usize = 2;

/// Elements to whose multiple planes between factors are rounded: the widest vector.
const WHOLE: usize = 16;

/// The dense factors of a convolution; see [`nn::Factors`](crate::nn::Factors).
#[derive(Debug, Clone, Copy)]
pub struct ChainWeights<'a> {
    /// `[D1, in]`; without it, `D1` is `in`.
    pub reduce: Option<&'a [f32]>,
    /// `[D2, D1, kernel height, kernel width]`.
    pub core: &'a [f32],
    /// `[out, D2]`; without it, `D2` is `out`.
    pub expand: Option<&'a [f32]>,
    /// Channels that enter and leave the core, `[D1, D2]`.
    pub ranks: [usize; 2],
}

/// Up to three convolutions in a row, 1×1, core and 1×1, made ready for inputs of one size.
///
/// Each task takes a strip of output rows of an image through all of them, so that what is between them
/// stays in its second cache and threads meet once, not three times. The rows of the first factor that two
/// neighbouring strips see are computed for both. A single small image of many channels is the exception:
/// its weights are more than what is between them, so threads share out the channels instead of reading
/// all weights each.
///
/// # Example
/// ```
/// use burn_sparse::{ConvProblem, cpu::{Chain, ChainWeights, Finish, Images, ImagesMut, Isa}};
///
/// // The sum of two channels, a blur of 1×3, and its double.
/// let problem = ConvProblem::new(1, [2, 1], [1, 4], [1, 3]);
/// let weights = ChainWeights {
///     reduce: Some(&[1.0, 1.0]),
///     core: &[1.0, 2.0, 1.0],
///     expand: Some(&[2.0]),
///     ranks: [1, 1],
/// };
/// let chain = Chain::new(&problem, weights, Isa::current())?;
/// let mut out = [0.0; 2];
/// let input = Images::contiguous(&[1., 2., 3., 4., 0., 0., 0., 1.], [2, 4]);
/// chain.run(1, input, Finish::default(), ImagesMut::contiguous(&mut out, [1, 2]));
/// assert_eq!(out, [16., 26.]);
/// # Ok::<(), burn_sparse::SparseError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Chain {
    problem: ConvProblem,
    isa: Isa,
    blocks: ChainBlocks,
    strips: Vec<Strip>,
    macs: u64,
    /// Whether all threads work on one strip, each on some of its units, instead of each on its own.
    shared: bool,
}

/// The factors as they are read.
#[derive(Debug, Clone)]
struct ChainBlocks {
    reduce: Option<Blocks>,
    core: Blocks,
    expand: Option<Blocks>,
    /// `[D1, D2]`.
    ranks: [usize; 2],
}

impl Chain {
    /// Orders the factors of a convolution of one group for its strips. As many as the second cache asks
    /// for, and enough for every thread if the batch of `problem` has fewer images than there are threads.
    ///
    /// # Errors
    /// [`SparseError::Shape`] for a problem that is none or has no channels, groups, ranks of 0, and factors
    /// whose lengths do not fit.
    pub fn new(
        problem: &ConvProblem,
        weights: ChainWeights<'_>,
        isa: Isa,
    ) -> Result<Self, SparseError> {
        problem.check()?;
        let [d1, d2] = weights.ranks;
        let taps = problem.kernel[0] * problem.kernel[1];
        let (channels, outputs) = (problem.in_channels, problem.out_channels);
        let fits = problem.groups == 1
            && d1 * d2 * taps * channels * outputs > 0
            && weights.core.len() == d2 * d1 * taps
            && match weights.reduce {
                Some(reduce) => reduce.len() == d1 * channels,
                None => d1 == channels,
            }
            && match weights.expand {
                Some(expand) => expand.len() == outputs * d2,
                None => d2 == outputs,
            };
        if !fits {
            return Err(SparseError::shape(format!(
                "factors of ranks [{d1}, {d2}] with {:?}, {} and {:?} weights for {channels} to {outputs} \
                 channels in {} groups",
                weights.reduce.map(<[f32]>::len),
                weights.core.len(),
                weights.expand.map(<[f32]>::len),
                problem.groups
            )));
        }
        let blocks = ChainBlocks {
            core: Blocks::across(weights.core, [d2, d1, taps], isa),
            reduce: weights
                .reduce
                .map(|values| Blocks::across(values, [d1, channels, 1], isa)),
            expand: weights
                .expand
                .map(|values| Blocks::along(values, [outputs, d2], isa)),
            ranks: weights.ranks,
        };
        Ok(Self::of(problem, blocks, isa))
    }

    /// Whether `problem` differs from this one in batch and image alone.
    pub fn runs(&self, problem: &ConvProblem) -> bool {
        let same = ConvProblem {
            batch: problem.batch,
            input: problem.input,
            ..self.problem
        };
        same == *problem
    }

    /// The same factors, ordered already, for inputs of another size.
    ///
    /// # Errors
    /// [`SparseError::Shape`] for a problem that is none, or differs in more than batch and image.
    pub fn resized(&self, problem: &ConvProblem) -> Result<Self, SparseError> {
        problem.check()?;
        if !self.runs(problem) {
            return Err(SparseError::shape(format!(
                "factors ordered for {:?} cannot run {problem:?}",
                self.problem
            )));
        }
        Ok(Self::of(problem, self.blocks.clone(), self.isa))
    }

    fn of(problem: &ConvProblem, blocks: ChainBlocks, isa: Isa) -> Self {
        let shared = shares(problem, &blocks);
        let strips = strips(problem, blocks.ranks, shared);
        let weights = |blocks: Option<&Blocks>| {
            blocks.map_or(0, |blocks| (blocks.terms * blocks.channels) as u64)
        };
        let reduced = weights(blocks.reduce.as_ref());
        let written = weights(Some(&blocks.core)) + weights(blocks.expand.as_ref());
        let macs = strips.iter().map(|strip| {
            let [inputs, outputs] = [strip.core.input, strip.core.output()]
                .map(|size| size.iter().product::<usize>() as u64);
            reduced * inputs + written * outputs
        });
        Self {
            problem: problem.with_batch(1),
            isa,
            macs: macs.sum(),
            blocks,
            strips,
            shared,
        }
    }

    /// The convolution, for one image.
    pub fn problem(&self) -> &ConvProblem {
        &self.problem
    }

    /// Strips of an image.
    pub fn strips(&self) -> usize {
        self.strips.len()
    }

    /// Multiply-adds for an image, with the rows that are computed twice.
    pub fn macs(&self) -> u64 {
        self.macs
    }

    /// `out[n,o,e,f] = act(bias[o] + residual[n,o,e,f] + expand (core ∗ (reduce x)))` for `batch` images.
    ///
    /// Sums are f32. Every output is written, and nothing between the planes of `out`.
    ///
    /// # Panics
    /// If a slice is shorter than its strides and the geometry say, or planes of the output overlap.
    pub fn run(&self, batch: usize, input: Images<'_>, finish: Finish<'_>, out: ImagesMut<'_>) {
        let problem = &self.problem;
        let [in_height, in_width] = problem.input;
        let [height, width] = problem.output();
        let outputs = problem.out_channels;
        if batch * outputs * height * width == 0 {
            return;
        }
        input.check("input", [batch, problem.in_channels, in_height * in_width]);
        if let Residual::Images(residual) = &finish.residual {
            residual.check("residual", [batch, outputs, height * width]);
        }
        if let Some(bias) = finish.bias {
            assert!(
                bias.len() >= outputs,
                "{} biases for {outputs} channels",
                bias.len()
            );
        }
        let view = Images {
            data: &*out.data,
            batch_stride: out.batch_stride,
            channel_stride: out.channel_stride,
        };
        view.check("output", [batch, outputs, height * width]);
        // Threads write them at the same time.
        let image = outputs.checked_mul(out.channel_stride);
        assert!(
            out.channel_stride >= height * width
                && (batch == 1 || image.is_some_and(|image| out.batch_stride >= image)),
            "planes of the output overlap: {:?} at strides {} and {}",
            [batch, outputs, height * width],
            out.batch_stride,
            out.channel_stride
        );
        let target = Target {
            batch_stride: out.batch_stride,
            channel_stride: out.channel_stride,
            data: Shared::new(out.data),
        };
        let task = |index: usize| {
            let (image, strip) = (index / self.strips.len(), index % self.strips.len());
            self.strip(image, &self.strips[strip], input, finish, target);
        };
        let tasks = batch * self.strips.len();
        if self.shared || threads() == 1 || batch as u64 * self.macs < LEAST_WORK {
            (0..tasks).for_each(task);
        } else {
            team::indices(tasks, task);
        }
    }

    /// One strip of one image through all factors.
    fn strip(
        &self,
        image: usize,
        strip: &Strip,
        input: Images<'_>,
        finish: Finish<'_>,
        target: Target,
    ) {
        let core = &strip.core;
        let [rows, width] = core.input;
        let data = &input.data[image * input.batch_stride + strip.input * width..];
        let mut buffer;
        let between = match &self.blocks.reduce {
            Some(reduce) => {
                let pixel = reduce.channels.next_multiple_of(self.isa.lanes());
                let between = Between::padded(core, pixel, 1);
                buffer = Buffer::new(between.len);
                between.clear(core, &mut buffer);
                let stage = Across {
                    weights: reduce,
                    isa: self.isa,
                    input: data,
                    from: Grid {
                        first: 0,
                        row: width,
                        pixel: 1,
                    },
                    terms: Terms {
                        taps: &[0],
                        channels: self.problem.in_channels,
                        stride: input.channel_stride,
                        ahead: 0,
                    },
                    size: [rows, width],
                    out: Shared::new(&mut buffer),
                    to: To::Pixels(between.image(core)),
                };
                self.spread(stage.units(), |units| stage.run(units));
                between.of(&buffer)
            }
            None if core.padding == [[0; 2]; 2] => Between {
                row: width,
                pixel: 1,
                channel: input.channel_stride,
                len: data.len(),
            }
            .of(data),
            None => {
                let plane = Between::padded(core, 1, 0);
                let channel = plane.len.next_multiple_of(WHOLE);
                let between = Between {
                    channel,
                    len: channel * core.in_channels,
                    ..plane
                };
                buffer = Buffer::new(between.len);
                for (index, plane) in buffer.chunks_mut(channel.max(1)).enumerate() {
                    between.clear(core, plane);
                    let from = &data[index * input.channel_stride..];
                    for y in 0..rows {
                        let at = between.image(core).first + y * between.row;
                        plane[at..at + width].copy_from_slice(&from[y * width..][..width]);
                    }
                }
                between.of(&buffer)
            }
        };
        let (between, held) = between;
        let size = core.output();
        let pixels = size[0] * size[1];
        let plane = pixels.next_multiple_of(WHOLE);
        let mut planes = Buffer::new(core.out_channels * plane);
        let taps: Vec<usize> = (0..core.kernel[0])
            .flat_map(|r| (0..core.kernel[1]).map(move |q| [r, q]))
            .map(|[r, q]| r * core.dilation[0] * between.row + q * core.dilation[1] * between.pixel)
            .collect();
        let stage = Across {
            weights: &self.blocks.core,
            isa: self.isa,
            input: held,
            from: Grid {
                first: 0,
                row: core.stride[0] * between.row,
                pixel: core.stride[1] * between.pixel,
            },
            terms: Terms {
                taps: &taps,
                channels: core.in_channels,
                stride: between.channel,
                ahead: 0,
            },
            size,
            out: Shared::new(&mut planes),
            to: To::Planes(plane),
        };
        self.spread(stage.units(), |units| stage.run(units));
        let stage = Along {
            weights: self.blocks.expand.as_ref(),
            channels: core.out_channels,
            isa: self.isa,
            input: &planes,
            stride: plane,
            pixels,
            image,
            at: strip.output * size[1],
            finish,
            out: target.data,
            out_start: image * target.batch_stride,
            out_stride: target.channel_stride,
        };
        self.spread(stage.units(), |units| stage.run(units));
    }

    /// Hands out units: all to this thread, or an equal share to each.
    fn spread(&self, units: usize, run: impl Fn(Range<usize>) + Send + Sync) {
        let threads = threads();
        if !self.shared || threads == 1 || self.macs < LEAST_WORK {
            return run(0..units);
        }
        let parts = units.min(PARTS * threads);
        let share = |part: usize| units * part / parts..units * (part + 1) / parts;
        team::indices(parts, |part| run(share(part)));
    }
}

/// Whether threads share out the units of a strip: where there are fewer images than threads, and more weights
/// than elements between the factors.
fn shares(problem: &ConvProblem, blocks: &ChainBlocks) -> bool {
    let [d1, d2] = blocks.ranks;
    let factors = [
        blocks.reduce.as_ref(),
        Some(&blocks.core),
        blocks.expand.as_ref(),
    ];
    let elements: usize = factors
        .into_iter()
        .flatten()
        .map(|f| f.terms * f.channels)
        .sum();
    let [inputs, outputs] = [problem.input, problem.output()].map(|[h, w]| h * w);
    problem.batch < threads() && elements > d1 * inputs + d2 * outputs
}

/// Outputs as all tasks see them.
#[derive(Clone, Copy)]
struct Target {
    data: Shared,
    batch_stride: usize,
    channel_stride: usize,
}

/// How the input of the core lies: elements between its rows, pixels and channels, and all together.
#[derive(Clone, Copy)]
struct Between {
    row: usize,
    pixel: usize,
    channel: usize,
    len: usize,
}

impl Between {
    /// With room for the padding around it.
    fn padded(core: &ConvProblem, pixel: usize, channel: usize) -> Self {
        let [height, width] = [0, 1].map(|axis| {
            let [before, after] = core.padding[axis];
            before + core.input[axis] + after
        });
        Self {
            row: width * pixel,
            pixel,
            channel,
            len: height * width * pixel,
        }
    }

    /// Where the pixels of the image lie in it.
    fn image(&self, core: &ConvProblem) -> Grid {
        let [[top, _], [left, _]] = core.padding;
        Grid {
            first: top * self.row + left * self.pixel,
            row: self.row,
            pixel: self.pixel,
        }
    }

    /// Makes the padding around the image zero, of all channels of a pixel, or of a plane.
    fn clear(&self, core: &ConvProblem, data: &mut [f32]) {
        let [[top, bottom], [left, right]] = core.padding;
        for (y, row) in data.chunks_exact_mut(self.row.max(1)).enumerate() {
            let inside = y >= top && y < top + core.input[0];
            if !inside && y < top + core.input[0] + bottom {
                row.fill(0.0);
            } else if inside {
                row[..left * self.pixel].fill(0.0);
                let end = row.len() - right * self.pixel;
                row[end..].fill(0.0);
            }
        }
    }

    fn of(self, data: &[f32]) -> (Self, &[f32]) {
        (self, data)
    }
}
