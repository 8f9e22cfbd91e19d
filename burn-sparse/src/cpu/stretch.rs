//! Copies images into the stretched layout and back.

use super::team;
use crate::ConvProblem;

/// Elements past the end of the last image that vector loads may touch.
pub(crate) const SLACK: usize = 32;

/// The stretched form of a batch (see [`Stretched`](crate::problem::Stretched)):
/// `[batch, in_channels, phases, rows, cols]`, zero where padded, with a few zeros at
/// the end that vector loads may touch.
pub fn stretch(input: &[f32], problem: &ConvProblem) -> Vec<f32> {
    let layout = problem.stretched();
    let [height, width] = problem.input;
    let image = problem.in_channels * layout.channel_stride();
    let mut out = vec![0.0; problem.batch * image + SLACK];
    let channels = problem.batch * problem.in_channels;
    if height * width == 0 || channels == 0 || layout.channel_stride() == 0 {
        return out;
    }
    let [top, left] = [problem.padding[0][0], problem.padding[1][0]];
    let stride = problem.stride;
    let len = layout.channel_stride();
    let least = (4096 / len).max(1);
    team::chunks(&mut out[..channels * len], len, least, |index, out| {
        let plane = &input[index * height * width..][..height * width];
        for (y, row) in plane.chunks_exact(width).enumerate() {
            let Some(start) = layout.position(y + top, 0) else {
                continue;
            };
            if stride[1] == 1 {
                out[start + left..][..width].copy_from_slice(row);
                continue;
            }
            for (x, &value) in row.iter().enumerate() {
                if let Some(at) = layout.position(y + top, x + left) {
                    out[at] = value;
                }
            }
        }
    });
    out
}

/// The inverse of [`stretch`] for one channel: what lies in `stretched` at each input pixel, zero
/// for pixels that no weight reads.
pub fn unstretch(stretched: &[f32], problem: &ConvProblem, plane: &mut [f32]) {
    let layout = problem.stretched();
    let [top, left] = [problem.padding[0][0], problem.padding[1][0]];
    for (y, row) in plane.chunks_exact_mut(problem.input[1].max(1)).enumerate() {
        for (x, out) in row.iter_mut().enumerate() {
            *out = layout
                .position(y + top, x + left)
                .map_or(0.0, |at| stretched[at]);
        }
    }
}
