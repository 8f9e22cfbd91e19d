//! Stopped anywhere and resumed, a run is the same bit for bit.

use std::path::Path;

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::{Device, Tensor, TensorData, activation::relu};
use burn_admm::{Admm, AdmmConfig, Plan, RhoSchedule};
use burn_sparse::Sparsity;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

#[derive(Module, Debug)]
struct Net {
    conv1: Conv2d,
    conv2: Conv2d,
    fc1: Linear,
    fc2: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        Self {
            conv1: Conv2dConfig::new([1, 4], [3, 3]).init(device),
            conv2: Conv2dConfig::new([4, 6], [3, 3]).init(device),
            fc1: LinearConfig::new(6 * 4 * 4, 12).init(device),
            fc2: LinearConfig::new(12, 3).init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = relu(self.conv2.forward(relu(self.conv1.forward(x))));
        self.fc2.forward(relu(self.fc1.forward(x.flatten(1, 3))))
    }
}

struct Run {
    model: Net,
    optim: ModuleOptimizer,
    admm: Admm,
}

const STEPS: usize = 5;

impl Run {
    /// Outer iterations `from..to`; the batches depend on the step only.
    fn train(mut self, iterations: core::ops::Range<usize>, device: &Device) -> Self {
        for step in iterations.start * STEPS..iterations.end * STEPS {
            let mut rng = ChaCha8Rng::seed_from_u64(step as u64);
            let mut random = |shape: &[usize]| {
                let len = shape.iter().product();
                let data = (0..len)
                    .map(|_| rng.random_range(-1.0f32..1.0))
                    .collect::<Vec<_>>();
                TensorData::new(data, shape)
            };
            let x = Tensor::<4>::from_data(random(&[8, 1, 8, 8]), device);
            let y = Tensor::<2>::from_data(random(&[8, 3]), device);
            let d = self.model.forward(x) - y;
            let loss = d.clone().mul(d).mean() + self.admm.penalty(&self.model);
            let grads = GradientsParams::from_grads(loss.backward(), &self.model);
            self.model = self.optim.step(0.02, self.model, grads);
            self.admm.step(&self.model, STEPS).unwrap();
        }
        self
    }

    fn save(&self, folder: &Path) {
        self.model
            .clone()
            .save_file(folder.join("model.bpk"))
            .unwrap();
        self.optim.save(folder.join("optim.bpk")).unwrap();
        self.admm.save(folder.join("admm.safetensors")).unwrap();
    }
}

fn bits(model: &Net) -> Vec<Vec<u32>> {
    let bits = |t: TensorData| t.iter::<f32>().map(f32::to_bits).collect();
    vec![
        bits(model.conv1.weight.val().into_data()),
        bits(model.conv2.weight.val().into_data()),
        bits(model.fc1.weight.val().into_data()),
        bits(model.fc1.bias.as_ref().unwrap().val().into_data()),
        bits(model.fc2.weight.val().into_data()),
    ]
}

#[test]
fn three_and_three_iterations_equal_six() {
    let device = Device::flex().autodiff();
    // The second one finds its kernel patterns in the weights that it starts from.
    let plans = [
        Plan::new(Sparsity::row_balanced(0.7).unwrap()),
        Plan::kernel_patterns(0.7, 3).unwrap(),
    ];
    let schedules = [RhoSchedule::default(), RhoSchedule::residual_balanced()];
    let optimisers: [fn() -> ModuleOptimizer; 2] = [
        || AdamConfig::new().init(),
        || {
            SgdConfig::new()
                .with_momentum(Some(MomentumConfig::new()))
                .init()
        },
    ];
    for ((plan, schedule), optim) in plans.iter().zip(schedules).zip(optimisers) {
        let config = AdmmConfig::new().with_rho(0.01).with_schedule(schedule);
        let model = Net::new(&device);
        let admm = Admm::new(&model, plan, config).unwrap();
        let half = Run {
            model,
            optim: optim(),
            admm,
        }
        .train(0..3, &device);
        let folder = tempfile::tempdir().unwrap();
        half.save(folder.path());
        let through = half.train(3..6, &device);

        // As another process would.
        let model = Net::new(&device)
            .try_load_file(folder.path().join("model.bpk"))
            .unwrap();
        let optim = optim().load(folder.path().join("optim.bpk")).unwrap();
        let state = folder.path().join("admm.safetensors");
        let admm = Admm::resume(&model, plan, config, state).unwrap();
        let resumed = Run { model, optim, admm }.train(3..6, &device);

        assert_eq!(bits(&resumed.model), bits(&through.model));
        assert_eq!(resumed.admm.rho().to_bits(), through.admm.rho().to_bits());
        assert_eq!(resumed.admm.plan(), through.admm.plan());
        for layer in through.admm.plan().layers() {
            let sets = |admm: &'_ Admm| -> Vec<_> {
                let sets = admm.sets(&layer.path).unwrap();
                sets.map(|set| (set.sparsity, set.z.to_vec(), set.u.to_vec()))
                    .collect()
            };
            assert_eq!(sets(&resumed.admm), sets(&through.admm));
        }
    }
}
