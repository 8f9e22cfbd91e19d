//! A layer and what was done to its weights.

use burn::tensor::DType;
use burn_sparse::nn::AnyWeight;
use burn_sparse::{ConvProblem, SparseError, Sparsity, WeightShape};
use serde::{Deserialize, Serialize};

/// Which layer computes a [`ConvProblem`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// A [`Linear`](burn_sparse::nn::Linear); each row of its input is an image of one pixel.
    Linear,
    /// A [`Conv1d`](burn_sparse::nn::Conv1d): the convolution of height 1.
    Conv1d,
    /// A [`Conv2d`](burn_sparse::nn::Conv2d).
    Conv2d,
}

impl Operation {
    /// Of the layer that has this weight.
    pub fn of(weight: &AnyWeight) -> Self {
        match weight {
            AnyWeight::Linear(_) => Self::Linear,
            AnyWeight::Conv1d(_) => Self::Conv1d,
            AnyWeight::Conv2d(_) => Self::Conv2d,
        }
    }
}

/// In which numbers inputs and outputs are held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits, of which 5 are the exponent.
    F16,
    /// 16 bits, of which 8 are the exponent.
    Bf16,
}

impl Precision {
    /// Burn's name for it.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }

    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// A layer alone, at a batch, with weights of a scheme: what a time is of.
///
/// # Example
/// ```
/// use burn_admm::mapping::{LatencyCase, Operation};
/// use burn_sparse::{ConvProblem, Sparsity};
///
/// let problem = ConvProblem::new(1, [64, 128], [28, 28], [3, 3]).with_padding([1, 1]);
/// let case = LatencyCase::new(Operation::Conv2d, problem, Sparsity::punched(0.75, [8, 4])?);
/// assert!((case.density()? - 0.25).abs() < 0.01);
/// # Ok::<(), burn_sparse::SparseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LatencyCase {
    /// Which layer.
    pub operation: Operation,
    /// What it computes, batch included.
    pub problem: ConvProblem,
    /// Which weights are not zero.
    pub sparsity: Sparsity,
    /// Of inputs and outputs.
    #[serde(default)]
    pub precision: Precision,
}

impl LatencyCase {
    /// In f32.
    pub fn new(operation: Operation, problem: ConvProblem, sparsity: Sparsity) -> Self {
        Self {
            operation,
            problem,
            sparsity,
            precision: Precision::F32,
        }
    }

    /// In other numbers.
    #[must_use]
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The weight, as the scheme sees it: channels are those of a group.
    pub fn shape(&self) -> WeightShape {
        let problem = &self.problem;
        let channels = problem.in_channels / problem.groups.max(1);
        WeightShape::new(problem.out_channels, channels, problem.kernel)
    }

    /// What part of the weights is not zero.
    ///
    /// # Errors
    /// [`SparseError`] for a problem that is none, or larger than any layer, and a scheme that the weight cannot
    /// have.
    pub fn density(&self) -> Result<f64, SparseError> {
        check_sizes(&self.problem)?;
        let is_flat = |sides: [usize; 2]| sides[0] == 1;
        let flat = is_flat(self.problem.input) && is_flat(self.problem.kernel);
        let point = flat && self.problem.input[1] == 1 && self.problem.kernel[1] == 1;
        let fits = match self.operation {
            Operation::Conv2d => true,
            Operation::Conv1d => flat && self.problem.padding[0] == [0, 0],
            Operation::Linear => point && self.problem.groups == 1,
        };
        if !fits {
            let reason = format!("{:?} of {:?}", self.operation, self.problem);
            return Err(SparseError::Shape(format!("{reason} has too many axes")));
        }
        self.problem.check()?;
        self.sparsity.density(self.shape())
    }

    /// Whether another case is the same layer, whatever its weights.
    pub fn is_same_layer(&self, other: &Self) -> bool {
        self.operation == other.operation
            && self.problem == other.problem
            && self.precision == other.precision
    }
}

/// A case may come from a file: sizes that no memory holds end here, before they are multiplied.
fn check_sizes(problem: &ConvProblem) -> Result<(), SparseError> {
    /// Elements of an input, an output or a weight at most.
    const MOST: u128 = 1 << 40;
    let refused = |what: &str| {
        Err(SparseError::Shape(format!(
            "{what} of {problem:?} is empty, or larger than any"
        )))
    };
    let lengths = [
        problem.input,
        problem.kernel,
        problem.stride,
        problem.dilation,
    ];
    let paddings = problem.padding.iter().flatten();
    let channels = [problem.batch, problem.in_channels, problem.out_channels];
    let sizes = lengths.iter().flatten().chain(paddings).chain(&channels);
    if sizes.chain([&problem.groups]).any(|&size| size >= 1 << 20) {
        return refused("a side");
    }
    let elements = |sizes: &[usize]| sizes.iter().map(|&size| size as u128).product::<u128>();
    let padded = [0, 1]
        .map(|axis| problem.input[axis] + problem.padding[axis][0] + problem.padding[axis][1]);
    let [batch, rows, columns] = [channels[0], channels[1], channels[2]];
    for (what, sizes) in [
        ("the input", [batch, rows, padded[0], padded[1]]),
        ("the output", [batch, columns, padded[0], padded[1]]),
        (
            "the weight",
            [rows, columns, problem.kernel[0], problem.kernel[1]],
        ),
    ] {
        if !(1..=MOST).contains(&elements(&sizes)) {
            return refused(what);
        }
    }
    Ok(())
}
