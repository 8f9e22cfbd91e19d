use std::fmt;

use burn_sparse::WeightShape;
use serde::{Deserialize, Serialize};

use super::DecomposeError;

/// The two ranks of a Tucker-2 decomposition. Published lists give them in this order, `[D2, D1]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ranks {
    /// Channels that leave the core, `D2`.
    pub output: usize,
    /// Channels that enter the core, `D1`.
    pub input: usize,
}

impl Ranks {
    /// `[D2, D1]`.
    pub const fn new(output: usize, input: usize) -> Self {
        Self { output, input }
    }

    /// Those that lose nothing.
    ///
    /// One mode cannot have a higher rank than the rest of the weight has entries.
    pub fn full(shape: WeightShape) -> Self {
        let positions = shape.positions();
        Self {
            output: shape.rows.min(shape.channels * positions),
            input: shape.channels.min(shape.rows * positions),
        }
    }

    /// The smaller of each.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self {
            output: self.output.min(other.output),
            input: self.input.min(other.input),
        }
    }

    /// That both are possible.
    ///
    /// # Errors
    /// [`DecomposeError::Rank`] for 0 and for more than there are channels.
    pub fn check(self, shape: WeightShape) -> Result<(), DecomposeError> {
        let ranks = [
            ("the output rank", self.output, shape.rows),
            ("the input rank", self.input, shape.channels),
        ];
        for (what, rank, max) in ranks {
            if rank == 0 || rank > max {
                return Err(DecomposeError::Rank {
                    what,
                    rank,
                    max,
                    shape,
                });
            }
        }
        Ok(())
    }

    /// Weights of the factors: `C · D1 + D1 · D2 · R · S + D2 · N`, as [`macs`](Self::macs) without the
    /// factors that are not needed.
    pub fn parameters(self, shape: WeightShape) -> usize {
        self.macs(shape, 1, 1)
    }

    /// Multiply-adds of an image: `C · D1` for every position of its input, and
    /// `D1 · D2 · R · S + D2 · N` for every position of its output.
    ///
    /// A first factor that leaves all channels, `D1 = C`, is part of the core, and so is a last one with
    /// `D2 = N`. Where the kernel has one position, two factors do: `min(D1, D2) · (C + N)` for every position
    /// of the output.
    ///
    /// With a stride of 2 the input has four times as many positions, so that `D1` weighs more there.
    pub fn macs(self, shape: WeightShape, inputs: usize, outputs: usize) -> usize {
        if shape.positions() == 1 {
            return self.input.min(self.output) * (shape.channels + shape.rows) * outputs;
        }
        let core = self.input * self.output * shape.positions();
        let reduce = match self.input == shape.channels {
            true => 0,
            false => shape.channels * self.input,
        };
        let expand = match self.output == shape.rows {
            true => 0,
            false => self.output * shape.rows,
        };
        reduce * inputs + (core + expand) * outputs
    }
}

impl fmt::Display for Ranks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("[{}, {}]", self.output, self.input))
    }
}
