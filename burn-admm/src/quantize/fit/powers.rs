//! Powers of two: the largest exponent decides all levels.

use super::super::Grid;
use super::super::grid::exponent;

/// Exponents below the largest value's that can still be best: the level below covers it to a half.
const BELOW: i32 = 40;

fn best(values: &[f32], bits: u8, exponents: impl Iterator<Item = i32>) -> Grid {
    let count = 1 << (bits - 1);
    let grids = exponents.map(|top| Grid::Powers { top, count });
    // The first of equal ones.
    let mut found: Option<(Grid, f64)> = None;
    for grid in grids {
        let error = grid.squared_error(values);
        if found.as_ref().is_none_or(|(_, least)| error < *least) {
            found = Some((grid, error));
        }
    }
    found.map_or(Grid::Powers { top: 0, count }, |(grid, _)| grid)
}

fn top(values: &[f32]) -> i32 {
    exponent(values.iter().fold(0.0f32, |most, v| most.max(v.abs())))
}

pub(super) fn fit(values: &[f32], bits: u8) -> Grid {
    let top = top(values);
    // One above the largest value's, for values just below a power, and a few below.
    best(
        values,
        bits,
        (top - 3..=(top + 1).min(127)).rev().map(|top| top.max(-90)),
    )
}

/// All exponents that f32 has near the values.
pub(super) fn scan(values: &[f32], bits: u8) -> Grid {
    let top = top(values);
    best(
        values,
        bits,
        (top - BELOW..=(top + 3).min(127))
            .rev()
            .map(|top| top.max(-90)),
    )
}
