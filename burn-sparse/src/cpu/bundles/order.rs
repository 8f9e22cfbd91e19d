//! Which layout a matrix gets, and where its entries go.

use core::ops::Range;

use super::{
    super::{Isa, Rows},
    BUNDLE,
    panels::{self, Panels},
};

/// Elements that the widest [`Layout::Windows`] look up in.
pub(super) const MOST_REACH: usize = 32;

/// A slot without an entry.
pub(super) const NONE: u32 = u32::MAX;

/// How the entries of a matrix are laid out for its product with a vector, found from its pattern
/// alone: training changes values and keeps the order.
///
/// | layout | one step | serves |
/// |---|---|---|
/// | shared | one element of the vector times a column of sixteen rows | rows that share positions, such as blocks and dense bands |
/// | panels | the same, for rows that need not be neighbours and share only the positions of a block | rows and columns of blocks |
/// | windows | each of 16 (AVX-512) or 8 (AVX2) rows picks its own element from 32 or 16 neighbouring ones, in registers | scattered non-zeros |
/// | rows | one entry | very few non-zeros, and scattered ones on other processors |
///
/// Rows of sliced matrices in lanes are the SELL format of Kreutzer et al., "A unified sparse
/// matrix data format" (2014), section 3. It gathers each lane's element from memory, which takes
/// as many loads as there are lanes; windows need two, as the elements that rows wait for in
/// ascending order lie close together. Where lanes find nothing in a window, or rows do not share a
/// column, zeros are stored. Panels bring rows with the same pattern together, as the reordering of
/// RTMobile does (Dong et al., DAC 2020). The layout is taken that needs least of instructions and bytes together.
#[derive(Debug)]
pub struct Order {
    isa: Isa,
    rows: usize,
    d_input: usize,
    entries: usize,
    pub(super) layout: Layout,
    /// The entry of each slot; none for rows, whose slots are the entries.
    slots: Vec<u32>,
}

#[derive(Debug)]
pub(super) enum Layout {
    /// Bundle `b` has the columns `starts[b]..starts[b + 1]`, sixteen slots each.
    Shared { starts: Vec<u32>, columns: Vec<u32> },
    /// Rows that share the columns of a block.
    Panels(Panels),
    /// Groups of `lanes` rows: group `g` has the windows `starts[g]..starts[g + 1]`, a slot for
    /// each lane, which takes element `first + pick` of the vector.
    Windows {
        lanes: usize,
        starts: Vec<u32>,
        firsts: Vec<u32>,
        picks: Vec<u8>,
    },
    /// Row `k` has the entries `starts[k]..starts[k + 1]`.
    Rows { starts: Vec<u32>, columns: Vec<u32> },
}

/// What a step takes, in sixteenths of a cycle, if a processor runs four instructions in a cycle or
/// reads 16 bytes of weights from its outer caches.
pub(super) const fn cost(instructions: usize, bytes: usize) -> usize {
    4 * instructions + bytes
}

/// A column of sixteen rows: load it, spread an element, multiply into the registers of a bundle.
pub(super) const fn per_column(lanes: usize) -> usize {
    cost(2 + BUNDLE / lanes, 4 * BUNDLE + 4)
}

/// A window: load its start and check it, load the picks and widen them, load, permute, multiply;
/// AVX2 permutes two registers and blends them.
const fn per_window(lanes: usize) -> usize {
    cost(if lanes == 16 { 7 } else { 10 }, 5 * lanes + 4)
}

/// An entry alone: load its column and check it, load, multiply, add.
const PER_ENTRY: usize = cost(5, 8);

impl Order {
    /// Finds the order of a matrix whose rows have `d_input` columns, for an instruction set.
    ///
    /// # Panics
    /// If a column is not below `d_input`.
    pub fn new(matrix: Rows<'_>, d_input: usize, isa: Isa) -> Self {
        let rows = matrix.row_ptr.len() - 1;
        let entries = matrix.columns.len();
        assert!(
            matrix
                .columns
                .iter()
                .all(|&column| (column as usize) < d_input),
            "a column outside of {d_input}"
        );
        // Counted first: what is not taken must not be built, at up to sixteen slots an entry.
        let (width, of_panels) = panels::best_width(matrix, d_input, isa.lanes());
        let costs = [
            Some(shared_columns(matrix, d_input) * per_column(isa.lanes())),
            window_lanes(isa).map(|lanes| {
                let mut windows = 0;
                walk(matrix, d_input, lanes, |_, _, _| windows += 1);
                windows * per_window(lanes)
            }),
            Some(PER_ENTRY * entries),
            Some(of_panels),
        ];
        let least = costs.iter().flatten().min();
        let best = costs.iter().position(|cost| cost.as_ref() == least);
        let (layout, slots) = match (best, window_lanes(isa)) {
            (Some(0), _) => shared(matrix, d_input),
            (Some(1), Some(lanes)) => windows(matrix, d_input, lanes),
            (Some(3), _) => {
                let (panels, slots) = panels::panels(matrix, width);
                (Layout::Panels(panels), slots)
            }
            _ => {
                let layout = Layout::Rows {
                    starts: matrix.row_ptr.to_vec(),
                    columns: matrix.columns.to_vec(),
                };
                (layout, Vec::new())
            }
        };
        Self {
            isa,
            rows,
            d_input,
            entries,
            layout,
            slots,
        }
    }

    /// Rows of the matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the matrix.
    pub fn d_input(&self) -> usize {
        self.d_input
    }

    /// Entries of the matrix.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Stored values, zeros of the layout included.
    pub fn slots(&self) -> usize {
        match self.layout {
            Layout::Rows { .. } => self.entries,
            _ => self.slots.len(),
        }
    }

    /// The name of the layout: `shared`, `panels`, `windows` or `rows`.
    pub fn layout(&self) -> &'static str {
        match self.layout {
            Layout::Shared { .. } => "shared",
            Layout::Panels(_) => "panels",
            Layout::Windows { .. } => "windows",
            Layout::Rows { .. } => "rows",
        }
    }

    /// Rows of the smallest part that can be computed by itself.
    pub(super) fn part_rows(&self) -> usize {
        match self.layout {
            Layout::Panels(_) => panels::SPAN,
            _ => BUNDLE,
        }
    }

    pub(super) fn isa(&self) -> Isa {
        self.isa
    }

    /// Elements that the vector must at least have.
    pub(super) fn reach(&self) -> usize {
        match self.layout {
            Layout::Windows { lanes, .. } => 2 * lanes,
            _ => 0,
        }
    }

    /// The entry of each slot, [`NONE`] for those without; nothing for rows.
    pub(super) fn slot_entries(&self) -> &[u32] {
        &self.slots
    }

    /// Puts values into their slots.
    pub(super) fn fill(&self, values: &[f32], slots: &mut [f32]) {
        if let Layout::Rows { .. } = self.layout {
            slots.copy_from_slice(values);
            return;
        }
        for (slot, &entry) in slots.iter_mut().zip(&self.slots) {
            *slot = if entry == NONE {
                0.0
            } else {
                values[entry as usize]
            };
        }
    }
}

/// Lanes of the windows of an instruction set that can permute vectors by indices.
fn window_lanes(isa: Isa) -> Option<usize> {
    match isa {
        Isa::Avx512 => Some(16),
        Isa::Avx2 => Some(8),
        Isa::Neon | Isa::Portable => None,
    }
}

/// Groups of `size` neighbouring rows, as the entries of each of their rows.
fn groups<'a>(row_ptr: &'a [u32], size: usize) -> impl Iterator<Item = Vec<Range<usize>>> + 'a {
    let rows = row_ptr.len() - 1;
    (0..rows.div_ceil(size)).map(move |group| {
        (group * size..rows.min((group + 1) * size))
            .map(|row| row_ptr[row] as usize..row_ptr[row + 1] as usize)
            .collect()
    })
}

fn shared(matrix: Rows<'_>, d_input: usize) -> (Layout, Vec<u32>) {
    let mut starts = vec![0];
    let (mut columns, mut slots) = (Vec::new(), Vec::new());
    // The slots of each column in the bundle at hand.
    let mut place = vec![usize::MAX; d_input];
    for group in groups(matrix.row_ptr, BUNDLE) {
        let first = columns.len();
        let all = group.first().map_or(0, |row| row.start)..group.last().map_or(0, |row| row.end);
        columns.extend_from_slice(&matrix.columns[all]);
        columns[first..].sort_unstable();
        let mut kept = first;
        for at in first..columns.len() {
            if at == first || columns[at] != columns[kept - 1] {
                columns[kept] = columns[at];
                kept += 1;
            }
        }
        columns.truncate(kept);
        for (at, &column) in columns.iter().enumerate().skip(first) {
            place[column as usize] = at * BUNDLE;
        }
        slots.resize(columns.len() * BUNDLE, NONE);
        for (lane, row) in group.into_iter().enumerate() {
            for entry in row {
                slots[place[matrix.columns[entry] as usize] + lane] = entry as u32;
            }
        }
        starts.push(columns.len() as u32);
    }
    (Layout::Shared { starts, columns }, slots)
}

/// Columns of all bundles, each counted once in a bundle.
fn shared_columns(matrix: Rows<'_>, d_input: usize) -> usize {
    let mut seen = vec![usize::MAX; d_input];
    let mut columns = 0;
    for (bundle, group) in groups(matrix.row_ptr, BUNDLE).enumerate() {
        for &column in group.into_iter().flat_map(|row| &matrix.columns[row]) {
            let seen = &mut seen[column as usize];
            columns += usize::from(*seen != bundle);
            *seen = bundle;
        }
    }
    columns
}

/// Every lane goes through its row in ascending order; a window starts at the lowest column that
/// any of them waits for, and serves all that wait for one within its reach. Calls `serve` with the
/// group, the first column of the window, and the lanes served with their entries.
fn walk(
    matrix: Rows<'_>,
    d_input: usize,
    lanes: usize,
    mut serve: impl FnMut(usize, u32, &[(usize, usize)]),
) {
    let reach = 2 * lanes;
    let last = d_input.saturating_sub(reach) as u32;
    let mut served = Vec::with_capacity(lanes);
    for (index, mut group) in groups(matrix.row_ptr, lanes).enumerate() {
        let waits = |row: &Range<usize>| (!row.is_empty()).then(|| matrix.columns[row.start]);
        while let Some(first) = group.iter().filter_map(waits).min() {
            let first = first.min(last);
            served.clear();
            for (lane, row) in group.iter_mut().enumerate() {
                if waits(row).is_some_and(|column| ((column - first) as usize) < reach) {
                    served.push((lane, row.start));
                    row.start += 1;
                }
            }
            serve(index, first, &served);
        }
    }
}

fn windows(matrix: Rows<'_>, d_input: usize, lanes: usize) -> (Layout, Vec<u32>) {
    let rows = matrix.row_ptr.len() - 1;
    let mut starts = vec![0; rows.div_ceil(lanes) + 1];
    let (mut firsts, mut picks, mut slots) = (Vec::new(), Vec::new(), Vec::new());
    walk(matrix, d_input, lanes, |group, first, served| {
        let at = slots.len();
        slots.resize(at + lanes, NONE);
        picks.resize(at + lanes, 0);
        for &(lane, entry) in served {
            picks[at + lane] = (matrix.columns[entry] - first) as u8;
            slots[at + lane] = entry as u32;
        }
        firsts.push(first);
        starts[group + 1] = firsts.len() as u32;
    });
    // Groups without entries end where they start.
    for group in 1..starts.len() {
        starts[group] = starts[group].max(starts[group - 1]);
    }
    let layout = Layout::Windows {
        lanes,
        starts,
        firsts,
        picks,
    };
    (layout, slots)
}
