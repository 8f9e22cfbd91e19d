//! The forms in which `bench tucker` runs a layer.

use burn::tensor::{FloatDType, Tensor, module::conv2d, ops::ConvOptions};
use burn_sparse::nn::Conv2d;
use burn_sparse::ops::{FactoredBy, FactoredConv};
use burn_sparse::{ConvProblem, SparseError};
use clap::ValueEnum;
use serde::Serialize;

use super::{BenchError, Ratio};
use crate::timing::Timing;

/// A way to compute a layer, or a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum FormName {
    /// The undivided layer, this project's
    Dense,
    /// The undivided layer, Burn's
    BurnDense,
    /// The factors by convolutions of Burn, one after the other
    BurnThree,
    /// The core alone, by the kernel for few channels
    Core,
    /// The same between dense 1x1 convolutions
    CoreBetween,
    /// All factors in one kernel, strip by strip
    Strip,
    /// The layer with factors, which takes the fastest of these
    Factors,
}

impl FormName {
    /// What is timed on flex, where factors are strips: the rivals, and the layer.
    pub(super) const ON_FLEX: [Self; 4] =
        [Self::Dense, Self::BurnDense, Self::BurnThree, Self::Factors];

    /// What is timed elsewhere.
    pub(super) const ALL: [Self; 7] = [
        Self::Dense,
        Self::BurnDense,
        Self::BurnThree,
        Self::Core,
        Self::CoreBetween,
        Self::Strip,
        Self::Factors,
    ];

    /// The head of its column.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Dense => "dense ms",
            Self::BurnDense => "Burn ms",
            Self::BurnThree => "Burn's 3 ms",
            Self::Core => "core ms",
            Self::CoreBetween => "core of 3 ms",
            Self::Strip => "strip ms",
            Self::Factors => "factors ms",
        }
    }

    /// The name in reports.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::BurnDense => "burn_dense",
            Self::BurnThree => "burn_three",
            Self::Core => "core",
            Self::CoreBetween => "core_between",
            Self::Strip => "strip",
            Self::Factors => "factors",
        }
    }
}

/// A form that was timed.
#[derive(Debug, Serialize)]
pub(super) struct Form {
    /// Which.
    pub(super) name: FormName,
    /// Milliseconds.
    pub(super) time: Timing,
    /// Its time over that of the layer with factors, round by round: above 1, factors are faster.
    pub(super) over_factors: Ratio,
}

/// A form that the device does not have.
#[derive(Debug, Serialize)]
pub(super) struct Absent {
    pub(super) name: FormName,
    pub(super) reason: String,
}

/// A layer in all its forms, with an input.
pub(super) struct Forms<'a> {
    dense: &'a Conv2d,
    factored: &'a Conv2d,
    conv: FactoredConv,
    core: FactoredConv,
    parts: [Option<Tensor<4>>; 3],
    problem: ConvProblem,
    x: Tensor<4>,
    /// What enters the core.
    inner: Tensor<4>,
}

impl<'a> Forms<'a> {
    /// # Errors
    /// [`BenchError::Settings`] for a layer that is whole.
    pub(super) fn new(
        [dense, factored]: [&'a Conv2d; 2],
        problem: ConvProblem,
        x: Tensor<4>,
    ) -> Result<Self, BenchError> {
        let factors = factored.weight.factors();
        let factors =
            factors.ok_or_else(|| BenchError::Settings("a layer without factors".into()))?;
        let value = |weight: Option<&burn_sparse::nn::Weight<4>>| weight.map(|w| w.val());
        let parts = [factors.reduce(), Some(factors.core()), factors.expand()].map(value);
        let [reduce, core, expand] = parts.clone();
        let core = core.unwrap_or_else(|| factors.core().val());
        let inner = match &reduce {
            Some(reduce) => pointwise(x.clone(), reduce.clone()),
            None => x.clone(),
        };
        let conv = FactoredConv::new(reduce, core, expand, dense.window(problem.input));
        let core = conv.core_alone();
        Ok(Self {
            dense,
            factored,
            conv,
            core,
            parts,
            problem,
            x,
            inner,
        })
    }

    /// The core without its neighbours.
    pub(super) fn core_problem(&self) -> ConvProblem {
        let [outputs, channels, ..] = self.parts[1].as_ref().map_or([0; 4], Tensor::dims);
        ConvProblem {
            in_channels: channels,
            out_channels: outputs,
            ..self.problem
        }
    }

    /// # Errors
    /// Why the device does not have the form.
    pub(super) fn run(&self, form: FormName) -> Result<Tensor<4>, SparseError> {
        let x = || self.x.clone();
        match form {
            FormName::Dense => Ok(self.dense.forward(x())),
            FormName::BurnDense => Ok(conv(x(), self.dense.weight.val(), &self.problem)),
            FormName::BurnThree => Ok(self.burn_three()),
            FormName::Core => self.core.run(self.inner.clone(), FactoredBy::Core),
            FormName::CoreBetween => self.conv.run(x(), FactoredBy::Core),
            FormName::Strip => self.conv.run(x(), FactoredBy::Strip),
            FormName::Factors => Ok(self.factored.forward(x())),
        }
    }

    fn burn_three(&self) -> Tensor<4> {
        let parts = self.parts.iter().enumerate();
        parts.fold(self.x.clone(), |x, (index, factor)| match factor {
            None => x,
            Some(core) if index == 1 => conv(x, core.clone(), &self.problem),
            Some(factor) => pointwise(x, factor.clone()),
        })
    }

    /// What the form should give, by Burn's operations; `None` of undivided ones, whose weight is another.
    pub(super) fn expected(&self, form: FormName) -> Option<Tensor<4>> {
        match form {
            FormName::Dense | FormName::BurnDense | FormName::BurnThree => None,
            FormName::Core => {
                let core = self.parts[1].clone()?;
                Some(conv(self.inner.clone(), core, &self.problem))
            }
            FormName::CoreBetween | FormName::Strip | FormName::Factors => Some(self.burn_three()),
        }
    }
}

/// Burn's convolution. Its paddings are symmetric, as all of these layers' are.
fn conv(x: Tensor<4>, weight: Tensor<4>, problem: &ConvProblem) -> Tensor<4> {
    let padding = problem.padding.map(|[before, _]| before);
    let options = ConvOptions::new(problem.stride, padding, problem.dilation, 1);
    conv2d(x, weight, None, options)
}

fn pointwise(x: Tensor<4>, weight: Tensor<4>) -> Tensor<4> {
    conv(x, weight, &ConvProblem::new(1, [1, 1], [1, 1], [1, 1]))
}

/// In parts of the largest of `expected`; NaN if there is one in either.
pub(super) fn difference<const D: usize>(found: &Tensor<D>, expected: &Tensor<D>) -> f64 {
    let [found, expected] = [found, expected].map(|t| t.clone().cast(FloatDType::F32));
    let most = |tensor: Tensor<D>| f64::from(tensor.abs().max().into_scalar::<f32>());
    most(found - expected.clone()) / most(expected)
}

/// Statistics of each form; the last is that of the factors.
pub(super) fn statistics(names: &[FormName], rounds: &[Vec<f64>]) -> Vec<Form> {
    let last = names.len().saturating_sub(1);
    let of = |form: usize, divided: bool| {
        let times = rounds.iter().map(|round| match divided {
            true => round[form] / round[last],
            false => round[form],
        });
        Timing::of(times.collect())
    };
    let forms = names.iter().enumerate().filter_map(|(form, &name)| {
        let ratio = of(form, true)?;
        Some(Form {
            name,
            time: of(form, false)?,
            over_factors: Ratio {
                median: ratio.median,
                spread: ratio.spread,
            },
        })
    });
    forms.collect()
}
