//! Factors of a convolution in one pass, where there is a kernel for it.

use burn::tensor::Tensor;
#[cfg(feature = "flex")]
use {
    super::is_flex,
    crate::{
        SparseError,
        cpu::{Chain, ChainWeights, Isa},
    },
    burn_std::Bytes,
    std::sync::{Arc, Mutex, MutexGuard, PoisonError},
};
#[cfg(any(feature = "flex", feature = "cubecl-backend"))]
use {
    super::{Activation, OptionalFloat},
    crate::ConvProblem,
    burn::backend::{Backend, Dispatch, backend_extension, tensor::FloatTensor},
    burn::tensor::{DType, Device},
};
#[cfg(feature = "cubecl-backend")]
use {
    crate::kernel::{self, Choice, FactorTensors as CubeFactors, FactoredKernel},
    burn::backend::DispatchDevice,
    burn::tensor::Shape,
    burn_cubecl::CubeBackend,
};

use super::{ConvWindow, Epilogue, dense_conv2d};

/// How the dense factors of a convolution are run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FactoredBy {
    /// As layers do: on Flex by strips, on CubeCL devices by what was measured as the fastest.
    #[default]
    Fastest,
    /// All factors in one kernel, strip by strip; what is between them does not leave the chip.
    Strip,
    /// The core by a kernel for few channels, its neighbours by dense convolutions.
    Core,
    /// Dense convolutions, one after the other.
    Dense,
}

/// Convolutions by dense factors: on Flex one after the other on every strip of an image, on the CubeCL
/// runtimes whichever of three kernels was measured as the fastest for a shape, one for all factors among
/// them (see `kernel::factored_conv`). Without gradients: those are three convolutions.
#[cfg(any(feature = "flex", feature = "cubecl-backend"))]
#[backend_extension(
    Fusion: cfg(feature = "cubecl-backend"),
    Flex: cfg(feature = "flex"),
    Cube: cfg(feature = "cubecl-backend")
)]
pub trait FactoredOps: Backend {
    /// `act(expand (core ∗ (reduce x)) + bias + residual)`; see [`cpu::Chain`](crate::cpu::Chain).
    #[allow(
        clippy::too_many_arguments,
        reason = "a backend call takes tensors, not structs of them"
    )]
    #[fusion(dtype = input, shape = Shape::from(problem.output_shape()))]
    fn factored_conv(
        input: FloatTensor<Self>,
        #[extension_type] reduce: OptionalFloat<Self>,
        core: FloatTensor<Self>,
        #[extension_type] expand: OptionalFloat<Self>,
        #[extension_type] bias: OptionalFloat<Self>,
        #[extension_type] residual: OptionalFloat<Self>,
        chains: Chains,
        problem: ConvProblem,
        relu: bool,
        by: FactoredBy,
    ) -> FloatTensor<Self>;
}

#[cfg(feature = "cubecl-backend")]
impl FactoredOps for CubeBackend {
    fn factored_conv(
        input: FloatTensor<Self>,
        reduce: OptionalFloat<Self>,
        core: FloatTensor<Self>,
        expand: OptionalFloat<Self>,
        bias: OptionalFloat<Self>,
        residual: OptionalFloat<Self>,
        _chains: Chains,
        problem: ConvProblem,
        relu: bool,
        by: FactoredBy,
    ) -> FloatTensor<Self> {
        let factors = CubeFactors {
            reduce: reduce.into_option(),
            core,
            expand: expand.into_option(),
        };
        let epilogue = kernel::Epilogue {
            bias: bias.into_option(),
            residual: residual.into_option(),
            relu,
        };
        let choice = match by {
            FactoredBy::Fastest => Choice::Tuned,
            // A strip wherever one fits.
            FactoredBy::Strip => Choice::Heuristic,
            FactoredBy::Core => Choice::Forced(FactoredKernel::Core),
            FactoredBy::Dense => Choice::Forced(FactoredKernel::Dense),
        };
        kernel::factored_conv(input, factors, epilogue, &problem, choice)
    }
}

/// Factors in the order of the kernel, for the inputs that were seen last: a network that runs orders its
/// weights once. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Chains {
    #[cfg(feature = "flex")]
    ready: Arc<Mutex<Vec<Ready>>>,
}

/// Input sizes remembered for the same weights.
#[cfg(feature = "flex")]
const SIZES: usize = 16;

/// Weights remembered at a time: clones that train apart, or a network and its average, take turns.
#[cfg(feature = "flex")]
const WEIGHTS: usize = 3;

#[cfg(feature = "flex")]
#[derive(Debug)]
struct Ready {
    /// The memory that the values were read from. Holding it keeps anybody from writing other values
    /// there, so as long as the addresses are the same, so are the values.
    memory: [Option<Arc<Bytes>>; 3],
    ranks: [usize; 2],
    /// By the input that they are for, last used last; all have the same ordered weights.
    chains: Vec<(ConvProblem, Arc<Chain>)>,
}

#[cfg(feature = "flex")]
impl Ready {
    fn is_of(&self, memory: &[Option<Arc<Bytes>>; 3], ranks: [usize; 2]) -> bool {
        let mut pairs = self.memory.iter().zip(memory);
        let same = pairs.all(|pair| match pair {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        });
        same && self.ranks == ranks
    }
}

#[cfg(feature = "flex")]
impl Chains {
    fn lock(&self) -> MutexGuard<'_, Vec<Ready>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The chain for these weights, which lie in that memory.
    pub(super) fn get(
        &self,
        problem: &ConvProblem,
        weights: ChainWeights<'_>,
        memory: [Option<Arc<Bytes>>; 3],
    ) -> Result<Arc<Chain>, SparseError> {
        let mut ready = self.lock();
        let known = ready.iter().position(|r| r.is_of(&memory, weights.ranks));
        let mut entry = match known {
            Some(index) => ready.remove(index),
            None => Ready {
                memory,
                ranks: weights.ranks,
                chains: Vec::new(),
            },
        };
        let fits = |(known, _): &(ConvProblem, Arc<Chain>)| known == problem;
        let chain = match entry.chains.iter().position(fits) {
            Some(index) => entry.chains.remove(index).1,
            None => Arc::new(match entry.chains.last() {
                // Layers of one module do not change their geometry, but nothing keeps them from it.
                Some((_, other)) if other.runs(problem) => other.resized(problem)?,
                _ => Chain::new(problem, weights, Isa::current())?,
            }),
        };
        if entry.chains.len() >= SIZES {
            entry.chains.remove(0);
        }
        entry.chains.push((*problem, chain.clone()));
        if ready.len() >= WEIGHTS {
            ready.remove(0);
        }
        ready.push(entry);
        Ok(chain)
    }
}

/// The dense factors of a convolution; see [`nn::Factors`](crate::nn::Factors) for their shapes.
#[derive(Debug, Clone)]
pub(crate) struct FactorTensors {
    pub(crate) reduce: Option<Tensor<4>>,
    pub(crate) core: Tensor<4>,
    pub(crate) expand: Option<Tensor<4>>,
}

/// `act(expand (core ∗ (reduce x)) + bias + residual)` by dense factors.
///
/// Without gradients, on Flex in f32 strips of the images go through all factors at once, and CubeCL devices
/// run what was measured as the fastest; everything else is three convolutions.
///
/// # Panics
/// On shapes that do not fit, with the numbers.
pub(crate) fn factored_conv2d(
    input: Tensor<4>,
    factors: FactorTensors,
    chains: &Chains,
    window: &ConvWindow<2>,
    epilogue: Epilogue<4>,
) -> Tensor<4> {
    factored_conv2d_by(
        input,
        factors,
        chains,
        window,
        epilogue,
        FactoredBy::Fastest,
    )
}

/// The same by one form, where the device has it; as dense convolutions where it has none.
pub(crate) fn factored_conv2d_by(
    input: Tensor<4>,
    factors: FactorTensors,
    chains: &Chains,
    window: &ConvWindow<2>,
    epilogue: Epilogue<4>,
    by: FactoredBy,
) -> Tensor<4> {
    let outputs = factors.expand.as_ref().unwrap_or(&factors.core).dims()[0];
    let shape = input.dims();
    let channels = factors.reduce.as_ref().unwrap_or(&factors.core).dims()[1];
    assert!(
        shape[1] == channels,
        "factored_conv2d: input {shape:?} for factors of {channels} channels"
    );
    let problem = window
        .problem(shape, outputs)
        .unwrap_or_else(|error| panic!("factored_conv2d: {error}"));
    epilogue.check("factored_conv2d", problem.output_shape(), 1);
    #[cfg(any(feature = "flex", feature = "cubecl-backend"))]
    if has_kernel(&input, &factors, &epilogue) {
        let optional = |tensor: Option<Tensor<4>>| tensor.map(Tensor::into_dispatch).into();
        return Tensor::from_dispatch(Dispatch::factored_conv(
            input.into_dispatch(),
            optional(factors.reduce),
            factors.core.into_dispatch(),
            optional(factors.expand),
            epilogue.bias.map(Tensor::into_dispatch).into(),
            optional(epilogue.residual),
            chains.clone(),
            problem,
            epilogue.activation == Activation::Relu,
            by,
        ));
    }
    let _ = (chains, by);
    let point = ConvWindow::new([1, 1]);
    let x = match factors.reduce {
        Some(reduce) => dense_conv2d(input, reduce, None, &point),
        None => input,
    };
    let y = match factors.expand {
        None => dense_conv2d(x, factors.core, epilogue.bias, window),
        Some(expand) => {
            let x = dense_conv2d(x, factors.core, None, window);
            dense_conv2d(x, expand, epilogue.bias, &point)
        }
    };
    Epilogue::finish_dense(epilogue.residual, epilogue.activation, y)
}

/// Whether all of them are of one dtype and on one kind of device that has a kernel for it, and no gradients
/// are recorded.
#[cfg(any(feature = "flex", feature = "cubecl-backend"))]
pub(super) fn has_kernel(
    input: &Tensor<4>,
    factors: &FactorTensors,
    epilogue: &Epilogue<4>,
) -> bool {
    let dtype = input.dtype();
    let plain = |device: Device, other| other == dtype && takes(&device, dtype);
    let optional = [&factors.reduce, &factors.expand, &epilogue.residual];
    let mut images = optional.into_iter().flatten().chain([input, &factors.core]);
    images.all(|tensor| plain(tensor.device(), tensor.dtype()))
        && epilogue
            .bias
            .iter()
            .all(|bias| plain(bias.device(), bias.dtype()))
}

#[cfg(any(feature = "flex", feature = "cubecl-backend"))]
fn takes(device: &Device, dtype: DType) -> bool {
    if device.is_autodiff() {
        return false;
    }
    #[cfg(feature = "flex")]
    if is_flex(device) {
        return dtype == DType::F32;
    }
    #[cfg(feature = "cubecl-backend")]
    if matches!(device.as_dispatch(), DispatchDevice::Cube(_)) {
        return matches!(dtype, DType::F32 | DType::F16 | DType::BF16);
    }
    false
}
