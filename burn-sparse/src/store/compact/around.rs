//! How likely a place is to be taken, from its row, its column and what stands around it.

use super::logistic::{Learnt, Mixer, UNIT, stretch};
use super::places::Grid;

const INPUTS: usize = 8;
/// How fast the weights of the mixer move.
const RATE: i32 = 6;
/// How many bits the probabilities of contexts remember.
const MEMORY: u16 = 1_000;

/// The rates of entries that are known without looking around, as probabilities.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    pub(super) in_row: u16,
    pub(super) in_column: u16,
    pub(super) all: u16,
}

/// Predicts places from those before them.
pub(super) struct Around {
    grid: Grid,
    /// By the pattern of neighbours, by the place in the kernel and their number, by the rates of row
    /// and column, by the counts of row and column and the number of neighbours.
    contexts: [Vec<Learnt>; 4],
    used: [usize; 4],
    mixer: Mixer<INPUTS>,
}

/// Neighbours that are taken: a bit for each direction, and their number.
fn neighbours(grid: Grid, taken: &[bool], [row, column]: [usize; 2]) -> [usize; 2] {
    let Grid {
        columns,
        kernel,
        width,
        ..
    } = grid;
    let at = row * columns + column;
    let (y, x) = (column % kernel / width, column % width);
    let is = |there: bool, back: usize| usize::from(there && taken[at - back]);
    let left = is(x >= 1, 1);
    let up = is(y >= 1, width);
    let up_left = is(y >= 1 && x >= 1, width + 1);
    let up_right = is(y >= 1 && x + 1 < width, width - 1);
    let channel = is(column >= kernel, kernel);
    let above = is(row >= 1, columns);
    let twice_above = is(row >= 2, 2 * columns);
    let above_right = is(row >= 1 && column + 1 < columns, columns - 1);
    let pattern = left
        | up << 1
        | (up_left | up_right) << 2
        | channel << 3
        | above << 4
        | twice_above << 5
        | above_right << 6;
    let number = left + up + up_left + up_right + channel + above + twice_above + above_right;
    [pattern, number]
}

/// A number in one of 8 classes by its length.
fn class(number: u64) -> usize {
    (u64::BITS - number.leading_zeros()).min(7) as usize
}

/// A probability in one of 32 classes by its log-odds.
fn odds_class(p: u16) -> usize {
    ((stretch(p) + 12 * UNIT) / UNIT).clamp(0, 31) as usize
}

impl Around {
    /// With `told`, the rates come from totals and are to be trusted.
    pub(super) fn new(grid: Grid, told: bool) -> Self {
        let start = Learnt::new(1 << 12);
        let sizes = [1 << 7, 4 * grid.kernel, 1 << 10, 1 << 9];
        // In units of 1/65536.
        let weights = if told {
            [1 << 16, 1 << 16, -(1 << 16), 0, 0, 0, 0, 0]
        } else {
            [20_000, 20_000, 0, 10_000, 6_500, 6_500, 10_000, 0]
        };
        Self {
            grid,
            contexts: sizes.map(|size| vec![start; size]),
            used: [0; 4],
            mixer: Mixer::new(4, weights, RATE),
        }
    }

    /// The probability that a place is taken, of 65536.
    pub(super) fn predict(
        &mut self,
        taken: &[bool],
        place: [usize; 2],
        rates: Rates,
        [in_row, in_column]: [u64; 2],
    ) -> u16 {
        let [pattern, number] = neighbours(self.grid, taken, place);
        let in_kernel = place[1] % self.grid.kernel;
        self.used = [
            pattern,
            4 * in_kernel + number.min(3),
            32 * odds_class(rates.in_row) + odds_class(rates.in_column),
            64 * class(in_row) + 8 * class(in_column) + number.min(7),
        ];
        let context = |at: usize| stretch(self.contexts[at][self.used[at]].p());
        let inputs = [
            stretch(rates.in_row),
            stretch(rates.in_column),
            stretch(rates.all),
            context(0),
            context(1),
            context(2),
            context(3),
            UNIT,
        ];
        self.mixer.mix(number.min(3), inputs)
    }

    /// Learns what was at the place of the last prediction.
    pub(super) fn learn(&mut self, bit: bool) {
        for (contexts, used) in self.contexts.iter_mut().zip(self.used) {
            contexts[used].learn(bit, MEMORY);
        }
        self.mixer.learn(bit);
    }
}
