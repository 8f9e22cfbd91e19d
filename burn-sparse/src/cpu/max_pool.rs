//! Maximum over windows.

use pulp::{Simd, WithSimd};

use super::{Images, ImagesMut, Isa, team};
use crate::ConvProblem;

/// Input elements that one task should at least read or, of the gradient, write.
pub(super) const TASK: usize = 1 << 14;

/// `out[n,c,e,f] = max_{r,s} x[n,c,e*u+r*d,f*v+s*d]` over the elements of the window that exist;
/// negative infinity where none does, NaN where one is.
///
/// Channels, batch, window and strides are those of `problem`; its groups and output channels do
/// not matter.
///
/// # Panics
/// If a slice is shorter than its strides and the geometry say.
pub fn max_pool(input: Images<'_>, problem: &ConvProblem, out: ImagesMut<'_>) {
    let [height, width] = problem.output();
    let channels = problem.in_channels;
    let plane = problem.input[0] * problem.input[1];
    if problem.batch * channels * height * width == 0 {
        return;
    }
    input.check("input", [problem.batch, channels, plane]);
    let isa = Isa::current();
    let per_image = channels * out.channel_stride;
    let needed = (channels - 1) * out.channel_stride + height * width;
    let images = out.data.chunks_mut(out.batch_stride.max(per_image));
    let mut planes: Vec<_> = images
        .take(problem.batch)
        .flat_map(|image| {
            assert!(image.len() >= needed, "an output of {needed} elements");
            image.chunks_mut(out.channel_stride).take(channels)
        })
        .collect();
    let least = TASK.div_ceil(plane.max(1));
    team::chunks_init(&mut planes, 1, least, Vec::new, |row, index, out| {
        isa.dispatch(Plane {
            input: &input.plane(index / channels, index % channels)[..plane],
            problem,
            row,
            out: &mut out[0][..height * width],
        });
    });
}

/// One channel: the maximum of the window's rows first, whole rows at a time, then along the row.
struct Plane<'a> {
    input: &'a [f32],
    problem: &'a ConvProblem,
    /// The maximum over rows, with the padding left and right of it.
    row: &'a mut Vec<f32>,
    out: &'a mut [f32],
}

/// Whether an element takes the place of the largest so far: NaN wins, as in Burn and PyTorch.
#[inline(always)]
pub(super) fn larger(x: f32, best: f32) -> bool {
    x > best || x.is_nan()
}

#[inline(always)]
fn max(a: f32, b: f32) -> f32 {
    if larger(b, a) { b } else { a }
}

impl WithSimd for Plane<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self {
            input,
            problem,
            row,
            out,
        } = self;
        let [height, width] = problem.input;
        let [top, left] = [problem.padding[0][0], problem.padding[1][0]];
        let [u, v] = problem.stride;
        let [_, out_width] = problem.output();
        row.clear();
        row.resize(problem.padded()[1] + v, f32::NEG_INFINITY);
        for (e, out) in out.chunks_exact_mut(out_width).enumerate() {
            let middle = &mut row[left..left + width];
            middle.fill(f32::NEG_INFINITY);
            for r in 0..problem.kernel[0] {
                let y = (e * u + r * problem.dilation[0]).wrapping_sub(top);
                if y < height {
                    for (best, &x) in middle.iter_mut().zip(&input[y * width..][..width]) {
                        *best = max(*best, x);
                    }
                }
            }
            out.fill(f32::NEG_INFINITY);
            for s in 0..problem.kernel[1] {
                let seen = &row[s * problem.dilation[1]..];
                match v {
                    1 => {
                        for (best, &x) in out.iter_mut().zip(seen) {
                            *best = max(*best, x);
                        }
                    }
                    // Pairs are what the compiler vectorises; the row ends with one step to spare.
                    2 => {
                        for (best, pair) in out.iter_mut().zip(seen.as_chunks::<2>().0) {
                            *best = max(*best, pair[0]);
                        }
                    }
                    _ => {
                        for (best, &x) in out.iter_mut().zip(seen.iter().step_by(v)) {
                            *best = max(*best, x);
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{self, AWKWARD};

    /// The definition, element by element.
    fn naive(input: &[f32], problem: &ConvProblem) -> Vec<f32> {
        let [batch, channels, height, width] = problem.input_shape();
        let [out_height, out_width] = problem.output();
        let mut out = Vec::new();
        for plane in input.chunks(height * width).take(batch * channels) {
            for (e, f) in (0..out_height).flat_map(|e| (0..out_width).map(move |f| (e, f))) {
                let mut best = f32::NEG_INFINITY;
                for (r, s) in
                    (0..problem.kernel[0]).flat_map(|r| (0..problem.kernel[1]).map(move |s| (r, s)))
                {
                    let y = e * problem.stride[0] + r * problem.dilation[0];
                    let x = f * problem.stride[1] + s * problem.dilation[1];
                    let (y, x) = (
                        y.wrapping_sub(problem.padding[0][0]),
                        x.wrapping_sub(problem.padding[1][0]),
                    );
                    if y < height && x < width {
                        best = best.max(plane[y * width + x]);
                    }
                }
                out.push(best);
            }
        }
        out
    }

    #[test]
    fn windows_of_the_catalogue() {
        for case in AWKWARD {
            let problem = &case.problem;
            let len = problem.input_shape().iter().product();
            let input = catalogue::values(len, 3);
            let [height, width] = problem.output();
            let expected = naive(&input, problem);
            let mut out = vec![f32::NAN; expected.len()];
            let images = |[h, w]: [usize; 2]| [problem.in_channels, h * w];
            max_pool(
                Images::contiguous(&input, images(problem.input)),
                problem,
                ImagesMut::contiguous(&mut out, images([height, width])),
            );
            assert_eq!(out, expected, "{}", case.name);
        }
    }

    #[test]
    fn nan_wins_wherever_it_stands() {
        let problem = ConvProblem::new(1, [1, 1], [1, 5], [1, 3]);
        let input = [1.0, f32::NAN, 2.0, 5.0, 4.0];
        let mut out = [0.0; 3];
        max_pool(
            Images::contiguous(&input, [1, 5]),
            &problem,
            ImagesMut::contiguous(&mut out, [1, 3]),
        );
        assert!(out[0].is_nan() && out[1].is_nan());
        assert_eq!(out[2], 5.0);
    }
}
