use burn::tensor::{Device, Distribution};

use super::*;
use crate::nn::{Activation, Conv2d, Conv2dConfig, Linear, LinearConfig};

fn conv(kernel: usize, device: &Device) -> Conv2d {
    let config = Conv2dConfig::new([2, 2], [kernel, kernel]);
    config
        .with_padding(burn::nn::PaddingConfig2d::Same)
        .init(device)
}

fn inputs(device: &Device) -> [Tensor<4>; 2] {
    [0, 1].map(|_| Tensor::random([1, 2, 4, 4], Distribution::Default, device))
}

const fn layer(at: usize) -> Place {
    Place::Layer(at)
}

#[test]
fn shortcuts_are_seen_beside_what_they_go_around() {
    let device = Device::flex();
    let [stem, a, b, head] = [1, 3, 1, 1].map(|k| conv(k, &device));
    let fused = |x: Tensor<4>| {
        let x = burn::tensor::activation::relu(stem.forward(x));
        let y = a.forward_fused(x.clone(), None, Activation::Relu);
        let y = b.forward_fused(y, Some(x.clone()), Activation::Relu);
        head.forward(y).mean_dim(3)
    };
    let flow = Flow::of(inputs(&device), fused).unwrap();
    let expected = [
        [Place::Input, layer(0)],
        [layer(0), layer(1)],
        [layer(0), layer(2)],
        [layer(1), layer(2)],
        [layer(2), layer(3)],
        [layer(3), Place::Output],
    ];
    assert_eq!(flow.edges, expected);
    assert_eq!(flow.layers[1].problem.kernel, [3, 3]);
    assert_eq!(flow.feeding(layer(2)), [layer(0), layer(1)]);

    // The same of packed layers.
    let [stem, a, b, head] = [stem, a, b, head].map(|conv| conv.pack().unwrap());
    let packed = |x: Tensor<4>| {
        let x = burn::tensor::activation::relu(stem.forward(x));
        let y = a.forward_fused(x.clone(), None, Activation::Relu);
        head.forward(b.forward_fused(y, Some(x), Activation::Relu))
    };
    assert_eq!(Flow::of(inputs(&device), packed).unwrap().edges, expected);
}

#[test]
fn a_layer_that_is_used_again_feeds_itself() {
    let device = Device::flex();
    let linear: Linear = LinearConfig::new(3, 3).init(&device);
    let inputs = [0, 1].map(|_| Tensor::<2>::random([2, 3], Distribution::Default, &device));
    let flow = Flow::of(inputs, |x| linear.forward(linear.forward(x).tanh())).unwrap();
    assert_eq!(flow.layers[0].uses, 2);
    let expected = [
        [Place::Input, layer(0)],
        [layer(0), layer(0)],
        [layer(0), Place::Output],
    ];
    assert_eq!(flow.edges, expected);
}

#[test]
fn what_nobody_reads_feeds_nothing() {
    let device = Device::flex();
    let [a, b] = [1, 1].map(|k| conv(k, &device));
    let flow = Flow::of(inputs(&device), |x| {
        drop(a.forward(x.clone()));
        // Zeros come out of it, and still it is seen.
        b.forward(x.clone().mul_scalar(0.0)) + x
    })
    .unwrap();
    assert!(flow.fed_by(layer(0)).is_empty());
    assert!(flow.feeding(layer(1)).is_empty());
    assert_eq!(flow.fed_by(Place::Input), [layer(0), Place::Output]);
    assert_eq!(flow.feeding(Place::Output), [Place::Input, layer(1)]);
}

#[test]
fn a_pass_that_depends_on_values_is_an_error_and_leaves_nothing_behind() {
    let device = Device::flex();
    let [a, b, c] = [1, 1, 1].map(|k| conv(k, &device));
    let mut pass = 0;
    let error = Flow::of(inputs(&device), |x| {
        pass += 1;
        let y = a.forward(x);
        if pass == 4 {
            b.forward(y)
        } else {
            c.forward(y)
        }
    });
    assert!(error.unwrap_err().to_string().contains("depend on"));
    let panicked = std::panic::catch_unwind(|| {
        Flow::of(inputs(&device), |_| -> Tensor<4> { panic!("as planned") })
    });
    assert!(panicked.is_err());
    let flow = Flow::of(inputs(&device), |x| c.forward(x)).unwrap();
    assert_eq!(flow.layers.len(), 1);
}

#[test]
fn chance_is_refused_and_the_pool_is_no_obstacle() {
    let device = Device::flex();
    let [a, b] = [1, 1].map(|k| conv(k, &device));
    let mut pass = 0.0;
    let error = Flow::of(inputs(&device), |x| {
        pass += 1.0;
        b.forward(a.forward(x).add_scalar(pass))
    });
    assert!(error.unwrap_err().to_string().contains("chance"));
    let flow = Flow::of(inputs(&device), |x| {
        crate::cpu::on_pool(|| b.forward(a.forward(x)))
    });
    assert_eq!(flow.unwrap().layers.len(), 2);
}
