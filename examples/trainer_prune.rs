//! ADMM inside Burn's own trainer: a dashboard in a terminal, plain lines elsewhere.
//!
//! ```text
//! cargo run --release --example trainer_prune
//! ```

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::lr_scheduler::constant::ConstantLr;
use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::AdamConfig;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{
    ClassificationOutput, InferenceStep, Learner, SupervisedTraining, TrainOutput, TrainStep,
};
use burn_admm::train::{AdmmTraining, state_path};
use burn_admm::{Admm, AdmmConfig, Masks, SparsityReport, fold};
use clap::Parser;
use examples::cli::{CommonArgs, DataArgs, Preset, sparsity};
use examples::data::{Normalization, Source, Split, load};
use examples::training::{Pattern, accuracy, lenet_plan};
use models::{Classifier, LeNet5, LeNet5Config};
use serde_json::json;

/// Prune LeNet-5 inside Burn's trainer
///
/// Trains towards the constraint from the start, projects, and says what that costs;
/// `lenet5_prune` is the one that also retrains and packs.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Part of all weights that becomes zero
    #[arg(long, default_value_t = 0.9, value_parser = sparsity, allow_negative_numbers = true)]
    sparsity: f64,

    #[command(flatten)]
    data: DataArgs,

    #[command(flatten)]
    common: CommonArgs,
}

/// What the trainer asks of a network, around one that knows nothing of it.
#[derive(Module, Debug)]
struct Digits {
    net: LeNet5,
}

#[derive(Clone, Debug)]
struct Images {
    images: Tensor<4>,
    labels: Tensor<1, Int>,
}

impl Digits {
    fn classify(&self, batch: Images) -> ClassificationOutput {
        let output = self.net.forward(batch.images);
        let loss = CrossEntropyLossConfig::new()
            .init(&output.device())
            .forward(output.clone(), batch.labels.clone());
        ClassificationOutput::new(loss, output, batch.labels)
    }
}

impl TrainStep for Digits {
    type Input = Images;
    type Output = ClassificationOutput;

    fn step(&self, batch: Images) -> TrainOutput<ClassificationOutput> {
        let output = self.classify(batch);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl InferenceStep for Digits {
    type Input = Images;
    type Output = ClassificationOutput;

    fn step(&self, batch: Images) -> ClassificationOutput {
        self.classify(batch)
    }
}

type Item = (Vec<u8>, u32);

/// Normalises grey images.
struct ToBatch {
    normalization: Normalization,
    size: [usize; 2],
}

impl Batcher<Item, Images> for ToBatch {
    fn batch(&self, items: Vec<Item>, device: &Device) -> Images {
        let (mean, std) = (self.normalization.mean[0], self.normalization.std[0]);
        let pixels = items.iter().flat_map(|item| &item.0);
        let pixels: Vec<f32> = pixels
            .map(|&p| (f32::from(p) / 255.0 - mean) / std)
            .collect();
        let labels: Vec<i32> = items.iter().map(|item| item.1 as i32).collect();
        let shape = [items.len(), 1, self.size[0], self.size[1]];
        Images {
            images: Tensor::from_data(TensorData::new(pixels, shape), device),
            labels: Tensor::from_data(TensorData::new(labels, [items.len()]), device),
        }
    }
}

/// The last epoch whose ADMM state the trainer has left in `folder`.
fn last_epoch(folder: &Path, epochs: usize) -> Option<usize> {
    (1..=epochs)
        .rev()
        .find(|&epoch| state_path(folder, epoch).is_file())
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let selected = args.common.select_device()?;
    selected.warn();
    let device = selected.device.autodiff();
    let (limit, epochs) = match args.common.preset {
        Preset::Quick => (Some(4_000), 6),
        Preset::Full => (None, 20),
    };
    let output = args.common.open_output("trainer_prune", "started")?;
    output.write("started", |_| Ok(()))?;
    let options = args.data.options(args.common.seed, limit, limit);
    let data = load(args.data.source(Source::Mnist), &options)?;
    println!("{}", data.summary());
    if data.shape.channels != 1 {
        return Err("this example takes grey images; see resnet50_prune for others".into());
    }
    let size = [data.shape.height, data.shape.width];
    let loader = |split: &Split| -> Arc<dyn DataLoader<Images>> {
        let items = (0..split.len()).map(|i| (split.image(i).to_vec(), split.labels()[i]));
        let batcher = ToBatch {
            normalization: data.normalization.clone(),
            size,
        };
        DataLoaderBuilder::new(batcher)
            .batch_size(64)
            .shuffle(args.common.seed)
            .set_device(device.clone())
            .build(InMemDataset::new(items.collect()))
    };

    // Initial weights, then the state of ADMM: fresh, or that of the last checkpoint.
    device.seed(args.common.seed);
    let config = LeNet5Config::new(data.num_classes()).with_input([1, size[0], size[1]]);
    let model = Digits {
        net: config.init(&device),
    };
    let plan = lenet_plan(&model, args.sparsity, Pattern::Unstructured)?;
    let settings = AdmmConfig::new().with_rho(0.02);
    let from = last_epoch(output.path(), epochs).filter(|_| args.common.resume);
    let admm = match from {
        Some(epoch) => Admm::resume(&model, &plan, settings, state_path(output.path(), epoch))?,
        None => Admm::new(&model, &plan, settings)?,
    };
    let resolved = admm.plan().clone();

    // An outer iteration per epoch.
    let training = AdmmTraining::new(admm, data.train.len().div_ceil(64));
    let (train, valid) = (loader(&data.train), loader(&data.valid));
    let supervised = SupervisedTraining::new(output.path(), train, valid)
        .metrics((AccuracyMetric::new(), LossMetric::new()))
        .with_application_logger(None)
        .num_epochs(epochs)
        .with_default_checkpointers();
    let mut supervised = training.register(supervised, output.path());
    if let Some(epoch) = from {
        supervised = supervised.checkpoint(epoch);
    }
    let learner = Learner::new(
        training.wrap(model),
        AdamConfig::new().init(),
        ConstantLr::new(1e-3),
    );
    let result = supervised.launch(learner);
    training.result()?;

    let trained = result.model.into_inner();
    let test = |model: &Digits| accuracy(&model.net, &data, &data.test, &device);
    let dense = test(&trained)?;
    let projected = fold(Masks::project(&trained, &resolved)?.attach(trained)?);
    let pruned = test(&projected)?;
    let zeros = SparsityReport::new(&projected)?;
    println!("{zeros}");
    println!(
        "accuracy: {:.2} % as trained, {:.2} % projected",
        100.0 * dense,
        100.0 * pruned
    );
    let report = json!({
        "arch": "lenet5", "classes": projected.net.classes(), "dataset": data.name,
        "method": "admm", "sparsity": zeros.sparsity, "accuracy_dense": dense,
        "accuracy_projected": pruned, "history": training.history(),
    });
    let path = output.write("report.json", |file| {
        serde_json::to_writer_pretty(&mut *file, &report)?;
        Ok(())
    })?;
    println!("report: {}", path.display());
    Ok(())
}
