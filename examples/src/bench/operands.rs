//! What is measured: a layer with its numbers on a device, sparse and dense.

use burn::tensor::module::linear;
use burn::tensor::{Device, Tensor, TensorData};
use burn_sparse::cpu::{self, Direct, Isa, Rows};
use burn_sparse::format::Csr;
use burn_sparse::ops::{
    ConvWindow, Epilogue, SparseWeight, dense_conv2d, sparse_conv2d, sparse_linear,
};
use burn_sparse::pack::{Search, tune_plan};
use burn_sparse::{ConvProblem, catalogue};

use super::{Dtype, Kind};

/// The result of a layer, read or dropped by whoever asked for it.
#[derive(Clone, Debug)]
pub enum Output {
    /// Of a convolution.
    Images(Tensor<4>),
    /// Of a product.
    Rows(Tensor<2>),
}

impl Output {
    /// The numbers, row-major.
    ///
    /// # Panics
    /// If the device cannot be read.
    #[must_use]
    pub fn values(self) -> Vec<f32> {
        let data = match self {
            Self::Images(tensor) => tensor.into_data(),
            Self::Rows(tensor) => tensor.into_data(),
        };
        let data = data.convert::<f32>();
        // What the device could not do shows here at the latest.
        data.try_to_vec()
            .unwrap_or_else(|error| panic!("the outputs cannot be read: {error}"))
    }
}

/// The dense weight, as a dense layer holds it.
#[derive(Clone, Debug)]
enum Dense {
    Conv(Tensor<4>),
    Linear(Tensor<2>),
}

/// A layer's operands.
///
/// Both forms get the same zeros and neither has a bias. On Flex, whose sparse kernels compute in
/// f32, values stay f32 as they do in a packed layer there; on other devices they have the
/// operands' type.
#[derive(Clone, Debug)]
pub struct Operands {
    problem: ConvProblem,
    csr: Csr,
    input: Vec<f32>,
    x: Tensor<4>,
    sparse: SparseWeight,
    dense: Dense,
}

impl Operands {
    /// Puts a weight and a random input on a device.
    #[must_use]
    pub fn new(
        kind: Kind,
        problem: ConvProblem,
        csr: Csr,
        dtype: Dtype,
        seed: u64,
        device: &Device,
        flex: bool,
    ) -> Self {
        let shape = problem.input_shape();
        let input = catalogue::values(shape.iter().product(), seed);
        let x = Tensor::<4>::from_data(TensorData::new(input.clone(), shape), device);
        let mut sparse = SparseWeight::new(csr.clone(), device);
        if flex && kind != Kind::Linear {
            // As packing does. What no plan can be found for runs as guessed.
            let tuned = cpu::on_pool(|| tune_plan(&problem, &csr, Search::default(), seed));
            if let Ok(tuned) = tuned {
                sparse.pattern().set_plan(&problem, tuned.plan);
            }
        }
        if dtype != Dtype::F32 && !flex {
            let values = sparse.values().cast(dtype.burn());
            sparse = SparseWeight::from_parts(values, sparse.pattern().clone());
        }
        let dense = match kind {
            Kind::Linear => {
                let data = TensorData::new(transposed(&csr), [csr.row_len(), csr.rows()]);
                Dense::Linear(Tensor::<2>::from_data(data, device).cast(dtype.burn()))
            }
            Kind::Conv | Kind::Conv1d => {
                let data = TensorData::new(csr.to_dense(), problem.weight_shape());
                Dense::Conv(Tensor::<4>::from_data(data, device).cast(dtype.burn()))
            }
        };
        Self {
            problem,
            csr,
            input,
            x: x.cast(dtype.burn()),
            sparse,
            dense,
        }
    }

    /// The problem.
    #[must_use]
    pub fn problem(&self) -> &ConvProblem {
        &self.problem
    }

    /// The weight.
    #[must_use]
    pub fn csr(&self) -> &Csr {
        &self.csr
    }

    /// The input, row-major.
    #[must_use]
    pub fn input(&self) -> &[f32] {
        &self.input
    }

    /// Vectors of inputs that Flex's kernel loads for a convolution; of products it is not known.
    #[must_use]
    pub fn vector_loads(&self) -> Option<u64> {
        let Dense::Conv(_) = self.dense else {
            return None;
        };
        let (problem, isa) = (&self.problem, Isa::current());
        let asked = self.sparse.pattern().plan(problem);
        // As it is followed: not every layer can follow all of a plan.
        let direct = Direct::new(problem, Rows::from(&self.csr), asked, isa).ok()?;
        Some(direct.plan().vector_loads(problem, self.csr.stored(), isa))
    }

    fn window(&self) -> ConvWindow<2> {
        ConvWindow {
            kernel: self.problem.kernel,
            stride: self.problem.stride,
            padding: self.problem.padding,
            dilation: self.problem.dilation,
            groups: self.problem.groups,
        }
    }

    /// The two forms, ready to run: sparse, then dense. Whatever shapes the input for a product is
    /// done here, not while they run.
    pub fn forms(&self) -> [Box<dyn Fn() -> Output + Send + Sync + '_>; 2] {
        let window = self.window();
        match &self.dense {
            Dense::Conv(weight) => [
                Box::new(move || {
                    let x = self.x.clone();
                    Output::Images(sparse_conv2d(x, &self.sparse, &window, Epilogue::new()))
                }),
                Box::new(move || {
                    let x = self.x.clone();
                    Output::Images(dense_conv2d(x, weight.clone(), None, &window))
                }),
            ],
            Dense::Linear(weight) => {
                let rows = [self.problem.batch, self.problem.in_channels];
                let x: Tensor<2> = self.x.clone().reshape(rows);
                let same = x.clone();
                [
                    Box::new(move || {
                        Output::Rows(sparse_linear(x.clone(), &self.sparse, Epilogue::new()))
                    }),
                    Box::new(move || Output::Rows(linear(same.clone(), weight.clone(), None))),
                ]
            }
        }
    }
}

/// The dense matrix with a column for each row of `csr`, which is how Burn holds linear weights.
fn transposed(csr: &Csr) -> Vec<f32> {
    let mut dense = vec![0.0; csr.rows() * csr.row_len()];
    for row in 0..csr.rows() {
        for (column, value) in csr.row(row) {
            dense[column * csr.rows() + row] = value;
        }
    }
    dense
}
