//! What a recipe would do.

use burn::module::Module;
use burn_sparse::nn::weights;
use serde::Serialize;

use super::{Recipe, RecipeError, Stage, StageError};
use crate::params::{Role, parameters};
use crate::table::Table;
use crate::{AdmmError, Plan};

/// What a stage would do to a parameter, or why nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExplainedParameter {
    /// Its path.
    pub path: String,
    /// What would become of it.
    pub what: String,
    /// Why.
    pub why: String,
}

/// What a stage would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExplainedStage {
    /// Which, counted from 0.
    pub stage: usize,
    /// Its name.
    pub name: String,
    /// In a sentence.
    pub what: String,
    /// The parameters that it looks at, in traversal order; none where it trains them all.
    pub parameters: Vec<ExplainedParameter>,
}

/// What a recipe would do to a model; see [`Recipe::explain`]. Prints as a list with tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RecipeExplanation {
    /// The stages, in their order.
    pub stages: Vec<ExplainedStage>,
}

impl core::fmt::Display for RecipeExplanation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for stage in &self.stages {
            writeln!(f, "{}. {}: {}", stage.stage, stage.name, stage.what)?;
            if !stage.parameters.is_empty() {
                let mut table = Table::new(["parameter", "becomes", "why"]);
                for p in &stage.parameters {
                    table.row([p.path.clone(), p.what.clone(), p.why.clone()]);
                }
                write!(f, "{table}")?;
            }
        }
        Ok(())
    }
}

impl Recipe {
    /// Says what each stage would do to which parameter of a model; nothing is trained, and the model stays as it is.
    /// What is chosen, and which channels end up empty, is only known when it runs.
    ///
    /// # Errors
    /// [`RecipeError::Stage`] for a plan that does not fit the model, with the stage that asks for it.
    pub fn explain<M: Module>(&self, model: &M) -> Result<RecipeExplanation, RecipeError> {
        let stages = self.stages().iter().enumerate().map(|(at, stage)| {
            let failed = |source| RecipeError::Stage {
                stage: at,
                name: stage.name(),
                source: Box::new(source),
            };
            let (what, parameters) = explain(stage, model).map_err(failed)?;
            Ok(ExplainedStage {
                stage: at,
                name: stage.name().to_owned(),
                what,
                parameters,
            })
        });
        Ok(RecipeExplanation {
            stages: stages.collect::<Result<_, RecipeError>>()?,
        })
    }
}

type Explained = (String, Vec<ExplainedParameter>);

fn explain<M: Module>(stage: &Stage, model: &M) -> Result<Explained, StageError> {
    Ok(match stage {
        Stage::Choose(choose) => {
            let what = format!("a plan within {}, when it runs", choose.budget);
            (what, Vec::new())
        }
        Stage::Train(train) => {
            let what = format!(
                "{} epochs, under the masks and levels that there are",
                train.epochs
            );
            (what, Vec::new())
        }
        Stage::Admm(admm) => {
            let (iterations, epochs) = (admm.iterations, admm.epochs);
            let what = format!("{iterations} outer iterations of {epochs} epochs, then projection");
            pruned(what, admm.plan.as_ref(), model)?
        }
        Stage::OneShot(one_shot) => pruned(
            "projection at once".to_owned(),
            one_shot.plan.as_ref(),
            model,
        )?,
        Stage::Gradual(gradual) => {
            let what = format!("masks that grow for {} epochs", gradual.epochs);
            pruned(what, gradual.plan.as_ref(), model)?
        }
        Stage::Quantise(quantise) => {
            let resolved = quantise.plan.resolve(model)?;
            let parameters = parameters(model).into_iter().map(|parameter| {
                let levels = resolved.layer(&parameter.path).and_then(|l| l.quantization);
                let (what, why) = match levels {
                    Some(levels) => (levels.to_string(), "its plan gives it levels"),
                    None => ("no levels".to_owned(), "its plan gives it none"),
                };
                ExplainedParameter {
                    path: parameter.path,
                    what,
                    why: why.to_owned(),
                }
            });
            let what = format!(
                "{} epochs towards levels, rounding, {} epochs on them",
                quantise.towards(),
                quantise.tune_epochs
            );
            (what, parameters.collect())
        }
        Stage::Shrink(_) => {
            let what = "channels that carry nothing by then are cut out".to_owned();
            (what, Vec::new())
        }
        Stage::Pack(pack) => {
            let packable: Vec<String> =
                weights(model).into_iter().map(|named| named.path).collect();
            let weights = parameters(model).into_iter().filter(|parameter| {
                !matches!(parameter.role, Role::Vector | Role::Norm | Role::Embedding)
            });
            let parameters = weights.map(|parameter| {
                let known = packable.contains(&parameter.path);
                let [what, why] = match known {
                    true => ["packed or dense", "a layer of burn_sparse::nn"],
                    false => ["dense", "no layer of burn_sparse::nn"],
                };
                ExplainedParameter {
                    path: parameter.path,
                    what: what.to_owned(),
                    why: why.to_owned(),
                }
            });
            let what = format!(
                "layers with {:.0} % of zeros or more, verified to {:e}",
                100.0 * pack.min_sparsity,
                pack.tolerance
            );
            (what, parameters.collect())
        }
    })
}

fn pruned<M: Module>(
    what: String,
    plan: Option<&Plan>,
    model: &M,
) -> Result<Explained, StageError> {
    let Some(plan) = plan else {
        return Ok((format!("{what}, by the plan that is chosen"), Vec::new()));
    };
    let explained = plan.explain(model)?;
    if explained.parameters.iter().all(|p| p.sparsity.is_none()) {
        return Err(AdmmError::NothingConstrained.into());
    }
    let parameters = explained
        .parameters
        .into_iter()
        .map(|p| ExplainedParameter {
            what: match p.sparsity {
                Some(sparsity) => format!("{sparsity}: {} of {} stay", p.nnz, p.weights),
                None => "as it is".to_owned(),
            },
            path: p.path,
            why: p.reason,
        });
    Ok((what, parameters.collect()))
}
