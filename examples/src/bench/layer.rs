//! One layer of a suite: a line of text, checked before anything is allocated for it.

use std::fmt;
use std::str::FromStr;

use burn_sparse::{ConvProblem, SparseError};
use serde::{Deserialize, Serialize};

/// Most elements of any tensor of a layer, its batch included: 1 GiB in f32.
pub const MAX_ELEMENTS: u64 = 1 << 28;
/// Most multiply-adds of a dense layer, its batch included: minutes on a small machine.
pub const MAX_MACS: u64 = 1 << 41;
/// Largest kernel, stride, padding and dilation.
const MAX_WINDOW: usize = 1 << 12;
/// Longest name.
const MAX_NAME: usize = 100;

/// What a layer computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A convolution over two axes.
    Conv,
    /// A convolution over one axis: the one of two axes on images one pixel high.
    Conv1d,
    /// A product with a weight matrix.
    Linear,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Conv, Self::Conv1d, Self::Linear];

    /// The name in a suite.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Conv => "conv",
            Self::Conv1d => "conv1d",
            Self::Linear => "linear",
        }
    }

    /// The keys that a layer must have, and those it may have.
    const fn keys(self) -> (&'static [&'static str], &'static [&'static str]) {
        const WINDOW: &[&str] = &["stride", "padding", "dilation", "groups", "count"];
        match self {
            Self::Conv | Self::Conv1d => (&["in", "out", "size", "kernel"], WINDOW),
            Self::Linear => (&["in", "out"], &["rows", "count"]),
        }
    }
}

/// Why a line is no layer, or a layer cannot be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// A word without `=` that is not the name.
    #[error("{0:?} is no key=value; only the name, which comes first, stands alone")]
    Word(String),
    /// A name that would spoil a table or a file name.
    #[error("a name has at most {MAX_NAME} printable characters, this one {0}")]
    Name(usize),
    /// No such kind.
    #[error("unknown kind {0:?}; choose conv, conv1d or linear")]
    Kind(String),
    /// A key that this kind does not have.
    #[error("{kind} has no key {key:?}; it has kind, {known}")]
    UnknownKey {
        /// The kind.
        kind: &'static str,
        /// The key.
        key: String,
        /// Its keys.
        known: String,
    },
    /// A key given twice.
    #[error("{0} is given twice")]
    Twice(String),
    /// A key that is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A value that is no number, or no pair of them.
    #[error("{key}={value}: expected {expected}")]
    Value {
        /// The key.
        key: &'static str,
        /// What was written.
        value: String,
        /// What could have been.
        expected: &'static str,
    },
    /// A number outside its range.
    #[error("{key}={value}: must lie between {min} and {max}")]
    Range {
        /// The key.
        key: &'static str,
        /// The number.
        value: String,
        /// Least.
        min: usize,
        /// Most.
        max: u64,
    },
    /// A tensor that is too large.
    #[error("{what} has {elements} elements, more than {MAX_ELEMENTS}")]
    TooLarge {
        /// Which tensor.
        what: &'static str,
        /// Its elements.
        elements: u128,
    },
    /// Too much to compute.
    #[error("{macs} multiply-adds for one run, more than {MAX_MACS}")]
    TooLong {
        /// Multiply-adds of the dense layer.
        macs: u128,
    },
    /// A layer that has no such size.
    #[error("a {kind} layer has no {what}")]
    NotApplicable {
        /// The kind.
        kind: &'static str,
        /// What it lacks.
        what: &'static str,
    },
    /// Numbers that are no convolution.
    #[error(transparent)]
    Geometry(#[from] SparseError),
}

/// A layer and how often its network has it.
///
/// Written as `name key=value ...`:
///
/// ```
/// use examples::bench::{Kind, Layer};
///
/// let layer: Layer = "conv2 kind=conv in=64 out=128 size=56x56 kernel=3 stride=2 padding=1".parse()?;
/// assert_eq!(layer.kind(), Kind::Conv);
/// assert_eq!(layer.problem(16)?.output_shape(), [16, 128, 28, 28]);
/// let again: Layer = layer.to_string().parse()?;
/// assert_eq!(again, layer);
/// assert!("kind=linear in=4294967296 out=9".parse::<Layer>().is_err());
/// # Ok::<(), examples::bench::LayerError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    name: String,
    kind: Kind,
    /// At batch 1; `batch` is the number of rows for linear layers.
    single: ConvProblem,
    count: usize,
}

impl Layer {
    /// Checks a layer; `single` is its problem at batch 1 (with as many images as a linear layer
    /// has rows).
    ///
    /// # Errors
    /// [`LayerError`] for zeros, channels that groups do not divide, kernels larger than their
    /// input, and sizes above [`MAX_ELEMENTS`] or [`MAX_MACS`].
    pub fn new(
        name: impl Into<String>,
        kind: Kind,
        single: ConvProblem,
        count: usize,
    ) -> Result<Self, LayerError> {
        let name = name.into();
        let length = name.chars().count();
        if length > MAX_NAME || name.chars().any(char::is_control) {
            return Err(LayerError::Name(length));
        }
        let layer = Self {
            name,
            kind,
            single,
            count,
        };
        layer.problem(1)?;
        Ok(layer)
    }

    /// The name; the shape if it was given none.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it computes.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How often the network has it.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The problem for so many images (or texts).
    ///
    /// # Errors
    /// [`LayerError`] where it gets too large, or is no convolution.
    pub fn problem(&self, batch: usize) -> Result<ConvProblem, LayerError> {
        let single = &self.single;
        let range = |key, value: usize, min: usize, max: u64| {
            let fits = value >= min && value as u64 <= max;
            fits.then_some(()).ok_or(LayerError::Range {
                key,
                value: value.to_string(),
                min,
                max,
            })
        };
        // Each number first, so that none of the sums and products below overflows.
        range("batch", batch, 1, MAX_ELEMENTS)?;
        range("rows", single.batch, 1, MAX_ELEMENTS)?;
        range("in", single.in_channels, 1, MAX_ELEMENTS)?;
        range("out", single.out_channels, 1, MAX_ELEMENTS)?;
        range("groups", single.groups, 1, MAX_ELEMENTS)?;
        range("count", self.count, 1, MAX_ELEMENTS)?;
        for axis in 0..2 {
            let most = MAX_WINDOW as u64;
            range("size", single.input[axis], 1, MAX_ELEMENTS)?;
            range("kernel", single.kernel[axis], 1, most)?;
            range("stride", single.stride[axis], 1, most)?;
            range("dilation", single.dilation[axis], 1, most)?;
            for padding in single.padding[axis] {
                range("padding", padding, 0, most)?;
            }
        }
        let product = |numbers: &[usize]| numbers.iter().map(|&n| n as u128).product::<u128>();
        let images = product(&[batch, single.batch]);
        if images > u128::from(MAX_ELEMENTS) {
            return Err(LayerError::TooLarge {
                what: "the batch",
                elements: images,
            });
        }
        let problem = single.with_batch(batch * single.batch);
        problem.check()?;
        let [height, width] = problem.output();
        let padded = problem.padded();
        let weight = product(&problem.weight_shape());
        let pixels = product(&[height, width]);
        // A dense convolution by matrix product holds the inputs of each output of an image.
        let columns = product(&[problem.in_channels, problem.kernel[0], problem.kernel[1]]);
        let stretched = product(&[
            problem.in_channels,
            padded[0] + problem.stride[0],
            padded[1] + problem.stride[1],
        ]);
        for (what, elements) in [
            ("the input", product(&problem.input_shape())),
            ("the weight", weight),
            ("the output", product(&problem.output_shape())),
            ("a padded image", stretched),
            ("an image's matrix of columns", columns * pixels),
        ] {
            if elements > u128::from(MAX_ELEMENTS) {
                return Err(LayerError::TooLarge { what, elements });
            }
        }
        let macs = weight * pixels * problem.batch as u128;
        if macs > u128::from(MAX_MACS) {
            return Err(LayerError::TooLong { macs });
        }
        Ok(problem)
    }

    /// Input and output channels, height and width.
    #[must_use]
    pub fn size(&self) -> [usize; 4] {
        let p = &self.single;
        [p.in_channels, p.out_channels, p.input[0], p.input[1]]
    }

    /// With so many output channels and input channels in proportion; a depthwise convolution
    /// stays one.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    pub fn with_channels(&self, out: usize) -> Result<Self, LayerError> {
        let mut single = self.single;
        if single.groups > 1 && single.groups == single.in_channels {
            single.groups = (single.groups * out / single.out_channels).max(1);
        }
        let inputs = single.in_channels.saturating_mul(out) / single.out_channels;
        single.in_channels = inputs.max(1).next_multiple_of(single.groups);
        single.out_channels = out;
        Self::new(self.name.clone(), self.kind, single, self.count)
    }

    /// With images of another height and of a width in proportion, or texts of another length.
    ///
    /// # Errors
    /// [`LayerError::NotApplicable`] for linear layers, and those of [`new`](Self::new).
    pub fn with_image(&self, size: usize) -> Result<Self, LayerError> {
        let mut single = self.single;
        let [height, width] = single.input;
        single.input = match self.kind {
            Kind::Conv => [size, (width.saturating_mul(size) / height).max(1)],
            Kind::Conv1d => [1, size],
            Kind::Linear => {
                let (kind, what) = (self.kind.name(), "image");
                return Err(LayerError::NotApplicable { kind, what });
            }
        };
        Self::new(self.name.clone(), self.kind, single, self.count)
    }

    /// The layer without name and count, as a line of a suite has it.
    #[must_use]
    pub fn shape(&self) -> String {
        let p = &self.single;
        let one = self.kind == Kind::Conv1d;
        let pair = |[a, b]: [usize; 2]| match (one, a == b) {
            (true, _) => b.to_string(),
            (false, true) => a.to_string(),
            (false, false) => format!("{a}x{b}"),
        };
        let mut text = format!(
            "kind={} in={} out={}",
            self.kind.name(),
            p.in_channels,
            p.out_channels
        );
        let mut add = |key: &str, value: String, default: &str| {
            if value != default {
                text.push_str(&format!(" {key}={value}"));
            }
        };
        if self.kind == Kind::Linear {
            add("rows", p.batch.to_string(), "1");
        } else {
            add("size", pair(p.input), "");
            add("kernel", pair(p.kernel), "");
            add("stride", pair(p.stride), "1");
            add("padding", pair([p.padding[0][0], p.padding[1][0]]), "0");
            add("dilation", pair(p.dilation), "1");
            add("groups", p.groups.to_string(), "1");
        }
        text
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = self.shape();
        if self.name != shape {
            write!(f, "{} ", self.name)?;
        }
        f.write_str(&shape)?;
        if self.count != 1 {
            write!(f, " count={}", self.count)?;
        }
        Ok(())
    }
}

/// The keys and values of a line.
struct Keys<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Keys<'a> {
    fn get(&self, key: &str) -> Option<&'a str> {
        let found = self.0.iter().find(|(k, _)| *k == key);
        found.map(|&(_, value)| value)
    }

    fn number(&self, key: &'static str, default: usize) -> Result<usize, LayerError> {
        self.get(key)
            .map_or(Ok(default), |value| number(key, value, value))
    }

    /// `N` for both axes or `NxM`; on one axis `N`, beside `other`.
    fn pair(
        &self,
        key: &'static str,
        kind: Kind,
        other: usize,
        default: usize,
    ) -> Result<[usize; 2], LayerError> {
        let Some(value) = self.get(key) else {
            return Ok([default, default]);
        };
        if kind == Kind::Conv1d {
            return Ok([other, number(key, value, value)?]);
        }
        match value.split_once('x') {
            Some((a, b)) => Ok([number(key, a, value)?, number(key, b, value)?]),
            None => number(key, value, value).map(|n| [n, n]),
        }
    }
}

/// Digits only: `usize`'s own parser also takes a sign.
fn number(key: &'static str, digits: &str, value: &str) -> Result<usize, LayerError> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        let expected = match key {
            "size" | "kernel" | "stride" | "padding" | "dilation" => {
                "a whole number such as 3, or for two axes 3x5"
            }
            _ => "a whole number",
        };
        return Err(LayerError::Value {
            key,
            value: shortened(value),
            expected,
        });
    }
    digits.parse().map_err(|_| LayerError::Range {
        key,
        value: shortened(value),
        min: 0,
        max: MAX_ELEMENTS,
    })
}

/// Something from a file for an error message.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_string(),
    }
}

impl FromStr for Layer {
    type Err = LayerError;

    fn from_str(line: &str) -> Result<Self, LayerError> {
        let mut words = line.split_whitespace().peekable();
        let name = words.next_if(|word| !word.contains('='));
        let mut keys = Keys(Vec::new());
        for word in words {
            let Some((key, value)) = word.split_once('=') else {
                return Err(LayerError::Word(shortened(word)));
            };
            if keys.get(key).is_some() {
                return Err(LayerError::Twice(shortened(key)));
            }
            keys.0.push((key, value));
        }
        let kind = keys.get("kind").ok_or(LayerError::Missing("kind"))?;
        let kind = Kind::ALL
            .into_iter()
            .find(|k| k.name() == kind)
            .ok_or_else(|| LayerError::Kind(shortened(kind)))?;
        let (required, optional) = kind.keys();
        let known = || required.iter().chain(optional).copied();
        for (key, _) in &keys.0 {
            if *key != "kind" && !known().any(|k| k == *key) {
                return Err(LayerError::UnknownKey {
                    kind: kind.name(),
                    key: shortened(key),
                    known: known().collect::<Vec<_>>().join(", "),
                });
            }
        }
        if let Some(&missing) = required.iter().find(|key| keys.get(key).is_none()) {
            return Err(LayerError::Missing(missing));
        }
        let padding = keys.pair("padding", kind, 0, 0)?;
        let single = ConvProblem {
            batch: keys.number("rows", 1)?,
            in_channels: keys.number("in", 1)?,
            out_channels: keys.number("out", 1)?,
            input: keys.pair("size", kind, 1, 1)?,
            kernel: keys.pair("kernel", kind, 1, 1)?,
            stride: keys.pair("stride", kind, 1, 1)?,
            padding: padding.map(|p| [p, p]),
            dilation: keys.pair("dilation", kind, 1, 1)?,
            groups: keys.number("groups", 1)?,
        };
        let count = keys.number("count", 1)?;
        let layer = Self::new(name.unwrap_or_default(), kind, single, count)?;
        Ok(match name {
            Some(_) => layer,
            None => Self {
                name: layer.shape(),
                ..layer
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_as_written() {
        for line in [
            "c kind=conv in=8 out=6 size=9x7 kernel=3x1 stride=2x1 padding=1x0 dilation=2 groups=2 \
             count=3",
            "kind=conv in=1 out=1 size=4 kernel=1",
            "t kind=conv1d in=300 out=100 size=56 kernel=3 stride=2 padding=1",
            "fc kind=linear in=300 out=2 rows=5",
        ] {
            let layer: Layer = line.parse().unwrap();
            assert_eq!(layer.to_string(), line);
        }
        let text: Layer = "t kind=conv1d in=300 out=100 size=56 kernel=3 padding=1"
            .parse()
            .unwrap();
        let problem = text.problem(2).unwrap();
        assert_eq!(problem.output_shape(), [2, 100, 1, 56]);
        let fc: Layer = "fc kind=linear in=3 out=2 rows=5".parse().unwrap();
        assert_eq!(fc.problem(4).unwrap().output_shape(), [20, 2, 1, 1]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, says) in [
            ("", "kind is missing"),
            ("a b kind=linear in=1 out=1", "\"b\""),
            ("kind=lstm in=1 out=1", "choose conv"),
            ("kind=linear in=1 out=1 kernel=3", "no key \"kernel\""),
            ("kind=linear in=1", "out is missing"),
            ("kind=linear in=1 in=1 out=1", "twice"),
            ("kind=linear in=+1 out=1", "whole number"),
            ("kind=linear in=-1 out=1", "whole number"),
            ("kind=linear in= out=1", "whole number"),
            ("kind=linear in=0 out=1", "between 1"),
            ("kind=linear in=1 out=1 count=0", "between 1"),
            ("kind=linear in=1 out=99999999999999999999999", "between"),
            ("kind=linear in=100000 out=100000", "the weight"),
            ("kind=linear in=1 out=1 rows=268435457", "between"),
            ("kind=linear in=16384 out=16384 rows=16384", "multiply-adds"),
            ("kind=conv in=1 out=1 size=3 kernel=3x", "3x5"),
            ("kind=conv in=1 out=1 size=3x3x3 kernel=3", "3x5"),
            ("kind=conv in=1 out=1 size=2 kernel=3", "spans"),
            ("kind=conv in=3 out=4 size=2 kernel=1 groups=2", "divisible"),
            ("kind=conv in=1 out=1 size=9 kernel=1 groups=0", "between 1"),
            ("kind=conv in=1 out=1 size=9 kernel=1 stride=0", "between 1"),
            ("kind=conv in=1 out=1 size=9 kernel=5000", "4096"),
            ("kind=conv1d in=1 out=1 size=3x3 kernel=3", "whole number"),
            (
                "kind=conv in=1 out=1 size=100000x100000 kernel=1",
                "the input",
            ),
            (
                "kind=conv in=4096 out=1 size=64 kernel=1 padding=4096",
                "a padded image",
            ),
            (
                "kind=conv in=64 out=1 size=1000 kernel=7 padding=3",
                "columns",
            ),
        ] {
            let error = line.parse::<Layer>().unwrap_err().to_string();
            assert!(error.contains(says), "{line}: {error}");
            assert!(error.len() < 200, "{error}");
        }
        let long = format!("{} kind=linear in=1 out=1", "n".repeat(1000));
        assert!(matches!(long.parse::<Layer>(), Err(LayerError::Name(1000))));
        let long = format!("kind={}", "n".repeat(1000));
        assert!(long.parse::<Layer>().unwrap_err().to_string().len() < 200);
    }

    #[test]
    fn batches_are_checked_too() {
        let layer: Layer = "kind=linear in=1024 out=1024".parse().unwrap();
        assert!(layer.problem(1 << 17).is_ok());
        for batch in [0, 1 << 20, usize::MAX] {
            assert!(layer.problem(batch).is_err(), "{batch}");
        }
    }
}
