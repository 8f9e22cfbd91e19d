//! The factors of one layer on its device.

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Bool, DType, Device, Tensor, TensorData};

use super::SharedKernels;
use super::plan::Spec;
use crate::admm::AdmmError;

/// What the optimiser moves.
#[derive(Module, Debug)]
pub(super) struct Factors {
    /// `A`, `[N·C, d]`.
    pub(super) coefficients: Param<Tensor<2>>,
    /// `M`, `[d, k²]`.
    pub(super) basis: Param<Tensor<2>>,
}

impl Factors {
    /// The optimiser knows them by `ids`: its state of a saved run is found again. It wants tensors that
    /// could record gradients, though these are written down here.
    pub(super) fn new(shared: &SharedKernels, ids: [ParamId; 2], device: &Device) -> Self {
        let (d, shape) = (shared.count(), shared.shape());
        let device = device.clone().autodiff();
        let param = |id, values: &[f32], dims: [usize; 2]| {
            let data = TensorData::new(values.to_vec(), dims);
            let value = Tensor::<2>::from_data(data, (&device, DType::F32));
            Param::initialized(id, value.require_grad())
        };
        let [coefficients, basis] = ids;
        let pairs = shape.rows * shape.channels;
        Self {
            coefficients: param(coefficients, shared.coefficients(), [pairs, d]),
            basis: param(basis, shared.basis(), [d, shape.positions()]),
        }
    }

    /// `A` as numbers.
    pub(super) fn a(&self) -> Tensor<2> {
        self.coefficients.val().inner()
    }

    /// `M` as numbers.
    pub(super) fn m(&self) -> Tensor<2> {
        self.basis.val().inner()
    }

    pub(super) fn ids(&self) -> [ParamId; 2] {
        [self.coefficients.id, self.basis.id]
    }
}

/// A layer: what it is, and which coefficients have been pruned.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) spec: Spec,
    /// Of coefficients; none before pruning.
    pub(super) pruned: Option<Tensor<2, Bool>>,
}

impl Layer {
    /// Marks what has been pruned.
    pub(super) fn prune(&mut self, pruned: Vec<bool>, device: &Device) {
        let dims = [pruned.len() / self.spec.kernels, self.spec.kernels];
        let data = TensorData::new(pruned, dims);
        self.pruned = Some(Tensor::from_data(data, device));
    }

    /// One where something has been pruned, zero elsewhere; nothing before pruning.
    pub(super) fn pruned_values(&self) -> Result<Vec<f32>, AdmmError> {
        let Some(pruned) = &self.pruned else {
            return Ok(Vec::new());
        };
        let values = pruned.clone().float().try_into_vec_as::<f32>();
        values.map_err(|source| AdmmError::from((self.spec.path.clone(), source)))
    }

    /// Coefficients, or a gradient of them, with exact zeros where something has been pruned.
    pub(super) fn masked(&self, coefficients: Tensor<2>) -> Tensor<2> {
        match &self.pruned {
            Some(pruned) => {
                let pruned = pruned.clone().to_device(&coefficients.device());
                coefficients.mask_fill(pruned, 0.0)
            }
            None => coefficients,
        }
    }

    /// Whether the layer has basis kernels to train: that of a 1×1 convolution is 1.
    pub(super) fn has_basis(&self) -> bool {
        self.spec.shape.positions() > 1
    }
}
