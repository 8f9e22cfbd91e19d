//! Linear map.

use burn::config::Config;
use burn::module::{Module, Param, ParamId};
use burn::nn::{Initializer, LinearLayout};
use burn::tensor::{Device, Tensor};

use super::{Activation, Weight, flow, profile, schedule, trace};
use crate::{
    ConvProblem, SparseError,
    ops::{Epilogue, SparseWeight, dense_linear, sparse_linear},
};

/// Configuration of a [`Linear`]; the fields and builders of `burn::nn::LinearConfig`.
#[derive(Config, Debug)]
pub struct LinearConfig {
    /// Input features.
    pub d_input: usize,
    /// Output features.
    pub d_output: usize,
    /// Whether a bias is added.
    #[config(default = true)]
    pub bias: bool,
    /// How the parameters start.
    #[config(default = "Initializer::KaimingUniform{gain:1.0/f64::sqrt(3.0),fan_out_only:false}")]
    pub initializer: Initializer,
    /// How the dense weight lies in memory.
    #[config(default = "LinearLayout::Row")]
    pub layout: LinearLayout,
}

impl LinearConfig {
    /// A dense layer, initialised as Burn's.
    pub fn init(&self, device: &Device) -> Linear {
        burn::nn::LinearConfig::new(self.d_input, self.d_output)
            .with_bias(self.bias)
            .with_initializer(self.initializer.clone())
            .with_layout(self.layout)
            .init(device)
            .into()
    }
}

/// A linear map `y = x W + b` whose weight is dense, packed or a chain of factors.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[d_input, d_output]`.
    pub weight: Weight<2>,
    /// `[d_output]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl From<burn::nn::Linear> for Linear {
    fn from(linear: burn::nn::Linear) -> Self {
        Self {
            weight: linear.weight.into(),
            bias: linear.bias,
        }
    }
}

impl Linear {
    /// `x W + b`.
    ///
    /// # Shapes
    /// - input `[.., d_input]`
    /// - output `[.., d_output]`
    ///
    /// # Panics
    /// If the last axis of the input is not `d_input`.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        self.forward_fused(input, None, Activation::None)
    }

    /// `act(x W + b + residual)`: one kernel when packed, Burn's operations when dense, the factors one
    /// after the other when factored.
    ///
    /// # Panics
    /// On shapes that do not fit.
    pub fn forward_fused<const D: usize>(
        &self,
        input: Tensor<D>,
        residual: Option<Tensor<D>>,
        activation: Activation,
    ) -> Tensor<D> {
        self.operands().run(input, residual, activation)
    }

    /// The parameters as they are now, for a layer that runs many times in a row.
    pub(super) fn operands(&self) -> Operands {
        let weights = match &self.weight {
            Weight::Factored(factors) => factors.named().map(|(_, w)| Product::of(w)).collect(),
            weight => vec![Product::of(weight)],
        };
        Operands {
            weights,
            bias: self.bias.as_ref().map(Param::val),
        }
    }

    /// Keeps only the non-zeros of the weight; see [`Weight::pack`].
    ///
    /// # Errors
    /// [`SparseError::NonFinite`] for a NaN or an infinity.
    pub fn pack(mut self) -> Result<Self, SparseError> {
        self.weight = self.weight.pack(true)?;
        Ok(self)
    }

    /// The dense layer again.
    #[must_use]
    pub fn unpack(mut self) -> Self {
        self.weight = self.weight.unpack();
        self
    }
}

/// A [`Linear`] with its parameters evaluated: a mask attached to a weight is multiplied once, not
/// at each of the steps that use it.
#[derive(Debug, Clone)]
pub(super) struct Operands {
    /// One after the other.
    weights: Vec<Product>,
    bias: Option<Tensor<1>>,
}

#[derive(Debug, Clone)]
struct Product {
    id: ParamId,
    dims: [usize; 2],
    weight: Operand,
}

#[derive(Debug, Clone)]
enum Operand {
    Dense(Tensor<2>),
    Packed(SparseWeight),
}

impl Operands {
    /// As [`Linear::forward_fused`].
    pub(super) fn run<const D: usize>(
        &self,
        mut input: Tensor<D>,
        residual: Option<Tensor<D>>,
        activation: Activation,
    ) -> Tensor<D> {
        let (last, before) = self.weights.split_last().expect("a weight or its factors");
        for weight in before {
            input = weight.run(input, Epilogue::new());
        }
        let bias = self.bias.clone();
        let epilogue = Epilogue {
            bias,
            residual,
            activation,
        };
        last.run(input, epilogue)
    }
}

impl Product {
    fn of(weight: &Weight<2>) -> Self {
        Self {
            id: weight.id(),
            dims: weight.dims(),
            weight: match weight.packed() {
                Some(packed) => Operand::Packed(packed.sparse()),
                None => Operand::Dense(weight.val()),
            },
        }
    }

    fn run<const D: usize>(&self, input: Tensor<D>, epilogue: Epilogue<D>) -> Tensor<D> {
        let (shape, [d_input, d_output]) = (input.dims(), self.dims);
        let problem = || {
            let rows = shape[..D - 1].iter().product();
            ConvProblem::new(rows, [d_input, d_output], [1, 1], [1, 1])
        };
        trace::record(self.id, problem);
        let seen = flow::through(self.id, problem, [Some(&input), epilogue.residual.as_ref()]);
        let work = || match &self.weight {
            Operand::Packed(weight) => {
                schedule::through(self.id, None, input, epilogue, |input, epilogue| {
                    sparse_linear(input, weight, epilogue)
                })
            }
            Operand::Dense(weight) => {
                assert!(
                    shape[D - 1] == d_input,
                    "Linear: input {shape:?}, but the layer has {d_input} input features"
                );
                let dtype = Some(weight.dtype());
                schedule::through(self.id, dtype, input, epilogue, |input, epilogue| {
                    let y = dense_linear(input, weight.clone(), epilogue.bias);
                    Epilogue::finish_dense(epilogue.residual, epilogue.activation, y)
                })
            }
        };
        seen.or(|| profile::timed(self.id, problem, work))
    }
}
