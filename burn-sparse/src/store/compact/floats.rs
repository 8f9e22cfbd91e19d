//! Floats that are on no grid: the sign, the exponent and the first digits have something to learn.

use super::coder::Coder;
use super::elements::Elements;
use super::logistic::Learnt;

/// The highest bits of an element: all of the exponent for any format, three digits of an f32.
const LEARNT_BITS: u32 = 12;
const MEMORY: u16 = 1_000;

/// Codes elements of any format.
pub(super) fn code(coder: &mut impl Coder, elements: &mut Elements) {
    let bits = 8 * elements.width() as u32;
    let learnt_bits = bits.min(LEARNT_BITS);
    let mut nodes = vec![Learnt::new(1 << 15); 1 << learnt_bits];
    for at in 0..elements.len() {
        let own = elements.get(at);
        let mut node = 1usize;
        for place in (bits - learnt_bits..bits).rev() {
            let learnt = &mut nodes[node];
            let bit = coder.bit(own >> place & 1 == 1, learnt.p());
            learnt.learn(bit, MEMORY);
            node = node << 1 | usize::from(bit);
        }
        let high = node as u64 - (1 << learnt_bits);
        let low = coder.plain(own, bits - learnt_bits);
        elements.set(at, high << (bits - learnt_bits) | low);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::range::{Decoder, Encoder};
    use super::*;

    proptest! {
        #[test]
        fn elements_come_back(
            width in prop::sample::select(vec![1usize, 2, 4, 8]),
            values in prop::collection::vec(any::<u64>(), 0..50),
        ) {
            let mut given = Elements::zeros(width, values.len());
            for (at, value) in values.iter().enumerate() {
                given.set(at, value >> (64 - 8 * width));
            }
            let before = given.clone();
            let mut encoder = Encoder::default();
            code(&mut encoder, &mut given);
            prop_assert_eq!(&given, &before);
            let bytes = encoder.into_bytes();
            let mut decoder = Decoder::new(&bytes);
            let mut read = Elements::zeros(width, values.len());
            code(&mut decoder, &mut read);
            prop_assert_eq!(read, before);
            prop_assert!(decoder.is_exhausted());
        }
    }

    #[test]
    fn exponents_that_are_alike_take_less() {
        let values = (1..5_000).map(|at| (f64::from(at) * 0.37).sin() as f32 * 0.02);
        let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
        let mut elements = Elements::new(4, bytes);
        let mut encoder = Encoder::default();
        code(&mut encoder, &mut elements);
        let bytes = encoder.into_bytes().len();
        assert!(bytes < 4 * 5_000 * 9 / 10, "{bytes}");
    }
}
