//! A packed network in its steady state asks the system for no feature map.

use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor};
use burn_sparse::cpu;
use burn_sparse::pack::{Choice, PackConfig, pack};
use models::{Classifier, ResNetConfig, Shortcut};
use peak_alloc::PeakAlloc;

#[global_allocator]
static HELD: PeakAlloc = PeakAlloc;

/// Runs of the network after the first ones.
const RUNS: usize = 10;
/// Pixels of the smallest maps, each side.
const LAST: usize = 8;

#[test]
fn a_steady_network_allocates_no_feature_map() {
    // Which buffers are free when one is asked for must not depend on how threads interleave; and
    // this is the only test of its program, so that nobody else allocates.
    cpu::bound_pool(Some(1)).build_global().unwrap();
    let device = Device::flex();
    let channels = 16;
    // Shortcuts that pad are operations of Burn's, which have memory of their own.
    let model = ResNetConfig::cifar(1, 10)
        .with_width(channels)
        .with_shortcut(Shortcut::Projection)
        .init(&device);
    let config = PackConfig::default().with_choice(Choice::Csr);
    let (model, _) = pack(Classifier::fold(model.valid()), &config).unwrap();
    for batch in [1, 3] {
        let x = Tensor::<4>::random([batch, 3, 32, 32], Distribution::Default, &device);
        for _ in 0..3 {
            drop(model.infer(x.clone()));
        }
        let (buffers, held) = (cpu::allocations(), HELD.current_usage());
        HELD.reset_peak_usage();
        for _ in 0..RUNS {
            drop(model.infer(x.clone()));
        }
        assert_eq!(cpu::allocations(), buffers, "batch {batch}");
        // Nor does anything else than the kernels' own buffers: what is taken from the system on the way
        // are shapes and tasks, not maps.
        let map = 4 * channels * 4 * LAST * LAST;
        let more = HELD.peak_usage().saturating_sub(held);
        assert!(
            more < map,
            "batch {batch}: {more} bytes more, a map has {map}"
        );
    }
}
