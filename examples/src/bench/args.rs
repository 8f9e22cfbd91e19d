//! What `bench` is told on the command line.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{
    Axis, DecomposeArgs, DenseArgs, Dtype, Pattern, QuantArgs, RanksArgs, SearchArgs, SharedArgs,
    TuckerArgs,
};
use crate::cli::{Preset, positive, sparsity};
use crate::device::DeviceChoice;

/// What to do.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Time layers, sparse beside dense, after verifying both
    ///
    /// Every kernel's outputs are compared with plain f64 loops before it is timed; of large layers
    /// a sample, whose size the report names. Sparse and dense run in turns. Rows where dense wins
    /// stay in. Ends with status 1 if a kernel was wrong, 2 if nothing could be measured.
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
    /// Compare two reports row by row
    ///
    /// A change counts if it exceeds the threshold and the spread of both reports together. If
    /// dense moved as sparse did and their ratio stayed, it was the machine. Between different
    /// machines only ratios are compared. Ends with status 1 if something became slower or fails
    /// now, 2 if the reports cannot be read.
    #[command(after_help = COMPARE_HELP)]
    Compare(CompareArgs),
    /// Plot time against sparsity, channels, image, batch or threads, and mark where sparse and
    /// dense cross
    ///
    /// Leaves a report, and for each layer a drawing (SVG). Ends with status 1 if a kernel was
    /// wrong, 2 if nothing could be measured.
    #[command(after_help = GROWTH_HELP)]
    Growth(GrowthArgs),
    /// Search the plans of the CPU kernels genetically and at random, at equal evaluations
    ///
    /// Packing times a few dozen plans that it guesses. This searches all of them, for some layers,
    /// and times what either search found beside what packing would choose.
    #[command(after_help = SEARCH_HELP)]
    Search(SearchArgs),
    /// Time weights of few bits beside floats, for one input after the other
    ///
    /// A linear layer or a step of a recurrent one reads each weight once, so that its bytes are what
    /// takes time. Dense floats, dense 8-bit integers, packed floats and packed codes run in turns, on
    /// the CPU. Small layers stay in a near cache, where codes gain nothing: those that packing would
    /// choose are marked.
    #[command(after_help = QUANT_HELP)]
    Quant(QuantArgs),
    /// Time convolutions by Tucker factors beside the same ones undivided
    ///
    /// Forms run in turns: this project's dense convolution, Burn's, three of Burn's that compute the
    /// factors one after the other, and the layer with factors, which runs them strip by strip on a CPU. On other
    /// devices also the core alone, the core's kernel between dense 1x1 convolutions, and the fused strip; --forms
    /// asks for them anywhere, and rows say which of them a device does not have.
    /// Layers and ranks are those that TDC (`PPoPP` 2023) published for five networks, unless others are asked
    /// for. scripts/peers/tucker puts ONNX Runtime beside it.
    #[command(after_help = TUCKER_HELP)]
    Tucker(TuckerArgs),
    /// Time the Tucker factors of a layer at every pair of ranks, and draw the staircase
    ///
    /// Time does not fall evenly with the ranks: a rank just above a multiple of what vectors hold costs as
    /// much as the next multiple. Leaves a drawing (SVG) for each layer, and a report with all times.
    #[command(after_help = RANKS_HELP)]
    Ranks(RanksArgs),
    /// Time how long a whole network takes to decompose into Tucker factors
    ///
    /// Ranks are those that discard least within a budget of multiply-adds, factors those of HOOI. Weights are
    /// random, which no low ranks fit: trained ones take HOOI fewer rounds.
    #[command(after_help = DECOMPOSE_HELP)]
    Decompose(DecomposeArgs),
    /// Time convolutions whose channels share a few kernels, with sparse coefficients, beside dense ones
    ///
    /// The form that PENNI (ICML 2020) trains: every channel is convolved with the shared kernels, and
    /// outputs add up the responses that have coefficients. The rival is the layer with the weight that
    /// kernels and coefficients multiply to.
    #[command(after_help = SHARED_HELP)]
    Shared(SharedArgs),
    /// Time what stays dense in a pruned network, this project's kernels beside Burn's own
    ///
    /// The first convolution, pooling and the classifier are not pruned, and must not spoil what the rest
    /// gains. Burn's operation, this project's layer, and the same layer packed run in turns; packing
    /// may store a dense layer as register tiles.
    #[command(after_help = DENSE_HELP)]
    Dense(DenseArgs),
}

const RUN_HELP: &str = "\
A suite of your own is a text file with one layer a line, # before comments:
  conv2 kind=conv in=64 out=128 size=56x56 kernel=3 stride=2 padding=1 count=3
  text  kind=conv1d in=300 out=100 size=56 kernel=5
  fc    kind=linear in=2048 out=1000 rows=1
conv and conv1d also take dilation and groups; count says how often the network has the layer.

Examples:
  # six layers of ResNet-50, under a minute
  cargo run --release --example bench -- run
  # VGG-16 whole, on a card
  cargo run --release --features cuda --example bench -- run --suite vgg16 --preset full --device cuda
  # one layer under many conditions
  cargo run --release --example bench -- run --layer '^layer3.conv2$' --sparsity 0.8,0.9,0.95 \\
      --pattern unstructured,blocks4 --batch 1,16
  # the whole network, packed as resnet50_infer packs it
  cargo run --release --example bench -- run --network --layer '^$'";

const COMPARE_HELP: &str = "\
Examples:
  cargo run --release --example bench -- run --output before
  # change a kernel, then
  cargo run --release --example bench -- run --output after
  cargo run --release --example bench -- compare before/report.json after/report.json";

const GROWTH_HELP: &str = "\
Examples:
  # the break-even sparsity of the 3x3 convolutions of ResNet-50
  cargo run --release --example bench -- growth --axis sparsity --suite resnet50 --layer 'layer..conv2$'
  # one layer of your own against the number of threads
  cargo run --release --example bench -- growth --axis threads \\
      --layer 'kind=conv in=128 out=128 size=28 kernel=3 padding=1' --sparsity 0.9";

const SEARCH_HELP: &str = "\
Examples:
  # the convolutions of the third stage of ResNet-50
  cargo run --release --example bench -- search --layer '^layer3'
  # half the evaluations, blocks of four channels
  cargo run --release --example bench -- search --evaluations 160 --pattern blocks4";

const QUANT_HELP: &str = "\
Examples:
  # blocks of 16 outputs, 512 to 2048 inputs
  cargo run --release --example bench -- quant
  # scattered weights of a large recurrent layer
  cargo run --release --example bench -- quant --kind gru --size 2048 --pattern unstructured \\
      --sparsity 0.9 --bits 4,2";

const TUCKER_HELP: &str = "\
Examples:
  # ResNet-18 at the ranks of TDC, and the whole network
  cargo run --release --example bench -- tucker --layer ^resnet18 --batch 1,16 --network
  # the forms of a card, in two types of numbers, and TDC's model of tiles held against measuring
  cargo run --release --features cuda --example bench -- tucker --preset full --device cuda \\
      --dtype f32,f16 --batch 1,32 --model
  # layers of your own at ranks of your own (output, input)
  cargo run --release --example bench -- tucker --suite resnet50 --layer 'conv2$' --ranks 48,64";

const RANKS_HELP: &str = "\
Examples:
  cargo run --release --example bench -- ranks --layer 'kind=conv in=128 out=128 size=28 kernel=3 padding=1'
  # in steps of 16, for a card
  cargo run --release --features cuda --example bench -- ranks --suite resnet50 --layer '^layer3.conv2$' \\
      --step 16 --device cuda";

const DECOMPOSE_HELP: &str = "\
Examples:
  # ResNet-50 at half its multiply-adds
  cargo run --release --example bench -- decompose --preset full --device flex
  cargo run --release --example bench -- decompose --arch densenet121 --flops 3";

const SHARED_HELP: &str = "\
Examples:
  # the 3x3 layers of ResNet-18, batches of 1 and 16
  cargo run --release --example bench -- shared --preset full --device flex
  # how much sparsity it takes
  cargo run --release --example bench -- shared --layer layer2 --density 1,0.5,0.2,0.1,0.05,0.02";

const DENSE_HELP: &str = "\
Examples:
  # what ResNet-50 leaves dense
  cargo run --release --example bench -- dense --layer '^conv1$' --layer '^fc$' \\
      --pool 64x112x112:3/2 --batch 1,16 --device flex
  # every layer of VGG-16
  cargo run --release --example bench -- dense --suite vgg16 --preset full";

/// The end of the program's help.
#[must_use]
pub const fn after_help() -> &'static str {
    "`bench run --help`, and that of each other command, has examples."
}

/// How to measure, where, and where to leave the report.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Measuring")]
pub struct CommonArgs {
    /// How much to measure: quick takes a few layers and half a second for each row, full all
    /// layers under more conditions; every other argument overrides its part of the preset
    #[arg(long, value_enum, default_value_t, hide_possible_values = true)]
    pub preset: Preset,

    /// Where to compute: auto, flex, vulkan, cuda, metal, wgpu, webgpu, rocm or cpu
    ///
    /// All but flex need the cargo feature of the same name.
    #[arg(long, env = "BURN_DEVICE", default_value_t, value_name = "NAME")]
    pub device: DeviceChoice,

    /// Threads of flex; as many as the machine has unless set
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,

    /// Timed runs of each form, at most, after three of warm-up
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = positive)]
    pub runs: usize,

    /// Seconds for each row after which no further run is started, once three are done: 0.5 in the
    /// quick preset, 5 in the full one
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub budget: Option<f64>,

    /// Time kernels without verifying them
    #[arg(long)]
    pub no_verify: bool,

    /// Seed of weights and inputs
    #[arg(long, default_value_t = 42)]
    pub seed: u64,

    /// Folder for report.json and drawings; by default `target/runs/bench` or
    /// `target/runs/bench_growth`
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// Under which conditions to measure; all combinations are.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Conditions (lists, comma-separated)")]
pub struct ConditionArgs {
    /// Parts of the weights that are zero: 0.9 in the quick preset, 0.8,0.9,0.95 in the full one
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = sparsity)]
    #[arg(allow_negative_numbers = true)]
    pub sparsity: Vec<f64>,

    /// Which weights are not zero: unstructured, blocks4 (the same in so many consecutive output
    /// channels), bcr8x64 (rows and columns of blocks), punched8x4 (kernel positions of blocks),
    /// kernels8 (patterns of 3×3 kernels, and whole kernels), filters, columns
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    #[arg(default_value = "unstructured")]
    pub pattern: Vec<Pattern>,

    /// Images at once: 1 in the quick preset, 1,16 in the full one
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = positive)]
    pub batch: Vec<usize>,

    /// Types of the numbers
    #[arg(
        long,
        value_enum,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "f32"
    )]
    pub dtype: Vec<Dtype>,
}

/// Arguments of `bench run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Layers to time: `resnet50`, `vgg16`, `densenet121`, `text_cnn`, `text_cnn_short`, or a file with one
    /// layer a line
    #[arg(long, default_value = "resnet50", value_name = "NAME|FILE")]
    pub suite: String,

    /// Only layers whose names this regular expression finds
    #[arg(long, value_name = "REGEX")]
    pub layer: Option<String>,

    /// Time the whole network too, pruned at random and packed where that is faster, beside the
    /// dense one; resnet50 only, in f32
    #[arg(long)]
    pub network: bool,

    /// Under which conditions.
    #[command(flatten)]
    pub conditions: ConditionArgs,

    /// How and where.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Arguments of `bench compare`.
#[derive(Args, Clone, Debug)]
pub struct CompareArgs {
    /// The report.json of before
    pub old: PathBuf,

    /// The report.json of now
    pub new: PathBuf,

    /// Least change that counts; 0.05 is five percent
    #[arg(long, default_value_t = 0.05, value_parser = threshold, allow_negative_numbers = true)]
    pub threshold: f64,

    /// Folder for a report.json of the comparison
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// Arguments of `bench growth`.
#[derive(Args, Clone, Debug)]
pub struct GrowthArgs {
    /// What varies
    #[arg(long, value_enum)]
    pub axis: Axis,

    /// Values to try instead of the usual ones, comma-separated: 0,0.5,0.9 or 1,2,4
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        allow_negative_numbers = true
    )]
    pub values: Vec<f64>,

    /// A suite to take layers from: `resnet50`, `vgg16`, `densenet121`, `text_cnn`, `text_cnn_short`, or a
    /// file
    #[arg(long, value_name = "NAME|FILE")]
    pub suite: Option<String>,

    /// With --suite, a regular expression that finds names of layers; without, a layer such as
    /// 'kind=conv in=64 out=64 size=56 kernel=3 padding=1'; may be given again
    #[arg(long, value_name = "REGEX|LAYER")]
    pub layer: Vec<String>,

    /// Under which conditions.
    #[command(flatten)]
    pub conditions: ConditionArgs,

    /// How and where.
    #[command(flatten)]
    pub common: CommonArgs,
}

fn threads(text: &str) -> Result<usize, String> {
    match positive(text)? {
        threads @ ..=1024 => Ok(threads),
        _ => Err("must be at most 1024".into()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected seconds, at most a day, such as 0.5".into()),
    }
}

fn threshold(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(part) if (0.0..=100.0).contains(&part) => Ok(part),
        _ => Err("expected a part such as 0.05 for five percent".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser, Debug)]
    struct Program {
        #[command(subcommand)]
        command: Command,
    }

    fn parse(line: &str) -> Result<Command, clap::Error> {
        let args = ["bench"].into_iter().chain(line.split_whitespace());
        Program::try_parse_from(args).map(|program| program.command)
    }

    #[test]
    fn arguments_are_consistent_and_lists_are_read() {
        Program::command().debug_assert();
        let line = "run --sparsity 0.5,0.9 --pattern blocks4,unstructured --batch 1,16 \
                    --dtype f32,bf16 --device flex --budget 0.1";
        let Command::Run(args) = parse(line).unwrap() else {
            panic!("no run")
        };
        assert_eq!(args.conditions.sparsity, [0.5, 0.9]);
        assert_eq!(
            args.conditions.pattern,
            [Pattern::Blocks(4), Pattern::Unstructured]
        );
        assert_eq!(args.conditions.dtype, [Dtype::F32, Dtype::Bf16]);
        assert_eq!(args.conditions.batch, [1, 16]);
        let Command::Run(args) = parse("run --device flex").unwrap() else {
            panic!("no run")
        };
        assert_eq!(args.suite, "resnet50");
        assert_eq!(args.conditions.pattern, [Pattern::Unstructured]);
        assert!(args.conditions.sparsity.is_empty());
    }

    #[test]
    fn wrong_values_are_explained() {
        for (line, says) in [
            ("run --sparsity 0.5,1", "[0, 1)"),
            ("run --sparsity -0.5", "[0, 1)"),
            ("run --batch 0", "at least 1"),
            ("run --dtype f64", "bf16"),
            ("run --pattern stars", "blocks4"),
            ("run --budget NaN", "seconds"),
            ("run --budget 1e300", "seconds"),
            ("run --threads 5000", "1024"),
            ("compare a b --threshold -1", "0.05"),
            ("growth --axis sparsity --values x", "--values"),
            ("growth --axis depth", "channels"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
