//! What a compact checkpoint says about itself without a model.

use serde::{Deserialize, Serialize};

use super::super::fail;
use super::coding::TensorCoding;
use super::varint::{Reader, write};
use crate::SparseError;

/// The first bytes of every compact checkpoint.
pub(super) const MAGIC: &[u8; 3] = b"BSC";
/// Counts the changes that older releases cannot read.
pub(super) const VERSION: u8 = 1;
/// More tensors than any network has: what an entry takes in memory is not bounded by its bytes.
const MOST_TENSORS: u64 = 1 << 20;
/// Bytes of the checksum at the end.
const SEAL: usize = 4;

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
