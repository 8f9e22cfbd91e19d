//! Layers and the whole network at given sparsities, dense beside packed, without training.

use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_admm::{Masks, fold};
use burn_sparse::nn::Trace;
use burn_sparse::pack::{Difference, Format, PackConfig, pack};
use models::{TextCnn, TextCnnConfig};

use super::deploy::{BATCHES, timed};
use super::plan;
use crate::bench::{
    BenchReport, Dtype, Machine, NetworkMeasured, NetworkRow, Outcome, Pattern, Runner, Settings,
    Suite, cases,
};
use crate::cli::command_line;
use crate::device::Selected;
use crate::progress::Progress;
use crate::training::TrainingError;

/// What Pietroń and Żurek time in their tables 13 and 14: windows of two and three words, at these
/// sparsities and this batch.
pub const TABLES: (&str, [f64; 3], usize) = ("text_cnn_short", [0.77, 0.83, 0.875], 128);
/// Words of the network's sentences: as many as the suite's longest.
const WORDS: usize = 56;
/// Words that have vectors when nothing is trained; how many there are costs no time.
const VOCABULARY: usize = 1000;
/// Rounding of three layers grows no further, in parts of the largest logit.
const TOLERANCE: f64 = 1e-4;

/// Measures the convolutions of the suite `text_cnn` and the whole network at each sparsity for one
/// sentence and for fifty, and those of [`TABLES`].
///
/// Weights are random, and equally many of every output channel are zero. Every layer is held against
/// the reference first.
///
/// # Errors
/// Those of packing and measuring; see [`TrainingError`]. A form that is wrong makes a row that
/// failed.
pub fn latency(
    config: &TextCnnConfig,
    sparsity: f64,
    selected: &Selected,
    settings: Settings,
) -> Result<BenchReport, TrainingError> {
    let layers = |suite: &str, kind: &str| {
        let suite = Suite::open(suite).map_err(crate::bench::BenchError::from)?;
        let mut layers = suite.layers;
        layers.retain(|layer| layer.kind().name() == kind);
        Ok::<_, TrainingError>(layers)
    };
    let pattern = [Pattern::Unstructured];
    let dtype = [Dtype::F32];
    let own = layers("text_cnn", "conv1d")?;
    let mut all = cases(&own, &[sparsity], &pattern, &BATCHES, &dtype);
    let (name, sparsities, batch) = TABLES;
    let short = layers(name, "conv1d")?;
    all.extend(cases(&short, &sparsities, &pattern, &[batch], &dtype));

    let machine = Machine::of(selected)?;
    let suite = format!("text_cnn, {name}");
    let mut report = BenchReport::new(command_line(), machine, settings, suite);
    let runner = Runner::new(selected, settings);
    let progress = Progress::new("timing", (all.len() + BATCHES.len()) as u64);
    for case in &all {
        progress.message(case.key().to_string());
        report.rows.push(runner.row(case)?);
        progress.inc(1);
    }
    for batch in BATCHES {
        progress.message(format!("the network, batch {batch}"));
        let row = network(config, (sparsity, batch), selected, settings.seed)?;
        report.networks.push(row);
        progress.inc(1);
    }
    progress.finish();
    report.peaks = runner.peaks();
    Ok(report)
}

/// The network with random weights, packed where that is faster.
fn network(
    config: &TextCnnConfig,
    (sparsity, batch): (f64, usize),
    selected: &Selected,
    seed: u64,
) -> Result<NetworkRow, TrainingError> {
    let device = &selected.device;
    device.seed(seed);
    let config = TextCnnConfig {
        words: VOCABULARY,
        ..config.clone()
    };
    let model = config.init(device)?;
    let plan = plan(sparsity)?.resolve(&model)?;
    let dense = fold(Masks::project(&model, &plan)?.attach(model)?);
    let words = sentences(batch, device);
    let trace = Trace::of(|| drop(dense.forward(words.clone())));
    let (packed, report) = pack(dense.clone(), &PackConfig::measure(trace))?;
    let logits = |model: &TextCnn| -> Result<Vec<f32>, TrainingError> {
        let logits = model.forward(words.clone());
        Ok(logits.try_to_data_as::<f32>()?.iter::<f32>().collect())
    };
    let difference = Difference::between(&logits(&dense)?, &logits(&packed)?);
    let outcome = if difference.max_rel <= TOLERANCE {
        Outcome::Measured(Box::new(NetworkMeasured {
            pair: timed(device, [&packed, &dense], &words)?,
            weights: report.weights(),
            nnz: report.nnz(),
            layers: report.layers.len(),
            packed: report
                .layers
                .iter()
                .filter(|layer| layer.format != Format::Dense)
                .count(),
            max_abs_diff: difference.max_abs,
            max_rel_diff: difference.max_rel,
        }))
    } else {
        Outcome::Failed {
            reason: format!(
                "packed and dense outputs differ by {:.2e}, {:.2e} of the largest; up to \
                 {TOLERANCE:.0e} is rounding",
                difference.max_abs, difference.max_rel
            ),
        }
    };
    Ok(NetworkRow {
        network: "text_cnn".into(),
        sparsity,
        pattern: Pattern::Unstructured,
        batch,
        outcome,
    })
}

/// Sentences of [`WORDS`] words.
fn sentences(batch: usize, device: &Device) -> Tensor<2, Int> {
    let word = |i: usize| (1 + i * 7919 % (VOCABULARY - 1)) as i32;
    let words: Vec<i32> = (0..batch * WORDS).map(word).collect();
    Tensor::from_data(TensorData::new(words, [batch, WORDS]), device)
}
