//! `bench quant`: weights as codes of few bits beside floats, where one input after the other arrives.

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use burn_sparse::cpu::{
    self, Bundles, InputScale, Int8Weight, Isa, Order, RowFinish, Rows, dense_linear_row, gru_cell,
    int8_linear,
};
use burn_sparse::format::Csr;
use burn_sparse::quant::{BitCodes, Levels, Quantized};
use burn_sparse::{ConvProblem, SparseError, catalogue};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::commands::Ending;
use super::table::{Table, digits};
use super::{BenchError, Machine, Pattern};
use crate::cli::{command_line, positive, sparsity};
use crate::device::{DeviceChoice, select};
use crate::output::OutputDir;
use crate::progress::Progress;
use crate::timing::Timing;

/// Arguments of `bench quant`.
#[derive(Args, Clone, Debug)]
pub struct QuantArgs {
    /// What to time: a linear layer with as many inputs as outputs, a step of a GRU (the product of the
    /// state with three gates, and the gates)
    #[arg(long, value_delimiter = ',', default_value = "linear,gru")]
    pub kind: Vec<QuantKind>,

    /// Inputs and outputs of the layer, or the size of the state
    #[arg(long, value_delimiter = ',', default_value = "512,1024,2048", value_name = "N", value_parser = positive)]
    pub size: Vec<usize>,

    /// Bits of a weight, each 1 to 8
    #[arg(long, value_delimiter = ',', default_value = "8,4,3,2", value_name = "BITS", value_parser = bits)]
    pub bits: Vec<u8>,

    /// Part of the weights that is zero
    #[arg(long, value_delimiter = ',', default_value = "0,0.9", value_parser = sparsity, allow_negative_numbers = true)]
    pub sparsity: Vec<f64>,

    /// Which weights are not zero; as in `bench run`
    #[arg(long, default_value = "blocks16")]
    pub pattern: Pattern,

    /// Timed rounds, each of one run of every form
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = positive)]
    pub runs: usize,

    /// Threads; as many as the machine has unless set
    #[arg(long, value_name = "N", value_parser = positive)]
    pub threads: Option<usize>,

    /// Seed of weights and inputs
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,

    /// Folder for report.json
    #[arg(long, value_name = "DIR", default_value = "target/runs/bench_quant")]
    pub output: PathBuf,
}

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum QuantKind {
    /// A linear layer.
    Linear,
    /// A step of a gated recurrent unit.
    Gru,
}

fn bits(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(bits @ 1..=8) => Ok(bits),
        _ => Err(format!("a weight has 1 to 8 bits, got {text}")),
    }
}

/// One layer.
#[derive(Debug, Serialize)]
struct Row {
    kind: QuantKind,
    size: usize,
    sparsity: f64,
    /// How packed weights are laid out.
    layout: &'static str,
    forms: Vec<Form>,
}

/// A way to keep the weights of a layer.
#[derive(Debug, Serialize)]
struct Form {
    /// `dense`, `packed` (floats), or `int8` (dense weights and inputs), or the bits of packed weights.
    name: String,
    /// Bits of the stored codes; 32 of floats.
    bits: usize,
    /// Whether packing would choose these codes for such weights.
    chosen: bool,
    /// Of the values, without the index.
    bytes: usize,
    /// Milliseconds.
    time: Timing,
}

#[derive(Debug, Serialize)]
struct Report {
    command: String,
    machine: Machine,
    isa: Isa,
    pattern: Pattern,
    rows: Vec<Row>,
}

/// Times weights of few bits beside floats and prints it.
///
/// # Errors
/// [`BenchError`] if a weight cannot be made, or nothing can be measured.
pub fn quant(args: &QuantArgs) -> Result<Ending, BenchError> {
    let selected = select(DeviceChoice::default())?;
    let pool = cpu::bound_pool(args.threads).build_global();
    if args.threads.is_some() {
        // Unasked, a program that has its pool already keeps it.
        pool?;
    }
    let machine = Machine::of(&selected)?;
    machine.warn();
    let output = OutputDir::create(&args.output)?;
    let all = args.kind.len() * args.size.len() * args.sparsity.len();
    let progress = Progress::new("quant", all as u64);
    let mut rows = Vec::with_capacity(all);
    for &kind in &args.kind {
        for &size in &args.size {
            for &sparsity in &args.sparsity {
                rows.push(cpu::on_pool(|| row(args, kind, size, sparsity))?);
                progress.inc(1);
            }
        }
    }
    progress.finish();
    let report = Report {
        command: command_line(),
        machine,
        isa: Isa::current(),
        pattern: args.pattern,
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

/// A form that runs.
enum Weights {
    Dense(Vec<f32>),
    Int8(Int8Weight, InputScale),
    Packed(Bundles),
}

impl Weights {
    fn run(&self, x: &[f32], out: &mut [f32]) {
        match self {
            Self::Dense(weight) => dense_linear_row(x, weight, None, out),
            Self::Int8(weight, scale) => {
                int8_linear(x, weight, *scale, RowFinish::default(), out);
            }
            Self::Packed(bundles) => bundles.run(x, RowFinish::default(), out),
        }
    }
}

fn row(args: &QuantArgs, kind: QuantKind, size: usize, sparsity: f64) -> Result<Row, BenchError> {
    let outputs = match kind {
        QuantKind::Linear => size,
        QuantKind::Gru => 3 * size,
    };
    let problem = ConvProblem::new(1, [size, outputs], [1, 1], [1, 1]);
    problem.check()?;
    let csr = args.pattern.weight(&problem, sparsity, args.seed)?;
    let order = Arc::new(Order::new(Rows::from(&csr), size, Isa::current()));
    let x = catalogue::values(size, args.seed + 1);
    let gates = catalogue::values(outputs, args.seed + 2);

    let dense = csr.to_dense();
    let int8 = Int8Weight::linear(&dense, [outputs, size])?;
    // Inputs first, as dense layers have them.
    let transposed = (0..size * outputs).map(|at| dense[at % outputs * size + at / outputs]);
    let form = |name: &str, bits: usize, chosen: bool, bytes: usize| Form {
        name: name.to_owned(),
        bits,
        chosen,
        bytes,
        time: Timing::of(vec![0.0]).expect("one run"),
    };
    let packed = Bundles::new(order.clone(), csr.values());
    let mut forms = vec![
        form("dense", 32, false, 4 * dense.len()),
        form("int8", 8, false, int8.bytes()),
        form("packed", 32, false, packed.value_bytes()),
    ];
    let mut weights = vec![
        Weights::Dense(transposed.collect()),
        Weights::Int8(int8, InputScale::new([-1.0, 1.0])?),
        Weights::Packed(packed),
    ];
    for &bits in &args.bits {
        let quantized = quantised(&csr, bits)?;
        let values = quantized.values(csr.row_ptr());
        let matrix = Rows {
            values: &values,
            ..Rows::from(&csr)
        };
        let chosen = Bundles::compact(order.clone(), matrix).bits() < 32;
        let coded = Bundles::coded(order.clone(), &quantized)?;
        let name = format!("{bits} bits");
        forms.push(form(&name, coded.bits(), chosen, coded.value_bytes()));
        weights.push(Weights::Packed(coded));
    }
    let mut times = vec![Vec::with_capacity(args.runs); forms.len()];
    let (mut sums, mut state) = (vec![0.0; outputs], vec![0.0; size]);
    // Once more than is counted.
    for round in 0..=args.runs {
        for (weights, times) in weights.iter().zip(&mut times) {
            let start = Instant::now();
            weights.run(&x, &mut sums);
            if kind == QuantKind::Gru {
                gru_cell(&gates, &sums, &x, &mut state);
            }
            black_box((&sums, &state));
            if round > 0 {
                times.push(1e3 * start.elapsed().as_secs_f64());
            }
        }
    }
    for (form, times) in forms.iter_mut().zip(times) {
        form.time = Timing::of(times).expect("at least one run");
    }
    Ok(Row {
        kind,
        size,
        sparsity,
        layout: order.layout(),
        forms,
    })
}

/// The nearest equal intervals without zero, scaled by the largest weight of each row; of 8 bits, with
/// zero and up to ±127, as integer kernels have them.
fn quantised(csr: &Csr, bits: u8) -> Result<Quantized, SparseError> {
    let half = 1i32 << (bits - 1);
    let most = if bits == 8 { 127 } else { half };
    let mut codes = Vec::with_capacity(csr.stored());
    let mut scales = Vec::with_capacity(csr.rows());
    for row in 0..csr.rows() {
        let largest = csr.row(row).fold(0.0f32, |most, (_, w)| most.max(w.abs()));
        let scale = if largest > 0.0 {
            largest / most as f32
        } else {
            1.0
        };
        scales.push(scale);
        for (_, weight) in csr.row(row) {
            let k = (weight / scale).round() as i32;
            codes.push(if bits == 8 {
                (k + half) as u16
            } else if weight < 0.0 {
                (k.clamp(-half, -1) + half) as u16
            } else {
                (k.clamp(1, half) + half - 1) as u16
            });
        }
    }
    let levels = match bits {
        8 => Levels::Signed { scales },
        _ => Levels::Nonzero { scales },
    };
    Quantized::new(BitCodes::new(bits, codes)?, levels, csr.rows())
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}, {}", self.machine, self.isa.name())?;
        writeln!(
            f,
            "{}, batch 1; microseconds, and times as fast as packed floats; * chosen by packing\n",
            self.pattern
        )?;
        let Some(first) = self.rows.first() else {
            return Ok(());
        };
        let mut head = vec!["layer", "zeros", "layout"];
        head.extend(first.forms.iter().map(|form| form.name.as_str()));
        let mut table = Table::new(&head);
        for row in &self.rows {
            let name = match row.kind {
                QuantKind::Linear => format!("linear {0}x{0}", row.size),
                QuantKind::Gru => format!("gru {}", row.size),
            };
            let floats = row.forms.iter().find(|form| form.name == "packed");
            let floats = floats.map_or(f64::NAN, |form| form.time.median);
            let mut cells = vec![
                name,
                format!("{:.0} %", 100.0 * row.sparsity),
                row.layout.to_owned(),
            ];
            cells.extend(row.forms.iter().map(|form| {
                let chosen = if form.chosen { "*" } else { "" };
                let time = form.time.median;
                format!("{} ({:.2}){chosen}", digits(1e3 * time), floats / time)
            }));
            table.push(cells);
        }
        write!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_timed() {
        let folder = tempfile::tempdir().unwrap();
        let args = QuantArgs {
            kind: vec![QuantKind::Linear, QuantKind::Gru],
            size: vec![48],
            bits: vec![8, 3, 1],
            sparsity: vec![0.5],
            pattern: Pattern::Blocks(16),
            runs: 3,
            threads: None,
            seed: 1,
            output: folder.path().join("out"),
        };
        assert_eq!(quant(&args).unwrap(), Ending::Well);
        let report = std::fs::read_to_string(args.output.join("report.json")).unwrap();
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        let rows = report["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 2);
        for row in rows {
            let forms = row["forms"].as_array().unwrap();
            assert_eq!(forms.len(), 6);
            assert!(
                forms
                    .iter()
                    .all(|form| form["time"]["median"].as_f64().unwrap() > 0.0)
            );
        }
    }

    #[test]
    fn levels_are_near_the_weights() {
        let problem = ConvProblem::new(1, [40, 30], [1, 1], [1, 1]);
        let csr = Pattern::default().weight(&problem, 0.5, 3).unwrap();
        for (bits, near) in [(8, 0.01), (4, 0.13), (2, 0.51)] {
            let values = quantised(&csr, bits).unwrap().values(csr.row_ptr());
            for row in 0..csr.rows() {
                let largest = csr.row(row).fold(0.0f32, |most, (_, w)| most.max(w.abs()));
                let start = csr.row_ptr()[row] as usize;
                for ((_, weight), value) in csr.row(row).zip(&values[start..]) {
                    assert!(
                        (weight - value).abs() <= near * largest,
                        "{bits}: {weight} {value}"
                    );
                }
            }
        }
    }
}
