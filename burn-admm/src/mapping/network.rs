//! What a model is made of, seen from outside.

use std::collections::HashSet;

use burn::module::Module;
use burn::tensor::Tensor;
use burn_sparse::ConvProblem;
use burn_sparse::nn::{Flow, Place, weights};
use serde::Serialize;

use super::{MappingError, Operation};
use crate::params::{Role, parameters};
use crate::table::{Table, shape};

/// A layer of a [`Network`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct NetworkLayer {
    /// The path of its weight, which plans know it by; of dense factors the path of their core.
    pub path: String,
    /// Which layer.
    pub operation: Operation,
    /// Shape of the weight.
    pub weight: Vec<usize>,
    /// What it computes, when it is first used.
    pub problem: ConvProblem,
    /// How often a forward pass uses it.
    pub uses: usize,
}

impl NetworkLayer {
    /// Multiply-adds of a use with all weights.
    pub fn macs(&self) -> u64 {
        self.problem.dense_macs()
    }
}

/// A parameter with weights of no layer that schemes could be asked of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OtherWeight {
    /// Its path.
    pub path: String,
    /// What it is, judged by its name.
    pub role: Role,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// The layers of a model, what they compute, and which of them feeds which; found in forward passes, of a model
/// that declares nothing. See [`Flow`] for how.
///
/// Prints as a summary; [`to_json`](Self::to_json) and [`to_dot`](Self::to_dot) are for other programs.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_admm::mapping::Network;
/// use burn_sparse::nn::Conv2dConfig;
///
/// let device = Device::flex();
/// let model = [3, 1].map(|k| Conv2dConfig::new([4, 4], [k, k]).init(&device));
/// let inputs = [0, 1].map(|_| Tensor::<4>::random([1, 4, 8, 8], Distribution::Default, &device));
/// let network = Network::of(&model, inputs, |model, x| model[1].forward(model[0].forward(x)))?;
/// assert_eq!(network.layers[0].path, "0.weight");
/// assert_eq!(network.macs(), 36 * (4 * 4 * 9 + 4 * 4));
/// println!("{network}");
/// assert!(network.to_dot().contains("\"0.weight\" -> \"1.weight\""));
/// # Ok::<(), burn_admm::mapping::MappingError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Network {
    /// In the order in which they first run.
    pub layers: Vec<NetworkLayer>,
    /// From where to where, with indexes into [`layers`](Self::layers).
    pub edges: Vec<[Place; 2]>,
    /// Layers of `burn_sparse::nn` that the model has and the forward pass did not run.
    pub idle: Vec<String>,
    /// Parameters with weights of other layers: they stay dense.
    pub others: Vec<OtherWeight>,
}

impl Network {
    /// Runs `forward` on two different inputs of one shape, as [`Flow::of`] does. The model must give the same for the
    /// same input: one that trains is shown as `model.valid()`. Dense factors of a weight run as one and are seen as
    /// their core.
    ///
    /// # Errors
    /// [`MappingError::NoLayers`] for a model without layers of `burn_sparse::nn`, [`MappingError::Forward`] as
    /// [`Flow::of`].
    ///
    /// # Panics
    /// If `forward` does.
    pub fn of<M: Module, X: Clone, const D: usize>(
        model: &M,
        inputs: [X; 2],
        forward: impl Fn(&M, X) -> Tensor<D>,
    ) -> Result<Self, MappingError> {
        let flow = Flow::of(inputs, |x| forward(model, x)).map_err(MappingError::Forward)?;
        let named = weights(model);
        let mut layers = Vec::new();
        // Where a layer of the flow is in `layers`; of another model's it is nowhere.
        let mut index = Vec::new();
        for seen in &flow.layers {
            let layer = named.iter().find(|named| named.weight.id() == seen.weight);
            index.push(layer.map(|_| layers.len()));
            layers.extend(layer.map(|layer| NetworkLayer {
                path: layer.path.clone(),
                operation: Operation::of(&layer.weight),
                weight: layer.weight.shape(),
                problem: seen.problem,
                uses: seen.uses,
            }));
        }
        if layers.is_empty() {
            return Err(MappingError::NoLayers);
        }
        let place = |place: Place| match place {
            Place::Layer(at) => index[at].map(Place::Layer),
            other => Some(other),
        };
        let edges = flow.edges.iter();
        let edges = edges.filter_map(|&[from, to]| Some([place(from)?, place(to)?]));
        let ran: HashSet<_> = flow.layers.iter().map(|layer| layer.weight).collect();
        let idle = named
            .iter()
            .filter(|n| !n.factor && !ran.contains(&n.weight.id()));
        let known: HashSet<&str> = named.iter().map(|named| named.path.as_str()).collect();
        let others = parameters(model).into_iter().filter(|parameter| {
            let has_weights = !matches!(parameter.role, Role::Norm | Role::Vector);
            has_weights && !known.contains(parameter.path.as_str())
        });
        Ok(Self {
            edges: edges.collect(),
            idle: idle.map(|named| named.path.clone()).collect(),
            others: others
                .map(|parameter| OtherWeight {
                    path: parameter.path,
                    role: parameter.role,
                    shape: parameter.shape,
                })
                .collect(),
            layers,
        })
    }

    /// Multiply-adds of all layers with all their weights.
    pub fn macs(&self) -> u64 {
        self.layers
            .iter()
            .map(|layer| layer.uses as u64 * layer.macs())
            .sum()
    }

    /// Weights of all layers.
    pub fn weights(&self) -> usize {
        let weights = self
            .layers
            .iter()
            .map(|layer| layer.weight.iter().product::<usize>());
        weights.sum()
    }

    /// The layer with the weight of this path.
    pub fn layer(&self, path: &str) -> Option<&NetworkLayer> {
        self.layers.iter().find(|layer| layer.path == path)
    }

    /// As indented JSON.
    ///
    /// # Panics
    /// Never: it holds strings and whole numbers.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings and whole numbers")
    }

    /// As a graph for Graphviz' `dot`.
    pub fn to_dot(&self) -> String {
        let quoted =
            |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        let name = |place: Place| match place {
            Place::Input => "input".to_owned(),
            Place::Layer(at) => quoted(&self.layers[at].path),
            Place::Output => "output".to_owned(),
        };
        let mut dot = String::from(
            "digraph network {\n  node [shape=box];\n  input [shape=plain];\n  output [shape=plain];\n",
        );
        for layer in &self.layers {
            let path = quoted(&layer.path);
            let label = format!(
                "{}\\n{}, {} multiply-adds",
                path.trim_matches('"'),
                shape(&layer.weight),
                layer.macs()
            );
            dot.push_str(&format!("  {path} [label=\"{label}\"];\n"));
        }
        for &[from, to] in &self.edges {
            dot.push_str(&format!("  {} -> {};\n", name(from), name(to)));
        }
        dot.push_str("}\n");
        dot
    }

    /// The names of what feeds a layer: `input`, or paths.
    fn sources(&self, at: usize) -> String {
        let edges = self.edges.iter().filter(|[_, to]| *to == Place::Layer(at));
        let names: Vec<&str> = edges
            .map(|[from, _]| match *from {
                Place::Layer(at) => self.layers[at].path.as_str(),
                _ => "input",
            })
            .collect();
        names.join(", ")
    }
}

impl core::fmt::Display for Network {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let head = [
            "weight",
            "shape",
            "input",
            "output",
            "multiply-adds",
            "uses",
            "fed by",
        ];
        let mut table = Table::new(head).right_aligned(&[4, 5]);
        for (at, layer) in self.layers.iter().enumerate() {
            table.row([
                layer.path.clone(),
                shape(&layer.weight),
                shape(&layer.problem.input_shape()),
                shape(&layer.problem.output_shape()),
                layer.macs().to_string(),
                layer.uses.to_string(),
                self.sources(at),
            ]);
        }
        write!(f, "{table}")?;
        for path in &self.idle {
            writeln!(f, "{path}: no forward pass ran it; it stays dense")?;
        }
        for other in &self.others {
            writeln!(
                f,
                "{} ({}): of no layer of `burn_sparse::nn`; it stays dense",
                other.path,
                shape(&other.shape)
            )?;
        }
        write!(
            f,
            "{} layers, {} weights, {} multiply-adds",
            self.layers.len(),
            self.weights(),
            self.macs()
        )
    }
}
