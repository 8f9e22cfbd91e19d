//! Number types of operands.

use std::fmt;

use burn::tensor::{Device, FloatDType};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The type of the numbers of inputs, weights and outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lowercase")]
pub enum Dtype {
    /// 32 bits
    #[default]
    F32,
    /// 16 bits, 11 of them for the digits
    F16,
    /// 16 bits with the range of f32, 8 of them for the digits
    Bf16,
}

impl Dtype {
    /// Bytes of a number.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// Distance from 1 to the next number.
    #[must_use]
    pub const fn epsilon(self) -> f64 {
        match self {
            Self::F32 => f32::EPSILON as f64,
            Self::F16 => 1.0 / 1024.0,
            Self::Bf16 => 1.0 / 128.0,
        }
    }

    /// Whether a device computes in it. One that does not may fail for good when it is asked to.
    #[must_use]
    pub fn runs_on(self, device: &Device) -> bool {
        device.supports_dtype(self.burn())
    }

    /// Burn's name for it.
    #[must_use]
    pub const fn burn(self) -> FloatDType {
        match self {
            Self::F32 => FloatDType::F32,
            Self::F16 => FloatDType::F16,
            Self::Bf16 => FloatDType::BF16,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}
