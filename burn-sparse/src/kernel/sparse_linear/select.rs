//! Which tile: measured once for each shape on each device, or by a rule of thumb.

use burn_cubecl::{CubeTuneId, tensor::CubeTensor};
use cubecl::{
    prelude::*,
    tune::{AutotuneKey, LocalTuner, Tunable, TunableSet, local_tuner},
};
use serde::{Deserialize, Serialize};

use super::{
    LinearTile,
    coding::Coding,
    config::GatherTile,
    launch::{dims, launch},
};
use crate::kernel::{
    Codes, ConvKernel, ConvTile, Entries, Epilogue, PanelTile,
    base::{is_software, software_units, units_up_to},
    sparse_conv::{matrix_tiles, panel_tiles},
};

/// Gathering candidates on a GPU: fewer lanes for shorter rows, more inputs where there are any.
pub(crate) const GATHER_TILES: [GatherTile; 5] = [
    GatherTile::new([128, 32, 1]),
    GatherTile::new([128, 8, 1]),
    GatherTile::new([128, 16, 4]),
    GatherTile::new([128, 4, 8]),
    GatherTile::new([128, 32, 8]),
];

/// Streaming candidates on a GPU; the one image leaves nothing to use a value for but pixels.
const STREAM_TILES: [ConvTile; 3] = [
    ConvTile::staged([64, 1, 1]),
    ConvTile::staged([128, 2, 1]),
    ConvTile::staged([128, 4, 1]),
];

/// Gathering candidates with panels on a GPU: sums of lanes are added for each row of a band, so lanes
/// are few.
pub(crate) const PANEL_GATHER_TILES: [GatherTile; 4] = [
    GatherTile::new([128, 32, 1]),
    GatherTile::new([64, 8, 1]),
    GatherTile::new([64, 16, 2]),
    GatherTile::new([64, 8, 4]),
];

/// Candidates for single entries on the client's device.
fn entry_tiles(client: &Client) -> Vec<LinearTile> {
    let hardware = &client.properties().hardware;
    let units = hardware.max_units_per_cube as usize;
    let stream = |tile: ConvTile| LinearTile::Stream(tile.into());
    if is_software(client) {
        let units = software_units(client);
        let gather =
            [1, 4, 8].map(|inputs| LinearTile::Gather(GatherTile::new([units, 1, inputs])));
        let stream = [1, 8].map(|pixels| stream(ConvTile::direct([units, pixels, 1])));
        return gather.into_iter().chain(stream).collect();
    }
    let gather = GATHER_TILES.into_iter().filter(|tile| tile.units <= units);
    let streams = STREAM_TILES
        .into_iter()
        .filter(|tile| tile.check(1, hardware).is_ok());
    gather
        .map(LinearTile::Gather)
        .chain(streams.map(stream))
        .collect()
}

/// Candidates for panels on the client's device.
fn panel_candidates(client: &Client) -> Vec<LinearTile> {
    let gather = match is_software(client) {
        true => {
            let units = software_units(client);
            vec![1, 4]
                .into_iter()
                .map(|inputs| GatherTile::new([units, 1, inputs]))
                .collect()
        }
        false => PANEL_GATHER_TILES.to_vec(),
    };
    let stream = panel_tiles(client)
        .into_iter()
        // The one image leaves nothing to use a value for but pixels.
        .filter(|tile| tile.sub_batch == 1)
        .map(ConvKernel::Panels);
    let matrix = matrix_tiles(client)
        .into_iter()
        .map(ConvKernel::MatrixUnits);
    gather
        .into_iter()
        .map(LinearTile::GatherPanels)
        .chain(stream.chain(matrix).map(LinearTile::Stream))
        .collect()
}

/// Candidates on the client's device. Those that do not suit a weight, an input or its type refuse to
/// run and are not measured.
fn candidates(client: &Client, panels: bool) -> Vec<LinearTile> {
    let mut tiles = entry_tiles(client);
    if panels {
        tiles.extend(panel_candidates(client));
    }
    let codes: Vec<_> = tiles.iter().filter_map(|&tile| with_codes(tile)).collect();
    tiles.extend(codes);
    tiles
}

/// The tile that reads codes as that one reads floats.
fn with_codes(tile: LinearTile) -> Option<LinearTile> {
    match tile {
        LinearTile::Gather(tile) => Some(LinearTile::GatherCodes(tile)),
        LinearTile::GatherPanels(tile) => Some(LinearTile::GatherPanelCodes(tile)),
        _ => None,
    }
}

/// The tile of the rule of thumb: gather up to 32 inputs, then stream; panels where there are some, and
/// codes for few inputs, where reading the weight is what takes time.
pub(crate) fn heuristic(client: &Client, m: usize, entries: &Entries) -> LinearTile {
    let tile = match &entries.panels {
        Some(panels) => panel_heuristic(client, m, panels.height()),
        None => entry_heuristic(client, m),
    };
    let coded = with_codes(tile).filter(|_| entries.codes.is_some() && m <= 8);
    coded.unwrap_or(tile)
}

fn entry_heuristic(client: &Client, m: usize) -> LinearTile {
    let units = units_up_to(client, 128);
    if is_software(client) {
        let units = software_units(client);
        return LinearTile::Gather(GatherTile::new([units, 1, m.clamp(1, 8)]));
    }
    if m <= 32 {
        return LinearTile::Gather(GatherTile::new([units, units.min(16), m.clamp(1, 4)]));
    }
    LinearTile::Stream(ConvTile::staged([units_up_to(client, 64), 1, 1]).into())
}

fn panel_heuristic(client: &Client, m: usize, height: usize) -> LinearTile {
    if is_software(client) {
        let inputs = m.clamp(1, (32 / height).max(1));
        return LinearTile::GatherPanels(GatherTile::new([software_units(client), 1, inputs]));
    }
    if m <= 8 {
        let units = units_up_to(client, 64);
        return LinearTile::GatherPanels(GatherTile::new([units, units.min(8), m.clamp(1, 2)]));
    }
    let tile = PanelTile::staged([units_up_to(client, 64), 1, 1]);
    LinearTile::Stream(ConvKernel::Panels(tile))
}

/// What a choice is remembered for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Key {
    m: usize,
    features: usize,
    rows: usize,
    nnz: usize,
    dtype: String,
    residual: bool,
    /// Rows of a band, and columns of all panels.
    panels: Option<[usize; 2]>,
    codes: Option<Coding>,
}

impl core::fmt::Display for Key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl AutotuneKey for Key {}

type Inputs = (CubeTensor, Entries, Epilogue, usize);

fn key((input, entries, epilogue, rows): &Inputs) -> Key {
    let [m, features] = dims(input);
    Key {
        m,
        features,
        rows: *rows,
        nnz: entries.nnz(),
        dtype: input.dtype.name().to_string(),
        residual: epilogue.residual.is_some(),
        panels: entries
            .panels
            .as_ref()
            .map(|panels| [panels.height(), panels.columns()]),
        codes: entries.codes.as_ref().map(Codes::coding),
    }
}

/// Runs the fastest tile for this shape, measuring the candidates when the shape is new.
///
/// # Errors
/// A message if no candidate fits.
pub(super) fn tuned(
    input: CubeTensor,
    entries: Entries,
    epilogue: Epilogue,
    rows: usize,
) -> Result<CubeTensor, String> {
    // A set of candidates is made once for a device.
    static ENTRIES: LocalTuner<Key, CubeTuneId> = local_tuner!("sparse-linear");
    static PANELS: LocalTuner<Key, CubeTuneId> = local_tuner!("sparse-linear-panels");
    let panels = entries.panels.is_some();
    let [m, features] = dims(&input);
    if m == 0 || rows == 0 || features == 0 {
        let tile = heuristic(&input.client, m, &entries);
        return launch(input, entries, epilogue, rows, tile);
    }
    let client = input.client.clone();
    let id = CubeTuneId::new(&client, &input.device);
    let tiles = candidates(&client, panels);
    let tuner = if panels { &PANELS } else { &ENTRIES };
    let tunables = tuner.init(&id, move || {
        let set = TunableSet::new(key, |_: &Key, inputs: &Inputs| inputs.clone());
        tiles.iter().fold(set, |set, &tile| {
            let run = move |(input, entries, epilogue, rows): Inputs| {
                launch(input, entries, epilogue, rows, tile)
            };
            set.with(Tunable::new(&tile.to_string(), run))
        })
    });
    Ok(tuner.execute(&id, &client, tunables, (input, entries, epilogue, rows)))
}
