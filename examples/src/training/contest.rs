//! Ways of choosing schemes side by side: accuracy against measured time.

use std::fmt;

use burn_admm::mapping::{Mapping, kendall_tau};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::Moments;
use crate::figure::{Figure, FigureError, Line};

/// The dense network of a seed, trained as long as the others.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DenseEntry {
    /// The seed.
    pub seed: u64,
    /// Milliseconds for an image.
    pub ms: f64,
    /// The part of the test images that is right.
    pub accuracy: f64,
}

/// A network whose schemes were chosen in one way for one bound on latency, from one seed.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// The seed.
    pub seed: u64,
    /// How its schemes were chosen.
    pub way: String,
    /// Whether all layers have the same one.
    pub uniform: bool,
    /// The bound, as a part of what the dense network takes.
    pub target: f64,
    /// Milliseconds for an image, by the times of single layers.
    pub predicted_ms: f64,
    /// The same, measured on the packed network.
    pub ms: f64,
    /// The part of all weights that is zero.
    pub sparsity: f64,
    /// The part of the test images that the packed network has right.
    pub accuracy: f64,
    /// Largest difference of any logit between the masked and the packed network.
    pub max_abs_diff: f64,
    /// What was chosen.
    pub mapping: Mapping,
}

/// A network of schemes by chance, which no choice has seen, predicted and measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Assignment {
    /// The seed.
    pub seed: u64,
    /// Whether each layer drew its sparsity, or all layers share one and drew the scheme alone.
    pub each: bool,
    /// Milliseconds for an image, by the times of single layers.
    pub predicted_ms: f64,
    /// The same, measured on the packed network.
    pub ms: f64,
}

/// All networks.
///
/// As JSON `{"dense": [...], "rows": [...], "tau": {...}, "entries": [...], "assignments": [...]}`.
#[derive(Clone, Debug, Default)]
pub struct Contest {
    dense: Vec<DenseEntry>,
    entries: Vec<Entry>,
    assignments: Vec<Assignment>,
}

/// All seeds of a way at a bound.
#[derive(Clone, Debug, Serialize)]
struct Row {
    way: String,
    uniform: bool,
    target: f64,
    seeds: usize,
    predicted_ms: f64,
    ms: f64,
    sparsity: f64,
    accuracy: Moments,
    max_abs_diff: f64,
    /// What the fastest single scheme takes at this accuracy, and its name; of networks with the same scheme
    /// everywhere nothing is asked.
    fastest_uniform: Option<(String, f64)>,
}

/// [`kendall_tau`] of predicted and measured times of networks by chance.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Agreement {
    /// Each layer drew its scheme and its sparsity.
    each: Option<f64>,
    /// All layers share a sparsity, and drew their schemes.
    shared: Option<f64>,
    /// All of them.
    all: Option<f64>,
}

/// What a line through points of milliseconds and accuracy takes at least for an accuracy; none if it never gets
/// there.
fn ms_at(line: &[(f64, f64)], accuracy: f64) -> Option<f64> {
    let mut line = line.to_vec();
    line.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut last: Option<(f64, f64)> = None;
    for (ms, reached) in line {
        if reached >= accuracy {
            return Some(match last {
                Some((before, less)) => {
                    before + (ms - before) * (accuracy - less) / (reached - less)
                }
                None => ms,
            });
        }
        last = Some((ms, reached));
    }
    None
}

impl Contest {
    /// Adds a dense network.
    pub fn add_dense(&mut self, dense: DenseEntry) {
        self.dense.push(dense);
    }

    /// Adds a network.
    pub fn add(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// Adds a network by chance.
    pub fn add_assignment(&mut self, assignment: Assignment) {
        self.assignments.push(assignment);
    }

    /// The networks, in the order in which they were added.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Milliseconds and accuracy of the dense network, means over seeds.
    fn dense(&self) -> (f64, f64) {
        let mean = |of: fn(&DenseEntry) -> f64| Moments::of(self.dense.iter().map(of)).mean;
        (mean(|dense| dense.ms), mean(|dense| dense.accuracy))
    }

    fn rows(&self) -> Vec<Row> {
        let mut groups: Vec<Vec<&Entry>> = Vec::new();
        for entry in &self.entries {
            let same = |group: &&mut Vec<&Entry>| {
                (&group[0].way, group[0].target) == (&entry.way, entry.target)
            };
            match groups.iter_mut().find(same) {
                Some(group) => group.push(entry),
                None => groups.push(vec![entry]),
            }
        }
        let row = |entries: &Vec<&Entry>| {
            let mean = |of: fn(&Entry) -> f64| Moments::of(entries.iter().map(|e| of(e)));
            let worst = entries.iter().map(|entry| entry.max_abs_diff);
            Row {
                way: entries[0].way.clone(),
                uniform: entries[0].uniform,
                target: entries[0].target,
                seeds: entries.len(),
                predicted_ms: mean(|entry| entry.predicted_ms).mean,
                ms: mean(|entry| entry.ms).mean,
                sparsity: mean(|entry| entry.sparsity).mean,
                accuracy: mean(|entry| entry.accuracy),
                max_abs_diff: worst.fold(0.0, f64::max),
                fastest_uniform: None,
            }
        };
        let mut rows: Vec<Row> = groups.iter().map(row).collect();
        let lines = self.lines(&rows, true);
        for row in rows.iter_mut().filter(|row| !row.uniform) {
            let at =
                |line: &Line| Some((line.name.clone(), ms_at(&line.points, row.accuracy.mean)?));
            row.fastest_uniform = lines
                .iter()
                .filter_map(at)
                .min_by(|a, b| a.1.total_cmp(&b.1));
        }
        rows
    }

    /// Milliseconds and accuracy of each way, uniform or not, from its fastest network to the dense one, which every
    /// way ends in.
    fn lines(&self, rows: &[Row], uniform: bool) -> Vec<Line> {
        let mut lines: Vec<Line> = Vec::new();
        for row in rows.iter().filter(|row| row.uniform == uniform) {
            let point = (row.ms, row.accuracy.mean);
            match lines.iter_mut().find(|line| line.name == row.way) {
                Some(line) => line.points.push(point),
                None => lines.push(Line {
                    name: row.way.clone(),
                    points: vec![point],
                }),
            }
        }
        for line in &mut lines {
            line.points.push(self.dense());
            line.points.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        lines
    }

    fn agreement(&self) -> Agreement {
        let tau = |of: &dyn Fn(&Assignment) -> bool| {
            let some = || self.assignments.iter().filter(|assignment| of(assignment));
            let predicted: Vec<f64> = some().map(|assignment| assignment.predicted_ms).collect();
            let measured: Vec<f64> = some().map(|assignment| assignment.ms).collect();
            (predicted.len() > 1).then(|| kendall_tau(&predicted, &measured))
        };
        Agreement {
            each: tau(&|assignment| assignment.each),
            shared: tau(&|assignment| !assignment.each),
            all: tau(&|_| true),
        }
    }

    /// Accuracy against measured milliseconds, a line for each way. `None` without networks.
    ///
    /// # Errors
    /// [`FigureError`] if it cannot be drawn.
    pub fn figure(&self, title: String, subtitle: String) -> Result<Option<String>, FigureError> {
        if self.entries.is_empty() {
            return Ok(None);
        }
        let rows = self.rows();
        let mut lines = self.lines(&rows, false);
        lines.extend(self.lines(&rows, true));
        for line in &mut lines {
            for point in &mut line.points {
                point.1 *= 100.0;
            }
        }
        let figure = Figure {
            title,
            subtitle,
            x: "milliseconds of the packed network, one image".into(),
            y: "test images classified rightly, %".into(),
            logarithmic: false,
        };
        figure.draw(&lines)
    }
}

impl Serialize for Contest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Contest", 5)?;
        fields.serialize_field("dense", &self.dense)?;
        fields.serialize_field("rows", &self.rows())?;
        fields.serialize_field("tau", &self.agreement())?;
        fields.serialize_field("entries", &self.entries)?;
        fields.serialize_field("assignments", &self.assignments)?;
        fields.end()
    }
}

impl fmt::Display for Contest {
    /// A line per way and bound, in the order of measured times, and how well times were told.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ms, accuracy) = self.dense();
        writeln!(f, "dense: {ms:.3} ms, {:.2} %", 100.0 * accuracy)?;
        writeln!(
            f,
            "{:<16} {:>6} {:>5} {:>9} {:>9} {:>7} {:>15}  the fastest scheme everywhere, as accurate",
            "schemes", "bound", "seeds", "predicted", "ms", "zeros", "accuracy"
        )?;
        let mut rows = self.rows();
        rows.sort_by(|a, b| a.ms.total_cmp(&b.ms));
        for row in &rows {
            write!(
                f,
                "{:<16} {:>5}x {:>5} {:>9.3} {:>9.3} {:>6.1}% {:>15}",
                row.way,
                row.target,
                row.seeds,
                row.predicted_ms,
                row.ms,
                100.0 * row.sparsity,
                row.accuracy.percent(),
            )?;
            match &row.fastest_uniform {
                Some((name, ms)) => writeln!(f, "  {name}, {ms:.3} ms ({:.2}x)", ms / row.ms)?,
                None if row.uniform => writeln!(f)?,
                None => writeln!(f, "  none is")?,
            }
        }
        let agreement = self.agreement();
        let tau = [
            (agreement.each, "each layer by chance"),
            (agreement.shared, "schemes by chance at one sparsity"),
            (agreement.all, "all of them"),
        ];
        for (tau, name) in tau {
            if let Some(tau) = tau {
                writeln!(
                    f,
                    "Kendall's tau of predicted and measured times, {name}: {tau:.3}"
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(way: &str, uniform: bool, seed: u64, ms: f64, accuracy: f64) -> Entry {
        Entry {
            seed,
            way: way.into(),
            uniform,
            target: ms,
            predicted_ms: ms,
            ms,
            sparsity: 0.5,
            accuracy,
            max_abs_diff: 1e-6,
            mapping: Mapping { layers: Vec::new() },
        }
    }

    #[test]
    fn a_line_is_asked_for_an_accuracy() {
        let line = [(3.0, 0.9), (1.0, 0.5), (2.0, 0.7)];
        let near = |a: Option<f64>, b: f64| assert!((a.unwrap() - b).abs() < 1e-12, "{a:?}");
        near(ms_at(&line, 0.6), 1.5);
        near(ms_at(&line, 0.9), 3.0);
        // No faster than what was measured.
        near(ms_at(&line, 0.1), 1.0);
        assert_eq!(ms_at(&line, 0.95), None);
    }

    #[test]
    fn chosen_networks_are_held_against_the_fastest_uniform_one() {
        let mut contest = Contest::default();
        assert!(
            contest
                .figure(String::new(), String::new())
                .unwrap()
                .is_none()
        );
        for seed in [1, 2] {
            contest.add_dense(DenseEntry {
                seed,
                ms: 4.0,
                accuracy: 0.9,
            });
            contest.add(entry("blocks", true, seed, 1.0, 0.6));
            contest.add(entry("punched", true, seed, 2.0, 0.85));
            contest.add(entry("knapsack", false, seed, 1.5, 0.8));
        }
        for (each, predicted, ms) in [(true, 1.0, 1.1), (true, 2.0, 2.2), (false, 3.0, 1.0)] {
            let predicted_ms = predicted;
            contest.add_assignment(Assignment {
                seed: 1,
                each,
                predicted_ms,
                ms,
            });
        }
        let json = serde_json::to_value(&contest).unwrap();
        let rows = json["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 3);
        // Punched is at 2 ms already more accurate than that.
        assert_eq!(rows[2]["fastest_uniform"][0], "punched");
        assert_eq!(rows[2]["fastest_uniform"][1], 2.0);
        assert_eq!(rows[0]["fastest_uniform"], serde_json::Value::Null);
        assert_eq!(json["tau"]["each"], 1.0);
        assert_eq!(json["tau"]["shared"], serde_json::Value::Null);
        let text = contest.to_string();
        assert!(text.contains("punched, 2.000 ms (1.33x)"), "{text}");
        let svg = contest.figure("title".into(), String::new()).unwrap();
        assert!(svg.unwrap().contains("knapsack"));
    }
}
