//! Factors one after the other, each result through memory.

use burn::backend::ops::{ActivationOps, FloatTensorOps, ModuleOps};
use burn::tensor::ops::ConvOptions;
use burn_cubecl::{CubeBackend, tensor::CubeTensor};

use super::launch::Operands;
use crate::kernel::{
    Choice, Epilogue,
    base::is_software,
    core_conv::{core_weight, try_core_conv},
};

/// Burn's convolution by a factor of 1×1.
fn pointwise(x: CubeTensor, factor: CubeTensor, bias: Option<CubeTensor>) -> CubeTensor {
    let options = ConvOptions::new([1, 1], [0, 0], [1, 1], 1);
    CubeBackend::conv2d(x, factor, bias, options)
}

/// What is left of an epilogue when the bias is in.
fn finish(y: CubeTensor, residual: Option<CubeTensor>, relu: bool) -> CubeTensor {
    let y = match residual {
        Some(residual) => CubeBackend::float_add(y, residual),
        None => y,
    };
    match relu {
        true => CubeBackend::relu(y),
        false => y,
    }
}

/// Three convolutions of Burn.
pub(super) fn dense(operands: Operands) -> CubeTensor {
    let Operands {
        input,
        factors,
        epilogue,
        problem,
        ..
    } = operands;
    let options = ConvOptions::new_with_padding(
        problem.stride,
        problem.padding.map(|[before, after]| (before, after)),
        problem.dilation,
        1,
    );
    let x = match factors.reduce {
        Some(reduce) => pointwise(input, reduce, None),
        None => input,
    };
    let y = match factors.expand {
        None => CubeBackend::conv2d(x, factors.core, epilogue.bias, options),
        Some(expand) => {
            let x = CubeBackend::conv2d(x, factors.core, None, options);
            pointwise(x, expand, epilogue.bias)
        }
    };
    finish(y, epilogue.residual, epilogue.relu)
}

/// The core convolution between Burn's.
///
/// # Errors
/// The rule that all of its tiles break.
pub(super) fn core(operands: Operands) -> Result<CubeTensor, String> {
    let problem = operands.core_problem();
    let Operands {
        input,
        factors,
        epilogue,
        ..
    } = operands;
    let choice = match is_software(&input.client) {
        true => Choice::Heuristic,
        false => Choice::Tuned,
    };
    let x = match factors.reduce {
        Some(reduce) => pointwise(input, reduce, None),
        None => input,
    };
    let weight = core_weight(factors.core);
    match factors.expand {
        None => try_core_conv(x, weight, epilogue, &problem, choice),
        Some(expand) => {
            let x = try_core_conv(x, weight, Epilogue::default(), &problem, choice)?;
            let y = pointwise(x, expand, epilogue.bias);
            Ok(finish(y, epilogue.residual, epilogue.relu))
        }
    }
}
