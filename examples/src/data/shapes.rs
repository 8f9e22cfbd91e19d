//! Ten drawn classes that need no download: disc, ring, square, triangle, cross, star, horizontal
//! and vertical stripes, checkerboard, soft blob.
//!
//! Every image has its own two colours, shaded background, place, size and angle, a distracting
//! line and noise, so a network has to learn the form; a linear classifier does not get far. Image
//! `i` depends on `(seed, split, i, size)` alone.

use std::f32::consts::{PI, TAU};

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::decode::check_total;
use super::seed::{Purpose, rng};
use super::{Augment, DataError, ImageDataset, ImageShape, LoadOptions, Normalization, Split};

/// Class names in label order.
pub const CLASSES: [&str; 10] = [
    "disc",
    "ring",
    "square",
    "triangle",
    "cross",
    "star",
    "stripes-h",
    "stripes-v",
    "checker",
    "blob",
];
/// Training images (validation included) drawn when no limit asks for fewer or more.
pub const DEFAULT_TRAIN: usize = 10_000;
/// Test images drawn when no limit asks for fewer or more.
pub const DEFAULT_TEST: usize = 2_000;
/// Edge of the images unless [`LoadOptions::size`] says otherwise.
pub const DEFAULT_SIZE: usize = 32;
/// Smallest and largest edge: below, the forms cannot be told apart.
const SIZES: std::ops::RangeInclusive<usize> = 8..=1024;
/// Samples per pixel and axis; they smooth the edges.
const SAMPLES: usize = 2;

/// Draws the set: `options.limit` training and `options.test_limit` test images, the classes as
/// equal as the counts allow.
///
/// # Errors
/// [`DataError::Options`] for an edge outside 8 to 1024, [`DataError::TooLarge`] for too many
/// images.
pub fn load(options: &LoadOptions) -> Result<ImageDataset, DataError> {
    let size = options.size.unwrap_or(DEFAULT_SIZE);
    if !SIZES.contains(&size) {
        return Err(DataError::Options(format!(
            "shapes of {size}x{size} pixels; choose an edge between {} and {}",
            SIZES.start(),
            SIZES.end()
        )));
    }
    let shape = ImageShape::square(if options.grey { 1 } else { 3 }, size);
    let (train, test) = (
        options.limit.unwrap_or(DEFAULT_TRAIN),
        options.test_limit.unwrap_or(DEFAULT_TEST),
    );
    let set = ImageDataset {
        name: "shapes".into(),
        classes: CLASSES.map(String::from).to_vec(),
        shape,
        normalization: Normalization::new([0.5], [0.25]).repeated(shape.channels),
        // A mirrored form is the same form; forms vary in place already, so crops shift them little.
        augment: Augment {
            flip: true,
            pad: size / 16,
        },
        train: draw_split(shape, train, options.seed, Purpose::DrawTrain)?,
        valid: Split::empty(shape),
        test: draw_split(shape, test, options.seed, Purpose::DrawTest)?,
        skipped: Vec::new(),
        notices: Vec::new(),
    };
    Ok(set.with_validation(options.valid_fraction, options.seed))
}

fn draw_split(
    shape: ImageShape,
    count: usize,
    seed: u64,
    purpose: Purpose,
) -> Result<Split, DataError> {
    check_total(count, shape.bytes())?;
    let mut pixels = vec![0u8; count * shape.bytes()];
    pixels
        .par_chunks_exact_mut(shape.bytes())
        .enumerate()
        .for_each(|(i, to)| {
            draw(
                i % CLASSES.len(),
                shape.width,
                &mut rng(seed, purpose, i as u64),
                to,
            );
        });
    let labels = (0..count).map(|i| (i % CLASSES.len()) as u32).collect();
    Split::new(shape, pixels, labels)
}

/// Where and how large a form is drawn; coordinates run from -1 to 1.
struct Pose {
    x: f32,
    y: f32,
    radius: f32,
    cos: f32,
    sin: f32,
    /// Stripes and checks per form, or the thickness of rings and bars.
    detail: f32,
}

impl Pose {
    fn random(class: usize, random: &mut ChaCha8Rng) -> Self {
        // Stripes are told apart by their direction, so they turn only a little.
        let turn = if (6..=7).contains(&class) {
            PI / 12.0
        } else {
            PI
        };
        let angle: f32 = random.random_range(-turn..turn);
        Self {
            x: random.random_range(-0.3..0.3),
            y: random.random_range(-0.3..0.3),
            radius: random.random_range(0.45..0.75),
            cos: angle.cos(),
            sin: angle.sin(),
            detail: random.random_range(0.0..1.0),
        }
    }

    /// How much of the form is at a point: 0 outside, 1 inside, between for the blob.
    fn covers(&self, class: usize, x: f32, y: f32) -> f32 {
        let (dx, dy) = ((x - self.x) / self.radius, (y - self.y) / self.radius);
        let (u, v) = (dx * self.cos + dy * self.sin, dy * self.cos - dx * self.sin);
        let distance = u.hypot(v);
        let in_square = u.abs().max(v.abs()) < 0.9;
        // Alternating bands, three to five of each across a form.
        let band = |t: f32| ((t + 1.0) * (3.0 + 1.5 * self.detail)).floor() as i32 & 1 == 0;
        let inside = match class {
            0 => distance < 0.9,
            1 => distance < 1.0 && distance > 0.5 + 0.2 * self.detail,
            2 => u.abs().max(v.abs()) < 0.75,
            // Half-planes of an equilateral triangle around the centre.
            3 => v < 0.5 && 1.732 * u.abs() - v < 1.0,
            4 => u.abs().min(v.abs()) < 0.2 + 0.1 * self.detail && u.abs().max(v.abs()) < 0.95,
            5 => distance < star_radius(u, v),
            6 => in_square && band(v),
            7 => in_square && band(u),
            8 => in_square && (band(u) ^ band(v)),
            _ => return (-3.0 * distance * distance).exp(),
        };
        f32::from(u8::from(inside))
    }
}

/// Edge of a five-pointed star in the direction of a point.
fn star_radius(u: f32, v: f32) -> f32 {
    let fifth = TAU / 5.0;
    let turn = (v.atan2(u).rem_euclid(fifth) / fifth - 0.5).abs() * 2.0;
    0.42 + 0.63 * turn * turn
}

/// Draws one image into planar bytes.
fn draw(class: usize, size: usize, random: &mut ChaCha8Rng, to: &mut [u8]) {
    let pose = Pose::random(class, random);
    let plane = size * size;
    let channels = to.len() / plane;
    let (back, front) = colours(random, channels);
    let shade: [f32; 2] = [
        random.random_range(-0.12..0.12),
        random.random_range(-0.12..0.12),
    ];
    // A thin distracting line: |x cos + y sin - offset| < 0.04, in a colour of its own.
    let line_angle: f32 = random.random_range(0.0..PI);
    let (line_cos, line_sin) = (line_angle.cos(), line_angle.sin());
    let line_offset: f32 = random.random_range(-0.8..0.8);
    let line: [f32; 3] = std::array::from_fn(|_| random.random());
    let noise = random.random_range(0.02..0.10f32);

    let step = 2.0 / (size * SAMPLES) as f32;
    for row in 0..size {
        for column in 0..size {
            let (mut form, mut stroke) = (0.0, 0.0);
            for sample in 0..SAMPLES * SAMPLES {
                let at = |pixel: usize, offset: usize| {
                    ((pixel * SAMPLES + offset) as f32 + 0.5) * step - 1.0
                };
                let (x, y) = (at(column, sample % SAMPLES), at(row, sample / SAMPLES));
                form += pose.covers(class, x, y);
                let on_line = (x * line_cos + y * line_sin - line_offset).abs() < 0.04;
                stroke += f32::from(u8::from(on_line));
            }
            let parts = (SAMPLES * SAMPLES) as f32;
            let (form, stroke) = (form / parts, 0.7 * stroke / parts);
            let x = column as f32 / size as f32 - 0.5;
            let y = row as f32 / size as f32 - 0.5;
            let light = shade[0] * x + shade[1] * y;
            for c in 0..channels {
                let value = back[c] + form * (front[c] - back[c]) + light;
                let value = value + stroke * (line[c] - value);
                // The sum of two uniform numbers is near enough to a Gaussian one.
                let grain = noise * (random.random::<f32>() + random.random::<f32>() - 1.0) * 2.0;
                let byte = ((value + grain) * 255.0).round().clamp(0.0, 255.0) as u8;
                to[c * plane + row * size + column] = byte;
            }
        }
    }
}

/// Two colours that differ enough to be told apart in so many channels.
fn colours(random: &mut ChaCha8Rng, channels: usize) -> ([f32; 3], [f32; 3]) {
    loop {
        let back: [f32; 3] = std::array::from_fn(|_| random.random());
        let front: [f32; 3] = std::array::from_fn(|_| random.random());
        let pairs = back.iter().zip(&front).take(channels);
        let contrast: f32 = pairs.map(|(a, b)| (a - b).abs()).sum();
        if contrast > if channels == 1 { 0.25 } else { 0.6 } {
            return (back, front);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(limit: usize, size: usize, seed: u64) -> LoadOptions {
        LoadOptions {
            limit: Some(limit),
            test_limit: Some(limit / 2),
            size: Some(size),
            seed,
            ..LoadOptions::default()
        }
    }

    #[test]
    fn drawn_images_depend_on_the_seed_and_not_on_the_count() {
        let small = load(&LoadOptions {
            valid_fraction: 0.0,
            ..options(20, 16, 1)
        })
        .unwrap();
        let large = load(&LoadOptions {
            valid_fraction: 0.0,
            ..options(40, 16, 1)
        })
        .unwrap();
        let other = load(&LoadOptions {
            valid_fraction: 0.0,
            ..options(20, 16, 2)
        })
        .unwrap();
        for i in 0..20 {
            assert_eq!(small.train.image(i), large.train.image(i));
            assert_ne!(small.train.image(i), other.train.image(i));
        }
        assert_ne!(small.train.image(0), small.test.image(0));
    }

    #[test]
    fn classes_are_balanced_for_any_size() {
        for size in [8, 17, 28, 64] {
            let set = load(&options(100, size, 3)).unwrap();
            assert_eq!(set.shape, ImageShape::square(3, size));
            assert_eq!(set.train.class_counts(10), [9; 10]);
            assert_eq!(set.valid.class_counts(10), [1; 10]);
            assert_eq!(set.test.class_counts(10), [5; 10]);
        }
        let grey = load(&LoadOptions {
            grey: true,
            ..options(20, 28, 3)
        })
        .unwrap();
        assert_eq!(grey.shape, ImageShape::square(1, 28));
        assert_eq!(grey.normalization.mean.len(), 1);
        assert!(load(&options(1, 7, 0)).is_err());
        assert!(load(&options(1, 1025, 0)).is_err());
        assert!(matches!(
            load(&options(1 << 40, 32, 0)),
            Err(DataError::TooLarge { .. })
        ));
    }

    #[test]
    fn the_constants_are_near_the_pixels() {
        let set = load(&options(500, 32, 4)).unwrap();
        let values: Vec<f64> = (0..set.train.len())
            .flat_map(|i| set.train.image(i))
            .map(|&v| f64::from(v) / 255.0)
            .collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let var = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
        assert!((mean - 0.5).abs() < 0.05, "{mean}");
        assert!((var.sqrt() - 0.25).abs() < 0.06, "{}", var.sqrt());
    }

    /// Nearest class mean on pixels stays poor, while the noiseless forms themselves differ: the
    /// set is neither trivial nor hopeless.
    #[test]
    fn forms_differ_but_pixels_alone_do_not_give_them_away() {
        let set = load(&LoadOptions {
            valid_fraction: 0.0,
            ..options(1000, 16, 5)
        })
        .unwrap();
        let bytes = set.shape.bytes();
        let mut means = vec![vec![0f64; bytes]; 10];
        for (i, &label) in set.train.labels().iter().enumerate() {
            for (sum, &v) in means[label as usize].iter_mut().zip(set.train.image(i)) {
                *sum += f64::from(v) / 100.0;
            }
        }
        let distance = |mean: &[f64], image: &[u8]| -> f64 {
            mean.iter()
                .zip(image)
                .map(|(m, &v)| (m - f64::from(v)).powi(2))
                .sum()
        };
        let hits = (0..set.test.len())
            .filter(|&i| {
                let image = set.test.image(i);
                let best = (0..10)
                    .min_by(|&a, &b| {
                        distance(&means[a], image).total_cmp(&distance(&means[b], image))
                    })
                    .unwrap();
                best as u32 == set.test.labels()[i]
            })
            .count();
        assert!(hits * 2 < set.test.len(), "{hits} of {}", set.test.len());

        let pose = Pose {
            x: 0.0,
            y: 0.0,
            radius: 0.7,
            cos: 1.0,
            sin: 0.0,
            detail: 0.5,
        };
        let form = |class| -> Vec<u8> {
            (0..1024)
                .map(|i| {
                    let (x, y) = ((i % 32) as f32 / 16.0 - 1.0, (i / 32) as f32 / 16.0 - 1.0);
                    (pose.covers(class, x, y) * 255.0) as u8
                })
                .collect()
        };
        let forms: Vec<Vec<u8>> = (0..CLASSES.len()).map(form).collect();
        for (a, one) in forms.iter().enumerate() {
            for (b, other) in forms.iter().enumerate().take(a) {
                let far = one
                    .iter()
                    .zip(other)
                    .filter(|(x, y)| x.abs_diff(**y) > 99)
                    .count();
                assert!(far > 40, "{} and {}: {far}", CLASSES[a], CLASSES[b]);
            }
        }
    }
}
