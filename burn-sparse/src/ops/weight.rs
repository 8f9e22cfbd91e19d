//! A packed weight as an operand.

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::Pattern;
use crate::{SparseError, format::Csr};

/// Values on a device (they may be trained) and the [`Pattern`] that says where they belong.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_sparse::{format::Csr, ops::{self, Epilogue, SparseWeight}};
///
/// let device = Device::flex();
/// let csr = Csr::from_dense(&[0.0, 2.0, 1.0, 0.0], [2, 2])?;
/// let weight = SparseWeight::new(csr, &device);
/// let x = Tensor::<2>::from_data([[3.0, 5.0]], &device);
/// let y = ops::sparse_linear(x, &weight, Epilogue::new());
/// y.into_data().assert_eq(&burn::tensor::TensorData::from([[10.0f32, 3.0]]), false);
/// # Ok::<(), burn_sparse::SparseError>(())
/// ```
#[derive(Debug, Clone)]
pub struct SparseWeight {
    values: Tensor<1>,
    pattern: Pattern,
    /// Whether the values are those of the pattern's matrix.
    as_packed: bool,
}

impl SparseWeight {
    /// Puts the values of `csr` on `device`.
    pub fn new(csr: Csr, device: &Device) -> Self {
        let values = Tensor::from_data(
            TensorData::new(csr.values().to_vec(), [csr.stored()]),
            device,
        );
        Self {
            // A device of half floats has rounded them.
            as_packed: values.dtype() == DType::F32,
            values,
            pattern: Pattern::new(csr),
        }
    }

    /// Other values for a known pattern.
    ///
    /// # Panics
    /// If there are not as many values as entries.
    pub fn from_parts(values: Tensor<1>, pattern: Pattern) -> Self {
        assert!(
            values.dims() == [pattern.csr().stored()],
            "{} values for a pattern of {} entries",
            values.dims()[0],
            pattern.csr().stored()
        );
        Self {
            values,
            pattern,
            as_packed: false,
        }
    }

    /// The same, of values that are known to be those of the pattern's matrix.
    pub(crate) fn known(values: Tensor<1>, pattern: Pattern) -> Self {
        Self {
            as_packed: true,
            ..Self::from_parts(values, pattern)
        }
    }

    /// The same, without gradients.
    pub(crate) fn inner(&self) -> Self {
        Self {
            values: self.values.clone().inner(),
            ..self.clone()
        }
    }

    /// Whether the values are known to be those of the [pattern](Self::pattern)'s matrix. Kernels of
    /// devices may then read them as codes, if they have few levels.
    ///
    /// What a mapper was given is not known any more, an optimiser's step as little as a record that was
    /// loaded; packing the layer again settles it.
    pub fn as_packed(&self) -> bool {
        self.as_packed
    }

    /// The values, one per entry, `[stored]`.
    pub fn values(&self) -> Tensor<1> {
        self.values.clone()
    }

    /// The same in the numbers that the kernels of its device want beside inputs of `dtype`: f32 on Flex, which
    /// widens inputs and has its weights ordered in f32, and `dtype` itself elsewhere.
    #[must_use]
    pub fn for_inputs(&self, dtype: DType) -> Self {
        if self.values.dtype() == dtype || super::dense_conv::is_flex(&self.values.device()) {
            return self.clone();
        }
        Self::from_parts(self.values.clone().cast(dtype), self.pattern.clone())
    }

    /// The positions.
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// Output channels.
    pub fn rows(&self) -> usize {
        self.pattern.csr().rows()
    }

    /// Weights of an output channel, zeros included.
    pub fn row_len(&self) -> usize {
        self.pattern.csr().row_len()
    }

    /// The matrix with the values as they are now, read back from the device.
    ///
    /// # Errors
    /// [`SparseError::NonFinite`] when training produced a NaN or an infinity.
    ///
    /// # Panics
    /// If the device cannot be read.
    pub fn to_csr(&self) -> Result<Csr, SparseError> {
        let pattern = self.pattern.csr();
        let values = self.values.clone().into_data().convert::<f32>();
        Csr::new(
            [pattern.rows(), pattern.row_len()],
            pattern.row_ptr().to_vec(),
            pattern.columns().to_vec(),
            values.try_to_vec().expect("values were converted to f32"),
        )
    }
}
