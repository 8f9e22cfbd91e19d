//! The text classifier: padding, what it computes, counts, masks, packing.

use burn::module::Module;
use burn::nn::PaddingConfig1d;
use burn::tensor::{Device, Int, Tensor, TensorData};
use models::{TextCnn, TextCnnConfig, TextCnnError};

use crate::common::{difference, floats};

fn config() -> TextCnnConfig {
    TextCnnConfig::new(40, 3).with_embedding(7).with_maps(5)
}

fn model(device: &Device) -> TextCnn {
    device.seed(7);
    config().init(device).expect("a network")
}

/// Sentences of these lengths, filled up to `time` words.
fn sentences(lengths: &[usize], time: usize, device: &Device) -> Tensor<2, Int> {
    let word = |b: usize, t: usize| match t < lengths[b] {
        true => 1 + ((b * 31 + t * 17) % 39) as i32,
        false => TextCnn::PADDING as i32,
    };
    let words: Vec<i32> = (0..lengths.len() * time)
        .map(|i| word(i / time, i % time))
        .collect();
    Tensor::from_data(TensorData::new(words, [lengths.len(), time]), device)
}

#[test]
fn padding_changes_nothing() {
    let device = Device::flex();
    let model = model(&device);
    let lengths = [9, 1, 4, 0, 2];
    let expected = floats(model.forward(sentences(&lengths, 9, &device)));
    assert!(expected.iter().all(|v| v.is_finite()));
    for time in [10, 14, 40] {
        let padded = floats(model.forward(sentences(&lengths, time, &device)));
        // Sums of at most 35 products, perhaps in another order.
        assert!(difference(&expected, &padded) < 1e-6, "{time}");
    }
    for (i, &length) in lengths.iter().enumerate() {
        let words = sentences(&lengths, 9, &device).slice([i..i + 1, 0..length.max(1)]);
        let alone = floats(model.forward(words));
        assert!(
            difference(&expected[3 * i..3 * i + 3], &alone) < 1e-6,
            "{i}"
        );
    }
}

#[test]
fn it_computes_what_its_formula_says() {
    let device = Device::flex();
    let model = model(&device);
    let lengths = [6, 1, 3];
    let vectors = floats(model.embedding.weight.val());
    let (head, bias): (Tensor<2>, _) = (model.head.weight.val(), model.head.bias.as_ref());
    let (head, bias) = (floats(head), floats(bias.expect("a bias").val()));
    let words = sentences(&lengths, 6, &device);
    let numbers: Vec<i64> = words
        .clone()
        .into_data()
        .convert::<i64>()
        .try_to_vec()
        .expect("i64");
    let mut expected = Vec::new();
    for (b, &length) in lengths.iter().enumerate() {
        let at = |t: i64, e: usize| match usize::try_from(t) {
            Ok(t) if t < length => f64::from(vectors[numbers[b * 6 + t] as usize * 7 + e]),
            _ => 0.0,
        };
        let mut maxima = Vec::new();
        for conv in &model.convs {
            let (weight, k): (Tensor<3>, _) = (conv.weight.val(), conv.kernel_size);
            let (weight, shift) = (
                floats(weight),
                floats(conv.bias.as_ref().expect("a bias").val()),
            );
            for map in 0..5 {
                let value = |t: i64| {
                    let products = (0..7).flat_map(|e| (0..k).map(move |i| (e, i)));
                    let sum: f64 = products
                        .map(|(e, i)| {
                            f64::from(weight[(map * 7 + e) * k + i]) * at(t + i as i64, e)
                        })
                        .sum();
                    (sum + f64::from(shift[map])).max(0.0)
                };
                // Every window with a word, and one behind the sentence.
                let windows = (1 - k as i64)..=length as i64;
                maxima.push(windows.map(value).fold(0.0, f64::max));
            }
        }
        for class in 0..3 {
            let sum = (0..15).map(|m| maxima[m] * f64::from(head[m * 3 + class]));
            expected.push((sum.sum::<f64>() + f64::from(bias[class])) as f32);
        }
    }
    // Sums of 35 and of 15 products in f32.
    assert!(difference(&expected, &floats(model.forward(words))) < 1e-5);
}

#[test]
fn parameters_are_those_of_kims_network() {
    let config = TextCnnConfig::new(18_765, 2);
    let windows = [3, 4, 5].map(|k| k * 300 * 100 + 100);
    let head = 300 * 2 + 2;
    assert_eq!(
        config.params(),
        18_765 * 300 + windows.iter().sum::<usize>() + head
    );
    let model = config.init(&Device::flex()).expect("a network");
    assert_eq!(model.num_params(), config.params());
    for (conv, params) in model.convs.iter().zip(windows) {
        assert_eq!(conv.num_params(), params);
        assert_eq!(conv.weight.dims(), [100, 300, conv.kernel_size]);
    }
    assert_eq!(model.head.num_params(), head);
    assert_eq!(
        (model.classes(), config.features(), model.longest_window()),
        (2, 300, 5)
    );
    let json = serde_json::to_string(&config).expect("JSON");
    assert_eq!(
        serde_json::from_str::<TextCnnConfig>(&json).expect("the same"),
        config
    );
    let short: TextCnnConfig =
        serde_json::from_str(r#"{"words": 18765, "classes": 2}"#).expect("defaults");
    assert_eq!(short, config);
}

#[test]
fn what_is_no_network_is_an_error() {
    let size = |config: TextCnnConfig| match config.init(&Device::flex()) {
        Err(TextCnnError::Size { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    let usual = TextCnnConfig::new(10, 2);
    assert_eq!(size(TextCnnConfig::new(0, 2)), "words");
    assert_eq!(size(TextCnnConfig::new(usize::MAX, 2)), "words");
    assert_eq!(size(TextCnnConfig::new(10, 0)), "classes");
    assert_eq!(size(usual.clone().with_embedding(0)), "embedding");
    assert_eq!(size(usual.clone().with_maps(9000)), "maps");
    assert_eq!(size(usual.clone().with_windows([])), "windows");
    assert_eq!(size(usual.clone().with_windows([3, 0])), "a window");
    assert_eq!(
        size(usual.clone().with_windows([usize::MAX, 3])),
        "a window"
    );
    assert_eq!(
        size(usual.clone().with_windows([3; 64]).with_maps(8000)),
        "features"
    );
    for dropout in [1.0, -0.1, f64::NAN] {
        let error = usual.clone().with_dropout(dropout).check();
        assert!(matches!(error, Err(TextCnnError::Dropout(_))), "{dropout}");
    }
    // Numbers that overflow are refused before they are multiplied.
    assert_eq!(
        TextCnnConfig::new(usize::MAX, usize::MAX).params(),
        usize::MAX
    );
}

#[test]
fn training_drops_features_and_keeps_the_norm_of_the_head() {
    let device = Device::flex().autodiff();
    let model = model(&device);
    let words = sentences(&[9, 3], 9, &device);
    let [a, b] = [(); 2].map(|()| floats(model.forward(words.clone()).inner()));
    assert_ne!(a, b);
    let valid = model.valid();
    let words = words.inner();
    let [a, b] = [(); 2].map(|()| floats(valid.forward(words.clone())));
    assert_eq!(a, b);

    let norms = |model: &TextCnn| -> Vec<f32> {
        let weight: Tensor<2> = model.head.weight.val();
        floats(weight.inner().square().sum_dim(0).sqrt())
    };
    let before = norms(&model);
    let most = f64::from(before[1]);
    let bound = model.clone().with_head_norm(most);
    for (before, after) in before.iter().zip(norms(&bound)) {
        let expected = before.min(most as f32);
        assert!((after - expected).abs() < 1e-6, "{before} {after}");
    }
    // It is still trained.
    let gradients = bound
        .forward(sentences(&[9, 3], 9, &device))
        .square()
        .sum()
        .backward();
    let head: Tensor<2> = bound.head.weight.val();
    assert!(head.grad(&gradients).is_some());
    // Padding teaches nothing.
    let table = bound.embedding.weight.val().grad(&gradients);
    let table = floats(table.expect("a gradient"));
    assert!(table[..7].iter().all(|&g| g == 0.0));
    assert!(table.iter().any(|&g| g != 0.0));
}

#[cfg(feature = "shrink")]
#[test]
fn masked_and_packed_are_the_same() {
    use burn_admm::{Masks, Plan, fold};
    use burn_sparse::Sparsity;
    use burn_sparse::nn::Trace;
    use burn_sparse::pack::{Choice, Format, PackConfig, pack};

    let device = Device::flex();
    device.seed(3);
    let config = TextCnnConfig::new(200, 2).with_embedding(64).with_maps(20);
    let model = config.init(&device).expect("a network");
    let sparsity = Sparsity::row_balanced(0.875).expect("a sparsity");
    let plan = Plan::dense().with_first_convolution_kept(false);
    let plan = plan
        .with_sparsity("convs.*.weight", sparsity)
        .expect("a rule");
    let plan = plan.resolve(&model).expect("a plan");
    let paths: Vec<&str> = plan
        .layers()
        .iter()
        .map(|layer| layer.path.as_str())
        .collect();
    assert_eq!(
        paths,
        ["convs.0.weight", "convs.1.weight", "convs.2.weight"]
    );
    let masks = Masks::project(&model, &plan).expect("masks");
    assert_eq!(masks.nnz() * 8, config.conv_weights());
    let masked = masks.attach(model).expect("a masked network");
    let folded = fold(masked.clone());
    let words = sentences(&[30, 1, 17, 5], 30, &device);
    let trace = Trace::of(|| drop(folded.forward(words.clone())));
    let choice = PackConfig::default()
        .with_choice(Choice::Csr)
        .with_trace(trace);
    let (packed, report) = pack(folded, &choice).expect("a packed network");
    let formats: Vec<(&str, Format)> = report
        .layers
        .iter()
        .map(|layer| (layer.layer.as_str(), layer.format))
        .collect();
    assert_eq!(
        formats[..3].iter().filter(|l| l.1 == Format::Csr).count(),
        3,
        "{formats:?}"
    );
    let expected = floats(masked.forward(words.clone()));
    assert!(difference(&expected, &floats(packed.forward(words))) < 1e-4);
    assert_eq!(packed.convs[1].padding, PaddingConfig1d::Explicit(3, 4));
}
