//! The file, and the network that comes back from it.

use std::fs;
use std::path::Path;

use burn::tensor::Device;
use burn_sparse::nn::condense_batch_norms;
use burn_sparse::pack::{random_inputs, verify};
use burn_sparse::store::compact::{self, Ledger};
use models::Classifier;
use serde::Serialize;

use super::halves::in_halves;
use crate::data::Loader;
use crate::output::{OutputError, file_size};
use crate::training::{Context, TrainingError, accuracy};

/// Name of the compressed file.
pub const FILE: &str = "compressed.bsc";

/// That of the batch norms of all networks of the project.
const EPSILON: f64 = 1e-5;

/// Images of a batch of the comparison.
const BATCH: usize = 32;

/// What came back from a file.
#[derive(Clone, Debug, Serialize)]
pub struct FromFile {
    /// Bytes on disk.
    pub bytes: u64,
    /// Accuracy on the test images of the network that was loaded.
    pub accuracy: f64,
    /// The same in 16 bits, where that was asked for: weights, and inputs and outputs of layers.
    pub accuracy_halves: Option<f64>,
    /// Largest difference of any logit from the network that was trained, levels attached.
    pub max_abs_diff: f64,
    /// Where the bytes went.
    pub ledger: Ledger,
}

/// Stores a network whose levels are folded, beside the one that was trained, loads it into a fresh one, folds its batch
/// norms and judges that, in 16 bits as well if asked to.
///
/// # Errors
/// Those of files and devices; see [`TrainingError`].
pub fn from_file<M: Classifier>(
    context: &Context,
    build: impl Fn(&Device) -> M,
    (trained, unmasked): (&M, M),
    (folder, halves): (&Path, bool),
) -> Result<FromFile, TrainingError> {
    let device = context.device.clone().inner();
    let stored = stored(&build, &unmasked, folder, &device)?;

    let shape = context.data.shape;
    device.seed(context.recipe.seed);
    let image = [BATCH, shape.channels, shape.height, shape.width];
    let mut inputs = random_inputs(image, 2, &device);
    let test = Loader::eval(context.data, &context.data.test, BATCH);
    inputs.extend(test.epoch(0, &device).take(2).map(|batch| batch.images));
    let loaded = &stored.model;
    let difference = verify(|x| trained.forward(x), |x| loaded.forward(x), &inputs);
    let again = halves.then(|| loaded.clone());
    Ok(FromFile {
        bytes: stored.bytes,
        accuracy: accuracy(loaded, context.data, &context.data.test, &device)?,
        accuracy_halves: again.map(|model| in_halves(context, model)).transpose()?,
        max_abs_diff: difference.max_abs,
        ledger: stored.ledger,
    })
}

/// A network on disk, and as it was read back.
pub(super) struct Stored<M> {
    pub(super) model: M,
    pub(super) bytes: u64,
    pub(super) ledger: Ledger,
}

/// Writes a network into `folder`, its batch norms condensed: folded, they would take weights from their levels. Reads it
/// into a fresh one, and folds that.
pub(super) fn stored<M: Classifier>(
    build: impl Fn(&Device) -> M,
    model: &M,
    folder: &Path,
    device: &Device,
) -> Result<Stored<M>, TrainingError> {
    fs::create_dir_all(folder).map_err(|e| OutputError::from_io(folder, e))?;
    let path = folder.join(FILE);
    let condensed = condense_batch_norms(model, EPSILON);
    let ledger = compact::save(&condensed, &path)?;
    let model = Classifier::fold(compact::load(build(device), &path)?);
    Ok(Stored {
        model,
        bytes: file_size(&path)?,
        ledger,
    })
}
