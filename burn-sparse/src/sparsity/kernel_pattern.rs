use serde::{Deserialize, Serialize};

use crate::SparseError;

/// Positions of the kernels that patterns are for.
const POSITIONS: usize = 9;

/// Patterns that a pool holds at most.
const MOST: usize = 16;

/// Which positions of a 3×3 kernel may be non-zero, for several kinds of kernels: each kernel of a
/// layer follows one of them (Niu et al., "PatDNN", ASPLOS 2020, section 4).
///
/// Position `i` is row `i / 3`, column `i % 3`; 4 is the centre. All patterns of a pool keep equally
/// many positions.
///
/// # Example
/// ```
/// use burn_sparse::PatternPool;
///
/// let pool = PatternPool::new([[1, 3, 4, 5], [1, 4, 5, 7]])?;
/// assert_eq!((pool.len(), pool.entries()), (2, 4));
/// assert_eq!(pool.pattern(1), 0b1011_0010);
/// # Ok::<(), burn_sparse::SparseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Vec<usize>>", into = "Vec<Vec<usize>>")]
pub struct PatternPool {
    masks: [u16; MOST],
    len: u8,
}

impl PatternPool {
    /// Positions of a kernel that patterns are made for: 3×3.
    pub const POSITIONS: usize = POSITIONS;

    /// A pool from the positions that each pattern keeps.
    ///
    /// # Errors
    /// [`SparseError::PatternPool`] for no pattern or more than sixteen, positions outside of 0–8 or
    /// given twice, patterns that keep different numbers of positions, and equal patterns.
    pub fn new<P: AsRef<[usize]>>(
        patterns: impl IntoIterator<Item = P>,
    ) -> Result<Self, SparseError> {
        let mut masks = Vec::new();
        for pattern in patterns {
            let mut mask = 0u16;
            for &position in pattern.as_ref() {
                if position >= POSITIONS || mask & (1 << position) != 0 {
                    return Err(SparseError::PatternPool(format!(
                        "positions {:?}: each must lie in 0 to 8 and be given once",
                        pattern.as_ref()
                    )));
                }
                mask |= 1 << position;
            }
            masks.push(mask);
            if masks.len() > MOST {
                break;
            }
        }
        Self::from_masks(&masks)
    }

    /// A pool from bit masks: bit `i` stands for position `i`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_masks(patterns: &[u16]) -> Result<Self, SparseError> {
        let error = |reason: String| Err(SparseError::PatternPool(reason));
        let Some(first) = patterns.first() else {
            return error("it is empty; give at least one pattern".to_owned());
        };
        if patterns.len() > MOST {
            return error(format!("more than {MOST} patterns"));
        }
        for (i, pattern) in patterns.iter().enumerate() {
            if *pattern == 0 || pattern >> POSITIONS != 0 {
                return error(format!("{pattern:#b} is no pattern of 9 positions"));
            }
            if pattern.count_ones() != first.count_ones() {
                return error("its patterns keep different numbers of positions".to_owned());
            }
            if patterns[..i].contains(pattern) {
                return error(format!("pattern {pattern:#b} is given twice"));
            }
        }
        let mut masks = [0; MOST];
        masks[..patterns.len()].copy_from_slice(patterns);
        Ok(Self {
            masks,
            len: patterns.len() as u8,
        })
    }

    /// The 56 patterns of four positions that hold the centre: what pools are chosen from.
    pub fn natural() -> Vec<u16> {
        (0..1u16 << POSITIONS)
            .filter(|mask| mask & (1 << 4) != 0 && mask.count_ones() == 4)
            .collect()
    }

    /// Patterns.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a pool has at least one pattern"
    )]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Positions that each pattern keeps.
    pub fn entries(&self) -> usize {
        self.masks[0].count_ones() as usize
    }

    /// The patterns as bit masks: bit `i` stands for position `i`.
    pub fn masks(&self) -> &[u16] {
        &self.masks[..self.len()]
    }

    /// One pattern as a bit mask.
    ///
    /// # Panics
    /// If there is no such pattern.
    pub fn pattern(&self, index: usize) -> u16 {
        self.masks()[index]
    }
}

impl TryFrom<Vec<Vec<usize>>> for PatternPool {
    type Error = SparseError;

    fn try_from(patterns: Vec<Vec<usize>>) -> Result<Self, SparseError> {
        Self::new(patterns)
    }
}

impl From<PatternPool> for Vec<Vec<usize>> {
    fn from(pool: PatternPool) -> Self {
        let positions = |mask: &u16| {
            (0..POSITIONS)
                .filter(|position| mask & (1 << position) != 0)
                .collect()
        };
        pool.masks().iter().map(positions).collect()
    }
}

/// Where the patterns of [`Sparsity::KernelPattern`](super::Sparsity::KernelPattern) come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// As many patterns of four positions as said here, those that most kernels of the network
    /// prefer. Training finds them in the weights that it starts from.
    Found(usize),
    /// These.
    Given(PatternPool),
}

impl Pool {
    /// Positions that each pattern keeps.
    pub fn entries(&self) -> usize {
        match self {
            Self::Found(_) => 4,
            Self::Given(pool) => pool.entries(),
        }
    }

    pub(super) fn check(&self) -> Result<(), SparseError> {
        match self {
            Self::Found(patterns) if !(1..=MOST).contains(patterns) => {
                Err(SparseError::PatternPool(format!(
                    "{patterns} patterns asked for; it holds 1 to {MOST}"
                )))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_56_natural_patterns() {
        let natural = PatternPool::natural();
        assert_eq!(natural.len(), 56);
        assert!(PatternPool::from_masks(&natural[..MOST]).is_ok());
    }

    #[test]
    fn bad_pools_are_refused() {
        for bad in [
            vec![],
            vec![vec![]],
            vec![vec![9]],
            vec![vec![1, 1]],
            vec![vec![1, 2], vec![1]],
            vec![vec![1, 2], vec![2, 1]],
            (0..17).map(|_| vec![0]).collect(),
        ] {
            assert!(PatternPool::new(bad.clone()).is_err(), "{bad:?}");
        }
        assert!(Pool::Found(0).check().is_err());
        assert!(Pool::Found(17).check().is_err());
    }

    #[test]
    fn json_lists_positions() {
        let pool = PatternPool::new([[0, 4], [4, 8]]).unwrap();
        let json = serde_json::to_string(&Pool::Given(pool)).unwrap();
        assert_eq!(json, r#"{"given":[[0,4],[4,8]]}"#);
        assert_eq!(
            serde_json::from_str::<Pool>(&json).unwrap(),
            Pool::Given(pool)
        );
        assert!(serde_json::from_str::<Pool>(r#"{"given":[[0,9]]}"#).is_err());
    }
}
