//! What varies in a growth plot.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::row::percent;
use super::table::digits;
use super::{Case, Kind, Layer, LayerError};

/// What varies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Axis {
    /// Part of the weights that is zero
    Sparsity,
    /// Output channels, input channels in proportion
    Channels,
    /// Height of the image, width in proportion; length of a text
    Image,
    /// Images at once
    Batch,
    /// Threads of flex
    Threads,
}

impl Axis {
    /// Values to try, if nobody says otherwise.
    #[must_use]
    pub fn values(self, layer: &Layer, threads: usize, few: bool) -> Vec<f64> {
        let around = |value: usize| {
            let mut values: Vec<_> = [0.25, 0.5, 1.0, 2.0]
                .iter()
                .map(|factor| (factor * value as f64).ceil())
                .collect();
            values.dedup();
            values
        };
        let powers = |most: usize| {
            let mut values: Vec<_> = (0..usize::BITS)
                .map(|shift| 1usize << shift)
                .take_while(|&value| value < most)
                .collect();
            values.push(most);
            values.into_iter().map(|value| value as f64).collect()
        };
        let [_, channels, height, width] = layer.size();
        match (self, few) {
            (Self::Sparsity, true) => vec![0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99],
            (Self::Sparsity, false) => {
                let tens = (0..8).map(|ten| f64::from(ten) / 10.0);
                tens.chain([0.8, 0.85, 0.9, 0.95, 0.98, 0.99]).collect()
            }
            (Self::Channels, _) => around(channels),
            (Self::Image, _) if layer.kind() == Kind::Conv1d => around(width),
            (Self::Image, _) => around(height),
            (Self::Batch, few) => powers(if few { 8 } else { 32 }),
            (Self::Threads, _) => powers(threads),
        }
    }

    /// A value from the command line.
    ///
    /// # Errors
    /// A sentence for the command line.
    pub fn check(self, value: f64) -> Result<(), String> {
        let whole = value.fract() == 0.0 && (1.0..=65_536.0).contains(&value);
        match self {
            Self::Sparsity if !(0.0..1.0).contains(&value) => {
                Err(format!("a sparsity lies in [0, 1), got {value}"))
            }
            Self::Threads if !whole || value > 1024.0 => {
                Err(format!("threads are whole numbers up to 1024, got {value}"))
            }
            Self::Channels | Self::Image | Self::Batch if !whole => {
                Err(format!("expected whole numbers up to 65536, got {value}"))
            }
            _ => Ok(()),
        }
    }

    /// A case with another value on this axis.
    ///
    /// # Errors
    /// [`LayerError`] where that is no layer any more, or too large.
    pub fn at(self, case: &Case, value: f64) -> Result<Case, LayerError> {
        let mut case = case.clone();
        let whole = value as usize;
        match self {
            Self::Sparsity => case.sparsity = value,
            Self::Channels => case.layer = case.layer.with_channels(whole)?,
            Self::Image => case.layer = case.layer.with_image(whole)?,
            Self::Batch => case.batch = whole,
            Self::Threads => case.threads = Some(whole),
        }
        case.layer.problem(case.batch)?;
        Ok(case)
    }

    /// A value on this axis, for people.
    #[must_use]
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Sparsity => percent((value * 1e3).round() / 1e3),
            _ if value.fract() == 0.0 => value.to_string(),
            _ => digits(value),
        }
    }

    /// What the axis is called in a plot.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Sparsity => "zeros",
            Self::Channels => "output channels",
            Self::Image => "image height (text length)",
            Self::Batch => "batch",
            Self::Threads => "threads",
        }
    }
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Sparsity => "sparsity",
            Self::Channels => "channels",
            Self::Image => "image",
            Self::Batch => "batch",
            Self::Threads => "threads",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Dtype, Pattern};

    fn case(line: &str) -> Case {
        Case {
            layer: line.parse().unwrap(),
            sparsity: 0.9,
            pattern: Pattern::Blocks(4),
            batch: 2,
            dtype: Dtype::F32,
            threads: None,
        }
    }

    #[test]
    fn each_axis_varies_its_own() {
        let conv = case("c kind=conv in=6 out=4 size=8x12 kernel=3 padding=1 groups=2");
        let at = |axis: Axis, value| axis.at(&conv, value);
        let shape = |case: Case| case.layer.shape();
        assert_eq!(at(Axis::Sparsity, 0.5).unwrap().sparsity, 0.5);
        assert_eq!(at(Axis::Batch, 7.0).unwrap().batch, 7);
        assert_eq!(at(Axis::Threads, 3.0).unwrap().threads, Some(3));
        let channels = shape(at(Axis::Channels, 8.0).unwrap());
        assert!(channels.contains("in=12 out=8"), "{channels}");
        let image = shape(at(Axis::Image, 16.0).unwrap());
        assert!(image.contains("size=16x24"), "{image}");
        // Five channels cannot be two groups, and a million images are too many.
        assert!(at(Axis::Channels, 5.0).is_err());
        assert!(at(Axis::Batch, 1e6).is_err());
        let depthwise = case("kind=conv in=6 out=6 size=8 kernel=3 groups=6");
        let wider = shape(Axis::Channels.at(&depthwise, 9.0).unwrap());
        assert!(
            wider.contains("in=9 out=9") && wider.ends_with("groups=9"),
            "{wider}"
        );
        let text = case("kind=conv1d in=6 out=6 size=8 kernel=3");
        let longer = shape(Axis::Image.at(&text, 20.0).unwrap());
        assert!(longer.contains("size=20"), "{longer}");
        let linear = case("kind=linear in=6 out=6");
        let error = Axis::Image.at(&linear, 3.0).unwrap_err().to_string();
        assert!(error.contains("linear"), "{error}");
    }

    #[test]
    fn default_values_are_on_their_axis() {
        let conv = case("c kind=conv in=6 out=4 size=8x12 kernel=1");
        for axis in Axis::value_variants() {
            for few in [true, false] {
                let values = axis.values(&conv.layer, 6, few);
                assert!(
                    values.windows(2).all(|pair| pair[0] < pair[1]),
                    "{values:?}"
                );
                for value in values {
                    axis.check(value).unwrap();
                    axis.at(&conv, value).unwrap();
                }
            }
        }
        assert_eq!(
            Axis::Threads.values(&conv.layer, 6, true),
            [1.0, 2.0, 4.0, 6.0]
        );
        assert_eq!(Axis::Threads.values(&conv.layer, 1, true), [1.0]);
        for (axis, value) in [
            (Axis::Sparsity, 1.0),
            (Axis::Sparsity, f64::NAN),
            (Axis::Batch, 0.0),
            (Axis::Batch, 1.5),
            (Axis::Threads, 1e9),
            (Axis::Channels, f64::INFINITY),
        ] {
            assert!(axis.check(value).is_err(), "{axis} {value}");
        }
    }
}
