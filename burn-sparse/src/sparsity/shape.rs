use serde::{Deserialize, Serialize};

/// A weight as patterns see it: a matrix of `rows` output channels by `channels` times the kernel's
/// positions, in that order.
///
/// | layer | `rows` | `channels` | `kernel` |
/// |---|---|---|---|
/// | convolution | output channels | input channels of one group | kernel height and width (`[1, k]` in one dimension) |
/// | linear, recurrent | `d_output` | `d_input` | `[1, 1]` |
///
/// # Example
/// ```
/// use burn_sparse::WeightShape;
///
/// let shape = WeightShape::new(64, 32, [3, 3]);
/// assert_eq!((shape.row_len(), shape.positions(), shape.len()), (288, 9, 64 * 288));
/// assert_eq!(WeightShape::matrix(10, 84).row_len(), 84);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WeightShape {
    /// Output channels.
    pub rows: usize,
    /// Input channels that each output channel sees.
    pub channels: usize,
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
}

impl WeightShape {
    /// A convolution's weight.
    pub fn new(rows: usize, channels: usize, kernel: [usize; 2]) -> Self {
        Self {
            rows,
            channels,
            kernel,
        }
    }

    /// A weight without a kernel.
    pub fn matrix(rows: usize, row_len: usize) -> Self {
        Self::new(rows, row_len, [1, 1])
    }

    /// Positions of the kernel.
    pub fn positions(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Weights of one output channel.
    pub fn row_len(&self) -> usize {
        self.channels * self.positions()
    }

    /// All weights.
    pub fn len(&self) -> usize {
        self.rows * self.row_len()
    }

    /// Whether there is no weight at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl core::fmt::Display for WeightShape {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { rows, channels, .. } = self;
        match self.kernel {
            [1, 1] => write!(f, "{rows}×{channels}"),
            [height, width] => write!(f, "{rows}×{channels}×{height}×{width}"),
        }
    }
}
