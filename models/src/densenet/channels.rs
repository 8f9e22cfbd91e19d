//! Who feeds whom, so that emptied channels can be cut out.

use burn_admm::shrink::{ChannelGraph, ChannelModel, Flow, GraphError};

use super::block::layer_name;
use super::{DenseBlock, DenseLayer, DenseNet, DenseTransition};
use crate::channels::conv_bn;

/// A channel that a layer adds is one of the input of every layer behind it in the block, at the
/// place where the concatenation puts it.
///
/// What can go: channels that have no weights and leave nothing but a constant which their readers
/// can take. The first convolution of a layer takes constants, in `norm2` or its bias; the second
/// one and the transitions have neither behind them and keep inputs that are constants other than
/// zero, which the report of a plan says.
impl ChannelModel for DenseNet {
    fn channel_graph(&self, input: &[usize]) -> Result<ChannelGraph, GraphError> {
        ChannelGraph::of(input, |x| {
            let features = &self.features;
            let names = ["features.conv0", "features.norm0"];
            let mut x = conv_bn(&x, names, &features.conv0, features.norm0.as_ref()).relu();
            if let Some(pool) = &features.pool0 {
                x = x.pool(pool);
            }
            for ((block, transition), number) in features.blocks().into_iter().zip(1..) {
                x = block.flow(x, &format!("features.denseblock{number}"));
                if let Some(transition) = transition {
                    x = transition.flow(&x, &format!("features.transition{number}"));
                }
            }
            let x = x.norm("features.norm5", &features.norm5).relu();
            let x = x.resize([1, 1]).flatten();
            x.linear("classifier", &self.classifier)
        })
    }
}

impl DenseBlock {
    fn flow(&self, x: Flow, path: &str) -> Flow {
        let layers = self.layers.iter().enumerate();
        layers.fold(x, |x, (index, layer)| {
            let new = layer.flow(&x, &format!("{path}.{}", layer_name(index)));
            x.concat([&new])
        })
    }
}

impl DenseLayer {
    fn flow(&self, x: &Flow, path: &str) -> Flow {
        let [conv1, norm2] = ["conv1", "norm2"].map(|name| format!("{path}.{name}"));
        let x = x.norm(format!("{path}.norm1"), &self.norm1).relu();
        let x = conv_bn(&x, [&conv1, &norm2], &self.conv1, self.norm2.as_ref()).relu();
        x.conv(format!("{path}.conv2"), &self.conv2)
    }
}

impl DenseTransition {
    fn flow(&self, x: &Flow, path: &str) -> Flow {
        let x = x.norm(format!("{path}.norm"), &self.norm).relu();
        let x = x.conv(format!("{path}.conv"), &self.conv);
        x.pool(&self.pool)
    }
}
