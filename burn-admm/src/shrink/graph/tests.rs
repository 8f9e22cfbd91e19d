use burn::nn::conv::{Conv1dConfig, Conv2dConfig, Conv3dConfig};
use burn::nn::pool::{AvgPool1dConfig, AvgPool2dConfig, MaxPool1dConfig, MaxPool2dConfig};
use burn::nn::{PaddingConfig1d, PaddingConfig2d, PaddingConfig3d};
use burn::tensor::{Device, Tensor};

use super::*;

fn error(forward: impl FnOnce(Flow) -> Flow) -> GraphError {
    ChannelGraph::of([4, 5, 5], forward).unwrap_err()
}

#[test]
fn contradictions_are_refused() {
    let linear = LinearSpec([4, 4]);
    let shape = |error| matches!(error, GraphError::Shape { .. });
    assert!(shape(error(|x| x.linear("a", LinearSpec([3, 4])))));
    assert!(shape(error(|x| x.add(&x.linear("a", LinearSpec([4, 2]))))));
    assert!(shape(error(|x| x.concat([&x.resize([1, 1])]))));
    assert!(shape(error(|x| x.resize([1]))));
    assert!(shape(error(|x| x.pool(PoolSpec::every(&[2])))));
    assert!(shape(error(|x| x.pool(PoolSpec::every(&[0, 1])))));
    assert!(shape(error(|x| x.opaque("a", []))));
    assert!(shape(error(|x| x.opaque("a", [0, 5]))));
    assert!(shape(error(|x| x.opaque("a", [usize::MAX, 2]))));
    assert!(shape(error(|x| x.pad_channels(usize::MAX, 1))));
    let norm = |epsilon| NormSpec {
        channels: 4,
        epsilon,
    };
    assert!(shape(error(|x| x.norm("a", norm(f64::NAN)))));
    let shared = error(|x| x.linear("a", linear).linear("a", linear));
    assert_eq!(shared, GraphError::Shared { layer: "a".into() });
    assert!(matches!(
        error(|x| x.pad_channels(1 << 40, 0)),
        GraphError::TooLarge { .. }
    ));

    let other = GraphBuilder::new();
    let foreign = other.input([4, 5, 5]);
    assert_eq!(error(|x| x.add(&foreign)), GraphError::Foreign);
    assert_eq!(error(|_| foreign.clone()), GraphError::Foreign);
    assert_eq!(GraphBuilder::new().finish([]), Err(GraphError::NoOutput));

    let node = |op, inputs: &[usize]| Node {
        op,
        inputs: inputs.to_vec(),
    };
    let input = || node(Op::Input { shape: vec![2] }, &[]);
    let order = ChannelGraph::new(vec![input(), node(Op::Output, &[1])]);
    assert!(matches!(order, Err(GraphError::Order { input: 1, .. })));
    let inputs = ChannelGraph::new(vec![input(), node(Op::Add, &[0])]);
    assert!(matches!(inputs, Err(GraphError::Inputs { found: 1, .. })));
}

#[test]
fn a_gate_multiplies_every_position() {
    let graph = ChannelGraph::of([4, 5, 5], |x| x.mul(&x.resize([1, 1]))).unwrap();
    assert_eq!(graph.shape(2), [4, 5, 5]);
}

#[test]
fn graphs_survive_json_and_are_checked_again() {
    let device = Device::flex();
    let conv = Conv2dConfig::new([4, 6], [3, 3]).init(&device);
    let graph = ChannelGraph::of([4, 5, 5], |x| {
        let x = x
            .conv("conv", &conv)
            .activation(Activation::LeakyRelu { slope: 0.1 });
        x.flatten().linear("fc", LinearSpec([54, 2]))
    });
    let graph = graph.unwrap();
    let json = serde_json::to_string(&graph).unwrap();
    assert_eq!(serde_json::from_str::<ChannelGraph>(&json).unwrap(), graph);
    let wrong = json.replace("\"features\":[54,2]", "\"features\":[55,2]");
    assert_ne!(wrong, json);
    assert!(serde_json::from_str::<ChannelGraph>(&wrong).is_err());
    let text = graph.to_string();
    assert!(text.contains("fc") && text.contains("54"), "{text}");
}

/// The size that the graph says is the one that the layer gives.
#[test]
fn shapes_are_those_of_burn() {
    let device = Device::flex();
    for (kernel, stride, dilation, size) in [
        (1, 1, 1, 1),
        (3, 2, 1, 7),
        (2, 2, 1, 7),
        (3, 1, 2, 9),
        (4, 3, 1, 11),
        (5, 2, 1, 6),
    ] {
        for padding in [
            PaddingConfig2d::Valid,
            PaddingConfig2d::Same,
            PaddingConfig2d::Explicit(2, 0, 1, 2),
        ] {
            let conv = Conv2dConfig::new([2, 3], [kernel, kernel])
                .with_stride([stride, stride])
                .with_dilation([dilation, dilation])
                .with_padding(padding)
                .init(&device);
            let y = conv.forward(Tensor::zeros([1, 2, size, size + 2], &device));
            let graph = ChannelGraph::of([2, size, size + 2], |x| x.conv("conv", &conv));
            assert_eq!(graph.unwrap().shape(1), &y.dims()[1..], "{conv:?}");
        }
        let pad = kernel / 2;
        for ceil_mode in [false, true] {
            let pool = MaxPool2dConfig::new([kernel, kernel])
                .with_strides([stride, stride])
                .with_dilation([dilation, dilation])
                .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
                .with_ceil_mode(ceil_mode)
                .init();
            let y = pool.forward(Tensor::zeros([1, 2, size, size + 2], &device));
            let graph = ChannelGraph::of([2, size, size + 2], |x| x.pool(&pool));
            assert_eq!(graph.unwrap().shape(1), &y.dims()[1..], "{pool:?}");
        }
    }
}

#[test]
fn layers_of_one_and_three_axes_are_read_too() {
    let device = Device::flex();
    let conv = Conv1dConfig::new(4, 6, 3)
        .with_groups(2)
        .with_padding(PaddingConfig1d::Same)
        .init(&device);
    let spec = ConvSpec::from(&conv);
    assert_eq!(
        (spec.channels, spec.kernel, spec.padding),
        ([4, 6], vec![3], Padding::Same)
    );
    let ours = burn_sparse::nn::Conv1dConfig::new(4, 6, 3).init(&device);
    assert_eq!(ConvSpec::from(&ours).channels, [4, 6]);
    let ours = burn_sparse::nn::Conv2dConfig::new([4, 6], [3, 1]).init(&device);
    assert_eq!(ConvSpec::from(&ours).kernel, [3, 1]);
    let conv = Conv3dConfig::new([4, 6], [3, 2, 1])
        .with_padding(PaddingConfig3d::Explicit(1, 0, 0))
        .init(&device);
    let graph = ChannelGraph::of([4, 5, 6, 7], |x| x.conv("conv", &conv)).unwrap();
    assert_eq!(graph.shape(1), [6, 5, 5, 7]);
    assert!(graph.is_padded(1, &ConvSpec::from(&conv)));

    let pools = [
        PoolSpec::from(&MaxPool1dConfig::new(2).init()),
        PoolSpec::from(&AvgPool1dConfig::new(2).init()),
    ];
    for pool in pools {
        let graph = ChannelGraph::of([4, 6], |x| x.pool(pool)).unwrap();
        assert_eq!(graph.shape(1), [4, 3]);
    }
    let average = AvgPool2dConfig::new([2, 2])
        .with_count_include_pad(false)
        .init();
    assert!(!PoolSpec::from(&average).counts_padding);
}
