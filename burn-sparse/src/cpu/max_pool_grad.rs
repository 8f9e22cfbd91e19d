//! Gradient of the maximum over windows.

use pulp::{Simd, WithSimd};

use super::{
    Isa,
    max_pool::{TASK, larger},
    team,
};
use crate::ConvProblem;

/// Gradient of [`max_pool`](super::max_pool()) for its input: of each window, the first of its largest
/// elements gets what the output got; the last NaN where there is one. Contiguous tensors.
///
/// # Panics
/// If `input` or `grad` are not as long as `problem` says.
#[must_use]
pub fn max_pool_grad(input: &[f32], grad: &[f32], problem: &ConvProblem) -> Vec<f32> {
    let plane = problem.input[0] * problem.input[1];
    let pixels: usize = problem.output().iter().product();
    let planes = problem.batch * problem.in_channels;
    let (inputs, grads) = (planes * plane, planes * pixels);
    assert!(
        input.len() == inputs && grad.len() == grads,
        "{} inputs and {} gradients, not {inputs} and {grads}",
        input.len(),
        grad.len()
    );
    let mut out = vec![0.0; inputs];
    if inputs == 0 || grads == 0 {
        return out;
    }
    let isa = Isa::current();
    let pairs = problem.kernel == [2, 2]
        && problem.stride == [2, 2]
        && problem.dilation == [1, 1]
        && problem.padding == [[0, 0], [0, 0]];
    team::chunks(&mut out, plane, TASK.div_ceil(plane), |index, out| {
        let input = &input[index * plane..][..plane];
        let grad = &grad[index * pixels..][..pixels];
        match pairs {
            true => isa.dispatch(Pairs {
                input,
                grad,
                width: problem.input[1],
                out,
            }),
            false => windows(input, grad, problem, out),
        }
    });
    out
}

/// One channel, any window.
fn windows(input: &[f32], grad: &[f32], problem: &ConvProblem, out: &mut [f32]) {
    let [height, width] = problem.input;
    let [_, out_width] = problem.output();
    for (at, &grad) in grad.iter().enumerate() {
        let (e, f) = (at / out_width, at % out_width);
        let mut best: Option<usize> = None;
        for r in 0..problem.kernel[0] {
            let y = e * problem.stride[0] + r * problem.dilation[0];
            let y = y.wrapping_sub(problem.padding[0][0]);
            for s in 0..problem.kernel[1] {
                let x = f * problem.stride[1] + s * problem.dilation[1];
                let x = x.wrapping_sub(problem.padding[1][0]);
                if y < height && x < width {
                    let here = y * width + x;
                    if best.is_none_or(|best| larger(input[here], input[best])) {
                        best = Some(here);
                    }
                }
            }
        }
        if let Some(best) = best {
            out[best] += grad;
        }
    }
}

/// One channel in squares of two by two, side by side.
struct Pairs<'a> {
    input: &'a [f32],
    grad: &'a [f32],
    width: usize,
    out: &'a mut [f32],
}

impl WithSimd for Pairs<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self {
            input,
            grad,
            width,
            out,
        } = self;
        let rows = input.chunks_exact(2 * width);
        let rows = rows.zip(out.chunks_exact_mut(2 * width));
        for ((input, out), grad) in rows.zip(grad.chunks_exact(width / 2)) {
            let (above, below) = input.split_at(width);
            let (out_above, out_below) = out.split_at_mut(width);
            let above = above.as_chunks::<2>().0.iter();
            let below = below.as_chunks::<2>().0.iter();
            let out_above = out_above.as_chunks_mut::<2>().0.iter_mut();
            let out_below = out_below.as_chunks_mut::<2>().0.iter_mut();
            let outs = out_above.zip(out_below);
            for (((above, below), (out_above, out_below)), &grad) in
                above.zip(below).zip(outs).zip(grad)
            {
                let (mut best, mut at) = (above[0], 0u32);
                for (i, x) in [(1, above[1]), (2, below[0]), (3, below[1])] {
                    let new = larger(x, best);
                    best = if new { x } else { best };
                    at = if new { i } else { at };
                }
                let part = |i: u32| if at == i { grad } else { 0.0 };
                *out_above = [part(0), part(1)];
                *out_below = [part(2), part(3)];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{self, AWKWARD};

    /// The definition: an element counts where it is the first that nothing in the window exceeds.
    fn naive(input: &[f32], grad: &[f32], problem: &ConvProblem) -> Vec<f32> {
        let [height, width] = problem.input;
        let [out_height, out_width] = problem.output();
        let mut out = vec![0.0; input.len()];
        for plane in 0..problem.batch * problem.in_channels {
            for (e, f) in (0..out_height).flat_map(|e| (0..out_width).map(move |f| (e, f))) {
                let mut seen = Vec::new();
                for r in 0..problem.kernel[0] {
                    for s in 0..problem.kernel[1] {
                        let y = (e * problem.stride[0] + r * problem.dilation[0]) as isize
                            - problem.padding[0][0] as isize;
                        let x = (f * problem.stride[1] + s * problem.dilation[1]) as isize
                            - problem.padding[1][0] as isize;
                        if (0..height as isize).contains(&y) && (0..width as isize).contains(&x) {
                            seen.push((plane * height + y as usize) * width + x as usize);
                        }
                    }
                }
                let nan = seen.iter().rev().find(|&&at| input[at].is_nan());
                let largest = seen
                    .iter()
                    .find(|&&at| seen.iter().all(|&other| input[other] <= input[at]));
                if let Some(&at) = nan.or(largest) {
                    out[at] += grad[(plane * out_height + e) * out_width + f];
                }
            }
        }
        out
    }

    fn check(problem: &ConvProblem, input: &[f32], what: &str) {
        let [height, width] = problem.output();
        let len = problem.batch * problem.in_channels * height * width;
        let grad = catalogue::values(len, 5);
        let got = max_pool_grad(input, &grad, problem);
        assert_eq!(got, naive(input, &grad, problem), "{what}");
    }

    #[test]
    fn windows_of_the_catalogue() {
        for case in AWKWARD {
            let len = case.problem.input_shape().iter().product();
            let input = catalogue::values(len, 3);
            check(&case.problem, &input, case.name);
            // Ties everywhere, and a NaN now and then.
            let mut coarse: Vec<f32> = input.iter().map(|x| x.signum()).collect();
            check(&case.problem, &coarse, case.name);
            coarse.iter_mut().step_by(7).for_each(|x| *x = f32::NAN);
            check(&case.problem, &coarse, case.name);
        }
    }

    #[test]
    fn squares_of_two_with_odd_edges() {
        for [height, width] in [[24, 24], [7, 9], [2, 2], [3, 2], [5, 33], [8, 8]] {
            let mut problem = ConvProblem::new(3, [5, 5], [height, width], [2, 2]);
            problem.stride = [2, 2];
            let len = problem.input_shape().iter().product();
            let mut input = catalogue::values(len, 9);
            check(&problem, &input, "values");
            input.iter_mut().for_each(|x| *x = x.max(0.0));
            check(&problem, &input, "after a ReLU");
            input.iter_mut().step_by(5).for_each(|x| *x = f32::NAN);
            check(&problem, &input, "with NaN");
        }
    }
}
