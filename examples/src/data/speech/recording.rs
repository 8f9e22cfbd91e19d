//! The files of the spoken digits and what their names say.

use std::fs;
use std::path::Path;

use crate::data::{DataError, SkippedFile, balanced_subset};

/// Digits.
pub(super) const CLASSES: usize = 10;

/// What a file's name says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Recording {
    pub(super) digit: u32,
    pub(super) speaker: String,
    pub(super) index: u32,
}

impl Recording {
    /// Reads `{digit}_{speaker}_{index}`, if it is just that.
    fn parse(name: &str) -> Option<Self> {
        let (digit, rest) = name.split_once('_')?;
        let (speaker, index) = rest.rsplit_once('_')?;
        let recording = Self {
            digit: digit.parse().ok()?,
            speaker: speaker.into(),
            index: index.parse().ok()?,
        };
        let valid = recording.digit < CLASSES as u32 && !speaker.is_empty();
        // Another spelling of the same numbers would be the same recording twice.
        (valid && recording.name() == name).then_some(recording)
    }

    pub(super) fn name(&self) -> String {
        format!("{}_{}_{}", self.digit, self.speaker, self.index)
    }
}

/// The recordings in a folder, sorted by digit, speaker and index, and the WAV files with other
/// names; files of other kinds are passed over.
pub(super) fn list(dir: &Path) -> Result<(Vec<Recording>, Vec<SkippedFile>), DataError> {
    let (mut recordings, mut skipped) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(dir).map_err(|e| DataError::io(dir, e))? {
        let path = entry.map_err(|e| DataError::io(dir, e))?.path();
        if path.extension().is_none_or(|extension| extension != "wav") {
            continue;
        }
        let name = path.file_stem().and_then(|name| name.to_str());
        match name.and_then(Recording::parse) {
            Some(recording) => recordings.push(recording),
            None => skipped.push(SkippedFile {
                path,
                reason: "the name is not {digit}_{speaker}_{index}.wav".into(),
            }),
        }
    }
    recordings.sort();
    skipped.sort_by(|a, b| a.path.cmp(&b.path));
    Ok((recordings, skipped))
}

/// Keeps a seeded choice of at most `limit` recordings, as equal per digit as they allow.
pub(super) fn limited(
    recordings: Vec<Recording>,
    limit: Option<usize>,
    seed: u64,
) -> Vec<Recording> {
    let Some(limit) = limit else {
        return recordings;
    };
    let digits: Vec<u32> = recordings.iter().map(|recording| recording.digit).collect();
    let chosen = balanced_subset(&digits, CLASSES, limit, seed);
    chosen.into_iter().map(|i| recordings[i].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_other_names_refused() {
        let parsed = Recording::parse("7_bob_b_12").unwrap();
        assert_eq!((parsed.digit, parsed.index), (7, 12));
        assert_eq!(
            (parsed.speaker.as_str(), parsed.name().as_str()),
            ("bob_b", "7_bob_b_12")
        );
        for name in [
            "",
            "7",
            "7_bob",
            "7__1",
            "_bob_1",
            "7_bob_",
            "10_bob_1",
            "07_bob_1",
            "7_bob_01",
            "+7_bob_1",
            "7_bob_-1",
            "7_bob_4294967296",
            "a_bob_1",
            "7_bob_1 ",
        ] {
            assert_eq!(Recording::parse(name), None, "{name:?}");
        }
    }

    #[test]
    fn files_are_sorted_by_number_and_others_passed_over_or_named() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "1_b_10.wav",
            "1_b_9.wav",
            "1_a_11.wav",
            "0_z_0.wav",
            "x.wav",
            "1_b_1.mp3",
        ] {
            fs::write(dir.path().join(name), b"").unwrap();
        }
        let (recordings, skipped) = list(dir.path()).unwrap();
        let names: Vec<String> = recordings.iter().map(Recording::name).collect();
        assert_eq!(names, ["0_z_0", "1_a_11", "1_b_9", "1_b_10"]);
        assert_eq!(skipped.len(), 1);
        assert!(skipped[0].path.ends_with("x.wav"));
        let limit = limited(recordings.clone(), Some(2), 3);
        assert_eq!(limit.iter().map(|r| r.digit).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(limited(recordings, None, 3).len(), 4);
    }
}
