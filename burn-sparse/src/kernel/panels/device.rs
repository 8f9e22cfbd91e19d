//! The panels of a weight on a device.

use burn_cubecl::tensor::CubeTensor;

use super::index::PanelShapeLaunch;
use crate::{format::PanelEntries, kernel::base::index_tensor};

/// [`PanelEntries`] on a device, beside the [`Entries`](crate::kernel::Entries) that they index.
#[derive(Debug, Clone)]
pub struct Panels {
    index: CubeTensor,
    height: usize,
    rows: usize,
    stored: usize,
    bands: usize,
    panels: usize,
    columns: usize,
}

impl Panels {
    /// The panels whose [`index`](PanelEntries::index) lies in `index`, `i32`.
    ///
    /// # Panics
    /// If `index` is not as long as theirs.
    pub fn new(index: CubeTensor, panels: &PanelEntries) -> Self {
        let [got, wanted] = [index.meta.num_elements(), panels.index().len()];
        assert_eq!(
            got, wanted,
            "these panels have an index of {wanted} numbers"
        );
        Self {
            index: index_tensor(index, "the index of panels"),
            height: panels.height(),
            rows: panels.rows(),
            stored: panels.stored(),
            bands: panels.bands(),
            panels: panels.panels(),
            columns: panels.columns(),
        }
    }

    /// Rows of a band.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Inputs that are loaded for each output pixel.
    pub fn columns(&self) -> usize {
        self.columns
    }

    pub(crate) fn bands(&self) -> usize {
        self.bands
    }

    /// Panics unless these are panels of a weight of so many rows and entries.
    pub(crate) fn assert_fit(&self, rows: usize, stored: usize) {
        assert!(
            (self.rows, self.stored) == (rows, stored),
            "panels of {} rows and {} entries for a weight of {rows} rows and {stored} entries",
            self.rows,
            self.stored
        );
    }

    /// The index, and where its parts lie.
    pub(crate) fn arguments(self) -> (CubeTensor, PanelShapeLaunch) {
        let [_, band_ptr, column_ptr, records, panel_of] =
            PanelEntries::sections(self.height, self.bands, self.panels, self.columns);
        let shape = PanelShapeLaunch::new(
            self.bands,
            self.panels,
            self.columns,
            self.stored,
            band_ptr,
            column_ptr,
            records,
            panel_of,
        );
        (self.index, shape)
    }
}
