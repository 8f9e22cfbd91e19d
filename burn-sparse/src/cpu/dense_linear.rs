//! One row times a dense matrix: as fast as the matrix comes from memory.

use pulp::{Simd, WithSimd};

use super::{Buffer, Isa, team, threads};

/// Weights that one task should at least read.
const TASK: usize = 1 << 17;

/// `out[k] = bias[k] + sum_i x[i] w[i, k]` for a row-major `weight` of `x.len()` rows.
///
/// The rows of the matrix are read once, in order. Sums are f32; tasks share the rows, and their
/// sums are added in the order of the rows.
///
/// # Panics
/// If the weight or the bias has another size.
pub fn dense_linear_row(x: &[f32], weight: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
    let len = out.len();
    assert_eq!(
        weight.len(),
        x.len() * len,
        "a weight of {} by {len}",
        x.len()
    );
    match bias {
        Some(bias) => out.copy_from_slice(bias),
        None => out.fill(0.0),
    }
    if weight.is_empty() {
        return;
    }
    let isa = Isa::current();
    let tasks = (weight.len() / TASK).clamp(1, threads());
    if tasks == 1 {
        isa.dispatch(Row {
            x,
            weight,
            sums: out,
        });
        return;
    }
    let part = x.len().div_ceil(tasks);
    let mut sums = Buffer::new(tasks * len);
    sums.fill(0.0);
    let shares = x.chunks(part).zip(weight.chunks(part * len));
    team::for_each(
        sums.chunks_exact_mut(len).zip(shares),
        |(sums, (x, weight))| isa.dispatch(Row { x, weight, sums }),
    );
    for sums in sums.chunks_exact(len) {
        for (out, &sum) in out.iter_mut().zip(sums) {
            *out += sum;
        }
    }
}

/// `sums[k] += sum_i x[i] w[i, k]`.
struct Row<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    sums: &'a mut [f32],
}

impl WithSimd for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let len = self.sums.len();
        // Four rows for each time that the sums are loaded and stored.
        let (quads, rest) = self.x.as_chunks::<4>();
        for (i, x) in quads.iter().enumerate() {
            let rows: [&[f32]; 4] =
                core::array::from_fn(|r| &self.weight[(4 * i + r) * len..][..len]);
            add(simd, x, rows, self.sums);
        }
        for (i, &x) in rest.iter().enumerate() {
            let row = &self.weight[(4 * quads.len() + i) * len..][..len];
            add(simd, &[x], [row], self.sums);
        }
    }
}

#[inline(always)]
fn add<S: Simd, const R: usize>(simd: S, x: &[f32; R], rows: [&[f32]; R], sums: &mut [f32]) {
    let splat = x.map(|x| simd.splat_f32s(x));
    let rows = rows.map(S::as_simd_f32s);
    let (sums, sums_rest) = S::as_mut_simd_f32s(sums);
    for (j, sum) in sums.iter_mut().enumerate() {
        for r in 0..R {
            *sum = simd.mul_add_e_f32s(splat[r], rows[r].0[j], *sum);
        }
    }
    for (j, sum) in sums_rest.iter_mut().enumerate() {
        for r in 0..R {
            *sum += x[r] * rows[r].1[j];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        catalogue,
        reference::{self, error_bound},
    };

    #[test]
    fn rows_of_any_length_match_the_reference() {
        for (d_input, d_output) in [(1, 1), (3, 5), (67, 33), (4, 16), (512, 1000), (1000, 0)] {
            let x = catalogue::values(d_input, 1);
            let weight = catalogue::values(d_input * d_output, 2);
            let bias = catalogue::values(d_output, 3);
            let transposed: Vec<f32> = (0..d_output * d_input)
                .map(|at| weight[at % d_input * d_output + at / d_input])
                .collect();
            let expected = reference::linear(&x, &transposed, Some(&bias), d_input);
            let mut out = vec![f32::NAN; d_output];
            dense_linear_row(&x, &weight, Some(&bias), &mut out);
            let bound = error_bound(d_input + 1, d_input as f64 + 1.0, f64::from(f32::EPSILON));
            for (y, e) in out.iter().zip(&expected) {
                assert!((f64::from(*y) - e).abs() <= bound, "{d_input} {d_output}");
            }
        }
    }
}
