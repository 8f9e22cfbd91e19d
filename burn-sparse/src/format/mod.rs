//! Compressed weights on the host: validated constructors, no device code.

mod csr;

pub use csr::Csr;
