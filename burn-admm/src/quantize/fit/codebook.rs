//! k-means in one dimension.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::Grid;

/// Starts from k-means++, beside those from quantiles and from equal intervals.
const SEEDED: u64 = 6;
/// Rounds of Lloyd's algorithm; they end when nothing moves.
const ROUNDS: usize = 1000;

/// Values, ascending, with sums before each: a round takes `O(k log n)`.
struct Sorted {
    values: Vec<f32>,
    sums: Vec<f64>,
    squares: Vec<f64>,
}

impl Sorted {
    fn new(values: &[f32]) -> Self {
        let mut values = values.to_vec();
        values.sort_by(f32::total_cmp);
        let running = |of: fn(f64) -> f64| {
            let mut sum = 0.0;
            let ends = values.iter().map(|&value| {
                sum += of(f64::from(value));
                sum
            });
            core::iter::once(0.0).chain(ends).collect()
        };
        let (sums, squares) = (running(|v| v), running(|v| v * v));
        Self {
            values,
            sums,
            squares,
        }
    }

    fn mean(&self, start: usize, end: usize) -> f64 {
        (self.sums[end] - self.sums[start]) / (end - start) as f64
    }

    /// `Σ (v − mean)²` of a run.
    fn spread(&self, start: usize, end: usize) -> f64 {
        let sum = self.sums[end] - self.sums[start];
        let squares = self.squares[end] - self.squares[start];
        (squares - sum * sum / (end - start).max(1) as f64).max(0.0)
    }

    /// The exact solution: the first `end` values in `c` clusters are the first `start` in `c − 1` and
    /// one more, and the best `start` never falls as `end` grows, so halving finds all of them in
    /// `O(k n log n)` (Grønlund et al., "Fast exact k-means in 1D", 2017, section 2.2).
    fn exact(&self, k: usize) -> Vec<f64> {
        let n = self.values.len();
        let mut least: Vec<f64> = (0..=n).map(|end| self.spread(0, end)).collect();
        let mut starts: Vec<Vec<u32>> = vec![vec![0; n + 1]];
        for clusters in 2..=k {
            let (mut next, mut from) = (vec![f64::INFINITY; n + 1], vec![0u32; n + 1]);
            let mut open = vec![(clusters, n, clusters - 1, n - 1)];
            while let Some((low, high, first, last)) = open.pop() {
                if low > high {
                    continue;
                }
                let end = low + (high - low) / 2;
                let mut best = first;
                let starts = first..=last.min(end - 1);
                for (start, before) in starts.clone().zip(&least[starts]) {
                    let error = before + self.spread(start, end);
                    if error < next[end] {
                        (next[end], best) = (error, start);
                    }
                }
                from[end] = best as u32;
                open.push((low, end - 1, first, best));
                open.push((end + 1, high, best, last));
            }
            least = next;
            starts.push(from);
        }
        let mut centres = Vec::with_capacity(k);
        let mut end = n;
        for from in starts.iter().rev() {
            let start = from[end] as usize;
            centres.push(self.mean(start, end));
            end = start;
        }
        centres
    }

    /// Where the values nearest to each centre end.
    fn ends(&self, centres: &[f64]) -> Vec<usize> {
        let edges = centres.windows(2).map(|pair| 0.5 * (pair[0] + pair[1]));
        let mut start = 0;
        let mut ends: Vec<usize> = edges
            .map(|edge| {
                start += self.values[start..].partition_point(|v| f64::from(*v) < edge);
                start
            })
            .collect();
        ends.push(self.values.len());
        ends
    }

    fn lloyd(&self, mut centres: Vec<f64>) -> (Vec<f64>, f64) {
        let k = centres.len();
        let mut ends = self.ends(&centres);
        for _ in 0..ROUNDS.min(EXACT / k) {
            let mut start = 0;
            let mut next: Vec<f64> = Vec::with_capacity(k);
            for &end in &ends {
                if end > start {
                    next.push(self.mean(start, end));
                }
                start = end;
            }
            // Those that were lost in earlier rounds count too.
            let empty = k - next.len();
            self.fill(&mut next, &ends, empty);
            next.sort_by(f64::total_cmp);
            let next_ends = self.ends(&next);
            let settled = empty == 0 && next_ends == ends;
            (centres, ends) = (next, next_ends);
            if settled {
                break;
            }
        }
        let mut start = 0;
        let error = ends.iter().map(|&end| {
            let from = core::mem::replace(&mut start, end);
            if end > from {
                self.spread(from, end)
            } else {
                0.0
            }
        });
        let error = error.sum();
        (centres, error)
    }

    /// For each cluster without values a centre at the value farthest from the mean of a cluster, the
    /// worst clusters first.
    fn fill(&self, centres: &mut Vec<f64>, ends: &[usize], empty: usize) {
        if empty == 0 {
            return;
        }
        let starts = core::iter::once(&0).chain(ends);
        let mut clusters: Vec<(f64, usize, usize)> = starts
            .zip(ends)
            .filter(|(start, end)| end > start)
            .map(|(&start, &end)| (self.spread(start, end), start, end))
            .collect();
        clusters.sort_by(|a, b| b.0.total_cmp(&a.0));
        for &(_, start, end) in clusters.iter().take(empty) {
            let mean = self.mean(start, end);
            let ends = [self.values[start], self.values[end - 1]].map(f64::from);
            let far = if mean - ends[0] > ends[1] - mean {
                ends[0]
            } else {
                ends[1]
            };
            centres.push(far);
        }
    }

    /// Centres drawn one after the other, by the squared distance from those before (Arthur and
    /// Vassilvitskii, 2007).
    fn seeded(&self, k: usize, seed: u64) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut centres = vec![f64::from(
            self.values[rng.random_range(0..self.values.len())],
        )];
        let mut distances: Vec<f64> = vec![f64::INFINITY; self.values.len()];
        while centres.len() < k {
            let last = centres[centres.len() - 1];
            let mut total = 0.0;
            for (distance, &value) in distances.iter_mut().zip(&self.values) {
                *distance = distance.min((f64::from(value) - last).powi(2));
                total += *distance;
            }
            if total <= 0.0 {
                break;
            }
            let mut left = rng.random::<f64>() * total;
            let picked = distances.iter().position(|distance| {
                left -= distance;
                left < 0.0
            });
            centres.push(f64::from(
                self.values[picked.unwrap_or(self.values.len() - 1)],
            ));
        }
        centres.sort_by(f64::total_cmp);
        centres
    }

    /// The best of Lloyd's algorithm from quantiles, from equal intervals, from k-means++ and from the
    /// exact solution for every so many-th value.
    fn best_of_starts(&self, k: usize, sample: usize) -> Grid {
        let n = self.values.len();
        let quantiles = (0..k).map(|i| f64::from(self.values[(2 * i + 1) * n / (2 * k)]));
        let (low, high) = (f64::from(self.values[0]), f64::from(self.values[n - 1]));
        let equal = (0..k).map(|i| low + (high - low) * (i as f64 + 0.5) / k as f64);
        let mut starts: Vec<Vec<f64>> = vec![quantiles.collect(), equal.collect()];
        // Of large codebooks only the plain starts: the others would take minutes.
        if sample >= 2 * k {
            let step = n.div_ceil(sample);
            let sample: Vec<f32> = self.values.iter().step_by(step).copied().collect();
            let sample = Self::new(&sample);
            starts.push(sample.exact(k.min(sample.values.len())));
            starts.extend((0..SEEDED).map(|seed| sample.seeded(k, seed)));
        }
        let best = starts
            .into_iter()
            .map(|start| self.lloyd(start))
            .min_by(|a, b| a.1.total_cmp(&b.1));
        let (centres, error) = best.unwrap_or_default();
        Grid::Codebook(rounded(&self.rearranged(centres, error)))
    }

    /// As long as it helps, merges the two neighbours that lose least by it and splits the cluster
    /// that gains most: what Lloyd's algorithm alone, which moves centres past few values, never does.
    fn rearranged(&self, mut centres: Vec<f64>, mut error: f64) -> Vec<f64> {
        for _ in 0..(2 * centres.len()).min(MOVES / centres.len().max(1)) {
            let ends = self.ends(&centres);
            let starts = core::iter::once(0).chain(ends.iter().copied());
            let runs: Vec<(usize, usize)> = starts.zip(ends.iter().copied()).collect();
            let merged = (0..runs.len().saturating_sub(1)).map(|i| {
                let (a, b) = (runs[i], runs[i + 1]);
                let cost = self.spread(a.0, b.1) - self.spread(a.0, a.1) - self.spread(b.0, b.1);
                (i, cost)
            });
            let Some((merge, cost)) = merged.min_by(|a, b| a.1.total_cmp(&b.1)) else {
                break;
            };
            let others = (0..runs.len()).filter(|&i| i != merge && i != merge + 1);
            let split = others.filter_map(|i| {
                let (start, end) = runs[i];
                let at = self.halved(start, end)?;
                let halves = self.spread(start, at) + self.spread(at, end);
                Some((i, at, self.spread(start, end) - halves))
            });
            let Some((split, at, gain)) = split.max_by(|a, b| a.2.total_cmp(&b.2)) else {
                break;
            };
            if gain <= cost {
                break;
            }
            let mut next = Vec::with_capacity(centres.len());
            for (i, &(start, end)) in runs.iter().enumerate() {
                if i == split {
                    next.extend([self.mean(start, at), self.mean(at, end)]);
                } else if i == merge {
                    next.push(self.mean(start, runs[i + 1].1));
                } else if i != merge + 1 {
                    next.push(centres[i]);
                }
            }
            let (next, next_error) = self.lloyd(next);
            if next_error >= error {
                break;
            }
            (centres, error) = (next, next_error);
        }
        centres
    }

    /// Where the values of a run that are above its mean begin.
    fn halved(&self, start: usize, end: usize) -> Option<usize> {
        if end - start < 2 {
            return None;
        }
        let mean = self.mean(start, end);
        let at = start + self.values[start..end].partition_point(|v| f64::from(*v) < mean);
        (at > start && at < end).then_some(at)
    }
}

/// Clusters that are looked at, in all rounds, for a merge and a split.
const MOVES: usize = 1 << 17;
/// Steps up to which the exact solution is computed: a few tenths of a second.
const EXACT: usize = 1 << 26;

pub(in crate::quantize) fn fit(values: &[f32], k: usize) -> Grid {
    if let Some(few) = different(values, k) {
        return Grid::Codebook(few);
    }
    let sorted = Sorted::new(values);
    let n = values.len();
    if k * n * (n.ilog2() as usize + 1) <= EXACT {
        return Grid::Codebook(rounded(&sorted.exact(k)));
    }
    sorted.best_of_starts(k, EXACT / (k * n.ilog2() as usize))
}

/// Lloyd's algorithm whatever the number of values, started from a third of them.
#[cfg(test)]
pub(in crate::quantize) fn lloyd(values: &[f32], k: usize) -> Grid {
    Sorted::new(values).best_of_starts(k, values.len() / 3)
}

/// In f32, ascending, none twice.
fn rounded(centres: &[f64]) -> Vec<f32> {
    let mut codebook: Vec<f32> = centres.iter().map(|&c| c as f32 + 0.0).collect();
    codebook.sort_by(f32::total_cmp);
    codebook.dedup();
    codebook
}

/// The different values, ascending, if there are no more than `k`; one zero if there are none.
fn different(values: &[f32], k: usize) -> Option<Vec<f32>> {
    let mut seen = std::collections::BTreeSet::new();
    for &value in values {
        // Ordered as numbers: the bits of positive ones ascend, those of negative ones descend.
        let bits = (value + 0.0).to_bits();
        seen.insert(if bits >> 31 == 0 {
            bits ^ 0x8000_0000
        } else {
            !bits
        });
        if seen.len() > k {
            return None;
        }
    }
    let number = |key: u32| {
        f32::from_bits(if key >> 31 == 1 {
            key ^ 0x8000_0000
        } else {
            !key
        })
    };
    let mut values: Vec<f32> = seen.into_iter().map(number).collect();
    if values.is_empty() {
        values.push(0.0);
    }
    Some(values)
}

/// The exact solution by dynamic programming over runs of sorted values, in `O(k n²)`.
pub(in crate::quantize) fn kmeans_exact(values: &[f32], k: usize) -> Grid {
    if let Some(few) = different(values, k) {
        return Grid::Codebook(few);
    }
    let sorted = Sorted::new(values);
    let n = sorted.values.len();
    // least[c][end]: error of the first `end` values in `c` clusters; from[c][end]: where the last starts.
    let mut least = vec![vec![f64::INFINITY; n + 1]; k + 1];
    let mut from = vec![vec![0; n + 1]; k + 1];
    least[0][0] = 0.0;
    for clusters in 1..=k {
        for end in clusters..=n {
            for start in clusters - 1..end {
                let error = least[clusters - 1][start] + sorted.spread(start, end);
                if error < least[clusters][end] {
                    (least[clusters][end], from[clusters][end]) = (error, start);
                }
            }
        }
    }
    let mut centres = Vec::with_capacity(k);
    let mut end = n;
    for clusters in (1..=k).rev() {
        let start = from[clusters][end];
        centres.push(sorted.mean(start, end));
        end = start;
    }
    Grid::Codebook(rounded(&centres))
}
