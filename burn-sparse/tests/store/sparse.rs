//! Checkpoints of parameters that are sparse, but run dense: as small as if they were packed.

use burn::module::{Module, Param, ParamId};
use burn::nn::{BatchNorm, BatchNormConfig};
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_sparse::format::Csr;
use burn_sparse::nn::{
    Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Linear, LinearConfig, PackedWeight, Weight,
};
use burn_sparse::pack::{self, Choice, PackConfig};
use burn_sparse::store::{self, Index};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

#[derive(Module, Debug)]
struct Net {
    conv: Conv2d,
    norm: BatchNorm,
    line: Conv1d,
    linear: Linear,
    head: burn::nn::Linear,
}

impl Net {
    fn new() -> Self {
        let device = &Device::flex();
        Self {
            conv: Conv2dConfig::new([32, 64], [3, 3]).init(device),
            norm: BatchNormConfig::new(64).init(device),
            line: Conv1dConfig::new(64, 64, 3).init(device),
            linear: LinearConfig::new(128, 100).init(device),
            head: burn::nn::LinearConfig::new(100, 100).init(device),
        }
    }

    /// A tenth of each weight left.
    fn pruned() -> Self {
        let mut net = Self::new();
        let rng = &mut ChaCha8Rng::seed_from_u64(1);
        net.conv.weight = Param::from_tensor(pruned(rng, [64, 32, 3, 3])).into();
        net.line.weight = Param::from_tensor(pruned(rng, [64, 64, 3])).into();
        net.linear.weight = Param::from_tensor(pruned(rng, [128, 100])).into();
        net.head.weight = Param::from_tensor(pruned(rng, [100, 100]));
        net
    }

    fn bits(&self) -> Vec<Vec<u32>> {
        let (conv, line, linear) = (&self.conv, &self.line, &self.linear);
        [
            conv.weight.val().into_data(),
            line.weight.val().into_data(),
            linear.weight.val().into_data(),
            self.head.weight.val().into_data(),
            conv.bias.as_ref().unwrap().val().into_data(),
            line.bias.as_ref().unwrap().val().into_data(),
            linear.bias.as_ref().unwrap().val().into_data(),
            self.head.bias.as_ref().unwrap().val().into_data(),
            self.norm.gamma.val().into_data(),
            self.norm.running_var.value_sync().into_data(),
        ]
        .map(|data| data.iter::<f32>().map(f32::to_bits).collect())
        .into()
    }
}

fn pruned<const D: usize>(rng: &mut ChaCha8Rng, dims: [usize; D]) -> Tensor<D> {
    let len = dims.iter().product();
    let mut values: Vec<f32> = (0..len)
        .map(|_| {
            if rng.random_bool(0.1) {
                rng.random_range(-1.0..1.0)
            } else {
                0.0
            }
        })
        .collect();
    values[len / 2] = -0.0;
    Tensor::from_data(TensorData::new(values, dims), &Device::flex())
}

fn packed(net: &Net, choice: Choice) -> Net {
    let config = PackConfig::default().with_choice(choice);
    pack::pack(net.clone(), &config).unwrap().0
}

#[test]
fn a_model_left_dense_takes_less_than_a_quarter() {
    let net = Net::pruned();
    let dense = packed(&net, Choice::Dense);
    assert!(dense.conv.weight.packed().is_none());
    let (bytes, report) = store::to_bytes(&dense).unwrap();
    assert!(4 * report.file_bytes < report.dense_bytes, "{report}");
    assert_eq!(report.file_bytes, bytes.len() as u64);
    assert_eq!(
        report.file_bytes,
        report.value_bytes + report.index_bytes + report.tensor_bytes + report.manifest_bytes
    );
    for layer in &report.layers {
        let weights: usize = layer.shape.iter().product();
        let [stored, nnz] = layer.stored.unwrap();
        assert!(!layer.packed && stored == nnz + 1, "{report}");
        assert_eq!(layer.bytes, (weights.div_ceil(8) + 4 * stored) as u64);
    }
    let sparse = store::from_bytes(Net::new(), &bytes).unwrap();
    assert!(sparse.conv.weight.packed().is_none());
    assert!(sparse.bits() == net.bits());

    // Packed it is no smaller, but for a few names: it has the zeros that make its rows equal, too.
    // Packing itself takes negative zeros for zeros.
    let packed = packed(&net, Choice::Csr);
    assert!(packed.conv.weight.packed().is_some());
    let (bytes, larger) = store::to_bytes(&packed).unwrap();
    assert!(
        report.file_bytes < larger.file_bytes + 1_000,
        "{report}\n{larger}"
    );
    let loaded = store::from_bytes(Net::new(), &bytes).unwrap();
    assert!(loaded.bits() == packed.bits());

    // Into a packed model, and back through a file.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dense.safetensors");
    store::save(&dense, &path).unwrap();
    let loaded = store::load(loaded, &path).unwrap();
    assert!(loaded.conv.weight.packed().is_none());
    assert!(loaded.bits() == net.bits());
}

#[test]
fn a_dense_model_is_written_whole() {
    let (bytes, report) = store::to_bytes(&Net::new()).unwrap();
    assert_eq!(report.value_bytes + report.index_bytes, 0);
    assert!(report.layers.iter().all(|layer| layer.stored.is_none()));
    assert!(report.to_string().contains("all"), "{report}");
    assert!(report.file_bytes < report.dense_bytes + 8_000, "{report}");
    // Among it the zeros of small tensors.
    let names = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert!(names.tensor("norm.beta").is_ok());
}

#[test]
fn other_floats_come_back_bit_for_bit() {
    let device = Device::flex();
    for (dtype, width) in [
        (DType::F64, 8),
        (DType::F32, 4),
        (DType::F16, 2),
        (DType::BF16, 2),
    ] {
        let rng = &mut ChaCha8Rng::seed_from_u64(2);
        let len = 37usize * 41;
        let bytes: Vec<u8> = (0..len)
            .flat_map(|i| {
                // The sign is in the upper byte, on every machine the last in the file.
                let mut element = match i % 10 {
                    0 => rng.random::<u64>(),
                    // A NaN with a payload, a negative zero, the least subnormal number.
                    1 => (0xff << 56) | (0xff << 48) | rng.random_range(1..1 << 48),
                    2 => 1 << 63,
                    3 => 1 << (64 - 8 * width),
                    _ => 0,
                }
                .to_be_bytes()[..width]
                    .to_vec();
                if cfg!(target_endian = "little") {
                    element.reverse();
                }
                element
            })
            .collect();
        let data = TensorData::try_from_bytes_vec(bytes, [37, 41], dtype).unwrap();
        let tensor = Tensor::<2>::from_data(data.clone(), (&device, dtype));
        let model = vec![Param::initialized(ParamId::new(), tensor)];
        let (bytes, report) = store::to_bytes(&model).unwrap();
        assert_eq!(report.index_bytes, len.div_ceil(8) as u64, "{dtype:?}");
        assert_eq!(report.tensor_bytes, 0, "{dtype:?}");
        let fresh = vec![Param::from_tensor(Tensor::<2>::zeros([37, 41], &device))];
        let loaded = store::from_bytes(fresh, &bytes).unwrap();
        let loaded = loaded[0].val().into_data();
        assert_eq!(loaded.dtype(), dtype);
        assert_eq!(loaded.as_bytes(), data.as_bytes(), "{dtype:?}");
    }
}

#[test]
fn nothing_left_is_a_mask_of_zeros() {
    let device = Device::flex();
    let zeros = |shape| vec![Param::from_tensor(Tensor::<2>::zeros(shape, &device))];
    let (bytes, report) = store::to_bytes(&zeros([100, 99])).unwrap();
    assert_eq!((report.value_bytes, report.index_bytes), (0, 1238));
    let ones = vec![Param::from_tensor(Tensor::<2>::ones([100, 99], &device))];
    let loaded = store::from_bytes(ones, &bytes).unwrap();
    loaded[0]
        .val()
        .into_data()
        .assert_eq(&zeros([100, 99])[0].val().into_data(), true);
    // A tensor of no elements.
    let (bytes, _) = store::to_bytes(&zeros([0, 9])).unwrap();
    store::from_bytes(zeros([0, 9]), &bytes).unwrap();
}

/// A weight of 32 filters by 16 channels of 3×3 kernels, and its index.
fn index_of(keep: impl Fn(usize, usize) -> bool) -> (Index, u64) {
    let device = Device::flex();
    let dense: Vec<f32> = (0..32 * 144)
        .map(|at| {
            if keep(at / 144, at % 144) {
                at as f32 - 2000.5
            } else {
                0.0
            }
        })
        .collect();
    let csr = Csr::from_dense(&dense, [32, 144]).unwrap();
    let fresh = || {
        Conv2dConfig::new([16, 32], [3, 3])
            .with_bias(false)
            .init(&device)
    };
    let mut layer = fresh();
    let packed = PackedWeight::new(csr.clone(), [32, 16, 3, 3], &device).unwrap();
    layer.weight = Weight::Packed(packed);
    let (bytes, report) = store::to_bytes(&layer).unwrap();
    assert_eq!(
        store::from_bytes(fresh(), &bytes)
            .unwrap()
            .weight
            .to_csr()
            .unwrap(),
        csr
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("layer");
    std::fs::write(&path, &bytes).unwrap();
    let manifest = store::read_manifest(&path).unwrap();
    let packed = manifest.layers[0].packed.as_ref().unwrap();
    (packed.index, report.index_bytes)
}

#[test]
fn every_pattern_has_the_index_made_for_it() {
    // A number of a place that repeats nowhere near.
    let mix = |a: usize, b: usize| (a * 7919 + b * 104_729 + a * b * 31) % 1009;
    // Half the rows and a quarter of the columns of blocks of 4 by 16.
    let blocks = index_of(|row, column| {
        let block = row / 4 * 9 + column / 16;
        mix(row, column / 16) % 2 == 0 && mix(block, column) % 4 == 0
    });
    assert_eq!(blocks.0, Index::Blocks);
    // One pattern of four for each kernel, two kernels in three kept.
    let pool = [0b0_0011_1010, 0b0_1001_1010, 0b0_1011_0010, 0b0_1011_1000];
    let patterns = index_of(|row, column| {
        let kernel = mix(row, column / 9);
        !kernel.is_multiple_of(3) && pool[kernel % 4] >> (column % 9) & 1 == 1
    });
    // Sixteen kernels of three bits at most in each row, and five bits and four patterns before.
    let bits: u64 = 1 + 4 + 4 * 9 + 32 * 16 * 3;
    assert_eq!(patterns.0, Index::Patterns);
    assert!(patterns.1 <= bits.div_ceil(8), "{patterns:?}");
    // Two or three positions of blocks of 8 filters by 4 channels.
    let punched = index_of(|row, column| mix(row / 8 * 4 + column / 36, column % 9) % 4 == 0);
    let bits: u64 = 32 + 16 * 9;
    assert_eq!(punched, (Index::Punched, bits.div_ceil(8)));
    // Single weights keep what they had.
    let single = index_of(|row, column| mix(row, column) % 3 == 0);
    assert_eq!(single, (Index::Mask, 32 * 144 / 8));
}

#[test]
fn packed_layers_have_the_smallest_index() {
    let device = Device::flex();
    // 64 columns of two bytes are a mask of 1024 bits. Panels take three bytes to begin with, three
    // for each row, which has columns of its own, and one for each column.
    for (nnz, index, index_bytes) in [
        (3, Index::Columns, 96),
        (4, Index::Panels, 3 + 16 * 7),
        (5, Index::Mask, 128),
    ] {
        let mut rows = vec![0.0f32; 64 * 16];
        for row in 0..16 {
            (0..nnz).for_each(|i| rows[(row + 13 * i) % 64 * 16 + row] = (i + 1) as f32);
        }
        let weight = Tensor::<2>::from_data(TensorData::new(rows, [64, 16]), &device);
        let mut layer = LinearConfig::new(64, 16).with_bias(false).init(&device);
        layer.weight = Param::from_tensor(weight).into();
        let layer = layer.pack().unwrap();
        let (bytes, report) = store::to_bytes(&layer).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("layer");
        std::fs::write(&path, &bytes).unwrap();
        let manifest = store::read_manifest(&path).unwrap();
        let packed = manifest.layers[0].packed.as_ref().unwrap();
        assert_eq!((packed.index, packed.nnz_per_row), (index, Some(nnz)));
        assert_eq!(report.index_bytes, index_bytes);
        let fresh = LinearConfig::new(64, 16).with_bias(false).init(&device);
        let loaded = store::from_bytes(fresh, &bytes).unwrap();
        assert_eq!(
            loaded.weight.to_csr().unwrap(),
            layer.weight.to_csr().unwrap()
        );
    }
}
