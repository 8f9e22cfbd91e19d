//! Numbers of a few bits, one after the other.

use super::MAX_BITS;
use crate::SparseError;

/// `len` codes of `bits` bits each, packed without gaps: code `i` takes the bits from `i · bits` on,
/// the lowest bit of a byte first. The last byte is filled up with zero bits.
///
/// # Example
/// ```
/// use burn_sparse::quant::BitCodes;
///
/// let codes = BitCodes::new(3, [5, 0, 7, 1])?;
/// assert_eq!((codes.len(), codes.as_bytes().len()), (4, 2));
/// assert_eq!(codes.iter().collect::<Vec<_>>(), [5, 0, 7, 1]);
/// assert_eq!(codes.get(2), 7);
/// # Ok::<(), burn_sparse::SparseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BitCodes {
    bits: u8,
    len: usize,
    bytes: Vec<u8>,
}

fn invalid(reason: String) -> SparseError {
    SparseError::Format {
        format: "codes",
        reason,
    }
}

fn check_bits(bits: u8) -> Result<(), SparseError> {
    if (1..=MAX_BITS).contains(&bits) {
        Ok(())
    } else {
        Err(SparseError::Bits(bits))
    }
}

impl BitCodes {
    /// Packs codes.
    ///
    /// # Errors
    /// [`SparseError::Bits`] for bits outside 1 to 16, [`SparseError::Format`] for a code that they
    /// cannot hold.
    pub fn new(bits: u8, codes: impl IntoIterator<Item = u16>) -> Result<Self, SparseError> {
        check_bits(bits)?;
        let (mut bytes, mut len) = (Vec::new(), 0);
        let (mut word, mut filled) = (0u32, 0);
        for code in codes {
            if u32::from(code) >> bits != 0 {
                return Err(invalid(format!("code {code} does not fit {bits} bits")));
            }
            word |= u32::from(code) << filled;
            filled += u32::from(bits);
            while filled >= 8 {
                bytes.push(word as u8);
                word >>= 8;
                filled -= 8;
            }
            len += 1;
        }
        if filled > 0 {
            bytes.push(word as u8);
        }
        Ok(Self { bits, len, bytes })
    }

    /// Takes codes that were packed.
    ///
    /// # Errors
    /// [`SparseError::Bits`] for bits outside 1 to 16, [`SparseError::Format`] for another number of
    /// bytes than `len` codes take, or bits set after the last.
    pub fn from_bytes(bits: u8, len: usize, bytes: Vec<u8>) -> Result<Self, SparseError> {
        check_bits(bits)?;
        let needed = len.checked_mul(usize::from(bits)).map(|b| b.div_ceil(8));
        if needed != Some(bytes.len()) {
            let found = bytes.len();
            return Err(invalid(format!(
                "{found} bytes for {len} codes of {bits} bits"
            )));
        }
        let used = len * usize::from(bits) % 8;
        if used != 0 && bytes.last().is_some_and(|last| last >> used != 0) {
            return Err(invalid("bits are set after the last code".to_owned()));
        }
        Ok(Self { bits, len, bytes })
    }

    /// Bits of a code.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Number of codes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The codes as they are packed.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The code at `index`.
    ///
    /// # Panics
    /// If there are not that many.
    pub fn get(&self, index: usize) -> u16 {
        assert!(index < self.len, "code {index} of {}", self.len);
        let bit = index * usize::from(self.bits);
        let word = (0..3).fold(0u32, |word, byte| {
            let byte_at = self.bytes.get(bit / 8 + byte).copied().unwrap_or(0);
            word | u32::from(byte_at) << (8 * byte)
        });
        (word >> (bit % 8) & ((1 << self.bits) - 1)) as u16
    }

    /// All codes in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = u16> + '_ {
        (0..self.len).map(|index| self.get(index))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_code_comes_back(bits in 1u8..=16, codes in prop::collection::vec(any::<u16>(), 0..50)) {
            let codes: Vec<u16> = codes.iter().map(|c| c & ((1u32 << bits) - 1) as u16).collect();
            let packed = BitCodes::new(bits, codes.iter().copied()).unwrap();
            prop_assert_eq!(packed.iter().collect::<Vec<_>>(), codes.clone());
            prop_assert_eq!(packed.as_bytes().len(), (codes.len() * usize::from(bits)).div_ceil(8));
            let again = BitCodes::from_bytes(bits, codes.len(), packed.as_bytes().to_vec()).unwrap();
            prop_assert_eq!(again, packed);
        }
    }

    #[test]
    fn what_cannot_be_codes_is_refused() {
        assert!(matches!(BitCodes::new(0, []), Err(SparseError::Bits(0))));
        assert!(matches!(BitCodes::new(17, []), Err(SparseError::Bits(17))));
        let error = BitCodes::new(3, [8]).unwrap_err().to_string();
        assert!(error.contains("code 8"), "{error}");
        for (len, bytes, says) in [
            (3, vec![0, 0, 0], "3 bytes for 3 codes"),
            (usize::MAX, vec![], "0 bytes"),
            (2, vec![0x40], "after the last"),
        ] {
            let error = BitCodes::from_bytes(3, len, bytes).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
