//! Device code that reads the index of panels. Nothing in it is trusted: every number is brought into
//! bounds where it is loaded.

use cubecl::prelude::*;

/// Sizes of the index, and where its parts start; see
/// [`PanelEntries::index`](crate::format::PanelEntries::index).
#[derive(CubeType, CubeLaunch)]
pub(crate) struct PanelShape {
    pub(crate) bands: usize,
    pub(crate) panels: usize,
    pub(crate) columns: usize,
    /// Entries of the weight.
    pub(crate) nnz: usize,
    pub(crate) band_ptr: usize,
    pub(crate) column_ptr: usize,
    pub(crate) records: usize,
    pub(crate) panel_of: usize,
}

/// The first panel of a band, or of those behind it.
#[cube]
pub(super) fn first_panel(index: &[i32], band: usize, shape: &PanelShape) -> usize {
    min(index[shape.band_ptr + band] as usize, shape.panels)
}

/// The first column of a panel, or of those behind it, counted over all panels.
#[cube]
pub(super) fn first_column(index: &[i32], panel: usize, shape: &PanelShape) -> usize {
    min(index[shape.column_ptr + panel] as usize, shape.columns)
}

/// The panel of a column.
#[cube]
pub(super) fn panel_of(index: &[i32], column: usize, shape: &PanelShape) -> usize {
    min(index[shape.panel_of + column] as usize, shape.panels - 1)
}

/// Where the record of a panel starts.
#[cube]
pub(super) fn record_of(panel: usize, shape: &PanelShape, #[comptime] height: usize) -> usize {
    shape.records + panel * comptime!(height + 2)
}

/// A bit for each row of a band that is in the panel.
#[cube]
pub(super) fn mask_of(index: &[i32], record: usize) -> u32 {
    index[record + 1] as u32
}

/// The row in a place of a band, or a number beyond all rows.
#[cube]
pub(super) fn row_of(index: &[i32], band: usize, place: usize, #[comptime] height: usize) -> u32 {
    index[band * height + place] as u32
}

/// A column of the band's panels as it is staged: where its input lies, and the value of each row.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Column {
    record: usize,
    /// Which one of its panel.
    at: usize,
}

/// The column with this number.
#[cube]
pub(super) fn column(
    index: &[i32],
    number: usize,
    shape: &PanelShape,
    #[comptime] height: usize,
) -> Column {
    let panel = panel_of(index, number, shape);
    let first = min(first_column(index, panel, shape), number);
    Column {
        record: record_of(panel, shape, height),
        at: number - first,
    }
}

/// The entry by which a column finds its input.
#[cube]
pub(super) fn entry_of(index: &[i32], column: &Column, shape: &PanelShape) -> usize {
    min(index[column.record] as usize + column.at, shape.nnz - 1)
}

/// The first entry of a row of the band in a column's panel, negative if it is not in there.
#[cube]
pub(super) fn start_of(index: &[i32], column: &Column, place: usize) -> i32 {
    index[column.record + 2 + place]
}

/// The entry of a row in a column, of a panel in which its entries start there.
#[cube]
pub(super) fn position(start: i32, column: &Column, shape: &PanelShape) -> usize {
    min(start as usize + column.at, shape.nnz - 1)
}

/// The value of a row of the band in a column, 0 if it has none.
#[cube]
pub(super) fn value_of<E: Float>(
    values: &[E],
    index: &[i32],
    column: &Column,
    place: usize,
    shape: &PanelShape,
) -> E {
    let start = start_of(index, column, place);
    let mut value = E::from_int(0);
    if start >= 0 {
        value = values[position(start, column, shape)];
    }
    value
}
