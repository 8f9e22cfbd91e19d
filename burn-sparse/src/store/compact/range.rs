//! Range coding with `constriction`: one stream for a whole file.
//!
//! Words of 16 bits over a state of 64: the range never falls below 2^48, so probabilities of 16 bits
//! are kept exactly, and the end of the stream costs a word or two.

use constriction::backends::Cursor;
use constriction::stream::model::{DecoderModel, EncoderModel, EntropyModel};
use constriction::stream::queue::{RangeDecoder, RangeEncoder};
use constriction::stream::{Decode, Encode};
use core::borrow::Borrow;
use core::num::NonZeroU16;

use super::coder::{Coder, Information, of};

/// Bits of a probability.
const PRECISION: usize = 16;

/// A bit that is one with a probability of `.0 / 65536`.
#[derive(Clone, Copy)]
struct Bit(u16);

/// `.0` bits from 1 to 16, each as likely as not.
#[derive(Clone, Copy)]
struct Piece(u32);

impl EntropyModel<PRECISION> for Bit {
    type Symbol = bool;
    type Probability = u16;
}

impl EntropyModel<PRECISION> for Piece {
    type Symbol = u16;
    type Probability = u16;
}

fn non_zero(probability: u16) -> NonZeroU16 {
    NonZeroU16::new(probability).unwrap_or(NonZeroU16::MIN)
}

impl Bit {
    /// Zero comes first.
    fn start(self, bit: bool) -> u16 {
        if bit { self.0.wrapping_neg() } else { 0 }
    }
}

impl EncoderModel<PRECISION> for Bit {
    fn left_cumulative_and_probability(&self, bit: impl Borrow<bool>) -> Option<(u16, NonZeroU16)> {
        let bit = *bit.borrow();
        Some((self.start(bit), non_zero(of(bit, self.0))))
    }
}

impl DecoderModel<PRECISION> for Bit {
    fn quantile_function(&self, quantile: u16) -> (bool, u16, NonZeroU16) {
        let bit = quantile >= self.start(true);
        (bit, self.start(bit), non_zero(of(bit, self.0)))
    }
}

impl Piece {
    fn share(self) -> u16 {
        1 << (16 - self.0)
    }
}

impl EncoderModel<PRECISION> for Piece {
    fn left_cumulative_and_probability(
        &self,
        piece: impl Borrow<u16>,
    ) -> Option<(u16, NonZeroU16)> {
        let start = u32::from(*piece.borrow()) << (16 - self.0);
        Some((start as u16, non_zero(self.share())))
    }
}

impl DecoderModel<PRECISION> for Piece {
    fn quantile_function(&self, quantile: u16) -> (u16, u16, NonZeroU16) {
        let piece = u32::from(quantile) >> (16 - self.0);
        let start = piece << (16 - self.0);
        (piece as u16, start as u16, non_zero(self.share()))
    }
}

/// Writes a stream.
#[derive(Default)]
pub(super) struct Encoder {
    range: RangeEncoder<u16, u64>,
    information: Information,
}

impl Encoder {
    /// What was written so far.
    pub(super) fn information(&self) -> &Information {
        &self.information
    }

    /// The stream; its trailing zeros are left out, as a decoder finds zeros after the end.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        let least = bytes_of(self.information.bits()) as usize;
        // Writing to memory does not fail.
        let words = self.range.into_compressed().unwrap_or_default();
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        while bytes.len() > least && bytes.last() == Some(&0) {
            bytes.pop();
        }
        bytes
    }
}

/// Whole bytes nearest to so many bits.
pub(super) fn bytes_of(bits: u64) -> u64 {
    (bits + 4) / 8
}

impl Coder for Encoder {
    fn bit(&mut self, bit: bool, one: u16) -> bool {
        self.information.add(of(bit, one));
        // Every bit is possible, and writing to memory does not fail.
        let _ = self.range.encode_symbol(bit, Bit(one));
        bit
    }

    fn piece(&mut self, piece: u16, bits: u32) -> u16 {
        self.information.add_bits(bits);
        let _ = self.range.encode_symbol(piece, Piece(bits));
        piece
    }
}

/// Reads a stream. Any bytes can be read, for as long as one likes.
pub(super) struct Decoder {
    range: RangeDecoder<u16, u64, Cursor<u16, Vec<u16>>>,
    information: Information,
    broken: bool,
    len: usize,
}

impl Decoder {
    pub(super) fn new(bytes: &[u8]) -> Self {
        let words = bytes.chunks(2).map(|pair| {
            let low = pair.get(1).copied().unwrap_or(0);
            u16::from_be_bytes([pair[0], low])
        });
        let words = Cursor::new_at_write_beginning(words.collect::<Vec<u16>>());
        Self {
            range: RangeDecoder::with_backend(words).unwrap_or_else(|never| match never {}),
            information: Information::default(),
            broken: false,
            len: bytes.len(),
        }
    }

    /// What was read so far.
    pub(super) fn information(&self) -> &Information {
        &self.information
    }

    /// Whether what was read is what the whole stream says.
    pub(super) fn is_exhausted(&self) -> bool {
        let least = bytes_of(self.information.bits()) as usize;
        !self.broken && self.range.maybe_exhausted() && (least..least + 6).contains(&self.len)
    }
}

impl Coder for Decoder {
    fn bit(&mut self, _: bool, one: u16) -> bool {
        let bit = self.range.decode_symbol(Bit(one)).unwrap_or_else(|_| {
            self.broken = true;
            false
        });
        self.information.add(of(bit, one));
        bit
    }

    fn piece(&mut self, _: u16, bits: u32) -> u16 {
        self.information.add_bits(bits);
        self.range.decode_symbol(Piece(bits)).unwrap_or_else(|_| {
            self.broken = true;
            0
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Bit(bool, u16),
        Plain(u64, u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        let p = prop_oneof![1u16..=65_535, Just(1), Just(65_535), 1u16..50];
        prop_oneof![
            4 => (any::<bool>(), p).prop_map(|(bit, p)| Step::Bit(bit, p)),
            1 => (any::<u64>(), 0u32..=64).prop_map(|(value, bits)| {
                Step::Plain(if bits == 64 { value } else { value & ((1 << bits) - 1) }, bits)
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(steps in prop::collection::vec(step(), 0..300)) {
            let mut encoder = Encoder::default();
            for step in &steps {
                match *step {
                    Step::Bit(bit, p) => drop(encoder.bit(bit, p)),
                    Step::Plain(value, bits) => drop(encoder.plain(value, bits)),
                }
            }
            let bits = encoder.information().bits();
            let bytes = encoder.into_bytes();
            let least = bytes_of(bits) as usize;
            prop_assert!((least..least + 6).contains(&bytes.len()));
            let mut decoder = Decoder::new(&bytes);
            for step in &steps {
                match *step {
                    Step::Bit(bit, p) => prop_assert_eq!(decoder.bit(false, p), bit),
                    Step::Plain(value, bits) => prop_assert_eq!(decoder.plain(0, bits), value),
                }
            }
            prop_assert_eq!(decoder.information().bits(), bits);
            prop_assert!(decoder.is_exhausted());
            let long = [&bytes[..], &[7; 8]].concat();
            let mut decoder = Decoder::new(&long);
            for step in &steps {
                match *step {
                    Step::Bit(_, p) => drop(decoder.bit(false, p)),
                    Step::Plain(_, bits) => drop(decoder.plain(0, bits)),
                }
            }
            prop_assert!(!decoder.is_exhausted());
        }
    }
}
