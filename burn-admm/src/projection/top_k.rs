//! The `k` largest of a slice, exactly, ties to the lowest index.

/// What selection orders: a weight by its magnitude, a group by its energy.
pub(super) trait Score: Copy {
    /// Never negative and never a NaN.
    type Key: Copy + PartialOrd;

    fn key(self) -> Self::Key;

    fn total_cmp(a: &Self::Key, b: &Self::Key) -> core::cmp::Ordering;
}

/// A weight.
impl Score for f32 {
    type Key = f32;

    fn key(self) -> f32 {
        self.abs()
    }

    fn total_cmp(a: &f32, b: &f32) -> core::cmp::Ordering {
        a.total_cmp(b)
    }
}

/// A sum of squares.
impl Score for f64 {
    type Key = f64;

    fn key(self) -> f64 {
        self
    }

    fn total_cmp(a: &f64, b: &f64) -> core::cmp::Ordering {
        a.total_cmp(b)
    }
}

/// Marks the `k` largest scores in `mask`, in linear time.
pub(super) fn mark<S: Score>(scores: &[S], k: usize, mask: &mut [bool]) {
    if k == 0 {
        return;
    }
    if k >= scores.len() {
        mask.fill(true);
        return;
    }
    // The k-th largest key: selecting bare values is much faster than selecting indices.
    let mut keys: Vec<S::Key> = scores.iter().map(|score| score.key()).collect();
    let (larger, &mut threshold, _) = keys.select_nth_unstable_by(k - 1, |a, b| S::total_cmp(b, a));
    let mut ties = k - larger.iter().filter(|&&key| key > threshold).count();
    for (keep, score) in mask.iter_mut().zip(scores) {
        let key = score.key();
        *keep = key > threshold || (key == threshold && ties > 0);
        ties -= usize::from(key == threshold && ties > 0);
    }
}

/// The same by a full sort of the indices.
pub(super) fn mark_naive<S: Score>(scores: &[S], k: usize, mask: &mut [bool]) {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    // Largest first, then lowest index: a total order on finite scores.
    order.sort_by(|&a, &b| S::total_cmp(&scores[b].key(), &scores[a].key()).then(a.cmp(&b)));
    for &index in order.iter().take(k) {
        mask[index] = true;
    }
}
