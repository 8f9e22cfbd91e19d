//! From a masked network to a packed file that was read back, verified and measured.

use std::fs;
use std::time::Duration;

use burn::module::Module;
use burn::tensor::{Distribution, Int, Tensor};
use burn_admm::{SparsityReport, fold};
use burn_sparse::nn::Trace;
use burn_sparse::pack::{Difference, PackConfig, PackReport, pack, random_inputs, verify};
use burn_sparse::store;
use models::{SpeechGru, SpeechGruConfig, weights};

use super::SpeechContext;
use crate::bench::{Pair, measure};
use crate::data::speech::{Padding, SpeechLoader};
use crate::output::{OutputError, file_size};
use crate::sequence::{EVAL_BATCH, Part, Score, score};
use crate::timing::TimingOptions;
use crate::training::{DENSE_FILE, PACKED_FILE, TrainingError};

/// Steps are short: more runs than elsewhere cost next to nothing.
pub(super) const STEPS: TimingOptions = TimingOptions {
    warmup: 50,
    runs: 400,
    budget: Duration::from_secs(5),
};

/// A packed network, as read back from its file.
#[derive(Debug)]
pub struct SpeechDeployed {
    /// The packed network.
    pub model: SpeechGru,
    /// The zeros of all weights, counted.
    pub zeros: SparsityReport,
    /// What packing decided for each layer.
    pub packing: PackReport,
    /// The packed network on the test recordings.
    pub test: Score,
    /// Largest difference of any logit between the masked and the packed network, before and after
    /// the packed file, on random inputs and on all test recordings.
    pub max_abs_diff: f64,
    /// Bytes of the dense file.
    pub bytes_dense: u64,
    /// Bytes of the packed file.
    pub bytes_packed: u64,
    /// Frames of the recording that was timed, the median of the test recordings.
    pub frames: usize,
    /// Milliseconds of that recording at once, batch 1.
    pub utterance: Pair,
    /// Milliseconds of one frame, batch 1, without the classifier, which runs when somebody asks.
    pub step: Pair,
}

/// Folds the masks, packs for frames that arrive one by one, saves both forms in the context's
/// folder, loads the packed one into a fresh network, verifies and measures it.
///
/// # Errors
/// Those of packing, of the files and of measuring; see [`TrainingError`].
pub fn deploy(
    context: &SpeechContext,
    config: &SpeechGruConfig,
    masked: &SpeechGru,
) -> Result<SpeechDeployed, TrainingError> {
    let device = context.device.clone().inner();
    let folder = &context.folder;
    fs::create_dir_all(folder).map_err(|e| OutputError::from_io(folder, e))?;
    let masked = masked.valid();
    let dense = fold(masked.clone());
    let (dense_file, packed_file) = (folder.join(DENSE_FILE), folder.join(PACKED_FILE));
    weights::save(&dense, &dense_file)?;

    // The same inputs whether or not the run was resumed.
    device.seed(context.recipe.seed);
    let frame = Tensor::<2>::random([1, config.features], Distribution::Default, &device);
    let start = dense.start(1, &device);
    let trace = Trace::of(|| {
        let state = dense.step(frame.clone(), start.clone());
        drop(dense.classify(&state));
    });
    let (packed, packing) = pack(dense.clone(), &PackConfig::measure(trace))?;
    store::save(&packed, &packed_file)?;
    let loaded = store::load(config.init(&device)?, &packed_file)?;

    let mut difference = Difference::default();
    let mut against = |x: Vec<Tensor<3>>, n: Tensor<1, Int>| {
        for other in [&packed, &loaded] {
            let (a, b) = (&masked, other);
            let run = |model: &SpeechGru, x| model.forward(x, n.clone());
            difference = difference.max(verify(|x| run(a, x), |x| run(b, x), &x));
        }
    };
    let random = random_inputs(
        [3, context.data.config.max_frames, config.features],
        2,
        &device,
    );
    against(random, Tensor::full([3], i32::MAX, &device));
    let test = SpeechLoader::eval(context.data, &context.data.test, EVAL_BATCH);
    let test = test.with_padding(Padding::Longest);
    for batch in test.epoch(0, &device) {
        against(vec![batch.features], batch.lengths);
    }

    let median = median(context);
    let one = context
        .data
        .test
        .batch(&[median], Padding::Longest, &device);
    let utterance = |model: &SpeechGru| model.forward(one.features.clone(), one.lengths.clone());
    let options = TimingOptions::default();
    let utterance = measure(
        &device,
        options,
        || utterance(&loaded),
        || utterance(&dense),
    )?;
    let step = |model: &SpeechGru| model.step(frame.clone(), start.clone());
    let step = measure(&device, STEPS, || step(&loaded), || step(&dense))?;
    Ok(SpeechDeployed {
        zeros: SparsityReport::new(&dense)?,
        packing,
        test: score(&loaded, context.data, Part::Test, &device)?,
        model: loaded,
        max_abs_diff: difference.max_abs,
        bytes_dense: file_size(&dense_file)?,
        bytes_packed: file_size(&packed_file)?,
        frames: context.data.test.frames(median),
        utterance,
        step,
    })
}

/// Index of a test recording of median length.
fn median(context: &SpeechContext) -> usize {
    let test = &context.data.test;
    let mut by_length: Vec<usize> = (0..test.len()).collect();
    by_length.sort_by_key(|&index| test.frames(index));
    by_length[by_length.len() / 2]
}
