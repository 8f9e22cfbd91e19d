//! Pruning in stages: the second one works on what the first has left, and adds to its zeros.

use burn::nn::gru::{Gru, GruConfig};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Tensor};
use burn_admm::plan::ResolvedPlan;
use burn_admm::{Admm, AdmmConfig, Masks, Plan, RhoSchedule, SparsityReport, fold};
use burn_sparse::{BlockSearch, Budget, Sparsity};

struct Task {
    x: Tensor<3>,
    y: Tensor<3>,
}

impl Task {
    fn loss(&self, model: &Gru) -> Tensor<1> {
        let difference = model.forward(self.x.clone(), None) - self.y.clone();
        difference.square().mean()
    }

    /// Outer iterations of ADMM on a model that may have masks, projection, masked retraining.
    fn stage(&self, mut model: Gru, plan: &Plan) -> (Gru, Masks, ResolvedPlan) {
        let earlier = Masks::attached(&model);
        let config = AdmmConfig::new()
            .with_rho(0.05)
            .with_schedule(RhoSchedule::Constant);
        let mut admm = Admm::new(&model, plan, config).unwrap();
        let mut optimizer = AdamConfig::new().init();
        for iteration in 0..4 {
            for step in 0..4 {
                // With the penalty in the loss, and with its gradient added: both keep zeros.
                let grads = if (iteration + step) % 2 == 0 {
                    let loss = self.loss(&model) + admm.penalty(&model);
                    GradientsParams::from_grads(loss.backward(), &model)
                } else {
                    let grads = self.loss(&model).backward();
                    admm.add_gradient(&model, GradientsParams::from_grads(grads, &model))
                };
                model = optimizer.step(1e-2, model, grads);
                assert_zeros(&model, &earlier);
            }
            admm.update(&model).unwrap();
            for layer in earlier.layers() {
                let (z, u) = (admm.z(&layer.path).unwrap(), admm.u(&layer.path).unwrap());
                for (i, keep) in layer.keep.iter().enumerate() {
                    assert!(*keep || (z[i] == 0.0 && u[i] == 0.0), "{} {i}", layer.path);
                }
            }
        }
        let masks = Masks::project(&model, admm.plan()).unwrap();
        let mut model = masks.attach(model).unwrap();
        let mut optimizer = AdamConfig::new().init();
        for _ in 0..4 {
            let grads = GradientsParams::from_grads(self.loss(&model).backward(), &model);
            model = optimizer.step(1e-2, model, grads);
            assert_zeros(&model, &earlier);
            assert_zeros(&model, &masks);
        }
        (model, masks, admm.plan().clone())
    }
}

fn assert_zeros(model: &Gru, masks: &Masks) {
    let report = SparsityReport::new(model).unwrap();
    for layer in masks.layers() {
        assert!(report.layer(&layer.path).unwrap().nnz <= layer.nnz());
    }
    let attached = Masks::attached(model);
    for layer in masks.layers() {
        let now = attached.layer(&layer.path).expect("the masks are attached");
        let mut pairs = now.keep.iter().zip(&layer.keep);
        assert!(pairs.all(|(now, then)| *then || !*now), "{}", layer.path);
    }
}

fn blocks(block: [usize; 2], rows: f64, budget: f64) -> Plan {
    let sparsity = Sparsity::BlockColumnRow {
        block,
        rows: Budget::sparsity(rows).unwrap(),
        budget: Budget::sparsity(budget).unwrap(),
        search: BlockSearch::Sequential,
    };
    Plan::new(sparsity).with_last_linear_kept(false)
}

/// Dong et al., "RTMobile" (DAC 2020): columns inside the blocks of row bands, then rows inside
/// column bands, with the zeros of the first step masked.
#[test]
fn the_two_steps_of_rtmobile_on_a_recurrent_layer() {
    let device = Device::flex().autodiff();
    device.seed(3);
    let normal = Distribution::Normal(0.0, 1.0);
    let task = Task {
        x: Tensor::random([4, 5, 8], normal, &device),
        y: Tensor::random([4, 5, 16], normal, &device),
    };
    let model = GruConfig::new(8, 16, true).init(&device);

    // Half of the columns of each block of 8 × 8, with all of its rows.
    let (model, columns, first) = task.stage(model, &blocks([8, 8], 0.0, 0.5));
    assert_eq!(first.layers().len(), 6);
    assert_eq!(columns.nnz(), first.nnz());
    assert_eq!(2 * columns.nnz(), first.weights());

    // A quarter of the rows of each band of 4 columns, with all that is left of them.
    let (model, both, second) = task.stage(model, &blocks([16, 4], 0.75, 0.75));
    assert_eq!(4 * second.nnz(), second.weights());
    for ((before, after), spec) in (columns.layers().iter().zip(both.layers())).zip(second.layers())
    {
        assert!(after.nnz() > 0 && after.nnz() <= spec.nnz.min(before.nnz()));
        let view = spec.view;
        let (before, after) = (view.gather(&before.keep), view.gather(&after.keep));
        for left in (0..view.row_len()).step_by(4) {
            let mut kept_rows = 0;
            for row in 0..view.rows() {
                let at = row * view.row_len() + left;
                let (before, after) = (&before[at..at + 4], &after[at..at + 4]);
                // A row of a band stays as the first step left it, or goes.
                let all: Vec<bool> = before.to_vec();
                assert!(after == all || !after.contains(&true));
                kept_rows += usize::from(after.contains(&true));
            }
            assert!(kept_rows <= view.rows() / 4);
        }
    }
    let report = SparsityReport::new(&fold(model)).unwrap();
    assert!(report.nnz <= both.nnz(), "{report}");
}

#[test]
fn what_went_comes_back_only_after_folding() {
    let device = Device::flex().autodiff();
    let model = GruConfig::new(8, 16, true).init(&device);
    let half = blocks([8, 8], 0.0, 0.5).resolve(&model).unwrap();
    let model = Masks::project(&model, &half)
        .unwrap()
        .attach(model)
        .unwrap();
    let all = Plan::new(Sparsity::unstructured(0.0).unwrap()).with_last_linear_kept(false);
    let all = all.resolve(&model).unwrap();
    let masked = Masks::project(&model, &all).unwrap();
    assert_eq!(masked.nnz(), half.nnz());
    let folded = Masks::project(&fold(model), &all).unwrap();
    assert_eq!(folded.nnz(), all.weights());
}
