//! From a masked network to a packed file that was read back, verified and measured.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use burn_admm::fold;
use burn_admm::shrink::ChannelModel;
use burn_sparse::cpu;
use burn_sparse::nn::Trace;
use burn_sparse::pack::{PackConfig, PackReport, pack, random_inputs, verify};
use burn_sparse::store;
use models::{Classifier, weights};
use serde_json::json;

use super::evaluate::{EVAL_BATCH, accuracy};
use super::{Context, Dense, Factored, Pruned, Shared, TrainingError};
use crate::data::Loader;
use crate::output::{OutputError, file_size};
use crate::report::{DensePacked, Latency, LayerReport, Report};
use crate::timing::{TimingError, TimingOptions, measure};

/// Batch sizes at which the whole network is measured.
const BATCHES: [usize; 2] = [1, 32];
/// The file with all weights, zeros and all (beside a network of factors those of the dense network), by
/// torchvision's names.
pub const DENSE_FILE: &str = "pruned.safetensors";
/// The packed file.
pub const PACKED_FILE: &str = "packed.safetensors";

/// A packed network, as read back from its file.
#[derive(Debug)]
pub struct Deployed<M> {
    /// The packed network.
    pub model: M,
    /// The same network dense, or the dense one beside factors: masks and batch norms folded.
    pub dense: M,
    /// What packing decided for each layer.
    pub packing: PackReport,
    /// Accuracy of the packed network on the test images.
    pub accuracy: f64,
    /// Largest difference of any logit between the masked and the packed network, before and
    /// after the packed file, on random and on test images.
    pub max_abs_diff: f64,
    /// Bytes of the dense file.
    pub bytes_dense: u64,
    /// Bytes of the packed file.
    pub bytes_packed: u64,
    /// Times of the whole network.
    pub latency: Latency,
    /// The same of the network packed by the zeros of the weights that shared kernels multiply to.
    pub latency_composed: Option<Latency>,
}

/// Folds masks and batch norms, packs, saves both forms in `folder`, loads the packed one into a
/// fresh network, verifies and measures it.
///
/// # Errors
/// Those of packing, of the files and of measuring; see [`TrainingError`].
pub fn deploy<M: Classifier + Sync>(
    context: &Context,
    build: impl Fn(&Device) -> M,
    pruned: &Pruned<M>,
    folder: &Path,
) -> Result<Deployed<M>, TrainingError> {
    context.say(format!("{}: packing and measuring", pruned.method));
    let forms = Forms {
        model: &pruned.model,
        reference: &pruned.model,
        rival: None,
    };
    run(context, build, forms, folder)
}

/// [`deploy`] of a network of factors, beside a dense network.
///
/// # Errors
/// As [`deploy`].
pub fn deploy_factored<M: Classifier + Sync>(
    context: &Context,
    build: impl Fn(&Device) -> M,
    factored: &Factored<M>,
    dense: &Dense<M>,
    folder: &Path,
) -> Result<Deployed<M>, TrainingError> {
    context.say(format!("{}: packing and measuring", factored.method));
    let forms = Forms {
        model: &factored.model,
        reference: &factored.model,
        rival: Some(&dense.model),
    };
    run(context, build, forms, folder)
}

/// [`deploy`] of a network whose channels have been cut out, beside a dense network. What is packed is
/// verified against the network as it was before cutting.
///
/// # Errors
/// As [`deploy`].
pub fn deploy_shared<M: Classifier + ChannelModel + Sync>(
    context: &Context,
    build: impl Fn(&Device) -> M,
    shared: &Shared<M>,
    dense: &Dense<M>,
    folder: &Path,
) -> Result<Deployed<M>, TrainingError> {
    context.say("penni: packing and measuring");
    let device = context.device.clone().inner();
    let fresh = shared.plan.apply_to(build(&device))?;
    // Either form may be the faster one: both are measured.
    let composed = packed(context, &fold(shared.small.valid()))?;
    let model = burn_admm::penni::share(shared.small.clone(), &shared.kernels)?;
    let forms = Forms {
        model: &model,
        reference: &shared.model,
        rival: Some(&dense.model),
    };
    let deployed = run(context, |_| fresh.clone(), forms, folder)?;
    let shape = context.data.shape;
    let latency = latency(
        &device,
        [1, shape.channels, shape.height, shape.width],
        |x| deployed.dense.forward(x),
        |x| composed.0.forward(x),
    )?;
    Ok(Deployed {
        latency_composed: Some(latency),
        ..deployed
    })
}

/// The network with batch norms folded, packed for the images of the data.
fn packed<M: Classifier>(
    context: &Context,
    unmasked: &M,
) -> Result<(M, PackReport), TrainingError> {
    let device = context.device.clone().inner();
    let shape = context.data.shape;
    let folded = Classifier::fold(unmasked.clone());
    let probe = Tensor::zeros([1, shape.channels, shape.height, shape.width], &device);
    let trace = Trace::of(|| drop(folded.forward(probe)));
    Ok(pack(folded, &PackConfig::default().with_trace(trace))?)
}

/// What is packed, what its outputs must be, and what it is measured beside.
struct Forms<'a, M> {
    model: &'a M,
    reference: &'a M,
    /// The network itself with its zeros, unless another one is given.
    rival: Option<&'a M>,
}

fn run<M: Classifier + Sync>(
    context: &Context,
    build: impl Fn(&Device) -> M,
    forms: Forms<'_, M>,
    folder: &Path,
) -> Result<Deployed<M>, TrainingError> {
    let device = context.device.clone().inner();
    let shape = context.data.shape;
    let image = |batch| [batch, shape.channels, shape.height, shape.width];
    fs::create_dir_all(folder).map_err(|e| OutputError::from_io(folder, e))?;

    let masked = forms.reference.valid();
    let unmasked = fold(forms.model.valid());
    let whole = forms
        .rival
        .map_or_else(|| unmasked.clone(), |rival| fold(rival.valid()));
    let dense_file = folder.join(DENSE_FILE);
    weights::save(&whole, &dense_file)?;

    let dense = Classifier::fold(whole);
    let (packed, packing) = packed(context, &unmasked)?;

    let packed_file = folder.join(PACKED_FILE);
    store::save(&packed, &packed_file)?;
    let loaded = store::load(Classifier::fold(build(&device)), &packed_file)?;

    // A resumed run draws the same inputs as one that went through.
    device.seed(context.recipe.seed);
    let mut inputs = random_inputs(image(EVAL_BATCH.min(32)), 2, &device);
    let test = Loader::eval(context.data, &context.data.test, EVAL_BATCH);
    inputs.extend(test.epoch(0, &device).take(2).map(|batch| batch.images));
    let against = |other: &M| verify(|x| masked.forward(x), |x| other.forward(x), &inputs);
    let difference = against(&packed).max(against(&loaded));

    let latency = latency(
        &device,
        image(1),
        |x| dense.forward(x),
        |x| loaded.forward(x),
    )?;
    Ok(Deployed {
        accuracy: accuracy(&loaded, context.data, &context.data.test, &device)?,
        model: loaded,
        dense,
        packing,
        max_abs_diff: difference.max_abs,
        bytes_dense: file_size(&dense_file)?,
        bytes_packed: file_size(&packed_file)?,
        latency,
        latency_composed: None,
    })
}

/// Median times of a network in both forms, on black images `[batch, channels, height, width]` for
/// batches of 1 and 32.
///
/// # Errors
/// [`TimingError`] if the device fails.
pub fn latency(
    device: &Device,
    image: [usize; 4],
    dense: impl Fn(Tensor<4>) -> Tensor<2> + Sync,
    packed: impl Fn(Tensor<4>) -> Tensor<2> + Sync,
) -> Result<Latency, TimingError> {
    let mut times = BTreeMap::new();
    for batch in BATCHES {
        let x = Tensor::<4>::zeros([batch, image[1], image[2], image[3]], device);
        let time = |form: &(dyn Fn(Tensor<4>) -> Tensor<2> + Sync)| {
            let work = || measure(device, TimingOptions::default(), || form(x.clone()));
            // As networks are to run on a CPU; on other devices it is no matter.
            let timing = cpu::on_pool(work);
            timing.map(|timing| timing.median)
        };
        let (dense, packed) = (time(&dense)?, time(&packed)?);
        times.insert(batch, DensePacked { dense, packed });
    }
    Ok(Latency::new(times))
}

impl<M> Deployed<M> {
    /// Puts what was found here into the report of the training.
    pub fn add_to(&self, report: &mut Report) {
        let layers = self.packing.layers.iter().map(LayerReport::from);
        report.layers = layers.collect();
        report.accuracy_pruned = self.accuracy;
        report.bytes_dense = self.bytes_dense;
        report.bytes_packed_file = self.bytes_packed;
        report.max_abs_diff = self.max_abs_diff;
        report.latency_ms = self.latency.clone();
        if let Some(composed) = &self.latency_composed {
            report
                .extra
                .insert("latency_ms_composed".into(), json!(composed));
        }
    }
}
