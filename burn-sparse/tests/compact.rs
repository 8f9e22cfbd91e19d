//! Compact checkpoints: every bit comes back, the ledger is the file, and nothing else gets in.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::nn::{BatchNorm, BatchNormConfig};
use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};
use burn_sparse::format::Csr;
use burn_sparse::nn::{
    Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Gru, GruConfig, Linear, LinearConfig, Lstm,
    LstmConfig, PackedWeight, Weight,
};
use burn_sparse::store::compact::{self, LevelKind, Positions, Values};
use burn_sparse::{SparseError, store};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

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

fn device() -> Device {
    Device::flex()
}

fn param<const D: usize>(values: Vec<f32>, dims: [usize; D]) -> Param<Tensor<D>> {
    Param::from_tensor(Tensor::from_data(TensorData::new(values, dims), &device()))
}

/// Every bit of a model, packed layers and statistics included.
fn bits<M: Module>(model: &M) -> Vec<u8> {
    store::to_bytes(model).unwrap().0
}

/// Saves, loads into a fresh model and compares; returns the ledger.
fn round_trip<M: Module>(model: &M, fresh: M) -> compact::Ledger {
    let (bytes, ledger) = compact::to_bytes(model).unwrap();
    assert_eq!(bytes.len() as u64, ledger.file_bytes);
    let loaded = compact::from_bytes(fresh, &bytes).unwrap();
    assert!(bits(&loaded) == bits(model), "{ledger}");
    // What was loaded is written the same.
    assert_eq!(compact::to_bytes(&loaded).unwrap().0, bytes);
    ledger
}

fn refusal<T: core::fmt::Debug>(result: Result<T, SparseError>) -> String {
    match result {
        Err(SparseError::Checkpoint { reason, .. }) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

/// Normal enough for weights.
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0
}

#[derive(Module, Debug)]
struct LeNet {
    conv1: Conv2d,
    conv2: Conv2d,
    fc1: Linear,
    fc2: Linear,
}

impl LeNet {
    fn new() -> Self {
        let device = &device();
        Self {
            conv1: Conv2dConfig::new([1, 20], [5, 5]).init(device),
            conv2: Conv2dConfig::new([20, 50], [5, 5]).init(device),
            fc1: LinearConfig::new(800, 500).init(device),
            fc2: LinearConfig::new(500, 10).init(device),
        }
    }

    /// Pruned to 2,570 weights, random ones of `±q .. ±4q` in convolutions and of `±q, ±2q` in linear
    /// layers. Rows and columns are unequally important, as in trained networks (by a factor whose
    /// logarithm has a deviation of `spread`), and inputs that no output feeds have lost their weights.
    /// Biases of outputs without weights are zero, the others random multiples of 1/64.
    fn pruned(spread: f32, seed: u64) -> Self {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let mut net = Self::new();
        let mut inputs = vec![1.0];
        let (weight, bias) = layer(rng, [20, 25], 90, 4, spread, &mut inputs);
        net.conv1.weight = param(weight, [20, 1, 5, 5]).into();
        net.conv1.bias = Some(param(bias, [20]));
        let (weight, bias) = layer(rng, [50, 500], 800, 4, spread, &mut inputs);
        net.conv2.weight = param(weight, [50, 20, 5, 5]).into();
        net.conv2.bias = Some(param(bias, [50]));
        let (weight, bias) = layer(rng, [500, 800], 1_450, 2, spread, &mut inputs);
        net.fc1.weight = param(transposed(&weight, 800), [800, 500]).into();
        net.fc1.bias = Some(param(bias, [500]));
        let (weight, bias) = layer(rng, [10, 500], 230, 2, spread, &mut inputs);
        net.fc2.weight = param(transposed(&weight, 500), [500, 10]).into();
        net.fc2.bias = Some(param(bias, [10]));
        net
    }

    fn packed(self, equalise: bool) -> Self {
        Self {
            conv1: Conv2d {
                weight: self.conv1.weight.pack(equalise).unwrap(),
                ..self.conv1
            },
            conv2: Conv2d {
                weight: self.conv2.weight.pack(equalise).unwrap(),
                ..self.conv2
            },
            fc1: Linear {
                weight: self.fc1.weight.pack(equalise).unwrap(),
                ..self.fc1
            },
            fc2: Linear {
                weight: self.fc2.weight.pack(equalise).unwrap(),
                ..self.fc2
            },
        }
    }
}

/// A row-major matrix with rows of `columns`, column by column.
fn transposed(matrix: &[f32], columns: usize) -> Vec<f32> {
    (0..columns)
        .flat_map(|column| matrix.iter().skip(column).step_by(columns).copied())
        .collect()
}

/// The `nnz` largest of random weights, put on `levels` magnitudes, and biases. `inputs` has the
/// importance of each input channel, zero for those cut off, and gets those of the outputs.
fn layer(
    rng: &mut ChaCha8Rng,
    [rows, columns]: [usize; 2],
    nnz: usize,
    levels: usize,
    spread: f32,
    inputs: &mut Vec<f32>,
) -> (Vec<f32>, Vec<f32>) {
    let mut scales = |count: usize, spread: f32| -> Vec<f32> {
        (0..count).map(|_| (spread * normal(rng)).exp()).collect()
    };
    let (of_rows, of_columns) = (scales(rows, spread), scales(columns, 0.5 * spread));
    let mut weights: Vec<f32> = (0..rows * columns)
        .map(|at| {
            let input = inputs[at % columns * inputs.len() / columns];
            normal(rng) * of_rows[at / columns] * of_columns[at % columns] * input
        })
        .collect();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&a, &b| weights[b].abs().total_cmp(&weights[a].abs()));
    order[nnz..].iter().for_each(|&at| weights[at] = 0.0);
    // All levels equally often: values have nothing to learn.
    let q = weights[order[nnz - 1]].abs();
    for &at in &order[..nnz] {
        let level = rng.random_range(1..=levels) as f32;
        weights[at] = level * q * weights[at].signum();
    }
    *inputs = of_rows;
    let mut biases = vec![0.0; rows];
    for (row, bias) in biases.iter_mut().enumerate() {
        if weights[row * columns..][..columns]
            .iter()
            .all(|weight| *weight == 0.0)
        {
            inputs[row] = 0.0;
        } else {
            *bias = f32::from(rng.random_range(-4i8..=4)) / 64.0 + 0.0;
        }
    }
    (weights, biases)
}

#[test]
fn a_pruned_lenet_takes_two_kilobytes() {
    // Measured plus 2 %. Without any spread there is nothing to learn but how many weights there are.
    for (spread, most) in [(0.0, 3_749), (0.4, 2_744), (0.8, 2_263)] {
        let net = LeNet::pruned(spread, 1);
        let ledger = round_trip(&net, LeNet::new());
        println!("{ledger}");
        assert_eq!(
            (ledger.weights.nnz, ledger.weights.elements),
            (2_570, 430_500)
        );
        assert!(ledger.file_bytes <= most, "{ledger}");
        // Packed it takes as much, with zeros that make rows equally long or without.
        for equalise in [false, true] {
            let packed = LeNet::pruned(spread, 1).packed(equalise);
            let packed = round_trip(&packed, LeNet::new());
            assert!(packed.file_bytes <= ledger.file_bytes + 4, "{packed}");
        }
    }
}

#[derive(Module, Debug)]
struct Net {
    convs: Vec<Conv2d>,
    norm: BatchNorm,
    line: Conv1d,
    gru: Gru,
    lstm: Lstm,
    plain: burn::nn::Linear,
    steps: Param<Tensor<1, Int>>,
    active: Param<Tensor<1, Bool>>,
    scale: Param<Tensor<2>>,
    wide: Param<Tensor<1>>,
    nothing: Param<Tensor<2>>,
}

impl Net {
    fn new() -> Self {
        let device = &device();
        let conv = || {
            Conv2dConfig::new([6, 8], [3, 2])
                .with_groups(2)
                .init(device)
        };
        Self {
            convs: (0..6).map(|_| conv()).collect(),
            norm: BatchNormConfig::new(5).init(device),
            line: Conv1dConfig::new(4, 3, 5).init(device),
            gru: GruConfig::new(7, 9, true).init(device),
            lstm: LstmConfig::new(5, 6, false).init(device),
            plain: burn::nn::LinearConfig::new(9, 4).init(device),
            steps: Param::initialized(ParamId::new(), Tensor::zeros([3], device)),
            active: Param::initialized(
                ParamId::new(),
                Tensor::from_data([false, false, false], device),
            ),
            scale: Param::from_tensor(Tensor::ones([7, 11], device)),
            wide: Param::from_tensor(Tensor::ones([4], device)),
            nothing: param(vec![], [0, 3]),
        }
    }

    fn trained(seed: u64) -> Self {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        // Burn draws from one stream for all threads: tests that run beside this one would change it.
        let mut net = Self::new().map(&mut Drawn(rng));
        let dims = [8, 3, 3, 2];
        let grid = |rng: &mut ChaCha8Rng, density: f64, len: usize| -> Vec<f32> {
            (0..len)
                .map(|_| {
                    let level = [-2.0, -1.0, 1.0, 2.0][rng.random_range(0..4)];
                    if rng.random_bool(density) {
                        level * 0.37
                    } else {
                        0.0
                    }
                })
                .collect()
        };
        let rows = |values: Vec<f32>| Csr::from_dense(&values, [8, 18]).unwrap();
        let packed = |csr: Csr| Weight::Packed(PackedWeight::new(csr, dims, &device()).unwrap());
        // Nothing, one weight, all weights, some; packed and dense.
        net.convs[0].weight = packed(rows(vec![0.0; 144]));
        let mut one = vec![0.0; 144];
        one[77] = -1.5;
        net.convs[1].weight = param(one, dims).into();
        net.convs[2].weight = packed(rows(grid(rng, 1.0, 144)));
        net.convs[3].weight = param(grid(rng, 0.2, 144), dims).into();
        // Equally long rows by stored zeros, and a stored negative zero.
        net.convs[4].weight = packed(rows(grid(rng, 0.3, 144)).equalised());
        let mut negative = grid(rng, 0.3, 144);
        negative[100] = -0.0;
        net.convs[5].weight = packed(rows(negative));
        net.convs[5].bias = Some(param(vec![0.0; 8], [8]));
        net.norm
            .running_mean
            .update(Tensor::from_data([0.1, -3.0, 1e-40, 0.0, 5.0], &device()));
        let sparse = |rng: &mut ChaCha8Rng, len: usize, density: f64| -> Vec<f32> {
            (0..len)
                .map(|_| {
                    if rng.random_bool(density) {
                        normal(rng)
                    } else {
                        0.0
                    }
                })
                .collect()
        };
        net.line.weight = Weight::from(param(sparse(rng, 60, 0.5), [3, 4, 5]))
            .pack(true)
            .unwrap();
        net.gru.input.weight = param(grid(rng, 0.1, 7 * 27), [7, 27]).into();
        let state = net.gru.state.weight.dims();
        net.gru.state.weight = Weight::from(param(sparse(rng, state[0] * state[1], 0.1), state))
            .pack(false)
            .unwrap();
        let state = net.lstm.state.weight.dims();
        net.lstm.state.weight = Weight::from(param(grid(rng, 0.3, state[0] * state[1]), state))
            .pack(true)
            .unwrap();
        let special = [
            f32::NAN,
            f32::from_bits(0x7fa0_0001),
            f32::INFINITY,
            -0.0,
            1e-45,
        ];
        let values = (0..36).map(|at| special.get(at / 7).copied().unwrap_or(0.0) * 1.0);
        net.plain.weight = param(values.collect(), [9, 4]);
        net.steps = net.steps.map(|steps| steps + 41);
        net.active = net
            .active
            .map(|_| Tensor::from_data([true, false, true], &device()));
        let half = TensorData::new(grid(rng, 0.4, 77), [7, 11]).convert_dtype(DType::F16);
        net.scale = net
            .scale
            .map(|_| Tensor::from_data(half, (&device(), DType::F16)));
        let wide = TensorData::from([0.1f64, 0.5, -0.0, 0.0]);
        net.wide = net
            .wide
            .map(|_| Tensor::from_data(wide, (&device(), DType::F64)));
        net
    }
}

/// Gives every parameter values of its own stream.
struct Drawn<'a>(&'a mut ChaCha8Rng);

impl ModuleMapper for Drawn<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|old| {
            let values = (0..old.shape().num_elements()).map(|_| normal(self.0));
            Tensor::from_data(
                TensorData::new(values.collect::<Vec<f32>>(), old.shape()),
                &old.device(),
            )
        })
    }
}

#[test]
fn every_bit_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.bsc");
    for seed in 0..5 {
        let saved = Net::trained(seed);
        let ledger = round_trip(&saved, Net::new());
        // A packed model of the same architecture does as well as a dense one.
        round_trip(&saved, Net::trained(seed + 9));
        assert_eq!(compact::save(&saved, &path).unwrap(), ledger);
        let loaded = compact::load(Net::new(), &path).unwrap();
        assert!(bits(&loaded) == bits(&saved));
        assert!(
            loaded.convs[4].weight.packed().is_some() && loaded.convs[3].weight.packed().is_none()
        );
        assert_eq!(loaded.scale.val().dtype(), DType::F16);
        // And one that is untrained, where nothing is on a grid.
        round_trip(&Net::new(), Net::trained(seed));
    }
}

#[test]
fn the_ledger_is_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.bsc");
    let net = Net::trained(3);
    for (model, fresh) in [(Net::trained(3), Net::new()), (Net::new(), net)] {
        let ledger = compact::save(&model, &path).unwrap();
        assert_eq!(ledger.file_bytes, fs::metadata(&path).unwrap().len());
        let parts = [
            ledger.value_bytes,
            ledger.index_bytes,
            ledger.codebook_bytes,
        ];
        assert_eq!(
            parts.iter().sum::<u64>() + ledger.rest_bytes,
            ledger.file_bytes
        );
        let sum =
            |bytes: fn(&compact::LedgerRow) -> u64| ledger.layers.iter().map(bytes).sum::<u64>();
        assert_eq!(sum(|row| row.value_bytes), ledger.value_bytes);
        assert_eq!(sum(|row| row.index_bytes), ledger.index_bytes);
        assert_eq!(sum(|row| row.codebook_bytes), ledger.codebook_bytes);
        // Read again from the file, with a model and without.
        assert_eq!(compact::ledger(&fresh, &path).unwrap(), ledger);
        let manifest = compact::read_manifest(&path).unwrap();
        assert_eq!(
            (manifest.version, manifest.tensors.len()),
            (1, ledger.layers.len())
        );
        assert_eq!(manifest.rest_bytes, ledger.rest_bytes);
        assert_eq!(manifest.file_bytes, ledger.file_bytes);
        for (coding, row) in manifest.tensors.iter().zip(&ledger.layers) {
            assert_eq!(
                (coding.positions, coding.values),
                (row.positions, row.values)
            );
        }
        let json = serde_json::to_string(&ledger).unwrap();
        assert_eq!(
            serde_json::from_str::<compact::Ledger>(&json).unwrap(),
            ledger
        );
        let json = serde_json::to_string(&manifest).unwrap();
        assert_eq!(
            serde_json::from_str::<compact::Manifest>(&json).unwrap(),
            manifest
        );
    }
}

#[test]
fn the_chain_is_calculated_by_both_conventions() {
    let net = LeNet::pruned(0.8, 2);
    let (_, ledger) = compact::to_bytes(&net).unwrap();
    let (weights, all) = (ledger.weights, ledger.all);
    assert_eq!((weights.elements, all.elements), (430_500, 431_080));
    assert_eq!(
        (weights.dense_bytes, all.dense_bytes),
        (1_722_000, 1_724_320)
    );
    assert_eq!(
        (weights.pruned_bytes, weights.pruned_indexed_bytes),
        (10_280, 15_420)
    );
    // Three bits in convolutions, two in linear layers.
    assert_eq!(
        weights.quantised_bytes,
        (890 * 3 + 1_680 * 2u64).div_ceil(8)
    );
    assert!((weights.values_alone() - 1_722_000.0 / 754.0).abs() < 1e-9);
    assert!((ledger.everything() - 1_724_320.0 / ledger.file_bytes as f64).abs() < 1e-9);
    let table = ledger.to_string();
    for text in [
        "conv2.weight",
        "nonzero",
        "1722000",
        "1724320",
        "everything",
        "range-coded",
    ] {
        assert!(table.contains(text), "{text} is missing in\n{table}");
    }
    assert!((ledger.everything_of_weights() - 1_722_000.0 / ledger.file_bytes as f64).abs() < 1e-9);
}

#[test]
fn levels_are_told_in_the_form_they_have() {
    let linear = |values: Vec<f32>, [input, output]: [usize; 2]| {
        let mut layer = LinearConfig::new(input, output)
            .with_bias(false)
            .init(&device());
        layer.weight = param(transposed(&values, input), [input, output]).into();
        let fresh = LinearConfig::new(input, output)
            .with_bias(false)
            .init(&device());
        round_trip(&layer, fresh)
    };
    let rng = &mut ChaCha8Rng::seed_from_u64(4);
    let level = |rng: &mut ChaCha8Rng| [-2.0f32, -1.0, 1.0, 2.0][rng.random_range(0..4)];
    // A scale for each row, of which one has no weights.
    let scales = [0.11f32, 0.023, 0.0, 3.3e-5];
    let rows: Vec<f32> = (0..1_600)
        .map(|at| level(rng) * scales[at / 400] + 0.0)
        .collect();
    let ledger = linear(rows, [400, 4]);
    let row = &ledger.layers[0];
    assert_eq!(
        (row.bits, row.levels.as_str(), row.codebook_bytes),
        (2, "nonzero", 12)
    );
    // Codes of 16 bits.
    let wide: Vec<f32> = (0..20_000)
        .map(|_| (f32::from(rng.random::<i16>()) * 1.1e-4) + 0.0)
        .collect();
    let ledger = linear(wide, [200, 100]);
    let row = &ledger.layers[0];
    assert_eq!((row.bits, row.codebook_bytes), (16, 4));
    assert!(ledger.file_bytes < 40_100, "{ledger}");
    // Powers of two have no scale in common with few bits.
    let powers: Vec<f32> = (0..2_000)
        .map(|_| level(rng).signum() * (-f32::from(rng.random_range(0u8..16))).exp2())
        .collect();
    let ledger = linear(powers, [50, 40]);
    let row = &ledger.layers[0];
    assert_eq!(
        (row.bits, row.levels.as_str(), row.codebook_bytes),
        (5, "codebook", 4 * 32)
    );
    // All alike: the only level, and hardly a bit for all places.
    let ledger = linear(vec![0.7; 4_000], [40, 100]);
    assert!(ledger.file_bytes < 40, "{ledger}");
    assert_eq!(ledger.layers[0].positions, Positions::All);
}

#[test]
fn half_precision_is_quantised_too() {
    let fresh = || Param::from_tensor(Tensor::<2>::zeros([60, 50], &device()));
    for dtype in [DType::F16, DType::BF16] {
        let rng = &mut ChaCha8Rng::seed_from_u64(5);
        let values = (0..3_000).map(|_| [-0.5f32, 0.25, 0.1][rng.random_range(0..3)]);
        let data = TensorData::new(values.collect::<Vec<_>>(), [60, 50]).convert_dtype(dtype);
        let model = fresh().map(|_| Tensor::from_data(data, (&device(), dtype)));
        let ledger = round_trip(&model, fresh());
        let row = &ledger.layers[0];
        assert_eq!(
            (row.bits, row.levels.as_str(), row.codebook_bytes),
            (2, "codebook", 6)
        );
        let Values::CodedCodes { levels, .. } = row.values else {
            panic!("{ledger}");
        };
        assert_eq!(levels, LevelKind::Codebook { entries: 3 });
    }
}

#[test]
fn never_much_larger_than_a_mask_and_what_it_marks() {
    let rng = &mut ChaCha8Rng::seed_from_u64(6);
    for density in [0.0, 0.003, 0.05, 0.3, 0.5, 0.8, 0.99, 1.0] {
        for [rows, columns] in [[1, 1], [1, 70], [70, 1], [33, 65], [120, 300]] {
            let values: Vec<f32> = (0..rows * columns)
                .map(|_| {
                    if rng.random_bool(density) {
                        f32::from_bits(rng.random::<u32>() >> 1 | 1)
                    } else {
                        0.0
                    }
                })
                .collect();
            let nnz = values.iter().filter(|value| value.to_bits() != 0).count() as u64;
            let model = vec![param(values, [rows, columns])];
            let fresh = vec![param(vec![0.0; rows * columns], [rows, columns])];
            let ledger = round_trip(&model, fresh);
            let masked = (rows * columns).div_ceil(8) as u64 + 4 * nnz;
            assert!(ledger.file_bytes <= masked + 24, "{ledger}");
        }
    }
}

#[test]
fn other_networks_are_refused_by_what_can_be_told() {
    let linear = |d_in, d_out, bias| {
        LinearConfig::new(d_in, d_out)
            .with_bias(bias)
            .init(&device())
    };
    let saved = vec![linear(6, 4, true), linear(4, 2, true)];
    let (bytes, _) = compact::to_bytes(&saved).unwrap();
    let cases = [
        (
            vec![linear(6, 4, true)],
            "holds 4 tensors, this model has 2",
        ),
        (
            vec![linear(6, 4, true), linear(4, 1, true)],
            "another network",
        ),
        (
            vec![linear(6, 4, true), linear(2, 4, true)],
            "another network",
        ),
        (
            vec![linear(4, 6, true), linear(4, 2, true)],
            "another network",
        ),
    ];
    for (model, says) in cases {
        let reason = refusal(compact::from_bytes(model, &bytes));
        assert!(reason.contains(says), "{reason} (expected {says})");
    }
    // Same shapes, other names and other kinds.
    let (bytes, _) = compact::to_bytes(&(linear(3, 3, false), linear(3, 3, false))).unwrap();
    refusal(compact::from_bytes(
        vec![(linear(3, 3, false), linear(3, 3, false))],
        &bytes,
    ));
    let plain = vec![Conv1dConfig::new(4, 6, 1).init(&device())];
    let (bytes, _) = compact::to_bytes(&plain).unwrap();
    refusal(compact::from_bytes(
        vec![Conv2dConfig::new([4, 6], [1, 1]).init(&device())],
        &bytes,
    ));
    // A packed checkpoint of the other format.
    let (other, _) = store::to_bytes(&saved).unwrap();
    let reason = refusal(compact::from_bytes(saved, &other));
    assert!(reason.contains("store::load"), "{reason}");
}

#[test]
fn a_refused_checkpoint_changes_nothing() {
    let model = |d| {
        (
            BatchNormConfig::new(2).init(&device()),
            LinearConfig::new(3, d).init(&device()),
        )
    };
    let saved = model(3);
    saved.0.running_mean.update(Tensor::ones([2], &device()));
    let (bytes, _) = compact::to_bytes(&saved).unwrap();
    let other = model(4);
    refusal(compact::from_bytes(other.clone(), &bytes));
    // Clones share running statistics, so a half-done load would show.
    let mean: Vec<f32> = other
        .0
        .running_mean
        .value_sync()
        .into_data()
        .try_to_vec()
        .unwrap();
    assert_eq!(mean, [0.0, 0.0]);
}

/// Kernels of devices read values as codes only where nobody may have changed them.
#[test]
fn packed_values_that_were_loaded_are_known() {
    let layer = || LinearConfig::new(9, 4).init(&device());
    let packed = layer().pack().unwrap();
    let compact = compact::to_bytes(&packed).unwrap().0;
    let plain = store::to_bytes(&packed).unwrap().0;
    for loaded in [
        compact::from_bytes(layer(), &compact).unwrap(),
        store::from_bytes(layer(), &plain).unwrap(),
    ] {
        let weight = loaded.weight.packed().expect("stays packed");
        assert!(weight.sparse().as_packed());
    }
}

#[test]
fn what_is_not_finite_in_a_packed_layer_is_named() {
    let mut layer = LinearConfig::new(3, 3).init(&device()).pack().unwrap();
    layer.weight = layer.weight.map(&mut Broken);
    let error = compact::to_bytes(&layer).unwrap_err();
    assert!(
        matches!(&error, SparseError::NonFinite { what, .. } if what.contains("`weight`")),
        "{error}"
    );
}

/// Makes all values infinite, as training can.
struct Broken;

impl ModuleMapper for Broken {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|values| values * f32::INFINITY)
    }
}

/// Makes the checksum at the end right again.
fn seal(bytes: &mut [u8]) {
    if let Some((body, seal)) = bytes.split_last_chunk_mut::<4>() {
        *seal = crc32fast::hash(body).to_le_bytes();
    }
}

/// Bytes by which streams of the same content may differ in length: a decoder finds zeros after the end of a
/// stream, and what ends it is one of several numbers.
const END: usize = 5;

/// A file of another end, with a right checksum of its own, is refused, or it is the file of a network that has
/// other last values. All that stands before is what it was.
fn refused_or_another_end(forged: &[u8], bytes: &[u8]) {
    match compact::from_bytes(Net::new(), forged) {
        Ok(loaded) => {
            assert!(forged.len().abs_diff(bytes.len()) <= END);
            let again = compact::to_bytes(&loaded).unwrap().0;
            // The checksum, and what so many bytes more or less can say.
            let before = bytes.len() - 4 - 2 * END;
            assert!(again[..before] == bytes[..before]);
        }
        Err(error) => assert!(matches!(error, SparseError::Checkpoint { .. }), "{error}"),
    }
}

#[test]
fn truncated_overlong_and_flipped_files_are_refused() {
    for seed in 0..20 {
        let bytes = compact::to_bytes(&Net::trained(seed)).unwrap().0;
        for more in [1, 2, 3, 8, 1_000] {
            let mut long = bytes.clone();
            long.resize(bytes.len() + more, 0);
            refusal(compact::from_bytes(Net::new(), &long));
            seal(&mut long);
            refused_or_another_end(&long, &bytes);
        }
        for fewer in 1..20 {
            let mut cut = bytes[..bytes.len() - fewer].to_vec();
            seal(&mut cut);
            refused_or_another_end(&cut, &bytes);
        }
    }
    let bytes = compact::to_bytes(&Net::trained(1)).unwrap().0;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut");
    for len in 0..bytes.len() {
        if len % 7 == 0 {
            fs::write(&path, &bytes[..len]).unwrap();
            refusal(compact::read_manifest(&path));
            refusal(compact::load(LeNet::new(), &path));
        }
        let mut cut = bytes[..len].to_vec();
        refusal(compact::from_bytes(Net::new(), &cut));
        seal(&mut cut);
        refused_or_another_end(&cut, &bytes);
    }
    for bit in 0..8 * bytes.len() {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        refusal(compact::from_bytes(Net::new(), &flipped));
    }
}

#[test]
fn forged_files_neither_panic_nor_ask_for_memory() {
    let bytes = compact::to_bytes(&Net::trained(1)).unwrap().0;
    let rng = &mut ChaCha8Rng::seed_from_u64(7);
    // What a right file takes; the constant is for the models of contexts, of a fixed size each.
    let (_, usual) = asked_by(|| compact::from_bytes(Net::new(), &bytes));
    for round in 0..3_000 {
        let mut mutant = bytes.clone();
        for _ in 0..rng.random_range(1..4) {
            // Half of them in the header, where the numbers are.
            let end = if round % 2 == 0 { 100 } else { mutant.len() };
            let (at, size) = (rng.random_range(4..end), rng.random_range(1..9));
            let end = (at + size).min(mutant.len());
            match rng.random_range(0..5) {
                0 => mutant[at..end]
                    .iter_mut()
                    .for_each(|byte| *byte = rng.random()),
                1 => mutant[at] ^= 1 << rng.random_range(0..8),
                2 => mutant[at..end].fill(0xff),
                3 => drop(mutant.drain(at..end)),
                _ => drop(mutant.splice(at..at, (0..size).map(|_| rng.random::<u8>()))),
            }
            mutant.resize(mutant.len().max(120), 0);
        }
        seal(&mut mutant);
        let model = Net::new();
        let (result, asked) = asked_by(|| compact::from_bytes(model, &mutant));
        assert!(
            asked <= usual + 20 * mutant.len() + 3_000_000,
            "{asked} of {usual}"
        );
        if let Err(error) = result {
            assert!(matches!(error, SparseError::Checkpoint { .. }), "{error}");
        }
    }
    for len in 0..400 {
        let mut noise: Vec<u8> = (0..len).map(|_| rng.random()).collect();
        if let Some(start) = noise.get_mut(..4) {
            start.copy_from_slice(b"BSC\x01");
        }
        seal(&mut noise);
        refusal(compact::from_bytes(Net::new(), &noise));
    }
}

#[test]
fn a_huge_file_of_nothing_is_refused_unread() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge");
    // Takes no space where the file system has holes.
    fs::File::create(&path).unwrap().set_len(1 << 34).unwrap();
    let (result, asked) = asked_by(|| compact::read_manifest(&path));
    refusal(result);
    assert!(asked < 100_000, "{asked}");
}

#[test]
fn places_that_cannot_be_written_or_read_are_typed_errors() {
    let folder = tempfile::tempdir().unwrap();
    let layer = || LinearConfig::new(2, 2).init(&device());
    for place in [
        folder.path().join("nowhere/net"),
        folder.path().to_path_buf(),
    ] {
        let error = compact::save(&layer(), &place).unwrap_err();
        assert!(matches!(error, SparseError::Io { .. }), "{error}");
        let error = compact::load(layer(), &place).unwrap_err();
        assert!(matches!(error, SparseError::Io { .. }), "{error}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
