//! What was evaluated, on disk.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::mapping::LatencyFileError;
use crate::mapping::file::{self, Kept, Opened};

/// Accuracies of candidates, so that none is evaluated twice and an interrupted search goes on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Entries", into = "Entries")]
pub struct SearchLog {
    network: String,
    /// In the order in which they were evaluated.
    choices: Vec<Vec<usize>>,
    accuracies: HashMap<Vec<usize>, f64>,
}

#[derive(Serialize, Deserialize)]
struct Entries {
    network: String,
    entries: Vec<(Vec<usize>, f64)>,
}

impl From<Entries> for SearchLog {
    fn from(file: Entries) -> Self {
        let mut log = Self::new(file.network);
        for (choice, accuracy) in file.entries {
            log.insert(choice, accuracy);
        }
        log
    }
}

impl From<SearchLog> for Entries {
    fn from(log: SearchLog) -> Self {
        let accuracy = |choice: &Vec<usize>| log.accuracies.get(choice).copied();
        let entries = log.choices.iter();
        let entries = entries.filter_map(|choice| Some((choice.clone(), accuracy(choice)?)));
        Self {
            entries: entries.collect(),
            network: log.network,
        }
    }
}

impl SearchLog {
    /// Nothing yet. The name must differ for other offers, and for anything else that changes accuracies.
    pub fn new(network: impl Into<String>) -> Self {
        Self {
            network: network.into(),
            ..Self::default()
        }
    }

    /// Candidates that were evaluated.
    pub fn len(&self) -> usize {
        self.choices.len()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.choices.is_empty()
    }

    /// The accuracy of a candidate: an offer for each layer.
    pub fn accuracy(&self, choice: &[usize]) -> Option<f64> {
        self.accuracies.get(choice).copied()
    }

    /// Adds an accuracy; one that is no number counts as 0.
    pub(super) fn insert(&mut self, choice: Vec<usize>, accuracy: f64) {
        let accuracy = if accuracy.is_finite() { accuracy } else { 0.0 };
        if self.accuracies.insert(choice.clone(), accuracy).is_none() {
            self.choices.push(choice);
        }
    }

    /// As [`LatencyTable::open`](crate::mapping::LatencyTable::open): what is damaged, or of another network, begins anew.
    ///
    /// # Errors
    /// [`LatencyFileError::Io`] if there is a file that cannot be read.
    pub fn open(path: &Path, network: &str) -> Result<Opened<Self>, LatencyFileError> {
        let other = |log: &Self| {
            (log.network != network)
                .then(|| format!("accuracies of `{}`, not of `{network}`", log.network))
        };
        file::open(path, || Self::new(network), other)
    }

    /// As [`LatencyTable::save`](crate::mapping::LatencyTable::save).
    ///
    /// # Errors
    /// [`LatencyFileError::Io`].
    pub fn save(&self, path: &Path) -> Result<(), LatencyFileError> {
        file::save(self, path)
    }
}

impl Kept for SearchLog {
    fn check(&self) -> Result<(), String> {
        let mut accuracies = self.accuracies.values();
        match accuracies.find(|accuracy| !(0.0..=1.0).contains(*accuracy)) {
            Some(accuracy) => Err(format!("an accuracy of {accuracy}")),
            None => Ok(()),
        }
    }
}
