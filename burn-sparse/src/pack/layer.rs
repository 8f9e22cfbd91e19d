//! One layer: analyse, choose, verify.

use burn::tensor::{Device, Tensor, TensorData};

use super::{
    Choice, Difference, Format, PackConfig, PackedLayer,
    measure::{Candidate, medians},
    verify::{floats, random_inputs},
};
use crate::{
    ConvProblem, SparseError,
    format::Csr,
    nn::{AnyWeight, NamedWeight},
    ops::SparseWeight,
};

pub(super) fn pack_layer(
    named: NamedWeight,
    config: &PackConfig,
) -> Result<(AnyWeight, PackedLayer), SparseError> {
    let NamedWeight { layer, weight } = named;
    let name = |error| match error {
        SparseError::NonFinite { index, value, .. } => SparseError::NonFinite {
            index,
            value,
            what: layer.clone(),
        },
        other => other,
    };
    let csr = weight.to_csr().map_err(name)?;
    let [rows, row_len] = weight.matrix();
    let mut report = PackedLayer {
        layer: layer.clone(),
        kind: weight.kind().to_string(),
        shape: weight.shape(),
        weights: rows * row_len,
        nnz: csr.nnz(),
        stored: csr.stored(),
        format: Format::Dense,
        dense_ms: None,
        packed_ms: None,
        max_abs_diff: None,
        reason: String::new(),
    };
    let sparsity = report.sparsity();
    if config.choice == Choice::Dense {
        report.reason = "asked to stay dense".to_string();
        return Ok((weight.unpack(), report));
    }
    if config.choice == Choice::Auto && sparsity < config.min_sparsity {
        report.reason = format!(
            "{:.1} % zeros, fewer than {:.0} %",
            100.0 * sparsity,
            100.0 * config.min_sparsity
        );
        return Ok((weight.unpack(), report));
    }
    let packed = weight.clone().pack(config.equalise)?;
    let stored = packed.to_csr()?;
    report.stored = stored.stored();
    let known = config.trace.problem(weight.id()).copied();
    let problem = known.unwrap_or_else(|| smallest(&weight));
    let candidate = candidate(&weight, stored, problem);
    let (dense, sparse) = (candidate.dense(), candidate.packed());
    let difference = Difference::between(&floats(dense()), &floats(sparse())).max_abs;
    let unit = rounding_unit(&weight.device());
    let tolerance = config.tolerance.unwrap_or_else(|| tolerance(&csr, unit));
    if difference > tolerance {
        return Err(SparseError::Mismatch {
            layer,
            difference,
            tolerance,
        });
    }
    if known.is_some() {
        let [dense_ms, packed_ms] = medians(&dense, &sparse, config.runs, &weight.device());
        (report.dense_ms, report.packed_ms) = (Some(dense_ms), Some(packed_ms));
        if config.choice == Choice::Auto && packed_ms >= dense_ms {
            report.reason = format!("dense wins, {:.2}x", packed_ms / dense_ms);
            return Ok((weight.unpack(), report));
        }
        report.reason = format!("{:.2}x dense", dense_ms / packed_ms);
    } else {
        report.reason = format!("{:.1} % zeros, not measured", 100.0 * sparsity);
    }
    (report.format, report.max_abs_diff) = (Format::Csr, Some(difference));
    Ok((packed, report))
}

/// Relative rounding of one product. GPU libraries may multiply f32 in TF32, with 11 bits; Burn's
/// CPU backend does not.
fn rounding_unit(device: &Device) -> f64 {
    #[cfg(feature = "flex")]
    if *device == Device::flex() {
        return f64::from(f32::EPSILON);
    }
    let _ = device;
    0.5f64.powi(11)
}

/// What rounding can do to sums in another order: a row's products have magnitude
/// `sum |w| * |x|`, with `|x|` rarely above 6 for unit variance, and the roundings of `n` additions
/// grow like `sqrt(n)`.
fn tolerance(csr: &Csr, unit: f64) -> f64 {
    (0..csr.rows())
        .map(|row| {
            let magnitude: f64 = csr.row(row).map(|(_, value)| f64::from(value.abs())).sum();
            6.0 * magnitude * (csr.row_len() as f64).sqrt().max(8.0) * unit
        })
        .fold(f64::from(f32::MIN_POSITIVE), f64::max)
}

/// The smallest image that shows every weight, for layers whose geometry nobody traced.
fn smallest(weight: &AnyWeight) -> ConvProblem {
    let (shape, [rows, _]) = (weight.shape(), weight.matrix());
    let (channels, kernel) = match shape[..] {
        [channels, _] => (channels, [1, 1]),
        [_, channels, length] => (channels, [1, length]),
        [_, channels, height, width] => (channels, [height, width]),
        _ => unreachable!("weights have two to four dimensions"),
    };
    let input = if shape.len() == 2 {
        [1, 1]
    } else {
        kernel.map(|k| k + 2)
    };
    ConvProblem::new(1, [channels, rows], input, kernel)
}

fn candidate(weight: &AnyWeight, stored: Csr, problem: ConvProblem) -> Candidate {
    let device = weight.device().inner();
    let dense = TensorData::new(stored.to_dense(), problem.weight_shape());
    let input = random_inputs(problem.input_shape(), 1, &device).remove(0);
    Candidate {
        problem,
        linear: matches!(weight, AnyWeight::Linear(_)),
        input,
        dense: Tensor::from_data(dense, &device),
        sparse: SparseWeight::new(stored, &device),
    }
}
