//! What the layers of a network could become, measured: times on the device, and what each scheme costs.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use burn_admm::mapping::{
    LatencyCase, LatencyModel, LatencyTable, LayerOptions, Mapping, MappingError, Network, Offers,
    OptionConfig, PredictionError, Rest, RuleConfig, Selection, Sensitivity, cases_of_rules,
    layer_options, map_by_rules,
};
use burn_admm::{Masks, fold};
use burn_sparse::cpu;
use burn_sparse::nn::Trace;
use burn_sparse::pack::{PackConfig, pack};
use models::Classifier;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::evaluate::mean_loss;
use super::state::read_json;
use super::{Context, Dense, TrainingError};
use crate::bench::Machine;
use crate::data::cache_folder;
use crate::device::{Backend, Selected};
use crate::output::{OutputError, write_atomic};
use crate::progress::Progress;
use crate::timing::{TimingError, TimingOptions, measure};

/// Validation images on which losses are measured.
const IMAGES: usize = 1000;

/// Measurements after which a file is written anew.
const EVERY: usize = 16;

/// Networks by chance that tell what layers take in a network.
const BY_CHANCE: usize = 6;

/// Rounds of timing whole networks.
const ROUNDS: usize = 15;

/// Where the times of layers on a device are kept: by default in the user's cache, one file for each device.
///
/// # Errors
/// [`TrainingError::Bench`] if the device cannot be described.
pub fn latency_file(selected: &Selected, fallback: &Path) -> Result<PathBuf, TrainingError> {
    let mut hasher = DefaultHasher::new();
    machine(selected)?.hash(&mut hasher);
    let name = format!(
        "latency-{}-{:016x}.json",
        selected.backend.name(),
        hasher.finish()
    );
    let folder = cache_folder().unwrap_or_else(|| fallback.to_owned());
    Ok(folder.join(name))
}

/// Times are of a device, of the threads that it has, and of a build.
fn machine(selected: &Selected) -> Result<String, TrainingError> {
    let machine = Machine::of(selected)?;
    let version = env!("CARGO_PKG_VERSION");
    Ok(format!("{machine}, {:?}, {version}", selected.device))
}

/// What a network is made of, seen on two inputs of noise.
///
/// # Errors
/// [`TrainingError::Mapping`].
pub fn network_of<M: Classifier>(context: &Context, model: &M) -> Result<Network, TrainingError> {
    let device = context.device.clone().inner();
    let inputs = [0, 1].map(|seed| noise(context, seed, &device));
    Ok(Network::of(&model.valid(), inputs, |model, x| {
        model.forward(x)
    })?)
}

/// An image of noise, whatever else is drawn from the device's generator.
fn noise(context: &Context, seed: u64, device: &Device) -> Tensor<4> {
    let shape = context.data.shape;
    let values = burn_sparse::catalogue::values(shape.bytes(), seed);
    let data =
        burn::tensor::TensorData::new(values, [1, shape.channels, shape.height, shape.width]);
    Tensor::from_data(data, device)
}

/// Measures cases with a progress bar, keeping what is done in the file of the device.
///
/// # Errors
/// [`TrainingError::Mapping`]; a file that is damaged or of another device is measured again, with a warning.
fn times(
    context: &Context,
    selected: &Selected,
    cases: &[LatencyCase],
    file: &Path,
) -> Result<LatencyTable, TrainingError> {
    let opened = LatencyTable::open(file, &machine(selected)?).map_err(MappingError::from)?;
    if let Some(reason) = &opened.dropped {
        context.say(format!("warning: {reason}"));
    }
    let mut table = opened.table;
    let device = context.device.clone().inner();
    let mut bar = None;
    let mut measure = || {
        table.measure(cases, &device, |table, done, all| {
            advance(&mut bar, "timing layers", done, all);
            if done == all && all > 0 || done % EVERY == EVERY - 1 {
                table.save(file)?;
            }
            Ok(())
        })
    };
    let done = match selected.backend {
        Backend::Flex => cpu::on_pool(measure),
        _ => measure(),
    };
    if done.is_err() {
        // What was measured before stays.
        table.save(file).map_err(MappingError::from)?;
    }
    done?;
    Ok(table)
}

/// What a network could become, and how well times can be told that nobody measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// What can be chosen from.
    pub offers: Offers,
    /// The layers that the offers are of.
    pub layers: Vec<LayerOptions>,
    /// Of the device's times, each predicted from those of other layers; none where there are too few.
    pub prediction: Option<PredictionError>,
}

/// What can be chosen from for a dense network, measured on the device of `selected` and on validation images.
/// What was found is kept in `folder`, and a resumed run goes on with it.
///
/// # Errors
/// [`TrainingError::Mapping`], and those of measuring, reading and writing.
pub fn offers<M: Classifier + Sync>(
    context: &Context,
    selected: &Selected,
    dense: &Dense<M>,
    config: &OptionConfig,
    (folder, latency): (&Path, &Path),
) -> Result<Measured, TrainingError> {
    let file = folder.join("offers.json");
    if context.resume && file.is_file() {
        return checked(&file);
    }
    // One of an older run would be taken for that of this one.
    match fs::remove_file(&file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(OutputError::from_io(&file, error).into());
        }
        _ => {}
    }
    let device = context.device.clone().inner();
    let model = dense.model.valid();
    let image = noise(context, 0, &device);
    let trace = Trace::of(|| drop(model.forward(image.clone())));
    let layers = layer_options(&model, &trace, config)?;
    let cases: Vec<LatencyCase> = layers.iter().flat_map(LayerOptions::cases).collect();
    let table = times(context, selected, &cases, latency)?;
    let losses = losses(context, &model, &layers, &folder.join("sensitivity.json"))?;

    let mut offers = Offers::new(&layers, &table, &losses, Rest::default())?;
    let [_, bytes] = offers.dense();
    offers.rest.bytes = (4.0 * model.num_params() as f64 - bytes).max(0.0);
    let networks = networks(context, &model, &offers)?;
    let offers = offers.with_measured(&networks);
    let measured = Measured {
        offers,
        layers,
        prediction: LatencyModel::held_out(&table, 5)?,
    };
    write_atomic(&file, |out| {
        serde_json::to_writer(&mut *out, &measured)?;
        Ok(())
    })?;
    // As a resumed run will see them, to the last bit.
    checked(&file)
}

/// The dense network and some by chance, packed, each with the offers that its layers take and its milliseconds.
fn networks<M: Classifier + Sync>(
    context: &Context,
    model: &M,
    offers: &Offers,
) -> Result<Vec<(Vec<usize>, f64)>, TrainingError> {
    let device = context.device.clone().inner();
    let image = noise(context, 0, &device);
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut chosen = vec![vec![0; offers.layers.len()]];
    for _ in 0..BY_CHANCE {
        let layers = offers.layers.iter();
        let one = layers.map(|layer| rng.random_range(0..layer.offers.len()));
        chosen.push(one.collect());
    }
    let mut packed = Vec::new();
    for choice in &chosen {
        packed.push(packed_as(model, &offers.selection(choice), &image)?);
    }
    let times = in_turns(&packed, &image, &device)?;
    Ok(chosen.into_iter().zip(times).collect())
}

/// A network projected as a selection says, and packed.
///
/// # Errors
/// [`TrainingError::Mapping`], and those of packing.
pub fn packed_as<M: Classifier>(
    model: &M,
    selection: &Selection,
    image: &Tensor<4>,
) -> Result<M, TrainingError> {
    let plan = selection.mapping.plan()?.resolve(model)?;
    let masked = Masks::project(model, &plan)?.attach(model.clone())?;
    let folded = Classifier::fold(fold(masked));
    let trace = Trace::of(|| drop(folded.forward(image.clone())));
    let (packed, _) = pack(folded, &PackConfig::default().with_trace(trace))?;
    Ok(packed)
}

/// Milliseconds of each network for an image: medians of some runs, and the middle one of all rounds, in which each
/// has its turn. Small networks take so little time that all runs of one measurement fall into the same mood of the
/// machine.
///
/// # Errors
/// [`TimingError`] if the device fails.
pub fn in_turns<M: Classifier + Sync>(
    models: &[M],
    x: &Tensor<4>,
    device: &Device,
) -> Result<Vec<f64>, TimingError> {
    let options = TimingOptions {
        warmup: 2,
        runs: 9,
        ..TimingOptions::default()
    };
    let rounds = || {
        let mut times = vec![Vec::with_capacity(ROUNDS); models.len()];
        for _ in 0..ROUNDS {
            for (model, times) in models.iter().zip(&mut times) {
                times.push(measure(device, options, || model.infer(x.clone()))?.median);
            }
        }
        Ok::<_, TimingError>(times)
    };
    let times = cpu::on_pool(rounds)?;
    let middle = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    Ok(times.into_iter().map(middle).collect())
}

/// What the rules make of a dense network at each of some sparsities, on the device of `selected`; times that are
/// missing in the file `latency` are measured.
///
/// # Errors
/// [`TrainingError::Mapping`], and those of measuring, reading and writing.
pub fn by_rules<M: Classifier>(
    context: &Context,
    selected: &Selected,
    dense: &Dense<M>,
    sparsities: &[f64],
    latency: &Path,
) -> Result<Vec<Mapping>, TrainingError> {
    let model = dense.model.valid();
    let image = noise(context, 0, &context.device.clone().inner());
    let trace = Trace::of(|| drop(model.forward(image)));
    let configs = sparsities.iter().map(|&sparsity| RuleConfig {
        sparsity,
        ..RuleConfig::default()
    });
    let configs: Vec<RuleConfig> = configs.collect();
    let mut cases = Vec::new();
    for config in &configs {
        for case in cases_of_rules(&model, &trace, config)? {
            if !cases.contains(&case) {
                cases.push(case);
            }
        }
    }
    let table = times(context, selected, &cases, latency)?;
    let mapped = |config| Ok(map_by_rules(&model, &trace, &table, config)?);
    configs.iter().map(mapped).collect()
}

fn checked(file: &Path) -> Result<Measured, TrainingError> {
    let measured: Measured = read_json(file)?;
    measured.offers.check()?;
    Ok(measured)
}

/// The loss of a network with each of its layers pruned in each way.
fn losses<M: Classifier>(
    context: &Context,
    model: &M,
    layers: &[LayerOptions],
    file: &Path,
) -> Result<Sensitivity, TrainingError> {
    let data = context.data;
    let split = if data.valid.is_empty() {
        &data.train
    } else {
        &data.valid
    };
    let device = &context.device;
    let loss = |model: &M| mean_loss(model, data, split, IMAGES, device);
    // Other weights or images have another loss.
    let network = format!("{} of loss {:e}", data.name, loss(model)?);
    let opened = Sensitivity::open(file, &network).map_err(MappingError::from)?;
    if let (Some(reason), true) = (&opened.dropped, context.resume) {
        context.say(format!("warning: {reason}"));
    }
    let mut known = opened.table;
    let mut bar = None;
    let loss = |model: &M| loss(model).map_err(|error| MappingError::Stopped(error.to_string()));
    known.measure(model, layers, loss, |known, done, all| {
        advance(&mut bar, "what layers cost", done, all);
        if done == all && all > 0 || done % EVERY == EVERY - 1 {
            known.save(file)?;
        }
        Ok(())
    })?;
    Ok(known)
}

fn advance(bar: &mut Option<Progress>, label: &str, done: usize, all: usize) {
    let shown = bar.get_or_insert_with(|| Progress::new(label, all as u64));
    if done > 0 {
        shown.inc(1);
    }
    if done == all
        && let Some(shown) = bar.take()
    {
        shown.finish();
    }
}
