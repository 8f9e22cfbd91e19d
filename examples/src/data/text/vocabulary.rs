//! Numbers for words.

use std::collections::HashMap;

use models::TextCnn;

/// The words that have numbers.
///
/// Number 0 is padding ([`TextCnn::PADDING`]), number 1 stands for every word that is not in the
/// vocabulary; the others follow by how often they were seen, words seen equally often by the
/// alphabet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    words: Vec<String>,
    numbers: HashMap<String, u32>,
}

/// Numbers without a word.
const RESERVED: u32 = 2;

impl Vocabulary {
    /// The number of every word that is not in the vocabulary.
    pub const UNKNOWN: u32 = 1;

    /// The words that were seen at least `min_count` times.
    ///
    /// ```
    /// use examples::data::text::Vocabulary;
    ///
    /// let seen = ["good", "film", "good", "plot"];
    /// let vocabulary = Vocabulary::of(seen, 1);
    /// assert_eq!(vocabulary.len(), 2 + 3);
    /// assert_eq!(["good", "film", "plot"].map(|word| vocabulary.number(word)), [2, 3, 4]);
    /// assert_eq!(vocabulary.number("bad"), Vocabulary::UNKNOWN);
    /// assert_eq!(Vocabulary::of(seen, 2).len(), 2 + 1);
    /// ```
    #[must_use]
    pub fn of<'a>(seen: impl IntoIterator<Item = &'a str>, min_count: usize) -> Self {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for word in seen {
            *counts.entry(word).or_default() += 1;
        }
        let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
        counts.retain(|&(_, count)| count >= min_count);
        counts.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        let words: Vec<String> = counts.into_iter().map(|(word, _)| word.into()).collect();
        let numbers = (RESERVED..).zip(&words);
        Self {
            numbers: numbers
                .map(|(number, word)| (word.clone(), number))
                .collect(),
            words,
        }
    }

    /// Numbers in use, padding and the unknown word included: how many vectors a network needs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words.len() + RESERVED as usize
    }

    /// Whether no word has a number of its own.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The number of a word, [`UNKNOWN`](Self::UNKNOWN) for those that have none.
    #[must_use]
    pub fn number(&self, word: &str) -> u32 {
        self.numbers.get(word).copied().unwrap_or(Self::UNKNOWN)
    }

    /// The word of a number; nothing for padding, the unknown word and numbers out of range.
    #[must_use]
    pub fn word(&self, number: u32) -> Option<&str> {
        let index = number.checked_sub(RESERVED)? as usize;
        self.words.get(index).map(String::as_str)
    }
}

const _: () = assert!(TextCnn::PADDING == 0 && Vocabulary::UNKNOWN == 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_words_are_each_others_and_order_is_by_count_then_alphabet() {
        let seen = "b a c b a d b".split(' ');
        let vocabulary = Vocabulary::of(seen, 1);
        for (number, word) in (2..).zip(["b", "a", "c", "d"]) {
            assert_eq!(vocabulary.word(number), Some(word));
            assert_eq!(vocabulary.number(word), number);
        }
        for number in [0, 1, 6, u32::MAX] {
            assert_eq!(vocabulary.word(number), None);
        }
        let none = Vocabulary::of([], 1);
        assert!(none.is_empty() && none.len() == 2 && none.number("a") == 1);
    }
}
