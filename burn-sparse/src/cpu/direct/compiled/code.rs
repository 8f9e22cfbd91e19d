//! From a weight to code, and into it.

use core::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
use core::ops::Range;

use memmap2::{Mmap, MmapMut};

use super::super::{evict, stream::Places};
use super::assembler::{Assembler, Reg, Zmm};
use super::{MOST_ROWS, Run};
use crate::{
    ConvProblem,
    cpu::{self, Plan, Rows},
};

/// Vector registers.
const REGISTERS: u8 = 32;

/// Values that a register with an offset of one byte reaches: those before and after it.
const REACH: usize = 128;

/// Bytes of a large page.
const LARGE_PAGE: usize = 2 << 20;

/// Bytes of code from which on large pages are asked for.
const LARGE: usize = LARGE_PAGE / 2;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Bytes between the lines of what code is told.
const WORD: i8 = 8;

/// What code is told, line by line as [`Line`] numbers them.
#[repr(C)]
struct Call {
    input: *const f32,
    values: *const f32,
    out: *mut f32,
    /// Null for none, as the next.
    bias: *const f32,
    residual: *const f32,
    /// Bytes between output channels.
    out_stride: usize,
    residual_stride: usize,
    relu: usize,
}

/// Lines of a [`Call`].
#[repr(i8)]
enum Line {
    Input,
    Values,
    Out,
    Bias,
    Residual,
    OutStride,
    ResidualStride,
    Relu,
}

/// The entries of a unit in a block of input channels.
#[derive(Debug)]
struct Function {
    /// First byte of its code.
    start: usize,
    /// Its first value.
    values: usize,
}

/// A weight matrix as code.
#[derive(Debug)]
pub(in super::super) struct Code {
    /// Pages that may be run, and not be written.
    pages: Mmap,
    /// Bytes of code.
    len: usize,
    /// Neighbouring output channels that are computed together.
    units: Vec<Range<usize>>,
    /// Block by block, in each unit by unit.
    functions: Vec<Function>,
    /// In the order in which code reads them.
    values: Vec<f32>,
}

/// An entry of a unit: where its input lies, the channel within the unit, the value.
type Entry = (u32, u8, f32);

impl Code {
    /// Code for rows of `matrix`, as many at a time as `plan` (brought into range) says or nearly so, and for its
    /// blocks of input channels. `None` where the system has no pages that may be run, or positions are too far apart.
    pub(in super::super) fn new(
        problem: &ConvProblem,
        matrix: Rows<'_>,
        plan: &Plan,
        places: &Places,
    ) -> Option<Self> {
        let channels = problem.out_channels;
        let count = units(channels, plan.rows.clamp(1, MOST_ROWS));
        // Of nearly equal size: none of a few channels that shares no loads.
        let units: Vec<_> = (0..count)
            .map(|unit| unit * channels / count..(unit + 1) * channels / count)
            .collect();
        let inputs = problem.in_channels / problem.groups;
        let taps = problem.kernel[0] * problem.kernel[1];
        // What of each row is not yet written.
        let mut next: Vec<u32> = matrix.row_ptr[..channels].to_vec();
        let mut assembler = Assembler::default();
        let mut values = Vec::with_capacity(matrix.values.len());
        let mut functions = Vec::with_capacity(count * plan.blocks);
        let mut entries: Vec<Entry> = Vec::new();
        for block in 0..plan.blocks {
            let end = ((block + 1) * inputs / plan.blocks * taps) as u32;
            for channels in &units {
                entries.clear();
                for (row, channel) in channels.clone().enumerate() {
                    let from = next[channel] as usize;
                    let rest = &matrix.columns[from..matrix.row_ptr[channel + 1] as usize];
                    let len = rest.partition_point(|&column| column < end);
                    next[channel] += len as u32;
                    let values = &matrix.values[from..from + len];
                    entries.extend(rest[..len].iter().zip(values).map(|(&column, &value)| {
                        (places.of(channel, column as usize), row as u8, value)
                    }));
                }
                entries.sort_unstable_by_key(|&(place, row, _)| {
                    u64::from(place) << 8 | u64::from(row)
                });
                if entries
                    .last()
                    .is_some_and(|&(place, ..)| i32::try_from(place).is_err())
                {
                    return None;
                }
                assembler.align();
                functions.push(Function {
                    start: assembler.len(),
                    values: values.len(),
                });
                write(&mut assembler, channels.len() as u8, &entries);
                values.extend(entries.iter().map(|&(.., value)| value));
                if i32::try_from(assembler.len()).is_err() {
                    return None;
                }
            }
        }
        let mut pages = MmapMut::map_anon(mapped(assembler.len())).ok()?;
        #[cfg(target_os = "linux")]
        if assembler.len() >= LARGE {
            // Without them it is slower, and nothing else.
            pages.advise(memmap2::Advice::HugePage).ok();
        }
        pages[..assembler.len()].copy_from_slice(assembler.bytes());
        Some(Self {
            pages: pages.make_exec().ok()?,
            len: assembler.len(),
            units,
            functions,
            values,
        })
    }

    /// Runs of output channels that are computed together.
    pub(in super::super) fn units(&self) -> usize {
        self.units.len()
    }

    /// Blocks of input channels.
    pub(in super::super) fn blocks(&self) -> usize {
        self.functions.len() / self.units.len().max(1)
    }

    /// The output channels of some units.
    pub(in super::super) fn channels(&self, units: Range<usize>) -> Range<usize> {
        if units.is_empty() {
            return 0..0;
        }
        self.units[units.start].start..self.units[units.end - 1].end
    }

    /// Where a run of units ends that begins as `units` does and has no more than so many channels, or is one unit.
    pub(in super::super) fn within(&self, units: Range<usize>, channels: usize) -> usize {
        let first = self.units[units.start].start;
        let fit = self.units[units.clone()].partition_point(|unit| unit.end - first <= channels);
        units.start + fit.max(1)
    }

    /// Asks for a part of the code and values of a unit's block, the `part`th of `parts`, to be in the second cache when it is
    /// run: code is not fetched ahead as data is, and between two passes of a network most of it has left the caches.
    pub(in super::super) fn prefetch(&self, block: usize, unit: usize, [part, parts]: [usize; 2]) {
        let index = block * self.units.len() + unit;
        let Some(function) = self.functions.get(index) else {
            return;
        };
        let (start, values) = (function.start, 4 * function.values);
        let (end, values_end) = match self.functions.get(index + 1) {
            Some(next) => (next.start, 4 * next.values),
            None => (self.len, 4 * self.values.len()),
        };
        let ask = |first: *const u8, bytes: usize| {
            let lines = bytes.div_ceil(LINE);
            for line in part * lines / parts..(part + 1) * lines / parts {
                let place = first.wrapping_add(line * LINE);
                // SAFETY: a hint, which no address makes fail.
                unsafe { _mm_prefetch::<_MM_HINT_T1>(place.cast()) };
            }
        };
        ask(self.pages.as_ptr().wrapping_add(start), end - start);
        ask(
            self.values.as_ptr().cast::<u8>().wrapping_add(values),
            values_end - values,
        );
    }

    /// Bytes of code and values.
    pub(in super::super) fn bytes(&self) -> usize {
        self.pages.len() + 4 * self.values.len()
    }

    /// As [`Direct::leave_caches`](super::super::Direct::leave_caches).
    pub(in super::super) fn leave_caches(&self) {
        evict(&self.pages[..self.len]);
        evict(&self.values);
    }

    /// Weights.
    pub(in super::super) fn entries(&self) -> usize {
        self.values.len()
    }

    /// Computes a vector of outputs of each channel of a unit: `act(bias + sums + residual)`, with the sums over a
    /// block of input channels.
    ///
    /// # Safety
    /// This machine must have AVX-512. `input`, advanced by any position of the weight, must be readable for a
    /// vector, `out` and the residual as well for every channel of the unit, and nobody else may use that part of
    /// `out`.
    pub(in super::super) unsafe fn run(&self, block: usize, unit: usize, run: Run<'_>) {
        let channels = &self.units[unit];
        let function = &self.functions[block * self.units.len() + unit];
        let bias = run
            .bias
            .map_or(core::ptr::null(), |bias| bias[channels.clone()].as_ptr());
        let (residual, residual_stride) = run.residual.unwrap_or((core::ptr::null(), 0));
        let call = Call {
            input: run.input,
            values: self.values[function.values..].as_ptr(),
            out: run.out,
            bias,
            residual,
            out_stride: 4 * run.out_stride,
            residual_stride: 4 * residual_stride,
            relu: usize::from(run.relu),
        };
        let start = self.pages[function.start..].as_ptr();
        // SAFETY: there begins a function of this kind, which `write` wrote into pages that may be run.
        let function = unsafe {
            core::mem::transmute::<*const u8, unsafe extern "sysv64" fn(*const Call)>(start)
        };
        // SAFETY: it reads a bias for each channel of the unit, if any, and all values of the block, as they lie here,
        // and of `input`, `out` and the residual what the caller vouches for.
        unsafe { function(&raw const call) }
    }
}

/// How many units of at most `rows` channels there are: as many for each thread, if that makes them little smaller.
fn units(channels: usize, rows: usize) -> usize {
    let count = channels.div_ceil(rows);
    let even = count.next_multiple_of(cpu::threads());
    if 4 * channels >= 3 * even * rows {
        even
    } else {
        count
    }
}

/// Bytes of pages for so many of code: looking up where small pages lie takes as long as their code runs, so a large
/// piece gets large ones, wholly if little is wasted by it.
fn mapped(len: usize) -> usize {
    let whole = len.next_multiple_of(LARGE_PAGE);
    if len >= LARGE && whole - len <= len / 2 {
        whole
    } else {
        len.max(1)
    }
}

/// Where a line of the call lies.
fn line(line: Line) -> i8 {
    line as i8 * WORD
}

/// The function of a unit of so many channels, with its entries of a block in order.
fn write(s: &mut Assembler, rows: u8, entries: &[Entry]) {
    let call = Reg::Rdi;
    let (input, out, bias, residual) = (Reg::Rax, Reg::Rdx, Reg::Rcx, Reg::R8);
    let (out_stride, residual_stride) = (Reg::R9, Reg::R10);
    // The values while sums are formed, and the row at hand before and after.
    let cursor = Reg::Rsi;
    for (register, at) in [
        (input, Line::Input),
        (out, Line::Out),
        (bias, Line::Bias),
        (residual, Line::Residual),
        (out_stride, Line::OutStride),
        (residual_stride, Line::ResidualStride),
    ] {
        s.load_word(register, call, line(at));
    }
    for row in 0..rows {
        s.zero(Zmm(row));
    }
    s.test(bias);
    let unbiased = s.jump_if_zero();
    for row in 0..rows {
        s.broadcast(Zmm(row), bias, 4 * i32::from(row));
    }
    s.land(unbiased);
    s.load_word(cursor, call, line(Line::Values));
    sums(s, rows, entries, input, cursor);

    s.test(residual);
    let without = s.jump_if_zero();
    s.copy(cursor, residual);
    for row in 0..rows {
        s.add_vector(Zmm(row), cursor);
        s.add(cursor, residual_stride);
    }
    s.land(without);

    s.test_word(call, line(Line::Relu));
    let linear = s.jump_if_zero();
    let zero = Zmm(REGISTERS - 1);
    s.zero(zero);
    for row in 0..rows {
        s.at_least(Zmm(row), zero);
    }
    s.land(linear);

    s.copy(cursor, out);
    for row in 0..rows {
        s.store(Zmm(row), cursor);
        s.add(cursor, out_stride);
    }
    s.leave();
}

/// A load for each position, a multiply-add for each entry.
fn sums(s: &mut Assembler, rows: u8, entries: &[Entry], input: Reg, values: Reg) {
    // Inputs take the registers without sums by turns: loads run ahead of what needs them.
    let mut spare = (rows..REGISTERS).cycle();
    let mut at_hand = None;
    // The value that the register points to.
    let mut center = 0;
    for (index, &(place, row, _)) in entries.iter().enumerate() {
        if index >= center + REACH {
            let step = index + REACH - center;
            center += step;
            s.add_number(values, 4 * step as i32);
        }
        let vector = match at_hand {
            Some((at, vector)) if at == place => vector,
            _ => {
                let vector = Zmm(spare.next().unwrap_or(REGISTERS - 1));
                s.load(vector, input, place as i32);
                at_hand = Some((place, vector));
                vector
            }
        };
        let offset = index as i32 - center as i32;
        s.multiply_add(Zmm(row), vector, values, 4 * offset);
    }
}
