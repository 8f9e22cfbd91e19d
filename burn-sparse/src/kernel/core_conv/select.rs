//! Which tile: measured once for each shape on each device, or TDC's analytical model.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex, PoisonError},
    time::Instant,
};

use burn_cubecl::{CubeTuneId, tensor::CubeTensor};
use cubecl::{
    prelude::*,
    tune::{AutotuneKey, LocalTuner, Tunable, TunableSet, local_tuner},
};
use serde::{Deserialize, Serialize};

use super::{
    config::CoreTile,
    launch::{Operands, launch},
    model::{CoreHardware, KEPT, estimates, pick, tile_of},
};
use crate::{
    ConvProblem,
    kernel::{
        Epilogue,
        base::{float_elem, is_software, software_units, units_up_to},
    },
};

/// Tilings `[TH, TW, TC]` beside the model's, for cubes of 256 units: TDC's sweeps end mostly at 2 × 3 with
/// chunks of 16 for large maps, and at chunks of 2 to 8 for small ones.
pub(crate) const GPU_TILES: [[usize; 3]; 9] = [
    [2, 3, 16],
    [1, 7, 16],
    [2, 2, 16],
    [1, 2, 4],
    [1, 4, 8],
    [2, 4, 8],
    [2, 7, 8],
    [4, 4, 8],
    [7, 7, 4],
];

/// `[TH, TW]` on a device that is no card.
const SOFTWARE_TILES: [[usize; 2]; 3] = [[1, 1], [1, 4], [2, 4]];

/// A place in the catalogue; which tile it is may depend on the problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The model's pick.
    Model,
    /// The model's pick, with input channels split as that one does not.
    ModelSplitOtherwise,
    Staged([usize; 3]),
    Direct([usize; 2]),
}

impl core::fmt::Display for Place {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Model => f.write_str("core_model"),
            Self::ModelSplitOtherwise => f.write_str("core_model_split_otherwise"),
            Self::Staged([rows, cols, chunk]) => write!(f, "core_{rows}x{cols}_chunk{chunk}"),
            Self::Direct([rows, cols]) => write!(f, "core_{rows}x{cols}_direct"),
        }
    }
}

/// The places of the catalogue on the client's device.
fn places(client: &Client) -> Vec<Place> {
    if is_software(client) {
        return SOFTWARE_TILES.map(Place::Direct).to_vec();
    }
    let model = [Place::Model, Place::ModelSplitOtherwise];
    let direct = [Place::Direct([1, 2])];
    let staged = GPU_TILES.map(Place::Staged);
    model.into_iter().chain(staged).chain(direct).collect()
}

impl Place {
    /// The tile here for a problem.
    ///
    /// # Errors
    /// A sentence, if there is none.
    fn tile(self, problem: &ConvProblem, size: usize, client: &Client) -> Result<CoreTile, String> {
        let hardware = CoreHardware::of(&client.properties().hardware);
        let fill = |tile: CoreTile| filling(tile, problem, &hardware);
        match self {
            Self::Model => model(problem, size, client).map(fill),
            Self::ModelSplitOtherwise => {
                let tile = model(problem, size, client)?;
                let chunks = problem.in_channels.div_ceil(tile.chunk.max(1));
                let splits = match fill(tile).splits {
                    1 => chunks.min(2),
                    _ => 1,
                };
                match splits == fill(tile).splits {
                    true => Err("a single chunk of channels is split in one way only".to_string()),
                    false => Ok(tile.with_splits(splits)),
                }
            }
            Self::Staged(tiling) => {
                let units = units_up_to(client, 256);
                Ok(fill(CoreTile::staged(tiling).with_units(units)))
            }
            Self::Direct(tiling) if is_software(client) => {
                Ok(CoreTile::direct(tiling, software_units(client)))
            }
            Self::Direct(tiling) => Ok(fill(CoreTile::direct(tiling, units_up_to(client, 256)))),
        }
    }
}

/// The tile, with its input channels in parts where its cubes alone would leave multiprocessors idle.
fn filling(tile: CoreTile, problem: &ConvProblem, hardware: &CoreHardware) -> CoreTile {
    let cubes = tile.cubes(problem).max(1);
    if cubes >= hardware.multiprocessors {
        return tile.with_splits(1);
    }
    // Two cubes for each, so that one computes while the other loads; parts of 8 channels at least.
    let chunk = tile.chunk.max(8);
    let chunks = problem.in_channels.div_ceil(chunk).max(1);
    tile.with_splits((2 * hardware.multiprocessors / cubes).clamp(1, chunks))
}

/// The tile of TDC's analytical model for a convolution of elements of `size` bytes on the client's device.
///
/// # Errors
/// A sentence, if the model has no tiling with all output channels and columns in one cube.
pub(crate) fn model(
    problem: &ConvProblem,
    size: usize,
    client: &Client,
) -> Result<CoreTile, String> {
    type Picks = HashMap<(ConvProblem, usize, [usize; 3]), Option<[usize; 3]>>;
    // Hundreds of tilings are not estimated again at every call.
    static PICKS: LazyLock<Mutex<Picks>> = LazyLock::new(Mutex::default);
    let hardware = CoreHardware::of(&client.properties().hardware);
    let device = [
        hardware.multiprocessors,
        hardware.cube_units,
        hardware.cube_shared_bytes,
    ];
    let mut picks = PICKS.lock().unwrap_or_else(PoisonError::into_inner);
    let picked = picks.entry((*problem, size, device)).or_insert_with(|| {
        pick(estimates(problem, size, &hardware), KEPT).map(|found| found.tiling)
    });
    match picked {
        Some(tiling) => Ok(tile_of(*tiling, &hardware)),
        None => Err(format!(
            "TDC's model has no tile for {} output channels and {} columns in a cube of {} units",
            problem.out_channels,
            problem.output()[1],
            hardware.cube_units
        )),
    }
}

/// The tile without measuring: the model's on a card that has one, else the first that fits.
///
/// # Errors
/// The rule that the last candidate breaks.
pub(super) fn heuristic(operands: &Operands) -> Result<CoreTile, String> {
    let client = &operands.input.client;
    let size = float_elem(operands.input.dtype).size();
    let mut reason = String::new();
    let mut places = places(client);
    if is_software(client) {
        // The largest register tile first: it reads least.
        places.reverse();
    }
    for place in places {
        match checked(place, &operands.problem, size, client) {
            Ok(tile) => return Ok(tile),
            Err(broken) => reason = broken,
        }
    }
    Err(reason)
}

fn checked(
    place: Place,
    problem: &ConvProblem,
    size: usize,
    client: &Client,
) -> Result<CoreTile, String> {
    let tile = place.tile(problem, size, client)?;
    tile.check(problem, size, &client.properties().hardware)?;
    Ok(tile)
}

/// What a choice is remembered for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Key {
    problem: ConvProblem,
    dtype: String,
    residual: bool,
}

impl core::fmt::Display for Key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl AutotuneKey for Key {}

fn key(operands: &Operands) -> Key {
    Key {
        problem: operands.problem,
        dtype: operands.input.dtype.name().to_string(),
        residual: operands.epilogue.residual.is_some(),
    }
}

fn run(operands: Operands, place: Place) -> Result<CubeTensor, String> {
    let client = operands.input.client.clone();
    let size = float_elem(operands.input.dtype).size();
    let tile = place.tile(&operands.problem, size, &client)?;
    launch(operands, tile)
}

/// Runs the fastest tile for this shape, measuring the candidates when the shape is new.
///
/// # Errors
/// The rule that the last candidate breaks, if none fits.
pub(super) fn tuned(operands: Operands) -> Result<CubeTensor, String> {
    static TUNER: LocalTuner<Key, CubeTuneId> = local_tuner!("core-conv");
    let tile = heuristic(&operands)?;
    if operands.problem.output_shape().contains(&0) {
        return launch(operands, tile);
    }
    let client = operands.input.client.clone();
    let id = CubeTuneId::new(&client, &operands.input.device);
    let candidates = places(&client);
    let tunables = TUNER.init(&id, move || {
        let set = TunableSet::new(key, |_: &Key, operands: &Operands| operands.clone());
        candidates.iter().fold(set, |set, &place| {
            let run = move |operands: Operands| run(operands, place);
            set.with(Tunable::new(&place.to_string(), run))
        })
    });
    Ok(TUNER.execute(&id, &client, tunables, operands))
}

/// Time of one tile of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TileTime {
    /// The tile.
    pub tile: CoreTile,
    /// Seconds of a call, launch included.
    pub seconds: f64,
}

/// Times of the catalogue for a shape, and which of them is the analytical model's pick.
#[derive(Debug, Clone, PartialEq)]
pub struct CatalogueTimes {
    /// Every tile that can be launched, each once.
    pub tiles: Vec<TileTime>,
    /// The place of the model's pick among them, if the model has one for this shape.
    pub model: Option<usize>,
}

impl CatalogueTimes {
    /// The fastest tile.
    pub fn best(&self) -> Option<&TileTime> {
        let by_time = |a: &&TileTime, b: &&TileTime| a.seconds.total_cmp(&b.seconds);
        self.tiles.iter().min_by(by_time)
    }

    /// Time of the model's pick divided by that of the fastest tile: 1 where the model is right. (TDC
    /// reports about 1.25 over an exhaustive sweep on its cards.)
    pub fn model_over_best(&self) -> Option<f64> {
        let model = self.tiles.get(self.model?)?;
        Some(model.seconds / self.best()?.seconds)
    }
}

/// Times every tile of the catalogue that can be launched: the median of `repeats` calls each, and each
/// waited for.
///
/// # Errors
/// The rule that the last candidate breaks, if none fits; a failure of the device.
///
/// # Panics
/// As [`core_conv`](super::core_conv) for wrong tensors.
pub fn catalogue_times(
    input: CubeTensor,
    weight: CubeTensor,
    epilogue: Epilogue,
    problem: &ConvProblem,
    repeats: usize,
) -> Result<CatalogueTimes, String> {
    let operands = Operands::new(input, weight, epilogue, problem);
    let client = operands.input.client.clone();
    let size = float_elem(operands.input.dtype).size();
    heuristic(&operands)?;
    let mut times = CatalogueTimes {
        tiles: Vec::new(),
        model: None,
    };
    for place in places(&client) {
        let Ok(tile) = checked(place, problem, size, &client) else {
            continue;
        };
        let known = times.tiles.iter().any(|time| time.tile == tile);
        if !known {
            if place == Place::Model {
                times.model = Some(times.tiles.len());
            }
            let seconds = median_seconds(&operands, tile, repeats)?;
            times.tiles.push(TileTime { tile, seconds });
        }
    }
    Ok(times)
}

fn median_seconds(operands: &Operands, tile: CoreTile, repeats: usize) -> Result<f64, String> {
    let client = operands.input.client.clone();
    let once = || -> Result<f64, String> {
        let start = Instant::now();
        launch(operands.clone(), tile)?;
        cubecl::future::block_on(client.sync()).map_err(|error| error.to_string())?;
        Ok(start.elapsed().as_secs_f64())
    };
    // The first call compiles.
    once()?;
    let mut seconds = (0..repeats.max(1))
        .map(|_| once())
        .collect::<Result<Vec<_>, _>>()?;
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[seconds.len() / 2])
}
