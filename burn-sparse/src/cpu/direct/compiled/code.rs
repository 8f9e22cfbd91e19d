//! From a weight to code, and into it.

use core::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
use core::ops::Range;

use memmap2::{Mmap, MmapMut};

use super::super::stream::Places;
use super::assembler::{Assembler, Reg, Zmm};
use super::{MOST_ROWS, Run};
use crate::{ConvProblem, cpu::Rows};

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
    bias: *const f32,
    /// Null for none.
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

/// Neighbouring output channels.
#[derive(Debug)]
struct Unit {
    channels: Range<usize>,
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
    units: Vec<Unit>,
    /// In the order in which code reads them.
    values: Vec<f32>,
}

/// An entry of a unit: where its input lies, the channel within the unit, the value.
type Entry = (u32, u8, f32);

impl Code {
    /// Code for rows of `matrix`, `rows` at a time or nearly so. `None` where the system has no pages that may be
    /// run, or positions are too far apart.
    pub(in super::super) fn new(
        problem: &ConvProblem,
        matrix: Rows<'_>,
        rows: usize,
        places: &Places,
    ) -> Option<Self> {
        let channels = problem.out_channels;
        let count = channels.div_ceil(rows.clamp(1, MOST_ROWS));
        let mut assembler = Assembler::default();
        let mut values = Vec::with_capacity(matrix.values.len());
        let mut units = Vec::with_capacity(count);
        let mut entries: Vec<Entry> = Vec::new();
        for unit in 0..count {
            // Units of nearly equal size: none of a few channels that shares no loads.
            let channels = unit * channels / count..(unit + 1) * channels / count;
            entries.clear();
            for (row, channel) in channels.clone().enumerate() {
                let at = matrix.row_ptr[channel] as usize..matrix.row_ptr[channel + 1] as usize;
                let columns = matrix.columns[at.clone()].iter();
                entries.extend(columns.zip(&matrix.values[at]).map(|(&column, &value)| {
                    (places.of(channel, column as usize), row as u8, value)
                }));
            }
            // By position; the channels of one, as they come.
            entries.sort_by_key(|&(place, ..)| place);
            if entries
                .last()
                .is_some_and(|&(place, ..)| i32::try_from(place).is_err())
            {
                return None;
            }
            assembler.align();
            units.push(Unit {
                start: assembler.len(),
                values: values.len(),
                channels: channels.clone(),
            });
            write(&mut assembler, channels.len() as u8, &entries);
            values.extend(entries.iter().map(|&(.., value)| value));
            if i32::try_from(assembler.len()).is_err() {
                return None;
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
            values,
        })
    }

    /// Runs of output channels that are computed together.
    pub(in super::super) fn units(&self) -> usize {
        self.units.len()
    }

    /// The output channels of some units.
    pub(in super::super) fn channels(&self, units: Range<usize>) -> Range<usize> {
        if units.is_empty() {
            return 0..0;
        }
        self.units[units.start].channels.start..self.units[units.end - 1].channels.end
    }

    /// Asks for a part of a unit's code, the `part`th of `parts`, to be in the second cache when it is run: code is
    /// not fetched ahead as data is, and between two passes of a network most of it has left the caches.
    pub(in super::super) fn prefetch(&self, unit: usize, part: usize, parts: usize) {
        let Some(start) = self.units.get(unit).map(|unit| unit.start) else {
            return;
        };
        let end = self.units.get(unit + 1).map_or(self.len, |next| next.start);
        let lines = (end - start).div_ceil(LINE);
        for line in part * lines / parts..(part + 1) * lines / parts {
            let place = self.pages[start + line * LINE..].as_ptr();
            // SAFETY: a hint, of an address within the pages.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(place.cast()) };
        }
    }

    /// Bytes of code and values.
    pub(in super::super) fn bytes(&self) -> usize {
        self.pages.len() + 4 * self.values.len()
    }

    /// Weights.
    pub(in super::super) fn entries(&self) -> usize {
        self.values.len()
    }

    /// Computes a vector of outputs of each channel of a unit: `act(bias + sums + residual)`.
    ///
    /// # Safety
    /// This machine must have AVX-512. `input`, advanced by any position of the weight, must be readable for a
    /// vector, `out` and the residual as well for every channel of the unit, and nobody else may use that part of
    /// `out`.
    pub(in super::super) unsafe fn run(&self, unit: usize, run: Run<'_>) {
        const NO_BIAS: &[f32] = &[0.0; MOST_ROWS];
        let unit = &self.units[unit];
        let bias = match run.bias {
            Some(bias) => &bias[unit.channels.clone()],
            None => NO_BIAS,
        };
        let (residual, residual_stride) = run.residual.unwrap_or((core::ptr::null(), 0));
        let call = Call {
            input: run.input,
            values: self.values[unit.values..].as_ptr(),
            out: run.out,
            bias: bias.as_ptr(),
            residual,
            out_stride: 4 * run.out_stride,
            residual_stride: 4 * residual_stride,
            relu: usize::from(run.relu),
        };
        let start = self.pages[unit.start..].as_ptr();
        // SAFETY: there begins a function of this kind, which `write` wrote into pages that may be run.
        let function = unsafe {
            core::mem::transmute::<*const u8, unsafe extern "sysv64" fn(*const Call)>(start)
        };
        // SAFETY: it reads a bias for each channel of the unit and all values of the unit, as they lie here, and
        // of `input`, `out` and the residual what the caller vouches for.
        unsafe { function(&raw const call) }
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

/// The function of a unit of so many channels, with its entries in order.
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
        s.broadcast(Zmm(row), bias, 4 * i32::from(row));
    }
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
