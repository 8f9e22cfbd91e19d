//! Budgets with a bound on accuracy, which only training tells.

use serde::Serialize;

use super::{MapBudget, MappingError, Offers, Selection};
use crate::hardware::Effort;

/// Points at which a front is looked at.
const POINTS: usize = 24;

/// Steps that are tried beyond what short training found, while training at full length keeps the bound.
const FASTER: usize = 3;

/// What is left where no scheme will do.
const DENSE: &str = "the dense network";

/// A network that was trained on the way.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Trial {
    /// Milliseconds, as predicted.
    pub ms: f64,
    /// Bytes, as predicted.
    pub bytes: f64,
    /// How long it was trained.
    pub effort: Effort,
    /// What it reached, as a fraction.
    pub accuracy: f64,
}

/// The network that a budget asked for.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Found {
    /// What each layer becomes.
    pub selection: Selection,
    /// Its accuracy after training at full length.
    pub accuracy: f64,
    /// All that was trained, in order.
    pub trials: Vec<Trial>,
}

/// Finds the network that a budget asks for, and trains it.
///
/// `train` trains a selection, for a short while or at full length, and gives its accuracy on images that are not
/// those of the final test. `dense` are accuracies of the dense network: that which `train` starts from, with which
/// short training is compared, and the one that trained on for as many epochs as training at full length takes.
///
/// - Without a bound on accuracy, what [`Offers::select`] gives is trained at full length, once.
/// - With nothing but that bound, the fastest network of the [front](Offers::front) that keeps it: found by
///   halving the front with short training, confirmed at full length, a step slower where that fails, and up to
///   three faster where it does not.
/// - With both, the selection is trained at full length and must keep the bound.
///
/// # Errors
/// Those of `train`, and [`MappingError::Unreachable`]: of [`Offers::select`], or with the fastest network that
/// keeps the bound on accuracy after short training.
///
/// # Example
/// ```no_run
/// use burn_admm::hardware::Effort;
/// use burn_admm::mapping::{MapBudget, MappingError, Offers, within_budget};
/// # fn train(_: &burn_admm::Plan, _: Effort) -> Result<f64, MappingError> { Ok(0.9) }
/// # fn of(offers: Offers) -> Result<(), MappingError> {
/// let budget: MapBudget = "latency=0.5x,loss=1.0".parse()?;
/// let found = within_budget(&offers, &budget, [0.91, 0.92], |selection, effort| {
///     train(&selection.mapping.plan()?, effort)
/// })?;
/// println!("{}\naccuracy {:.4}", found.selection.mapping, found.accuracy);
/// # Ok(())
/// # }
/// ```
pub fn within_budget<E: From<MappingError>>(
    offers: &Offers,
    budget: &MapBudget,
    dense: [f64; 2],
    mut train: impl FnMut(&Selection, Effort) -> Result<f64, E>,
) -> Result<Found, E> {
    let mut trials = Vec::new();
    let mut train = |selection: &Selection, effort| {
        let accuracy = train(selection, effort)?;
        trials.push(Trial {
            ms: selection.ms,
            bytes: selection.bytes,
            effort,
            accuracy,
        });
        Ok::<f64, E>(accuracy)
    };
    // A hair of rounding is no loss.
    let keeps = |accuracy: f64, effort: Effort| {
        let dense = dense[usize::from(effort == Effort::Full)];
        let lost = 100.0 * (dense - accuracy);
        budget.loss.is_none_or(|points| lost <= points + 1e-9)
    };
    let bounded = budget.latency.is_some() || budget.size.is_some();
    let (selection, accuracy) = if bounded {
        let selection = offers.select(budget)?;
        let accuracy = train(&selection, Effort::Full)?;
        if !keeps(accuracy, Effort::Full) {
            let mut slower = offers.front(POINTS);
            let bytes = budget.size.map(|bound| bound.of(offers.dense()[1]));
            let small = |point: &Selection| bytes.is_none_or(|most| point.bytes <= most);
            slower.retain(|point| point.ms > selection.ms && small(point));
            let at = fastest(&slower, |point| {
                Ok::<_, E>(keeps(train(point, Effort::Proxy)?, Effort::Proxy))
            })?;
            let [ms, _] = offers.dense();
            let nearest = match slower.get(at) {
                Some(point) if at > 0 => format!(
                    "latency={:.2}x ({:.3} ms), which keeps the accuracy after short training",
                    point.ms / ms,
                    point.ms
                ),
                _ if bytes.is_none() => DENSE.to_owned(),
                _ => "unknown: no larger network was tried".to_owned(),
            };
            let lost = 100.0 * (dense[1] - accuracy);
            return Err(MappingError::Unreachable {
                asked: format!("{budget} (which lost {lost:.2} points)"),
                nearest,
            }
            .into());
        }
        (selection, accuracy)
    } else {
        let front = offers.front(POINTS);
        let mut at = fastest(&front, |point| {
            Ok::<_, E>(keeps(train(point, Effort::Proxy)?, Effort::Proxy))
        })?;
        let mut best: Option<(Selection, f64)> = None;
        let mut faster = 0;
        while at > 0 && at < front.len() && faster <= FASTER {
            let accuracy = train(&front[at], Effort::Full)?;
            if keeps(accuracy, Effort::Full) {
                best = Some((front[at].clone(), accuracy));
                at += 1;
                faster += 1;
            } else if best.is_some() {
                break;
            } else {
                at -= 1;
            }
        }
        best.ok_or_else(|| MappingError::Unreachable {
            asked: budget.to_string(),
            nearest: DENSE.to_owned(),
        })?
    };
    Ok(Found {
        selection,
        accuracy,
        trials,
    })
}

/// The last point of a front that keeps a bound, if slower ones do when faster ones do; the first is taken to.
fn fastest<E>(
    front: &[Selection],
    mut keeps: impl FnMut(&Selection) -> Result<bool, E>,
) -> Result<usize, E> {
    let (mut well, mut badly) = (0, front.len());
    while well + 1 < badly {
        let middle = usize::midpoint(well, badly);
        if keeps(&front[middle])? {
            well = middle;
        } else {
            badly = middle;
        }
    }
    Ok(well)
}
