use burn::module::{Module, Param, ParamId, Reparameterization};
use burn::tensor::{Bool, Device, Tensor, TensorData};

/// A mask on one parameter: `Param::val()` gives the weight with its pruned entries at exactly
/// `+0.0`, and their gradient is zero.
///
/// [`Masks::attach`](crate::Masks::attach) attaches it to a model that knows nothing of it. It is
/// stored as booleans, so no optimiser, `unfreeze` or weight decay ever trains it, and it is saved
/// in the model's record, under `<parameter>.mask.pruned`. Momentum and Adam may still move the
/// stored base of a pruned weight; its value stays zero all the same.
#[derive(Module, Debug)]
pub struct Mask {
    /// `true` where the weight is pruned; flat, in storage order.
    pruned: Param<Tensor<1, Bool>>,
}

impl Mask {
    /// A mask on `device` from the entries that are kept, in storage order.
    pub fn new(keep: &[bool], device: &Device) -> Self {
        let pruned: Vec<bool> = keep.iter().map(|keep| !keep).collect();
        let data = TensorData::new(pruned, [keep.len()]);
        let pruned = Param::initialized(ParamId::new(), Tensor::from_data(data, device));
        Self { pruned }
    }

    /// `weight` with its pruned entries at `+0.0`.
    ///
    /// # Panics
    /// If the weight has another number of entries than the mask.
    pub fn apply_to<const D: usize>(&self, weight: Tensor<D>) -> Tensor<D> {
        let shape = weight.shape();
        // Filling rather than multiplying: no -0.0 is left, and no NaN that a pruned entry holds.
        weight.mask_fill(self.pruned.val().reshape(shape), 0.0)
    }
}

impl Reparameterization for Mask {
    const NAME: &'static str = "mask";

    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        self.apply_to(base)
    }
}
