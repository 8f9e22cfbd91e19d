//! The operations that a backend implements.

use burn::backend::{
    Backend, ExtensionType, backend_extension,
    tensor::{FloatTensor, IntTensor},
};
#[cfg(feature = "cubecl-backend")]
use burn::tensor::Shape;

use super::Pattern;
use crate::ConvProblem;

/// A float tensor or none: `Option` as it can cross from [`Tensor`](burn::tensor::Tensor) to a
/// backend.
#[derive(Debug, Clone, ExtensionType)]
#[extension_type(fusion: cfg(feature = "cubecl-backend"))]
pub enum OptionalFloat<B: Backend> {
    /// None.
    Absent,
    /// Some.
    Present(FloatTensor<B>),
}

/// An integer tensor or none, as [`OptionalFloat`].
#[derive(Debug, Clone, ExtensionType)]
#[extension_type(fusion: cfg(feature = "cubecl-backend"))]
pub enum OptionalInt<B: Backend> {
    /// None.
    Absent,
    /// Some.
    Present(IntTensor<B>),
}

macro_rules! optional {
    ($name:ident, $tensor:ident) => {
        impl<B: Backend> From<Option<$tensor<B>>> for $name<B> {
            fn from(tensor: Option<$tensor<B>>) -> Self {
                tensor.map_or(Self::Absent, Self::Present)
            }
        }

        impl<B: Backend> $name<B> {
            /// The tensor, if there is one.
            pub fn into_option(self) -> Option<$tensor<B>> {
                match self {
                    Self::Absent => None,
                    Self::Present(tensor) => Some(tensor),
                }
            }
        }
    };
}

optional!(OptionalFloat, FloatTensor);
optional!(OptionalInt, IntTensor);

/// Sparse convolution and product for a backend: one implementation for Flex (CPU), one for every
/// CubeCL runtime (CUDA, ROCm, Vulkan, Metal, WebGPU, CPU), gradients for all.
///
/// Index tensors are `i32`. `offsets` and `row_ptr` are [`Csr::offsets`](crate::format::Csr::offsets)
/// and [`Csr::row_ptr`](crate::format::Csr::row_ptr): entry `j` of row (output channel) `k`, for
/// `row_ptr[k] <= j < row_ptr[k + 1]`, reads the stretched input of its image at
/// `offsets[j] + e * cols + f` for output pixel `(e, f)`
/// (see [`Stretched`](crate::problem::Stretched)).
///
/// `transpose` is the same pattern ordered by input channel, one tensor holding
/// `[ptr (in_channels + 1) | entry (stored) | row (stored)]`: the entries `entry[ptr[c]..ptr[c+1]]`
/// read channel `c` and belong to output channels `row[..]`. Gradients for the input gather along it.
///
/// `panels` is the [`index`](crate::format::PanelEntries::index) of the panels of `pattern`, for CubeCL
/// devices and weights whose rows share inputs, and `codes` that of its
/// [codes](crate::format::CodeWords::index), for weights whose `values` are still those of `pattern` and
/// of few levels. Kernels may read either instead of `values`.
#[backend_extension(
    Autodiff,
    Fusion: cfg(feature = "cubecl-backend"),
    Flex: cfg(feature = "flex"),
    Cube: cfg(feature = "cubecl-backend")
)]
pub trait SparseOps: Backend {
    /// `out[n,k,e,f] = act(bias[k] + residual[n,k,e,f] + sum_j values[j] * x[n, offsets[j] + e*cols + f])`
    /// with `act` the identity or `max(0, .)`.
    ///
    /// `transpose` is only read by the backward pass and may be absent outside of training; Flex
    /// reads `pattern` instead of `offsets` and `row_ptr`, which are absent there unless a backward
    /// pass needs them.
    #[allow(
        clippy::too_many_arguments,
        reason = "a backend call takes tensors, not structs of them"
    )]
    #[fusion(dtype = input, shape = Shape::from(problem.output_shape()))]
    fn sparse_conv(
        input: FloatTensor<Self>,
        values: FloatTensor<Self>,
        #[extension_type] offsets: OptionalInt<Self>,
        #[extension_type] row_ptr: OptionalInt<Self>,
        #[extension_type] transpose: OptionalInt<Self>,
        #[extension_type] panels: OptionalInt<Self>,
        #[extension_type] bias: OptionalFloat<Self>,
        #[extension_type] residual: OptionalFloat<Self>,
        pattern: Pattern,
        problem: ConvProblem,
        relu: bool,
    ) -> FloatTensor<Self>;

    /// Gradient of [`sparse_conv`](Self::sparse_conv) (before bias, residual and activation) for
    /// its input, `[batch, in_channels, height, width]`.
    #[fusion(dtype = grad, shape = Shape::from(problem.input_shape()))]
    fn sparse_conv_grad_input(
        grad: FloatTensor<Self>,
        values: FloatTensor<Self>,
        offsets: IntTensor<Self>,
        row_ptr: IntTensor<Self>,
        transpose: IntTensor<Self>,
        problem: ConvProblem,
    ) -> FloatTensor<Self>;

    /// Gradient of [`sparse_conv`](Self::sparse_conv) for its values, one per entry:
    /// `sum_{n,e,f} grad[n,k,e,f] * x[n, offsets[j] + e*cols + f]`.
    #[fusion(dtype = grad, shape = offsets)]
    fn sparse_conv_grad_values(
        input: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        offsets: IntTensor<Self>,
        row_ptr: IntTensor<Self>,
        problem: ConvProblem,
    ) -> FloatTensor<Self>;

    /// `out[m,k] = act(bias[k] + residual[m,k] + sum_j values[j] * x[m, columns[j]])` for
    /// `x [m, d_input]` and an output of `[m, rows]`. Flex multiplies few rows with the weight in
    /// the order that `pattern` keeps for it.
    #[allow(
        clippy::too_many_arguments,
        reason = "a backend call takes tensors, not structs of them"
    )]
    #[fusion(dtype = input, shape = Shape::new([input[0], pattern.csr().rows()]))]
    fn sparse_linear(
        input: FloatTensor<Self>,
        values: FloatTensor<Self>,
        columns: IntTensor<Self>,
        row_ptr: IntTensor<Self>,
        #[extension_type] transpose: OptionalInt<Self>,
        #[extension_type] panels: OptionalInt<Self>,
        #[extension_type] codes: OptionalInt<Self>,
        #[extension_type] bias: OptionalFloat<Self>,
        #[extension_type] residual: OptionalFloat<Self>,
        pattern: Pattern,
        relu: bool,
    ) -> FloatTensor<Self>;
}
