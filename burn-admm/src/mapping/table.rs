//! Times, and how more of them come about.

use serde::{Deserialize, Serialize};

use super::{LatencyCase, MappingError, measure::measured};
use burn::tensor::Device;

/// Raised whenever kernels become faster or slower: times of other versions say nothing about this one.
pub const KERNELS: u32 = 2;

/// Milliseconds of a case.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LatencyEntry {
    /// The layer and its weights.
    pub case: LatencyCase,
    /// The layer dense.
    pub dense_ms: f64,
    /// The layer packed, faster or not.
    pub packed_ms: f64,
}

impl LatencyEntry {
    /// What the layer takes after packing, which keeps it dense where that is faster.
    pub fn ms(&self) -> f64 {
        self.packed_ms.min(self.dense_ms)
    }
}

/// Times of layers on one device, measured with random weights.
///
/// It is of a device and of a version of the kernels, and keeps to both: [`open`](Self::open) measures again
/// what others have left.
///
/// # Example
/// ```
/// use burn::tensor::Device;
/// use burn_admm::mapping::{LatencyCase, LatencyTable, Operation};
/// use burn_sparse::{ConvProblem, Sparsity};
///
/// let problem = ConvProblem::new(1, [8, 16], [12, 12], [3, 3]);
/// let case = LatencyCase::new(Operation::Conv2d, problem, Sparsity::row_balanced(0.9)?);
/// let mut table = LatencyTable::new("flex, this machine");
/// table.measure(&[case], &Device::flex(), |_, _, _| Ok(()))?;
/// assert!(table.of(&case).is_some_and(|entry| entry.ms() > 0.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LatencyTable {
    /// What they were measured on, as [`new`](Self::new) was told.
    pub device: String,
    /// [`KERNELS`] at the time.
    pub kernels: u32,
    pub(super) entries: Vec<LatencyEntry>,
}

impl LatencyTable {
    /// None yet.
    pub fn new(device: impl Into<String>) -> Self {
        Self {
            device: device.into(),
            kernels: KERNELS,
            entries: Vec::new(),
        }
    }

    /// All times, in the order in which they were measured.
    pub fn entries(&self) -> &[LatencyEntry] {
        &self.entries
    }

    /// The times of a case.
    pub fn of(&self, case: &LatencyCase) -> Option<&LatencyEntry> {
        self.entries.iter().find(|entry| entry.case == *case)
    }

    /// Puts an entry in the place of that of the same case, or at the end.
    ///
    /// # Errors
    /// [`MappingError::Entry`] for times that none can be, and a case that is none.
    pub fn insert(&mut self, entry: LatencyEntry) -> Result<(), MappingError> {
        check(&entry).map_err(MappingError::Entry)?;
        match self.entries.iter_mut().find(|old| old.case == entry.case) {
            Some(old) => *old = entry,
            None => self.entries.push(entry),
        }
        Ok(())
    }

    /// Measures those cases that are not in the table yet, on random weights projected onto their schemes, packed
    /// as packing would.
    ///
    /// `measured` is called after each with the table, how many are done, and of how many: to show progress, and
    /// to [save](Self::save) what there is. What it refuses ends the measurement, and what is done stays.
    ///
    /// # Errors
    /// [`MappingError`] for a case that cannot be measured, named with it, and what `measured` gives.
    ///
    /// # Panics
    /// If the device fails.
    pub fn measure(
        &mut self,
        cases: &[LatencyCase],
        device: &Device,
        mut progress: impl FnMut(&Self, usize, usize) -> Result<(), MappingError>,
    ) -> Result<(), MappingError> {
        let mut wanted: Vec<&LatencyCase> = Vec::new();
        for case in cases {
            if self.of(case).is_none() && !wanted.contains(&case) {
                wanted.push(case);
            }
        }
        progress(self, 0, wanted.len())?;
        for (done, case) in (1..).zip(&wanted) {
            let entry = measured(case, device)?;
            self.insert(entry)?;
            progress(self, done, wanted.len())?;
        }
        Ok(())
    }
}

/// What is wrong with an entry, if anything.
pub(super) fn check(entry: &LatencyEntry) -> Result<(), String> {
    let density = entry.case.density().map_err(|error| error.to_string())?;
    if density <= 0.0 {
        return Err("a layer without weights".into());
    }
    for ms in [entry.dense_ms, entry.packed_ms] {
        if !(ms.is_finite() && ms > 0.0) {
            return Err(format!("{ms} ms"));
        }
    }
    Ok(())
}
