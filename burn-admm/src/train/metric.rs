use std::sync::Arc;

use burn::tensor::TensorReadError;
use burn::train::metric::{
    Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry, format_float,
};

/// A metric that shows a number kept elsewhere, whatever the model's output is: a residual, a
/// sparsity. It is not averaged; an epoch's value is the last one.
#[derive(Clone)]
pub struct ValueMetric {
    name: MetricName,
    higher_is_better: bool,
    read: Arc<dyn Fn() -> Option<f64> + Send + Sync>,
    last: Option<f64>,
}

impl ValueMetric {
    /// A metric called `name` that asks `read` at every step; `None` while there is no value yet.
    pub fn new(
        name: impl Into<String>,
        higher_is_better: bool,
        read: impl Fn() -> Option<f64> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: Arc::new(name.into()),
            higher_is_better,
            read: Arc::new(read),
            last: None,
        }
    }

    /// A metric that never changes, such as the sparsity during masked retraining.
    pub fn constant(name: impl Into<String>, higher_is_better: bool, value: f64) -> Self {
        Self::new(name, higher_is_better, move || Some(value))
    }

    fn entry(&self, wrap: fn(f64) -> NumericEntry) -> SerializedEntry {
        match self.last {
            Some(value) => SerializedEntry::new(format_float(value, 4), wrap(value).serialize()),
            None => SerializedEntry::not_available(None),
        }
    }
}

impl Metric for ValueMetric {
    type Input = ();

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes {
            unit: None,
            higher_is_better: self.higher_is_better,
        }
        .into()
    }

    fn update(&mut self, (): &(), _: &MetricMetadata) -> Result<SerializedEntry, TensorReadError> {
        self.last = (self.read)();
        Ok(self.entry(NumericEntry::Value))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        self.last = (self.read)();
        Ok(self.entry(NumericEntry::Final))
    }

    fn clear(&mut self) {
        self.last = None;
    }
}

impl Numeric for ValueMetric {
    fn value(&self) -> Option<NumericEntry> {
        self.last.map(NumericEntry::Value)
    }

    fn running_value(&self) -> Option<NumericEntry> {
        self.value()
    }

    fn final_value(&self) -> NumericEntry {
        // The trainer wants a number even before there is one.
        NumericEntry::Final(self.last.unwrap_or(f64::NAN))
    }
}
