//! The arguments of the examples that train on recordings.

use std::path::PathBuf;

use clap::Args;

use super::{Deltas, LogMelConfig, Normalize, SpeechConfig};
use crate::cli::positive;
use crate::data::LoadOptions;

/// Arguments of the examples that train on recordings.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "Data")]
pub struct SpeechArgs {
    /// Copy of the spoken digits; by default, fsdd in the cache of burn-dataset
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Use at most N training recordings, chosen evenly from all classes
    #[arg(long, value_name = "N", value_parser = positive)]
    pub limit: Option<usize>,

    /// Use at most N test recordings, chosen evenly from all classes
    #[arg(long, value_name = "N", value_parser = positive)]
    pub limit_test: Option<usize>,

    /// Changes over time beside the mel bands
    #[arg(long, value_enum, default_value_t)]
    pub deltas: Deltas,

    /// Whose mean and deviation features are normalised with
    #[arg(long, value_enum, default_value_t)]
    pub normalize: Normalize,

    /// Cut recordings after N frames of 10 ms
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = positive)]
    pub max_frames: usize,
}

impl SpeechArgs {
    /// The options for [`digits::load`](super::digits::load), with a preset's limits where none were
    /// asked for, and progress shown.
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
            progress: true,
            ..LoadOptions::default()
        }
    }

    /// The features asked for.
    #[must_use]
    pub fn config(&self) -> SpeechConfig {
        SpeechConfig {
            features: LogMelConfig {
                deltas: self.deltas,
                ..LogMelConfig::default()
            },
            normalize: self.normalize,
            max_frames: self.max_frames,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        speech: SpeechArgs,
    }

    #[test]
    fn the_defaults_are_those_of_the_library_and_all_can_be_changed() {
        let parse = |args: &[&str]| {
            let args = ["speech"].iter().chain(args);
            Command::try_parse_from(args).map(|command| command.speech)
        };
        let usual = parse(&[]).unwrap();
        assert_eq!(usual.config(), SpeechConfig::default());
        assert_eq!(usual.options(7, Some(600), None).limit, Some(600));
        let other = parse(&[
            "--limit",
            "50",
            "--limit-test",
            "20",
            "--deltas",
            "second",
            "--normalize",
            "utterance",
            "--max-frames",
            "60",
            "--data",
            "here",
        ]);
        let other = other.unwrap();
        let options = other.options(7, Some(600), None);
        assert_eq!(
            (options.limit, options.test_limit, options.seed),
            (Some(50), Some(20), 7)
        );
        assert_eq!(options.data, Some("here".into()));
        let config = other.config();
        assert_eq!((config.features.features(), config.max_frames), (120, 60));
        assert_eq!(config.normalize, Normalize::Utterance);
        assert!(parse(&["--max-frames", "0"]).is_err());
    }
}
