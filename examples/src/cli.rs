//! The arguments that every example understands, so that what is learnt with one serves the next.

use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::{Arg, Args, Command, ValueEnum};
use models::Arch;
use serde::{Deserialize, Serialize};

use crate::data::{LoadOptions, Source};
use crate::device::{DeviceChoice, DeviceError, Selected, select};
use crate::output::{OutputDir, OutputError};

/// How much work to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Minutes on two CPU cores: shows that everything works, accuracies are modest
    #[default]
    Quick,
    /// The whole data set and enough epochs for publishable accuracies; wants a GPU
    Full,
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quick => "quick",
            Self::Full => "full",
        })
    }
}

/// Arguments of every example; flatten it into an example's own.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "Every example")]
pub struct CommonArgs {
    /// How much work to do; every other argument overrides its part of the preset
    #[arg(long, value_enum, default_value_t)]
    pub preset: Preset,

    /// Where to compute: auto, flex, vulkan, cuda, metal, wgpu, webgpu, rocm or cpu
    ///
    /// All but flex need the cargo feature of the same name. `auto` takes a GPU if there is one,
    /// else flex. A number picks one of several, as in cuda:1.
    #[arg(long, env = "BURN_DEVICE", default_value_t, value_name = "NAME")]
    pub device: DeviceChoice,

    /// Seed of initial weights, data order, augmentation and held-out splits
    #[arg(long, default_value_t = 42)]
    pub seed: u64,

    /// Continue the run in the output folder where it stopped; without this, start it anew
    #[arg(long)]
    pub resume: bool,

    /// Folder for checkpoints and report.json
    ///
    /// By default a folder named after the example, below target/runs.
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

impl CommonArgs {
    /// The device asked for.
    ///
    /// # Errors
    /// Those of [`select`].
    pub fn select_device(&self) -> Result<Selected, DeviceError> {
        select(self.device)
    }

    /// Opens the output folder, by default `target/runs/<example>`; with `--resume` it must hold
    /// the file `marker`.
    ///
    /// # Errors
    /// Those of [`OutputDir::for_run`].
    pub fn open_output(&self, example: &str, marker: &str) -> Result<OutputDir, OutputError> {
        let default = || PathBuf::from("target/runs").join(example);
        OutputDir::for_run(
            self.output.clone().unwrap_or_else(default),
            marker,
            self.resume,
        )
    }
}

/// Arguments of the examples that train on images.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "Data")]
pub struct DataArgs {
    /// Image set; each example has its own default
    ///
    /// The known sets come from the cache of burn-dataset and are downloaded once. Where that
    /// fails, `shapes` takes their place, and the output says so.
    #[arg(long, value_enum)]
    pub dataset: Option<Source>,

    /// Folder of your images (with --dataset folder), or a copy of a known set
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Use at most N training images, chosen evenly from all classes
    #[arg(long, value_name = "N", value_parser = positive)]
    pub limit: Option<usize>,

    /// Use at most N test images, chosen evenly from all classes
    #[arg(long, value_name = "N", value_parser = positive)]
    pub limit_test: Option<usize>,

    /// Edge of the images in pixels, for folder and shapes
    #[arg(long, value_name = "PIXELS", value_parser = positive)]
    pub image_size: Option<usize>,

    /// Never download; use what this machine has
    #[arg(long)]
    pub offline: bool,
}

impl DataArgs {
    /// The source: the one asked for, `folder` when only `--data` was given, else `default`.
    #[must_use]
    pub fn source(&self, default: Source) -> Source {
        match (self.dataset, &self.data) {
            (Some(source), _) => source,
            (None, Some(_)) => Source::Folder,
            (None, None) => default,
        }
    }

    /// The options for [`load`](crate::data::load), with a preset's limits where none were asked
    /// for, and progress shown.
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
            size: self.image_size,
            offline: self.offline,
            progress: true,
            ..LoadOptions::default()
        }
    }
}

/// Reads a factor above 0 and at most 100, as widths and bounds are multiplied by.
///
/// # Errors
/// A sentence for the command line.
pub fn factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 100.0 => Ok(value),
        _ => Err("expected a factor above 0 and at most 100, such as 0.5".into()),
    }
}

/// Reads the name of a network as [`Arch`] does, whatever its case; `--help` lists all that there are.
#[derive(Clone, Copy, Debug)]
pub struct ArchParser;

impl TypedValueParser for ArchParser {
    type Value = Arch;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Arch, clap::Error> {
        let parse = |text: &str| text.parse::<Arch>();
        parse.parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let names = Arch::ALL.map(Arch::name);
        Some(Box::new(names.into_iter().map(PossibleValue::new)))
    }
}

/// Reads a number of at least one.
///
/// # Errors
/// A sentence for the command line.
pub fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".into()),
        Ok(number) => Ok(number),
        Err(_) => Err("expected a whole number such as 2000".into()),
    }
}

/// Reads a sparsity in `[0, 1)`; with clap's `allow_negative_numbers`, a negative one gets this
/// parser's answer too.
///
/// # Errors
/// A sentence for the command line.
pub fn sparsity(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..1.0).contains(&value) => Ok(value),
        Ok(value) => Err(format!(
            "must lie in [0, 1), got {value}; 0.9 keeps one weight in ten"
        )),
        Err(_) => Err("expected a number such as 0.9".into()),
    }
}

/// The command line as it was given, quoted for a shell where need be, for reports. Of the program
/// only the name: the folder it was built in says nothing to a reader of the report.
#[must_use]
pub fn command_line() -> String {
    let mut args = std::env::args_os();
    let program = PathBuf::from(args.next().unwrap_or_default());
    let name = program.file_stem().unwrap_or_default().to_os_string();
    quote(
        [name]
            .into_iter()
            .chain(args)
            .map(|arg| arg.to_string_lossy().into_owned()),
    )
}

fn quote(args: impl Iterator<Item = String>) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    let quoted = args.map(|arg| {
        if !arg.is_empty() && arg.chars().all(plain) {
            arg
        } else {
            format!("'{}'", arg.replace('\'', "'\\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// The end of an example's help: commands to try, which teach more than a list of options.
///
/// ```
/// let help = examples::cli::after_help("lenet5_prune", &[("two minutes", ""), ("all", "--preset full")]);
/// assert!(help.contains("cargo run --release --example lenet5_prune -- --preset full"));
/// ```
#[must_use]
pub fn after_help(example: &str, commands: &[(&str, &str)]) -> String {
    let mut text = "Examples:".to_string();
    for (purpose, args) in commands {
        let separator = if args.is_empty() { "" } else { " -- " };
        text.push_str(&format!(
            "\n  # {purpose}\n  cargo run --release --example {example}{separator}{args}"
        ));
    }
    text.push_str(&format!(
        "\n  # on a GPU with a Vulkan driver\n  cargo run --release --features vulkan --example \
         {example} -- --device vulkan"
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[derive(Parser, Debug)]
    struct Example {
        #[command(flatten)]
        common: CommonArgs,
        #[command(flatten)]
        data: DataArgs,
        #[arg(long, value_parser = ArchParser, default_value_t = Arch::LeNet5)]
        arch: Arch,
        #[arg(long, value_parser = sparsity, default_value_t = 0.9, allow_negative_numbers = true)]
        sparsity: f64,
    }

    fn parse(args: &[&str]) -> Result<Example, clap::Error> {
        Example::try_parse_from([&["example"], args].concat())
    }

    #[test]
    fn help_lists_the_networks_and_names_are_read_as_people_write_them() {
        let help = Example::command().render_long_help().to_string();
        for arch in Arch::ALL {
            assert!(help.contains(arch.name()), "{arch} is not in {help}");
        }
        assert_eq!(parse(&["--arch", "VGG16-BN"]).unwrap().arch, Arch::Vgg16Bn);
        let error = parse(&["--arch", "resnet19"]).unwrap_err().to_string();
        assert!(error.contains("resnet20"), "{error}");
    }

    #[test]
    fn arguments_are_consistent_and_have_defaults() {
        Example::command().debug_assert();
        let example = parse(&["--device", "flex"]).unwrap();
        assert_eq!(example.common.preset, Preset::Quick);
        assert_eq!(example.common.seed, 42);
        assert!(!example.common.resume);
        assert_eq!(example.sparsity, 0.9);
        assert_eq!(example.data.source(Source::Mnist), Source::Mnist);
        let options = example.data.options(7, Some(100), None);
        assert_eq!(
            (options.limit, options.seed, options.test_limit),
            (Some(100), 7, None)
        );
    }

    #[test]
    fn given_arguments_win_over_presets() {
        let args = [
            "--device", "cuda:1", "--limit", "50", "--data", "x", "--preset", "full",
        ];
        let example = parse(&args).unwrap();
        assert_eq!(example.common.preset, Preset::Full);
        assert_eq!(example.common.device.to_string(), "cuda:1");
        assert_eq!(example.data.source(Source::Cifar10), Source::Folder);
        assert_eq!(example.data.options(0, Some(9), Some(5)).limit, Some(50));
    }

    #[test]
    fn wrong_values_are_explained() {
        for (args, says) in [
            (["--sparsity", "1.0"], "[0, 1)"),
            (["--sparsity", "-0.1"], "[0, 1)"),
            (["--sparsity=NaN", "--offline"], "[0, 1)"),
            (["--limit", "0"], "at least 1"),
            (["--limit", "many"], "whole number"),
            (["--device", "gpu"], "vulkan"),
            (["--dataset", "imagenet"], "cifar10"),
        ] {
            let error = parse(&args).unwrap_err().to_string();
            assert!(error.contains(says), "{args:?}: {error}");
        }
    }

    #[test]
    fn the_command_line_is_quoted_for_a_shell() {
        let args = ["a/b", "--x=1", "it's", "", "two words"];
        let quoted = quote(args.iter().map(ToString::to_string));
        assert_eq!(quoted, "a/b --x=1 'it'\\''s' '' 'two words'");
    }

    #[test]
    fn resuming_from_nothing_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().to_string_lossy().into_owned();
        let example = parse(&["--device", "flex", "--resume", "--output", &output]).unwrap();
        assert!(example.common.open_output("x", "state.json").is_err());
        let fresh = CommonArgs {
            resume: false,
            ..example.common
        };
        assert_eq!(
            fresh.open_output("x", "state.json").unwrap().path(),
            dir.path()
        );
    }
}
