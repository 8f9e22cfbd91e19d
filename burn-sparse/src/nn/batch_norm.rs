//! Batch normalisation and what follows it.

use burn::nn::BatchNorm;
use burn::tensor::{DType, Tensor, TensorData};

use super::Activation;
use crate::ops::Epilogue;

/// `act(norm(x) + residual)`, as [`BatchNorm::forward`] and the operations after it; what a network does
/// between its convolutions until the norms are folded into them.
///
/// While training on Flex in f32 it is one kernel, which also updates the running statistics; everywhere
/// else it is Burn's.
///
/// # Shapes
/// - `input`, `residual`, output `[batch, channels, height, width]`
///
/// # Panics
/// On shapes that do not fit.
///
/// # Example
/// ```
/// use burn::nn::BatchNormConfig;
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_sparse::nn::{Activation, batch_norm};
///
/// let device = Device::flex().autodiff();
/// let norm = BatchNormConfig::new(3).init(&device);
/// let x = Tensor::<4>::random([8, 3, 5, 5], Distribution::Uniform(1.0, 9.0), &device);
/// let y = batch_norm(&norm, x, None, Activation::None);
/// assert!(y.mean().abs().into_scalar::<f32>() < 1e-5);
/// ```
pub fn batch_norm(
    norm: &BatchNorm,
    input: Tensor<4>,
    residual: Option<Tensor<4>>,
    activation: Activation,
) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if input.device().is_autodiff() && norm.training.is_enabled() {
        let (gamma, beta) = (norm.gamma.val(), norm.beta.val());
        assert!(
            gamma.dims() == [input.dims()[1]],
            "a batch norm of {} channels on an input of {}",
            gamma.dims()[0],
            input.dims()[1]
        );
        let fused = crate::ops::batch_norm_train(
            &input,
            [&gamma, &beta],
            residual.as_ref(),
            activation,
            norm.epsilon,
        );
        if let Some((y, moments)) = fused {
            let device = input.device();
            let momentum = norm.momentum;
            let running = [
                (&norm.running_mean, moments.mean),
                (&norm.running_var, moments.variance),
            ];
            for (state, new) in running {
                let len = new.len();
                let data = TensorData::new(new, [len]);
                let new = Tensor::<1>::from_data(data, (&device, DType::F32));
                let old = state.value_sync().to_device(&device);
                let mixed = old.mul_scalar(1.0 - momentum).add(new.mul_scalar(momentum));
                state.update(mixed.detach());
            }
            return y;
        }
    }
    Epilogue::finish_dense(residual, activation, norm.forward(input))
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::nn::BatchNormConfig;
    use burn::tensor::{Device, Distribution};

    use super::*;

    /// Output, gradients of input, residual, gamma and beta, and running statistics.
    fn all(
        norm: BatchNorm,
        tensors: [&Tensor<4>; 3],
        layer: impl Fn(&BatchNorm, Tensor<4>, Tensor<4>) -> Tensor<4>,
    ) -> Vec<Vec<f32>> {
        let [x, residual, weights] = tensors;
        let (x, residual) = (x.clone().require_grad(), residual.clone().require_grad());
        let y = layer(&norm, x.clone(), residual.clone());
        let grads = (y.clone() * weights.clone()).sum().backward();
        let data = |tensor: Tensor<1>| tensor.into_data().try_to_vec().expect("f32");
        let flat = |tensor: Tensor<4>| data(tensor.flatten(0, 3));
        vec![
            flat(y.inner()),
            flat(x.grad(&grads).expect("a leaf")),
            flat(
                residual
                    .grad(&grads)
                    .unwrap_or_else(|| x.clone().inner().zeros_like()),
            ),
            data(norm.gamma.val().grad(&grads).expect("a parameter")),
            data(norm.beta.val().grad(&grads).expect("a parameter")),
            data(norm.running_mean.value_sync().inner()),
            data(norm.running_var.value_sync().inner()),
        ]
    }

    #[test]
    fn it_is_what_burn_computes_with_its_gradients_and_statistics() {
        let device = Device::flex().autodiff();
        let random =
            |dims: [usize; 4]| Tensor::<4>::random(dims, Distribution::Normal(0.5, 2.0), &device);
        let gamma = Tensor::<1>::random([5], Distribution::Default, &device);
        // Clones would share their running statistics.
        let norm = || {
            let mut norm = BatchNormConfig::new(5).init(&device);
            norm.gamma = norm.gamma.map(|_| gamma.clone().require_grad());
            norm
        };
        let dims = [6, 5, 7, 9];
        let (x, residual, weights) = (random(dims), random(dims), random(dims));
        for (add, activation) in [
            (false, Activation::None),
            (false, Activation::Relu),
            (true, Activation::None),
            (true, Activation::Relu),
        ] {
            let tensors = [&x, &residual, &weights];
            let ours = all(norm(), tensors, |norm, x, residual| {
                batch_norm(norm, x, add.then_some(residual), activation)
            });
            let burns = all(norm(), tensors, |norm, x, residual| {
                Epilogue::finish_dense(add.then_some(residual), activation, norm.forward(x))
            });
            for (index, (ours, burns)) in ours.iter().zip(&burns).enumerate() {
                assert_eq!(ours.len(), burns.len());
                let scale = burns.iter().fold(1.0f32, |most, x| most.max(x.abs()));
                for (a, b) in ours.iter().zip(burns) {
                    assert!((a - b).abs() <= 1e-4 * scale, "{index}: {a} and {b}");
                }
            }
        }
    }

    /// A transposed input, and a layer that takes no part in training.
    #[test]
    fn other_layouts_and_frozen_layers_are_served() {
        let device = Device::flex().autodiff();
        let norm = BatchNormConfig::new(3).init(&device);
        let x = Tensor::<4>::random([4, 6, 3, 5], Distribution::Default, &device);
        let turned = x.clone().swap_dims(1, 2);
        let ours = batch_norm(&norm.clone(), turned.clone(), None, Activation::Relu);
        let burns = burn::tensor::activation::relu(norm.clone().forward(turned.clone()));
        assert!((ours - burns).abs().max().into_scalar::<f32>() < 1e-5);

        let plain = Device::flex();
        let x = Tensor::<4>::random([4, 3, 6, 5], Distribution::Default, &plain);
        let norm = BatchNormConfig::new(3).init(&plain);
        let ours = batch_norm(&norm, x.clone(), None, Activation::None);
        assert!((ours - norm.forward(x)).abs().max().into_scalar::<f32>() == 0.0);
    }
}
