//! One layer: every form measured, the fastest taken.

use burn::tensor::{DType, FloatDType, Tensor};

use super::super::{
    Choice,
    cache::PlanCache,
    layer::{candidate, forms, plan, rounding_unit, tolerance},
    measure::{Candidate, Layer, in_turn},
    verify::{Difference, floats},
};
use super::{Form, MixedConfig, MixedLayer, MixedTime};
use crate::{
    SparseError, cpu,
    nn::{AnyWeight, NamedWeight, RunAs, run_parts},
    ops::{Epilogue, is_flex},
};

/// A way to run the layer, and what it does to a batch.
struct Way<'a> {
    form: Form,
    run: RunAs,
    layer: &'a Layer<'a>,
}

impl Way<'_> {
    fn of(&self, input: &Tensor<4>) -> Tensor<4> {
        let (images, dtype) = (self.run.sub_batch, self.run.dtype.into());
        run_parts(input.clone(), Epilogue::new(), images, dtype, |x, _| {
            (self.layer)(x)
        })
    }
}

pub(super) fn mix_layer(
    named: NamedWeight,
    config: &MixedConfig,
    plans: &mut PlanCache,
) -> Result<(AnyWeight, Option<RunAs>, MixedLayer), SparseError> {
    let NamedWeight {
        layer,
        weight,
        factor,
        ..
    } = named;
    let device = weight.device();
    let csr = weight.to_csr().map_err(|error| match error {
        SparseError::NonFinite { index, value, .. } => SparseError::NonFinite {
            index,
            value,
            what: layer.clone(),
        },
        other => other,
    })?;
    let mut report = MixedLayer::new(&layer, &weight, csr.nnz());
    let known = config.pack.trace.problem(weight.id()).copied();
    let problem = match known {
        Some(problem) if !factor && problem.batch > 0 => problem,
        _ => {
            report.reason = match factor {
                true => "a factor".into(),
                false => "not seen by the trace".into(),
            };
            return Ok((weight.unpack(), None, report));
        }
    };
    report.batch = problem.batch;
    let packed = weight.clone().pack(config.pack.equalise)?;
    let stored = packed.to_csr()?;
    let sparse = report.sparsity() >= config.pack.min_sparsity;
    let on_cpu = is_flex(&device);
    if sparse && on_cpu && !matches!(weight, AnyWeight::Linear(_)) {
        let forms = forms(Choice::Auto, &stored, &problem, false);
        plan(
            &packed,
            &stored,
            &problem,
            &forms,
            config.pack.search,
            plans,
        )?;
    }
    let full = candidate(&packed, stored, problem);
    let dtypes = config.dtypes.iter().copied();
    let dtypes = dtypes.filter(|&dtype| dtype == FloatDType::F32 || device.supports_dtype(dtype));
    let in_types: Vec<_> = dtypes
        .map(|dtype| (dtype, full.in_numbers(dtype)))
        .collect();
    let layers: Vec<_> = in_types
        .iter()
        .flat_map(|(dtype, candidate)| {
            let dense = (Form::Dense, *dtype, candidate.dense());
            let sparse = sparse.then(|| (Form::Sparse, *dtype, candidate.packed()));
            [Some(dense), sparse].into_iter().flatten()
        })
        .collect();
    let sub_batches = config.sub_batches(problem.batch);
    let ways: Vec<_> = layers
        .iter()
        .flat_map(|(form, dtype, layer)| {
            sub_batches.iter().map(move |&sub_batch| Way {
                form: *form,
                run: RunAs {
                    dtype: *dtype,
                    sub_batch,
                },
                layer,
            })
        })
        .collect();
    let input = &full.input;
    let reference = floats(full.dense()(input.clone()));
    for way in &ways {
        let unit = unit(way.run.dtype).max(rounding_unit(&device));
        let tolerance = config
            .pack
            .tolerance
            .unwrap_or_else(|| tolerance(&csr, unit));
        let difference = Difference::between(&reference, &floats(way.of(input))).max_abs;
        if difference > tolerance {
            return Err(SparseError::Mismatch {
                layer: format!("{layer} ({} in {:?})", way.form, way.run.dtype),
                difference,
                tolerance,
            });
        }
        report.times.push(MixedTime {
            form: way.form,
            run: way.run,
            ms: 0.0,
            max_abs_diff: difference,
        });
    }
    let runs: Vec<Box<dyn Fn() -> Tensor<4> + Sync + '_>> = ways
        .iter()
        .map(|way| Box::new(|| way.of(input)) as Box<dyn Fn() -> Tensor<4> + Sync + '_>)
        .collect();
    let runs: Vec<&(dyn Fn() -> Tensor<4> + Sync)> = runs.iter().map(AsRef::as_ref).collect();
    // No form is dropped early: all are in the report.
    let work = || in_turn(&runs, config.pack.runs, &device, |_, _| false);
    let times = if on_cpu { cpu::on_pool(work) } else { work() };
    for (time, ms) in report.times.iter_mut().zip(times) {
        time.ms = ms;
    }
    let Some((form, run)) = report.choose() else {
        return Ok((weight.unpack(), None, report));
    };
    let weight = match form {
        Form::Sparse => packed.in_numbers(run.dtype),
        Form::Dense => weight.unpack().in_numbers(run.dtype),
    };
    Ok((weight, Some(run), report))
}

impl Candidate {
    /// The same with its weights in another type of numbers, the input as it is.
    fn in_numbers(&self, dtype: FloatDType) -> Self {
        let (dense, sparse) = (self.dense.clone(), &self.sparse);
        Self {
            problem: self.problem,
            kind: self.kind,
            input: self.input.clone(),
            dense: if dense.dtype() == DType::from(dtype) {
                dense
            } else {
                dense.cast(dtype)
            },
            sparse: sparse.for_inputs(dtype.into()),
        }
    }
}

/// Half the distance from 1 to the next number.
fn unit(dtype: FloatDType) -> f64 {
    match dtype {
        FloatDType::F64 => f64::EPSILON / 2.0,
        FloatDType::F16 => 0.5f64.powi(11),
        FloatDType::BF16 => 0.5f64.powi(8),
        _ => f64::from(f32::EPSILON),
    }
}
