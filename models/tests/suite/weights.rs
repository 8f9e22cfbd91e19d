//! Loading and saving by torchvision's names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::common::{difference, floats, image, scramble, tiny, values};
use burn::module::{Lora, Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor, TensorData, bf16, f16};
use models::weights::{LoadOptions, WeightsError, load, load_with, save, to_bytes};
use models::{
    Arch, Classifier, DenseNetConfig, LeNet5Config, MobileNetV2Config, Model, ModelConfig, ResNet,
    ResNetConfig, Shortcut, Stem, VggConfig, VggHead,
};
use safetensors::tensor::{Dtype, TensorView};

/// Name, type, shape and bytes of a tensor of a file.
type Entry = (String, Dtype, Vec<usize>, Vec<u8>);

fn f32s(name: &str, shape: &[usize]) -> Entry {
    let data = values(name, shape.iter().product());
    let bytes = data.into_iter().flat_map(f32::to_le_bytes).collect();
    (name.to_owned(), Dtype::F32, shape.to_vec(), bytes)
}

/// The `state_dict` of the tiny network as PyTorch lays it out.
fn state_dict() -> Vec<Entry> {
    let mut out = Vec::new();
    let mut conv = |name: &str, bn: &str, i: usize, o: usize, k: usize| {
        out.push(f32s(&format!("{name}.weight"), &[o, i, k, k]));
        for part in ["weight", "bias", "running_mean", "running_var"] {
            out.push(f32s(&format!("{bn}.{part}"), &[o]));
        }
        let batches = 17_i64.to_le_bytes().to_vec();
        out.push((
            format!("{bn}.num_batches_tracked"),
            Dtype::I64,
            vec![],
            batches,
        ));
    };
    conv("conv1", "bn1", 3, 2, 3);
    for (layer, i, o) in [("layer1.0", 2, 2), ("layer2.0", 2, 4), ("layer3.0", 4, 8)] {
        conv(&format!("{layer}.conv1"), &format!("{layer}.bn1"), i, o, 3);
        conv(&format!("{layer}.conv2"), &format!("{layer}.bn2"), o, o, 3);
        if i != o {
            conv(
                &format!("{layer}.downsample.0"),
                &format!("{layer}.downsample.1"),
                i,
                o,
                1,
            );
        }
    }
    out.push(f32s("fc.weight", &[3, 8]));
    out.push(f32s("fc.bias", &[3]));
    out
}

fn bytes(entries: &[Entry]) -> Vec<u8> {
    let views = entries.iter().map(|(name, dtype, shape, data)| {
        (
            name.as_str(),
            TensorView::new(*dtype, shape.clone(), data).expect("a valid view"),
        )
    });
    safetensors::serialize(views, None).expect("serialises")
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).expect("writes");
        path
    }
}

/// Cargo runs tests in the folder of their package.
fn fixture(name: &str) -> PathBuf {
    Path::new("tests/fixtures").join(name)
}

fn fresh() -> ResNet {
    tiny().init(&Device::flex())
}

fn load_bytes(content: &[u8]) -> Result<ResNet, WeightsError> {
    let folder = Folder::new();
    load(fresh(), folder.file("weights.safetensors", content))
}

/// Scores of the tiny network, computed by plain loops from the entries of a file.
fn reference(entries: &[Entry], image: &[f32], size: usize) -> Vec<f32> {
    let get = |name: &str| -> (Vec<usize>, Vec<f64>) {
        let (_, _, shape, data) = entries.iter().find(|e| e.0 == name).expect("in the file");
        let values = data
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f64::from(f32::from_le_bytes(*b)));
        (shape.clone(), values.collect())
    };
    let conv = |x: &[f64], size: usize, name: &str, bn: &str, stride: usize| {
        let (shape, weight) = get(&format!("{name}.weight"));
        let [o, i, k] = [shape[0], shape[1], shape[2]];
        let pad = k / 2;
        let out = (size + 2 * pad - k) / stride + 1;
        let part = |part: &str| get(&format!("{bn}.{part}")).1;
        let (g, b) = (part("weight"), part("bias"));
        let (mean, var) = (part("running_mean"), part("running_var"));
        let mut y = vec![0.0; o * out * out];
        for c in 0..o {
            for (r, q) in (0..out * out).map(|at| (at / out, at % out)) {
                let mut sum = 0.0;
                for d in 0..i {
                    for (kr, kq) in (0..k * k).map(|at| (at / k, at % k)) {
                        let (row, col) = (r * stride + kr, q * stride + kq);
                        if (pad..size + pad).contains(&row) && (pad..size + pad).contains(&col) {
                            let at = (d * size + row - pad) * size + col - pad;
                            sum += weight[((c * i + d) * k + kr) * k + kq] * x[at];
                        }
                    }
                }
                y[(c * out + r) * out + q] = (sum - mean[c]) / (var[c] + 1e-5).sqrt() * g[c] + b[c];
            }
        }
        (y, out)
    };
    let relu = |x: Vec<f64>| x.into_iter().map(|v| v.max(0.0)).collect::<Vec<_>>();
    let x: Vec<f64> = image.iter().copied().map(f64::from).collect();
    let (x, mut size) = conv(&x, size, "conv1", "bn1", 1);
    let mut x = relu(x);
    for (layer, stride) in [("layer1.0", 1), ("layer2.0", 2), ("layer3.0", 2)] {
        let at = |part: &str| format!("{layer}.{part}");
        let (y, out) = conv(&x, size, &at("conv1"), &at("bn1"), stride);
        let (y, out) = conv(&relu(y), out, &at("conv2"), &at("bn2"), 1);
        let shortcut = match stride {
            1 => x.clone(),
            _ => conv(&x, size, &at("downsample.0"), &at("downsample.1"), stride).0,
        };
        x = relu(y.iter().zip(shortcut).map(|(a, b)| a + b).collect());
        size = out;
    }
    let pooled: Vec<f64> = x
        .chunks(size * size)
        .map(|c| c.iter().sum::<f64>() / c.len() as f64)
        .collect();
    let (shape, weight) = get("fc.weight");
    let (_, bias) = get("fc.bias");
    (0..shape[0])
        .map(|o| {
            let row = &weight[o * shape[1]..(o + 1) * shape[1]];
            (bias[o] + row.iter().zip(&pooled).map(|(w, v)| w * v).sum::<f64>()) as f32
        })
        .collect()
}

fn scores(model: &ResNet) -> Vec<f32> {
    floats(model.forward(image([1, 3, 12, 12], &Device::flex())))
}

fn expected() -> Vec<f32> {
    reference(&state_dict(), &values("image", 3 * 12 * 12), 12)
}

#[test]
fn a_state_dict_in_safetensors_gives_pytorchs_scores() {
    let model = load_bytes(&bytes(&state_dict())).expect("loads");
    assert!(difference(&expected(), &scores(&model)) < 1e-4);
    assert!(difference(&expected(), &scores(&model.fold_batch_norm())) < 1e-4);
}

#[test]
fn a_state_dict_in_pth_gives_pytorchs_scores() {
    let model = load(fresh(), fixture("tiny_resnet.pth")).expect("loads");
    assert!(difference(&expected(), &scores(&model)) < 1e-4);
}

#[test]
fn a_checkpoint_of_a_training_run_is_read() {
    // Weights under `state_dict` with the prefix of DataParallel, an optimiser beside them.
    let path = fixture("tiny_checkpoint.pth");
    let (model, report) = load_with(fresh(), path, LoadOptions::default()).expect("loads");
    assert_eq!((report.loaded, report.extra), (47, vec![]));
    assert!(difference(&expected(), &scores(&model)) < 1e-4);
}

#[test]
fn files_are_known_by_their_content() {
    let folder = Folder::new();
    let odd = folder.file("weights.bin", &bytes(&state_dict()));
    assert!(load(fresh(), odd).is_ok());
    let pth = std::fs::read(fixture("tiny_resnet.pth")).expect("reads");
    assert!(load(fresh(), folder.file("weights", &pth)).is_ok());
}

#[test]
fn saved_weights_are_named_as_pytorch_does_and_load_back_bit_for_bit() {
    let folder = Folder::new();
    let path = folder.0.path().join("saved.safetensors");
    let model = scramble(tiny().init(&Device::flex()));
    save(&model, &path).expect("saves");
    let content = std::fs::read(&path).expect("reads");
    let file = safetensors::SafeTensors::deserialize(&content).expect("is valid");
    let mut saved: Vec<_> = file
        .iter()
        .map(|(name, view)| (name.to_owned(), view.shape().to_vec()))
        .collect();
    let mut wanted: Vec<_> = state_dict()
        .into_iter()
        .filter(|e| e.1 == Dtype::F32)
        .map(|(name, _, shape, _)| (name, shape))
        .collect();
    saved.sort();
    wanted.sort();
    assert_eq!(saved, wanted);

    let loaded = load(fresh(), &path).expect("loads");
    assert_eq!(scores(&loaded), scores(&model));
    assert_eq!(to_bytes(&loaded).expect("serialises"), content);
    // Wrapped in the enum: the same file.
    assert_eq!(
        to_bytes(&Model::ResNet(loaded)).expect("serialises"),
        content
    );
    // Nothing else was left in the folder.
    assert_eq!(
        std::fs::read_dir(folder.0.path()).expect("lists").count(),
        1
    );
}

#[test]
fn folded_networks_and_lenet5_round_trip() {
    let folder = Folder::new();
    let path = folder.0.path().join("w.safetensors");
    let device = Device::flex();
    let folded = scramble(fresh()).fold_batch_norm();
    save(&folded, &path).expect("saves");
    let back = load(fresh().fold_batch_norm(), &path).expect("loads");
    assert_eq!(scores(&back), scores(&folded));

    let lenet = LeNet5Config::new(10).init(&device);
    save(&lenet, &path).expect("saves");
    let back = load(LeNet5Config::new(10).init(&device), &path).expect("loads");
    let x: Tensor<4> = image([2, 1, 28, 28], &device);
    assert_eq!(floats(back.forward(x.clone())), floats(lenet.forward(x)));
}

#[test]
fn other_widths_of_numbers_are_converted() {
    let convert = |dtype: Dtype, encode: fn(f32) -> Vec<u8>| {
        let entries: Vec<Entry> = state_dict()
            .into_iter()
            .map(|(name, was, shape, data)| match was {
                Dtype::F32 => {
                    let values = data
                        .as_chunks::<4>()
                        .0
                        .iter()
                        .map(|b| f32::from_le_bytes(*b));
                    (name, dtype, shape, values.flat_map(encode).collect())
                }
                _ => (name, was, shape, data),
            })
            .collect();
        let model = load_bytes(&bytes(&entries)).expect("loads");
        difference(&expected(), &scores(&model))
    };
    assert!(convert(Dtype::F64, |v| f64::from(v).to_le_bytes().to_vec()) < 1e-4);
    // Eleven and eight bits of mantissa through seven layers.
    assert!(convert(Dtype::F16, |v| f16::from_f32(v).to_le_bytes().to_vec()) < 2e-2);
    assert!(convert(Dtype::BF16, |v| bf16::from_f32(v).to_le_bytes().to_vec()) < 1e-1);
}

#[test]
fn a_missing_tensor_is_named() {
    let mut entries = state_dict();
    entries.retain(|e| e.0 != "layer2.0.downsample.0.weight");
    let error = load_bytes(&bytes(&entries)).expect_err("lacks a tensor");
    let WeightsError::Missing {
        name,
        shape,
        missing,
        ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(
        (name.as_str(), shape.as_slice()),
        ("layer2.0.downsample.0.weight", &[4, 2, 1, 1][..])
    );
    assert_eq!(*missing, 1);
    assert!(error.to_string().contains("[4, 2, 1, 1]"), "{error}");

    // Under other names, the message shows what there is.
    for entry in &mut entries {
        entry.0 = format!("backbone.{}", entry.0);
    }
    let error = load_bytes(&bytes(&entries))
        .expect_err("other names")
        .to_string();
    assert!(
        error.contains("`conv1.weight`") && error.contains("`backbone.conv1.weight`"),
        "{error}"
    );
}

#[test]
fn a_tensor_of_another_shape_is_named() {
    for (name, shape) in [
        ("fc.weight", vec![8, 3]),
        ("layer1.0.conv2.weight", vec![2, 2, 3]),
        ("bn1.running_mean", vec![]),
        ("layer3.0.bn2.weight", vec![16]),
    ] {
        let mut entries = state_dict();
        let entry = entries
            .iter_mut()
            .find(|e| e.0 == name)
            .expect("in the file");
        let was = std::mem::replace(entry, f32s(name, &shape)).2;
        let error = load_bytes(&bytes(&entries)).expect_err("another shape");
        let WeightsError::Shape {
            name: at,
            expected,
            found,
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!((at.as_str(), expected, found), (name, &was, &shape));
        assert!(error.to_string().contains(&format!("{shape:?}")), "{error}");
    }
}

#[test]
fn a_tensor_without_a_place_is_refused_or_reported() {
    let mut entries = state_dict();
    entries.push(f32s("layer1.1.conv1.weight", &[2, 2, 3, 3]));
    let folder = Folder::new();
    let path = folder.file("w.safetensors", &bytes(&entries));
    let error = load(fresh(), &path).expect_err("an extra tensor");
    assert!(
        matches!(error, WeightsError::Extra { extra: 1, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("layer1.1.conv1.weight"));
    let (_, report) = load_with(fresh(), &path, LoadOptions { allow_extra: true }).expect("loads");
    assert_eq!(report.extra, ["layer1.1.conv1.weight"]);
}

#[test]
fn values_no_network_has_are_named() {
    for (name, value) in [
        ("fc.weight", f32::NAN),
        ("conv1.weight", f32::INFINITY),
        ("bn1.running_var", -1.0),
    ] {
        let mut entries = state_dict();
        let entry = entries
            .iter_mut()
            .find(|e| e.0 == name)
            .expect("in the file");
        entry.3[4..8].copy_from_slice(&value.to_le_bytes());
        let error = load_bytes(&bytes(&entries)).expect_err("a bad value");
        assert!(
            matches!(&error, WeightsError::Value { name: at, index: 1, .. } if at == name),
            "{error}"
        );
    }
    let mut entries = state_dict();
    let entry = entries
        .iter_mut()
        .find(|e| e.0 == "fc.bias")
        .expect("in the file");
    entry.1 = Dtype::I32;
    let error = load_bytes(&bytes(&entries)).expect_err("integers");
    assert!(
        matches!(&error, WeightsError::Dtype { name, .. } if name == "fc.bias"),
        "{error}"
    );
}

#[test]
fn truncated_files_are_errors() {
    let folder = Folder::new();
    for (name, whole) in [
        ("w.safetensors", bytes(&state_dict())),
        (
            "w.pth",
            std::fs::read(fixture("tiny_resnet.pth")).expect("reads"),
        ),
    ] {
        let step = (whole.len() / 60).max(1);
        for len in (0..whole.len())
            .step_by(step)
            .chain([1, 7, 8, 9, whole.len() - 1])
        {
            let error = load(fresh(), folder.file(name, &whole[..len])).expect_err("truncated");
            let text = error.to_string();
            assert!(text.contains(name) || text.contains('`'), "{len}: {text}");
        }
    }
    let mut long = bytes(&state_dict());
    long.push(0);
    assert!(matches!(
        load_bytes(&long),
        Err(WeightsError::Safetensors { .. })
    ));
}

#[test]
fn mutated_files_load_or_are_errors() {
    let folder = Folder::new();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let sources = [
        ("w.safetensors", bytes(&state_dict()), 5000),
        // The pickle, where structure is, comes first.
        (
            "w.pth",
            std::fs::read(fixture("tiny_resnet.pth")).expect("reads"),
            9000,
        ),
    ];
    for (name, whole, structure) in sources {
        let mut refused = 0;
        for _ in 0..300 {
            let mut broken = whole.clone();
            for _ in 0..=random(4) {
                let reach = if random(4) == 0 {
                    broken.len()
                } else {
                    structure
                };
                let at = random(reach.min(broken.len()));
                match random(3) {
                    0 => broken[at] ^= 1 << random(8),
                    1 => broken[at] = [0, 0xff, b'9', b'-'][random(4)],
                    _ => broken.truncate(broken.len() - random(16)),
                }
            }
            // An error or a model with other numbers, never a panic.
            refused += usize::from(load(fresh(), folder.file(name, &broken)).is_err());
        }
        assert!(refused > 100, "{name}: {refused}");
    }
}

#[test]
fn claimed_sizes_are_not_believed() {
    let huge = |shape: &str, end: u64| {
        let header = format!(
            r#"{{"conv1.weight":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{end}]}}}}"#
        );
        let mut content = (header.len() as u64).to_le_bytes().to_vec();
        content.extend(header.into_bytes());
        content
    };
    for content in [
        huge("[1099511627776]", 4_398_046_511_104),
        huge("[18446744073709551615,2]", 8),
        huge("[2,3,3,3]", 216),
        u64::MAX.to_le_bytes().to_vec(),
        [&(1_u64 << 40).to_le_bytes()[..], b"{}"].concat(),
    ] {
        let error = load_bytes(&content).expect_err("a lie");
        assert!(matches!(error, WeightsError::Safetensors { .. }), "{error}");
    }
}

#[test]
fn unreadable_and_unwritable_paths_are_errors() {
    let folder = Folder::new();
    let none = folder.0.path().join("none.safetensors");
    assert!(matches!(load(fresh(), &none), Err(WeightsError::Io { .. })));
    assert!(matches!(
        load(fresh(), folder.0.path()),
        Err(WeightsError::Io { .. })
    ));
    let nowhere = folder.0.path().join("no/such/folder.safetensors");
    assert!(matches!(
        save(&fresh(), &nowhere),
        Err(WeightsError::Io { .. })
    ));
    let error = load(
        fresh(),
        folder.file("notes.txt", b"no weights here, only words"),
    );
    assert!(matches!(error, Err(WeightsError::Pytorch { .. })));
}

#[test]
fn a_larger_network_does_not_pass_for_a_smaller_one() {
    let folder = Folder::new();
    let path = folder.0.path().join("w.safetensors");
    let device = Device::flex();
    save(&ResNetConfig::resnet32(10).init(&device), &path).expect("saves");
    let error = load(ResNetConfig::resnet20(10).init(&device), &path).expect_err("another network");
    assert!(matches!(error, WeightsError::Extra { .. }), "{error}");
    let error = load(ResNetConfig::resnet32(100).init(&device), &path).expect_err("other classes");
    let text = error.to_string();
    assert!(
        text.contains("fc.weight") && text.contains("[100, 64]") && text.contains("[10, 64]"),
        "{text}"
    );
}

#[test]
fn weights_land_on_the_models_device_and_stay_trainable() {
    let device = Device::flex().autodiff();
    let folder = Folder::new();
    let path = folder.file("w.safetensors", &bytes(&state_dict()));
    let model = load(tiny().init(&device), &path).expect("loads");
    let x = Tensor::<4>::from_data(
        TensorData::new(values("image", 3 * 12 * 12), [1, 3, 12, 12]),
        &device,
    );
    let grads = model.forward(x).sum().backward();
    let grad = model.conv1.weight.val().grad(&grads).expect("a gradient");
    assert_eq!(grad.dims(), [2, 3, 3, 3]);
    assert_eq!(Classifier::classes(&model), 3);
}

#[test]
fn reparameterizations_are_saved_as_their_effect_and_survive_loading() {
    // Adapters start without effect; other numbers in their factors give them one.
    let adapted = fresh()
        .apply_lora(Lora::new(2, 4.0))
        .map(&mut Adapters::default());
    let plain = fresh();
    assert!(
        floats(adapted.fc.weight.val())
            != floats(adapted.clone().fc.weight.dense().unwrap().base())
    );
    let merged = load_bytes(&to_bytes(&adapted).expect("serialises")).expect("loads");
    assert_eq!(
        floats(merged.fc.weight.val()),
        floats(adapted.fc.weight.val())
    );

    let folder = Folder::new();
    let path = folder.file("w.safetensors", &to_bytes(&plain).expect("serialises"));
    let loaded = load(adapted, &path).expect("loads");
    assert_eq!(
        floats(loaded.fc.weight.dense().unwrap().base()),
        floats(plain.fc.weight.val())
    );
    assert!(loaded.fc.weight.dense().unwrap().adapter().is_some());
}

/// Fills the factors of adapters.
#[derive(Default)]
struct Adapters {
    depth: usize,
}

impl ModuleMapper for Adapters {
    fn enter_module(&mut self, _name: &str, container: &str) {
        self.depth += usize::from(container == "Reparameterization" || self.depth > 0);
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.depth = self.depth.saturating_sub(1);
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.depth {
            0 => param,
            _ => param.map(|tensor| tensor * 0.0 + 0.25),
        }
    }
}

#[test]
fn a_file_tells_the_configuration_of_its_weights() {
    let folder = Folder::new();
    let path = folder.0.path().join("w.safetensors");
    let device = Device::flex();
    for config in [
        ModelConfig::new(Arch::ResNet20)
            .with_classes(7)
            .with_input([1, 32, 32]),
        ModelConfig::new(Arch::ResNet20).with_shortcut(Shortcut::Projection),
        ModelConfig::new(Arch::ResNet20).with_stem(Stem::ImageNet),
        ModelConfig::new(Arch::Cifar6),
        ModelConfig::new(Arch::Cifar6)
            .with_width(0.25)
            .with_input([1, 16, 16])
            .with_classes(4),
        ModelConfig::new(Arch::LeNet5)
            .with_input([3, 32, 32])
            .with_classes(4),
        ModelConfig::new(Arch::LeNet5),
        ModelConfig::new(Arch::LeNet300),
        ModelConfig::new(Arch::LeNet300)
            .with_input([3, 8, 8])
            .with_classes(4),
    ] {
        save(&config.init(&device), &path).expect("saves");
        let found = models::weights::config(config.arch, &path).expect("reads");
        assert_eq!((found.classes, found.input), (config.classes, config.input));
        load(found.init(&device), &path).expect("loads");
    }
    // Where the weights are of another kind, loading says what is wrong.
    let found = models::weights::config(Arch::ResNet20, &path).expect("reads");
    assert!(load(found.init(&device), &path).is_err());
    assert!(models::weights::config(Arch::ResNet20, folder.0.path()).is_err());
}

#[test]
fn a_file_tells_the_head_of_a_vgg_and_the_width_of_a_mobilenet() {
    let folder = Folder::new();
    let path = folder.0.path().join("w.safetensors");
    let device = Device::flex();
    // The shapes are all that counts, so that no file has to hold a VGG.
    let vgg = ModelConfig::new(Arch::Vgg16Bn).with_input([1, 224, 224]);
    for (entries, classes, stem) in [
        (vec![f32s("classifier.weight", &[7, 4])], 7, Stem::Cifar),
        (
            vec![f32s("classifier.6.weight", &[9, 4])],
            9,
            Stem::ImageNet,
        ),
    ] {
        let first = f32s("features.0.weight", &[4, 1, 3, 3]);
        let mut entries: Vec<Entry> = entries.into_iter().chain([first]).collect();
        // As a training run with DataParallel would keep it.
        for entry in &mut entries {
            entry.0 = format!("net.module.{}", entry.0);
        }
        std::fs::write(&path, bytes(&entries)).expect("writes");
        let found = models::weights::config(Arch::Vgg16Bn, &path).expect("reads");
        let expected = vgg.clone().with_classes(classes).with_stem(stem);
        assert_eq!(found, expected);
        let error = load(found.init(&device), &path).expect_err("lacks nearly everything");
        assert!(matches!(error, WeightsError::Missing { .. }), "{error}");
    }

    let densenet = ModelConfig::new(Arch::DenseNet169).with_input([1, 224, 224]);
    for (kernel, stem) in [(3, Stem::Cifar), (7, Stem::ImageNet)] {
        let entries = [
            f32s("features.conv0.weight", &[4, 1, kernel, kernel]),
            f32s("classifier.weight", &[7, 4]),
        ];
        std::fs::write(&path, bytes(&entries)).expect("writes");
        let found = models::weights::config(Arch::DenseNet169, &path).expect("reads");
        assert_eq!(found, densenet.clone().with_classes(7).with_stem(stem));
    }

    for width in [0.1, 0.35] {
        let config = ModelConfig::new(Arch::MobileNetV2)
            .with_classes(3)
            .with_width(width);
        let model = config.init(&device);
        save(&model, &path).expect("saves");
        let found = models::weights::config(Arch::MobileNetV2, &path).expect("reads");
        assert_eq!(found, config);
        let loaded = load(found.init(&device), &path).expect("loads");
        assert_eq!(to_bytes(&loaded).unwrap(), to_bytes(&model).unwrap());
        let error = load(config.with_width(1.0).init(&device), &path).expect_err("narrower");
        assert!(matches!(error, WeightsError::Shape { .. }), "{error}");
    }
}

#[test]
fn sizes_without_data_are_not_believed() {
    let folder = Folder::new();
    let huge = 1 << 60;
    let device = Device::flex();
    for (arch, names) in [
        (Arch::ResNet18, ["conv1.weight", "fc.weight", "fc.weight"]),
        (
            Arch::Vgg16,
            [
                "features.0.weight",
                "classifier.6.weight",
                "classifier.weight",
            ],
        ),
        (
            Arch::DenseNet121,
            [
                "features.conv0.weight",
                "classifier.weight",
                "features.norm0.weight",
            ],
        ),
        (
            Arch::MobileNetV2,
            [
                "features.0.0.weight",
                "classifier.1.weight",
                "features.17.conv.2.weight",
            ],
        ),
        (
            Arch::AlexNet,
            [
                "features.0.weight",
                "classifier.6.weight",
                "classifier.4.weight",
            ],
        ),
        (Arch::Cifar6, ["conv1.weight", "fc2.weight", "fc1.weight"]),
        (Arch::LeNet5, ["conv1.weight", "fc2.weight", "fc1.weight"]),
        (Arch::LeNet300, ["fc3.weight", "fc2.weight", "fc1.weight"]),
    ] {
        let mut entries: BTreeMap<&str, Entry> = BTreeMap::new();
        for name in names {
            // Of no element, whatever the other sizes.
            let shape = match name {
                "conv1.weight"
                | "features.0.weight"
                | "features.0.0.weight"
                | "features.conv0.weight" => {
                    vec![0, huge, huge, 3]
                }
                "features.17.conv.2.weight" => vec![huge, 0, 1, 1],
                _ => vec![huge, 0],
            };
            entries.insert(name, (name.to_owned(), Dtype::F32, shape, Vec::new()));
        }
        let entries: Vec<Entry> = entries.into_values().collect();
        let path = folder.file("w.safetensors", &lie(&entries));
        let config = models::weights::config(arch, &path).expect("reads");
        let published = ModelConfig::new(arch);
        assert_eq!(
            (config.classes, config.input, config.width),
            (published.classes, published.input, published.width)
        );
        assert!(load(config.init(&device), &path).is_err());
    }
}

/// A safetensors file of tensors without elements.
fn lie(entries: &[Entry]) -> Vec<u8> {
    let tensor = |(name, _, shape, _): &Entry| {
        format!(r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[0,0]}}"#)
    };
    let header: Vec<String> = entries.iter().map(tensor).collect();
    let header = format!("{{{}}}", header.join(","));
    let mut content = (header.len() as u64).to_le_bytes().to_vec();
    content.extend(header.into_bytes());
    content
}

#[test]
fn weights_of_another_family_or_form_are_refused() {
    let folder = Folder::new();
    let path = folder.0.path().join("w.safetensors");
    let device = Device::flex();
    let small = |config: VggConfig| config.with_width(1).with_hidden(2);
    let plain = small(VggConfig::vgg16(3));
    let norms = small(VggConfig::vgg16_bn(3));
    save(&plain.init(&device), &path).expect("saves");
    let error = load(norms.init(&device), &path).expect_err("without norms");
    // Both have `features.2`: a convolution here, a ReLU there.
    assert!(matches!(error, WeightsError::Missing { .. }), "{error}");
    let cifar = plain.clone().with_head(VggHead::Cifar);
    let error = load(cifar.init(&device), &path).expect_err("another head");
    let WeightsError::Missing { name, shape, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(
        (name.as_str(), shape.as_slice()),
        ("classifier.weight", &[3, 8][..])
    );
    let mobilenet = MobileNetV2Config::new(3).with_width(0.1);
    let error = load(mobilenet.init(&device), &path).expect_err("another family");
    assert!(error.to_string().contains("features.0.0.weight"), "{error}");

    // A norm that is folded in the file is missing from a network that has not folded its own.
    save(&norms.init(&device).fold_batch_norm(), &path).expect("saves");
    let error = load(norms.init(&device), &path).expect_err("folded");
    assert!(error.to_string().contains("features.1.weight"), "{error}");
    load(norms.init(&device).fold_batch_norm(), &path).expect("loads");
}

#[test]
fn files_of_the_other_families_round_trip_or_are_errors() {
    let folder = Folder::new();
    let path = folder.0.path().join("w.safetensors");
    let device = Device::flex();
    let mut short = VggConfig::vgg16_bn(3).with_width(2).with_hidden(3);
    short.convs = vec![1, 2];
    let mut narrow = MobileNetV2Config::new(3).with_width(0.05);
    narrow.stages.truncate(2);
    let dense = DenseNetConfig::cifar(1, 1, 3).with_blocks([1, 2]);
    let build = |index: usize, device: &Device| match index {
        0 => Model::Vgg(short.init(device)),
        1 => Model::Vgg(short.clone().with_head(VggHead::Cifar).init(device)),
        2 => Model::DenseNet(dense.init(device)),
        _ => Model::MobileNetV2(narrow.init(device)),
    };
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for index in 0..4 {
        let model = scramble(build(index, &device));
        save(&model, &path).expect("saves");
        let whole = std::fs::read(&path).expect("reads");
        let loaded = load(build(index, &device), &path).expect("loads");
        assert_eq!(to_bytes(&loaded).expect("serialises"), whole);
        let x: Tensor<4> = image([2, 3, 9, 8], &device);
        assert_eq!(floats(loaded.forward(x.clone())), floats(model.forward(x)));

        let mut refused = 0;
        for _ in 0..100 {
            let mut broken = whole.clone();
            for _ in 0..=random(3) {
                let at = random(3000.min(broken.len()));
                match random(3) {
                    0 => broken[at] ^= 1 << random(8),
                    1 => broken[at] = [0, 0xff, b'9', b'-'][random(4)],
                    _ => broken.truncate(broken.len() - random(16)),
                }
            }
            // An error or a model with other numbers, never a panic.
            let file = folder.file("broken.safetensors", &broken);
            for arch in [Arch::Vgg16Bn, Arch::DenseNet121, Arch::MobileNetV2] {
                drop(models::weights::config(arch, &file));
            }
            refused += usize::from(load(build(index, &device), file).is_err());
        }
        assert!(refused > 50, "{index}: {refused}");
    }
}

/// The entries of a file with the names of torchvision's first checkpoints of a `DenseNet`, all or
/// the first so many that have others.
fn with_old_names(content: &[u8], count: usize) -> Vec<Entry> {
    let file = safetensors::SafeTensors::deserialize(content).expect("is valid");
    let mut entries: Vec<Entry> = file
        .iter()
        .map(|(name, view)| {
            let (shape, data) = (view.shape().to_vec(), view.data().to_vec());
            (name.to_owned(), view.dtype(), shape, data)
        })
        .collect();
    let named = entries.iter_mut().filter(|e| e.0.contains("denselayer"));
    for entry in named.take(count) {
        for layer in ["norm", "conv"] {
            for number in 1..=2 {
                let new = format!(".{layer}{number}.");
                entry.0 = entry.0.replace(&new, &format!(".{layer}.{number}."));
            }
        }
    }
    entries
}

#[test]
fn old_checkpoints_of_a_densenet_load() {
    let folder = Folder::new();
    let device = Device::flex();
    let config = DenseNetConfig::cifar(2, 2, 3).with_blocks([2, 1]);
    let model = scramble(config.init(&device));
    let saved = to_bytes(&model).expect("serialises");
    let path = |entries: &[Entry]| folder.file("w.safetensors", &bytes(entries));
    // All names, and some: whatever a file calls a tensor.
    for count in [usize::MAX, 7] {
        let mut entries = with_old_names(&saved, count);
        let old = |e: &&Entry| e.0.contains("norm.") || e.0.contains("conv.");
        assert!(entries.iter().filter(old).count() >= 7);
        let loaded = load(config.init(&device), path(&entries)).expect("loads");
        assert_eq!(to_bytes(&loaded).expect("serialises"), saved);
        // Under a prefix as well.
        for entry in &mut entries {
            entry.0 = format!("state_dict.module.{}", entry.0);
        }
        let loaded = load(config.init(&device), path(&entries)).expect("loads");
        assert_eq!(to_bytes(&loaded).expect("serialises"), saved);
    }
    // By both names a tensor is there once too often, and without either one is missing.
    let mut entries = with_old_names(&saved, usize::MAX);
    let shape = [8, 4, 1, 1];
    entries.push(f32s(
        "features.denseblock1.denselayer1.conv1.weight",
        &shape,
    ));
    entries.retain(|e| e.0 != "features.denseblock1.denselayer1.conv.1.weight");
    let old = "features.denseblock1.denselayer1.conv.1.weight";
    load(config.init(&device), path(&entries))
        .map_err(|error| panic!("{error}"))
        .ok();
    entries.push(f32s(old, &shape));
    // Some DenseNets since then have the new name, so it is the one that counts.
    let error = load(config.init(&device), path(&entries)).expect_err("twice");
    assert!(
        matches!(&error, WeightsError::Extra { name, extra: 1 } if name == old),
        "{error}"
    );
    entries.retain(|e| !e.0.contains("denselayer2.norm.2.bias"));
    let error = load(config.init(&device), path(&entries)).expect_err("missing");
    let missing = "features.denseblock1.denselayer2.norm2.bias";
    assert!(
        matches!(&error, WeightsError::Missing { name, missing: 1, .. } if name == missing),
        "{error}"
    );
}

#[test]
fn statistics_of_the_last_training_step_are_saved() {
    let device = Device::flex().autodiff();
    let model = tiny().init(&device);
    model.forward(image([4, 3, 12, 12], &device));
    let loaded = load_bytes(&to_bytes(&model).expect("serialises")).expect("loads");
    let mean = |model: &ResNet| {
        let bn = model.bn1.as_ref().expect("not folded");
        floats(bn.running_mean.value_sync())
    };
    assert!(mean(&model).iter().any(|&v| v != 0.0));
    assert_eq!(mean(&loaded), mean(&model));
}
