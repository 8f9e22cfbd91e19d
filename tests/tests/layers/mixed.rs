//! Mixed networks: every layer dense or sparse, in f32 or halves, some images at once.

use burn::module::Module;
use burn::tensor::FloatDType;
use burn_sparse::{
    SparseError,
    nn::{RunAs, Schedule, Trace, weights},
    pack::{self, Form, MixedConfig},
};
use tests::devices_with_shared_memory as devices;

use super::{Net, input, sparsify};

#[test]
fn a_mixed_network_gives_what_the_dense_one_gives() {
    for (name, device) in devices() {
        device.seed(3);
        let model = sparsify(Net::new(&device), 0.2).valid();
        let x = input(&device, 3);
        let trace = Trace::of(|| drop(model.forward(x.clone())));
        let config = MixedConfig::new(trace)
            .with_plan_cache(None)
            .with_runs(1)
            .with_sub_batches([2]);
        // Burn's kernels for halves take minutes to tune on devices that are no cards.
        let config = match name {
            "flex" => config,
            _ => config.with_dtypes([]).with_sub_batches([]),
        };
        let (fast, mixed) = pack::mix(model.clone(), &config).unwrap();
        let forward = |x| mixed.run(|| fast.forward(x));
        let difference = pack::verify(|x| model.forward(x), forward, &[x]);
        // Halves have eleven bits; five layers.
        let tolerance = if name == "flex" { 1e-2 } else { 1e-4 };
        assert!(difference.max_rel < tolerance, "{name}: {difference:?}");

        assert_eq!(mixed.layers.len(), weights(&model).len());
        for layer in &mixed.layers {
            let choice = layer.choice().expect("every layer ran");
            assert!(
                layer.times.iter().all(|time| choice.ms <= time.ms),
                "{layer:?}"
            );
            let forms = [Form::Dense, Form::Sparse].map(|form| {
                let of = layer.times.iter().filter(|time| time.form == form);
                of.count()
            });
            assert_eq!(forms[0], forms[1], "{name}: {layer:?}");
            assert!(layer.margin.is_some_and(|margin| margin >= 1.0));
        }
    }
}

/// Whatever is chosen, here by chance: a schedule and weights in any numbers give the same.
#[test]
fn any_schedule_gives_the_same() {
    let device = burn::tensor::Device::flex();
    let model = sparsify(Net::new(&device), 0.3).valid();
    let x = input(&device, 5);
    for seed in 0..12usize {
        let mut schedule = Vec::new();
        let mut chosen = Vec::new();
        for (at, named) in weights(&model).into_iter().enumerate() {
            let dice = (seed * 7 + at * 5) % 12;
            let dtype = [FloatDType::F32, FloatDType::F16, FloatDType::BF16][dice % 3];
            let sub_batch = 1 + dice / 2;
            schedule.push((named.weight.id(), RunAs { dtype, sub_batch }));
            let weight = match dice % 2 {
                0 => named.weight.pack(true).unwrap(),
                _ => named.weight,
            };
            chosen.push(weight.in_numbers(dtype));
        }
        let mixed = burn_sparse::nn::replace_weights(model.clone(), chosen);
        let schedule = Schedule::new(schedule);
        let forward = |x| schedule.run(|| mixed.forward(x));
        let difference = pack::verify(|x| model.forward(x), forward, std::slice::from_ref(&x));
        // Of bf16 eight bits.
        assert!(difference.max_rel < 6e-2, "{seed}: {difference:?}");
    }
}

#[test]
fn weights_that_are_not_finite_are_named() {
    let device = burn::tensor::Device::flex();
    let mut model = Net::new(&device).valid();
    let weight = model.head.0.weight.val();
    let broken = weight.slice_fill(burn::tensor::s![0..1, 0..1], f32::NAN);
    model.head.0.weight = burn::module::Param::from_tensor(broken).into();
    let config = MixedConfig::new(Trace::default()).with_plan_cache(None);
    let error = pack::mix(model, &config).unwrap_err();
    assert!(
        matches!(&error, SparseError::NonFinite { what, .. } if what == "head.0"),
        "{error}"
    );
}
