//! What is done to one parameter.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::ShrinkError;
use crate::params::Position;

/// The indices of one axis that stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AxisCut {
    /// Which axis.
    pub axis: usize,
    /// The indices that stay, ascending.
    pub keep: Vec<usize>,
}

/// How one parameter becomes smaller: indices along its axes, then a sum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParameterCut {
    /// Dotted path of the parameter.
    pub parameter: String,
    /// Its shape before.
    pub shape: Vec<usize>,
    /// The axes along which something goes.
    pub axes: Vec<AxisCut>,
    /// What is added to a vector afterwards: the constants of inputs that went. Empty for none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<f32>,
}

impl ParameterCut {
    /// The shape afterwards.
    pub fn cut_shape(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        for axis in &self.axes {
            shape[axis.axis] = axis.keep.len();
        }
        shape
    }

    /// Whether nothing would change.
    pub(super) fn is_idle(&self) -> bool {
        self.axes.is_empty() && self.add.is_empty()
    }

    /// Checks a cut that came from outside.
    pub(super) fn validate(&self) -> Result<(), ShrinkError> {
        let problem = |problem: String| {
            Err(ShrinkError::Plan(format!(
                "parameter `{}`: {problem}",
                self.parameter
            )))
        };
        for (index, AxisCut { axis, keep }) in self.axes.iter().enumerate() {
            let Some(&len) = self.shape.get(*axis) else {
                return problem(format!("no axis {axis} in a shape {:?}", self.shape));
            };
            if self.axes[..index].iter().any(|other| other.axis == *axis) {
                return problem(format!("axis {axis} is cut twice"));
            }
            let ascending = keep.windows(2).all(|pair| pair[0] < pair[1]);
            if keep.is_empty() || !ascending || keep.last().is_some_and(|&last| last >= len) {
                return problem(format!(
                    "the indices of axis {axis} must be ascending, below {len}, and one at least"
                ));
            }
        }
        let vector = self.cut_shape();
        if !self.add.is_empty() && vector != [self.add.len()] {
            return problem(format!(
                "{} numbers are added to a shape {vector:?}",
                self.add.len()
            ));
        }
        if !self.add.iter().all(|add| add.is_finite()) {
            return problem("a number that is added is not finite".to_owned());
        }
        Ok(())
    }

    fn apply<const D: usize>(&self, tensor: Tensor<D>) -> Tensor<D> {
        let device = tensor.device();
        let mut cut = tensor;
        for AxisCut { axis, keep } in &self.axes {
            let indices: Vec<i64> = keep.iter().map(|&index| index as i64).collect();
            let indices = TensorData::new(indices, [keep.len()]);
            cut = cut.select(*axis, Tensor::<1, Int>::from_data(indices, &device));
        }
        if !self.add.is_empty() {
            let add = TensorData::new(self.add.clone(), cut.shape());
            let add = Tensor::<D>::from_data(add, (&device, cut.dtype()));
            cut = cut + add;
        }
        cut
    }
}

/// Cuts the parameters of a model. Their ids and whether they train stay.
pub(super) fn cut<M: Module>(model: M, cuts: &[ParameterCut]) -> M {
    struct Cut<'a> {
        position: Position,
        cuts: HashMap<&'a str, &'a ParameterCut>,
    }
    impl ModuleMapper for Cut<'_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.position.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.position.exit();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let Some(cut) = self.cuts.get(self.position.path().as_str()) else {
                return param;
            };
            param.map(|tensor| {
                // A new leaf that trains as the old one did.
                let require_grad = tensor.is_require_grad();
                let tensor = cut.apply(tensor).detach();
                if require_grad {
                    tensor.require_grad()
                } else {
                    tensor
                }
            })
        }
    }
    let cuts = cuts.iter().map(|cut| (cut.parameter.as_str(), cut));
    model.map(&mut Cut {
        position: Position::default(),
        cuts: cuts.collect(),
    })
}
