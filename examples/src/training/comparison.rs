//! Several methods or seeds side by side.

use std::fmt;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::moments::Moments;
use crate::report::Report;

/// Reports of several runs, compared by method.
///
/// As JSON `{"methods": [...], "runs": [...]}`: the lines of the table, and the reports.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    runs: Vec<Report>,
}

/// All runs of a method.
#[derive(Clone, Debug, Serialize)]
struct MethodSummary<'a> {
    method: &'a str,
    seeds: usize,
    sparsity: f64,
    accuracy_dense: Moments,
    accuracy_projected: Moments,
    accuracy_pruned: Moments,
    /// Dense minus pruned.
    accuracy_lost: Moments,
}

impl Comparison {
    /// Adds a run.
    pub fn add(&mut self, report: Report) {
        self.runs.push(report);
    }

    /// Number of runs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether there are no runs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The runs, in the order in which they were added.
    #[must_use]
    pub fn runs(&self) -> &[Report] {
        &self.runs
    }

    /// The methods, in the order in which they came.
    fn methods(&self) -> Vec<MethodSummary<'_>> {
        let mut names: Vec<&str> = Vec::new();
        for run in &self.runs {
            if !names.contains(&run.method.as_str()) {
                names.push(&run.method);
            }
        }
        names
            .into_iter()
            .map(|method| {
                let runs = || self.runs.iter().filter(|run| run.method == method);
                MethodSummary {
                    method,
                    seeds: runs().count(),
                    sparsity: Moments::of(runs().map(|r| r.sparsity)).mean,
                    accuracy_dense: Moments::of(runs().map(|r| r.accuracy_dense)),
                    accuracy_projected: Moments::of(runs().map(|r| r.accuracy_projected)),
                    accuracy_pruned: Moments::of(runs().map(|r| r.accuracy_pruned)),
                    accuracy_lost: Moments::of(
                        runs().map(|r| r.accuracy_dense - r.accuracy_pruned),
                    ),
                }
            })
            .collect()
    }
}

impl Serialize for Comparison {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Comparison", 2)?;
        fields.serialize_field("methods", &self.methods())?;
        fields.serialize_field("runs", &self.runs)?;
        fields.end()
    }
}

impl fmt::Display for Comparison {
    /// A line per method: accuracies in percent, over several seeds as mean ± deviation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let methods = self.methods();
        let width = methods.iter().map(|m| m.method.len()).max();
        let width = width.unwrap_or(0).max(8);
        writeln!(
            f,
            "{:<width$} {:>5} {:>8} {:>15} {:>15} {:>15} {:>15}",
            "method", "seeds", "zeros", "dense", "projected", "pruned", "lost, points"
        )?;
        for method in methods {
            writeln!(
                f,
                "{:<width$} {:>5} {:>7.2}% {:>15} {:>15} {:>15} {:>15}",
                method.method,
                method.seeds,
                100.0 * method.sparsity,
                method.accuracy_dense.percent(),
                method.accuracy_projected.percent(),
                method.accuracy_pruned.percent(),
                method.accuracy_lost.percent(),
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_averaged_by_method() {
        let run = |method: &str, accuracy_pruned| Report {
            method: method.into(),
            accuracy_dense: 0.99,
            accuracy_pruned,
            sparsity: 0.95,
            ..Report::default()
        };
        let mut comparison = Comparison::default();
        assert!(comparison.is_empty());
        for (method, accuracy) in [("admm", 0.98), ("oneshot", 0.9), ("admm", 0.97)] {
            comparison.add(run(method, accuracy));
        }
        let text = comparison.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("admm"), "{text}");
        assert!(lines[1].contains("97.50 ± 0.71"), "{text}");
        assert!(
            lines[2].contains("90.00") && lines[2].ends_with("9.00"),
            "{text}"
        );
        assert_eq!((comparison.len(), comparison.runs().len()), (3, 3));
        let json = serde_json::to_value(&comparison).unwrap();
        let (admm, once) = (&json["methods"][0], &json["methods"][1]);
        assert_eq!(
            (&admm["method"], &admm["seeds"]),
            (&"admm".into(), &2.into())
        );
        let mean = admm["accuracy_pruned"]["mean"].as_f64().unwrap();
        assert!((mean - 0.975).abs() < 1e-12, "{json}");
        assert!(once["accuracy_lost"].get("deviation").is_none(), "{json}");
        assert_eq!(json["runs"].as_array().unwrap().len(), 3);
    }
}
