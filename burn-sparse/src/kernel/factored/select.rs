//! Fused or not, and with which tile: measured once for each shape on each device.

use burn::tensor::DType;
use burn_cubecl::{CubeDevice, CubeTuneId, tensor::CubeTensor};
use cubecl::{
    ir::HardwareProperties,
    prelude::*,
    tune::{AutotuneKey, LocalTuner, Tunable, TunableSet, local_tuner},
};
use serde::{Deserialize, Serialize};

use super::{
    config::{FactorShape, StripTile},
    launch::{FactoredKernel, Operands, launch},
};
use crate::{
    ConvProblem,
    kernel::{
        base::{empty_like, float_elem, is_software},
        core_conv::{CoreHardware, CoreWindow},
    },
};

/// Units along pixels: a plane of most cards, which then reads one weight for all.
const LANES: usize = 32;

/// `[cubes, ranks]` of the strips in the catalogue: cubes on a multiprocessor, channels of a unit.
pub(crate) const STRIPS: [[usize; 2]; 5] = [[1, 4], [2, 4], [4, 4], [2, 8], [4, 2]];

/// A place in the catalogue; which tile it is depends on the problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Dense,
    Core,
    /// Strips whose shared memory lets so many cubes onto a multiprocessor, with units that keep sums of
    /// so many channels.
    Strip {
        cubes: usize,
        ranks: usize,
    },
}

impl core::fmt::Display for Place {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Dense => f.write_str("factors_dense"),
            Self::Core => f.write_str("factors_core"),
            Self::Strip { cubes, ranks } => write!(f, "factors_strip_cubes{cubes}_ranks{ranks}"),
        }
    }
}

/// The places of the catalogue on the client's device. Strips are staged, which gains nothing on a
/// processor.
fn places(client: &Client) -> Vec<Place> {
    let mut places = vec![Place::Dense, Place::Core];
    if !is_software(client) {
        places.extend(STRIPS.map(|[cubes, ranks]| Place::Strip { cubes, ranks }));
    }
    places
}

impl Place {
    fn kernel(self, operands: &Operands) -> Result<FactoredKernel, String> {
        match self {
            Self::Dense => Ok(FactoredKernel::Dense),
            Self::Core => Ok(FactoredKernel::Core),
            Self::Strip { cubes, ranks } => {
                let client = &operands.input.client;
                let size = float_elem(operands.input.dtype).size();
                let (problem, shape) = (&operands.problem, &operands.shape);
                let hardware = &client.properties().hardware;
                strip(problem, shape, size, hardware, [cubes, ranks]).map(FactoredKernel::Strip)
            }
        }
    }
}

/// The strip that takes least time by a count of operations, among those of which `cubes` fit the shared
/// memory of a multiprocessor.
///
/// # Errors
/// A sentence, if none fits.
pub(crate) fn strip(
    problem: &ConvProblem,
    factors: &FactorShape,
    size: usize,
    hardware: &HardwareProperties,
    [cubes, ranks]: [usize; 2],
) -> Result<StripTile, String> {
    let multiprocessors = CoreHardware::of(hardware).multiprocessors;
    let units = 1 << hardware.max_units_per_cube.clamp(1, 256).ilog2();
    let limit = hardware.max_shared_memory_size / cubes;
    let mut best: Option<(f64, StripTile)> = None;
    for tile in tiles(problem, [units, units.min(LANES)], ranks) {
        if tile.shared_bytes(factors, size) > limit || tile.check(factors, size, hardware).is_err()
        {
            continue;
        }
        let waves = tile.cubes(problem).div_ceil(multiprocessors * cubes) as f64;
        let cost = waves * operations(&tile, problem, factors);
        if best.is_none_or(|(least, _)| cost < least) {
            best = Some((cost, tile));
        }
    }
    best.map(|(_, tile)| tile).ok_or_else(|| {
        format!(
            "what is between factors of ranks {:?} does not fit {limit} bytes of shared memory",
            factors.ranks
        )
    })
}

/// Strips of up to 16 rows, at full width or in two to 32 parts.
fn tiles(
    problem: &ConvProblem,
    units: [usize; 2],
    ranks: usize,
) -> impl Iterator<Item = StripTile> {
    let [height, width] = problem.output();
    let rows = [1, 2, 3, 4, 6, 8, 12, 16, height];
    let rows = rows.into_iter().filter(move |&rows| rows <= height.min(16));
    rows.flat_map(move |rows| [1, 2, 3, 4, 6, 8, 16, 32].map(|parts| [rows, width.div_ceil(parts)]))
        .flat_map(move |sides| {
            [1, 2, 4].map(|pixels| StripTile::new(sides, units, [pixels, ranks]))
        })
}

/// Multiply-adds of a unit, idle ones counted, and the loads that each takes: a pixel serves all channels of
/// a unit and a weight all its pixels.
fn operations(tile: &StripTile, problem: &ConvProblem, factors: &FactorShape) -> f64 {
    let passes = |count: usize, step: usize| (count.div_ceil(step) * tile.pixels) as f64;
    let blocks = |count: usize| (count.div_ceil(tile.block()) * tile.ranks) as f64;
    let [d1, d2] = factors.ranks;
    let taps = problem.kernel[0] * problem.kernel[1];
    let window = passes(tile.window_pixels(factors), tile.span());
    let outputs = passes(tile.rows * tile.cols, tile.span());
    let mut work = outputs * blocks(d2) * (d1 * taps) as f64;
    if factors.reduce {
        work += window * blocks(d1) * problem.in_channels as f64;
    }
    if factors.expand {
        work += outputs * blocks(problem.out_channels) * d2 as f64;
    }
    let loads = (tile.pixels + tile.ranks) as f64 / (tile.pixels * tile.ranks) as f64;
    work * (1.0 + loads)
}

/// The kernel without measuring: a fused strip on a card where one fits, else dense convolutions.
pub(super) fn heuristic(operands: &Operands) -> FactoredKernel {
    if operands.is_empty() {
        return FactoredKernel::Dense;
    }
    let fused = places(&operands.input.client)
        .into_iter()
        .filter(|place| matches!(place, Place::Strip { .. }))
        .find_map(|place| place.kernel(operands).ok());
    fused.unwrap_or(FactoredKernel::Dense)
}

/// The strip that [`factored_conv`](super::factored_conv) runs without measuring, of factors of `ranks`
/// `[D1, D2]`, with a first and a last one or without.
///
/// # Errors
/// Why there is none: the device is no card, or what is between the factors does not fit its shared memory.
///
/// # Panics
/// For numbers that no kernel takes.
pub fn strip_tile(
    problem: &ConvProblem,
    ranks: [usize; 2],
    [reduce, expand]: [bool; 2],
    dtype: DType,
    device: &CubeDevice,
) -> Result<StripTile, String> {
    let client = device.client();
    let shape = FactorShape {
        ranks,
        window: CoreWindow::of(problem),
        reduce,
        expand,
    };
    let size = float_elem(dtype).size();
    let mut reason = "strips are for cards, and this device is none".to_string();
    for place in places(&client) {
        if let Place::Strip { cubes, ranks } = place {
            let hardware = &client.properties().hardware;
            match strip(problem, &shape, size, hardware, [cubes, ranks]) {
                Ok(tile) => return Ok(tile),
                Err(rule) => reason = rule,
            }
        }
    }
    Err(reason)
}

/// What a choice is remembered for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Key {
    problem: ConvProblem,
    ranks: [usize; 2],
    reduce: bool,
    expand: bool,
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
        ranks: operands.shape.ranks,
        reduce: operands.shape.reduce,
        expand: operands.shape.expand,
        dtype: operands.input.dtype.name().to_string(),
        residual: operands.epilogue.residual.is_some(),
    }
}

/// Runs the fastest kernel for this shape, measuring the candidates when the shape is new.
///
/// # Errors
/// None: three dense convolutions always run.
pub(super) fn tuned(operands: Operands) -> Result<CubeTensor, String> {
    static TUNER: LocalTuner<Key, CubeTuneId> = local_tuner!("factored-conv");
    if operands.problem.output_shape().contains(&0) {
        return Ok(empty_like(&operands.input, operands.problem.output_shape()));
    }
    if operands.is_empty() {
        return launch(operands, FactoredKernel::Dense);
    }
    let client = operands.input.client.clone();
    let id = CubeTuneId::new(&client, &operands.input.device);
    let candidates = places(&client);
    let tunables = TUNER.init(&id, move || {
        let set = TunableSet::new(key, |_: &Key, operands: &Operands| operands.clone());
        candidates.iter().fold(set, |set, &place| {
            let run = move |operands: Operands| {
                let kernel = place.kernel(&operands)?;
                launch(operands, kernel)
            };
            set.with(Tunable::new(&place.to_string(), run))
        })
    });
    Ok(TUNER.execute(&id, &client, tunables, operands))
}
