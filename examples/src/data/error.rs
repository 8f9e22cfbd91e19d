//! What can go wrong with data, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// An error of the data sources.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The data set is neither on this machine nor could it be downloaded.
    #[error("no {dataset} data: {}. {help}", tried.join("; "))]
    Missing {
        /// The data set asked for.
        dataset: &'static str,
        /// What was tried, in order, each with its outcome.
        tried: Vec<String>,
        /// How to get the data.
        help: String,
    },
    /// A known data set holds fewer or more items than it should.
    #[error(
        "{} holds {found} items instead of {expected}; it was probably interrupted while \
         unpacking: remove it and run again", path.display()
    )]
    Incomplete {
        /// The folder or file.
        path: PathBuf,
        /// Images, recordings or sentences found.
        found: usize,
        /// Images, recordings or sentences the set has.
        expected: usize,
    },
    /// No image or recording below a folder.
    #[error("{} holds no data; expected {wanted}", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
        /// The layout that was looked for.
        wanted: &'static str,
    },
    /// Every file of a folder was broken.
    #[error("none of the {count} files below {} could be read; the first: {first}", path.display())]
    AllBroken {
        /// The folder.
        path: PathBuf,
        /// Files tried.
        count: usize,
        /// The first file and its error.
        first: String,
    },
    /// A class of the test or validation folder that the training folder does not have.
    #[error("class folder {class:?} in {} has no counterpart among the training classes {known:?}", path.display())]
    UnknownClass {
        /// The surplus class.
        class: String,
        /// The folder it lies in.
        path: PathBuf,
        /// The training classes (the first few).
        known: Vec<String>,
    },
    /// The decoded items would not fit the memory allowed.
    #[error(
        "{items} items of {bytes_each} bytes need more than the {limit} bytes allowed; \
         take fewer with --limit, or smaller ones"
    )]
    TooLarge {
        /// Number of images or recordings.
        items: usize,
        /// Bytes per decoded item.
        bytes_each: usize,
        /// Bytes allowed in total.
        limit: usize,
    },
    /// A broken IDX file.
    #[error("{}: {reason}; remove the file and run again to download it anew", path.display())]
    Idx {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Options that contradict each other or the data.
    #[error("{0}")]
    Options(String),
    /// Reading failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl DataError {
    /// Whether the data are simply not there, so that a drawn set may stand in for them. Broken
    /// data and wrong options are not.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }

    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io {
            path: path.to_path_buf(),
            source,
        }
    }
}
