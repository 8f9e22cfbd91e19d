//! One layer of a suite: a line of text, checked before anything is allocated for it.

use std::fmt;

use burn_sparse::ConvProblem;
use serde::{Deserialize, Serialize};

use super::LayerError;

/// Most elements of any tensor of a layer, its batch included: 1 GiB in f32.
pub const MAX_ELEMENTS: u64 = 1 << 28;
/// Most multiply-adds of a dense layer, its batch included: minutes on a small machine.
pub const MAX_MACS: u64 = 1 << 41;
/// Largest kernel, stride, padding and dilation.
const MAX_WINDOW: usize = 1 << 12;
/// Longest name.
pub(super) const MAX_NAME: usize = 100;

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
    pub(super) const ALL: [Self; 3] = [Self::Conv, Self::Conv1d, Self::Linear];

    /// The name in a suite.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Conv => "conv",
            Self::Conv1d => "conv1d",
            Self::Linear => "linear",
        }
    }
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
    /// has rows). Without a name it gets its shape for one.
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
        let mut layer = Self {
            name,
            kind,
            single,
            count,
        };
        layer.problem(1)?;
        if layer.name.is_empty() {
            layer.name = layer.shape();
        }
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
