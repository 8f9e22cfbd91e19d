//! Convolutions.

use super::{DEPTH, InputScale, Int8Weight, ROWS, dot, linear::tasks, tile::Tiles};
use crate::{
    ConvProblem,
    cpu::{Isa, RowFinish, team},
};

/// `out[n,k,e,f] = act(bias[k] + residual[n,k,e,f] + sum_{c,r,s} w[k,c,r,s] x[n,c,..])` with weights and
/// inputs in 8 bits; shapes are those of `problem`.
///
/// The input is turned into bytes once, channels last, with its padding; four channels of a pixel are
/// then neighbours for every kernel position, and no input is copied once more (no `im2col`). Inputs
/// outside of the range of `scale` are cut off.
///
/// # Panics
/// If the problem is none, `weight` is not its weight, or a slice has another length.
pub fn int8_conv(
    input: &[f32],
    weight: &Int8Weight,
    scale: InputScale,
    problem: &ConvProblem,
    finish: RowFinish<'_>,
    out: &mut [f32],
) {
    run(Isa::current(), input, weight, scale, problem, finish, out);
}

/// As [`int8_conv`], on an instruction set.
pub(super) fn run(
    isa: Isa,
    input: &[f32],
    weight: &Int8Weight,
    scale: InputScale,
    problem: &ConvProblem,
    finish: RowFinish<'_>,
    out: &mut [f32],
) {
    problem
        .check()
        .unwrap_or_else(|error| panic!("int8_conv: {error}"));
    let [rows, channels, height, width] = problem.weight_shape();
    let groups = problem.groups;
    assert!(
        weight.rows() == rows
            && weight.inputs() == [channels, height * width]
            && weight.groups() == groups,
        "int8_conv: a weight of {} rows of {:?} in {} groups is not {:?} in {groups}",
        weight.rows(),
        weight.inputs(),
        weight.groups(),
        problem.weight_shape(),
    );
    let [inputs, outputs] = [problem.input_shape(), problem.output_shape()];
    let lens = [inputs, outputs].map(|shape| shape.iter().product::<usize>());
    assert!(
        [input.len(), out.len()] == lens
            && finish.bias.is_none_or(|bias| bias.len() == rows)
            && finish.residual.is_none_or(|more| more.len() == lens[1]),
        "int8_conv: input, output, bias and residual of {:?} for {inputs:?} and {outputs:?}",
        [
            Some(input.len()),
            Some(out.len()),
            finish.bias.map(<[f32]>::len),
            finish.residual.map(<[f32]>::len)
        ],
    );
    if out.is_empty() {
        return;
    }
    let filled = weight.filled();
    let pixel = groups * filled;
    let [padded_height, padded_width] = problem.padded();
    let bytes = padded_height * padded_width * pixel;
    assert!(
        u32::try_from(bytes).is_ok(),
        "int8_conv: an image of {bytes} bytes; split it into pieces of less than 4 GiB"
    );
    let at = |y: usize, x: usize| ((y * padded_width + x) * pixel) as u32;
    let [out_height, out_width] = problem.output();
    let bases: Vec<u32> = (0..out_height * out_width)
        .map(|p| {
            let (e, f) = (p / out_width, p % out_width);
            at(e * problem.stride[0], f * problem.stride[1])
        })
        .collect();
    let taps: Vec<u32> = (0..height * width)
        .flat_map(|position| {
            let (r, s) = (position / width, position % width);
            let tap = at(r * problem.dilation[0], s * problem.dilation[1]);
            (0..filled).step_by(DEPTH).map(move |c| tap + c as u32)
        })
        .collect();
    let (plane, group_rows) = (bases.len(), rows / groups);
    let mut image = vec![scale.zero(); bytes];
    for n in 0..problem.batch {
        let input = &input[n * lens[0] / problem.batch..][..lens[0] / problem.batch];
        to_bytes(input, scale, problem, filled, &mut image);
        for group in 0..groups {
            let first = (n * rows + group * group_rows) * plane;
            let of_group = &mut out[first..][..group_rows * plane];
            let taps: Vec<u32> = taps
                .iter()
                .map(|tap| tap + (group * filled) as u32)
                .collect();
            tasks(
                group_rows,
                plane * weight.row_len(),
                of_group,
                |block, out| {
                    let residual = finish.residual.map(|residual| {
                        let first = first + block * ROWS * plane;
                        &residual[first..][..out.len()]
                    });
                    let tiles = Tiles {
                        weight,
                        scale,
                        group,
                        block,
                        x: &image,
                        bases: &bases,
                        taps: &taps,
                        finish: RowFinish { residual, ..finish },
                        out,
                    };
                    dot::dispatch(isa, tiles);
                },
            );
        }
    }
}

/// Fills in the pixels of an image, channels last; its padding stays what it is.
fn to_bytes(
    input: &[f32],
    scale: InputScale,
    problem: &ConvProblem,
    filled: usize,
    image: &mut [u8],
) {
    let [height, width] = problem.input;
    let [top, left] = [problem.padding[0][0], problem.padding[1][0]];
    let padded_width = problem.padded()[1];
    let of_group = problem.in_channels / problem.groups;
    let pixel = filled * problem.groups;
    if input.is_empty() || pixel == 0 {
        return;
    }
    let row = padded_width * pixel;
    let rows = &mut image[top * row..(top + height) * row];
    team::chunks(rows, row, 1, |y, image| {
        let image = &mut image[left * pixel..][..width * pixel];
        // Four channels at a time; those that fill a group up repeat the last, beside zero weights.
        let mut lines = vec![0; DEPTH * width];
        for group in 0..problem.groups {
            for first in (0..of_group).step_by(DEPTH) {
                for (i, line) in lines.chunks_exact_mut(width).enumerate() {
                    let channel = group * of_group + (first + i).min(of_group - 1);
                    let input = &input[(channel * height + y) * width..][..width];
                    scale.quantise(input, line);
                }
                let to = group * filled + first;
                for (x, pixel) in image.chunks_exact_mut(pixel).enumerate() {
                    let four = core::array::from_fn::<u8, DEPTH, _>(|i| lines[i * width + x]);
                    pixel[to..to + DEPTH].copy_from_slice(&four);
                }
            }
        }
    });
}
