//! The three stages of a strip, each as units that threads may share.

use core::ops::Range;

use pulp::{Simd, WithSimd};

use super::kernel::{
    ALONG, MOST_PIXELS, Terms, VECTORS, across_any, along_any, pixels_of_block, vectors_of_pixels,
};
use super::weights::Blocks;
use crate::cpu::{Finish, Isa};

/// Memory that several units write, each its own part.
#[derive(Clone, Copy)]
pub(super) struct Shared {
    start: *mut f32,
    len: usize,
}

// SAFETY: units write disjoint parts: each has channels and pixels of its own.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(super) fn new(slice: &mut [f32]) -> Self {
        Self {
            start: slice.as_mut_ptr(),
            len: slice.len(),
        }
    }

    /// A part of it.
    ///
    /// # Safety
    /// Nobody else may use this part as long as the slice lives.
    #[inline(always)]
    unsafe fn part<'a>(self, start: usize, len: usize) -> &'a mut [f32] {
        assert!(start <= self.len && len <= self.len - start);
        // SAFETY: within the slice that it was made from, and unused as the caller promises.
        unsafe { core::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

/// Pixels in rows: pixel `(y, x)` of the stage lies at `first + y · row + x · pixel`.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    pub(super) first: usize,
    /// Elements between rows, and between pixels.
    pub(super) row: usize,
    pub(super) pixel: usize,
}

impl Grid {
    fn place(&self, y: usize, x: usize) -> usize {
        self.first + y * self.row + x * self.pixel
    }
}

/// Where the sums of a stage go whose channels lie in vectors.
#[derive(Clone, Copy)]
pub(super) enum To {
    /// Pixel by pixel, so many vectors to each.
    Pixels(Grid),
    /// Channel by channel, planes at this distance.
    Planes(usize),
}

/// A convolution whose output channels lie in vectors.
pub(super) struct Across<'a> {
    pub(super) weights: &'a Blocks,
    pub(super) isa: Isa,
    pub(super) input: &'a [f32],
    /// Where the pixels read, before taps and channels.
    pub(super) from: Grid,
    pub(super) terms: Terms<'a>,
    /// Height and width of what is written.
    pub(super) size: [usize; 2],
    pub(super) out: Shared,
    pub(super) to: To,
}

impl Across<'_> {
    fn pixels_of_block(&self) -> usize {
        pixels_of_block(self.size[0] * self.size[1], self.isa.registers())
    }

    /// Blocks of channels by blocks of pixels.
    pub(super) fn units(&self) -> usize {
        self.weights.count() * (self.size[0] * self.size[1]).div_ceil(self.pixels_of_block())
    }

    /// Does some of them.
    pub(super) fn run(&self, units: Range<usize>) {
        let pixels = self.size[0] * self.size[1];
        if units.is_empty() {
            return;
        }
        // The farthest element that a term of a pixel reads; all others lie before it.
        let last = self.from.place(self.size[0] - 1, self.size[1] - 1)
            + self.terms.taps.iter().max().copied().unwrap_or(0)
            + self.terms.channels.saturating_sub(1) * self.terms.stride;
        assert!(last < self.input.len() && pixels > 0);
        assert_eq!(
            self.terms.taps.len() * self.terms.channels,
            self.weights.terms
        );
        self.isa.dispatch(RunAcross { stage: self, units });
    }
}

struct RunAcross<'a> {
    stage: &'a Across<'a>,
    units: Range<usize>,
}

impl WithSimd for RunAcross<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { stage, units } = self;
        let [height, width] = stage.size;
        let (pixels, step) = (height * width, stage.pixels_of_block());
        let blocks = pixels.div_ceil(step);
        let weights = stage.weights;
        let terms = Terms {
            ahead: step * stage.from.pixel,
            ..stage.terms
        };
        // Whichever is larger is read once.
        let by_channels = weights.len() >= stage.input.len();
        for unit in units {
            let (channels, place) = match by_channels {
                true => (unit / blocks, unit % blocks),
                false => (unit % weights.count(), unit / weights.count()),
            };
            let first = place * step;
            let valid = step.min(pixels - first);
            let mut places = [0; MOST_PIXELS];
            let mut out_places = [0; MOST_PIXELS];
            let (mut y, mut x) = (first / width, first % width);
            for index in 0..step {
                if index < valid {
                    places[index] = stage.from.place(y, x);
                    if let To::Pixels(grid) = stage.to {
                        out_places[index] = grid.place(y, x) + channels * weights.width;
                    }
                    x += 1;
                    if x == width {
                        (y, x) = (y + 1, 0);
                    }
                } else {
                    // Computed again, and not stored.
                    places[index] = places[valid - 1];
                }
            }
            let count = weights.of_block(channels);
            let vectors = count.div_ceil(S::F32_LANES).min(VECTORS);
            let block = weights.block(channels).as_ptr();
            let input = stage.input.as_ptr();
            match stage.to {
                To::Pixels(_) => {
                    let written = vectors * S::F32_LANES;
                    for &place in &out_places[..valid] {
                        assert!(place + written <= stage.out.len);
                    }
                    // SAFETY: `run` has looked at the farthest element that is read, and the weights are a
                    // block of as many terms. The vectors written lie in `out`, at the pixels and channels
                    // of this unit alone.
                    unsafe {
                        across_any(
                            simd,
                            vectors,
                            step,
                            (block, weights.width),
                            input,
                            &places,
                            terms,
                            (stage.out.start, &out_places, valid),
                        );
                    }
                }
                To::Planes(stride) => {
                    let mut sums = [0.0f32; MOST_PIXELS * VECTORS * 16];
                    let row = VECTORS * S::F32_LANES;
                    for (index, place) in out_places.iter_mut().enumerate() {
                        *place = index * row;
                    }
                    // SAFETY: as above; the sums are this unit's own, with room for all vectors.
                    unsafe {
                        across_any(
                            simd,
                            vectors,
                            step,
                            (block, weights.width),
                            input,
                            &places,
                            terms,
                            (sums.as_mut_ptr(), &out_places, valid),
                        );
                    }
                    for lane in 0..count {
                        let channel = channels * weights.width + lane;
                        // SAFETY: the pixels of this unit in the plane of one of its channels.
                        let out = unsafe { stage.out.part(channel * stride + first, valid) };
                        for (index, out) in out.iter_mut().enumerate() {
                            *out = sums[index * row + lane];
                        }
                    }
                }
            }
        }
    }
}

/// A product whose pixels lie in vectors, and the end of the layer.
pub(super) struct Along<'a> {
    /// None where the planes are the outputs already, but for their epilogue.
    pub(super) weights: Option<&'a Blocks>,
    pub(super) channels: usize,
    pub(super) isa: Isa,
    /// Planes of whole vectors, `stride` elements apart.
    pub(super) input: &'a [f32],
    pub(super) stride: usize,
    pub(super) pixels: usize,
    pub(super) image: usize,
    /// The first pixel in the plane of an output.
    pub(super) at: usize,
    pub(super) finish: Finish<'a>,
    pub(super) out: Shared,
    /// Where the image's outputs start, and elements between their planes.
    pub(super) out_start: usize,
    pub(super) out_stride: usize,
}

impl Along<'_> {
    /// Blocks of channels, or channels.
    pub(super) fn units(&self) -> usize {
        self.weights.map_or(self.channels, Blocks::count)
    }

    /// Does some of them.
    pub(super) fn run(&self, units: Range<usize>) {
        if !units.is_empty() {
            self.isa.dispatch(RunAlong { stage: self, units });
        }
    }

    /// Ends some pixels of a channel.
    #[inline(always)]
    fn end(&self, channel: usize, first: usize, sums: &[f32]) {
        let at = self.at + first;
        let place = self.out_start + channel * self.out_stride + at;
        // SAFETY: pixels of this strip in the plane of a channel of one unit alone.
        let out = unsafe { self.out.part(place, sums.len()) };
        self.finish.store(sums, self.image, channel, at, out);
    }
}

struct RunAlong<'a> {
    stage: &'a Along<'a>,
    units: Range<usize>,
}

impl WithSimd for RunAlong<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { stage, units } = self;
        let Some(weights) = stage.weights else {
            for channel in units {
                let plane = &stage.input[channel * stage.stride..][..stage.pixels];
                stage.end(channel, 0, plane);
            }
            return;
        };
        let lanes = S::F32_LANES;
        let vectors = stage.pixels.div_ceil(lanes);
        let tiles = vectors.div_ceil(vectors_of_pixels(weights.width));
        assert!(vectors * lanes <= stage.stride);
        assert!(weights.terms * stage.stride <= stage.input.len());
        let mut sums = [0.0f32; ALONG];
        // A tile of all planes stays in the first cache while all channels pass over it.
        for tile in 0..tiles {
            let [from, to] = [tile, tile + 1].map(|edge| edge * vectors / tiles);
            let first = from * lanes;
            let row = (to - from) * lanes;
            let valid = row.min(stage.pixels - first);
            for unit in units.clone() {
                // SAFETY: vectors up to the last lie within a plane, and all planes within the input, as
                // was just asked; the weights are a block of as many terms.
                unsafe {
                    along_any(
                        simd,
                        [weights.width, to - from],
                        weights.block(unit).as_ptr(),
                        (stage.input.as_ptr().add(first), stage.stride),
                        weights.terms,
                        &mut sums,
                    );
                }
                for index in 0..weights.of_block(unit) {
                    let sums = &sums[index * row..][..valid];
                    stage.end(unit * weights.width + index, first, sums);
                }
            }
        }
    }
}
