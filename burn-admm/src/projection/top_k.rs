//! The `k` largest magnitudes of a slice, exactly, ties to the lowest index.

use core::cmp::Ordering;

/// Largest magnitude first, then lowest index: a total order on finite weights.
fn by_magnitude(weights: &[f32]) -> impl Fn(&usize, &usize) -> Ordering + '_ {
    |&a, &b| {
        weights[b]
            .abs()
            .total_cmp(&weights[a].abs())
            .then(a.cmp(&b))
    }
}

/// Marks the `k` largest magnitudes in `mask`, in linear time.
pub(super) fn mark(weights: &[f32], k: usize, mask: &mut [bool]) {
    if k == 0 {
        return;
    }
    if k >= weights.len() {
        mask.fill(true);
        return;
    }
    // The k-th largest magnitude: selecting bare values is much faster than selecting indices.
    let mut magnitudes: Vec<f32> = weights.iter().map(|w| w.abs()).collect();
    let (larger, &mut threshold, _) =
        magnitudes.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    let mut ties = k - larger.iter().filter(|&&w| w > threshold).count();
    for (keep, weight) in mask.iter_mut().zip(weights) {
        let magnitude = weight.abs();
        *keep = magnitude > threshold || (magnitude == threshold && ties > 0);
        ties -= usize::from(magnitude == threshold && ties > 0);
    }
}

/// The same by a full sort of the indices.
pub(super) fn mark_naive(weights: &[f32], k: usize, mask: &mut [bool]) {
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(by_magnitude(weights));
    for &index in order.iter().take(k) {
        mask[index] = true;
    }
}
