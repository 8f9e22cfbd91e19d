//! How many entries each row, or each column, has.

use super::coder::Coder;
use super::logistic::Learnt;
use super::number::Numbers;

/// Codes numbers of at most `most` whose sum is `left`. Each first says whether it is zero: learnt
/// from the one before, and from `hints` where there are any: of `hints.len()` equal groups of
/// lines, whether the group is expected to hold entries.
///
/// Whatever a decoder reads, the numbers sum up to `left`, if so many fit.
pub(super) fn code(
    coder: &mut impl Coder,
    own: &[u64],
    most: u64,
    mut left: u64,
    hints: &[bool],
) -> Vec<u64> {
    let mut some = [[Learnt::new(1 << 15); 3]; 3];
    let mut numbers = Numbers::new();
    let mut before = 2;
    let mut totals = Vec::with_capacity(own.len());
    for (at, &own_total) in own.iter().enumerate() {
        let later = (own.len() - 1 - at) as u64 * most;
        let least = left.saturating_sub(later);
        let bound = most.min(left);
        if least >= bound {
            // What is left decides it.
            totals.push(bound);
            left -= bound;
            continue;
        }
        let hint = hints.get(at * hints.len() / own.len());
        let learnt = &mut some[hint.map_or(2, |&hint| usize::from(hint))][before];
        let is_some = least > 0 || {
            let is_some = coder.bit(own_total > 0, learnt.p());
            learnt.learn(is_some, 255);
            is_some
        };
        before = usize::from(is_some);
        let total = if is_some {
            let least = least.max(1);
            least + numbers.code(coder, own_total.saturating_sub(least), bound - least)
        } else {
            0
        };
        left -= total;
        totals.push(total);
    }
    totals
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::coder::Meter;
    use super::super::range::{Decoder, Encoder};
    use super::*;

    fn round_trip(own: &[u64], most: u64, hints: &[bool]) -> usize {
        let sum = own.iter().sum();
        let mut encoder = Encoder::default();
        assert_eq!(code(&mut encoder, own, most, sum, hints), own);
        let bytes = encoder.into_bytes();
        let mut decoder = Decoder::new(&bytes);
        let unknown = vec![0; own.len()];
        assert_eq!(code(&mut decoder, &unknown, most, sum, hints), own);
        assert!(decoder.is_exhausted());
        bytes.len()
    }

    proptest! {
        #[test]
        fn totals_come_back(
            own in prop::collection::vec(prop_oneof![Just(0), 0u64..9, 0u64..700], 0..80),
            most in 0u64..900,
            hints in prop::collection::vec(any::<bool>(), 0..90),
        ) {
            let own: Vec<u64> = own.iter().map(|total| *total.min(&most)).collect();
            round_trip(&own, most, &hints);
        }

        #[test]
        fn any_bytes_make_totals_that_fit(
            bytes in prop::collection::vec(any::<u8>(), 0..60),
            lines in 1usize..40,
            most in 0u64..20,
            part in 0u64..=100,
        ) {
            let sum = lines as u64 * most * part / 100;
            let totals = code(&mut Decoder::new(&bytes), &vec![0; lines], most, sum, &[]);
            prop_assert_eq!(totals.iter().sum::<u64>(), sum);
            prop_assert!(totals.iter().all(|total| *total <= most));
        }
    }

    #[test]
    fn what_is_decided_takes_nothing() {
        assert_eq!(round_trip(&[], 5, &[]), 0);
        assert_eq!(round_trip(&[7], 9, &[]), 0);
        assert_eq!(round_trip(&[9; 100], 9, &[]), 0);
        assert_eq!(round_trip(&[0; 100], 9, &[]), 0);
    }

    #[test]
    fn hints_that_are_right_save_what_they_say() {
        let own: Vec<u64> = (0..500u64).map(|at| u64::from(at * at % 7 == 1)).collect();
        let hints: Vec<bool> = own.iter().map(|total| *total > 0).collect();
        let mut meter = Meter::default();
        code(&mut meter, &own, 1, own.iter().sum(), &hints);
        assert!(meter.0.bits() < 64, "{}", meter.0.bits());
        assert!(round_trip(&own, 1, &[]) > 20);
    }
}
