//! A small network on images that are drawn, and its training loop.

use burn::module::{Module, ModuleMapper, Param};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{BatchNorm, BatchNormConfig};
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Int, Tensor, TensorData, activation::relu};
use burn_sparse::nn::{Conv2d, Conv2dConfig, Linear, LinearConfig};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::params::read;
use crate::recipe::{Epoch, LoopError, StageReport, TrainingLoop};
use crate::shrink::ChannelGraph;
use crate::testing::gaussian;

const IMAGES: usize = 48;
const BATCH: usize = 16;

#[derive(Module, Debug)]
pub(super) struct Net {
    pub(super) conv1: Conv2d,
    pub(super) norm: BatchNorm,
    pub(super) conv2: Conv2d,
    pub(super) hidden: Linear,
    pub(super) head: Linear,
}

/// First weights that do not disturb the generator of the device.
struct Drawn(ChaCha8Rng, Vec<String>);

impl ModuleMapper for Drawn {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.1.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.1.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        // All but what belongs to the norm.
        if !matches!(self.1.last().map(String::as_str), Some("weight" | "bias")) {
            return param;
        }
        param.map(|old| {
            let dims = old.dims();
            let scale = (dims.iter().product::<usize>() as f32 / dims[0] as f32).sqrt();
            let values: Vec<f32> = (0..dims.iter().product())
                .map(|_| 0.7 * gaussian(&mut self.0) / scale)
                .collect();
            let drawn = Tensor::from_data(TensorData::new(values, dims), &old.device());
            drawn.set_require_grad(old.is_require_grad())
        })
    }
}

impl Net {
    pub(super) fn new(seed: u64) -> Self {
        let device = &Device::flex().autodiff();
        let net = Self {
            conv1: Conv2dConfig::new([1, 6], [3, 3]).init(device),
            norm: BatchNormConfig::new(6).init(device),
            conv2: Conv2dConfig::new([6, 8], [3, 3]).init(device),
            hidden: LinearConfig::new(32, 12).init(device),
            head: LinearConfig::new(12, 3).init(device),
        };
        net.map(&mut Drawn(ChaCha8Rng::seed_from_u64(seed), Vec::new()))
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = relu(self.norm.forward(self.conv1.forward(x)));
        let x = relu(self.conv2.forward(x)).flatten(1, 3);
        self.head.forward(relu(self.hidden.forward(x)))
    }
}

/// Every parameter and running statistic, as bits.
pub(super) fn bits<M: Module>(model: &M) -> Vec<(String, Vec<u32>)> {
    let weights = read(&model.valid(), |_| true).unwrap();
    weights
        .into_iter()
        .map(|weight| {
            (
                weight.path,
                weight.data.iter().map(|w| w.to_bits()).collect(),
            )
        })
        .collect()
}

/// Three classes by the brightest third of an image. Runs out of fuel after so many calls, if it has a tank.
pub(super) struct Training {
    images: Vec<f32>,
    labels: Vec<i64>,
    pub(super) fuel: Option<usize>,
    pub(super) calls: usize,
    /// Name of the stage, number, and place since the optimiser was fresh.
    pub(super) epochs: Vec<(&'static str, usize, (usize, usize))>,
    pub(super) ended: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("out of fuel")]
pub(super) struct Empty;

impl Training {
    pub(super) fn new(fuel: Option<usize>) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let labels: Vec<i64> = (0..IMAGES).map(|_| rng.random_range(0..3)).collect();
        let images = labels.iter().flat_map(|&label| {
            (0..36)
                .map(|at| gaussian(&mut rng) + if at / 12 == label { 1.5 } else { 0.0 })
                .collect::<Vec<f32>>()
        });
        Self {
            images: images.collect(),
            labels,
            fuel,
            calls: 0,
            epochs: Vec::new(),
            ended: Vec::new(),
        }
    }

    fn burn(&mut self) -> Result<(), LoopError> {
        self.calls += 1;
        match &mut self.fuel {
            Some(0) => Err(Empty.into()),
            Some(fuel) => {
                *fuel -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn batch(&self, indices: &[usize], device: &Device) -> (Tensor<4>, Tensor<1, Int>) {
        let images = indices
            .iter()
            .flat_map(|&i| &self.images[36 * i..36 * (i + 1)]);
        let images = TensorData::new(
            images.copied().collect::<Vec<f32>>(),
            [indices.len(), 1, 6, 6],
        );
        let labels: Vec<i64> = indices.iter().map(|&i| self.labels[i]).collect();
        let labels = TensorData::new(labels, [indices.len()]);
        (
            Tensor::from_data(images, device),
            Tensor::from_data(labels, device),
        )
    }

    fn all(&self) -> (Tensor<4>, Tensor<1, Int>) {
        self.batch(&(0..IMAGES).collect::<Vec<_>>(), &Device::flex())
    }
}

impl TrainingLoop for Training {
    type Model = Net;

    fn optimizer(&self) -> ModuleOptimizer {
        AdamConfig::new().init()
    }

    fn epoch(
        &mut self,
        mut model: Net,
        optimizer: &mut ModuleOptimizer,
        epoch: &Epoch<'_>,
    ) -> Result<Net, LoopError> {
        self.burn()?;
        self.epochs
            .push((epoch.stage().1, epoch.number(), epoch.of()));
        let device = Device::flex().autodiff();
        let cross_entropy = CrossEntropyLossConfig::new().init(&device);
        let mut order: Vec<usize> = (0..IMAGES).collect();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(epoch.number() as u64));
        for indices in order.chunks(BATCH) {
            let (images, labels) = self.batch(indices, &device);
            let loss = cross_entropy.forward(model.forward(images), labels);
            epoch.check_loss(f64::from(loss.clone().into_scalar::<f32>()))?;
            let gradients = match epoch.number() % 2 {
                0 => GradientsParams::from_grads(epoch.loss(loss, &model).backward(), &model),
                _ => {
                    let gradients = GradientsParams::from_grads(loss.backward(), &model);
                    epoch.gradients(gradients, &model)
                }
            };
            model = optimizer.step(epoch.lr(1e-2), model, gradients);
        }
        Ok(model)
    }

    fn accuracy(&mut self, model: &Net) -> Result<f64, LoopError> {
        self.burn()?;
        let (images, labels) = self.all();
        let best = model.forward(images).argmax(1).flatten::<1>(0, 1);
        let hits = best.equal(labels).int().sum().into_scalar::<i64>();
        Ok(hits as f64 / IMAGES as f64)
    }

    fn loss(&mut self, model: &Net) -> Result<f64, LoopError> {
        let (images, labels) = self.all();
        let cross_entropy = CrossEntropyLossConfig::new().init(&Device::flex());
        let loss = cross_entropy.forward(model.forward(images), labels);
        Ok(f64::from(loss.into_scalar::<f32>()))
    }

    fn forward(&self, model: &Net) -> TensorData {
        model.forward(self.all().0.narrow(0, 0, 2)).into_data()
    }

    fn channel_graph(&self, model: &Net) -> Result<Option<ChannelGraph>, LoopError> {
        let graph = ChannelGraph::of([1, 6, 6], |x| {
            let x = x
                .conv("conv1", &model.conv1)
                .norm("norm", &model.norm)
                .relu();
            let x = x.conv("conv2", &model.conv2).relu().flatten();
            let x = x.linear("hidden", &model.hidden).relu();
            x.linear("head", &model.head)
        });
        Ok(Some(graph?))
    }

    fn ended(&mut self, report: &StageReport) {
        self.ended.push(report.name.clone());
    }
}
