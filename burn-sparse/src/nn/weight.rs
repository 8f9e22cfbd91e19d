//! A weight that is dense, packed or a chain of factors.

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
    Param, ParamId,
};
use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};

use super::{Factors, traverse};
use crate::{
    SparseError,
    format::Csr,
    ops::{Pattern, SparseWeight},
};

/// A layer's weight: Burn's parameter, its non-zeros, or factors.
///
/// Dense, it is the parameter itself: same path (`conv1.weight`), same record, same optimiser
/// state. Packed, the values are a parameter of their own (`conv1.weight.values`), so a packed
/// network can be fine-tuned. Factored, it is a chain of smaller weights (`conv1.weight.core`), each of
/// them dense or packed.
///
/// `D` is 4 for 2-D convolutions, 3 for 1-D ones (both `[out, in / groups, kernel..]`) and 2 for
/// linear layers (`[d_input, d_output]`, as Burn stores them).
#[derive(Debug, Clone)]
pub enum Weight<const D: usize> {
    /// All entries.
    Dense(Param<Tensor<D>>),
    /// Only the non-zeros.
    Packed(PackedWeight<D>),
    /// A chain of smaller weights.
    Factored(Box<Factors<D>>),
}

/// The non-zeros of a weight and the shape they came from.
#[derive(Debug, Clone)]
pub struct PackedWeight<const D: usize> {
    id: ParamId,
    shape: [usize; D],
    values: Param<Tensor<1>>,
    pattern: Pattern,
    /// Whether no optimiser, record or mapper may have changed the values since, so that kernels of
    /// devices may read them as codes.
    as_packed: bool,
}

/// Output channels and weights of each.
fn matrix<const D: usize>(shape: [usize; D]) -> [usize; 2] {
    if D == 2 {
        [shape[1], shape[0]]
    } else {
        [shape[0], shape[1..].iter().product()]
    }
}

impl<const D: usize> PackedWeight<D> {
    /// Non-zeros for a weight of `shape`.
    ///
    /// # Errors
    /// [`SparseError::Shape`] when the matrix does not have that shape's rows.
    pub fn new(csr: Csr, shape: [usize; D], device: &Device) -> Result<Self, SparseError> {
        Self::with_id(ParamId::new(), csr, shape, device)
    }

    pub(super) fn with_id(
        id: ParamId,
        csr: Csr,
        shape: [usize; D],
        device: &Device,
    ) -> Result<Self, SparseError> {
        if [csr.rows(), csr.row_len()] != matrix(shape) {
            return Err(SparseError::shape(format!(
                "{} rows of {} do not make a weight of shape {shape:?}",
                csr.rows(),
                csr.row_len()
            )));
        }
        let weight = SparseWeight::new(csr, device);
        let values = Param::from_tensor(weight.values());
        Ok(Self {
            id,
            shape,
            values,
            pattern: weight.pattern().clone(),
            as_packed: weight.as_packed(),
        })
    }

    /// The shape of the dense weight.
    pub fn dims(&self) -> [usize; D] {
        self.shape
    }

    /// The operand for [`ops`](crate::ops).
    pub fn sparse(&self) -> SparseWeight {
        let (values, pattern) = (self.values.val(), self.pattern.clone());
        match self.as_packed {
            true => SparseWeight::known(values, pattern),
            false => SparseWeight::from_parts(values, pattern),
        }
    }

    /// The positions and the values as they were packed.
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    fn map_values(self, map: impl FnOnce(Param<Tensor<1>>) -> Param<Tensor<1>>) -> Self {
        Self {
            values: map(self.values),
            ..self
        }
    }
}

impl<const D: usize> Weight<D> {
    /// The shape of the dense weight.
    pub fn dims(&self) -> [usize; D] {
        match self {
            Self::Dense(param) => param.lazy_shape().dims(),
            Self::Packed(packed) => packed.shape,
            Self::Factored(factors) => factors.dims(),
        }
    }

    /// Output channels and weights of each: the matrix that [`Csr`] holds.
    pub fn matrix(&self) -> [usize; 2] {
        matrix(self.dims())
    }

    /// Identifies the weight, before and after packing.
    pub fn id(&self) -> ParamId {
        match self {
            Self::Dense(param) => param.id,
            Self::Packed(packed) => packed.id,
            Self::Factored(factors) => factors.id(),
        }
    }

    /// The dense weight; unpacked on the host if need be, the product of factors. For a parameter with
    /// a mask attached it is the masked value.
    ///
    /// # Panics
    /// If training made a packed value NaN or infinite.
    pub fn val(&self) -> Tensor<D> {
        match self {
            Self::Dense(param) => param.val(),
            Self::Packed(packed) => {
                let weight = packed.sparse();
                let dense = weight
                    .to_csr()
                    .unwrap_or_else(|error| panic!("{error}"))
                    .to_dense();
                self.tensor_from_rows(dense, &weight.values().device())
            }
            Self::Factored(factors) => factors.val(),
        }
    }

    fn tensor_from_rows(&self, rows: Vec<f32>, device: &Device) -> Tensor<D> {
        let shape = self.dims();
        if D == 2 {
            let [out, len] = matrix(shape);
            let rows = Tensor::<2>::from_data(TensorData::new(rows, [out, len]), device);
            return rows.transpose().reshape(shape);
        }
        Tensor::from_data(TensorData::new(rows, shape), device)
    }

    /// The parameter of a dense weight.
    pub fn dense(&self) -> Option<&Param<Tensor<D>>> {
        match self {
            Self::Dense(param) => Some(param),
            _ => None,
        }
    }

    /// The non-zeros of a packed weight.
    pub fn packed(&self) -> Option<&PackedWeight<D>> {
        match self {
            Self::Packed(packed) => Some(packed),
            _ => None,
        }
    }

    /// The factors of a factored weight.
    pub fn factors(&self) -> Option<&Factors<D>> {
        match self {
            Self::Factored(factors) => Some(factors),
            _ => None,
        }
    }

    /// The device of the parameter.
    pub fn device(&self) -> Device {
        match self {
            Self::Dense(param) => param.lazy_device(),
            Self::Packed(packed) => packed.values.lazy_device(),
            Self::Factored(factors) => factors.device(),
        }
    }

    /// The weight as rows of non-zeros, read from the device.
    ///
    /// # Errors
    /// [`SparseError::NonFinite`] for a NaN or an infinity.
    ///
    /// # Panics
    /// If the device cannot be read.
    pub fn to_csr(&self) -> Result<Csr, SparseError> {
        match self {
            Self::Packed(packed) => packed.sparse().to_csr(),
            Self::Dense(_) | Self::Factored(_) => {
                let shape = matrix(self.dims());
                let tensor = self.val();
                let tensor: Tensor<2> = if D == 2 {
                    tensor.reshape([shape[1], shape[0]]).transpose()
                } else {
                    tensor.reshape(shape)
                };
                let data = tensor.into_data().convert::<f32>();
                let mut dense: Vec<f32> = data.try_to_vec().expect("weights were converted to f32");
                // Multiplying by a mask leaves -0.0 where a weight was negative: no entry either.
                dense.iter_mut().for_each(|weight| *weight += 0.0);
                Csr::from_dense(&dense, shape)
            }
        }
    }

    /// Keeps only the non-zeros. With `equalise`, output channels with fewer get stored zeros up
    /// to the longest ([`Csr::equalised`]), unless that would store more than half as much again.
    /// Already packed, it stays as it is, or is packed anew if its values may have changed since. Of
    /// a factored weight each factor is packed.
    ///
    /// # Errors
    /// [`SparseError::NonFinite`] for a NaN or an infinity.
    pub fn pack(self, equalise: bool) -> Result<Self, SparseError> {
        let id = match &self {
            Self::Dense(param) => param.id,
            Self::Factored(factors) => {
                let factors = factors.as_ref().clone();
                // Shared kernels are few, and full; their coefficients gain nothing from rows alike.
                let shared = factors.is_shared();
                let kernels = shared.then(|| factors.core().id());
                let packed = factors.try_map(|factor| match Some(factor.id()) == kernels {
                    true => Ok(factor.unpack()),
                    false => factor.pack(equalise && !shared),
                });
                return Ok(packed?.into());
            }
            Self::Packed(packed) if packed.as_packed => return Ok(self),
            Self::Packed(packed) => {
                let (csr, device) = (packed.sparse().to_csr()?, self.device());
                return PackedWeight::with_id(packed.id, csr, packed.shape, &device)
                    .map(Self::Packed);
            }
        };
        let mut csr = self.to_csr()?;
        let longest = (0..csr.rows())
            .map(|row| csr.row_nnz(row))
            .max()
            .unwrap_or(0);
        if equalise && longest * csr.rows() <= csr.stored() + csr.stored() / 2 {
            csr = csr.equalised();
        }
        PackedWeight::with_id(id, csr, self.dims(), &self.device()).map(Self::Packed)
    }

    /// The dense parameter again, zeros and all; of factors their product, which trains if any of them did.
    #[must_use]
    pub fn unpack(self) -> Self {
        match &self {
            Self::Dense(_) => self,
            Self::Packed(_) | Self::Factored(_) => {
                let dense = Param::initialized(self.id(), self.val().detach());
                Self::Dense(dense.set_require_grad(self.trains()))
            }
        }
    }

    /// See [`AnyWeight::in_numbers`](super::AnyWeight::in_numbers).
    pub(super) fn in_numbers(self, dtype: FloatDType) -> Self {
        match self {
            Self::Dense(param) if param.val().dtype() == DType::from(dtype) => Self::Dense(param),
            Self::Dense(param) => Self::Dense(param.map(|weight| weight.cast(dtype))),
            Self::Packed(packed) => {
                let sparse = packed.sparse().for_inputs(dtype.into());
                if sparse.values().dtype() == packed.values.val().dtype() {
                    return Self::Packed(packed);
                }
                let mut packed = packed.map_values(|values| values.map(|_| sparse.values()));
                packed.as_packed = false;
                Self::Packed(packed)
            }
            Self::Factored(factors) => factors.each(|factor| factor.in_numbers(dtype)).into(),
        }
    }

    /// Whether optimisers change it. Without gradients nobody can tell, and parameters do.
    pub(super) fn trains(&self) -> bool {
        fn of<const D: usize>(tensor: &Tensor<D>) -> bool {
            !tensor.device().is_autodiff() || tensor.is_require_grad()
        }
        match self {
            Self::Dense(param) => of(&param.val()),
            Self::Packed(packed) => of(&packed.values.val()),
            Self::Factored(factors) => factors.named().any(|(_, factor)| factor.trains()),
        }
    }
}

impl<const D: usize> From<Param<Tensor<D>>> for Weight<D> {
    fn from(param: Param<Tensor<D>>) -> Self {
        Self::Dense(param)
    }
}

impl<const D: usize> Module for Weight<D> {
    fn collect_devices(&self, devices: Devices) -> Devices {
        match self {
            Self::Dense(param) => param.collect_devices(devices),
            Self::Packed(packed) => packed.values.collect_devices(devices),
            Self::Factored(factors) => factors.named().fold(devices, |devices, (_, factor)| {
                factor.collect_devices(devices)
            }),
        }
    }

    fn fork(self, device: &Device) -> Self {
        match self {
            Self::Dense(param) => Self::Dense(param.fork(device)),
            Self::Packed(packed) => Self::Packed(packed.map_values(|v| v.fork(device))),
            Self::Factored(factors) => factors.each(|factor| factor.fork(device)).into(),
        }
    }

    fn to_device(self, device: &Device) -> Self {
        match self {
            Self::Dense(param) => Self::Dense(param.to_device(device)),
            Self::Packed(packed) => Self::Packed(packed.map_values(|v| v.to_device(device))),
            Self::Factored(factors) => factors.each(|factor| factor.to_device(device)).into(),
        }
    }

    fn train(self) -> Self {
        match self {
            Self::Dense(param) => Self::Dense(param.train()),
            Self::Packed(packed) => Self::Packed(packed.map_values(Module::train)),
            Self::Factored(factors) => factors.each(Module::train).into(),
        }
    }

    fn valid(&self) -> Self {
        match self {
            Self::Dense(param) => Self::Dense(param.valid()),
            Self::Packed(packed) => Self::Packed(packed.clone().map_values(|v| v.valid())),
            Self::Factored(factors) => {
                let factors = factors.as_ref().clone();
                factors.each(|factor| factor.valid()).into()
            }
        }
    }

    fn materialize(self) -> Self {
        match self {
            Self::Dense(param) => Self::Dense(param.materialize()),
            Self::Packed(packed) => Self::Packed(packed.map_values(Module::materialize)),
            Self::Factored(factors) => factors.each(Module::materialize).into(),
        }
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        traverse::announce(self);
        match self {
            Self::Dense(param) => param.visit(visitor),
            Self::Packed(packed) => {
                visitor.enter_module("values", "Struct:PackedWeight");
                packed.values.visit(visitor);
                visitor.exit_module("values", "Struct:PackedWeight");
            }
            Self::Factored(factors) => factors.visit(visitor),
        }
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let weight = match traverse::replacement(self) {
            Ok(replacement) => return replacement,
            Err(weight) => weight,
        };
        match weight {
            Self::Dense(param) => Self::Dense(Module::map(param, mapper)),
            Self::Packed(packed) => {
                mapper.enter_module("values", "Struct:PackedWeight");
                let mut packed = packed.map_values(|values| Module::map(values, mapper));
                packed.as_packed = false;
                mapper.exit_module("values", "Struct:PackedWeight");
                Self::Packed(packed)
            }
            Self::Factored(factors) => factors.map(mapper).into(),
        }
    }
}

impl<const D: usize> ModuleDisplayDefault for Weight<D> {
    fn content(&self, content: Content) -> Option<Content> {
        let text = match self {
            Self::Dense(param) => format!("Dense {{shape: {:?}}}", param.lazy_shape().as_slice()),
            Self::Packed(packed) => {
                let csr = packed.pattern.csr();
                format!(
                    "Packed {{shape: {:?}, stored: {}}}",
                    packed.shape,
                    csr.stored()
                )
            }
            Self::Factored(factors) => format!(
                "Factored {{shape: {:?}, ranks: {:?}}}",
                factors.dims(),
                factors.ranks()
            ),
        };
        content.add_formatted(&text).optional()
    }
}

impl<const D: usize> ModuleDisplay for Weight<D> {}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::nn::{Linear, LinearConfig};

    /// Doubles what it finds, as training might.
    struct Twice;

    impl ModuleMapper for Twice {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor * 2.0)
        }
    }

    fn known(layer: &Linear) -> bool {
        let packed = layer.weight.packed().expect("a packed layer");
        packed.sparse().as_packed()
    }

    /// Codes stand for values as they were packed: whatever may change them must be noticed.
    #[test]
    fn what_is_known_of_packed_values() {
        let device = Device::flex();
        let layer = LinearConfig::new(6, 4).init(&device).pack().unwrap();
        assert!(known(&layer) && known(&layer.clone()));
        assert!(known(&layer.valid()) && known(&layer.clone().to_device(&device)));
        assert!(known(&layer.clone().train()) && known(&layer.clone().fork(&device)));

        let doubled = layer.clone().map(&mut Twice);
        assert!(!known(&doubled) && !known(&doubled.valid()));
        let again = doubled.clone().pack().unwrap();
        assert!(known(&again));
        let values = |layer: &Linear| layer.weight.val().into_data();
        assert_eq!(values(&again), values(&doubled));
        let csr = again.weight.packed().unwrap().pattern().csr().clone();
        assert_eq!(csr, doubled.weight.to_csr().unwrap());
    }
}
