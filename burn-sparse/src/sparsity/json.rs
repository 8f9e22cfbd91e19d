use serde::{Deserialize, Serialize};

use super::{BlockSearch, Budget, Pool, Sparsity};
use crate::SparseError;

/// A [`Sparsity`] as it is written: one flat object whose `kind` says which.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum RawSparsity {
    Unstructured {
        budget: Budget,
    },
    RowBalanced {
        budget: Budget,
    },
    SharedPattern {
        rows: usize,
        budget: Budget,
    },
    BlockColumnRow {
        block: [usize; 2],
        rows: Budget,
        budget: Budget,
        #[serde(default)]
        search: BlockSearch,
    },
    Punched {
        filters: usize,
        channels: usize,
        budget: Budget,
    },
    KernelPattern {
        pool: Pool,
        budget: Budget,
    },
    Connectivity {
        budget: Budget,
    },
    Filter {
        budget: Budget,
    },
    Channel {
        budget: Budget,
    },
    Column {
        budget: Budget,
    },
    #[serde(rename = "n_of_m")]
    NofM {
        n: usize,
        m: usize,
    },
}

impl From<Sparsity> for RawSparsity {
    fn from(sparsity: Sparsity) -> Self {
        match sparsity {
            Sparsity::Unstructured(budget) => Self::Unstructured { budget },
            Sparsity::RowBalanced(budget) => Self::RowBalanced { budget },
            Sparsity::SharedPattern { rows, budget } => Self::SharedPattern { rows, budget },
            Sparsity::BlockColumnRow {
                block,
                rows,
                budget,
                search,
            } => Self::BlockColumnRow {
                block,
                rows,
                budget,
                search,
            },
            Sparsity::Punched {
                filters,
                channels,
                budget,
            } => Self::Punched {
                filters,
                channels,
                budget,
            },
            Sparsity::KernelPattern { pool, budget } => Self::KernelPattern { pool, budget },
            Sparsity::Connectivity(budget) => Self::Connectivity { budget },
            Sparsity::Filter(budget) => Self::Filter { budget },
            Sparsity::Channel(budget) => Self::Channel { budget },
            Sparsity::Column(budget) => Self::Column { budget },
            Sparsity::NofM { n, m } => Self::NofM { n, m },
        }
    }
}

impl TryFrom<RawSparsity> for Sparsity {
    type Error = SparseError;

    fn try_from(raw: RawSparsity) -> Result<Self, SparseError> {
        let sparsity = match raw {
            RawSparsity::Unstructured { budget } => Self::Unstructured(budget),
            RawSparsity::RowBalanced { budget } => Self::RowBalanced(budget),
            RawSparsity::SharedPattern { rows, budget } => Self::SharedPattern { rows, budget },
            RawSparsity::BlockColumnRow {
                block,
                rows,
                budget,
                search,
            } => Self::BlockColumnRow {
                block,
                rows,
                budget,
                search,
            },
            RawSparsity::Punched {
                filters,
                channels,
                budget,
            } => Self::Punched {
                filters,
                channels,
                budget,
            },
            RawSparsity::KernelPattern { pool, budget } => Self::KernelPattern { pool, budget },
            RawSparsity::Connectivity { budget } => Self::Connectivity(budget),
            RawSparsity::Filter { budget } => Self::Filter(budget),
            RawSparsity::Channel { budget } => Self::Channel(budget),
            RawSparsity::Column { budget } => Self::Column(budget),
            RawSparsity::NofM { n, m } => Self::NofM { n, m },
        };
        sparsity.checked()
    }
}

#[cfg(test)]
mod tests {
    use super::super::PatternPool;
    use super::*;

    #[test]
    fn every_pattern_is_read_as_it_was_written() {
        let pool = PatternPool::new([[1, 3, 4, 5]]).unwrap();
        for sparsity in [
            Sparsity::Unstructured(Budget::Nnz(7)),
            Sparsity::row_balanced(0.5).unwrap(),
            Sparsity::shared_pattern(0.5, 4).unwrap(),
            Sparsity::block_column_row(0.5, [8, 16]).unwrap(),
            Sparsity::punched(0.5, [8, 4]).unwrap(),
            Sparsity::kernel_pattern(0.5, 8).unwrap(),
            Sparsity::KernelPattern {
                pool: Pool::Given(pool),
                budget: Budget::Nnz(3),
            },
            Sparsity::connectivity(0.5).unwrap(),
            Sparsity::filter(0.5).unwrap(),
            Sparsity::channel(0.5).unwrap(),
            Sparsity::column(0.5).unwrap(),
            Sparsity::n_of_m(2, 4).unwrap(),
        ] {
            let json = serde_json::to_string(&sparsity).unwrap();
            assert_eq!(serde_json::from_str::<Sparsity>(&json).unwrap(), sparsity);
        }
    }

    #[test]
    fn text_that_no_layer_can_have_is_refused() {
        for bad in [
            r#"{"kind":"row_balanced","budget":{"sparsity":1.0}}"#,
            r#"{"kind":"punched","filters":0,"channels":4,"budget":{"sparsity":0.5}}"#,
            r#"{"kind":"n_of_m","n":4,"m":2}"#,
            r#"{"kind":"kernel_pattern","pool":{"found":99},"budget":{"sparsity":0.5}}"#,
            r#"{"kind":"filter","budget":{"sparsity":0.5},"block":[4,4]}"#,
            r#"{"kind":"star","budget":{"sparsity":0.5}}"#,
        ] {
            assert!(serde_json::from_str::<Sparsity>(bad).is_err(), "{bad}");
        }
    }
}
