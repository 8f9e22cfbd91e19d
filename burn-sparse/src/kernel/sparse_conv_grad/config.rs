//! Tiles of the gradients, known when their kernels are compiled, and their rules of thumb.

use cubecl::{ir::HardwareProperties, prelude::Client};

use crate::kernel::base::{is_software, software_units, units_up_to};

/// What a cube of the input's gradient works on: one input channel, `units` pixels, `sub_batch`
/// images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GradInputTile {
    /// Units of a cube, one input pixel each.
    pub units: usize,
    /// Images for which a unit uses each entry that it has loaded.
    pub sub_batch: usize,
    /// Entries staged in shared memory at a time; 0 reads them where they are.
    pub chunk: usize,
}

impl GradInputTile {
    /// The rule of thumb for `batch` images.
    pub(crate) fn heuristic(client: &Client, batch: usize) -> Self {
        let sub_batch = 1 << batch.clamp(1, 4).ilog2();
        let [units, chunk] = match is_software(client) {
            true => [software_units(client), 0],
            false => [units_up_to(client, 128), 64],
        };
        Self {
            units,
            sub_batch,
            chunk,
        }
    }

    /// The first rule that this tile breaks for `batch` images on this hardware, as a sentence.
    ///
    /// # Errors
    /// The sentence.
    pub fn check(&self, batch: usize, hardware: &HardwareProperties) -> Result<(), String> {
        first_broken(&[
            (
                self.units >= 1 && self.sub_batch >= 1,
                "units and sub_batch must be at least 1",
            ),
            (
                self.units <= hardware.max_units_per_cube as usize,
                "a cube must not have more units than the device allows",
            ),
            (
                self.sub_batch <= batch,
                "sub_batch must not exceed the batch",
            ),
            (
                self.sub_batch <= 16,
                "sub_batch must not exceed 16 accumulators",
            ),
            (
                self.chunk * 20 <= hardware.max_shared_memory_size,
                "staged entries must fit shared memory",
            ),
        ])
        .map_err(|rule| format!("{self:?}: {rule}"))
    }
}

/// What a cube of the values' gradient works on: entries of one output channel, for all images
/// and pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GradValuesTile {
    /// Units of a cube; a power of two.
    pub units: usize,
    /// Units that share out the images and pixels of an entry and add up their sums in shared
    /// memory: either all of a cube, or 1, each unit by itself.
    pub lanes: usize,
    /// Entries for which a unit uses each gradient that it has loaded.
    pub entries: usize,
}

impl GradValuesTile {
    /// The rule of thumb for `places` images times pixels.
    pub(crate) fn heuristic(client: &Client, places: usize) -> Self {
        let wanted = places.next_power_of_two().clamp(32, 256);
        let [units, lanes] = match is_software(client) {
            true => [units_up_to(client, 32), 1],
            false => [units_up_to(client, wanted); 2],
        };
        Self {
            units,
            lanes,
            entries: 4,
        }
    }

    /// Blocks of entries that a cube works on at a time.
    pub(crate) const fn blocks(&self) -> usize {
        self.units / self.lanes
    }

    /// The first rule that this tile breaks on this hardware, as a sentence.
    ///
    /// # Errors
    /// The sentence.
    pub fn check(&self, hardware: &HardwareProperties) -> Result<(), String> {
        first_broken(&[
            (
                self.units.is_power_of_two() && self.entries >= 1,
                "units must be a power of two, and entries at least 1",
            ),
            (
                self.units <= hardware.max_units_per_cube as usize,
                "a cube must not have more units than the device allows",
            ),
            (
                self.lanes == 1 || self.lanes == self.units,
                "lanes must be 1 or all units of a cube",
            ),
            (
                self.entries <= 16,
                "entries must not exceed 16 accumulators",
            ),
            (
                self.lanes == 1 || self.units * self.entries * 4 <= hardware.max_shared_memory_size,
                "partial sums must fit shared memory",
            ),
        ])
        .map_err(|rule| format!("{self:?}: {rule}"))
    }
}

fn first_broken(rules: &[(bool, &'static str)]) -> Result<(), &'static str> {
    rules
        .iter()
        .find(|(holds, _)| !holds)
        .map_or(Ok(()), |&(_, rule)| Err(rule))
}
