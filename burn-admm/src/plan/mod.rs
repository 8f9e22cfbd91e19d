//! Which constraint holds on which parameter.
//!
//! A [`Plan`] is written down once, as code or JSON, and resolved against a model:
//! [`Plan::resolve`] gives the exact counts, [`Plan::explain`] says of every parameter whether it
//! is constrained, and why.

mod error;
mod explain;
mod identity;
mod pattern;
mod pools;
mod resolve;
mod rules;

pub use error::PlanError;
pub use explain::{Explained, Explanation};
pub(crate) use identity::Identity;
pub use pattern::Pattern;
pub(crate) use resolve::nearest;
pub use resolve::{ResolvedLayer, ResolvedPlan};
pub use rules::{Constraint, Plan, Rule};

#[cfg(test)]
mod tests;
