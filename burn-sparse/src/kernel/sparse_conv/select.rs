//! Which tile: measured once for each shape on each device, or by a rule of thumb.

use burn_cubecl::{CubeTuneId, tensor::CubeTensor};
use cubecl::{
    prelude::*,
    tune::{AutotuneKey, LocalTuner, Tunable, TunableSet, local_tuner},
};
use serde::{Deserialize, Serialize};

use super::{config::ConvTile, launch::Layout, launch::launch};
use crate::{
    ConvProblem,
    kernel::{
        Entries, Epilogue,
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

/// Candidates on the client's device.
fn candidates(client: &Client) -> Vec<ConvTile> {
    if is_software(client) {
        return software_tiles(software_units(client)).to_vec();
    }
    let fits = |tile: &ConvTile| {
        tile.check(tile.sub_batch, &client.properties().hardware)
            .is_ok()
    };
    GPU_TILES.into_iter().filter(fits).collect()
}

/// The tile of the rule of thumb: as many images as the paper's optimum, as far as there are any.
pub(crate) fn heuristic(client: &Client, batch: usize) -> ConvTile {
    let sub_batch = 1 << batch.clamp(1, 4).ilog2();
    if is_software(client) {
        return ConvTile::direct([software_units(client), 1, sub_batch]);
    }
    ConvTile::staged([units_up_to(client, 128), 1, sub_batch])
}

/// What a choice is remembered for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Key {
    problem: ConvProblem,
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

type Inputs = (CubeTensor, Entries, Epilogue, Layout, ConvProblem);

fn key((input, entries, epilogue, _, problem): &Inputs) -> Key {
    Key {
        problem: *problem,
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
    layout: Layout,
    problem: ConvProblem,
) -> Result<CubeTensor, String> {
    static TUNER: LocalTuner<Key, CubeTuneId> = local_tuner!();
    if layout.shape.contains(&0) {
        let tile = heuristic(&input.client, layout.batch);
        return launch(input, entries, epilogue, &layout, tile);
    }
    let client = input.client.clone();
    let id = CubeTuneId::new(&client, &input.device);
    let tiles = candidates(&client);
    let tunables = TUNER.init(&id, move || {
        let set = TunableSet::new(key, |_: &Key, inputs: &Inputs| inputs.clone());
        tiles.iter().fold(set, |set, &tile| {
            let run = move |(input, entries, epilogue, layout, _): Inputs| {
                launch(input, entries, epilogue, &layout, tile)
            };
            set.with(Tunable::new(&tile.to_string(), run))
        })
    });
    let inputs = (input, entries, epilogue, layout, problem);
    Ok(TUNER.execute(&id, &client, tunables, inputs))
}
