use serde::{Deserialize, Serialize};

use super::EvolveError;

/// How an evolution goes about it.
///
/// # Example
/// ```
/// use burn_admm::evolve::EvolveConfig;
///
/// let config = EvolveConfig::new().with_tolerance(0.01).with_target(0.95);
/// assert_eq!((config.population, config.step), (8, 0.2));
/// assert!(EvolveConfig::new().with_step(1.0).validate().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvolveConfig {
    /// `ε`: how far accuracy may fall below the best so far, in the units in which it is given; 0.005
    /// unless set, half a point of a fraction. Above zero.
    pub tolerance: f64,
    /// The part of what a layer still has that it gives up in one trial, if it is not sensitive; 0.2
    /// unless set. Between 0 and 1.
    pub step: f64,
    /// The part of the layers that give something up in a trial, at least one; 0.5 unless set. Above 0
    /// and at most 1.
    pub layers: f64,
    /// `a`: what magnitude counts in the score of a weight; 1 unless set. From 0 to 10⁶.
    pub magnitude: f64,
    /// `b`: what the gradient of the batch counts; 0.01 unless set. From 0 to 10⁶, and not zero
    /// together with `magnitude`. Of one batch it is mostly noise: masks are in motion with more.
    pub gradient: f64,
    /// Sparsity vectors that live at the same time; 8 unless set. At least 2.
    pub population: usize,
    /// Clusters of vectors, of each of which the best stay when there are too many; 3 unless set. From
    /// 1 to the population.
    pub clusters: usize,
    /// Most sparsity of a layer in the random vectors of the beginning; 0.1 unless set. In `[0, 1)`.
    pub initial: f64,
    /// Probability with which two parents are crossed after a rewind, rather than one mutated; 0.5
    /// unless set. In `[0, 1]`.
    pub crossover: f64,
    /// How far a mutation may take a layer back, in steps; it takes it at most one step on. 0.5 unless
    /// set. In `[0, 1]`.
    pub mutation: f64,
    /// What is left of a sensitivity after a trial that says something about it; 0.7 unless set. In
    /// `[0, 1)`.
    pub memory: f64,
    /// How much migration shortens steps: they are divided by `1 + damping · migration`. 10 unless set:
    /// half a step where a tenth of the mask changes with every batch. At least 0.
    pub damping: f64,
    /// After so many rewinds in a row a trial trains the network as it is, so that it can recover; 2
    /// unless set. 0 for never.
    pub rest_after: usize,
    /// Sparsity of all constrained weights together beyond which nothing grows; 1 unless set, so that
    /// accuracy and the plan are the only limits. Above 0 and at most 1.
    pub target: f64,
    /// Seed of both random states; 0 unless set.
    pub seed: u64,
}

impl Default for EvolveConfig {
    fn default() -> Self {
        Self {
            tolerance: 0.005,
            step: 0.2,
            layers: 0.5,
            magnitude: 1.0,
            gradient: 0.01,
            population: 8,
            clusters: 3,
            initial: 0.1,
            crossover: 0.5,
            mutation: 0.5,
            memory: 0.7,
            damping: 10.0,
            rest_after: 2,
            target: 1.0,
            seed: 0,
        }
    }
}

impl EvolveConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another tolerance.
    #[must_use]
    pub fn with_tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Another step.
    #[must_use]
    pub fn with_step(mut self, step: f64) -> Self {
        self.step = step;
        self
    }

    /// Another part of the layers.
    #[must_use]
    pub fn with_layers(mut self, layers: f64) -> Self {
        self.layers = layers;
        self
    }

    /// Other coefficients `a` and `b` of the score.
    #[must_use]
    pub fn with_score(mut self, magnitude: f64, gradient: f64) -> Self {
        (self.magnitude, self.gradient) = (magnitude, gradient);
        self
    }

    /// Another population, and how many clusters it has.
    #[must_use]
    pub fn with_population(mut self, population: usize, clusters: usize) -> Self {
        (self.population, self.clusters) = (population, clusters);
        self
    }

    /// Another target for all constrained weights together.
    #[must_use]
    pub fn with_target(mut self, target: f64) -> Self {
        self.target = target;
        self
    }

    /// Another seed.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Checks that every setting is in its range.
    ///
    /// # Errors
    /// [`EvolveError::Config`] names the first that is not.
    pub fn validate(&self) -> Result<(), EvolveError> {
        let above = |value: f64, low: f64, high: f64| value > low && value <= high;
        let within = |value: f64, low: f64, high: f64| value >= low && value <= high;
        let below = |value: f64| (0.0..1.0).contains(&value);
        let checks = [
            (
                "tolerance",
                self.tolerance,
                above(self.tolerance, 0.0, f64::MAX),
                "above zero and finite",
            ),
            (
                "step",
                self.step,
                self.step > 0.0 && self.step < 1.0,
                "between 0 and 1",
            ),
            (
                "layers",
                self.layers,
                above(self.layers, 0.0, 1.0),
                "above 0 and at most 1",
            ),
            (
                "magnitude",
                self.magnitude,
                within(self.magnitude, 0.0, 1e6),
                "from 0 to 1e6",
            ),
            (
                "gradient",
                self.gradient,
                within(self.gradient, 0.0, 1e6) && self.gradient + self.magnitude > 0.0,
                "from 0 to 1e6, and not zero together with magnitude",
            ),
            (
                "population",
                self.population as f64,
                self.population >= 2,
                "at least 2",
            ),
            (
                "clusters",
                self.clusters as f64,
                (1..=self.population).contains(&self.clusters),
                "from 1 to the population",
            ),
            (
                "initial",
                self.initial,
                below(self.initial),
                "at least 0 and below 1",
            ),
            (
                "crossover",
                self.crossover,
                within(self.crossover, 0.0, 1.0),
                "from 0 to 1",
            ),
            (
                "mutation",
                self.mutation,
                within(self.mutation, 0.0, 1.0),
                "from 0 to 1",
            ),
            (
                "memory",
                self.memory,
                below(self.memory),
                "at least 0 and below 1",
            ),
            (
                "damping",
                self.damping,
                within(self.damping, 0.0, f64::MAX),
                "at least 0 and finite",
            ),
            (
                "target",
                self.target,
                above(self.target, 0.0, 1.0),
                "above 0 and at most 1",
            ),
        ];
        match checks.into_iter().find(|(.., fits, _)| !fits) {
            Some((name, value, _, expected)) => Err(EvolveError::Config {
                name,
                value,
                expected,
            }),
            None => Ok(()),
        }
    }
}
