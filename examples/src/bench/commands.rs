//! The commands of `bench`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use burn_sparse::cpu;

use super::sweep::{layers, plan, some};
use super::{
    Axis, BenchError, BenchReport, Case, Command, CommonArgs, CompareArgs, Comparison,
    ConditionArgs, Growth, GrowthArgs, Machine, Point, RunArgs, Runner, Settings, cases, decompose,
    draw, quant, ranks, resnet50, search, shared, stay_dense, tucker,
};
use crate::cli::{Preset, command_line};
use crate::device::{Backend, Selected, select};
use crate::output::OutputDir;
use crate::progress::Progress;
use crate::timing::TimingOptions;

/// Layers of the quick preset: of a run, and of a plot.
const FEW: [usize; 2] = [6, 3];
/// Time between two reports of an unfinished run.
const SAVE: Duration = Duration::from_secs(30);
/// Largest batch of a whole network, whose first output alone has 800 000 elements an image.
const MAX_IMAGES: usize = 256;
const REPORT: &str = "report.json";

/// How a command ended that could do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All is well.
    Well,
    /// So many kernels failed, or so many rows are regressions.
    Found(usize),
}

impl Ending {
    fn of(found: usize) -> Self {
        match found {
            0 => Self::Well,
            found => Self::Found(found),
        }
    }
}

/// Does what the command line says, and prints what comes out.
///
/// # Errors
/// [`BenchError`] if the work could not be done. What the work finds is in the [`Ending`].
pub fn execute(command: &Command) -> Result<Ending, BenchError> {
    match command {
        Command::Run(args) => run(args),
        Command::Compare(args) => compare(args),
        Command::Growth(args) => growth(args),
        Command::Search(args) => search(args),
        Command::Quant(args) => quant(args),
        Command::Tucker(args) => tucker(args),
        Command::Ranks(args) => ranks(args),
        Command::Decompose(args) => decompose(args),
        Command::Shared(args) => shared(args),
        Command::Dense(args) => stay_dense(args),
    }
}

/// What commands that measure begin with.
pub(super) struct Prepared {
    pub(super) selected: Selected,
    pub(super) settings: Settings,
    pub(super) machine: Machine,
    pub(super) output: OutputDir,
    pub(super) few: bool,
}

pub(super) fn prepare(args: &CommonArgs, folder: &str) -> Result<Prepared, BenchError> {
    let selected = select(args.device)?;
    if args.threads.is_some() {
        threads_vary(&selected, "--threads")?;
    }
    let pool = cpu::bound_pool(args.threads).build_global();
    if args.threads.is_some() {
        // Unasked, a program that has its pool already keeps it.
        pool?;
    }
    selected.warn();
    let few = args.preset == Preset::Quick;
    let default = || PathBuf::from("target/runs").join(folder);
    let machine = Machine::of(&selected)?;
    machine.warn();
    Ok(Prepared {
        machine,
        settings: Settings {
            runs: args.runs,
            budget: args.budget.unwrap_or(if few { 0.5 } else { 5.0 }),
            verify: !args.no_verify,
            seed: args.seed,
        },
        output: OutputDir::create(args.output.clone().unwrap_or_else(default))?,
        selected,
        few,
    })
}

impl Prepared {
    /// The batches asked for, or those of the preset.
    pub(super) fn batches(&self, asked: &[usize]) -> Vec<usize> {
        match (asked.is_empty(), self.few) {
            (false, _) => asked.to_vec(),
            (true, true) => vec![1],
            (true, false) => vec![1, 16],
        }
    }

    /// How to time a row, for so many seconds by default: of the quick and of the full preset.
    pub(super) fn timing(&self, args: &CommonArgs, [quick, full]: [f64; 2]) -> TimingOptions {
        let budget = if self.few { quick } else { full };
        TimingOptions {
            warmup: 3,
            runs: args.runs,
            budget: Duration::from_secs_f64(args.budget.unwrap_or(budget)),
        }
    }
}

/// An error unless the device runs on rayon's threads.
fn threads_vary(selected: &Selected, what: &str) -> Result<(), BenchError> {
    if selected.backend == Backend::Flex {
        return Ok(());
    }
    Err(BenchError::Settings(format!(
        "{what}: {selected} has threads of its own; only flex takes as many as asked for"
    )))
}

impl ConditionArgs {
    /// With what the preset says where nothing was asked for; each value once.
    fn settled(&self, few: bool) -> Self {
        let mut args = self.clone();
        if args.sparsity.is_empty() {
            let full = || vec![0.8, 0.9, 0.95];
            args.sparsity = if few { vec![0.9] } else { full() };
        }
        if args.batch.is_empty() {
            args.batch = if few { vec![1] } else { vec![1, 16] };
        }
        fn once<T: PartialEq + Copy>(values: &mut Vec<T>) {
            let mut seen = Vec::new();
            values.retain(|value| {
                let new = !seen.contains(value);
                seen.push(*value);
                new
            });
        }
        once(&mut args.sparsity);
        once(&mut args.batch);
        once(&mut args.pattern);
        once(&mut args.dtype);
        args
    }

    /// # Errors
    /// [`BenchError::Settings`] for a type that the device does not compute in.
    fn check(&self, selected: &Selected) -> Result<(), BenchError> {
        let mut dtypes = self.dtype.iter();
        match dtypes.find(|dtype| !dtype.runs_on(&selected.device)) {
            None => Ok(()),
            Some(dtype) => Err(BenchError::Settings(format!(
                "--dtype {dtype}: {selected} does not compute in it"
            ))),
        }
    }

    fn cases(&self, layers: &[super::Layer]) -> Vec<Case> {
        cases(
            layers,
            &self.sparsity,
            &self.pattern,
            &self.batch,
            &self.dtype,
        )
    }
}

fn run(args: &RunArgs) -> Result<Ending, BenchError> {
    if args.network && args.suite != "resnet50" {
        return Err(BenchError::Settings(format!(
            "--network: of {} there are layers only; the whole network is there for resnet50",
            args.suite
        )));
    }
    let asked: Vec<String> = args.layer.iter().cloned().collect();
    let found = match layers(Some(&args.suite), &asked) {
        // The network alone.
        Err(BenchError::Settings(_)) if args.network => Vec::new(),
        found => found?,
    };
    let prepared = prepare(&args.common, "bench")?;
    let all = found.len();
    let chosen = if prepared.few && asked.is_empty() {
        some(found, FEW[0])
    } else {
        found
    };
    if chosen.len() < all {
        println!(
            "{} of {all} layers of {}; --preset full takes all, --layer others\n",
            chosen.len(),
            args.suite
        );
    }
    let conditions = args.conditions.settled(prepared.few);
    conditions.check(&prepared.selected)?;
    let most = conditions.batch.iter().max();
    if let Some(&batch) = most.filter(|&&batch| args.network && batch > MAX_IMAGES) {
        return Err(BenchError::Settings(format!(
            "--network: a batch of {batch} is more than {MAX_IMAGES}"
        )));
    }
    let cases = conditions.cases(&chosen);
    for case in &cases {
        let fits = case.layer.problem(case.batch);
        fits.map_err(|error| BenchError::Settings(format!("{}: {error}", case.key())))?;
    }
    let mut bench = Bench::new(&prepared, args.suite.clone());
    let progress = Progress::new("bench", cases.len() as u64);
    for case in &cases {
        bench.measure(case, &progress)?;
    }
    progress.finish();
    if args.network {
        bench.networks(&conditions)?;
    }
    let report = bench.report;
    println!("{}", report.table());
    save(&report, &prepared.output)?;
    Ok(Ending::of(report.failures()))
}

/// A report that grows.
struct Bench<'a> {
    prepared: &'a Prepared,
    runner: Runner<'a>,
    report: BenchReport,
    saved: Instant,
}

impl<'a> Bench<'a> {
    fn new(prepared: &'a Prepared, suite: String) -> Self {
        let (machine, settings) = (prepared.machine.clone(), prepared.settings);
        Self {
            runner: Runner::new(&prepared.selected, settings),
            report: BenchReport::new(command_line(), machine, settings, suite),
            saved: Instant::now(),
            prepared,
        }
    }

    /// Measures a case and returns the index of its row.
    fn measure(&mut self, case: &Case, progress: &Progress) -> Result<usize, BenchError> {
        progress.message(case.layer.name());
        let row = match self.runner.row(case) {
            Ok(row) => row,
            Err(error) => {
                self.report.save(&self.prepared.output.file(REPORT))?;
                return Err(error);
            }
        };
        self.report.rows.push(row);
        self.report.peaks = self.runner.peaks();
        progress.inc(1);
        // Long runs end early now and then; what was measured until then is not lost.
        if self.saved.elapsed() >= SAVE {
            self.report.save(&self.prepared.output.file(REPORT))?;
            self.saved = Instant::now();
        }
        Ok(self.report.rows.len() - 1)
    }

    fn networks(&mut self, conditions: &ConditionArgs) -> Result<(), BenchError> {
        let steps = conditions.sparsity.len() * conditions.pattern.len() * conditions.batch.len();
        let progress = Progress::new("network", steps as u64);
        for &batch in &conditions.batch {
            for &pattern in &conditions.pattern {
                for &sparsity in &conditions.sparsity {
                    let seed = self.prepared.settings.seed;
                    let options = self.runner.timing();
                    let selected = &self.prepared.selected;
                    let row = resnet50(selected, sparsity, pattern, batch, seed, options)?;
                    self.report.networks.push(row);
                    progress.inc(1);
                }
            }
        }
        progress.finish();
        Ok(())
    }
}

fn save(report: &BenchReport, output: &OutputDir) -> Result<(), BenchError> {
    let path = output.file(REPORT);
    report.save(&path)?;
    println!("{}", path.display());
    Ok(())
}

fn growth(args: &GrowthArgs) -> Result<Ending, BenchError> {
    let given = [
        (Axis::Sparsity, args.conditions.sparsity.is_empty()),
        (Axis::Batch, args.conditions.batch.is_empty()),
    ];
    if let Some((axis, _)) = given
        .iter()
        .find(|(axis, none)| *axis == args.axis && !none)
    {
        return Err(BenchError::Settings(format!(
            "--{axis}: this is what varies; say between which values with --values"
        )));
    }
    let found = layers(args.suite.as_deref(), &args.layer)?;
    let prepared = prepare(&args.common, "bench_growth")?;
    let all = found.len();
    let chosen = if prepared.few && args.layer.is_empty() {
        some(found, FEW[1])
    } else {
        found
    };
    if chosen.len() < all {
        println!(
            "{} of {all} layers; --preset full takes all, --layer others\n",
            chosen.len()
        );
    }
    let axis = args.axis;
    let mut conditions = args.conditions.settled(prepared.few);
    conditions.check(&prepared.selected)?;
    if axis == Axis::Threads {
        threads_vary(&prepared.selected, "--axis threads")?;
    }
    // What varies is not a condition too.
    match axis {
        Axis::Sparsity => conditions.sparsity.truncate(1),
        Axis::Batch => conditions.batch.truncate(1),
        _ => {}
    }
    let threads = prepared.machine.threads;
    let few = prepared.few;
    let planned = plan(axis, &conditions.cases(&chosen), &args.values, threads, few)?;
    let suite = args.suite.clone().unwrap_or_else(|| "layers".into());
    let mut bench = Bench::new(&prepared, suite);
    let points: usize = planned.iter().map(|(_, points)| points.len()).sum();
    let progress = Progress::new("growth", points as u64);
    let mut curves = Vec::new();
    for (mut curve, points) in planned {
        for (at, case) in points {
            let row = bench.measure(&case, &progress)?;
            curve.points.push(Point { at, row });
        }
        curve.settle(&bench.report.rows);
        curves.push(curve);
    }
    progress.finish();
    let mut report = bench.report;
    let caption = report.machine.to_string();
    for (number, curve) in (1..).zip(&mut curves) {
        if let Some(svg) = draw(axis, curve, &report.rows, &caption)? {
            let name = format!("{axis}-{number}.svg");
            prepared
                .output
                .write(&name, |file| file.write_all(svg.as_bytes()))?;
            curve.plot = Some(name);
        }
    }
    report.growth = Some(Growth { axis, curves });
    println!("{}", report.table());
    for curve in report.growth.iter().flat_map(|growth| &growth.curves) {
        if let Some(plot) = &curve.plot {
            println!("{}: {}", prepared.output.file(plot).display(), curve.layer);
        }
    }
    save(&report, &prepared.output)?;
    Ok(Ending::of(report.failures()))
}

fn compare(args: &CompareArgs) -> Result<Ending, BenchError> {
    let load = |path: &Path| BenchReport::load(path);
    let (old, new) = (load(&args.old)?, load(&args.new)?);
    let comparison = Comparison::new(&old, &new, args.threshold);
    println!("{comparison}");
    if let Some(folder) = &args.output {
        let output = OutputDir::create(folder)?;
        let path = output.write(REPORT, |file| {
            serde_json::to_writer_pretty(&mut *file, &comparison)?;
            file.write_all(b"\n")
        })?;
        println!("{}", path.display());
    }
    Ok(Ending::of(comparison.regressions()))
}
