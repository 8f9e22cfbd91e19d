//! Weights that stay or go together: what the structured patterns share.
//!
//! The nearest point with `k` groups keeps those of largest norm, since `‖V − Z‖²` is the sum of
//! `‖V_g‖²` over the groups that go.

use burn_sparse::{SparseError, Sparsity, WeightShape};

use super::{Projected, Projection, ProjectionError, check, top_k};

/// How a weight divides into groups. Each entry belongs to exactly one.
pub(crate) trait Grouping {
    /// Groups of a weight.
    fn count(&self, shape: WeightShape) -> usize;

    /// The group of the entry at that output channel, input channel and position of the kernel.
    fn group(&self, shape: WeightShape, row: usize, channel: usize, position: usize) -> usize;

    /// The group of every entry, row after row.
    fn of_entries(&self, shape: WeightShape) -> Vec<usize> {
        let mut groups = Vec::with_capacity(shape.len());
        entries(shape, |_, [row, channel, position]| {
            groups.push(self.group(shape, row, channel, position));
        });
        groups
    }
}

/// Calls `f` with the index, and the output channel, input channel and position, of every entry.
fn entries(shape: WeightShape, mut f: impl FnMut(usize, [usize; 3])) {
    let mut index = 0;
    for row in 0..shape.rows {
        for channel in 0..shape.channels {
            for position in 0..shape.positions() {
                f(index, [row, channel, position]);
                index += 1;
            }
        }
    }
}

/// A constraint that allows a number of groups.
pub(super) trait GroupChoice: Grouping {
    /// The constraint in the common vocabulary, which checks that it fits.
    fn sparsity(&self) -> Sparsity;

    /// Groups that stay of those that compete.
    fn keep(&self, shape: WeightShape) -> Result<usize, SparseError>;

    /// How many consecutive groups compete for a place: all of them, unless said otherwise.
    fn competing(&self, shape: WeightShape) -> usize {
        self.count(shape)
    }
}

/// `‖V_g‖²` of every group, in f64. Each sum runs in the order of storage, so that equal groups
/// have equal sums.
pub(crate) fn energies(weights: &[f32], shape: WeightShape, grouping: &impl Grouping) -> Vec<f64> {
    let mut energies = vec![0.0; grouping.count(shape)];
    entries(shape, |index, [row, channel, position]| {
        energies[grouping.group(shape, row, channel, position)] += square(weights[index]);
    });
    energies
}

pub(super) fn square(weight: f32) -> f64 {
    f64::from(weight) * f64::from(weight)
}

impl<C: GroupChoice + core::fmt::Debug + Send + Sync> Projection for C {
    fn project(&self, weights: &[f32], shape: WeightShape) -> Result<Projected, ProjectionError> {
        project(self, weights, shape)
    }

    fn project_naive(
        &self,
        weights: &[f32],
        shape: WeightShape,
    ) -> Result<Projected, ProjectionError> {
        project_naive(self, weights, shape)
    }
}

/// Keeps the groups of largest norm, ties to the lowest group.
fn project(
    choice: &impl GroupChoice,
    weights: &[f32],
    shape: WeightShape,
) -> Result<Projected, ProjectionError> {
    if check(weights, shape, choice.sparsity())?.is_none() {
        return Ok(Projected::default());
    }
    let (keep, competing) = (choice.keep(shape)?, choice.competing(shape));
    let energies = energies(weights, shape, choice);
    let mut kept = vec![false; energies.len()];
    for (energies, kept) in energies.chunks(competing).zip(kept.chunks_mut(competing)) {
        top_k::mark(energies, keep, kept);
    }
    let mut mask = Vec::with_capacity(weights.len());
    entries(shape, |_, [row, channel, position]| {
        mask.push(kept[choice.group(shape, row, channel, position)]);
    });
    Ok(Projected::keep(weights, mask))
}

/// The same group by group, each by a pass over all entries.
fn project_naive(
    choice: &impl GroupChoice,
    weights: &[f32],
    shape: WeightShape,
) -> Result<Projected, ProjectionError> {
    if check(weights, shape, choice.sparsity())?.is_none() {
        return Ok(Projected::default());
    }
    let of = choice.of_entries(shape);
    let mut mask = vec![false; weights.len()];
    let competing = choice.competing(shape);
    for first in (0..choice.count(shape)).step_by(competing) {
        let groups: Vec<usize> = (first..first + competing).collect();
        let energies: Vec<f64> = groups
            .iter()
            .map(|group| {
                let mut sum = 0.0;
                for (weight, of) in weights.iter().zip(&of) {
                    if of == group {
                        sum += square(*weight);
                    }
                }
                sum
            })
            .collect();
        let mut kept = vec![false; groups.len()];
        top_k::mark_naive(&energies, choice.keep(shape)?, &mut kept);
        for (mask, of) in mask.iter_mut().zip(&of) {
            if let Some(group) = groups.iter().position(|group| group == of) {
                *mask = kept[group];
            }
        }
    }
    Ok(Projected::keep(weights, mask))
}
