//! The loops over the layouts.

use core::ops::Range;

use pulp::{Simd, WithSimd};

use super::{BUNDLE, Bundles, RowFinish, Values, coded::Coded, order::Layout, panels::PanelSums};

/// Columns at a time, with sums of their own: an addition waits for the one before it for as long
/// as four others take.
const AT_ONCE: usize = 4;

impl Bundles {
    /// The rows of `out`, beginning with those of part `first` of the order.
    pub(super) fn part(&self, x: &[f32], first: usize, finish: RowFinish<'_>, out: &mut [f32]) {
        let values = match &self.values {
            Values::Floats(values) => values,
            Values::Codes(codes) => {
                return Coded {
                    order: self.order(),
                    codes,
                    x,
                    first,
                    finish,
                    out,
                }
                .run();
            }
        };
        let isa = self.order().isa();
        match &self.order().layout {
            Layout::Shared { starts, columns } => isa.dispatch(Shared {
                starts,
                columns,
                values,
                x,
                first,
                finish,
                out,
            }),
            Layout::Panels(panels) => isa.dispatch(PanelSums {
                panels,
                values,
                x,
                first,
                finish,
                out,
            }),
            Layout::Rows { starts, columns } => isa.dispatch(Scalars {
                starts,
                columns,
                values,
                x,
                first: first * BUNDLE,
                finish,
                out,
            }),
            #[cfg(target_arch = "x86_64")]
            Layout::Windows {
                lanes,
                starts,
                firsts,
                picks,
            } => super::lookup::Windows {
                first: first * BUNDLE / lanes,
                starts,
                firsts,
                picks,
                values,
                x,
                finish,
                out,
            }
            .run(isa),
            #[cfg(not(target_arch = "x86_64"))]
            Layout::Windows { .. } => unreachable!("windows are of x86-64"),
        }
    }
}

impl RowFinish<'_> {
    /// Stores the sums of neighbouring rows, of which the first is row `row` of the matrix.
    #[inline(always)]
    pub(super) fn store(&self, sums: &[f32], row: usize, out: &mut [f32]) {
        let rows = row..row + out.len();
        out.copy_from_slice(&sums[..out.len()]);
        for more in [self.bias, self.residual].into_iter().flatten() {
            for (y, &more) in out.iter_mut().zip(&more[rows.clone()]) {
                *y += more;
            }
        }
        if self.relu {
            // A comparison lets NaN through, as the dense activation does.
            for y in out {
                *y = if *y < 0.0 { 0.0 } else { *y };
            }
        }
    }
}

fn range(starts: &[u32], index: usize) -> Range<usize> {
    starts[index] as usize..starts[index + 1] as usize
}

/// Bundles whose rows share their columns.
struct Shared<'a> {
    starts: &'a [u32],
    columns: &'a [u32],
    values: &'a [f32],
    x: &'a [f32],
    first: usize,
    finish: RowFinish<'a>,
    out: &'a mut [f32],
}

impl WithSimd for Shared<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match BUNDLE / S::F32_LANES {
            1 => self.run::<S, 1>(simd),
            2 => self.run::<S, 2>(simd),
            4 => self.run::<S, 4>(simd),
            _ => unreachable!("registers of four to sixteen lanes"),
        }
    }
}

impl Shared<'_> {
    #[inline(always)]
    fn run<S: Simd, const V: usize>(self, simd: S) {
        for (at, out) in self.out.chunks_mut(BUNDLE).enumerate() {
            let bundle = self.first + at;
            let range = range(self.starts, bundle);
            let columns = &self.columns[range.clone()];
            let values = &self.values[range.start * BUNDLE..range.end * BUNDLE];
            let sums = columns_sum(Register::<S, V>(simd), columns, values, self.x);
            self.finish.store(&sums, bundle * BUNDLE, out);
        }
    }
}

/// A vector unit of which `V` registers make a bundle.
pub(super) struct Register<S, const V: usize>(pub(super) S);

/// The sums of the rows of a bundle over the columns that they share.
#[inline(always)]
pub(super) fn columns_sum<S: Simd, const V: usize>(
    Register(simd): Register<S, V>,
    columns: &[u32],
    values: &[f32],
    x: &[f32],
) -> [f32; BUNDLE] {
    let mut acc = [[simd.splat_f32s(0.0); V]; AT_ONCE];
    let (columns4, columns1) = columns.as_chunks::<AT_ONCE>();
    let (values4, values1) = values.split_at(columns4.len() * AT_ONCE * BUNDLE);
    for (columns, values) in columns4.iter().zip(values4.chunks_exact(AT_ONCE * BUNDLE)) {
        for (i, acc) in acc.iter_mut().enumerate() {
            let values = &values[i * BUNDLE..][..BUNDLE];
            add(simd, acc, x[columns[i] as usize], values);
        }
    }
    for (&column, values) in columns1.iter().zip(values1.chunks_exact(BUNDLE)) {
        add(simd, &mut acc[0], x[column as usize], values);
    }
    let mut sums = [0.0; BUNDLE];
    let (lines, _) = S::as_mut_simd_f32s(&mut sums);
    for (v, line) in lines.iter_mut().enumerate() {
        let [a, b, c, d] = acc.map(|acc| acc[v]);
        *line = simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d));
    }
    sums
}

#[inline(always)]
fn add<S: Simd, const V: usize>(simd: S, acc: &mut [S::f32s; V], x: f32, values: &[f32]) {
    let x = simd.splat_f32s(x);
    let (values, _) = S::as_simd_f32s(values);
    for (acc, &value) in acc.iter_mut().zip(values) {
        *acc = simd.mul_add_e_f32s(x, value, *acc);
    }
}

/// Rows one after the other, entry by entry.
struct Scalars<'a> {
    starts: &'a [u32],
    columns: &'a [u32],
    values: &'a [f32],
    x: &'a [f32],
    first: usize,
    finish: RowFinish<'a>,
    out: &'a mut [f32],
}

impl WithSimd for Scalars<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (at, out) in self.out.iter_mut().enumerate() {
            let row = self.first + at;
            let range = range(self.starts, row);
            let (columns, values) = (&self.columns[range.clone()], &self.values[range]);
            let (columns4, columns1) = columns.as_chunks::<AT_ONCE>();
            let (values4, values1) = values.as_chunks::<AT_ONCE>();
            let mut acc = [0.0; AT_ONCE];
            for (columns, values) in columns4.iter().zip(values4) {
                for i in 0..AT_ONCE {
                    acc[i] += values[i] * self.x[columns[i] as usize];
                }
            }
            for (&column, value) in columns1.iter().zip(values1) {
                acc[0] += value * self.x[column as usize];
            }
            let sum = (acc[0] + acc[1]) + (acc[2] + acc[3]);
            self.finish.store(&[sum], row, core::slice::from_mut(out));
        }
    }
}
