//! Sparse matrix times dense rows.

use super::{Buffer, Entries, Finish, Isa, Residual, accumulate, stretch::SLACK, team, threads};

/// Rows of `x` from which transposing them pays: each non-zero then serves a vector of them.
const TRANSPOSE_FROM: usize = 4;

/// Multiplications that one task should at least have.
const TASK: usize = 1 << 17;

/// Rows of `x` that one vector of any instruction set holds: what transposed rows are filled up to,
/// and as many floats as a cache line.
const RUN: usize = 16;

/// `out[m,k] = act(bias[k] + residual[m,k] + sum_j v_j x[m, column_j])`, `entries` holding columns.
///
/// `x` is `[m, d_input]`, `out` `[m, rows]`; every element of `out` is written. A residual is images
/// of `rows` planes of one element. For one to three rows of `x`, [`Bundles`](super::Bundles) are
/// faster.
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
    team::chunks(out, 1, (8192 / per_row).max(1), |k, out| {
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
        finish.store(&[sum], index, k, 0, out);
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
    let run = m.next_multiple_of(RUN);
    let tasks = (entries.values.len() * run / TASK).clamp(1, threads());
    let mut transposed = Buffer::new(d_input * run + SLACK);
    transposed[d_input * run..].fill(0.0);
    spread(
        &mut transposed[..d_input * run],
        run,
        tasks,
        |column, to| {
            let from = x[column..].iter().step_by(d_input);
            to[m..].fill(0.0);
            for (to, from) in to[..m].iter_mut().zip(from) {
                *to = *from;
            }
        },
    );
    let isa = Isa::current();
    let mut sums = Buffer::new(rows * run);
    spread(&mut sums, run, tasks, |row, sums| {
        isa.dispatch(accumulate::Row {
            entries,
            row,
            input: &transposed,
            distance: run,
            sums,
        });
    });
    // A line of sums holds an output of sixteen rows: they are written side by side.
    spread(out, RUN * rows, tasks, |lines, out| {
        for k in 0..rows {
            let bias = finish.bias.map_or(0.0, |bias| bias[k]);
            let sums = &sums[k * run + lines * RUN..][..RUN];
            for (i, (out, sum)) in out.chunks_exact_mut(rows).zip(sums).enumerate() {
                let mut y = sum + bias;
                match &finish.residual {
                    Residual::Images(residual) => y += residual.plane(lines * RUN + i, k)[0],
                    Residual::Output => y += out[k],
                    Residual::None => {}
                }
                // A comparison lets NaN through, as the dense activation does.
                out[k] = if finish.relu && y < 0.0 { 0.0 } else { y };
            }
        }
    });
}

/// Calls `work` with each piece of `len` elements (the last may be shorter) and its number, on this
/// thread if there is no more than one task: waking another takes longer than a small matrix.
fn spread(data: &mut [f32], len: usize, tasks: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    if tasks == 1 {
        let pieces = data.chunks_mut(len).enumerate();
        pieces.for_each(|(piece, data)| work(piece, data));
        return;
    }
    let least = data.len().div_ceil(4 * tasks * len);
    team::chunks(data, len, least, work);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        catalogue,
        cpu::Images,
        format::Csr,
        reference::{self, error_bound},
    };

    fn check([m, d_input, rows]: [usize; 3], density: f64) {
        let weight = catalogue::weight(rows * d_input, density, 1);
        let csr = Csr::from_dense(&weight, [rows, d_input]).unwrap();
        let signed = |indices: &[u32]| indices.iter().map(|&i| i as i32).collect::<Vec<_>>();
        let (columns, row_ptr) = (signed(csr.columns()), signed(csr.row_ptr()));
        let entries = Entries {
            values: csr.values(),
            offsets: &columns,
            row_ptr: &row_ptr,
        };
        let (x, bias) = (
            catalogue::values(m * d_input, 2),
            catalogue::values(rows, 3),
        );
        let more = catalogue::values(m * rows, 4);
        let sums = reference::linear(&x, &weight, Some(&bias), d_input);
        let terms = d_input + 2;
        let bound = error_bound(terms, terms as f64, f64::from(f32::EPSILON));
        let residuals = [
            Residual::None,
            Residual::Output,
            Residual::Images(Images::contiguous(&more, [rows, 1])),
        ];
        for residual in residuals {
            for relu in [false, true] {
                let add = if let Residual::None = residual {
                    0.0
                } else {
                    1.0
                };
                let finish = Finish {
                    bias: Some(&bias),
                    residual,
                    relu,
                };
                let mut out = match residual {
                    Residual::Output => more.clone(),
                    _ => vec![f32::NAN; m * rows],
                };
                sparse_linear(&x, d_input, entries, finish, &mut out);
                for ((&y, sum), &more) in out.iter().zip(&sums).zip(&more) {
                    let expected = sum + add * f64::from(more);
                    let expected = if relu { expected.max(0.0) } else { expected };
                    let name = format!("{m} by {d_input} by {rows}, {density}");
                    assert!((f64::from(y) - expected).abs() <= bound, "{name}");
                }
            }
        }
    }

    #[test]
    fn rows_of_any_number_match_the_reference() {
        for m in [1, 3, 4, 15, 16, 17, 33] {
            for (d_input, rows) in [(1, 1), (5, 3), (31, 17), (64, 100)] {
                for density in [0.0, 0.1, 0.6, 1.0] {
                    check([m, d_input, rows], density);
                }
            }
        }
    }

    #[test]
    fn work_for_several_threads_matches_the_reference() {
        check([100, 301, 303], 0.2);
        check([5, 700, 501], 0.3);
    }
}
