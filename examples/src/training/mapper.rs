//! Training what a mapping chose, for a short while or at full length, and searches by it.

use std::cell::Cell;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;
use burn_admm::Plan;
use burn_admm::hardware::Effort;
use burn_admm::mapping::{
    MappingError, Offers, SearchConfig, SearchDevices, SearchLog, Searched, Selection, search,
};
use models::{Model, ModelConfig};
use serde_json::json;

use super::pipeline::{Dense, Pruned, prune};
use super::resnet::network;
use super::{Context, EpochRecord, Method, Recipe, TrainingError};
use crate::data::ImageDataset;
use crate::output::write_atomic;
use crate::progress::Progress;

/// A network, its data and how it is trained: what all choices of schemes share.
#[derive(Debug)]
pub struct Mapper<'a> {
    /// The network.
    pub config: ModelConfig,
    /// How it is trained.
    pub recipe: Recipe,
    /// How it is pruned.
    pub method: Method,
    /// The images.
    pub data: &'a ImageDataset,
    /// Where it is trained.
    pub device: Device,
    /// Where states are kept.
    pub folder: PathBuf,
    /// Whether to continue from them.
    pub resume: bool,
    /// Trained weights that the dense network starts from.
    pub weights: Option<PathBuf>,
    /// Epochs after which to stop.
    pub epochs_left: Cell<Option<usize>>,
}

impl Mapper<'_> {
    /// A fresh network.
    pub fn build(&self, device: &Device) -> Model {
        network(&self.config, device)
    }

    /// For so many epochs.
    ///
    /// # Errors
    /// As [`Context::new`].
    pub fn context<'a>(
        &'a self,
        recipe: &'a Recipe,
        epochs: usize,
    ) -> Result<Context<'a>, TrainingError> {
        let context = Context::new(self.data, recipe, &self.device, epochs)?;
        Ok(context
            .with_resume(self.resume)
            .with_weights(self.weights.clone())
            .with_stop_after(self.epochs_left.get()))
    }

    /// Trains the dense network under a plan, its states in a folder of that name, and gives it with its accuracy on
    /// the validation images. Short training is an epoch after projection.
    ///
    /// # Errors
    /// As [`prune`].
    pub fn train(
        &self,
        dense: &Dense<Model>,
        plan: &Plan,
        effort: Effort,
        folder: &str,
    ) -> Result<(Pruned<Model>, f64), TrainingError> {
        self.trained(dense, plan, effort, (folder, true))
    }

    fn trained(
        &self,
        dense: &Dense<Model>,
        plan: &Plan,
        effort: Effort,
        (folder, resumes): (&str, bool),
    ) -> Result<(Pruned<Model>, f64), TrainingError> {
        let (recipe, method) = match effort {
            Effort::Full => (self.recipe.clone(), self.method),
            Effort::Proxy => (brief(&self.recipe), Method::Oneshot),
        };
        let context = self.context(&recipe, recipe.pruning_epochs())?;
        let context = match resumes {
            true => context,
            // Too short to be worth a state, and too many.
            false => context.with_resume(false).quiet().without_tests(),
        };
        let folder = self.folder.join(folder);
        let build = |device: &Device| self.build(device);
        // Running statistics of a clone would be those of the dense network.
        let model = dense.model.valid().train();
        let pruned = prune(&context, build, model, plan, method, &folder)?;
        self.epochs_left.set(context.epochs_left());
        let accuracy = chosen(&pruned.results.retrain, pruned.results.epoch);
        Ok((pruned, accuracy))
    }

    /// Searches among offers with candidates trained for a short while, on several devices if there are several. What
    /// was evaluated is kept in `file`, for a search that goes on.
    ///
    /// # Errors
    /// Those of training and of files.
    pub fn search(
        &self,
        offers: &Offers,
        config: &SearchConfig,
        start: &Dense<Model>,
        devices: &mut SearchDevices,
        file: &Path,
    ) -> Result<Searched, TrainingError> {
        // Of a run that was started anew the times are other ones.
        let name = json!([offers, config, self.recipe]).to_string();
        let name = format!("{:016x}", hash(&name));
        let mut log = SearchLog::open(file, &name)
            .map_err(MappingError::from)?
            .table;
        let bar = Progress::new("search", config.evaluations as u64);
        let mut shown = 0;
        let found = search(
            offers,
            config,
            &self.device,
            &mut log,
            |candidates| self.evaluated(candidates, start, devices),
            |log, done, _| {
                bar.inc((done - shown) as u64);
                shown = done;
                Ok::<_, TrainingError>(log.save(file).map_err(MappingError::from)?)
            },
        )?;
        bar.finish();
        println!(
            "the best of {} candidates: {:.3} ms, {:.2} % of the validation images after short training",
            found.history.len(),
            found.best.ms,
            100.0 * found.accuracy
        );
        Ok(found)
    }

    /// What the candidates of a round reach after short training.
    fn evaluated(
        &self,
        candidates: &[Selection],
        start: &Dense<Model>,
        devices: &mut SearchDevices,
    ) -> Result<Vec<f64>, TrainingError> {
        let dense = validated(start);
        if self.epochs_left.get().is_some() {
            // Epochs are counted, so one comes after the other.
            let one = |selection: &Selection| {
                let plan = selection.mapping.plan()?;
                if plan.rules().is_empty() {
                    return Ok(dense);
                }
                let trained = self.trained(start, &plan, Effort::Proxy, ("candidate", false));
                Ok(trained?.1)
            };
            return candidates.iter().map(one).collect();
        }
        let recipe = brief(&self.recipe);
        let (data, config, folder) = (self.data, &self.config, &self.folder);
        let one = |model: Model, selection: &Selection, device: &Device| {
            let plan = selection.mapping.plan()?;
            if plan.rules().is_empty() {
                return Ok(dense);
            }
            let context = Context::new(data, &recipe, device, recipe.pruning_epochs())?;
            let context = context.quiet().without_tests();
            let build = |device: &Device| network(config, device);
            // Several are written at the same time, and none is needed afterwards.
            let folder = folder.join(format!("candidate-{:016x}", hash(&plan.to_json())));
            let pruned = prune(&context, build, model, &plan, Method::Oneshot, &folder)?;
            // One that stays does no harm.
            let _ = fs::remove_dir_all(&folder);
            Ok::<f64, TrainingError>(chosen(&pruned.results.retrain, pruned.results.epoch))
        };
        let accuracies = devices.evaluate(&start.model, candidates, one);
        for warning in devices.warnings() {
            eprintln!("warning: {warning}");
        }
        accuracies
    }

    /// Writes a text into the folder.
    ///
    /// # Errors
    /// Those of files.
    pub fn text(&self, name: &str, text: &str) -> Result<(), TrainingError> {
        write_atomic(&self.folder.join(name), |file| {
            file.write_all(text.as_bytes())
        })?;
        Ok(())
    }
}

/// An epoch after projection.
fn brief(recipe: &Recipe) -> Recipe {
    Recipe {
        admm_iterations: 0,
        retrain_epochs: 1,
        ..recipe.clone()
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// On the validation images, in the epoch that was chosen.
fn chosen(history: &[EpochRecord], epoch: usize) -> f64 {
    let record = history.iter().find(|record| record.epoch == epoch);
    record.map_or(0.0, |record| record.valid_accuracy)
}

/// The accuracy of a dense network on the validation images, in the epoch that was chosen.
#[must_use]
pub fn validated(dense: &Dense<Model>) -> f64 {
    chosen(&dense.history, dense.epoch)
}
