//! The loops over the layouts with values as codes, which become numbers in registers.

use core::ops::Range;

#[cfg(target_arch = "aarch64")]
use pulp::aarch64::Neon;
#[cfg(target_arch = "x86_64")]
use pulp::x86::{V3, V4};
use pulp::{NullaryFnOnce, Scalar256b};

use super::{
    super::Isa,
    BUNDLE, Order, RowFinish,
    codes::{Codes, Decoder},
    decode::{Decode, IntegerBytes, Integers, Memory, Table},
    order::Layout,
    panels::{Panels, SPAN},
    unit::Unit,
};

/// Lines at a time, with sums of their own.
const AT_ONCE: usize = 4;

/// The product of some bundles, spans or groups of a matrix with codes.
pub(super) struct Coded<'a> {
    pub(super) order: &'a Order,
    pub(super) codes: &'a Codes,
    pub(super) x: &'a [f32],
    /// The first part of the order.
    pub(super) first: usize,
    pub(super) finish: RowFinish<'a>,
    pub(super) out: &'a mut [f32],
}

impl Coded<'_> {
    pub(super) fn run(self) {
        const MISSING: &str = "an instruction set that this machine has";
        if let Layout::Rows { starts, columns } = &self.order.layout {
            return self.rows(starts, columns);
        }
        match self.order.isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                let simd = V4::try_new().expect(MISSING);
                simd.vectorize(On(simd, self));
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                let simd = V3::try_new().expect(MISSING);
                simd.vectorize(On(simd, self));
            }
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => {
                let simd = Neon::try_new().expect(MISSING);
                simd.vectorize(On(simd, self));
            }
            Isa::Portable => On(Scalar256b, self).call(),
            #[allow(unreachable_patterns, reason = "the sets of other architectures")]
            other => panic!("{} is not of this architecture", other.name()),
        }
    }

    /// Rows one after the other, entry by entry.
    fn rows(self, starts: &[u32], columns: &[u32]) {
        let Decoder::Memory(table) = &self.codes.decoder else {
            unreachable!("codes of single entries are bytes");
        };
        for (at, out) in self.out.iter_mut().enumerate() {
            let row = self.first * BUNDLE + at;
            let range = starts[row] as usize..starts[row + 1] as usize;
            let codes = &self.codes.bytes()[range.clone()];
            let products = columns[range].iter().zip(codes);
            let sum: f32 = products
                .map(|(&column, &code)| table[usize::from(code)] * self.x[column as usize])
                .sum();
            let out = core::slice::from_mut(out);
            store(self.codes, self.finish, &mut [sum], row, out);
        }
    }
}

struct On<'a, S>(S, Coded<'a>);

impl<S: Unit> NullaryFnOnce for On<'_, S> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self(simd, coded) = self;
        match &coded.codes.decoder {
            Decoder::Table { bits, entries } => {
                let table = simd.table(entries);
                match bits {
                    2 => layout::<S, Table<S::Table, 2>>(simd, Table(table), coded),
                    3 => layout::<S, Table<S::Table, 3>>(simd, Table(table), coded),
                    4 => layout::<S, Table<S::Table, 4>>(simd, Table(table), coded),
                    _ => layout::<S, Table<S::Table, 5>>(simd, Table(table), coded),
                }
            }
            Decoder::Integers { bits } => match bits {
                2 => layout(simd, Integers::<2>, coded),
                3 => layout(simd, Integers::<3>, coded),
                4 => layout(simd, Integers::<4>, coded),
                8 => layout(simd, IntegerBytes, coded),
                _ => layout(simd, Integers::<10>, coded),
            },
            Decoder::Memory(table) => layout(simd, Memory(table), coded),
        }
    }
}

#[inline(always)]
fn layout<S: Unit, D: Decode<S>>(simd: S, decode: D, coded: Coded<'_>) {
    match (&coded.order.layout, BUNDLE / S::F32_LANES) {
        (Layout::Shared { starts, columns }, 1) => {
            shared::<S, D, 1>(simd, decode, starts, columns, coded);
        }
        (Layout::Shared { starts, columns }, 2) => {
            shared::<S, D, 2>(simd, decode, starts, columns, coded);
        }
        (Layout::Shared { starts, columns }, _) => {
            shared::<S, D, 4>(simd, decode, starts, columns, coded);
        }
        (Layout::Panels(panels), 1) => spans::<S, D, 1>(simd, decode, panels, coded),
        (Layout::Panels(panels), 2) => spans::<S, D, 2>(simd, decode, panels, coded),
        (Layout::Panels(panels), _) => spans::<S, D, 4>(simd, decode, panels, coded),
        (
            Layout::Windows {
                starts,
                firsts,
                picks,
                ..
            },
            _,
        ) => windows(simd, decode, (starts, firsts, picks), coded),
        (Layout::Rows { .. }, _) => unreachable!("rows have no lines"),
    }
}

/// Bundles whose rows share their columns.
#[inline(always)]
fn shared<S: Unit, D: Decode<S>, const V: usize>(
    simd: S,
    decode: D,
    starts: &[u32],
    columns: &[u32],
    coded: Coded<'_>,
) {
    let codes = coded.codes;
    for (at, out) in coded.out.chunks_mut(BUNDLE).enumerate() {
        let bundle = coded.first + at;
        let columns = &columns[starts[bundle] as usize..starts[bundle + 1] as usize];
        let words = &codes.words()[chunks(codes, bundle, BUNDLE)];
        let mut sums = columns_sum::<S, D, V>(simd, decode, columns, words, coded.x);
        store(codes, coded.finish, &mut sums, bundle * BUNDLE, out);
    }
}

/// Rows that share the columns of a block.
#[inline(always)]
fn spans<S: Unit, D: Decode<S>, const V: usize>(
    simd: S,
    decode: D,
    panels: &Panels,
    coded: Coded<'_>,
) {
    let codes = coded.codes;
    for (at, out) in coded.out.chunks_mut(SPAN).enumerate() {
        let span = coded.first + at;
        // One more for lanes without a row.
        let mut sums = [0.0; SPAN + 1];
        for bundle in panels.bundles(span) {
            let words = &codes.words()[chunks(codes, bundle, BUNDLE)];
            let columns = panels.columns(bundle);
            let of_bundle = columns_sum::<S, D, V>(simd, decode, columns, words, coded.x);
            for (&row, sum) in panels.rows(bundle).iter().zip(of_bundle) {
                sums[usize::from(row)] += sum;
            }
        }
        store(codes, coded.finish, &mut sums, span * SPAN, out);
    }
}

/// Each lane picks its own element from a window.
#[inline(always)]
fn windows<S: Unit, D: Decode<S>>(
    simd: S,
    decode: D,
    (starts, firsts, picks): (&[u32], &[u32], &[u8]),
    coded: Coded<'_>,
) {
    let (lanes, codes) = (S::F32_LANES, coded.codes);
    for (at, out) in coded.out.chunks_mut(lanes).enumerate() {
        let group = coded.first * BUNDLE / lanes + at;
        let range = starts[group] as usize..starts[group + 1] as usize;
        let (firsts, picks) = (
            &firsts[range.clone()],
            &picks[range.start * lanes..range.end * lanes],
        );
        let words = &codes.words()[chunks(codes, group, lanes)];
        let mut acc = [simd.splat_f32s(0.0); 2];
        let per_chunk = firsts
            .chunks(D::LINES)
            .zip(picks.chunks(D::LINES * lanes))
            .zip(words.chunks_exact(lanes));
        for ((firsts, picks), words) in per_chunk {
            let chunk = Chunk {
                firsts,
                picks,
                words,
                x: coded.x,
            };
            if firsts.len() == D::LINES {
                for pair in 0..D::LINES / 2 {
                    acc[0] = chunk.add(simd, decode, acc[0], 2 * pair);
                    acc[1] = chunk.add(simd, decode, acc[1], 2 * pair + 1);
                }
                if D::LINES % 2 == 1 {
                    acc[0] = chunk.add(simd, decode, acc[0], D::LINES - 1);
                }
            } else {
                for line in 0..firsts.len() {
                    acc[0] = chunk.add(simd, decode, acc[0], line);
                }
            }
        }
        let mut sums = [0.0; BUNDLE];
        S::as_mut_simd_f32s(&mut sums).0[0] = simd.add_f32s(acc[0], acc[1]);
        store(codes, coded.finish, &mut sums[..lanes], group * lanes, out);
    }
}

/// The windows whose codes share words.
struct Chunk<'a> {
    firsts: &'a [u32],
    picks: &'a [u8],
    words: &'a [u32],
    x: &'a [f32],
}

impl Chunk<'_> {
    #[inline(always)]
    fn add<S: Unit, D: Decode<S>>(&self, simd: S, decode: D, acc: S::f32s, line: usize) -> S::f32s {
        let lanes = S::F32_LANES;
        let window = &self.x[self.firsts[line] as usize..][..2 * lanes];
        let x = simd.window(window, &self.picks[line * lanes..][..lanes]);
        simd.mul_add_e_f32s(x, decode.line(simd, self.words, line, 0), acc)
    }
}

/// The words of a bundle.
fn chunks(codes: &Codes, bundle: usize, lanes: usize) -> Range<usize> {
    codes.starts[bundle] as usize * lanes..codes.starts[bundle + 1] as usize * lanes
}

/// The sums of the rows of a bundle over the columns that they share.
#[inline(always)]
fn columns_sum<S: Unit, D: Decode<S>, const V: usize>(
    simd: S,
    decode: D,
    columns: &[u32],
    words: &[u32],
    x: &[f32],
) -> [f32; BUNDLE] {
    let mut acc = [[simd.splat_f32s(0.0); V]; AT_ONCE];
    for (columns, words) in columns.chunks(D::LINES).zip(words.chunks_exact(BUNDLE)) {
        if columns.len() == D::LINES {
            // Counts that the compiler knows: it unrolls, and shifts by constants.
            for first in (0..D::LINES / AT_ONCE).map(|quad| quad * AT_ONCE) {
                for (i, acc) in acc.iter_mut().enumerate() {
                    add(
                        simd,
                        decode,
                        acc,
                        x[columns[first + i] as usize],
                        words,
                        first + i,
                    );
                }
            }
            let rest = D::LINES % AT_ONCE;
            for (i, acc) in acc.iter_mut().enumerate().take(rest) {
                let line = D::LINES - rest + i;
                add(simd, decode, acc, x[columns[line] as usize], words, line);
            }
        } else {
            let (quads, rest) = columns.as_chunks::<AT_ONCE>();
            for (quad, columns) in quads.iter().enumerate() {
                for (i, acc) in acc.iter_mut().enumerate() {
                    let line = quad * AT_ONCE + i;
                    add(simd, decode, acc, x[columns[i] as usize], words, line);
                }
            }
            for (i, &column) in rest.iter().enumerate() {
                let line = quads.len() * AT_ONCE + i;
                add(simd, decode, &mut acc[0], x[column as usize], words, line);
            }
        }
    }
    let mut sums = [0.0; BUNDLE];
    let (lines, _) = S::as_mut_simd_f32s(&mut sums);
    for (v, line) in lines.iter_mut().enumerate() {
        let [a, b, c, d] = acc.map(|acc| acc[v]);
        *line = simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d));
    }
    sums
}

/// Adds a column of codes times an element of the vector.
#[inline(always)]
fn add<S: Unit, D: Decode<S>, const V: usize>(
    simd: S,
    decode: D,
    acc: &mut [S::f32s; V],
    x: f32,
    words: &[u32],
    line: usize,
) {
    let x = simd.splat_f32s(x);
    for (v, acc) in acc.iter_mut().enumerate() {
        *acc = simd.mul_add_e_f32s(x, decode.line(simd, words, line, v), *acc);
    }
}

/// Scales the sums of neighbouring rows, of which the first is row `row`, and stores them.
#[inline(always)]
fn store(codes: &Codes, finish: RowFinish<'_>, sums: &mut [f32], row: usize, out: &mut [f32]) {
    if let Some(scales) = codes.scales.get(row..) {
        for (sum, scale) in sums.iter_mut().zip(scales) {
            *sum *= scale;
        }
    }
    finish.store(sums, row, out);
}
