//! Stages from JSON that nobody vouches for.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::stage::NAMES;
use super::{
    AdmmPruning, Choose, GradualPruning, OneShot, Pack, Quantise, RecipeError, Shrink, Stage, Train,
};

/// Bytes of a recipe at most.
pub(super) const MOST_BYTES: usize = 1 << 18;

/// The fields of a stage that are still to be read.
struct Fields {
    stage: usize,
    name: String,
    left: Map<String, Value>,
    known: Vec<&'static str>,
}

impl Fields {
    fn wrong(&self, field: &str, reason: impl ToString) -> RecipeError {
        RecipeError::Field {
            stage: self.stage,
            name: self.name.clone(),
            field: field.to_owned(),
            reason: reason.to_string(),
        }
    }

    /// The value of a field, if it is there.
    fn maybe<T: DeserializeOwned>(
        &mut self,
        field: &'static str,
    ) -> Result<Option<T>, RecipeError> {
        self.known.push(field);
        match self.left.remove(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value)
                .map(Some)
                .map_err(|error| self.wrong(field, error)),
        }
    }

    fn or<T: DeserializeOwned>(
        &mut self,
        field: &'static str,
        default: T,
    ) -> Result<T, RecipeError> {
        Ok(self.maybe(field)?.unwrap_or(default))
    }

    fn need<T: DeserializeOwned>(&mut self, field: &'static str) -> Result<T, RecipeError> {
        self.maybe(field)?
            .ok_or_else(|| self.wrong(field, "it is missing"))
    }

    /// Refuses fields that nobody asked for.
    fn end(self) -> Result<(), RecipeError> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(field) => Err(self.wrong(
                field,
                format!("there is no such field{}", like(field, &self.known)),
            )),
        }
    }
}

/// Which of these was meant, if it is clear.
fn like(text: &str, known: &[&str]) -> String {
    let near = known
        .iter()
        .map(|known| (strsim::jaro_winkler(text, known), known))
        .filter(|(near, _)| *near > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match near {
        Some((_, known)) => format!("; did you mean `{known}`?"),
        None => format!("; there are `{}`", known.join("`, `")),
    }
}

/// The stages of a recipe, not yet checked.
pub(super) fn stages(recipe: Value) -> Result<Vec<Stage>, RecipeError> {
    let Value::Object(mut recipe) = recipe else {
        return Err(RecipeError::Json(
            "expected an object with `stages`".to_owned(),
        ));
    };
    let stages = recipe.remove("stages");
    if let Some(field) = recipe.keys().next() {
        return Err(RecipeError::Json(format!(
            "there is no field `{field}` beside `stages`"
        )));
    }
    match stages {
        Some(Value::Array(stages)) => {
            super::check::count(stages.len())?;
            stages
                .into_iter()
                .enumerate()
                .map(|(at, value)| stage(at, value))
                .collect()
        }
        Some(_) => Err(RecipeError::Json("`stages` is no list".to_owned())),
        None => Err(RecipeError::Json("there is no list `stages`".to_owned())),
    }
}

fn stage(at: usize, value: Value) -> Result<Stage, RecipeError> {
    let mut fields = Fields {
        stage: at,
        name: String::new(),
        left: Map::new(),
        known: Vec::new(),
    };
    let Value::Object(left) = value else {
        return Err(fields.wrong("stage", "a stage is an object with its name here"));
    };
    fields.left = left;
    // A long name is none, and is not repeated.
    let name: String = fields.need("stage")?;
    fields.name = name.chars().take(40).collect();
    let stage = match name.as_str() {
        "choose" => {
            let mut choose = Choose::new(fields.need("budget")?);
            choose.by = fields.or("by", choose.by)?;
            choose.options = fields.or("options", choose.options)?;
            choose.difficulty = fields.or("difficulty", choose.difficulty)?;
            choose.evaluations = fields.or("evaluations", choose.evaluations)?;
            choose.seed = fields.or("seed", choose.seed)?;
            choose.short_epochs = fields.or("short_epochs", choose.short_epochs)?;
            choose.full_epochs = fields.or("full_epochs", choose.full_epochs)?;
            Stage::from(choose)
        }
        "train" => Stage::from(Train {
            epochs: fields.need("epochs")?,
            lr: fields.maybe("lr")?,
        }),
        "admm" => Stage::from(AdmmPruning {
            plan: fields.maybe("plan")?,
            config: fields.or("config", Default::default())?,
            iterations: fields.need("iterations")?,
            epochs: fields.or("epochs", 1)?,
            lr: fields.maybe("lr")?,
        }),
        "one_shot" => Stage::from(OneShot {
            plan: fields.maybe("plan")?,
        }),
        "gradual" => Stage::from(GradualPruning {
            plan: fields.maybe("plan")?,
            epochs: fields.need("epochs")?,
            initial: fields.or("initial", 0.0)?,
            lr: fields.maybe("lr")?,
        }),
        "quantise" => Stage::from(Quantise {
            plan: fields.need("plan")?,
            config: fields.or("config", Default::default())?,
            iterations: fields.or("iterations", 0)?,
            epochs: fields.or("epochs", 1)?,
            tune_epochs: fields.or("tune_epochs", 0)?,
            lr: fields.maybe("lr")?,
        }),
        "shrink" => Stage::from(Shrink {
            options: fields.or("options", Default::default())?,
        }),
        "pack" => {
            let pack = Pack::default();
            Stage::from(Pack {
                choice: fields.or("choice", pack.choice)?,
                min_sparsity: fields.or("min_sparsity", pack.min_sparsity)?,
                tolerance: fields.or("tolerance", pack.tolerance)?,
            })
        }
        _ => {
            let reason = format!("there is no such stage{}", like(&fields.name, &NAMES));
            return Err(fields.wrong("stage", reason));
        }
    };
    fields.end()?;
    Ok(stage)
}
