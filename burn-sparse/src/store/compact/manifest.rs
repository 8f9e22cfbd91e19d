//! What a compact checkpoint says about itself without a model.

use core::fmt;

use burn::tensor::{BoolStore, DType};
use serde::{Deserialize, Serialize};

use super::super::{fail, survey::Kind};
use super::varint::{Reader, write};
use crate::SparseError;
use crate::quant::MAX_BITS;

/// The first bytes of every compact checkpoint.
pub(super) const MAGIC: &[u8; 3] = b"BSC";
/// Counts the changes that older releases cannot read.
pub(super) const VERSION: u8 = 1;
/// More tensors than any network has: what an entry takes in memory is not bounded by its bytes.
const MOST_TENSORS: u64 = 1 << 20;
/// Bytes of the checksum at the end.
const SEAL: usize = 4;

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

/// The header of a compact checkpoint: how each tensor is coded, and where the bytes of the file went.
///
/// `value_bytes`, `index_bytes`, `codebook_bytes` and `rest_bytes` make `file_bytes`. The stream of
/// the range coder is shared out by the information that went into it, in whole bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Counts the changes that older releases cannot read.
    pub version: u8,
    /// CRC-32 of the paths, kinds and shapes of the model's parameters.
    pub skeleton: u32,
    /// The tensors: first the weights of the layers of this crate, then the other parameters.
    pub tensors: Vec<TensorCoding>,
    /// Of values or their codes.
    pub value_bytes: u64,
    /// Of what tells where they are.
    pub index_bytes: u64,
    /// Of codebooks and scales.
    pub codebook_bytes: u64,
    /// Of this header, checksums and what the range coder needs to end.
    pub rest_bytes: u64,
    /// Of the whole file.
    pub file_bytes: u64,
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
    fn write(&self, out: &mut Vec<u8>) {
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

    fn read(reader: &mut Reader) -> Result<Self, String> {
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
                if !super::gaps::WIDTHS.contains(&bits) {
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

/// Whether a file starts as compact checkpoints do.
pub(super) fn check_start(bytes: &[u8], at: &str) -> Result<(), SparseError> {
    if bytes.starts_with(MAGIC) {
        return Ok(());
    }
    Err(fail(
        at,
        "its first bytes are not those of a compact checkpoint; `store::load` reads packed \
         checkpoints in the safetensors format",
    ))
}

impl Manifest {
    /// The header as it stands at the start of a file.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.push(self.version);
        out.extend_from_slice(&self.skeleton.to_le_bytes());
        write(&mut out, self.tensors.len() as u64);
        for total in [self.value_bytes, self.index_bytes, self.codebook_bytes] {
            write(&mut out, total);
        }
        self.tensors
            .iter()
            .for_each(|tensor| tensor.write(&mut out));
        out
    }

    /// Checks the ends of a file and reads its header; returns what is between header and checksum
    /// too.
    pub(super) fn parse<'a>(bytes: &'a [u8], at: &str) -> Result<(Self, &'a [u8]), SparseError> {
        let Some((body, seal)) = bytes.split_last_chunk::<SEAL>() else {
            let len = bytes.len();
            return Err(fail(
                at,
                format!(
                    "{len} bytes are too few for a compact checkpoint; was it copied completely?"
                ),
            ));
        };
        check_start(body, at)?;
        if crc32fast::hash(body) != u32::from_le_bytes(*seal) {
            return Err(fail(
                at,
                "it does not match its checksum; the file is damaged or was cut, take another copy",
            ));
        }
        let mut reader = Reader::new(&body[MAGIC.len()..]);
        let version = reader.byte().map_err(|reason| fail(at, reason))?;
        if version != VERSION {
            return Err(fail(
                at,
                format!(
                    "it is a compact checkpoint of version {version}; this release reads version \
                     {VERSION}: load it with the release that wrote it and save its record"
                ),
            ));
        }
        let manifest = Self::read(&mut reader, bytes.len() as u64);
        let manifest = manifest.map_err(|reason| fail(at, format!("its header {reason}")))?;
        Ok((manifest, reader.rest()))
    }

    fn read(reader: &mut Reader, file_bytes: u64) -> Result<Self, String> {
        let skeleton = u32::from_le_bytes(reader.bytes()?);
        let count = reader.number()?;
        let [value_bytes, index_bytes, codebook_bytes] =
            [reader.number()?, reader.number()?, reader.number()?];
        // Every tensor takes a byte; an entry in memory takes more.
        if count > MOST_TENSORS || count > reader.rest().len() as u64 {
            return Err(format!(
                "lists {count} tensors, more than it can or than the {MOST_TENSORS} allowed"
            ));
        }
        let tensors = (0..count)
            .map(|number| {
                TensorCoding::read(reader)
                    .map_err(|reason| format!("lists tensor {number}, which {reason}"))
            })
            .collect::<Result<_, _>>()?;
        let listed = [index_bytes, codebook_bytes]
            .iter()
            .try_fold(value_bytes, |sum, bytes| sum.checked_add(*bytes));
        let rest_bytes = listed.and_then(|listed| file_bytes.checked_sub(listed));
        let Some(rest_bytes) = rest_bytes else {
            return Err(format!(
                "counts {value_bytes} bytes of values, {index_bytes} of indices and \
                 {codebook_bytes} of codebooks in a file of {file_bytes}"
            ));
        };
        Ok(Self {
            version: VERSION,
            skeleton,
            tensors,
            value_bytes,
            index_bytes,
            codebook_bytes,
            rest_bytes,
            file_bytes,
        })
    }
}
