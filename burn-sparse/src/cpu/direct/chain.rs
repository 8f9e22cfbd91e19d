//! Factors of a convolution, strip by strip.

use rayon::prelude::*;

use super::run::{LEAST_WORK, Target};
use super::{Direct, Plan, plane_stride};
use crate::cpu::{self, Buffer, Finish, Images, ImagesMut, Isa, Residual, Rows};
use crate::{ConvProblem, SparseError};

/// Bytes of what lies between the factors of a strip: most of a second cache of usual size.
const BETWEEN: usize = 512 << 10;

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
    strips: Vec<Strip>,
    kinds: Vec<Kind>,
    macs: u64,
    /// Whether all threads work on one strip, each on some channels, instead of each on its own.
    shared: bool,
}

/// Some rows of outputs.
#[derive(Debug, Clone, Copy)]
struct Strip {
    kind: usize,
    /// First row that it reads.
    input: usize,
    /// First row that it writes.
    output: usize,
}

/// Strips of one geometry: the first, the last and those between differ in padding.
#[derive(Debug, Clone)]
struct Kind {
    core: Direct,
    reduce: Option<Direct>,
    expand: Option<Direct>,
}

/// A matrix all of whose entries are stored.
struct Full {
    row_ptr: Vec<u32>,
    columns: Vec<u32>,
}

impl Full {
    fn new(rows: usize, len: usize) -> Self {
        Self {
            row_ptr: (0..=rows).map(|row| (row * len) as u32).collect(),
            columns: (0..rows).flat_map(|_| 0..len as u32).collect(),
        }
    }

    fn direct(
        &self,
        problem: &ConvProblem,
        values: &[f32],
        isa: Isa,
    ) -> Result<Direct, SparseError> {
        let rows = Rows {
            row_ptr: &self.row_ptr,
            columns: &self.columns,
            values,
        };
        let plan = Plan::guess(problem, 1.0, ROWS_OF_DENSE, isa);
        Direct::new(problem, rows, plan, isa)
    }
}

/// Output channels that share the loads of a dense weight.
const ROWS_OF_DENSE: usize = 4;

impl Chain {
    /// Orders the factors of a convolution of one group for its strips. As many as the second cache asks
    /// for, and enough for every thread if the batch of `problem` has fewer images than there are threads.
    ///
    /// # Errors
    /// [`SparseError::Shape`] for a problem that is none, groups, and factors whose lengths do not fit.
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
        let matrices = [
            Full::new(d1, channels),
            Full::new(d2, d1 * taps),
            Full::new(outputs, d2),
        ];
        let mut chain = Self {
            problem: problem.with_batch(1),
            strips: Vec::new(),
            kinds: Vec::new(),
            macs: 0,
            shared: shares(problem, weights),
        };
        let mut cores: Vec<ConvProblem> = Vec::new();
        for part in parts(problem, weights.ranks, chain.shared) {
            let kind = match cores.iter().position(|core| *core == part.core) {
                Some(kind) => kind,
                None => {
                    let kind = Kind::new(&part.core, problem, weights, &matrices, isa)?;
                    let kind = if chain.shared { kind } else { kind.serial() };
                    chain.kinds.push(kind);
                    cores.push(part.core);
                    cores.len() - 1
                }
            };
            chain.macs += chain.kinds[kind].macs();
            chain.strips.push(Strip {
                kind,
                input: part.input,
                output: part.output,
            });
        }
        Ok(chain)
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
    /// If a slice is shorter than its strides and the geometry say.
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
        let target = out.target([batch, outputs, height * width]);
        let task = |index: usize| {
            let (image, strip) = (index / self.strips.len(), index % self.strips.len());
            let strip = self.strips[strip];
            let from = image * input.batch_stride + strip.input * in_width;
            let input = Images {
                data: &input.data[from..],
                batch_stride: 0,
                channel_stride: input.channel_stride,
            };
            let residual = match finish.residual {
                Residual::Images(residual) => Residual::Images(Images {
                    data: &residual.data[image * residual.batch_stride + strip.output * width..],
                    batch_stride: 0,
                    channel_stride: residual.channel_stride,
                }),
                other => other,
            };
            let target = target.within(image, strip.output * width);
            self.kinds[strip.kind].run(input, Finish { residual, ..finish }, target);
        };
        let tasks = batch * self.strips.len();
        if self.shared || cpu::threads() == 1 || batch as u64 * self.macs < LEAST_WORK {
            (0..tasks).for_each(task);
        } else {
            (0..tasks).into_par_iter().for_each(task);
        }
    }
}

impl Kind {
    fn new(
        core: &ConvProblem,
        whole: &ConvProblem,
        weights: ChainWeights<'_>,
        [reduces, cores, expands]: &[Full; 3],
        isa: Isa,
    ) -> Result<Self, SparseError> {
        let [d1, d2] = weights.ranks;
        let point = |channels, size| ConvProblem::new(1, channels, size, [1, 1]);
        let reduce = weights.reduce.map(|values| {
            let problem = point([whole.in_channels, d1], core.input);
            reduces.direct(&problem, values, isa)
        });
        let expand = weights.expand.map(|values| {
            let problem = point([d2, whole.out_channels], core.output());
            Ok::<_, SparseError>(expands.direct(&problem, values, isa)?.exact())
        });
        let core = cores.direct(core, weights.core, isa)?;
        Ok(Self {
            core: if weights.expand.is_some() {
                core
            } else {
                core.exact()
            },
            reduce: reduce.transpose()?,
            expand: expand.transpose()?,
        })
    }

    /// Every strip by the thread that takes it.
    fn serial(self) -> Self {
        Self {
            core: self.core.serial(),
            reduce: self.reduce.map(Direct::serial),
            expand: self.expand.map(Direct::serial),
        }
    }

    fn macs(&self) -> u64 {
        let factors = [self.reduce.as_ref(), Some(&self.core), self.expand.as_ref()];
        let macs = factors.into_iter().flatten();
        macs.map(|direct| direct.problem().dense_macs()).sum()
    }

    /// One strip of one image.
    fn run(&self, input: Images<'_>, finish: Finish<'_>, target: Target<f32>) {
        let problem = self.core.problem();
        let mut first;
        let inner = match &self.reduce {
            None => input,
            Some(reduce) => {
                let plane = plane_stride(problem.input.iter().product());
                first = Buffer::new(problem.in_channels * plane);
                reduce.run(1, input, Finish::default(), planes_mut(&mut first, plane));
                planes(&first, plane)
            }
        };
        let Some(expand) = &self.expand else {
            return self.core.run_into(1, inner, finish, target);
        };
        let plane = plane_stride(problem.output().iter().product());
        let mut second = Buffer::new(problem.out_channels * plane);
        self.core
            .run(1, inner, Finish::default(), planes_mut(&mut second, plane));
        expand.run_into(1, planes(&second, plane), finish, target);
    }
}

fn planes(data: &[f32], channel_stride: usize) -> Images<'_> {
    Images {
        data,
        batch_stride: 0,
        channel_stride,
    }
}

fn planes_mut(data: &mut [f32], channel_stride: usize) -> ImagesMut<'_> {
    ImagesMut {
        data,
        batch_stride: 0,
        channel_stride,
    }
}

/// The core of a strip as a convolution of its own, and where its rows are.
struct Part {
    core: ConvProblem,
    /// First row that it reads.
    input: usize,
    /// First row that it writes.
    output: usize,
}

/// Whether threads share out channels: where there are fewer images than threads, and more weights than
/// elements between the factors.
fn shares(problem: &ConvProblem, weights: ChainWeights<'_>) -> bool {
    let [d1, d2] = weights.ranks;
    let len = |factor: Option<&[f32]>| factor.map_or(0, <[f32]>::len);
    let elements = len(weights.reduce) + weights.core.len() + len(weights.expand);
    let [inputs, outputs] = [problem.input, problem.output()].map(|[h, w]| h * w);
    problem.batch < cpu::threads() && elements > d1 * inputs + d2 * outputs
}

/// Strips of nearly equal height: as many as the second cache asks for, and if threads take a strip each, a
/// multiple of theirs.
fn parts(problem: &ConvProblem, [d1, d2]: [usize; 2], shared: bool) -> Vec<Part> {
    let [height, width] = problem.output();
    let [in_height, in_width] = problem.input;
    let row = d1 * in_width * problem.stride[0] + d2 * width;
    let threads = cpu::threads();
    let wanted = (4 * row * height).div_ceil(BETWEEN).max(1);
    // As many tasks as make every thread end at the same time.
    let images = problem.batch.max(1);
    let even = |strips: &usize| shared || (images * strips).is_multiple_of(threads);
    let most = wanted + threads;
    let count = (wanted..most).find(even).unwrap_or(wanted);
    for count in (1..=count.min(height)).rev() {
        let part = |index: usize| {
            let rows = [index, index + 1].map(|edge| edge * height / count);
            let extent = (problem.kernel[0] - 1) * problem.dilation[0] + 1;
            let [above, _] = problem.padding[0];
            // In rows of the padded input.
            let from = rows[0] * problem.stride[0];
            let to = (rows[1] - 1) * problem.stride[0] + extent;
            let first = from.saturating_sub(above);
            let last = to.saturating_sub(above).min(in_height);
            let padding = [
                above.saturating_sub(from),
                (to - above.min(to)).saturating_sub(last),
            ];
            (first < last).then(|| Part {
                core: ConvProblem {
                    batch: 1,
                    in_channels: d1,
                    out_channels: d2,
                    input: [last - first, in_width],
                    padding: [padding, problem.padding[1]],
                    ..*problem
                },
                input: first,
                output: rows[0],
            })
        };
        // A strip that sees only padding has nothing to read.
        if let Some(parts) = (0..count).map(part).collect() {
            return parts;
        }
    }
    // Not even the whole image has a row that the kernel reaches.
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{self, AWKWARD};
    use crate::reference::{error_bound, factored_conv2d};

    /// Factors of these ranks, one of them left out where the rank says so.
    fn check(problem: &ConvProblem, ranks: [Option<usize>; 2], isa: Isa, threads: usize) {
        let [d1, d2] = [
            ranks[0].unwrap_or(problem.in_channels),
            ranks[1].unwrap_or(problem.out_channels),
        ];
        let taps = problem.kernel[0] * problem.kernel[1];
        let reduce = ranks[0].map(|_| catalogue::values(d1 * problem.in_channels, 1));
        let core = catalogue::values(d2 * d1 * taps, 2);
        let expand = ranks[1].map(|_| catalogue::values(problem.out_channels * d2, 3));
        let bias = catalogue::values(problem.out_channels, 4);
        let input = catalogue::values(problem.input_shape().iter().product(), 5);
        let outputs: usize = problem.output_shape().iter().product();
        let residual = catalogue::values(outputs, 6);
        let weights = ChainWeights {
            reduce: reduce.as_deref(),
            core: &core,
            expand: expand.as_deref(),
            ranks: [d1, d2],
        };
        let factors = [reduce.as_deref(), Some(&core[..]), expand.as_deref()];
        let expected = factored_conv2d(&input, factors, [d1, d2], Some(&bias), problem);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.unwrap();
        let label = format!("{problem:?} at {ranks:?}, {isa:?}, {threads} threads");
        let terms = problem.in_channels + d1 * taps + d2 + 2;
        let most = (problem.in_channels * d1 * taps * d2) as f64 + 2.0;
        let bound = error_bound(terms, most, f64::from(f32::EPSILON));
        let [height, width] = problem.output();
        let plane = height * width;
        let in_plane: usize = problem.input.iter().product();
        // Planes as they come, and padded ones, whose gaps nobody may touch.
        for gap in [0, 5] {
            let stride = plane + gap;
            let mut out = vec![f32::NAN; problem.batch * problem.out_channels * stride];
            let padded: Vec<f32> = input
                .chunks(in_plane.max(1))
                .flat_map(|p| p.iter().copied().chain((0..gap).map(|_| f32::NAN)))
                .collect();
            pool.install(|| {
                let chain = Chain::new(problem, weights, isa).unwrap();
                let images = Images {
                    data: &padded,
                    batch_stride: problem.in_channels * (in_plane + gap),
                    channel_stride: in_plane + gap,
                };
                let finish = Finish {
                    bias: Some(&bias),
                    residual: Residual::Images(Images::contiguous(
                        &residual,
                        [problem.out_channels, plane],
                    )),
                    relu: false,
                };
                let target = ImagesMut {
                    data: &mut out,
                    batch_stride: problem.out_channels * stride,
                    channel_stride: stride,
                };
                chain.run(problem.batch, images, finish, target);
            });
            for (index, (&expected, &residual)) in expected.iter().zip(&residual).enumerate() {
                let found = out[index / plane * stride + index % plane];
                let off = (f64::from(found) - expected - f64::from(residual)).abs();
                assert!(off <= bound, "{label}: {found} at {index}, not {expected}");
            }
            let gaps = out.iter().enumerate().filter(|(i, _)| i % stride >= plane);
            assert!(
                gaps.into_iter().all(|(_, v)| v.is_nan()),
                "{label}: a gap was written"
            );
        }
    }

    #[test]
    fn matches_three_convolutions() {
        let whole = |case: &&catalogue::Case| case.problem.groups == 1;
        for case in AWKWARD.iter().filter(whole) {
            let problem = &case.problem;
            for ranks in [
                [Some(3), Some(5)],
                [None, Some(2)],
                [Some(2), None],
                [None, None],
            ] {
                for threads in [1, 3] {
                    check(problem, ranks, Isa::current(), threads);
                }
            }
        }
    }

    #[test]
    fn strips_of_a_tall_image_meet() {
        let tall = ConvProblem::new(1, [24, 20], [67, 53], [3, 3]).with_padding([1, 1]);
        for problem in [tall, tall.with_stride([2, 2]), tall.with_dilation([3, 2])] {
            for threads in [1, 2, 5] {
                check(&problem, [Some(48), Some(40)], Isa::current(), threads);
            }
            let chain = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                let (reduce, core) = (vec![0.5; 48 * 24], vec![0.5; 40 * 48 * 9]);
                let expand = vec![0.5; 20 * 40];
                let weights = ChainWeights {
                    reduce: Some(&reduce),
                    core: &core,
                    expand: Some(&expand),
                    ranks: [48, 40],
                };
                let chain = || Chain::new(&problem, weights, Isa::current()).unwrap();
                pool.unwrap().install(chain)
            };
            assert!(chain(1).strips() > 1 && chain(5).strips() % 5 == 0);
        }
    }

    #[test]
    fn factors_that_do_not_fit_are_refused() {
        let problem = ConvProblem::new(1, [4, 6], [5, 5], [3, 3]);
        let weights = ChainWeights {
            reduce: None,
            core: &[0.0; 6 * 4 * 9],
            expand: None,
            ranks: [4, 6],
        };
        assert!(Chain::new(&problem, weights, Isa::current()).is_ok());
        for weights in [
            ChainWeights {
                ranks: [4, 5],
                ..weights
            },
            ChainWeights {
                reduce: Some(&[0.0; 15]),
                ..weights
            },
            ChainWeights {
                expand: Some(&[0.0; 35]),
                ..weights
            },
        ] {
            assert!(Chain::new(&problem, weights, Isa::current()).is_err());
        }
        let grouped = ConvProblem::new(1, [4, 6], [5, 5], [3, 3]).with_groups(2);
        assert!(Chain::new(&grouped, weights, Isa::current()).is_err());
    }
}
