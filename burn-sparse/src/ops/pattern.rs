//! Where the non-zeros are, on the host and, once asked for, on a device.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
#[cfg(feature = "flex")]
use burn_std::Bytes;

#[cfg(feature = "flex")]
use crate::cpu::{Bundles, Direct, Fold, Order, Rows, SharedConv, SharedWeights};
use crate::{
    ConvProblem, SparseError,
    cpu::{Isa, Plan, Sharing},
    format::{CodeWords, Csr, PanelEntries},
};

/// The positions of a packed weight's entries, shared by its clones.
///
/// Index tensors for a device and an input size are computed when first used (packing a model for
/// a known input does it there) and kept: running a layer never analyses its weight.
#[derive(Debug, Clone)]
pub struct Pattern {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    csr: Csr,
    cached: Mutex<Vec<Cached>>,
    #[cfg(feature = "flex")]
    ready: Mutex<Vec<Ready>>,
    #[cfg(feature = "flex")]
    bundles: Mutex<Bundled>,
    #[cfg(feature = "flex")]
    shared: Mutex<Vec<ReadyShared>>,
    plans: Mutex<Vec<(ConvProblem, Plan)>>,
    panels: Mutex<Vec<Found>>,
    codes: OnceLock<Option<Arc<CodeWords>>>,
}

/// The panels of a weight, or that it has none.
#[derive(Debug)]
struct Found {
    positions: usize,
    groups: usize,
    panels: Option<Arc<PanelEntries>>,
}

/// A weight in the CPU kernels' order.
#[cfg(feature = "flex")]
#[derive(Debug)]
struct Ready {
    form: Form,
    /// The memory that the values were read from. Holding it keeps anybody from writing other
    /// values there, so as long as the address is the same, so are the values.
    values: Arc<Bytes>,
    direct: Arc<Direct>,
}

/// The inputs that a weight is made ready for.
#[cfg(feature = "flex")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    /// For one image.
    problem: ConvProblem,
    /// Of another type than f32.
    copying: bool,
    /// A whole batch at once.
    fold: Option<Fold>,
}

#[cfg(feature = "flex")]
impl Form {
    /// Images one by one.
    pub(crate) fn images(problem: &ConvProblem) -> Self {
        Self {
            problem: problem.with_batch(1),
            copying: false,
            fold: None,
        }
    }

    /// Of another type than f32.
    pub(crate) fn copying(self, copying: bool) -> Self {
        Self { copying, ..self }
    }

    /// All images of a batch at once.
    pub(crate) fn folded(self, fold: Fold) -> Self {
        Self {
            fold: Some(fold),
            ..self
        }
    }
}

/// Coefficients of shared kernels in the order of [`SharedConv`].
#[cfg(feature = "flex")]
#[derive(Debug)]
struct ReadyShared {
    problem: ConvProblem,
    /// The memory of basis and values, as in [`Ready`].
    memory: [Arc<Bytes>; 2],
    conv: Arc<SharedConv>,
}

/// A weight in the order of [`Bundles`].
#[cfg(feature = "flex")]
#[derive(Debug, Default)]
struct Bundled {
    order: Option<Arc<Order>>,
    /// With the memory that their values were read from, as in [`Ready`].
    ready: Option<(Arc<Bytes>, Arc<Bundles>)>,
}

#[derive(Debug)]
struct Cached {
    device: Device,
    key: Key,
    tensor: Tensor<1, Int>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Columns,
    RowPtr,
    Offsets(ConvProblem),
    Transpose { channel_len: usize, groups: usize },
    Panels { positions: usize, groups: usize },
    Codes,
}

/// Input sizes remembered for a layer. A fully convolutional network fed images of ever new sizes
/// recomputes offsets instead of keeping them all.
const REMEMBERED: usize = 16;

impl Pattern {
    pub(crate) fn new(csr: Csr) -> Self {
        Self {
            inner: Arc::new(Inner {
                csr,
                cached: Mutex::default(),
                #[cfg(feature = "flex")]
                ready: Mutex::default(),
                #[cfg(feature = "flex")]
                bundles: Mutex::default(),
                #[cfg(feature = "flex")]
                shared: Mutex::default(),
                plans: Mutex::default(),
                panels: Mutex::default(),
                codes: OnceLock::new(),
            }),
        }
    }

    /// The matrix as it was packed. Its values do not follow later training;
    /// [`SparseWeight::to_csr`](super::SparseWeight::to_csr) reads those that do.
    pub fn csr(&self) -> &Csr {
        &self.inner.csr
    }

    fn cached(
        &self,
        device: &Device,
        key: Key,
        compute: impl FnOnce(&Csr) -> Result<Vec<i32>, SparseError>,
    ) -> Result<Tensor<1, Int>, SparseError> {
        let mut cached = lock(&self.inner.cached);
        if let Some(hit) = cached
            .iter()
            .find(|hit| hit.key == key && hit.device == *device)
        {
            return Ok(hit.tensor.clone());
        }
        let indices = compute(&self.inner.csr)?;
        // Device equality ignores autodiff, and indices have no gradient: they live on the plain device.
        let len = indices.len();
        let data = TensorData::new(indices, [len]);
        let tensor = Tensor::from_data(data, (device, DType::I32));
        if cached.len() >= REMEMBERED {
            cached.remove(0);
        }
        cached.push(Cached {
            device: device.clone(),
            key,
            tensor: tensor.clone(),
        });
        Ok(tensor)
    }

    /// How the CPU kernels run this weight on inputs of that size: as asked for by
    /// [`set_plan`](Self::set_plan), or else a guess.
    pub fn plan(&self, problem: &ConvProblem) -> Plan {
        let problem = problem.with_batch(1);
        let mut plans = lock(&self.inner.plans);
        if let Some((_, plan)) = plans.iter().find(|(known, _)| *known == problem) {
            return *plan;
        }
        let csr = &self.inner.csr;
        let density = csr.stored() as f64 / (csr.rows() * csr.row_len()).max(1) as f64;
        let sharing = Sharing::of(csr, problem.kernel[0] * problem.kernel[1]);
        let plan = Plan::guess_sharing(&problem, density, sharing, Isa::current());
        // Training orders new values at every step; the pattern need not be studied again for it.
        if plans.len() < REMEMBERED {
            plans.push((problem, plan));
        }
        plan
    }

    /// Makes the CPU kernels run this weight by `plan` on inputs of that size.
    pub fn set_plan(&self, problem: &ConvProblem, plan: Plan) {
        let problem = problem.with_batch(1);
        let mut plans = lock(&self.inner.plans);
        plans.retain(|(set, _)| *set != problem);
        plans.push((problem, plan));
        #[cfg(feature = "flex")]
        lock(&self.inner.ready).retain(|ready| ready.form.problem != problem);
    }

    /// The weight with these values in the CPU kernels' order. `memory` is what `values` lie in.
    #[cfg(feature = "flex")]
    pub(crate) fn direct(
        &self,
        form: Form,
        values: &[f32],
        memory: Arc<Bytes>,
    ) -> Result<Arc<Direct>, SparseError> {
        let problem = form.problem;
        {
            let ready = lock(&self.inner.ready);
            let same = |ready: &&Ready| ready.form == form && Arc::ptr_eq(&ready.values, &memory);
            if let Some(hit) = ready.iter().find(same) {
                return Ok(hit.direct.clone());
            }
        }
        let csr = &self.inner.csr;
        let rows = Rows {
            values,
            ..Rows::from(csr)
        };
        if csr.row_len() != problem.row_len() {
            return Err(SparseError::shape(format!(
                "a packed weight of {} rows by {} is not the weight {:?} of this convolution",
                csr.rows(),
                csr.row_len(),
                problem.weight_shape()
            )));
        }
        let mut plan = self.plan(&problem);
        if form.copying {
            plan = plan.copying(&problem);
        }
        let isa = Isa::current();
        let direct = Arc::new(match form.fold {
            Some(fold) => Direct::folded(&problem, fold, rows, plan, isa)?,
            None => Direct::new(&problem, rows, plan, isa)?,
        });
        let mut ready = lock(&self.inner.ready);
        ready.retain(|ready| ready.form != form);
        if ready.len() >= REMEMBERED {
            ready.remove(0);
        }
        ready.push(Ready {
            form,
            values: memory,
            direct: direct.clone(),
        });
        Ok(direct)
    }

    /// Coefficients with these values, and the kernels that they combine, in the CPU kernel's order.
    /// `memory` is what basis and values lie in.
    #[cfg(feature = "flex")]
    pub(crate) fn shared(
        &self,
        problem: &ConvProblem,
        [basis, values]: [&[f32]; 2],
        memory: [Arc<Bytes>; 2],
    ) -> Result<Arc<SharedConv>, SparseError> {
        let problem = problem.with_batch(1);
        let mut ready = lock(&self.inner.shared);
        let same = |(a, b): (&Arc<Bytes>, &Arc<Bytes>)| Arc::ptr_eq(a, b);
        let fits = |ready: &&ReadyShared| {
            ready.problem == problem && ready.memory.iter().zip(&memory).all(same)
        };
        if let Some(hit) = ready.iter().find(fits) {
            return Ok(hit.conv.clone());
        }
        let coefficients = Rows {
            values,
            ..Rows::from(&self.inner.csr)
        };
        let weights = SharedWeights {
            basis,
            coefficients,
        };
        let conv = Arc::new(SharedConv::new(&problem, weights, Isa::current())?);
        ready.retain(|ready| ready.problem != problem);
        if ready.len() >= REMEMBERED {
            ready.remove(0);
        }
        ready.push(ReadyShared {
            problem,
            memory,
            conv: conv.clone(),
        });
        Ok(conv)
    }

    /// The weight with these values in the order for products with a single vector, as codes of few
    /// bits if they have few levels. The order is found once; `memory` is what `values` lie in.
    #[cfg(feature = "flex")]
    pub(crate) fn bundles(&self, values: &[f32], memory: Arc<Bytes>) -> Arc<Bundles> {
        let mut bundled = lock(&self.inner.bundles);
        if let Some((known, bundles)) = &bundled.ready
            && Arc::ptr_eq(known, &memory)
        {
            return bundles.clone();
        }
        let csr = &self.inner.csr;
        let order = bundled.order.get_or_insert_with(|| {
            let order = Order::new(Rows::from(csr), csr.row_len(), Isa::current());
            Arc::new(order)
        });
        let matrix = Rows {
            values,
            ..Rows::from(csr)
        };
        let bundles = Arc::new(Bundles::compact(order.clone(), matrix));
        bundled.ready = Some((memory, bundles.clone()));
        bundles
    }

    pub(crate) fn columns(&self, device: &Device) -> Tensor<1, Int> {
        let columns = self.cached(device, Key::Columns, |csr| Ok(signed(csr.columns())));
        columns.expect("columns of a valid matrix fit")
    }

    pub(crate) fn row_ptr(&self, device: &Device) -> Tensor<1, Int> {
        let row_ptr = self.cached(device, Key::RowPtr, |csr| Ok(signed(csr.row_ptr())));
        row_ptr.expect("row pointers of a valid matrix fit")
    }

    /// Offsets into the stretched image of `problem`, whatever its batch.
    pub(crate) fn offsets(
        &self,
        problem: &ConvProblem,
        device: &Device,
    ) -> Result<Tensor<1, Int>, SparseError> {
        let problem = problem.with_batch(1);
        self.cached(device, Key::Offsets(problem), |csr| {
            csr.offsets(&problem).map(|o| signed(&o))
        })
    }

    /// `[ptr (channels + 1) | entry | row]`: the entries ordered by the input channel they read,
    /// `channel_len` columns making one channel.
    pub(crate) fn transpose(
        &self,
        channel_len: usize,
        groups: usize,
        device: &Device,
    ) -> Tensor<1, Int> {
        let key = Key::Transpose {
            channel_len,
            groups,
        };
        let transpose = self.cached(device, key, |csr| Ok(transpose(csr, channel_len, groups)));
        transpose.expect("the transpose of a valid matrix fits")
    }

    /// Which rows share inputs when kernels have `positions` weights, if any share enough.
    pub(crate) fn panel_entries(
        &self,
        positions: usize,
        groups: usize,
    ) -> Option<Arc<PanelEntries>> {
        let mut found = lock(&self.inner.panels);
        let known = |known: &&Found| (known.positions, known.groups) == (positions, groups);
        if let Some(known) = found.iter().find(known) {
            return known.panels.clone();
        }
        let panels = PanelEntries::find(&self.inner.csr, positions, groups).map(Arc::new);
        found.push(Found {
            positions,
            groups,
            panels: panels.clone(),
        });
        panels
    }

    /// The index of [`panel_entries`](Self::panel_entries) on a device.
    pub(crate) fn panels(
        &self,
        positions: usize,
        groups: usize,
        device: &Device,
    ) -> Option<Tensor<1, Int>> {
        let panels = self.panel_entries(positions, groups)?;
        let key = Key::Panels { positions, groups };
        self.cached(device, key, |_| Ok(panels.index().to_vec()))
            .ok()
    }

    /// The values of the matrix as codes, if they are levels.
    pub(crate) fn code_words(&self) -> Option<Arc<CodeWords>> {
        let find = || CodeWords::find(&self.inner.csr).map(Arc::new);
        self.inner.codes.get_or_init(find).clone()
    }

    /// The index of [`code_words`](Self::code_words) on a device.
    pub(crate) fn codes(&self, device: &Device) -> Option<Tensor<1, Int>> {
        let codes = self.code_words()?;
        self.cached(device, Key::Codes, |_| Ok(codes.index().to_vec()))
            .ok()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn signed(indices: &[u32]) -> Vec<i32> {
    indices.iter().map(|&index| index as i32).collect()
}

fn transpose(csr: &Csr, channel_len: usize, groups: usize) -> Vec<i32> {
    let per_group = csr.row_len() / channel_len;
    let channels = per_group * groups;
    let rows_per_group = (csr.rows() / groups).max(1);
    let channel =
        |row: usize, column: usize| row / rows_per_group * per_group + column / channel_len;
    let mut ptr = vec![0i32; channels + 1];
    for row in 0..csr.rows() {
        csr.row(row)
            .for_each(|(column, _)| ptr[channel(row, column) + 1] += 1);
    }
    for c in 0..channels {
        ptr[c + 1] += ptr[c];
    }
    let mut next = ptr.clone();
    let stored = csr.stored();
    let mut out = vec![0i32; channels + 1 + 2 * stored];
    let (head, rest) = out.split_at_mut(channels + 1);
    let (entry, of_row) = rest.split_at_mut(stored);
    head.copy_from_slice(&ptr);
    let mut index = 0;
    for row in 0..csr.rows() {
        for (column, _) in csr.row(row) {
            let at = &mut next[channel(row, column)];
            entry[*at as usize] = index;
            of_row[*at as usize] = row as i32;
            *at += 1;
            index += 1;
        }
    }
    out
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;
    use crate::ops::{Epilogue, SparseWeight, sparse_linear};

    /// Layers are trained after they were packed: new values get new codes, or none.
    #[test]
    fn codes_follow_the_values() {
        let (device, n) = (Device::flex(), 512);
        let levels = |scale: f32| -> Vec<f32> {
            (0..n * n)
                .map(|at| ((at * 7 % 15) as f32 - 7.5) * scale)
                .collect()
        };
        let csr = Csr::from_dense(&levels(0.25), [n, n]).unwrap();
        let weight = SparseWeight::new(csr, &device);
        let pattern = weight.pattern().clone();
        let x = Tensor::<2>::random([1, n], Distribution::Default, &device);
        let product = |values: Tensor<1>| -> Vec<f32> {
            let weight = SparseWeight::from_parts(values, pattern.clone());
            let y = sparse_linear(x.clone(), &weight, Epilogue::new());
            y.into_data().try_to_vec().unwrap()
        };
        let bits = || {
            lock(&pattern.inner.bundles)
                .ready
                .as_ref()
                .map(|(_, bundles)| bundles.bits())
        };
        let first = product(weight.values());
        let coded = bits().unwrap();
        let doubled = product(weight.values() * 2.0);
        assert_eq!(bits(), Some(coded));
        assert_eq!(
            coded < 32,
            matches!(Isa::current(), Isa::Avx512),
            "{coded} bits"
        );
        assert!(
            first
                .iter()
                .zip(&doubled)
                .all(|(y, twice)| 2.0 * y == *twice)
        );
        let random = Tensor::<1>::random([n * n], Distribution::Default, &device);
        product(random);
        assert_eq!(bits(), Some(32));
    }
}
