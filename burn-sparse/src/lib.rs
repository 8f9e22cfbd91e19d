//! What a compressed layer is and how it runs, on [Burn](burn).
//!
//! A weight whose zeros outnumber its non-zeros is stored as its non-zeros ([`format`](mod@format)), and the
//! layer computes with nothing else ([`ops`], on CPU and GPU backends alike). A model written on
//! [`nn`]'s drop-in layers trains and prunes as any Burn model; [`pack`](mod@pack) then replaces its weights,
//! measuring layer by layer whether that is faster and proving that the outputs stay the same.
//!
//! | module | holds | reads next |
//! |---|---|---|
//! | [`Sparsity`] | the vocabulary for which weights may be non-zero | `burn-admm`'s projections |
//! | [`format`](mod@format) | host data with validated constructors | [`format::Csr`] |
//! | [`problem`] | a convolution without data, and the stretched layout | [`problem::Stretched`] |
//! | [`reference`](mod@reference) | plain f64 loops, the oracle of tests | |
//! | [`cpu`] | SIMD kernels on slices | |
//! | [`ops`] | operations on tensors, gradients included | [`ops::sparse_conv2d`] |
//! | [`nn`] | layers whose weight is dense or packed | [`nn::Conv2d`] |
//! | [`pack`](mod@pack) | dense module → packed module | [`pack::pack()`] |
//! | [`quant`] | values as codes of few bits | [`quant::Quantized::find`] |
//! | [`store`] | the compressed checkpoint | [`store::save`] |
//! | [`catalogue`] | named problems for tests and benches | |
//!
//! # A convolution that skips its zeros
//! ```
//! use burn::tensor::{Device, Distribution, Tensor};
//! use burn_sparse::nn::Conv2dConfig;
//!
//! let device = Device::flex();
//! let conv = Conv2dConfig::new([16, 32], [3, 3]).init(&device);
//! let x = Tensor::<4>::random([2, 16, 8, 8], Distribution::Default, &device);
//! let dense = conv.forward(x.clone());
//! let packed = conv.pack()?; // keeps the non-zeros; here there are no zeros to drop
//! let difference = (packed.forward(x) - dense).abs().max().into_scalar::<f32>();
//! assert!(difference < 1e-4);
//! # Ok::<(), burn_sparse::SparseError>(())
//! ```

pub mod catalogue;
pub mod cpu;
mod error;
pub mod format;
#[cfg(feature = "cubecl-backend")]
pub mod kernel;
pub mod nn;
pub mod ops;
pub mod pack;
pub mod problem;
pub mod quant;
pub mod reference;
mod sparsity;
pub mod store;

pub use error::SparseError;
pub use problem::ConvProblem;
pub use sparsity::{BlockSearch, Budget, PatternPool, Pool, Sparsity, WeightShape};
