use serde::{Deserialize, Serialize};

use super::ReweightedError;

/// Which groups are small enough to go: those whose root mean square is below `tau` times that of
/// their layer, so that layers of any scale and groups of any size compare.
///
/// # Example
/// ```
/// use burn_admm::reweighted::Threshold;
///
/// let threshold = Threshold::new(0.1)?.keeping_one();
/// assert_eq!((threshold.tau(), threshold.keeps_one()), (0.1, true));
/// assert!(Threshold::new(-1.0).is_err());
/// # Ok::<(), burn_admm::reweighted::ReweightedError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawThreshold")]
pub struct Threshold {
    tau: f64,
    keep_one: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawThreshold {
    tau: f64,
    #[serde(default)]
    keep_one: bool,
}

impl TryFrom<RawThreshold> for Threshold {
    type Error = ReweightedError;

    fn try_from(RawThreshold { tau, keep_one }: RawThreshold) -> Result<Self, ReweightedError> {
        Ok(Self {
            keep_one,
            ..Self::new(tau)?
        })
    }
}

impl Threshold {
    /// Groups below `tau` times the root mean square of their layer go. A layer that would lose all of
    /// them is an error.
    ///
    /// # Errors
    /// [`ReweightedError::Config`] for a `tau` that is negative or not finite.
    pub fn new(tau: f64) -> Result<Self, ReweightedError> {
        if !(tau.is_finite() && tau >= 0.0) {
            let (name, value) = ("tau", tau);
            return Err(ReweightedError::Config { name, value });
        }
        Ok(Self {
            tau,
            keep_one: false,
        })
    }

    /// A layer that would lose all groups keeps its largest one instead.
    #[must_use]
    pub fn keeping_one(mut self) -> Self {
        self.keep_one = true;
        self
    }

    /// The threshold, relative to the layer's root mean square.
    pub fn tau(&self) -> f64 {
        self.tau
    }

    /// Whether a layer keeps its largest group in any case.
    pub fn keeps_one(&self) -> bool {
        self.keep_one
    }
}
