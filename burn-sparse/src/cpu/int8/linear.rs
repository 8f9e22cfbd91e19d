//! Linear layers.

use super::{DEPTH, InputScale, Int8Weight, ROWS, dot, tile::Tiles};
use crate::cpu::{Buffer, Isa, RowFinish, team, threads};

/// Multiplications that one task should at least have.
const TASK: usize = 1 << 18;

/// Blocks of rows that an instruction set with many registers computes at once.
const BLOCKS: usize = 4;

/// `out[m, k] = act(bias[k] + residual[m, k] + sum_j w[k, j] x[m, j])` with weights and inputs in 8
/// bits: `x` is `[m, inputs]`, `out` and a residual `[m, rows]`.
///
/// Inputs outside of the range of `scale` are cut off. The sums are exact; the result differs from that
/// of floats by at most half a step for each input and half a scale for each weight.
///
/// # Panics
/// If `weight` has groups or kernel positions, or a slice another length than it asks for.
pub fn int8_linear(
    x: &[f32],
    weight: &Int8Weight,
    scale: InputScale,
    finish: RowFinish<'_>,
    out: &mut [f32],
) {
    run(Isa::current(), x, weight, scale, finish, out);
}

/// As [`int8_linear`], on an instruction set.
pub(super) fn run(
    isa: Isa,
    x: &[f32],
    weight: &Int8Weight,
    scale: InputScale,
    finish: RowFinish<'_>,
    out: &mut [f32],
) {
    let (rows, [len, positions]) = (weight.rows(), weight.inputs());
    assert!(
        weight.groups() == 1 && positions == 1,
        "int8_linear: a weight of {} groups and {positions} positions is that of a convolution",
        weight.groups()
    );
    let m = out.len().checked_div(rows).unwrap_or(0);
    let fits = |slice: Option<&[f32]>, len: usize| slice.is_none_or(|slice| slice.len() == len);
    assert!(
        out.len() == m * rows
            && (x.len() == m * len || rows == 0)
            && fits(finish.bias, rows)
            && fits(finish.residual, m * rows),
        "int8_linear: {rows} rows of {len} for {} inputs and {} outputs, bias {:?}, residual {:?}",
        x.len(),
        out.len(),
        finish.bias.map(<[f32]>::len),
        finish.residual.map(<[f32]>::len),
    );
    if out.is_empty() {
        return;
    }
    let filled = weight.filled();
    let size = m * filled;
    assert!(
        u32::try_from(size).is_ok(),
        "int8_linear: {m} inputs of {size} bytes; split them into pieces of less than 4 GiB"
    );
    // Zero weights stand beside what fills inputs up.
    let mut bytes = vec![0u8; m * filled];
    if len > 0 {
        for (bytes, x) in bytes.chunks_exact_mut(filled).zip(x.chunks_exact(len)) {
            scale.quantise(x, &mut bytes[..len]);
        }
    }
    let bases: Vec<u32> = (0..m).map(|m| (m * filled) as u32).collect();
    let taps: Vec<u32> = (0..filled).step_by(DEPTH).map(|at| at as u32).collect();
    if m == 1 {
        let finish = &finish;
        tasks(rows, m * len, out, |first, out| {
            let residual = finish.residual.map(|r| &r[first * ROWS..][..out.len()]);
            let tiles = Tiles {
                weight,
                scale,
                group: 0,
                block: first,
                x: &bytes,
                bases: &bases,
                taps: &taps,
                finish: RowFinish {
                    residual,
                    ..*finish
                },
                out,
            };
            dot::dispatch(isa, tiles);
        });
        return;
    }
    // Channel by channel, then turned round, with what else is added to it.
    let mut planes = Buffer::new(m * rows);
    let sums = RowFinish {
        bias: finish.bias,
        ..RowFinish::default()
    };
    tasks(rows, m * len, &mut planes, |first, out| {
        let tiles = Tiles {
            weight,
            scale,
            group: 0,
            block: first,
            x: &bytes,
            bases: &bases,
            taps: &taps,
            finish: sums,
            out,
        };
        dot::dispatch(isa, tiles);
    });
    for (i, out) in out.chunks_exact_mut(rows).enumerate() {
        for (k, out) in out.iter_mut().enumerate() {
            let mut y = planes[k * m + i];
            if let Some(residual) = finish.residual {
                y += residual[i * rows + k];
            }
            *out = if finish.relu && y < 0.0 { 0.0 } else { y };
        }
    }
}

/// Calls `work` with the first block and the outputs of each task; a row takes `per_row`
/// multiplications.
pub(super) fn tasks(
    rows: usize,
    per_row: usize,
    out: &mut [f32],
    work: impl Fn(usize, &mut [f32]) + Sync,
) {
    let blocks = rows.div_ceil(ROWS);
    let tasks = (rows * per_row / TASK).clamp(1, threads()).min(blocks);
    if tasks <= 1 {
        return work(0, out);
    }
    // Whole sets of blocks, if there are enough of them.
    let mut per_task = blocks.div_ceil(tasks);
    if per_task > BLOCKS {
        per_task = per_task.next_multiple_of(BLOCKS).min(blocks);
    }
    let outputs = out.len() / rows;
    team::chunks(out, per_task * ROWS * outputs, 1, |task, out| {
        work(task * per_task, out);
    });
}
