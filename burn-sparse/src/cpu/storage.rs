//! The types in which feature maps may lie in memory. All sums are f32.

use bytemuck::Pod;
use half::{bf16, f16, slice::HalfFloatSliceExt};

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::f16 {}
    impl Sealed for half::bf16 {}
}

/// A type of feature maps: f32, f16 or bf16.
///
/// Half the bytes are half the way through memory; the kernels widen a strip of the input while
/// they copy it into their own layout, and round an output once, when it is stored.
pub trait Storage: Pod + Send + Sync + sealed::Sealed {
    /// The values, where they are f32.
    fn as_f32s(values: &[Self]) -> Option<&[f32]>;

    /// The values, where they are f32.
    fn as_f32s_mut(values: &mut [Self]) -> Option<&mut [f32]>;

    /// Exactly the same values.
    ///
    /// # Panics
    /// If the slices differ in length.
    fn widen(from: &[Self], to: &mut [f32]);

    /// The nearest values, those with an even last digit of two that are equally near.
    ///
    /// # Panics
    /// If the slices differ in length.
    fn narrow(from: &[f32], to: &mut [Self]);
}

impl Storage for f32 {
    fn as_f32s(values: &[Self]) -> Option<&[f32]> {
        Some(values)
    }

    fn as_f32s_mut(values: &mut [Self]) -> Option<&mut [f32]> {
        Some(values)
    }

    fn widen(from: &[Self], to: &mut [f32]) {
        to.copy_from_slice(from);
    }

    fn narrow(from: &[f32], to: &mut [Self]) {
        to.copy_from_slice(from);
    }
}

impl Storage for f16 {
    fn as_f32s(_: &[Self]) -> Option<&[f32]> {
        None
    }

    fn as_f32s_mut(_: &mut [Self]) -> Option<&mut [f32]> {
        None
    }

    // By the processor's instructions, where it has them.
    fn widen(from: &[Self], to: &mut [f32]) {
        from.convert_to_f32_slice(to);
    }

    fn narrow(from: &[f32], to: &mut [Self]) {
        to.convert_from_f32_slice(from);
    }
}

impl Storage for bf16 {
    fn as_f32s(_: &[Self]) -> Option<&[f32]> {
        None
    }

    fn as_f32s_mut(_: &mut [Self]) -> Option<&mut [f32]> {
        None
    }

    // Integer arithmetic without branches: compilers make vectors of it.
    fn widen(from: &[Self], to: &mut [f32]) {
        assert_eq!(from.len(), to.len(), "slices to convert");
        for (to, from) in to.iter_mut().zip(from) {
            *to = f32::from_bits(u32::from(from.to_bits()) << 16);
        }
    }

    fn narrow(from: &[f32], to: &mut [Self]) {
        assert_eq!(from.len(), to.len(), "slices to convert");
        for (to, from) in to.iter_mut().zip(from) {
            let bits = from.to_bits();
            let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
            // A NaN must stay one, whatever rounding would do to its digits.
            let nan = bits >> 16 | 0x40;
            let bits = if from.is_nan() { nan } else { rounded };
            *to = bf16::from_bits(bits as u16);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of all magnitudes and both signs, ties and infinities among them.
    fn numbers() -> Vec<f32> {
        let bits = (0..1u32 << 16).map(|high| high << 16);
        let low = [0, 1, 0x7fff, 0x8000, 0x8001, 0x1000, 0x2000, 0x3000];
        bits.flat_map(|high| low.map(|low| f32::from_bits(high | low)))
            .collect()
    }

    fn check<T: Storage + PartialEq + core::fmt::Debug>(
        narrow: impl Fn(f32) -> T,
        widen: impl Fn(T) -> f32,
    ) {
        let numbers = numbers();
        let mut halves = vec![narrow(0.0); numbers.len()];
        T::narrow(&numbers, &mut halves);
        let mut wide = vec![0.0; numbers.len()];
        T::widen(&halves, &mut wide);
        for ((&number, &half), &back) in numbers.iter().zip(&halves).zip(&wide) {
            if number.is_nan() {
                assert!(back.is_nan());
            } else {
                assert_eq!(half, narrow(number), "{number:e}");
                assert_eq!(back.to_bits(), widen(half).to_bits(), "{number:e}");
            }
        }
    }

    #[test]
    fn conversions_are_those_of_the_half_crate() {
        check(f16::from_f32, f16::to_f32);
        check(bf16::from_f32, bf16::to_f32);
        check(|x| x, |x| x);
    }
}
