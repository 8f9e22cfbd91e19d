//! What became of a number between two reports.

use std::fmt;

use serde::Serialize;

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Beyond threshold and spread.
    Faster,
    /// Beyond threshold and spread: a regression.
    Slower,
    /// Within threshold or spread.
    Same,
    /// The sparse kernel moved, but the dense one, which is not ours, moved with it.
    Drift,
    /// It was measured and now fails: a regression.
    Broken,
    /// It failed and is now measured.
    Fixed,
    /// It fails as it did.
    Failing,
}

impl Verdict {
    /// Whether it should stop a merge.
    #[must_use]
    pub const fn is_regression(self) -> bool {
        matches!(self, Self::Slower | Self::Broken)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Faster => "faster",
            Self::Slower => "SLOWER",
            Self::Same => "same",
            Self::Drift => "same: dense moved with it",
            Self::Broken => "BROKEN",
            Self::Fixed => "fixed",
            Self::Failing => "fails in both",
        })
    }
}

/// A number in both reports.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Before.
    pub old: f64,
    /// Now.
    pub new: f64,
    /// `new / old - 1`.
    pub change: f64,
    /// The spreads of both, combined as those of independent numbers, in parts of the old number.
    pub noise: f64,
}

impl Change {
    /// Between `(median, spread)` before and now.
    #[must_use]
    pub fn of(old: (f64, f64), new: (f64, f64)) -> Self {
        Self {
            old: old.0,
            new: new.0,
            change: new.0 / old.0 - 1.0,
            noise: old.1.hypot(new.1) / old.0,
        }
    }

    /// `Faster` or `Slower` only beyond both the threshold and the noise.
    #[must_use]
    pub fn verdict(&self, threshold: f64) -> Verdict {
        let limit = threshold.max(self.noise);
        if self.change > limit {
            Verdict::Slower
        } else if self.change < -limit {
            Verdict::Faster
        } else {
            Verdict::Same
        }
    }
}
