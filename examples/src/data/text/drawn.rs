//! Drawn sentences that need no download: praise and blame in made-up words.
//!
//! Most words mean nothing. One to three phrases of a sentence say what its class is: a word of
//! praise, a word of blame, or either after `not`, which turns it over. So single words are not
//! enough, windows of two are. Sentence `i` depends on `(seed, split, i)` alone.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::dataset::Labelled;
use super::{TextConfig, TextDataset};
use crate::data::seed::{Purpose, rng};
use crate::data::{DataError, LoadOptions};

/// Training sentences (validation included) drawn when no limit asks for fewer or more.
pub const DEFAULT_TRAIN: usize = 4000;
/// Test sentences drawn when no limit asks for fewer or more.
pub const DEFAULT_TEST: usize = 1000;
const CLASSES: [&str; 2] = ["negative", "positive"];
/// What words are made of.
const SYLLABLES: [&str; 12] = [
    "ba", "de", "fi", "go", "ku", "la", "me", "ni", "po", "ru", "sa", "te",
];
/// Words that mean nothing: those of three syllables.
const PLAIN: usize = 400;
/// Words of praise, and as many of blame: those of two syllables.
const TELLING: usize = 20;

/// Draws the set: `options.limit` training and `options.test_limit` test sentences, the classes as
/// equal as the counts allow.
///
/// # Errors
/// [`DataError::Options`] for options that make no sense.
pub fn load(options: &LoadOptions, config: &TextConfig) -> Result<TextDataset, DataError> {
    options.check()?;
    config.check()?;
    let draw = |count, purpose| -> Vec<Labelled> {
        let sentence = |i: usize| {
            let label = (i % CLASSES.len()) as u32;
            let mut random = rng(options.seed, purpose, i as u64);
            (sentence(label == 1, &mut random), label)
        };
        (0..count).map(sentence).collect()
    };
    let train = draw(options.limit.unwrap_or(DEFAULT_TRAIN), Purpose::DrawTrain);
    let test = draw(
        options.test_limit.unwrap_or(DEFAULT_TEST),
        Purpose::DrawTest,
    );
    Ok(TextDataset::of(
        ("drawn-sentences", &CLASSES),
        (train, test),
        config,
        (options.valid_fraction, options.seed),
    ))
}

/// A sentence of 5 to 24 words.
fn sentence(praise: bool, random: &mut ChaCha8Rng) -> Vec<String> {
    let length = random.random_range(4..=18);
    let mut words: Vec<String> = (0..length)
        .map(|_| plain(random.random_range(0..PLAIN)))
        .collect();
    for _ in 0..random.random_range(1..=3) {
        let turned = random.random_bool(0.3);
        let telling = telling(praise != turned, random.random_range(0..TELLING));
        let phrase = match turned {
            true => vec!["not".to_string(), telling],
            false => vec![telling],
        };
        // Never between `not` and its word: those are put in at once, and nothing goes before a
        // telling word.
        let places: Vec<usize> = (0..=words.len())
            .filter(|&at| at == 0 || words[at - 1] != "not")
            .collect();
        let at = places.choose(random).copied().unwrap_or(0);
        words.splice(at..at, phrase);
    }
    words
}

fn plain(number: usize) -> String {
    let n = SYLLABLES.len();
    [number / (n * n) % n, number / n % n, number % n]
        .map(|i| SYLLABLES[i])
        .concat()
}

fn telling(praise: bool, number: usize) -> String {
    let n = SYLLABLES.len();
    let number = number + TELLING * usize::from(praise);
    [number / n % n, number % n].map(|i| SYLLABLES[i]).concat()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn words_differ_and_every_sentence_says_what_it_means() {
        let all: HashSet<String> = (0..PLAIN)
            .map(plain)
            .chain((0..TELLING).flat_map(|i| [telling(true, i), telling(false, i)]))
            .chain(["not".into()])
            .collect();
        assert_eq!(all.len(), PLAIN + 2 * TELLING + 1);
        let praise: HashSet<String> = (0..TELLING).map(|i| telling(true, i)).collect();
        let blame: HashSet<String> = (0..TELLING).map(|i| telling(false, i)).collect();
        for i in 0..500 {
            let praised = i % 2 == 1;
            let words = sentence(praised, &mut rng(1, Purpose::DrawTrain, i));
            assert!((5..=24).contains(&words.len()));
            let mut said = 0;
            for (at, word) in words.iter().enumerate() {
                let turned = at > 0 && words[at - 1] == "not";
                if praise.contains(word) || blame.contains(word) {
                    assert_eq!(praise.contains(word) != turned, praised, "{words:?}");
                    said += 1;
                }
            }
            assert!(said > 0, "{words:?}");
        }
    }

    #[test]
    fn a_set_depends_on_its_options_alone() {
        let options = LoadOptions {
            limit: Some(100),
            test_limit: Some(30),
            ..LoadOptions::default()
        };
        let load = |options: &LoadOptions| load(options, &TextConfig::default()).unwrap();
        let set = load(&options);
        assert_eq!(
            (set.train.len(), set.valid.len(), set.test.len()),
            (90, 10, 30)
        );
        assert_eq!(set, load(&options));
        let other = LoadOptions {
            seed: 1,
            ..options.clone()
        };
        assert_ne!(set.train, load(&other).train);
        let none = LoadOptions {
            limit: Some(0),
            ..options
        };
        assert!(super::load(&none, &TextConfig::default()).is_err());
    }
}
