//! Recognising levels in values.

use std::collections::{HashMap, HashSet};

use super::{BitCodes, Levels, MAX_BITS, Quantized};

impl Quantized {
    /// The smallest codes whose levels give back `values` bit for bit; nothing if they have more than
    /// 65,536 different ones, or one that is not finite. Row `r` has the values from `row_ptr[r]` to
    /// `row_ptr[r + 1]`.
    ///
    /// Tried are one scale for all rows, one for each, and a codebook; the fewest
    /// [`bytes`](Self::bytes) win. Integers are recognised as `(k as f32) * scale` in f32 arithmetic.
    ///
    /// # Panics
    /// If the rows do not cover the values.
    pub fn find(values: &[f32], row_ptr: &[u32]) -> Option<Self> {
        Self::find_within(values, row_ptr, MAX_BITS)
    }

    /// As [`find`](Self::find), with codes of at most `bits` bits. With few bits, values that are not
    /// quantised are told apart in a fraction of the time.
    ///
    /// # Panics
    /// If the rows do not cover the values, or for bits outside 1 to 16.
    ///
    /// # Example
    /// ```
    /// use burn_sparse::quant::Quantized;
    ///
    /// let values = [0.25, -0.5, 0.75, 1.0];
    /// assert_eq!(Quantized::find_within(&values, &[0, 4], 2).unwrap().codes().bits(), 2);
    /// assert!(Quantized::find_within(&values, &[0, 4], 1).is_none());
    /// ```
    pub fn find_within(values: &[f32], row_ptr: &[u32], bits: u8) -> Option<Self> {
        check(values, row_ptr, bits)?;
        let rows = row_ptr.len().saturating_sub(1);
        let [one, each] = integers(values, row_ptr, bits);
        let found = [codebook(values, bits), one, each].into_iter().flatten();
        let found =
            found.min_by_key(|(codes, levels)| codes.as_bytes().len() + 4 * levels.numbers().len());
        found.and_then(|(codes, levels)| Self::new(codes, levels, rows).ok())
    }

    /// As [`find_within`](Self::find_within), without codebooks: kernels that compute integers prefer
    /// some bits more to a table.
    pub(crate) fn find_integers(values: &[f32], row_ptr: &[u32], bits: u8) -> Option<Self> {
        check(values, row_ptr, bits)?;
        let rows = row_ptr.len().saturating_sub(1);
        let found = integers(values, row_ptr, bits).into_iter().flatten();
        let found = found.min_by_key(|(codes, _)| codes.bits());
        found.and_then(|(codes, levels)| Self::new(codes, levels, rows).ok())
    }
}

/// Nothing if a value is not finite.
fn check(values: &[f32], row_ptr: &[u32], bits: u8) -> Option<()> {
    let end = row_ptr.last().map_or(0, |&end| end as usize);
    assert_eq!(end, values.len(), "rows of {end} values");
    assert!((1..=MAX_BITS).contains(&bits), "codes of {bits} bits");
    values.iter().all(|value| value.is_finite()).then_some(())
}

/// One scale for all rows, and one for each.
fn integers(values: &[f32], row_ptr: &[u32], bits: u8) -> [Option<(BitCodes, Levels)>; 2] {
    let rows = || {
        let rows = row_ptr.windows(2);
        rows.map(|ends| &values[ends[0] as usize..ends[1] as usize])
            .collect::<Vec<_>>()
    };
    let each = (row_ptr.len() > 2).then(|| scaled(&rows(), bits));
    [scaled(&[values], bits), each.flatten()]
}

/// Bits for `count` different codes.
fn bits_for(count: usize) -> u8 {
    count.next_power_of_two().trailing_zeros().max(1) as u8
}

/// One entry for each different value, ascending.
fn codebook(values: &[f32], bits: u8) -> Option<(BitCodes, Levels)> {
    let mut entries: HashMap<u32, u16> = HashMap::new();
    for value in values {
        entries.entry(value.to_bits()).or_default();
        if entries.len() > 1 << bits {
            return None;
        }
    }
    let mut codebook: Vec<f32> = entries.keys().map(|&bits| f32::from_bits(bits)).collect();
    codebook.sort_by(f32::total_cmp);
    for (code, value) in codebook.iter().enumerate() {
        entries.insert(value.to_bits(), code as u16);
    }
    let codes = values.iter().map(|value| entries[&value.to_bits()]);
    let codes = BitCodes::new(bits_for(codebook.len()), codes).ok()?;
    Some((codes, Levels::Codebook(codebook)))
}

/// Integers and a scale for each group of values.
fn scaled(groups: &[&[f32]], most_bits: u8) -> Option<(BitCodes, Levels)> {
    let scales: Vec<f32> = groups
        .iter()
        .map(|group| common_scale(group, 1 << (most_bits - 1)))
        .collect::<Option<_>>()?;
    let integer = |value: &f32, scale: &f32| (value / scale).round() as i32;
    let integers = || {
        let groups = groups.iter().zip(&scales);
        groups.flat_map(move |(group, scale)| group.iter().map(move |v| integer(v, scale)))
    };
    let zeros = integers().any(|k| k == 0);
    let (low, high) = integers().fold((0, 0), |(low, high), k| (k.min(low), k.max(high)));
    // With zero, the codes reach one further down than up.
    let reach = low
        .unsigned_abs()
        .max(high.unsigned_abs() + u32::from(zeros));
    let bits = bits_for(2 * reach.max(1) as usize);
    if bits > most_bits {
        return None;
    }
    let half = 1 << (bits - 1);
    let codes = integers().map(|k| {
        let skipped = i32::from(!zeros && k > 0);
        (k + half - skipped) as u16
    });
    let codes = BitCodes::new(bits, codes).ok()?;
    let levels = if zeros {
        Levels::Signed { scales }
    } else {
        Levels::Nonzero { scales }
    };
    Some((codes, levels))
}

/// The largest scale of which all finite `values` are whole multiples, `largest` times at most in magnitude,
/// as `(k as f32) * scale` in f32 arithmetic; 1 if all are zero, nothing for a negative zero.
///
/// # Example
/// ```
/// use burn_sparse::quant::common_scale;
///
/// assert_eq!(common_scale(&[0.5, -0.75, 0.0], 4), Some(0.25));
/// assert_eq!(common_scale(&[0.5, -0.75, 0.0], 2), None);
/// ```
pub fn common_scale(values: &[f32], largest: u32) -> Option<f32> {
    // A zero is a multiple of anything, a negative one of nothing.
    let mut seen = HashSet::new();
    for value in values.iter().filter(|value| value.to_bits() != 0) {
        seen.insert(value.to_bits() << 1);
        if seen.len() > largest as usize {
            return None;
        }
    }
    let mut magnitudes: Vec<f32> = seen.iter().map(|bits| f32::from_bits(bits >> 1)).collect();
    magnitudes.sort_by(f32::total_cmp);
    let (Some(&least), Some(&most)) = (magnitudes.first(), magnitudes.last()) else {
        return Some(1.0);
    };
    if least == 0.0 {
        return None;
    }
    let fits = |scale: &f32| {
        let multiple = |value: &f32| is_multiple(*value, *scale, largest);
        *scale > 0.0 && magnitudes.iter().all(multiple)
    };
    (1..=largest)
        .take_while(|&k| {
            f64::from(most) / f64::from(least) * f64::from(k) < f64::from(largest) + 0.5
        })
        .flat_map(|k| near(least / k as f32))
        .find(fits)
}

/// A quotient and its neighbours: rounding may have moved the product and the quotient by half a unit
/// in the last place each.
fn near(quotient: f32) -> impl Iterator<Item = f32> {
    let below = quotient.next_down();
    let above = quotient.next_up();
    [quotient, below, above, below.next_down(), above.next_up()].into_iter()
}

fn is_multiple(value: f32, scale: f32, largest: u32) -> bool {
    let k = (value / scale).round();
    k >= 1.0 && k <= largest as f32 && k * scale == value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row_ptr(lens: &[usize]) -> Vec<u32> {
        let ends = lens.iter().scan(0, |end, len| {
            *end += *len as u32;
            Some(*end)
        });
        core::iter::once(0).chain(ends).collect()
    }

    proptest! {
        #[test]
        fn values_come_back_bit_by_bit(
            rows in prop::collection::vec((1e-6f32..10.0, prop::collection::vec(-8i32..=8, 0..30)), 1..6),
            one in any::<bool>(),
        ) {
            let first = rows[0].0;
            let lens: Vec<usize> = rows.iter().map(|(_, row)| row.len()).collect();
            let values: Vec<f32> = rows
                .iter()
                .flat_map(|(scale, row)| {
                    let scale = if one { first } else { *scale };
                    row.iter().map(move |&k| k as f32 * scale + 0.0)
                })
                .collect();
            let rows = row_ptr(&lens);
            let found = Quantized::find(&values, &rows).unwrap();
            let again: Vec<u32> = found.values(&rows).iter().map(|v| v.to_bits()).collect();
            prop_assert_eq!(again, values.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
            if one {
                prop_assert!(found.codes().bits() <= 5);
            }
        }

        #[test]
        fn any_few_values_have_a_codebook(bits in prop::collection::vec(any::<u32>(), 1..9), picks in prop::collection::vec(any::<prop::sample::Index>(), 0..60)) {
            let levels: Vec<f32> = bits.iter().map(|&b| f32::from_bits(b)).filter(|v| v.is_finite()).collect();
            prop_assume!(!levels.is_empty());
            let values: Vec<f32> = picks.iter().map(|pick| levels[pick.index(levels.len())]).collect();
            let rows = [0, values.len() as u32];
            let found = Quantized::find(&values, &rows).unwrap();
            // Fewer bytes may be one scale and wider codes.
            prop_assert!(found.bytes() <= 4 * levels.len() + (3 * values.len()).div_ceil(8));
            let again = found.values(&rows);
            prop_assert!(again.iter().zip(&values).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }

    #[test]
    fn scales_of_rows_are_found_where_none_fits_all() {
        let values: Vec<f32> = [(0.1f32, 400), (0.017, 400), (3.3e-5, 400)]
            .iter()
            .flat_map(|&(scale, len)| (0..len).map(move |i| [-2, -1, 1, 2][i % 4] as f32 * scale))
            .collect();
        let rows = row_ptr(&[400, 400, 400]);
        let found = Quantized::find(&values, &rows).unwrap();
        assert_eq!(found.codes().bits(), 2);
        let Levels::Nonzero { scales } = found.levels() else {
            panic!("{:?}", found.levels());
        };
        assert_eq!(scales.len(), 3);
    }

    #[test]
    fn many_levels_and_nan_are_none() {
        let values: Vec<f32> = (0..70_000).map(|i| 1.0 + (i as f32) * 1e-6).collect();
        let values: Vec<f32> = values.iter().map(|v| v.sqrt()).collect();
        let distinct: std::collections::HashSet<u32> = values.iter().map(|v| v.to_bits()).collect();
        if distinct.len() > 1 << 16 {
            assert!(Quantized::find(&values, &[0, 70_000]).is_none());
        }
        assert!(Quantized::find(&[1.0, f32::NAN], &[0, 2]).is_none());
        assert_eq!(Quantized::find(&[], &[0]).unwrap().bytes(), 0);
    }

    #[test]
    fn sixteen_bits_are_integers() {
        let scale = 0.000_123_4_f32;
        let values: Vec<f32> = (-32768..=32767)
            .step_by(3)
            .map(|k| k as f32 * scale)
            .collect();
        let values: Vec<f32> = values.iter().map(|v| v + 0.0).collect();
        let found = Quantized::find(&values, &[0, values.len() as u32]).unwrap();
        assert_eq!(
            (found.codes().bits(), found.levels().numbers().len()),
            (16, 1)
        );
    }
}
