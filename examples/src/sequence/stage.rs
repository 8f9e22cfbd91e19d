//! One stage of training, epoch by epoch, saved after each.

use std::cell::Cell;
use std::path::PathBuf;

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Device;
use burn_admm::baseline::Gradual;
use burn_admm::{Admm, AdmmInfo, Masks};
use serde::{Deserialize, Serialize};

use super::{Lessons, Part, Score, score};
use crate::data::mix;
use crate::progress::Progress;
use crate::training::{EpochRecord, LearningRate, Recipe, Snapshots, TrainingError, hits, short};

/// What all stages of one seed share.
#[derive(Debug)]
pub struct Context<'a, L: Lessons> {
    /// The data set.
    pub data: &'a L,
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
    /// Number of the first one in the whole run: the order of the items goes on.
    pub first_epoch: usize,
    /// Learning rate of the first step.
    pub lr: f64,
    /// Epochs after which the cosine of the learning rate starts again; 0 for a constant rate.
    pub period: usize,
}

/// What moves weights towards zero while a stage trains.
#[derive(Debug)]
pub enum Towards<'a> {
    /// Nothing.
    Nothing,
    /// ADMM: its gradient is added at every step, and it is updated after every
    /// [`admm_epochs`](Recipe::admm_epochs).
    Admm(&'a mut Admm),
    /// Masks that grow; the network has masks already.
    Gradual(&'a mut Gradual),
}

impl Towards<'_> {
    fn admm(&self) -> Option<&Admm> {
        match self {
            Self::Admm(admm) => Some(admm),
            Self::Nothing | Self::Gradual(_) => None,
        }
    }
}

/// What a stage keeps beside its weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StageProgress {
    /// All epochs so far.
    pub history: Vec<EpochRecord>,
    /// The best of them, from 1.
    pub best_epoch: usize,
    /// Its score on the validation items.
    pub best: Score,
}

/// What a stage ends with.
#[derive(Clone, Debug)]
pub struct Trained<M> {
    /// The network after the last epoch.
    pub last: M,
    /// The one that was best on the validation items; the last one where there are none.
    pub best: M,
    /// Epochs and scores.
    pub progress: StageProgress,
}

impl<L: Lessons> Context<'_, L> {
    /// The score on the test items.
    ///
    /// # Errors
    /// [`TrainingError::Read`] if the device fails.
    pub fn test(&self, model: &L::Model) -> Result<Score, TrainingError> {
        score(model, self.data, Part::Test, &self.device)
    }

    /// Steps of an epoch.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.data.training(&self.recipe, 0, &self.device).len()
    }
}

impl Stage {
    /// Trains `model`, or what was saved of it. `fresh` is any network of the same structure, masks
    /// included, into which a saved one is loaded.
    ///
    /// # Errors
    /// [`TrainingError::Diverged`] and [`TrainingError::Admm`] for a loss that is no number,
    /// [`TrainingError::State`] for saved states that cannot be read, [`TrainingError::Stopped`] where
    /// no epochs are left; otherwise those of saving and of the device.
    pub fn run<L: Lessons>(
        &self,
        context: &Context<L>,
        mut model: L::Model,
        fresh: &L::Model,
        mut towards: Towards,
    ) -> Result<Trained<L::Model>, TrainingError> {
        let snapshots = Snapshots::open(context.folder.join(&self.name), self.epochs)?;
        let mut optimizer = context.recipe.optimizer.init();
        let (mut progress, mut best) = (StageProgress::default(), model.clone());
        let saved = snapshots.start::<StageProgress>(context.resume)?;
        if let Some(saved) = saved {
            (model, best) = saved.model((fresh.clone(), fresh.clone()))?;
            optimizer = saved.optimizer(optimizer)?;
            match &mut towards {
                Towards::Nothing => {}
                Towards::Admm(admm) => saved.restore(admm)?,
                Towards::Gradual(gradual) => {
                    let steps = saved.epochs_done * context.steps();
                    **gradual = gradual.clone().at_step(steps as u64);
                }
            }
            progress = saved.progress.clone();
            println!(
                "{}: continued after epoch {} of {}",
                self.name,
                progress.history.len(),
                self.epochs
            );
        }
        let unchosen = context.data.items(Part::Valid) == 0;
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
            (model, record) = self.epoch(context, model, &mut optimizer, &mut towards, done - 1)?;
            let mut info = None;
            if let Towards::Admm(admm) = &mut towards
                && done.is_multiple_of(context.recipe.admm_epochs)
            {
                info = Some(admm.update(&model)?);
            }
            let valid = score(&model, context.data, Part::Valid, &context.device)?;
            note(&mut record, valid, info.as_ref(), &model);
            if done == 1 || unchosen || valid.beats(&progress.best) {
                (progress.best_epoch, progress.best) = (done, valid);
                best = model.clone();
            }
            println!("{}", self.line(&record, info.as_ref()));
            progress.history.push(record);
            let both = (model.clone(), best.clone());
            snapshots.save(done, &progress, &both, &optimizer, towards.admm())?;
            context.epochs_left.set(left.map(|left| left - 1));
        }
        Ok(Trained {
            last: model,
            best,
            progress,
        })
    }

    /// Trains one epoch, counted from 0.
    fn epoch<L: Lessons>(
        &self,
        context: &Context<L>,
        mut model: L::Model,
        optimizer: &mut ModuleOptimizer,
        towards: &mut Towards,
        epoch: usize,
    ) -> Result<(L::Model, EpochRecord), TrainingError> {
        let (recipe, device) = (&context.recipe, &context.device);
        let number = self.first_epoch + epoch;
        // What dropout draws depends on seed and epoch alone, so that a resumed run draws the same.
        device.seed(mix(recipe.seed ^ mix(number as u64)));
        let batches = context.data.training(recipe, number, device);
        let steps = batches.len();
        let rate = LearningRate {
            peak: self.lr,
            warmup: 0,
            period: self.period * steps,
        };
        let label = format!("{} {}/{}", self.name, epoch + 1, self.epochs);
        let progress = Progress::new(&label, steps as u64);
        let cross_entropy = CrossEntropyLossConfig::new().init(device);
        let (mut sum, mut right, mut seen) = (0.0, 0, 0);
        for (index, batch) in batches.enumerate() {
            let lr = rate.at(epoch * steps + index);
            let logits = L::logits(&model, &batch);
            let (labels, targets) = L::labels(&batch);
            let loss = cross_entropy.forward(logits.clone(), labels);
            let value = f64::from(loss.clone().into_scalar::<f32>());
            if let Some(admm) = towards.admm() {
                admm.check_loss(value)?;
            } else if !value.is_finite() {
                return Err(TrainingError::Diverged {
                    stage: self.name.clone(),
                    epoch: epoch + 1,
                    loss: value,
                    lr,
                });
            }
            right += hits(&logits.inner(), targets)?;
            let mut gradients = GradientsParams::from_grads(loss.backward(), &model);
            if let Some(admm) = towards.admm() {
                gradients = admm.add_gradient(&model, gradients);
            }
            model = context
                .data
                .after_step(optimizer.step(lr, model, gradients));
            if let Towards::Gradual(gradual) = towards {
                model = gradual.step(model)?.0;
            }
            seen += targets.len();
            sum += value * targets.len() as f64;
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
fn note<M: Module>(record: &mut EpochRecord, valid: Score, info: Option<&AdmmInfo>, model: &M) {
    record.valid_accuracy = valid.accuracy;
    record.primal_residual = info.map(|info| short(info.primal_residual));
    record.dual_residual = info.map(|info| short(info.dual_residual));
    let masks = Masks::attached(model);
    let all: usize = masks.layers().iter().map(|layer| layer.keep.len()).sum();
    record.sparsity = (all > 0).then(|| short(1.0 - masks.nnz() as f64 / all as f64));
}
