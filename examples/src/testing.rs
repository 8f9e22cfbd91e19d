//! Helpers of this crate's own tests.

use std::path::Path;

/// Says why a test is skipped, or fails it when `BURN_SPARSE_REQUIRE` lists `what`
/// (comma-separated, such as `data,vulkan`).
pub(crate) fn skip(test: &str, what: &str, reason: &str) {
    let required = std::env::var("BURN_SPARSE_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|r| r.trim() == what),
        "{test}: {reason}, and BURN_SPARSE_REQUIRE asks for {what}"
    );
    println!("SKIPPED {test}: {reason} (BURN_SPARSE_REQUIRE={what} makes this a failure)");
}

/// Writes a small RGB image whose colour depends on `value`; the extension picks the format.
pub(crate) fn write_image(path: &Path, width: u32, height: u32, value: u8) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([value, (x * 7) as u8, (y * 5) as u8])
    })
    .save(path)
    .unwrap();
}
