//! What the graphs of several networks have in common.

use burn::nn::BatchNorm;
use burn_admm::shrink::Flow;
use burn_sparse::nn::Conv2d;

/// A convolution and its batch norm, until it is folded.
pub(crate) fn conv_bn(
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
