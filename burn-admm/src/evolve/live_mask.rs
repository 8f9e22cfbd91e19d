//! A mask that every batch may change, and that lets gradients through to what it hides.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, Param, Reparameterization, Reparameterizer};
use burn::tensor::{Bool, Tensor, TensorData};

use super::EvolveError;
use crate::mask::Mask;
use crate::params::Position;

/// A dynamic mask on one parameter: `Param::val()` gives the weight with its pruned entries at exactly
/// `+0.0`, while their gradient is that of a weight that is there.
///
/// `y = m ⊙ w`, and backwards `∂y/∂w = 1` for all weights, pruned ones too (a straight-through
/// estimate): what is pruned trains on unseen, and can come back when it has grown. A
/// [`Mask`] stops these gradients.
///
/// [`Evolution::attach`](super::Evolution::attach) attaches it to a model that knows nothing of it.
/// It is saved in the model's record, under `<parameter>.live_mask.mask.pruned`;
/// [`fold`](crate::fold) makes pruned weights zeros.
#[derive(Module, Debug)]
pub struct LiveMask {
    mask: Mask,
}

impl Reparameterization for LiveMask {
    const NAME: &'static str = "live_mask";

    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        if !base.is_autodiff() {
            return self.mask.apply_to(base);
        }
        let masked = self.mask.apply_to(base.clone().detach());
        // Zero, with the gradient of the weight.
        masked + (base.clone() - base.detach())
    }
}

/// What of a layer is kept, by path, in storage order.
pub(super) type Keeps<'a> = HashMap<&'a str, &'a [bool]>;

/// Attaches masks; stored weights stay as they are.
pub(super) struct Attach<'a>(pub(super) Keeps<'a>);

impl Reparameterizer for Attach<'_> {
    type Reparam = LiveMask;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<LiveMask>) {
        let mask = self.0.get(path).map(|keep| LiveMask {
            mask: Mask::new(keep, &param.lazy_device()),
        });
        (param, mask)
    }
}

/// Replaces the masks that a model wears.
pub(super) fn replace<M: Module>(model: &mut M, keeps: Keeps<'_>) -> Result<(), EvolveError> {
    let mut replace = Replace {
        position: Position::default(),
        keeps,
    };
    *model = model.clone().map(&mut replace);
    match replace.keeps.keys().min() {
        None => Ok(()),
        Some(path) => Err(EvolveError::NotAttached((*path).to_owned())),
    }
}

struct Replace<'a> {
    position: Position,
    keeps: Keeps<'a>,
}

impl ModuleMapper for Replace<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.position.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.position.exit();
    }

    fn map_bool<const D: usize>(
        &mut self,
        param: Param<Tensor<D, Bool>>,
    ) -> Param<Tensor<D, Bool>> {
        let [owner @ .., live, mask, _] = self.position.names() else {
            return param;
        };
        if live != LiveMask::NAME || mask != Mask::NAME {
            return param;
        }
        let Some(keep) = self.keeps.remove(owner.join(".").as_str()) else {
            return param;
        };
        let pruned: Vec<bool> = keep.iter().map(|keep| !keep).collect();
        param.map(|old| {
            let data = TensorData::new(pruned, old.shape());
            Tensor::from_data(data, &old.device())
        })
    }
}
