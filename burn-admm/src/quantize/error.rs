/// What can go wrong while quantising.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// Bits that levels of a kind do not have.
    #[error("{kind} levels have {low} to {high} bits, got {bits}")]
    Bits {
        /// The kind.
        kind: &'static str,
        /// Bits asked for.
        bits: u8,
        /// Fewest.
        low: u8,
        /// Most.
        high: u8,
    },
    /// A name that is no quantisation.
    #[error(
        "`{0}` names no quantisation; write kind and bits, as in uniform3, powers4, codebook4, fixed8, \
         symmetric8, asymmetric8, each with /channel or without"
    )]
    Name(String),
    /// A part of a distribution that cannot be kept.
    #[error("a percentile must lie in (0, 100], got {0}")]
    Percentile(f64),
    /// A range that is empty or not finite.
    #[error("range {low} to {high}: {reason}")]
    Range {
        /// Its lower end.
        low: f32,
        /// Its upper end.
        high: f32,
        /// What is wrong.
        reason: &'static str,
    },
    /// A NaN or an infinity: no level is nearest to it.
    #[error("value {index} is {value}; only finite values can be quantised")]
    NonFinite {
        /// Index of the first offender.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// A codebook with more entries than there are values.
    #[error(
        "{what}: a codebook of {entries} entries for {values} values; use fewer bits, or leave it out by a \
         rule without levels"
    )]
    Codebook {
        /// The parameter or channel.
        what: String,
        /// Entries.
        entries: usize,
        /// Values.
        values: usize,
    },
    /// A tensor that could not be read from its device.
    #[error("reading from the device: {0}")]
    Read(#[from] burn::tensor::TensorReadError),
    /// Training under levels.
    #[error(transparent)]
    Admm(#[from] crate::AdmmError),
    /// A plan that does not fit the model.
    #[error(transparent)]
    Plan(#[from] crate::PlanError),
}
