//! Which tile: measured once for each shape on each device, or by a rule of thumb.

use burn_cubecl::{CubeTuneId, tensor::CubeTensor};
use cubecl::{
    prelude::*,
    tune::{AutotuneKey, LocalTuner, Tunable, TunableSet, local_tuner},
};
use serde::{Deserialize, Serialize};

use super::{
    config::{ConvKernel, ConvTile},
    launch::{Layout, launch},
};
use crate::{
    ConvProblem,
    kernel::{
        Entries, Epilogue, MatrixTile, PanelTile, Panels,
        base::{is_software, software_units, units_up_to},
    },
};

/// Candidates on a GPU. The paper finds its optimum at `sub_batch` 2 to 8; one image serves batch
/// 1, more pixels per unit the large maps of first layers, few units the small maps of last ones.
pub(crate) const GPU_TILES: [ConvTile; 10] = [
    ConvTile::staged([128, 1, 1]),
    ConvTile::staged([32, 1, 1]),
    ConvTile::staged([128, 4, 1]),
    ConvTile::staged([128, 1, 2]),
    ConvTile::staged([64, 1, 4]),
    ConvTile::staged([256, 1, 4]),
    ConvTile::staged([128, 2, 4]),
    ConvTile::staged([32, 1, 8]),
    ConvTile::staged([128, 1, 8]),
    ConvTile::direct([128, 1, 4]),
];

/// Candidates on a device that is no card, where `units` run at once.
fn software_tiles(units: usize) -> [ConvTile; 5] {
    [[1, 1], [8, 1], [1, 4], [4, 4], [1, 8]]
        .map(|[pixels, sub_batch]| ConvTile::direct([units, pixels, sub_batch]))
}

/// Candidates for weights with panels on a GPU: the fewer rows a band has, the more pixels and images
/// share its values. Few units serve small maps, and staging pays where many do.
pub(crate) const PANEL_TILES: [PanelTile; 8] = [
    PanelTile::staged([64, 1, 1]),
    // Bands of 16 rows would spill with more columns at once.
    PanelTile {
        unroll: 2,
        ..PanelTile::staged([64, 2, 1])
    },
    PanelTile::staged([128, 4, 1]),
    PanelTile::staged([64, 1, 4]),
    PanelTile::staged([128, 8, 1]),
    PanelTile::staged([128, 1, 8]),
    PanelTile::direct([128, 2, 1]),
    PanelTile::direct([64, 1, 4]),
];

/// `[planes, pixels]` of candidates with matrix units.
pub(crate) const MATRIX_TILES: [[usize; 2]; 3] = [[2, 1], [4, 1], [4, 2]];

/// Candidates with panels on a device that is no card.
const SOFTWARE_PLACES: [[usize; 2]; 3] = [[1, 1], [4, 1], [1, 4]];

/// Candidates among the plain tiles for panels.
pub(crate) fn panel_tiles(client: &Client) -> Vec<PanelTile> {
    if is_software(client) {
        let units = software_units(client);
        return SOFTWARE_PLACES
            .map(|[pixels, sub_batch]| PanelTile::direct([units, pixels, sub_batch]))
            .to_vec();
    }
    let hardware = &client.properties().hardware;
    let fits = |tile: &PanelTile| tile.check(1, tile.sub_batch, hardware).is_ok();
    PANEL_TILES.into_iter().filter(fits).collect()
}

/// Candidates among the tiles of this device's matrix units, if it has any.
pub(crate) fn matrix_tiles(client: &Client) -> Vec<MatrixTile> {
    let plane = client.properties().hardware.plane_size_max as usize;
    if is_software(client) || client.properties().features.matmul.cmma.is_empty() {
        return Vec::new();
    }
    MATRIX_TILES
        .map(|[planes, pixels]| MatrixTile::new([planes, plane, pixels]))
        .to_vec()
}

/// Candidates for single entries on the client's device.
fn entry_tiles(client: &Client) -> Vec<ConvTile> {
    if is_software(client) {
        return software_tiles(software_units(client)).to_vec();
    }
    let fits = |tile: &ConvTile| {
        tile.check(tile.sub_batch, &client.properties().hardware)
            .is_ok()
    };
    GPU_TILES.into_iter().filter(fits).collect()
}

/// Candidates on the client's device. Those that do not suit a weight, an input or its type refuse to
/// run and are not measured.
fn candidates(client: &Client, panels: bool) -> Vec<ConvKernel> {
    let entries = entry_tiles(client).into_iter().map(ConvKernel::Entries);
    if !panels {
        return entries.collect();
    }
    let plain = panel_tiles(client).into_iter().map(ConvKernel::Panels);
    let matrix = matrix_tiles(client)
        .into_iter()
        .map(ConvKernel::MatrixUnits);
    entries.chain(plain).chain(matrix).collect()
}

/// The kernel of the rule of thumb: as many images as the paper's optimum, as far as there are any;
/// panels, in bands of `height` rows, where there are some.
pub(crate) fn heuristic(client: &Client, batch: usize, height: Option<usize>) -> ConvKernel {
    let sub_batch = 1 << batch.clamp(1, 4).ilog2();
    let (units, staged) = match is_software(client) {
        true => (software_units(client), false),
        false => (units_up_to(client, 128), true),
    };
    match (height.is_some(), staged) {
        (true, true) => ConvKernel::Panels(PanelTile::staged([units, 1, sub_batch])),
        (true, false) => ConvKernel::Panels(PanelTile::direct([units, 1, sub_batch])),
        (false, true) => ConvKernel::Entries(ConvTile::staged([units, 1, sub_batch])),
        (false, false) => ConvKernel::Entries(ConvTile::direct([units, 1, sub_batch])),
    }
}

/// What a choice is remembered for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Key {
    problem: ConvProblem,
    nnz: usize,
    dtype: String,
    residual: bool,
    /// Rows of a band, and columns of all panels.
    panels: Option<[usize; 2]>,
}

impl core::fmt::Display for Key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl AutotuneKey for Key {}

type Inputs = (CubeTensor, Entries, Epilogue, Layout, ConvProblem);

fn key((input, entries, epilogue, _, problem): &Inputs) -> Key {
    Key {
        problem: *problem,
        nnz: entries.nnz(),
        dtype: input.dtype.name().to_string(),
        residual: epilogue.residual.is_some(),
        panels: entries
            .panels
            .as_ref()
            .map(|panels| [panels.height(), panels.columns()]),
    }
}

/// Runs the fastest kernel for this shape, measuring the candidates when the shape is new.
///
/// # Errors
/// A message if no candidate fits.
pub(super) fn tuned(
    input: CubeTensor,
    entries: Entries,
    epilogue: Epilogue,
    layout: Layout,
    problem: ConvProblem,
) -> Result<CubeTensor, String> {
    // A set of candidates is made once for a device.
    static ENTRIES: LocalTuner<Key, CubeTuneId> = local_tuner!("sparse-conv");
    static PANELS: LocalTuner<Key, CubeTuneId> = local_tuner!("sparse-conv-panels");
    let panels = entries.panels.is_some();
    if layout.shape.contains(&0) {
        let height = entries.panels.as_ref().map(Panels::height);
        let kernel = heuristic(&input.client, layout.batch, height);
        return launch(input, entries, epilogue, &layout, kernel);
    }
    let client = input.client.clone();
    let id = CubeTuneId::new(&client, &input.device);
    let kernels = candidates(&client, panels);
    let tuner = if panels { &PANELS } else { &ENTRIES };
    let tunables = tuner.init(&id, move || {
        let set = TunableSet::new(key, |_: &Key, inputs: &Inputs| inputs.clone());
        kernels.iter().fold(set, |set, &kernel| {
            let run = move |(input, entries, epilogue, layout, _): Inputs| {
                launch(input, entries, epilogue, &layout, kernel)
            };
            set.with(Tunable::new(&kernel.to_string(), run))
        })
    });
    let inputs = (input, entries, epilogue, layout, problem);
    Ok(tuner.execute(&id, &client, tunables, inputs))
}
