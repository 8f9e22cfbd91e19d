//! The arguments of the examples that train on sentences.

use std::path::PathBuf;

use clap::Args;

use super::TextConfig;
use crate::cli::positive;
use crate::data::LoadOptions;

/// Arguments of the examples that train on sentences.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "Data")]
pub struct TextArgs {
    /// Folder with rt-polarity.pos and rt-polarity.neg; by default, movie-reviews in the cache of
    /// burn-dataset
    ///
    /// Where that is missing, drawn sentences take its place, and the output says so.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Use at most N training sentences, chosen evenly from both classes
    #[arg(long, value_name = "N", value_parser = positive)]
    pub limit: Option<usize>,

    /// Use at most N test sentences, chosen evenly from both classes
    #[arg(long, value_name = "N", value_parser = positive)]
    pub limit_test: Option<usize>,

    /// Words seen fewer times while training are unknown words
    #[arg(long, value_name = "N", default_value_t = TextConfig::default().min_count, value_parser = positive)]
    pub min_count: usize,

    /// Cut sentences after N words
    #[arg(long, value_name = "N", default_value_t = TextConfig::default().max_words, value_parser = positive)]
    pub max_words: usize,
}

impl TextArgs {
    /// The options for [`load`](super::load), with a preset's limits where none were asked for.
    #[must_use]
    pub fn options(
        &self,
        seed: u64,
        limit: Option<usize>,
        test_limit: Option<usize>,
    ) -> LoadOptions {
        LoadOptions {
            data: self.data.clone(),
            limit: self.limit.or(limit),
            test_limit: self.limit_test.or(test_limit),
            seed,
            ..LoadOptions::default()
        }
    }

    /// How sentences are to become numbers.
    #[must_use]
    pub fn config(&self) -> TextConfig {
        TextConfig {
            min_count: self.min_count,
            max_words: self.max_words,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        text: TextArgs,
    }

    #[test]
    fn the_defaults_are_those_of_the_library_and_all_can_be_changed() {
        let parse = |args: &[&str]| {
            let args = ["text"].iter().chain(args);
            Command::try_parse_from(args).map(|command| command.text)
        };
        let usual = parse(&[]).unwrap();
        assert_eq!(usual.config(), TextConfig::default());
        assert_eq!(usual.options(7, Some(600), None).limit, Some(600));
        let other = parse(&[
            "--limit",
            "50",
            "--limit-test",
            "20",
            "--data",
            "here",
            "--min-count",
            "3",
            "--max-words",
            "30",
        ]);
        let other = other.unwrap();
        let options = other.options(7, Some(600), None);
        assert_eq!(
            (options.limit, options.test_limit, options.seed),
            (Some(50), Some(20), 7)
        );
        assert_eq!(options.data, Some("here".into()));
        let config = other.config();
        assert_eq!((config.min_count, config.max_words), (3, 30));
        assert!(parse(&["--max-words", "0"]).is_err());
    }
}
