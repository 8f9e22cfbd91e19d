//! Several methods or seeds side by side.

use std::fmt;

use serde::Serialize;

use crate::report::Report;

/// Reports of several runs, compared by method.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Comparison {
    runs: Vec<Report>,
}

/// Mean and sample standard deviation.
fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let square = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
    (mean, (square / (n - 1.0).max(1.0)).sqrt())
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
    fn methods(&self) -> Vec<&str> {
        let mut methods: Vec<&str> = Vec::new();
        for run in &self.runs {
            if !methods.contains(&run.method.as_str()) {
                methods.push(&run.method);
            }
        }
        methods
    }
}

impl fmt::Display for Comparison {
    /// A line per method: accuracies in percent, over several seeds as mean ± deviation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<8} {:>5} {:>8} {:>15} {:>15} {:>15} {:>15}",
            "method", "seeds", "zeros", "dense", "projected", "pruned", "lost, points"
        )?;
        for method in self.methods() {
            let runs: Vec<&Report> = self.runs.iter().filter(|r| r.method == method).collect();
            let cell = |of: &dyn Fn(&Report) -> f64| {
                let values: Vec<f64> = runs.iter().map(|run| 100.0 * of(run)).collect();
                match moments(&values) {
                    (mean, _) if values.len() == 1 => format!("{mean:.2}"),
                    (mean, deviation) => format!("{mean:.2} ± {deviation:.2}"),
                }
            };
            writeln!(
                f,
                "{method:<8} {:>5} {:>7.2}% {:>15} {:>15} {:>15} {:>15}",
                runs.len(),
                100.0 * runs[0].sparsity,
                cell(&|r| r.accuracy_dense),
                cell(&|r| r.accuracy_projected),
                cell(&|r| r.accuracy_pruned),
                cell(&|r| r.accuracy_dense - r.accuracy_pruned),
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
    }
}
