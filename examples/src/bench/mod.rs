//! The bench: layers and networks, sparse beside dense, on any device.
//!
//! ```text
//! suite ─► cases (layer × sparsity × pattern × batch × dtype) ─► verify ─► time in turns ─► report
//! ```
//!
//! * [`Suite`], [`Layer`]: what to measure, from names or files.
//! * [`Pattern`], [`Dtype`], [`Operands`]: random weights with zeros, on a device.
//! * [`Expected`]: the reference on a part of the outputs; nothing is timed that is wrong.
//! * [`measure`](fn@measure): both forms in turns, so that a slow machine slows both.
//! * [`Runner`], [`BenchReport`]: rows, their table and `report.json`.
//! * [`Peaks`]: what the processor can do, beside which rows on it are put.
//! * [`NetworkRow`]: whole networks.
//! * [`Growth`], [`draw`]: one thing varies, and where sparse and dense cross.
//! * [`Comparison`]: two reports, with a verdict that knows the spread.
//! * [`search`](fn@search): plans of the CPU kernels, looked for genetically and at random.
//! * [`quant`](fn@quant): weights of few bits beside floats.
//! * [`tucker`](fn@tucker): convolutions by Tucker factors beside undivided ones.
//! * [`ranks`](fn@ranks): the time of factors over their ranks, drawn.
//! * [`decompose`](fn@decompose): how long a network takes to decompose.
//! * [`shared`](fn@shared): kernels that channels share, with sparse coefficients, beside dense layers.
//! * [`stay_dense`](fn@stay_dense): what stays dense, this crate's kernels beside Burn's.
//! * [`Command`], [`execute`]: the program.

mod args;
mod axis;
mod commands;
mod compare;
mod compare_text;
mod decompose;
mod dtype;
mod error;
mod growth;
mod layer;
mod layer_error;
mod machine;
mod measure;
mod network;
mod operands;
mod parse;
mod pattern;
mod plot;
mod quant;
mod ranks;
mod report;
mod roofline;
mod row;
mod run;
mod search;
mod shared;
mod stay_dense;
mod suite;
mod sweep;
pub(crate) mod table;
mod text;
mod tucker;
mod tucker_forms;
mod tucker_layers;
mod tucker_tiles;
mod verdict;
mod verify;

pub use args::{Command, CommonArgs, CompareArgs, ConditionArgs, GrowthArgs, RunArgs, after_help};
pub use axis::Axis;
pub use commands::{Ending, execute};
pub use compare::{Comparison, RowChange};
pub use decompose::{DecomposeArgs, decompose};
pub use dtype::Dtype;
pub use error::BenchError;
pub use growth::{Crossing, Curve, Growth, Point, crossings};
pub use layer::{Kind, Layer, MAX_ELEMENTS, MAX_MACS};
pub use layer_error::LayerError;
pub use machine::Machine;
pub use measure::{Pair, Ratio, measure};
pub use network::{NetworkMeasured, NetworkRow, resnet50};
pub use operands::{Operands, Output};
pub use pattern::Pattern;
pub(crate) use plot::Drawing;
pub use plot::draw;
pub use quant::{QuantArgs, QuantKind, quant};
pub use ranks::{RanksArgs, ranks};
pub use report::{BenchReport, Settings};
pub use roofline::{Peaks, ThreadPeak};
pub use row::{Bytes, Counts, Gflops, Key, Measured, Outcome, Row};
pub use run::{Case, Runner, cases};
pub use search::{SearchArgs, search};
pub use shared::{SharedArgs, shared};
pub use stay_dense::{DenseArgs, stay_dense};
pub use suite::{Suite, SuiteError};
pub use tucker::{TuckerArgs, tucker};
pub use tucker_forms::FormName;
pub use verdict::{Change, Verdict};
pub use verify::{Expected, Verified};
