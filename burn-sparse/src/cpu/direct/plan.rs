//! How a layer runs: everything that may be tuned and never changes the result.

use serde::{Deserialize, Serialize};

use super::compiled::MOST_ROWS;
use crate::{ConvProblem, cpu::Isa};

/// The tunable part of a [`Direct`](super::Direct) convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Plan {
    /// Output channels that share one list of positions, and so each load of the input: 1, 2 or
    /// 4. A dense layer runs with 4, one pruned in blocks of `n` channels with a divisor of `n`.
    /// [Compiled](Self::compiled), the output channels whose sums are in registers together, whatever
    /// positions they have, up to [`MOST_ROWS`].
    pub rows: usize,
    /// Vectors of neighbouring outputs whose sums stay in registers over all entries of a row.
    pub vectors: usize,
    /// Runs of input channels that are worked off one after the other, so that a tile of the input
    /// stays in the first cache while all output channels pass over it.
    pub blocks: usize,
    /// Whether every column of the kernel reads a copy of the input that was shifted for it: three
    /// times the memory under a 3x3 kernel, but loads that never straddle cache lines.
    pub shifted: bool,
    /// Elements to whose multiple the rows of such a copy are rounded.
    pub align: usize,
    /// Rows of outputs for which the input is copied at once, so that the copy stays in the second
    /// cache. A layer that reads its input where it lies has no use for it.
    pub strip: usize,
    /// Blocks in which output channels that share a list of positions are looked for. `None`: they are
    /// neighbours and share it over all input channels. With panels there is one run of input
    /// channels.
    #[serde(default)]
    pub panel: Option<Panel>,
    /// Whether the weight is written as machine code, one instruction for each non-zero. It has no panels: channels
    /// share loads wherever they have positions in common. Its blocks are there for the code of a few channels to stay
    /// in the first cache while it runs for one vector of outputs after the other. Where
    /// [no code can run](Self::compiles), the rest of the plan is followed.
    #[serde(default)]
    pub compiled: bool,
}

/// Blocks of a weight matrix: in each, the rows that store the same columns share their loads,
/// wherever in the block they are. What block column-row pruning leaves of a block is one such panel;
/// punched blocks and rows pruned alike are others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Panel {
    /// Output channels of a block.
    pub rows: usize,
    /// Columns of a block.
    pub columns: usize,
}

/// Which output channels share loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sharing {
    /// As [`Plan::rows`].
    pub rows: usize,
    /// As [`Plan::panel`].
    pub panel: Option<Panel>,
}

impl Sharing {
    /// Neighbours share.
    pub fn neighbours(rows: usize) -> Self {
        Self { rows, panel: None }
    }
}

/// Numbers of output channels that a kernel exists for.
pub const ROWS: [usize; 3] = [1, 2, 4];

/// Most vectors of a tile for each of [`ROWS`]: compilers keep no more sums than these in registers.
pub(super) const MOST_VECTORS: [usize; 3] = [14, 8, 4];

/// Most vectors of a compiled tile: as many sums as a task keeps.
const MOST_COMPILED: usize = 64;

/// Bytes of code for a non-zero and for a load of inputs.
const BYTES_PER_ENTRY: f64 = 7.0;
const BYTES_PER_LOAD: f64 = 10.0;

/// Bytes of code that should run again and again before others do.
const UNIT_BYTES: f64 = 12288.0;

/// Most blocks of a compiled plan: each has code of its own for every few channels, whatever it holds.
const MOST_BLOCKS: usize = 64;

/// Bytes of input that a tile should read: most of the first cache, which the sums share.
const FIRST_CACHE: usize = 32 << 10;

/// Bytes that stay in a second cache of usual size, whatever else passes through it: half of it.
pub(super) const SECOND_CACHE: usize = 512 << 10;

/// Outputs of a strip below which copying rows twice and starting anew costs more than the cache
/// gains.
const FEWEST_OUTPUTS: usize = 392;

/// Entries of a row in a block below which starting a row costs more than the cache gains.
const FEWEST_ENTRIES: f64 = 8.0;

/// Whether every output reads the pixel at its own place, so that nothing need be copied.
fn reads_plainly(problem: &ConvProblem) -> bool {
    problem.kernel == [1, 1] && problem.stride == [1, 1]
}

impl Plan {
    /// The widest tile whose sums fit the registers.
    pub fn most_vectors(rows: usize, isa: Isa) -> usize {
        let index = ROWS.iter().position(|&r| r == rows).unwrap_or(0);
        let rows = ROWS[index];
        // One register for the weight, and one that compilers do not manage without; with several
        // rows, the inputs are held as well.
        let free = isa.registers() - 2;
        let fit = if rows == 1 { free } else { free / (rows + 1) };
        fit.clamp(1, MOST_VECTORS[index])
    }

    /// The widest tile of this plan.
    pub(super) fn widest(&self, isa: Isa) -> usize {
        if self.compiled {
            MOST_COMPILED
        } else {
            Self::most_vectors(self.rows, isa)
        }
    }

    /// Whether weights can be [compiled](Self::compiled) for an instruction set: AVX-512 of x86-64. A system may
    /// forbid it all the same.
    pub fn compiles(isa: Isa) -> bool {
        super::compiled::exists(isa)
    }

    /// Whether a list of positions serves several output channels.
    pub fn shares_positions(&self) -> bool {
        self.rows > 1 && !self.compiled
    }

    /// Compiled plans for a layer of which `density` of the weights are stored: one for every way in which the input
    /// may lie, the most promising first; none where no code can run.
    pub fn compiled_candidates(problem: &ConvProblem, density: f64, isa: Isa) -> Vec<Self> {
        if !Self::compiles(isa) {
            return Vec::new();
        }
        let guess = Self::guess(problem, 1.0, 1, isa);
        let layouts: &[bool] = if problem.kernel[1] > 1 {
            &[false, true]
        } else {
            &[false]
        };
        let blocks = Self::compiled_blocks(problem, density);
        let mut plans = Vec::new();
        for &shifted in layouts {
            let alignments = Self::alignments(problem.output()[1], isa.lanes());
            for align in alignments.into_iter().take(if shifted { 2 } else { 1 }) {
                plans.push(
                    Self {
                        shifted,
                        align,
                        rows: MOST_ROWS,
                        vectors: MOST_COMPILED,
                        blocks,
                        compiled: true,
                        ..guess
                    }
                    .with_strip(problem)
                    .with_vectors(MOST_COMPILED, problem, isa),
                );
            }
        }
        plans
    }

    /// Compiled plans worth timing where one of [`compiled_candidates`](Self::compiled_candidates) has been the
    /// fastest: with other tiles and blocks.
    pub fn compiled_neighbours(self, problem: &ConvProblem, isa: Isa) -> Vec<Self> {
        let most = Self::most_blocks(problem);
        let blocks = [self.blocks, 1, 2 * self.blocks];
        let mut plans = vec![self];
        for blocks in blocks.into_iter().filter(|&blocks| blocks <= most) {
            for vectors in [MOST_COMPILED, MOST_COMPILED / 4] {
                let plan = Self { blocks, ..self }.with_vectors(vectors, problem, isa);
                if !plans.contains(&plan) {
                    plans.push(plan);
                }
            }
        }
        plans.split_off(1)
    }

    /// Blocks of input channels in which the code of [`MOST_ROWS`] channels fits the first cache with room to spare:
    /// it is fetched once for all vectors of a tile. A power of two.
    fn compiled_blocks(problem: &ConvProblem, density: f64) -> usize {
        let density = density.clamp(0.0, 1.0);
        let rows = MOST_ROWS as f64;
        let loads = 1.0 - (1.0 - density).powf(rows);
        let bytes =
            problem.row_len() as f64 * (rows * density * BYTES_PER_ENTRY + loads * BYTES_PER_LOAD);
        let blocks = (bytes / UNIT_BYTES).max(1.0).log2().round().exp2();
        (blocks as usize).min(Self::most_blocks(problem))
    }

    /// Most blocks of input channels that a compiled plan for a layer may have.
    fn most_blocks(problem: &ConvProblem) -> usize {
        (problem.in_channels / problem.groups.max(1)).clamp(1, MOST_BLOCKS)
    }

    /// With the parts of a compiled plan brought into range, if it is one and may be.
    pub(super) fn compiled_in_range(mut self, isa: Isa) -> Self {
        self.compiled &= Self::compiles(isa);
        if self.compiled {
            self.rows = self.rows.clamp(1, MOST_ROWS);
            self.blocks = self.blocks.min(MOST_BLOCKS);
            self.panel = None;
        }
        self
    }

    /// Vectors of inputs that the kernel loads for a layer of which `stored` weights are stored,
    /// this plan's groups of rows sharing theirs: each position of a group loads every vector of
    /// the outputs once. Positions, values and copies come on top. Channels of compiled rows are taken
    /// to have nothing in common but what chance gives them.
    pub fn vector_loads(&self, problem: &ConvProblem, stored: usize, isa: Isa) -> u64 {
        let working = super::Working::new(problem, self);
        let [height, _] = problem.output();
        let lanes = isa.lanes();
        let strips = (0..working.strips()).map(|strip| {
            let rows = working.strip.min(height - strip * working.strip);
            working.vectors_of(rows, lanes) as u64
        });
        let positions = if self.compiled {
            let columns = problem.row_len().max(1) as f64;
            let density = stored as f64 / (columns * problem.out_channels.max(1) as f64);
            let units = problem.out_channels.div_ceil(self.rows.max(1)).max(1) as f64;
            let rows = problem.out_channels as f64 / units;
            (units * columns * (1.0 - (1.0 - density.clamp(0.0, 1.0)).powf(rows))).ceil() as u64
        } else {
            stored.div_ceil(self.rows.max(1)) as u64
        };
        positions * strips.sum::<u64>() * problem.batch as u64
    }

    /// A good guess for a layer of which `density` of the weights are stored.
    pub fn guess(problem: &ConvProblem, density: f64, rows: usize, isa: Isa) -> Self {
        Self::guess_sharing(problem, density, Sharing::neighbours(rows), isa)
    }

    /// The same for channels that share loads in another way.
    pub fn guess_sharing(
        problem: &ConvProblem,
        density: f64,
        Sharing { rows, panel }: Sharing,
        isa: Isa,
    ) -> Self {
        let lanes = isa.lanes();
        let [_, width] = problem.output();
        let taps = problem.kernel[0] * problem.kernel[1];
        let sharing = rows > 1;
        // With several rows to a load, loads are not what limits the kernel.
        let shifted = problem.kernel[1] > 1 && !sharing;
        let align = Self::alignments(width, lanes)[0];
        let plan = Self {
            rows,
            vectors: 1,
            blocks: 1,
            shifted,
            align,
            strip: usize::MAX,
            panel,
            compiled: false,
        }
        .with_strip(problem);
        let outputs = super::Working::new(problem, &plan).vectors(lanes);
        let most = Self::most_vectors(rows, isa);
        let wanted = if sharing { most } else { most.min(7) };
        // Tiles of nearly equal size: no last tile of one vector that pays the whole loop.
        let vectors = outputs.div_ceil(outputs.div_ceil(wanted).max(1)).max(1);
        let channels = problem.in_channels / problem.groups;
        let entries = density * (channels * taps) as f64;
        let bytes = channels * problem.kernel[1] * problem.kernel[0] * vectors * lanes * 4;
        let fitting = if sharing {
            8 * FIRST_CACHE
        } else {
            FIRST_CACHE
        };
        let blocks = (bytes as f64 / fitting as f64)
            .min(entries / FEWEST_ENTRIES)
            .max(1.0) as usize;
        let blocks = (1usize << blocks.ilog2()).min(channels.max(1));
        Self {
            vectors,
            blocks: if panel.is_some() { 1 } else { blocks },
            ..plan
        }
    }

    /// For images that must be copied whatever the layer: those that are widened on the way.
    pub(crate) fn copying(self, problem: &ConvProblem) -> Self {
        if reads_plainly(problem) {
            self.with_strips(problem)
        } else {
            self
        }
    }

    /// A copy for every column of the kernel, rows without gaps: outputs and their inputs are runs.
    pub(super) fn gapless(problem: &ConvProblem) -> Self {
        let plan = Self {
            rows: 1,
            vectors: 1,
            blocks: 1,
            shifted: true,
            align: 1,
            strip: usize::MAX,
            panel: None,
            compiled: false,
        };
        plan.with_strip(problem)
    }

    /// With tiles of so many vectors, or as many as a strip has.
    fn with_vectors(self, vectors: usize, problem: &ConvProblem, isa: Isa) -> Self {
        let most = super::Working::new(problem, &self).vectors(isa.lanes());
        Self {
            vectors: vectors.min(most).max(1),
            ..self
        }
    }

    fn with_strip(self, problem: &ConvProblem) -> Self {
        if reads_plainly(problem) {
            let [strip, _] = problem.output();
            Self { strip, ..self }
        } else {
            self.with_strips(problem)
        }
    }

    /// With strips as high as the second cache allows, alike in height.
    fn with_strips(mut self, problem: &ConvProblem) -> Self {
        let [height, _] = problem.output();
        let bytes = |strip: usize| {
            self.strip = strip;
            4 * super::Working::new(problem, &self).image()
        };
        let mut bytes = bytes;
        let mut strips = 1;
        let least = FEWEST_OUTPUTS.div_ceil(problem.output()[1]);
        while height.div_ceil(strips + 1) >= least && bytes(height.div_ceil(strips)) > SECOND_CACHE
        {
            strips += 1;
        }
        self.strip = height.div_ceil(strips);
        self
    }

    /// Roundings of a row of `width` outputs worth trying, the most promising first: to whole
    /// vectors, unless that wastes more than unaligned loads do.
    fn alignments(width: usize, lanes: usize) -> [usize; 2] {
        if width.next_multiple_of(lanes) * 10 <= width * 13 {
            [lanes, 1]
        } else {
            [(lanes / 2).max(1), 1]
        }
    }

    /// Plans worth timing against each other, the guess first.
    pub fn candidates(
        problem: &ConvProblem,
        density: f64,
        sharing: Sharing,
        isa: Isa,
    ) -> Vec<Self> {
        let guess = Self::guess_sharing(problem, density, sharing, isa);
        let rows = sharing.rows;
        let mut plans = vec![guess];
        let mut add = |plan: Self| {
            if !plans.contains(&plan) {
                plans.push(plan);
            }
        };
        let channels = problem.in_channels / problem.groups;
        let most = Self::most_vectors(rows, isa);
        let lanes = isa.lanes();
        let layouts: &[bool] = if problem.kernel[1] > 1 {
            &[true, false]
        } else {
            &[false]
        };
        for &shifted in layouts {
            let alignments = Self::alignments(problem.output()[1], lanes);
            for align in alignments.into_iter().take(if shifted { 2 } else { 1 }) {
                let base = Self {
                    shifted,
                    align,
                    ..guess
                }
                .with_strip(problem);
                let outputs = super::Working::new(problem, &base).vectors(lanes);
                for vectors in [3, 4, 5, 7, 10, 14] {
                    let vectors = vectors.min(most).min(outputs);
                    for blocks in [guess.blocks / 2, guess.blocks, guess.blocks * 2] {
                        let possible = match sharing.panel {
                            Some(_) => 1..=1,
                            None => 1..=channels.max(1),
                        };
                        if possible.contains(&blocks) {
                            add(Self {
                                vectors,
                                blocks,
                                ..base
                            });
                        }
                    }
                }
            }
        }
        plans
    }
}
