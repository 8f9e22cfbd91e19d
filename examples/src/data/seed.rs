//! Random streams that depend only on a seed and a purpose, never on what was drawn before.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// What a random stream is for; each purpose has streams of its own.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    /// Which images a limit keeps.
    Subset = 1,
    /// Which images go to a held-out split.
    HeldOut = 2,
    /// The order of an epoch.
    Shuffle = 3,
    /// Flips and crops.
    Augment = 4,
    /// Drawn training images.
    DrawTrain = 5,
    /// Drawn test images.
    DrawTest = 6,
}

/// The generator number `index` (an epoch, an image) of a purpose.
pub(crate) fn rng(seed: u64, purpose: Purpose, index: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(mix(seed ^ mix(purpose as u64)));
    rng.set_stream(index);
    rng
}

/// A well-mixed 64-bit hash (the finaliser of `SplitMix64`).
pub(crate) fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
