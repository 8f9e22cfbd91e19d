//! How a tensor of a compact checkpoint is coded, and its entry in the header.

use core::fmt;

use burn::tensor::{BoolStore, DType};
use serde::{Deserialize, Serialize};

use super::super::survey::Kind;
use super::gaps;
use super::varint::{Reader, write};
use crate::quant::MAX_BITS;

/// How the places of the stored elements of a tensor are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// Not at all: every element is stored.
    All,
    /// Not at all: no element is stored.
    Empty,
    /// A bit for each element.
    Mask,
    /// Relative indices of `bits` bits, `count` of them, fillers included.
    Gaps {
        /// 4, 5, 6 or 8.
        bits: u8,
        /// Entries and fillers.
        count: usize,
    },
    /// A range coder and a model that learns from rows, columns and neighbours.
    Coded,
}

/// What codes of a tensor stand for, as [`Levels`](crate::quant::Levels) without its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LevelKind {
    /// Multiples of a scale, without zero.
    Nonzero {
        /// Whether each row with entries has a scale of its own.
        per_row: bool,
    },
    /// Multiples of a scale, with zero.
    Signed {
        /// Whether each row with entries has a scale of its own.
        per_row: bool,
    },
    /// Numbers from a list.
    Codebook {
        /// Numbers in the list.
        entries: usize,
    },
}

/// How the stored elements of a tensor are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Values {
    /// As they are.
    Raw,
    /// A range coder for signs, exponents and first digits, the other digits as they are.
    Floats,
    /// Codes of `bits` bits, one after the other.
    Codes {
        /// 1 to 16.
        bits: u8,
        /// What they stand for.
        levels: LevelKind,
    },
    /// Codes of `bits` bits through a range coder.
    CodedCodes {
        /// 1 to 16.
        bits: u8,
        /// What they stand for.
        levels: LevelKind,
    },
}

/// A tensor of a compact checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorCoding {
    /// How the places of its stored elements are told.
    pub positions: Positions,
    /// How those elements are told.
    pub values: Values,
    /// Stored elements; none where positions are [`All`](Positions::All), whose number only a model
    /// tells.
    pub stored: Option<usize>,
    /// Whether it is a packed weight.
    pub packed: bool,
    /// Whether the stored zeros that make its rows equally long were left out, to be added again.
    pub equalised: bool,
    /// What its elements are.
    pub dtype: DType,
}

impl Positions {
    fn tag(self) -> u8 {
        match self {
            Self::All => 0,
            Self::Empty => 1,
            Self::Mask => 2,
            Self::Gaps { .. } => 3,
            Self::Coded => 4,
        }
    }
}

impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Empty => f.write_str("none"),
            Self::Mask => f.write_str("mask"),
            Self::Gaps { bits, .. } => write!(f, "gaps of {bits} bits"),
            Self::Coded => f.write_str("range-coded"),
        }
    }
}

impl fmt::Display for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Floats => "range-coded floats",
            Self::Codes { .. } => "codes",
            Self::CodedCodes { .. } => "range-coded codes",
        })
    }
}

impl Values {
    /// Bits and levels of codes.
    pub(super) fn codes(self) -> Option<(u8, LevelKind)> {
        match self {
            Self::Raw | Self::Floats => None,
            Self::Codes { bits, levels } | Self::CodedCodes { bits, levels } => {
                Some((bits, levels))
            }
        }
    }

    fn tag(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Floats => 1,
            Self::Codes { .. } => 2,
            Self::CodedCodes { .. } => 3,
        }
    }
}

/// Types in the order of their numbers in a file. The first takes no byte.
const DTYPES: [DType; 13] = [
    DType::F32,
    DType::F16,
    DType::BF16,
    DType::F64,
    DType::I64,
    DType::I32,
    DType::I16,
    DType::I8,
    DType::U64,
    DType::U32,
    DType::U16,
    DType::U8,
    DType::Bool(BoolStore::Native),
];

/// Whether a parameter of a kind can hold a type.
pub(super) fn is_of(kind: Kind, dtype: DType) -> bool {
    match kind {
        Kind::Float => dtype.is_float(),
        Kind::Int => dtype.is_int() || dtype.is_uint(),
        Kind::Bool => dtype.is_bool(),
    }
}

impl TensorCoding {
    /// Writes the entry of a tensor: tag, type, number of elements, gaps, levels.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let usual = self.dtype == DTYPES[0];
        let tag = self.positions.tag()
            | self.values.tag() << 3
            | u8::from(self.packed) << 5
            | u8::from(self.equalised) << 6
            | u8::from(!usual) << 7;
        out.push(tag);
        if !usual {
            let number = DTYPES.iter().position(|dtype| *dtype == self.dtype);
            out.push(number.unwrap_or(usize::from(u8::MAX)) as u8);
        }
        if let Some(stored) = self.stored.filter(|_| self.positions != Positions::Empty) {
            write(out, stored as u64);
        }
        if let Positions::Gaps { bits, count } = self.positions {
            out.push(bits);
            write(out, count as u64);
        }
        if let Some((bits, levels)) = self.values.codes() {
            let (kind, per_row) = match levels {
                LevelKind::Nonzero { per_row } => (0, per_row),
                LevelKind::Signed { per_row } => (1, per_row),
                LevelKind::Codebook { .. } => (2, false),
            };
            out.push((bits - 1) | kind << 4 | u8::from(per_row) << 6);
            if let LevelKind::Codebook { entries } = levels {
                write(out, entries as u64);
            }
        }
    }

    /// Reads an entry; the reason if it is none.
    pub(super) fn read(reader: &mut Reader) -> Result<Self, String> {
        let tag = reader.byte()?;
        let dtype = if tag >> 7 == 1 {
            let number = usize::from(reader.byte()?);
            let dtype = DTYPES.get(number).filter(|_| number > 0);
            *dtype.ok_or_else(|| format!("has a type of number {number}, which there is not"))?
        } else {
            DTYPES[0]
        };
        let number = |reader: &mut Reader| reader.number().map(|number| number as usize);
        let (packed, equalised) = (tag >> 5 & 1 == 1, tag >> 6 & 1 == 1);
        let (position, value) = (tag & 7, tag >> 3 & 3);
        let stored = match position {
            0 => None,
            1 => Some(0),
            _ => Some(number(reader)?),
        };
        let positions = match position {
            0 => Positions::All,
            1 => Positions::Empty,
            2 => Positions::Mask,
            3 => {
                let bits = reader.byte()?;
                let count = number(reader)?;
                if !gaps::WIDTHS.contains(&bits) {
                    return Err(format!("has gaps of {bits} bits"));
                }
                Positions::Gaps { bits, count }
            }
            4 => Positions::Coded,
            _ => {
                return Err(format!(
                    "tells its places in a way {position} that there is not"
                ));
            }
        };
        let values = match value {
            0 => Values::Raw,
            1 => Values::Floats,
            _ => {
                let byte = reader.byte()?;
                let (bits, per_row) = ((byte & 15) + 1, byte >> 6 & 1 == 1);
                debug_assert!(bits <= MAX_BITS);
                let levels = match byte >> 4 & 3 {
                    0 => LevelKind::Nonzero { per_row },
                    1 => LevelKind::Signed { per_row },
                    2 if !per_row => {
                        let entries = number(reader)?;
                        LevelKind::Codebook { entries }
                    }
                    _ => return Err(format!("has levels {byte:#04x} that there are not")),
                };
                if byte >> 7 == 1 {
                    return Err(format!("has levels {byte:#04x} that there are not"));
                }
                if value == 2 {
                    Values::Codes { bits, levels }
                } else {
                    Values::CodedCodes { bits, levels }
                }
            }
        };
        Ok(Self {
            positions,
            values,
            stored,
            packed,
            equalised,
            dtype,
        })
    }
}
