use std::collections::HashMap;

use burn::module::{Module, Param, Reparameterization, Reparameterizer};
use burn::tensor::{Device, Tensor};

use super::levels::{Fixed, Multiples, Shared};
use super::{Grid, LevelKind, OnGrid, QuantPlan, Quantization, QuantizeError};
use crate::admm::{AdmmError, read_layers};
use crate::mask::{Mask, fold};
use crate::plan::ResolvedLayer;

/// Levels on one parameter: `Param::val()` gives every kept weight on its level and every pruned one
/// as `+0.0`, before and after every step of an optimiser.
///
/// | levels | what trains | gradient |
/// |---|---|---|
/// | equal intervals, fixed point, integers and a scale | the weights, and the intervals | straight through rounding; learned step size |
/// | codebooks | the numbers of the codebook; codes stay | the mean of its weights' |
/// | powers of two | nothing here: biases, norms and other layers make up for it | none |
///
/// [`QuantPlan::attach`] attaches it to a model that knows nothing of it. It is saved in the model's
/// record, under `<parameter>.levels`. Fixed-point intervals do not train, they are powers of two.
#[derive(Module, Debug)]
pub struct OnLevels {
    mask: Mask,
    rounding: Rounding,
}

#[derive(Module, Debug)]
enum Rounding {
    Multiples(Multiples),
    Shared(Shared),
    Fixed(Fixed),
}

impl Reparameterization for OnLevels {
    const NAME: &'static str = "levels";

    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let on_levels = match &self.rounding {
            Rounding::Multiples(multiples) => multiples.apply(base),
            Rounding::Shared(shared) => shared.apply(base),
            Rounding::Fixed(fixed) => fixed.apply(base),
        };
        self.mask.apply_to(on_levels)
    }
}

/// What a layer is attached with.
struct Layer {
    spec: ResolvedLayer,
    quantization: Quantization,
    /// Both in storage order.
    keep: Vec<bool>,
    weights: Vec<f32>,
    /// One for the weight, or one for each output channel.
    grids: Vec<Grid>,
}

impl Layer {
    fn build(&self, device: &Device) -> OnLevels {
        let mask = Mask::new(&self.keep, device);
        let view = &self.spec.view;
        let quantization = self.quantization;
        let bits = quantization.bits();
        let rounding = match quantization.kind() {
            LevelKind::Codebook => {
                // Full length, so that a record of other weights loads: the last entry fills up.
                let entries = 1 << bits;
                let codebooks = self.grids.iter().flat_map(|grid| {
                    let levels = grid.levels();
                    let last = levels.last().copied().unwrap_or(0.0);
                    levels
                        .into_iter()
                        .chain(core::iter::repeat(last))
                        .take(entries)
                });
                let codebook = codebooks.collect();
                let codes = self.each(|index, grid, weight| {
                    let levels = grid.levels();
                    let nearest = grid.nearest(weight);
                    let code = levels.partition_point(|level| *level < nearest);
                    (index * entries + code) as i64
                });
                Rounding::Shared(Shared::new(codebook, codes, &self.keep, device))
            }
            LevelKind::PowersOfTwo => {
                let unit = |grid: &Grid| {
                    grid.levels().last().map_or(1.0, |_| match grid {
                        Grid::Powers { top, count } => {
                            super::grid::power(top - (*count as i32 - 1))
                        }
                        _ => 1.0,
                    })
                };
                let multiples =
                    self.each(|_, grid, weight| (grid.nearest(weight) / unit(grid)) as i64);
                let units = self.each(|_, grid, _| unit(grid));
                Rounding::Fixed(Fixed::new(multiples, units, device))
            }
            kind => {
                let learn = !matches!(kind, LevelKind::FixedPoint(_));
                Rounding::Multiples(Multiples::new(&self.grids, view, bits, learn, device))
            }
        };
        OnLevels { mask, rounding }
    }

    /// Something for every weight of its grid, in storage order.
    fn each<T: Copy>(&self, of: impl Fn(usize, &Grid, f32) -> T) -> Vec<T> {
        let view = &self.spec.view;
        let rows = view.gather(&self.weights);
        let run = match self.grids.len() {
            0 | 1 => rows.len().max(1),
            _ => view.row_len().max(1),
        };
        let values = rows.iter().enumerate();
        let values = values.map(|(at, &weight)| of(at / run, &self.grids[at / run], weight));
        view.scatter(&values.collect::<Vec<_>>())
    }
}

impl QuantPlan {
    /// Puts the weights of the plan on their nearest levels, fitted here, and lets them train on
    /// ([`OnLevels`]). An attached mask becomes part of it; other reparameterizations are folded.
    ///
    /// Start with a fresh optimiser. A model into which a record of this one loads is a fresh one to
    /// which the same plan was attached.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve); [`AdmmError::Projection`] for weights that are not finite.
    pub fn attach<M: Module>(&self, model: M) -> Result<M, QuantizeError> {
        let (specs, keeps) = self.layers(&model)?;
        let weights = read_layers(&model, &specs)?;
        let mut layers = HashMap::new();
        for ((spec, keep), weight) in specs.into_iter().zip(keeps).zip(weights) {
            let Some(quantization) = spec.quantization else {
                continue;
            };
            let on_grid = OnGrid::new(quantization, spec.view.gather(&keep));
            let rows = spec.view.gather(&weight.data);
            let grids = on_grid.grids(&rows, spec.view.shape()).map_err(|source| {
                AdmmError::Projection {
                    path: spec.path.clone(),
                    source,
                }
            })?;
            let layer = Layer {
                keep,
                weights: weight.data,
                grids,
                spec,
                quantization,
            };
            layers.insert(layer.spec.path.clone(), layer);
        }
        Ok(fold(model).apply_reparameterization(Attach(&layers)))
    }
}

struct Attach<'a>(&'a HashMap<String, Layer>);

impl Reparameterizer for Attach<'_> {
    type Reparam = OnLevels;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<OnLevels>) {
        let Some(layer) = self.0.get(path) else {
            return (param, None);
        };
        let levels = layer.build(&param.lazy_device());
        (param, Some(levels))
    }
}
