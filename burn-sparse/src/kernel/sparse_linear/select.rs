//! Which tile: measured once for each shape on each device, or by a rule of thumb.

use burn_cubecl::{CubeTuneId, tensor::CubeTensor};
use cubecl::{
    prelude::*,
    tune::{AutotuneKey, LocalTuner, Tunable, TunableSet, local_tuner},
};
use serde::{Deserialize, Serialize};

use super::{
    LinearTile,
    config::GatherTile,
    launch::{dims, launch},
};
use crate::kernel::{
    ConvTile, Entries, Epilogue,
    base::{is_software, software_units, units_up_to},
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

/// Candidates on the client's device.
fn candidates(client: &Client) -> Vec<LinearTile> {
    let hardware = &client.properties().hardware;
    let units = hardware.max_units_per_cube as usize;
    if is_software(client) {
        let units = software_units(client);
        let gather =
            [1, 4, 8].map(|inputs| LinearTile::Gather(GatherTile::new([units, 1, inputs])));
        let stream = [1, 8].map(|pixels| LinearTile::Stream(ConvTile::direct([units, pixels, 1])));
        return gather.into_iter().chain(stream).collect();
    }
    let gather = GATHER_TILES.into_iter().map(LinearTile::Gather);
    let stream = STREAM_TILES.into_iter().map(LinearTile::Stream);
    gather
        .chain(stream)
        .filter(|tile| match tile {
            LinearTile::Gather(tile) => tile.units <= units,
            LinearTile::Stream(tile) => tile.check(1, hardware).is_ok(),
        })
        .collect()
}

/// The tile of the rule of thumb: gather up to 32 inputs, then stream.
pub(crate) fn heuristic(client: &Client, m: usize) -> LinearTile {
    let units = units_up_to(client, 128);
    if is_software(client) {
        let units = software_units(client);
        return LinearTile::Gather(GatherTile::new([units, 1, m.clamp(1, 8)]));
    }
    if m <= 32 {
        return LinearTile::Gather(GatherTile::new([units, units.min(16), m.clamp(1, 4)]));
    }
    LinearTile::Stream(ConvTile::staged([units_up_to(client, 64), 1, 1]))
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
    static TUNER: LocalTuner<Key, CubeTuneId> = local_tuner!();
    let [m, features] = dims(&input);
    if m == 0 || rows == 0 || features == 0 {
        let tile = heuristic(&input.client, m);
        return launch(input, entries, epilogue, rows, tile);
    }
    let client = input.client.clone();
    let id = CubeTuneId::new(&client, &input.device);
    let tiles = candidates(&client);
    let tunables = TUNER.init(&id, move || {
        let set = TunableSet::new(key, |_: &Key, inputs: &Inputs| inputs.clone());
        tiles.iter().fold(set, |set, &tile| {
            let run = move |(input, entries, epilogue, rows): Inputs| {
                launch(input, entries, epilogue, rows, tile)
            };
            set.with(Tunable::new(&tile.to_string(), run))
        })
    });
    Ok(TUNER.execute(&id, &client, tunables, (input, entries, epilogue, rows)))
}
