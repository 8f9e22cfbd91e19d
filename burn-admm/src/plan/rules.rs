use burn_sparse::{SparseError, Sparsity};
use serde::{Deserialize, Serialize};

use super::{Pattern, PlanError};

/// What holds on a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Constraint {
    /// Nothing: all weights may be non-zero.
    Dense,
    /// Only as many non-zeros as this allows.
    Sparse(Sparsity),
}

impl From<Sparsity> for Constraint {
    fn from(sparsity: Sparsity) -> Self {
        Self::Sparse(sparsity)
    }
}

/// A constraint on the parameters whose path matches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Glob over dotted parameter paths.
    pub pattern: Pattern,
    /// What holds on them.
    pub constraint: Constraint,
}

/// Which constraint holds on which parameter: a default and ordered rules, where **the last rule
/// that matches wins**.
///
/// Whatever the default and rules with wildcards say, these stay dense: vectors (biases, scales),
/// normalisation layers, embeddings, the first convolution and the last linear layer (both by the
/// traversal order of the module). A rule without wildcards, which names one parameter, constrains
/// even those.
///
/// # Example
/// ```
/// use burn::nn::transformer::TransformerEncoderConfig;
/// use burn::tensor::Device;
/// use burn_admm::Plan;
/// use burn_sparse::Sparsity;
///
/// let model = TransformerEncoderConfig::new(16, 32, 2, 2).init(&Device::flex());
/// let plan = Plan::new(Sparsity::row_balanced(0.9)?)
///     .with_sparsity("layers.0.**", Sparsity::unstructured(0.5)?)?
///     .with_dense("**.key.weight")?;
/// println!("{}", plan.explain(&model)?);
///
/// let resolved = plan.resolve(&model)?;
/// assert!(resolved.layer("layers.1.mha.query.weight").is_some());
/// assert!(resolved.layer("layers.1.mha.key.weight").is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// As JSON, which is validated when it is read:
/// ```
/// # use burn_admm::Plan;
/// let plan = Plan::from_json(r#"{
///     "default": { "sparse": { "kind": "row_balanced", "budget": { "sparsity": 0.9 } } },
///     "rules": [ { "pattern": "fc.weight", "constraint": "dense" } ]
/// }"#)?;
/// # Ok::<(), burn_admm::PlanError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    default: Constraint,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    other_kernels: Option<Constraint>,
    #[serde(default = "yes")]
    keep_first_convolution: bool,
    #[serde(default = "yes")]
    keep_last_linear: bool,
    #[serde(default, skip_serializing_if = "is_no")]
    keep_one_group: bool,
}

fn is_no(value: &bool) -> bool {
    !value
}

fn yes() -> bool {
    true
}

impl Plan {
    /// `sparsity` on every weight, apart from those that stay dense (see [`Plan`]).
    pub fn new(sparsity: Sparsity) -> Self {
        Self::with_default(Constraint::Sparse(sparsity))
    }

    /// Nothing constrained but what rules will name.
    pub fn dense() -> Self {
        Self::with_default(Constraint::Dense)
    }

    /// Kernel patterns for a whole network at one sparsity: convolutions of 3×3 get four positions
    /// per kernel, by one of `patterns` patterns found in the network, and lose as many kernels as it
    /// takes; all other weights get connectivity (Niu et al., "PatDNN", ASPLOS 2020, prune 1×1
    /// convolutions so), which is unstructured where kernels are single weights.
    ///
    /// Below a sparsity of 5/9 patterns alone have more zeros than were asked for. Depthwise
    /// convolutions have one kernel per output channel: keep them dense by a rule.
    ///
    /// # Errors
    /// As [`Sparsity::kernel_pattern`].
    ///
    /// # Example
    /// ```
    /// use burn::tensor::Device;
    /// use burn::nn::conv::{Conv2d, Conv2dConfig};
    /// use burn_admm::Plan;
    ///
    /// # #[derive(burn::module::Module, Debug)]
    /// # struct Net { stem: Conv2d, wide: Conv2d, point: Conv2d }
    /// # let device = Device::flex();
    /// # let conv = |i, o, k| Conv2dConfig::new([i, o], [k, k]).init(&device);
    /// # let model = Net { stem: conv(3, 8, 3), wide: conv(8, 16, 3), point: conv(16, 8, 1) };
    /// // `stem`, `wide` with kernels of 3×3 and `point` with 1×1.
    /// let plan = Plan::kernel_patterns(0.8, 8)?.resolve(&model)?;
    /// assert_eq!(plan.layer("wide.weight").unwrap().sparsity.name(), "kernel-pattern");
    /// assert_eq!(plan.layer("point.weight").unwrap().sparsity.name(), "connectivity");
    /// assert!((plan.sparsity() - 0.8).abs() < 0.01);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn kernel_patterns(sparsity: f64, patterns: usize) -> Result<Self, SparseError> {
        let plan = Self::new(Sparsity::kernel_pattern(sparsity, patterns)?);
        Ok(plan.with_other_kernels(Sparsity::connectivity(sparsity)?))
    }

    fn with_default(default: Constraint) -> Self {
        Self {
            default,
            rules: Vec::new(),
            other_kernels: None,
            keep_first_convolution: true,
            keep_last_linear: true,
            keep_one_group: false,
        }
    }

    /// Adds a rule after all others: it wins over them.
    ///
    /// # Errors
    /// [`PlanError::Pattern`] for a pattern that cannot be read.
    pub fn with_rule(
        mut self,
        pattern: impl Into<String>,
        constraint: impl Into<Constraint>,
    ) -> Result<Self, PlanError> {
        let pattern = Pattern::new(pattern)?;
        self.rules.push(Rule {
            pattern,
            constraint: constraint.into(),
        });
        Ok(self)
    }

    /// Adds a rule that asks for `sparsity`.
    ///
    /// # Errors
    /// [`PlanError::Pattern`] for a pattern that cannot be read.
    pub fn with_sparsity(
        self,
        pattern: impl Into<String>,
        sparsity: Sparsity,
    ) -> Result<Self, PlanError> {
        self.with_rule(pattern, sparsity)
    }

    /// Adds a rule that keeps parameters dense.
    ///
    /// # Errors
    /// [`PlanError::Pattern`] for a pattern that cannot be read.
    pub fn with_dense(self, pattern: impl Into<String>) -> Result<Self, PlanError> {
        self.with_rule(pattern, Constraint::Dense)
    }

    /// Whether the first convolution stays dense unless named (default: yes).
    #[must_use]
    pub fn with_first_convolution_kept(mut self, keep: bool) -> Self {
        self.keep_first_convolution = keep;
        self
    }

    /// Whether the last linear layer stays dense unless named (default: yes).
    #[must_use]
    pub fn with_last_linear_kept(mut self, keep: bool) -> Self {
        self.keep_last_linear = keep;
        self
    }

    /// Whether a layer of so few groups (filters, channels, kernels, columns, punched positions) that its
    /// rate would empty it keeps one of them (default: no, such a rate is
    /// [refused](PlanError::Unfit)). [`explain`](Self::explain) says where that happened.
    ///
    /// ```
    /// use burn::nn::conv::Conv2dConfig;
    /// use burn::tensor::Device;
    /// use burn_admm::Plan;
    /// use burn_sparse::Sparsity;
    ///
    /// let model = [8, 8, 3].map(|out| Conv2dConfig::new([8, out], [3, 3]).init(&Device::flex()));
    /// let plan = Plan::new(Sparsity::filter(0.9)?);
    /// assert!(plan.resolve(&model).is_err());
    /// let plan = plan.with_one_group_kept(true).resolve(&model)?;
    /// assert_eq!(plan.layer("2.weight").unwrap().nnz, 8 * 9);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_one_group_kept(mut self, keep: bool) -> Self {
        self.keep_one_group = keep;
        self
    }

    /// What holds where the default, or a rule with wildcards, asks for kernel patterns of a weight
    /// whose kernels are not 3×3. Without it such a weight is an error.
    #[must_use]
    pub fn with_other_kernels(mut self, constraint: impl Into<Constraint>) -> Self {
        self.other_kernels = Some(constraint.into());
        self
    }

    /// The constraint where no rule matches.
    pub fn default_constraint(&self) -> Constraint {
        self.default
    }

    /// The rules in their order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What holds in the place of kernel patterns where kernels are not 3×3, if anything was said.
    pub fn other_kernels(&self) -> Option<Constraint> {
        self.other_kernels
    }

    pub(super) fn keeps_first_convolution(&self) -> bool {
        self.keep_first_convolution
    }

    pub(super) fn keeps_last_linear(&self) -> bool {
        self.keep_last_linear
    }

    pub(super) fn keeps_one_group(&self) -> bool {
        self.keep_one_group
    }

    /// Reads a plan from JSON.
    ///
    /// # Errors
    /// [`PlanError::Json`] for text that is not a plan, unknown fields, bad patterns and budgets
    /// out of range.
    pub fn from_json(json: &str) -> Result<Self, PlanError> {
        Ok(serde_json::from_str(json)?)
    }

    /// The plan as indented JSON.
    ///
    /// # Panics
    /// Never: every plan can be written as JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a plan holds only strings and finite numbers")
    }
}
