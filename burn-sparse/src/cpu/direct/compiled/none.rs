//! Where no code can be written.

use core::ops::Range;

use super::super::stream::Places;
use super::Run;
use crate::{
    ConvProblem,
    cpu::{Plan, Rows},
};

/// Code that does not exist.
#[derive(Debug)]
pub(in super::super) enum Code {}

impl Code {
    pub(in super::super) fn new(
        _: &ConvProblem,
        _: Rows<'_>,
        _: &Plan,
        _: &Places,
    ) -> Option<Self> {
        None
    }

    pub(in super::super) fn units(&self) -> usize {
        match *self {}
    }

    pub(in super::super) fn blocks(&self) -> usize {
        match *self {}
    }

    pub(in super::super) fn channels(&self, _: Range<usize>) -> Range<usize> {
        match *self {}
    }

    pub(in super::super) fn within(&self, _: Range<usize>, _: usize) -> usize {
        match *self {}
    }

    pub(in super::super) fn prefetch(&self, _: usize, _: usize, _: [usize; 2]) {
        match *self {}
    }

    pub(in super::super) fn bytes(&self) -> usize {
        match *self {}
    }

    pub(in super::super) fn leave_caches(&self) {
        match *self {}
    }

    pub(in super::super) fn entries(&self) -> usize {
        match *self {}
    }

    /// # Safety
    /// It cannot be called.
    pub(in super::super) unsafe fn run(&self, _: usize, _: usize, _: Run<'_>) {
        match *self {}
    }
}
