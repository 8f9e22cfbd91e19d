//! Who feeds whom, so that emptied channels can be cut out.

use burn_admm::shrink::{ChannelGraph, ChannelModel, Flow, GraphError};

use super::{Vgg, VggClassifier, VggLayer};

/// Through `features`, in order.
pub(crate) fn trace(layers: &[VggLayer], mut x: Flow) -> Flow {
    for (index, layer) in layers.iter().enumerate() {
        let path = format!("features.{index}");
        x = match layer {
            VggLayer::Conv(conv) => x.conv(path, conv),
            VggLayer::Norm(Some(bn)) => x.norm(path, bn),
            VggLayer::Norm(None) => x,
            VggLayer::Relu(_) => x.relu(),
            VggLayer::Pool(pool) => x.pool(pool),
        };
    }
    x
}

impl ChannelModel for Vgg {
    fn channel_graph(&self, input: &[usize]) -> Result<ChannelGraph, GraphError> {
        ChannelGraph::of(input, |x| {
            let x = trace(&self.features, x).resize([self.pooled; 2]).flatten();
            match &self.classifier {
                VggClassifier::ImageNet((fc1, _, _, fc2, _, _, fc3)) => {
                    let x = x.linear("classifier.0", fc1).relu();
                    let x = x.linear("classifier.3", fc2).relu();
                    x.linear("classifier.6", fc3)
                }
                VggClassifier::Cifar(linear) => x.linear("classifier", linear),
            }
        })
    }
}
