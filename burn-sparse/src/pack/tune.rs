//! The fastest plan of the CPU kernels for a layer, found by running the candidates.

use std::time::{Duration, Instant};

use super::cache::PlanCache;
use crate::{
    ConvProblem, SparseError,
    cpu::{
        self, Buffer, Direct, Finish, Images, ImagesMut, Isa, Plan, Rows, Sharing, padded_plane,
    },
    format::Csr,
};

/// Time for the candidates of one layer, so that a network of fifty layers is packed in two seconds.
/// All output channels are timed: with a part of them the weights stay in the first caches, and
/// another plan is the fastest.
const BUDGET: Duration = Duration::from_millis(35);

/// Candidates that are timed more than once.
const FINALISTS: usize = 4;

/// The fastest of all candidates for `csr` on images like those of `problem`.
pub(super) fn tune(
    problem: &ConvProblem,
    csr: &Csr,
    forms: &[Sharing],
    cache: &mut PlanCache,
) -> Result<Plan, SparseError> {
    let problem = problem.with_batch(1);
    let density = csr.stored() as f64 / (csr.rows() * csr.row_len()).max(1) as f64;
    if let Some(plan) = cache.find(&problem, density, forms) {
        return Ok(plan);
    }
    let plan = cpu::on_pool(|| fastest(&problem, csr, density, forms))?;
    cache.insert(&problem, density, forms, plan);
    Ok(plan)
}

fn fastest(
    problem: &ConvProblem,
    csr: &Csr,
    density: f64,
    forms: &[Sharing],
) -> Result<Plan, SparseError> {
    let isa = Isa::current();
    let channels = csr.rows();
    let [input, output] = [problem.input, problem.output()];
    let (in_stride, out_stride) = (padded_plane(input), padded_plane(output));
    let mut images = Buffer::new(problem.in_channels * in_stride);
    images.fill(0.0);
    let mut out = Buffer::new(channels * out_stride);
    let mut time = |direct: &Direct| {
        let start = Instant::now();
        direct.run(
            1,
            Images {
                data: &images,
                batch_stride: problem.in_channels * in_stride,
                channel_stride: in_stride,
            },
            Finish {
                relu: true,
                ..Finish::default()
            },
            ImagesMut {
                data: &mut out,
                batch_stride: channels * out_stride,
                channel_stride: out_stride,
            },
        );
        start.elapsed()
    };
    let begin = Instant::now();
    let mut timed: Vec<(Duration, Direct)> = Vec::new();
    for &form in forms {
        // The guess of every form is tried, whatever time is left.
        let mut first = true;
        for plan in Plan::candidates(problem, density, form, isa) {
            if !core::mem::take(&mut first) && begin.elapsed() > BUDGET {
                break;
            }
            let direct = Direct::new(problem, Rows::from(csr), plan, isa)?;
            let best = time(&direct).min(time(&direct));
            timed.push((best, direct));
            timed.sort_by_key(|(best, _)| *best);
            timed.truncate(FINALISTS);
        }
    }
    for _ in 0..5 {
        for (best, direct) in &mut timed {
            *best = time(direct).min(*best);
        }
    }
    let best = timed.into_iter().min_by_key(|(best, _)| *best);
    Ok(best.map_or_else(
        || Plan::guess(problem, density, 1, isa),
        |(_, direct)| direct.plan(),
    ))
}
