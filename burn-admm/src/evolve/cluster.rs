//! Groups of similar sparsity vectors.

/// Rounds after which grouping ends, settled or not.
const ROUNDS: usize = 100;

/// Groups points into at most `k` clusters, and gives the cluster of each: k-means from starts as far
/// apart as possible, so that nothing is left to chance. Equal points are in one cluster, so there may
/// be fewer.
pub(super) fn k_means(points: &[Vec<f64>], k: usize) -> Vec<usize> {
    let mut centres = starts(points, k);
    let mut clusters = vec![0; points.len()];
    for _ in 0..ROUNDS {
        let nearest: Vec<usize> = points.iter().map(|p| nearest(p, &centres)).collect();
        let settled = nearest == clusters;
        clusters = nearest;
        for (at, centre) in centres.iter_mut().enumerate() {
            let of_it = || points.iter().zip(&clusters).filter(|(_, c)| **c == at);
            let count = of_it().count();
            // One that has lost all of its points stays where it is.
            if count > 0 {
                for (d, value) in centre.iter_mut().enumerate() {
                    *value = of_it().map(|(point, _)| point[d]).sum::<f64>() / count as f64;
                }
            }
        }
        if settled {
            break;
        }
    }
    clusters
}

/// The first point, then always the one that is farthest from all before.
fn starts(points: &[Vec<f64>], k: usize) -> Vec<Vec<f64>> {
    let mut centres: Vec<Vec<f64>> = points.first().cloned().into_iter().collect();
    while centres.len() < k {
        let apart = |point: &Vec<f64>| squared(point, &centres[nearest(point, &centres)]);
        let mut farthest: Option<(f64, &Vec<f64>)> = None;
        for point in points {
            let distance = apart(point);
            if distance > farthest.map_or(0.0, |(most, _)| most) {
                farthest = Some((distance, point));
            }
        }
        match farthest {
            Some((_, point)) => centres.push(point.clone()),
            None => break,
        }
    }
    centres
}

/// Of equally near ones the first.
fn nearest(point: &[f64], centres: &[Vec<f64>]) -> usize {
    let mut best = (f64::INFINITY, 0);
    for (at, centre) in centres.iter().enumerate() {
        let distance = squared(point, centre);
        if distance < best.0 {
            best = (distance, at);
        }
    }
    best.1
}

fn squared(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}
