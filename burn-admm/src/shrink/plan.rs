use std::collections::{BTreeMap, HashMap, HashSet};

use burn::module::Module;
use serde::{Deserialize, Serialize};

use super::analysis::{Analysis, Layer, Matrix, NORM, Sink, layers, nearest, parameter};
use super::cut::{AxisCut, ParameterCut, cut};
use super::{ChannelGraph, ChannelModel, Op, ShrinkError, ShrinkOptions, ShrinkReport};
use crate::params::parameters;

/// Which channels of a model go: indices for each parameter, and what biases take over.
///
/// A plan is plain data. It is made from a pruned model and cuts that model; saved as JSON, it also
/// cuts a freshly built model to the shapes of the shrunk one, so that its record loads.
///
/// # Example
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor};
/// use burn_admm::shrink::{ChannelGraph, ShrinkOptions, ShrinkPlan};
///
/// #[derive(Module, Debug)]
/// struct Mlp {
///     a: Linear,
///     b: Linear,
/// }
///
/// let device = Device::flex();
/// let init = || Mlp {
///     a: LinearConfig::new(3, 4).init(&device),
///     b: LinearConfig::new(4, 2).init(&device),
/// };
/// let mut model = init();
/// // Two hidden units have lost all their weights.
/// model.a.weight = model.a.weight.map(|w| w.slice_fill([0..3, 1..3], 0.0));
///
/// let graph = ChannelGraph::of([3], |x| x.linear("a", &model.a).relu().linear("b", &model.b))?;
/// let plan = ShrinkPlan::new(&model, &graph, &ShrinkOptions::new())?;
/// println!("{}", plan.report());
/// let small = plan.apply(model)?;
/// assert_eq!(small.a.weight.dims(), [3, 2]);
///
/// // Keep the plan beside the weights, and load both into a fresh model.
/// let json = plan.to_json();
/// let record = small.clone().into_record();
/// let loaded = ShrinkPlan::from_json(&json)?.apply(init())?.load_record(record);
/// assert_eq!(loaded.a.weight.dims(), [3, 2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "PlanData")]
pub struct ShrinkPlan {
    cuts: Vec<ParameterCut>,
    groups: BTreeMap<String, usize>,
    report: ShrinkReport,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanData {
    cuts: Vec<ParameterCut>,
    groups: BTreeMap<String, usize>,
    report: ShrinkReport,
}

impl TryFrom<PlanData> for ShrinkPlan {
    type Error = ShrinkError;

    fn try_from(data: PlanData) -> Result<Self, ShrinkError> {
        let mut seen = HashSet::new();
        for cut in &data.cuts {
            cut.validate()?;
            if !seen.insert(&cut.parameter) {
                let problem = format!("parameter `{}` is cut twice", cut.parameter);
                return Err(ShrinkError::Plan(problem));
            }
        }
        Ok(Self {
            cuts: data.cuts,
            groups: data.groups,
            report: data.report,
        })
    }
}

impl ShrinkPlan {
    /// Finds the channels of `model` that can go. Masks that it has are applied.
    ///
    /// # Errors
    /// [`ShrinkError`] for a graph that does not describe the model (a layer that is missing, of
    /// another shape, or not in the graph), for weights that are not finite, and, if the options
    /// say so, for a layer that would lose all its channels.
    pub fn new<M: Module>(
        model: &M,
        graph: &ChannelGraph,
        options: &ShrinkOptions,
    ) -> Result<Self, ShrinkError> {
        options.validate()?;
        let analysis = Analysis::new(graph, layers(model, graph)?, options)?;
        let mut plan = Self {
            cuts: Vec::new(),
            groups: BTreeMap::new(),
            report: ShrinkReport::new(&analysis),
        };
        let mut means = BTreeMap::new();
        for (node, layer) in analysis.layers.iter().enumerate() {
            match layer {
                Some(Layer::Matrix(matrix)) => plan.matrix(&analysis, node, matrix, &mut means),
                Some(Layer::Norm(_)) => plan.norm(&analysis, node, means.remove(&node)),
                None => (),
            }
        }
        plan.cuts.retain(|cut| !cut.is_idle());
        Ok(plan)
    }

    fn matrix(
        &mut self,
        analysis: &Analysis<'_>,
        node: usize,
        matrix: &Matrix,
        means: &mut BTreeMap<usize, Vec<f32>>,
    ) {
        let graph = analysis.graph;
        let op = &graph.nodes()[node].op;
        let layer = op.layer().unwrap_or_default();
        let input = graph.nodes()[node].inputs[0];
        let (inputs, outputs) = (analysis.kept(input), analysis.kept(node));
        let constants: Vec<f32> = analysis.folded(node).iter().map(|&c| c as f32).collect();
        let constants = if constants.iter().any(|&c| c != 0.0) {
            constants
        } else {
            Vec::new()
        };
        let mut add = Vec::new();
        if !constants.is_empty() {
            match analysis.sink(node) {
                Some(Sink::Means(norms)) => {
                    let lower: Vec<f32> = constants.iter().map(|c| -c).collect();
                    means.extend(norms.into_iter().map(|norm| (norm, lower.clone())));
                }
                _ => add = constants,
            }
        }
        let mut axes = match op {
            Op::Linear { .. } => vec![(0, inputs), (1, outputs.clone())],
            _ if matrix.groups == 1 => vec![(0, outputs.clone()), (1, inputs)],
            _ => {
                // As many groups as inputs, where it is depthwise; otherwise nothing goes.
                if inputs.len() < matrix.groups && matrix.is_depthwise() {
                    self.groups.insert(layer.to_owned(), inputs.len());
                }
                vec![(0, outputs.clone())]
            }
        };
        axes.sort_unstable_by_key(|(axis, _)| *axis);
        self.cut(parameter(layer, "weight"), &matrix.shape, axes, Vec::new());
        if matrix.bias.is_some() {
            let axes = vec![(0, outputs)];
            self.cut(parameter(layer, "bias"), &[matrix.outputs], axes, add);
        }
    }

    fn norm(&mut self, analysis: &Analysis<'_>, node: usize, mean: Option<Vec<f32>>) {
        let layer = analysis.graph.nodes()[node].op.layer().unwrap_or_default();
        let channels = analysis.graph.shape(node)[0];
        let mut mean = mean.unwrap_or_default();
        for name in NORM {
            let add = if name == "running_mean" {
                std::mem::take(&mut mean)
            } else {
                Vec::new()
            };
            let axes = vec![(0, analysis.kept(node))];
            self.cut(parameter(layer, name), &[channels], axes, add);
        }
    }

    fn cut(
        &mut self,
        parameter: String,
        shape: &[usize],
        axes: Vec<(usize, Vec<usize>)>,
        add: Vec<f32>,
    ) {
        let axes = axes
            .into_iter()
            .filter(|(axis, keep)| keep.len() < shape[*axis]);
        self.cuts.push(ParameterCut {
            parameter,
            shape: shape.to_vec(),
            axes: axes.map(|(axis, keep)| AxisCut { axis, keep }).collect(),
            add,
        });
    }

    /// What is done to each parameter that changes, in the order of a forward pass.
    pub fn cuts(&self) -> &[ParameterCut] {
        &self.cuts
    }

    /// The groups that depthwise convolutions have afterwards, by the path of the layer.
    pub fn groups(&self) -> &BTreeMap<String, usize> {
        &self.groups
    }

    /// Every layer before and after, and what stays although it carries nothing.
    pub fn report(&self) -> &ShrinkReport {
        &self.report
    }

    /// Cuts the channels out of a model: the one that the plan was made for, or a fresh one of the
    /// same shapes that is to load its record.
    ///
    /// The model keeps its type, the ids of its parameters and which of them train; masks are
    /// folded. Other clones of it stay as they are. On a plain device it comes back as
    /// [`valid`](Module::valid) gives it: call [`train`](Module::train) to go on training. An
    /// optimiser that has trained the model before holds state of the old shapes: start with a
    /// fresh one. To load a record afterwards, linear layers must be in `LinearLayout::Row`: Burn
    /// loads one in `LinearLayout::Col` only before its weight has a value.
    ///
    /// # Errors
    /// [`ShrinkError::Missing`] and [`ShrinkError::Shape`] for a model of other parameters, and
    /// [`ShrinkError::Groups`] if the plan cuts depthwise convolutions, for which
    /// [`apply_with`](Self::apply_with) is.
    pub fn apply<M: Module>(&self, model: M) -> Result<M, ShrinkError> {
        self.apply_with(model, |_, _, _| false)
    }

    /// As [`apply`](Self::apply) for a [`ChannelModel`], which sets its groups itself.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn apply_to<M: ChannelModel>(&self, model: M) -> Result<M, ShrinkError> {
        self.apply_with(model, M::set_groups)
    }

    /// As [`apply`](Self::apply), with a function that sets the number of groups of a layer of the
    /// model, by its path, and says whether it knows that layer.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn apply_with<M: Module>(
        &self,
        model: M,
        mut set_groups: impl FnMut(&mut M, &str, usize) -> bool,
    ) -> Result<M, ShrinkError> {
        self.check(&model)?;
        let mut model = cut(detached(model.materialize()), &self.cuts);
        for (layer, &groups) in &self.groups {
            if !set_groups(&mut model, layer, groups) {
                return Err(ShrinkError::Groups {
                    layer: layer.clone(),
                    groups,
                });
            }
        }
        Ok(model)
    }

    fn check<M: Module>(&self, model: &M) -> Result<(), ShrinkError> {
        let found = parameters(model);
        let shapes: HashMap<&str, &[usize]> = found.iter().map(|p| (&*p.path, &*p.shape)).collect();
        for cut in &self.cuts {
            let parameter = cut.parameter.clone();
            match shapes.get(cut.parameter.as_str()) {
                None => {
                    let near = nearest(&parameter, shapes.keys().copied());
                    return Err(ShrinkError::Missing { parameter, near });
                }
                Some(&shape) if shape != cut.shape => {
                    return Err(ShrinkError::Shape {
                        parameter,
                        expected: cut.shape.clone(),
                        found: shape.to_vec(),
                    });
                }
                Some(_) => (),
            }
        }
        Ok(())
    }

    /// The plan as JSON.
    ///
    /// # Panics
    /// Never: every plan can be written.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a plan has only strings and finite numbers")
    }

    /// A plan from JSON, checked: indices ascend and fit, sums are finite.
    ///
    /// # Errors
    /// [`ShrinkError::Json`] for anything else.
    pub fn from_json(json: &str) -> Result<Self, ShrinkError> {
        Ok(serde_json::from_str(json)?)
    }
}

/// A copy that shares nothing that a mapper changes in place: clones of a model share the running
/// statistics of their norms, and `valid` and `train` give new ones.
fn detached<M: Module>(model: M) -> M {
    let trains = model.devices().iter().any(|device| device.is_autodiff());
    let model = model.valid();
    if trains { model.train() } else { model }
}
