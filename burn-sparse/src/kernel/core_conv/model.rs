//! TDC's analytical model of the core convolution's tiles: no device, no measurement.

use cubecl::ir::HardwareProperties;

use super::CoreTile;
use crate::ConvProblem;

/// What the model knows of a device. [`CoreHardware::of`] takes from the device what `CubeCL` reports;
/// the rest are the numbers of NVIDIA's data-centre cards since the A100, for which TDC published it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoreHardware {
    /// Streaming multiprocessors.
    pub multiprocessors: usize,
    /// Units that a multiprocessor holds at once (2048).
    pub units: usize,
    /// Cubes that a multiprocessor holds at once (32).
    pub cubes: usize,
    /// 32-bit registers of a multiprocessor (65 536).
    pub registers: usize,
    /// Shared memory of a multiprocessor, in bytes: at least that of a cube, which is what is reported.
    pub shared_bytes: usize,
    /// Units of a plane: registers and places are given out by planes.
    pub plane: usize,
    /// Units of a cube at most.
    pub cube_units: usize,
    /// Shared memory of a cube at most, in bytes.
    pub cube_shared_bytes: usize,
}

/// Multiprocessors where a device does not report them (Vulkan, Metal).
const USUAL_MULTIPROCESSORS: u32 = 64;

impl CoreHardware {
    /// The device with these properties.
    pub fn of(hardware: &HardwareProperties) -> Self {
        let multiprocessors = hardware.num_streaming_multiprocessors;
        Self {
            multiprocessors: multiprocessors.unwrap_or(USUAL_MULTIPROCESSORS).max(1) as usize,
            units: 2048,
            cubes: 32,
            registers: 65_536,
            shared_bytes: hardware.max_shared_memory_size,
            plane: hardware.plane_size_max.max(1) as usize,
            cube_units: hardware.max_units_per_cube as usize,
            cube_shared_bytes: hardware.max_shared_memory_size,
        }
    }

    /// The share of a multiprocessor's units that cubes of so many units occupy, each with so much shared
    /// memory (bytes) and each unit with so many registers: `cubes at once * units / 2048`.
    ///
    /// This is computed for the cube that is launched. (The released sweeps of TDC list occupancies of
    /// another kernel's.)
    ///
    /// # Example
    /// ```
    /// # use burn_sparse::kernel::CoreHardware;
    /// let a100 = CoreHardware {
    ///     multiprocessors: 108,
    ///     units: 2048,
    ///     cubes: 32,
    ///     registers: 65_536,
    ///     shared_bytes: 164 << 10,
    ///     plane: 32,
    ///     cube_units: 1024,
    ///     cube_shared_bytes: 163 << 10,
    /// };
    /// // Twelve cubes of 160 units are 1920, and 40 registers each are more than there are for eleven.
    /// assert_eq!(a100.occupancy(160, 0, 32), 1920.0 / 2048.0);
    /// assert_eq!(a100.occupancy(160, 0, 40), 1600.0 / 2048.0);
    /// ```
    pub fn occupancy(&self, units: usize, shared_bytes: usize, registers: usize) -> f64 {
        let planes = units.div_ceil(self.plane) * self.plane;
        let registers = registers.next_multiple_of(8) * planes;
        let cubes = self
            .cubes
            .min(self.units / planes.max(1))
            .min(self.registers / registers.max(1))
            .min(self.shared_bytes / shared_bytes.max(1));
        (cubes * units) as f64 / self.units as f64
    }
}

/// A tiling and what the model says of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CoreEstimate {
    /// The tiling `[TH, TW, TC]`.
    pub tiling: [usize; 3],
    /// `t_comp`: multiply-adds of a unit times waves of cubes.
    pub compute: f64,
    /// `vol`: elements moved, `0.0 K + 0.9 I + 0.1 O`.
    pub volume: f64,
}

/// The model of a tiling `[TH, TW, TC]` at an occupancy (0 to 1), with `H × W` the output, `C` and `N`
/// input and output channels:
///
/// ```text
/// flops_thr = (TH+R−1)(TW+S−1)·TC·R·S
/// bnum      = ⌈H/TH⌉·⌈C/TC⌉              bdim = ⌈W/TW⌉·N
/// waves     = ⌈bnum / ⌊SMs·threads_per_SM·occupancy / bdim⌋⌉
/// t_comp    = flops_thr·waves
/// K = R·S·TC·N·⌈H/TH⌉·⌈W/TW⌉·⌈C/TC⌉
/// I = ⌈H/TH⌉·(TH+R−1)·(W+S−1)·C
/// O = TH·TW·N·⌈H/TH⌉·⌈W/TW⌉·⌈C/TC⌉
/// vol = 0.0·K + 0.9·I + 0.1·O
/// ```
///
/// TDC states it for one image, kernels of 3×3 and stride 1. Here `bnum` and the volumes count all images,
/// and `TH+R−1` and `W+S−1` are what so many outputs span at any stride and dilation.
pub fn estimate(
    problem: &ConvProblem,
    tiling: [usize; 3],
    occupancy: f64,
    hardware: &CoreHardware,
) -> CoreEstimate {
    let [rows, cols, chunk] = tiling;
    let window = super::config::CoreWindow::of(problem);
    let [height, width] = problem.output();
    let taps = problem.kernel[0] * problem.kernel[1];
    let (channels, outputs) = (problem.in_channels, problem.out_channels);
    let [row_tiles, col_tiles] = [height.div_ceil(rows), width.div_ceil(cols)];
    let chunks = channels.div_ceil(chunk);

    let work = window.span(0, rows) * window.span(1, cols) * chunk * taps;
    let cubes = problem.batch * row_tiles * chunks;
    let units = col_tiles * outputs;
    let places = (hardware.multiprocessors * hardware.units) as f64 * occupancy;
    let at_once = (places / units as f64).floor().max(1.0);
    let waves = (cubes as f64 / at_once).ceil();

    let tiles = problem.batch * row_tiles * col_tiles * chunks;
    let weights = taps * chunk * outputs * tiles;
    let inputs =
        problem.batch * row_tiles * window.span(0, rows) * window.span(1, width) * channels;
    let sums = rows * cols * outputs * tiles;
    CoreEstimate {
        tiling,
        compute: work as f64 * waves,
        volume: 0.0 * weights as f64 + 0.9 * inputs as f64 + 0.1 * sums as f64,
    }
}

/// TH and TW that the model looks at, and TC.
const SIDES: core::ops::RangeInclusive<usize> = 1..=12;
const CHUNKS: [usize; 6] = [1, 2, 4, 8, 16, 32];

/// The tile that is launched for a tiling.
pub(crate) fn tile_of([rows, cols, chunk]: [usize; 3], hardware: &CoreHardware) -> CoreTile {
    CoreTile::staged([rows, cols, chunk]).with_units(hardware.cube_units)
}

/// The model of every tiling of TDC's sweep (TH and TW from 1 to 12, TC a power of two to 32) that can be
/// launched, in TDC's order, TH first: all output channels and columns in one cube of at most as many units
/// and as much shared memory as the device allows, and no more numbers of a unit than registers hold, for elements of `size` bytes. Tiles larger than the
/// output or the input channels are left out.
pub fn estimates(problem: &ConvProblem, size: usize, hardware: &CoreHardware) -> Vec<CoreEstimate> {
    let [height, width] = problem.output();
    let tilings = SIDES
        .filter(|&rows| rows <= height)
        .flat_map(|rows| SIDES.map(move |cols| [rows, cols]))
        .filter(|&[_, cols]| cols <= width)
        .flat_map(|[rows, cols]| CHUNKS.map(|chunk| [rows, cols, chunk]))
        .filter(|&[_, _, chunk]| chunk <= problem.in_channels);
    let mut found = Vec::new();
    for tiling in tilings {
        let tile = tile_of(tiling, hardware);
        let units = width.div_ceil(tiling[1]) * problem.out_channels;
        let shared = tile.shared_bytes(problem, size);
        let fits = units <= hardware.cube_units && shared <= hardware.cube_shared_bytes;
        if !fits || !tile.fits_registers(problem) {
            continue;
        }
        let occupancy = hardware.occupancy(units, shared, tile.registers(problem));
        if occupancy > 0.0 {
            found.push(estimate(problem, tiling, occupancy, hardware));
        }
    }
    found
}

/// TDC's choice: of the best `share` of the tilings by `t_comp` (0.05 on an A100, 0.15 on a 2080 Ti), the
/// one of the smallest volume; `None` of none.
///
/// The tilings are sorted by `t_comp` first, ties by volume. (The released script cuts its list off as it
/// was enumerated, TH first, and so finds tilings of TH = 1 only.)
pub fn pick(mut estimates: Vec<CoreEstimate>, share: f64) -> Option<CoreEstimate> {
    estimates.sort_by(|a, b| {
        let by_compute = a.compute.total_cmp(&b.compute);
        by_compute.then(a.volume.total_cmp(&b.volume))
    });
    let kept = (estimates.len() as f64 * share).ceil().max(1.0) as usize;
    estimates.truncate(kept);
    estimates
        .into_iter()
        .min_by(|a, b| a.volume.total_cmp(&b.volume))
}

/// The share that TDC keeps on an A100.
pub(crate) const KEPT: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;

    /// An A100 as TDC has it.
    const A100: CoreHardware = CoreHardware {
        multiprocessors: 108,
        units: 2048,
        cubes: 32,
        registers: 65_536,
        shared_bytes: 164 << 10,
        plane: 32,
        cube_units: 1024,
        cube_shared_bytes: 163 << 10,
    };

    fn layer(channels: [usize; 2], side: usize) -> ConvProblem {
        ConvProblem::new(1, channels, [side, side], [3, 3]).with_padding([1, 1])
    }

    /// 64 → 32 at 56 × 56 in tiles of 2 × 7 × 16, by hand.
    #[test]
    fn the_formulas_give_what_a_hand_computes() {
        let got = estimate(&layer([64, 32], 56), [2, 7, 16], 0.75, &A100);
        // (2+2)(7+2)·16·9 = 5184 for a unit; 28·4 = 112 cubes of 8·32 = 256 units;
        // ⌊108·2048·0.75 / 256⌋ = 648 at once: one wave.
        assert_eq!(got.compute, 5184.0);
        // I = 28·4·58·64 = 415 744; O = 14·32·28·8·4 = 401 408.
        assert_eq!(got.volume, 0.9 * 415_744.0 + 0.1 * 401_408.0);

        // A ninth of the units occupied: 96 cubes at once, two waves.
        let got = estimate(&layer([64, 32], 56), [2, 7, 16], 0.112, &A100);
        assert_eq!(got.compute, 2.0 * 5184.0);
    }

    #[test]
    fn strides_and_batches_count() {
        let problem = layer([16, 8], 14).with_stride([2, 2]).with_batch(3);
        let got = estimate(&problem, [2, 7, 8], 1.0, &A100);
        // 7 × 7 outputs. Two rows span 5, seven columns 15: 5·15·8·9.
        assert_eq!(got.compute, 5400.0);
        // I = 3·4·5·15·16, O = 2·7·8·3·4·1·2.
        assert_eq!(got.volume, 0.9 * 14_400.0 + 0.1 * 2_688.0);
    }

    #[test]
    fn occupancy_is_that_of_the_cube_that_is_launched() {
        // Shared memory for three cubes; 96 units are three planes.
        assert_eq!(A100.occupancy(96, 50 << 10, 32), 288.0 / 2048.0);
        // At most 32 cubes.
        assert_eq!(A100.occupancy(32, 0, 16), 0.5);
        // 1024 units of 72 registers are more than there are.
        assert_eq!(A100.occupancy(1024, 0, 72), 0.0);
    }

    #[test]
    fn tilings_that_cannot_be_launched_are_left_out() {
        let problem = layer([64, 32], 224);
        let estimates = estimates(&problem, 4, &A100);
        // 32·⌈224/TW⌉ ≤ 1024 units.
        assert!(estimates.iter().all(|found| found.tiling[1] >= 7));
        assert!(estimates.iter().any(|found| found.tiling == [1, 7, 32]));
        let small = CoreHardware {
            cube_shared_bytes: 32 << 10,
            ..A100
        };
        // 4·TC·(TH+2)·(224+2) bytes.
        assert!(super::estimates(&problem, 4, &small).iter().all(|found| 4
            * found.tiling[2]
            * (found.tiling[0] + 2)
            * 226
            <= 32 << 10));
    }

    /// The script of the artefact forgets to sort, and is left with TH = 1.
    #[test]
    fn the_pick_is_among_the_best_and_not_among_the_first() {
        for (problem, rows) in [(layer([32, 32], 56), 2..=12), (layer([96, 64], 28), 1..=12)] {
            let estimates = estimates(&problem, 4, &A100);
            let kept = (estimates.len() as f64 * KEPT).ceil() as usize;
            let unsorted = estimates[..kept]
                .iter()
                .min_by(|a, b| a.volume.total_cmp(&b.volume))
                .unwrap();
            assert_eq!(unsorted.tiling[0], 1);

            let picked = pick(estimates.clone(), KEPT).unwrap();
            let faster = |than: &CoreEstimate| {
                let faster = estimates
                    .iter()
                    .filter(|found| found.compute < than.compute);
                faster.count()
            };
            assert!(faster(&picked) < kept, "{picked:?}");
            assert!(rows.contains(&picked.tiling[0]), "{picked:?}");
            println!("{:?}: {picked:?}, unsorted {unsorted:?}", problem.input);
        }
        assert_eq!(pick(Vec::new(), KEPT), None);
    }
}
