//! Codes of quantised values, told by a model that learns how often each occurs.

use super::coder::Coder;
use super::logistic::{Learnt, Mixer, stretch};

/// Longer codes have their lowest bits told as they are: there are too few to learn them.
const LEARNT_BITS: u32 = 8;
const MEMORY: u16 = 1_000;
const RATE: i32 = 2;

/// The magnitude above the sign: codes of opposite numbers share what is learnt of magnitudes.
fn fold(code: u16, bits: u32) -> u16 {
    let half = 1u32 << (bits - 1);
    let code = u32::from(code);
    let folded = if code < half {
        (half - 1 - code) << 1 | 1
    } else {
        (code - half) << 1
    };
    folded as u16
}

/// Undoes [`fold`].
fn unfold(folded: u16, bits: u32) -> u16 {
    let half = 1u32 << (bits - 1);
    let magnitude = u32::from(folded) >> 1;
    let code = if folded & 1 == 1 {
        half - 1 - magnitude
    } else {
        half + magnitude
    };
    code as u16
}

/// What a code says to those after it, below 9: nothing yet, or its sign and the highest bits of its
/// magnitude.
fn gist(folded: u16, bits: u32) -> usize {
    let magnitude = usize::from(folded) >> 1 >> bits.saturating_sub(3);
    1 + (magnitude << 1 | usize::from(folded & 1))
}

/// Codes the `codes` of `bits` bits of values in the given columns. Each is told bit by bit, after
/// all before it, after the one before it and after the last of its column.
pub(super) fn code(
    coder: &mut impl Coder,
    bits: u32,
    codes: &mut [u16],
    columns: impl Iterator<Item = usize>,
    width: usize,
) {
    let learnt_bits = bits.min(LEARNT_BITS);
    let plain_bits = bits - learnt_bits;
    let nodes = 1 << learnt_bits;
    let start = Learnt::new(1 << 15);
    let mut always = vec![start; nodes];
    let mut after = vec![start; 9 * nodes];
    let mut below = vec![start; 9 * nodes];
    let mut mixer = Mixer::new(LEARNT_BITS as usize, [32_000, 20_000, 16_000], RATE);
    let (mut before, mut last) = (0, vec![0u8; width]);
    for (code, column) in codes.iter_mut().zip(columns) {
        // The sign, lowest, is to be among the bits that are learnt.
        let folded = u32::from(fold(*code, bits));
        let (sign, magnitude) = (folded & 1, folded >> 1);
        let own = magnitude >> plain_bits << 1 | sign;
        let mut node = 1;
        for at in 0..learnt_bits {
            let contexts = [
                &mut always[node],
                &mut after[before * nodes + node],
                &mut below[usize::from(last[column]) * nodes + node],
            ];
            let inputs = [0, 1, 2].map(|context: usize| stretch(contexts[context].p()));
            let p = mixer.mix(at as usize, inputs);
            let bit = coder.bit(own >> (learnt_bits - 1 - at) & 1 == 1, p);
            contexts
                .into_iter()
                .for_each(|context| context.learn(bit, MEMORY));
            mixer.learn(bit);
            node = node << 1 | usize::from(bit);
        }
        let own = node as u32 - (1 << learnt_bits);
        let rest = coder.plain(u64::from(magnitude), plain_bits) as u32;
        let folded = ((own >> 1) << plain_bits | rest) << 1 | own & 1;
        *code = unfold(folded as u16, bits);
        before = gist(folded as u16, bits);
        last[column] = before as u8;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::range::{Decoder, Encoder};
    use super::*;

    fn round_trip(bits: u32, codes: &[u16], columns: &[usize], width: usize) -> usize {
        let mut encoder = Encoder::default();
        let mut given = codes.to_vec();
        code(
            &mut encoder,
            bits,
            &mut given,
            columns.iter().copied(),
            width,
        );
        assert_eq!(given, codes);
        let bytes = encoder.into_bytes();
        let mut decoder = Decoder::new(&bytes);
        let mut read = vec![0; codes.len()];
        code(
            &mut decoder,
            bits,
            &mut read,
            columns.iter().copied(),
            width,
        );
        assert_eq!(read, codes);
        assert!(decoder.is_exhausted());
        bytes.len()
    }

    proptest! {
        #[test]
        fn codes_come_back(bits in 1u32..=16, codes in prop::collection::vec((any::<u16>(), 0usize..7), 0..90)) {
            let (codes, columns): (Vec<u16>, Vec<usize>) = codes
                .into_iter()
                .map(|(code, column)| ((u32::from(code) & ((1 << bits) - 1)) as u16, column))
                .unzip();
            prop_assert!(codes.iter().all(|&code| unfold(fold(code, bits), bits) == code));
            round_trip(bits, &codes, &columns, 7);
        }

        #[test]
        fn any_bytes_make_codes(bits in 1u32..=16, bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut codes = vec![0; 60];
            code(&mut Decoder::new(&bytes), bits, &mut codes, (0..60).map(|at| at % 3), 3);
            prop_assert!(codes.iter().all(|&code| u32::from(code) >> bits == 0));
        }
    }

    #[test]
    fn frequent_codes_take_less() {
        // Four levels, one of them nine times in ten: 0.74 bits each instead of 2.
        let codes: Vec<u16> = (0..4_000u32)
            .map(|at| if at * 7 % 10 == 0 { (at % 3) as u16 } else { 3 })
            .collect();
        let columns: Vec<usize> = (0..4_000).map(|at| at % 50).collect();
        let bytes = round_trip(2, &codes, &columns, 50);
        assert!(bytes < 500, "{bytes}");
        // Without anything to learn, hardly more than the bits.
        let codes: Vec<u16> = (0..4_000u32)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 30) as u16)
            .collect();
        let bytes = round_trip(2, &codes, &columns, 50);
        assert!(bytes < 1_040, "{bytes}");
    }
}
