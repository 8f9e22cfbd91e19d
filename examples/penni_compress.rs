//! Lets the channels of each layer share a few kernels: decomposes, trains coefficients and kernels in
//! turns, prunes, fine-tunes, cuts channels out, packs.
//!
//! ```text
//! cargo run --release --example penni_compress
//! cargo run --release --example penni_compress -- --arch vgg16bn --width 0.25 --kernels 3 --lambda 1e-3
//! cargo run --release --example penni_compress -- --preset full
//! ```

use std::process::ExitCode;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_admm::penni::{Penni, PenniPlan};
use burn_admm::{SparsityReport, fold};
use burn_sparse::nn::Trace;
use clap::Parser;
use examples::cli::{ArchParser, CommonArgs, DataArgs, after_help, positive};
use examples::data::{Source, load};
use examples::report::Report;
use examples::training::{
    Context, Dense, PenniArgs, PenniRecipe, SETTINGS, Shared, StartArgs, TrainingError,
    check_images, deploy_shared, exit_code, network, recipe_of, resnet_limits, settle, share,
    train_dense, train_on,
};
use models::{Arch, Classifier, Model};
use serde_json::{Map, Value, json, to_value};

/// Share kernels between the channels of a network, with sparse coefficients (PENNI)
///
/// The kernels of each layer become combinations of a few, which the layer shares. Coefficients and kernels
/// train in turns under a penalty on the coefficients, small coefficients are pruned, the rest is fine-tuned,
/// and channels that carry nothing are cut out. The dense network, which trains on for as many epochs, is
/// what accuracy and time are compared with.
#[derive(Parser, Debug)]
#[command(version, after_help = after_help("penni_compress", &[
    ("a small network, minutes", ""),
    ("three kernels, more zeros", "--arch vgg16bn --width 0.25 --kernels 3 --lambda 1e-3"),
    ("your own trained weights", "--arch resnet50 --weights mine.pth --data my_images --dataset folder"),
    ("the published numbers of epochs", "--preset full"),
]))]
pub(crate) struct Args {
    /// The network, one with convolutions
    #[arg(long, value_parser = ArchParser, default_value_t = Arch::ResNet20)]
    arch: Arch,

    /// What the widths of all layers are multiplied by
    #[arg(long, value_name = "FACTOR", value_parser = above_zero)]
    width: Option<f64>,

    /// Basis kernels of each layer
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = positive)]
    kernels: usize,

    /// Penalise and prune the weights of 1x1 convolutions too
    #[arg(long)]
    pointwise: bool,

    #[command(flatten)]
    start: StartArgs,

    #[command(flatten)]
    penni: PenniArgs,

    #[command(flatten)]
    data: DataArgs,

    #[command(flatten)]
    common: CommonArgs,
}

fn above_zero(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 1000.0 => Ok(value),
        _ => Err("expected a number above 0 and at most 1000".into()),
    }
}

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}

/// The whole run; what it printed is in the report.
///
/// # Errors
/// See [`TrainingError`]; [`TrainingError::Stopped`] where `--stop-after` says so.
pub(crate) fn run(args: &Args) -> Result<Report, TrainingError> {
    let CommonArgs {
        preset,
        seed,
        resume,
        ..
    } = args.common;
    let selected = args.common.select_device()?;
    selected.warn();
    let output = args.common.open_output("penni_compress", SETTINGS)?;
    let (limit, test_limit) = resnet_limits(preset);
    let options = args.data.options(seed, limit, test_limit);
    let data = load(args.data.source(Source::Cifar10), &options)?;
    println!("{}", data.summary());

    let recipe = recipe_of(args.arch, preset, seed);
    let (recipe, penni) = args.penni.apply(recipe, PenniRecipe::of(preset));
    let recipe = args.start.apply(recipe, args.penni.epochs);
    let shape = data.shape;
    let size = [shape.height, shape.width];
    check_images(args.arch, size)?;
    let config = args.start.config(args.arch, args.width, &data)?;
    let plan = PenniPlan::new(args.kernels).with_pointwise(args.pointwise);
    let settings = json!({
        "model": config, "dataset": data.name, "train_images": data.train.len(),
        "plan": plan, "penni": penni, "recipe": recipe, "device": selected.to_string(),
        "weights": args.start.weights,
    });
    settle(&output, &settings, resume)?;
    println!(
        "{} on {selected}, preset {preset}, seed {seed}: {} dense epochs, then {} of coefficients and kernels in \
         turns and {} of fine-tuning; batch {}, learning rate {}",
        args.arch,
        recipe.epochs,
        penni.alternate_epochs,
        penni.tune_epochs,
        recipe.batch,
        recipe.lr,
    );

    let build = |device: &Device| network(&config, device);
    let epochs = recipe.epochs + 2 * recipe.pruning_epochs();
    let context = Context::new(&data, &recipe, &selected.device, epochs)?
        .with_resume(resume)
        .with_weights(args.start.weights.clone())
        .with_stop_after(args.penni.stop_after);
    // Which convolutions have groups: a forward pass tells. Hours of training should not end in a plan that
    // fits nothing.
    let plan = seen(plan, &build(&context.device), &context);
    Penni::new(&build(&context.device), &plan, penni.config)?;
    let start = train_dense(&context, build, &output.path().join("dense"))?;
    let dense = train_on(&context, build, &start, &output.path().join("dense-on"))?;
    println!("{}", plan.explain(&start.model)?);
    let shared = share(&context, build, &start, (&plan, &penni), output.path())?;
    let deployed = deploy_shared(&context, build, &shared, &dense, output.path())?;

    let mut report = report(
        args,
        &context,
        (&start, &dense),
        &shared,
        &selected.to_string(),
    )?;
    report.extra.insert("penni".into(), json!(penni));
    deployed.add_to(&mut report);
    let path = output.file("report.json");
    report.save(&path)?;
    println!(
        "\n{}\n\n{}\nreport: {}",
        shared.results.shrunk,
        report.table(),
        path.display()
    );
    Ok(report)
}

fn seen(plan: PenniPlan, model: &Model, context: &Context) -> PenniPlan {
    let shape = context.data.shape;
    let device = context.device.clone().inner();
    let probe = [1, shape.channels, shape.height, shape.width];
    let model = model.valid();
    let trace = Trace::of(|| drop(model.forward(Tensor::zeros(probe, &device))));
    plan.with_geometry(&model, &trace)
}

/// Weights are counted as they have to be stored: coefficients that are not zero and the basis kernels in
/// use, where kernels are shared, and weights that are not zero elsewhere, all of the network whose
/// channels have been cut out.
fn report(
    args: &Args,
    context: &Context,
    (start, dense): (&Dense<Model>, &Dense<Model>),
    shared: &Shared<Model>,
    device: &str,
) -> Result<Report, TrainingError> {
    let results = &shared.results;
    let weights = SparsityReport::new(&fold(dense.model.valid()))?.weights;
    let small = SparsityReport::new(&shared.small)?;
    let shrunk = &results.shrunk;
    let stored = small
        .layers
        .iter()
        .map(|layer| match shrunk.layer(&layer.name) {
            Some(shared) => shared.parameters,
            None => layer.nnz,
        });
    let stored: usize = stored.sum();
    let cut = shared.plan.report();
    // Of the dense network, of the smaller one as dense layers, and of that with shared kernels.
    let macs_shared: u64 = cut
        .layers
        .iter()
        .map(|layer| {
            let dense = layer.macs[1];
            match shrunk.layer(&format!("{}.weight", layer.layer)) {
                Some(shared) => dense / (shared.weights().max(1) as u64) * shared.macs as u64,
                None => dense,
            }
        })
        .sum();
    let [macs, macs_shrunk] = cut.macs();
    let recipe = context.recipe;
    let extra = [
        ("recipe", json!(recipe)),
        ("kernels", json!(args.kernels)),
        ("sharing", to_value(results).unwrap_or_default()),
        ("shrinking", to_value(cut).unwrap_or_default()),
        ("parameters", json!(cut.params()[0])),
        ("parameters_shrunk", json!(cut.params()[1])),
        ("weights_shrunk", json!(small.weights)),
        ("macs", json!(macs)),
        ("macs_shrunk", json!(macs_shrunk)),
        ("macs_shared", json!(macs_shared)),
        ("dense_history", json!(dense.history)),
        ("accuracy_dense_before", json!(start.accuracy)),
        ("seconds_shared", json!(start.seconds + shared.seconds)),
        ("test_images", json!(context.data.test.len())),
        ("notices", json!(context.data.notices)),
    ];
    let extra: Map<String, Value> = extra
        .into_iter()
        .map(|(key, value)| (key.to_string(), value))
        .collect();
    Ok(Report {
        form: "shared".into(),
        sparsity: 1.0 - stored as f64 / weights.max(1) as f64,
        nnz: stored,
        weights,
        accuracy_dense: dense.accuracy,
        accuracy_projected: results.accuracy_pruned,
        accuracy_pruned: results.accuracy_tuned,
        extra,
        ..Report::of(args.arch.name(), "penni", context.data, device, recipe.seed)
    })
}
