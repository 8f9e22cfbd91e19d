//! The chains of factors that a checkpoint has, in a model that has not.

use std::collections::HashMap;

use burn::module::Module;
use burn::tensor::TensorData;

use super::fail;
use super::manifest::{LayerEntry, Manifest};
use crate::{
    SparseError,
    nn::{AnyWeight, NamedWeight, multiply_factors, replace_weights, weights},
};

/// The model with factors of zeros where the checkpoint has factors, and whole weights where it has
/// those; as it is if it fits already.
pub(super) fn like<M: Module>(model: M, manifest: &Manifest, at: &str) -> Result<M, SparseError> {
    let layers = manifest.layers.iter();
    let layers: HashMap<&str, &LayerEntry> = layers.map(|e| (e.weight.as_str(), e)).collect();
    let fits = |named: &NamedWeight| {
        let entry = layers.get(named.path.as_str());
        entry.is_some_and(|entry| entry.shape == named.weight.shape())
    };
    if weights(&model).iter().all(fits) {
        return Ok(model);
    }
    let model = multiply_factors(model);
    let named = weights(&model);
    let chains = named.into_iter().map(|named| {
        if layers.contains_key(named.path.as_str()) {
            return Ok(named.weight);
        }
        chain(&named, &layers).map_err(|reason| fail(at, format!("`{}`: {reason}", named.path)))
    });
    let chains = chains.collect::<Result<_, _>>()?;
    Ok(replace_weights(model, chains))
}

/// The weight with the factors that there are; itself if there are none, which is found missing later.
fn chain(
    named: &NamedWeight,
    layers: &HashMap<&str, &LayerEntry>,
) -> Result<AnyWeight, SparseError> {
    let dot = if named.path.is_empty() { "" } else { "." };
    let shapes = ["reduce", "core", "expand"].map(|factor| {
        let path = format!("{}{dot}{factor}", named.path);
        layers.get(path.as_str()).map(|entry| entry.shape.clone())
    });
    let [reduce, Some(core), expand] = shapes else {
        return Ok(named.weight.clone());
    };
    if named.groups > 1 {
        return Err(SparseError::shape(format!(
            "factors for a layer of {} groups, which cannot have any",
            named.groups
        )));
    }
    let shape = named.weight.shape();
    // Shared kernels, one input channel each, and their coefficients for every channel.
    if let (None, Some(expand), [out, channels, kernel @ ..]) = (&reduce, &expand, &shape[..])
        && let [kernels, 1, positions @ ..] = &core[..]
        && shape.len() == 4
        && *kernels <= kernel.iter().product()
        && *channels > 1
        && positions == kernel
        && expand[..] == [*out, channels.saturating_mul(*kernels), 1, 1]
    {
        let zeros = |shape: Vec<usize>| TensorData::zeros::<f32, _>(shape);
        return named
            .weight
            .with_factors([None, Some(zeros(core)), Some(zeros(expand.clone()))]);
    }
    if let Some(factors) = other_form(&shape, [&reduce, &Some(core.clone()), &expand]) {
        return named.weight.with_factors(factors);
    }
    // Before memory is asked for: factors are no larger than ranks of this weight can make them.
    let [out, input] = if shape.len() == 2 { [1, 0] } else { [0, 1] };
    let positions: usize = shape.iter().skip(2).product();
    let limit = |from: usize, to: usize| shape[from].min(shape[to].saturating_mul(positions));
    let [d1, d2] = [limit(input, out), limit(out, input)];
    let most = |channels: [usize; 2], kernel: bool| {
        let mut most: Vec<usize> = shape
            .iter()
            .map(|&len| if kernel { len } else { 1 })
            .collect();
        [most[out], most[input]] = channels;
        most
    };
    // Without its neighbour, the core has all channels on that side.
    let inner = [
        if expand.is_some() { d2 } else { shape[out] },
        if reduce.is_some() { d1 } else { shape[input] },
    ];
    let limits = [
        (&reduce, most([d1, shape[input]], false)),
        (&Some(core.clone()), most(inner, true)),
        (&expand, most([shape[out], d2], false)),
    ];
    for (factor, most) in limits {
        let Some(factor) = factor else {
            continue;
        };
        let fits = factor.len() == most.len() && factor.iter().zip(&most).all(|(a, b)| a <= b);
        if !fits {
            let reason = format!("a factor {factor:?} of a weight {shape:?}, {most:?} at most");
            return Err(SparseError::shape(reason));
        }
    }
    let zeros = |shape: Vec<usize>| TensorData::zeros::<f32, _>(shape);
    let factors = [reduce, Some(core), expand].map(|shape| shape.map(zeros));
    named.weight.with_factors(factors)
}

/// Zeros for a convolution by columns and one by rows, or for a depthwise core between two of 1×1, if the factors
/// are those of a weight of this shape and no more than its ranks can make them.
fn other_form(
    shape: &[usize],
    [reduce, core, expand]: [&Option<Vec<usize>>; 3],
) -> Option<[Option<TensorData>; 3]> {
    let (core, expand) = (core.as_ref()?, expand.as_ref()?);
    let [out, input, kernel @ ..] = shape else {
        return None;
    };
    let zeros = |shape: &Vec<usize>| Some(TensorData::zeros::<f32, _>(shape.clone()));
    let rank = *core.first()?;
    if let (None, &[height, width]) = (reduce, kernel) {
        let most = input.saturating_mul(height).min(out.saturating_mul(width));
        let fits = width > 1
            && rank <= most
            && core[..] == [rank, *input, height, 1]
            && expand[..] == [*out, rank, 1, width];
        return fits.then(|| [None, zeros(core), zeros(expand)]);
    }
    let reduce = reduce.as_ref()?;
    let mut sides = [*out, *input, kernel.iter().product()];
    sides.sort_unstable();
    let most = sides[0].saturating_mul(sides[1]);
    let points = vec![1; kernel.len()];
    let of = |rows: usize, columns: usize, rest: &[usize]| [&[rows, columns], rest].concat();
    let fits = !kernel.is_empty()
        && (2..=most).contains(&rank)
        && *reduce == of(rank, *input, &points)
        && *core == of(rank, 1, kernel)
        && *expand == of(*out, rank, &points);
    fits.then(|| [zeros(reduce), zeros(core), zeros(expand)])
}
