use burn::module::{Module, Param};
use burn::tensor::{Device, Distribution, Tensor};
use burn_sparse::{Budget, Sparsity};

use super::*;
use crate::plan::Plan;
use crate::{Masks, SparsityReport};

#[derive(Module, Debug)]
struct Lone {
    w: Param<Tensor<2>>,
    v: Param<Tensor<2>>,
}

fn model() -> Lone {
    let random = |shape| {
        let normal = Distribution::Normal(0.0, 1.0);
        Param::from_tensor(Tensor::random(shape, normal, &Device::flex().autodiff()))
    };
    Lone {
        w: random([20, 50]),
        v: random([10, 30]),
    }
}

fn plan() -> Plan {
    Plan::new(Sparsity::unstructured(0.95).unwrap())
        .with_sparsity("v", Sparsity::RowBalanced(Budget::Nnz(7)))
        .unwrap()
}

#[test]
fn one_shot_keeps_exactly_the_largest() {
    let model = model();
    let plan = plan().resolve(&model).unwrap();
    let before = model.w.val().into_data().try_to_vec::<f32>().unwrap();
    let masked = one_shot(model, &plan).unwrap();
    let report = SparsityReport::new(&masked).unwrap();
    assert_eq!(report.layer("w").unwrap().nnz, 50);
    assert_eq!(report.layer("v").unwrap().nnz, 70);
    let after = masked.w.val().into_data().try_to_vec::<f32>().unwrap();
    let kept = after
        .iter()
        .filter(|w| **w != 0.0)
        .map(|w| w.abs())
        .fold(f32::MAX, f32::min);
    for (a, b) in after.iter().zip(&before) {
        assert!(a == b || (*a == 0.0 && b.abs() <= kept));
    }
}

#[test]
fn the_schedule_is_cubic() {
    let schedule = GradualSchedule::new(0.2, 10, 110, 10).unwrap();
    for (step, expected) in [
        (0, 0.2),
        (10, 0.2),
        (60, 0.9 + (0.2 - 0.9) * 0.125),
        (109, 0.9 - 0.7 * 1e-6),
        (110, 0.9),
        (1000, 0.9),
    ] {
        assert!(
            (schedule.sparsity(step, 0.9) - expected).abs() < 1e-12,
            "{step}"
        );
    }
    assert_eq!(
        schedule.sparsity(0, 0.1),
        0.1,
        "never above the final sparsity"
    );
    let at: Vec<u64> = (0..200).filter(|step| schedule.prunes_at(*step)).collect();
    assert_eq!(at, [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110]);
    let uneven = GradualSchedule::new(0.0, 1, 12, 5).unwrap();
    assert_eq!(
        (0..20).filter(|s| uneven.prunes_at(*s)).collect::<Vec<_>>(),
        [1, 6, 11, 12]
    );
}

#[test]
fn schedules_are_validated() {
    assert!(matches!(
        GradualSchedule::new(1.0, 0, 1, 1),
        Err(ScheduleError::Initial(_))
    ));
    assert!(matches!(
        GradualSchedule::new(f64::NAN, 0, 1, 1),
        Err(ScheduleError::Initial(_))
    ));
    assert!(matches!(
        GradualSchedule::new(0.0, 2, 1, 1),
        Err(ScheduleError::Ends { .. })
    ));
    assert!(matches!(
        GradualSchedule::new(0.0, 0, 1, 0),
        Err(ScheduleError::Frequency)
    ));
    let schedule = GradualSchedule::new(0.5, 1, 9, 2).unwrap();
    let json = serde_json::to_string(&schedule).unwrap();
    assert_eq!(
        serde_json::from_str::<GradualSchedule>(&json).unwrap(),
        schedule
    );
    assert!(serde_json::from_str::<GradualSchedule>(&json.replace("2", "0")).is_err());
}

#[test]
fn structured_patterns_grow_and_nothing_comes_back() {
    let device = Device::flex().autodiff();
    device.seed(5);
    #[derive(Module, Debug)]
    struct Lone {
        conv: burn::nn::conv::Conv2d,
    }
    let model = Lone {
        conv: burn::nn::conv::Conv2dConfig::new([6, 10], [3, 3]).init(&device),
    };
    for (sparsity, nested) in [
        (Sparsity::shared_pattern(0.8, 4), true),
        (Sparsity::block_column_row(0.9, [8, 16]), false),
        (Sparsity::punched(0.8, [4, 4]), false),
        (Sparsity::kernel_pattern(0.8, 6), true),
        (Sparsity::connectivity(0.8), true),
        (Sparsity::filter(0.8), true),
        (Sparsity::channel(0.8), true),
        (Sparsity::column(0.8), true),
        (Sparsity::n_of_m(2, 4), true),
    ] {
        let plan = Plan::new(sparsity.unwrap()).with_first_convolution_kept(false);
        let plan = plan.resolve(&model).unwrap();
        let schedule = GradualSchedule::new(0.0, 1, 40, 3).unwrap();
        let mut gradual = Gradual::new(schedule, plan.clone());
        let mut model = model.clone();
        let mut kept = vec![true; 540];
        for _ in 0..45 {
            (model, _) = gradual.step(model).unwrap();
            let masks = Masks::attached(&model);
            let keep = &masks.layers()[0].keep;
            assert!(keep.iter().zip(&kept).all(|(now, before)| *before || !*now));
            kept.clone_from(keep);
        }
        let (left, allowed) = (Masks::attached(&model).nnz(), plan.nnz());
        let name = plan.layers()[0].sparsity.name();
        assert!(0 < left && left <= allowed, "{name}: {left} of {allowed}");
        assert!(!nested || left == allowed, "{name}: {left} of {allowed}");
    }
}

/// Moves every stored weight, pruned or not, as an optimiser with old momentum would.
fn disturb(model: Lone) -> Lone {
    let noise = |w: Tensor<2>| {
        let noise = Tensor::random(w.shape(), Distribution::Normal(0.0, 0.5), &w.device());
        (w + noise).detach().require_grad()
    };
    struct Disturb<F>(F);
    impl<F: FnMut(Tensor<2>) -> Tensor<2>> burn::module::ModuleMapper for Disturb<F> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|w| {
                let shape = w.shape();
                let flat = w.reshape([1, -1]);
                self.0(flat).reshape(shape).detach().require_grad()
            })
        }
    }
    model.map(&mut Disturb(noise))
}

#[test]
fn gradual_pruning_only_ever_prunes_more_and_ends_exactly() {
    let mut model = model();
    let plan = plan().resolve(&model).unwrap();
    let mut gradual = Gradual::new(GradualSchedule::new(0.3, 2, 20, 4).unwrap(), plan.clone());
    let mut previous: Option<Masks> = None;
    let mut sparsities = Vec::new();
    for step in 1..=25 {
        model = disturb(model);
        let (stepped, pruned) = gradual.step(model).unwrap();
        model = stepped;
        let masks = Masks::attached(&model);
        if let Some(sparsity) = pruned {
            assert!(gradual.schedule().prunes_at(step));
            assert_eq!(masks.nnz(), gradual.plan_at(step).unwrap().nnz());
            sparsities.push(sparsity);
        }
        if let Some(previous) = &previous {
            for (a, b) in previous.layers().iter().zip(masks.layers()) {
                assert!(
                    a.keep.iter().zip(&b.keep).all(|(a, b)| *a || !*b),
                    "step {step}"
                );
            }
        }
        previous = (!masks.layers().is_empty()).then_some(masks);
    }
    assert_eq!(sparsities.len(), 6);
    assert!(
        sparsities.windows(2).all(|pair| pair[0] < pair[1]),
        "{sparsities:?}"
    );
    let report = SparsityReport::new(&model).unwrap();
    assert_eq!(
        (
            report.layer("w").unwrap().nnz,
            report.layer("v").unwrap().nnz
        ),
        (50, 70)
    );
}

#[test]
fn gradual_pruning_resumes_bit_equal() {
    let start = model();
    let plan = plan().resolve(&start).unwrap();
    let schedule = GradualSchedule::new(0.0, 1, 9, 2).unwrap();
    let mut gradual = Gradual::new(schedule, plan.clone());
    let run = |mut model: Lone, gradual: &mut Gradual, steps: usize| {
        for _ in 0..steps {
            model = gradual.step(model).unwrap().0;
        }
        model
    };
    let half = run(start, &mut gradual, 5);
    let record = half.clone().into_record();
    let steps = gradual.steps();
    let through = run(half, &mut gradual, 5);

    let fresh = Masks::keep_all(&plan)
        .attach(model())
        .unwrap()
        .load_record(record);
    let mut gradual = Gradual::new(schedule, plan).at_step(steps);
    let resumed = run(fresh, &mut gradual, 5);
    assert_eq!(Masks::attached(&resumed), Masks::attached(&through));
    let bits = |m: &Lone| m.w.val().into_data();
    assert_eq!(bits(&resumed), bits(&through));
}
