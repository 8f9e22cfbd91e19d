//! What ADMM has to beat: magnitude pruning in one shot and gradually, on the same plans, masks
//! and projections.

mod gradual;
mod magnitude;

pub use gradual::{Gradual, GradualSchedule, ScheduleError};
pub use magnitude::one_shot;

#[cfg(test)]
mod tests;
