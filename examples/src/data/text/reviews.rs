//! Movie reviews: 5,331 sentences of praise and 5,331 of blame (Pang and Lee, *Seeing Stars*, 2005),
//! the set `MR` of Kim's paper.
//!
//! Two files, a sentence a line: `rt-polarity.pos` and `rt-polarity.neg`. The set has no test split of
//! its own; published accuracies are means of ten folds. Here a seed holds out a tenth of each class
//! for the test, and of the rest a tenth for validation, as one of those folds. So every seed has
//! another test split: report the mean of several.

use std::io;
use std::path::{Path, PathBuf};

use super::dataset::Labelled;
use super::{TextConfig, TextDataset, words};
use crate::data::decode::read_bounded;
use crate::data::seed::mix;
use crate::data::{DataError, LoadOptions, balanced_subset, cache, carve};

const DATASET: &str = "movie-reviews";
/// The set's folder in the cache.
const FOLDER: &str = "movie-reviews";
/// The folder in the archive that its authors publish.
const UNPACKED: &str = "rt-polaritydata";
/// The file of each class, in label order.
const FILES: [&str; 2] = ["rt-polarity.neg", "rt-polarity.pos"];
const CLASSES: [&str; 2] = ["negative", "positive"];
/// Sentences of the complete set, of each class.
const COMPLETE: usize = 5331;
/// Part of each class that is held out for the test.
const TEST_FRACTION: f64 = 0.1;
/// Bytes of the longest file read.
const MAX_FILE: u64 = 16 << 20;
/// Where the set is published.
const ARCHIVE: &str =
    "https://www.cs.cornell.edu/people/pabo/movie-review-data/rt-polaritydata.tar.gz";

/// Loads the set from `options.data` (a folder with both files) or from `movie-reviews` in the cache.
///
/// `options.limit` and `test_limit` choose sentences, evenly from both classes; `size` and `grey` are
/// for images and mean nothing here. Lines without words are left out, and counted in
/// [`TextDataset::notices`]. The same options and files give the same set.
///
/// The set is not downloaded: the error says how to get it.
///
/// # Errors
/// [`DataError::Missing`] if it is nowhere to be had, [`DataError::Incomplete`] if sentences are
/// missing in the cache, [`DataError::Io`] for a file that is missing, unreadable or too long,
/// [`DataError::Empty`] for one without sentences to train on and to test with,
/// [`DataError::Options`] for options that make no sense.
///
/// ```no_run
/// use examples::data::LoadOptions;
/// use examples::data::text::{TextConfig, reviews};
///
/// let data = reviews::load(&LoadOptions::default(), &TextConfig::default())?;
/// println!("{}", data.summary());
/// assert_eq!(data.classes, ["negative", "positive"]);
/// # Ok::<(), examples::data::DataError>(())
/// ```
pub fn load(options: &LoadOptions, config: &TextConfig) -> Result<TextDataset, DataError> {
    match &options.data {
        Some(dir) => load_from(dir, None, options, config),
        None => load_from(&find(cache::root())?, Some(COMPLETE), options, config),
    }
}

/// The set's folder in the cache.
fn find(root: Option<PathBuf>) -> Result<PathBuf, DataError> {
    let missing = |tried: String, help: String| DataError::Missing {
        dataset: DATASET,
        tried: vec![tried],
        help,
    };
    let Some(folder) = root.map(|root| root.join(FOLDER)) else {
        return Err(missing(
            "this system has no cache folder (is HOME set?)".into(),
            format!("Unpack {ARCHIVE} and point --data at it"),
        ));
    };
    if folder.is_dir() {
        return Ok(folder);
    }
    let place = folder.display();
    Err(missing(
        format!("not in the cache ({place})"),
        format!("Unpack {ARCHIVE} into {place}, or point --data at a copy"),
    ))
}

fn load_from(
    dir: &Path,
    complete: Option<usize>,
    options: &LoadOptions,
    config: &TextConfig,
) -> Result<TextDataset, DataError> {
    options.check()?;
    config.check()?;
    let nested = dir.join(UNPACKED);
    let dir = if nested.is_dir() { &nested } else { dir };
    let mut all: Vec<Labelled> = Vec::new();
    let mut without_words = 0;
    for (label, name) in (0..).zip(FILES) {
        let path = dir.join(name);
        let (sentences, skipped) = read(&path)?;
        let found = sentences.len() + skipped;
        if let Some(expected) = complete.filter(|&expected| expected != found) {
            return Err(DataError::Incomplete {
                path,
                found,
                expected,
            });
        }
        without_words += skipped;
        // One for each split.
        if sentences.len() < 3 {
            return Err(DataError::Empty {
                path,
                wanted: "a sentence a line, three at least",
            });
        }
        all.extend(sentences.into_iter().map(|words| (words, label)));
    }
    let labels: Vec<u32> = all.iter().map(|(_, label)| *label).collect();
    // Another stream than that of the validation split.
    let (train, test) = carve(&labels, 2, TEST_FRACTION, mix(options.seed));
    let choose = |indices: Vec<usize>, limit: Option<usize>| -> Vec<Labelled> {
        let labels: Vec<u32> = indices.iter().map(|&i| labels[i]).collect();
        let limit = limit.unwrap_or(usize::MAX);
        let chosen = balanced_subset(&labels, 2, limit, options.seed).into_iter();
        chosen.map(|i| all[indices[i]].clone()).collect()
    };
    let splits = (
        choose(train, options.limit),
        choose(test, options.test_limit),
    );
    let (fraction, seed) = (options.valid_fraction, options.seed);
    let mut set = TextDataset::of((DATASET, &CLASSES), splits, config, (fraction, seed));
    if without_words > 0 {
        set.notices.push(format!(
            "{without_words} lines have no words and were left out"
        ));
    }
    Ok(set)
}

/// The sentences of a file, and how many of its lines have no words.
fn read(path: &Path) -> Result<(Vec<Vec<String>>, usize), DataError> {
    let bytes = read_bounded(path, MAX_FILE)
        .map_err(|reason| DataError::io(path, io::Error::other(reason)))?;
    let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let lines: Vec<Vec<String>> = match text.is_empty() {
        true => Vec::new(),
        false => text.split(|&byte| byte == b'\n').map(words).collect(),
    };
    let count = lines.len();
    let sentences: Vec<_> = lines
        .into_iter()
        .filter(|words| !words.is_empty())
        .collect();
    let skipped = count - sentences.len();
    Ok((sentences, skipped))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::skip;

    fn write(dir: &Path, count: usize) {
        fs::create_dir_all(dir).unwrap();
        for (name, mood) in FILES.into_iter().zip(["dull", "fine"]) {
            let lines: String = (0..count)
                .map(|i| format!("a {mood} film , {mood}{i} .\n"))
                .collect();
            fs::write(dir.join(name), lines).unwrap();
        }
    }

    fn options(dir: &Path) -> LoadOptions {
        LoadOptions {
            data: Some(dir.into()),
            ..LoadOptions::default()
        }
    }

    #[test]
    fn a_tiny_set_is_split_by_seed() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join(UNPACKED), 40);
        let config = TextConfig {
            min_count: 1,
            ..TextConfig::default()
        };
        let set = load(&options(dir.path()), &config).unwrap();
        assert_eq!(
            (set.train.len(), set.valid.len(), set.test.len()),
            (64, 8, 8)
        );
        let count = |split: &super::super::Sentences| split.labels().iter().sum::<u32>();
        assert_eq!([&set.train, &set.valid, &set.test].map(count), [32, 4, 4]);
        // The last word of a sentence that is held out is an unknown one.
        assert_eq!((set.train.unknown(), set.valid.unknown()), (0, 8));
        let fine = set.vocabulary.number("fine");
        for i in 0..set.test.len() {
            let positive = set.test.labels()[i] == 1;
            assert_eq!(set.test.sentence(i).contains(&fine), positive);
        }
        let nested = load(&options(&dir.path().join(UNPACKED)), &config).unwrap();
        assert_eq!(nested, set);
        let other = LoadOptions {
            seed: 1,
            ..options(dir.path())
        };
        // Other sentences are held out, so that other words are known.
        let other = load(&other, &config).unwrap();
        assert_ne!(other.vocabulary, set.vocabulary);
        let few = LoadOptions {
            limit: Some(20),
            test_limit: Some(4),
            ..options(dir.path())
        };
        let few = load(&few, &config).unwrap();
        assert_eq!(
            (few.train.len(), few.valid.len(), few.test.len()),
            (18, 2, 4)
        );
    }

    #[test]
    fn broken_files_are_errors_that_name_them() {
        let dir = tempfile::tempdir().unwrap();
        let config = TextConfig::default();
        let load = |path: &Path| super::load(&options(path), &config);
        let error = load(dir.path()).unwrap_err();
        assert!(error.to_string().contains(FILES[0]), "{error}");
        write(dir.path(), 5);
        load(dir.path()).unwrap();
        let positive = dir.path().join(FILES[1]);
        fs::write(&positive, b"").unwrap();
        let error = load(dir.path()).unwrap_err();
        assert!(matches!(error, DataError::Empty { .. }), "{error}");
        fs::write(&positive, b"\n \n--\n").unwrap();
        assert!(load(dir.path()).is_err());
        fs::remove_file(&positive).unwrap();
        fs::create_dir(&positive).unwrap();
        let error = load(dir.path()).unwrap_err();
        assert!(
            error.to_string().contains("not an ordinary file"),
            "{error}"
        );
        fs::remove_dir(&positive).unwrap();
        let file = fs::File::create(&positive).unwrap();
        file.set_len(MAX_FILE + 1).unwrap();
        let error = load(dir.path()).unwrap_err();
        assert!(error.to_string().contains("allowed"), "{error}");
        // Any bytes are text; lines without words are counted.
        let mut bytes: Vec<u8> = (0..=255).cycle().take(2000).collect();
        bytes.extend(b"\n\n\xff\xfe\n");
        fs::write(&positive, &bytes).unwrap();
        let set = load(dir.path()).unwrap();
        assert!(set.summary().contains("have no words"), "{}", set.summary());
        let wrong = TextConfig {
            max_words: 0,
            ..config.clone()
        };
        assert!(super::load(&options(dir.path()), &wrong).is_err());
    }

    #[test]
    fn a_part_of_the_set_in_the_cache_is_no_set() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 5);
        let error = load_from(
            dir.path(),
            Some(COMPLETE),
            &LoadOptions::default(),
            &TextConfig::default(),
        );
        let error = error.unwrap_err();
        let incomplete = matches!(
            error,
            DataError::Incomplete {
                found: 5,
                expected: COMPLETE,
                ..
            }
        );
        assert!(incomplete, "{error}");
        for root in [None, Some(dir.path().join("nowhere"))] {
            let error = find(root).unwrap_err();
            assert!(error.is_missing() && error.to_string().contains("--data"));
        }
    }

    #[test]
    fn the_real_set_loads_whole() {
        let config = TextConfig {
            min_count: 1,
            ..TextConfig::default()
        };
        let set = match load(&LoadOptions::default(), &config) {
            Err(error) if error.is_missing() => {
                return skip(
                    "reviews::the_real_set_loads_whole",
                    "data",
                    &error.to_string(),
                );
            }
            set => set.unwrap(),
        };
        assert!(set.notices.is_empty(), "{}", set.summary());
        // 533 of each class for the test, 480 for validation.
        assert_eq!(
            (set.train.len(), set.valid.len(), set.test.len()),
            (8636, 960, 1066)
        );
        let longest = [&set.train, &set.valid, &set.test].map(|split| {
            let lengths = (0..split.len()).map(|i| split.sentence(i).len());
            lengths.max()
        });
        // Kim's table 1 has 20 words on average and 18,765 in all.
        assert!(longest.iter().max() < Some(&Some(60)), "{longest:?}");
        assert!((16_000..18_765).contains(&set.vocabulary.len()));
    }
}
