//! Channels that pruning emptied, cut out: a smaller dense network with the same output.

use std::path::Path;

use burn_admm::fold;
use burn_admm::shrink::{ChannelModel, ShrinkOptions, ShrinkReport, shrink};
use models::{Classifier, weights};
use serde::Serialize;

use super::deploy::latency;
use super::evaluate::accuracy;
use super::{Context, Pruned, TrainingError};
use crate::output::file_size;
use crate::report::Latency;

/// The file with the weights of the smaller network, by torchvision's names.
pub const CUT_FILE: &str = "cut.safetensors";

/// A pruned network without the channels that pruning emptied.
#[derive(Clone, Debug, Serialize)]
pub struct Cut {
    /// Trainable parameters before and after.
    pub parameters: [u64; 2],
    /// Multiply-adds of an image before and after.
    pub macs: [u64; 2],
    /// Bytes of the smaller network's file.
    pub bytes: u64,
    /// Accuracy of the smaller network on the test images.
    pub accuracy: f64,
    /// Largest difference of any logit between both networks.
    pub max_abs_diff: f64,
    /// Largest logit.
    pub largest: f64,
    /// Times of the pruned network, dense, and of the smaller one as `packed`.
    pub latency_ms: Latency,
    /// What became smaller, and what did not and why.
    pub shrinking: ShrinkReport,
}

/// Cuts emptied channels out of a pruned network, saves what is left in `folder` and measures it beside the
/// network with its zeros.
///
/// # Errors
/// [`TrainingError::Shrink`] for a structure that cannot be cut, by the name of the layer; those of the file
/// and of measuring.
pub fn cut<M: Classifier + ChannelModel + Sync>(
    context: &Context,
    pruned: &Pruned<M>,
    folder: &Path,
) -> Result<Cut, TrainingError> {
    let device = context.device.clone().inner();
    let shape = context.data.shape;
    let image = [shape.channels, shape.height, shape.width];
    let whole = fold(pruned.model.valid());
    let small = shrink(whole.clone(), &image, &ShrinkOptions::new(), |model, x| {
        Classifier::forward(model, x)
    })?;
    let file = folder.join(CUT_FILE);
    weights::save(&small.model, &file)?;
    let [whole, model] = [whole, small.model].map(Classifier::fold);
    let latency_ms = latency(
        &device,
        [1, image[0], image[1], image[2]],
        |x| whole.forward(x),
        |x| model.forward(x),
    )?;
    let report = small.plan.report();
    Ok(Cut {
        parameters: report.params(),
        macs: report.macs(),
        bytes: file_size(&file)?,
        accuracy: accuracy(&model, context.data, &context.data.test, &device)?,
        max_abs_diff: small.difference.max_abs_diff,
        largest: small.difference.largest,
        latency_ms,
        shrinking: report.clone(),
    })
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.shrinking)?;
        write!(
            f,
            "without emptied channels: {} of {} parameters, {} bytes, {:.2} % of test images right; logits differ by \
             at most {:.1e}, the largest is {:.1}",
            self.parameters[1],
            self.parameters[0],
            self.bytes,
            100.0 * self.accuracy,
            self.max_abs_diff,
            self.largest
        )?;
        for (batch, time) in &self.latency_ms.by_batch {
            write!(
                f,
                "\nbatch {batch}: {:.3} ms with the zeros, {:.3} ms without, {:.2} times as fast",
                time.dense,
                time.packed,
                time.dense / time.packed
            )?;
        }
        Ok(())
    }
}
