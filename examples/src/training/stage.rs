//! One stage of training, epoch by epoch, saved after each.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Device;
use burn_admm::{AdmmInfo, Masks};
use models::Classifier;

use super::compression::Compression;
use super::evaluate::{accuracy, hits};
use super::state::{Best, StageDir, State, short};
use super::{EpochRecord, LearningRate, Recipe, TrainingError};
use crate::data::{ImageDataset, Loader};
use crate::progress::Progress;

/// What all stages of a run share.
#[derive(Debug)]
pub struct Context<'a> {
    /// The images.
    pub data: &'a ImageDataset,
    /// All numbers.
    pub recipe: &'a Recipe,
    /// The device, with autodiff.
    pub device: Device,
    /// Whether to continue from saved states.
    pub resume: bool,
    /// Whether to print.
    pub verbose: bool,
    /// Whether to look at the test images.
    pub tests: bool,
    /// Trained weights that the dense network starts from.
    pub weights: Option<PathBuf>,
    clock: RefCell<Clock>,
    epochs_left: Cell<Option<usize>>,
}

/// Time per epoch so far, for the time that is left.
#[derive(Debug)]
struct Clock {
    to_do: usize,
    done: usize,
    spent: Duration,
}

impl<'a> Context<'a> {
    /// For a run of `epochs` epochs in all stages together, on `device` (autodiff is added).
    ///
    /// # Errors
    /// [`TrainingError::Settings`] without training images or test images.
    pub fn new(
        data: &'a ImageDataset,
        recipe: &'a Recipe,
        device: &Device,
        epochs: usize,
    ) -> Result<Self, TrainingError> {
        if data.train.is_empty() || data.test.is_empty() {
            return Err(TrainingError::Settings(format!(
                "{} has {} training and {} test images; both are needed",
                data.name,
                data.train.len(),
                data.test.len()
            )));
        }
        let clock = Clock {
            to_do: epochs,
            done: 0,
            spent: Duration::ZERO,
        };
        Ok(Self {
            data,
            recipe,
            device: device.clone().autodiff(),
            resume: false,
            verbose: true,
            tests: true,
            weights: None,
            clock: RefCell::new(clock),
            epochs_left: Cell::new(None),
        })
    }

    /// Continues from saved states.
    #[must_use]
    pub fn with_resume(mut self, resume: bool) -> Self {
        self.resume = resume;
        self
    }

    /// Starts the dense network from the trained weights in a file, instead of random ones.
    #[must_use]
    pub fn with_weights(mut self, file: Option<PathBuf>) -> Self {
        self.weights = file;
        self
    }

    /// Prints nothing.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.verbose = false;
        self
    }

    /// Leaves the test images alone: accuracies of them are 0. For networks that are judged by validation images and
    /// reported nowhere.
    #[must_use]
    pub fn without_tests(mut self) -> Self {
        self.tests = false;
        self
    }

    /// Stops with [`TrainingError::Stopped`] once so many epochs have been trained.
    #[must_use]
    pub fn with_stop_after(self, epochs: Option<usize>) -> Self {
        self.epochs_left.set(epochs);
        self
    }

    /// What is left of [`with_stop_after`](Self::with_stop_after), for the next run.
    #[must_use]
    pub fn epochs_left(&self) -> Option<usize> {
        self.epochs_left.get()
    }

    /// Prints a line, unless quiet.
    pub fn say(&self, line: impl AsRef<str>) {
        if self.verbose {
            eprintln!("{}", line.as_ref());
        }
    }

    fn epoch_ended(&self, spent: Duration) -> Duration {
        let mut clock = self.clock.borrow_mut();
        clock.done += 1;
        clock.spent += spent;
        let left = clock.to_do.saturating_sub(clock.done) as u32;
        clock.spent / (clock.done as u32) * left
    }

    /// Epochs that need no training because they are saved.
    fn skip(&self, epochs: usize) {
        let mut clock = self.clock.borrow_mut();
        clock.to_do = clock.to_do.saturating_sub(epochs);
    }
}

/// One stage.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) name: String,
    pub(super) folder: PathBuf,
    pub(super) epochs: usize,
    /// Number of its first epoch in the whole run: the data order and augmentation go on.
    pub(super) first_epoch: usize,
    pub(super) lr: LearningRate,
    /// Steps that the learning rate has taken before.
    pub(super) first_step: usize,
    /// Which of its networks is the result.
    pub(super) choice: Choice,
    pub(super) compression: Compression,
}

/// The network that a stage ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// That of the last epoch.
    Last,
    /// That of the epoch which was best on the validation images; the last one without any.
    Best,
    /// The best, counting the network it starts from as epoch 0. Without validation images, as above.
    BestOrStart,
}

/// What a stage ends with.
#[derive(Debug)]
pub(super) struct StageResult<M> {
    pub(super) model: M,
    pub(super) history: Vec<EpochRecord>,
    /// The epoch that was chosen.
    pub(super) epoch: usize,
    /// What acted on the weights, as it is at the end.
    pub(super) compression: Compression,
    /// Time that the epochs took, without evaluating and saving.
    pub(super) seconds: f64,
}

struct Epoch {
    loss: f64,
    accuracy: f64,
    images_per_second: f64,
    seconds: f64,
    lr: f64,
}

impl Stage {
    /// Trains `model`, or what was saved of it. `fresh` makes a model into which a record of this
    /// stage loads.
    pub(super) fn run<M: Classifier>(
        mut self,
        context: &Context,
        mut model: M,
        fresh: impl Fn() -> Result<M, TrainingError>,
    ) -> Result<StageResult<M>, TrainingError> {
        let dir = StageDir::open(self.folder.clone())?;
        let mut optimizer = context.recipe.optimizer.init();
        let mut state = State::new(&self.name);
        let saved = match context.resume {
            true => dir.load(&self.name)?,
            false => None,
        };
        match saved {
            Some(saved) => {
                state = saved;
                if state.epochs_done > self.epochs {
                    let reason = format!(
                        "{} epochs are done, but only {} are asked for",
                        state.epochs_done, self.epochs
                    );
                    let path = dir.file("state.json");
                    return Err(TrainingError::State { path, reason });
                }
                context.skip(state.epochs_done);
                if state.epochs_done > 0 {
                    context.say(format!(
                        "{}: continued after epoch {} of {}",
                        self.name, state.epochs_done, self.epochs
                    ));
                }
                if let Some(name) = &state.model {
                    model = dir.load_model(name, fresh()?)?;
                }
                if let Some(name) = &state.optimizer {
                    optimizer = dir.load_optimizer(name, optimizer)?;
                }
                let path = state.compression.as_ref().map(|name| dir.file(name));
                if let (Some(kind), None) = (self.compression.file_prefix(), &path) {
                    let reason = format!("names no state of {kind}");
                    let path = dir.file("state.json");
                    return Err(TrainingError::State { path, reason });
                }
                self.compression
                    .restore(&model, state.steps, path.as_deref())?;
            }
            None => {
                dir.clear();
                if self.choice == Choice::BestOrStart {
                    state.best = Some(self.start(context, &dir, &model)?);
                    if self.epochs == 0 {
                        dir.commit(&state)?;
                    }
                }
            }
        }
        while state.epochs_done < self.epochs {
            if context.epochs_left.get() == Some(0) {
                return Err(TrainingError::Stopped {
                    stage: self.name,
                    epoch: state.epochs_done,
                });
            }
            let began = Instant::now();
            let epoch;
            (model, epoch) = self.epoch(context, model, &mut optimizer, state.epochs_done)?;
            let info = self
                .compression
                .after_epoch(&model, state.epochs_done + 1)?;
            self.record(
                context,
                &dir,
                &mut state,
                (&model, &optimizer),
                (&epoch, &info),
            )?;
            let left = context.epoch_ended(began.elapsed());
            context.say(self.line(&state, &epoch, info.as_ref(), left));
            context
                .epochs_left
                .set(context.epochs_left.get().map(|left| left - 1));
        }
        let epoch = state.best.as_ref().map_or(self.epochs, |best| best.epoch);
        if let Some(best) = &state.best {
            model = dir.load_model(&best.file, fresh()?)?;
        }
        Ok(StageResult {
            model,
            history: state.history,
            epoch,
            compression: self.compression,
            seconds: state.seconds,
        })
    }

    /// Saves what the stage starts from as the best so far.
    fn start<M: Classifier>(
        &self,
        context: &Context,
        dir: &StageDir,
        model: &M,
    ) -> Result<Best, TrainingError> {
        let valid = accuracy(model, context.data, &context.data.valid, &context.device)?;
        let file = "best-0.bpk".to_owned();
        dir.save_model(&file, model)?;
        let accuracy = short(valid);
        context.say(format!(
            "{}: starts with {:.1} % of the validation images",
            self.name,
            100.0 * accuracy
        ));
        Ok(Best {
            epoch: 0,
            accuracy,
            file,
        })
    }

    /// Trains one epoch, counted from 0.
    fn epoch<M: Classifier>(
        &mut self,
        context: &Context,
        mut model: M,
        optimizer: &mut ModuleOptimizer,
        epoch: usize,
    ) -> Result<(M, Epoch), TrainingError> {
        let Context {
            data,
            recipe,
            device,
            ..
        } = context;
        let loader = Loader::train(data, recipe.batch, recipe.seed);
        let label = format!("{} {}/{}", self.name, epoch + 1, self.epochs);
        let progress = Progress::when(context.verbose, &label, loader.batches() as u64);
        let cross_entropy = CrossEntropyLossConfig::new().init(device);
        let (mut loss_sum, mut right, mut seen, mut lr) = (0.0, 0, 0, 0.0);
        let began = Instant::now();
        let batches = loader.epoch(self.first_epoch + epoch, device);
        for (index, batch) in batches.enumerate() {
            let step = self.first_step + epoch * loader.batches() + index;
            lr = self.lr.at(self.compression.rate_step(step, index));
            let count = batch.len();
            self.compression.before_step(&model, optimizer)?;
            let logits = model.forward(batch.images.clone());
            let loss = cross_entropy.forward(logits.clone(), batch.labels);
            let value = f64::from(loss.clone().into_scalar::<f32>());
            self.check(value, epoch, lr)?;
            right += hits(&logits.clone().inner(), &batch.targets)?;
            let seen_now = (batch.images, logits);
            let loss = self.compression.penalised(&model, loss, seen_now);
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            let gradients = self
                .compression
                .gradients(&model, gradients, (lr, &mut *optimizer))?;
            model = optimizer.step(lr, model, gradients);
            model = self.compression.after_step(model)?;
            let at = (index, loader.batches());
            let judged = |model: &M| Ok(short(accuracy(model, data, &data.valid, device)?));
            let verdict = self
                .compression
                .judge((&mut model, &mut *optimizer), at, judged)?;
            if let (Some(verdict), true) = (verdict, context.verbose) {
                progress.println(format!("{label}: {verdict}"));
            }
            loss_sum += value * count as f64;
            seen += count;
            progress.message(format!(
                "loss {:.3}, accuracy {:.1} %, {:.0} img/s",
                loss_sum / seen as f64,
                100.0 * right as f64 / seen as f64,
                seen as f64 / began.elapsed().as_secs_f64()
            ));
            progress.inc(1);
        }
        progress.finish();
        let seconds = began.elapsed().as_secs_f64();
        let epoch = Epoch {
            loss: loss_sum / seen.max(1) as f64,
            accuracy: right as f64 / seen.max(1) as f64,
            images_per_second: seen as f64 / seconds,
            seconds,
            lr,
        };
        Ok((model, epoch))
    }

    fn check(&self, loss: f64, epoch: usize, lr: f64) -> Result<(), TrainingError> {
        if loss.is_finite() {
            return Ok(());
        }
        self.compression.check_loss(loss)?;
        Err(TrainingError::Diverged {
            stage: self.name.clone(),
            epoch: epoch + 1,
            loss,
            lr,
        })
    }

    /// Evaluates and saves.
    fn record<M: Classifier>(
        &self,
        context: &Context,
        dir: &StageDir,
        state: &mut State,
        (model, optimizer): (&M, &ModuleOptimizer),
        (epoch, info): (&Epoch, &Option<AdmmInfo>),
    ) -> Result<(), TrainingError> {
        let valid = accuracy(model, context.data, &context.data.valid, &context.device)?;
        let valid = short(valid);
        state.epochs_done += 1;
        let number = state.epochs_done;
        state.history.push(EpochRecord {
            epoch: number,
            loss: short(epoch.loss),
            train_accuracy: short(epoch.accuracy),
            valid_accuracy: valid,
            primal_residual: info.as_ref().map(|info| short(info.primal_residual)),
            dual_residual: info.as_ref().map(|info| short(info.dual_residual)),
            sparsity: masked(model).map(short),
        });
        // Without validation images the last epoch counts.
        let better = context.data.valid.is_empty()
            || state.best.as_ref().is_none_or(|best| valid > best.accuracy);
        let chosen = self.choice != Choice::Last;
        if chosen && better {
            let file = format!("best-{number}.bpk");
            dir.save_model(&file, model)?;
            state.best = Some(Best {
                epoch: number,
                accuracy: valid,
                file,
            });
        }
        state.seconds += epoch.seconds;
        state.steps = self.compression.steps();
        (state.model, state.optimizer, state.compression) = (None, None, None);
        let last = number == self.epochs;
        if !(last && chosen) {
            let file = format!("model-{number}.bpk");
            dir.save_model(&file, model)?;
            state.model = Some(file);
        }
        if !last {
            let file = format!("optimizer-{number}.bpk");
            dir.save_optimizer(&file, optimizer)?;
            state.optimizer = Some(file);
        }
        if let Some(prefix) = self.compression.file_prefix() {
            let file = format!("{prefix}-{number}.safetensors");
            self.compression.save(&dir.file(&file))?;
            state.compression = Some(file);
        }
        dir.commit(state)?;
        Ok(())
    }

    fn line(
        &self,
        state: &State,
        epoch: &Epoch,
        info: Option<&AdmmInfo>,
        left: Duration,
    ) -> String {
        let Some(record) = state.history.last() else {
            return String::new();
        };
        let mut line = format!(
            "{} {}/{}: loss {:.3}, train {:.1} %, validation {:.1} %, lr {:.1e}, {:.0} img/s",
            self.name,
            record.epoch,
            self.epochs,
            epoch.loss,
            100.0 * epoch.accuracy,
            100.0 * record.valid_accuracy,
            epoch.lr,
            epoch.images_per_second,
        );
        if let Some(info) = info {
            line.push_str(&format!(
                ", rho {:.1e}, residuals {:.3} and {:.3}",
                info.rho, info.primal_residual, info.dual_residual
            ));
        }
        let masks = matches!(
            &self.compression,
            Compression::Gradual(_) | Compression::Evolve { .. }
        );
        if let (true, Some(sparsity)) = (masks, record.sparsity) {
            line.push_str(&format!(", {:.1} % pruned", 100.0 * sparsity));
        }
        let seconds = left.as_secs();
        line.push_str(&format!(", {}:{:02} left", seconds / 60, seconds % 60));
        line
    }
}

/// The part of the masked weights that is pruned.
fn masked<M: Classifier>(model: &M) -> Option<f64> {
    let masks = Masks::attached(model);
    let all: usize = masks.layers().iter().map(|layer| layer.keep.len()).sum();
    (all > 0).then(|| 1.0 - masks.nnz() as f64 / all as f64)
}
