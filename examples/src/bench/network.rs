//! A whole network, pruned and packed, beside the same network dense.

use std::fmt;

use burn::module::Param;
use burn::tensor::{Device, Distribution, Tensor, TensorData};
use burn_sparse::nn::{AnyWeight, Weight, replace_weights, weights};
use burn_sparse::pack::{Format, PackedLayer, verify};
use burn_sparse::{ConvProblem, SparseError, cpu};
use models::{Classifier, ResNet, ResNetConfig};
use serde::{Deserialize, Serialize};

use super::measure::measure;
use super::row::percent;
use super::table::{digits, verdict};
use super::{BenchError, Outcome, Pair, Pattern};
use crate::device::{Backend, Selected};
use crate::infer::{Packing, store};
use crate::timing::TimingOptions;

/// Largest difference between both forms, in parts of the largest output. Each layer was held to
/// the bound of its rounding when it was packed; over fifty layers such errors grow.
const TOLERANCE: f64 = 1e-3;

/// A network under one set of conditions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkRow {
    /// The network.
    pub network: String,
    /// Sparsity of every layer.
    pub sparsity: f64,
    /// Which weights are zero.
    pub pattern: Pattern,
    /// Images.
    pub batch: usize,
    /// How it went.
    #[serde(flatten)]
    pub outcome: Outcome<NetworkMeasured>,
}

/// Times of a network and what it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkMeasured {
    /// Both times and their ratio.
    #[serde(flatten)]
    pub pair: Pair,
    /// All weights.
    pub weights: usize,
    /// Those that are not zero.
    pub nnz: usize,
    /// Layers with a weight.
    pub layers: usize,
    /// Those that run sparse, because that was faster.
    pub packed: usize,
    /// Largest difference between the outputs of both forms.
    pub max_abs_diff: f64,
    /// The same in parts of the largest output.
    pub max_rel_diff: f64,
}

impl fmt::Display for NetworkRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {} {}, batch {}: ",
            self.network,
            percent(self.sparsity),
            self.pattern,
            self.batch
        )?;
        match &self.outcome {
            Outcome::Failed { reason } => write!(f, "FAILED: {reason}"),
            Outcome::Measured(m) => write!(
                f,
                "dense {} ms, packed {} ms, {} ±{:.0} %; {} of {} layers packed, {} of {} weights \
                 not zero, outputs differ by {:.1e} ({:.1e} of the largest)",
                digits(m.pair.dense.median),
                digits(m.pair.sparse.median),
                verdict(m.pair.ratio.median),
                50.0 * m.pair.ratio.spread / m.pair.ratio.median,
                m.packed,
                m.layers,
                m.nnz,
                m.weights,
                m.max_abs_diff,
                m.max_rel_diff
            ),
        }
    }
}

/// Measures ResNet-50 for images of 224x224, every layer pruned at random to `sparsity`, batch
/// norms folded, and packed where that is faster on this device.
///
/// # Errors
/// [`BenchError::Network`] where weights cannot be packed, [`BenchError::Device`] for a device that
/// fails. Two forms that differ make a row that failed.
pub fn resnet50(
    selected: &Selected,
    sparsity: f64,
    pattern: Pattern,
    batch: usize,
    seed: u64,
    options: TimingOptions,
) -> Result<NetworkRow, BenchError> {
    let config = ResNetConfig::resnet50(1000);
    network(
        ("resnet50", &config, [224, 224]),
        selected,
        (sparsity, pattern, batch, seed),
        options,
    )
}

fn network(
    (name, config, size): (&str, &ResNetConfig, [usize; 2]),
    selected: &Selected,
    (sparsity, pattern, batch, seed): (f64, Pattern, usize, u64),
    options: TimingOptions,
) -> Result<NetworkRow, BenchError> {
    let device = &selected.device;
    let model = pruned(config.init(device), sparsity, pattern, seed)?;
    let model = Classifier::fold(model);
    let shape = [batch, config.channels, size[0], size[1]];
    let input = Tensor::<4>::random(shape, Distribution::Normal(0.0, 1.0), device);
    let (packed, report) = store(model.clone(), Packing::Auto, &input)?;
    let dense = model;
    let difference = verify(
        |x| dense.infer(x),
        |x| packed.infer(x),
        std::slice::from_ref(&input),
    );
    let row = |outcome| NetworkRow {
        network: name.to_string(),
        sparsity,
        pattern,
        batch,
        outcome,
    };
    if difference.max_rel.is_nan() || difference.max_rel > TOLERANCE {
        let (abs, rel) = (difference.max_abs, difference.max_rel);
        return Ok(row(Outcome::Failed {
            reason: format!(
                "packed and dense outputs differ by {abs:.2e}, {rel:.2e} of the largest; up to \
                 {TOLERANCE:.0e} is rounding"
            ),
        }));
    }
    let work = || {
        measure(
            device,
            options,
            || packed.infer(input.clone()),
            || dense.infer(input.clone()),
        )
    };
    let pair = if selected.backend == Backend::Flex {
        cpu::on_pool(work)?
    } else {
        work()?
    };
    let sparse = |layer: &&PackedLayer| layer.format != Format::Dense;
    Ok(row(Outcome::Measured(Box::new(NetworkMeasured {
        pair,
        weights: report.weights(),
        nnz: report.nnz(),
        layers: report.layers.len(),
        packed: report.layers.iter().filter(sparse).count(),
        max_abs_diff: difference.max_abs,
        max_rel_diff: difference.max_rel,
    }))))
}

/// The network with random weights of a pattern in every layer.
fn pruned(
    model: ResNet,
    sparsity: f64,
    pattern: Pattern,
    seed: u64,
) -> Result<ResNet, SparseError> {
    let mut replacements = Vec::new();
    for (index, layer) in (0..).zip(weights(&model)) {
        let [rows, row_len] = layer.weight.matrix();
        let problem = ConvProblem::new(1, [row_len, rows], [1, 1], [1, 1]);
        let csr = pattern.weight(&problem, sparsity, seed.wrapping_add(index))?;
        replacements.push(contiguous(layer.weight.with_csr(csr)?.unpack()));
    }
    Ok(replace_weights(model, replacements))
}

/// A linear weight that was unpacked is a view which every product would have to copy; a layer
/// holds it in order.
fn contiguous(weight: AnyWeight) -> AnyWeight {
    let AnyWeight::Linear(linear) = weight else {
        return weight;
    };
    let (id, value) = (linear.id(), linear.val());
    let (device, shape): (Device, _) = (value.device(), value.dims());
    let data = value.into_data().convert::<f32>();
    let values: Vec<f32> = data.try_to_vec().expect("they were converted to f32");
    let value = Tensor::from_data(TensorData::new(values, shape), &device);
    AnyWeight::Linear(Weight::Dense(Param::initialized(id, value)))
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::device::{DeviceChoice, select};

    #[test]
    fn a_small_network_is_pruned_packed_and_timed() {
        let selected = select(DeviceChoice::Named(Backend::Flex, None)).unwrap();
        let options = TimingOptions {
            warmup: 1,
            runs: 3,
            budget: Duration::from_secs(1),
        };
        let config = ResNetConfig::cifar(1, 10).with_width(8);
        for batch in [1, 2] {
            let row = network(
                ("small", &config, [16, 16]),
                &selected,
                (0.9, Pattern::Blocks(2), batch, 3),
                options,
            )
            .unwrap();
            let measured = row.outcome.measured().unwrap_or_else(|| panic!("{row}"));
            assert_eq!(measured.layers, 8);
            let zeros = 1.0 - measured.nnz as f64 / measured.weights as f64;
            assert!((zeros - 0.9).abs() < 0.02, "{zeros}");
            assert!(row.to_string().contains("small, 90 % blocks2, batch"));
        }
    }
}
