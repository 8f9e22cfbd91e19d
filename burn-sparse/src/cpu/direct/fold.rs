//! Images too small for a vector, under each other.

use super::{Plan, Working};
use crate::ConvProblem;

/// How much larger the part of lanes with an output must become for a batch to be folded.
const GAIN: f64 = 1.1;

/// Most images that are folded: more would not stay in the second cache together.
const MOST_IMAGES: usize = 8;

/// A batch as one tall image: under the outputs of each image come the first ones of the next, after a few
/// rows that nobody reads.
///
/// A plane of 7x7 fills three vectors of 16 lanes and one lane of a fourth, which idles for the most part;
/// four of them with a row between two fill thirteen and a half. And what a layer reads of its weight serves
/// all images. The layout of a tensor `[N, C, H, W]` is one of ordinary strides, `[period * W, plane, W, 1]`
/// with planes for all images.
///
/// # Example
/// ```
/// use burn_sparse::{ConvProblem, cpu::{Direct, Finish, Fold, Images, ImagesMut, Isa, Plan, Rows}};
///
/// // One 1x1 filter `[3]` on two images of 1x2: with a row between them, they are one image of 3x2.
/// let problem = ConvProblem::new(2, [1, 1], [1, 2], [1, 1]);
/// let fold = Fold::of(&problem, None, 16).expect("two pixels do not fill sixteen lanes");
/// assert_eq!((fold.period, fold.rows(1)), (2, 3));
/// let matrix = Rows { row_ptr: &[0, 1], columns: &[0], values: &[3.0] };
/// let plan = Plan::guess(&problem, 1.0, 1, Isa::current());
/// let direct = Direct::folded(&problem, fold, matrix, plan, Isa::current())?;
/// let mut out = [0.0; 16];
/// let input = Images::contiguous(&[1., 2., 5., 6.], [1, 2]);
/// direct.run_folded(input, Finish::default(), ImagesMut::contiguous(&mut out, [1, 16]));
/// assert_eq!((&out[..2], &out[4..6]), (&[3., 6.][..], &[15., 18.][..]));
/// # Ok::<(), burn_sparse::SparseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fold {
    /// Images `N` of the batch.
    pub images: usize,
    /// Rows from an output row of an image to that of the next.
    pub period: usize,
}

impl Fold {
    /// How a layer that computes the batch of `problem` folds it, so that every image sees its own padding
    /// and no other; `None` for a single image, a large batch, or large images, whose vectors are full
    /// anyhow. `given` is the period of an input that is folded: the output gets the same if it can.
    pub fn of(problem: &ConvProblem, given: Option<usize>, lanes: usize) -> Option<Self> {
        if problem.out_channels == 0 || !(2..=MOST_IMAGES).contains(&problem.batch) {
            return None;
        }
        let [height, width] = problem.output();
        let least = height + Self::apart(problem);
        let fold = Self {
            images: problem.batch,
            period: match given {
                Some(given) if given >= least => given,
                // A row between images is what kernels of 3x3 need: layers of 1x1 before and after them
                // hand on the same layout.
                _ => least.max(height + 1),
            },
        };
        let full = |outputs: usize, elements: usize| {
            outputs as f64 / elements.next_multiple_of(lanes).max(1) as f64
        };
        let alone = full(height * width, height * width);
        let folded = full(
            problem.batch * height * width,
            fold.rows(height).checked_mul(width)?,
        );
        (folded > GAIN * alone).then_some(fold)
    }

    /// Rows of the tall image of images of `height` rows.
    pub fn rows(&self, height: usize) -> usize {
        (self.images.max(1) - 1) * self.period + height
    }

    /// Elements between the planes of images of `[height, width]`, whole cache lines.
    pub fn plane(&self, [height, width]: [usize; 2]) -> usize {
        super::plane_stride(self.rows(height) * width)
    }

    /// Whether every image of `problem` would see its own padding and no other image.
    pub(super) fn fits(&self, problem: &ConvProblem) -> bool {
        let least = problem.output()[0] + Self::apart(problem);
        self.images > 0 && (self.images == 1 || self.period >= least)
    }

    /// The convolution of the tall image. Only its geometry is of interest: between the images lie other
    /// numbers of input rows than it says.
    pub(super) fn tall(&self, problem: &ConvProblem) -> ConvProblem {
        let [height, _] = problem.output();
        let read = (self.rows(height) - 1) * problem.stride[0] + problem.extent()[0];
        let padding = problem.padding[0].iter().sum::<usize>();
        let mut tall = problem.with_batch(1);
        if read > padding {
            tall.input[0] = read - padding;
        } else {
            // All rows are padding but one.
            tall.input[0] = 1;
            tall.padding[0] = [read - 1, 0];
        }
        tall
    }

    /// Rows that must lie between the outputs of two images, for the rows of both that a kernel reads to differ,
    /// or to be zero in both.
    pub(super) fn apart(problem: &ConvProblem) -> usize {
        let [height, _] = problem.output();
        let stride = problem.stride[0];
        let top = problem.padding[0][0];
        let reach = (problem.kernel[0] - 1) * problem.dilation[0];
        let phases = (0..problem.kernel[0])
            .map(|r| r * problem.dilation[0] % stride + 1)
            .max()
            .unwrap_or(1);
        let below = reach / stride;
        let free = |apart: &usize| {
            // The first and the last row that both images have.
            below == *apart
                || (height + apart) * stride >= problem.input[0] + top
                    && (below - apart - 1) * stride + phases <= top
        };
        (0..=below).find(free).unwrap_or(below)
    }
}

impl Plan {
    /// The same for a folded batch, whose outputs leave no gaps: every lane counts.
    pub(super) fn folded(self, tall: &ConvProblem, lanes: usize, most: usize) -> Self {
        let plan = Self {
            shifted: tall.kernel[1] > 1,
            align: 1,
            strip: usize::MAX,
            ..self
        };
        let outputs = Working::new(tall, &plan).vectors(lanes);
        let wanted = most.min(outputs).max(1);
        Self {
            // Tiles of nearly equal size.
            vectors: outputs.div_ceil(outputs.div_ceil(wanted).max(1)).max(1),
            ..plan
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_as_near_as_their_padding_allows() {
        let problem =
            |input: usize, kernel: usize| ConvProblem::new(4, [1, 1], [input; 2], [kernel; 2]);
        // Rows of padding serve the image above and the one below.
        assert_eq!(Fold::apart(&problem(7, 1)), 0);
        assert_eq!(Fold::apart(&problem(7, 3).with_padding([1, 1])), 1);
        assert_eq!(Fold::apart(&problem(7, 5).with_padding([2, 2])), 2);
        assert_eq!(
            Fold::apart(&problem(7, 3).with_padding([1, 1]).with_dilation([2, 2])),
            3
        );
        assert_eq!(
            Fold::apart(&problem(14, 3).with_padding([1, 1]).with_stride([2, 2])),
            1
        );
        assert_eq!(Fold::apart(&problem(14, 1).with_stride([2, 2])), 0);
        // Without padding every row that a kernel reads is an image's own.
        assert_eq!(Fold::apart(&problem(7, 3)), 2);
    }

    #[test]
    fn only_small_images_are_folded() {
        let of = |batch, size: usize, lanes| {
            Fold::of(
                &ConvProblem::new(batch, [8, 8], [size; 2], [1, 1]),
                None,
                lanes,
            )
        };
        assert_eq!(
            of(4, 7, 16),
            Some(Fold {
                images: 4,
                period: 8
            })
        );
        assert_eq!(
            of(4, 2, 16),
            Some(Fold {
                images: 4,
                period: 3
            })
        );
        assert_eq!(of(4, 2, 4), None, "two rows fill four lanes");
        assert_eq!(of(4, 4, 16), None);
        assert_eq!(of(4, 14, 16), None);
        assert_eq!(of(1, 7, 16), None);
        assert_eq!(of(9, 7, 16), None);
        // The input's period is kept, unless kernels would see other images.
        let problem = ConvProblem::new(2, [8, 8], [7, 7], [3, 3]).with_padding([1, 1]);
        let period = |given| Fold::of(&problem, Some(given), 16).map(|fold| fold.period);
        assert_eq!([9, 7].map(period), [Some(9), Some(8)]);
    }
}
