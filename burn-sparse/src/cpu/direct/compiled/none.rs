//! Where no code can be written.

use core::ops::Range;

use super::super::stream::Places;
use crate::{ConvProblem, cpu::Rows};

/// Code that does not exist.
#[derive(Debug)]
pub(in super::super) enum Code {}

/// What code would run on.
pub(in super::super) struct Run<'a> {
    pub(in super::super) input: *const f32,
    pub(in super::super) out: *mut f32,
    pub(in super::super) out_stride: usize,
    pub(in super::super) bias: Option<&'a [f32]>,
    pub(in super::super) residual: Option<(*const f32, usize)>,
    pub(in super::super) relu: bool,
    pub(in super::super) vectors: usize,
}

impl Code {
    pub(in super::super) fn new(
        _: &ConvProblem,
        _: Rows<'_>,
        _: usize,
        _: &Places,
    ) -> Option<Self> {
        None
    }

    pub(in super::super) fn units(&self) -> usize {
        match *self {}
    }

    pub(in super::super) fn channels(&self, _: Range<usize>) -> Range<usize> {
        match *self {}
    }

    pub(in super::super) fn prefetch(&self, _: usize, _: usize, _: usize) {
        match *self {}
    }

    pub(in super::super) fn bytes(&self) -> usize {
        match *self {}
    }

    pub(in super::super) fn entries(&self) -> usize {
        match *self {}
    }

    /// # Safety
    /// It cannot be called.
    pub(in super::super) unsafe fn run(&self, _: usize, _: Run<'_>) {
        match *self {}
    }
}
