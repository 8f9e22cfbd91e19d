//! Numbers of any type as they are in a file.

use burn::tensor::DType;
use half::{bf16, f16};

/// Little-endian numbers of 1, 2, 4 or 8 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Elements {
    width: usize,
    bytes: Vec<u8>,
}

impl Elements {
    pub(super) fn new(width: usize, bytes: Vec<u8>) -> Self {
        debug_assert_eq!(bytes.len() % width, 0);
        Self { width, bytes }
    }

    pub(super) fn zeros(width: usize, len: usize) -> Self {
        Self::new(width, vec![0; width * len])
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() / self.width
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The bits of an element.
    pub(super) fn get(&self, at: usize) -> u64 {
        let mut bits = [0; 8];
        bits[..self.width].copy_from_slice(&self.bytes[at * self.width..][..self.width]);
        u64::from_le_bytes(bits)
    }

    /// Writes the lowest bits.
    pub(super) fn set(&mut self, at: usize, bits: u64) {
        let bytes = bits.to_le_bytes();
        self.bytes[at * self.width..][..self.width].copy_from_slice(&bytes[..self.width]);
    }

    /// Those at the given places.
    pub(super) fn pick(&self, places: impl Iterator<Item = usize>) -> Self {
        let picked = places.flat_map(|at| &self.bytes[at * self.width..][..self.width]);
        Self::new(self.width, picked.copied().collect())
    }

    /// As f32, if that keeps every bit of all of them.
    pub(super) fn to_f32(&self, dtype: DType) -> Option<Vec<f32>> {
        (0..self.len())
            .map(|at| {
                let bits = self.get(at);
                let value = match dtype {
                    DType::F32 | DType::Flex32 => f32::from_bits(bits as u32),
                    DType::F16 => f16::from_bits(bits as u16).to_f32(),
                    DType::BF16 => bf16::from_bits(bits as u16).to_f32(),
                    DType::F64 => f64::from_bits(bits) as f32,
                    _ => return None,
                };
                (of_f32(value, dtype) == Some(bits)).then_some(value)
            })
            .collect()
    }
}

/// The bits of a number in another type; nothing for types that hold no floats.
pub(super) fn of_f32(value: f32, dtype: DType) -> Option<u64> {
    Some(match dtype {
        DType::F32 | DType::Flex32 => u64::from(value.to_bits()),
        DType::F16 => u64::from(f16::from_f32(value).to_bits()),
        DType::BF16 => u64::from(bf16::from_f32(value).to_bits()),
        DType::F64 => f64::from(value).to_bits(),
        _ => return None,
    })
}
