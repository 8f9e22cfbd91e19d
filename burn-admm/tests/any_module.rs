//! ADMM on modules of `burn-nn` that this crate has never seen, unmodified.

use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::module::Module;
use burn::nn::gru::{Gru, GruConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::transformer::{
    PositionWiseFeedForward, TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput,
};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Int, Tensor};
use burn_admm::{Admm, AdmmConfig, Masks, Plan, RhoSchedule, SparsityReport, fold};
use burn_sparse::Sparsity;
use burn_sparse::pack::{self, Choice, PackConfig};

/// The same random numbers in every run: tests take turns, for the device's generator is one for
/// all threads.
fn seeded(device: &Device) -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    device.seed(1);
    turn
}

/// Dense → ADMM → masks → retraining → folding, with any model and any loss.
fn prune<M: Module>(mut model: M, plan: &Plan, loss: impl Fn(&M) -> Tensor<1>) -> M {
    let config = AdmmConfig::new()
        .with_rho(0.1)
        .with_schedule(RhoSchedule::Multiplicative {
            factor: 1.5,
            max: 10.0,
        });
    let mut admm = Admm::new(&model, plan, config).unwrap();
    let mut optim = AdamConfig::new().init();
    let mut residuals = Vec::new();
    for _ in 0..6 {
        for _ in 0..8 {
            let total = loss(&model) + admm.penalty(&model);
            admm.check_loss(total.clone().into_scalar::<f32>().into())
                .unwrap();
            let grads = GradientsParams::from_grads(total.backward(), &model);
            model = optim.step(1e-2, model, grads);
        }
        residuals.push(admm.update(&model).unwrap().primal_residual);
    }
    assert!(
        residuals[5] < residuals[0],
        "ADMM does not approach the constraint: {residuals:?}"
    );

    let masks = Masks::project(&model, admm.plan()).unwrap();
    assert_eq!(masks.nnz(), admm.plan().nnz());
    let mut model = masks.attach(model).unwrap();
    let mut optim = AdamConfig::new().init();
    for _ in 0..5 {
        let grads = GradientsParams::from_grads(loss(&model).backward(), &model);
        model = optim.step(1e-2, model, grads);
    }
    assert_eq!(Masks::attached(&model), masks);
    let model = fold(model);
    let report = SparsityReport::new(&model).unwrap();
    for (layer, mask) in admm.plan().layers().iter().zip(masks.layers()) {
        let counted = report.layer(&layer.path).unwrap();
        assert!(
            counted.nnz <= mask.nnz(),
            "{}: a pruned weight is not zero",
            layer.path
        );
        assert_eq!(counted.weights, layer.weights());
    }
    model
}

#[test]
fn a_transformer_encoder() {
    let device = Device::flex().autodiff();
    let _turn = seeded(&device);
    let model: TransformerEncoder = TransformerEncoderConfig::new(16, 32, 2, 2).init(&device);
    let plan = Plan::new(Sparsity::row_balanced(0.75).unwrap());
    let resolved = plan.resolve(&model).unwrap();
    // Query, key, value and output of two layers, both feed-forward matrices but the very last.
    assert_eq!(resolved.layers().len(), 2 * 6 - 1);
    assert!(
        resolved
            .layer("layers.0.pwff.linear_inner.weight")
            .is_some()
    );
    let x = Tensor::<3>::random([4, 5, 16], Distribution::Normal(0.0, 1.0), &device);
    let y = Tensor::<3>::random([4, 5, 16], Distribution::Normal(0.0, 1.0), &device);
    let model = prune(model, &plan, |model| {
        let d = model.forward(TransformerEncoderInput::new(x.clone())) - y.clone();
        d.clone().mul(d).mean()
    });
    let layer = &model.layers[1];
    let query = layer.mha.query.weight.val();
    let zeros: i64 = query.equal_elem(0.0).int().sum().into_scalar();
    assert_eq!(zeros, 16 * 12, "every output channel keeps 4 of 16");
    let pwff: &PositionWiseFeedForward = &layer.pwff;
    let dense = pwff.linear_outer.weight.val();
    assert_eq!(dense.equal_elem(0.0).int().sum().into_scalar::<i64>(), 0);
}

#[derive(Module, Debug)]
struct Tagger {
    embedding: Embedding,
    gru: Gru,
    head: Linear,
}

impl Tagger {
    fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        self.head
            .forward(self.gru.forward(self.embedding.forward(tokens), None))
    }
}

#[test]
fn a_gru_with_an_embedding() {
    let device = Device::flex().autodiff();
    let _turn = seeded(&device);
    let model = Tagger {
        embedding: EmbeddingConfig::new(12, 8).init(&device),
        gru: GruConfig::new(8, 10, true).init(&device),
        head: LinearConfig::new(10, 4).init(&device),
    };
    let plan = Plan::new(Sparsity::unstructured(0.8).unwrap());
    let explanation = plan.explain(&model).unwrap();
    assert!(
        explanation
            .parameter("embedding.weight")
            .unwrap()
            .sparsity
            .is_none()
    );
    assert!(
        explanation
            .parameter("head.weight")
            .unwrap()
            .sparsity
            .is_none()
    );
    assert_eq!(
        plan.resolve(&model).unwrap().layers().len(),
        6,
        "{explanation}"
    );
    let tokens = Tensor::<2, Int>::from_data([[1, 5, 3, 7], [0, 11, 2, 2]], &device);
    let tags = Tensor::<1, Int>::from_data([0, 1, 2, 3, 3, 2, 1, 0], &device);
    let cross_entropy = CrossEntropyLossConfig::new().init(&device);
    prune(model, &plan, |model| {
        let logits = model.forward(tokens.clone()).reshape([8, 4]);
        cross_entropy.forward(logits, tags.clone())
    });
}

#[derive(Module, Debug)]
struct Counter {
    gru: burn_sparse::nn::Gru,
    head: burn_sparse::nn::Linear,
}

impl Counter {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.head.forward(self.gru.forward(x, None))
    }
}

#[test]
fn gates_in_one_matrix_that_are_packed_afterwards() {
    let device = Device::flex().autodiff();
    let _turn = seeded(&device);
    let model = Counter {
        gru: burn_sparse::nn::GruConfig::new(8, 10, true).init(&device),
        head: burn_sparse::nn::LinearConfig::new(10, 4).init(&device),
    };
    let plan = Plan::new(Sparsity::row_balanced(0.8).unwrap());
    let resolved = plan.resolve(&model).unwrap();
    let layers: Vec<_> = resolved
        .layers()
        .iter()
        .map(|layer| (layer.path.as_str(), layer.view.shape()))
        .collect();
    // An output channel is an output of one gate; the head is kept dense.
    assert_eq!(layers.len(), 2);
    assert_eq!(layers[0].0, "gru.input.weight");
    assert_eq!((layers[0].1.rows, layers[0].1.row_len()), (30, 8));
    assert_eq!(layers[1].0, "gru.state.weight");
    assert_eq!((layers[1].1.rows, layers[1].1.row_len()), (30, 10));
    let x = Tensor::<3>::random([3, 6, 8], Distribution::Normal(0.0, 1.0), &device);
    let y = Tensor::<3>::random([3, 6, 4], Distribution::Normal(0.0, 1.0), &device);
    let model = prune(model, &plan, |model| {
        let d = model.forward(x.clone()) - y.clone();
        d.clone().mul(d).mean()
    });
    let expected = model.forward(x.clone());
    let config = PackConfig::default()
        .with_choice(Choice::Csr)
        .with_plan_cache(None);
    let (packed, report) = pack::pack(model, &config).unwrap();
    assert_eq!(report.layers[1].nnz, 30 * 2);
    let difference = (packed.forward(x) - expected).abs().max();
    assert!(difference.into_scalar::<f32>() < 1e-5);
}
