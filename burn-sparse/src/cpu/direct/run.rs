//! Tiles and channels over threads.

use core::any::TypeId;
use core::ops::Range;

use pulp::{Simd, WithSimd};

use super::{
    Direct, Fold,
    compiled::{Code, Run},
    gather::gather,
    plan::SECOND_CACHE,
    tile::{Members, Then, Tile},
};
use crate::cpu::{self, Buffer, Finish, Images, ImagesMut, Residual, Storage, team};

/// Elements of sums that a task keeps outside of registers: part of the second cache. Fewer would
/// fetch the tile of a block into the first cache more often.
const SUMS: usize = 32768;

/// Tasks per thread, so that no thread waits long for the last one.
const TASKS_PER_THREAD: usize = 4;

/// Multiply-accumulates below which splitting a layer costs more than a second thread gains.
const LEAST_WORK: u64 = 1 << 17;

/// The output as every task sees it.
#[derive(Clone, Copy)]
pub(super) struct Target<T> {
    start: *mut T,
    batch_stride: usize,
    channel_stride: usize,
    len: usize,
}

// SAFETY: tasks write disjoint parts of the output: every task has its own tile and channels.
unsafe impl<T: Send> Send for Target<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Target<T> {}

impl<T> Target<T> {
    /// Neighbouring outputs of a channel, from element `at` of its plane on.
    ///
    /// # Safety
    /// No other task may have them as long as the slice lives.
    #[inline(always)]
    pub(super) unsafe fn part<'a>(
        self,
        image: usize,
        channel: usize,
        at: usize,
        len: usize,
    ) -> &'a mut [T] {
        let place = image * self.batch_stride + channel * self.channel_stride + at;
        assert!(place + len <= self.len);
        // SAFETY: within the output, as just checked, and nobody else's as the caller promises.
        unsafe { core::slice::from_raw_parts_mut(self.start.add(place), len) }
    }
}

/// Some rows of an image's outputs.
#[derive(Clone, Copy)]
struct Strip<'a> {
    image: usize,
    /// First row.
    start: usize,
    rows: usize,
    /// What they are computed from, in the working layout.
    input: &'a [f32],
}

/// Neighbouring vectors of the outputs of a strip.
#[derive(Clone, Copy)]
struct Span {
    /// First element.
    start: usize,
    /// Vectors.
    width: usize,
}

/// Where a tile reads and writes.
#[derive(Clone, Copy)]
struct Place {
    span: Span,
    /// The working image at the first output.
    input: *const f32,
    /// The first output of the first channel.
    first: *mut f32,
    /// What is added there, and the elements between its channels.
    residual: Option<(*const f32, usize)>,
    /// Whether all of its vectors may be stored where they belong, finished: outputs are f32, follow each other
    /// without gaps, and have room for the last vector.
    whole: bool,
}

impl Direct {
    /// `out[n,k,e,f] = act(bias[k] + residual[n,k,e,f] + sum w x)` for `batch` images.
    ///
    /// Every output is written; elements between the planes of `out` may be overwritten. Sums are
    /// f32, in the order of the entries within a block of input channels, whatever the images hold.
    ///
    /// # Panics
    /// If a slice is shorter than its strides and the geometry say.
    pub fn run<T: Storage>(
        &self,
        batch: usize,
        input: Images<'_, T>,
        finish: Finish<'_, T>,
        out: ImagesMut<'_, T>,
    ) {
        let problem = &self.problem;
        let [height, width] = problem.output();
        let channels = problem.out_channels;
        if batch * channels * height * width == 0 {
            return;
        }
        let [in_height, in_width] = problem.input;
        assert!(self.one.is_none(), "a weight made ready for single images");
        input.check("input", [batch, problem.in_channels, in_height * in_width]);
        self.check(batch, &finish);
        let target = out.target([batch, channels, height * width]);
        // In place, the last plane must be there with its rounding as well.
        let in_place = self.reads_in_place(input.channel_stride)
            && input.holds([batch, problem.in_channels, self.working.plane]);
        match T::as_f32s(input.data).filter(|_| in_place) {
            Some(data) => {
                let input = Images {
                    data,
                    batch_stride: input.batch_stride,
                    channel_stride: input.channel_stride,
                };
                self.run_in_place(batch, input, finish, target);
            }
            None => self.run_in_strips(batch, input, finish, target),
        }
    }

    /// The same for a [folded](Fold) batch: `input` holds its images at any strides, `out` and a residual the
    /// tall image. Between the images may be anything in both, and anything is written there.
    ///
    /// # Panics
    /// As [`run`](Self::run), and if the weight was made ready for [single images](Self::new).
    pub fn run_folded<T: Storage>(
        &self,
        input: Images<'_, T>,
        finish: Finish<'_, T>,
        out: ImagesMut<'_, T>,
    ) {
        let one = self.one.expect("a weight made ready for a folded batch");
        let Fold { images, period } = self.working.fold;
        let [height, width] = self.problem.output();
        let channels = self.problem.out_channels;
        if channels * height * width == 0 {
            return;
        }
        let of_input = [images, one.in_channels, one.input[0] * one.input[1]];
        input.check("input", of_input);
        self.check(1, &finish);
        let target = out.target([1, channels, height * width]);
        let in_place = self.reads_in_place(input.channel_stride)
            && input.batch_stride == period * width
            && input.holds([1, one.in_channels, self.working.plane]);
        match T::as_f32s(input.data).filter(|_| in_place) {
            Some(data) => {
                let input = Images {
                    data,
                    batch_stride: 0,
                    channel_stride: input.channel_stride,
                };
                self.run_in_place(1, input, finish, target);
            }
            None => self.run_in_strips(1, input, finish, target),
        }
    }

    /// Panics if a residual or a bias is too short.
    fn check<T>(&self, batch: usize, finish: &Finish<'_, T>) {
        let [height, width] = self.problem.output();
        let channels = self.problem.out_channels;
        if let Residual::Images(residual) = &finish.residual {
            residual.check("residual", [batch, channels, height * width]);
        }
        if let Some(bias) = finish.bias {
            assert!(
                bias.len() >= channels,
                "{} biases for {channels} channels",
                bias.len()
            );
        }
    }

    /// Tiles of all images, each by `parts` tasks that share the output channels.
    fn run_in_place<T: Storage>(
        &self,
        batch: usize,
        input: Images<'_>,
        finish: Finish<'_, T>,
        target: Target<T>,
    ) {
        let tiles = self.tiles(self.working.strip);
        let parts = self.parts(batch, tiles);
        let image = self.problem.in_channels * self.working.plane;
        self.tasks(batch * tiles * parts, batch, |sums, index| {
            let (part, rest) = (index % parts, index / parts);
            let (tile, n) = (rest % tiles, rest / tiles);
            let strip = Strip {
                image: n,
                start: 0,
                rows: self.working.strip,
                input: &input.data[n * input.batch_stride..][..image],
            };
            self.dispatch(strip, tile, self.part(part, parts), finish, target, sums);
        });
    }

    /// Strips of all images: one after the other where there are too few for every thread to have
    /// its own, each by all threads.
    fn run_in_strips<T: Storage>(
        &self,
        batch: usize,
        input: Images<'_, T>,
        finish: Finish<'_, T>,
        target: Target<T>,
    ) {
        let working = &self.working;
        let strips = working.strips();
        let [height, _] = self.problem.output();
        let place = |index: usize| {
            let (strip, n) = (index % strips, index / strips);
            let start = strip * working.strip;
            (n, start, working.strip.min(height - start))
        };
        let copy_into = |place: [usize; 3], out: &mut [f32]| {
            let problem = self.one.as_ref().unwrap_or(&self.problem);
            gather(input, place, problem, working, self.isa, out);
        };
        if self.parts(batch, strips) == 1 {
            self.tasks(batch * strips, batch, |sums, index| {
                let (image, start, rows) = place(index);
                let mut copy = Buffer::new(working.image());
                copy_into([image, 0, start], &mut copy);
                let strip = Strip {
                    image,
                    start,
                    rows,
                    input: &copy,
                };
                for tile in 0..self.tiles(rows) {
                    self.dispatch(strip, tile, self.part(0, 1), finish, target, sums);
                }
            });
            return;
        }
        let channels = self.problem.in_channels;
        let share = channels.div_ceil(self.threads(batch));
        for index in 0..batch * strips {
            let (image, start, rows) = place(index);
            let mut copy = Buffer::new(working.image());
            let (planes, part) = (
                channels * working.channel_stride(),
                share * working.channel_stride(),
            );
            team::chunks(&mut copy[..planes], part, 1, |part, out| {
                copy_into([image, part * share, start], out);
            });
            let strip = Strip {
                image,
                start,
                rows,
                input: &copy,
            };
            let tiles = self.tiles(rows);
            let parts = self.parts(1, tiles);
            self.tasks(tiles * parts, batch, |sums, index| {
                let (part, tile) = (index % parts, index / parts);
                self.dispatch(strip, tile, self.part(part, parts), finish, target, sums);
            });
        }
    }

    /// Tiles that cover some rows of outputs.
    fn tiles(&self, rows: usize) -> usize {
        let vectors = self.working.vectors_of(rows, self.isa.lanes());
        vectors.div_ceil(self.plan.vectors)
    }

    /// Runs of output channels that tasks do not divide further.
    fn units(&self) -> usize {
        match &self.code {
            Some(code) => code.units(),
            None => self.stream.units(),
        }
    }

    fn part(&self, part: usize, parts: usize) -> Range<usize> {
        let units = self.units();
        part * units / parts..(part + 1) * units / parts
    }

    fn threads(&self, batch: usize) -> usize {
        let entries = match &self.code {
            Some(code) => code.entries(),
            None => self.stream.words.len(),
        };
        let work = batch as u64 * self.problem.macs(entries);
        if work < LEAST_WORK { 1 } else { cpu::threads() }
    }

    /// In how many parts the output channels are split, for every thread to have as much to do.
    fn parts(&self, batch: usize, places: usize) -> usize {
        let (threads, tasks) = (self.threads(batch), batch * places);
        let even = |parts: &usize| {
            let tasks = tasks * parts;
            tasks.is_multiple_of(threads) || tasks >= TASKS_PER_THREAD * threads
        };
        (1..TASKS_PER_THREAD * threads)
            .find(even)
            .unwrap_or(1)
            .min(self.units())
    }

    /// Runs tasks in parallel, or in order where that would not pay.
    fn tasks(&self, tasks: usize, batch: usize, task: impl Fn(&mut Buffer, usize) + Send + Sync) {
        let threads = self.threads(batch);
        if threads == 1 {
            let mut sums = Buffer::new(SUMS);
            (0..tasks).for_each(|index| task(&mut sums, index));
        } else {
            team::indices_init(tasks, || Buffer::new(SUMS), task);
        }
    }

    fn dispatch<T: Storage>(
        &self,
        strip: Strip<'_>,
        tile: usize,
        groups: Range<usize>,
        finish: Finish<'_, T>,
        target: Target<T>,
        sums: &mut Buffer,
    ) {
        if let Some(code) = &self.code {
            return self.coded(code, strip, tile, groups, finish, target, sums);
        }
        match self.plan.rows {
            2 => self.tile::<T, 2>(strip, tile, groups, finish, target, sums),
            4 => self.tile::<T, 4>(strip, tile, groups, finish, target, sums),
            _ => self.tile::<T, 1>(strip, tile, groups, finish, target, sums),
        }
    }

    /// Where a tile lies.
    fn place<T: Storage>(
        &self,
        strip: Strip<'_>,
        tile: usize,
        finish: Finish<'_, T>,
        target: Target<T>,
    ) -> Place {
        let channels = self.problem.out_channels;
        let lanes = self.isa.lanes();
        let vectors = self.working.vectors_of(strip.rows, lanes);
        let tiles = self.tiles(strip.rows);
        // Tiles of nearly equal size.
        let at = |tile: usize| tile * vectors / tiles;
        let span = Span {
            start: at(tile) * lanes,
            width: at(tile + 1) - at(tile),
        };
        let len = span.width * lanes;
        // Every offset of the stream addresses a plane of the strip, and from any of them vectors
        // up to the last of the outputs end within it (a test of `Working`); an input in place has
        // no more offsets than planes, which are whole vectors.
        assert!(strip.input.len() >= self.working.needed());
        let input = strip.input[span.start..].as_ptr();
        // Without gaps, a tile is a run of the output plane.
        let at = strip.start * self.problem.output()[1] + span.start;
        let first = target
            .start
            .wrapping_add(strip.image * target.batch_stride + at);
        let residual = match finish.residual {
            Residual::Images(residual) => Some(residual.skip(strip.image)),
            Residual::None | Residual::Output => None,
        };
        let roomy = |stride: usize, elements: usize| {
            at + len <= stride && (channels - 1) * stride + at + len <= elements
        };
        // The last tile of a strip may reach into the next, which is another task's.
        let last = strip.start + strip.rows == self.problem.output()[0];
        let within = span.start + len <= strip.rows * self.working.cols || last;
        let floats = TypeId::of::<T>() == TypeId::of::<f32>();
        let whole = floats
            && within
            && self.working.is_gapless()
            && roomy(
                target.channel_stride,
                target.len - strip.image * target.batch_stride,
            )
            && residual.is_none_or(|r| roomy(r.channel_stride, r.data.len()));
        // Of the same type, if it is whole.
        let first = first.cast::<f32>();
        let residual = match (finish.residual, residual) {
            (Residual::Output, _) => Some((first.cast_const(), target.channel_stride)),
            (_, Some(r)) if whole => Some((r.data[at..].as_ptr().cast(), r.channel_stride)),
            (_, _) => None,
        };
        Place {
            span,
            input,
            first,
            residual,
            whole,
        }
    }

    /// A tile of some units of code.
    #[expect(clippy::too_many_arguments, reason = "what a tile is made of")]
    fn coded<T: Storage>(
        &self,
        code: &Code,
        strip: Strip<'_>,
        tile: usize,
        units: Range<usize>,
        finish: Finish<'_, T>,
        target: Target<T>,
        sums: &mut Buffer,
    ) {
        let Place {
            span,
            input,
            first,
            residual,
            whole,
        } = self.place(strip, tile, finish, target);
        let lanes = self.isa.lanes();
        let len = span.width * lanes;
        // What other tiles have run is in a second cache by now, unless that is too small.
        let cold = tile < cpu::threads() || code.bytes() > SECOND_CACHE;
        let mut rest = units;
        while !rest.is_empty() {
            let units = if whole {
                rest.clone()
            } else {
                rest.start..code.within(rest.clone(), sums.len() / len)
            };
            rest.start = units.end;
            let channels = code.channels(units.clone());
            let (out, out_stride) = if whole {
                let skipped = channels.start * target.channel_stride;
                (first.wrapping_add(skipped), target.channel_stride)
            } else {
                assert!(channels.len() * len <= sums.len());
                (sums.as_mut_ptr(), len)
            };
            if cold {
                code.prefetch(0, units.start, [0, 1]);
            }
            for block in 0..code.blocks() {
                let last = block + 1 == code.blocks();
                for unit in units.clone() {
                    let first = code.channels(unit..unit + 1).start;
                    let out = out.wrapping_add((first - channels.start) * out_stride);
                    // Sums of blocks wait where they are to go.
                    let residual = if block > 0 {
                        Some((out.cast_const(), out_stride))
                    } else {
                        let residual = residual.filter(|_| whole);
                        residual.map(|(at, stride)| (at.wrapping_add(first * stride), stride))
                    };
                    let next = if unit + 1 < units.end {
                        Some((block, unit + 1))
                    } else {
                        (!last).then_some((block + 1, units.start))
                    };
                    for vector in 0..span.width {
                        let ahead = vector * lanes;
                        let run = Run {
                            input: input.wrapping_add(ahead),
                            out: out.wrapping_add(ahead),
                            out_stride,
                            bias: finish.bias.filter(|_| whole && block == 0),
                            residual: residual.map(|(at, stride)| (at.wrapping_add(ahead), stride)),
                            relu: finish.relu && whole && last,
                        };
                        // SAFETY: `Plan::compiles` asked for the instruction set. Positions address planes of the
                        // strip, from which vectors up to the last of the outputs end within it, as `place` checked;
                        // so do `out` and the residual if the tile is whole, and the sums have room for these
                        // channels, as was just asked. The tile of these channels is nobody else's.
                        unsafe { code.run(block, unit, run) };
                        if let Some((block, unit)) = next.filter(|_| cold) {
                            code.prefetch(block, unit, [vector, span.width]);
                        }
                    }
                }
            }
            if !whole {
                self.isa.dispatch(Store {
                    direct: self,
                    sums,
                    strip,
                    span,
                    channels,
                    finish,
                    target,
                });
            }
        }
    }

    fn tile<T: Storage, const R: usize>(
        &self,
        strip: Strip<'_>,
        tile: usize,
        units: Range<usize>,
        finish: Finish<'_, T>,
        target: Target<T>,
        sums: &mut Buffer,
    ) where
        for<'a> Tile<'a, R>: WithSimd<Output = ()>,
    {
        let channels = self.problem.out_channels;
        let Place {
            span,
            input,
            first,
            residual,
            whole,
        } = self.place(strip, tile, finish, target);
        let len = span.width * self.isa.lanes();
        let direct = whole && self.plan.blocks == 1 && self.stream.panels.is_none();
        if direct {
            let row = units.start * R * target.channel_stride;
            self.isa.dispatch(Tile::<R> {
                words: &self.stream.words,
                starts: self.stream.block(0),
                groups: units.clone(),
                members: None,
                input,
                width: span.width,
                out: first.wrapping_add(row),
                stride: target.channel_stride,
                channels,
                then: Then::Finish {
                    bias: finish.bias,
                    residual,
                    relu: finish.relu,
                },
            });
            return;
        }
        for units in self.stream.at_once(units, SUMS / len, R) {
            let channels = self.stream.channels(units.clone(), R, channels);
            self.sums::<R>(units, channels.clone(), input, span.width, sums);
            self.isa.dispatch(Store {
                direct: self,
                sums,
                strip,
                span,
                channels,
                finish,
                target,
            });
        }
    }

    /// The sums of some channels over a tile, row after row in `sums`.
    fn sums<const R: usize>(
        &self,
        units: Range<usize>,
        channels: Range<usize>,
        input: *const f32,
        width: usize,
        sums: &mut Buffer,
    ) where
        for<'a> Tile<'a, R>: WithSimd<Output = ()>,
    {
        let stride = width * self.isa.lanes();
        let tile = |block: usize, add: bool, groups, members, out| Tile::<R> {
            words: &self.stream.words,
            starts: self.stream.block(block),
            groups,
            members,
            input,
            width,
            out,
            stride,
            channels: self.problem.out_channels,
            then: Then::Keep { add },
        };
        match &self.stream.panels {
            None => {
                assert!(units.len() * R * stride <= sums.len());
                for block in 0..self.plan.blocks {
                    let out = sums.as_mut_ptr();
                    let tile = tile(block, block > 0, units.clone(), None, out);
                    self.isa.dispatch(tile);
                }
            }
            Some(panels) => {
                // The last row is for places of groups that no channel has.
                sums[..(channels.len() + 1) * stride].fill(0.0);
                let members = Members {
                    channels: &panels.members,
                    first: channels.start as u32,
                    count: channels.len() as u32,
                };
                let (groups, out) = (panels.groups(units), sums.as_mut_ptr());
                self.isa.dispatch(tile(0, true, groups, Some(members), out));
            }
        }
    }
}

/// Takes the sums of a tile into the output, leaving out the gaps between rows.
struct Store<'a, T> {
    direct: &'a Direct,
    sums: &'a [f32],
    strip: Strip<'a>,
    span: Span,
    channels: Range<usize>,
    finish: Finish<'a, T>,
    target: Target<T>,
}

impl<T: Storage> WithSimd for Store<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let working = &self.direct.working;
        let [_, width] = self.direct.problem.output();
        let Strip {
            image,
            start: top,
            rows: height,
            ..
        } = self.strip;
        let start = self.span.start;
        let len = self.span.width * self.direct.isa.lanes();
        let above = top * width;
        // Without gaps the strip is one long row.
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
            let at = above + row * width + (from - row * cols);
            for (index, channel) in self.channels.clone().enumerate() {
                let sums = &self.sums[index * len + from - start..index * len + to - start];
                // SAFETY: no other task has this tile of this channel.
                let out = unsafe { self.target.part(image, channel, at, sums.len()) };
                self.finish.store(sums, image, channel, at, out);
            }
        }
    }
}

impl<T> ImagesMut<'_, T> {
    pub(super) fn target(self, shape: [usize; 3]) -> Target<T> {
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
