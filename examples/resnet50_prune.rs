//! Trains a ResNet-50, prunes it, retrains it under the mask, packs it, proves that the packed
//! network gives the masked network's outputs, and measures it against the dense one.
//!
//! ```text
//! cargo run --release --example resnet50_prune
//! cargo run --release --example resnet50_prune -- --arch resnet20 --dataset cifar10 --preset full
//! cargo run --release --example resnet50_prune -- --dataset folder --data my_images --resume
//! ```

use std::error::Error;
use std::process::ExitCode;

use burn::tensor::Device;
use burn_admm::Plan;
use clap::{Parser, ValueEnum};
use examples::cli::{CommonArgs, DataArgs, Preset, sparsity};
use examples::data::{Source, load};
use examples::training::{
    Context, Method, Pattern, PruneArgs, SETTINGS, deploy, exit_code, network, prune,
    resnet_limits, resnet_recipe, resnet_stem, settle, summarise, train_dense,
};
use models::{Arch, ModelConfig, Stem};
use serde_json::json;

/// Train, prune, retrain, pack and measure a residual network
///
/// Every convolution but the first gets the same sparsity; the first convolution, the classifier,
/// norms and biases stay dense.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// The network: resnet18, 34, 50, 101 or 152, or, made for CIFAR, resnet20, 32 or 56
    #[arg(long, default_value_t = Arch::ResNet50, value_parser = residual)]
    arch: Arch,

    /// How images enter: imagenet divides their edge by four, cifar keeps it
    ///
    /// By default cifar for images of at most 64 pixels in the full preset, else imagenet, which
    /// makes an epoch many times shorter.
    #[arg(long, value_enum)]
    stem: Option<StemName>,

    /// Part of the weights of each constrained layer that becomes zero
    #[arg(long, default_value_t = 0.9, value_parser = sparsity, allow_negative_numbers = true)]
    sparsity: f64,

    /// Which weights may stay
    #[arg(long, value_enum, default_value_t = Pattern::RowBalanced)]
    pattern: Pattern,

    /// How to prune
    #[arg(long, value_enum, default_value_t)]
    method: Method,

    #[command(flatten)]
    prune: PruneArgs,

    #[command(flatten)]
    data: DataArgs,

    #[command(flatten)]
    common: CommonArgs,
}

/// The stems on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lowercase")]
enum StemName {
    /// 7x7 convolution and pooling, both of stride 2
    ImageNet,
    /// 3x3 convolution of stride 1
    Cifar,
}

impl From<StemName> for Stem {
    fn from(name: StemName) -> Self {
        match name {
            StemName::ImageNet => Self::ImageNet,
            StemName::Cifar => Self::Cifar,
        }
    }
}

fn residual(name: &str) -> Result<Arch, String> {
    match name.parse() {
        Ok(Arch::LeNet5 | Arch::LeNet300) => {
            Err("is no residual network; see the example lenet5_prune".into())
        }
        Ok(arch) if ModelConfig::new(arch).resnet().is_none() => {
            Err("is no residual network; see the example custom_loop".into())
        }
        Ok(arch) => Ok(arch),
        Err(error) => Err(error.to_string()),
    }
}

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let CommonArgs {
        preset,
        seed,
        resume,
        ..
    } = args.common;
    let selected = args.common.select_device()?;
    selected.warn();
    let output = args.common.open_output("resnet50_prune", SETTINGS)?;
    let (limit, test_limit) = resnet_limits(preset);
    let options = args.data.options(seed, limit, test_limit);
    let data = load(args.data.source(Source::Cifar10), &options)?;
    println!("{}", data.summary());

    let recipe = args.prune.apply(resnet_recipe(preset, seed));
    let shape = data.shape;
    let default_stem = || resnet_stem(args.arch, preset, [shape.height, shape.width]);
    let stem = args.stem.map_or_else(default_stem, Stem::from);
    let config = ModelConfig::new(args.arch)
        .with_classes(data.num_classes())
        .with_input([shape.channels, shape.height, shape.width])
        .with_stem(stem);
    let settings = json!({
        "model": config, "dataset": data.name, "train_images": data.train.len(),
        "method": args.method, "sparsity": args.sparsity, "pattern": args.pattern,
        "recipe": recipe, "device": selected.to_string(),
    });
    settle(&output, &settings, resume)?;

    println!(
        "{} with the {} stem on {selected}, preset {preset}, seed {seed}\n\
         {} dense epochs, then {} epochs of {} and {} of masked retraining, batch {}, \
         learning rate {}, {} {} sparsity",
        args.arch,
        if stem == Stem::Cifar {
            "cifar"
        } else {
            "imagenet"
        },
        recipe.epochs,
        recipe.compress_epochs(args.method),
        args.method,
        recipe.retrain_epochs(args.method),
        recipe.batch,
        recipe.lr,
        args.sparsity,
        args.pattern,
    );
    if preset == Preset::Quick {
        println!("quick shows that everything works; for accuracies take --preset full and a GPU");
    }
    let build = |device: &Device| network(&config, device);
    let epochs = recipe.epochs + recipe.epochs_of(args.method);
    let context = Context::new(&data, &recipe, &selected.device, epochs)?
        .with_resume(resume)
        .with_stop_after(args.prune.stop_after);
    let dense = train_dense(&context, build, &output.file("dense"))?;
    let plan = Plan::new(args.pattern.sparsity(args.sparsity)?);
    let folder = output.file(args.method.name());
    let model = dense.model.clone();
    let pruned = prune(&context, build, model, &plan, args.method, &folder)?;
    let device = selected.to_string();
    let mut report = summarise(&context, args.arch.name(), &device, &dense, &pruned)?;
    deploy(&context, build, &pruned, &folder)?.add_to(&mut report);
    let path = output.file("report.json");
    report.save(&path)?;
    println!("\n{}\nreport: {}", report.table(), path.display());
    Ok(())
}
