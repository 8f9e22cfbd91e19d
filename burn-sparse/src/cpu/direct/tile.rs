//! The inner loop: groups of output channels over a tile of neighbouring outputs, sums in
//! registers.

use core::ops::Range;

use pulp::{Simd, WithSimd};

/// What becomes of a tile's sums.
#[derive(Clone, Copy)]
pub(super) enum Then<'a> {
    /// They are stored for the next block, or for [`Finish`](crate::cpu::Finish) to take up.
    Keep {
        /// Whether they continue those that are there.
        add: bool,
    },
    /// `act(sum + bias + residual)`, stored as output.
    Finish {
        bias: Option<&'a [f32]>,
        /// The residual at the tile, and the elements between its channels.
        residual: Option<(*const f32, usize)>,
        relu: bool,
    },
}

/// `groups` groups of `R` output channels over the same tile.
pub(super) struct Tile<'a, const R: usize> {
    /// The stream of offsets and values.
    pub(super) words: &'a [u32],
    /// First word of each group, and the end of the last.
    pub(super) starts: &'a [u32],
    pub(super) groups: Range<usize>,
    /// The channels of the groups if they are not neighbours; only with [`Then::Keep`].
    pub(super) members: Option<Members<'a>>,
    /// The working image at the first output of the tile.
    pub(super) input: *const f32,
    /// Vectors of the tile.
    pub(super) width: usize,
    /// Where the tile of the first output channel of the first group is kept or stored.
    pub(super) out: *mut f32,
    /// Elements between channels in `out`.
    pub(super) stride: usize,
    /// Output channels of the layer: the last group may have fewer than `R`.
    pub(super) channels: usize,
    pub(super) then: Then<'a>,
}

/// Whose sums the groups of a band form.
#[derive(Clone, Copy)]
pub(super) struct Members<'a> {
    /// The channels of each group.
    pub(super) channels: &'a [u32],
    /// The channel whose sums lie first in `out`.
    pub(super) first: u32,
    /// Whose sums lie there: so many channels, and then room for one more that nobody reads.
    pub(super) count: u32,
}

impl<const R: usize> Tile<'_, R> {
    /// Where the sums of each row of a group lie.
    ///
    /// # Safety
    /// `out` has room for the rows of all these groups.
    #[inline(always)]
    unsafe fn places(&self, group: usize) -> [*mut f32; R] {
        let Some(members) = self.members else {
            // SAFETY: as the caller promises.
            let first = unsafe { self.out.add((group - self.groups.start) * R * self.stride) };
            return core::array::from_fn(|r| first.wrapping_add(r * self.stride));
        };
        let channels = &members.channels[group * R..][..R];
        core::array::from_fn(|r| {
            let place = channels[r].wrapping_sub(members.first).min(members.count);
            // SAFETY: as the caller promises.
            unsafe { self.out.add(place as usize * self.stride) }
        })
    }

    #[inline(always)]
    fn run_all<S: Simd, const V: usize>(self, simd: S) {
        // SAFETY: tiles are built in `run` and `shared` only, which vouch for their pointers.
        unsafe { self.run::<S, V>(simd) }
    }

    /// # Safety
    /// `input`, advanced by any offset of these groups, must be readable for `V` vectors, `out` and
    /// the residual as well for every channel of the groups that exists (and, if kept, for all `R`
    /// of every group; with members, for the rows of all channels they name and one more); nobody else
    /// may use that part of `out`.
    #[inline(always)]
    unsafe fn run<S: Simd, const V: usize>(self, simd: S) {
        for group in self.groups.clone() {
            let words = &self.words[self.starts[group] as usize..self.starts[group + 1] as usize];
            // SAFETY: `out` has room for the rows of these groups.
            let rows = unsafe { self.places(group) };
            let mut sums = [[simd.splat_f32s(0.0); V]; R];
            match self.then {
                Then::Keep { add: true } => {
                    for (r, sums) in sums.iter_mut().enumerate() {
                        // SAFETY: `out` holds `V` vectors of each row.
                        *sums = unsafe { load::<S, V>(rows[r]) };
                    }
                }
                Then::Keep { add: false } => {}
                Then::Finish { bias, .. } => {
                    if let Some(bias) = bias {
                        for (r, sums) in sums.iter_mut().enumerate() {
                            let value = bias.get(group * R + r).copied().unwrap_or(0.0);
                            *sums = [simd.splat_f32s(value); V];
                        }
                    }
                }
            }
            for entry in words.chunks_exact(R + 1) {
                // SAFETY: the caller vouches for every offset of these groups.
                let x = unsafe { load::<S, V>(self.input.wrapping_byte_add(entry[0] as usize)) };
                for (sums, &weight) in sums.iter_mut().zip(&entry[1..]) {
                    let weight = simd.splat_f32s(f32::from_bits(weight));
                    for (sum, &x) in sums.iter_mut().zip(&x) {
                        *sum = simd.mul_add_e_f32s(weight, x, *sum);
                    }
                }
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let channel = group * R + r;
                if let Then::Finish { residual, relu, .. } = self.then {
                    if channel >= self.channels {
                        break;
                    }
                    if let Some((residual, stride)) = residual {
                        // SAFETY: the channel exists, so its residual is there.
                        let more = unsafe { load::<S, V>(residual.add(channel * stride)) };
                        for (sum, more) in sums.iter_mut().zip(more) {
                            *sum = simd.add_f32s(*sum, more);
                        }
                    }
                    if relu {
                        let zero = simd.splat_f32s(0.0);
                        for sum in sums.iter_mut() {
                            // Unlike a maximum, a comparison lets NaN through.
                            let negative = simd.less_than_f32s(*sum, zero);
                            *sum = simd.select_f32s(negative, zero, *sum);
                        }
                    }
                }
                // SAFETY: `out` has room for this row.
                unsafe { store::<S, V>(rows[r], *sums) };
            }
        }
    }
}

/// # Safety
/// `V` vectors must be readable.
#[inline(always)]
unsafe fn load<S: Simd, const V: usize>(from: *const f32) -> [S::f32s; V] {
    // SAFETY: as the caller promises.
    core::array::from_fn(|v| unsafe {
        from.add(v * S::F32_LANES)
            .cast::<S::f32s>()
            .read_unaligned()
    })
}

/// # Safety
/// `V` vectors must be writable.
#[inline(always)]
unsafe fn store<S: Simd, const V: usize>(to: *mut f32, vectors: [S::f32s; V]) {
    for (v, vector) in vectors.into_iter().enumerate() {
        // SAFETY: as the caller promises.
        unsafe {
            to.add(v * S::F32_LANES)
                .cast::<S::f32s>()
                .write_unaligned(vector);
        }
    }
}

macro_rules! widths {
    ($rows:literal: $($v:literal)*) => {
        impl WithSimd for Tile<'_, $rows> {
            type Output = ();

            #[inline(always)]
            fn with_simd<S: Simd>(self, simd: S) {
                match self.width {
                    $($v => self.run_all::<S, $v>(simd),)*
                    width => unreachable!("no kernel for {} rows by {width} vectors", $rows),
                }
            }
        }
    };
}

widths!(1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
widths!(2: 1 2 3 4 5 6 7 8);
widths!(4: 1 2 3 4);
