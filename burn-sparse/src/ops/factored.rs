//! Factors of a convolution in one pass, where there is a kernel for it.

use burn::tensor::Tensor;
#[cfg(feature = "flex")]
use {
    super::{Activation, OptionalFloat, is_flex},
    crate::{
        ConvProblem, SparseError,
        cpu::{Chain, ChainWeights, Isa},
    },
    burn::backend::{Backend, Dispatch, backend_extension, tensor::FloatTensor},
    burn::tensor::{DType, Device},
    burn_std::Bytes,
    std::sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{ConvWindow, Epilogue, dense_conv2d};

/// Convolutions by dense factors, one after the other on every strip of an image: on Flex alone, other
/// devices run three convolutions.
#[cfg(feature = "flex")]
#[backend_extension(Flex)]
pub trait FactoredOps: Backend {
    /// `act(expand (core ∗ (reduce x)) + bias + residual)`; see [`cpu::Chain`](crate::cpu::Chain).
    #[allow(
        clippy::too_many_arguments,
        reason = "a backend call takes tensors, not structs of them"
    )]
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
    ) -> FloatTensor<Self>;
}

/// Factors in the order of the kernel, for the inputs that were seen last: a network that runs orders its
/// weights once. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Chains {
    #[cfg(feature = "flex")]
    ready: Arc<Mutex<Vec<Ready>>>,
}

/// Input sizes remembered for a layer.
#[cfg(feature = "flex")]
const REMEMBERED: usize = 16;

#[cfg(feature = "flex")]
#[derive(Debug)]
struct Ready {
    problem: ConvProblem,
    /// The memory that the values were read from. Holding it keeps anybody from writing other values
    /// there, so as long as the addresses are the same, so are the values.
    memory: [Option<Arc<Bytes>>; 3],
    chain: Arc<Chain>,
}

#[cfg(feature = "flex")]
impl Ready {
    fn is_of(&self, memory: &[Option<Arc<Bytes>>; 3]) -> bool {
        let mut pairs = self.memory.iter().zip(memory);
        pairs.all(|pair| match pair {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        })
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
        // Weights that training has left behind are let go.
        ready.retain(|ready| ready.is_of(&memory));
        if let Some(hit) = ready.iter().find(|ready| ready.problem == *problem) {
            return Ok(hit.chain.clone());
        }
        let chain = Arc::new(Chain::new(problem, weights, Isa::current())?);
        if ready.len() >= REMEMBERED {
            ready.remove(0);
        }
        ready.push(Ready {
            problem: *problem,
            memory,
            chain: chain.clone(),
        });
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
/// On Flex in f32 and without gradients strips of the images go through all factors at once; everything
/// else is three convolutions.
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
    #[cfg(feature = "flex")]
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
        ));
    }
    #[cfg(not(feature = "flex"))]
    let _ = chains;
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

/// Whether all of them are f32 on Flex, and no gradients are recorded.
#[cfg(feature = "flex")]
fn has_kernel(input: &Tensor<4>, factors: &FactorTensors, epilogue: &Epilogue<4>) -> bool {
    let plain =
        |device: Device, dtype| dtype == DType::F32 && is_flex(&device) && !device.is_autodiff();
    let optional = [&factors.reduce, &factors.expand, &epilogue.residual];
    let mut images = optional.into_iter().flatten().chain([input, &factors.core]);
    images.all(|tensor| plain(tensor.device(), tensor.dtype()))
        && epilogue
            .bias
            .iter()
            .all(|bias| plain(bias.device(), bias.dtype()))
}
