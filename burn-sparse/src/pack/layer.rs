//! One layer: analyse, choose, verify.

use burn::tensor::{Device, Tensor, TensorData};

use super::{
    Choice, Format, PackConfig, PackedLayer, Search,
    cache::{PlanCache, TimedLayer},
    measure::{Candidate, Kind},
    verify::random_inputs,
};
use crate::{
    ConvProblem, SparseError,
    cpu::{Plan, ROWS, Sharing},
    format::Csr,
    nn::{AnyWeight, NamedWeight, SharedPart},
    ops::{SparseWeight, is_flex},
};

pub(super) fn pack_layer(
    named: NamedWeight,
    config: &PackConfig,
    plans: &mut PlanCache,
) -> Result<(AnyWeight, PackedLayer), SparseError> {
    let NamedWeight {
        layer,
        weight,
        factor,
        shared,
        ..
    } = named;
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
        plan: None,
        reason: String::new(),
    };
    let sparsity = report.sparsity();
    if config.choice == Choice::Dense {
        report.reason = "asked to stay dense".to_string();
        return Ok((weight.unpack(), report));
    }
    if shared == Some(SharedPart::Kernels) {
        report.reason = "kernels that all channels share".to_string();
        return Ok((weight.unpack(), report));
    }
    let equalise = config.equalise && shared.is_none();
    let known = config.trace.problem(weight.id()).copied();
    let problem = known.unwrap_or_else(|| smallest(&weight));
    let on_cpu = is_flex(&weight.device()) && !matches!(weight, AnyWeight::Linear(_));
    let sparse = config.choice != Choice::Auto || sparsity >= config.min_sparsity;
    // Dense factors of a 2-D convolution run as one, in tiles already.
    let at_once = factor && matches!(weight, AnyWeight::Conv2d(_));
    let small = report.weights <= MOST_TILED;
    let tile = !sparse && on_cpu && known.is_some() && !at_once && small;
    if !sparse && !tile {
        report.reason = format!(
            "{:.1} % zeros, fewer than {:.0} %",
            100.0 * sparsity,
            100.0 * config.min_sparsity
        );
        return Ok((weight.unpack(), report));
    }
    let packed = weight.clone().pack(equalise)?;
    let stored = packed.to_csr()?;
    report.stored = stored.stored();
    let density = stored.stored() as f64 / report.weights.max(1) as f64;
    if on_cpu && known.is_some() {
        let forms = forms(config.choice, &stored, &problem, tile);
        report.plan = plan(&packed, &stored, &problem, &forms, config.search, plans)?;
    }
    let candidate = candidate(&packed, stored, problem);
    let difference = candidate.difference().max_abs;
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
        let device = weight.device();
        let case = TimedLayer::new(candidate.kind, problem, density, report.plan);
        // Other devices do not say enough of themselves to be told from others of their kind.
        let kept = match is_flex(&device) {
            true => plans.times(&case),
            false => None,
        };
        let [dense_ms, packed_ms] = kept.unwrap_or_else(|| {
            let times = candidate.medians(config.runs, &device);
            if is_flex(&device) {
                plans.insert_times(case, times);
            }
            times
        });
        (report.dense_ms, report.packed_ms) = (Some(dense_ms), Some(packed_ms));
        if config.choice == Choice::Auto && packed_ms >= dense_ms {
            report.reason = format!("dense wins, {:.2}x", packed_ms / dense_ms);
            report.plan = None;
            return Ok((weight.unpack(), report));
        }
        let compiled = report.plan.is_some_and(|plan| plan.compiled);
        let how = if compiled { ", as machine code" } else { "" };
        report.reason = format!("{:.2}x dense{how}", dense_ms / packed_ms);
    } else {
        report.reason = format!("{:.1} % zeros, not measured", 100.0 * sparsity);
    }
    report.max_abs_diff = Some(difference);
    report.format = match &report.plan {
        _ if tile => Format::Tile,
        Some(plan) if plan.shares_positions() => Format::Blocks,
        _ => Format::Csr,
    };
    Ok((packed, report))
}

/// Weights of the largest layer that may run as dense tiles: they are held in the layout of sparse
/// ones, index included.
const MOST_TILED: usize = 1 << 18;

/// The ways in which output channels may share loads.
pub(super) fn forms(
    choice: Choice,
    stored: &Csr,
    problem: &ConvProblem,
    tile: bool,
) -> Vec<Sharing> {
    match choice {
        _ if tile => ROWS
            .last()
            .map(|&rows| Sharing::neighbours(rows))
            .into_iter()
            .collect(),
        Choice::Csr => vec![Sharing::neighbours(1)],
        Choice::Auto | Choice::Dense => shared(stored, problem),
    }
}

/// Stored entries that sharing loads may add, as a fraction of those there are.
const FILL: f64 = 0.5;

/// Single rows, neighbours whose positions nearly agree, and rows that agree in blocks.
pub(super) fn shared(csr: &Csr, problem: &ConvProblem) -> Vec<Sharing> {
    let few = |&rows: &usize| {
        let stored = csr.stored_in_blocks(rows).max(csr.stored());
        (stored - csr.stored()) as f64 <= FILL * csr.stored() as f64
    };
    let mut forms: Vec<_> = ROWS
        .into_iter()
        .filter(few)
        .map(Sharing::neighbours)
        .collect();
    let whole = Sharing::of(csr, problem.kernel[0] * problem.kernel[1]);
    if whole.panel.is_some() {
        forms.extend([whole, Sharing { rows: 2, ..whole }]);
    }
    forms
}

/// Chooses and sets the plan of the CPU kernels.
#[cfg(feature = "flex")]
pub(super) fn plan(
    packed: &AnyWeight,
    stored: &Csr,
    problem: &ConvProblem,
    forms: &[Sharing],
    search: Search,
    plans: &mut PlanCache,
) -> Result<Option<Plan>, SparseError> {
    let plan = super::tune::tune(problem, stored, forms, search, plans)?;
    if let Some(weight) = packed.sparse() {
        weight.pattern().set_plan(problem, plan);
    }
    Ok(Some(plan))
}

#[cfg(not(feature = "flex"))]
pub(super) fn plan(
    _: &AnyWeight,
    _: &Csr,
    _: &ConvProblem,
    _: &[Sharing],
    _: Search,
    _: &mut PlanCache,
) -> Result<Option<Plan>, SparseError> {
    Ok(None)
}

/// Relative rounding of one product. GPU libraries may multiply f32 in TF32, with 11 bits; Burn's
/// CPU backend does not.
pub(super) fn rounding_unit(device: &Device) -> f64 {
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
pub(super) fn tolerance(csr: &Csr, unit: f64) -> f64 {
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

/// The layer with its weight as it was packed: what is measured is what will run.
pub(super) fn candidate(packed: &AnyWeight, stored: Csr, problem: ConvProblem) -> Candidate {
    let device = packed.device().inner();
    let dense = TensorData::new(stored.to_dense(), problem.weight_shape());
    let input = random_inputs(problem.input_shape(), 1, &device).remove(0);
    Candidate {
        problem,
        kind: match packed {
            AnyWeight::Linear(_) => Kind::Linear,
            AnyWeight::Conv1d(_) => Kind::Conv1d,
            AnyWeight::Conv2d(_) => Kind::Conv2d,
        },
        input,
        dense: Tensor::from_data(dense, &device),
        sparse: match packed.sparse() {
            // Nothing records gradients while it is timed.
            Some(weight) => weight.inner(),
            None => SparseWeight::new(stored, &device),
        },
    }
}
