//! Convolutions with the Tucker ranks that TDC published for them.

use burn_admm::decompose::Ranks;
use burn_sparse::ConvProblem;

use super::{BenchError, Kind, Layer};

/// A network, a layer of it, `[in, out, size, stride]` and `[D2, D1]`.
type Published = (&'static str, [usize; 4], [usize; 2]);

/// 3×3 convolutions with padding 1 of five networks for images of 224×224.
///
/// The ranks of ResNet-18 are those of TDC's tables. For `ResNet`-50 and the `DenseNet`s its code takes 32 and 64
/// in most layers; the same is taken for VGG-16 here, whose core of 64 to 32 channels at 224×224 is among
/// those that it times. Where a rank equals the channels there is no factor.
const PUBLISHED: [Published; 23] = [
    ("resnet18.layer1", [64, 64, 56, 1], [32, 32]),
    ("resnet18.layer1.0.conv1", [64, 64, 56, 1], [32, 64]),
    ("resnet18.layer2.0.conv1", [64, 128, 56, 2], [64, 64]),
    ("resnet18.layer2", [128, 128, 28, 1], [64, 96]),
    ("resnet18.layer3.0.conv1", [128, 256, 28, 2], [96, 96]),
    ("resnet18.layer3", [256, 256, 14, 1], [96, 128]),
    ("resnet18.layer4.0.conv1", [256, 512, 14, 2], [160, 160]),
    ("resnet18.layer4", [512, 512, 7, 1], [160, 192]),
    ("resnet50.layer1.conv2", [64, 64, 56, 1], [32, 64]),
    ("resnet50.layer2.conv2", [128, 128, 28, 1], [32, 64]),
    ("resnet50.layer3.conv2", [256, 256, 14, 1], [32, 64]),
    ("resnet50.layer4.conv2", [512, 512, 7, 1], [32, 64]),
    ("densenet.denseblock1.conv2", [128, 32, 56, 1], [32, 64]),
    ("densenet.denseblock2.conv2", [128, 32, 28, 1], [32, 64]),
    ("densenet.denseblock3.conv2", [128, 32, 14, 1], [32, 64]),
    ("densenet.denseblock4.conv2", [128, 32, 7, 1], [32, 64]),
    ("vgg16.block1", [64, 64, 224, 1], [32, 64]),
    ("vgg16.block2.0", [64, 128, 112, 1], [32, 64]),
    ("vgg16.block2.1", [128, 128, 112, 1], [32, 64]),
    ("vgg16.block3", [256, 256, 56, 1], [32, 64]),
    ("vgg16.block4", [512, 512, 28, 1], [32, 64]),
    ("vgg16.block5", [512, 512, 14, 1], [32, 64]),
    ("vgg16.block3.0", [128, 256, 56, 1], [32, 64]),
];

/// All of them.
///
/// # Errors
/// None in practice: the table holds sound layers.
pub(super) fn published() -> Result<Vec<(Layer, Ranks)>, BenchError> {
    let layers = PUBLISHED.iter().map(|&(name, shape, [output, input])| {
        let [channels, outputs, size, stride] = shape;
        let problem = ConvProblem::new(1, [channels, outputs], [size, size], [3, 3])
            .with_padding([1, 1])
            .with_stride([stride, stride]);
        let layer = Layer::new(name, Kind::Conv, problem, 1);
        let layer = layer.map_err(|source| BenchError::Layer {
            text: name.to_owned(),
            source,
        })?;
        Ok((layer, Ranks::new(output, input)))
    });
    layers.collect()
}

/// The ranks of the 3×3 convolutions of ResNet-18, by the paths of their weights.
pub(super) fn resnet18() -> Vec<(String, Ranks)> {
    // [D2, D1] of the first convolution of a stage and of its others.
    let stages = [
        ([32, 64], [32, 32]),
        ([64, 64], [64, 96]),
        ([96, 96], [96, 128]),
        ([160, 160], [160, 192]),
    ];
    let mut ranks = Vec::new();
    for (stage, (first, others)) in (1..).zip(stages) {
        for block in 0..2 {
            for conv in 1..=2 {
                let [output, input] = if block == 0 && conv == 1 {
                    first
                } else {
                    others
                };
                let path = format!("layer{stage}.{block}.conv{conv}.weight");
                ranks.push((path, Ranks::new(output, input)));
            }
        }
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resnet18_has_the_multiply_adds_that_follow_from_the_published_ranks() {
        // Of the 3×3 convolutions, whose share of 1.814 G the rest of the network leaves.
        let table = [
            (1, 3),
            (2, 1),
            (3, 1),
            (4, 3),
            (5, 1),
            (6, 3),
            (7, 1),
            (8, 3),
        ];
        let layers = published().unwrap();
        let [mut dense, mut factored] = [0.0; 2];
        for (number, count) in table {
            let (layer, ranks) = &layers[number - 1];
            let problem = layer.problem(1).unwrap();
            let inputs: usize = problem.input.iter().product();
            let outputs: usize = problem.output().iter().product();
            dense += f64::from(count) * problem.dense_macs() as f64;
            let shape = burn_sparse::WeightShape::new(
                problem.out_channels,
                problem.in_channels,
                problem.kernel,
            );
            factored += f64::from(count) * ranks.macs(shape, inputs, outputs) as f64;
        }
        // 61 % fewer over the decomposed layers if every factor is counted, and a little more because a
        // factor from 64 to 64 channels is left out.
        let fewer = 1.0 - factored / dense;
        assert!((0.61..0.63).contains(&fewer), "{fewer}");
        assert_eq!(resnet18().len(), 16);
    }
}
