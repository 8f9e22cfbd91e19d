//! What a checkpoint says about itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::fail;
use crate::SparseError;

/// The key of the manifest in the metadata of the safetensors file.
pub(super) const KEY: &str = "burn-sparse";
const FORMAT: &str = "burn-sparse checkpoint";
const VERSION: u32 = 4;

/// Every header starts with these bytes, then come the digits of its checksum.
const START: &str = r#"{"__metadata__":{"burn-sparse":"{\"header_crc32\":\""#;
/// The length of the header stands before it, as u64.
const LEN: usize = 8;
const DIGITS: core::ops::Range<usize> = LEN + START.len()..LEN + START.len() + 8;
const NO_DIGITS: &str = "00000000";
/// How much must be read to know how long the header is.
pub(super) const FIRST: usize = DIGITS.end;
/// The most that the safetensors format allows.
const MAX_HEADER: u64 = 100_000_000;

/// Version, layers, tensors and checksums of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    // The first field, so that its digits stand at a known place.
    pub(super) header_crc32: String,
    /// Names the format.
    pub format: String,
    /// Counts the changes that older releases cannot read.
    pub version: u32,
    /// Bytes after the header.
    pub data_len: u64,
    /// The layers of this crate, in the order of the model.
    pub layers: Vec<LayerEntry>,
    /// The parameters that run dense, but are stored as a mask and the elements it marks.
    pub sparse: BTreeMap<String, SparseEntry>,
    /// All tensors of the file by name.
    pub tensors: BTreeMap<String, TensorEntry>,
}

/// A layer of this crate in a [`Manifest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerEntry {
    /// The path of the weight, such as `layer1.0.conv1.weight`.
    pub weight: String,
    /// `linear`, `conv1d` or `conv2d`.
    pub kind: String,
    /// The shape of the dense weight.
    pub shape: Vec<usize>,
    /// Present for a packed weight.
    pub packed: Option<PackedEntry>,
}

/// How a packed weight is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedEntry {
    /// Stored entries.
    pub stored: usize,
    /// Those that are not zero.
    pub nnz: usize,
    /// Entries of every row, if rows do not differ.
    pub nnz_per_row: Option<usize>,
    /// What tells where the entries are.
    pub index: Index,
}

/// What tells where the entries of a packed weight are: the smallest of those that can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Index {
    /// The column of every entry, of rows that are equally long.
    Columns,
    /// A bit for every weight.
    Mask,
    /// The rows and columns of the dense panels of blocks, by their distances.
    Panels,
    /// A bit for each row and column of the dense panels of blocks.
    Blocks,
    /// The pattern of each 3×3 kernel.
    Patterns,
    /// A bit for each kernel position of blocks whose kernels keep the same ones.
    Punched,
}

impl Index {
    /// The last part of the name of its tensor, `conv1.weight.panels`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Columns => "columns",
            Self::Mask => "mask",
            Self::Panels => "panels",
            Self::Blocks => "blocks",
            Self::Patterns => "patterns",
            Self::Punched => "punched",
        }
    }
}

/// A float parameter of which only the elements other than positive zero are stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SparseEntry {
    /// As safetensors names it, such as `F32`.
    pub dtype: String,
    /// The shape of the parameter.
    pub shape: Vec<usize>,
    /// Stored elements.
    pub stored: usize,
}

/// A tensor in a [`Manifest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorEntry {
    /// As safetensors names it, such as `F32`.
    pub dtype: String,
    /// Its shape in the file.
    pub shape: Vec<usize>,
    /// CRC-32 (IEEE) of its bytes.
    pub crc32: u32,
}

impl Manifest {
    pub(super) fn new(
        layers: Vec<LayerEntry>,
        sparse: BTreeMap<String, SparseEntry>,
        tensors: BTreeMap<String, TensorEntry>,
    ) -> Self {
        Self {
            header_crc32: NO_DIGITS.to_string(),
            format: FORMAT.to_string(),
            version: VERSION,
            data_len: 0,
            layers,
            sparse,
            tensors,
        }
    }
}

/// Checksum of the length and the header with zeros for its own digits.
fn header_crc(head: &[u8]) -> String {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&head[..DIGITS.start]);
    crc.update(NO_DIGITS.as_bytes());
    crc.update(&head[DIGITS.end..]);
    format!("{:08x}", crc.finalize())
}

/// Puts the checksum into the header of a file written with [`Manifest::new`]; returns the bytes
/// of the length and the header.
pub(super) fn seal(bytes: &mut [u8], at: &str) -> Result<usize, SparseError> {
    let end = header_end(bytes, bytes.len() as u64, at)?;
    let digits = header_crc(&bytes[..end]);
    bytes[DIGITS].copy_from_slice(digits.as_bytes());
    Ok(end)
}

/// Where the header ends, from the start of a file of `total` bytes.
pub(super) fn header_end(first: &[u8], total: u64, at: &str) -> Result<usize, SparseError> {
    if first.len() < FIRST {
        return Err(fail(
            at,
            format!("{total} bytes are too few for a checkpoint; was it copied completely?"),
        ));
    }
    if &first[LEN..DIGITS.start] != START.as_bytes() {
        return Err(fail(
            at,
            "its first bytes are not those of a burn-sparse checkpoint; it is another file, was \
             damaged, or was written by a release that this one cannot read",
        ));
    }
    let len = u64::from_le_bytes(first[..LEN].try_into().expect("eight bytes"));
    let end = len.saturating_add(LEN as u64);
    if len > MAX_HEADER || end > total || end < FIRST as u64 {
        return Err(fail(
            at,
            format!(
                "it declares a header of {len} bytes in a file of {total}; was it copied \
                 completely?"
            ),
        ));
    }
    Ok(end as usize)
}

/// Checks the length and header in `head`, which [`header_end`] has delimited, of a file of
/// `total` bytes.
pub(super) fn parse(head: &[u8], total: u64, at: &str) -> Result<Manifest, SparseError> {
    #[derive(Deserialize)]
    struct Header {
        #[serde(rename = "__metadata__")]
        metadata: BTreeMap<String, String>,
    }
    #[derive(Deserialize)]
    struct Stamp {
        format: String,
        version: u32,
    }

    // Compared as text: upper-case digits would be a flipped bit that parses to the same number.
    if head[DIGITS] != *header_crc(head).as_bytes() {
        return Err(fail(
            at,
            "its header does not match its checksum; the file is damaged",
        ));
    }
    let broken = |error: serde_json::Error| fail(at, format!("its header is broken: {error}"));
    let header: Header = serde_json::from_slice(&head[LEN..]).map_err(broken)?;
    let text = header.metadata.get(KEY).map_or("", String::as_str);
    let stamp: Stamp = serde_json::from_str(text).map_err(broken)?;
    if stamp.format != FORMAT || stamp.version != VERSION {
        return Err(fail(
            at,
            format!(
                "it is a `{}` of version {}; this release reads a `{FORMAT}` of version \
                 {VERSION}: load it with the release that wrote it, unpack the model and save its \
                 record",
                stamp.format, stamp.version
            ),
        ));
    }
    let manifest: Manifest = serde_json::from_str(text).map_err(broken)?;
    if (head.len() as u64).checked_add(manifest.data_len) != Some(total) {
        return Err(fail(
            at,
            format!(
                "a header of {} bytes and {} bytes of data should make the {total} bytes of this \
                 file; it was truncated or appended to",
                head.len(),
                manifest.data_len
            ),
        ));
    }
    Ok(manifest)
}
