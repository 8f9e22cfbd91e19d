//! One stage of training on recordings, epoch by epoch, saved after each.

use std::cell::Cell;
use std::path::PathBuf;

use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Device;
use burn_admm::{Admm, AdmmInfo, Masks};
use models::SpeechGru;
use serde::{Deserialize, Serialize};

use super::{SpeechScore, score};
use crate::data::speech::{Padding, SpeechDataset, SpeechLoader};
use crate::progress::Progress;
use crate::training::{EpochRecord, LearningRate, Recipe, Snapshots, TrainingError, hits, short};

/// What all stages of one seed share.
#[derive(Debug)]
pub struct SpeechContext<'a> {
    /// The recordings.
    pub data: &'a SpeechDataset,
    /// All numbers.
    pub recipe: Recipe,
    /// The device, with autodiff.
    pub device: Device,
    /// Where each stage has a folder.
    pub folder: PathBuf,
    /// Whether to continue from saved states.
    pub resume: bool,
    /// How many epochs more may be trained before the run stops: what `--stop-after` asks for.
    pub epochs_left: &'a Cell<Option<usize>>,
}

/// Epochs with the same purpose.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Its name, and that of its folder.
    pub name: String,
    /// How many.
    pub epochs: usize,
    /// Number of the first one in the whole run: the order of the recordings goes on.
    pub first_epoch: usize,
    /// Learning rate of the first step.
    pub lr: f64,
    /// Epochs after which the cosine of the learning rate starts again.
    pub period: usize,
}

/// What a stage keeps beside its weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SpeechProgress {
    /// All epochs so far.
    pub history: Vec<EpochRecord>,
    /// The best of them, from 1.
    pub best_epoch: usize,
    /// Its score on the validation recordings.
    pub best: SpeechScore,
}

/// What a stage ends with.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The network after the last epoch.
    pub last: SpeechGru,
    /// The one that was best on the validation recordings; the last one where there are none.
    pub best: SpeechGru,
    /// Epochs and scores.
    pub progress: SpeechProgress,
}

impl SpeechContext<'_> {
    /// The score on the test recordings.
    ///
    /// # Errors
    /// [`TrainingError::Read`] if the device fails.
    pub fn test(&self, model: &SpeechGru) -> Result<SpeechScore, TrainingError> {
        score(model, self.data, &self.data.test, &self.device)
    }

    fn loader(&self) -> SpeechLoader<'_> {
        let loader = SpeechLoader::train(self.data, self.recipe.batch, self.recipe.seed);
        loader.with_padding(Padding::Longest)
    }
}

impl Stage {
    /// Trains `model`, or what was saved of it. `fresh` is any network of the same structure, masks
    /// included, into which a saved one is loaded; with `admm`, its gradient is added at every step,
    /// and it is updated after every [`admm_epochs`](Recipe::admm_epochs).
    ///
    /// # Errors
    /// [`TrainingError::Diverged`] and [`TrainingError::Admm`] for a loss that is no number,
    /// [`TrainingError::State`] for saved states that cannot be read, [`TrainingError::Stopped`] where
    /// no epochs are left; otherwise those of saving and of the device.
    pub fn run(
        &self,
        context: &SpeechContext,
        mut model: SpeechGru,
        fresh: &SpeechGru,
        mut admm: Option<&mut Admm>,
    ) -> Result<Trained, TrainingError> {
        let snapshots = Snapshots::open(context.folder.join(&self.name), self.epochs)?;
        let mut optimizer = context.recipe.optimizer.init();
        let (mut progress, mut best) = (SpeechProgress::default(), model.clone());
        let saved = snapshots.start::<SpeechProgress>(context.resume)?;
        if let Some(saved) = saved {
            (model, best) = saved.model((fresh.clone(), fresh.clone()))?;
            optimizer = saved.optimizer(optimizer)?;
            if let Some(admm) = &mut admm {
                saved.restore(admm)?;
            }
            progress = saved.progress.clone();
            println!(
                "{}: continued after epoch {} of {}",
                self.name,
                progress.history.len(),
                self.epochs
            );
        }
        while progress.history.len() < self.epochs {
            let left = context.epochs_left.get();
            if left == Some(0) {
                return Err(TrainingError::Stopped {
                    stage: self.name.clone(),
                    epoch: progress.history.len(),
                });
            }
            let done = progress.history.len() + 1;
            let mut record;
            (model, record) =
                self.epoch(context, model, &mut optimizer, admm.as_deref(), done - 1)?;
            let mut info = None;
            if let Some(admm) = &mut admm
                && done.is_multiple_of(context.recipe.admm_epochs)
            {
                info = Some(admm.update(&model)?);
            }
            let valid = score(&model, context.data, &context.data.valid, &context.device)?;
            note(&mut record, valid, info.as_ref(), &model);
            if done == 1 || context.data.valid.is_empty() || valid.beats(&progress.best) {
                (progress.best_epoch, progress.best) = (done, valid);
                best = model.clone();
            }
            println!("{}", self.line(&record, info.as_ref()));
            progress.history.push(record);
            let both = (model.clone(), best.clone());
            snapshots.save(done, &progress, &both, &optimizer, admm.as_deref())?;
            context.epochs_left.set(left.map(|left| left - 1));
        }
        Ok(Trained {
            last: model,
            best,
            progress,
        })
    }

    /// Trains one epoch, counted from 0.
    fn epoch(
        &self,
        context: &SpeechContext,
        mut model: SpeechGru,
        optimizer: &mut ModuleOptimizer,
        admm: Option<&Admm>,
        epoch: usize,
    ) -> Result<(SpeechGru, EpochRecord), TrainingError> {
        let loader = context.loader();
        let rate = LearningRate {
            peak: self.lr,
            warmup: 0,
            period: self.period * loader.batches(),
        };
        let label = format!("{} {}/{}", self.name, epoch + 1, self.epochs);
        let progress = Progress::new(&label, loader.batches() as u64);
        let cross_entropy = CrossEntropyLossConfig::new().init(&context.device);
        let (mut sum, mut right, mut seen) = (0.0, 0, 0);
        let batches = loader.epoch(self.first_epoch + epoch, &context.device);
        for (index, batch) in batches.enumerate() {
            let lr = rate.at(epoch * loader.batches() + index);
            let logits = model.forward(batch.features, batch.lengths);
            let loss = cross_entropy.forward(logits.clone(), batch.labels);
            let value = f64::from(loss.clone().into_scalar::<f32>());
            if let Some(admm) = admm {
                admm.check_loss(value)?;
            } else if !value.is_finite() {
                return Err(TrainingError::Diverged {
                    stage: self.name.clone(),
                    epoch: epoch + 1,
                    loss: value,
                    lr,
                });
            }
            right += hits(&logits.inner(), &batch.targets)?;
            let mut gradients = GradientsParams::from_grads(loss.backward(), &model);
            if let Some(admm) = admm {
                gradients = admm.add_gradient(&model, gradients);
            }
            model = optimizer.step(lr, model, gradients);
            seen += batch.targets.len();
            sum += value * batch.targets.len() as f64;
            progress.message(format!("loss {:.3}", sum / seen as f64));
            progress.inc(1);
        }
        progress.finish();
        let record = EpochRecord {
            epoch: epoch + 1,
            loss: short(sum / seen.max(1) as f64),
            train_accuracy: short(right as f64 / seen.max(1) as f64),
            valid_accuracy: 0.0,
            primal_residual: None,
            dual_residual: None,
            sparsity: None,
        };
        Ok((model, record))
    }

    fn line(&self, record: &EpochRecord, info: Option<&AdmmInfo>) -> String {
        let mut line = format!(
            "{} {}/{}: loss {:.3}, train {:.1} %, validation {:.1} %",
            self.name,
            record.epoch,
            self.epochs,
            record.loss,
            100.0 * record.train_accuracy,
            100.0 * record.valid_accuracy
        );
        if let Some(info) = info {
            line.push_str(&format!(
                ", rho {:.1e}, residuals {:.3} and {:.3}",
                info.rho, info.primal_residual, info.dual_residual
            ));
        }
        line
    }
}

/// What is known only after an epoch.
fn note(record: &mut EpochRecord, valid: SpeechScore, info: Option<&AdmmInfo>, model: &SpeechGru) {
    record.valid_accuracy = valid.accuracy;
    record.primal_residual = info.map(|info| short(info.primal_residual));
    record.dual_residual = info.map(|info| short(info.dual_residual));
    let masks = Masks::attached(model);
    let all: usize = masks.layers().iter().map(|layer| layer.keep.len()).sum();
    record.sparsity = (all > 0).then(|| short(1.0 - masks.nnz() as f64 / all as f64));
}
