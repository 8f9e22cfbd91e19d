//! Times of ranks on disk: they are of a machine, and stay.

use std::io::Read;
use std::path::{Path, PathBuf};

use burn_sparse::WeightShape;

use super::RankTimes;
use super::times::is_possible;
use crate::atomic;

/// Bytes of a file at most: some ten thousand layers at every pair of twenty ranks.
const MOST: u64 = 64 << 20;

/// Times that cannot be kept or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RankTimesError {
    /// The file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It does not hold times.
    #[error("{}: {reason}; delete it to measure again", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl RankTimes {
    /// What is wrong with them, if anything: no time of a real layer is 0 or infinite, and no layer has more
    /// ranks than channels.
    ///
    /// # Errors
    /// A sentence.
    pub fn check(&self) -> Result<(), String> {
        let fits = |ms: f64| ms.is_finite() && ms > 0.0;
        if self.step == 0 {
            return Err("ranks in steps of 0".into());
        }
        for layer in &self.layers {
            let problem = &layer.problem;
            problem.check().map_err(|error| error.to_string())?;
            let [out, input] = [problem.out_channels, problem.in_channels];
            let shape = WeightShape::new(out, input, problem.kernel);
            if !fits(layer.dense_ms) {
                return Err(format!("{} ms for a layer of {shape}", layer.dense_ms));
            }
            for &(ranks, ms) in &layer.factored_ms {
                if !is_possible(ranks, shape) {
                    return Err(format!("no layer of {shape} has factors of {ranks:?}"));
                }
                if !fits(ms) {
                    return Err(format!("{ms} ms for a layer of {shape} at {ranks:?}"));
                }
            }
        }
        Ok(())
    }

    /// Keeps them as JSON: in a temporary file first, so that an interrupted write leaves an older one as it
    /// was.
    ///
    /// # Errors
    /// [`RankTimesError::Io`].
    ///
    /// # Example
    /// ```
    /// use burn_admm::decompose::RankTimes;
    ///
    /// let folder = tempfile::tempdir()?;
    /// let path = folder.path().join("times.json");
    /// let times = RankTimes::new(16).on("flex, two threads");
    /// times.save(&path)?;
    /// assert_eq!(RankTimes::load(&path)?, times);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn save(&self, path: &Path) -> Result<(), RankTimesError> {
        let io = |source| RankTimesError::Io {
            path: path.to_owned(),
            source,
        };
        let json = serde_json::to_vec_pretty(self).map_err(|error| io(error.into()))?;
        atomic::write_json(path, json).map_err(io)
    }

    /// Reads and [checks](Self::check) them.
    ///
    /// # Errors
    /// [`RankTimesError`].
    pub fn load(path: &Path) -> Result<Self, RankTimesError> {
        let io = |source| RankTimesError::Io {
            path: path.to_owned(),
            source,
        };
        let invalid = |reason: String| RankTimesError::Invalid {
            path: path.to_owned(),
            reason,
        };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(io)?;
        file.take(MOST + 1).read_to_string(&mut text).map_err(io)?;
        if text.len() as u64 > MOST {
            return Err(invalid(format!("more than {MOST} bytes")));
        }
        let times: Self = serde_json::from_str(&text).map_err(|e| invalid(e.to_string()))?;
        times.check().map_err(invalid)?;
        Ok(times)
    }
}
