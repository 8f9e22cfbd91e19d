//! Everything that a trial changes, as it was when the trial began.

use burn::module::Module;
use burn::optim::ModuleOptimizer;
use burn::store::ModuleRecord;
use rand_chacha::ChaCha8Rng;

use super::EvolveError;

/// A copy to which a trial can be rewound, bit for bit.
pub(super) struct Snapshot {
    /// Weights, masks and running statistics.
    record: ModuleRecord,
    optimizer: ModuleOptimizer,
    /// What each layer keeps, in storage order.
    pub(super) keeps: Vec<Vec<bool>>,
    pub(super) random: ChaCha8Rng,
    pub(super) position: u64,
}

impl core::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Snapshot")
            .field("record", &self.record)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl Snapshot {
    pub(super) fn take<M: Module>(
        model: &M,
        optimizer: &ModuleOptimizer,
        keeps: Vec<Vec<bool>>,
        (random, position): (ChaCha8Rng, u64),
    ) -> Self {
        settle(model);
        Self {
            record: model.clone().into_record(),
            optimizer: optimizer.clone(),
            keeps,
            random,
            position,
        }
    }

    /// Puts model and optimiser back. On errors both are left as they are, but for running statistics.
    pub(super) fn restore<M: Module>(
        &self,
        model: &mut M,
        optimizer: &mut ModuleOptimizer,
    ) -> Result<(), EvolveError> {
        settle(model);
        let record = self.record.clone();
        let restored = model.clone().try_load_record(record);
        *model = restored.map_err(EvolveError::Rewind)?;
        *optimizer = self.optimizer.clone();
        Ok(())
    }
}

/// Running statistics hold their last update back until they are asked for, so that a record lacks it,
/// and one that is loaded is overwritten by it. Validation mode asks.
pub(crate) fn settle<M: Module>(model: &M) {
    drop(model.valid());
}
