//! Who feeds whom, so that emptied channels can be cut out.

use burn_admm::shrink::{Activation, ChannelGraph, ChannelModel, Flow, GraphError};
use burn_sparse::nn::Conv2d;

use super::{InvertedBranch, InvertedResidual, MobileNetLayer, MobileNetV2};
use crate::channels::conv_bn;
use crate::layers::ConvNorm;

impl ChannelModel for MobileNetV2 {
    fn channel_graph(&self, input: &[usize]) -> Result<ChannelGraph, GraphError> {
        ChannelGraph::of(input, |mut x| {
            for (index, layer) in self.features.iter().enumerate() {
                let path = format!("features.{index}");
                x = match layer {
                    MobileNetLayer::Conv(layer) => pair(&x, &path, layer),
                    MobileNetLayer::Block(block) => block.flow(&x, &path),
                };
            }
            let x = x.resize([1, 1]).flatten();
            x.linear("classifier.1", &self.classifier.1)
        })
    }

    fn set_groups(&mut self, layer: &str, groups: usize) -> bool {
        for (index, found) in self.features.iter_mut().enumerate() {
            let MobileNetLayer::Block(block) = found else {
                continue;
            };
            let (place, depthwise) = block.depthwise_mut();
            if layer == format!("features.{index}.conv.{place}.0") {
                depthwise.groups = groups;
                return true;
            }
        }
        false
    }
}

impl InvertedResidual {
    fn flow(&self, x: &Flow, path: &str) -> Flow {
        let at = |place: usize| format!("{path}.conv.{place}");
        let (y, place, project, bn) = match &self.conv {
            InvertedBranch::Plain((depthwise, project, bn)) => {
                (pair(x, &at(0), depthwise), 1, project, bn)
            }
            InvertedBranch::Expanded((expand, depthwise, project, bn)) => {
                let y = pair(x, &at(0), expand);
                (pair(&y, &at(1), depthwise), 2, project, bn)
            }
        };
        let names = [at(place), at(place + 1)];
        let y = conv_bn(&y, [&names[0], &names[1]], project, bn.as_ref());
        if self.residual { y.add(x) } else { y }
    }

    /// The depthwise convolution, and the number of its pair.
    fn depthwise_mut(&mut self) -> (usize, &mut Conv2d) {
        match &mut self.conv {
            InvertedBranch::Plain((depthwise, ..)) => (0, &mut depthwise.0),
            InvertedBranch::Expanded((_, depthwise, ..)) => (1, &mut depthwise.0),
        }
    }
}

/// A convolution, its batch norm and ReLU6.
fn pair(x: &Flow, path: &str, (conv, bn): &ConvNorm) -> Flow {
    let names = [format!("{path}.0"), format!("{path}.1")];
    conv_bn(x, [&names[0], &names[1]], conv, bn.as_ref()).activation(Activation::Relu6)
}
