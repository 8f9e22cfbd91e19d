//! Images of several tensors as one batch.

use burn::tensor::Tensor;
#[cfg(feature = "flex")]
use {
    super::flex_memory::{Output, images},
    burn::tensor::DType,
    burn_flex::{Flex, FlexTensor},
};

/// `Tensor::cat(parts, 0)`. Images on Flex get memory that is used again, as outputs of layers do.
pub(crate) fn join<const D: usize>(mut parts: Vec<Tensor<D>>) -> Tensor<D> {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    #[cfg(feature = "flex")]
    if let Some(joined) = images_of(&parts) {
        return joined;
    }
    Tensor::cat(parts, 0)
}

/// Of f32 images of one size whose rows follow each other.
#[cfg(feature = "flex")]
fn images_of<const D: usize>(parts: &[Tensor<D>]) -> Option<Tensor<D>> {
    let [_, channels, height, width] = parts.first()?.dims()[..] else {
        return None;
    };
    let alike = |part: &Tensor<D>| {
        part.dims()[1..] == [channels, height, width] && part.dtype() == DType::F32
    };
    if !parts.iter().all(alike) {
        return None;
    }
    let parts = parts
        .iter()
        .map(|part| part.clone().try_into_primitive::<Flex>().ok())
        .collect::<Option<Vec<FlexTensor>>>()?;
    let from = parts
        .iter()
        .map(images::<f32>)
        .collect::<Option<Vec<_>>>()?;
    let counts = parts.iter().map(|part| part.layout().shape()[0]);
    let shape = [counts.clone().sum(), channels, height, width];
    let mut out = Output::<f32>::new(shape, !parts[0].is_contiguous());
    let mut at = 0;
    for (from, count) in from.iter().zip(counts) {
        out.put(at, from, count);
        at += count;
    }
    Some(Tensor::from_primitive::<Flex>(out.into_tensor()))
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;

    #[test]
    fn joined_images_are_those_of_cat() {
        let device = Device::flex();
        let random = |shape: [usize; 4]| Tensor::<4>::random(shape, Distribution::Default, &device);
        let whole = random([4, 6, 5, 3]);
        let cases = [
            vec![random([1, 6, 5, 3]), random([2, 6, 5, 3])],
            vec![random([2, 6, 5, 3])],
            // Strided, at an offset, and scattered rows.
            vec![whole.clone().narrow(0, 1, 2), whole.clone().narrow(0, 3, 1)],
            vec![whole.clone().narrow(3, 1, 2), whole.narrow(3, 0, 2)],
        ];
        for parts in cases {
            let expected = Tensor::cat(parts.clone(), 0).into_data();
            join(parts).into_data().assert_eq(&expected, true);
        }
    }
}
