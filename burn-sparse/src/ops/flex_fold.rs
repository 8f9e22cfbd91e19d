//! Batches of small images under each other, from layer to layer.

use burn_flex::FlexTensor;

use super::{
    flex::{ROWS, Weights, slice},
    flex_memory::{Output, images, period},
    pattern::Form,
};
use crate::{
    ConvProblem,
    cpu::{Finish, Fold, ImagesMut, Isa, Residual},
};

/// How a layer hands on its batch under each other, where that pays and layers are likely to go on with
/// it.
pub(super) fn of(
    input: &FlexTensor,
    residual: Option<&FlexTensor>,
    problem: &ConvProblem,
    relu: bool,
) -> Option<Fold> {
    let of_input = period(input);
    let of_residual = residual.and_then(period);
    if relu || of_input.is_some() || of_residual.is_some() {
        // Rows between images of another height are no measure.
        let same = problem.input[0] == problem.output()[0];
        let given = of_residual.or(of_input.filter(|_| same));
        Fold::of(problem, given, Isa::current().lanes())
    } else {
        None
    }
}

/// A sparse convolution of a batch whose outputs lie under each other.
pub(super) fn conv(
    input: &FlexTensor,
    weights: &Weights,
    residual: Option<FlexTensor>,
    problem: &ConvProblem,
    fold: Fold,
    relu: bool,
) -> FlexTensor {
    let Weights {
        values,
        bias,
        pattern,
    } = weights;
    let direct = pattern
        .direct(
            Form::images(problem).folded(fold),
            slice(values),
            values.data_arc(),
        )
        .unwrap_or_else(|error| panic!("sparse_conv2d: {error}"));
    let shape = problem.output_shape();
    let finish = |residual| Finish {
        bias: bias.as_ref().map(slice),
        residual,
        relu,
    };
    let input = images::<f32>(input).expect(ROWS);
    let Some(mut residual) = residual else {
        let mut out = Output::<f32>::folded(shape, fold);
        direct.run_folded(input, finish(Residual::None), out.images());
        return out.into_tensor();
    };
    if period(&residual) != Some(fold.period) {
        // What it is added to goes there afterwards.
        let mut out = Output::<f32>::folded(shape, fold);
        out.fill(&images::<f32>(&residual).expect(ROWS));
        direct.run_folded(input, finish(Residual::Output), out.images());
        return out.into_tensor();
    }
    if let Some(data) = residual.try_storage_mut::<f32>() {
        let target = ImagesMut {
            data,
            batch_stride: 0,
            channel_stride: fold.plane(problem.output()),
        };
        direct.run_folded(input, finish(Residual::Output), target);
        return residual;
    }
    let mut out = Output::<f32>::folded(shape, fold);
    let residual = images::<f32>(&residual).expect(ROWS);
    direct.run_folded(input, finish(Residual::Images(residual)), out.images());
    out.into_tensor()
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Tensor};

    use crate::{
        catalogue,
        format::Csr,
        nn::{Activation, early_and_late},
        ops::{ConvWindow, Epilogue, SparseWeight, sparse_conv2d},
    };

    struct Layer {
        weight: SparseWeight,
        bias: Tensor<1>,
        window: ConvWindow<2>,
    }

    impl Layer {
        fn new([input, output]: [usize; 2], kernel: usize, stride: usize, seed: u64) -> Self {
            let device = Device::flex();
            let row_len = input * kernel * kernel;
            let dense = catalogue::weight(output * row_len, 0.3, seed);
            let csr = Csr::from_dense(&dense, [output, row_len]).unwrap();
            let bias = catalogue::values(output, seed + 1);
            Self {
                weight: SparseWeight::new(csr, &device),
                bias: Tensor::from_data(&bias[..], &device),
                window: ConvWindow {
                    stride: [stride; 2],
                    padding: [[kernel / 2; 2]; 2],
                    ..ConvWindow::new([kernel; 2])
                },
            }
        }

        fn forward(&self, x: Tensor<4>, residual: Option<Tensor<4>>, relu: bool) -> Tensor<4> {
            let epilogue = Epilogue::new()
                .with_bias(self.bias.clone())
                .with_residual(residual)
                .with_activation(if relu {
                    Activation::Relu
                } else {
                    Activation::None
                });
            sparse_conv2d(x, &self.weight, &self.window, epilogue)
        }
    }

    /// A block that halves the image, one that does not, and Burn's own operations after them: shortcuts
    /// that lie otherwise, that are used again, and that become the output.
    #[test]
    fn a_batch_gives_what_its_images_give() {
        let enter = Layer::new([5, 9], 1, 1, 1);
        let halve = Layer::new([9, 9], 3, 2, 2);
        let project = Layer::new([5, 20], 1, 2, 3);
        let widen = Layer::new([9, 20], 1, 1, 4);
        let second = [
            Layer::new([20, 9], 1, 1, 5),
            Layer::new([9, 9], 3, 1, 6),
            Layer::new([9, 20], 1, 1, 7),
        ];
        let wide = Layer::new([9, 6], 5, 1, 8);
        let network = |x: Tensor<4>| {
            let shortcut = project.forward(x.clone(), None, false);
            let y = halve.forward(enter.forward(x, None, true), None, true);
            let x = widen.forward(y, Some(shortcut), true);
            let y = second[1].forward(second[0].forward(x.clone(), None, true), None, true);
            let y = second[2].forward(y, Some(x), true);
            // Wider kernels ask for more rows between images.
            let narrow = second[0].forward(y.clone(), None, true);
            let far = wide.forward(narrow.clone(), None, true);
            let held = second[2].forward(narrow, Some(y.clone()), false);
            Tensor::cat(vec![y + 1.0, far, held], 1)
        };
        for size in [13, 14, 3] {
            let x = Tensor::<4>::random([9, 5, size, size], Distribution::Default, &Device::flex());
            let alone = (0..9).map(|n| network(x.clone().narrow(0, n, 1))).collect();
            let alone = Tensor::cat(alone, 0);
            let close = |y: Tensor<4>, images: usize, what: &str| {
                let difference = (y - alone.clone().narrow(0, 0, images)).abs().max();
                let difference = difference.into_scalar::<f32>();
                assert!(
                    difference < 1e-4,
                    "{what}, {images} of {size}x{size}: {difference}"
                );
            };
            for images in [2, 3, 8, 9] {
                let x = x.clone().narrow(0, 0, images);
                close(network(x.clone()), images, "at once");
                for together in [1, 2, 4] {
                    let y = early_and_late(x.clone(), together, |x| x, network);
                    close(y, images, "in runs");
                }
            }
        }
    }
}
