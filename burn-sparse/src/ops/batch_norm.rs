//! Batch normalisation while training, with what follows it, in one pass: on Flex alone, where Burn's own is a
//! dozen operations that each go through memory on one thread. Other devices fuse them.

use std::sync::{Arc, OnceLock};

use burn::backend::{Backend, Dispatch, backend_extension, tensor::FloatTensor};
use burn::tensor::{DType, Tensor};
use burn_autodiff::{
    Autodiff, NodeId,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};

use super::{Activation, OptionalFloat, is_flex};
use crate::cpu::Moments;

/// Where the moments of a batch are left by the call that computes them.
#[derive(Debug, Clone, Default)]
pub struct MomentsCell(Arc<OnceLock<Moments>>);

impl MomentsCell {
    pub(super) fn set(&self, moments: Moments) {
        // Set by one call alone; of several, the first counts.
        let _ = self.0.set(moments);
    }

    /// The moments.
    ///
    /// # Panics
    /// Before they are computed.
    pub(super) fn get(&self) -> &Moments {
        self.0.get().expect("the forward pass leaves its moments")
    }
}

/// Batch normalisation for a backend.
#[backend_extension(Autodiff, Flex)]
pub trait BatchNormOps: Backend {
    /// See [`cpu::batch_norm_train`](crate::cpu::batch_norm_train); `[batch, channels, height, width]`. The
    /// moments go into `moments`.
    fn batch_norm_act(
        input: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        #[extension_type] residual: OptionalFloat<Self>,
        moments: MomentsCell,
        epsilon: f32,
        relu: bool,
    ) -> FloatTensor<Self>;
}

/// Gradients of [`BatchNormOps::batch_norm_act`].
pub(super) struct BatchNormGrads<B: Backend> {
    pub(super) input: FloatTensor<B>,
    pub(super) gamma: FloatTensor<B>,
    pub(super) beta: FloatTensor<B>,
    /// If there was a residual.
    pub(super) residual: Option<FloatTensor<B>>,
}

/// What the backward pass calls. `output` is there if negative values became zero.
pub(super) trait BatchNormBackward: Backend {
    fn batch_norm_act_grads(
        input: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        moments: &Moments,
        epsilon: f32,
        output: Option<FloatTensor<Self>>,
        grad: FloatTensor<Self>,
        residual: bool,
    ) -> BatchNormGrads<Self>;
}

#[derive(Debug)]
struct BatchNormAct;

#[derive(Debug, Clone)]
struct Saved<B: Backend> {
    input: NodeId,
    gamma: NodeId,
    output: Option<FloatTensor<B>>,
    moments: MomentsCell,
    epsilon: f32,
}

impl<B: BatchNormBackward> Saved<B> {
    fn grads(
        self,
        grad: FloatTensor<B>,
        checkpointer: &mut Checkpointer,
        residual: bool,
    ) -> BatchNormGrads<B> {
        let input = checkpointer.retrieve_node_output::<FloatTensor<B>>(self.input);
        let gamma = checkpointer.retrieve_node_output::<FloatTensor<B>>(self.gamma);
        let moments = self.moments.get();
        B::batch_norm_act_grads(
            input,
            gamma,
            moments,
            self.epsilon,
            self.output,
            grad,
            residual,
        )
    }
}

/// Input, gamma, beta, and the residual if there is one.
macro_rules! backward {
    ($parents:literal) => {
        impl<B: BatchNormBackward> Backward<B, $parents> for BatchNormAct {
            type State = Saved<B>;

            fn backward(
                self,
                ops: Ops<Self::State, $parents>,
                grads: &mut Gradients,
                checkpointer: &mut Checkpointer,
            ) {
                let grad = grads.consume::<B>(&ops.node);
                let result = ops.state.grads(grad, checkpointer, $parents == 4);
                let results = [Some(result.input), Some(result.gamma), Some(result.beta)];
                let results = results.into_iter().chain([result.residual]);
                for (node, grad) in ops.parents.into_iter().zip(results) {
                    if let (Some(node), Some(grad)) = (node, grad) {
                        grads.register::<B>(node.id, grad);
                    }
                }
            }
        }
    };
}

backward!(3);
backward!(4);

impl<B: BatchNormOps + BatchNormBackward, C: CheckpointStrategy> BatchNormOps for Autodiff<B, C> {
    fn batch_norm_act(
        input: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        residual: OptionalFloat<Self>,
        moments: MomentsCell,
        epsilon: f32,
        relu: bool,
    ) -> FloatTensor<Self> {
        let residual = residual.into_option();
        let more = residual.clone().map(|tensor| tensor.into_primitive());
        let call = |input: FloatTensor<B>, gamma: FloatTensor<B>| {
            let beta = beta.clone().into_primitive();
            B::batch_norm_act(
                input,
                gamma,
                beta,
                more.clone().into(),
                moments.clone(),
                epsilon,
                relu,
            )
        };
        macro_rules! record {
            ($nodes:expr) => {
                match BatchNormAct.prepare::<C>($nodes).compute_bound().stateful() {
                    OpsKind::Tracked(mut prep) => {
                        let (x, g) = (prep.checkpoint(&input), prep.checkpoint(&gamma));
                        let y = call(input.into_primitive(), gamma.into_primitive());
                        let saved = Saved {
                            input: x,
                            gamma: g,
                            output: relu.then(|| y.clone()),
                            moments: moments.clone(),
                            epsilon,
                        };
                        prep.finish(saved, y)
                    }
                    OpsKind::UnTracked(prep) => {
                        prep.finish(call(input.into_primitive(), gamma.into_primitive()))
                    }
                }
            };
        }
        let [x, g, b] = [input.node(), gamma.node(), beta.node()];
        match &residual {
            None => record!([x, g, b]),
            Some(residual) => record!([x, g, b, residual.node()]),
        }
    }
}

/// `act(norm(x) + residual)` with the moments of `x`, and those moments, where there is a kernel.
pub(crate) fn batch_norm_train(
    input: &Tensor<4>,
    [gamma, beta]: [&Tensor<1>; 2],
    residual: Option<&Tensor<4>>,
    activation: Activation,
    epsilon: f64,
) -> Option<(Tensor<4>, Moments)> {
    let float = |dtype: DType| dtype == DType::F32;
    let fits = is_flex(&input.device())
        && float(input.dtype())
        && float(gamma.dtype())
        && float(beta.dtype())
        && residual
            .is_none_or(|residual| float(residual.dtype()) && residual.dims() == input.dims())
        && input.shape().num_elements() > 0;
    if !fits {
        return None;
    }
    let cell = MomentsCell::default();
    let y = Dispatch::batch_norm_act(
        input.clone().into_dispatch(),
        gamma.clone().into_dispatch(),
        beta.clone().into_dispatch(),
        residual.cloned().map(Tensor::into_dispatch).into(),
        cell.clone(),
        epsilon as f32,
        activation == Activation::Relu,
    );
    let moments = cell.get().clone();
    Some((Tensor::from_dispatch(y), moments))
}
