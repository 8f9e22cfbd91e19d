//! Dense convolution and its gradients by the direct kernels.

use crate::{
    ConvProblem,
    cpu::{Direct, Finish, Images, ImagesMut, Isa, direct},
};

fn plane([height, width]: [usize; 2]) -> usize {
    height * width
}

/// [`dense_conv`](super::dense_conv), unless the image is too large for the kernel's offsets.
pub(super) fn conv(
    input: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    problem: &ConvProblem,
    isa: Isa,
    out: &mut [f32],
) -> bool {
    let columns = problem.row_len();
    run(
        input,
        |row, column| weight[row * columns + column],
        bias,
        problem,
        isa,
        out,
    )
}

fn run(
    input: &[f32],
    weight: impl Fn(usize, usize) -> f32,
    bias: Option<&[f32]>,
    problem: &ConvProblem,
    isa: Isa,
    out: &mut [f32],
) -> bool {
    if plane(problem.output()) == 0 {
        return false;
    }
    let Ok(direct) = Direct::dense(problem, weight, isa) else {
        return false;
    };
    let finish = Finish {
        bias,
        ..Finish::default()
    };
    let input = Images::contiguous(input, [problem.in_channels, plane(problem.input)]);
    let out = ImagesMut::contiguous(out, [problem.out_channels, plane(problem.output())]);
    direct.run(problem.batch, input, finish, out);
    true
}

/// The convolution that gives the inputs their gradient: of the outputs' gradient, with the kernel turned
/// round and channels exchanged. None if the kernel skips inputs, or padding reaches beyond it.
pub(super) fn of_inputs(problem: &ConvProblem) -> Option<ConvProblem> {
    if problem.stride != [1, 1] {
        return None;
    }
    let mut padding = [[0; 2]; 2];
    for (axis, padding) in padding.iter_mut().enumerate() {
        let reach = problem.dilation[axis] * (problem.kernel[axis] - 1);
        for (side, padding) in padding.iter_mut().enumerate() {
            *padding = reach.checked_sub(problem.padding[axis][side])?;
        }
    }
    Some(ConvProblem {
        in_channels: problem.out_channels,
        out_channels: problem.in_channels,
        input: problem.output(),
        padding,
        ..*problem
    })
}

/// [`dense_conv_grad_input`](super::dense_conv_grad_input), where [a convolution](of_inputs) gives it.
pub(super) fn grad_input(
    grad: &[f32],
    weight: &[f32],
    problem: &ConvProblem,
    isa: Isa,
    out: &mut [f32],
) -> bool {
    let Some(turned) = of_inputs(problem) else {
        return false;
    };
    let taps = problem.kernel[0] * problem.kernel[1];
    let inputs = problem.in_channels / problem.groups;
    let outputs = problem.out_channels / problem.groups;
    let turned_weight = |channel: usize, column: usize| {
        let (group, channel) = (channel / inputs, channel % inputs);
        let (output, tap) = (group * outputs + column / taps, column % taps);
        weight[(output * inputs + channel) * taps + taps - 1 - tap]
    };
    run(grad, turned_weight, None, &turned, isa, out)
}

/// [`dense_conv_grad_weight`](super::dense_conv_grad_weight).
pub(super) fn grad_weight(
    input: &[f32],
    grad: &[f32],
    problem: &ConvProblem,
    isa: Isa,
    out: &mut [f32],
) {
    let input = Images::contiguous(input, [problem.in_channels, plane(problem.input)]);
    let grad = Images::contiguous(grad, [problem.out_channels, plane(problem.output())]);
    direct::grad_weight(input, grad, problem, isa, out);
}
