//! Mean and spread over seeds.

use serde::Serialize;

/// Mean and, of more than one value, sample standard deviation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Moments {
    /// The mean.
    pub mean: f64,
    /// The sample standard deviation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deviation: Option<f64>,
}

impl Moments {
    /// Of these values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let values: Vec<f64> = values.into_iter().collect();
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let square = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
        Self {
            mean,
            deviation: (values.len() > 1).then(|| (square / (n - 1.0)).sqrt()),
        }
    }

    /// In percent.
    #[must_use]
    pub fn percent(self) -> String {
        let mean = 100.0 * self.mean;
        match self.deviation {
            None => format!("{mean:.2}"),
            Some(deviation) => format!("{mean:.2} ± {:.2}", 100.0 * deviation),
        }
    }
}
