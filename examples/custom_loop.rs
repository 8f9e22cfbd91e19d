//! ADMM pruning in a training loop of your own, stoppable after any epoch, packed at the end.
//!
//! ```text
//! cargo run --release --example custom_loop
//! cargo run --release --example custom_loop -- --stop-after 7
//! cargo run --release --example custom_loop -- --resume
//! ```

use std::process::ExitCode;

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor, activation::relu};
use burn_admm::{Admm, AdmmConfig, Masks, Plan, SparsityReport, fold};
use burn_sparse::nn::{Conv2d, Conv2dConfig, Linear, LinearConfig, Trace};
use burn_sparse::pack::{PackConfig, pack, random_inputs, verify};
use burn_sparse::{Sparsity, store};
use clap::Parser;
use examples::cli::{CommonArgs, Preset, after_help, positive, sparsity};
use examples::data::{ImageDataset, LoadOptions, Loader, Source, load};
use examples::output::file_size;
use examples::progress::Progress;
use examples::report::{LayerReport, Report};
use examples::training::{
    DENSE_FILE, IterationRecord, LoopArgs, PACKED_FILE, SETTINGS, Snapshots, TrainingError,
    exit_code, latency, settle, short,
};
use models::weights;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Your own network: for pruning alone any layers will do, these can be packed, too.
#[derive(Module, Debug)]
struct Net {
    conv1: Conv2d,
    conv2: Conv2d,
    hidden: Linear,
    head: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        let conv = |channels| Conv2dConfig::new(channels, [3, 3]).with_stride([2, 2]);
        Self {
            conv1: conv([3, 16]).init(device),
            conv2: conv([16, 32]).init(device),
            hidden: LinearConfig::new(32 * 7 * 7, 128).init(device),
            head: LinearConfig::new(128, 10).init(device),
        }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = relu(self.conv2.forward(relu(self.conv1.forward(images))));
        self.head
            .forward(relu(self.hidden.forward(x.flatten(1, 3))))
    }
}

/// Prune a small network of your own in a loop of your own, and pack it
///
/// Three stages of as many epochs each: dense training, ADMM, retraining under the mask. The images
/// are drawn: ten classes of shapes, nothing to download.
#[derive(Parser, Debug)]
#[command(version, after_help = after_help("custom_loop", &[
    ("half a minute", ""),
    ("stop in the middle ...", "--stop-after 7"),
    ("... and go on", "--resume"),
]))]
pub(crate) struct Args {
    /// Part of the weights of every constrained layer that becomes zero
    #[arg(long, default_value_t = 0.9, value_parser = sparsity, allow_negative_numbers = true)]
    sparsity: f64,

    /// Draw N images to train on
    #[arg(long, value_name = "N", value_parser = positive)]
    limit: Option<usize>,

    #[command(flatten)]
    training: LoopArgs,

    #[command(flatten)]
    common: CommonArgs,
}

/// What the loop keeps beside its weights.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct History {
    /// Mean loss of each epoch.
    losses: Vec<f64>,
    iterations: Vec<IterationRecord>,
    accuracy_dense: Option<f64>,
    accuracy_projected: Option<f64>,
}

/// A run: what does not change, and how far it is.
struct Run<'a> {
    data: &'a ImageDataset,
    device: Device,
    seed: u64,
    lr: f64,
    snapshots: Snapshots,
    done: usize,
    history: History,
}

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}

/// The whole run; what it printed is in the report.
///
/// # Errors
/// See [`TrainingError`]; [`TrainingError::Stopped`] where `--stop-after` says so.
pub(crate) fn run(args: &Args) -> Result<Report, TrainingError> {
    let selected = args.common.select_device()?;
    selected.warn();
    let device = selected.device.clone().autodiff();
    let (images, n) = match args.common.preset {
        Preset::Quick => (3_000, 5),
        Preset::Full => (10_000, 15),
    };
    let n = args.training.epochs.unwrap_or(n);
    let (seed, lr) = (args.common.seed, args.training.lr);
    let config = AdmmConfig::new().with_rho(args.training.rho.unwrap_or(0.05));
    let options = LoadOptions {
        limit: Some(args.limit.unwrap_or(images)),
        test_limit: Some(500),
        seed,
        ..LoadOptions::default()
    };
    let output = args.common.open_output("custom_loop", SETTINGS)?;
    let data = load(Source::Shapes, &options)?;
    let settings = json!({
        "train_images": data.train.len(), "test_images": data.test.len(), "epochs": n,
        "sparsity": args.sparsity, "admm": config, "lr": lr, "seed": seed,
        "device": selected.to_string(),
    });
    settle(&output, &settings, args.common.resume)?;
    println!("{}\non {selected}, seed {seed}", data.summary());

    // 0. Fresh, or as the last epoch left it; masked weights load into a model with masks.
    device.seed(seed);
    let mut model = Net::new(&device);
    let mut optimizer = AdamConfig::new().init();
    let plan = Plan::new(Sparsity::row_balanced(args.sparsity)?);
    let (resolved, explanation) = (plan.resolve(&model)?, plan.explain(&model)?);
    let snapshots = Snapshots::open(output.path(), 3 * n)?;
    let mut run = Run {
        data: &data,
        device,
        seed,
        lr,
        snapshots: snapshots.with_stop_after(args.training.stop_after),
        done: 0,
        history: History::default(),
    };
    let saved = run.snapshots.start::<History>(args.common.resume)?;
    if let Some(saved) = &saved {
        if saved.epochs_done > 2 * n {
            model = Masks::keep_all(&resolved).attach(model)?;
        }
        model = saved.model(model)?;
        optimizer = saved.optimizer(optimizer)?;
        (run.done, run.history) = (saved.epochs_done, saved.progress.clone());
        println!("continued after epoch {} of {}", run.done, 3 * n);
    }

    // 1. Train as always.
    while run.done < n {
        model = run.epoch(model, &mut optimizer, None)?;
        run.save(&model, &optimizer, None)?;
    }
    let dense = run.history.accuracy_dense;
    let dense = dense.unwrap_or_else(|| accuracy(&model.valid(), &data));
    run.history.accuracy_dense = Some(dense);
    println!("dense: {:.1} %", 100.0 * dense);

    // 2. Which weights may stay: --sparsity spares the first convolution and the head.
    println!("{explanation}");

    // 3. Train towards it: a gradient added at every step, an update after every epoch.
    if run.done <= 2 * n {
        let mut admm = Admm::new(&model, &plan, config)?;
        if let Some(saved) = saved.filter(|_| run.done > n) {
            saved.restore(&mut admm)?;
        }
        while run.done < 2 * n {
            model = run.epoch(model, &mut optimizer, Some(&admm))?;
            let info = admm.update(&model)?;
            println!("{info}");
            run.history.iterations.push(IterationRecord::from(&info));
            run.save(&model, &optimizer, Some(&admm))?;
        }

        // 4. Project under the plan of this run, and retrain what is left with a fresh optimiser.
        model = Masks::project(&model, admm.plan())?.attach(model)?;
        optimizer = AdamConfig::new().init();
        run.history.accuracy_projected = Some(accuracy(&model.valid(), &data));
    }
    let projected = run.history.accuracy_projected.unwrap_or_default();
    println!("projected: {:.1} %", 100.0 * projected);
    while run.done < 3 * n {
        model = run.epoch(model, &mut optimizer, None)?;
        run.save(&model, &optimizer, None)?;
    }

    // 5. Write the zeros into the weights, pack those, and look at what that changed.
    let device = selected.device.clone();
    let masked = model.valid();
    let pruned = fold(masked.clone());
    let zeros = SparsityReport::new(&pruned)?;
    device.seed(seed);
    let mut inputs = random_inputs([32, 3, 32, 32], 2, &device);
    let trace = Trace::of(|| drop(pruned.forward(inputs[0].clone().narrow(0, 0, 1))));
    let (packed, packing) = pack(pruned.clone(), &PackConfig::default().with_trace(trace))?;
    let (dense_file, packed_file) = (output.file(DENSE_FILE), output.file(PACKED_FILE));
    weights::save(&pruned, &dense_file)?;
    store::save(&packed, &packed_file)?;
    let packed = store::load(Net::new(&device), &packed_file)?;
    let test = Loader::eval(&data, &data.test, 100);
    inputs.extend(test.epoch(0, &device).map(|batch| batch.images));
    let difference = verify(|x| masked.forward(x), |x| packed.forward(x), &inputs);

    let (a, b) = (|x| pruned.forward(x), |x| packed.forward(x));
    let times = latency(&device, [1, 3, 32, 32], a, b)?;
    let extra = json!({"settings": settings, "history": run.history, "plan": explanation});
    let report = Report {
        sparsity: zeros.sparsity,
        nnz: zeros.nnz,
        weights: zeros.weights,
        accuracy_dense: dense,
        accuracy_projected: projected,
        accuracy_pruned: accuracy(&packed, &data),
        bytes_dense: file_size(&dense_file)?,
        bytes_packed_file: file_size(&packed_file)?,
        max_abs_diff: difference.max_abs,
        latency_ms: times,
        layers: packing.layers.iter().map(LayerReport::from).collect(),
        extra: extra.as_object().cloned().unwrap_or_default(),
        ..Report::of("custom_loop", "admm", &data, &selected.to_string(), seed)
    };
    let path = output.file("report.json");
    report.save(&path)?;
    println!("{}\nreport: {}", report.table(), path.display());
    Ok(report)
}

impl Run<'_> {
    /// Trains one epoch.
    fn epoch(
        &mut self,
        mut model: Net,
        optimizer: &mut ModuleOptimizer,
        admm: Option<&Admm>,
    ) -> Result<Net, TrainingError> {
        let loader = Loader::train(self.data, 32, self.seed);
        let label = format!("epoch {}/{}", self.done + 1, self.snapshots.epochs());
        let progress = Progress::new(&label, loader.batches() as u64);
        let cross_entropy = CrossEntropyLossConfig::new().init(&self.device);
        let mut sum = 0.0;
        for batch in loader.epoch(self.done, &self.device) {
            let loss = cross_entropy.forward(model.forward(batch.images), batch.labels);
            let value = f64::from(loss.clone().into_scalar::<f32>());
            let mut gradients = GradientsParams::from_grads(loss.backward(), &model);
            if let Some(admm) = admm {
                admm.check_loss(value)?;
                gradients = admm.add_gradient(&model, gradients);
            } else if !value.is_finite() {
                return Err(TrainingError::Diverged {
                    stage: "custom_loop".into(),
                    epoch: self.done + 1,
                    loss: value,
                    lr: self.lr,
                });
            }
            model = optimizer.step(self.lr, model, gradients);
            sum += value;
            progress.message(format!("loss {value:.3}"));
            progress.inc(1);
        }
        progress.finish();
        let loss = sum / loader.batches() as f64;
        println!("{label}: loss {loss:.3}");
        self.done += 1;
        self.history.losses.push(short(loss));
        Ok(model)
    }

    fn save(
        &self,
        model: &Net,
        optimizer: &ModuleOptimizer,
        admm: Option<&Admm>,
    ) -> Result<(), TrainingError> {
        self.snapshots
            .save(self.done, &self.history, model, optimizer, admm)
    }
}

/// Part of the test images, by a model without gradients.
fn accuracy(model: &Net, data: &ImageDataset) -> f64 {
    let device = model.devices()[0].clone();
    let mut right = 0;
    for batch in Loader::eval(data, &data.test, 100).epoch(0, &device) {
        let best = model.forward(batch.images).argmax(1).flatten::<1>(0, 1);
        let hits = best.equal(batch.labels).int().sum();
        right += hits.into_scalar::<i64>();
    }
    right as f64 / data.test.len() as f64
}
