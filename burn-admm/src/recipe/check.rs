//! What no recipe may say.

use super::{Choose, ChooseBy, RecipeError, Stage};
use crate::AdmmConfig;
use crate::mapping::MapBudget;

/// Stages of a recipe at most.
pub(super) const MOST_STAGES: usize = 64;

/// Epochs and outer iterations of a stage at most.
const MOST_EPOCHS: usize = 100_000;

/// Candidates of a search at most.
const MOST_EVALUATIONS: usize = 100_000;

/// Rules of a plan at most, and families and sparsities of a choice.
const MOST_RULES: usize = 4_096;

pub(super) fn count(stages: usize) -> Result<(), RecipeError> {
    match (1..=MOST_STAGES).contains(&stages) {
        true => Ok(()),
        false => Err(RecipeError::Stages(stages)),
    }
}

/// Checks the numbers of every stage, then what stages say together.
pub(super) fn check(stages: &[Stage]) -> Result<(), RecipeError> {
    count(stages.len())?;
    for (at, stage) in stages.iter().enumerate() {
        let problem = numbers(stage);
        if let Some((field, reason)) = problem {
            return Err(wrong(at, stage, field, reason));
        }
    }
    order(stages)
}

fn wrong(stage: usize, of: &Stage, field: &str, reason: String) -> RecipeError {
    RecipeError::Field {
        stage,
        name: of.name().to_owned(),
        field: field.to_owned(),
        reason,
    }
}

type Problem = Option<(&'static str, String)>;

fn numbers(stage: &Stage) -> Problem {
    let rules = stage
        .plan()
        .flatten()
        .and_then(|plan| within("plan", plan.rules().len(), 0, MOST_RULES, "rules"));
    rules.or_else(|| match stage {
        Stage::Choose(choose) => of_choice(choose),
        Stage::Train(train) => epochs("epochs", train.epochs).or_else(|| rate(train.lr)),
        Stage::Admm(admm) => epochs("iterations", admm.iterations)
            .or_else(|| epochs("epochs", admm.epochs))
            .or_else(|| config(&admm.config))
            .or_else(|| rate(admm.lr)),
        Stage::OneShot(_) => None,
        Stage::Gradual(gradual) => epochs("epochs", gradual.epochs)
            .or_else(|| part("initial", gradual.initial))
            .or_else(|| rate(gradual.lr)),
        Stage::Quantise(quantise) => within(
            "iterations",
            quantise.iterations,
            0,
            MOST_EPOCHS,
            "iterations",
        )
        .or_else(|| epochs("epochs", quantise.epochs))
        .or_else(|| {
            within(
                "tune_epochs",
                quantise.tune_epochs,
                0,
                MOST_EPOCHS,
                "epochs",
            )
        })
        .or_else(|| config(&quantise.config))
        .or_else(|| rate(quantise.lr)),
        Stage::Shrink(shrink) => shrink
            .options
            .validate()
            .err()
            .map(|error| ("options", error.to_string())),
        Stage::Pack(pack) => {
            let tolerance = pack.tolerance;
            if !(0.0..=1.0).contains(&pack.min_sparsity) {
                let reason = format!("it must lie from 0 to 1, got {}", pack.min_sparsity);
                Some(("min_sparsity", reason))
            } else if !(tolerance.is_finite() && tolerance > 0.0) {
                let reason = format!("it must be finite and above 0, got {tolerance}");
                Some(("tolerance", reason))
            } else {
                None
            }
        }
    })
}

fn within(field: &'static str, value: usize, least: usize, most: usize, what: &str) -> Problem {
    (!(least..=most).contains(&value)).then(|| {
        (
            field,
            format!("expected {least} to {most} {what}, got {value}"),
        )
    })
}

fn epochs(field: &'static str, value: usize) -> Problem {
    within(field, value, 1, MOST_EPOCHS, field)
}

fn part(field: &'static str, value: f64) -> Problem {
    (!(0.0..1.0).contains(&value))
        .then(|| (field, format!("it must lie from 0 to below 1, got {value}")))
}

fn rate(lr: Option<f64>) -> Problem {
    let lr = lr.filter(|lr| !(lr.is_finite() && *lr > 0.0))?;
    Some(("lr", format!("it must be finite and above 0, got {lr}")))
}

fn config(config: &AdmmConfig) -> Problem {
    let error = config.validate().err()?;
    Some(("config", error.to_string()))
}

fn of_choice(choose: &Choose) -> Problem {
    // As it would be read: one that was built may say nothing.
    if let Err(error) = choose.budget.to_string().parse::<MapBudget>() {
        return Some(("budget", error.to_string()));
    }
    let MapBudget {
        latency,
        size,
        loss,
        ..
    } = choose.budget;
    if choose.by != ChooseBy::Cost && (latency.is_none() || size.is_some() || loss.is_some()) {
        let reason = "rules and searches keep a bound on latency, and no other; choose by `cost`";
        return Some(("budget", reason.to_owned()));
    }
    let options = &choose.options;
    within("options", options.families.len(), 1, MOST_RULES, "families")
        .or_else(|| {
            let sparsities = options.sparsities.len();
            within("options", sparsities, 1, MOST_RULES, "sparsities")
        })
        .or_else(|| options.sparsities.iter().find_map(|&s| part("options", s)))
        .or_else(|| {
            within(
                "evaluations",
                choose.evaluations,
                1,
                MOST_EVALUATIONS,
                "evaluations",
            )
        })
        .or_else(|| epochs("short_epochs", choose.short_epochs))
        .or_else(|| epochs("full_epochs", choose.full_epochs))
}

/// What has been met on the way through the stages.
#[derive(Default)]
struct Met {
    /// The choice, until a stage follows it.
    unused: Option<usize>,
    chosen: bool,
    pruned: bool,
    quantised: bool,
    shrunk: bool,
    packed: Option<usize>,
}

fn order(stages: &[Stage]) -> Result<(), RecipeError> {
    let mut met = Met::default();
    for (at, stage) in stages.iter().enumerate() {
        let name = stage.name();
        let refused = |reason: &str| {
            Err(RecipeError::Order {
                stage: at,
                name,
                reason: reason.to_owned(),
            })
        };
        if let Some(packed) = met.packed {
            if matches!(stage, Stage::Pack(_)) {
                return refused("the network is packed already; pack once, at the end");
            }
            return Err(RecipeError::Order {
                stage: packed,
                name: stages[packed].name(),
                reason: format!("packing must be the last stage, and `{name}` follows"),
            });
        }
        if met.shrunk && !matches!(stage, Stage::Pack(_)) {
            return refused("after channels were cut out only packing may follow");
        }
        if let Some(plan) = stage.plan() {
            if met.quantised {
                return refused("masks would take the levels away; quantise what was pruned");
            }
            if plan.is_none() && !met.chosen {
                let reason = "it is missing, and no stage before has chosen one".to_owned();
                return Err(wrong(at, stage, "plan", reason));
            }
            if plan.is_none() {
                met.unused = None;
            }
            met.pruned = true;
        }
        match stage {
            Stage::Choose(_) => {
                if met.chosen {
                    return refused("a plan was chosen already");
                }
                if met.pruned || met.quantised {
                    return refused("a plan is chosen for the dense network; put it before");
                }
                met.chosen = true;
                met.unused = Some(at);
            }
            Stage::Quantise(_) if met.quantised => {
                return refused("the weights are on levels already");
            }
            Stage::Quantise(_) => met.quantised = true,
            Stage::Shrink(_) => met.shrunk = true,
            Stage::Pack(_) => met.packed = Some(at),
            Stage::Train(_) | Stage::Admm(_) | Stage::OneShot(_) | Stage::Gradual(_) => {}
        }
    }
    match met.unused {
        None => Ok(()),
        Some(stage) => Err(RecipeError::Order {
            stage,
            name: stages[stage].name(),
            reason: "no later stage follows what it chooses; prune without a `plan`".to_owned(),
        }),
    }
}
