//! Walking over the floating-point parameters of a module that we know nothing about.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorReadError};
use serde::{Deserialize, Serialize};

use crate::MatrixView;

/// What a parameter is for, judged by its name, rank and the module that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Role {
    /// The kernel of a convolution.
    Convolution,
    /// The matrix of a linear layer.
    Linear,
    /// A table of embeddings, looked up rather than multiplied.
    Embedding,
    /// A scale or shift of a normalisation layer.
    Norm,
    /// A bias, or any other vector or scalar.
    Vector,
    /// Any other parameter of rank two or more.
    Other,
}

/// A floating-point parameter of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parameter {
    /// Dotted path, such as `layer1.0.conv1.weight`.
    pub(crate) path: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) role: Role,
    pub(crate) view: MatrixView,
}

impl Parameter {
    fn new(path: String, name: &str, container: &str, shape: Vec<usize>) -> Self {
        let role = role(name, container, shape.len());
        let view = MatrixView::new(&shape, output_axis(container, shape.len()));
        let view = if role == Role::Convolution {
            view.with_kernel_of(&shape)
        } else {
            view
        };
        Self {
            path,
            shape,
            role,
            view,
        }
    }

    pub(crate) fn weights(&self) -> usize {
        self.view.len()
    }
}

fn role(name: &str, container: &str, rank: usize) -> Role {
    let kind = container.rsplit(':').next().unwrap_or_default();
    if rank < 2 || name == "bias" {
        if kind.contains("Norm") {
            Role::Norm
        } else {
            Role::Vector
        }
    } else if kind.contains("Norm") {
        Role::Norm
    } else if kind.contains("Embed") || name.to_ascii_lowercase().contains("embed") {
        Role::Embedding
    } else if kind.contains("Conv") && rank >= 3 || rank >= 4 {
        Role::Convolution
    } else if kind.contains("Linear") && rank == 2 {
        Role::Linear
    } else {
        Role::Other
    }
}

/// The axis that counts output channels. Burn stores `Linear` as `[d_input, d_output]`,
/// convolutions as `[out, in / groups, ..]` and transposed ones as `[in, out / groups, ..]`; for
/// modules never seen before axis 0 is assumed.
fn output_axis(container: &str, rank: usize) -> usize {
    let kind = container.rsplit(':').next().unwrap_or_default();
    let second =
        (kind.contains("Linear") && rank == 2) || (kind.contains("ConvTranspose") && rank >= 3);
    usize::from(second)
}

/// Where a traversal stands. Parameters that belong to an attached reparameterization (masks,
/// adapters) are not the model's own: [`inside_reparameterization`](Self::inside_reparameterization)
/// tells them apart.
#[derive(Debug, Default)]
pub(crate) struct Position {
    names: Vec<String>,
    containers: Vec<String>,
    reparameterizations: usize,
}

const REPARAMETERIZATION: &str = "Reparameterization";

impl Position {
    pub(crate) fn enter(&mut self, name: &str, container: &str) {
        self.names.push(name.to_owned());
        self.containers.push(container.to_owned());
        self.reparameterizations += usize::from(container == REPARAMETERIZATION);
    }

    pub(crate) fn exit(&mut self) {
        self.names.pop();
        if self.containers.pop().as_deref() == Some(REPARAMETERIZATION) {
            self.reparameterizations -= 1;
        }
    }

    pub(crate) fn path(&self) -> String {
        self.names.join(".")
    }

    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    pub(crate) fn inside_reparameterization(&self) -> bool {
        self.reparameterizations > 0
    }

    fn parameter(&self, shape: Vec<usize>) -> Parameter {
        let name = self.names.last().map_or("", String::as_str);
        let container = self.containers.last().map_or("", String::as_str);
        Parameter::new(self.path(), name, container, shape)
    }
}

/// The model's own floating-point parameters in traversal order. Initialises lazy ones: the shape
/// that an uninitialised parameter announces is not always the one it will have (a `Linear` with
/// `LinearLayout::Col` announces its storage).
pub(crate) fn parameters<M: Module>(model: &M) -> Vec<Parameter> {
    #[derive(Default)]
    struct Collect {
        position: Position,
        found: Vec<Parameter>,
    }
    impl ModuleVisitor for Collect {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.position.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.position.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if !self.position.inside_reparameterization() {
                let shape = param.dims().to_vec();
                self.found.push(self.position.parameter(shape));
            }
        }
    }
    let mut collect = Collect::default();
    model.visit(&mut collect);
    collect.found
}

/// A parameter's effective value as one dimension, still part of the graph.
pub(crate) struct FlatWeight {
    pub(crate) path: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Tensor<1>,
}

/// Effective values of the parameters that `wanted` accepts, in traversal order.
pub(crate) fn flat<M: Module>(model: &M, wanted: impl Fn(&str) -> bool) -> Vec<FlatWeight> {
    struct Flat<F> {
        position: Position,
        wanted: F,
        found: Vec<FlatWeight>,
    }
    impl<F: Fn(&str) -> bool> ModuleVisitor for Flat<F> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.position.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.position.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let path = self.position.path();
            if self.position.inside_reparameterization() || !(self.wanted)(&path) {
                return;
            }
            let tensor = param.val();
            self.found.push(FlatWeight {
                path,
                shape: tensor.dims().to_vec(),
                values: tensor.reshape([-1]),
            });
        }
    }
    let mut flat = Flat {
        position: Position::default(),
        wanted,
        found: Vec::new(),
    };
    model.visit(&mut flat);
    flat.found
}

/// A parameter read to the host.
pub(crate) struct Weight {
    pub(crate) path: String,
    pub(crate) shape: Vec<usize>,
    /// In storage order.
    pub(crate) data: Vec<f32>,
}

/// Effective values (masks and other reparameterizations applied) of the parameters that `wanted`
/// accepts, in traversal order.
pub(crate) fn read<M: Module>(
    model: &M,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<Weight>, (String, TensorReadError)> {
    // Folding a clone (cheap: tensors are shared) gives effective values of masked parameters.
    read_base(&model.clone().materialize(), wanted)
}

/// Stored values, without masks and other reparameterizations, of the parameters that `wanted`
/// accepts, in traversal order.
pub(crate) fn read_base<M: Module>(
    model: &M,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<Weight>, (String, TensorReadError)> {
    struct Read<F> {
        position: Position,
        wanted: F,
        found: Vec<Weight>,
        error: Option<(String, TensorReadError)>,
    }
    impl<F: Fn(&str) -> bool> ModuleVisitor for Read<F> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.position.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.position.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let path = self.position.path();
            if self.position.inside_reparameterization()
                || self.error.is_some()
                || !(self.wanted)(&path)
            {
                return;
            }
            let tensor = param.val();
            let shape = tensor.dims().to_vec();
            // `try_into_vec_as` hands out a buffer of its own: nothing here aliases the parameter.
            match tensor.detach().try_into_vec_as::<f32>() {
                Ok(data) => self.found.push(Weight { path, shape, data }),
                Err(error) => self.error = Some((path, error)),
            }
        }
    }
    let mut read = Read {
        position: Position::default(),
        wanted,
        found: Vec::new(),
        error: None,
    };
    model.visit(&mut read);
    match read.error {
        Some(error) => Err(error),
        None => Ok(read.found),
    }
}
