use burn_sparse::WeightShape;

/// Why a weight could not be decomposed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DecomposeError {
    /// A rank of zero, or one that the weight cannot have.
    #[error("{what} is {rank}; {shape} has room for 1 to {max}")]
    Rank {
        /// Which rank.
        what: &'static str,
        /// What was asked for.
        rank: usize,
        /// The largest possible.
        max: usize,
        /// The weight.
        shape: WeightShape,
    },
    /// A NaN or an infinity.
    #[error("weight {index} is {value}; start from a sound checkpoint")]
    NonFinite {
        /// Index of the first offender, row after row.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// The weights do not fill the shape, or the shape has nothing in it.
    #[error("{len} weights do not fill {shape}")]
    Shape {
        /// Weights given.
        len: usize,
        /// What they should fill.
        shape: WeightShape,
    },
    /// A setting out of range.
    #[error("{name} is {value}; expected {expected}")]
    Setting {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it may be.
        expected: &'static str,
    },
    /// Ranks that are to be found for a decomposition that says nothing of them.
    #[error(
        "the rank of a CP decomposition can only be given; take fixed ranks, or another kind of factors"
    )]
    NoRule,
    /// Training towards a decomposition to which there is no nearest weight.
    #[error(
        "ADMM needs the nearest weight of a rank, and alternating least squares do not find that of CP; decompose          and fine-tune, or take another kind of factors"
    )]
    NoProjection,
    /// The eigensolver gave up, which finite numbers of any sensible size do not make it do.
    #[error(
        "the eigenvalues of {shape} could not be found; its weights may be near the limits of f64"
    )]
    NoConvergence {
        /// The weight.
        shape: WeightShape,
    },
}
