//! Blocks of kernels that keep the same positions.

use serde::{Deserialize, Serialize};

use super::{Csr, csr::check_finite};
use crate::{SparseError, WeightShape};

/// A convolution's weight in blocks of filters by input channels; all kernels of a block keep the same
/// positions (block-punched pruning: Gong et al., TODAES 2022). A block is a bit for each position
/// and, for each position kept, a dense matrix of filters by channels.
///
/// # Invariants
/// Checked by every constructor and by deserialising: blocks have filters and channels; there is one
/// mask of [`mask_bytes`](Self::mask_bytes) for each block, bands of filters outermost, with no bit
/// set beyond the last position; values are finite, and as many as the masks say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawPunched")]
pub struct Punched {
    shape: WeightShape,
    block: [usize; 2],
    masks: Vec<u8>,
    values: Vec<f32>,
}

/// The parts of a [`Punched`], not checked yet.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RawPunched {
    /// The weight.
    pub shape: WeightShape,
    /// Filters and channels of a block.
    pub block: [usize; 2],
    /// Kept positions of each block; bit `i % 8` of byte `i / 8` stands for position `i`.
    pub masks: Vec<u8>,
    /// Block by block, position by position, filter by filter.
    pub values: Vec<f32>,
}

fn invalid(reason: impl core::fmt::Display) -> SparseError {
    SparseError::Format {
        format: "punched blocks",
        reason: reason.to_string(),
    }
}

impl TryFrom<RawPunched> for Punched {
    type Error = SparseError;

    fn try_from(raw: RawPunched) -> Result<Self, SparseError> {
        Self::new(raw)
    }
}

/// Blocks across both axes, and the filters and channels of one of them.
struct Grid {
    sides: [usize; 2],
    block: [usize; 2],
    across: usize,
    count: usize,
}

impl Grid {
    fn new(shape: &WeightShape, block: [usize; 2]) -> Result<Self, SparseError> {
        if block.contains(&0) {
            let weight = None;
            return Err(SparseError::Block { block, weight });
        }
        let WeightShape {
            rows,
            channels,
            kernel,
        } = *shape;
        let len = [channels, kernel[0], kernel[1]]
            .into_iter()
            .try_fold(rows, usize::checked_mul);
        if len.is_none_or(|len| len > i32::MAX as usize) {
            return Err(invalid("more weights than 31 bits can count"));
        }
        let across = channels.div_ceil(block[1]);
        Ok(Self {
            sides: [rows, channels],
            block,
            across,
            count: rows.div_ceil(block[0]) * across,
        })
    }

    /// The first filter and channel, and how many of each.
    fn place(&self, index: usize) -> [[usize; 2]; 2] {
        let at = [index / self.across, index % self.across];
        let start = [0, 1].map(|axis| at[axis] * self.block[axis]);
        let side = [0, 1].map(|axis| self.block[axis].min(self.sides[axis] - start[axis]));
        [start, side]
    }
}

impl Punched {
    /// Checks the invariants and takes the buffers.
    ///
    /// # Errors
    /// [`SparseError::Format`] naming the broken invariant, [`SparseError::Block`] for an empty block,
    /// [`SparseError::NonFinite`] for a NaN or an infinity.
    pub fn new(raw: RawPunched) -> Result<Self, SparseError> {
        let RawPunched {
            shape,
            block,
            masks,
            values,
        } = raw;
        let grid = Grid::new(&shape, block)?;
        let positions = shape.positions();
        let bytes = positions.div_ceil(8);
        if masks.len() != grid.count * bytes {
            return Err(invalid(format!(
                "{} bytes of masks for {} blocks of {positions} positions",
                masks.len(),
                grid.count
            )));
        }
        let mut entries = 0;
        for (index, mask) in masks.chunks_exact(bytes.max(1)).enumerate() {
            let beyond = !positions.is_multiple_of(8)
                && mask.last().is_some_and(|last| last >> (positions % 8) != 0);
            if beyond {
                return Err(invalid(format!(
                    "block {index} keeps positions that no kernel has"
                )));
            }
            let kept: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
            let [_, [filters, channels]] = grid.place(index);
            entries += kept as usize * filters * channels;
        }
        if entries != values.len() {
            return Err(invalid(format!(
                "{} values where masks keep {entries}",
                values.len()
            )));
        }
        check_finite(&values, "punched blocks")?;
        Ok(Self {
            shape,
            block,
            masks,
            values,
        })
    }

    /// The blocks of a matrix: a position is kept where any kernel of the block stores it, and zeros
    /// are stored for those that do not. [`filled`](Self::filled) counts them; of weights pruned in
    /// these blocks there are none but those that training left at zero.
    ///
    /// # Errors
    /// [`SparseError::Shape`] for a matrix that is not of this shape, [`SparseError::Block`] for an
    /// empty block.
    ///
    /// # Example
    /// ```
    /// use burn_sparse::{WeightShape, format::{Csr, Punched}};
    ///
    /// // Two filters of one 1×3 kernel, both without their middle.
    /// let csr = Csr::from_dense(&[1., 0., 2., 3., 0., 4.], [2, 3])?;
    /// let punched = Punched::from_csr(&csr, WeightShape::new(2, 1, [1, 3]), [2, 1])?;
    /// assert_eq!((punched.mask(0), punched.index_bytes()), (&[0b101][..], 1));
    /// assert_eq!(punched.to_dense(), csr.to_dense());
    /// # Ok::<(), burn_sparse::SparseError>(())
    /// ```
    pub fn from_csr(csr: &Csr, shape: WeightShape, block: [usize; 2]) -> Result<Self, SparseError> {
        let grid = Grid::new(&shape, block)?;
        if [csr.rows(), csr.row_len()] != [shape.rows, shape.row_len()] {
            return Err(SparseError::shape(format!(
                "{} rows of {} are no weight of {shape}",
                csr.rows(),
                csr.row_len()
            )));
        }
        let positions = shape.positions();
        let bytes = positions.div_ceil(8);
        let mut masks = vec![0u8; grid.count * bytes];
        for row in 0..csr.rows() {
            for (column, _) in csr.row(row) {
                let (channel, position) = (column / positions, column % positions);
                let block = row / block[0] * grid.across + channel / block[1];
                masks[block * bytes + position / 8] |= 1 << (position % 8);
            }
        }
        let mut punched = Self {
            shape,
            block,
            masks,
            values: Vec::new(),
        };
        let dense = csr.to_dense();
        let mut values = Vec::with_capacity(csr.stored());
        punched.visit(&grid, |at| values.push(dense[at]));
        punched.values = values;
        Ok(punched)
    }

    /// Every stored entry in its order, as the index of the dense matrix.
    fn visit(&self, grid: &Grid, mut entry: impl FnMut(usize)) {
        let (positions, row_len) = (self.shape.positions(), self.shape.row_len());
        for index in 0..grid.count {
            let [[filter, channel], [filters, channels]] = grid.place(index);
            let mask = self.mask(index);
            for position in (0..positions).filter(|p| mask[p / 8] & (1 << (p % 8)) != 0) {
                for row in filter..filter + filters {
                    for channel in channel..channel + channels {
                        entry(row * row_len + channel * positions + position);
                    }
                }
            }
        }
    }

    fn grid(&self) -> Grid {
        Grid::new(&self.shape, self.block).expect("checked when this was made")
    }

    /// The dense row-major matrix.
    pub fn to_dense(&self) -> Vec<f32> {
        let mut dense = vec![0.0; self.shape.len()];
        let mut values = self.values.iter();
        self.visit(&self.grid(), |at| {
            dense[at] = values.next().copied().unwrap_or(0.0);
        });
        dense
    }

    /// The same matrix as rows, without positive zeros.
    ///
    /// # Panics
    /// Never: what is held here are finite values of that shape.
    pub fn to_csr(&self) -> Csr {
        Csr::from_dense(&self.to_dense(), [self.shape.rows, self.shape.row_len()])
            .expect("finite values fill the shape")
    }

    /// The weight.
    pub fn shape(&self) -> WeightShape {
        self.shape
    }

    /// Filters and channels of a block.
    pub fn block(&self) -> [usize; 2] {
        self.block
    }

    /// Bytes of a mask.
    pub fn mask_bytes(&self) -> usize {
        self.shape.positions().div_ceil(8)
    }

    /// The positions that a block keeps; bit `i % 8` of byte `i / 8` stands for position `i`.
    ///
    /// # Panics
    /// If there is no such block.
    pub fn mask(&self, block: usize) -> &[u8] {
        let bytes = self.mask_bytes();
        &self.masks[block * bytes..][..bytes]
    }

    /// Stored entries.
    pub fn stored(&self) -> usize {
        self.values.len()
    }

    /// Stored positive zeros.
    pub fn filled(&self) -> usize {
        self.values
            .iter()
            .filter(|value| value.to_bits() == 0)
            .count()
    }

    /// Bytes of everything but the values: those of the masks.
    pub fn index_bytes(&self) -> usize {
        self.masks.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{bits, values};
    use super::*;

    fn raw(punched: &Punched) -> RawPunched {
        serde_json::from_str(&serde_json::to_string(punched).unwrap()).unwrap()
    }

    proptest! {
        #[test]
        fn every_bit_comes_back(
            (dense, shape) in (0usize..6, 0usize..5, 0usize..4, 1usize..6).prop_flat_map(|(k, c, r, s)| {
                let shape = WeightShape::new(k, c, [r, s]);
                (values(shape.len()), Just(shape))
            }),
            block in [1usize..5, 1usize..5],
        ) {
            let csr = Csr::from_dense(&dense, [shape.rows, shape.row_len()]).unwrap();
            let punched = Punched::from_csr(&csr, shape, block).unwrap();
            prop_assert_eq!(bits(&punched.to_dense()), bits(&dense));
            prop_assert_eq!(&punched.to_csr(), &csr);
            prop_assert_eq!(punched.stored(), csr.stored() + punched.filled());
            prop_assert_eq!(Punched::new(raw(&punched)).unwrap(), punched);
        }
    }

    #[test]
    fn broken_invariants_are_named() {
        let shape = WeightShape::new(2, 3, [1, 3]);
        let csr = Csr::from_dense(&[1.0; 18], [2, 9]).unwrap();
        let good = Punched::from_csr(&csr, shape, [2, 2]).unwrap();
        type Break = fn(&mut RawPunched);
        let cases: [(&str, Break); 7] = [
            ("bytes of masks", |p| p.masks.truncate(p.masks.len() - 1)),
            ("no kernel has", |p| p.masks[0] |= 8),
            ("masks keep", |p| p.masks[0] = 1),
            ("masks keep", |p| p.values.truncate(p.values.len() - 1)),
            ("is NaN", |p| p.values[0] = f32::NAN),
            ("empty", |p| p.block = [0, 1]),
            ("31 bits", |p| p.shape.rows = usize::MAX),
        ];
        for (reason, break_it) in cases {
            let mut parts = raw(&good);
            break_it(&mut parts);
            let error = Punched::new(parts).unwrap_err().to_string();
            assert!(error.contains(reason), "{reason}: {error}");
        }
        assert!(Punched::from_csr(&csr, WeightShape::matrix(2, 8), [1, 1]).is_err());
    }
}
