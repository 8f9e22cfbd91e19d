//! A weight as a chain of smaller ones.

use burn::module::{Module, ModuleMapper, ModuleVisitor, ParamId};
use burn::tensor::{Device, Tensor};

use super::{SharedPart, Weight, traverse};
use crate::{SparseError, ops::Chains};

/// How factors make a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FactorForm {
    /// Fewer channels, the kernel, all channels; the first or the last may be missing. Tucker-2 has all three,
    /// a truncated SVD the last two.
    Tucker,
    /// A column of the kernel, then a row of it: the core is `[D, in, height, 1]`, `expand` is
    /// `[out, D, 1, width]`.
    Spatial,
    /// As Tucker, with a core that is applied to each of the few channels by itself: `[D, 1, kernel..]`.
    Depthwise,
    /// A core that is applied to each channel of the input, and `expand` for all of the answers.
    Shared,
}

/// A weight as two or three smaller ones that run one after the other: fewer channels, the kernel,
/// all channels.
///
/// ```text
/// W[o, i, r, s] = Σ_a Σ_b expand[o, a] · core[a, b, r, s] · reduce[b, i]
/// ```
///
/// | factor | of convolutions | of linear layers |
/// |---|---|---|
/// | `reduce` | `[D1, in, 1..]` | `[in, D1]` |
/// | `core` | `[D2, D1, kernel..]`, with stride, padding and dilation of the layer | `[D1, D2]` |
/// | `expand` | `[out, D2, 1..]` | `[D2, out]` |
///
/// Without `reduce`, `D1` is `in` (1 where kernels are [shared](#shared-kernels)); without `expand`, `D2` is `out`. Nothing stands between the factors:
/// the bias of the layer, a residual and the activation come after the last one. Where no gradients are
/// recorded, dense factors of a 2-D convolution run as one on a CPU, strip by strip, and on a card where that
/// is measured to be faster.
///
/// # Shared kernels
/// A core of one input channel in front of an `expand` of several times its channels is applied to every
/// channel by itself ([`is_shared`](Self::is_shared)):
///
/// ```text
/// W[o, c, r, s] = Σ_b expand[o, c·B + b] · core[b, 0, r, s]       core [B, 1, kernel..]
/// ```
///
/// All kernels of the layer are combinations of the same `B`. It is for 2-D convolutions, and pays where most
/// of `expand` is zero and packed; see [`shared_conv2d`](crate::ops::shared_conv2d).
///
/// # Columns and rows
/// A core of width 1 in front of an `expand` of height 1 and a width of its own are a convolution along columns
/// and one along rows ([`FactorForm::Spatial`], 2-D convolutions only). Stride, padding and dilation of
/// each axis are those of the factor that looks along it:
///
/// ```text
/// W[o, i, r, s] = Σ_a expand[o, a, 0, s] · core[a, i, r, 0]
/// ```
///
/// # Depthwise cores
/// A core of one input channel between a `reduce` and an `expand` of as many channels as it has outputs is
/// applied to each of them by itself ([`FactorForm::Depthwise`]), as a CP decomposition wants it:
///
/// ```text
/// W[o, i, r, s] = Σ_a expand[o, a] · core[a, 0, r, s] · reduce[a, i]
/// ```
///
/// Each factor is a weight of its own, with a path of its own (`conv1.weight.core`), an optimiser state
/// of its own, and a form of its own: [`pack`](crate::pack::pack) measures and packs each by itself, and
/// a pruned factor holds only its non-zeros.
///
/// Tucker-2 (Kim et al., ICLR 2016, section 3.1) has all three; a truncated SVD has `core` and
/// `expand`. `burn_admm::decompose` finds them, spatial SVD and CP as well, and `burn_admm::penni` shared kernels
/// (Li et al., ICML 2020).
///
/// # Example
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_sparse::nn::{Conv2dConfig, Factors, Weight};
///
/// let device = Device::flex();
/// let factor = |out, channels, kernel| -> Weight<4> {
///     Conv2dConfig::new([channels, out], kernel).init(&device).weight
/// };
/// let mut conv = Conv2dConfig::new([16, 32], [3, 3]).with_stride([2, 2]).init(&device);
/// let [reduce, core, expand] = [factor(4, 16, [1, 1]), factor(6, 4, [3, 3]), factor(32, 6, [1, 1])];
/// conv.weight = Factors::new(Some(reduce), core, Some(expand))?.into();
///
/// let x = Tensor::<4>::random([2, 16, 9, 9], Distribution::Default, &device);
/// let y = conv.forward(x.clone());
/// assert_eq!(y.dims(), [2, 32, 4, 4]);
/// let product = conv.unpack().forward(x);
/// assert!((product - y).abs().max().into_scalar::<f32>() < 1e-4);
/// # Ok::<(), burn_sparse::SparseError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Factors<const D: usize> {
    id: ParamId,
    reduce: Option<Weight<D>>,
    core: Weight<D>,
    expand: Option<Weight<D>>,
    chains: Chains,
}

/// The axes of output and input channels.
const fn axes<const D: usize>() -> [usize; 2] {
    if D == 2 { [1, 0] } else { [0, 1] }
}

fn outputs<const D: usize>(weight: &Weight<D>) -> usize {
    weight.dims()[axes::<D>()[0]]
}

fn inputs<const D: usize>(weight: &Weight<D>) -> usize {
    weight.dims()[axes::<D>()[1]]
}

impl<const D: usize> Factors<D> {
    /// The chain of these weights, for a layer of one group.
    ///
    /// # Errors
    /// [`SparseError::Shape`] when one does not take as many channels as the one before gives (or a
    /// multiple, where kernels are shared), when a rank is 0 or larger than the weight's unfolding can have, when `reduce` or `expand` look at more
    /// than one position, or when a factor is a chain itself.
    pub fn new(
        reduce: Option<Weight<D>>,
        core: Weight<D>,
        expand: Option<Weight<D>>,
    ) -> Result<Self, SparseError> {
        let factors = Self {
            id: ParamId::new(),
            reduce,
            core,
            expand,
            chains: Chains::default(),
        };
        factors.check()?;
        Ok(factors)
    }

    /// The same factors in the place of the weight with this id.
    #[must_use]
    pub fn with_id(self, id: ParamId) -> Self {
        Self { id, ..self }
    }

    fn check(&self) -> Result<(), SparseError> {
        for (name, factor) in self.named() {
            if factor.factors().is_some() {
                return Err(SparseError::shape(format!(
                    "`{name}` has factors of its own; multiply them first (`Weight::unpack`)"
                )));
            }
            let dims = factor.dims();
            let row = name == EXPAND && self.form() == FactorForm::Spatial;
            if name != CORE && D > 2 && !row && dims[2..].iter().any(|&positions| positions != 1) {
                return Err(SparseError::shape(format!(
                    "`{name}` {dims:?} should look at one position"
                )));
            }
        }
        let dims = self.dims();
        let [out, input] = axes::<D>().map(|axis| dims[axis]);
        let positions: usize = dims.iter().skip(2).product();
        if self.is_shared() {
            let kernels = outputs(&self.core);
            if kernels == 0 || kernels > positions {
                return Err(SparseError::shape(format!(
                    "{kernels} shared kernels of {positions} positions; there should be between 1 and \
                     {positions}"
                )));
            }
            return Ok(());
        }
        let inner = outputs(&self.core);
        let most = match self.form() {
            FactorForm::Spatial => Some((input * dims[D - 2]).min(out * dims[D - 1])),
            FactorForm::Depthwise => {
                let mut sides = [out, input, positions];
                sides.sort_unstable();
                Some(sides[0].saturating_mul(sides[1]))
            }
            FactorForm::Tucker | FactorForm::Shared => None,
        };
        if let Some(most) = most {
            if inner == 0 || inner > most {
                return Err(SparseError::shape(format!(
                    "rank {inner} of a weight {dims:?}; it should lie between 1 and {most}"
                )));
            }
            let taken = self.expand.as_ref().map_or(inner, inputs);
            if taken != inner {
                return Err(SparseError::shape(format!(
                    "`core` gives {inner} channels, but `expand` takes {taken}"
                )));
            }
            return Ok(());
        }
        let ranks = self.reduce.iter().map(|w| (outputs(w), input, out));
        let ranks = ranks.chain(self.expand.iter().map(|w| (inputs(w), out, input)));
        for (rank, channels, others) in ranks {
            let most = channels.min(others.saturating_mul(positions));
            if rank == 0 || rank > most {
                return Err(SparseError::shape(format!(
                    "rank {rank} of {channels} channels; it should lie between 1 and {most}"
                )));
            }
        }
        let chain: Vec<_> = self.named().collect();
        for pair in chain.windows(2) {
            let [(before, first), (name, second)] = [pair[0], pair[1]];
            let (given, taken) = (outputs(first), inputs(second));
            if given != taken {
                return Err(SparseError::shape(format!(
                    "`{before}` gives {given} channels, but `{name}` takes {taken}"
                )));
            }
        }
        Ok(())
    }

    /// The factors with their names, in the order in which they run.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &Weight<D>)> {
        let reduce = self.reduce.iter().map(|reduce| (REDUCE, reduce));
        let expand = self.expand.iter().map(|expand| (EXPAND, expand));
        reduce.chain([(CORE, &self.core)]).chain(expand)
    }

    /// To few channels, if there is such a factor.
    pub fn reduce(&self) -> Option<&Weight<D>> {
        self.reduce.as_ref()
    }

    /// The one that has the kernel, stride, padding and dilation of the layer.
    pub fn core(&self) -> &Weight<D> {
        &self.core
    }

    /// To all channels, if there is such a factor.
    pub fn expand(&self) -> Option<&Weight<D>> {
        self.expand.as_ref()
    }

    /// How the factors make the weight; their shapes tell.
    pub fn form(&self) -> FactorForm {
        let Some(expand) = &self.expand else {
            return FactorForm::Tucker;
        };
        let (core, last) = (self.core.dims(), expand.dims());
        let (kernels, responses) = (outputs(&self.core), inputs(expand));
        let point = last.iter().skip(2).all(|&len| len == 1);
        match &self.reduce {
            None if D == 4 && !point => match core[D - 1] == 1 && last[D - 2] == 1 {
                true => FactorForm::Spatial,
                false => FactorForm::Tucker,
            },
            None => {
                let shared = D == 4
                    && inputs(&self.core) == 1
                    && responses > kernels
                    && responses.checked_rem(kernels) == Some(0);
                match shared {
                    true => FactorForm::Shared,
                    false => FactorForm::Tucker,
                }
            }
            Some(reduce) => {
                // One channel between is the same in both ways.
                let depthwise = D > 2
                    && inputs(&self.core) == 1
                    && kernels > 1
                    && [outputs(reduce), responses] == [kernels; 2];
                match depthwise {
                    true => FactorForm::Depthwise,
                    false => FactorForm::Tucker,
                }
            }
        }
    }

    /// Whether the core is applied to every channel by itself, and `expand` combines what all channels
    /// answer.
    pub fn is_shared(&self) -> bool {
        self.form() == FactorForm::Shared
    }

    /// Groups that divide the channels of the core.
    pub(super) fn core_groups(&self) -> usize {
        match self.form() {
            FactorForm::Depthwise => outputs(&self.core),
            _ => 1,
        }
    }

    /// The shape of the product.
    pub fn dims(&self) -> [usize; D] {
        let mut dims = self.core.dims();
        let [out, input] = axes::<D>();
        if let Some(expand) = &self.expand {
            dims[out] = outputs(expand);
            if self.form() == FactorForm::Spatial {
                dims[D - 1] = expand.dims()[D - 1];
            }
        }
        if let Some(reduce) = &self.reduce {
            dims[input] = inputs(reduce);
        } else if let (Some(expand), true) = (&self.expand, self.is_shared()) {
            dims[input] = inputs(expand) / outputs(&self.core);
        }
        dims
    }

    /// Channels that enter and leave the core, `[D1, D2]`.
    pub fn ranks(&self) -> [usize; 2] {
        let inner = outputs(&self.core);
        match self.form() {
            FactorForm::Depthwise => [inner; 2],
            _ => [inputs(&self.core), inner],
        }
    }

    /// Weights of all factors.
    pub fn parameters(&self) -> usize {
        let weights = self
            .named()
            .map(|(_, factor)| factor.dims().iter().product::<usize>());
        weights.sum()
    }

    /// Identifies the weight that the factors multiply to.
    pub fn id(&self) -> ParamId {
        self.id
    }

    /// The product: the weight of a layer that computes the same.
    pub fn val(&self) -> Tensor<D> {
        let dims = self.dims();
        // Factors as `out × in`, the core as `D2 × (D1 · positions)`.
        let matrix = |weight: &Weight<D>| {
            let tensor = weight.val();
            let matrix = tensor.reshape([
                weight.dims()[0],
                weight.matrix().iter().product::<usize>() / weight.dims()[0].max(1),
            ]);
            if D == 2 { matrix.transpose() } else { matrix }
        };
        let core = matrix(&self.core);
        match (self.form(), &self.reduce, &self.expand) {
            (FactorForm::Spatial, _, Some(expand)) => {
                return crossed(core, expand.val(), dims);
            }
            (FactorForm::Depthwise, Some(reduce), Some(expand)) => {
                let rank = outputs(&self.core);
                let (input, positions) = (dims[1], dims.iter().skip(2).product::<usize>());
                let of_input = matrix(reduce).reshape([rank, input, 1]);
                let pairs: Tensor<3> = of_input * core.reshape([rank, 1, positions]);
                let pairs = pairs.reshape([rank, input * positions]);
                return matrix(expand).matmul(pairs).reshape(dims);
            }
            _ => {}
        }
        if let (Some(expand), true) = (&self.expand, self.is_shared()) {
            let kernels = outputs(&self.core);
            let pairs = outputs(expand) * inputs(expand) / kernels;
            let coefficients = matrix(expand).reshape([pairs, kernels]);
            return coefficients.matmul(core).reshape(dims);
        }
        let wide = match &self.expand {
            Some(expand) => matrix(expand).matmul(core),
            None => core,
        };
        let [out, input] = axes::<D>().map(|axis| dims[axis]);
        let [inner, positions] = [
            inputs(&self.core),
            if D == 2 {
                1
            } else {
                dims[2..].iter().product()
            },
        ];
        let product = match &self.reduce {
            None => wide.reshape([out, input, positions]),
            Some(reduce) => {
                let wide = wide.reshape([out, inner, positions]).swap_dims(1, 2);
                let rows = wide.reshape([out * positions, inner]);
                let product = rows.matmul(matrix(reduce));
                product.reshape([out, positions, input]).swap_dims(1, 2)
            }
        };
        if D == 2 {
            let product: Tensor<2> = product.reshape([out, input]);
            return product.transpose().reshape(dims);
        }
        product.reshape(dims)
    }

    /// The factors in the order of a kernel that runs them at once.
    pub(super) fn chains(&self) -> &Chains {
        &self.chains
    }

    /// The last factor, the one that gives the outputs of the layer.
    pub(super) fn last_mut(&mut self) -> &mut Weight<D> {
        self.expand.as_mut().unwrap_or(&mut self.core)
    }

    pub(super) fn device(&self) -> Device {
        self.core.device()
    }

    /// Every factor mapped, in the order in which they run.
    pub(super) fn try_map<E>(
        self,
        mut map: impl FnMut(Weight<D>) -> Result<Weight<D>, E>,
    ) -> Result<Self, E> {
        Ok(Self {
            id: self.id,
            reduce: self.reduce.map(&mut map).transpose()?,
            core: map(self.core)?,
            expand: self.expand.map(&mut map).transpose()?,
            chains: self.chains,
        })
    }

    pub(super) fn each(self, mut map: impl FnMut(Weight<D>) -> Weight<D>) -> Self {
        match self.try_map(|weight| Ok::<_, core::convert::Infallible>(map(weight))) {
            Ok(factors) => factors,
        }
    }

    pub(super) fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        for (name, factor) in self.named() {
            traverse::mark(self.is_shared().then_some(match name {
                CORE => SharedPart::Kernels,
                _ => SharedPart::Coefficients,
            }));
            visitor.enter_module(name, traverse::factors_of(D));
            let groups = if name == CORE { self.core_groups() } else { 1 };
            traverse::in_groups(groups, || factor.visit(visitor));
            visitor.exit_module(name, traverse::factors_of(D));
        }
        traverse::mark(None);
    }

    pub(super) fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let mut through = |name, factor: Weight<D>| {
            mapper.enter_module(name, traverse::factors_of(D));
            let factor = factor.map(mapper);
            mapper.exit_module(name, traverse::factors_of(D));
            factor
        };
        Self {
            id: self.id,
            reduce: self.reduce.map(|factor| through(REDUCE, factor)),
            core: through(CORE, self.core),
            expand: self.expand.map(|factor| through(EXPAND, factor)),
            chains: self.chains,
        }
    }
}

/// The weight of a convolution by columns, `D × (in · height)`, and one by rows, `[out, D, 1, width]`.
fn crossed<const D: usize>(columns: Tensor<2>, rows: Tensor<D>, dims: [usize; D]) -> Tensor<D> {
    let [rank, len] = columns.dims();
    let (out, width) = (dims[0], dims[D - 1]);
    let rows: Tensor<3> = rows.reshape([out, rank, width]).swap_dims(1, 2);
    let product = rows.reshape([out * width, rank]).matmul(columns);
    let product: Tensor<3> = product.reshape([out, width, len]).swap_dims(1, 2);
    product.reshape(dims)
}

const REDUCE: &str = "reduce";
const CORE: &str = "core";
const EXPAND: &str = "expand";

impl<const D: usize> From<Factors<D>> for Weight<D> {
    fn from(factors: Factors<D>) -> Self {
        Self::Factored(Box::new(factors))
    }
}
