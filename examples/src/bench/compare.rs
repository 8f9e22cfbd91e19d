//! Two reports: what became faster, what slower, and what only moved.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::{BenchReport, Change, Measured, NetworkRow, Outcome, Pair, Row, Verdict};

/// One row in both reports.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RowChange {
    /// What was measured.
    pub row: String,
    /// What became of it.
    pub verdict: Verdict,
    /// Milliseconds of the sparse form; on one machine only.
    pub sparse: Option<Change>,
    /// Milliseconds of the dense form; on one machine only.
    pub dense: Option<Change>,
    /// Sparse over dense.
    pub ratio: Option<Change>,
}

impl RowChange {
    fn of(
        row: String,
        old: Option<&Pair>,
        new: Option<&Pair>,
        threshold: f64,
        same_machine: bool,
    ) -> Self {
        let (old, new) = match (old, new) {
            (Some(old), Some(new)) => (old, new),
            (old, new) => {
                let verdict = match (old, new) {
                    (Some(_), None) => Verdict::Broken,
                    (None, Some(_)) => Verdict::Fixed,
                    _ => Verdict::Failing,
                };
                return Self {
                    row,
                    verdict,
                    sparse: None,
                    dense: None,
                    ratio: None,
                };
            }
        };
        let ratio = Change::of(
            (old.ratio.median, old.ratio.spread),
            (new.ratio.median, new.ratio.spread),
        );
        let times = same_machine.then(|| {
            [(old.sparse, new.sparse), (old.dense, new.dense)]
                .map(|(old, new)| Change::of((old.median, old.spread), (new.median, new.spread)))
        });
        let verdict = match times {
            None => ratio.verdict(threshold),
            Some([sparse, dense]) => {
                let verdict = sparse.verdict(threshold);
                // A busy machine slows both. If the rival moved the same way and the ratio stayed,
                // it is not our kernel that changed.
                let with_it = verdict != Verdict::Same
                    && dense.verdict(threshold) == verdict
                    && ratio.verdict(threshold) != verdict;
                if with_it { Verdict::Drift } else { verdict }
            }
        };
        Self {
            row,
            verdict,
            sparse: times.map(|[sparse, _]| sparse),
            dense: times.map(|[_, dense]| dense),
            ratio: Some(ratio),
        }
    }
}

/// All rows of two reports.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The least change that counts.
    pub threshold: f64,
    /// The machine of the old report.
    pub old_machine: String,
    /// The machine of the new report.
    pub new_machine: String,
    /// Whether they are the same, so that times compare and not only ratios.
    pub same_machine: bool,
    /// Rows that are in both.
    pub rows: Vec<RowChange>,
    /// Rows that are only in the old report.
    pub only_old: Vec<String>,
    /// Rows that are only in the new report.
    pub only_new: Vec<String>,
}

impl Comparison {
    /// Compares two reports row by row.
    #[must_use]
    pub fn new(old: &BenchReport, new: &BenchReport, threshold: f64) -> Self {
        let same_machine = old.machine == new.machine;
        let (old_rows, new_rows) = (entries(old), entries(new));
        let by_name: HashMap<_, _> = new_rows.iter().map(|(name, pair)| (name, pair)).collect();
        let old_names: HashSet<_> = old_rows.iter().map(|(name, _)| name).collect();
        let mut rows = Vec::new();
        let mut only_old = Vec::new();
        for (name, old) in &old_rows {
            match by_name.get(name) {
                Some(new) => rows.push(RowChange::of(
                    name.clone(),
                    old.as_ref(),
                    new.as_ref(),
                    threshold,
                    same_machine,
                )),
                None => only_old.push(name.clone()),
            }
        }
        let only_new = new_rows.iter().map(|(name, _)| name);
        Self {
            threshold,
            old_machine: old.machine.to_string(),
            new_machine: new.machine.to_string(),
            same_machine,
            rows,
            only_old,
            only_new: only_new
                .filter(|name| !old_names.contains(name))
                .cloned()
                .collect(),
        }
    }

    /// How many rows are regressions.
    #[must_use]
    pub fn regressions(&self) -> usize {
        let regressions = self.rows.iter().filter(|row| row.verdict.is_regression());
        regressions.count()
    }

    pub(super) fn count(&self, verdict: Verdict) -> usize {
        let rows = self.rows.iter().filter(|row| row.verdict == verdict);
        rows.count()
    }
}

/// A row by name, with its times unless it failed.
type Entry = (String, Option<Pair>);

fn entries(report: &BenchReport) -> Vec<Entry> {
    let rows = report.rows.iter().map(|row: &Row| {
        let pair = row.measured().map(|measured: &Measured| measured.pair);
        (row.key.to_string(), pair)
    });
    let networks = report.networks.iter().map(|row| {
        let pair = row.outcome.measured().map(|measured| measured.pair);
        (network_name(row), pair)
    });
    let mut entries: Vec<Entry> = rows.chain(networks).collect();
    // A sweep meets a row twice where two of its curves cross the same point.
    let mut seen = HashSet::new();
    entries.retain(|(name, _)| seen.insert(name.clone()));
    entries
}

fn network_name(row: &NetworkRow) -> String {
    let nameless = NetworkRow {
        outcome: Outcome::Failed {
            reason: String::new(),
        },
        ..row.clone()
    };
    let text = nameless.to_string();
    format!("network {}", text.split(':').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::{failed, report, row};

    /// Rounds around these times whose quartiles lie `spread` of them apart.
    fn rounds(sparse: f64, dense: f64, spread: f64) -> Vec<[f64; 2]> {
        [-1.0, -0.5, 0.0, 0.5, 1.0]
            .map(|x| [sparse * (1.0 + spread * x), dense * (1.0 - spread * x)])
            .to_vec()
    }

    fn verdict(old: [f64; 3], new: [f64; 3], same_machine: bool) -> Verdict {
        let old = report(vec![row("a", &rounds(old[0], old[1], old[2]))]);
        let mut new = report(vec![row("a", &rounds(new[0], new[1], new[2]))]);
        if !same_machine {
            new.machine.threads += 1;
        }
        let comparison = Comparison::new(&old, &new, 0.05);
        assert_eq!(comparison.same_machine, same_machine);
        comparison.rows[0].verdict
    }

    #[test]
    fn verdicts_know_threshold_spread_and_drift() {
        for (old, new, wanted) in [
            // Sparse, dense, spread.
            ([1.0, 2.0, 0.01], [1.2, 2.0, 0.01], Verdict::Slower),
            ([1.0, 2.0, 0.01], [0.8, 2.0, 0.01], Verdict::Faster),
            // Below the threshold.
            ([1.0, 2.0, 0.0], [1.04, 2.0, 0.0], Verdict::Same),
            // Within the spread of one of both.
            ([1.0, 2.0, 0.3], [1.2, 2.0, 0.01], Verdict::Same),
            ([1.0, 2.0, 0.01], [1.2, 2.0, 0.3], Verdict::Same),
            // The machine was busy.
            ([1.0, 2.0, 0.01], [1.5, 3.0, 0.01], Verdict::Drift),
            ([1.0, 2.0, 0.01], [0.5, 1.0, 0.01], Verdict::Drift),
            // The machine was busy, and the kernel is slower still.
            ([1.0, 2.0, 0.01], [3.0, 3.0, 0.01], Verdict::Slower),
            // The rival became faster: no fault of ours.
            ([1.0, 2.0, 0.01], [1.0, 1.0, 0.01], Verdict::Same),
        ] {
            assert_eq!(verdict(old, new, true), wanted, "{old:?} {new:?}");
        }
        // Elsewhere only the ratio counts.
        let old = [1.0, 2.0, 0.01];
        assert_eq!(verdict(old, [5.0, 10.0, 0.01], false), Verdict::Same);
        assert_eq!(verdict(old, [5.0, 20.0, 0.01], false), Verdict::Faster);
        assert_eq!(verdict(old, [5.0, 5.0, 0.01], false), Verdict::Slower);
        assert_eq!(verdict(old, [1.2, 2.0, 0.2], false), Verdict::Same);
    }

    #[test]
    fn rows_are_matched_by_key_and_missing_ones_listed() {
        let times = rounds(1.0, 2.0, 0.0);
        let ok = |name: &str| row(name, &times);
        let old = report(vec![ok("gone"), ok("b"), failed("c"), failed("d")]);
        let new = report(vec![ok("new"), failed("b"), ok("c"), failed("d")]);
        let comparison = Comparison::new(&old, &new, 0.05);
        let verdicts: Vec<_> = comparison.rows.iter().map(|row| row.verdict).collect();
        let wanted = [Verdict::Broken, Verdict::Fixed, Verdict::Failing];
        assert_eq!(verdicts, wanted);
        assert_eq!(comparison.regressions(), 1);
        assert!(comparison.only_old[0].starts_with("gone"));
        assert!(comparison.only_new[0].starts_with("new"));
        let text = comparison.to_string();
        assert!(text.contains("only in the old report:\n  gone"), "{text}");
        assert!(text.contains("0 slower") && text.contains("1 broken"));
        let other = Comparison::new(&old, &old, 0.05);
        assert_eq!(other.regressions(), 0);
        assert!(other.only_old.is_empty() && other.only_new.is_empty());
    }
}
