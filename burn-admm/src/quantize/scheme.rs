//! What kind of levels, how many, and for how much of a weight.

use core::fmt;
use core::str::FromStr;

use burn_sparse::quant::MAX_BITS;
use serde::{Deserialize, Serialize};

use super::{QuantizeError, Saturation};

/// Which levels a weight may have.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LevelKind {
    /// `±q, ±2q, .. ±2^(b−1) q`: zero is no level, a zero is a pruned weight. The interval `q` has the
    /// least squared error. Ren et al., "ADMM-NN" (ASPLOS 2019), section 3.2.
    Uniform,
    /// `±2^(e−j)` for `j = 0 .. 2^(b−1) − 1`: multiplications become shifts. 2 to 5 bits.
    PowersOfTwo,
    /// `2^b` numbers by k-means. Han et al., "Deep Compression" (ICLR 2016), section 3; Pietroń and
    /// Żurek (2020), equations 8 and 9.
    Codebook,
    /// `k · 2^−f` with `k` from `−2^(b−1)` to `2^(b−1) − 1`: `f` fraction bits, the others for sign and
    /// integer part. Pietroń and Żurek (2020), equation 6.
    FixedPoint(Saturation),
    /// `k · s` with `|k| ≤ 2^(b−1) − 1`: integers and a scale. Pietroń and Żurek (2020), equation 7
    /// with `μ = 0`.
    Symmetric(Saturation),
    /// `(k − z) · s` with `k` from 0 to `2^b − 1` and a whole zero point `z`, so that zero is a level.
    /// Pietroń and Żurek (2020), equation 7 with `μ = −z s`.
    Asymmetric(Saturation),
}

/// What has levels of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The whole weight.
    #[default]
    Layer,
    /// Every output channel.
    Channel,
}

/// The set of weights that are quantised: kind of levels, bits, scope.
///
/// Pruned weights stay zero whatever the levels; all others are on a level.
///
/// # Example
/// ```
/// use burn_admm::quantize::{Quantization, Scope};
///
/// let quantization = Quantization::uniform(3)?.with_scope(Scope::Channel);
/// assert_eq!(quantization.to_string(), "uniform3/channel");
/// assert_eq!("uniform3/channel".parse::<Quantization>()?, quantization);
/// assert!(Quantization::codebook(17).is_err());
/// # Ok::<(), burn_admm::quantize::QuantizeError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Raw")]
pub struct Quantization {
    kind: LevelKind,
    bits: u8,
    scope: Scope,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    kind: LevelKind,
    bits: u8,
    #[serde(default)]
    scope: Scope,
}

impl TryFrom<Raw> for Quantization {
    type Error = QuantizeError;

    fn try_from(Raw { kind, bits, scope }: Raw) -> Result<Self, QuantizeError> {
        Ok(Self::new(kind, bits)?.with_scope(scope))
    }
}

impl LevelKind {
    /// Fewest and most bits.
    fn range(self) -> [u8; 2] {
        match self {
            Self::Uniform | Self::Codebook => [1, MAX_BITS],
            // Sixteen exponents; beyond, sums of levels are no longer exact in f32.
            Self::PowersOfTwo => [2, 5],
            Self::FixedPoint(_) | Self::Symmetric(_) | Self::Asymmetric(_) => [2, MAX_BITS],
        }
    }

    /// `"uniform"`, `"powers"`, `"codebook"`, `"fixed"`, `"symmetric"` or `"asymmetric"`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::PowersOfTwo => "powers",
            Self::Codebook => "codebook",
            Self::FixedPoint(_) => "fixed",
            Self::Symmetric(_) => "symmetric",
            Self::Asymmetric(_) => "asymmetric",
        }
    }
}

impl Quantization {
    /// Levels of that kind for the whole weight.
    ///
    /// # Errors
    /// [`QuantizeError::Bits`] for bits that the kind does not have: outside 1 to 16, 2 to 5 for powers
    /// of two, below 2 for levels with a zero.
    pub fn new(kind: LevelKind, bits: u8) -> Result<Self, QuantizeError> {
        let [low, high] = kind.range();
        if !(low..=high).contains(&bits) {
            let kind = kind.name();
            return Err(QuantizeError::Bits {
                kind,
                bits,
                low,
                high,
            });
        }
        if let LevelKind::FixedPoint(saturation)
        | LevelKind::Symmetric(saturation)
        | LevelKind::Asymmetric(saturation) = kind
        {
            saturation.validate()?;
        }
        let scope = Scope::Layer;
        Ok(Self { kind, bits, scope })
    }

    /// [`LevelKind::Uniform`].
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn uniform(bits: u8) -> Result<Self, QuantizeError> {
        Self::new(LevelKind::Uniform, bits)
    }

    /// [`LevelKind::PowersOfTwo`].
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn powers_of_two(bits: u8) -> Result<Self, QuantizeError> {
        Self::new(LevelKind::PowersOfTwo, bits)
    }

    /// [`LevelKind::Codebook`].
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn codebook(bits: u8) -> Result<Self, QuantizeError> {
        Self::new(LevelKind::Codebook, bits)
    }

    /// [`LevelKind::FixedPoint`], saturating where the squared error is least.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn fixed_point(bits: u8) -> Result<Self, QuantizeError> {
        Self::new(LevelKind::FixedPoint(Saturation::default()), bits)
    }

    /// [`LevelKind::Symmetric`], saturating where the squared error is least.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn symmetric(bits: u8) -> Result<Self, QuantizeError> {
        Self::new(LevelKind::Symmetric(Saturation::default()), bits)
    }

    /// [`LevelKind::Asymmetric`], saturating where the squared error is least.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn asymmetric(bits: u8) -> Result<Self, QuantizeError> {
        Self::new(LevelKind::Asymmetric(Saturation::default()), bits)
    }

    /// The same levels for every output channel, or for the whole weight.
    #[must_use]
    pub fn with_scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// The same kind in other bits.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_bits(self, bits: u8) -> Result<Self, QuantizeError> {
        Ok(Self::new(self.kind, bits)?.with_scope(self.scope))
    }

    /// The kind of levels.
    pub fn kind(self) -> LevelKind {
        self.kind
    }

    /// Bits of a code.
    pub fn bits(self) -> u8 {
        self.bits
    }

    /// What has levels of its own.
    pub fn scope(self) -> Scope {
        self.scope
    }
}

impl fmt::Display for Quantization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scope = match self.scope {
            Scope::Layer => "",
            Scope::Channel => "/channel",
        };
        f.pad(&format!("{}{}{scope}", self.kind.name(), self.bits))
    }
}

impl FromStr for Quantization {
    type Err = QuantizeError;

    fn from_str(text: &str) -> Result<Self, QuantizeError> {
        let unknown = || QuantizeError::Name(text.to_owned());
        let (name, scope) = match text.strip_suffix("/channel") {
            Some(name) => (name, Scope::Channel),
            None => (text, Scope::Layer),
        };
        let digits = name
            .find(|c: char| c.is_ascii_digit())
            .ok_or_else(unknown)?;
        let (name, bits) = name.split_at(digits);
        let bits: u8 = bits.parse().map_err(|_| unknown())?;
        let saturation = Saturation::default();
        let kind = match name {
            "uniform" => LevelKind::Uniform,
            "powers" => LevelKind::PowersOfTwo,
            "codebook" => LevelKind::Codebook,
            "fixed" => LevelKind::FixedPoint(saturation),
            "symmetric" => LevelKind::Symmetric(saturation),
            "asymmetric" => LevelKind::Asymmetric(saturation),
            _ => return Err(unknown()),
        };
        Ok(Self::new(kind, bits)?.with_scope(scope))
    }
}
