//! Shapes of all nodes, and whether they fit.

use super::{ConvSpec, GraphError, Node, Op, PoolSpec};

/// Channels of all nodes together. A graph from a file must not make us allocate without bound.
const MAX_CHANNELS: usize = 1 << 24;

/// `[channels, positions..]` of every node.
pub(super) fn infer(nodes: &[Node]) -> Result<Vec<Vec<usize>>, GraphError> {
    let mut shapes: Vec<Vec<usize>> = Vec::with_capacity(nodes.len());
    let mut channels = 0usize;
    for (index, node) in nodes.iter().enumerate() {
        let name = || format!("node {index} ({})", node.op.label());
        if let Some(&input) = node.inputs.iter().find(|&&input| input >= index) {
            return Err(GraphError::Order {
                node: name(),
                input,
            });
        }
        let found = node.inputs.len();
        if let Some(expected) = arity(&node.op, found) {
            return Err(GraphError::Inputs {
                node: name(),
                expected,
                found,
            });
        }
        let inputs: Vec<&[usize]> = node.inputs.iter().map(|&i| &*shapes[i]).collect();
        let shape = output(&node.op, &inputs)
            .and_then(|shape| match elements(&shape) {
                Some(1..) => Ok(shape),
                _ => Err(format!("{shape:?} is empty or too large")),
            })
            .map_err(|reason| GraphError::Shape {
                node: name(),
                reason,
            })?;
        channels = channels.saturating_add(shape[0]);
        if channels > MAX_CHANNELS {
            return Err(GraphError::TooLarge {
                limit: MAX_CHANNELS,
            });
        }
        shapes.push(shape);
    }
    Ok(shapes)
}

fn elements(shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1usize, |n, &size| n.checked_mul(size))
}

/// What the operation takes, if it is not `found`.
fn arity(op: &Op, found: usize) -> Option<&'static str> {
    let (fits, expected) = match op {
        Op::Input { .. } => (found == 0, "no input"),
        Op::Add | Op::Mul | Op::Concat => (found >= 2, "two or more inputs"),
        Op::Opaque { .. } => (found >= 1, "one or more inputs"),
        _ => (found == 1, "one input"),
    };
    (!fits).then_some(expected)
}

fn output(op: &Op, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
    match op {
        Op::Input { shape } | Op::Opaque { shape, .. } => match shape.is_empty() {
            true => Err("a shape is `[channels, positions..]`, not empty".to_owned()),
            false => Ok(shape.clone()),
        },
        Op::Conv { conv, .. } => convolve(conv, inputs[0]),
        Op::Linear { features, .. } => {
            let [d_input, d_output] = features.0;
            channels(d_input, inputs[0])?;
            Ok(with_channels(d_output, &inputs[0][1..]))
        }
        Op::Norm { norm, .. } => {
            if !(norm.epsilon.is_finite() && norm.epsilon >= 0.0) {
                return Err(format!("an epsilon of {}", norm.epsilon));
            }
            channels(norm.channels, inputs[0])?;
            Ok(inputs[0].to_vec())
        }
        Op::Activation { .. } | Op::Output => Ok(inputs[0].to_vec()),
        Op::Pool { pool } => pooled(pool, inputs[0]),
        Op::Resize { size } => {
            if size.len() + 1 != inputs[0].len() {
                return Err(format!("sizes {size:?} for an input {:?}", inputs[0]));
            }
            Ok(with_channels(inputs[0][0], size))
        }
        Op::Flatten => Ok(vec![inputs[0].iter().product()]),
        Op::Add | Op::Mul => broadcast(inputs),
        Op::Concat => {
            let positions = &inputs[0][1..];
            if let Some(other) = inputs.iter().find(|shape| &shape[1..] != positions) {
                return Err(format!("{:?} and {other:?} cannot be joined", inputs[0]));
            }
            let channels = inputs
                .iter()
                .try_fold(0usize, |sum, shape| sum.checked_add(shape[0]))
                .ok_or("too many channels")?;
            Ok(with_channels(channels, positions))
        }
        Op::PadChannels { before, after } => {
            let channels = inputs[0][0]
                .checked_add(*before)
                .and_then(|sum| sum.checked_add(*after))
                .ok_or("too many channels")?;
            Ok(with_channels(channels, &inputs[0][1..]))
        }
    }
}

fn with_channels(channels: usize, positions: &[usize]) -> Vec<usize> {
    let mut shape = Vec::with_capacity(positions.len() + 1);
    shape.push(channels);
    shape.extend_from_slice(positions);
    shape
}

fn channels(expected: usize, input: &[usize]) -> Result<(), String> {
    if input[0] == expected {
        Ok(())
    } else {
        Err(format!(
            "it reads {expected} channels, but its input has {} (`[channels, positions..]` is \
             {input:?})",
            input[0]
        ))
    }
}

/// Equal channels, and positions that are equal or a single one.
fn broadcast(inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
    let positions = |shape: &[usize]| shape[1..].iter().product::<usize>();
    let widest = inputs
        .iter()
        .max_by_key(|shape| positions(shape))
        .expect("two or more inputs");
    for shape in inputs {
        if shape[0] != widest[0] || (shape != widest && positions(shape) != 1) {
            return Err(format!("{shape:?} and {widest:?} do not fit"));
        }
    }
    Ok(widest.to_vec())
}

fn convolve(conv: &ConvSpec, input: &[usize]) -> Result<Vec<usize>, String> {
    let [c_in, c_out] = conv.channels;
    channels(c_in, input)?;
    if conv.groups == 0 || c_in % conv.groups != 0 || c_out % conv.groups != 0 {
        return Err(format!(
            "{} groups do not divide {c_in} and {c_out} channels",
            conv.groups
        ));
    }
    let window = Window {
        kernel: &conv.kernel,
        stride: &conv.stride,
        dilation: &conv.dilation,
        ceil_mode: false,
    };
    let size = &input[1..];
    window.check(size)?;
    let padding = conv.padding.resolve(&conv.kernel, &conv.stride, size);
    Ok(with_channels(c_out, &window.outputs(size, &padding)?))
}

fn pooled(pool: &PoolSpec, input: &[usize]) -> Result<Vec<usize>, String> {
    let window = Window {
        kernel: &pool.kernel,
        stride: &pool.stride,
        dilation: &pool.dilation,
        ceil_mode: pool.ceil_mode,
    };
    let size = &input[1..];
    window.check(size)?;
    let padding = pool.padding.resolve(&pool.kernel, &pool.stride, size);
    Ok(with_channels(input[0], &window.outputs(size, &padding)?))
}

struct Window<'a> {
    kernel: &'a [usize],
    stride: &'a [usize],
    dilation: &'a [usize],
    ceil_mode: bool,
}

impl Window<'_> {
    fn check(&self, size: &[usize]) -> Result<(), String> {
        let axes = size.len();
        if [self.kernel, self.stride, self.dilation].map(<[usize]>::len) != [axes; 3] {
            return Err(format!(
                "a kernel {:?} with stride {:?} and dilation {:?} over an input of {axes} axes",
                self.kernel, self.stride, self.dilation
            ));
        }
        let mut numbers = self.kernel.iter().chain(self.stride).chain(self.dilation);
        if numbers.any(|&n| n == 0) {
            return Err("a kernel, stride or dilation of zero".to_owned());
        }
        Ok(())
    }

    fn outputs(&self, size: &[usize], padding: &[[usize; 2]]) -> Result<Vec<usize>, String> {
        if padding.len() != size.len() {
            return Err(format!("padding {padding:?} around {size:?}"));
        }
        (0..size.len())
            .map(|axis| {
                self.along(axis, size[axis], padding[axis]).ok_or_else(|| {
                    format!(
                        "a window of {:?} does not fit into {size:?} with padding {padding:?}",
                        self.kernel
                    )
                })
            })
            .collect()
    }

    /// As Burn counts: a last window that rounding up adds must start inside the input or the
    /// padding before it.
    fn along(&self, axis: usize, size: usize, [before, after]: [usize; 2]) -> Option<usize> {
        let stride = self.stride[axis];
        let extent = (self.kernel[axis] - 1)
            .checked_mul(self.dilation[axis])?
            .checked_add(1)?;
        let padded = size.checked_add(before)?.checked_add(after)?;
        if !self.ceil_mode {
            return Some(padded.checked_sub(extent)? / stride + 1);
        }
        let outputs = padded.checked_add(stride - 1)?.checked_sub(extent)? / stride + 1;
        if (outputs - 1).checked_mul(stride)? >= size.checked_add(before)? {
            Some(outputs - 1)
        } else {
            Some(outputs)
        }
    }
}
