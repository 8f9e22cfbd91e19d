//! Every pattern on convolutions of several groups, from the plan to the packed kernel.

use burn::nn::PaddingConfig2d;
use burn::tensor::{Device, Distribution, Tensor};
use burn_admm::{Masks, Plan, SparsityReport, fold};
use burn_sparse::{
    Sparsity,
    nn::{Conv2d, Conv2dConfig, LinearConfig},
    pack,
};
use tests::devices_with_shared_memory as devices;

#[derive(burn::module::Module, Debug)]
struct Grouped {
    conv: Conv2d,
}

/// On every device. A weight of a layer with groups has the rows of all groups, and a row has the inputs of its own: patterns see
/// that matrix, bands and blocks reach over the border of two groups, and the kernel knows which inputs are meant.
#[test]
fn every_pattern_is_packed_on_layers_of_several_groups() {
    for (name, device) in devices() {
        device.seed(11);
        // Each shape is tuned where kernels are compiled for it: there one of them has to do.
        let shapes = &SHAPES[..if name == "flex" { SHAPES.len() } else { 1 }];
        for &(channels, groups) in shapes {
            for pattern in patterns() {
                every_layer_is_packed(
                    &format!("{name}, {groups} groups"),
                    pattern,
                    (channels, groups),
                    &device,
                );
            }
        }
    }
}

/// Rows of a group that bands of four do and do not divide; one channel for each group.
const SHAPES: [([usize; 2], usize); 3] = [([12, 8], 2), ([9, 15], 3), ([6, 6], 6)];

fn patterns() -> [Sparsity; 11] {
    [
        Sparsity::unstructured(0.7),
        Sparsity::row_balanced(0.7),
        Sparsity::shared_pattern(0.7, 4),
        Sparsity::block_column_row(0.7, [2, 8]),
        Sparsity::punched(0.6, [4, 2]),
        Sparsity::kernel_pattern(0.7, 4),
        Sparsity::connectivity(0.5),
        Sparsity::filter(0.5),
        Sparsity::channel(0.5),
        Sparsity::column(0.6),
        Sparsity::n_of_m(1, 3),
    ]
    .map(Result::unwrap)
}

fn every_layer_is_packed(
    name: &str,
    pattern: Sparsity,
    (channels, groups): ([usize; 2], usize),
    device: &Device,
) {
    // These leave some of a row's input channels out, and need more than one.
    let some = matches!(
        pattern,
        Sparsity::NofM { .. } | Sparsity::Channel(_) | Sparsity::Punched { .. }
    );
    if some && channels[0] / groups < 3 {
        return;
    }
    let conv = Conv2dConfig::new(channels, [3, 3])
        .with_groups(groups)
        .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
        .init(device);
    let model = Grouped { conv };
    let plan = Plan::dense().with_sparsity("conv.weight", pattern).unwrap();
    let plan = plan.resolve(&model).unwrap();
    let masks = Masks::project(&model, &plan).unwrap();
    let masked = fold(masks.attach(model).unwrap());
    let report = SparsityReport::new(&masked).unwrap();
    assert!(report.nnz < report.weights, "{pattern:?}, {name}: {report}");

    let config = pack::PackConfig::default()
        .with_choice(pack::Choice::Csr)
        .with_plan_cache(None);
    let (packed, _) = pack::pack(masked.clone(), &config).unwrap();
    let x = Tensor::<4>::random(
        [2, channels[0], 7, 6],
        Distribution::Normal(0.0, 1.0),
        device,
    );
    let difference = pack::verify(|x| masked.conv.forward(x), |x| packed.conv.forward(x), &[x]);
    assert!(
        difference.max_abs < 1e-5,
        "{pattern:?}, {name}: {difference:?}"
    );
}

/// The same of linear layers, whose matrix blocks and columns are of inputs alone.
#[test]
fn every_pattern_is_packed_on_linear_layers() {
    let of_kernels = |pattern: &Sparsity| matches!(pattern, Sparsity::KernelPattern { .. });
    for (name, device) in devices() {
        device.seed(12);
        for pattern in patterns()
            .into_iter()
            .filter(|pattern| !of_kernels(pattern))
        {
            let linear = LinearConfig::new(48, 20).init(&device);
            let plan = Plan::new(pattern).with_last_linear_kept(false);
            let masks = Masks::project(&linear, &plan.resolve(&linear).unwrap()).unwrap();
            let masked = fold(masks.attach(linear).unwrap());
            let config = pack::PackConfig::default()
                .with_choice(pack::Choice::Csr)
                .with_plan_cache(None);
            let (packed, _) = pack::pack(masked.clone(), &config).unwrap();
            assert!(packed.weight.packed().is_some(), "{pattern:?}, {name}");
            let x = Tensor::<2>::random([3, 48], Distribution::Normal(0.0, 1.0), &device);
            let difference = pack::verify(|x| masked.forward(x), |x| packed.forward(x), &[x]);
            assert!(
                difference.max_abs < 1e-5,
                "{pattern:?}, {name}: {difference:?}"
            );
        }
    }
}
