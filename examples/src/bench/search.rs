//! `bench search`: the genetic search of plans beside its control, at equal evaluations.

use std::path::PathBuf;

use burn_sparse::cpu::{self, Plan};
use burn_sparse::pack::{Search, time_plans, tune_plan};
use clap::Args;
use serde::Serialize;

use super::commands::Ending;
use super::sweep::layers;
use super::table::{Table, digits};
use super::{BenchError, Kind, Layer, Machine, Pattern};
use crate::cli::{command_line, positive, sparsity};
use crate::device::{DeviceChoice, select};
use crate::output::OutputDir;
use crate::progress::Progress;

/// Arguments of `bench search`.
#[derive(Args, Clone, Debug)]
pub struct SearchArgs {
    /// Layers to search for: `resnet50`, `vgg16`, `densenet121`, `text_cnn`, `text_cnn_short`, or a file; their
    /// convolutions are
    #[arg(long, default_value = "resnet50", value_name = "NAME|FILE")]
    pub suite: String,

    /// Only layers whose names this regular expression finds
    #[arg(long, value_name = "REGEX")]
    pub layer: Vec<String>,

    /// Part of the weights that is zero
    #[arg(long, default_value = "0.9", value_parser = sparsity, allow_negative_numbers = true)]
    pub sparsity: f64,

    /// Which weights are not zero; as in `bench run`
    #[arg(long, default_value_t)]
    pub pattern: Pattern,

    /// Plans that each search times
    #[arg(long, default_value_t = 320, value_name = "N", value_parser = positive)]
    pub evaluations: usize,

    /// Searches of each kind, with seeds 1, 2, ..
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = positive)]
    pub seeds: usize,

    /// Timed runs of each plan that was found, in turns
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = positive)]
    pub runs: usize,

    /// Threads; as many as the machine has unless set
    #[arg(long, value_name = "N", value_parser = positive)]
    pub threads: Option<usize>,

    /// Folder for report.json
    #[arg(long, value_name = "DIR", default_value = "target/runs/bench_search")]
    pub output: PathBuf,
}

/// The plans that were found for a layer, and how long they take.
#[derive(Debug, Serialize)]
struct Row {
    layer: String,
    /// Of the plan that packing chooses among its candidates.
    candidates: Found,
    /// By seed.
    genetic: Vec<Found>,
    /// By seed.
    random: Vec<Found>,
}

#[derive(Debug, Serialize)]
struct Found {
    plan: Plan,
    evaluations: usize,
    /// Median milliseconds, in turns with all other plans of the layer.
    ms: f64,
}

/// A geometric mean over layers and seeds, relative to the candidates.
#[derive(Debug, Serialize)]
struct Summary {
    genetic: f64,
    random: f64,
    /// Searches, of all, of which the genetic one found the faster plan.
    genetic_faster: usize,
    random_faster: usize,
}

#[derive(Debug, Serialize)]
struct Report {
    command: String,
    machine: Machine,
    suite: String,
    sparsity: f64,
    pattern: Pattern,
    rows: Vec<Row>,
    summary: Summary,
}

/// Differences below this are none.
const EQUAL: f64 = 0.01;

/// Searches for the plans of all layers asked for, times what was found and prints it.
///
/// # Errors
/// [`BenchError`] if a suite cannot be read, or nothing can be measured.
pub fn search(args: &SearchArgs) -> Result<Ending, BenchError> {
    let selected = select(DeviceChoice::default())?;
    let pool = cpu::bound_pool(args.threads).build_global();
    if args.threads.is_some() {
        // Unasked, a program that has its pool already keeps it.
        pool?;
    }
    let machine = Machine::of(&selected)?;
    machine.warn();
    let output = OutputDir::create(&args.output)?;
    let mut found = layers(Some(&args.suite), &args.layer)?;
    found.retain(|layer| layer.kind() != Kind::Linear);
    let progress = Progress::new("search", (found.len() * args.seeds) as u64);
    let mut rows = Vec::with_capacity(found.len());
    for layer in &found {
        rows.push(row(args, layer, &progress)?);
    }
    progress.finish();
    let report = Report {
        command: command_line(),
        machine,
        suite: args.suite.clone(),
        sparsity: args.sparsity,
        pattern: args.pattern,
        summary: Summary::of(&rows),
        rows,
    };
    println!("{report}");
    let path = output.write("report.json", |file| {
        serde_json::to_writer_pretty(&mut *file, &report)?;
        file.write_all(b"\n")
    })?;
    println!("{}", path.display());
    Ok(Ending::Well)
}

fn row(args: &SearchArgs, layer: &Layer, progress: &Progress) -> Result<Row, BenchError> {
    let problem = layer.problem(1).map_err(|source| BenchError::Layer {
        text: layer.name().to_owned(),
        source,
    })?;
    let csr = args.pattern.weight(&problem, args.sparsity, 1)?;
    let evaluations = args.evaluations;
    let mut tuned = vec![tune_plan(&problem, &csr, Search::Candidates, 0)?];
    for seed in 1..=args.seeds as u64 {
        for search in [
            Search::Genetic { evaluations },
            Search::Random { evaluations },
        ] {
            tuned.push(tune_plan(&problem, &csr, search, seed)?);
        }
        progress.inc(1);
    }
    let plans: Vec<Plan> = tuned.iter().map(|tuned| tuned.plan).collect();
    let times = time_plans(&problem, &csr, &plans, args.runs)?;
    let mut found = tuned.iter().zip(times).map(|(tuned, time)| Found {
        plan: tuned.plan,
        evaluations: tuned.evaluations,
        ms: 1e3 * time.as_secs_f64(),
    });
    let candidates = found.next().expect("the candidates were the first");
    let (mut genetic, mut random) = (Vec::new(), Vec::new());
    while let (Some(of_genetic), Some(of_random)) = (found.next(), found.next()) {
        genetic.push(of_genetic);
        random.push(of_random);
    }
    Ok(Row {
        layer: layer.name().to_owned(),
        candidates,
        genetic,
        random,
    })
}

impl Summary {
    fn of(rows: &[Row]) -> Self {
        let mean = |found: fn(&Row) -> &Vec<Found>| {
            let ratios = rows.iter().flat_map(|row| {
                let base = row.candidates.ms;
                found(row).iter().map(move |found| (found.ms / base).ln())
            });
            let (count, sum) = ratios.fold((0, 0.0), |(n, sum), ln| (n + 1, sum + ln));
            (sum / f64::from(count.max(1))).exp()
        };
        let pairs = || {
            rows.iter()
                .flat_map(|row| row.genetic.iter().zip(&row.random))
        };
        let faster = |a: &Found, b: &Found| a.ms < (1.0 - EQUAL) * b.ms;
        Self {
            genetic: mean(|row| &row.genetic),
            random: mean(|row| &row.random),
            genetic_faster: pairs()
                .filter(|(genetic, random)| faster(genetic, random))
                .count(),
            random_faster: pairs()
                .filter(|(genetic, random)| faster(random, genetic))
                .count(),
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} on {}", self.suite, self.machine)?;
        let zeros = 100.0 * self.sparsity;
        writeln!(
            f,
            "{zeros:.0} % zeros, {}, batch 1; milliseconds\n",
            self.pattern
        )?;
        let mut table = Table::new(&["layer", "candidates", "genetic", "random", "timed plans"]);
        let middle = |found: &[Found]| {
            let mut times: Vec<f64> = found.iter().map(|found| found.ms).collect();
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        };
        for row in &self.rows {
            let timed = |found: &[Found]| found.iter().map(|f| f.evaluations).max().unwrap_or(0);
            table.push(vec![
                row.layer.clone(),
                digits(row.candidates.ms),
                digits(middle(&row.genetic)),
                digits(middle(&row.random)),
                format!("{}, {}", row.candidates.evaluations, timed(&row.genetic)),
            ]);
        }
        writeln!(f, "{table}")?;
        let Summary {
            genetic,
            random,
            genetic_faster,
            random_faster,
        } = self.summary;
        let all: usize = self.rows.iter().map(|row| row.genetic.len()).sum();
        write!(
            f,
            "time over that of the candidates, geometric mean: genetic {genetic:.3}, random \
             {random:.3}\nof {all} pairs at equal evaluations genetic is faster in \
             {genetic_faster}, random in {random_faster}, the others differ by less than 1 %"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_reports_every_plan() {
        let folder = tempfile::tempdir().unwrap();
        let suite = folder.path().join("suite");
        let line = "tiny kind=conv in=8 out=8 size=9 kernel=3 padding=1\nfc kind=linear in=9 out=9 rows=1\n";
        std::fs::write(&suite, line).unwrap();
        let args = SearchArgs {
            suite: suite.display().to_string(),
            layer: Vec::new(),
            sparsity: 0.5,
            pattern: Pattern::Blocks(4),
            evaluations: 12,
            seeds: 2,
            runs: 3,
            threads: None,
            output: folder.path().join("out"),
        };
        assert_eq!(search(&args).unwrap(), Ending::Well);
        let report = std::fs::read_to_string(args.output.join("report.json")).unwrap();
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        let rows = report["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 1);
        for kind in ["genetic", "random"] {
            let found = rows[0][kind].as_array().unwrap();
            assert_eq!(found.len(), 2);
            assert!(found.iter().all(|found| found["evaluations"] == 12));
            assert!(
                found
                    .iter()
                    .all(|found| found["ms"].as_f64().unwrap() > 0.0)
            );
        }
        assert!(report["summary"]["genetic"].as_f64().unwrap() > 0.0);
    }
}
