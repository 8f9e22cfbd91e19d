//! Which layer feeds which: found by changing what one of them gives, and looking who notices.

use core::hash::Hasher;
use std::any::Any;
use std::cell::RefCell;
use std::hash::DefaultHasher;

use burn::module::ParamId;
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::{ConvProblem, SparseError, catalogue};

/// Where something comes from or goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// What the network is given.
    Input,
    /// The layer of this index in [`Flow::layers`].
    Layer(usize),
    /// What the network gives.
    Output,
}

/// A layer within a [`Flow`].
#[derive(Debug, Clone, PartialEq)]
pub struct FlowLayer {
    /// The id of its weight, of dense factors that of their core; [`weights`](super::weights) knows the path
    /// by it.
    pub weight: ParamId,
    /// What it computed when it was first used; a linear layer is a 1×1 convolution of one pixel for each row of
    /// its input.
    pub problem: ConvProblem,
    /// How often a forward pass uses it.
    pub uses: usize,
}

/// The layers of this crate that a forward pass runs, and which of them feeds which.
///
/// A layer feeds another if what it gives reaches the other's input without passing through a third: through
/// activations, norms, pooling, sums, shortcuts and whatever else a model does between layers. None of that is
/// declared or recorded. The forward pass runs once as it is, and once more for each layer with all layers
/// giving what they gave before, except that one, which gives something else: those layers whose input is not
/// what it was are fed by it. No layer computes anything in these passes, so they are cheap.
///
/// A connection that no change gets through is not seen: a sum multiplied by zero, or a clamped one.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_sparse::nn::{Conv2dConfig, Flow, Place};
///
/// let device = Device::flex();
/// let [a, b] = [1, 3].map(|k| Conv2dConfig::new([2, 2], [k, k]).init(&device));
/// // A shortcut around the second.
/// let forward = |x: Tensor<4>| {
///     let y = a.forward(x);
///     b.forward(y.clone().pad((1, 1, 1, 1), 0.0)) + y
/// };
/// let inputs = [0, 1].map(|_| Tensor::random([1, 2, 4, 4], Distribution::Default, &device));
/// let flow = Flow::of(inputs, forward)?;
/// assert_eq!(flow.layers[0].weight, a.weight.id());
/// assert_eq!(flow.fed_by(Place::Layer(0)), [Place::Layer(1), Place::Output]);
/// assert_eq!(flow.feeding(Place::Output), [Place::Layer(0), Place::Layer(1)]);
/// # Ok::<(), burn_sparse::SparseError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Flow {
    /// In the order in which they first ran.
    pub layers: Vec<FlowLayer>,
    /// From where to where, in order.
    pub edges: Vec<[Place; 2]>,
}

impl Flow {
    /// Runs `forward` on the first input twice, once with the second, which is any other input of the same shape, and
    /// then as often as there are layers. Layers that it runs on other threads are not seen. Their inputs and
    /// outputs of one pass are kept meanwhile.
    ///
    /// # Errors
    /// [`SparseError::Shape`] if the layers that run, or their shapes, depend on the values that they give, or if the
    /// same input gives something else the second time, as with dropout.
    ///
    /// # Panics
    /// If `forward` does, or is inside of another call of this.
    pub fn of<X, const D: usize>(
        inputs: [X; 2],
        mut forward: impl FnMut(X) -> Tensor<D>,
    ) -> Result<Self, SparseError>
    where
        X: Clone,
    {
        let [input, other] = inputs;
        let recording = Session::begin(Session {
            uses: Vec::new(),
            at: 0,
            pass: Pass::Record,
        });
        let y = forward(input.clone());
        let mut session = recording.end();
        let output = digest([Some(&y)]);

        let mut layers: Vec<FlowLayer> = Vec::new();
        for used in &session.uses {
            match layers.iter_mut().find(|layer| layer.weight == used.weight) {
                Some(layer) => layer.uses += 1,
                None => layers.push(FlowLayer {
                    weight: used.weight,
                    problem: used.problem,
                    uses: 1,
                }),
            }
        }
        let ids: Vec<ParamId> = layers.iter().map(|layer| layer.weight).collect();
        let mut edges = Vec::new();
        // As it was, then another input, then each layer.
        let passes = [None, None]
            .into_iter()
            .chain(ids.iter().copied().map(Some));
        for (pass, changed) in passes.enumerate() {
            session.at = 0;
            session.pass = Pass::Replay {
                changed,
                reached: Vec::new(),
            };
            let replaying = Session::begin(session);
            let x = if pass == 1 { &other } else { &input };
            let y = forward(x.clone());
            session = replaying.end();
            let complete = session.at == session.uses.len();
            let Pass::Replay { reached, .. } = &session.pass else {
                return Err(unsteady());
            };
            let same_output = digest([Some(&y)]) == output;
            let unchanged = reached.is_empty() && same_output;
            if !complete || pass == 0 && !unchanged {
                return Err(unsteady());
            }
            let index = |id: ParamId| ids.iter().position(|known| *known == id);
            let from = changed.and_then(index).map_or(Place::Input, Place::Layer);
            let to = reached.iter().filter_map(|&id| index(id));
            edges.extend(to.map(|to| [from, Place::Layer(to)]));
            if !same_output {
                edges.push([from, Place::Output]);
            }
        }
        edges.sort_unstable();
        edges.dedup();
        Ok(Self { layers, edges })
    }

    /// Where what a place gives goes to.
    pub fn fed_by(&self, place: Place) -> Vec<Place> {
        let edges = self.edges.iter().filter(|[from, _]| *from == place);
        edges.map(|[_, to]| *to).collect()
    }

    /// Where what a place takes comes from.
    pub fn feeding(&self, place: Place) -> Vec<Place> {
        let edges = self.edges.iter().filter(|[_, to]| *to == place);
        edges.map(|[from, _]| *from).collect()
    }
}

fn unsteady() -> SparseError {
    SparseError::Shape(
        "the layers that a forward pass runs, or what they are given, depend on more than its input: on the \
         values that layers give, on chance, or on statistics that it updates; follow a model that does not \
         train, such as `model.valid()`"
            .into(),
    )
}

/// One use of a layer in the recorded pass.
struct Used {
    weight: ParamId,
    problem: ConvProblem,
    /// Of its inputs.
    digest: u64,
    /// `Tensor<D>`, of the rank that the layer has.
    output: Option<Box<dyn Any>>,
}

enum Pass {
    /// Layers compute, and are recorded.
    Record,
    /// Layers give what they gave, except one.
    Replay {
        changed: Option<ParamId>,
        /// Whose inputs are not what they were.
        reached: Vec<ParamId>,
    },
    /// Layers compute again: something ran that had not run before.
    Lost,
}

struct Session {
    uses: Vec<Used>,
    /// Uses so far in this pass.
    at: usize,
    pass: Pass,
}

thread_local! {
    static SESSION: RefCell<Option<Session>> = const { RefCell::new(None) };
}

/// Ends the session even if a forward pass panics.
struct Running;

impl Session {
    fn begin(self) -> Running {
        SESSION.with_borrow_mut(|session| {
            assert!(session.is_none(), "a flow within a flow");
            *session = Some(self);
        });
        Running
    }
}

impl Running {
    fn end(self) -> Session {
        SESSION.take().expect("nobody else ends a session")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        SESSION.set(None);
    }
}

/// Whether a flow is followed on this thread.
pub(crate) fn is_followed() -> bool {
    SESSION.with_borrow(Option::is_some)
}

/// Tells whoever asks that a layer runs, on one or two inputs.
pub(super) fn through<const D: usize>(
    weight: ParamId,
    problem: impl FnOnce() -> ConvProblem,
    inputs: [Option<&Tensor<D>>; 2],
) -> Seen<D> {
    let computes = |recorded| Seen {
        gives: None,
        recorded,
    };
    if !is_followed() {
        return computes(None);
    }
    // Reading a tensor may run other code of this thread: not while the session is borrowed.
    let digest = digest(inputs);
    let gives = SESSION.with_borrow_mut(|session| {
        let session = session.as_mut()?;
        if let Pass::Record = session.pass {
            session.uses.push(Used {
                weight,
                problem: problem(),
                digest,
                output: None,
            });
            return None;
        }
        let gives = session.next(weight, &problem(), digest);
        if gives.is_none() {
            session.pass = Pass::Lost;
        }
        gives
    });
    match gives {
        Some((output, changed)) => Seen {
            gives: Some(if changed { other(output) } else { output }),
            recorded: None,
        },
        None => {
            computes(SESSION.with_borrow(|session| session.as_ref()?.uses.len().checked_sub(1)))
        }
    }
}

impl Session {
    /// What the next use of a layer gave, and whether it is to give something else.
    fn next<const D: usize>(
        &mut self,
        weight: ParamId,
        problem: &ConvProblem,
        digest: u64,
    ) -> Option<(Tensor<D>, bool)> {
        let Pass::Replay { changed, reached } = &mut self.pass else {
            return None;
        };
        let same = |used: &&Used| used.weight == weight && used.problem == *problem;
        let used = self.uses.get(self.at).filter(same)?;
        if used.digest != digest && !reached.contains(&weight) {
            reached.push(weight);
        }
        self.at += 1;
        let output = used.output.as_ref()?.downcast_ref::<Tensor<D>>()?;
        Some((output.clone(), *changed == Some(weight)))
    }
}

/// What is to be done with a layer.
pub(super) struct Seen<const D: usize> {
    /// It gives this instead of computing.
    gives: Option<Tensor<D>>,
    /// The use of which the output is kept.
    recorded: Option<usize>,
}

impl<const D: usize> Seen<D> {
    /// What the layer gives.
    pub(super) fn or(self, work: impl FnOnce() -> Tensor<D>) -> Tensor<D> {
        if let Some(given) = self.gives {
            return given;
        }
        let y = work();
        if let Some(index) = self.recorded {
            SESSION.with_borrow_mut(|session| {
                let used = session.as_mut().and_then(|s| s.uses.get_mut(index));
                if let Some(used) = used {
                    used.output = Some(Box::new(y.clone()));
                }
            });
        }
        y
    }
}

/// Something else of the same shape and size, whatever the values: half of them larger, half smaller.
fn other<const D: usize>(y: Tensor<D>) -> Tensor<D> {
    let shape = y.dims();
    let noise = catalogue::values(shape.iter().product(), 7);
    let noise = Tensor::<D>::from_data(TensorData::new(noise, shape), &y.device());
    let noise = noise.cast(y.dtype());
    // At least half of it, for an output of zeros.
    let size = y.clone().abs().mean().add_scalar(0.5).unsqueeze();
    y + noise * size
}

/// Of the bytes of tensors.
fn digest<const D: usize, const N: usize>(tensors: [Option<&Tensor<D>>; N]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for tensor in tensors.into_iter().flatten() {
        hasher.write(tensor.to_data().as_bytes());
    }
    hasher.finish()
}

#[cfg(test)]
mod tests;
