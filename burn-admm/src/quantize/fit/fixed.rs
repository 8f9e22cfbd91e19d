//! Integers and a scale, zero among them.

use super::super::grid::{exponent, power};
use super::super::{Grid, Histogram, QuantizeError, Saturation};
use super::known_scale;

/// Exponents below the one that covers all values that are tried for the least error.
const BELOW: i32 = 12;
/// Least exponent of a scale: its multiples stay normal numbers.
const LEAST: i32 = -120;

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0f32, |most, v| most.max(v.abs()))
}

fn histogram(values: impl Iterator<Item = f32>) -> Result<Histogram, QuantizeError> {
    let mut histogram = Histogram::new();
    histogram.add(&values.collect::<Vec<_>>())?;
    Ok(histogram)
}

/// The bound of magnitudes that a rule picks for symmetric levels.
fn bound(values: &[f32], saturation: Saturation, most: i32) -> Result<f32, QuantizeError> {
    let largest = largest(values);
    if saturation == Saturation::MinMax || largest == 0.0 {
        return Ok(largest);
    }
    // Both signs of every value: the range stays symmetric.
    let both = values.iter().flat_map(|&v| [v, -v]);
    let [_, high] = saturation.range(&histogram(both)?, 2 * most as usize + 1)?;
    Ok(if high > 0.0 { high } else { largest })
}

pub(super) fn point(
    values: &[f32],
    bits: u8,
    saturation: Saturation,
) -> Result<Grid, QuantizeError> {
    let (low, high) = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1);
    let grid = |exponent: i32| Grid::Signed {
        scale: power(exponent.clamp(LEAST, 100)),
        low,
        high,
    };
    let exact = |grid: &Grid| values.iter().all(|&v| grid.nearest(v) == v);
    // The least scale that holds a magnitude.
    let covering = |bound: f32| {
        let mut e = exponent(bound) - i32::from(bits) + 1;
        while e < 100 && power(e.clamp(LEAST, 100)) * (high as f32) < bound {
            e += 1;
        }
        e
    };
    let widest = covering(largest(values));
    // Those on levels already stay, at the largest interval that has them.
    let fraction = (widest - BELOW..=widest + i32::from(bits)).rev().map(grid);
    if let Some(known) = fraction.clone().find(exact) {
        return Ok(known);
    }
    if saturation == Saturation::Mse {
        let tried = (widest - BELOW..=widest).rev().map(grid);
        let mut found: Option<(Grid, f64)> = None;
        for grid in tried {
            let error = grid.squared_error(values);
            if found.as_ref().is_none_or(|(_, least)| error < *least) {
                found = Some((grid, error));
            }
        }
        return Ok(found.map_or_else(|| grid(widest), |(grid, _)| grid));
    }
    Ok(grid(covering(bound(values, saturation, high)?)))
}

pub(super) fn symmetric(
    values: &[f32],
    bits: u8,
    saturation: Saturation,
) -> Result<Grid, QuantizeError> {
    let most = (1 << (bits - 1)) - 1;
    let grid = |scale: f32| Grid::Signed {
        scale,
        low: -most,
        high: most,
    };
    if let Some(scale) = known_scale(values, most as u32) {
        return Ok(grid(scale));
    }
    let bound = bound(values, saturation, most)?;
    Ok(grid(positive(bound / most as f32)))
}

pub(super) fn asymmetric(
    values: &[f32],
    bits: u8,
    saturation: Saturation,
) -> Result<Grid, QuantizeError> {
    let steps = (1i32 << bits) - 1;
    // Zero is a level, so it is in the range.
    let (low, high) = values.iter().fold((0.0f32, 0.0f32), |(low, high), &v| {
        (low.min(v), high.max(v))
    });
    if let Some(scale) = known_scale(values, steps as u32) {
        let ends = [low, high].map(|end| (end / scale).round() as i32);
        if ends[1] - ends[0] <= steps {
            return Ok(Grid::Signed {
                scale,
                low: ends[0],
                high: ends[0] + steps,
            });
        }
    }
    let [low, high] = match saturation {
        Saturation::MinMax => [low, high],
        _ => {
            let with_zero = values.iter().copied().chain([0.0]);
            let [low, high] = saturation.range(&histogram(with_zero)?, steps as usize + 1)?;
            [low.min(0.0), high.max(0.0)]
        }
    };
    let scale = positive(((f64::from(high) - f64::from(low)) / f64::from(steps)) as f32);
    let zero_point = (-low / scale).round().clamp(0.0, steps as f32) as i32;
    Ok(Grid::Signed {
        scale,
        low: -zero_point,
        high: steps - zero_point,
    })
}

/// A scale of nothing but zeros may be anything.
fn positive(scale: f32) -> f32 {
    if scale > 0.0 { scale } else { 1.0 }
}
