//! How far the pick of TDC's analytical model is from the best tile of the core, for `bench tucker --model`.

use burn::tensor::Device;
use burn_sparse::ConvProblem;
use burn_sparse::ops::core_tiles;
use serde::Serialize;

use super::Dtype;
use super::table::{Table, digits};

/// The tiles of one core, or why it has none.
#[derive(Debug, Serialize)]
pub(super) struct TileRow {
    /// Of the layer.
    pub(super) name: String,
    pub(super) batch: usize,
    pub(super) dtype: Dtype,
    /// The core alone.
    pub(super) problem: ConvProblem,
    /// Tiles that were timed.
    pub(super) tiles: usize,
    /// The fastest, with its milliseconds.
    pub(super) best: Option<(String, f64)>,
    /// The model's pick, with its milliseconds.
    pub(super) model: Option<(String, f64)>,
    /// The model's milliseconds over the best.
    pub(super) model_over_best: Option<f64>,
    /// Why there is nothing of this, if so.
    pub(super) absent: Option<String>,
}

impl TileRow {
    /// Times all tiles of a core.
    pub(super) fn of(
        name: &str,
        problem: ConvProblem,
        dtype: Dtype,
        repeats: usize,
        device: &Device,
    ) -> Self {
        let mut row = Self {
            name: name.to_owned(),
            batch: problem.batch,
            dtype,
            problem,
            tiles: 0,
            best: None,
            model: None,
            model_over_best: None,
            absent: None,
        };
        match core_tiles(&problem, dtype.burn(), repeats, device) {
            Ok(tiles) => {
                row.tiles = tiles.tiles;
                row.model_over_best = tiles.model_over_best();
                if tiles.model.is_none() {
                    row.absent = Some("the model has no tile for this shape on this device".into());
                }
                (row.best, row.model) = (Some(tiles.best), tiles.model);
            }
            Err(reason) => row.absent = Some(reason.to_string()),
        }
        row
    }
}

/// A table, and what it comes to.
pub(super) fn table(rows: &[TileRow]) -> String {
    let head = [
        "core of",
        "batch",
        "type",
        "channels",
        "tiles",
        "best ms",
        "model ms",
        "model/best",
        "",
    ];
    let mut table = Table::new(&head);
    let millis = |tile: &Option<(String, f64)>| {
        tile.as_ref()
            .map_or_else(String::new, |(_, ms)| digits(*ms))
    };
    for row in rows {
        let [best, model] = [&row.best, &row.model].map(millis);
        let ratio = row.model_over_best.map(|ratio| format!("{ratio:.2}"));
        table.push(vec![
            row.name.clone(),
            row.batch.to_string(),
            row.dtype.to_string(),
            format!(
                "{} to {}",
                row.problem.in_channels, row.problem.out_channels
            ),
            row.tiles.to_string(),
            best,
            model,
            ratio.unwrap_or_default(),
            row.absent.clone().unwrap_or_default(),
        ]);
    }
    let mut ratios: Vec<f64> = rows.iter().filter_map(|row| row.model_over_best).collect();
    ratios.sort_by(f64::total_cmp);
    let sum = match (ratios.get(ratios.len() / 2), ratios.last()) {
        (Some(median), Some(most)) => format!(
            "the model's pick takes {median:.2} times the best tile in the median of {} cores, {most:.2} at most",
            ratios.len()
        ),
        _ => "the model picked a tile for no core here".to_owned(),
    };
    format!("{table}{sum}\n")
}
