//! Sparse matrix times dense rows.

use rayon::prelude::*;

use super::{Entries, Finish, accumulate, stretch::SLACK};

/// Rows of `x` from which transposing them pays: each non-zero then serves a vector of them.
const TRANSPOSE_FROM: usize = 4;

/// `out[m,k] = act(bias[k] + residual[m,k] + sum_j v_j x[m, column_j])`, `entries` holding columns.
///
/// `x` is `[m, d_input]`, `out` `[m, rows]`; every element of `out` is written. A residual is images
/// of `rows` planes of one element.
///
/// # Panics
/// If a slice is too short or a column is not below `d_input`.
pub fn sparse_linear(
    x: &[f32],
    d_input: usize,
    entries: Entries<'_>,
    finish: Finish<'_>,
    out: &mut [f32],
) {
    let rows = entries.rows();
    if rows == 0 || out.is_empty() {
        return;
    }
    let m = out.len() / rows;
    if m < TRANSPOSE_FROM {
        for (index, out) in out.chunks_exact_mut(rows).enumerate() {
            few(
                &x[index * d_input..][..d_input],
                entries,
                finish,
                index,
                out,
            );
        }
    } else {
        many(x, d_input, entries, finish, m, out);
    }
}

/// One row of `x`: a gathered dot product per output, four sums at once to hide the latency.
fn few(x: &[f32], entries: Entries<'_>, finish: Finish<'_>, index: usize, out: &mut [f32]) {
    let per_row = (entries.values.len() / entries.rows()).max(1);
    out.par_iter_mut()
        .enumerate()
        .with_min_len((8192 / per_row).max(1))
        .for_each(|(k, out)| {
            let (values, columns) = entries.row(k);
            let (values4, values1) = values.as_chunks::<4>();
            let (columns4, columns1) = columns.as_chunks::<4>();
            let mut acc = [0.0f32; 4];
            for (values, columns) in values4.iter().zip(columns4) {
                for ((acc, value), &column) in acc.iter_mut().zip(values).zip(columns) {
                    *acc += value * x[column as usize];
                }
            }
            let mut sum = (acc[0] + acc[1]) + (acc[2] + acc[3]);
            for (value, &column) in values1.iter().zip(columns1) {
                sum += value * x[column as usize];
            }
            finish.store(&[sum], index, k, 0, core::slice::from_mut(out));
        });
}

/// Many rows of `x`: transposed, so that column `j` of all of them is one contiguous run.
fn many(
    x: &[f32],
    d_input: usize,
    entries: Entries<'_>,
    finish: Finish<'_>,
    m: usize,
    out: &mut [f32],
) {
    let rows = entries.rows();
    let run = m.next_multiple_of(16);
    let mut transposed = vec![0.0; d_input * run + SLACK];
    transposed[..d_input * run]
        .par_chunks_mut(run)
        .enumerate()
        .for_each(|(column, to)| {
            for (to, from) in to.iter_mut().zip(x[column..].iter().step_by(d_input)) {
                *to = *from;
            }
        });
    let offsets: Vec<i32> = entries
        .offsets
        .iter()
        .map(|&column| column * run as i32)
        .collect();
    let entries = Entries {
        offsets: &offsets,
        ..entries
    };
    let arch = accumulate::arch();
    let mut sums = vec![0.0; rows * run];
    sums.par_chunks_exact_mut(run)
        .enumerate()
        .for_each(|(row, sums)| {
            arch.dispatch(accumulate::Row {
                entries,
                row,
                input: &transposed,
                sums,
            });
        });
    out.par_chunks_exact_mut(rows)
        .enumerate()
        .for_each(|(index, out)| {
            for (k, out) in out.iter_mut().enumerate() {
                let sum = sums[k * run + index];
                finish.store(&[sum], index, k, 0, core::slice::from_mut(out));
            }
        });
}
