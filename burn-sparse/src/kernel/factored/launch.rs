//! Host side of convolutions by three factors.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{
    config::{FactorShape, StripTile},
    kernel::{StripShapeLaunch, factored_strip_kernel},
    select, unfused,
};
use crate::{
    ConvProblem,
    kernel::{
        Choice, Epilogue,
        base::{address_type, empty_like, float_elem, grid, same_dtype, with_shape},
        core_conv::CoreWindow,
    },
};

/// The dense factors of a convolution on a device.
#[derive(Debug, Clone)]
pub struct FactorTensors {
    /// `[D1, C, 1, 1]`; without it, `D1` is `C`.
    pub reduce: Option<CubeTensor>,
    /// `[D2, D1, R, S]`.
    pub core: CubeTensor,
    /// `[N, D2, 1, 1]`; without it, `D2` is `N`.
    pub expand: Option<CubeTensor>,
}

/// How a convolution by factors is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FactoredKernel {
    /// Dense convolutions of Burn, one after the other.
    Dense,
    /// The [core convolution](crate::kernel::core_conv()) between dense ones of 1×1.
    Core,
    /// All factors in one kernel, strip by strip.
    Strip(StripTile),
}

impl core::fmt::Display for FactoredKernel {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Dense => f.write_str("factors_dense"),
            Self::Core => f.write_str("factors_core"),
            Self::Strip(tile) => write!(f, "factors_{tile}"),
        }
    }
}

/// Convolution of `input [B, C, H, W]` by up to three dense factors, `[B, N, H', W']`:
///
/// ```text
/// t[b,·,y,x] = reduce x[b,·,y,x]                                          C  → D1
/// s[b,a,e,f] = Σ_{d,r,q} core[a,d,r,q] t[b,d, e·u+r·d−top, f·v+q·d−left]   D1 → D2
/// out        = act(expand s + bias + residual)                            D2 → N
/// ```
///
/// `problem` is that of the whole: stride, padding and dilation are the core's. [`FactoredKernel::Strip`]
/// keeps `t` and `s` on the chip, where the three kernels write and read them; the rows of `t` that two
/// neighbouring strips see are computed for both. (TDC, `PPoPP` 2023, gives the core a kernel of its own;
/// fusing it with its neighbours is ours.) Sums are f32 whatever the dtype; `t` and `s` are kept in the
/// dtype of the input, by every kernel.
///
/// # Panics
/// If a tensor does not have the shape or dtype that `problem`, the input and the core ask for, for groups,
/// or if a forced kernel breaks its rules on this device.
pub fn factored_conv(
    input: CubeTensor,
    factors: FactorTensors,
    epilogue: Epilogue,
    problem: &ConvProblem,
    choice: Choice<FactoredKernel>,
) -> CubeTensor {
    let operands = Operands::new(input, factors, epilogue, problem);
    match choice {
        Choice::Tuned => select::tuned(operands),
        Choice::Heuristic => {
            let kernel = select::heuristic(&operands);
            launch(operands, kernel)
        }
        Choice::Forced(kernel) => launch(operands, kernel),
    }
    .unwrap_or_else(|rule| panic!("{rule}"))
}

/// Tensors that fit a problem.
#[derive(Debug, Clone)]
pub(super) struct Operands {
    pub(super) input: CubeTensor,
    pub(super) factors: FactorTensors,
    pub(super) epilogue: Epilogue,
    pub(super) problem: ConvProblem,
    pub(super) shape: FactorShape,
}

impl Operands {
    fn new(
        input: CubeTensor,
        factors: FactorTensors,
        epilogue: Epilogue,
        problem: &ConvProblem,
    ) -> Self {
        // Kernels are launched without checks: sizes that contradict each other must not get there.
        if let Err(error) = problem.check() {
            panic!("{error}");
        }
        assert_eq!(
            problem.groups, 1,
            "factors are of convolutions of one group"
        );
        let input = with_shape(input, &problem.input_shape(), "input");
        let core: &[usize] = factors.core.meta.shape();
        let &[d2, d1, r, s] = core else {
            panic!("a core [D2, D1, R, S], got {core:?}");
        };
        assert_eq!([r, s], problem.kernel, "the kernel of the core");
        let (channels, outputs) = (problem.in_channels, problem.out_channels);
        if factors.reduce.is_none() {
            assert_eq!(
                d1, channels,
                "the channels of a core without a first factor"
            );
        }
        if factors.expand.is_none() {
            assert_eq!(d2, outputs, "the channels of a core without a last factor");
        }
        let fit = |tensor, shape: [usize; 4], what| {
            same_dtype(with_shape(tensor, &shape, what), input.dtype, what)
        };
        let shape = FactorShape {
            ranks: [d1, d2],
            window: CoreWindow::of(problem),
            reduce: factors.reduce.is_some(),
            expand: factors.expand.is_some(),
        };
        let factors = FactorTensors {
            reduce: factors
                .reduce
                .map(|reduce| fit(reduce, [d1, channels, 1, 1], "first factor")),
            core: fit(factors.core, [d2, d1, r, s], "core"),
            expand: factors
                .expand
                .map(|expand| fit(expand, [outputs, d2, 1, 1], "last factor")),
        };
        let epilogue = epilogue.prepared(input.dtype, outputs, &problem.output_shape().into());
        Self {
            input,
            factors,
            epilogue,
            problem: *problem,
            shape,
        }
    }

    /// Whether there is nothing to compute, or nothing to compute it from.
    pub(super) fn is_empty(&self) -> bool {
        let ranks = self.shape.ranks;
        self.problem.output_shape().contains(&0)
            || self.problem.input_shape().contains(&0)
            || ranks.contains(&0)
    }

    /// The core alone.
    pub(super) fn core_problem(&self) -> ConvProblem {
        ConvProblem {
            in_channels: self.shape.ranks[0],
            out_channels: self.shape.ranks[1],
            ..self.problem
        }
    }
}

/// Runs one kernel.
///
/// # Errors
/// The rule that it breaks.
pub(super) fn launch(operands: Operands, kernel: FactoredKernel) -> Result<CubeTensor, String> {
    match kernel {
        FactoredKernel::Dense => Ok(unfused::dense(operands)),
        FactoredKernel::Core => unfused::core(operands),
        FactoredKernel::Strip(tile) => strip(operands, tile),
    }
}

fn strip(operands: Operands, tile: StripTile) -> Result<CubeTensor, String> {
    if operands.is_empty() {
        return Err("a strip has inputs, outputs and ranks".to_string());
    }
    let Operands {
        input,
        factors,
        epilogue,
        problem,
        shape: factor_shape,
    } = operands;
    let elem = float_elem(input.dtype);
    let output = empty_like(&input, problem.output_shape());
    let client = output.client.clone();
    tile.check(&factor_shape, elem.size(), &client.properties().hardware)?;
    let [out_height, out_width] = problem.output();
    let cubes = tile.cubes(&problem);
    let shape = StripShapeLaunch::new(
        problem.in_channels,
        problem.out_channels,
        problem.input[0],
        problem.input[1],
        problem.padding[0][0],
        problem.padding[1][0],
        out_height,
        out_width,
        cubes,
        out_width.div_ceil(tile.cols),
        out_height.div_ceil(tile.rows),
    );
    // A factor that is not there is not read.
    let core = factors.core;
    let reduce = factors.reduce.unwrap_or_else(|| core.clone());
    let expand = factors.expand.unwrap_or_else(|| core.clone());
    let address = address_type([&input, &reduce, &core, &expand, &output]);
    // SAFETY: output channels, rows and columns are compared with their counts before a store. Inputs are
    // read inside the image only, and channels of a factor are cut to theirs. What enters and what leaves
    // the core has `pitch` elements for each pixel of the window and of the outputs; pixels are below those
    // counts when kept and cut to them when read, and a window ends where that of the last pixel does.
    // Every tensor has the shape that the problem and the ranks say, checked by `Operands`.
    unsafe {
        factored_strip_kernel::launch_unchecked(
            &client,
            grid(&client, cubes),
            CubeDim::new_1d(tile.units as u32),
            address,
            input.into_buffer_arg(),
            reduce.into_buffer_arg(),
            core.into_buffer_arg(),
            expand.into_buffer_arg(),
            epilogue.bias.map(|bias| bias.into_buffer_arg()).into(),
            epilogue
                .residual
                .map(|residual| residual.into_buffer_arg())
                .into(),
            output.clone().into_buffer_arg(),
            shape,
            tile,
            factor_shape,
            epilogue.relu,
            elem,
        );
    }
    Ok(output)
}
