//! Which elements are stored, one bit each: `1 + density · b` bits per element of `b` bits, against
//! `density · (16 + b)` with columns.
//!
//! Bit `i % 8` (the lowest is 0) of byte `i / 8` stands for element `i` in row-major order; the bits
//! after the last element are zero.

/// Bytes of a mask for `len` elements.
pub(super) fn mask_len(len: usize) -> usize {
    len.div_ceil(8)
}

/// The mask of `len` elements with the bits of `positions` set.
pub(super) fn mask(len: usize, positions: impl Iterator<Item = usize>) -> Vec<u8> {
    let mut mask = vec![0; mask_len(len)];
    positions.for_each(|at| mask[at / 8] |= 1 << (at % 8));
    mask
}

/// The positions of the bits that are set, ascending.
pub(super) fn positions(mask: &[u8]) -> impl Iterator<Item = usize> + '_ {
    mask.iter().enumerate().flat_map(|(byte, &bits)| {
        let mut bits = bits;
        core::iter::from_fn(move || {
            let bit = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
            bits &= bits - 1;
            Some(8 * byte + bit)
        })
    })
}

/// Whether this is a mask of `len` elements with `stored` bits set; the reason if not.
pub(super) fn check(mask: &[u8], len: usize, stored: usize) -> Result<(), String> {
    if mask.len() != mask_len(len) {
        let bytes = mask.len();
        return Err(format!("its mask has {bytes} bytes for {len} elements"));
    }
    if !len.is_multiple_of(8) && mask.last().is_some_and(|last| last >> (len % 8) != 0) {
        return Err(format!("its mask has bits set after the {len}th, the last"));
    }
    let set: usize = mask.iter().map(|byte| byte.count_ones() as usize).sum();
    if set != stored {
        return Err(format!(
            "its mask has {set} bits set for {stored} stored elements"
        ));
    }
    Ok(())
}

/// The elements of a tensor that are not positive zero.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Masked {
    pub(super) mask: Vec<u8>,
    /// Little-endian, as they were: negative zeros and the payloads of NaNs are kept.
    pub(super) values: Vec<u8>,
    pub(super) stored: usize,
    /// The stored elements that are no negative zeros.
    pub(super) nnz: usize,
}

impl Masked {
    /// From IEEE floats of `width` bytes, little-endian.
    pub(super) fn new(bytes: &[u8], width: usize) -> Self {
        let elements = || bytes.chunks_exact(width);
        let kept = |element: &[u8]| element.iter().any(|&byte| byte != 0);
        let stored = elements().filter(|element| kept(element)).count();
        let mut values = Vec::with_capacity(stored * width);
        let mut nnz = 0;
        let positions = elements()
            .enumerate()
            .filter(|(_, element)| kept(element))
            .inspect(|(_, element)| {
                values.extend_from_slice(element);
                let (sign, magnitude) = element.split_last().expect("not empty");
                nnz += usize::from(sign & 0x7f != 0 || kept(magnitude));
            });
        let mask = mask(bytes.len() / width, positions.map(|(at, _)| at));
        Self {
            mask,
            values,
            stored,
            nnz,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.mask.len() + self.values.len()
    }
}

/// The bytes that [`Masked::new`] took, of a mask that passed [`check`] and as many values.
pub(super) fn expand(mask: &[u8], values: &[u8], len: usize, width: usize) -> Vec<u8> {
    let mut bytes = vec![0; len * width];
    for (at, value) in positions(mask).zip(values.chunks_exact(width)) {
        bytes[at * width..][..width].copy_from_slice(value);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bits_are_row_major_from_the_lowest() {
        assert_eq!(mask(11, [0, 3, 8, 10].into_iter()), [0b1001, 0b101]);
        assert_eq!(
            positions(&[0b1001, 0b101]).collect::<Vec<_>>(),
            [0, 3, 8, 10]
        );
        assert!(mask(0, core::iter::empty()).is_empty());
        assert_eq!(positions(&[]).count(), 0);
    }

    #[test]
    fn masks_of_another_length_count_or_padding_are_refused() {
        check(&[0b1001, 0b101], 11, 4).unwrap();
        check(&[0xff], 8, 8).unwrap();
        check(&[], 0, 0).unwrap();
        assert!(check(&[0b1001], 11, 2).unwrap_err().contains("1 bytes"));
        assert!(check(&[1, 0, 0], 11, 1).unwrap_err().contains("3 bytes"));
        assert!(check(&[0], 0, 0).unwrap_err().contains("1 bytes"));
        for bit in 3..8 {
            let reason = check(&[0, 1 << bit], 11, 1).unwrap_err();
            assert!(reason.contains("after the 11th"), "{reason}");
        }
        assert!(check(&[0b1001, 0], 11, 3).unwrap_err().contains("2 bits"));
    }

    #[test]
    fn only_positive_zeros_are_dropped() {
        let nan = f32::from_bits(0x7fa0_0001);
        let values = [0.0, -0.0, nan, 0.0, f32::from_bits(1), 2.0];
        let bytes: Vec<u8> = values.iter().flat_map(|v: &f32| v.to_le_bytes()).collect();
        let masked = Masked::new(&bytes, 4);
        assert_eq!(masked.mask, [0b11_0110]);
        assert_eq!((masked.stored, masked.nnz, masked.len()), (4, 3, 17));
        assert_eq!(expand(&masked.mask, &masked.values, 6, 4), bytes);
    }

    proptest! {
        #[test]
        fn every_bit_comes_back(
            elements in prop::collection::vec(prop_oneof![3 => Just(0u64), 1 => any::<u64>(), 1 => Just(1 << 63)], 0..70),
            width in prop::sample::select(vec![2usize, 4, 8]),
        ) {
            // The upper bytes, so that the sign is where it is in a float.
            let bytes: Vec<u8> = elements
                .iter()
                .flat_map(|element| element.to_le_bytes()[8 - width..].to_vec())
                .collect();
            let masked = Masked::new(&bytes, width);
            check(&masked.mask, elements.len(), masked.stored).unwrap();
            prop_assert_eq!(masked.values.len(), masked.stored * width);
            prop_assert_eq!(expand(&masked.mask, &masked.values, elements.len(), width), bytes);
            let again = mask(elements.len(), positions(&masked.mask));
            prop_assert_eq!(again, masked.mask);
        }
    }
}
