//! Sparse operations against the f64 reference, on every device.

use burn::tensor::{Device, Tensor, activation::relu};
use burn_sparse::{
    catalogue::{self, Case, LinearCase},
    format::Csr,
    ops::{
        Activation, ConvWindow, Epilogue, SparseWeight, dense_conv2d, sparse_conv1d, sparse_conv2d,
        sparse_linear,
    },
    problem::ConvProblem,
    reference::{self, error_bound},
};
use tests::{assert_close, devices, devices_with_shared_memory, floats, tensor};

const F32: f64 = f32::EPSILON as f64;

struct Data {
    input: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
}

fn data(case: &Case, seed: u64) -> Data {
    let problem = &case.problem;
    let len = |shape: [usize; 4]| shape.iter().product();
    Data {
        input: catalogue::values(len(problem.input_shape()), seed),
        weight: catalogue::weight(len(problem.weight_shape()), case.density, seed + 1),
        bias: catalogue::values(problem.out_channels, seed + 2),
        residual: catalogue::values(len(problem.output_shape()), seed + 3),
    }
}

fn window(problem: &ConvProblem) -> ConvWindow<2> {
    ConvWindow {
        kernel: problem.kernel,
        stride: problem.stride,
        padding: problem.padding,
        dilation: problem.dilation,
        groups: problem.groups,
    }
}

fn sparse(weight: &[f32], problem: &ConvProblem, device: &Device) -> SparseWeight {
    let csr = Csr::from_dense(weight, [problem.out_channels, problem.row_len()]).unwrap();
    SparseWeight::new(csr, device)
}

/// Operands lie in `[-1, 1)`: a sum of `terms` products, bias and residual is at most that long.
fn bound(terms: usize, unit: f64) -> f64 {
    error_bound(terms + 2, terms as f64 + 2.0, unit)
}

/// A kernel may write over a residual that nobody else holds, and over no other.
#[test]
fn a_residual_that_is_still_needed_is_left_alone() {
    for (name, device) in devices() {
        let case = &catalogue::AWKWARD[0];
        let problem = &case.problem;
        let data = data(case, 77);
        let x: Tensor<4> = tensor(&data.input, problem.input_shape(), &device);
        let weight = sparse(&data.weight, problem, &device);
        let conv = |residual: Tensor<4>| {
            let epilogue = Epilogue::new().with_residual(residual);
            sparse_conv2d(x.clone(), &weight, &window(problem), epilogue)
        };
        let residual = || tensor::<4>(&data.residual, problem.output_shape(), &device);
        let kept = residual();
        let shared = floats(conv(kept.clone()));
        assert_eq!(floats(kept), data.residual, "{name}");
        assert_eq!(floats(conv(residual())), shared, "{name}");
    }
}

#[test]
fn convolutions_match_the_reference_on_every_device() {
    for (name, device) in devices() {
        for (seed, case) in catalogue::AWKWARD.iter().enumerate() {
            let problem = &case.problem;
            let data = data(case, 10 * seed as u64);
            let weight = sparse(&data.weight, problem, &device);
            let x = tensor(&data.input, problem.input_shape(), &device);
            let label = format!("{name}: {}", case.name);
            let expected = reference::conv2d(&data.input, &data.weight, None, problem);
            let y = sparse_conv2d(x.clone(), &weight, &window(problem), Epilogue::new());
            assert_eq!(y.dims(), problem.output_shape(), "{label}");
            assert_close(&label, &floats(y), &expected, bound(problem.row_len(), F32));

            // The whole epilogue in the kernel.
            let mut expected =
                reference::conv2d(&data.input, &data.weight, Some(&data.bias), problem);
            for (y, &residual) in expected.iter_mut().zip(&data.residual) {
                *y = (*y + f64::from(residual)).max(0.0);
            }
            let epilogue = Epilogue::new()
                .with_bias(tensor(&data.bias, [problem.out_channels], &device))
                .with_residual(tensor(&data.residual, problem.output_shape(), &device))
                .with_activation(Activation::Relu);
            let y = sparse_conv2d(x, &weight, &window(problem), epilogue);
            assert_close(&label, &floats(y), &expected, bound(problem.row_len(), F32));
        }
    }
}

#[test]
fn equalised_rows_and_permuted_inputs_change_nothing() {
    let case = &catalogue::AWKWARD[3];
    let problem = &case.problem;
    let data = data(case, 5);
    for (name, device) in devices() {
        let csr = Csr::from_dense(&data.weight, [problem.out_channels, problem.row_len()]).unwrap();
        let weight = SparseWeight::new(csr.equalised(), &device);
        // A view, not a contiguous tensor: channels last in memory.
        let x = tensor(&data.input, problem.input_shape(), &device).permute([0, 2, 3, 1]);
        let x = Tensor::<4>::from_data(x.into_data(), &device).permute([0, 3, 1, 2]);
        let y = sparse_conv2d(x, &weight, &window(problem), Epilogue::new());
        let expected = reference::conv2d(&data.input, &data.weight, None, problem);
        assert_close(name, &floats(y), &expected, bound(problem.row_len(), F32));
    }
}

#[test]
fn one_dimensional_convolutions_match() {
    let problem = ConvProblem {
        stride: [1, 2],
        padding: [[0, 0], [1, 2]],
        dilation: [1, 2],
        groups: 2,
        ..ConvProblem::new(3, [4, 6], [1, 19], [1, 3])
    };
    let case = Case {
        name: "conv1d",
        problem,
        density: 0.5,
    };
    let data = data(&case, 77);
    let [batch, outputs, _, length] = problem.output_shape();
    for (name, device) in devices() {
        let window = ConvWindow {
            kernel: [3],
            stride: [2],
            padding: [[1, 2]],
            dilation: [2],
            groups: 2,
        };
        let y = sparse_conv1d(
            tensor(&data.input, [3, 4, 19], &device),
            &sparse(&data.weight, &problem, &device),
            &window,
            Epilogue::new().with_bias(tensor(&data.bias, [6], &device)),
        );
        assert_eq!(y.dims(), [batch, outputs, length]);
        let expected = reference::conv1d(&data.input, &data.weight, Some(&data.bias), &problem);
        assert_close(name, &floats(y), &expected, bound(problem.row_len(), F32));
    }
}

#[test]
fn linear_maps_match_the_reference_on_every_device() {
    for (name, device) in devices() {
        for (seed, case) in catalogue::LINEAR.iter().enumerate() {
            let &LinearCase {
                m,
                d_input,
                d_output,
                density,
                ..
            } = case;
            let seed = 100 + seed as u64;
            let x = catalogue::values(m * d_input, seed);
            let weight = catalogue::weight(d_input * d_output, density, seed + 1);
            let bias = catalogue::values(d_output, seed + 2);
            let expected = reference::linear(&x, &weight, Some(&bias), d_input);
            let csr = Csr::from_dense(&weight, [d_output, d_input]).unwrap();
            let y = sparse_linear(
                tensor(&x, [m, d_input], &device),
                &SparseWeight::new(csr, &device),
                Epilogue::new().with_bias(tensor(&bias, [d_output], &device)),
            );
            let label = format!("{name}: {}", case.name);
            assert_close(&label, &floats(y), &expected, bound(d_input, F32));
        }
    }
}

/// f16 storage, f32 sums: the operands' own rounding dominates.
#[test]
fn half_precision_sums_in_single() {
    use burn::tensor::{DType, FloatDType};
    for (name, device) in devices() {
        if name != "flex" && !device.supports_dtype(DType::F16) {
            println!("SKIPPED f16 on {name}: the device has none");
            continue;
        }
        let case = &catalogue::AWKWARD[3];
        let problem = &case.problem;
        let half = |values: &[f32]| -> Vec<f32> {
            let tensor = tensor(values, [values.len()], &Device::flex());
            floats(tensor.cast(FloatDType::F16))
        };
        let data = data(case, 9);
        let (input, weight) = (half(&data.input), half(&data.weight));
        let expected = reference::conv2d(&input, &weight, None, problem);
        let x = tensor(&input, problem.input_shape(), &device).cast(FloatDType::F16);
        let packed = sparse(&weight, problem, &device);
        let values = packed.values().cast(FloatDType::F16);
        let packed = SparseWeight::from_parts(values, packed.pattern().clone());
        let y = sparse_conv2d(x, &packed, &window(problem), Epilogue::new());
        assert_eq!(y.dtype(), DType::F16, "{name}");
        let unit = 2.0f64.powi(-11);
        assert_close(name, &floats(y), &expected, bound(problem.row_len(), unit));
    }
}

#[test]
fn gradients_match_the_reference_on_every_device() {
    for (name, device) in devices() {
        let device = device.autodiff();
        for (seed, case) in catalogue::AWKWARD
            .iter()
            .enumerate()
            .filter(|(i, _)| i % 2 == 1)
        {
            let problem = &case.problem;
            let data = data(case, 1000 + seed as u64);
            let csr =
                Csr::from_dense(&data.weight, [problem.out_channels, problem.row_len()]).unwrap();
            let weight = SparseWeight::new(csr.clone(), &device);
            let values = weight.values().require_grad();
            let weight = SparseWeight::from_parts(values.clone(), weight.pattern().clone());
            let x = tensor(&data.input, problem.input_shape(), &device).require_grad();
            let y = sparse_conv2d(x.clone(), &weight, &window(problem), Epilogue::new());
            let grad = tensor(&data.residual, problem.output_shape(), &device);
            // The gradient of a sum is ones, which is where `backward` starts.
            let grads = (y * grad).backward();
            let label = format!("{name}: {}", case.name);

            let expected = reference::conv2d_grad_input(&data.residual, &data.weight, problem);
            let terms = problem.out_channels * problem.kernel[0] * problem.kernel[1];
            let actual = floats(x.grad(&grads).unwrap());
            assert_close(
                &format!("{label}: input"),
                &actual,
                &expected,
                bound(terms, F32),
            );

            let expected = reference::conv2d_grad_weight(&data.residual, &data.input, problem);
            let kept: Vec<f64> = expected
                .iter()
                .zip(&data.weight)
                .filter(|(_, w)| w.to_bits() != 0)
                .map(|(&g, _)| g)
                .collect();
            let terms = problem.output_shape().iter().product::<usize>() / problem.out_channels;
            if !kept.is_empty() {
                let actual = floats(values.grad(&grads).unwrap());
                assert_close(
                    &format!("{label}: values"),
                    &actual,
                    &kept,
                    bound(terms, F32),
                );
            }
        }
    }
}

#[test]
fn dense_convolutions_match_the_reference_with_their_gradients() {
    for (name, device) in devices_with_shared_memory() {
        let device = device.autodiff();
        for (seed, case) in catalogue::AWKWARD.iter().enumerate().step_by(3) {
            let problem = &case.problem;
            let data = data(case, 2000 + seed as u64);
            let label = format!("{name}: {}", case.name);
            let x = tensor(&data.input, problem.input_shape(), &device).require_grad();
            let w = tensor(&data.weight, problem.weight_shape(), &device).require_grad();
            let bias = tensor(&data.bias, [problem.out_channels], &device).require_grad();
            let y = dense_conv2d(x.clone(), w.clone(), Some(bias.clone()), &window(problem));
            let expected = reference::conv2d(&data.input, &data.weight, Some(&data.bias), problem);
            let terms = problem.row_len();
            assert_close(&label, &floats(y.clone()), &expected, bound(terms, F32));

            let grad = tensor(&data.residual, problem.output_shape(), &device);
            let grads = (y * grad).backward();
            let expected = reference::conv2d_grad_input(&data.residual, &data.weight, problem);
            let terms = problem.out_channels * problem.kernel[0] * problem.kernel[1];
            let actual = floats(x.grad(&grads).unwrap());
            assert_close(&label, &actual, &expected, bound(terms, F32));

            let expected = reference::conv2d_grad_weight(&data.residual, &data.input, problem);
            let terms = data.residual.len() / problem.out_channels;
            let actual = floats(w.grad(&grads).unwrap());
            assert_close(&label, &actual, &expected, bound(terms, F32));

            let plane = problem.output().iter().product::<usize>();
            let mut expected = vec![0.0; problem.out_channels];
            for (index, &g) in data.residual.iter().enumerate() {
                expected[index / plane % problem.out_channels] += f64::from(g);
            }
            let actual = floats(bias.grad(&grads).unwrap());
            assert_close(&label, &actual, &expected, bound(terms, F32));
        }
    }
}

#[test]
fn the_bias_gradient_sums_over_images_and_pixels() {
    let case = &catalogue::AWKWARD[16];
    let problem = &case.problem;
    let data = data(case, 12);
    let plane = problem.output().iter().product::<usize>();
    let mut expected = vec![0.0; problem.out_channels];
    for (index, &g) in data.residual.iter().enumerate() {
        expected[index / plane % problem.out_channels] += f64::from(g);
    }
    for (name, device) in devices_with_shared_memory() {
        let device = device.autodiff();
        let bias = tensor(&data.bias, [problem.out_channels], &device).require_grad();
        let x = tensor(&data.input, problem.input_shape(), &device);
        let weight = sparse(&data.weight, problem, &device);
        let epilogue = Epilogue::new().with_bias(bias.clone());
        let y = sparse_conv2d(x, &weight, &window(problem), epilogue);
        let grad = tensor(&data.residual, problem.output_shape(), &device);
        let grads = (y * grad).backward();
        let actual = floats(bias.grad(&grads).unwrap());
        assert_close(name, &actual, &expected, bound(plane * problem.batch, F32));
    }
}

/// Through bias, residual and ReLU, against central differences of the forward pass.
#[test]
fn the_whole_operation_passes_finite_differences() {
    let case = &catalogue::AWKWARD[7];
    let problem = &case.problem;
    let data = data(case, 4);
    for (name, device) in devices_with_shared_memory() {
        let device = device.autodiff();
        let pattern = sparse(&data.weight, problem, &device);
        let stored = floats(pattern.values());
        let loss = |values: &[f32], input: &[f32], residual: &[f32]| {
            let values = tensor(values, [values.len()], &device).require_grad();
            let input = tensor(input, problem.input_shape(), &device).require_grad();
            let residual = tensor(residual, problem.output_shape(), &device).require_grad();
            let epilogue = Epilogue::new()
                .with_residual(residual.clone())
                .with_activation(Activation::Relu);
            let weight = SparseWeight::from_parts(values.clone(), pattern.pattern().clone());
            let y = sparse_conv2d(input.clone(), &weight, &window(problem), epilogue);
            (y.powi_scalar(2).mean(), values, input, residual)
        };
        let (value, values, input, residual) = loss(&stored, &data.input, &data.residual);
        let grads = value.backward();
        let step = 1e-2f32;
        let numeric = |which: usize, index: usize| {
            let eval = |delta: f32| {
                let mut args = [stored.clone(), data.input.clone(), data.residual.clone()];
                args[which][index] += delta;
                loss(&args[0], &args[1], &args[2]).0.into_scalar::<f32>()
            };
            f64::from(eval(step) - eval(-step)) / (2.0 * f64::from(step))
        };
        let grads = [
            floats(values.grad(&grads).unwrap()),
            floats(input.grad(&grads).unwrap()),
            floats(residual.grad(&grads).unwrap()),
        ];
        for (which, grads) in grads.iter().enumerate() {
            for index in (0..grads.len()).step_by((grads.len() / 7).max(1)) {
                let (analytic, numeric) = (f64::from(grads[index]), numeric(which, index));
                // The loss is O(1) in f32: differences of it carry eps / step, and ReLU's kinks
                // and the square add terms of the order of the step.
                assert!(
                    (analytic - numeric).abs() <= 1e-4 + 0.05 * numeric.abs(),
                    "{name}: operand {which}, element {index}: {analytic} against {numeric}"
                );
            }
        }
    }
}

#[test]
fn linear_gradients_match_the_dense_product() {
    for (name, device) in devices_with_shared_memory() {
        let device = device.autodiff();
        let (m, d_input, d_output) = (5, 12, 7);
        let dense = catalogue::weight(d_input * d_output, 0.4, 3);
        let csr = Csr::from_dense(&dense, [d_output, d_input]).unwrap();
        let packed = SparseWeight::new(csr, &device);
        let values = packed.values().require_grad();
        let packed = SparseWeight::from_parts(values.clone(), packed.pattern().clone());
        let x = tensor(&catalogue::values(m * d_input, 8), [m, d_input], &device).require_grad();
        let w = tensor(&dense, [d_output, d_input], &device).require_grad();
        let weights = tensor(&catalogue::values(m * d_output, 9), [m, d_output], &device);
        let sparse = sparse_linear(x.clone(), &packed, Epilogue::new());
        let grads = (relu(sparse) * weights.clone()).sum().backward();
        let reference = (relu(x.clone().matmul(w.clone().transpose())) * weights)
            .sum()
            .backward();
        let wide = |grads: Vec<f32>| grads.into_iter().map(f64::from).collect::<Vec<_>>();
        let expected = wide(floats(x.grad(&reference).unwrap()));
        assert_close(name, &floats(x.grad(&grads).unwrap()), &expected, 1e-5);
        let expected: Vec<f64> = wide(floats(w.grad(&reference).unwrap()))
            .into_iter()
            .zip(&dense)
            .filter(|(_, w)| **w != 0.0)
            .map(|(g, _)| g)
            .collect();
        assert_close(name, &floats(values.grad(&grads).unwrap()), &expected, 1e-5);
    }
}

#[test]
#[should_panic(expected = "6 input channels are not divisible by 4 groups")]
fn groups_that_do_not_divide_panic_with_the_numbers() {
    let device = Device::flex();
    let weight = SparseWeight::new(Csr::from_dense(&[1.0; 4], [4, 1]).unwrap(), &device);
    let window = ConvWindow {
        groups: 4,
        ..ConvWindow::new([1, 1])
    };
    sparse_conv2d(
        Tensor::zeros([1, 6, 3, 3], &device),
        &weight,
        &window,
        Epilogue::new(),
    );
}

#[test]
#[should_panic(expected = "is not the weight [4, 6, 1, 1]")]
fn a_weight_of_another_layer_panics_with_the_numbers() {
    let device = Device::flex();
    let weight = SparseWeight::new(Csr::from_dense(&[1.0; 20], [4, 5]).unwrap(), &device);
    let window = ConvWindow::new([1, 1]);
    sparse_conv2d(
        Tensor::zeros([1, 6, 3, 3], &device),
        &weight,
        &window,
        Epilogue::new(),
    );
}

#[test]
#[should_panic(expected = "residual [1, 2, 3, 3] added to an output of [1, 4, 3, 3]")]
fn a_residual_of_another_shape_panics_with_the_numbers() {
    let device = Device::flex();
    let weight = SparseWeight::new(Csr::from_dense(&[1.0; 24], [4, 6]).unwrap(), &device);
    let epilogue = Epilogue::new().with_residual(Tensor::zeros([1, 2, 3, 3], &device));
    sparse_conv2d(
        Tensor::zeros([1, 6, 3, 3], &device),
        &weight,
        &ConvWindow::new([1, 1]),
        epilogue,
    );
}
