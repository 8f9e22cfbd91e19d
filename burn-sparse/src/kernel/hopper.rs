//! Compiles every kernel for Hopper (`sm_90a`) without a card: `CubeCL`'s LLVM route to PTX, then
//! NVIDIA's assembler, which also says how many registers each kernel takes and what it spills.
//!
//! The assembler is found through `PTXAS`, `PATH`, a `.venv` at the root of the repository or the
//! folder of `.ci/ptxas`. Without it this check is skipped by name, unless `BURN_SPARSE_REQUIRE`
//! contains `ptxas`. `BURN_SPARSE_PTX_REPORT` names a file for the table.

use std::{
    env,
    ffi::CStr,
    fmt::Write as _,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use cubecl::{
    Compiler,
    ir::{
        AddressType, DeviceIdentity, ElemType, FloatKind, HardwareProperties,
        MemoryDeviceProperties,
        features::{Features, MmaConfig},
        nvidia::SmArch,
    },
    prelude::*,
    profile::TimingMethod,
};
use cubecl_llvm::{
    LlvmTarget, PlironArtifact, PlironCompiler, PlironOptions, nvptx::ptx_version::PtxVersion,
};

use super::{
    MatrixTile, PanelTile, core_conv::*, factored::*, panels::*, sparse_conv::*,
    sparse_conv_grad::*, sparse_linear::*, stretch::*,
};

use crate::ConvProblem;

const F32: ElemType = ElemType::Float(FloatKind::F32);
const F16: ElemType = ElemType::Float(FloatKind::F16);
const BF16: ElemType = ElemType::Float(FloatKind::BF16);

/// A kernel, and the name its row in the table has.
type Named = (String, Box<dyn CubeKernel>);

/// What the assembler says of a kernel.
struct Usage {
    registers: usize,
    spilled: usize,
}

/// Bytes stored and loaded again that a kernel may spill. With 128 units the assembler aims at 32
/// registers, for full occupancy, and parks a few sizes that only the epilogue needs; an
/// accumulator spilled in the inner loop would go far beyond.
const SPILL_LIMIT: usize = 64;

#[test]
fn every_kernel_compiles_for_hopper() {
    let Some(ptxas) = find_ptxas() else {
        let required = env::var("BURN_SPARSE_REQUIRE").is_ok_and(|list| list.contains("ptxas"));
        assert!(
            !required,
            "BURN_SPARSE_REQUIRE asks for ptxas; run .ci/ptxas and set PTXAS"
        );
        println!("skipped: ptxas (no assembler; run .ci/ptxas and set PTXAS)");
        return;
    };
    let mut table = format!(
        "{:<74} {:>9} {:>7} {:>7}\n",
        "kernel (sm_90a)", "registers", "spilled", "shared"
    );
    let mut spilling = Vec::new();
    for (name, kernel) in kernels() {
        let (ptx, shared) = ptx_of(kernel.as_ref());
        assert_eq!(
            ptx.contains("wmma.mma"),
            name.contains("matrix_units"),
            "{name}: matrix units where they are asked for, and only there"
        );
        let usage = assemble(&ptxas, &name, &ptx);
        writeln!(
            table,
            "{name:<74} {:>9} {:>7} {:>7}",
            usage.registers, usage.spilled, shared
        )
        .expect("a string takes any line");
        if usage.spilled > SPILL_LIMIT {
            spilling.push(name);
        }
    }
    println!("{table}");
    if let Ok(path) = env::var("BURN_SPARSE_PTX_REPORT") {
        std::fs::write(&path, &table).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    assert!(
        spilling.is_empty(),
        "more than {SPILL_LIMIT} bytes spilled by {spilling:?}"
    );
}

/// Floats, and codes of either kind.
const CODINGS: [Coding; 4] = [
    Coding::FLOATS,
    codes(3, false),
    codes(4, true),
    codes(8, true),
];

const fn codes(bits: usize, integers: bool) -> Coding {
    Coding { bits, integers }
}

/// The part of a kernel's name that says what its values are.
fn values_of(coding: Coding) -> String {
    match (coding.bits, coding.integers) {
        (0, _) => String::new(),
        (bits, true) => format!("_{bits}bit_integers"),
        (bits, false) => format!("_{bits}bit_table"),
    }
}

/// Every kernel in every variant that a GPU can be given.
fn kernels() -> Vec<Named> {
    let mut kernels = Vec::new();
    for (dtype, dtype_name) in [(F32, "f32"), (F16, "f16")] {
        for (layout, name) in [
            (stretch_layout([1, 1], [1, 1]), "stride1"),
            (stretch_layout([2, 2], [2, 2]), "stride2"),
            (stretch_layout([2, 2], [1, 1]), "stride2_pointwise"),
        ] {
            kernels.push((
                format!("stretch_{name}_{dtype_name}"),
                stretched(layout, dtype),
            ));
        }
        for tile in GPU_TILES {
            for fused in [false, true] {
                let epilogue = if fused { "_bias_residual_relu" } else { "" };
                kernels.push((
                    format!("sparse_conv_{tile}{epilogue}_{dtype_name}"),
                    convolution(tile, fused, AddressType::U32, dtype),
                ));
            }
        }
        for tile in GATHER_TILES {
            for coding in CODINGS {
                let values = values_of(coding);
                kernels.push((
                    format!("sparse_linear_{tile}{values}_bias_residual_relu_{dtype_name}"),
                    product(tile, coding, dtype),
                ));
            }
        }
        factor_kernels(dtype, dtype_name, &mut kernels);
        for height in [4, 8, 16] {
            panel_kernels(height, dtype, dtype_name, &mut kernels);
        }
        for sub_batch in [1, 2, 4] {
            let tile = GradInputTile {
                units: 128,
                sub_batch,
                chunk: 64,
            };
            kernels.push((
                format!("grad_input_units128_sub_batch{sub_batch}_{dtype_name}"),
                input_gradient(tile, dtype),
            ));
        }
        for units in [32, 64, 128, 256] {
            let tile = GradValuesTile {
                units,
                lanes: units,
                entries: 4,
            };
            kernels.push((
                format!("grad_values_units{units}_entries4_{dtype_name}"),
                value_gradient(tile, dtype),
            ));
        }
    }
    for height in [4, 16] {
        let tile = matrix_tile(MATRIX_TILES[0]);
        kernels.push((
            format!("panels{height}_matrix_units_{tile}_bf16"),
            panel_matrix(tile, height, false, BF16),
        ));
    }
    let tile = GPU_TILES[4];
    kernels.push((
        format!("sparse_conv_{tile}_64bit_f32"),
        convolution(tile, false, AddressType::U64, F32),
    ));
    kernels
}

/// A convolution of `[C, N]` channels by 3×3 at `side × side`.
fn layer(channels: [usize; 2], side: usize) -> ConvProblem {
    ConvProblem::new(1, channels, [side, side], [3, 3]).with_padding([1, 1])
}

/// Kernels for factors of the layers of a `ResNet-18`, at the ranks that TDC publishes.
fn factor_kernels(dtype: ElemType, dtype_name: &str, kernels: &mut Vec<Named>) {
    let hopper = hopper();
    let card = CoreHardware::of(&hopper.hardware);
    let core = layer([96, 64], 28);
    let staged = CORE_TILES.map(CoreTile::staged);
    for tile in staged.into_iter().chain([CoreTile::direct([1, 2], 256)]) {
        kernels.push((
            format!("{tile}_{dtype_name}"),
            core_convolution(tile, &core, dtype),
        ));
    }
    for (channels, [d1, d2], side) in [
        (64, [32, 32], 56),
        (128, [96, 64], 28),
        (256, [128, 96], 14),
        (512, [192, 160], 7),
    ] {
        let core = layer([d1, d2], side);
        let picked = model::pick(model::estimates(&core, dtype.size(), &card), KEPT);
        let tile = tile_of(picked.expect("a tile for TDC's own layers").tiling, &card);
        kernels.push((
            format!("model_{d1}_{d2}_{side}_{tile}_{dtype_name}"),
            core_convolution(tile, &core, dtype),
        ));
        let factors = FactorShape {
            ranks: [d1, d2],
            window: CoreWindow::of(&core),
            reduce: true,
            expand: true,
        };
        let whole = layer([channels, channels], side);
        for places in STRIPS {
            let tile = strip(&whole, &factors, dtype.size(), &hopper.hardware, places);
            let tile = tile.expect("a strip for these ranks");
            kernels.push((
                format!("factors_{d1}_{d2}_{side}_{tile}_{dtype_name}"),
                factored(tile, factors, dtype),
            ));
        }
    }
    kernels.push((format!("add_splits_{dtype_name}"), splits(dtype)));
}

/// The kernels for bands of `height` rows that a GPU can be given.
fn panel_kernels(height: usize, dtype: ElemType, dtype_name: &str, kernels: &mut Vec<Named>) {
    let hardware = &hopper().hardware;
    for tile in PANEL_TILES {
        if tile.check(height, tile.sub_batch, hardware).is_err() {
            continue;
        }
        for fused in [false, true] {
            let epilogue = if fused { "_fused" } else { "" };
            kernels.push((
                format!("panels{height}_{tile}{epilogue}_{dtype_name}"),
                panel_convolution(tile, height, fused, dtype),
            ));
        }
    }
    for tile in PANEL_GATHER_TILES {
        if tile.check_bands(height, tile.inputs, hardware).is_ok() {
            for coding in CODINGS {
                let values = values_of(coding);
                kernels.push((
                    format!("panels{height}_linear_{tile}{values}_fused_{dtype_name}"),
                    panel_product(tile, coding, height, dtype),
                ));
            }
        }
    }
    for tile in MATRIX_TILES.map(matrix_tile) {
        if tile.check(height, dtype, &hopper()).is_ok() {
            kernels.push((
                format!("panels{height}_matrix_units_{tile}_fused_{dtype_name}"),
                panel_matrix(tile, height, true, dtype),
            ));
        }
    }
}

fn matrix_tile([planes, pixels]: [usize; 2]) -> MatrixTile {
    MatrixTile::new([planes, 32, pixels])
}

fn buffer() -> BufferCompilationArg {
    BufferCompilationArg { inplace: None }
}

fn settings(units: usize, address_type: AddressType) -> KernelSettings {
    KernelSettings::new(
        *CubeDim::new_1d(units as u32),
        ExecutionMode::Unchecked,
        address_type,
    )
}

/// An argument struct whose fields are scalars: nothing of them is known when compiling.
macro_rules! scalars {
    ($name:ident { $($field:ident),* $(,)? }) => {
        $name { $($field: ()),* }
    };
}

/// A tensor that a kernel takes or not.
macro_rules! optional {
    ($fused:expr) => {
        match $fused {
            true => ComptimeOptionCompilationArg::Some(buffer()),
            false => ComptimeOptionCompilationArg::None,
        }
    };
}

fn stretch_layout(
    [stride_y, stride_x]: [usize; 2],
    [phases_y, phases_x]: [usize; 2],
) -> StretchLayout {
    StretchLayout {
        stride_y,
        stride_x,
        phases_y,
        phases_x,
    }
}

fn stretched(layout: StretchLayout, dtype: ElemType) -> Box<dyn CubeKernel> {
    Box::new(stretch_kernel::StretchKernel::new(
        settings(256, AddressType::U32),
        hopper(),
        Arc::default(),
        buffer(),
        buffer(),
        scalars!(StretchShapeCompilationArg {
            len,
            height,
            width,
            rows,
            cols,
            top,
            left
        }),
        layout,
        dtype,
    ))
}

fn convolution(
    tile: ConvTile,
    fused: bool,
    address_type: AddressType,
    dtype: ElemType,
) -> Box<dyn CubeKernel> {
    Box::new(sparse_conv_kernel::SparseConvKernel::new(
        settings(tile.units, address_type),
        hopper(),
        Arc::default(),
        buffer(),
        buffer(),
        buffer(),
        buffer(),
        optional!(fused),
        optional!(fused),
        buffer(),
        conv_shape(),
        tile,
        fused,
        dtype,
    ))
}

fn conv_shape() -> ConvShapeCompilationArg {
    scalars!(ConvShapeCompilationArg {
        nnz,
        rows,
        items,
        tiles,
        pixels,
        width,
        cols,
        batch,
        image,
        scale,
        limit,
        out_image,
        out_row,
        out_pixel
    })
}

fn core_convolution(tile: CoreTile, problem: &ConvProblem, dtype: ElemType) -> Box<dyn CubeKernel> {
    let cube = tile.cube(problem);
    Box::new(core_conv_kernel::CoreConvKernel::new(
        settings(cube.units(), AddressType::U32),
        hopper(),
        Arc::default(),
        buffer(),
        buffer(),
        optional!(true),
        optional!(true),
        buffer(),
        scalars!(CoreShapeCompilationArg {
            channels,
            outputs,
            height,
            width,
            top,
            left,
            out_height,
            out_width,
            cubes,
            blocks,
            strips,
            row_tiles,
            splits,
            split_channels,
            len
        }),
        tile,
        cube,
        CoreWindow::of(problem),
        true,
        [dtype, dtype],
    ))
}

fn splits(dtype: ElemType) -> Box<dyn CubeKernel> {
    Box::new(add_splits_kernel::AddSplitsKernel::new(
        settings(256, AddressType::U32),
        hopper(),
        Arc::default(),
        buffer(),
        optional!(true),
        optional!(true),
        buffer(),
        scalars!(SplitShapeCompilationArg {
            len,
            splits,
            outputs,
            pixels
        }),
        true,
        dtype,
    ))
}

fn factored(tile: StripTile, factors: FactorShape, dtype: ElemType) -> Box<dyn CubeKernel> {
    Box::new(factored_strip_kernel::FactoredStripKernel::new(
        settings(tile.units, AddressType::U32),
        hopper(),
        Arc::default(),
        buffer(),
        buffer(),
        buffer(),
        buffer(),
        optional!(true),
        optional!(true),
        buffer(),
        scalars!(StripShapeCompilationArg {
            channels,
            outputs,
            height,
            width,
            top,
            left,
            out_height,
            out_width,
            cubes,
            strips,
            row_tiles
        }),
        tile,
        factors,
        true,
        dtype,
    ))
}

fn panel_shape() -> PanelShapeCompilationArg {
    scalars!(PanelShapeCompilationArg {
        bands,
        panels,
        columns,
        nnz,
        band_ptr,
        column_ptr,
        records,
        panel_of
    })
}

fn panel_convolution(
    tile: PanelTile,
    height: usize,
    fused: bool,
    dtype: ElemType,
) -> Box<dyn CubeKernel> {
    Box::new(panel_conv_kernel::PanelConvKernel::new(
        settings(tile.units, AddressType::U32),
        hopper(),
        Arc::default(),
        buffer(),
        buffer(),
        buffer(),
        buffer(),
        optional!(fused),
        optional!(fused),
        buffer(),
        conv_shape(),
        panel_shape(),
        tile,
        height,
        fused,
        dtype,
    ))
}

fn panel_matrix(
    tile: MatrixTile,
    height: usize,
    fused: bool,
    dtype: ElemType,
) -> Box<dyn CubeKernel> {
    Box::new(panel_matrix_kernel::PanelMatrixKernel::new(
        settings(tile.units(), AddressType::U32),
        hopper(),
        Arc::default(),
        buffer(),
        buffer(),
        buffer(),
        buffer(),
        optional!(fused),
        optional!(fused),
        buffer(),
        conv_shape(),
        panel_shape(),
        tile,
        height,
        fused,
        dtype,
    ))
}

fn panel_product(
    tile: GatherTile,
    coding: Coding,
    height: usize,
    dtype: ElemType,
) -> Box<dyn CubeKernel> {
    Box::new(panel_linear_kernel::PanelLinearKernel::new(
        settings(tile.units, AddressType::U32),
        hopper(),
        Arc::default(),
        buffer(),
        buffer(),
        optional!(coding.bits > 0),
        buffer(),
        buffer(),
        ComptimeOptionCompilationArg::Some(buffer()),
        ComptimeOptionCompilationArg::Some(buffer()),
        buffer(),
        scalars!(LinearShapeCompilationArg {
            nnz,
            rows,
            row_tiles,
            m,
            m_tiles,
            features
        }),
        panel_shape(),
        coding,
        tile,
        height,
        true,
        dtype,
    ))
}

fn product(tile: GatherTile, coding: Coding, dtype: ElemType) -> Box<dyn CubeKernel> {
    Box::new(sparse_linear_kernel::SparseLinearKernel::new(
        settings(tile.units, AddressType::U32),
        hopper(),
        Arc::default(),
        buffer(),
        buffer(),
        optional!(coding.bits > 0),
        buffer(),
        buffer(),
        ComptimeOptionCompilationArg::Some(buffer()),
        ComptimeOptionCompilationArg::Some(buffer()),
        buffer(),
        scalars!(LinearShapeCompilationArg {
            nnz,
            rows,
            row_tiles,
            m,
            m_tiles,
            features
        }),
        coding,
        tile,
        true,
        dtype,
    ))
}

fn input_gradient(tile: GradInputTile, dtype: ElemType) -> Box<dyn CubeKernel> {
    Box::new(grad_input_kernel::GradInputKernel::new(
        settings(tile.units, AddressType::U32),
        hopper(),
        Arc::default(),
        buffer(),
        buffer(),
        buffer(),
        buffer(),
        buffer(),
        scalars!(GradInputShapeCompilationArg {
            nnz,
            rows,
            channels,
            channel_stride,
            items,
            tiles,
            batch,
            pixels,
            width,
            top,
            left,
            stride_y,
            stride_x,
            phases_y,
            phases_x,
            plane,
            cols,
            out_height,
            out_width
        }),
        tile,
        dtype,
    ))
}

fn value_gradient(tile: GradValuesTile, dtype: ElemType) -> Box<dyn CubeKernel> {
    Box::new(grad_values_kernel::GradValuesKernel::new(
        settings(tile.units, AddressType::U32),
        hopper(),
        Arc::default(),
        buffer(),
        buffer(),
        buffer(),
        buffer(),
        buffer(),
        scalars!(GradValuesShapeCompilationArg {
            nnz,
            rows,
            splits,
            batch,
            height,
            width,
            cols,
            image,
            limit,
            step_image,
            step_row,
            step_col
        }),
        tile,
        dtype,
    ))
}

/// The properties of an H100 or H200 that a kernel can ask for.
fn hopper() -> Arc<DeviceProperties> {
    let hardware = HardwareProperties {
        load_width: 128,
        vector_register_count: None,
        plane_size_min: 32,
        plane_size_max: 32,
        max_bindings: 1024,
        max_shared_memory_size: 232_448,
        max_cube_count: (i32::MAX as u32, u16::MAX as u32, u16::MAX as u32),
        max_units_per_cube: 1024,
        max_cube_dim: (1024, 1024, 64),
        num_streaming_multiprocessors: Some(132),
        num_tensor_cores: Some(4),
        min_tensor_cores_dim: Some(8),
        num_cpu_cores: None,
        last_level_cache_size: None,
        max_vector_size: VectorSize::MAX,
        cube_mma_reserved_shared_memory: 0,
    };
    let mut features = Features::default();
    // What the CUDA runtime reports of these, among much else.
    for a_type in [F16, BF16] {
        for (m, n) in [(16, 16), (8, 32), (32, 8)] {
            features.matmul.cmma.insert(MmaConfig {
                a_type,
                b_type: a_type,
                cd_type: F32,
                m,
                n,
                k: 16,
            });
        }
    }
    Arc::new(DeviceProperties::new(
        features,
        MemoryDeviceProperties::new(u64::MAX, 256),
        hardware,
        TimingMethod::Device,
        DeviceIdentity {
            name: "hopper without a card".to_string(),
            fingerprint: "sm_90a".to_string(),
            physical: None,
        },
    ))
}

/// The PTX of a kernel, and the shared memory that it takes in bytes.
fn ptx_of(kernel: &dyn CubeKernel) -> (String, usize) {
    let mut compiler = PlironCompiler {
        target: LlvmTarget::Nvptx,
    };
    let options = PlironOptions {
        sm_arch: Some(SmArch::new(90, true)),
        ptx_version: PtxVersion::for_driver(12080),
        ..Default::default()
    };
    let artifact = compiler
        .compile(kernel.define(), &options)
        .unwrap_or_else(|error| panic!("LLVM refuses a kernel: {error}"));
    let PlironArtifact::NvptxCode(module) = artifact else {
        panic!("the NVPTX target produces PTX");
    };
    // SAFETY: the module's PTX ends with a NUL.
    let ptx = unsafe { CStr::from_ptr(module.ptx.as_ptr()) }
        .to_string_lossy()
        .into_owned();
    (ptx, module.shared_memory_size)
}

/// Assembles PTX and reads what the assembler reports.
fn assemble(ptxas: &Path, name: &str, ptx: &str) -> Usage {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(ptx.as_bytes()).expect("room for PTX");
    let output = Command::new(ptxas)
        .args(["-v", "-arch=sm_90a", "-o", "/dev/null"])
        .arg(file.path())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", ptxas.display()));
    let report = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "ptxas refuses {name}:\n{report}\n{ptx}"
    );
    Usage {
        registers: number_before(&report, " registers"),
        spilled: number_before(&report, " bytes spill stores")
            + number_before(&report, " bytes spill loads"),
    }
}

/// The number that stands before `unit` where it first occurs, or 0.
fn number_before(report: &str, unit: &str) -> usize {
    report
        .split_once(unit)
        .and_then(|(before, _)| before.rsplit(|c: char| !c.is_ascii_digit()).next())
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

fn find_ptxas() -> Option<PathBuf> {
    if let Some(path) = env::var_os("PTXAS") {
        return Some(path.into());
    }
    let on_path = env::split_paths(&env::var_os("PATH")?)
        .map(|folder| folder.join("ptxas"))
        .find(|path| path.is_file());
    on_path.or_else(|| environments().into_iter().find_map(|venv| in_venv(&venv)))
}

/// Python environments that may hold the assembler.
fn environments() -> Vec<PathBuf> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv")];
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
    folders.extend(cache.map(|cache| cache.join("burn-sparse/venv")));
    folders
}

fn in_venv(venv: &Path) -> Option<PathBuf> {
    std::fs::read_dir(venv.join("lib"))
        .ok()?
        .filter_map(Result::ok)
        .map(|python| {
            python
                .path()
                .join("site-packages/nvidia/cuda_nvcc/bin/ptxas")
        })
        .find(|path| path.is_file())
}
