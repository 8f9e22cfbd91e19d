//! What each layer should become, from what the device at hand makes of it.
//!
//! Gong et al., "Automatic Mapping of the Best-Suited DNN Pruning Schemes for Real-Time Mobile Acceleration"
//! (ACM TODAES 27(5), 2022), choose pruning schemes from a table of times, measured once for each device on
//! random weights. Here:
//!
//! 1. [`Network`] is what a model is made of: its layers, what they compute, and which feeds which;
//! 2. [`LatencyCase`] is one layer with one scheme; [`LatencyTable`] keeps the times of cases on disk,
//!    measures those that are missing and drops those of other kernels;
//! 3. [`LatencyModel`] tells the times of cases that nobody measured: a roofline fitted to the table, and
//!    what its neighbours in the table differ from it. [`LatencyModel::held_out`] says how well;
//! 4. [`map_by_rules`] gives every layer the scheme that suits its kind, and the smallest blocks that cost no time.
//! 5. or [`layer_options`] is what each layer could become, [`Sensitivity`] what each of these costs the trained
//!    network, and [`Offers::select`] the least harmful of all within a [`MapBudget`]; [`within_budget`] trains
//!    until a bound on accuracy is kept;
//! 6. or [`search`] tries candidates: a policy learns what is rewarded, beside two controls; [`SearchDevices`]
//!    evaluates them on several devices at the same time.

mod accuracy;
mod budget;
mod case;
mod controls;
mod file;
mod fit;
mod measure;
mod model;
mod network;
mod options;
mod ranking;
mod rules;
mod search;
mod select;
mod sensitivity;
mod table;
#[cfg(test)]
mod tests;

pub use accuracy::{Found, Trial, within_budget};
pub use budget::{Bound, MapBudget};
pub use case::{LatencyCase, Operation, Precision};
pub use file::{LatencyFileError, Opened};
pub use measure::MappingError;
pub(crate) use measure::median_ms;
pub use model::{LatencyModel, PredictionError};
pub use network::{Network, NetworkLayer, OtherWeight};
pub use options::{Family, LayerOptions, OptionConfig, layer_options};
pub use ranking::kendall_tau;
pub use rules::{Decision, Difficulty, Mapping, RuleConfig, cases_of_rules, map_by_rules};
pub use search::{
    Candidate, SearchConfig, SearchDevices, SearchLog, SearchMethod, Searched, search,
};
pub use select::{Offer, OfferedLayer, Offers, Rest, Selection};
pub use sensitivity::{Sensitivity, SensitivityEntry};
pub use table::{KERNELS, LatencyEntry, LatencyTable};
