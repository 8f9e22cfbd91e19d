//! Convolution by kernels that all channels share.

#[cfg(feature = "flex")]
use burn::backend::{Backend, Dispatch, backend_extension, tensor::FloatTensor};
use burn::tensor::{DType, Tensor};

#[cfg(feature = "flex")]
use super::{Activation, OptionalFloat, Pattern, is_flex};
use super::{ConvWindow, Epilogue, SparseWeight, dense_conv2d, sparse_conv2d};
use crate::ConvProblem;

/// Convolution by shared kernels with sparse coefficients: on Flex alone; see [`shared_conv2d`].
#[cfg(feature = "flex")]
#[backend_extension(Flex)]
pub trait SharedOps: Backend {
    /// See [`cpu::SharedConv`](crate::cpu::SharedConv). `basis` is `[kernels, 1, height, width]`, `values` those
    /// of `pattern`.
    #[allow(
        clippy::too_many_arguments,
        reason = "a backend call takes tensors, not structs of them"
    )]
    fn shared_conv(
        input: FloatTensor<Self>,
        basis: FloatTensor<Self>,
        values: FloatTensor<Self>,
        #[extension_type] bias: OptionalFloat<Self>,
        #[extension_type] residual: OptionalFloat<Self>,
        pattern: Pattern,
        problem: ConvProblem,
        relu: bool,
    ) -> FloatTensor<Self>;
}

/// How the responses of channels to shared kernels are combined: `[out_channels, in_channels * kernels, 1, 1]`,
/// the kernels of a channel one after the other.
#[derive(Debug, Clone)]
pub enum Coefficients<'a> {
    /// All of them.
    Dense(&'a Tensor<4>),
    /// Only those that are not zero.
    Sparse(&'a SparseWeight),
}

/// Convolution whose kernels are combinations of a few that all channels share:
///
/// ```text
/// r[n,c,b,e,f] = Σ_{y,x} basis[b,0,y,x] input[n, c, e·u + y·d − top, f·v + x·d − left]
/// out[n,k,e,f] = act(bias[k] + residual[n,k,e,f] + Σ_{c,b} a[k, c·B + b] r[n,c,b,e,f])
/// ```
///
/// On Flex in f32 without gradients, sparse coefficients are added up while the responses of a few channels
/// are in the first cache ([`cpu::SharedConv`](crate::cpu::SharedConv)). Everything else is a convolution of
/// every channel by itself, and one of 1×1.
///
/// # Shapes
/// - `input` `[batch, in_channels, height, width]`
/// - `basis` `[kernels, 1, kernel height, kernel width]`
/// - `residual` and output `[batch, out_channels, height_out, width_out]`
///
/// # Panics
/// On shapes that do not fit, with the numbers, and on a window of several groups.
///
/// # References
/// Li, Liu, Wu, Chen, *PENNI*, ICML 2020, section 3.1.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_sparse::format::Csr;
/// use burn_sparse::ops::{Coefficients, ConvWindow, Epilogue, SparseWeight, shared_conv2d};
///
/// let device = Device::flex();
/// // Two kernels on three channels; one output that uses the second kernel on the last channel.
/// let basis = Tensor::<4>::random([2, 1, 3, 3], Distribution::Default, &device);
/// let csr = Csr::from_dense(&[0., 0., 0., 0., 0., 1.5], [1, 6])?;
/// let weight = SparseWeight::new(csr, &device);
/// let x = Tensor::<4>::random([4, 3, 8, 8], Distribution::Default, &device);
/// let window = ConvWindow::new([3, 3]);
/// let y = shared_conv2d(x, basis, Coefficients::Sparse(&weight), &window, Epilogue::new());
/// assert_eq!(y.dims(), [4, 1, 6, 6]);
/// # Ok::<(), burn_sparse::SparseError>(())
/// ```
pub fn shared_conv2d(
    input: Tensor<4>,
    basis: Tensor<4>,
    coefficients: Coefficients<'_>,
    window: &ConvWindow<2>,
    epilogue: Epilogue<4>,
) -> Tensor<4> {
    const NAME: &str = "shared_conv2d";
    let [kernels, one, height, width] = basis.dims();
    let (rows, columns) = match &coefficients {
        Coefficients::Dense(tensor) => (tensor.dims()[0], tensor.dims()[1]),
        Coefficients::Sparse(weight) => (weight.rows(), weight.pattern().csr().row_len()),
    };
    let problem = window
        .problem(input.dims(), rows)
        .unwrap_or_else(|error| panic!("{NAME}: {error}"));
    assert!(
        one == 1 && [height, width] == problem.kernel && problem.groups == 1,
        "{NAME}: a basis [{kernels}, {one}, {height}, {width}] for kernels of {:?} in {} groups",
        problem.kernel,
        problem.groups
    );
    assert!(
        columns == problem.in_channels * kernels,
        "{NAME}: {columns} coefficients of each output for {} channels and {kernels} kernels",
        problem.in_channels
    );
    epilogue.check(NAME, problem.output_shape(), 1);
    #[cfg(feature = "flex")]
    if let Coefficients::Sparse(weight) = &coefficients
        && has_kernel(&input, &basis, weight, &epilogue)
    {
        return Tensor::from_dispatch(Dispatch::shared_conv(
            input.into_dispatch(),
            basis.into_dispatch(),
            weight.values().into_dispatch(),
            epilogue.bias.map(Tensor::into_dispatch).into(),
            epilogue.residual.map(Tensor::into_dispatch).into(),
            weight.pattern().clone(),
            problem,
            epilogue.activation == Activation::Relu,
        ));
    }
    let channels = problem.in_channels;
    let each = ConvWindow {
        groups: channels,
        ..*window
    };
    let responses = dense_conv2d(input, basis.repeat_dim(0, channels), None, &each);
    let point = ConvWindow::new([1, 1]);
    match coefficients {
        Coefficients::Sparse(weight) => sparse_conv2d(responses, weight, &point, epilogue),
        Coefficients::Dense(weight) => {
            let y = dense_conv2d(responses, weight.clone(), epilogue.bias, &point);
            Epilogue::finish_dense(epilogue.residual, epilogue.activation, y)
        }
    }
}

/// Whether all of them are f32 on Flex, and no gradients are recorded.
#[cfg(feature = "flex")]
fn has_kernel(
    input: &Tensor<4>,
    basis: &Tensor<4>,
    weight: &SparseWeight,
    epilogue: &Epilogue<4>,
) -> bool {
    let values = weight.values();
    let plain = |device: burn::tensor::Device, dtype: DType| {
        dtype == DType::F32 && is_flex(&device) && !device.is_autodiff()
    };
    let images = [Some(input), Some(basis), epilogue.residual.as_ref()];
    let vectors = [Some(&values), epilogue.bias.as_ref()];
    images
        .into_iter()
        .flatten()
        .all(|t| plain(t.device(), t.dtype()))
        && vectors
            .into_iter()
            .flatten()
            .all(|t| plain(t.device(), t.dtype()))
}
