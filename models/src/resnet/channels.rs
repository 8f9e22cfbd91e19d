//! Who feeds whom, so that emptied channels can be cut out.

use burn::nn::BatchNorm;
use burn_admm::shrink::{ChannelGraph, ChannelModel, Flow, GraphError, PoolSpec};
use burn_sparse::nn::Conv2d;

use super::{Block, ResNet};

impl ChannelModel for ResNet {
    fn channel_graph(&self, input: &[usize]) -> Result<ChannelGraph, GraphError> {
        ChannelGraph::of(input, |x| {
            let mut x = conv_bn(&x, ["conv1", "bn1"], &self.conv1, self.bn1.as_ref()).relu();
            if let Some(pool) = &self.maxpool {
                x = x.pool(pool);
            }
            let stages = [&self.layer1, &self.layer2, &self.layer3, &self.layer4];
            for (stage, blocks) in (1..).zip(stages) {
                for (index, block) in blocks.iter().enumerate() {
                    x = block.flow(&x, &format!("layer{stage}.{index}"));
                }
            }
            x.resize([1, 1]).flatten().linear("fc", &self.fc)
        })
    }
}

impl Block {
    fn flow(&self, x: &Flow, path: &str) -> Flow {
        let layer = |x: &Flow, names: [&str; 2], conv: &Conv2d, bn: &Option<BatchNorm>| {
            let [conv_path, bn_path] = names.map(|name| format!("{path}.{name}"));
            conv_bn(x, [&conv_path, &bn_path], conv, bn.as_ref())
        };
        let shortcut = match (&self.downsample, self.zero_pad) {
            (Some((conv, bn)), _) => layer(x, ["downsample.0", "downsample.1"], conv, bn),
            (None, Some(pad)) => x
                .pool(PoolSpec::every(&[pad.stride; 2]))
                .pad_channels(pad.before, pad.after),
            (None, None) => x.clone(),
        };
        let y = layer(x, ["conv1", "bn1"], &self.conv1, &self.bn1).relu();
        let y = layer(&y, ["conv2", "bn2"], &self.conv2, &self.bn2);
        let y = match &self.conv3 {
            Some(conv3) => layer(&y.relu(), ["conv3", "bn3"], conv3, &self.bn3),
            None => y,
        };
        y.add(&shortcut).relu()
    }
}

/// A convolution and its batch norm, until it is folded.
fn conv_bn(
    x: &Flow,
    [conv_path, bn_path]: [&str; 2],
    conv: &Conv2d,
    bn: Option<&BatchNorm>,
) -> Flow {
    let x = x.conv(conv_path, conv);
    match bn {
        Some(bn) => x.norm(bn_path, bn),
        None => x,
    }
}
