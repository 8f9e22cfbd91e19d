//! Looking for the fastest plan of a layer among more than can all be timed.
//!
//! | file | holds |
//! |---|---|
//! | `space` | all plans, as genes |
//! | `genetic` | the search of GRIM |
//! | `random` | its control |

mod genetic;
mod random;
mod space;

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

pub(super) use space::Space;
use space::{AXES, Gene};

/// How the plans of the CPU kernels are looked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Search {
    /// A few dozen plans that an analysis of the layer proposes, as far as some hundredths of a second
    /// go: a whole network is packed in seconds.
    #[default]
    Candidates,
    /// The genetic search of Niu et al., "GRIM" (TPAMI 2021), over all plans: 32 individuals,
    /// tournaments of three, uniform crossover, mutation of 15 % of the genes, the best two survive.
    Genetic {
        /// Plans that are timed.
        evaluations: usize,
    },
    /// The control: as many plans drawn at random.
    Random {
        /// Plans that are timed.
        evaluations: usize,
    },
}

impl Search {
    /// The search over all plans to ask for, the published one: at equal evaluations over the layers of
    /// ResNet-50 genetic and random search won as often as each other (`bench search`; see the chapter
    /// "Measuring: the bench").
    ///
    /// # Example
    /// ```
    /// use burn_sparse::pack::{PackConfig, Search};
    ///
    /// let config = PackConfig::default().with_search(Search::thorough());
    /// # let _ = config;
    /// ```
    #[must_use]
    pub const fn thorough() -> Self {
        Self::Genetic { evaluations: 320 }
    }
}

/// What a search times: plans that are not yet known, up to a number of them.
struct Evaluations<F> {
    left: usize,
    seen: HashSet<Gene>,
    time: F,
}

impl<F: FnMut(Gene) -> f64> Evaluations<F> {
    fn new(evaluations: usize, time: F) -> Self {
        Self {
            left: evaluations,
            seen: HashSet::new(),
            time,
        }
    }

    /// The time of a gene that was not timed before; nothing when it was, or when none is left.
    fn time(&mut self, gene: Gene) -> Option<f64> {
        if self.left == 0 || !self.seen.insert(gene) {
            return None;
        }
        self.left -= 1;
        Some((self.time)(gene))
    }
}

/// Runs a search over genes of these sizes, from `start` on; `time` is asked once for each gene.
pub(super) fn run(
    search: Search,
    sizes: [usize; AXES],
    start: &[Gene],
    seed: u64,
    time: impl FnMut(Gene) -> f64,
) {
    match search {
        Search::Candidates => {}
        Search::Genetic { evaluations } => {
            genetic::search(sizes, start, seed, Evaluations::new(evaluations, time));
        }
        Search::Random { evaluations } => {
            random::search(sizes, start, seed, Evaluations::new(evaluations, time));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A valley with its floor at one gene: each axis adds its distance.
    fn valley(gene: Gene) -> f64 {
        let floor: Gene = [1, 9, 2, 1, 0, 3];
        let steps = gene
            .iter()
            .zip(floor)
            .map(|(&a, b)| f64::from(a.abs_diff(b)));
        1.0 + steps.sum::<f64>()
    }

    const SIZES: [usize; AXES] = [3, 14, 6, 2, 3, 5];

    fn best(search: Search, seed: u64) -> (f64, usize) {
        let (mut best, mut count) = (f64::MAX, 0);
        run(search, SIZES, &[[0; AXES]], seed, |gene| {
            count += 1;
            let inside = gene
                .iter()
                .zip(SIZES)
                .all(|(&g, size)| usize::from(g) < size);
            assert!(inside, "{gene:?}");
            best = f64::min(best, valley(gene));
            valley(gene)
        });
        (best, count)
    }

    #[test]
    fn searches_keep_to_their_evaluations_and_repeat_with_their_seed() {
        for evaluations in [0, 1, 7, 200] {
            for search in [
                Search::Genetic { evaluations },
                Search::Random { evaluations },
            ] {
                assert_eq!(best(search, 5).1, evaluations, "{search:?}");
                assert_eq!(best(search, 5), best(search, 5));
            }
        }
        // More than there are: all of them, and an end.
        let all: usize = SIZES.iter().product();
        let evaluations = 10 * all;
        assert_eq!(best(Search::Random { evaluations }, 1).1, all);
        assert!(best(Search::Genetic { evaluations }, 1).1 <= all);
        assert_eq!(best(Search::Candidates, 1).1, 0);
    }

    #[test]
    fn a_valley_is_descended_faster_than_by_chance() {
        let evaluations = 200;
        let mean = |search| (0..20).map(|seed| best(search, seed).0).sum::<f64>() / 20.0;
        let genetic = mean(Search::Genetic { evaluations });
        let random = mean(Search::Random { evaluations });
        assert!(
            genetic < 2.0 && genetic < random,
            "{genetic} against {random}"
        );
    }
}
