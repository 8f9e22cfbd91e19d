//! Host side of the sparse product with values as codes.

use burn::backend::ops::{FloatTensorOps, IntTensorOps};
use burn::tensor::{DType, TensorData};
use burn_cubecl::{CubeBackend, CubeDevice, kernel::into_contiguous, tensor::CubeTensor};
use cubecl::prelude::*;

use super::{
    LinearTile,
    coded_kernel::{Coding, coded_linear_kernel},
    config::GatherTile,
    kernel::LinearShapeLaunch,
    launch::dims,
    select,
};
use crate::{
    SparseError,
    format::Csr,
    kernel::{
        Epilogue,
        base::{address_type, empty_like, float_elem, grid},
    },
    quant::{Levels, Quantized},
};

/// Most bits of a code: its table has an entry for each.
const MOST_BITS: u8 = 8;

/// The entries of a sparse weight on a device with their values as codes.
#[derive(Debug, Clone)]
pub struct CodedEntries {
    codes: CubeTensor,
    table: CubeTensor,
    scales: CubeTensor,
    columns: CubeTensor,
    row_ptr: CubeTensor,
    coding: Coding,
    stored: usize,
    rows: usize,
    features: usize,
}

impl CodedEntries {
    /// Puts the pattern of `csr` and the codes of `quantized`, entry by entry, on a device.
    ///
    /// # Errors
    /// [`SparseError::Format`] if there are not as many codes as entries or scales as rows, or for codes
    /// of more than 8 bits.
    pub fn new(csr: &Csr, quantized: &Quantized, device: &CubeDevice) -> Result<Self, SparseError> {
        let (codes, levels) = (quantized.codes(), quantized.levels());
        let (bits, rows, stored) = (codes.bits(), csr.rows(), csr.stored());
        let invalid = |reason: String| {
            Err(SparseError::Format {
                format: "codes",
                reason,
            })
        };
        if bits > MOST_BITS {
            return invalid(format!(
                "codes of {bits} bits; kernels take {MOST_BITS}: quantise to fewer, or keep floats"
            ));
        }
        if codes.len() != stored {
            let codes = codes.len();
            return invalid(format!("{codes} codes for a matrix of {stored} entries"));
        }
        let scales = match levels {
            Levels::Codebook(_) => vec![1.0; rows],
            Levels::Nonzero { scales } | Levels::Signed { scales } if scales.len() == 1 => {
                vec![scales[0]; rows]
            }
            Levels::Nonzero { scales } | Levels::Signed { scales } => scales.clone(),
        };
        if scales.len() != rows {
            let scales = scales.len();
            return invalid(format!("{scales} scales for a matrix of {rows} rows"));
        }
        let number = |code: u16| match levels {
            Levels::Codebook(codebook) => codebook.get(usize::from(code)).copied().unwrap_or(0.0),
            _ => levels.integer(code, bits) as f32,
        };
        let table = (0..1u16 << bits).map(number).collect();
        let per_word = 32 / usize::from(bits);
        let mut words = vec![0u32; stored.div_ceil(per_word)];
        for (at, code) in codes.iter().enumerate() {
            words[at / per_word] |= u32::from(code) << (at % per_word * usize::from(bits));
        }
        Ok(Self {
            codes: integers(words.into_iter().map(|word| word as i32), device),
            table: floats(table, device),
            scales: floats(scales, device),
            columns: integers(csr.columns().iter().map(|&column| column as i32), device),
            row_ptr: integers(csr.row_ptr().iter().map(|&start| start as i32), device),
            coding: Coding {
                bits: usize::from(bits),
                integers: matches!(levels, Levels::Signed { .. }),
            },
            stored,
            rows,
            features: csr.row_len(),
        })
    }

    /// Stored entries.
    pub fn nnz(&self) -> usize {
        self.stored
    }

    /// Bits of a code.
    pub fn bits(&self) -> usize {
        self.coding.bits
    }
}

/// At least one number, so that there is memory to bind.
fn floats(mut data: Vec<f32>, device: &CubeDevice) -> CubeTensor {
    if data.is_empty() {
        data.push(0.0);
    }
    let len = data.len();
    CubeBackend::float_from_data(TensorData::new(data, [len]), device)
}

fn integers(data: impl Iterator<Item = i32>, device: &CubeDevice) -> CubeTensor {
    let mut data: Vec<i32> = data.collect();
    if data.is_empty() {
        data.push(0);
    }
    let len = data.len();
    CubeBackend::int_from_data(TensorData::new(data, [len]), device)
}

/// Sparse product of `input [m, d]` with values as codes, `[m, rows]`:
///
/// `out[m,k] = act(bias[k] + residual[m,k] + scale[k] * sum_j level[code_j] * x[m, columns[j]])`
///
/// Codes become numbers in registers: integers by arithmetic, others by a table that stays in the
/// nearest cache. A few units share a row ([`GatherTile`]), which serves small `m`, where reading the
/// weight is what takes time; for many inputs the [sparse product](super::sparse_linear) of floats uses
/// each value more often. Sums are f32 whatever the dtype. Without a tile, a rule of thumb chooses one.
///
/// # Panics
/// If a tensor does not have the shape or dtype that the input and the weight ask for, or if a tile
/// breaks its rules on this device.
pub fn coded_linear(
    input: CubeTensor,
    entries: &CodedEntries,
    epilogue: Epilogue,
    tile: Option<GatherTile>,
) -> CubeTensor {
    let input = into_contiguous(input);
    let [m, features] = dims(&input);
    let rows = entries.rows;
    assert_eq!(
        features, entries.features,
        "a weight of {rows} rows by {}",
        entries.features
    );
    let epilogue = epilogue.prepared(input.dtype, rows, &[m, rows].into());
    let tile =
        tile.unwrap_or_else(
            || match select::heuristic(&input.client, m.clamp(1, 8), None) {
                LinearTile::Gather(tile) => tile,
                _ => unreachable!("few inputs are gathered"),
            },
        );
    launch(input, entries, epilogue, tile).unwrap_or_else(|rule| panic!("{rule}"))
}

fn launch(
    input: CubeTensor,
    entries: &CodedEntries,
    epilogue: Epilogue,
    tile: GatherTile,
) -> Result<CubeTensor, String> {
    let elem = float_elem(input.dtype);
    let [m, features] = dims(&input);
    let rows = entries.rows;
    let output = empty_like(&input, [m, rows]);
    if output.meta.num_elements() == 0 {
        return Ok(output);
    }
    if features == 0 {
        return Err("an input without features has nothing to multiply".to_string());
    }
    let client = output.client.clone();
    tile.check(m, &client.properties().hardware)?;
    let row_tiles = rows.div_ceil(tile.rows());
    let m_tiles = m.div_ceil(tile.inputs);
    let longest = [&input, &entries.columns, &output]
        .map(|tensor| tensor.meta.num_elements())
        .into_iter()
        .max();
    debug_assert_eq!(entries.table.dtype, DType::F32);
    let CodedEntries {
        codes,
        table,
        scales,
        columns,
        row_ptr,
        ..
    } = entries.clone();
    // SAFETY: rows and inputs are below their counts, entries between row pointers that are cut to the
    // number of entries, for each of which there is a code, and columns are cut to the number of
    // features. The table has an entry for every code of so many bits, and there is a scale for each
    // row. Every tensor has the length that the shape says, as made in `CodedEntries::new` or checked
    // by the caller.
    unsafe {
        coded_linear_kernel::launch_unchecked(
            &client,
            grid(&client, row_tiles * m_tiles),
            CubeDim::new_1d(tile.units as u32),
            address_type(longest.unwrap_or(0)),
            input.into_buffer_arg(),
            codes.into_buffer_arg(),
            table.into_buffer_arg(),
            scales.into_buffer_arg(),
            columns.into_buffer_arg(),
            row_ptr.into_buffer_arg(),
            epilogue.bias.map(|bias| bias.into_buffer_arg()).into(),
            epilogue
                .residual
                .map(|residual| residual.into_buffer_arg())
                .into(),
            output.clone().into_buffer_arg(),
            LinearShapeLaunch::new(entries.stored, rows, row_tiles, m, m_tiles, features),
            entries.coding,
            tile,
            epilogue.relu,
            elem,
        );
    }
    Ok(output)
}
