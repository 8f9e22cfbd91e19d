use burn_sparse::{Sparsity, WeightShape};

use super::{Projected, Projection, ProjectionError, check, top_k};

/// Keeps the `n` largest magnitudes of every `m` consecutive input channels, at each position of the
/// kernel and in each output channel: `{W : ‖W_{r,G,p}‖₀ ≤ n for every such group G}`.
///
/// With 2 of 4 it is the pattern of NVIDIA's sparse tensor cores (Mishra et al., "Accelerating
/// sparse deep neural networks", 2021). Groups count from the first channel; channels that are left
/// over make a group of their own, which keeps `n` too if it has so many. Equal magnitudes are kept
/// from the lowest channel on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NOfMTopK {
    n: usize,
    m: usize,
}

impl NOfMTopK {
    /// Keeps `n` of `m`. Numbers that make no sense are an error of
    /// [`project`](Projection::project).
    pub fn new(n: usize, m: usize) -> Self {
        Self { n, m }
    }

    fn project_groups(
        &self,
        weights: &[f32],
        shape: WeightShape,
        mark: impl Fn(&[f32], usize, &mut [bool]),
    ) -> Result<Projected, ProjectionError> {
        let Self { n, m } = *self;
        if check(weights, shape, Sparsity::NofM { n, m })?.is_none() {
            return Ok(Projected::default());
        }
        let positions = shape.positions();
        let mut mask = vec![false; weights.len()];
        for start in (0..weights.len()).step_by(shape.row_len()) {
            for first in (0..shape.channels).step_by(m) {
                let channels = first..first.saturating_add(m).min(shape.channels);
                for position in 0..positions {
                    let at = |channel: usize| start + channel * positions + position;
                    let group: Vec<f32> = channels.clone().map(|c| weights[at(c)]).collect();
                    let mut kept = vec![false; group.len()];
                    mark(&group, n, &mut kept);
                    for (channel, keep) in channels.clone().zip(kept) {
                        mask[at(channel)] = keep;
                    }
                }
            }
        }
        Ok(Projected::keep(weights, mask))
    }
}

impl Projection for NOfMTopK {
    fn project(&self, weights: &[f32], shape: WeightShape) -> Result<Projected, ProjectionError> {
        self.project_groups(weights, shape, top_k::mark)
    }

    fn project_naive(
        &self,
        weights: &[f32],
        shape: WeightShape,
    ) -> Result<Projected, ProjectionError> {
        self.project_groups(weights, shape, top_k::mark_naive)
    }
}
