//! What was measured, what was chosen, and by how much.

use serde::Serialize;

use crate::nn::{AnyWeight, RunAs, Schedule};

/// Whether a layer's weight holds its zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// All entries.
    Dense,
    /// The non-zeros.
    Sparse,
}

impl core::fmt::Display for Form {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(match self {
            Self::Dense => "dense",
            Self::Sparse => "sparse",
        })
    }
}

/// A way to run a layer, and how long it took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MixedTime {
    /// Dense or sparse.
    pub form: Form,
    /// In which numbers, how many images at once.
    #[serde(flatten)]
    pub run: RunAs,
    /// Median milliseconds of the whole batch, casts included.
    pub ms: f64,
    /// Largest absolute difference from the dense layer in f32, on random input of unit variance.
    pub max_abs_diff: f64,
}

/// One layer.
#[derive(Debug, Clone, Serialize)]
pub struct MixedLayer {
    /// Path in the model, such as `layer1.0.conv1`.
    pub layer: String,
    /// `conv2d`, `conv1d` or `linear`.
    pub kind: String,
    /// Shape of the dense weight.
    pub shape: Vec<usize>,
    /// Entries of the dense weight.
    pub weights: usize,
    /// Entries that are not zero.
    pub nnz: usize,
    /// Images of the batch, or rows of a linear layer; 0 if it was not seen.
    pub batch: usize,
    /// All that were measured.
    pub times: Vec<MixedTime>,
    /// Which of them was chosen.
    pub chosen: Option<usize>,
    /// Time of the fastest of the other form over that of the chosen one: how much it wins by. `None` where there
    /// is no other form.
    pub margin: Option<f64>,
    /// Why.
    pub reason: String,
}

impl MixedLayer {
    pub(super) fn new(layer: &str, weight: &AnyWeight, nnz: usize) -> Self {
        let [rows, row_len] = weight.matrix();
        Self {
            layer: layer.to_owned(),
            kind: weight.kind().to_owned(),
            shape: weight.shape(),
            weights: rows * row_len,
            nnz,
            batch: 0,
            times: Vec::new(),
            chosen: None,
            margin: None,
            reason: String::new(),
        }
    }

    /// Fraction of zeros.
    pub fn sparsity(&self) -> f64 {
        1.0 - self.nnz as f64 / self.weights.max(1) as f64
    }

    /// The time that was chosen.
    pub fn choice(&self) -> Option<&MixedTime> {
        self.chosen.and_then(|chosen| self.times.get(chosen))
    }

    /// The fastest time of those that `which` takes.
    pub fn fastest(&self, which: impl Fn(&MixedTime) -> bool) -> Option<&MixedTime> {
        let times = self.times.iter().filter(|time| which(time));
        times.min_by(|a, b| a.ms.total_cmp(&b.ms))
    }

    /// The dense layer in f32 on the whole batch: what it was before.
    pub fn before(&self) -> Option<&MixedTime> {
        let batch = self.batch;
        let whole = |time: &&MixedTime| {
            time.form == Form::Dense
                && time.run.dtype == burn::tensor::FloatDType::F32
                && time.run.sub_batch == batch
        };
        self.times.iter().find(whole)
    }

    /// Takes the fastest, and says why.
    pub(super) fn choose(&mut self) -> Option<(Form, RunAs)> {
        let best = *self.fastest(|_| true)?;
        self.chosen = self.times.iter().position(|time| *time == best);
        let other = self.fastest(|time| time.form != best.form);
        self.margin = other.map(|other| other.ms / best.ms);
        self.reason = match self.margin {
            None => "too few zeros to be sparse".into(),
            Some(margin) => format!("{} wins by {margin:.2}x", best.form),
        };
        Some((best.form, best.run))
    }
}

/// A mixed network's choices: how to [run](Self::run) it, and why so. Prints as a table.
#[derive(Debug, Clone, Serialize)]
pub struct Mixed {
    /// The layers.
    pub layers: Vec<MixedLayer>,
    /// How they run.
    #[serde(skip)]
    pub schedule: Schedule,
}

impl Mixed {
    /// Runs a forward pass of the model that [`mix`](super::mix) gave back as its layers were chosen.
    pub fn run<T>(&self, forward: impl FnOnce() -> T) -> T {
        self.schedule.run(forward)
    }

    /// Milliseconds of all measured layers: dense in f32 on the whole batch, the fastest dense and the fastest sparse
    /// form of each (dense where there is no sparse one), and the choices.
    pub fn sums(&self) -> [f64; 4] {
        let sum =
            |time: &dyn Fn(&MixedLayer) -> Option<f64>| self.layers.iter().filter_map(time).sum();
        let fastest = |layer: &MixedLayer, form: Form| {
            let fastest = layer.fastest(|time| time.form == form);
            fastest.or(layer.choice()).map(|time| time.ms)
        };
        [
            sum(&|layer| layer.before().map(|time| time.ms)),
            sum(&|layer| fastest(layer, Form::Dense)),
            sum(&|layer| fastest(layer, Form::Sparse)),
            sum(&|layer| layer.choice().map(|time| time.ms)),
        ]
    }
}

impl core::fmt::Display for Mixed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let width = self.layers.iter().map(|layer| layer.layer.len());
        let width = width.max().unwrap_or(0).max(5);
        writeln!(
            f,
            "{:width$}  {:>18}  {:>7}  {:6}  {:5}  {:>6}  {:>9}  {:>9}  why",
            "layer", "shape", "zeros", "form", "dtype", "images", "ms", "dense f32"
        )?;
        for layer in &self.layers {
            let (form, dtype, images, ms) = match layer.choice() {
                None => ("dense".into(), "-".into(), "-".into(), "-".into()),
                Some(time) => (
                    time.form.to_string(),
                    format!("{:?}", time.run.dtype).to_lowercase(),
                    time.run.sub_batch.to_string(),
                    format!("{:.3}", time.ms),
                ),
            };
            let before = layer
                .before()
                .map_or("-".into(), |t| format!("{:.3}", t.ms));
            writeln!(
                f,
                "{:width$}  {:>18}  {:>6.2}%  {form:6}  {dtype:5}  {images:>6}  {ms:>9}  {before:>9}  {}",
                layer.layer,
                format!("{:?}", layer.shape),
                100.0 * layer.sparsity(),
                layer.reason
            )?;
        }
        let [before, dense, sparse, mixed] = self.sums();
        write!(
            f,
            "sums of layers, ms: {before:.3} dense in f32, {dense:.3} the best dense, {sparse:.3} the best sparse, \
             {mixed:.3} mixed"
        )
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::FloatDType;

    use super::*;

    fn layer(times: &[(Form, usize, f64)]) -> MixedLayer {
        MixedLayer {
            layer: "conv".into(),
            kind: "conv2d".into(),
            shape: vec![4, 4, 3, 3],
            weights: 144,
            nnz: 16,
            batch: 4,
            times: times
                .iter()
                .map(|&(form, sub_batch, ms)| MixedTime {
                    form,
                    run: RunAs {
                        dtype: FloatDType::F32,
                        sub_batch,
                    },
                    ms,
                    max_abs_diff: 0.0,
                })
                .collect(),
            chosen: None,
            margin: None,
            reason: String::new(),
        }
    }

    #[test]
    fn the_fastest_is_taken_and_the_margin_is_over_the_other_form() {
        use Form::{Dense, Sparse};
        let mut both = layer(&[
            (Dense, 1, 6.0),
            (Dense, 4, 8.0),
            (Sparse, 1, 4.0),
            (Sparse, 4, 3.0),
        ]);
        assert_eq!(
            both.choose().map(|(form, run)| (form, run.sub_batch)),
            Some((Sparse, 4))
        );
        assert_eq!(both.margin, Some(2.0));
        let mut alone = layer(&[(Dense, 1, 6.0), (Dense, 4, 5.0)]);
        alone.choose();
        assert_eq!((alone.chosen, alone.margin), (Some(1), None));
        let mut unseen = layer(&[]);
        assert!(unseen.choose().is_none());
        let mixed = Mixed {
            layers: vec![both, alone, unseen],
            schedule: Schedule::default(),
        };
        // A layer without a sparse form counts as what it is in every sum.
        assert_eq!(mixed.sums(), [13.0, 11.0, 8.0, 8.0]);
        let table = mixed.to_string();
        assert!(
            table.contains("sparse wins by 2.00x") && table.contains("too few zeros"),
            "{table}"
        );
    }
}
