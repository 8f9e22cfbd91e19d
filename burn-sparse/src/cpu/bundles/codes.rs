//! Values as codes of few bits, in the order of a matrix.

use bytemuck::cast_slice_mut;

use super::{
    super::{Buffer, Isa, Rows},
    BUNDLE, Order,
    order::{Layout, NONE},
    panels,
};
use crate::{
    SparseError,
    quant::{BitCodes, Levels, Quantized},
};

/// Bits beyond those of a checkpoint's codes that integers may take here, so that all of
/// `±1 .. ±128` and zero are among them.
const MOST_INTEGER_BITS: u8 = 10;

/// Most bits of codes that are looked for.
const MOST_BITS: u8 = 8;

/// Slots below which no codes are faster: 256 KiB of floats.
const LEAST_SLOTS: usize = 1 << 16;

/// Entries of a table that fits two registers of sixteen lanes.
pub(super) const ENTRIES: usize = 32;

/// How a code becomes a number.
#[derive(Debug, Clone)]
pub(super) enum Decoder {
    /// An entry of a table in registers, by a code of 2 to 5 bits.
    Table { bits: u8, entries: [f32; ENTRIES] },
    /// A signed integer of 2, 3, 4, 8 or 10 bits.
    Integers { bits: u8 },
    /// An entry of a table in memory, by a code of 8 bits: for tests, and where nothing else does.
    Memory(Box<[f32; 256]>),
}

/// Codes of all slots of an [`Order`].
///
/// Lines, which are the columns of a bundle or its windows, lie in chunks of one 32-bit word for each
/// lane. Codes of fewer than 8 bits fill a word from its lowest bits on, line after line, as many as
/// it holds; of codes of 8 bits, a chunk has four lines byte by byte. A bundle starts a chunk.
#[derive(Debug)]
pub(super) struct Codes {
    pub(super) decoder: Decoder,
    /// Words of 32 bits.
    words: Buffer,
    /// The first chunk of each bundle; for rows, which have one code after the other, none.
    pub(super) starts: Vec<u32>,
    /// What the sum of each row is multiplied by, if not by 1; filled up to whole spans.
    pub(super) scales: Vec<f32>,
}

impl Decoder {
    pub(super) fn bits(&self) -> u8 {
        match self {
            Self::Table { bits, .. } | Self::Integers { bits } => *bits,
            Self::Memory(_) => 8,
        }
    }

    /// Lines of a chunk.
    pub(super) fn lines(&self) -> usize {
        32 / usize::from(self.bits())
    }
}

/// What the codes of a weight stand for, before its scales, and which of them occur.
struct Used {
    /// The number and, if it is one, the integer of each code that occurs, and zero if that is needed.
    numbers: Vec<(f32, Option<i32>)>,
    /// The index into `numbers` of each code.
    index: Vec<u16>,
    /// The index of a zero.
    zero: Option<u16>,
}

impl Used {
    fn new(quantized: &Quantized, needs_zero: bool) -> Self {
        let (codes, levels) = (quantized.codes(), quantized.levels());
        let bits = codes.bits();
        let mut occurs = vec![false; 1 << bits];
        for code in codes.iter() {
            occurs[usize::from(code)] = true;
        }
        let mut numbers = Vec::new();
        let mut index = vec![0; occurs.len()];
        for (code, _) in occurs.iter().enumerate().filter(|(_, occurs)| **occurs) {
            index[code] = numbers.len() as u16;
            let code = code as u16;
            let integer = levels.integer(code, bits);
            numbers.push(match levels {
                Levels::Codebook(codebook) => (codebook[usize::from(code)], None),
                // One scale is multiplied into a table, bit for bit as the values were.
                Levels::Nonzero { scales } | Levels::Signed { scales } if scales.len() == 1 => {
                    (integer as f32 * scales[0], Some(integer))
                }
                Levels::Nonzero { .. } | Levels::Signed { .. } => (integer as f32, Some(integer)),
            });
        }
        let mut zero = numbers.iter().position(|(number, _)| *number == 0.0);
        if needs_zero && zero.is_none() {
            zero = Some(numbers.len());
            let integer = (!matches!(levels, Levels::Codebook(_))).then_some(0);
            numbers.push((0.0, integer));
        }
        Self {
            numbers,
            index,
            zero: zero.map(|zero| zero as u16),
        }
    }

    /// Bits of the smallest signed integers that hold all, of those that kernels know.
    fn integer_bits(&self) -> Option<u8> {
        let integers: Option<Vec<i32>> = self.numbers.iter().map(|(_, k)| *k).collect();
        let integers = integers?;
        let fits = |bits: &u8| {
            let half = 1 << (bits - 1);
            integers.iter().all(|k| (-half..half).contains(k))
        };
        [2, 3, 4, 8, MOST_INTEGER_BITS].into_iter().find(fits)
    }

    /// The decoder that takes the fewest instructions on an instruction set, if there is one in registers.
    fn decoder(&self, isa: Isa) -> Option<Decoder> {
        let integers = self.integer_bits();
        // AVX2 picks among eight entries by one instruction, among sixteen by three.
        let most = match isa {
            Isa::Avx512 => ENTRIES,
            Isa::Avx2 if integers.is_some() => 8,
            Isa::Avx2 => 16,
            Isa::Neon | Isa::Portable => 0,
        };
        if self.numbers.len() <= most {
            let bits = self.numbers.len().next_power_of_two().ilog2();
            let bits = bits.max(if isa == Isa::Avx2 { 3 } else { 2 });
            // Where a code takes fewer bits than pick an entry, the others belong to the next line:
            // whatever they are, the entry is the same.
            let entries = core::array::from_fn(|at| {
                let entry = self.numbers.get(at % (1 << bits));
                entry.map_or(0.0, |(number, _)| *number)
            });
            return Some(Decoder::Table {
                bits: bits as u8,
                entries,
            });
        }
        let bits = match (isa, integers?) {
            // Bytes are slower than whole words there.
            (Isa::Avx2, 8) => MOST_INTEGER_BITS,
            (_, bits) => bits,
        };
        Some(Decoder::Integers { bits })
    }

    fn memory(&self) -> Option<Decoder> {
        let mut table = Box::new([0.0; 256]);
        let entries = table.get_mut(..self.numbers.len())?;
        for (entry, (number, _)) in entries.iter_mut().zip(&self.numbers) {
            *entry = *number;
        }
        Some(Decoder::Memory(table))
    }
}

/// Bytes that values must take as floats for codes to be faster: those that fit a near cache arrive
/// there sooner than codes become numbers. Measured on one processor (Zen 4, 1 MiB of L2 for a core and
/// 32 MiB of L3).
fn least_bytes(order: &Order, decoder: &Decoder) -> usize {
    const MIB: usize = 1 << 20;
    let windows = matches!(order.layout, Layout::Windows { .. });
    match (order.isa(), decoder) {
        // What finds the elements of the vector takes longer than reading the values.
        (Isa::Avx512, Decoder::Table { .. } | Decoder::Integers { bits: 8 }) if windows => {
            5 * MIB / 4
        }
        (_, _) if windows => 8 * MIB,
        (Isa::Avx512, Decoder::Integers { bits: 10 }) => 8 * MIB,
        (Isa::Avx512, _) => size_of::<f32>() * LEAST_SLOTS,
        (Isa::Avx2, Decoder::Table { bits: 3, .. }) => MIB,
        (Isa::Avx2, Decoder::Integers { bits: 4 }) => 4 * MIB,
        (Isa::Avx2 | Isa::Neon | Isa::Portable, _) => 8 * MIB,
    }
}

impl Codes {
    /// Codes for the values of a matrix, if it has levels of few bits and the processor computes with
    /// them at least as fast as with floats.
    pub(super) fn find(order: &Order, matrix: Rows<'_>) -> Option<Self> {
        // Before the values are looked at, which takes longer than to order them.
        let never = match (order.isa(), &order.layout) {
            (_, Layout::Rows { .. }) | (Isa::Neon | Isa::Portable, _) => true,
            (Isa::Avx2, Layout::Windows { .. }) => true,
            _ => order.slots() < LEAST_SLOTS,
        };
        if never {
            return None;
        }
        let needs_zero = order.has_holes();
        let in_registers = |quantized: Quantized| {
            let used = Used::new(&quantized, needs_zero);
            let decoder = used.decoder(order.isa())?;
            let floats = size_of::<f32>() * order.slots();
            if floats < least_bytes(order, &decoder) {
                return None;
            }
            Some(Self::with_decoder(order, &quantized, &used, decoder))
        };
        let found =
            Quantized::find_within(matrix.values, matrix.row_ptr, MOST_BITS).and_then(in_registers);
        found.or_else(|| {
            let bits = MOST_INTEGER_BITS - 1;
            Quantized::find_integers(matrix.values, matrix.row_ptr, bits).and_then(in_registers)
        })
    }

    /// The codes of `quantized`, entry by entry.
    pub(super) fn new(order: &Order, quantized: &Quantized) -> Result<Self, SparseError> {
        let invalid = |reason: String| SparseError::Format {
            format: "codes",
            reason,
        };
        let (entries, len) = (order.entries(), quantized.codes().len());
        if entries != len {
            return Err(invalid(format!(
                "{len} codes for a matrix of {entries} entries"
            )));
        }
        let scales = match quantized.levels() {
            Levels::Nonzero { scales } | Levels::Signed { scales } => scales.len(),
            Levels::Codebook(_) => 1,
        };
        if scales != 1 && scales != order.rows() {
            return Err(invalid(format!(
                "{scales} scales for a matrix of {} rows",
                order.rows()
            )));
        }
        let used = Used::new(quantized, order.has_holes());
        let decoder = match order.layout {
            Layout::Rows { .. } => None,
            _ => used.decoder(order.isa()),
        };
        let decoder = decoder.or_else(|| used.memory()).ok_or_else(|| {
            invalid(format!(
                "{} different values, zeros of the layout included; kernels take 256, or integers of \
                 {MOST_INTEGER_BITS} bits: quantise to fewer bits, or keep floats",
                used.numbers.len()
            ))
        })?;
        Ok(Self::with_decoder(order, quantized, &used, decoder))
    }

    fn with_decoder(order: &Order, quantized: &Quantized, used: &Used, decoder: Decoder) -> Self {
        let rows = order.rows();
        let scales = match (quantized.levels(), &decoder) {
            (Levels::Codebook(_), _) => Vec::new(),
            (Levels::Nonzero { scales } | Levels::Signed { scales }, decoder) => {
                let one = scales.len() == 1;
                let mut scales = match (one, decoder) {
                    (false, _) => scales.clone(),
                    (true, Decoder::Integers { .. }) => vec![scales[0]; rows],
                    (true, _) => Vec::new(),
                };
                if !scales.is_empty() {
                    scales.resize(rows.next_multiple_of(panels::SPAN), 0.0);
                }
                scales
            }
        };
        let code = |entry: u32| stored(quantized.codes(), used, &decoder, entry);
        let (words, starts) = match order.lines() {
            Some((lines, lanes)) => chunks(order.slot_entries(), lines, lanes, &decoder, code),
            None => {
                let entries = order.entries();
                let mut words = Buffer::new(entries.div_ceil(4));
                let bytes = cast_slice_mut::<f32, u8>(&mut words);
                for (entry, byte) in bytes[..entries].iter_mut().enumerate() {
                    *byte = code(entry as u32) as u8;
                }
                (words, Vec::new())
            }
        };
        Self {
            decoder,
            words,
            starts,
            scales,
        }
    }

    pub(super) fn words(&self) -> &[u32] {
        bytemuck::cast_slice(&self.words)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.words)
    }
}

/// The code of an entry as a decoder wants it.
fn stored(codes: &BitCodes, used: &Used, decoder: &Decoder, entry: u32) -> u32 {
    let index = match entry {
        // A hole of a lane without a row may be anything.
        NONE => used.zero.unwrap_or(0),
        entry => used.index[usize::from(codes.get(entry as usize))],
    };
    match decoder {
        Decoder::Integers { bits } => {
            let integer = used.numbers.get(usize::from(index)).and_then(|(_, k)| *k);
            integer.unwrap_or(0) as u32 & ((1 << bits) - 1)
        }
        Decoder::Table { .. } | Decoder::Memory(_) => u32::from(index),
    }
}

/// Codes line by line: words, and the first chunk of each bundle. Bundle `b` has the lines
/// `lines[b]..lines[b + 1]` of `lanes` slots each.
fn chunks(
    slots: &[u32],
    lines: &[u32],
    lanes: usize,
    decoder: &Decoder,
    code: impl Fn(u32) -> u32,
) -> (Buffer, Vec<u32>) {
    let (bits, in_chunk) = (u32::from(decoder.bits()), decoder.lines());
    let mut starts = vec![0];
    let mut count = 0;
    for ends in lines.windows(2) {
        count += ((ends[1] - ends[0]) as usize).div_ceil(in_chunk);
        starts.push(count as u32);
    }
    let mut buffer = Buffer::new(count * lanes);
    let words: &mut [u32] = cast_slice_mut(&mut buffer);
    words.fill(0);
    for (bundle, ends) in lines.windows(2).enumerate() {
        for line in ends[0]..ends[1] {
            let within = (line - ends[0]) as usize;
            let chunk = (starts[bundle] as usize + within / in_chunk) * lanes;
            let (words, at) = (&mut words[chunk..][..lanes], within % in_chunk);
            for (lane, &entry) in slots[line as usize * lanes..][..lanes].iter().enumerate() {
                if bits == 8 {
                    let bytes: &mut [u8] = cast_slice_mut(words);
                    bytes[at * lanes + lane] = code(entry) as u8;
                } else {
                    words[lane] |= code(entry) << (at as u32 * bits);
                }
            }
        }
    }
    (buffer, starts)
}

impl Order {
    /// Where the lines of each bundle start, and how many lanes they have; nothing for rows.
    fn lines(&self) -> Option<(&[u32], usize)> {
        match &self.layout {
            Layout::Shared { starts, .. } => Some((starts, BUNDLE)),
            Layout::Panels(panels) => Some((panels.column_ptr(), BUNDLE)),
            Layout::Windows { lanes, starts, .. } => Some((starts, *lanes)),
            Layout::Rows { .. } => None,
        }
    }

    /// Whether a row of the matrix has slots without an entry, so that zero must have a code.
    fn has_holes(&self) -> bool {
        match (&self.layout, self.lines()) {
            // Rows of a panel have the same columns.
            (Layout::Panels(_), _) | (_, None) => false,
            (_, Some((lines, lanes))) => lines.windows(2).enumerate().any(|(bundle, ends)| {
                let live = lanes.min(self.rows() - bundle * lanes);
                (ends[0]..ends[1]).any(|line| {
                    let slots = &self.slot_entries()[line as usize * lanes..][..live];
                    slots.contains(&NONE)
                })
            }),
        }
    }
}
