//! Sparsity schemes by name, as plans for a whole network.

use std::fmt;
use std::str::FromStr;

use burn::module::Module;
use burn_admm::Plan;
use burn_sparse::{Sparsity, WeightShape};
use serde::{Deserialize, Serialize};

use super::TrainingError;
use crate::bench::Pattern;

/// Which weights of every layer may stay: what training aims at. Names are those of
/// [`Pattern`], which draws random weights for benches, and a few more.
///
/// ```
/// use examples::training::Scheme;
///
/// let scheme: Scheme = "bcr8x64".parse()?;
/// assert_eq!(scheme.to_string(), "bcr8x64");
/// assert_eq!("2of4".parse::<Scheme>()?.fixed_sparsity(), Some(0.5));
/// assert!("4of2".parse::<Scheme>().is_err());
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Scheme {
    /// One of the patterns that the bench knows; `unstructured` without its equal rows.
    Pattern(Pattern),
    /// Any weights, equally many in every output channel.
    RowBalanced,
    /// Whole input channels.
    Channels,
    /// At most so many of so many consecutive input channels.
    NofM(usize, usize),
}

/// Largest group of `NofM`.
const LONGEST: usize = 1 << 10;

impl Scheme {
    /// One of each kind that keeps its form when packed, the least structured first.
    pub const COMPARED: [Self; 6] = [
        Self::Pattern(Pattern::Unstructured),
        Self::Pattern(Pattern::Blocks(4)),
        Self::Pattern(Pattern::Bcr([8, 64])),
        Self::Pattern(Pattern::Punched([8, 4])),
        Self::Pattern(Pattern::Kernels(8)),
        Self::Pattern(Pattern::Columns),
    ];

    /// Whether it empties whole channels or filters, which can then be cut out of the network.
    #[must_use]
    pub fn empties_channels(self) -> bool {
        matches!(self, Self::Channels | Self::Pattern(Pattern::Filters))
    }

    /// The sparsity of a scheme that has only one.
    #[must_use]
    pub fn fixed_sparsity(self) -> Option<f64> {
        match self {
            Self::NofM(n, m) => Some(1.0 - n as f64 / m as f64),
            _ => None,
        }
    }

    /// The plan that asks for this scheme in every layer of `model` but those that plans keep dense.
    /// Blocks larger than a layer are cut to it. Kernel patterns are for 3×3 kernels; other layers
    /// lose whole kernels ([`Plan::kernel_patterns`]).
    ///
    /// # Errors
    /// [`TrainingError::Plan`] for a scheme that does not fit a layer, naming it, and
    /// [`TrainingError::Sparse`] for a sparsity outside `[0, 1)`.
    pub fn plan<M: Module>(self, model: &M, sparsity: f64) -> Result<Plan, TrainingError> {
        let pattern = match self {
            Self::RowBalanced => return Ok(Plan::new(Sparsity::row_balanced(sparsity)?)),
            Self::Channels => return Ok(Plan::new(Sparsity::channel(sparsity)?)),
            Self::NofM(n, m) => return Ok(Plan::new(Sparsity::n_of_m(n, m)?)),
            Self::Pattern(pattern) => pattern,
        };
        Ok(match pattern {
            Pattern::Unstructured => Plan::new(Sparsity::unstructured(sparsity)?),
            Pattern::Blocks(rows) => Plan::new(Sparsity::shared_pattern(sparsity, rows)?),
            Pattern::Kernels(patterns) => Plan::kernel_patterns(sparsity, patterns)?,
            Pattern::Filters => Plan::new(Sparsity::filter(sparsity)?),
            Pattern::Columns => Plan::new(Sparsity::column(sparsity)?),
            Pattern::Bcr([rows, columns]) => fitted(model, |shape| {
                let block = [rows.min(shape.rows), columns.min(shape.row_len())];
                Sparsity::block_column_row(sparsity, block)
            })?,
            Pattern::Punched([filters, channels]) => fitted(model, |shape| {
                let block = [filters.min(shape.rows), channels.min(shape.channels)];
                Sparsity::punched(sparsity, block)
            })?,
        })
    }
}

/// A rule for each layer that a plan would constrain, by its shape.
fn fitted<M: Module>(
    model: &M,
    sparsity: impl Fn(WeightShape) -> Result<Sparsity, burn_sparse::SparseError>,
) -> Result<Plan, TrainingError> {
    // Which layers these are does not depend on the sparsity.
    let all = Plan::new(Sparsity::unstructured(0.0)?).resolve(model)?;
    let mut plan = Plan::dense();
    for layer in all.layers() {
        plan = plan.with_sparsity(layer.path.clone(), sparsity(layer.view.shape())?)?;
    }
    Ok(plan)
}

impl FromStr for Scheme {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "row-balanced" => return Ok(Self::RowBalanced),
            "channels" => return Ok(Self::Channels),
            _ => {}
        }
        if let Some((n, m)) = text.split_once("of") {
            let number = |text: &str| text.parse::<usize>().ok();
            return match (number(n), number(m)) {
                (Some(n), Some(m)) if (1..m).contains(&n) && m <= LONGEST => Ok(Self::NofM(n, m)),
                _ => Err(format!(
                    "`{n}of{m}` keeps no part of a group; 2of4 keeps two of four"
                )),
            };
        }
        let pattern = text.parse().map(Self::Pattern);
        pattern.map_err(|error: String| format!("{error}, row-balanced, channels, 2of4"))
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pattern(pattern) => pattern.fmt(f),
            Self::RowBalanced => f.pad("row-balanced"),
            Self::Channels => f.pad("channels"),
            Self::NofM(n, m) => f.pad(&format!("{n}of{m}")),
        }
    }
}

impl TryFrom<String> for Scheme {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Scheme> for String {
    fn from(scheme: Scheme) -> Self {
        scheme.to_string()
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::Device;
    use models::{LeNet5Config, ResNetConfig};

    use super::*;

    const OTHERS: [Scheme; 4] = [
        Scheme::RowBalanced,
        Scheme::Channels,
        Scheme::NofM(2, 4),
        Scheme::Pattern(Pattern::Filters),
    ];

    fn all() -> impl Iterator<Item = Scheme> {
        Scheme::COMPARED.into_iter().chain(OTHERS)
    }

    #[test]
    fn every_scheme_fits_networks_of_narrow_layers() {
        let device = Device::flex();
        let model = ResNetConfig::cifar(1, 10).with_width(6).init(&device);
        for scheme in all() {
            let plan = scheme.plan(&model, 0.75).unwrap();
            let resolved = plan.resolve(&model).unwrap();
            assert_eq!(resolved.layers().len(), 6, "{scheme}");
            let asked = scheme.fixed_sparsity().unwrap_or(0.75);
            let got = resolved.sparsity();
            assert!((got - asked).abs() < 0.08, "{scheme}: {got}");
        }
        // 5x5 kernels have no patterns, matrices neither.
        let model = LeNet5Config::new(10).init(&device);
        for scheme in all() {
            let plan = scheme.plan(&model, 0.75).unwrap();
            assert_eq!(plan.resolve(&model).unwrap().layers().len(), 2, "{scheme}");
        }
        assert!(Scheme::RowBalanced.plan(&model, 1.0).is_err());
    }

    #[test]
    fn names_are_read_and_written() {
        for scheme in all() {
            assert_eq!(scheme.to_string().parse::<Scheme>().unwrap(), scheme);
            let json = serde_json::to_value(scheme).unwrap();
            assert_eq!(serde_json::from_value::<Scheme>(json).unwrap(), scheme);
        }
        for (bad, says) in [
            ("4of4", "2of4"),
            ("0of4", "2of4"),
            ("1of99999", "2of4"),
            ("stars", "row-balanced"),
        ] {
            let error = bad.parse::<Scheme>().unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
