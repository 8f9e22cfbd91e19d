//! ADMM pruning in a training loop of your own, on a module that knows nothing of it.
//!
//! ```text
//! cargo run --release --example custom_loop
//! ```

use std::error::Error;

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor, activation::relu};
use burn_admm::{Admm, AdmmConfig, Masks, Plan, SparsityReport, fold};
use burn_sparse::Sparsity;
use clap::Parser;
use examples::cli::Preset;
use examples::data::{ImageDataset, LoadOptions, Loader, Source, load};
use examples::device::{DeviceChoice, select};

/// Your own network, on Burn's own layers.
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

#[derive(Parser)]
#[command(about = "ADMM pruning in a training loop of your own")]
struct Args {
    /// How much work to do
    #[arg(long, value_enum, default_value_t)]
    preset: Preset,
    /// Where to compute
    #[arg(long, env = "BURN_DEVICE", default_value_t)]
    device: DeviceChoice,
    /// Seed of weights and images
    #[arg(long, default_value_t = 42)]
    seed: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let selected = select(args.device)?;
    selected.warn();
    let device = selected.device.autodiff();
    device.seed(args.seed);
    let (images, epochs) = match args.preset {
        Preset::Quick => (3_000, 5),
        Preset::Full => (10_000, 15),
    };
    let options = LoadOptions {
        limit: Some(images),
        test_limit: Some(500),
        ..LoadOptions::default()
    };
    let data = load(Source::Shapes, &options)?;

    // 1. Train as always.
    let mut model = Net::new(&device);
    let mut optimizer = AdamConfig::new().init();
    for epoch in 0..epochs {
        model = train(model, &mut optimizer, &data, epoch, None, &device)?;
    }
    println!("dense: {:.1} %", accuracy(&model, &data, &device));

    // 2. Which weights may stay: a tenth, but all of the first convolution and of the head.
    let plan = Plan::new(Sparsity::row_balanced(0.9)?);
    println!("{}", plan.explain(&model)?);

    // 3. Train towards it: a gradient added at every step, an update after every epoch.
    let mut admm = Admm::new(&model, &plan, AdmmConfig::new().with_rho(0.05))?;
    for epoch in epochs..2 * epochs {
        model = train(model, &mut optimizer, &data, epoch, Some(&admm), &device)?;
        println!("{}", admm.update(&model)?);
    }

    // 4. Project, and retrain what is left with a fresh optimiser.
    model = Masks::project(&model, admm.plan())?.attach(model)?;
    println!("projected: {:.1} %", accuracy(&model, &data, &device));
    let mut optimizer = AdamConfig::new().init();
    for epoch in 2 * epochs..3 * epochs {
        model = train(model, &mut optimizer, &data, epoch, None, &device)?;
    }
    println!("retrained: {:.1} %", accuracy(&model, &data, &device));

    // 5. Write the zeros into the weights.
    println!("{}", SparsityReport::new(&fold(model.valid()))?);
    Ok(())
}

fn train(
    mut model: Net,
    optimizer: &mut ModuleOptimizer,
    data: &ImageDataset,
    epoch: usize,
    admm: Option<&Admm>,
    device: &Device,
) -> Result<Net, Box<dyn Error>> {
    let cross_entropy = CrossEntropyLossConfig::new().init(device);
    for batch in Loader::train(data, 32, 1).epoch(epoch, device) {
        let loss = cross_entropy.forward(model.forward(batch.images), batch.labels);
        let mut gradients = GradientsParams::from_grads(loss.backward(), &model);
        if let Some(admm) = admm {
            admm.check_loss(loss.into_scalar::<f32>().into())?;
            gradients = admm.add_gradient(&model, gradients);
        }
        model = optimizer.step(1e-3, model, gradients);
    }
    Ok(model)
}

/// Percent of the test images.
fn accuracy(model: &Net, data: &ImageDataset, device: &Device) -> f64 {
    let (model, device) = (model.valid(), device.clone().inner());
    let mut right = 0;
    for batch in Loader::eval(data, &data.test, 100).epoch(0, &device) {
        let best = model.forward(batch.images).argmax(1).flatten::<1>(0, 1);
        let hits = best.equal(batch.labels).int().sum();
        right += hits.into_scalar::<i64>();
    }
    100.0 * right as f64 / data.test.len() as f64
}
