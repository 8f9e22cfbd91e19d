//! Direct convolution: every entry of a weight adds a scaled, shifted run of the input to a tile
//! of outputs whose sums stay in registers.
//!
//! | file | holds |
//! |---|---|
//! | `plan` | what may be tuned |
//! | `fold` | a batch of small images as one tall one |
//! | `working` | how the input lies while a layer reads it |
//! | `gather` | the copy into that layout |
//! | `stream` | the weights in traversal order |
//! | `panels` | rows that share loads without being neighbours |
//! | `tile` | the inner loop |
//! | `compiled` | the weight as machine code in its place |
//! | `run` | tiles and channels over threads, the epilogue |
//! | `shared`, `responses` | kernels that channels share, with sparse coefficients |
//! | `grad_weight` | the gradient of a dense weight, in the same layout |
//!
//! Sparse and dense weights run alike: a row of a sparse weight has its own list of positions, rows
//! pruned in blocks share one, and in a dense weight all rows share the list of all positions, which
//! makes each load of the input serve several channels.

mod compiled;
mod fold;
mod gather;
mod grad_weight;
mod panels;
mod plan;
mod responses;
mod run;
mod shared;
mod stream;
mod tile;
mod working;

pub use compiled::MOST_ROWS;
pub use fold::Fold;
pub(crate) use grad_weight::{grad_weight, outputs_together};
pub use plan::{Panel, Plan, ROWS, Sharing};
pub use shared::{SharedConv, SharedWeights};
pub(crate) use working::{Working, plane_stride};

use std::sync::Arc;

use compiled::Code;
use stream::{Places, Stream};

use super::{Isa, Rows};
use crate::{ConvProblem, SparseError};

/// A weight made ready for inputs of one size, by a [`Plan`].
///
/// # Example
/// ```
/// use burn_sparse::{ConvProblem, cpu::{Direct, Finish, Images, ImagesMut, Isa, Plan, Rows}};
///
/// // One 1x2 filter `[0, 3]` on an image of 1x5.
/// let problem = ConvProblem::new(1, [1, 1], [1, 5], [1, 2]);
/// let matrix = Rows { row_ptr: &[0, 1], columns: &[1], values: &[3.0] };
/// let plan = Plan::guess(&problem, 0.5, 1, Isa::current());
/// let direct = Direct::new(&problem, matrix, plan, Isa::current())?;
/// let mut out = [0.0; 4];
/// let input = Images::contiguous(&[1., 2., 3., 4., 5.], [1, 5]);
/// direct.run(1, input, Finish::default(), ImagesMut::contiguous(&mut out, [1, 4]));
/// assert_eq!(out, [6., 9., 12., 15.]);
/// # Ok::<(), burn_sparse::SparseError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Direct {
    problem: ConvProblem,
    /// The convolution of each image, if a batch is folded; then `problem` is that of the tall one.
    one: Option<ConvProblem>,
    plan: Plan,
    isa: Isa,
    working: Working,
    stream: Stream,
    /// In the place of the stream, which is empty then.
    code: Option<Arc<Code>>,
}

impl Direct {
    /// Orders the entries of `matrix` (of [`ConvProblem::row_len`] columns) for `plan`. The batch
    /// of `problem` does not matter. Parts of `plan` that the layer or the instruction set cannot
    /// follow are brought into range.
    ///
    /// # Errors
    /// [`SparseError::Shape`] for a problem that is none, a matrix of other rows, and an image
    /// whose offsets exceed 32 bits.
    ///
    /// # Panics
    /// If `matrix` is not one: columns must lie within [`ConvProblem::row_len`].
    pub fn new(
        problem: &ConvProblem,
        matrix: Rows<'_>,
        plan: Plan,
        isa: Isa,
    ) -> Result<Self, SparseError> {
        problem.check()?;
        if matrix.row_ptr.len() != problem.out_channels + 1 {
            return Err(SparseError::shape(format!(
                "{} rows for {} output channels",
                matrix.row_ptr.len() - 1,
                problem.out_channels
            )));
        }
        let len = problem.row_len() as u32;
        assert!(
            matrix.columns.iter().all(|&column| column < len)
                && matrix.columns.len() == matrix.values.len(),
            "a matrix whose columns lie below {len}"
        );
        if plan.compiled_in_range(isa).compiled
            && let Some(direct) = Self::compiled(problem, matrix, plan, isa)?
        {
            return Ok(direct);
        }
        let plan = Plan {
            compiled: false,
            ..plan
        };
        Self::with(problem, plan, isa, |problem, plan, working| {
            Stream::new(problem, matrix, plan, working)
        })
    }

    /// The same for a [folded](Fold) batch, which [`run_folded`](Self::run_folded) computes. `plan` is one for
    /// single images.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`SparseError::Shape`] for a fold of no images, or of images so near that one
    /// would see the other.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn folded(
        problem: &ConvProblem,
        fold: Fold,
        matrix: Rows<'_>,
        plan: Plan,
        isa: Isa,
    ) -> Result<Self, SparseError> {
        problem.check()?;
        let one = problem.with_batch(1);
        if !fold.fits(&one) {
            return Err(SparseError::shape(format!(
                "{} images of {:?} cannot lie {} rows apart under a kernel of {:?}",
                fold.images,
                one.output(),
                fold.period,
                one.kernel
            )));
        }
        let tall = fold.tall(&one);
        let plan = plan.compiled_in_range(isa);
        let plan = plan.folded(&tall, isa.lanes(), plan.widest(isa));
        let mut direct = Self::new(&tall, matrix, plan, isa)?;
        direct.working.fold = fold;
        direct.one = Some(one);
        Ok(direct)
    }

    /// The weight as code, or nothing where the system forbids it.
    fn compiled(
        problem: &ConvProblem,
        matrix: Rows<'_>,
        plan: Plan,
        isa: Isa,
    ) -> Result<Option<Self>, SparseError> {
        let mut code = None;
        let mut direct = Self::with(problem, plan, isa, |problem, plan, working| {
            let places = Places::new(problem, working)?;
            code = Code::new(problem, matrix, plan, &places);
            Ok(Stream::empty())
        })?;
        direct.code = code.map(Arc::new);
        Ok(direct.code.is_some().then_some(direct))
    }

    /// A dense weight whose element for output channel `k` and column `(c * height + r) * width + s` is
    /// `value(k, column)`, as the [guessed plan](Plan::guess) orders it.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(crate) fn dense(
        problem: &ConvProblem,
        value: impl Fn(usize, usize) -> f32,
        isa: Isa,
    ) -> Result<Self, SparseError> {
        problem.check()?;
        let plan = Plan::guess(&problem.with_batch(1), 1.0, 4, isa);
        Self::with(problem, plan, isa, |problem, plan, working| {
            Stream::of_dense(problem, value, plan, working)
        })
    }

    /// Brings the parts of `plan` into range, and orders the weight by it.
    fn with(
        problem: &ConvProblem,
        mut plan: Plan,
        isa: Isa,
        order: impl FnOnce(&ConvProblem, &Plan, &Working) -> Result<Stream, SparseError>,
    ) -> Result<Self, SparseError> {
        let problem = problem.with_batch(1);
        plan = plan.compiled_in_range(isa);
        let per_group = problem.out_channels / problem.groups;
        // Rows that share a load must read the same input channels, and exist as a kernel.
        let shares = problem.groups > 1 && plan.panel.is_none();
        if !plan.compiled
            && (!ROWS.contains(&plan.rows) || shares && !per_group.is_multiple_of(plan.rows))
        {
            plan.rows = 1;
        }
        if plan.panel.is_some() {
            plan.blocks = 1;
        }
        plan.strip = plan.strip.clamp(1, problem.output()[0]);
        // Plans come from files, too: rounding to more than a vector could only waste memory.
        plan.align = plan.align.clamp(1, isa.lanes());
        let working = Working::new(&problem, &plan);
        let outputs = working.vectors(isa.lanes());
        plan.vectors = plan.vectors.min(outputs).clamp(1, plan.widest(isa));
        plan.blocks = plan
            .blocks
            .clamp(1, (problem.in_channels / problem.groups).max(1));
        let stream = order(&problem, &plan, &working)?;
        Ok(Self {
            problem,
            one: None,
            plan,
            isa,
            working,
            stream,
            code: None,
        })
    }

    /// The plan as it is followed.
    pub fn plan(&self) -> Plan {
        self.plan
    }

    /// The geometry, for one image.
    pub fn problem(&self) -> &ConvProblem {
        &self.problem
    }

    /// Bytes of offsets (or code) and values, those of stored zeros included.
    pub fn bytes(&self) -> usize {
        let stream = 4 * (self.stream.words.len() + self.stream.starts.len());
        stream + self.code.as_ref().map_or(0, |code| code.bytes())
    }

    /// Takes the weight out of all caches, where this processor can: in a network whose weights do not fit them it
    /// comes from memory at every pass.
    pub(crate) fn leave_caches(&self) {
        evict(&self.stream.words);
        if let Some(code) = &self.code {
            code.leave_caches();
        }
    }

    /// Whether an input whose planes are `channel_stride` elements apart is read where it lies,
    /// without a copy.
    pub fn reads_in_place(&self, channel_stride: usize) -> bool {
        self.working.plain && channel_stride == self.working.plane
    }
}

/// Takes memory out of all caches, where this processor can.
fn evict<T>(memory: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..size_of_val(memory).div_ceil(64) {
        // SAFETY: an address within the slice, whose contents stay as they are.
        unsafe { core::arch::x86_64::_mm_clflush(memory.as_ptr().cast::<u8>().add(64 * line)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = memory;
}

/// Elements between the planes of images that the layers of this crate hand to each other: whole
/// cache lines, so that every load of a 1x1 convolution is aligned.
pub fn padded_plane([height, width]: [usize; 2]) -> usize {
    plane_stride(height * width)
}

#[cfg(test)]
mod tests;
