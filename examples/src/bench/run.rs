//! Layers, one after the other: built, verified, timed.

use std::sync::Arc;
use std::time::Duration;

use burn_sparse::cpu;

use super::measure::measure;
use super::report::Settings;
use super::row::{Counts, Gflops};
use super::{
    BenchError, Dtype, Expected, Key, Layer, Measured, Operands, Outcome, Pattern, Peaks, Row,
    ThreadPeak,
};
use crate::device::{Backend, Selected};
use crate::quiet;
use crate::timing::TimingOptions;

/// Longest wait for a kernel's first run, which may compile it and tune it.
const FIRST_RUN: Duration = Duration::from_secs(600);

/// A row before it is measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// The layer.
    pub layer: Layer,
    /// Part that is zero.
    pub sparsity: f64,
    /// Which weights are zero.
    pub pattern: Pattern,
    /// Images, or texts.
    pub batch: usize,
    /// Type of the numbers.
    pub dtype: Dtype,
    /// Threads, where they are what is varied.
    pub threads: Option<usize>,
}

impl Case {
    /// What identifies its row.
    #[must_use]
    pub fn key(&self) -> Key {
        Key {
            layer: self.layer.name().to_string(),
            shape: self.layer.shape(),
            sparsity: self.sparsity,
            pattern: self.pattern,
            batch: self.batch,
            dtype: self.dtype,
            threads: self.threads,
        }
    }
}

/// The rows of layers under all combinations of conditions, layer by layer.
#[must_use]
pub fn cases(
    layers: &[Layer],
    sparsities: &[f64],
    patterns: &[Pattern],
    batches: &[usize],
    dtypes: &[Dtype],
) -> Vec<Case> {
    let mut cases = Vec::new();
    for layer in layers {
        for &batch in batches {
            for &dtype in dtypes {
                for &pattern in patterns {
                    for &sparsity in sparsities {
                        cases.push(Case {
                            layer: layer.clone(),
                            sparsity,
                            pattern,
                            batch,
                            dtype,
                            threads: None,
                        });
                    }
                }
            }
        }
    }
    cases
}

/// Measures cases on one device.
#[derive(Debug)]
pub struct Runner<'a> {
    selected: &'a Selected,
    settings: Settings,
    peaks: Peaks,
}

impl<'a> Runner<'a> {
    /// A runner for a device.
    #[must_use]
    pub fn new(selected: &'a Selected, settings: Settings) -> Self {
        Self {
            selected,
            settings,
            peaks: Peaks::default(),
        }
    }

    /// How long and how often to run.
    #[must_use]
    pub fn timing(&self) -> TimingOptions {
        TimingOptions {
            runs: self.settings.runs,
            budget: Duration::from_secs_f64(self.settings.budget),
            ..TimingOptions::default()
        }
    }

    /// What the processor can do with each number of threads that rows were measured with; empty
    /// on devices other than `flex`.
    #[must_use]
    pub fn peaks(&self) -> Vec<ThreadPeak> {
        self.peaks.all()
    }

    /// Measures one row. A kernel that is wrong or panics makes it a row that failed.
    ///
    /// # Errors
    /// [`BenchError::Device`] for a device that fails: nothing after it can be trusted.
    /// [`BenchError::Threads`] if a pool of threads cannot be made.
    pub fn row(&self, case: &Case) -> Result<Row, BenchError> {
        let Some(threads) = case.threads else {
            return self.row_here(case);
        };
        let pool = cpu::bound_pool(Some(threads)).build()?;
        pool.install(|| self.row_here(case))
    }

    fn row_here(&self, case: &Case) -> Result<Row, BenchError> {
        let outcome = match self.operands(case) {
            Ok(operands) => match self.first_runs(&operands, case.dtype) {
                Ok(checks) => Outcome::Measured(Box::new(self.measured(case, &operands, checks)?)),
                Err(reason) => self.failed(case, reason)?,
            },
            Err(reason) => self.failed(case, reason)?,
        };
        Ok(Row {
            key: case.key(),
            count: case.layer.count(),
            threads_used: rayon::current_num_threads(),
            outcome,
        })
    }

    /// A row that failed, unless the device failed with it: some do nothing any more after a kernel
    /// that they could not run, and every row to come would fail for that.
    fn failed<T>(&self, case: &Case, reason: String) -> Result<Outcome<T>, BenchError> {
        let device = self.selected.device.clone();
        let lives = quiet::catch(FIRST_RUN, move || device.sync().is_ok());
        match lives {
            Ok(true) => Ok(Outcome::Failed { reason }),
            _ => Err(BenchError::Device(format!("{}: {reason}", case.key()))),
        }
    }

    fn flex(&self) -> bool {
        self.selected.backend == Backend::Flex
    }

    fn operands(&self, case: &Case) -> Result<Arc<Operands>, String> {
        let problem = case.layer.problem(case.batch).map_err(|e| e.to_string())?;
        if !case.dtype.runs_on(&self.selected.device) {
            return Err(format!(
                "{} does not compute in {}",
                self.selected, case.dtype
            ));
        }
        let seed = self.settings.seed;
        let csr = case
            .pattern
            .weight(&problem, case.sparsity, seed)
            .map_err(|error| error.to_string())?;
        let (kind, dtype, flex) = (case.layer.kind(), case.dtype, self.flex());
        let device = self.selected.device.clone();
        // Some devices panic on a type that they do not have.
        quiet::catch(FIRST_RUN, move || {
            Arc::new(Operands::new(
                kind, problem, csr, dtype, seed, &device, flex,
            ))
        })
    }

    /// The first run of each form, which may panic where a backend lacks something, and what the
    /// reference says to its outputs.
    fn first_runs(&self, operands: &Arc<Operands>, dtype: Dtype) -> Result<Checks, String> {
        let (shared, verify, seed) = (operands.clone(), self.settings.verify, self.settings.seed);
        quiet::catch(FIRST_RUN, move || {
            let outputs = shared.forms().map(|form| form());
            let [sparse, dense] = outputs.map(super::operands::Output::values);
            if !verify {
                return Ok(Checks::default());
            }
            let expected = Expected::new(&shared, seed);
            let ours = expected
                .check(&sparse, dtype)
                .map_err(|reason| format!("sparse kernel: {reason}"))?;
            let (rival, reduced) = expected
                .check_rival(&dense, dtype)
                .map_err(|reason| format!("dense kernel: {reason}"))?;
            Ok(Checks {
                ours: Some(ours),
                rival: Some(rival),
                reduced,
            })
        })?
    }

    fn measured(
        &self,
        case: &Case,
        operands: &Operands,
        checks: Checks,
    ) -> Result<Measured, BenchError> {
        let [sparse, dense] = operands.forms();
        let device = &self.selected.device;
        let work = || measure(device, self.timing(), sparse, dense);
        // As layers of a network run, which do not wake the pool one by one.
        let pair = if self.flex() {
            cpu::on_pool(work)?
        } else {
            work()?
        };
        let counts = Counts::of(operands.csr(), operands.problem(), case.dtype);
        let share = self.flex().then(|| {
            let seconds = pair.sparse.median / 1e3;
            let loads = operands.vector_loads();
            self.peaks.here().share(counts.macs, loads, seconds)
        });
        Ok(Measured {
            counts,
            pair,
            gflops: Gflops::of(&counts, &pair),
            share,
            dense_wins: pair.ratio.median >= 1.0,
            verified: checks.ours,
            dense_verified: checks.rival,
            dense_reduced: checks.reduced,
        })
    }
}

#[derive(Debug, Default)]
struct Checks {
    ours: Option<super::Verified>,
    rival: Option<super::Verified>,
    reduced: bool,
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::bench::Kind;
    use crate::device::{DeviceChoice, select};

    #[test]
    fn a_row_is_verified_timed_and_counted_on_as_many_threads_as_asked() {
        let selected = select(DeviceChoice::Named(Backend::Flex, None)).unwrap();
        let settings = Settings {
            runs: 3,
            budget: 1.0,
            verify: true,
            seed: 1,
        };
        let runner = Runner::new(&selected, settings);
        let layers = [
            "kind=conv in=8 out=6 size=9 kernel=3 padding=1 groups=2",
            "kind=conv1d in=8 out=6 size=9 kernel=3",
            "kind=linear in=8 out=6",
        ]
        .map(|line| line.parse().unwrap());
        let dtypes = [Dtype::F32, Dtype::F16, Dtype::Bf16];
        let patterns = [Pattern::Unstructured, Pattern::Blocks(4)];
        let cases = cases(&layers, &[0.5, 0.9], &patterns, &[1, 3], &dtypes);
        assert_eq!(cases.len(), 3 * 2 * 2 * 2 * 3);
        for case in cases {
            let row = runner.row(&case).unwrap();
            let measured = row.measured().unwrap_or_else(|| panic!("{row:?}"));
            let verified = measured.verified.unwrap();
            assert_eq!(verified.checked, verified.outputs);
            assert!(measured.dense_verified.is_some());
            assert_eq!(measured.pair.sparse.runs, 3);
            let share = measured.share.unwrap();
            assert!(share.flops > 0.0, "{share:?}");
            assert_eq!(share.loads.is_some(), case.layer.kind() != Kind::Linear);
            let threads = Case {
                threads: Some(1),
                ..case
            };
            assert_eq!(runner.row(&threads).unwrap().threads_used, 1);
        }
        let threads: Vec<_> = runner.peaks().iter().map(|peak| peak.threads).collect();
        let all = rayon::current_num_threads();
        assert_eq!(threads, if all == 1 { vec![1] } else { vec![1, all] });
    }
}
