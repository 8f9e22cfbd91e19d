//! From a masked network to a packed file that was read back, verified and measured.

use std::collections::BTreeMap;
use std::fs;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorReadError};
use burn_admm::{SparsityReport, fold};
use burn_sparse::nn::{Conv1d, Trace};
use burn_sparse::pack::{Difference, PackConfig, PackReport, pack};
use burn_sparse::{cpu, store};
use models::{TextCnn, TextCnnConfig, weights};
use serde::{Deserialize, Serialize};

use super::TextContext;
use crate::bench::{BenchError, Pair, measure};
use crate::output::{OutputError, file_size};
use crate::sequence::{EVAL_BATCH, Lessons, Part, Score, score};
use crate::timing::TimingOptions;
use crate::training::{DENSE_FILE, PACKED_FILE, TrainingError};

/// Sentences at a time when the network is timed: one, and as many as in Kim's batches.
pub const BATCHES: [usize; 2] = [1, 50];

/// A convolution of the trained network, timed by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConvTime {
    /// Its path.
    pub layer: String,
    /// Words under its kernel.
    pub window: usize,
    /// Sentences at a time.
    pub batch: usize,
    /// Words of each.
    pub words: usize,
    /// Part of its weights that is zero.
    pub sparsity: f64,
    /// Milliseconds of both forms.
    pub ms: Pair,
}

/// A packed network, as read back from its file.
#[derive(Debug)]
pub struct TextDeployed {
    /// The packed network.
    pub model: TextCnn,
    /// The zeros of all weights, counted.
    pub zeros: SparsityReport,
    /// What packing decided for each layer.
    pub packing: PackReport,
    /// The packed network on the test sentences.
    pub test: Score,
    /// Largest difference of any logit between the masked and the packed network, before and after
    /// the packed file, on all test sentences.
    pub max_abs_diff: f64,
    /// Bytes of the dense file.
    pub bytes_dense: u64,
    /// Bytes of the packed file.
    pub bytes_packed: u64,
    /// Words of the sentence that was timed, the median of the test sentences.
    pub words: usize,
    /// Milliseconds of the whole network, by the number of sentences at a time.
    pub network: BTreeMap<usize, Pair>,
    /// Milliseconds of each convolution.
    pub convs: Vec<ConvTime>,
}

/// Folds the masks, packs for single sentences, saves both forms in the context's folder, loads the
/// packed one into a fresh network, verifies and measures it.
///
/// # Errors
/// [`TrainingError::Settings`] without test sentences; those of packing, of the files and of
/// measuring.
pub fn deploy(
    context: &TextContext,
    config: &TextCnnConfig,
    masked: &TextCnn,
) -> Result<TextDeployed, TrainingError> {
    let device = context.device.clone().inner();
    let (folder, test) = (&context.folder, &context.data.data.test);
    let Some(median) = test.median() else {
        return Err(TrainingError::Settings(
            "there are no test sentences".into(),
        ));
    };
    fs::create_dir_all(folder).map_err(|e| OutputError::from_io(folder, e))?;
    let masked = masked.valid();
    let dense = fold(masked.clone());
    let (dense_file, packed_file) = (folder.join(DENSE_FILE), folder.join(PACKED_FILE));
    weights::save(&dense, &dense_file)?;

    let sentences = |batch| test.batch(&vec![median; batch], &device).words;
    let trace = Trace::of(|| drop(dense.forward(sentences(1))));
    let (packed, packing) = pack(dense.clone(), &PackConfig::measure(trace))?;
    store::save(&packed, &packed_file)?;
    let loaded = store::load(config.init(&device)?, &packed_file)?;

    let mut difference = Difference::default();
    for batch in context.data.stored(Part::Test, EVAL_BATCH, &device) {
        let logits = |model: &TextCnn| -> Result<Vec<f32>, TensorReadError> {
            let logits = model.forward(batch.words.clone());
            Ok(logits.try_to_data_as::<f32>()?.iter::<f32>().collect())
        };
        let expected = logits(&masked)?;
        for other in [&packed, &loaded] {
            difference = difference.max(Difference::between(&expected, &logits(other)?));
        }
    }

    let mut network = BTreeMap::new();
    let mut convs = Vec::new();
    for batch in BATCHES {
        let words = sentences(batch);
        network.insert(batch, timed(&device, [&loaded, &dense], &words)?);
        convs.extend(convolutions(&device, [&loaded, &dense], &words)?);
    }
    Ok(TextDeployed {
        zeros: SparsityReport::new(&dense)?,
        packing,
        test: score(&loaded, context.data, Part::Test, &device)?,
        model: loaded,
        max_abs_diff: difference.max_abs,
        bytes_dense: file_size(&dense_file)?,
        bytes_packed: file_size(&packed_file)?,
        words: test.sentence(median).len(),
        network,
        convs,
    })
}

/// Times of a packed and a dense network.
pub(super) fn timed(
    device: &Device,
    [packed, dense]: [&TextCnn; 2],
    words: &Tensor<2, Int>,
) -> Result<Pair, BenchError> {
    let run = |model: &TextCnn| model.forward(words.clone());
    let work = || {
        measure(
            device,
            TimingOptions::default(),
            || run(packed),
            || run(dense),
        )
    };
    // As networks are to run on a CPU; on other devices it is no matter.
    cpu::on_pool(work)
}

/// Times of the convolutions of both, one by one.
fn convolutions(
    device: &Device,
    [packed, dense]: [&TextCnn; 2],
    words: &Tensor<2, Int>,
) -> Result<Vec<ConvTime>, TrainingError> {
    let [batch, length] = words.dims();
    let vectors = dense.vectors(words.clone());
    let zeros = SparsityReport::new(dense)?;
    let pairs = packed.convs.iter().zip(&dense.convs).enumerate();
    pairs
        .map(|(index, (sparse, dense))| {
            let layer = format!("convs.{index}");
            let work = || {
                let run = |conv: &Conv1d| conv.forward(vectors.clone());
                measure(
                    device,
                    TimingOptions::default(),
                    || run(sparse),
                    || run(dense),
                )
            };
            Ok::<_, TrainingError>(ConvTime {
                sparsity: zeros
                    .layer(&format!("{layer}.weight"))
                    .map_or(0.0, |layer| layer.sparsity()),
                layer,
                window: dense.kernel_size,
                batch,
                words: length,
                ms: cpu::on_pool(work)?,
            })
        })
        .collect()
}
