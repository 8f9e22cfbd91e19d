//! Compressed checkpoints: what goes in comes out, and nothing else does.

mod factored;
mod sparse;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fs;

use burn::module::{Lora, Module, Param};
use burn::nn::{BatchNorm, BatchNormConfig, PaddingConfig2d};
use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};
use burn_sparse::format::Csr;
use burn_sparse::nn::{
    Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Linear, LinearConfig, PackedWeight, Weight, weights,
};
use burn_sparse::{SparseError, store};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

/// Counts what a thread asks for, to prove that broken files do not make it ask for much.
struct Counting;

thread_local! {
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator as it came; counting neither
// allocates nor touches the memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ASKED.try_with(|asked| asked.set(asked.get().saturating_add(layout.size())));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` above, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes asked for while `run` runs, freed or not.
fn asked_by<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = ASKED.get();
    let result = run();
    (result, ASKED.get() - before)
}

#[derive(Module, Debug)]
struct Block {
    conv: Conv2d,
    norm: BatchNorm,
    shortcut: Option<Conv2d>,
}

#[derive(Module, Debug)]
struct Net {
    stem: Conv2d,
    blocks: Vec<Block>,
    line: Conv1d,
    pair: (Linear, burn::nn::Linear),
    steps: Param<Tensor<1, Int>>,
    active: Param<Tensor<1, Bool>>,
    scale: Param<Tensor<1>>,
}

fn tensor<const D: usize>(rng: &mut ChaCha8Rng, dims: [usize; D], density: f64) -> Tensor<D> {
    let values: Vec<f32> = (0..dims.iter().product())
        .map(|_| {
            if rng.random_bool(density) {
                rng.random_range(-1.0..1.0)
            } else {
                0.0
            }
        })
        .collect();
    Tensor::from_data(TensorData::new(values, dims), &Device::flex())
}

fn weight<const D: usize>(rng: &mut ChaCha8Rng, old: &Weight<D>, density: f64) -> Weight<D> {
    Weight::from(Param::from_tensor(tensor(rng, old.dims(), density)))
}

impl Net {
    fn new(device: &Device) -> Self {
        let block = |channels: [usize; 2], groups, shortcut| Block {
            conv: Conv2dConfig::new(channels, [3, 3])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .with_groups(groups)
                .with_bias(false)
                .init(device),
            norm: BatchNormConfig::new(channels[1]).init(device),
            shortcut: bool::then(shortcut, || {
                Conv2dConfig::new(channels, [1, 1])
                    .with_bias(false)
                    .init(device)
            }),
        };
        Self {
            stem: Conv2dConfig::new([3, 8], [3, 3]).init(device),
            blocks: vec![block([8, 12], 4, true), block([12, 12], 1, false)],
            line: Conv1dConfig::new(12, 10, 3).with_groups(2).init(device),
            pair: (
                LinearConfig::new(10, 7).init(device),
                burn::nn::LinearConfig::new(7, 5).init(device),
            ),
            steps: Param::initialized(burn::module::ParamId::new(), Tensor::zeros([3], device)),
            active: Param::initialized(
                burn::module::ParamId::new(),
                Tensor::from_data([false, false, false], device),
            ),
            scale: Param::from_tensor(Tensor::ones([2], device)),
        }
    }

    /// Some layers packed, some dense, with values that no fresh network has.
    fn trained(seed: u64) -> Self {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let device = &Device::flex();
        let mut net = Self::new(device);
        net.stem.weight = weight(rng, &net.stem.weight, 0.5);
        let block = &mut net.blocks[0];
        // Rows so unequal that packing leaves them so: one full, some empty.
        let mut rows = vec![0.0; 12 * 18];
        rows[..18].fill(0.25);
        rows[18 * 5 + 3] = -0.0;
        rows[18 * 11 + 17] = 1.5;
        let csr = Csr::from_dense(&rows, [12, 18]).unwrap();
        block.conv.weight = Weight::Packed(PackedWeight::new(csr, [12, 2, 3, 3], device).unwrap());
        let shortcut = block.shortcut.take().unwrap();
        let weight_1x1 = weight(rng, &shortcut.weight, 0.2).pack(true).unwrap();
        block.shortcut = Some(Conv2d {
            weight: weight_1x1,
            ..shortcut
        });
        block.norm.gamma = Param::from_tensor(tensor(rng, [12], 1.0));
        block.norm.beta = Param::from_tensor(tensor(rng, [12], 1.0));
        block.norm.running_mean.update(tensor(rng, [12], 1.0));
        // A layer that lost everything.
        let empty = Csr::from_dense(&[0.0; 12 * 108], [12, 108]).unwrap();
        net.blocks[1].conv.weight =
            Weight::Packed(PackedWeight::new(empty, [12, 12, 3, 3], device).unwrap());
        net.line.weight = weight(rng, &net.line.weight, 0.3).pack(true).unwrap();
        net.pair.0.weight = weight(rng, &net.pair.0.weight, 0.1).pack(true).unwrap();
        net.steps = net.steps.map(|steps| steps + 41);
        net.active = net
            .active
            .map(|_| Tensor::from_data([true, false, true], device));
        let half = TensorData::from([0.1f32, -3.0]).convert_dtype(DType::F16);
        net.scale = net
            .scale
            .map(|_| Tensor::from_data(half, (device, DType::F16)));
        net
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let mut x = self.stem.forward(x);
        for block in &self.blocks {
            let shortcut = block
                .shortcut
                .as_ref()
                .map_or(x.clone(), |conv| conv.forward(x.clone()));
            x = block.norm.forward(block.conv.forward(x)) + shortcut;
        }
        let [n, c, h, w] = x.dims();
        let x = self
            .line
            .forward(x.reshape([n, c, h * w]))
            .mean_dim(2)
            .reshape([n, 10]);
        self.pair.1.forward(self.pair.0.forward(x))
    }
}

fn bits<const D: usize>(tensor: Tensor<D>) -> Vec<u32> {
    let values: Vec<f32> = tensor.into_data().convert::<f32>().try_to_vec().unwrap();
    values.iter().map(|value| value.to_bits()).collect()
}

fn image() -> Tensor<4> {
    tensor(&mut ChaCha8Rng::seed_from_u64(9), [2, 3, 9, 8], 1.0)
}

fn assert_same(loaded: &Net, saved: &Net) {
    let (saved_weights, loaded_weights) = (weights(saved), weights(loaded));
    assert_eq!(saved_weights.len(), 6);
    for (saved, loaded) in saved_weights.iter().zip(&loaded_weights) {
        assert_eq!(loaded.layer, saved.layer);
        assert_eq!(
            loaded.weight.is_packed(),
            saved.weight.is_packed(),
            "{}",
            saved.layer
        );
        let (saved, loaded) = (
            saved.weight.to_csr().unwrap(),
            loaded.weight.to_csr().unwrap(),
        );
        assert_eq!(loaded.row_ptr(), saved.row_ptr());
        assert_eq!(loaded.columns(), saved.columns());
        let bits = |csr: &Csr| csr.values().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&loaded), bits(&saved));
    }
    let norms = |net: &Net| {
        let norm = &net.blocks[0].norm;
        let states = [
            norm.running_mean.value_sync(),
            norm.running_var.value_sync(),
        ];
        let [mean, var] = states.map(bits);
        [bits(norm.gamma.val()), bits(norm.beta.val()), mean, var]
    };
    assert_eq!(norms(loaded), norms(saved));
    let small = |net: &Net| {
        (
            net.steps.val().into_data(),
            net.active.val().into_data(),
            net.scale.val().into_data(),
        )
    };
    assert_eq!(small(loaded), small(saved));
    assert_eq!(loaded.scale.val().dtype(), DType::F16);
    assert_eq!(bits(loaded.forward(image())), bits(saved.forward(image())));
}

#[test]
fn what_is_saved_is_loaded_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    let saved = Net::trained(1);
    let report = store::save(&saved, &path).unwrap();
    assert_same(
        &store::load(Net::new(&Device::flex()), &path).unwrap(),
        &saved,
    );
    // A packed model of the same architecture does as well as a dense one.
    assert_same(&store::load(Net::trained(2), &path).unwrap(), &saved);
    let (bytes, same) = store::to_bytes(&saved).unwrap();
    assert_eq!(bytes, fs::read(&path).unwrap());
    assert_eq!(same, report);
    assert_same(
        &store::from_bytes(Net::new(&Device::flex()), &bytes).unwrap(),
        &saved,
    );

    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(
        serde_json::from_str::<store::StoreReport>(&json).unwrap(),
        report
    );
    assert_eq!(report.file_bytes, bytes.len() as u64);
    assert_eq!(
        report.file_bytes,
        report.value_bytes + report.index_bytes + report.tensor_bytes + report.manifest_bytes
    );
    assert_eq!(report.dense_bytes, 4 * (saved_parameters() as u64));
    let table = report.to_string();
    assert!(
        table.contains("blocks.0.shortcut.weight") && table.contains("smaller"),
        "{table}"
    );
    let widths: Vec<usize> = table
        .lines()
        .take(7)
        .map(|line| line.chars().count())
        .collect();
    assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "{table}");
}

/// Of a dense [`Net`], integers and booleans included.
fn saved_parameters() -> usize {
    Net::new(&Device::flex()).num_params() + 6
}

#[test]
fn a_dense_checkpoint_unpacks_a_packed_model() {
    let device = Device::flex();
    let saved = vec![LinearConfig::new(6, 4).init(&device)];
    let (bytes, _) = store::to_bytes(&saved).unwrap();
    let packed = vec![LinearConfig::new(6, 4).init(&device).pack().unwrap()];
    let loaded = store::from_bytes(packed, &bytes).unwrap();
    assert!(loaded[0].weight.packed().is_none());
    assert_eq!(bits(loaded[0].weight.val()), bits(saved[0].weight.val()));
}

#[test]
fn layers_at_the_root_and_clones_are_told_apart() {
    let device = Device::flex();
    let layer = LinearConfig::new(6, 4).init(&device);
    let (bytes, report) = store::to_bytes(&layer.clone().pack().unwrap()).unwrap();
    assert_eq!(report.layers[0].weight, "weight");
    let loaded = store::from_bytes(LinearConfig::new(6, 4).init(&device), &bytes).unwrap();
    assert_eq!(bits(loaded.weight.val()), bits(layer.weight.val()));

    // Clones share their ids.
    let mut clones = vec![layer; 3];
    clones[1] = clones[1].clone().pack().unwrap();
    let (bytes, report) = store::to_bytes(&clones).unwrap();
    let names: Vec<_> = report
        .layers
        .iter()
        .map(|layer| layer.weight.as_str())
        .collect();
    assert_eq!(names, ["0.weight", "1.weight", "2.weight"]);
    let fresh = vec![LinearConfig::new(6, 4).init(&device); 3];
    let loaded = store::from_bytes(fresh, &bytes).unwrap();
    let packed: Vec<_> = loaded
        .iter()
        .map(|layer| layer.weight.packed().is_some())
        .collect();
    assert_eq!(packed, [false, true, false]);
}

#[test]
fn long_rows_have_wide_columns() {
    let device = Device::flex();
    for (len, dtype) in [(65_536, "U16"), (65_537, "U32")] {
        let mut rows = vec![0.0; 2 * len];
        (rows[0], rows[len - 1]) = (1.0, 2.0);
        (rows[len + 1], rows[2 * len - 1]) = (3.0, 4.0);
        let csr = Csr::from_dense(&rows, [2, len]).unwrap();
        let mut layer = LinearConfig::new(len, 2).with_bias(false).init(&device);
        layer.weight = Weight::Packed(PackedWeight::new(csr.clone(), [len, 2], &device).unwrap());
        let (bytes, _) = store::to_bytes(&layer).unwrap();
        assert_eq!(read(&bytes).0["tensors"]["weight.columns"]["dtype"], dtype);
        let fresh = LinearConfig::new(len, 2).with_bias(false).init(&device);
        let loaded = store::from_bytes(fresh, &bytes).unwrap();
        assert_eq!(loaded.weight.to_csr().unwrap(), csr);
    }
    // Rows of other lengths, in blocks no longer than 65,536.
    let mut rows = vec![0.0; 2 * 70_000];
    (rows[0], rows[69_999], rows[139_999]) = (1.0, 2.0, 3.0);
    let csr = Csr::from_dense(&rows, [2, 70_000]).unwrap();
    let mut layer = LinearConfig::new(70_000, 2).with_bias(false).init(&device);
    layer.weight = Weight::Packed(PackedWeight::new(csr.clone(), [70_000, 2], &device).unwrap());
    let (bytes, _) = store::to_bytes(&layer).unwrap();
    assert!(read(&bytes).1.contains_key("weight.panels"));
    let fresh = LinearConfig::new(70_000, 2).with_bias(false).init(&device);
    let loaded = store::from_bytes(fresh, &bytes).unwrap();
    assert_eq!(loaded.weight.to_csr().unwrap(), csr);
}

#[test]
fn ninety_percent_sparse_is_less_than_a_quarter() {
    let device = Device::flex();
    let rng = &mut ChaCha8Rng::seed_from_u64(3);
    let mut conv = Conv2dConfig::new([64, 64], [3, 3]).init(&device);
    conv.weight = weight(rng, &conv.weight, 0.1);
    let mut linear = LinearConfig::new(256, 100).init(&device);
    linear.weight = weight(rng, &linear.weight, 0.1);
    let norm = BatchNormConfig::new(64).init(&device);
    let (_, report) =
        store::to_bytes(&(conv.pack().unwrap(), norm, linear.pack().unwrap())).unwrap();
    assert!(report.compression() > 4.0, "{report}");
}

#[test]
fn statistics_pending_from_training_are_saved() {
    let device = Device::flex().autodiff();
    let norm = BatchNormConfig::new(3).init(&device);
    let x = Tensor::<4>::from_data(image().into_data(), &device);
    norm.forward(x * 3.0 + 1.0);
    let (bytes, _) = store::to_bytes(&norm).unwrap();
    let fresh = BatchNormConfig::new(3).init(&Device::flex());
    let loaded = store::from_bytes(fresh, &bytes).unwrap();
    let mean = bits(norm.running_mean.value_sync());
    assert_ne!(mean, vec![0; 3]);
    assert_eq!(bits(loaded.running_mean.value_sync()), mean);
}

#[test]
fn parameters_keep_ids_and_gradients() {
    let (bytes, _) = store::to_bytes(&Net::trained(4)).unwrap();
    let fresh = Net::new(&Device::flex().autodiff());
    let frozen = fresh.blocks[0].clone().no_grad();
    let fresh = Net {
        blocks: vec![frozen, fresh.blocks[1].clone()],
        ..fresh
    };
    let id = fresh.stem.weight.id();
    let loaded = store::from_bytes(fresh, &bytes).unwrap();
    assert_eq!(loaded.stem.weight.id(), id);
    assert!(loaded.stem.weight.dense().unwrap().val().is_require_grad());
    assert!(!loaded.blocks[0].norm.gamma.val().is_require_grad());
    assert!(loaded.blocks[1].norm.gamma.val().is_require_grad());
    // It trains on.
    let x = Tensor::<4>::from_data(image().into_data(), &Device::flex().autodiff());
    let gradients = loaded.forward(x).sum().backward();
    assert!(loaded.blocks[1].norm.beta.val().grad(&gradients).is_some());
}

fn refusal<T: core::fmt::Debug>(result: Result<T, SparseError>) -> String {
    match result {
        Err(SparseError::Checkpoint { reason, .. }) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn adapters_and_masks_are_to_be_folded_first() {
    let device = Device::flex();
    let adapted = LinearConfig::new(8, 8)
        .init(&device)
        .apply_lora(Lora::new(2, 4.0));
    let reason = refusal(store::to_bytes(&adapted));
    assert!(
        reason.contains("`weight`") && reason.contains("fold"),
        "{reason}"
    );
    let (bytes, _) = store::to_bytes(&LinearConfig::new(8, 8).init(&device)).unwrap();
    assert!(refusal(store::from_bytes(adapted, &bytes)).contains("fold"));
}

#[test]
fn other_architectures_are_refused_by_name() {
    let device = Device::flex();
    let linear = |d_in, d_out, bias| LinearConfig::new(d_in, d_out).with_bias(bias).init(&device);
    let saved = vec![linear(6, 4, true).pack().unwrap(), linear(4, 2, true)];
    let (bytes, _) = store::to_bytes(&saved).unwrap();
    let cases = [
        (vec![linear(6, 4, true)], vec!["`1.weight`", "not"]),
        (
            vec![
                linear(6, 4, true),
                linear(4, 2, true),
                linear(2, 2, true),
                linear(2, 2, true),
            ],
            vec!["no layer", "`2.weight`", "1 more"],
        ),
        (
            vec![linear(6, 5, true), linear(4, 2, true)],
            vec!["`0.weight`", "[6, 4]", "[6, 5]"],
        ),
        (
            vec![linear(6, 4, true), linear(4, 3, true)],
            vec!["`1.weight`", "[4, 2]", "[4, 3]"],
        ),
        (
            vec![linear(6, 4, false), linear(4, 2, true)],
            vec!["`0.bias`", "no place"],
        ),
    ];
    for (model, parts) in cases {
        let reason = refusal(store::from_bytes(model, &bytes));
        assert!(parts.iter().all(|part| reason.contains(part)), "{reason}");
    }
    let (bytes, _) = store::to_bytes(&vec![linear(6, 4, false), linear(4, 2, false)]).unwrap();
    let reason = refusal(store::from_bytes(saved, &bytes));
    assert!(
        reason.contains("no tensor `0.bias` (and 1 more)"),
        "{reason}"
    );
    // Same path and shape, other kind.
    let plain = vec![Conv1dConfig::new(4, 6, 1).init(&device)];
    let conv = vec![Conv2dConfig::new([4, 6], [1, 1]).init(&device)];
    let (bytes, _) = store::to_bytes(&plain).unwrap();
    let reason = refusal(store::from_bytes(conv, &bytes));
    assert!(
        reason.contains("conv1d") && reason.contains("conv2d"),
        "{reason}"
    );
    // Burn's own layers.
    let (bytes, _) = store::to_bytes(&BatchNormConfig::new(4).init(&device)).unwrap();
    let reason = refusal(store::from_bytes(
        BatchNormConfig::new(5).init(&device),
        &bytes,
    ));
    assert!(reason.contains("[4]") && reason.contains("[5]"), "{reason}");
}

#[test]
fn a_refused_checkpoint_changes_nothing() {
    let device = Device::flex();
    let saved = (
        BatchNormConfig::new(2).init(&device),
        LinearConfig::new(3, 3).init(&device),
    );
    saved.0.running_mean.update(Tensor::ones([2], &device));
    let (bytes, _) = store::to_bytes(&saved).unwrap();
    let model = (
        BatchNormConfig::new(2).init(&device),
        LinearConfig::new(3, 4).init(&device),
    );
    refusal(store::from_bytes(model.clone(), &bytes));
    // Clones share running statistics, so a half-done load would show.
    assert_eq!(bits(model.0.running_mean.value_sync()), [0, 0]);
}

/// A small model whose checkpoint has every kind of tensor.
type Small = (
    Linear,
    Linear,
    Linear,
    burn::nn::Linear,
    Param<Tensor<1, Bool>>,
);

fn small() -> Small {
    let device = Device::flex();
    let linear = |d_in| LinearConfig::new(d_in, 3).with_bias(false).init(&device);
    let flags = Tensor::from_data([false, true], &device);
    (
        linear(40),
        linear(80),
        linear(4),
        burn::nn::LinearConfig::new(15, 17)
            .with_bias(false)
            .init(&device),
        Param::initialized(burn::module::ParamId::new(), flags),
    )
}

fn small_bytes() -> Vec<u8> {
    let mut model = small();
    let pack = |row_len: usize, entries: &[(usize, f32)]| {
        let mut rows = vec![0.0; 3 * row_len];
        entries.iter().for_each(|&(at, value)| rows[at] = value);
        let csr = Csr::from_dense(&rows, [3, row_len]).unwrap();
        Weight::Packed(PackedWeight::new(csr, [row_len, 3], &Device::flex()).unwrap())
    };
    let values = [5.0, 1.0, 2.0, 3.0, 7.0, 3.0];
    let at = |places: [usize; 6]| core::array::from_fn::<_, 6, _>(|i| (places[i], values[i]));
    // So few that columns are smaller, and panels where rows differ in length.
    model.0.weight = pack(40, &at([0, 3, 41, 79, 82, 119]));
    model.1.weight = pack(80, &at([0, 3, 79, 160, 161, 239]));
    // So many that a mask is smaller.
    model.2.weight = pack(4, &at([0, 3, 9, 10, 11, 8]));
    let mut sparse = vec![0.0f32; 15 * 17];
    for (i, value) in [1.5, -0.0, f32::NAN, f32::INFINITY, -7.0, 1e-40]
        .into_iter()
        .enumerate()
    {
        sparse[i * i * 10 + 4] = value;
    }
    let sparse = TensorData::new(sparse, [15, 17]);
    model.3.weight = Param::from_tensor(Tensor::from_data(sparse, &Device::flex()));
    let (bytes, _) = store::to_bytes(&model).unwrap();
    let names: Vec<String> = read(&bytes).1.into_keys().collect();
    let expected = [
        "0.weight.columns",
        "0.weight.values",
        "1.weight.panels",
        "1.weight.values",
        "2.weight.mask",
        "2.weight.values",
        "3.weight.mask",
        "3.weight.values",
        "4",
    ];
    assert_eq!(names, expected);
    bytes
}

#[test]
fn truncated_and_overlong_files_are_refused() {
    let bytes = small_bytes();
    store::from_bytes(small(), &bytes).unwrap();
    for len in 0..bytes.len() {
        refusal(store::from_bytes(small(), &bytes[..len]));
    }
    for more in [1, 2, 7, 8, 1000] {
        let mut long = bytes.clone();
        long.resize(bytes.len() + more, 0);
        let reason = refusal(store::from_bytes(small(), &long));
        assert!(reason.contains("appended"), "{reason}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut");
    for len in (0..bytes.len()).step_by(13) {
        fs::write(&path, &bytes[..len]).unwrap();
        refusal(store::load(small(), &path));
        refusal(store::read_manifest(&path));
    }
    fs::write(&path, [&bytes[..], b"tail"].concat()).unwrap();
    refusal(store::load(small(), &path));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = small_bytes();
    for bit in 0..8 * bytes.len() {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        refusal(store::from_bytes(small(), &flipped));
    }
}

fn mutate(rng: &mut ChaCha8Rng, bytes: &mut Vec<u8>) {
    for _ in 0..rng.random_range(1..4) {
        let len = bytes.len().max(1);
        let (start, size) = (rng.random_range(0..len), rng.random_range(1..24));
        let end = (start + size).min(bytes.len());
        let start = start.min(end);
        match rng.random_range(0..8) {
            0 => bytes[start..end]
                .iter_mut()
                .for_each(|byte| *byte = rng.random()),
            1 => drop(bytes.drain(start..end)),
            2 => bytes.truncate(start),
            3 => bytes.extend_from_within(start..end),
            4 => drop(bytes.splice(start..start, (0..size).map(|_| rng.random::<u8>()))),
            5 if bytes.len() >= 8 => {
                let huge = rng.random::<u64>() >> rng.random_range(0..64);
                bytes[..8].copy_from_slice(&huge.to_le_bytes());
            }
            6 => {
                // Numbers of the header become other numbers.
                let digits = bytes
                    .iter()
                    .enumerate()
                    .filter(|(_, byte)| byte.is_ascii_digit());
                let digits: Vec<usize> = digits.map(|(index, _)| index).collect();
                if !digits.is_empty() {
                    let at = digits[rng.random_range(0..digits.len())];
                    bytes.splice(at..=at, (0..size).map(|_| b'9'));
                }
            }
            _ => bytes[start..end].reverse(),
        }
    }
}

const PREFIX: &str = r#"{"__metadata__":{"burn-sparse":"{\"header_crc32\":\""#;

/// Makes the header's checksum right again, where there is still a header.
fn reseal(bytes: &mut [u8]) {
    let digits = 8 + PREFIX.len()..16 + PREFIX.len();
    if bytes.len() < digits.end {
        return;
    }
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    let end = len.saturating_add(8).min(bytes.len() as u64) as usize;
    if end < digits.end {
        return;
    }
    bytes[digits.clone()].copy_from_slice(b"00000000");
    let crc = format!("{:08x}", crc32fast::hash(&bytes[..end]));
    bytes[digits].copy_from_slice(crc.as_bytes());
}

#[test]
fn random_mutations_neither_panic_nor_ask_for_memory() {
    let bytes = small_bytes();
    let rng = &mut ChaCha8Rng::seed_from_u64(7);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mutant");
    for round in 0..8_000 {
        let mut mutant = bytes.clone();
        mutate(rng, &mut mutant);
        // Half of them get past the first checksum, into what stands behind it.
        let sealed = round % 2 == 1;
        if sealed {
            reseal(&mut mutant);
        }
        let model = small();
        let (result, asked) = asked_by(|| store::from_bytes(model, &mutant));
        if !sealed && mutant != bytes {
            refusal(result);
        }
        // The constant is the model's own survey.
        assert!(
            asked <= 64 * mutant.len() + 100_000,
            "{asked} for {} bytes",
            mutant.len()
        );
        if round % 16 == 0 {
            fs::write(&path, &mutant).unwrap();
            let model = small();
            let (result, asked) = asked_by(|| store::load(model, &path));
            assert_eq!(result.is_ok(), mutant == bytes);
            assert!(
                asked <= 64 * mutant.len() + 100_000,
                "{asked} for {} bytes",
                mutant.len()
            );
        }
    }
}

type Parts = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// The manifest and the tensors of a checkpoint.
fn read(bytes: &[u8]) -> (Value, Parts) {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
    let text = &header.metadata().as_ref().unwrap()["burn-sparse"];
    let parts = file.tensors().into_iter().map(|(name, view)| {
        (
            name,
            (view.dtype(), view.shape().to_vec(), view.data().to_vec()),
        )
    });
    (serde_json::from_str(text).unwrap(), parts.collect())
}

/// A checkpoint with altered contents whose checksums are all right: what a forger would write.
fn forge(bytes: &[u8], alter: impl FnOnce(&mut Value, &mut Parts)) -> Vec<u8> {
    let (mut manifest, mut parts) = read(bytes);
    for (name, (dtype, shape, _)) in &parts {
        let listed = &manifest["tensors"][name];
        assert_eq!(listed["dtype"], dtype.to_string());
        assert_eq!(listed["shape"], json!(shape));
    }
    alter(&mut manifest, &mut parts);
    let mut total = 0;
    for (name, (_, _, data)) in &parts {
        total += data.len();
        if let Some(listed) = manifest["tensors"].get_mut(name) {
            listed["crc32"] = json!(crc32fast::hash(data));
        }
    }
    if manifest["data_len"].is_u64() {
        manifest["data_len"] = json!(total);
    }
    manifest.as_object_mut().unwrap().remove("header_crc32");
    let text = format!(
        r#"{{"header_crc32":"00000000",{}"#,
        &manifest.to_string()[1..]
    );
    let views = parts.iter().map(|(name, (dtype, shape, data))| {
        (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    let metadata = HashMap::from([("burn-sparse".to_string(), text)]);
    let mut forged = safetensors::serialize(views, Some(metadata)).unwrap();
    reseal(&mut forged);
    forged
}

#[test]
fn forged_contents_are_refused_with_their_reason() {
    type Alter = fn(&mut Value, &mut Parts);
    let cases: [(&str, Alter); 41] = [
        ("of version 1;", |m, _| m["version"] = json!(1)),
        ("of version 2;", |m, _| m["version"] = json!(2)),
        ("another", |m, _| m["format"] = json!("another")),
        ("header is broken", |m, _| m["version"] = json!("one")),
        ("header is broken", |m, _| m["layers"] = json!(7)),
        ("conv1d", |m, _| m["layers"][0]["kind"] = json!("conv1d")),
        ("[4, 9]", |m, _| m["layers"][0]["shape"] = json!([4, 9])),
        ("same name", |m, _| {
            let again = m["layers"][0].clone();
            m["layers"].as_array_mut().unwrap().push(again);
        }),
        ("no layer", |m, _| {
            drop(m["layers"].as_array_mut().unwrap().pop())
        }),
        ("should be F32", |m, _| {
            m["layers"][0]["packed"]["stored"] = json!(u64::MAX)
        }),
        ("in each of 3 rows", |m, _| {
            m["layers"][0]["packed"]["nnz_per_row"] = json!(u64::MAX);
        }),
        ("in each of 3 rows", |m, _| {
            m["layers"][0]["packed"]["nnz_per_row"] = json!(1)
        }),
        ("non-zeros", |m, _| {
            m["layers"][0]["packed"]["nnz"] = json!(5)
        }),
        ("equally many in each of 3 rows", |m, _| {
            m["layers"][0]["packed"]["nnz_per_row"] = Value::Null;
        }),
        ("no tensor `0.weight`", |m, _| {
            m["layers"][0]["packed"] = Value::Null
        }),
        ("column 40", |_, p| {
            p.get_mut("0.weight.columns").unwrap().2[2] = 40
        }),
        ("do not ascend", |_, p| {
            p.get_mut("0.weight.columns").unwrap().2[2] = 0
        }),
        ("only finite", |_, p| {
            p.get_mut("0.weight.values").unwrap().2[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        }),
        ("without rows", |_, p| {
            p.get_mut("1.weight.panels").unwrap().2[0] = 0
        }),
        ("rows or columns", |_, p| {
            p.get_mut("1.weight.panels").unwrap().2[3] = 9
        }),
        ("should be U8", |m, p| {
            m["tensors"]["1.weight.panels"]["shape"] = json!([1, 1]);
            let panels = p.get_mut("1.weight.panels").unwrap();
            panels.1 = vec![1, 1];
            panels.2.truncate(1);
        }),
        ("no booleans", |_, p| p.get_mut("4").unwrap().2[1] = 2),
        ("lists", |_, p| drop(p.remove("4"))),
        ("7 bits set for 6", |_, p| {
            p.get_mut("2.weight.mask").unwrap().2[0] |= 2
        }),
        ("5 bits set for 6", |_, p| {
            p.get_mut("2.weight.mask").unwrap().2[0] &= !1
        }),
        ("after the 12th", |_, p| {
            let mask = &mut p.get_mut("2.weight.mask").unwrap().2;
            mask[0] &= !1;
            mask[1] |= 0x80;
        }),
        ("should be U8 [2]", |m, p| {
            m["tensors"]["2.weight.mask"]["shape"] = json!([3]);
            let mask = p.get_mut("2.weight.mask").unwrap();
            mask.1[0] = 3;
            mask.2.push(0);
        }),
        ("should be F32 [7]", |m, _| {
            m["layers"][2]["packed"]["stored"] = json!(7)
        }),
        ("rows of `2.weight`", |m, _| {
            m["layers"][2]["packed"]["nnz_per_row"] = json!(2)
        }),
        ("no tensor `2.weight.columns`", |m, _| {
            m["layers"][2]["packed"]["index"] = json!("columns")
        }),
        ("header is broken", |m, _| {
            m["layers"][2]["packed"]["index"] = json!("bits")
        }),
        ("bits set", |m, _| {
            m["sparse"]["3.weight"]["stored"] = json!(u64::MAX)
        }),
        ("after the 255th", |_, p| {
            let mask = &mut p.get_mut("3.weight.mask").unwrap().2;
            mask[0] &= !0x10;
            mask[31] |= 0x80;
        }),
        ("[15, 18]", |m, _| {
            m["sparse"]["3.weight"]["shape"] = json!([15, 18])
        }),
        ("in this model [15, 17]", |m, _| {
            m["sparse"]["3.weight"]["shape"] = json!([1u64 << 60, 1u64 << 60]);
        }),
        ("should be F64", |m, _| {
            m["sparse"]["3.weight"]["dtype"] = json!("F64")
        }),
        ("not Float values", |m, _| {
            m["sparse"]["3.weight"]["dtype"] = json!("I32")
        }),
        ("no floats", |m, p| {
            let listed = m["tensors"].as_object_mut().unwrap();
            let flags = p.remove("4").unwrap();
            let entry = listed.remove("4").unwrap();
            m["sparse"]["4"] = json!({"dtype": "BOOL", "shape": [2], "stored": 2});
            m["tensors"]["4.values"] = entry;
            m["tensors"]["4.mask"] = json!({"dtype": "U8", "shape": [1], "crc32": 0});
            p.insert("4.values".into(), flags);
            p.insert("4.mask".into(), (Dtype::U8, vec![1], vec![3]));
        }),
        ("lists `0.weight` as sparse", |m, _| {
            m["sparse"]["0.weight"] = json!({"dtype": "F32", "shape": [40, 3], "stored": 6});
        }),
        ("no tensor `3.weight`", |m, _| m["sparse"] = json!({})),
        ("no place", |m, p| {
            m["tensors"]["stowaway"] = json!({"dtype": "U8", "shape": [1], "crc32": 0});
            p.insert("stowaway".into(), (Dtype::U8, vec![1], vec![3]));
        }),
    ];
    let bytes = small_bytes();
    store::from_bytes(small(), &forge(&bytes, |_, _| {})).unwrap();
    for (part, alter) in cases {
        let forged = forge(&bytes, alter);
        let model = small();
        let (result, asked) = asked_by(|| store::from_bytes(model, &forged));
        let reason = refusal(result);
        assert!(reason.contains(part), "{reason} (expected {part})");
        assert!(asked <= 64 * forged.len() + 100_000, "{asked}: {reason}");
    }
    // Any data at all behind right checksums: loaded or refused, never a panic.
    let rng = &mut ChaCha8Rng::seed_from_u64(8);
    let names: Vec<String> = read(&bytes).1.into_keys().collect();
    for _ in 0..1_000 {
        let forged = forge(&bytes, |_, parts| {
            let data = &mut parts
                .get_mut(&names[rng.random_range(0..names.len())])
                .unwrap()
                .2;
            let at = rng.random_range(0..data.len());
            data[at] = rng.random();
        });
        let _ = store::from_bytes(small(), &forged);
    }
}

#[test]
fn a_huge_file_of_nothing_is_refused_unread() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge");
    // Takes no space where the file system has holes.
    fs::File::create(&path).unwrap().set_len(1 << 34).unwrap();
    let (result, asked) = asked_by(|| store::load(small(), &path));
    refusal(result);
    assert!(asked < 100_000, "{asked}");
    let mut start = small_bytes();
    start[..8].copy_from_slice(&(1u64 << 33).to_le_bytes());
    use std::io::Write;
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .write_all(&start)
        .unwrap();
    let (result, asked) = asked_by(|| store::load(small(), &path));
    refusal(result);
    assert!(asked < 100_000, "{asked}");
}

#[test]
fn places_that_cannot_be_written_or_read_are_typed_errors() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"in the way").unwrap();
    let places = [
        file.join("net"),
        folder.path().join("nowhere/net"),
        folder.path().to_path_buf(),
    ];
    for place in places {
        let error = store::save(&small(), &place).unwrap_err();
        assert!(matches!(error, SparseError::Io { .. }), "{error}");
        assert!(
            error.to_string().contains(&place.display().to_string()),
            "{error}"
        );
        let error = store::load(small(), &place).unwrap_err();
        assert!(matches!(error, SparseError::Io { .. }), "{error}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"in the way");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn the_manifest_tells_what_is_inside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net");
    store::save(&Net::trained(5), &path).unwrap();
    let manifest = store::read_manifest(&path).unwrap();
    assert_eq!(manifest.version, 4);
    let layers: Vec<_> = manifest
        .layers
        .iter()
        .map(|layer| layer.weight.as_str())
        .collect();
    assert_eq!(layers[..2], ["stem.weight", "blocks.0.conv.weight"]);
    assert_eq!(manifest.layers[0].packed, None);
    let uneven = manifest.layers[1].packed.as_ref().unwrap();
    // The stored -0.0 is no non-zero.
    assert_eq!(
        (uneven.stored, uneven.nnz, uneven.nnz_per_row),
        (20, 19, None)
    );
    assert_eq!(uneven.index, store::Index::Mask);
    assert_eq!(manifest.tensors["blocks.0.conv.weight.mask"].shape, [27]);
    let stem = &manifest.sparse["stem.weight"];
    assert_eq!(
        (stem.dtype.as_str(), &stem.shape[..]),
        ("F32", &[8, 3, 3, 3][..])
    );
    assert_eq!(manifest.tensors["stem.weight.values"].shape, [stem.stored]);
    assert_eq!(manifest.sparse.len(), 1);
    assert_eq!(manifest.tensors["scale"].dtype, "F16");
    assert!(!manifest.tensors.contains_key("blocks.0.conv.weight"));
}

#[cfg(unix)]
#[test]
fn others_may_read_what_was_saved() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (saved, plain) = (folder.path().join("saved"), folder.path().join("plain"));
    store::save(&small(), &saved).unwrap();
    fs::write(&plain, b"").unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&saved), mode(&plain));
}
