//! Devices, random problems, f64 references and the tolerance.

use burn::backend::ops::FloatTensorOps;
use burn::backend::ops::IntTensorOps;
use burn::tensor::{DType, Shape, TensorData};
use burn_cubecl::{CubeBackend, CubeDevice, ops::into_data_sync, tensor::CubeTensor};
use burn_sparse::{ConvProblem, format::Csr, kernel::Entries};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Devices to test on, with their names.
pub(crate) fn devices() -> Vec<(&'static str, CubeDevice)> {
    use cubecl::device::WgpuDeviceKind;
    let mut devices = Vec::new();
    for (name, device) in [
        ("vulkan", CubeDevice::vulkan(WgpuDeviceKind::Cpu)),
        ("cpu", CubeDevice::cpu()),
        ("cuda", CubeDevice::cuda(0)),
    ] {
        match device {
            Ok(device) => devices.push((name, device)),
            Err(reason) => {
                require(name, &reason.to_string());
                println!("skipped: {name} ({reason})");
            }
        }
    }
    devices
}

/// Units that a cube has on this device at most.
pub(crate) fn max_units(device: &CubeDevice) -> usize {
    device.client().properties().hardware.max_units_per_cube as usize
}

/// Whether kernels may use shared memory on this device: not on lavapipe, where CubeCL 0.11.3
/// declares it wrongly, but for builds with the fix of `.ci/patch-cubecl`. A form of a kernel that
/// needs it is skipped by name, or fails where `BURN_SPARSE_REQUIRE` lists vulkan.
pub(crate) fn has_shared_memory(device: &CubeDevice) -> bool {
    let properties = device.client().properties().clone();
    let lavapipe =
        properties.identity.physical.is_none() && properties.hardware.num_cpu_cores.is_none();
    if !lavapipe || option_env!("BURN_SPARSE_CUBECL_FIXED").is_some() {
        return true;
    }
    let reason = "staging crashes lavapipe; build with `cargo --config \"$(.ci/patch-cubecl)\"`";
    require("vulkan", reason);
    println!("skipped: vulkan ({reason})");
    false
}

fn require(name: &str, reason: &str) {
    let required = std::env::var("BURN_SPARSE_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|wanted| wanted.trim() == name),
        "BURN_SPARSE_REQUIRE asks for {name}: {reason}"
    );
}

/// A convolution with a name that says what it probes.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) problem: ConvProblem,
    /// Share of weights that are non-zero.
    pub(crate) density: f64,
}

/// Convolutions at the edges: of strides, padding, groups, maps and patterns.
pub(crate) fn cases() -> Vec<Case> {
    let plain = |channels, input, kernel| ConvProblem::new(1, channels, input, kernel);
    let asymmetric = |mut problem: ConvProblem, padding| {
        problem.padding = padding;
        problem
    };
    [
        (
            "same_3x3",
            plain([3, 5], [9, 8], [3, 3]).with_padding([1, 1]),
            0.3,
        ),
        ("valid_3x3_without_copy", plain([4, 3], [6, 7], [3, 3]), 0.3),
        ("pointwise", plain([7, 6], [5, 5], [1, 1]), 0.4),
        (
            "stride_2",
            plain([3, 4], [11, 9], [3, 3])
                .with_stride([2, 2])
                .with_padding([1, 1]),
            0.4,
        ),
        (
            "pointwise_stride_2",
            plain([6, 5], [8, 7], [1, 1]).with_stride([2, 2]),
            0.5,
        ),
        (
            "stride_3_by_1",
            plain([2, 3], [10, 9], [4, 2]).with_stride([3, 1]),
            0.5,
        ),
        (
            "asymmetric_padding",
            asymmetric(plain([2, 3], [6, 5], [3, 3]), [[0, 2], [3, 1]]),
            0.5,
        ),
        (
            "dilation_2",
            plain([3, 3], [9, 10], [3, 2])
                .with_dilation([2, 2])
                .with_padding([1, 2]),
            0.4,
        ),
        (
            "dilation_and_stride",
            plain([2, 4], [12, 13], [3, 3])
                .with_dilation([3, 1])
                .with_stride([2, 3])
                .with_padding([2, 1]),
            0.5,
        ),
        (
            "groups",
            plain([6, 9], [6, 6], [3, 3])
                .with_groups(3)
                .with_padding([1, 1]),
            0.4,
        ),
        ("one_pixel", plain([9, 11], [1, 1], [1, 1]), 0.4),
        (
            "seven_by_seven",
            plain([16, 8], [7, 7], [3, 3]).with_padding([1, 1]),
            0.2,
        ),
        ("one_row", plain([3, 4], [1, 23], [1, 5]), 0.5),
        (
            "stem_7x7",
            plain([3, 4], [17, 15], [7, 7])
                .with_stride([2, 2])
                .with_padding([3, 3]),
            0.3,
        ),
        (
            "rows_longer_than_a_chunk",
            plain([40, 2], [4, 4], [3, 3]).with_padding([1, 1]),
            0.9,
        ),
        (
            "no_non_zeros",
            plain([3, 4], [5, 5], [3, 3]).with_padding([1, 1]),
            0.0,
        ),
    ]
    .into_iter()
    .map(|(name, problem, density)| {
        problem.check().expect(name);
        Case {
            name,
            problem,
            density,
        }
    })
    .collect()
}

pub(crate) fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Numbers in `[-1, 1)` as `dtype` holds them.
pub(crate) fn numbers(rng: &mut ChaCha8Rng, len: usize, dtype: DType) -> Vec<f32> {
    (0..len)
        .map(|_| rounded(rng.random_range(-1.0..1.0), dtype))
        .collect()
}

/// A weight as `dtype` holds it; its second row is empty, where it has one.
pub(crate) fn weight(rng: &mut ChaCha8Rng, shape: [usize; 2], density: f64, dtype: DType) -> Csr {
    let dense: Vec<f32> = (0..shape[0] * shape[1])
        .map(|i| {
            let kept = rng.random_bool(density) && i / shape[1] != 1;
            let value = rounded(rng.random_range(0.1..1.0), dtype);
            match kept {
                true if rng.random_bool(0.5) => value,
                true => -value,
                false => 0.0,
            }
        })
        .collect();
    Csr::from_dense(&dense, shape).expect("finite weights")
}

/// How the rows of a structured weight share inputs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Structure {
    /// Rows and columns of blocks of `[rows, columns]`; some blocks keep nothing.
    BlockColumnRow([usize; 2]),
    /// Kernel positions of blocks of so many rows by columns.
    Punched([usize; 2]),
    /// Four weights of each kernel, in one of three ways; some kernels keep nothing.
    KernelPatterns,
    /// So many neighbouring rows keep the same columns.
    Bands(usize),
    /// Nothing is kept.
    Empty,
}

/// A weight as `dtype` holds it, of kernels of `positions` weights. Its second row is empty, where it
/// has one.
pub(crate) fn structured(
    rng: &mut ChaCha8Rng,
    [rows, row_len]: [usize; 2],
    positions: usize,
    structure: Structure,
    dtype: DType,
) -> Csr {
    // Choices that belong to a block are drawn from its number.
    let draw = |block: [usize; 2], what: usize| -> u32 {
        let seed = (block[0] * 1000 + block[1]) * 1000 + what;
        ChaCha8Rng::seed_from_u64(seed as u64).random_range(0..12)
    };
    let kept = |row: usize, column: usize| {
        let (channel, position) = (column / positions, column % positions);
        match structure {
            Structure::BlockColumnRow([height, width]) => {
                let block = [row / height, column / width];
                draw(block, 0) > 1
                    && draw(block, 1 + row % height) > 4
                    && draw(block, 500 + column % width) > 5
            }
            Structure::Punched([height, width]) => {
                draw([row / height, channel / width], position) > 6
            }
            Structure::KernelPatterns => match draw([row, channel], 0) {
                0 => false,
                drawn => position % 3 != drawn as usize % 3,
            },
            Structure::Bands(height) => draw([row / height, column], 0) > 7,
            Structure::Empty => false,
        }
    };
    let dense: Vec<f32> = (0..rows * row_len)
        .map(
            |i| match kept(i / row_len, i % row_len) && i / row_len != 1 {
                true => rounded(rng.random_range(0.1f32..1.0), dtype),
                false => 0.0,
            },
        )
        .collect();
    Csr::from_dense(&dense, [rows, row_len]).expect("finite weights")
}

fn rounded(value: f32, dtype: DType) -> f32 {
    match dtype {
        DType::F16 => TensorData::from([value])
            .convert_dtype(DType::F16)
            .convert_dtype(DType::F32)
            .try_to_vec::<f32>()
            .expect("one number")[0],
        _ => value,
    }
}

pub(crate) fn floats(
    device: &CubeDevice,
    data: &[f32],
    shape: impl Into<Shape>,
    dtype: DType,
) -> CubeTensor {
    let data = TensorData::new(data.to_vec(), shape.into()).convert_dtype(dtype);
    CubeBackend::float_from_data(data, device)
}

pub(crate) fn integers(device: &CubeDevice, data: Vec<i32>) -> CubeTensor {
    let len = data.len();
    CubeBackend::int_from_data(TensorData::new(data, [len]), device)
}

fn signed(data: &[u32]) -> Vec<i32> {
    data.iter().map(|&value| value as i32).collect()
}

/// The entries of a weight on a device, with these indices.
pub(crate) fn entries(device: &CubeDevice, csr: &Csr, indices: &[u32], dtype: DType) -> Entries {
    Entries::new(
        floats(device, csr.values(), [csr.stored()], dtype),
        integers(device, signed(indices)),
        integers(device, signed(csr.row_ptr())),
    )
}

/// The pattern by input channel: pointers, entries, output channels.
pub(crate) fn transposed(csr: &Csr, problem: &ConvProblem) -> Vec<i32> {
    let taps = problem.kernel[0] * problem.kernel[1];
    let [channels, rows] =
        [problem.in_channels, problem.out_channels].map(|count| count / problem.groups);
    let mut by_channel: Vec<Vec<(usize, usize)>> = vec![Vec::new(); problem.in_channels];
    for row in 0..csr.rows() {
        let start = csr.row_ptr()[row] as usize;
        for (i, (column, _)) in csr.row(row).enumerate() {
            by_channel[row / rows * channels + column / taps].push((start + i, row));
        }
    }
    let mut pointers = vec![0i32];
    for list in &by_channel {
        pointers.push(pointers[pointers.len() - 1] + list.len() as i32);
    }
    let flat: Vec<(usize, usize)> = by_channel.into_iter().flatten().collect();
    pointers.extend(flat.iter().map(|&(entry, _)| entry as i32));
    pointers.extend(flat.iter().map(|&(_, row)| row as i32));
    pointers
}

/// Leaves NaN in memory that the next tensor of this size is likely to get.
pub(crate) fn poison(device: &CubeDevice, len: usize, dtype: DType) {
    for _ in 0..2 {
        let tensor = floats(device, &vec![f32::NAN; len], [len], dtype);
        drop(into_data_sync(tensor));
    }
}

pub(crate) fn read(tensor: CubeTensor) -> Vec<f32> {
    into_data_sync(tensor)
        .convert_dtype(DType::F32)
        .try_to_vec::<f32>()
        .expect("floats")
}

/// An exact result, and what bounds the error of computing it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Exact {
    pub(crate) sum: f64,
    /// Sum of the terms' sizes.
    pub(crate) size: f64,
    /// Number of terms.
    pub(crate) terms: usize,
}

impl Exact {
    pub(crate) fn add(&mut self, term: f64) {
        self.sum += term;
        self.size += term.abs();
        self.terms += 1;
    }

    pub(crate) fn relu(mut self) -> Self {
        self.sum = self.sum.max(0.0);
        self
    }

    /// Adding `n` terms in f32 in any order loses at most about `n` half-ulps of the sum of their
    /// sizes (each product may lose one more), and storing as `dtype` half an ulp of the result.
    fn tolerance(&self, dtype: DType) -> f64 {
        let half_ulp = 2f64.powi(-24);
        let [stored, smallest] = match dtype {
            DType::F16 => [2f64.powi(-11), 2f64.powi(-24)],
            _ => [half_ulp, 2f64.powi(-149)],
        };
        (self.terms + 4) as f64 * half_ulp * self.size + 1.01 * stored * self.sum.abs() + smallest
    }
}

/// `[m, rows]` sums of the entries of `csr`, with these values, times `input [m, features]`; with bias,
/// residual and ReLU if there are `more`.
pub(crate) fn exact_product(
    csr: &Csr,
    values: &[f32],
    input: &[f32],
    more: Option<(&[f32], &[f32])>,
) -> Vec<Exact> {
    let (rows, features) = (csr.rows(), csr.row_len());
    let mut exact = vec![Exact::default(); input.len() / features * rows];
    for (at, sum) in exact.iter_mut().enumerate() {
        let (i, k) = (at / rows, at % rows);
        for j in csr.row_ptr()[k] as usize..csr.row_ptr()[k + 1] as usize {
            let x = input[i * features + csr.columns()[j] as usize];
            sum.add(f64::from(values[j]) * f64::from(x));
        }
        if let Some((bias, residual)) = more {
            sum.add(f64::from(bias[k]));
            sum.add(f64::from(residual[at]));
            *sum = sum.relu();
        }
    }
    exact
}

/// Fails with the worst offender unless every number is as exact as f32 sums allow.
pub(crate) fn check(got: &[f32], exact: &[Exact], dtype: DType, what: &str) {
    assert_eq!(got.len(), exact.len(), "{what}: length");
    let off = |(&got, exact): (&f32, &Exact)| {
        let error = (got as f64 - exact.sum).abs() / exact.tolerance(dtype);
        if error.is_nan() { f64::INFINITY } else { error }
    };
    let errors: Vec<f64> = got.iter().zip(exact).map(off).collect();
    let wrong = errors.iter().filter(|&&error| error > 1.0).count();
    let worst = (0..errors.len()).max_by(|&a, &b| errors[a].total_cmp(&errors[b]));
    if let Some(i) = worst.filter(|_| wrong > 0) {
        panic!(
            "{what}: {wrong} of {} wrong, the worst at {i}: {} instead of {}, {:.1} times the tolerance",
            got.len(),
            got[i],
            exact[i].sum,
            errors[i]
        );
    }
}

/// Calls `term(n, k, e, f, input index, flat weight)` for every weight of every output pixel that
/// reads an input pixel, straight from the definition.
pub(crate) fn for_each_term(problem: &ConvProblem, mut term: impl FnMut(usize, usize, usize)) {
    let [height, width] = problem.output();
    let [channels, rows] =
        [problem.in_channels, problem.out_channels].map(|count| count / problem.groups);
    let [kh, kw] = problem.kernel;
    for n in 0..problem.batch {
        for k in 0..problem.out_channels {
            for (e, f) in (0..height).flat_map(|e| (0..width).map(move |f| (e, f))) {
                for c in 0..channels {
                    for (r, s) in (0..kh).flat_map(|r| (0..kw).map(move |s| (r, s))) {
                        let y = e * problem.stride[0] + r * problem.dilation[0];
                        let x = f * problem.stride[1] + s * problem.dilation[1];
                        let (Some(y), Some(x)) = (
                            y.checked_sub(problem.padding[0][0]),
                            x.checked_sub(problem.padding[1][0]),
                        ) else {
                            continue;
                        };
                        if y >= problem.input[0] || x >= problem.input[1] {
                            continue;
                        }
                        let channel = k / rows * channels + c;
                        let source = ((n * problem.in_channels + channel) * problem.input[0] + y)
                            * problem.input[1]
                            + x;
                        let weight = ((k * channels + c) * kh + r) * kw + s;
                        let target = ((n * problem.out_channels + k) * height + e) * width + f;
                        term(target, source, weight);
                    }
                }
            }
        }
    }
}
