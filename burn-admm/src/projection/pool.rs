//! The patterns that most kernels of a network prefer.

use std::collections::BTreeMap;

use burn_sparse::{PatternPool, SparseError};

/// How many 3×3 kernels prefer which of the 56 natural patterns (four positions with the centre).
///
/// Niu et al., "PatDNN" (ASPLOS 2020), section 4: a kernel prefers the pattern `P` of largest
/// `‖W ∘ P‖₂`, and the pool is made of the patterns that most kernels prefer. Kernels without any
/// weight but zeros prefer nothing.
///
/// # Example
/// ```
/// use burn_admm::projection::Preferences;
///
/// let mut preferences = Preferences::default();
/// preferences.add(&[0.0, 3.0, 0.0, 2.0, 1.0, 2.0, 0.0, 0.0, 0.1]);
/// let pool = preferences.pool(8)?;
/// assert_eq!(pool.masks(), [0b0_0011_1010]); // positions 1, 3, 4 and 5
/// # Ok::<(), burn_sparse::SparseError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preferences {
    kernels: BTreeMap<u16, usize>,
}

const CENTRE: usize = 4;

impl Preferences {
    /// Counts the kernels of a weight, nine entries each; what is left over is not looked at.
    pub fn add(&mut self, kernels: &[f32]) {
        for kernel in kernels.chunks_exact(PatternPool::POSITIONS) {
            if kernel.iter().any(|&weight| weight != 0.0) {
                *self.kernels.entry(preferred(kernel)).or_default() += 1;
            }
        }
    }

    /// Kernels that prefer a pattern, given as its bit mask.
    pub fn kernels(&self, pattern: u16) -> usize {
        self.kernels.get(&pattern).copied().unwrap_or(0)
    }

    /// The `patterns` patterns that most kernels prefer, most preferred first; of equally preferred
    /// ones those of the lowest bit mask. Fewer if no more are preferred by any kernel, and the lowest
    /// mask if no kernel prefers any.
    ///
    /// # Errors
    /// [`SparseError::PatternPool`] if no pattern is asked for, or more than sixteen come out.
    pub fn pool(&self, patterns: usize) -> Result<PatternPool, SparseError> {
        let mut ranked: Vec<(u16, usize)> = self.kernels.iter().map(|(&m, &n)| (m, n)).collect();
        if ranked.is_empty() {
            ranked.extend(PatternPool::natural().first().map(|&mask| (mask, 0)));
        }
        // Stable: equally preferred ones stay in the order of their masks.
        ranked.sort_by_key(|&(_, kernels)| core::cmp::Reverse(kernels));
        ranked.truncate(patterns);
        let masks: Vec<u16> = ranked.into_iter().map(|(mask, _)| mask).collect();
        PatternPool::from_masks(&masks)
    }
}

/// The natural pattern that keeps most of a kernel: the centre and the three largest of its
/// neighbours, which of equal ones are those of the lowest mask if the lowest positions win.
fn preferred(kernel: &[f32]) -> u16 {
    let mut neighbours: [usize; 8] = [0, 1, 2, 3, 5, 6, 7, 8];
    neighbours.sort_by(|&a, &b| kernel[b].abs().total_cmp(&kernel[a].abs()));
    neighbours[..3]
        .iter()
        .fold(1 << CENTRE, |mask, position| mask | 1 << position)
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// By trying all 56, in the order of their masks.
    fn preferred_naive(kernel: &[f32]) -> u16 {
        let energy = |mask: u16| {
            (0..9)
                .filter(|position| mask >> position & 1 == 1)
                .map(|position| f64::from(kernel[position]).powi(2))
                .sum::<f64>()
        };
        let mut best = (0, -1.0);
        for mask in PatternPool::natural() {
            if energy(mask) > best.1 {
                best = (mask, energy(mask));
            }
        }
        best.0
    }

    #[test]
    fn the_preferred_pattern_is_the_best_of_all() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..2000 {
            // Small integers: ties are many, and sums exact.
            let kernel: [f32; 9] = core::array::from_fn(|_| rng.random_range(-3i8..=3).into());
            assert_eq!(preferred(&kernel), preferred_naive(&kernel), "{kernel:?}");
        }
        assert_eq!(preferred(&[0.0; 9]), PatternPool::natural()[0]);
    }

    #[test]
    fn the_pool_holds_what_most_prefer_and_ties_go_to_the_lowest_mask() {
        let kernel = |positions: [usize; 3]| {
            let mut kernel = [0.0f32; 9];
            positions.into_iter().for_each(|p| kernel[p] = 1.0);
            kernel
        };
        let mut preferences = Preferences::default();
        for (positions, times) in [
            ([5, 7, 8], 2),
            ([0, 1, 2], 1),
            ([1, 3, 5], 2),
            ([6, 7, 8], 1),
        ] {
            (0..times).for_each(|_| preferences.add(&kernel(positions)));
        }
        preferences.add(&[0.0; 9]); // prefers nothing
        assert_eq!(preferences.kernels(0b1_1011_0000), 2);
        let masks = |n| preferences.pool(n).unwrap().masks().to_vec();
        let all = [0b0_0011_1010, 0b1_1011_0000, 0b0_0001_0111, 0b1_1101_0000];
        for n in 1..=4 {
            assert_eq!(masks(n), all[..n]);
        }
        assert_eq!(masks(16), all, "only those that occur");
        assert!(preferences.pool(0).is_err());
        let none = Preferences::default().pool(3).unwrap();
        assert_eq!(none.masks(), [PatternPool::natural()[0]]);
    }
}
