//! Where entries are: one bit for each place of a matrix, told by a model that learns.
//!
//! The totals of rows and of columns come first where that pays: a row or column without entries then
//! costs nothing more, and what is left of a total tells how likely each further place is. Were rows
//! and columns independent, the odds of a place would be those of its row times those of its column
//! through those of all places; that is where the mixer of [`Around`] starts from.

use super::around::{Around, Rates};
use super::coder::Coder;
use super::logistic::rate;
use super::totals;

/// A matrix whose rows consist of channels of `kernel` columns; a kernel is `width` wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grid {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) kernel: usize,
    pub(super) width: usize,
}

impl Grid {
    /// Without kernels.
    pub(super) fn plain(rows: usize, columns: usize) -> Self {
        let (kernel, width) = (1, 1);
        Self {
            rows,
            columns,
            kernel,
            width,
        }
    }

    /// Places.
    pub(super) fn len(&self) -> usize {
        self.rows * self.columns
    }
}

/// Which totals are told before the places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) rows: bool,
    pub(super) columns: bool,
}

/// What a model expects to hold entries: groups of rows and groups of columns.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hints<'a> {
    pub(super) rows: &'a [bool],
    pub(super) columns: &'a [bool],
}

fn row_totals(grid: Grid, taken: &[bool]) -> Vec<u64> {
    let total = |row: &[bool]| row.iter().filter(|taken| **taken).count() as u64;
    (0..grid.rows)
        .map(|row| total(&taken[row * grid.columns..][..grid.columns]))
        .collect()
}

fn column_totals(grid: Grid, taken: &[bool]) -> Vec<u64> {
    let mut totals = vec![0; grid.columns];
    for row in taken.chunks_exact(grid.columns.max(1)) {
        for (total, taken) in totals.iter_mut().zip(row) {
            *total += u64::from(*taken);
        }
    }
    totals
}

/// Codes which `stored` places of `grid` are taken, row after row, into `taken`. A decoder starts
/// with none taken.
///
/// Returns how many did not fit into what a decoder read: zero unless that was forged.
pub(super) fn code(
    coder: &mut impl Coder,
    grid: Grid,
    told: Told,
    stored: u64,
    hints: Hints,
    taken: &mut [bool],
) -> u64 {
    let (rows, columns) = (grid.rows as u64, grid.columns as u64);
    let of_rows = told
        .rows
        .then(|| totals::code(coder, &row_totals(grid, taken), columns, stored, hints.rows));
    let of_columns = told.columns.then(|| {
        totals::code(
            coder,
            &column_totals(grid, taken),
            rows,
            stored,
            hints.columns,
        )
    });
    let rows_left = of_rows.as_ref().map_or(rows, |totals| {
        totals.iter().filter(|total| **total > 0).count() as u64
    });
    let mut walk = Walk {
        told,
        left: stored,
        rows_left,
        open: of_columns.as_ref().map_or(columns, |totals| {
            totals.iter().filter(|total| **total > 0).count() as u64
        }),
        of_columns: of_columns.unwrap_or_else(|| vec![0; grid.columns]),
        around: Around::new(grid, told.rows && told.columns),
    };
    for row in 0..grid.rows {
        let total = of_rows.as_ref().map(|totals| totals[row]);
        if walk.left == 0 || total == Some(0) {
            taken[row * grid.columns..][..grid.columns].fill(false);
        } else {
            walk.row(coder, row, total, taken);
        }
    }
    walk.left
}

/// What is known on the way through the rows.
struct Walk {
    told: Told,
    /// Entries still to come.
    left: u64,
    /// Rows that can still hold entries, this one included.
    rows_left: u64,
    /// Columns that can still hold entries.
    open: u64,
    /// Of each column what is left of its total, or what was seen if that was not told.
    of_columns: Vec<u64>,
    around: Around,
}

impl Walk {
    /// Codes a row with `total` entries, if that was told.
    fn row(&mut self, coder: &mut impl Coder, row: usize, total: Option<u64>, taken: &mut [bool]) {
        let columns = self.of_columns.len();
        let (mut in_row, mut seen) = (total.unwrap_or(0), 0);
        let mut open = self.open;
        // Left of the totals of the columns from here on.
        let mut mass = self.left;
        for column in 0..columns {
            let at = row * columns + column;
            let of_column = self.of_columns[column];
            let closed = self.told.columns && of_column == 0 || self.told.rows && in_row == 0;
            if closed || self.left == 0 {
                taken[at] = false;
                continue;
            }
            let sure = self.told.rows && in_row == open
                || self.told.columns && of_column == self.rows_left;
            let bit = sure || {
                let in_row = if self.told.rows {
                    rate(in_row, open)
                } else {
                    rate(seen, column as u64 + 1)
                };
                let (in_column, all) = if self.told.columns {
                    let all = rate(mass, open * self.rows_left);
                    (rate(of_column, self.rows_left), all)
                } else {
                    let places = self.rows_left * columns as u64 - column as u64;
                    (rate(of_column, row as u64 + 1), rate(self.left, places))
                };
                let rates = Rates {
                    in_row,
                    in_column,
                    all,
                };
                let p = self
                    .around
                    .predict(taken, [row, column], rates, [seen, of_column]);
                let bit = coder.bit(taken[at], p);
                self.around.learn(bit);
                bit
            };
            taken[at] = bit;
            open -= 1;
            if self.told.columns {
                mass -= of_column;
            }
            if bit {
                seen += 1;
                in_row = in_row.saturating_sub(1);
                self.left -= 1;
                self.count(column);
            }
        }
        self.rows_left -= 1;
    }

    /// Notes an entry of a column.
    fn count(&mut self, column: usize) {
        let of_column = &mut self.of_columns[column];
        if self.told.columns {
            *of_column -= 1;
            self.open -= u64::from(*of_column == 0);
        } else {
            *of_column += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::coder::Meter;
    use super::super::range::{Decoder, Encoder};
    use super::*;

    const TOLD: [Told; 4] = [
        Told {
            rows: false,
            columns: false,
        },
        Told {
            rows: true,
            columns: false,
        },
        Told {
            rows: false,
            columns: true,
        },
        Told {
            rows: true,
            columns: true,
        },
    ];

    fn grid() -> impl Strategy<Value = Grid> {
        let kernel = prop::sample::select(vec![(1, 1), (9, 3), (25, 5), (3, 3), (6, 2)]);
        (0usize..12, 0usize..5, kernel).prop_map(|(rows, channels, (kernel, width))| Grid {
            rows,
            columns: channels * kernel,
            kernel,
            width,
        })
    }

    fn weighted() -> impl Strategy<Value = (Grid, Vec<bool>)> {
        let density = prop::sample::select(vec![0.0, 0.02, 0.2, 0.7, 1.0]);
        (grid(), density).prop_flat_map(|(grid, density)| {
            let taken = prop::collection::vec(prop::bool::weighted(density), grid.len());
            (Just(grid), taken)
        })
    }

    proptest! {
        #[test]
        fn places_come_back(
            (grid, taken) in weighted(),
            hints in prop::collection::vec(any::<bool>(), 0..8),
        ) {
            let stored = taken.iter().filter(|taken| **taken).count() as u64;
            let hints = Hints { rows: &hints, columns: &hints };
            for told in TOLD {
                let mut encoder = Encoder::default();
                let mut given = taken.clone();
                prop_assert_eq!(code(&mut encoder, grid, told, stored, hints, &mut given), 0);
                prop_assert_eq!(&given, &taken);
                let bytes = encoder.into_bytes();
                let mut decoder = Decoder::new(&bytes);
                let mut read = vec![false; grid.len()];
                prop_assert_eq!(code(&mut decoder, grid, told, stored, hints, &mut read), 0);
                prop_assert_eq!(&read, &taken);
                prop_assert!(decoder.is_exhausted());
            }
        }

        #[test]
        fn any_bytes_make_places(
            grid in grid(),
            bytes in prop::collection::vec(any::<u8>(), 0..90),
            part in 0usize..=100,
        ) {
            let stored = (grid.len() * part / 100) as u64;
            for told in TOLD {
                let mut taken = vec![false; grid.len()];
                let hints = Hints::default();
                let left = code(&mut Decoder::new(&bytes), grid, told, stored, hints, &mut taken);
                let found = taken.iter().filter(|taken| **taken).count() as u64;
                prop_assert_eq!(found + left, stored);
            }
        }
    }

    #[test]
    fn never_much_more_than_a_mask() {
        // Pseudo-random places of any density, which have nothing to learn but the density.
        for (rows, columns) in [(1, 64), (30, 30), (64, 300), (300, 64), (1_000, 9)] {
            let grid = Grid::plain(rows, columns);
            for percent in [0, 1, 10, 50, 90, 99, 100] {
                let mut state = 1u64;
                let taken: Vec<bool> = (0..grid.len())
                    .map(|_| {
                        state = state
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1);
                        state >> 33 < (1 << 31) / 100 * percent
                    })
                    .collect();
                let stored = taken.iter().filter(|taken| **taken).count() as u64;
                let (mut given, mut meter) = (taken, Meter::default());
                code(
                    &mut meter,
                    grid,
                    TOLD[0],
                    stored,
                    Hints::default(),
                    &mut given,
                );
                let (bytes, mask) = (meter.0.bits().div_ceil(8), grid.len().div_ceil(8) as u64);
                // What a model pays for learning that there is nothing to learn.
                assert!(
                    bytes <= mask + 8 + mask / 50,
                    "{rows}x{columns}, {percent} %: {bytes} {mask}"
                );
            }
        }
    }
}
