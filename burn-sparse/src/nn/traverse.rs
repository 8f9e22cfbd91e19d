//! Finding and replacing the weights of our layers inside anyone's module.
//!
//! Burn's traversal shows a visitor tensors, not the layers that own them, and a mapper can change
//! a tensor but not turn a dense weight into a packed one. So a weight announces itself to a
//! session of the current thread while Burn's derived `visit` and `map` walk the module: no trait
//! to implement, no list of layers to keep, whatever `Vec`, `Option` or enum they sit in.

use std::any::Any;
use std::cell::RefCell;
use std::collections::VecDeque;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, FloatDType, Tensor, TensorData};

use super::{Factors, PackedWeight, Weight};
use crate::{SparseError, format::Csr, ops::SparseWeight};

/// A weight of one of the layers of this crate.
#[derive(Debug, Clone)]
pub enum AnyWeight {
    /// Of a [`Linear`](super::Linear), those of recurrent layers included, `[d_input, d_output]`.
    Linear(Weight<2>),
    /// Of a [`Conv1d`](super::Conv1d), `[out, in / groups, kernel]`.
    Conv1d(Weight<3>),
    /// Of a [`Conv2d`](super::Conv2d), `[out, in / groups, height, width]`.
    Conv2d(Weight<4>),
}

macro_rules! each {
    ($any:expr, $weight:ident => $body:expr) => {
        match $any {
            AnyWeight::Linear($weight) => $body,
            AnyWeight::Conv1d($weight) => $body,
            AnyWeight::Conv2d($weight) => $body,
        }
    };
}

macro_rules! map_each {
    ($any:expr, $weight:ident => $body:expr) => {
        match $any {
            AnyWeight::Linear($weight) => AnyWeight::Linear($body),
            AnyWeight::Conv1d($weight) => AnyWeight::Conv1d($body),
            AnyWeight::Conv2d($weight) => AnyWeight::Conv2d($body),
        }
    };
}

impl AnyWeight {
    /// The layer's kind as manifests name it: `linear`, `conv1d` or `conv2d`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Linear(_) => "linear",
            Self::Conv1d(_) => "conv1d",
            Self::Conv2d(_) => "conv2d",
        }
    }

    /// The shape of the dense weight.
    pub fn shape(&self) -> Vec<usize> {
        each!(self, weight => weight.dims().to_vec())
    }

    /// Output channels and weights of each.
    pub fn matrix(&self) -> [usize; 2] {
        each!(self, weight => weight.matrix())
    }

    /// Identifies the weight, before and after packing.
    pub fn id(&self) -> ParamId {
        each!(self, weight => weight.id())
    }

    /// The device of the parameter.
    pub fn device(&self) -> Device {
        each!(self, weight => weight.device())
    }

    /// Whether only the non-zeros are held.
    pub fn is_packed(&self) -> bool {
        each!(self, weight => weight.packed().is_some())
    }

    /// Whether it is a chain of factors.
    pub fn is_factored(&self) -> bool {
        each!(self, weight => weight.factors().is_some())
    }

    /// The operand for [`ops`](crate::ops), if packed.
    pub fn sparse(&self) -> Option<SparseWeight> {
        each!(self, weight => weight.packed().map(PackedWeight::sparse))
    }

    /// The weight as rows of non-zeros.
    ///
    /// # Errors
    /// As [`Weight::to_csr`].
    pub fn to_csr(&self) -> Result<Csr, SparseError> {
        each!(self, weight => weight.to_csr())
    }

    /// As [`Weight::pack`].
    ///
    /// # Errors
    /// As [`Weight::pack`].
    pub fn pack(self, equalise: bool) -> Result<Self, SparseError> {
        Ok(map_each!(self, weight => weight.pack(equalise)?))
    }

    /// As [`Weight::unpack`].
    #[must_use]
    pub fn unpack(self) -> Self {
        map_each!(self, weight => weight.unpack())
    }

    /// The same in another type of numbers. On Flex packed values stay f32, which its kernels take whatever the
    /// inputs are; see [`SparseWeight::for_inputs`].
    #[must_use]
    pub fn in_numbers(self, dtype: FloatDType) -> Self {
        map_each!(self, weight => weight.in_numbers(dtype))
    }

    /// A packed weight of the same kind and shape with other non-zeros, on the same device.
    ///
    /// # Errors
    /// [`SparseError::Shape`] when the matrix does not have this weight's rows.
    pub fn with_csr(&self, csr: Csr) -> Result<Self, SparseError> {
        use super::PackedWeight;
        Ok(map_each!(self, weight => {
            Weight::Packed(PackedWeight::with_id(weight.id(), csr, weight.dims(), &weight.device())?)
        }))
    }

    /// A chain of `[reduce, core, expand]` in the place of this weight, on the same device, with gradients if
    /// it had some; see [`Factors`] for their shapes. For layers of one group.
    ///
    /// # Errors
    /// As [`Factors::new`], and [`SparseError::Shape`] when they do not multiply to this weight's shape.
    pub fn with_factors(&self, factors: [Option<TensorData>; 3]) -> Result<Self, SparseError> {
        Ok(map_each!(self, weight => factored(weight, factors)?))
    }

    fn from_weight<const D: usize>(weight: Weight<D>) -> Option<Self> {
        let weight = &weight as &dyn Any;
        if let Some(weight) = weight.downcast_ref::<Weight<4>>() {
            return Some(Self::Conv2d(weight.clone()));
        }
        if let Some(weight) = weight.downcast_ref::<Weight<3>>() {
            return Some(Self::Conv1d(weight.clone()));
        }
        weight
            .downcast_ref::<Weight<2>>()
            .map(|weight| Self::Linear(weight.clone()))
    }

    fn into_weight<const D: usize>(self) -> Option<Weight<D>> {
        each!(self, weight => (&weight as &dyn Any).downcast_ref::<Weight<D>>().cloned())
    }
}

fn factored<const D: usize>(
    weight: &Weight<D>,
    factors: [Option<TensorData>; 3],
) -> Result<Weight<D>, SparseError> {
    let (device, trains) = (weight.device(), weight.trains());
    let factor = |data: TensorData| {
        let shape = data.shape();
        if shape.num_dims() != D {
            return Err(SparseError::shape(format!(
                "a factor of shape {shape:?} in the place of a weight {:?}",
                weight.dims()
            )));
        }
        let param = Param::from_tensor(Tensor::<D>::from_data(data, &device));
        Ok(Weight::Dense(param.set_require_grad(trains)))
    };
    let [reduce, core, expand] = factors.map(|data| data.map(factor).transpose());
    let core = core?.ok_or_else(|| SparseError::shape("factors without a core"))?;
    let factors = Factors::new(reduce?, core, expand?)?.with_id(weight.id());
    if factors.dims() != weight.dims() {
        return Err(SparseError::shape(format!(
            "factors of a weight {:?}, not {:?}",
            factors.dims(),
            weight.dims()
        )));
    }
    Ok(factors.into())
}

/// A weight and where it is.
#[derive(Debug, Clone)]
pub struct NamedWeight {
    /// The layer's path in its model, such as `layer1.0.conv1`; of a factor the layer's and its own name,
    /// `layer1.0.conv1.core`.
    pub layer: String,
    /// The weight's path, such as `layer1.0.conv1.weight` or `layer1.0.conv1.weight.core`.
    pub path: String,
    /// Whether it is a factor of a layer's weight. Factors have no factors of their own.
    pub factor: bool,
    /// What it is of kernels that the channels of a layer share, if it is.
    pub shared: Option<SharedPart>,
    /// Groups that divide the channels of what runs it; 1 for linear layers.
    pub groups: usize,
    /// The weight.
    pub weight: AnyWeight,
}

/// The factors of a layer whose channels share their kernels; see [`Factors`](super::Factors).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedPart {
    /// The kernels: few and full, and never packed.
    Kernels,
    /// What combines the channels' responses to them.
    Coefficients,
}

enum Session {
    Off,
    Collect {
        path: Vec<String>,
        /// Whether the last name is that of a factor.
        factor: bool,
        shared: Option<SharedPart>,
        groups: usize,
        found: Vec<NamedWeight>,
    },
    Replace(VecDeque<AnyWeight>),
    Multiply,
}

thread_local! {
    static SESSION: RefCell<Session> = const { RefCell::new(Session::Off) };
}

/// Ends the session even if a visit panics.
struct Open;

impl Open {
    fn new(session: Session) -> Self {
        SESSION.with_borrow_mut(|current| {
            assert!(
                matches!(current, Session::Off),
                "weights are already being traversed"
            );
            *current = session;
        });
        Self
    }

    fn close(self) -> Session {
        SESSION.with_borrow_mut(|current| std::mem::replace(current, Session::Off))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        SESSION.with_borrow_mut(|current| *current = Session::Off);
    }
}

/// What holds the factors of a weight: named after the layer, whose kind other traversals tell by it.
pub(super) const fn factors_of(rank: usize) -> &'static str {
    match rank {
        2 => "Struct:LinearFactors",
        3 => "Struct:Conv1dFactors",
        _ => "Struct:Conv2dFactors",
    }
}

/// Says what the factors that are visited next are of shared kernels.
pub(super) fn mark(part: Option<SharedPart>) {
    SESSION.with_borrow_mut(|session| {
        if let Session::Collect { shared, .. } = session {
            *shared = part;
        }
    });
}

/// Says into how many groups the convolution is divided whose weight `visit` shows.
pub(super) fn in_groups(groups: usize, visit: impl FnOnce()) {
    let tell = |number: usize| {
        SESSION.with_borrow_mut(|session| match session {
            Session::Collect { groups, .. } => std::mem::replace(groups, number),
            _ => 1,
        })
    };
    let before = tell(groups);
    visit();
    tell(before);
}

/// Called by every weight that is visited; a chain of factors leaves it to each of them.
pub(super) fn announce<const D: usize>(weight: &Weight<D>) {
    if weight.factors().is_some() {
        return;
    }
    SESSION.with_borrow_mut(|session| {
        if let Session::Collect {
            path,
            factor,
            shared,
            groups,
            found,
        } = session
            && let Some(weight) = AnyWeight::from_weight(weight.clone())
        {
            let layer = match path.as_slice() {
                [layer @ .., _, name] if *factor => {
                    [layer, std::slice::from_ref(name)].concat().join(".")
                }
                [layer @ .., _] => layer.join("."),
                [] => String::new(),
            };
            found.push(NamedWeight {
                layer,
                path: path.join("."),
                factor: *factor,
                shared: *shared,
                groups: *groups,
                weight,
            });
        }
    });
}

/// Called by every weight that is mapped: what takes its place, or itself.
pub(super) fn replacement<const D: usize>(weight: Weight<D>) -> Result<Weight<D>, Weight<D>> {
    let factored = weight.factors().is_some();
    SESSION.with_borrow_mut(|session| match session {
        Session::Multiply if factored => Ok(weight.unpack()),
        Session::Replace(queue) if !factored => {
            let next = queue
                .pop_front()
                .expect("as many weights as were collected");
            Ok(next
                .into_weight()
                .expect("a weight of the kind that was collected"))
        }
        _ => Err(weight),
    })
}

struct Paths;

impl ModuleVisitor for Paths {
    fn enter_module(&mut self, name: &str, container: &str) {
        SESSION.with_borrow_mut(|session| {
            if let Session::Collect { path, factor, .. } = session {
                path.push(name.to_string());
                *factor = [2, 3, 4].map(factors_of).contains(&container);
            }
        });
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        SESSION.with_borrow_mut(|session| {
            if let Session::Collect { path, .. } = session {
                path.pop();
            }
        });
    }
}

struct Identity;

impl ModuleMapper for Identity {}

/// The weights of all layers of this crate inside `module`, in the order of traversal, of factored
/// ones each factor. Layers of Burn's own are not among them.
///
/// # Example
/// ```
/// use burn::tensor::Device;
/// use burn_sparse::nn::{LinearConfig, weights};
///
/// let layers = vec![LinearConfig::new(4, 8).init(&Device::flex()); 2];
/// let names: Vec<_> = weights(&layers).into_iter().map(|weight| weight.layer).collect();
/// assert_eq!(names, ["0", "1"]);
/// ```
///
/// # Panics
/// If called from inside another traversal of the same thread.
pub fn weights<M: Module>(module: &M) -> Vec<NamedWeight> {
    let open = Open::new(Session::Collect {
        path: Vec::new(),
        factor: false,
        shared: None,
        groups: 1,
        found: Vec::new(),
    });
    module.visit(&mut Paths);
    match open.close() {
        Session::Collect { found, .. } => found,
        _ => unreachable!("the session opened above"),
    }
}

/// Puts weights in the place of those that [`weights`] found, in the same order.
///
/// # Panics
/// If there are not as many, one is of another kind or shape than the one it replaces, or a factor or a layer
/// of several groups would get factors.
pub fn replace_weights<M: Module>(module: M, replacements: Vec<AnyWeight>) -> M {
    let current = weights(&module);
    assert!(
        current.len() == replacements.len(),
        "{} weights to replace {}",
        replacements.len(),
        current.len()
    );
    for (old, new) in current.iter().zip(&replacements) {
        assert!(
            !(old.factor && new.is_factored()),
            "{}: a factor cannot have factors",
            old.layer
        );
        assert!(
            old.factor || old.groups == 1 || !new.is_factored(),
            "{}: a layer of {} groups cannot have factors",
            old.layer,
            old.groups
        );
        assert!(
            old.weight.kind() == new.kind() && old.weight.shape() == new.shape(),
            "{}: a {} weight {:?} cannot replace a {} weight {:?}",
            old.layer,
            new.kind(),
            new.shape(),
            old.weight.kind(),
            old.weight.shape()
        );
    }
    let open = Open::new(Session::Replace(replacements.into()));
    let module = module.map(&mut Identity);
    open.close();
    module
}

/// The module with the product of their factors in the place of all factored weights: dense layers that
/// compute the same.
///
/// # Panics
/// If called from inside another traversal of the same thread.
pub fn multiply_factors<M: Module>(module: M) -> M {
    let open = Open::new(Session::Multiply);
    let module = module.map(&mut Identity);
    open.close();
    module
}
