//! What trials have said about a layer.

/// Beyond this a trial says no more about a sensitivity, in either direction.
const LARGEST: f64 = 10.0;

/// How a layer takes to pruning.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct Statistics {
    /// What a whole step of this layer costs in accuracy, in tolerances: a mean that forgets. Below
    /// zero where accuracy rose.
    pub sensitivity: f64,
    /// The part of its mask that changed from one batch of the last trial to the next, on average.
    pub migration: f64,
}

impl Statistics {
    /// Learns from a trial that has changed accuracy by `lost` tolerances, when the layer was given
    /// `grown` of a whole step: `sens ← memory · sens + (1 − memory) · lost / grown`.
    pub(super) fn learn(&mut self, lost: f64, grown: f64, memory: f64) {
        if grown > 0.0 {
            let sample = (lost / grown).clamp(-LARGEST, LARGEST);
            self.sensitivity = memory * self.sensitivity + (1.0 - memory) * sample;
        }
    }
}

/// Migration while a trial lasts.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Migration {
    sum: f64,
    batches: u64,
}

impl Migration {
    /// Another batch has changed a mask: `|entered ∪ left| / |mask|`.
    pub(super) fn add(&mut self, before: &[bool], after: &[bool]) {
        self.sum += migration(before, after);
        self.batches += 1;
    }

    /// The mean over all batches; 0 without any.
    pub(super) fn mean(&self) -> f64 {
        self.sum / self.batches.max(1) as f64
    }
}

/// `|entered ∪ left| / |mask|`: weights that have entered or left a mask, relative to those that it
/// keeps now.
///
/// # Panics
/// If the masks have different lengths.
///
/// # Example
/// ```
/// use burn_admm::evolve::migration;
///
/// let (before, after) = ([true, true, false, false], [true, false, true, false]);
/// assert_eq!(migration(&before, &after), 1.0); // one has left, one has entered, two are kept
/// assert_eq!(migration(&before, &before), 0.0);
/// ```
pub fn migration(before: &[bool], after: &[bool]) -> f64 {
    assert_eq!(before.len(), after.len(), "masks of the same weight");
    let moved = before.iter().zip(after).filter(|(b, a)| b != a).count();
    let kept = after.iter().filter(|&&keep| keep).count();
    moved as f64 / kept.max(1) as f64
}
