//! Rows that share the columns of a block, wherever within a span of rows they stand.

use core::ops::Range;

use pulp::{Simd, WithSimd};

use super::{
    super::Rows,
    BUNDLE, RowFinish,
    kernel::{Register, columns_sum},
    order::{NONE, cost, per_column},
};
use crate::format::alike;

/// Neighbouring rows among which those that share are looked for, and whose sums are kept at hand.
pub(super) const SPAN: usize = 128;

/// Spans by which the width of blocks is chosen: patterns are the same all over a matrix.
const SAMPLE: usize = 4;

/// Adding the sums of a bundle to those of its rows, one by one.
const PER_BUNDLE: usize = cost(3 * BUNDLE, BUNDLE);

/// A matrix in bundles of up to sixteen rows of a span, which need not be neighbours, with the columns
/// that they share in a block of columns.
#[derive(Debug, Default)]
pub(super) struct Panels {
    /// Span `s` has the bundles `starts[s]..starts[s + 1]`.
    starts: Vec<u32>,
    /// Bundle `b` has the columns `column_ptr[b]..column_ptr[b + 1]`, sixteen slots each.
    column_ptr: Vec<u32>,
    columns: Vec<u32>,
    /// Sixteen for each bundle, counted from the start of the span; [`SPAN`] for a lane without a row.
    rows: Vec<u8>,
}

impl Panels {
    /// Where the columns of each bundle start.
    pub(super) fn column_ptr(&self) -> &[u32] {
        &self.column_ptr
    }

    /// The bundles of a span.
    pub(super) fn bundles(&self, span: usize) -> Range<usize> {
        self.starts[span] as usize..self.starts[span + 1] as usize
    }

    /// The columns of a bundle.
    pub(super) fn columns(&self, bundle: usize) -> &[u32] {
        &self.columns[self.column_ptr[bundle] as usize..self.column_ptr[bundle + 1] as usize]
    }

    /// The rows of a bundle, counted from the start of the span.
    pub(super) fn rows(&self, bundle: usize) -> &[u8] {
        &self.rows[bundle * BUNDLE..][..BUNDLE]
    }
}

/// The width of blocks that costs least in a few spans, and what the whole matrix costs with it.
pub(super) fn best_width(matrix: Rows<'_>, d_input: usize, lanes: usize) -> (usize, usize) {
    let step = span_rows(matrix).len().div_ceil(SAMPLE).max(1);
    let mut widths = vec![d_input.max(1)];
    while let Some(&last) = widths.last()
        && last > BUNDLE
        && widths.len() < 7
    {
        widths.push(last.div_ceil(2));
    }
    let of_width = |step: usize, width: usize| -> usize {
        let spans = span_rows(matrix).step_by(step);
        spans
            .map(|rows| span_cost(matrix, rows, width, lanes))
            .sum()
    };
    // Of equals the first, which is the widest.
    let best = widths
        .into_iter()
        .min_by_key(|&width| of_width(step, width));
    let width = best.unwrap_or(1);
    (width, of_width(1, width))
}

/// The spans of a matrix, as ranges of rows.
fn span_rows(matrix: Rows<'_>) -> impl ExactSizeIterator<Item = Range<usize>> {
    let rows = matrix.row_ptr.len() - 1;
    (0..rows.div_ceil(SPAN)).map(move |span| span * SPAN..rows.min((span + 1) * SPAN))
}

fn span_cost(matrix: Rows<'_>, rows: Range<usize>, width: usize, lanes: usize) -> usize {
    let found = alike(matrix.row_ptr, matrix.columns, rows, width);
    let costs = found.iter().map(|alike| {
        let bundles = alike.rows.len().div_ceil(BUNDLE);
        bundles * (alike.entries[0].len() * per_column(lanes) + PER_BUNDLE)
    });
    costs.sum()
}

/// The layout with blocks of a width, and the entry of each slot.
pub(super) fn panels(matrix: Rows<'_>, width: usize) -> (Panels, Vec<u32>) {
    let mut panels = Panels {
        starts: vec![0],
        column_ptr: vec![0],
        ..Panels::default()
    };
    let mut slots = Vec::new();
    for span in span_rows(matrix) {
        let first = span.start;
        for alike in alike(matrix.row_ptr, matrix.columns, span, width) {
            let lanes = alike.rows.chunks(BUNDLE);
            for (rows, entries) in lanes.zip(alike.entries.chunks(BUNDLE)) {
                let mut ids = [SPAN as u8; BUNDLE];
                for (id, row) in ids.iter_mut().zip(rows) {
                    *id = (row - first) as u8;
                }
                panels.rows.extend(ids);
                let shared = &matrix.columns[entries[0].clone()];
                panels.columns.extend_from_slice(shared);
                panels.column_ptr.push(panels.columns.len() as u32);
                for column in 0..shared.len() {
                    let of_lane = |lane: usize| {
                        entries
                            .get(lane)
                            .map_or(NONE, |entries| (entries.start + column) as u32)
                    };
                    slots.extend((0..BUNDLE).map(of_lane));
                }
            }
        }
        panels.starts.push(panels.column_ptr.len() as u32 - 1);
    }
    (panels, slots)
}

/// The product of some spans.
pub(super) struct PanelSums<'a> {
    pub(super) panels: &'a Panels,
    pub(super) values: &'a [f32],
    pub(super) x: &'a [f32],
    /// The first span.
    pub(super) first: usize,
    pub(super) finish: RowFinish<'a>,
    pub(super) out: &'a mut [f32],
}

impl WithSimd for PanelSums<'_> {
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

impl PanelSums<'_> {
    #[inline(always)]
    fn run<S: Simd, const V: usize>(self, simd: S) {
        let Panels {
            starts,
            column_ptr,
            columns,
            rows,
        } = self.panels;
        for (at, out) in self.out.chunks_mut(SPAN).enumerate() {
            let span = self.first + at;
            // One more for lanes without a row.
            let mut sums = [0.0; SPAN + 1];
            for bundle in starts[span] as usize..starts[span + 1] as usize {
                let range = column_ptr[bundle] as usize..column_ptr[bundle + 1] as usize;
                let values = &self.values[range.start * BUNDLE..range.end * BUNDLE];
                let register = Register::<S, V>(simd);
                let of_bundle = columns_sum(register, &columns[range], values, self.x);
                let rows = &rows[bundle * BUNDLE..][..BUNDLE];
                for (&row, sum) in rows.iter().zip(of_bundle) {
                    sums[usize::from(row)] += sum;
                }
            }
            self.finish.store(&sums, span * SPAN, out);
        }
    }
}
