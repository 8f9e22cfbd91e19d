//! What follows the products of a recurrent step, in one pass where that is possible.

#[cfg(feature = "flex")]
use burn::backend::{Backend, Dispatch, backend_extension, tensor::FloatTensor};
#[cfg(feature = "flex")]
use burn::tensor::DType;
use burn::tensor::Tensor;

#[cfg(feature = "flex")]
use super::is_flex;

/// Steps of recurrent layers after their products, where Burn's operations would each go through
/// memory and be called one by one: on Flex alone, for other devices fuse them.
#[cfg(feature = "flex")]
#[backend_extension(Flex)]
pub trait CellOps: Backend {
    /// See [`cpu::gru_cell`](crate::cpu::gru_cell); `[batch, 3 d]` twice, `[batch, d]` to
    /// `[batch, d]`.
    fn gru_cell(
        inputs: FloatTensor<Self>,
        sums: FloatTensor<Self>,
        hidden: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// See [`cpu::lstm_cell`](crate::cpu::lstm_cell); `[batch, 4 d]`, `[batch, d]` to cell and
    /// hidden states `[2, batch, d]`.
    fn lstm_cell(sums: FloatTensor<Self>, cell: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Whether all of them are f32 on Flex, and no gradients are recorded.
#[cfg(feature = "flex")]
fn plain(tensors: &[&Tensor<2>]) -> bool {
    tensors.iter().all(|tensor| {
        let device = tensor.device();
        tensor.dtype() == DType::F32 && is_flex(&device) && !device.is_autodiff()
    })
}

/// The state after a step of a GRU with sigmoid, tanh and `reset_after`, if there is a kernel.
#[cfg(feature = "flex")]
pub(crate) fn gru_cell(
    inputs: &Tensor<2>,
    sums: &Tensor<2>,
    hidden: &Tensor<2>,
) -> Option<Tensor<2>> {
    plain(&[inputs, sums, hidden]).then(|| {
        Tensor::from_dispatch(Dispatch::gru_cell(
            inputs.clone().into_dispatch(),
            sums.clone().into_dispatch(),
            hidden.clone().into_dispatch(),
        ))
    })
}

/// Cell and hidden state after a step of an LSTM with four gates, sigmoid and tanh, if there is a
/// kernel.
#[cfg(feature = "flex")]
pub(crate) fn lstm_cell(sums: &Tensor<2>, cell: &Tensor<2>) -> Option<[Tensor<2>; 2]> {
    plain(&[sums, cell]).then(|| {
        let states: Tensor<3> = Tensor::from_dispatch(Dispatch::lstm_cell(
            sums.clone().into_dispatch(),
            cell.clone().into_dispatch(),
        ));
        [0, 1].map(|which| states.clone().narrow(0, which, 1).squeeze_dim(0))
    })
}

#[cfg(not(feature = "flex"))]
pub(crate) fn gru_cell(_: &Tensor<2>, _: &Tensor<2>, _: &Tensor<2>) -> Option<Tensor<2>> {
    None
}

#[cfg(not(feature = "flex"))]
pub(crate) fn lstm_cell(_: &Tensor<2>, _: &Tensor<2>) -> Option<[Tensor<2>; 2]> {
    None
}
