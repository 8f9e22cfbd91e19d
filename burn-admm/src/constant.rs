use std::sync::{Mutex, PoisonError};

use burn::tensor::{DType, Device, Tensor, TensorData};

/// Numbers of the host on every device that has asked for them, so that no step has to copy them.
#[derive(Debug, Default)]
pub(crate) struct Constant(Mutex<Vec<Tensor<1>>>);

impl Constant {
    /// The numbers in `dtype` on `device`, without autodiff. `values` gives them the first time.
    pub(crate) fn on(
        &self,
        device: &Device,
        dtype: DType,
        values: impl FnOnce() -> Vec<f32>,
    ) -> Tensor<1> {
        let mut tensors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = tensors
            .iter()
            .find(|t| t.device() == *device && t.dtype() == dtype);
        if let Some(tensor) = known {
            return tensor.clone();
        }
        let values = values();
        let len = values.len();
        let tensor = Tensor::from_data(TensorData::new(values, [len]), (device, dtype));
        tensors.push(tensor.clone());
        tensor
    }

    /// Called when the numbers change: they are copied anew.
    pub(crate) fn forget(&mut self) {
        self.0
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

/// Penalties are computed in f32, or in f64 for f64 weights.
pub(crate) fn compute_dtype(dtype: DType) -> DType {
    if dtype == DType::F64 {
        DType::F64
    } else {
        DType::F32
    }
}
