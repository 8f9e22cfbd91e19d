//! Block-structured pruning: which weights of a recurrent layer each step may keep.

use std::fmt;

use burn_admm::Plan;
use burn_sparse::{BlockSearch, Budget, SparseError, Sparsity, WeightShape};
use models::SpeechGru;
use serde::{Deserialize, Serialize};

use crate::training::TrainingError;

/// A step of [`Bsp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BspStep {
    /// In each block, the columns of largest norm stay.
    Columns,
    /// In each band of columns, the rows of largest norm stay, as many of every gate.
    Rows,
}

impl fmt::Display for BspStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Columns => "columns",
            Self::Rows => "rows",
        })
    }
}

/// The pruning of RTMobile (Dong et al., DAC 2020): columns within blocks, then rows within bands of
/// columns, each by ADMM and masked retraining.
///
/// A matrix has the outputs of all gates as rows and its inputs as columns. It is cut into
/// [`bands`](Self::bands) bands of columns and, for the column step, each gate's part of a band into
/// [`blocks`](Self::blocks) blocks of rows: what stays of a block are whole columns, so that its rows
/// share their loads. The row step drops whole rows of a band. After both, each row that is
/// left of a block has the same columns.
///
/// **Rates.** To keep one weight in `R`, each step keeps one in `√R`: the published run at 20×
/// combines 4× and 5×. The column step rounds to whole columns of a block; the row step makes up for
/// it, matrix by matrix, and rounds to whole rows of a gate. With one [step](Self::steps) the rows do
/// it all, as in the published run at 10×.
///
/// ```
/// use burn::tensor::Device;
/// use examples::speech::{Bsp, BspStep};
/// use models::SpeechGruConfig;
///
/// let model = SpeechGruConfig::new(40, 10).init(&Device::flex())?;
/// let bsp = Bsp { rate: 10.0, ..Bsp::default() };
/// assert_eq!(bsp.order(), [BspStep::Columns, BspStep::Rows]);
/// let columns = bsp.plan(BspStep::Columns, &model)?.resolve(&model)?;
/// // 10 of 32 columns of the state's blocks, 3 of 10 of the input's.
/// assert_eq!(columns.nnz(), 384 * 4 * (10 + 3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bsp {
    /// All weights over those that stay, at least 1.
    pub rate: f64,
    /// 2, or 1 for rows alone.
    pub steps: usize,
    /// Bands of columns of each matrix; a remainder makes the last one narrower.
    pub bands: usize,
    /// Blocks of a gate in each band: few share loads better, many keep accuracy.
    pub blocks: usize,
}

impl Default for Bsp {
    /// 10× in two steps, with the four bands of the published lists, and eight blocks of a gate.
    fn default() -> Self {
        Self {
            rate: 10.0,
            steps: 2,
            bands: 4,
            blocks: 8,
        }
    }
}

/// A matrix of a recurrent layer.
struct Matrix {
    path: String,
    shape: WeightShape,
    d_hidden: usize,
}

impl Bsp {
    /// The steps in their order.
    #[must_use]
    pub fn order(&self) -> Vec<BspStep> {
        match self.steps {
            1 => vec![BspStep::Rows],
            _ => vec![BspStep::Columns, BspStep::Rows],
        }
    }

    /// What a step allows, for every matrix of every recurrent layer; all else stays dense.
    ///
    /// # Errors
    /// [`TrainingError::Settings`] for a rate below 1, or no bands or blocks;
    /// [`TrainingError::Sparse`] and [`TrainingError::Plan`] do not occur for a network that was built
    /// by its configuration.
    pub fn plan(&self, step: BspStep, model: &SpeechGru) -> Result<Plan, TrainingError> {
        if !(self.rate.is_finite() && self.rate >= 1.0) || self.bands == 0 || self.blocks == 0 {
            return Err(TrainingError::Settings(format!(
                "block-structured pruning by {}x with {} bands of {} blocks; the rate is at least \
                 1, and so are the others",
                self.rate, self.bands, self.blocks
            )));
        }
        let mut plan = Plan::dense();
        for matrix in matrices(model) {
            let sparsity = match step {
                BspStep::Columns => self.columns(&matrix)?,
                BspStep::Rows => self.rows(&matrix)?,
            };
            plan = plan.with_sparsity(matrix.path, sparsity)?;
        }
        Ok(plan)
    }

    /// The width of a band.
    fn width(&self, shape: WeightShape) -> usize {
        shape.row_len().div_ceil(self.bands)
    }

    fn columns(&self, matrix: &Matrix) -> Result<Sparsity, SparseError> {
        let height = matrix.d_hidden.div_ceil(self.blocks);
        Ok(Sparsity::BlockColumnRow {
            block: [height, self.width(matrix.shape)],
            rows: Budget::sparsity(0.0)?,
            budget: Budget::sparsity(1.0 - 1.0 / self.rate.sqrt())?,
            // All rows stay, so that the columns of largest norm are the nearest choice.
            search: BlockSearch::Sequential,
        })
    }

    fn rows(&self, matrix: &Matrix) -> Result<Sparsity, SparseError> {
        let before = match self.steps {
            1 => 1.0,
            _ => self.columns(matrix)?.density(matrix.shape)?,
        };
        // A block is a gate's part of a band. As all blocks of the column step in a band keep equally
        // many columns, so many rows are that part of what it left.
        let height = matrix.d_hidden;
        let keep = (height as f64 / (self.rate * before)).round() as usize;
        let part = keep.clamp(1, height) as f64 / height as f64;
        Ok(Sparsity::BlockColumnRow {
            block: [height, self.width(matrix.shape)],
            rows: Budget::sparsity(1.0 - part)?,
            budget: Budget::sparsity(1.0 - part)?,
            search: BlockSearch::Sequential,
        })
    }
}

impl fmt::Display for Bsp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<_> = self.order().iter().map(ToString::to_string).collect();
        write!(
            f,
            "{}x by {} in {} bands of columns, {} blocks of each gate",
            self.rate,
            steps.join(", then "),
            self.bands,
            self.blocks
        )
    }
}

/// All recurrent matrices by the paths of their weights.
fn matrices(model: &SpeechGru) -> Vec<Matrix> {
    let mut all = Vec::new();
    for (i, gru) in model.gru.iter().enumerate() {
        let parts = [
            ("input", Some(&gru.input)),
            ("state", Some(&gru.state)),
            ("candidate", gru.candidate.as_ref()),
        ];
        for (name, linear) in parts {
            let Some(linear) = linear else { continue };
            let [d_input, d_output] = linear.weight.dims();
            all.push(Matrix {
                path: format!("gru.{i}.{name}.weight"),
                shape: WeightShape::matrix(d_output, d_input),
                d_hidden: gru.d_hidden,
            });
        }
    }
    all
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::Device;
    use burn_admm::Masks;
    use models::SpeechGruConfig;

    use super::*;

    fn model(features: usize, hidden: usize) -> SpeechGru {
        let config = SpeechGruConfig::new(features, 10).with_hidden(hidden);
        config.with_layers(2).init(&Device::flex()).unwrap()
    }

    /// Masks of all steps, joined, on random weights.
    fn joined(bsp: Bsp, mut model: SpeechGru) -> Masks {
        for step in bsp.order() {
            let plan = bsp.plan(step, &model).unwrap().resolve(&model).unwrap();
            model = Masks::project(&model, &plan)
                .unwrap()
                .attach(model)
                .unwrap();
        }
        Masks::attached(&model)
    }

    #[test]
    fn the_rate_holds_to_the_rounding_of_rows() {
        for (features, hidden) in [(40, 128), (39, 100), (13, 30)] {
            for rate in [1.0, 2.0, 10.0, 29.0] {
                for steps in [1, 2] {
                    let bsp = Bsp {
                        rate,
                        steps,
                        ..Bsp::default()
                    };
                    let masks = joined(bsp, model(features, hidden));
                    assert_eq!(masks.layers().len(), 4);
                    for layer in masks.layers() {
                        let density = layer.nnz() as f64 / layer.keep.len() as f64;
                        // Half a row of a gate, and no less than a row of one column in a block.
                        let width = layer.shape[0].div_ceil(4) as f64;
                        let least = 1.0 / (hidden as f64 * width);
                        let wanted = (1.0 / rate).max(least);
                        let error = (density - wanted).abs();
                        assert!(
                            error <= 0.5 / hidden as f64 + 1e-9,
                            "{bsp}: {} {density} {wanted}",
                            layer.path
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn rows_of_a_block_have_the_same_columns_and_gates_keep_equally_many() {
        let bsp = Bsp::default();
        let masks = joined(bsp, model(40, 128));
        for layer in masks.layers() {
            let [inputs, outputs] = layer.shape[..] else {
                panic!("a matrix")
            };
            let width = inputs / 4;
            let row = |band: usize, output: usize| -> Vec<usize> {
                let columns = band * width..(band + 1) * width;
                columns
                    .filter(|i| layer.keep[i * outputs + output])
                    .collect()
            };
            for band in 0..4 {
                let mut kept = [0; 3];
                for block in 0..outputs / 16 {
                    let rows = (16 * block..16 * block + 16).map(|output| row(band, output));
                    let mut rows = rows.filter(|columns| !columns.is_empty());
                    let Some(first) = rows.next() else { continue };
                    kept[block / 8] += 1;
                    assert!(rows.all(|columns| {
                        kept[block / 8] += 1;
                        columns == first
                    }));
                }
                assert!(kept[0] > 0 && kept == [kept[0]; 3], "{kept:?}");
            }
        }
    }

    #[test]
    fn rates_below_one_and_no_blocks_are_errors() {
        let model = model(8, 8);
        for bsp in [
            Bsp {
                rate: 0.5,
                ..Bsp::default()
            },
            Bsp {
                rate: f64::NAN,
                ..Bsp::default()
            },
            Bsp {
                bands: 0,
                ..Bsp::default()
            },
            Bsp {
                blocks: 0,
                ..Bsp::default()
            },
        ] {
            let error = bsp.plan(BspStep::Rows, &model).unwrap_err();
            assert!(error.to_string().contains("at least 1"), "{error}");
        }
    }
}
