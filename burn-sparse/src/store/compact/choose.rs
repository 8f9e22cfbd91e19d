//! Which coding is the smallest, found by coding.

use burn::tensor::DType;

use super::coder::{Coder, Information, Meter};
use super::coding::{LevelKind, Positions, TensorCoding, Values};
use super::content::{Content, row_ptr, where_taken};
use super::elements::Elements;
use super::gaps;
use super::places::{Grid, Hints, Told};
use super::{codes, floats, places};
use crate::quant::{Levels, Quantized};

/// Up to so many places, all orders are tried.
const SMALL: usize = 1 << 16;
/// Of more places, only the order that wins on nearly all others is tried.
const LARGE: usize = 1 << 20;

/// In which order places are told: one of 8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order(pub(super) u8);

impl Order {
    /// Bits that name an order.
    pub(super) const BITS: u32 = 3;

    pub(super) fn told(self) -> Told {
        Told {
            rows: self.0 & 1 != 0,
            columns: self.0 & 2 != 0,
        }
    }

    pub(super) fn is_transposed(self) -> bool {
        self.0 & 4 != 0
    }

    fn tried(grid: Grid) -> Vec<Self> {
        let orders: &[u8] = match grid.len() {
            len if len > LARGE => &[3],
            _ if grid.rows <= 1 => &[0, 1, 2, 3],
            len if len > SMALL => &[0, 3, 7],
            _ => &[0, 1, 2, 3, 4, 5, 6, 7],
        };
        orders.iter().copied().map(Self).collect()
    }
}

/// How a tensor is to be written.
pub(super) struct Choice {
    pub(super) coding: TensorCoding,
    pub(super) order: Order,
    /// Codes and levels of the stored elements, if those are told.
    pub(super) quantised: Option<Quantized>,
}

/// Codes places in an order into `taken`; returns how many did not fit.
pub(super) fn code_places(
    coder: &mut impl Coder,
    grid: Grid,
    order: Order,
    stored: u64,
    hints: Hints,
    taken: &mut [bool],
) -> u64 {
    if !order.is_transposed() {
        return places::code(coder, grid, order.told(), stored, hints, taken);
    }
    let across = Grid::plain(grid.columns, grid.rows);
    let hints = Hints {
        rows: hints.columns,
        columns: hints.rows,
    };
    let turned = |at: usize| at % grid.rows * grid.columns + at / grid.rows;
    let mut turned_taken: Vec<bool> = (0..taken.len()).map(|at| taken[turned(at)]).collect();
    let left = places::code(
        coder,
        across,
        order.told(),
        stored,
        hints,
        &mut turned_taken,
    );
    for (at, is_taken) in turned_taken.into_iter().enumerate() {
        taken[turned(at)] = is_taken;
    }
    left
}

fn measured(code: impl FnOnce(&mut Meter)) -> u64 {
    let mut meter = Meter::default();
    code(&mut meter);
    let Meter(information) = meter;
    Information::bits(&information)
}

/// The smallest way to tell places, what it takes in bits, and its order.
fn positions(content: &Content, hints: Hints) -> (Positions, u64, Order) {
    let (grid, stored) = (content.grid, content.stored.len() as u64);
    let mask = (Positions::Mask, 8 * grid.len().div_ceil(8) as u64, Order(0));
    let relative = gaps::WIDTHS.iter().map(|&bits| {
        let count = gaps::gaps(bits, content.places()).count();
        let bytes = (count * usize::from(bits)).div_ceil(8) + 3;
        (Positions::Gaps { bits, count }, 8 * bytes as u64, Order(0))
    });
    let mut taken = content.taken.clone();
    let orders = Order::tried(grid).into_iter().map(|order| {
        let bits = measured(|meter| {
            code_places(meter, grid, order, stored, hints, &mut taken);
        });
        (Positions::Coded, bits + u64::from(Order::BITS), order)
    });
    let orders: Vec<_> = orders.collect();
    (orders.into_iter().chain([mask]).chain(relative))
        .min_by_key(|(_, bits, _)| *bits)
        .expect("a mask at least")
}

pub(super) fn kind_of(levels: &Levels) -> LevelKind {
    match levels {
        Levels::Nonzero { scales } => LevelKind::Nonzero {
            per_row: scales.len() > 1,
        },
        Levels::Signed { scales } => LevelKind::Signed {
            per_row: scales.len() > 1,
        },
        Levels::Codebook(codebook) => LevelKind::Codebook {
            entries: codebook.len(),
        },
    }
}

/// The smallest way to tell elements, and what it takes in bits.
fn values(
    elements: &Elements,
    dtype: DType,
    grid: Grid,
    taken: &[bool],
) -> (Values, u64, Option<Quantized>) {
    let raw = (Values::Raw, 8 * elements.as_bytes().len() as u64, None);
    if !dtype.is_float() {
        return raw;
    }
    let float_bits = measured(|meter| floats::code(meter, &mut elements.clone()));
    let mut best = raw;
    if float_bits < best.1 {
        best = (Values::Floats, float_bits, None);
    }
    if taken.len() > u32::MAX as usize {
        return best;
    }
    let row_ptr = row_ptr(grid, taken);
    let Some(quantised) = elements
        .to_f32(dtype)
        .and_then(|values| Quantized::find(&values, &row_ptr))
    else {
        return best;
    };
    let bits = quantised.codes().bits();
    let levels = kind_of(quantised.levels());
    let width = match levels {
        LevelKind::Codebook { .. } => 8 * elements.width(),
        _ => 32,
    };
    let rows = row_ptr.windows(2).filter(|ends| ends[0] < ends[1]).count();
    let numbers = match levels {
        LevelKind::Codebook { entries } => entries,
        LevelKind::Nonzero { per_row: true } | LevelKind::Signed { per_row: true } => rows,
        _ => 1,
    };
    // Their byte of the header, the numbers, and how many entries a codebook has.
    let about =
        8 + (numbers * width) as u64 + 8 * u64::from(matches!(levels, LevelKind::Codebook { .. }));
    let packed = about + 8 * quantised.codes().as_bytes().len() as u64;
    let mut given: Vec<u16> = quantised.codes().iter().collect();
    let columns = where_taken(taken).map(|at| at % grid.columns);
    let coded = about
        + measured(|meter| {
            codes::code(meter, u32::from(bits), &mut given, columns, grid.columns);
        });
    if packed.min(coded) < best.1 {
        best = if coded < packed {
            (Values::CodedCodes { bits, levels }, coded, Some(quantised))
        } else {
            (Values::Codes { bits, levels }, packed, Some(quantised))
        };
    }
    best
}

/// The smallest coding of a tensor. Where all of it is smaller than its places and what is stored
/// there, `content` stores all of it afterwards.
pub(super) fn choose(content: &mut Content, hints: Hints) -> Choice {
    let Content { grid, dtype, .. } = *content;
    let (len, stored) = (grid.len(), content.stored.len());
    let choice = |content: &Content, positions, order, (values, quantised)| Choice {
        coding: TensorCoding {
            positions,
            values,
            stored: (positions != Positions::All).then_some(content.stored.len()),
            packed: content.packed,
            equalised: content.equalised,
            dtype,
        },
        order,
        quantised,
    };
    if stored == 0 {
        return choice(content, Positions::Empty, Order(0), (Values::Raw, None));
    }
    let sparse = (stored < len && dtype.is_float()).then(|| {
        let (positions, index, order) = positions(content, hints);
        let (values, bits, quantised) = values(&content.stored, dtype, grid, &content.taken);
        // The count of stored elements is in the header.
        (index + bits + 16, positions, order, (values, quantised))
    });
    // Of a packed weight all of it would say more than is stored.
    let whole = stored == len || !content.packed && (4 * stored >= len || len <= 1 << 12);
    let whole = whole.then(|| {
        let all = content.all();
        let found = values(&all, dtype, grid, &vec![true; len]);
        (all, found)
    });
    match (sparse, whole) {
        (Some((_, positions, order, values)), None) => choice(content, positions, order, values),
        (Some((bits, positions, order, values)), Some((_, (_, all_bits, _))))
            if bits < all_bits =>
        {
            choice(content, positions, order, values)
        }
        (_, Some((all, (values, _, quantised)))) => {
            content.taken.fill(true);
            content.stored = all;
            choice(content, Positions::All, Order(0), (values, quantised))
        }
        (None, None) => {
            let all = content.all();
            content.taken.fill(true);
            content.stored = all;
            choice(content, Positions::All, Order(0), (Values::Raw, None))
        }
    }
}
