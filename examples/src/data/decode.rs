//! From image files to planar bytes: bounded, in parallel, broken files by name.

use std::fs::{self, File};
use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use image::imageops::FilterType;
use image::{DynamicImage, ImageReader, Limits};
use rayon::prelude::*;

use super::{DataError, ImageShape, SkippedFile, Split};
use crate::progress::Progress;

/// Longest edge of a picture that is decoded at all.
const MAX_EDGE: u32 = 16_384;
/// Bytes a decoder may allocate for one picture.
const MAX_DECODED: u64 = 512 << 20;
/// Bytes of the longest file read.
const MAX_FILE: u64 = 64 << 20;
/// Bytes of all decoded images of a split together.
pub(crate) const MAX_TOTAL: usize = 8 << 30;
/// Files between two steps of the progress bar.
const STEP: usize = 1000;

/// What to do with a picture of another size than wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// Refuse it: the set has one size.
    Exact,
    /// Scale the shorter edge to the wanted size and keep the middle.
    CropMiddle,
}

/// Decodes the files, leaving out (and naming) those that cannot be.
pub(crate) fn decode_all(
    root: &Path,
    files: Vec<(PathBuf, u32)>,
    shape: ImageShape,
    fit: Fit,
    progress: &Progress,
) -> Result<(Split, Vec<SkippedFile>), DataError> {
    let bytes = shape.bytes();
    check_total(files.len(), bytes)?;
    let mut pixels = vec![0u8; files.len() * bytes];
    let mut labels = Vec::with_capacity(files.len());
    let mut skipped = Vec::new();
    for (number, chunk) in files.chunks(STEP).enumerate() {
        let start = number * STEP;
        let target = &mut pixels[start * bytes..(start + chunk.len()) * bytes];
        let results: Vec<Result<(), String>> = target
            .par_chunks_exact_mut(bytes)
            .zip(chunk)
            .map(|(to, (path, _))| decode(path, shape, fit, to))
            .collect();
        // Close the gaps that broken files left.
        for (offset, (result, (path, label))) in results.into_iter().zip(chunk).enumerate() {
            match result {
                Ok(()) => {
                    let from = (start + offset) * bytes;
                    pixels.copy_within(from..from + bytes, labels.len() * bytes);
                    labels.push(*label);
                }
                Err(reason) => skipped.push(SkippedFile {
                    path: path.clone(),
                    reason,
                }),
            }
        }
        progress.inc(chunk.len() as u64);
    }
    if let (true, Some(first)) = (labels.is_empty(), skipped.first()) {
        return Err(DataError::AllBroken {
            path: root.to_path_buf(),
            count: skipped.len(),
            first: format!("{}: {}", first.path.display(), first.reason),
        });
    }
    pixels.truncate(labels.len() * bytes);
    Ok((Split::new(shape, pixels, labels)?, skipped))
}

/// Refuses sets that would not fit the memory allowed.
pub(crate) fn check_total(items: usize, bytes_each: usize) -> Result<(), DataError> {
    match items.checked_mul(bytes_each) {
        Some(total) if total <= MAX_TOTAL => Ok(()),
        _ => Err(DataError::TooLarge {
            items,
            bytes_each,
            limit: MAX_TOTAL,
        }),
    }
}

/// Decodes one file into planar bytes, or says why not.
fn decode(path: &Path, shape: ImageShape, fit: Fit, to: &mut [u8]) -> Result<(), String> {
    let bytes = read_bounded(path, MAX_FILE)?;
    // A panic inside a decoder is that file's fault too.
    let picture = catch_unwind(AssertUnwindSafe(|| decode_bytes(bytes)))
        .unwrap_or_else(|_| Err("the decoder panicked".into()))?;
    let (height, width) = (shape.height as u32, shape.width as u32);
    let picture = match fit {
        _ if (picture.width(), picture.height()) == (width, height) => picture,
        Fit::Exact => {
            return Err(format!(
                "{}x{} pixels instead of {width}x{height}",
                picture.width(),
                picture.height()
            ));
        }
        Fit::CropMiddle => picture.resize_to_fill(width, height, FilterType::Triangle),
    };
    if shape.channels == 1 {
        to.copy_from_slice(picture.into_luma8().as_raw());
        return Ok(());
    }
    let plane = shape.height * shape.width;
    for (i, pixel) in picture.into_rgb8().as_raw().chunks_exact(3).enumerate() {
        for (c, &value) in pixel.iter().enumerate() {
            to[c * plane + i] = value;
        }
    }
    Ok(())
}

/// Reads an ordinary file of at most `limit` bytes; a pipe or a device would block or never end.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let meta = fs::metadata(path).map_err(|e| e.to_string())?;
    if !meta.is_file() {
        return Err("not an ordinary file".into());
    }
    if meta.len() > limit {
        return Err(format!(
            "{} bytes, more than the {limit} allowed",
            meta.len()
        ));
    }
    let mut bytes = Vec::with_capacity(meta.len() as usize);
    let file = File::open(path).map_err(|e| e.to_string())?;
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(|e| e.to_string())?;
    Ok(bytes)
}

fn decode_bytes(bytes: Vec<u8>) -> Result<DynamicImage, String> {
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|e| e.to_string())?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_EDGE);
    limits.max_image_height = Some(MAX_EDGE);
    limits.max_alloc = Some(MAX_DECODED);
    reader.limits(limits);
    reader.decode().map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::write_image;

    fn decode_one(path: &Path, shape: ImageShape, fit: Fit) -> Result<Vec<u8>, String> {
        let mut to = vec![0; shape.bytes()];
        decode(path, shape, fit, &mut to).map(|()| to)
    }

    /// A PNG header that promises `edge` pixels each way and delivers none.
    fn png_header(edge: u32) -> Vec<u8> {
        let mut chunk = b"IHDR".to_vec();
        chunk.extend(edge.to_be_bytes());
        chunk.extend(edge.to_be_bytes());
        chunk.extend([8, 2, 0, 0, 0]);
        let mut crc = u32::MAX;
        for &byte in &chunk {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 {
                    (crc >> 1) ^ 0xedb8_8320
                } else {
                    crc >> 1
                };
            }
        }
        let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\r".to_vec();
        file.extend(chunk);
        file.extend((!crc).to_be_bytes());
        file
    }

    #[test]
    fn png_decodes_to_planes_and_grey() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        write_image(&path, 4, 3, 200);
        let rgb = ImageShape {
            channels: 3,
            height: 3,
            width: 4,
        };
        let planes = decode_one(&path, rgb, Fit::Exact).unwrap();
        assert_eq!(planes[..12], [200; 12]);
        assert_eq!(planes[12..16], [0, 7, 14, 21]);
        assert_eq!(planes[24..28], [0, 0, 0, 0]);
        assert_eq!(planes[28..32], [5, 5, 5, 5]);
        let grey = ImageShape {
            channels: 1,
            height: 3,
            width: 4,
        };
        assert_eq!(decode_one(&path, grey, Fit::Exact).unwrap().len(), 12);
        let error = decode_one(&path, ImageShape::square(3, 4), Fit::Exact).unwrap_err();
        assert!(error.contains("4x3 pixels instead of 4x4"), "{error}");
        assert_eq!(
            decode_one(&path, ImageShape::square(3, 9), Fit::CropMiddle)
                .unwrap()
                .len(),
            243
        );
    }

    #[test]
    fn hostile_pictures_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let good = dir.path().join("good.jpg");
        write_image(&good, 32, 32, 9);
        let whole = fs::read(&good).unwrap();
        let cases: [(&str, Vec<u8>); 6] = [
            ("empty.png", vec![]),
            ("text.png", b"not an image".to_vec()),
            ("huge.png", png_header(60_000)),
            ("hollow.png", png_header(16_000)),
            ("cut.jpg", whole[..20].to_vec()),
            ("zeros.jpg", vec![0; 4096]),
        ];
        for (name, bytes) in cases {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            let result = decode_one(&path, ImageShape::square(3, 32), Fit::CropMiddle);
            assert!(result.is_err(), "{name} decoded");
        }
        let folder = dir.path().join("folder.png");
        fs::create_dir(&folder).unwrap();
        let error = decode_one(&folder, ImageShape::square(3, 32), Fit::Exact).unwrap_err();
        assert!(error.contains("ordinary"), "{error}");
        let absent = dir.path().join("absent.png");
        assert!(decode_one(&absent, ImageShape::square(3, 32), Fit::Exact).is_err());
    }

    #[test]
    fn mutated_pictures_never_panic() {
        use rand::Rng;
        let dir = tempfile::tempdir().unwrap();
        let mut random = super::super::seed::rng(1, super::super::seed::Purpose::Subset, 0);
        for name in ["a.png", "a.jpg"] {
            let path = dir.path().join(name);
            write_image(&path, 16, 16, 77);
            let whole = fs::read(&path).unwrap();
            for _ in 0..200 {
                let mut bytes = whole.clone();
                for _ in 0..random.random_range(1..6) {
                    let at = random.random_range(0..bytes.len());
                    bytes[at] = random.random();
                }
                bytes.truncate(random.random_range(0..=bytes.len()));
                if let Err(error) = catch_unwind(|| decode_bytes(bytes)).unwrap() {
                    assert!(!error.is_empty());
                }
            }
        }
    }

    #[test]
    fn broken_files_leave_no_gap() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Vec::new();
        for i in 0..6u8 {
            let path = dir.path().join(format!("{i}.png"));
            if i % 3 == 1 {
                fs::write(&path, b"broken").unwrap();
            } else {
                write_image(&path, 4, 4, i);
            }
            files.push((path, u32::from(i)));
        }
        let quiet = Progress::hidden();
        let shape = ImageShape::square(3, 4);
        let broken = vec![files[1].clone(), files[4].clone()];
        let (split, skipped) = decode_all(dir.path(), files, shape, Fit::Exact, &quiet).unwrap();
        assert_eq!(split.labels(), [0, 2, 3, 5]);
        for (i, &label) in split.labels().iter().enumerate() {
            assert_eq!(u32::from(split.image(i)[0]), label);
        }
        let names: Vec<_> = skipped.iter().map(|s| s.path.clone()).collect();
        assert_eq!(names, [broken[0].0.clone(), broken[1].0.clone()]);
        let error = decode_all(dir.path(), broken, shape, Fit::Exact, &quiet).unwrap_err();
        assert!(
            matches!(error, DataError::AllBroken { count: 2, .. }),
            "{error}"
        );
    }

    #[test]
    fn sets_beyond_memory_are_refused_before_allocating() {
        let error = check_total(1 << 40, 150_528).unwrap_err();
        assert!(matches!(error, DataError::TooLarge { .. }), "{error}");
        assert!(check_total(usize::MAX, 2).is_err());
        assert!(check_total(60_000, 3072).is_ok());
    }
}
