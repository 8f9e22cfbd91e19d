//! The fastest plan of the CPU kernels for a layer, found by running candidates.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{
    cache::PlanCache,
    search::{self, Search, Space},
};
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

/// Candidates that are timed again when all have had their turn.
const FINALISTS: usize = 3;

/// How many times as long as the fastest plan so far the first run of a plan may take for it to be run again.
const OUTRUN: f64 = 1.25;

/// How many times as long as the fastest plan so far the guess of a form may take for others of that form to be timed.
const HOPELESS: f64 = 1.5;

/// Elements that are read between two runs: more than a second cache holds.
const OTHER: usize = 1 << 19;

/// Bytes of a layer's weights in a network whose weights are more than a third cache holds.
const LARGE: usize = 1 << 19;

/// The same layer is searched in the same order.
const SEED: u64 = 14;

/// The fastest of all candidates for `csr` on images like those of `problem`.
pub(super) fn tune(
    problem: &ConvProblem,
    csr: &Csr,
    forms: &[Sharing],
    search: Search,
    cache: &mut PlanCache,
) -> Result<Plan, SparseError> {
    let problem = problem.with_batch(1);
    let density = csr.stored() as f64 / (csr.rows() * csr.row_len()).max(1) as f64;
    if let Some(plan) = cache.find(&problem, density, forms, search) {
        return Ok(plan);
    }
    let plan = cpu::on_pool(|| fastest(&problem, csr, forms, search, SEED))?.plan;
    cache.insert(&problem, density, forms, search, plan);
    Ok(plan)
}

/// What a [`Search`] found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tuned {
    /// The fastest plan.
    pub plan: Plan,
    /// Its shortest run.
    pub time: Duration,
    /// Plans that the search asked for; those that a layer follows alike are timed once. Those that are
    /// [compiled](Plan::compiled), which are always timed, do not count.
    pub evaluations: usize,
}

/// The fastest plan of the CPU kernels for a convolution's weight on one image, on the threads at
/// hand: what [`pack`](super::pack()) does for each layer, without its cache.
///
/// # Errors
/// [`SparseError::Shape`] for a weight that is not one of `problem`.
///
/// # Example
/// ```
/// use burn_sparse::{ConvProblem, format::Csr, pack::{Search, tune_plan}};
///
/// let problem = ConvProblem::new(1, [8, 8], [14, 14], [1, 1]);
/// let dense: Vec<f32> = (0..64).map(|i| f32::from(u8::from(i % 9 == 0))).collect();
/// let csr = Csr::from_dense(&dense, [8, 8])?;
/// let tuned = tune_plan(&problem, &csr, Search::Genetic { evaluations: 20 }, 1)?;
/// assert!((1..=20).contains(&tuned.evaluations));
/// # Ok::<(), burn_sparse::SparseError>(())
/// ```
pub fn tune_plan(
    problem: &ConvProblem,
    csr: &Csr,
    search: Search,
    seed: u64,
) -> Result<Tuned, SparseError> {
    let problem = problem.with_batch(1);
    let forms = super::layer::shared(csr, &problem);
    cpu::on_pool(|| fastest(&problem, csr, &forms, search, seed))
}

/// Median times of plans for a convolution's weight on one image, all run in turns, so that a slow
/// moment of the machine slows all of them.
///
/// # Errors
/// [`SparseError::Shape`] for a weight that is not one of `problem`.
pub fn time_plans(
    problem: &ConvProblem,
    csr: &Csr,
    plans: &[Plan],
    runs: usize,
) -> Result<Vec<Duration>, SparseError> {
    let problem = problem.with_batch(1);
    cpu::on_pool(|| {
        let isa = Isa::current();
        let mut timer = Timer::new(&problem, csr, isa);
        let ready = plans
            .iter()
            .map(|&plan| Direct::new(&problem, Rows::from(csr), plan, isa))
            .collect::<Result<Vec<_>, _>>()?;
        let mut times = vec![Vec::with_capacity(runs); plans.len()];
        // The first turn warms up.
        for turn in 0..=runs.max(1) {
            for (times, direct) in times.iter_mut().zip(&ready) {
                let time = timer.once(direct);
                if turn > 0 {
                    times.push(time);
                }
            }
        }
        Ok(times
            .into_iter()
            .map(|mut times| {
                times.sort_unstable();
                times[times.len() / 2]
            })
            .collect())
    })
}

fn fastest(
    problem: &ConvProblem,
    csr: &Csr,
    forms: &[Sharing],
    search: Search,
    seed: u64,
) -> Result<Tuned, SparseError> {
    let isa = Isa::current();
    let density = csr.stored() as f64 / (csr.rows() * csr.row_len()).max(1) as f64;
    let mut timer = Timer::new(problem, csr, isa);
    let guesses = forms
        .iter()
        .map(|&form| Plan::guess_sharing(problem, density, form, isa));
    // A few plans of another kind, which no search of the others would come by.
    let mut coded = None;
    for plan in Plan::compiled_candidates(problem, density, isa) {
        let time = timer.time(plan)?;
        if coded.is_none_or(|(least, _)| time < least) {
            coded = Some((time, plan));
        }
    }
    if let Some((_, plan)) = coded {
        for plan in plan.compiled_neighbours(problem, isa) {
            timer.time(plan)?;
        }
    }
    timer.evaluations = 0;
    if search == Search::Candidates {
        let begin = Instant::now();
        // The guess of every form is tried, whatever time is left.
        for (guess, &form) in guesses.zip(forms) {
            if timer.time(guess)?.as_secs_f64() > HOPELESS * timer.least() {
                continue;
            }
            for plan in Plan::candidates(problem, density, form, isa) {
                if begin.elapsed() > BUDGET {
                    break;
                }
                timer.time(plan)?;
            }
        }
    } else if !forms.is_empty() {
        let space = Space::new(problem, forms, isa);
        let start: Vec<_> = guesses.map(|guess| space.gene(&guess)).collect();
        let mut failed = None;
        search::run(search, space.sizes(), &start, seed, |gene| {
            match timer.time(space.plan(gene)) {
                Ok(time) => time.as_secs_f64(),
                Err(error) => {
                    failed = Some(error);
                    f64::INFINITY
                }
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
    }
    let evaluations = timer.evaluations;
    Ok(timer.winner().map_or_else(
        || Tuned {
            plan: Plan::guess(problem, density, 1, isa),
            time: Duration::MAX,
            evaluations,
        },
        |(time, plan)| Tuned {
            plan,
            time,
            evaluations,
        },
    ))
}

/// Runs plans on images of zeros, and keeps the fastest.
struct Timer<'a> {
    problem: &'a ConvProblem,
    csr: &'a Csr,
    isa: Isa,
    images: Buffer,
    out: Buffer,
    /// What is read between two runs.
    other: Buffer,
    /// By the plan that is followed, which may not be the plan that was asked for.
    known: HashMap<Plan, Duration>,
    fastest: Vec<(Duration, Direct)>,
    evaluations: usize,
}

impl<'a> Timer<'a> {
    fn new(problem: &'a ConvProblem, csr: &'a Csr, isa: Isa) -> Self {
        let mut images = Buffer::new(problem.in_channels * padded_plane(problem.input));
        images.fill(0.0);
        Self {
            problem,
            csr,
            isa,
            images,
            out: Buffer::new(csr.rows() * padded_plane(problem.output())),
            other: Buffer::new(OTHER),
            known: HashMap::new(),
            fastest: Vec::new(),
            evaluations: 0,
        }
    }

    fn time(&mut self, plan: Plan) -> Result<Duration, SparseError> {
        self.evaluations += 1;
        let direct = Direct::new(self.problem, Rows::from(self.csr), plan, self.isa)?;
        if let Some(&known) = self.known.get(&direct.plan()) {
            return Ok(known);
        }
        let mut best = self.once(&direct);
        if best.as_secs_f64() < OUTRUN * self.least() {
            best = best.min(self.once(&direct));
        }
        self.known.insert(direct.plan(), best);
        self.fastest.push((best, direct));
        self.fastest.sort_by_key(|(best, _)| *best);
        self.fastest.truncate(FINALISTS);
        Ok(best)
    }

    /// The shortest run so far, in seconds.
    fn least(&self) -> f64 {
        self.fastest
            .first()
            .map_or(f64::INFINITY, |(time, _)| time.as_secs_f64())
    }

    fn once(&mut self, direct: &Direct) -> Duration {
        let [input, output] = [self.problem.input, self.problem.output()].map(padded_plane);
        self.cool(direct);
        let start = Instant::now();
        direct.run(
            1,
            Images {
                data: &self.images,
                batch_stride: self.problem.in_channels * input,
                channel_stride: input,
            },
            Finish {
                relu: true,
                ..Finish::default()
            },
            ImagesMut {
                data: &mut self.out,
                batch_stride: self.csr.rows() * output,
                channel_stride: output,
            },
        );
        start.elapsed()
    }

    /// Takes weights out of the caches of each core, large ones out of those that cores share as well: within a network
    /// other layers ran since they were read.
    fn cool(&self, direct: &Direct) {
        if direct.bytes() > LARGE {
            direct.leave_caches();
        }
        rayon::broadcast(|_| {
            let lines = self.other.iter().step_by(16);
            core::hint::black_box(lines.sum::<f32>())
        });
    }

    fn winner(mut self) -> Option<(Duration, Plan)> {
        let mut finalists = core::mem::take(&mut self.fastest);
        for _ in 0..5 {
            for (best, direct) in &mut finalists {
                *best = self.once(direct).min(*best);
            }
        }
        let (best, direct) = finalists.into_iter().min_by_key(|(best, _)| *best)?;
        Some((best, direct.plan()))
    }
}
