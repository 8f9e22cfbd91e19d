//! What the launchers share: arguments, checks and the grid.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::{DType, Shape};
use burn_cubecl::{
    kernel::into_contiguous, ops::numeric::empty_device_contiguous_dtype, tensor::CubeTensor,
};
use cubecl::{ir::ElemType, prelude::*, server::CubeCountSelection};

use super::{Codes, Panels};

/// How a kernel's tile is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice<T> {
    /// Measured among the candidates at the first call with a shape, and remembered.
    #[default]
    Tuned,
    /// By a rule of thumb, without measuring.
    Heuristic,
    /// This one; for tests and benches.
    Forced(T),
}

/// The non-zeros of a sparse weight on a device, row by row.
#[derive(Debug, Clone)]
pub struct Entries {
    /// Value of each entry, of the input's dtype.
    pub values: CubeTensor,
    /// Where each entry reads, `i32`: an offset into the stretched image, or an input feature.
    pub indices: CubeTensor,
    /// Where each row starts, `i32`, `rows + 1` of them.
    pub row_ptr: CubeTensor,
    /// Which rows share inputs, if that is known.
    pub panels: Option<Panels>,
    /// The values as codes, if they are some.
    pub codes: Option<Codes>,
    /// Stored entries; tensors may be longer once prepared.
    stored: usize,
}

impl Entries {
    /// The entries with these values and indices, in rows that start at `row_ptr`.
    pub fn new(values: CubeTensor, indices: CubeTensor, row_ptr: CubeTensor) -> Self {
        let stored = values.meta.num_elements();
        Self {
            values,
            indices,
            row_ptr,
            panels: None,
            codes: None,
            stored,
        }
    }

    /// With panels for the kernels that use them.
    #[must_use]
    pub fn with_panels(mut self, panels: impl Into<Option<Panels>>) -> Self {
        self.panels = panels.into();
        self
    }

    /// With codes for the kernels that use them.
    #[must_use]
    pub fn with_codes(mut self, codes: impl Into<Option<Codes>>) -> Self {
        self.codes = codes.into();
        self
    }

    /// Stored entries.
    pub fn nnz(&self) -> usize {
        self.stored
    }

    /// Contiguous, of the right types, and never without memory: where nothing is stored, tensors
    /// that are stand in for the empty ones and are not read.
    pub(crate) fn prepared(self, input: &CubeTensor, rows: usize) -> Self {
        let len = self.stored;
        assert_eq!(
            self.row_ptr.meta.num_elements(),
            rows + 1,
            "{rows} rows need {} row pointers",
            rows + 1
        );
        assert_eq!(
            self.indices.meta.num_elements(),
            len,
            "{len} values need as many indices"
        );
        if let Some(panels) = &self.panels {
            panels.assert_fit(rows, len);
        }
        if let Some(codes) = &self.codes {
            codes.assert_fit(rows, len);
        }
        let row_ptr = index_tensor(self.row_ptr, "row pointers");
        if len == 0 {
            return Self {
                values: input.clone(),
                indices: row_ptr.clone(),
                row_ptr,
                panels: self.panels,
                codes: self.codes,
                stored: 0,
            };
        }
        Self {
            values: same_dtype(self.values, input.dtype, "values"),
            indices: index_tensor(self.indices, "indices"),
            row_ptr,
            panels: self.panels,
            codes: self.codes,
            stored: len,
        }
    }
}

/// What happens to a sum before it is stored: `act(sum + bias + residual)`.
#[derive(Debug, Clone, Default)]
pub struct Epilogue {
    /// One number for each output channel.
    pub bias: Option<CubeTensor>,
    /// A tensor of the output's shape.
    pub residual: Option<CubeTensor>,
    /// Whether negative results become 0.
    pub relu: bool,
}

impl Epilogue {
    pub(crate) fn prepared(self, dtype: DType, channels: usize, output: &Shape) -> Self {
        if let Some(bias) = &self.bias {
            assert_eq!(
                bias.meta.num_elements(),
                channels,
                "a bias of {channels} channels"
            );
        }
        if let Some(residual) = &self.residual {
            assert_eq!(
                residual.meta.shape(),
                output,
                "a residual has the output's shape"
            );
        }
        Self {
            bias: self.bias.map(|bias| same_dtype(bias, dtype, "bias")),
            residual: self
                .residual
                .map(|residual| same_dtype(residual, dtype, "residual")),
            relu: self.relu,
        }
    }
}

/// The element type of a kernel on floats of `dtype`.
pub(crate) fn float_elem(dtype: DType) -> ElemType {
    assert!(
        matches!(dtype, DType::F32 | DType::F16 | DType::BF16),
        "sparse kernels take f32, f16 and bf16, got {dtype:?}; cast the tensor first"
    );
    dtype_to_storage_type(dtype)
}

/// Contiguous, and of the dtype that the other tensors have.
pub(crate) fn same_dtype(tensor: CubeTensor, dtype: DType, what: &str) -> CubeTensor {
    assert_eq!(
        tensor.dtype, dtype,
        "{what} and input must have the same dtype"
    );
    into_contiguous(tensor)
}

/// Contiguous `i32`.
pub(crate) fn index_tensor(tensor: CubeTensor, what: &str) -> CubeTensor {
    assert_eq!(tensor.dtype, DType::I32, "{what} must be i32");
    into_contiguous(tensor)
}

/// Contiguous and of this shape.
pub(crate) fn with_shape(tensor: CubeTensor, shape: &[usize], what: &str) -> CubeTensor {
    let got: &[usize] = tensor.meta.shape();
    assert_eq!(got, shape, "the shape of the {what}");
    into_contiguous(tensor)
}

/// A tensor beside `like`, with unspecified contents.
pub(crate) fn empty_like(like: &CubeTensor, shape: impl Into<Shape>) -> CubeTensor {
    empty_device_contiguous_dtype(
        like.client.clone(),
        like.device.clone(),
        shape.into(),
        like.dtype,
    )
}

/// Units that a cube of an element-wise kernel has on this device.
pub(crate) fn flat_units(client: &Client) -> u32 {
    client.properties().hardware.max_units_per_cube.min(256)
}

/// Largest cube, capped, that this device can run, as a power of two.
pub(crate) fn units_up_to(client: &Client, cap: usize) -> usize {
    let units = (client.properties().hardware.max_units_per_cube as usize).clamp(1, cap);
    1 << units.ilog2()
}

/// Whether the device is no card: a processor, or a software rasteriser such as lavapipe.
///
/// Shared memory is ordinary memory there and gains nothing, and waiting for the units of a cube
/// is slow. Kernels read their operands where they are instead. (This is also why they run on
/// lavapipe in builds without the fix of `.ci/patches`: `CubeCL` 0.11.3 swaps the types of a shared
/// variable and its address on Vulkan devices without `VK_KHR_workgroup_memory_explicit_layout`.)
pub(crate) fn is_software(client: &Client) -> bool {
    client.properties().identity.physical.is_none()
}

/// Units of a cube on a device that is no card: what runs at once, and no more.
pub(crate) fn software_units(client: &Client) -> usize {
    client.properties().hardware.max_units_per_cube.min(32) as usize
}

/// At least `cubes` cubes, spread over the axes as the device allows.
pub(crate) fn grid(client: &Client, cubes: usize) -> CubeCount {
    let cubes = u32::try_from(cubes)
        .unwrap_or_else(|_| panic!("{cubes} cubes are more than a launch can have"));
    CubeCountSelection::new(client, cubes).cube_count()
}

/// The index width that reaches every element of the longest of `tensors`.
pub(crate) fn address_type<'a>(tensors: impl IntoIterator<Item = &'a CubeTensor>) -> AddressType {
    let lengths = tensors.into_iter().map(|tensor| tensor.meta.num_elements());
    AddressType::from_len(lengths.max().unwrap_or(0))
}
