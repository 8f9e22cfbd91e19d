//! Searching for the scheme of each layer: by a learned policy, and by two controls.

mod devices;
mod evolution;
mod log;
mod policy;
mod random;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::{MappingError, Offers, Selection};
use evolution::Evolution;
use policy::Learner;
use random::Random;

pub use devices::SearchDevices;
pub use log::SearchLog;

/// How candidates come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SearchMethod {
    /// A recurrent policy that decides layer after layer, trained by REINFORCE (Gong et al., 2022).
    Policy,
    /// Every layer's scheme by chance: the first control.
    Random,
    /// Regularised evolution (Real et al., 2019): the fittest of a few has one child with one layer changed, and the
    /// oldest dies. The second control.
    Evolution,
}

/// Settings of [`search`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchConfig {
    /// How candidates come about.
    pub method: SearchMethod,
    /// Different candidates that are evaluated.
    pub evaluations: usize,
    /// Candidates that are proposed before any of them is judged: they can be evaluated at the same time.
    pub round: usize,
    /// Milliseconds that are to be kept: `T`.
    pub target_ms: f64,
    /// What a candidate that takes twice the target loses, as a part of accuracy: `λ`.
    pub lambda: f64,
    /// Of the policy's first weights and of all that is drawn.
    pub seed: u64,
}

impl SearchConfig {
    /// 128 evaluations in rounds of 8, a point of accuracy for each hundredth above the target, seed 0.
    pub fn new(method: SearchMethod, target_ms: f64) -> Self {
        Self {
            method,
            evaluations: 128,
            round: 8,
            target_ms,
            lambda: 1.0,
            seed: 0,
        }
    }

    /// `accuracy − λ · max(0, ms − T) / T`.
    pub fn reward(&self, accuracy: f64, ms: f64) -> f64 {
        accuracy - self.lambda * (ms - self.target_ms).max(0.0) / self.target_ms
    }

    fn check(&self) -> Result<(), MappingError> {
        let reason = if self.evaluations == 0 || self.round == 0 {
            "a search without evaluations"
        } else if !(self.target_ms.is_finite() && self.target_ms > 0.0) {
            "a search whose target is no time"
        } else if !(self.lambda.is_finite() && self.lambda >= 0.0) {
            "a search that rewards being late"
        } else {
            return Ok(());
        };
        Err(MappingError::Settings(reason.to_owned()))
    }
}

/// A candidate and what it is worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Candidate {
    /// The offer of each layer, as an index.
    pub choice: Vec<usize>,
    /// Milliseconds of the network.
    pub ms: f64,
    /// As it was evaluated.
    pub accuracy: f64,
    /// See [`SearchConfig::reward`].
    pub reward: f64,
}

/// What a search has found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Searched {
    /// The candidate with the highest reward.
    pub best: Selection,
    /// Its accuracy, as it was evaluated.
    pub accuracy: f64,
    /// Its reward.
    pub reward: f64,
    /// All candidates, in the order in which they were first proposed.
    pub history: Vec<Candidate>,
}

/// Proposes candidates, and learns from what they are worth.
trait Strategy {
    /// Several candidates, not necessarily different ones.
    fn propose(&mut self, count: usize) -> Vec<Vec<usize>>;
    /// What those that were just proposed are worth.
    fn learn(&mut self, choices: &[Vec<usize>], rewards: &[f64]);
}

/// Rounds without a new candidate after which a search ends: it has settled, or there is nothing else.
const SETTLED: usize = 64;

/// Searches for the offers of all layers with the highest [reward](SearchConfig::reward).
///
/// `evaluate` is given the candidates of a round that were not evaluated before and gives their accuracies, as
/// fractions; they do not depend on each other, so it may evaluate them at the same time, each on a device of its
/// own ([`SearchDevices`]). `log` keeps all accuracies, and `keep` is told after each round, to save it. A search with a log goes through the same candidates
/// again, evaluates those that the log does not have, and so ends where it would have ended without interruption.
///
/// The policy is small and runs on `device`; a CPU is best.
///
/// # Errors
/// [`MappingError::Settings`] for senseless settings, or offers without a layer to choose for; what `evaluate` and
/// `keep` give.
///
/// # Panics
/// If `evaluate` does not give an accuracy for each candidate, or the device fails.
///
/// # Example
/// ```no_run
/// use burn::tensor::Device;
/// use burn_admm::mapping::{MappingError, Offers, SearchConfig, SearchLog, SearchMethod, search};
///
/// # fn accuracy(_: &burn_admm::Plan) -> f64 { 0.9 }
/// # fn of(offers: &Offers) -> Result<(), MappingError> {
/// let half = 0.5 * offers.dense()[0];
/// let config = SearchConfig::new(SearchMethod::Policy, half);
/// let mut log = SearchLog::new("this network, one epoch of training");
/// let found = search(offers, &config, &Device::flex(), &mut log, |candidates| {
///     candidates.iter().map(|c| Ok(accuracy(&c.mapping.plan()?))).collect()
/// }, |_, _, _| Ok::<_, MappingError>(()))?;
/// println!("{}", found.best.mapping);
/// # Ok(())
/// # }
/// ```
pub fn search<E: From<MappingError>>(
    offers: &Offers,
    config: &SearchConfig,
    device: &Device,
    log: &mut SearchLog,
    mut evaluate: impl FnMut(&[Selection]) -> Result<Vec<f64>, E>,
    mut keep: impl FnMut(&SearchLog, usize, usize) -> Result<(), E>,
) -> Result<Searched, E> {
    config.check()?;
    let counts: Vec<usize> = offers
        .layers
        .iter()
        .map(|layer| layer.offers.len())
        .collect();
    if counts.is_empty() {
        return Err(MappingError::Settings("there is no layer to choose for".into()).into());
    }
    let mut strategy: Box<dyn Strategy> = match config.method {
        SearchMethod::Policy => Box::new(Learner::new(&counts, config.seed, device)),
        SearchMethod::Random => Box::new(Random::new(&counts, config.seed)),
        SearchMethod::Evolution => Box::new(Evolution::new(&counts, config.seed)),
    };
    let mut history: Vec<Candidate> = Vec::new();
    let mut idle = 0;
    keep(log, 0, config.evaluations)?;
    while history.len() < config.evaluations && idle < SETTLED {
        let choices = strategy.propose(config.round);
        // Of candidates that are new to this search, as many as may still be evaluated.
        let mut fresh: Vec<&Vec<usize>> = Vec::new();
        for choice in &choices {
            let known = history.iter().any(|candidate| candidate.choice == *choice);
            let room = history.len() + fresh.len() < config.evaluations;
            if !known && !fresh.contains(&choice) && room {
                fresh.push(choice);
            }
        }
        idle = if fresh.is_empty() { idle + 1 } else { 0 };
        let unknown: Vec<&Vec<usize>> = fresh
            .iter()
            .copied()
            .filter(|choice| log.accuracy(choice).is_none())
            .collect();
        if !unknown.is_empty() {
            let selections: Vec<Selection> = unknown
                .iter()
                .map(|choice| offers.selection(choice))
                .collect();
            let accuracies = evaluate(&selections)?;
            assert!(
                accuracies.len() == unknown.len(),
                "{} accuracies of {} candidates",
                accuracies.len(),
                unknown.len()
            );
            for (choice, accuracy) in unknown.into_iter().zip(accuracies) {
                log.insert(choice.clone(), accuracy);
            }
        }
        for choice in fresh {
            let accuracy = log.accuracy(choice).unwrap_or(0.0);
            let ms = offers.selection(choice).ms;
            history.push(Candidate {
                choice: choice.clone(),
                ms,
                accuracy,
                reward: config.reward(accuracy, ms),
            });
        }
        // The last round may propose what there is no room for.
        let judged = choices.iter().filter_map(|choice| {
            let known = history
                .iter()
                .find(|candidate| candidate.choice == *choice)?;
            Some((choice.clone(), known.reward))
        });
        let (choices, rewards): (Vec<_>, Vec<_>) = judged.unzip();
        strategy.learn(&choices, &rewards);
        keep(log, history.len(), config.evaluations)?;
    }
    let by_reward = |a: &&Candidate, b: &&Candidate| a.reward.total_cmp(&b.reward);
    let best = history
        .iter()
        .max_by(by_reward)
        .expect("a first round has candidates");
    Ok(Searched {
        best: offers.selection(&best.choice),
        accuracy: best.accuracy,
        reward: best.reward,
        history,
    })
}
