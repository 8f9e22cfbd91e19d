//! Every pattern on convolutions of several groups, from the plan to the packed kernel.

use burn::nn::PaddingConfig2d;
use burn::tensor::{Device, Distribution, Tensor};
use burn_admm::{Masks, Plan, SparsityReport, fold};
use burn_sparse::{
    Sparsity,
    nn::{Conv2d, Conv2dConfig},
    pack,
};

#[derive(burn::module::Module, Debug)]
struct Grouped {
    conv: Conv2d,
}

/// A weight of a layer with groups has the rows of all groups, and a row has the inputs of its own: patterns see
/// that matrix, bands and blocks reach over the border of two groups, and the kernel knows which inputs are meant.
#[test]
fn every_pattern_is_packed_on_layers_of_several_groups() {
    let device = Device::flex();
    device.seed(11);
    let patterns = [
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
    .map(Result::unwrap);
    // Rows of a group that bands of four do and do not divide; one channel for each group.
    for (channels, groups) in [([12, 8], 2), ([9, 15], 3), ([6, 6], 6)] {
        for pattern in patterns {
            let conv = Conv2dConfig::new(channels, [3, 3])
                .with_groups(groups)
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .init(&device);
            let model = Grouped { conv };
            // These leave some of a row's input channels out, and need more than one.
            let some = matches!(
                pattern,
                Sparsity::NofM { .. } | Sparsity::Channel(_) | Sparsity::Punched { .. }
            );
            if some && channels[0] / groups < 3 {
                continue;
            }
            let plan = Plan::dense().with_sparsity("conv.weight", pattern).unwrap();
            let plan = plan.resolve(&model).unwrap();
            let masks = Masks::project(&model, &plan).unwrap();
            let masked = fold(masks.attach(model).unwrap());
            let report = SparsityReport::new(&masked).unwrap();
            assert!(
                report.nnz < report.weights,
                "{pattern:?}, {groups} groups: {report}"
            );

            let config = pack::PackConfig::default()
                .with_choice(pack::Choice::Csr)
                .with_plan_cache(None);
            let (packed, _) = pack::pack(masked.clone(), &config).unwrap();
            let x = Tensor::<4>::random(
                [2, channels[0], 7, 6],
                Distribution::Normal(0.0, 1.0),
                &device,
            );
            let difference =
                pack::verify(|x| masked.conv.forward(x), |x| packed.conv.forward(x), &[x]);
            assert!(
                difference.max_abs < 1e-5,
                "{pattern:?}, {groups} groups: {difference:?}"
            );
        }
    }
}
