//! The parameters of a model, put beside the nodes of its graph.

use std::collections::{HashMap, HashSet};

use burn::module::Module;

use crate::params::{Weight, parameters, read};
use crate::shrink::{ChannelGraph, Op, ShrinkError};

/// What the analysis needs of a layer's parameters.
pub(in crate::shrink) enum Layer {
    /// A convolution or a product.
    Matrix(Matrix),
    /// A batch norm.
    Norm(Norm),
}

/// The weights between channels: each a kernel, of which only the sum and whether there is any
/// non-zero count.
pub(in crate::shrink) struct Matrix {
    pub(in crate::shrink) outputs: usize,
    /// Inputs of each output: those of its group.
    pub(in crate::shrink) inputs: usize,
    pub(in crate::shrink) groups: usize,
    /// Shape of the parameter.
    pub(in crate::shrink) shape: Vec<usize>,
    /// `[output][input]`: whether the output reads the input at all.
    reads: Vec<bool>,
    /// `[output][input]`: the sum over the kernel.
    sums: Vec<f64>,
    pub(in crate::shrink) bias: Option<Vec<f64>>,
}

impl Matrix {
    /// The inputs that an output reads: their channels and the sums of their kernels.
    pub(in crate::shrink) fn row(&self, output: usize) -> impl Iterator<Item = (usize, f64)> {
        let first = output / (self.outputs / self.groups) * self.inputs;
        let row = output * self.inputs..(output + 1) * self.inputs;
        let entries = self.reads[row.clone()].iter().zip(&self.sums[row]);
        entries
            .enumerate()
            .filter(|(_, (reads, _))| **reads)
            .map(move |(input, (_, &sum))| (first + input, sum))
    }

    /// Whether each output has one input, its own.
    pub(in crate::shrink) fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.inputs == 1
    }
}

/// `y = scale · x + shift` per channel, by the running statistics.
pub(in crate::shrink) struct Norm {
    pub(in crate::shrink) scale: Vec<f64>,
    pub(in crate::shrink) shift: Vec<f64>,
}

/// The vectors of a batch norm.
pub(in crate::shrink) const NORM: [&str; 4] = ["gamma", "beta", "running_mean", "running_var"];

/// A parameter that a node has.
struct Claim {
    path: String,
    shape: Vec<usize>,
    optional: bool,
}

fn claims(op: &Op) -> Vec<Claim> {
    let claim = |layer: &str, name: &str, shape: Vec<usize>| Claim {
        path: parameter(layer, name),
        optional: name == "bias",
        shape,
    };
    match op {
        Op::Conv { layer, conv } => {
            let [c_in, c_out] = conv.channels;
            let mut shape = vec![c_out, c_in / conv.groups];
            shape.extend(&conv.kernel);
            vec![
                claim(layer, "weight", shape),
                claim(layer, "bias", vec![c_out]),
            ]
        }
        Op::Linear { layer, features } => vec![
            claim(layer, "weight", features.0.to_vec()),
            claim(layer, "bias", vec![features.0[1]]),
        ],
        Op::Norm { layer, norm } => NORM
            .map(|name| claim(layer, name, vec![norm.channels]))
            .into(),
        _ => Vec::new(),
    }
}

/// `layer.name`, and the name alone for a model that is a single layer.
pub(in crate::shrink) fn parameter(layer: &str, name: &str) -> String {
    if layer.is_empty() {
        name.to_owned()
    } else {
        format!("{layer}.{name}")
    }
}

/// The layer of every node that is a convolution, a product or a norm.
pub(in crate::shrink) fn layers<M: Module>(
    model: &M,
    graph: &ChannelGraph,
) -> Result<Vec<Option<Layer>>, ShrinkError> {
    let claimed = check(model, graph)?;
    let weights = read(model, |path| claimed.contains(path))
        .map_err(|(parameter, source)| ShrinkError::Read { parameter, source })?;
    if let Some(weight) = weights
        .iter()
        .find(|weight| !weight.data.iter().all(|value| value.is_finite()))
    {
        return Err(ShrinkError::NonFinite {
            parameter: weight.path.clone(),
        });
    }
    let weights: HashMap<&str, &Weight> = weights
        .iter()
        .map(|weight| (weight.path.as_str(), weight))
        .collect();
    let nodes = graph.nodes().iter();
    nodes.map(|node| layer(&node.op, &weights)).collect()
}

/// The parameters that nodes have, once each is in the model and each of the model is placed.
fn check<M: Module>(model: &M, graph: &ChannelGraph) -> Result<HashSet<String>, ShrinkError> {
    let found = parameters(model);
    let shapes: HashMap<&str, &[usize]> = found.iter().map(|p| (&*p.path, &*p.shape)).collect();
    let mut claimed = HashSet::new();
    let mut opaque = Vec::new();
    for node in graph.nodes() {
        if let Op::Opaque { layer, .. } = &node.op {
            opaque.push(layer.as_str());
        }
        for Claim {
            path,
            shape: expected,
            optional,
        } in claims(&node.op)
        {
            match shapes.get(path.as_str()) {
                Some(&shape) if shape == expected => {
                    claimed.insert(path);
                }
                Some(&shape) => {
                    return Err(ShrinkError::Shape {
                        parameter: path,
                        expected,
                        found: shape.to_vec(),
                    });
                }
                None if optional => (),
                None => {
                    let near = nearest(&path, shapes.keys().copied());
                    return Err(ShrinkError::Missing {
                        parameter: path,
                        near,
                    });
                }
            }
        }
    }
    let below = |path: &str, layer: &str| {
        layer.is_empty()
            || path
                .strip_prefix(layer)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let placed = |path: &str| claimed.contains(path) || opaque.iter().any(|l| below(path, l));
    match found.iter().find(|parameter| !placed(&parameter.path)) {
        Some(parameter) => Err(ShrinkError::Undeclared {
            parameter: parameter.path.clone(),
        }),
        None => Ok(claimed),
    }
}

/// The path most like this one, if any is.
pub(in crate::shrink) fn nearest<'a>(
    path: &str,
    paths: impl Iterator<Item = &'a str>,
) -> Option<String> {
    let scored = paths.map(|other| (strsim::jaro_winkler(path, other), other));
    scored
        .filter(|(score, _)| *score > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(a.1)))
        .map(|(_, other)| other.to_owned())
}

fn layer(op: &Op, weights: &HashMap<&str, &Weight>) -> Result<Option<Layer>, ShrinkError> {
    let get = |layer: &str, name| weights.get(parameter(layer, name).as_str()).copied();
    let wide = |weight: &Weight| weight.data.iter().map(|&x| f64::from(x)).collect();
    let bias = |layer: &str| get(layer, "bias").map(wide);
    Ok(match op {
        Op::Conv { layer, conv } => {
            let weight = get(layer, "weight").expect("checked above");
            let kernel = weight.shape[2..].iter().product();
            let kernels = weight.data.chunks(kernel);
            Some(Layer::Matrix(Matrix {
                outputs: weight.shape[0],
                inputs: weight.shape[1],
                groups: conv.groups,
                shape: weight.shape.clone(),
                reads: kernels
                    .clone()
                    .map(|k| k.iter().any(|&w| w != 0.0))
                    .collect(),
                sums: kernels
                    .map(|k| k.iter().map(|&w| f64::from(w)).sum())
                    .collect(),
                bias: bias(layer),
            }))
        }
        Op::Linear { layer, .. } => {
            let weight = get(layer, "weight").expect("checked above");
            let [inputs, outputs] = [weight.shape[0], weight.shape[1]];
            // Stored input after input; wanted output after output.
            let sums: Vec<f64> = (0..outputs)
                .flat_map(|o| (0..inputs).map(move |i| i * outputs + o))
                .map(|at| f64::from(weight.data[at]))
                .collect();
            Some(Layer::Matrix(Matrix {
                outputs,
                inputs,
                groups: 1,
                shape: weight.shape.clone(),
                reads: sums.iter().map(|&w| w != 0.0).collect(),
                sums,
                bias: bias(layer),
            }))
        }
        Op::Norm { layer, norm } => {
            let [gamma, beta, mean, var] =
                NORM.map(|name| &get(layer, name).expect("checked above").data);
            let scale: Vec<f64> = gamma
                .iter()
                .zip(var)
                .map(|(&gamma, &var)| f64::from(gamma) / (f64::from(var) + norm.epsilon).sqrt())
                .collect();
            if !scale.iter().all(|scale| scale.is_finite()) {
                return Err(ShrinkError::NonFinite {
                    parameter: parameter(layer, "running_var"),
                });
            }
            let shift = beta.iter().zip(mean).zip(&scale);
            let shift =
                shift.map(|((&beta, &mean), scale)| f64::from(beta) - f64::from(mean) * scale);
            Some(Layer::Norm(Norm {
                shift: shift.collect(),
                scale,
            }))
        }
        _ => None,
    })
}
