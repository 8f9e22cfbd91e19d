//! The groups that the penalty draws to zero.

use burn_sparse::{PatternPool, Pool, Sparsity, WeightShape};

use crate::projection::{
    ChannelTopK, ColumnTopK, ConnectivityTopK, FilterTopK, Grouping, PunchedTopK,
    SharedPatternTopK, best_pattern,
};

/// One division of a weight into groups.
pub(super) struct Family {
    /// The group of every entry, row after row.
    pub(super) of: Vec<usize>,
    /// Groups.
    pub(super) count: usize,
    /// Groups from here on go in any case: what lies outside of patterns.
    pub(super) doomed: usize,
}

/// Rows of every block: what they have of one block's columns.
struct BlockRows {
    columns: usize,
}

impl Grouping for BlockRows {
    fn count(&self, shape: WeightShape) -> usize {
        shape.rows * shape.row_len().div_ceil(self.columns)
    }

    fn group(&self, shape: WeightShape, row: usize, channel: usize, position: usize) -> usize {
        let column = channel * shape.positions() + position;
        row * shape.row_len().div_ceil(self.columns) + column / self.columns
    }
}

/// How many groups each weight is in; nothing for a pattern without groups.
pub(super) fn overlap(sparsity: Sparsity) -> Option<usize> {
    match sparsity {
        Sparsity::BlockColumnRow { .. } => Some(2),
        Sparsity::Filter(_)
        | Sparsity::Channel(_)
        | Sparsity::Column(_)
        | Sparsity::Connectivity(_)
        | Sparsity::Punched { .. }
        | Sparsity::KernelPattern { .. } => Some(1),
        _ => None,
    }
}

/// The groups of a weight given row after row: as many families as its entries are in groups. Those
/// of kernel patterns depend on the weights.
pub(super) fn families(sparsity: Sparsity, shape: WeightShape, weights: &[f32]) -> Vec<Family> {
    let one = |grouping: &dyn Grouping| {
        let count = grouping.count(shape);
        Family {
            of: grouping.of_entries(shape),
            count,
            doomed: count,
        }
    };
    match sparsity {
        Sparsity::Filter(budget) => vec![one(&FilterTopK::new(budget))],
        Sparsity::Channel(budget) => vec![one(&ChannelTopK::new(budget))],
        Sparsity::Column(budget) => vec![one(&ColumnTopK::new(budget))],
        Sparsity::Connectivity(budget) => vec![one(&ConnectivityTopK::new(budget))],
        Sparsity::Punched {
            filters,
            channels,
            budget,
        } => vec![one(&PunchedTopK::new([filters, channels], budget))],
        Sparsity::BlockColumnRow {
            block: [rows, columns],
            budget,
            ..
        } => vec![
            one(&BlockRows { columns }),
            // Columns of bands as high as a block.
            one(&SharedPatternTopK::new(rows, budget)),
        ],
        Sparsity::KernelPattern {
            pool: Pool::Given(pool),
            ..
        } => vec![patterns(&pool, weights)],
        _ => Vec::new(),
    }
}

/// A group per kernel for the entries of its best pattern, then one per kernel for those outside.
fn patterns(pool: &PatternPool, weights: &[f32]) -> Family {
    let kernels = weights.chunks_exact(PatternPool::POSITIONS);
    let doomed = kernels.len();
    let of = kernels.enumerate().flat_map(|(index, kernel)| {
        let (pattern, _) = best_pattern(pool, kernel);
        (0..PatternPool::POSITIONS).map(move |position| match pattern >> position & 1 {
            1 => index,
            _ => doomed + index,
        })
    });
    Family {
        of: of.collect(),
        count: 2 * doomed,
        doomed,
    }
}

impl Family {
    /// `‖W_g‖²` of every group, and its size.
    pub(super) fn energies(&self, weights: &[f32]) -> Vec<(f64, usize)> {
        let mut groups = vec![(0.0, 0); self.count];
        for (&weight, &group) in weights.iter().zip(&self.of) {
            groups[group].0 += f64::from(weight) * f64::from(weight);
            groups[group].1 += 1;
        }
        groups
    }
}

/// `Σ alpha` over the groups of every entry.
pub(super) fn coefficients(families: &[Family], weights: &[f32], epsilon: f64) -> Vec<f32> {
    let mut sums = vec![0.0; weights.len()];
    for family in families {
        let alphas: Vec<f64> = (family.energies(weights).iter())
            .map(|(energy, _)| 1.0 / (energy + epsilon))
            .collect();
        for (sum, &group) in sums.iter_mut().zip(&family.of) {
            *sum += alphas[group];
        }
    }
    sums.into_iter().map(|sum| sum as f32).collect()
}

/// Which entries stay if groups below `tau` times the weight's root mean square go, and whether any
/// does. With `keep_one` the entry whose groups are largest saves them.
pub(super) fn above(families: &[Family], weights: &[f32], tau: f64, keep_one: bool) -> Vec<bool> {
    let square = |&weight: &f32| f64::from(weight) * f64::from(weight);
    let mean = |energy: f64, entries: usize| (energy / entries.max(1) as f64).sqrt();
    let least = tau * mean(weights.iter().map(square).sum(), weights.len());
    let sizes: Vec<Vec<f64>> = families
        .iter()
        .map(|family| {
            let groups = family.energies(weights).into_iter().enumerate();
            groups
                .map(|(group, (energy, entries))| {
                    if group < family.doomed {
                        mean(energy, entries)
                    } else {
                        f64::NEG_INFINITY
                    }
                })
                .collect()
        })
        .collect();
    // An entry is as large as the smallest of its groups.
    let of_entry = |entry: usize| {
        let groups = families.iter().zip(&sizes);
        groups.fold(f64::INFINITY, |size, (family, sizes)| {
            size.min(sizes[family.of[entry]])
        })
    };
    let mask: Vec<bool> = (0..weights.len()).map(|i| of_entry(i) >= least).collect();
    if !keep_one || mask.contains(&true) {
        return mask;
    }
    let largest = (0..weights.len()).fold(0, |best, entry| {
        if of_entry(entry) > of_entry(best) {
            entry
        } else {
            best
        }
    });
    let with_it = |entry: usize| {
        let mut families = families.iter();
        families.all(|family| family.of.get(entry) == family.of.get(largest))
    };
    (0..weights.len()).map(with_it).collect()
}
