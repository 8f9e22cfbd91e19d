//! Tiles and channels over threads.

use core::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{
    Direct,
    gather::gather,
    tile::{Then, Tile},
};
use crate::cpu::{Buffer, Finish, Images, ImagesMut};

/// Elements of sums that a task keeps outside of registers; they share the first two caches with
/// the input.
const SUMS: usize = 8192;

/// Tasks per thread, so that no thread waits long for the last one.
const TASKS_PER_THREAD: usize = 4;

/// Multiply-accumulates below which splitting a layer costs more than a second thread gains.
const LEAST_WORK: u64 = 1 << 17;

/// Elements of working copies made at once: more images are worked off in turns.
const COPIES: usize = 8 << 20;

/// The output as every task sees it.
#[derive(Clone, Copy)]
struct Target {
    start: *mut f32,
    batch_stride: usize,
    channel_stride: usize,
    len: usize,
}

// SAFETY: tasks write disjoint parts of the output: every task has its own tile and channels.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

/// Neighbouring vectors of the outputs of an image.
#[derive(Clone, Copy)]
struct Span {
    /// First element.
    start: usize,
    /// Vectors.
    width: usize,
}

impl Direct {
    /// `out[n,k,e,f] = act(bias[k] + residual[n,k,e,f] + sum w x)` for `batch` images.
    ///
    /// Every output is written; elements between the planes of `out` may be overwritten. Sums are
    /// f32, in the order of the entries within a block of input channels.
    ///
    /// # Panics
    /// If a slice is shorter than its strides and the geometry say.
    pub fn run(&self, batch: usize, input: Images<'_>, finish: Finish<'_>, out: ImagesMut<'_>) {
        let problem = &self.problem;
        let [height, width] = problem.output();
        let channels = problem.out_channels;
        if batch * channels * height * width == 0 {
            return;
        }
        let [in_height, in_width] = problem.input;
        input.check("input", [batch, problem.in_channels, in_height * in_width]);
        if let Some(residual) = &finish.residual {
            residual.check("residual", [batch, channels, height * width]);
        }
        if let Some(bias) = finish.bias {
            assert!(
                bias.len() >= channels,
                "{} biases for {channels} channels",
                bias.len()
            );
        }
        let target = out.target([batch, channels, height * width]);
        let image = self.working.image();
        // In place, the last plane must be there with its rounding as well.
        let in_place = self.reads_in_place(input.channel_stride)
            && input.holds([batch, problem.in_channels, self.working.plane]);
        if in_place {
            self.images(0..batch, input, finish, target);
            return;
        }
        let at_once = (COPIES / image).clamp(1, batch);
        let mut copies = Buffer::new(at_once * image);
        for start in (0..batch).step_by(at_once) {
            let images = start..(start + at_once).min(batch);
            let copies = &mut copies[..images.len() * image];
            gather(input.skip(start), problem, &self.working, copies);
            let copied = Images {
                data: copies,
                batch_stride: image,
                channel_stride: self.working.plane,
            };
            self.images(images, copied, finish, target);
        }
    }

    /// `working` holds the images of this range only, residual and target those of all.
    fn images(
        &self,
        images: Range<usize>,
        working: Images<'_>,
        finish: Finish<'_>,
        target: Target,
    ) {
        let lanes = self.isa.lanes();
        let vectors = self.working.vectors(lanes);
        let tiles = vectors.div_ceil(self.plan.vectors);
        let groups = self.stream.groups;
        let threads = rayon::current_num_threads();
        let work = images.len() as u64 * self.problem.macs(self.stream.words.len());
        let wanted = match threads {
            1 => 1,
            _ if work < LEAST_WORK => 1,
            threads => threads * TASKS_PER_THREAD,
        };
        let parts = wanted.div_ceil(images.len() * tiles).clamp(1, groups);
        let task = |sums: &mut Buffer, index: usize| {
            let (part, rest) = (index % parts, index / parts);
            let (tile, image) = (rest % tiles, rest / tiles);
            let groups = part * groups / parts..(part + 1) * groups / parts;
            // Tiles of nearly equal size.
            let at = |tile: usize| tile * vectors / tiles;
            let span = Span {
                start: at(tile) * lanes,
                width: at(tile + 1) - at(tile),
            };
            let input = &working.data[image * working.batch_stride..];
            self.dispatch(
                images.start + image,
                span,
                groups,
                input,
                finish,
                target,
                sums,
            );
        };
        let tasks = images.len() * tiles * parts;
        if wanted == 1 {
            let mut sums = Buffer::new(SUMS);
            (0..tasks).for_each(|index| task(&mut sums, index));
        } else {
            (0..tasks)
                .into_par_iter()
                .with_min_len(tasks.div_ceil(2 * wanted))
                .for_each_init(|| Buffer::new(SUMS), task);
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the coordinates of one task")]
    fn dispatch(
        &self,
        image: usize,
        span: Span,
        groups: Range<usize>,
        input: &[f32],
        finish: Finish<'_>,
        target: Target,
        sums: &mut Buffer,
    ) {
        match self.plan.rows {
            2 => self.tile::<2>(image, span, groups, input, finish, target, sums),
            4 => self.tile::<4>(image, span, groups, input, finish, target, sums),
            8 => self.tile::<8>(image, span, groups, input, finish, target, sums),
            _ => self.tile::<1>(image, span, groups, input, finish, target, sums),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the coordinates of one task")]
    fn tile<const R: usize>(
        &self,
        image: usize,
        span: Span,
        groups: Range<usize>,
        input: &[f32],
        finish: Finish<'_>,
        target: Target,
        sums: &mut Buffer,
    ) where
        for<'a> Tile<'a, R>: WithSimd<Output = ()>,
    {
        let channels = self.problem.out_channels;
        let len = span.width * self.isa.lanes();
        let end = span.start + len;
        // Every offset of the stream addresses a plane of the working image, and from any of them
        // vectors up to the last of the outputs end within the image (a test of `Working`).
        assert!(self.working.image() <= input.len() + if self.working.plain { 16 } else { 0 });
        let input = input[span.start..].as_ptr();
        let first = target
            .start
            .wrapping_add(image * target.batch_stride + span.start);
        let residual = finish.residual.map(|residual| residual.skip(image));
        let roomy =
            |stride: usize, len: usize| end <= stride && (channels - 1) * stride + end <= len;
        let direct = self.plan.blocks == 1
            && self.working.is_gapless()
            && roomy(
                target.channel_stride,
                target.len - image * target.batch_stride,
            )
            && residual.is_none_or(|r| roomy(r.channel_stride, r.data.len()));
        if direct {
            let at = |group: usize| first.wrapping_add(group * R * target.channel_stride);
            self.isa.dispatch(Tile::<R> {
                words: &self.stream.words,
                starts: self.stream.block(0),
                groups: groups.clone(),
                input,
                width: span.width,
                out: at(groups.start),
                stride: target.channel_stride,
                channels,
                then: Then::Finish {
                    bias: finish.bias,
                    residual: residual.map(|r| (r.data[span.start..].as_ptr(), r.channel_stride)),
                    relu: finish.relu,
                },
            });
            return;
        }
        let at_once = (SUMS / (len * R)).max(1);
        for start in groups.clone().step_by(at_once) {
            let groups = start..(start + at_once).min(groups.end);
            assert!(groups.len() * R * len <= sums.len());
            for block in 0..self.plan.blocks {
                self.isa.dispatch(Tile::<R> {
                    words: &self.stream.words,
                    starts: self.stream.block(block),
                    groups: groups.clone(),
                    input,
                    width: span.width,
                    out: sums.as_mut_ptr(),
                    stride: len,
                    channels,
                    then: Then::Keep { add: block > 0 },
                });
            }
            self.isa.dispatch(Store {
                direct: self,
                sums,
                span,
                channels: groups.start * R..(groups.end * R).min(channels),
                image,
                finish,
                target,
            });
        }
    }
}

/// Takes the sums of a tile into the output, leaving out the gaps between rows.
struct Store<'a> {
    direct: &'a Direct,
    sums: &'a [f32],
    span: Span,
    channels: Range<usize>,
    image: usize,
    finish: Finish<'a>,
    target: Target,
}

impl WithSimd for Store<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let working = &self.direct.working;
        let [height, width] = self.direct.problem.output();
        let start = self.span.start;
        let len = self.span.width * self.direct.isa.lanes();
        // Without gaps the plane is one long row.
        let (rows, cols, width) = if working.is_gapless() {
            (1, height * width, height * width)
        } else {
            (height, working.cols, width)
        };
        let first = start / cols;
        for row in first..rows.min((start + len).div_ceil(cols)) {
            let from = (row * cols).max(start);
            let to = (row * cols + width).min(start + len);
            if from >= to {
                continue;
            }
            // Of the plane.
            let at = row * width + (from - row * cols);
            for (index, channel) in self.channels.clone().enumerate() {
                let sums = &self.sums[index * len + from - start..index * len + to - start];
                let place = self.image * self.target.batch_stride
                    + channel * self.target.channel_stride
                    + at;
                assert!(place + sums.len() <= self.target.len);
                // SAFETY: within the output, as just checked, and no other task has this tile of
                // this channel.
                let out = unsafe {
                    core::slice::from_raw_parts_mut(self.target.start.add(place), sums.len())
                };
                self.finish.store(sums, self.image, channel, at, out);
            }
        }
    }
}

impl ImagesMut<'_> {
    fn target(self, shape: [usize; 3]) -> Target {
        let view = Images {
            data: self.data,
            batch_stride: self.batch_stride,
            channel_stride: self.channel_stride,
        };
        view.check("output", shape);
        assert!(
            self.channel_stride >= shape[2]
                && (shape[0] == 1 || self.batch_stride >= shape[1] * self.channel_stride),
            "planes of the output overlap: {shape:?} at strides {} and {}",
            self.batch_stride,
            self.channel_stride
        );
        Target {
            len: self.data.len(),
            start: self.data.as_mut_ptr(),
            batch_stride: self.batch_stride,
            channel_stride: self.channel_stride,
        }
    }
}
