//! Numbers of a few bits, one behind the other.
//!
//! Bit `i % 8` (the lowest is 0) of byte `i / 8` is the `i`th; numbers start with their lowest bit, and
//! the last byte is filled up with zeros.

#[derive(Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
    len: usize,
}

impl Writer {
    pub(super) fn bit(&mut self, set: bool) {
        if self.len.is_multiple_of(8) {
            self.bytes.push(0);
        }
        if set {
            self.bytes[self.len / 8] |= 1 << (self.len % 8);
        }
        self.len += 1;
    }

    /// The lowest `width` bits of a number.
    pub(super) fn number(&mut self, number: usize, width: usize) {
        (0..width).for_each(|at| self.bit(number >> at & 1 == 1));
    }

    /// A bit for each of `len` ids; those given, which ascend, are set.
    pub(super) fn ids(&mut self, len: usize, ids: &[u16]) {
        let mut ids = ids.iter().map(|&id| usize::from(id)).peekable();
        (0..len).for_each(|id| self.bit(ids.next_if_eq(&id).is_some()));
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    next: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, next: 0 }
    }

    /// Bits that have not been read, padding included.
    pub(super) fn left(&self) -> usize {
        self.bytes.len().saturating_mul(8) - self.next
    }

    pub(super) fn bit(&mut self) -> Result<bool, String> {
        let byte = self
            .bytes
            .get(self.next / 8)
            .ok_or("its index ends early")?;
        let set = byte >> (self.next % 8) & 1 == 1;
        self.next += 1;
        Ok(set)
    }

    pub(super) fn number(&mut self, width: usize) -> Result<usize, String> {
        (0..width).try_fold(0, |number, at| Ok(number | usize::from(self.bit()?) << at))
    }

    /// The ids below `len` whose bits are set.
    pub(super) fn ids(&mut self, len: usize) -> Result<Vec<usize>, String> {
        let mut ids = Vec::new();
        for id in 0..len {
            if self.bit()? {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    /// That nothing but padding is left.
    pub(super) fn finish(mut self) -> Result<(), String> {
        let left = self.left();
        if left >= 8 || self.number(left)? != 0 {
            return Err(format!("{left} bits are left over after its index"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let mut bits = Writer::default();
        bits.bit(true);
        bits.number(5, 3);
        bits.ids(6, &[0, 4]);
        let bytes = bits.into_bytes();
        assert_eq!(bytes, [0b0001_1011, 0b01]);
        let mut bits = Reader::new(&bytes);
        assert!(bits.bit().unwrap());
        assert_eq!(bits.number(3), Ok(5));
        assert_eq!(bits.ids(6), Ok(vec![0, 4]));
        assert_eq!(bits.left(), 6);
        bits.finish().unwrap();
        let mut bits = Reader::new(&bytes);
        assert_eq!(bits.number(10), Ok(0b01_0001_1011));
        assert!(bits.number(7).unwrap_err().contains("ends early"));
        let full = Reader::new(&[0x80]).finish().unwrap_err();
        assert!(full.contains("8 bits are left"), "{full}");
        let mut padded = Reader::new(&[0x80]);
        padded.bit().unwrap();
        assert!(padded.finish().unwrap_err().contains("7 bits are left"));
    }
}
