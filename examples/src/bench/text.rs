//! A report as aligned text.

use super::row::percent;
use super::table::{Table, bytes, digits, verdict};
use super::{BenchReport, Measured, Outcome, Row};
use crate::timing::Timing;

impl BenchReport {
    /// The report as aligned text.
    #[must_use]
    pub fn table(&self) -> String {
        let settings = &self.settings;
        let mut text = format!(
            "{} on {}\nmedian of at most {} rounds (sparse, dense) or {} s, ± half the distance of \
             the quartiles; seed {}\n",
            self.suite, self.machine, settings.runs, settings.budget, settings.seed
        );
        for peak in &self.peaks {
            text.push_str(&format!("{peak}\n"));
        }
        text.push('\n');
        if let Some(growth) = &self.growth {
            text.push_str(&format!("{}\n", growth.table(&self.rows)));
            text.push_str(&self.notes());
        } else if !self.rows.is_empty() {
            text.push_str(&format!("{}\n", self.rows_table()));
            text.push_str(&self.notes());
            text.push_str(&self.totals());
        }
        for network in &self.networks {
            text.push_str(&format!("{network}\n"));
        }
        text
    }

    fn rows_table(&self) -> Table {
        let mut table = Table::new(&[
            "layer",
            "zeros",
            "pattern",
            "batch",
            "dtype",
            "threads",
            "dense ms",
            "sparse ms",
            "GF/s",
            "of peak",
            "of loads",
            "of 2nd",
            "as dense",
            "dense GF/s",
            "weight",
            "dense",
            "error",
            "of bound",
            "",
        ]);
        for row in &self.rows {
            let key = &row.key;
            let mut cells = vec![
                key.layer.clone(),
                percent(key.sparsity),
                key.pattern.to_string(),
                key.batch.to_string(),
                key.dtype.to_string(),
                // Other devices do not run on the threads that were counted.
                match self.machine.isa {
                    Some(_) => row.threads_used.to_string(),
                    None => "-".into(),
                },
            ];
            match &row.outcome {
                Outcome::Measured(measured) => {
                    cells.extend(numbers(measured));
                }
                Outcome::Failed { reason } => {
                    cells.extend(std::iter::repeat_n(String::from("-"), 12));
                    // Those of drivers have several lines.
                    let words: Vec<_> = reason.split_whitespace().collect();
                    cells.push(format!("FAILED: {}", words.join(" ")));
                }
            }
            table.push(cells);
        }
        table
    }

    /// What was verified, where dense wins, what failed.
    fn notes(&self) -> String {
        let measured: Vec<_> = self.rows.iter().filter_map(Row::measured).collect();
        let verified = || measured.iter().filter_map(|row| row.verified);
        let checked: usize = verified().map(|verified| verified.checked).sum();
        let outputs: usize = verified().map(|verified| verified.outputs).sum();
        let mut text = String::new();
        if outputs > 0 {
            text.push_str(&format!(
                "verified before timing: {checked} of {outputs} outputs of the sparse kernels, and \
                 as many of the dense ones\n"
            ));
        }
        let wins = measured.iter().filter(|row| row.dense_wins).count();
        text.push_str(&format!("dense wins in {wins} of {} rows", measured.len()));
        match self.rows.len() - measured.len() {
            0 => text.push('\n'),
            failed => text.push_str(&format!("; {failed} rows FAILED\n")),
        }
        if measured.iter().any(|row| row.dense_reduced) {
            text.push_str(
                "reduced: the dense kernel multiplies or sums with fewer digits than its operands \
                 have\n",
            );
        }
        text
    }

    /// The layers of the network by count, for each set of conditions.
    fn totals(&self) -> String {
        let mut text = String::new();
        let mut seen = Vec::new();
        for row in &self.rows {
            let key = &row.key;
            let condition = (key.sparsity, key.pattern, key.batch, key.dtype);
            if seen.contains(&condition) {
                continue;
            }
            seen.push(condition);
            let rows = self.rows.iter().filter(|row| {
                let key = &row.key;
                (key.sparsity, key.pattern, key.batch, key.dtype) == condition
            });
            let (mut dense, mut sparse, mut best, mut layers) = (0.0, 0.0, 0.0, 0);
            for (row, measured) in rows.filter_map(|row| Some((row, row.measured()?))) {
                let count = row.count as f64;
                let pair = &measured.pair;
                dense += count * pair.dense.median;
                sparse += count * pair.sparse.median;
                best += count * pair.dense.median.min(pair.sparse.median);
                layers += row.count;
            }
            if layers == 0 {
                continue;
            }
            text.push_str(&format!(
                "{} {}, batch {}, {}: {layers} layers, each alone: dense {} ms, sparse {} ms, the \
                 faster of each {} ms\n",
                percent(key.sparsity),
                key.pattern,
                key.batch,
                key.dtype,
                digits(dense),
                digits(sparse),
                digits(best)
            ));
        }
        text
    }
}

fn numbers(measured: &Measured) -> Vec<String> {
    let time = |t: &Timing| format!("{} ±{}", digits(t.median), digits(t.spread / 2.0));
    let (pair, counts) = (&measured.pair, &measured.counts);
    let (error, of_bound) = match measured.verified {
        Some(v) => (format!("{:.1e}", v.max_error), percent_of(v.of_bound)),
        None => ("-".into(), "-".into()),
    };
    let mut words = format!(
        "{} ±{:.0} %",
        verdict(pair.ratio.median),
        50.0 * pair.ratio.spread / pair.ratio.median
    );
    if measured.dense_reduced {
        words.push_str(", reduced");
    }
    vec![
        time(&pair.dense),
        time(&pair.sparse),
        digits(measured.gflops.sparse),
        part(measured.share.map(|share| share.flops)),
        part(measured.share.and_then(|share| share.loads)),
        part(measured.share.and_then(|share| share.second_loads)),
        digits(measured.gflops.equivalent),
        digits(measured.gflops.dense),
        bytes(counts.bytes.values + counts.bytes.index),
        bytes(counts.bytes.dense),
        error,
        of_bound,
        words,
    ]
}

/// In whole percent, where it is known.
fn part(of: Option<f64>) -> String {
    of.map_or_else(|| "-".into(), |part| format!("{:.0} %", 100.0 * part))
}

fn percent_of(part: f64) -> String {
    format!("{:.1} %", 100.0 * part)
}

#[cfg(test)]
mod tests {
    use crate::bench::report::tests::{failed, report, row};

    #[test]
    fn the_table_keeps_rows_where_dense_wins_and_rows_that_failed() {
        let rows = vec![
            row("fast", &[[1.0, 2.0]; 4]),
            row("slow", &[[3.0, 2.0]; 4]),
            failed("wrong"),
        ];
        let table = report(rows).table();
        let line = |name: &str| table.lines().find(|l| l.starts_with(name)).unwrap();
        assert!(line("fast").ends_with("2.00x faster ±0 %"), "{table}");
        assert!(
            line("fast").contains("  25 %      50 %    75 %  "),
            "{table}"
        );
        assert!(table.contains("peak of 2 threads: 50.0 GFLOP/s"));
        assert!(line("slow").contains("1.50x slower: dense wins"));
        assert!(line("wrong").ends_with("FAILED: output 5 is wrong"));
        assert!(table.contains("dense wins in 1 of 2 rows; 1 rows FAILED"));
        assert!(table.contains("10 of 20 outputs"));
        let totals = "6 layers, each alone: dense 12.0 ms, sparse 12.0 ms, the faster of each 9.00";
        assert!(table.contains(totals), "{table}");
    }
}
