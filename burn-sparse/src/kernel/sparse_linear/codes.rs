//! The codes of a weight on a device.

use burn_cubecl::tensor::CubeTensor;

use super::coding::Coding;
use crate::{format::CodeWords, kernel::base::index_tensor};

/// [`CodeWords`] on a device, beside the [`Entries`](crate::kernel::Entries) whose values they are.
#[derive(Debug, Clone)]
pub struct Codes {
    index: CubeTensor,
    coding: Coding,
    rows: usize,
    stored: usize,
}

impl Codes {
    /// The codes whose [`index`](CodeWords::index) lies in `index`, `i32`.
    ///
    /// # Panics
    /// If `index` is not as long as theirs, or not `i32`.
    pub fn new(index: CubeTensor, codes: &CodeWords) -> Self {
        let [got, wanted] = [index.meta.num_elements(), codes.index().len()];
        assert_eq!(got, wanted, "these codes have an index of {wanted} numbers");
        Self {
            index: index_tensor(index, "the index of codes"),
            coding: Coding {
                bits: codes.bits(),
                integers: codes.integers(),
            },
            rows: codes.rows(),
            stored: codes.stored(),
        }
    }

    /// Bits of a code.
    pub fn bits(&self) -> usize {
        self.coding.bits
    }

    /// How they become numbers.
    pub(super) fn coding(&self) -> Coding {
        self.coding
    }

    /// Fewer or more would lead out of the index.
    pub(crate) fn assert_fit(&self, rows: usize, stored: usize) {
        let (own_rows, own) = (self.rows, self.stored);
        assert_eq!(
            (own_rows, own),
            (rows, stored),
            "codes of {own_rows} rows and {own} entries beside {rows} rows of {stored} entries"
        );
    }
}

/// The index and how it is read. It has an entry of the table for every code of so many bits, a scale for
/// each row and a code for each entry: [`CodeWords`] makes it so, [`Codes::new`] checks its length, and
/// [`Codes::assert_fit`] rows and entries.
pub(crate) fn codes_of(codes: Option<Codes>) -> (Option<CubeTensor>, Coding) {
    match codes {
        Some(codes) => (Some(codes.index), codes.coding),
        None => (None, Coding::FLOATS),
    }
}
