//! ADMM pruning for any Burn module.

pub mod admm;
pub mod baseline;
mod layout;
pub mod mask;
mod params;
pub mod plan;
pub mod projection;
pub mod report;
mod table;
#[cfg(feature = "train")]
pub mod train;

pub use admm::{Admm, AdmmConfig, AdmmError, AdmmInfo, RhoSchedule};
pub use layout::MatrixView;
pub use mask::{Mask, Masks, fold};
pub use params::Role;
pub use plan::{Plan, PlanError};
pub use projection::Projection;
pub use report::SparsityReport;
