//! Seeded, class-balanced choices of images: limits and held-out splits.

use rand::seq::SliceRandom;

use super::seed::{Purpose, rng};

/// Indices of at most `limit` images, as equal per class as the data allow, in ascending order.
///
/// Classes are visited in turn (in a seeded order) and give one image each until the limit is
/// reached, so two classes that both have images left differ by at most one.
///
/// # Panics
/// If a label is not below `classes`.
#[must_use]
pub fn balanced_subset(labels: &[u32], classes: usize, limit: usize, seed: u64) -> Vec<usize> {
    if limit >= labels.len() {
        return (0..labels.len()).collect();
    }
    let mut by_class = shuffled_by_class(labels, classes, seed, Purpose::Subset);
    let mut turn: Vec<usize> = (0..classes).collect();
    turn.shuffle(&mut rng(seed, Purpose::Subset, u64::MAX));
    let mut chosen = Vec::with_capacity(limit);
    while chosen.len() < limit {
        for &class in &turn {
            if chosen.len() == limit {
                break;
            }
            chosen.extend(by_class[class].pop());
        }
    }
    chosen.sort_unstable();
    chosen
}

/// Splits indices into `(kept, held_out)`, both ascending, holding out `fraction` of every class
/// (rounded), at least one image of each class that has two or more when `fraction > 0`, and never
/// the last one.
///
/// # Panics
/// If a label is not below `classes`.
#[must_use]
pub fn carve(labels: &[u32], classes: usize, fraction: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let mut kept = Vec::with_capacity(labels.len());
    let mut held = Vec::new();
    for mut class in shuffled_by_class(labels, classes, seed, Purpose::HeldOut) {
        let wanted = (class.len() as f64 * fraction).round() as usize;
        let most = class.len().saturating_sub(1);
        let count = if fraction > 0.0 {
            wanted.max(1).min(most)
        } else {
            0
        };
        held.extend(class.drain(..count));
        kept.extend(class);
    }
    kept.sort_unstable();
    held.sort_unstable();
    (kept, held)
}

/// The indices of every class, each list shuffled by its own stream.
fn shuffled_by_class(
    labels: &[u32],
    classes: usize,
    seed: u64,
    purpose: Purpose,
) -> Vec<Vec<usize>> {
    let mut by_class = vec![Vec::new(); classes];
    for (index, &label) in labels.iter().enumerate() {
        by_class[label as usize].push(index);
    }
    for (class, list) in by_class.iter_mut().enumerate() {
        list.shuffle(&mut rng(seed, purpose, class as u64));
    }
    by_class
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(labels: &[u32], indices: &[usize], classes: usize) -> Vec<usize> {
        let mut counts = vec![0; classes];
        for &i in indices {
            counts[labels[i] as usize] += 1;
        }
        counts
    }

    #[test]
    fn limits_are_balanced_seeded_and_without_repeats() {
        let labels: Vec<u32> = (0..1000).map(|i| (i % 7) as u32).collect();
        for limit in [0, 1, 6, 7, 8, 100, 999] {
            let subset = balanced_subset(&labels, 7, limit, 3);
            assert_eq!(subset.len(), limit);
            assert!(subset.windows(2).all(|w| w[0] < w[1]));
            let counts = counts(&labels, &subset, 7);
            assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
            assert_eq!(subset, balanced_subset(&labels, 7, limit, 3));
        }
        assert_ne!(
            balanced_subset(&labels, 7, 50, 3),
            balanced_subset(&labels, 7, 50, 4)
        );
        assert_eq!(balanced_subset(&labels, 7, 5000, 3).len(), 1000);
    }

    #[test]
    fn a_small_class_gives_all_and_the_others_fill_up() {
        let mut labels = vec![0u32; 2];
        labels.extend(vec![1u32; 50]);
        labels.extend(vec![3u32; 50]);
        let subset = balanced_subset(&labels, 4, 42, 0);
        assert_eq!(counts(&labels, &subset, 4), [2, 20, 0, 20]);
    }

    #[test]
    fn carving_is_stratified_disjoint_and_complete() {
        let labels: Vec<u32> = (0..200).map(|i| (i % 4) as u32).collect();
        let (kept, held) = carve(&labels, 4, 0.1, 9);
        assert_eq!(counts(&labels, &held, 4), [5; 4]);
        assert_eq!(counts(&labels, &kept, 4), [45; 4]);
        let mut all = [kept.clone(), held.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..200).collect::<Vec<_>>());
        assert_eq!((kept, held), carve(&labels, 4, 0.1, 9));
    }

    #[test]
    fn carving_never_empties_a_class() {
        let (kept, held) = carve(&[0, 1, 1, 2], 4, 0.9, 0);
        assert_eq!(kept.len(), 3);
        assert_eq!(held.len(), 1);
        assert_eq!(carve(&[0, 0, 1], 2, 0.0, 0).1, Vec::<usize>::new());
    }
}
