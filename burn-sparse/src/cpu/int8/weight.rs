//! A dense weight in bytes.

use super::{BLOCK, DEPTH, ROWS};
use crate::SparseError;

/// Longest row: sums of as many products of 255 and 127 fit 32 bits.
const LONGEST: usize = i32::MAX as usize / (255 * 127);

/// A dense weight of `groups` times `rows / groups` output channels as integers from -127 to 127, with
/// a scale for each output channel, in the order of the kernels.
///
/// Blocks of sixteen output channels have their weights for four inputs side by side; channels and
/// inputs that are missing are zero.
///
/// # Example
/// ```
/// use burn_sparse::cpu::{InputScale, Int8Weight, RowFinish, int8_linear};
///
/// let weight = Int8Weight::linear(&[1.0, -2.0, 0.5, 0.5], [2, 2])?;
/// let scale = InputScale::new([0.0, 4.0])?;
/// let mut y = [0.0; 2];
/// int8_linear(&[4.0, 1.0], &weight, scale, RowFinish::default(), &mut y);
/// assert!((y[0] - 2.0).abs() < 0.05 && (y[1] - 2.5).abs() < 0.05);
/// # Ok::<(), burn_sparse::SparseError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Int8Weight {
    rows: usize,
    groups: usize,
    /// Input channels of a group, and kernel positions.
    inputs: [usize; 2],
    /// Blocks of a group, one after the other, each [`BLOCK`] bytes for every four inputs.
    blocks: Vec<i8>,
    /// For each row.
    scales: Vec<f32>,
    /// The sum of the integers of each row.
    sums: Vec<i32>,
}

impl Int8Weight {
    /// A weight of `[rows, inputs]`, each row scaled by its largest magnitude.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn linear(weight: &[f32], [rows, inputs]: [usize; 2]) -> Result<Self, SparseError> {
        Self::new(weight, [rows, inputs, 1], 1, None)
    }

    /// A weight of `[rows, inputs, positions]`: `inputs` channels of a group, `positions` weights of a
    /// kernel. Integers reach up to `ranges[row]`, weights beyond are cut off; without ranges, up to the
    /// largest magnitude of a row.
    ///
    /// # Errors
    /// [`SparseError::Shape`] for another number of weights or ranges, and for rows longer than 66,311
    /// weights, whose sums might not fit 32 bits; [`SparseError::Groups`] for groups that do not divide
    /// the rows; [`SparseError::NonFinite`] for a weight that is no finite number;
    /// [`SparseError::Format`] for a range that is not positive and finite.
    pub fn new(
        weight: &[f32],
        [rows, inputs, positions]: [usize; 3],
        groups: usize,
        ranges: Option<&[f32]>,
    ) -> Result<Self, SparseError> {
        let len = inputs.checked_mul(positions);
        let all = len.and_then(|len| len.checked_mul(rows));
        let (Some(len), Some(all)) = (len, all) else {
            return Err(SparseError::shape("a weight of more bytes than there are"));
        };
        if all != weight.len() || ranges.is_some_and(|ranges| ranges.len() != rows) {
            let (found, of) = (weight.len(), ranges.map_or(rows, <[f32]>::len));
            return Err(SparseError::shape(format!(
                "{found} weights and {of} ranges for {rows} rows of {len}"
            )));
        }
        if len > LONGEST {
            return Err(SparseError::shape(format!(
                "rows of {len} weights; sums of 8-bit products fit 32 bits for up to {LONGEST}"
            )));
        }
        if groups == 0 || !rows.is_multiple_of(groups) {
            return Err(SparseError::Groups {
                channels: rows,
                what: "output",
                groups,
            });
        }
        if let Some(index) = weight.iter().position(|weight| !weight.is_finite()) {
            return Err(SparseError::NonFinite {
                index,
                value: weight[index],
                what: "a weight to quantise".to_owned(),
            });
        }
        if let Some((row, range)) = ranges
            .into_iter()
            .flat_map(|ranges| ranges.iter().enumerate())
            .find(|(_, range)| !(**range / 127.0).is_normal() || **range < 0.0)
        {
            return Err(SparseError::Format {
                format: "range of weights",
                reason: format!("row {row} has {range}; it must be positive and finite"),
            });
        }
        let mut quantised = Self {
            rows,
            groups,
            inputs: [inputs, positions],
            blocks: Vec::new(),
            scales: Vec::with_capacity(rows),
            sums: vec![0; rows],
        };
        quantised.blocks = vec![0; quantised.block_len() * quantised.row_blocks() * groups];
        for row in 0..rows {
            let weight = &weight[row * len..][..len];
            let most = weight.iter().fold(0.0f32, |most, w| most.max(w.abs()));
            let range = ranges.map_or(most, |ranges| ranges[row]);
            let scale = range / 127.0;
            // A row of zeros, or of what is too small to divide by.
            let scale = if scale.is_normal() { scale } else { 1.0 };
            quantised.scales.push(scale);
            for (at, w) in weight.iter().enumerate() {
                let integer = (w / scale).round().clamp(-127.0, 127.0) as i8;
                let place = quantised.place(row, [at / positions, at % positions]);
                quantised.blocks[place] = integer;
                quantised.sums[row] += i32::from(integer);
            }
        }
        Ok(quantised)
    }

    /// Output channels.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Weights of an output channel.
    pub fn row_len(&self) -> usize {
        self.inputs[0] * self.inputs[1]
    }

    /// Groups.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Input channels of a group, and kernel positions.
    pub fn inputs(&self) -> [usize; 2] {
        self.inputs
    }

    /// What the integers of each output channel are multiplied by.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// The integer at `[channel of the group, position]` of an output channel.
    ///
    /// # Panics
    /// If there is none.
    pub fn integer(&self, row: usize, [input, position]: [usize; 2]) -> i8 {
        let [inputs, positions] = self.inputs;
        assert!(
            row < self.rows && input < inputs && position < positions,
            "weight {input}, {position} of row {row} in {} rows of {inputs} by {positions}",
            self.rows
        );
        self.blocks[self.place(row, [input, position])]
    }

    /// Bytes of the integers, filled up, and of the scales and sums.
    pub fn bytes(&self) -> usize {
        self.blocks.len() + size_of_val(&*self.scales) + size_of_val(&*self.sums)
    }

    /// The sum of the integers of each output channel.
    pub(super) fn sums(&self) -> &[i32] {
        &self.sums
    }

    /// Input channels of a group, filled up so that four are neighbours.
    pub(super) fn filled(&self) -> usize {
        self.inputs[0].next_multiple_of(DEPTH)
    }

    /// Rows of a group.
    pub(super) fn group_rows(&self) -> usize {
        self.rows / self.groups
    }

    /// Blocks of a group.
    pub(super) fn row_blocks(&self) -> usize {
        self.group_rows().div_ceil(ROWS)
    }

    /// Bytes of a block.
    pub(super) fn block_len(&self) -> usize {
        self.filled() / DEPTH * self.inputs[1] * BLOCK
    }

    /// Block `block` of a group, in steps of four inputs.
    pub(super) fn block(&self, group: usize, block: usize) -> &[[i8; BLOCK]] {
        let len = self.block_len();
        let first = (group * self.row_blocks() + block) * len;
        self.blocks[first..][..len].as_chunks().0
    }

    /// Where a weight lies: position by position, channel by channel.
    fn place(&self, row: usize, [input, position]: [usize; 2]) -> usize {
        let rows = self.group_rows();
        let (group, row) = (row / rows, row % rows);
        let block = group * self.row_blocks() + row / ROWS;
        let depth = position * self.filled() + input;
        block * self.block_len() + depth / DEPTH * BLOCK + row % ROWS * DEPTH + depth % DEPTH
    }
}
