use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::{MetricDefinition, MetricId, format_float};
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining,
};

/// Prints a line per epoch and split: what a log file wants instead of a dashboard.
///
/// ```text
/// epoch 3/20 train: Loss 0.412, Accuracy 85.310, Rho 1.690e-3, Primal residual 0.2417
/// epoch 3/20 valid: Loss 0.455, Accuracy 84.120
/// ```
pub struct LineRenderer {
    out: Arc<Mutex<dyn Write + Send>>,
    names: HashMap<MetricId, Arc<String>>,
    epoch: usize,
    epochs: usize,
    split: String,
    /// The latest value of each metric of the current split, in order of arrival.
    values: Vec<(Arc<String>, String)>,
}

impl Default for LineRenderer {
    fn default() -> Self {
        Self::new()
    }
}

impl LineRenderer {
    /// Prints to stdout.
    pub fn new() -> Self {
        Self::to(Arc::new(Mutex::new(std::io::stdout())))
    }

    /// Prints to another sink.
    pub fn to(out: Arc<Mutex<dyn Write + Send>>) -> Self {
        Self {
            out,
            names: HashMap::new(),
            epoch: 1,
            epochs: 0,
            split: String::new(),
            values: Vec::new(),
        }
    }

    fn print(&self, line: &str) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // A log that cannot be written must not end the training.
        let _ = writeln!(out, "{line}");
        let _ = out.flush();
    }

    fn note(&mut self, state: MetricState) {
        let (id, value) = match state {
            MetricState::Generic(entry) => (entry.metric_id, entry.serialized_entry.formatted),
            MetricState::Numeric(entry, value) => {
                let value = match value.map(|value| value.current()) {
                    Some(value) if value.is_finite() => number(value),
                    Some(value) if !value.is_nan() => value.to_string(),
                    _ => "-".to_owned(),
                };
                (entry.metric_id, value)
            }
        };
        let Some(name) = self.names.get(&id) else {
            return;
        };
        match self.values.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value,
            None => self.values.push((name.clone(), value)),
        }
    }

    fn metrics(&mut self) -> String {
        let values = core::mem::take(&mut self.values);
        let values: Vec<String> = values
            .iter()
            .map(|(name, v)| format!("{name} {v}"))
            .collect();
        values.join(", ")
    }
}

fn number(value: f64) -> String {
    if value == 0.0 {
        "0".to_owned()
    } else if value < 0.0 {
        format!("-{}", format_float(-value, 4))
    } else {
        format_float(value, 4)
    }
}

impl MetricsRendererTraining for LineRenderer {
    fn update_train(&mut self, state: MetricState) {
        self.note(state);
    }

    fn update_valid(&mut self, state: MetricState) {
        self.note(state);
    }
}

impl TrainingProgressLogger for LineRenderer {
    fn start(&mut self, epochs: usize, starting: usize, _: Option<usize>, label: Option<&str>) {
        self.epochs = epochs;
        self.epoch = starting;
        self.print(&format!(
            "{}: epoch {starting} to {epochs}",
            label.unwrap_or("training")
        ));
    }

    fn update_epoch(&mut self, epoch: usize) {
        self.epoch = epoch + 1;
    }

    fn start_split(&mut self, split: &str, _: usize) {
        self.split = split.to_lowercase();
        self.values.clear();
    }

    fn update_split(&mut self, _: usize) {}

    fn end_split(&mut self) {
        let metrics = self.metrics();
        self.print(&format!(
            "epoch {}/{} {}: {metrics}",
            self.epoch, self.epochs, self.split
        ));
    }

    fn end(&mut self) {
        self.print("training ended");
    }

    fn log_event_training(&mut self, _: String) {}
}

impl EvaluationProgressLogger for LineRenderer {
    fn start_global_progress(&mut self, _: usize) {}

    fn start_test(&mut self, name: &str, _: usize) {
        self.split = name.to_owned();
        self.values.clear();
    }

    fn update_test_progress(&mut self, _: usize) {}

    fn end_test(&mut self) {
        let metrics = self.metrics();
        self.print(&format!("test {}: {metrics}", self.split));
    }

    fn end_global_progress(&mut self) {}

    fn log_event_evaluation(&mut self, _: String) {}
}

impl MetricsRendererEvaluation for LineRenderer {
    fn update_test(&mut self, _: EvaluationName, state: MetricState) {
        self.note(state);
    }
}

impl MetricsRenderer for LineRenderer {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, definition: MetricDefinition) {
        self.names.insert(definition.metric_id, definition.name);
    }
}
