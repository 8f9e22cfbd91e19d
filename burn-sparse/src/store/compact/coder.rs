//! What the models of this folder talk to: one function serves to write, to read and to count.

/// Codes bits whose probability both sides know.
///
/// A model hands over the bit and gets it back, so the same function writes and reads: an encoder
/// returns the bit that it was given, a decoder ignores it and returns the one of the file. What the
/// model learns from is the returned one; so both sides learn the same.
pub(super) trait Coder {
    /// Codes `bit`, which is one with a probability of `one / 65536`; `one` is not zero.
    fn bit(&mut self, bit: bool, one: u16) -> bool;

    /// Codes the lowest `bits` bits of `piece`, from 1 to 16, each as likely as not.
    fn piece(&mut self, piece: u16, bits: u32) -> u16;

    /// Codes the lowest `bits` bits of `value`, each as likely as not.
    fn plain(&mut self, value: u64, bits: u32) -> u64 {
        let (mut read, mut left) = (0, bits);
        while left > 0 {
            let now = left.min(16);
            left -= now;
            let piece = (value >> left & ((1 << now) - 1)) as u16;
            read = read << now | u64::from(self.piece(piece, now));
        }
        read
    }
}

/// The information of the bits so far, in integers, so that it is the same on every machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Information {
    /// The probability of everything so far is `mantissa / 2^48 · 2^−bits`.
    mantissa: u64,
    bits: u64,
}

impl Default for Information {
    fn default() -> Self {
        Self {
            mantissa: (1 << 48) - 1,
            bits: 0,
        }
    }
}

impl Information {
    /// Whole bits so far.
    pub(super) fn bits(&self) -> u64 {
        self.bits
    }

    /// Adds bits that are as likely as not.
    pub(super) fn add_bits(&mut self, bits: u32) {
        self.bits += u64::from(bits);
    }

    /// Adds an event with a probability of `probability / 65536`, from 1 to 65535.
    pub(super) fn add(&mut self, probability: u16) {
        // At least 2^47 times at least 1, and less than 2^48 times 2^16.
        let product = self.mantissa * u64::from(probability);
        let zeros = product.leading_zeros();
        self.mantissa = product >> (16 - zeros);
        self.bits += u64::from(zeros);
    }
}

/// The probability of `bit`, of 65536.
pub(super) fn of(bit: bool, one: u16) -> u16 {
    if bit { one } else { one.wrapping_neg() }
}

/// Counts what coding would take.
#[derive(Debug, Clone, Default)]
pub(super) struct Meter(pub(super) Information);

impl Coder for Meter {
    fn bit(&mut self, bit: bool, one: u16) -> bool {
        self.0.add(of(bit, one));
        bit
    }

    fn piece(&mut self, piece: u16, bits: u32) -> u16 {
        self.0.add_bits(bits);
        piece
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn information_is_the_negative_logarithm() {
        let mut meter = Meter::default();
        let mut expected = 0.0;
        for round in 0..200_000u32 {
            let one = (round.wrapping_mul(2_654_435_761) >> 16).max(1) as u16;
            let bit = round % 3 == 0;
            let p = f64::from(of(bit, one)) / 65_536.0;
            expected -= p.log2();
            meter.bit(bit, one);
        }
        assert!((meter.0.bits() as f64 - expected).abs() < 2.0);
        let before = meter.0.bits();
        for (value, bits) in [(0b1011, 4), (0, 0), (u64::MAX, 64), (0x1_2345_6789, 33)] {
            assert_eq!(meter.plain(value, bits), value);
        }
        assert_eq!(meter.0.bits() - before, 4 + 64 + 33);
    }
}
