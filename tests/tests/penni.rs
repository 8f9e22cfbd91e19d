//! Shared kernels of residual networks: pruned, cut to a fixed point, the same output.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Distribution, Tensor};
use burn_admm::penni::{Penni, PenniConfig, PenniPlan, share};
use burn_admm::shrink::{ShrinkOptions, ShrinkPlan, compare, shrink};
use burn_sparse::pack::{Choice, PackConfig, pack};
use models::{BlockKind, ResNet, ResNetConfig, Shortcut, Stem};
use tests::devices_with_shared_memory as devices;

/// Norms with statistics that are not trivial; of each convolution every third filter and every fourth input
/// channel so small that pruning takes them.
#[derive(Default)]
struct Faint(Vec<String>);

impl ModuleMapper for Faint {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.0.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.0.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.0.last().map(String::as_str).unwrap_or_default();
        param.map(|tensor| {
            let random = |low, high| tensor.random_like(Distribution::Uniform(low, high));
            let faint = |tensor: Tensor<D>, axis: usize, step: usize| {
                let len = tensor.dims()[axis];
                (1..len).step_by(step).fold(tensor, |tensor, at| {
                    let mut ranges = tensor.dims().map(|len| 0..len);
                    ranges[axis] = at..at + 1;
                    let part = tensor.clone().slice(ranges.clone());
                    tensor.slice_assign(ranges, part.mul_scalar(1e-4))
                })
            };
            match (D, name) {
                (4, _) => faint(faint(tensor, 0, 3), 1, 4),
                (1, "gamma" | "running_var") => random(0.5, 1.5),
                (1, "beta" | "running_mean") => random(-0.5, 0.5),
                _ => tensor,
            }
        })
    }
}

/// Every parameter by path.
fn values<M: Module>(model: &M) -> HashMap<String, Vec<f32>> {
    #[derive(Default)]
    struct Read(Vec<String>, HashMap<String, Vec<f32>>);
    impl ModuleVisitor for Read {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.0.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let values = param.val().into_data().try_to_vec::<f32>().unwrap();
            self.1.insert(self.0.join("."), values);
        }
    }
    let mut read = Read::default();
    model.visit(&mut read);
    read.1
}

fn network(kind: BlockKind, shortcut: Shortcut, stem: Stem, device: &Device) -> ResNet {
    let config = ResNetConfig {
        kind,
        blocks: vec![2, 1, 1],
        width: 12,
        shortcut,
        stem,
        channels: 3,
        classes: 5,
        zero_init_residual: false,
    };
    config.init(device).map(&mut Faint::default())
}

#[test]
fn a_network_of_shared_kernels_is_cut_to_a_fixed_point_and_computes_the_same() {
    for (name, device) in devices() {
        for kind in [BlockKind::Basic, BlockKind::Bottleneck] {
            for shortcut in [Shortcut::Projection, Shortcut::ZeroPad] {
                // Devices compile kernels for every shape; one network shows that they compute it.
                let first = (BlockKind::Basic, Shortcut::Projection);
                if name != "flex" && (kind, shortcut) != first {
                    continue;
                }
                let model = network(kind, shortcut, Stem::Cifar, &device);
                let plan = PenniPlan::new(4).with_pointwise(true);
                let config = PenniConfig::new().with_threshold(0.3);
                let mut penni = Penni::new(&model, &plan, config).unwrap();
                penni.prune().unwrap();
                let model = penni.compose(model).unwrap();

                let input = [3, 16, 16];
                let options = ShrinkOptions::new();
                let small = shrink(model.clone(), &input, &options, ResNet::forward).unwrap();
                let what = format!("{name} {kind:?} {shortcut:?}\n{}", small.plan.report());
                let [before, after] = small.plan.report().params();
                assert!(after < before * 8 / 10, "{what}");
                // Some constants that are not zero have moved into biases or running means.
                let mut added = small.plan.cuts().iter().flat_map(|cut| &cut.add);
                let expected = kind == BlockKind::Bottleneck;
                assert!(added.any(|&c| c != 0.0) || !expected, "{what}");

                let x = Tensor::random([3, 3, 16, 16], Distribution::Normal(0.0, 1.0), &device);
                let masked = model.valid().forward(x.clone());
                let difference = compare(masked, small.model.valid().forward(x));
                // The logits are near one.
                assert!(difference.max_abs_diff < 1e-4, "{difference:?} {what}");
                assert!(difference.largest > 1e-2, "{difference:?} {what}");

                // Nothing is left to cut.
                let graph = burn_admm::shrink::ChannelModel::channel_graph(&small.model, &input);
                let again = ShrinkPlan::new(&small.model, &graph.unwrap(), &options).unwrap();
                assert!(again.cuts().is_empty(), "{what}\n{}", again.report());

                // The factors of what is left give its weights.
                let weights = values(&small.model);
                for (path, shared) in penni.shrunk(&small.plan).unwrap() {
                    let pairs = shared.reconstruct().into_iter().zip(&weights[&path]);
                    assert_eq!(shared.shape().len(), weights[&path].len(), "{path} {what}");
                    let largest = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(largest < 1e-6, "{path}: {largest} {what}");
                }

                // And run, packed, as the network did. 1×1 layers stay what they are.
                let kernels = penni.shrunk(&small.plan).unwrap();
                let plain = small.model.valid();
                let x = Tensor::random(
                    [3, 3, 16, 16],
                    Distribution::Default,
                    &device.clone().inner(),
                );
                let expected = plain.forward(x.clone());
                let running = share(plain, &kernels).unwrap();
                let packing = PackConfig::default().with_choice(Choice::Csr);
                let (packed, _) = pack(running, &packing).unwrap();
                let shared = burn_sparse::nn::weights(&packed)
                    .iter()
                    .filter(|named| named.factor)
                    .count();
                assert!(shared >= 6, "{shared} {what}");
                let difference = compare(expected, packed.forward(x));
                assert!(difference.max_abs_diff < 1e-4, "{difference:?} {what}");
            }
        }
    }
}

/// Without zero padding every constant moves.
#[test]
fn constants_that_are_not_zero_leave_convolutions_without_padding() {
    use burn::nn::conv::{Conv2d, Conv2dConfig};
    use burn::nn::{BatchNorm, BatchNormConfig};
    use burn::tensor::activation::relu;
    use burn_admm::shrink::{ChannelGraph, shrink_with};

    #[derive(Module, Debug)]
    struct Net {
        conv1: Conv2d,
        bn1: BatchNorm,
        conv2: Conv2d,
    }

    let device = Device::flex();
    let net = Net {
        conv1: Conv2dConfig::new([3, 8], [3, 3]).init(&device),
        bn1: BatchNormConfig::new(8).init(&device),
        conv2: Conv2dConfig::new([8, 5], [3, 3]).init(&device),
    };
    let mut net = net.map(&mut Faint::default());
    // Every constant is above zero.
    net.bn1.beta = net.bn1.beta.map(|beta| beta.add_scalar(2.0));
    let config = PenniConfig::new().with_threshold(0.2);
    let mut penni = Penni::new(&net, &PenniPlan::new(4), config).unwrap();
    penni.prune().unwrap();
    let net = penni.compose(net).unwrap();
    let graph = ChannelGraph::of([3, 9, 9], |x| {
        let x = x.conv("conv1", &net.conv1).norm("bn1", &net.bn1).relu();
        x.conv("conv2", &net.conv2)
    });
    let forward = |net: &Net, x: Tensor<4>| {
        let x = relu(net.bn1.forward(net.conv1.forward(x)));
        net.conv2.forward(x)
    };
    let options = ShrinkOptions::new().with_tolerance(1e-5);
    let small = shrink_with(net, &graph.unwrap(), &options, |_, _, _| false, forward).unwrap();
    let channels = small.model.conv2.weight.dims()[1];
    assert!(channels <= 5, "{}", small.plan.report());
    let added = small.plan.cuts().iter().flat_map(|cut| &cut.add);
    // Of five outputs two read nothing.
    assert_eq!(added.filter(|&&c| c != 0.0).count(), 3);
}
