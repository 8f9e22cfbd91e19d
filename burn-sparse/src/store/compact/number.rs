//! Whole numbers, small ones in few bits.

use super::coder::Coder;
use super::logistic::Learnt;

/// How many bits of a length are learnt; longer ones share the last.
const LENGTHS: usize = 24;

/// Learns the lengths of numbers, and the highest bit of what follows (Elias' gamma code with learnt
/// bits).
#[derive(Debug, Clone)]
pub(super) struct Numbers {
    longer: [Learnt; LENGTHS],
    high: [Learnt; LENGTHS],
}

impl Numbers {
    pub(super) fn new() -> Self {
        Self {
            longer: [Learnt::new(1 << 15); LENGTHS],
            high: [Learnt::new(1 << 15); LENGTHS],
        }
    }

    /// Codes a number of at most `most`; that takes nothing if it is 0.
    pub(super) fn code(&mut self, coder: &mut impl Coder, number: u64, most: u64) -> u64 {
        let longest = u64::BITS - most.leading_zeros();
        let own = u64::BITS - number.leading_zeros();
        let mut length = 0;
        while length < longest {
            let learnt = &mut self.longer[(length as usize).min(LENGTHS - 1)];
            let longer = coder.bit(length < own, learnt.p());
            learnt.learn(longer, 255);
            if !longer {
                break;
            }
            length += 1;
        }
        if length < 2 {
            return u64::from(length).min(most);
        }
        let learnt = &mut self.high[(length as usize).min(LENGTHS - 1)];
        let high = coder.bit(number >> (length - 2) & 1 == 1, learnt.p());
        learnt.learn(high, 255);
        let rest = coder.plain(number, length - 2);
        ((2 + u64::from(high)) << (length - 2) | rest).min(most)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::range::{Decoder, Encoder};
    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back(numbers in prop::collection::vec((any::<u64>(), 0u32..64), 0..60)) {
            let numbers: Vec<(u64, u64)> = numbers
                .into_iter()
                .map(|(number, shift)| (number >> shift, (number >> shift).saturating_mul(3)))
                .collect();
            let mut encoder = Encoder::default();
            let mut learnt = Numbers::new();
            for &(number, most) in &numbers {
                prop_assert_eq!(learnt.code(&mut encoder, number, most), number);
            }
            let bytes = encoder.into_bytes();
            let mut decoder = Decoder::new(&bytes);
            let mut learnt = Numbers::new();
            for &(number, most) in &numbers {
                prop_assert_eq!(learnt.code(&mut decoder, 0, most), number);
            }
            prop_assert!(decoder.is_exhausted());
        }

        #[test]
        fn no_bytes_make_a_number_too_large(bytes in prop::collection::vec(any::<u8>(), 0..40), most in any::<u64>(), shift in 0u32..64) {
            let mut decoder = Decoder::new(&bytes);
            let mut learnt = Numbers::new();
            for _ in 0..40 {
                prop_assert!(learnt.code(&mut decoder, 0, most >> shift) <= most >> shift);
            }
        }
    }
}
