//! Normalisation, flips and padded random crops, from bytes to floats in one pass.

use serde::{Deserialize, Serialize};

use super::ImageShape;
use super::seed::{Purpose, mix};

/// Per-channel mean and standard deviation of pixels in `[0, 1]`: `y = (x / 255 - mean) / std`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normalization {
    /// One mean per channel.
    pub mean: Vec<f32>,
    /// One standard deviation per channel.
    pub std: Vec<f32>,
}

impl Normalization {
    /// Constants of a data set, a mean and a deviation per channel.
    #[must_use]
    pub fn new<const C: usize>(mean: [f32; C], std: [f32; C]) -> Self {
        Self {
            mean: mean.to_vec(),
            std: std.to_vec(),
        }
    }

    /// The first channel's constants for `channels` channels.
    pub(crate) fn repeated(&self, channels: usize) -> Self {
        Self {
            mean: vec![self.mean[0]; channels],
            std: vec![self.std[0]; channels],
        }
    }

    /// The 256 normalised values of each channel.
    pub(crate) fn tables(&self) -> Vec<[f32; 256]> {
        self.mean
            .iter()
            .zip(&self.std)
            .map(|(mean, std)| std::array::from_fn(|v| (v as f32 / 255.0 - mean) / std))
            .collect()
    }
}

/// Random changes made to training images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Augment {
    /// Mirror left and right half of the time.
    pub flip: bool,
    /// Pad by so many black pixels on each side, then crop the original size at random.
    pub pad: usize,
}

impl Augment {
    /// Images as they are.
    pub const NONE: Self = Self {
        flip: false,
        pad: 0,
    };
    /// The usual recipe of CIFAR: flips, and crops from 4 pixels of padding.
    pub const CIFAR: Self = Self { flip: true, pad: 4 };
    /// Shifts by up to 2 pixels; a mirrored digit is another digit or none.
    pub const DIGITS: Self = Self {
        flip: false,
        pad: 2,
    };

    /// The flip and the shift of one image, which depend only on seed, epoch and image.
    pub(crate) fn draw(self, seed: u64, epoch: u64, image: u64) -> Transform {
        let base = mix(seed ^ mix(Purpose::Augment as u64));
        let bits = mix(mix(base ^ epoch).wrapping_add(mix(image)));
        let range = 2 * self.pad as u64 + 1;
        let shift = |bits: u64| ((bits % range) as isize) - self.pad as isize;
        Transform {
            flip: self.flip && bits >> 63 == 1,
            dy: shift(bits & 0x7fff_ffff),
            dx: shift((bits >> 31) & 0x7fff_ffff),
        }
    }
}

/// What happens to one image: row `y`, column `x` of the result comes from row `y + dy`, column
/// `x + dx` of the (mirrored) image, or is black outside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Transform {
    pub(crate) flip: bool,
    pub(crate) dy: isize,
    pub(crate) dx: isize,
}

impl Transform {
    /// Writes the transformed, normalised image. Black is normalised too, as when padding comes
    /// before normalisation.
    pub(crate) fn apply(
        self,
        shape: ImageShape,
        tables: &[[f32; 256]],
        from: &[u8],
        to: &mut [f32],
    ) {
        let (height, width) = (shape.height, shape.width);
        let plane = height * width;
        for (c, table) in tables.iter().enumerate() {
            let from = &from[c * plane..(c + 1) * plane];
            let to = &mut to[c * plane..(c + 1) * plane];
            for (y, row) in to.chunks_exact_mut(width).enumerate() {
                let source = y as isize + self.dy;
                if source < 0 || source >= height as isize {
                    row.fill(table[0]);
                    continue;
                }
                let source = &from[source as usize * width..][..width];
                // Columns of the result that lie inside the shifted image.
                let first = (-self.dx).clamp(0, width as isize) as usize;
                let last = (width as isize - self.dx).clamp(0, width as isize) as usize;
                row[..first].fill(table[0]);
                row[last..].fill(table[0]);
                for (x, value) in row.iter_mut().enumerate().take(last).skip(first) {
                    let column = (x as isize + self.dx) as usize;
                    let column = if self.flip {
                        width - 1 - column
                    } else {
                        column
                    };
                    *value = table[source[column] as usize];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pad, flip and crop as separate naive steps.
    fn naive(
        t: Transform,
        shape: ImageShape,
        pad: usize,
        norm: &Normalization,
        from: &[u8],
    ) -> Vec<f32> {
        let (h, w) = (shape.height, shape.width);
        let (ph, pw) = (h + 2 * pad, w + 2 * pad);
        let mut out = Vec::new();
        for c in 0..shape.channels {
            let mut padded = vec![0u8; ph * pw];
            for y in 0..h {
                for x in 0..w {
                    let source = if t.flip { w - 1 - x } else { x };
                    padded[(y + pad) * pw + x + pad] = from[(c * h + y) * w + source];
                }
            }
            for y in 0..h {
                for x in 0..w {
                    let row = (y as isize + pad as isize + t.dy) as usize;
                    let column = (x as isize + pad as isize + t.dx) as usize;
                    let v = f32::from(padded[row * pw + column]);
                    out.push((v / 255.0 - norm.mean[c]) / norm.std[c]);
                }
            }
        }
        out
    }

    #[test]
    fn one_pass_equals_pad_flip_crop_normalise() {
        let shape = ImageShape {
            channels: 3,
            height: 5,
            width: 7,
        };
        let norm = Normalization::new([0.4, 0.5, 0.6], [0.2, 0.25, 0.3]);
        let image: Vec<u8> = (0..shape.bytes()).map(|i| (i * 37 % 251) as u8).collect();
        for pad in [0, 1, 4, 9] {
            for flip in [false, true] {
                for dy in [-(pad as isize), 0, pad as isize] {
                    for dx in [-(pad as isize), 0, 1.min(pad as isize), pad as isize] {
                        let t = Transform { flip, dy, dx };
                        let mut got = vec![f32::NAN; shape.bytes()];
                        t.apply(shape, &norm.tables(), &image, &mut got);
                        assert_eq!(got, naive(t, shape, pad, &norm, &image), "{t:?} pad {pad}");
                    }
                }
            }
        }
    }

    #[test]
    fn draws_stay_in_range_cover_it_and_depend_on_all_three_keys() {
        let mut seen = std::collections::BTreeSet::new();
        let mut flips = 0;
        for image in 0..4000 {
            let t = Augment::CIFAR.draw(1, 2, image);
            assert!(t.dx.abs() <= 4 && t.dy.abs() <= 4);
            seen.insert((t.dy, t.dx));
            flips += usize::from(t.flip);
        }
        assert_eq!(seen.len(), 81);
        // Four deviations of a fair coin thrown 4000 times: 4 * sqrt(4000) / 2 = 126.
        assert!(flips.abs_diff(2000) < 127, "{flips} flips");
        let sequence = |seed, epoch| {
            (0..50)
                .map(|i| Augment::CIFAR.draw(seed, epoch, i))
                .collect::<Vec<_>>()
        };
        assert_eq!(sequence(1, 2), sequence(1, 2));
        assert_ne!(sequence(1, 2), sequence(1, 3));
        assert_ne!(sequence(1, 2), sequence(2, 2));
        assert_eq!(Augment::NONE.draw(1, 2, 3), Transform::default());
        assert!((0..200).all(|i| !Augment::DIGITS.draw(1, 2, i).flip));
    }
}
