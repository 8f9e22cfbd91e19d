use super::*;
use crate::evolve::cluster::k_means;
use crate::evolve::population::Population;

fn points(values: &[f64]) -> Vec<Vec<f64>> {
    values.iter().map(|&value| vec![value, 1.0]).collect()
}

#[test]
fn groups_that_are_apart_are_found() {
    let clusters = k_means(&points(&[0.0, 0.9, 0.1, 0.5, 0.95, 0.05, 0.52]), 3);
    for pair in [(0, 2), (0, 5), (1, 4), (3, 6)] {
        assert_eq!(clusters[pair.0], clusters[pair.1], "{clusters:?}");
    }
    for pair in [(0, 1), (0, 3), (1, 3)] {
        assert_ne!(clusters[pair.0], clusters[pair.1], "{clusters:?}");
    }
}

#[test]
fn equal_points_are_one_cluster() {
    assert_eq!(k_means(&points(&[0.3; 6]), 3), [0; 6]);
    assert_eq!(
        k_means(&points(&[0.3, 0.7, 0.3, 0.7, 0.7]), 4),
        [0, 1, 0, 1, 1]
    );
    assert_eq!(k_means(&points(&[0.3]), 5), [0]);
    assert_eq!(k_means(&[], 2), Vec::<usize>::new());
    assert_eq!(k_means(&[vec![], vec![]], 2), [0, 0]);
}

#[test]
fn every_point_is_with_the_nearest_mean() {
    for seed in 0..20 {
        let values: Vec<f64> = random(24, seed).iter().map(|&v| f64::from(v)).collect();
        let points: Vec<Vec<f64>> = values.chunks(2).map(<[f64]>::to_vec).collect();
        let clusters = k_means(&points, 4);
        assert_eq!(clusters, k_means(&points, 4));
        let mean = |cluster: usize, d: usize| {
            let of_it = points.iter().zip(&clusters).filter(|(_, c)| **c == cluster);
            let values: Vec<f64> = of_it.map(|(point, _)| point[d]).collect();
            values.iter().sum::<f64>() / values.len() as f64
        };
        let apart = |point: &[f64], cluster: usize| {
            (0..2)
                .map(|d| (point[d] - mean(cluster, d)).powi(2))
                .sum::<f64>()
        };
        let count = clusters.iter().max().unwrap() + 1;
        for (point, &cluster) in points.iter().zip(&clusters) {
            let own = apart(point, cluster);
            assert!((0..count).all(|other| own <= apart(point, other) + 1e-12));
        }
    }
}

fn individual(sparsities: [f64; 2], accuracy: f64) -> Individual {
    Individual {
        nnz: (100.0 * (2.0 - sparsities[0] - sparsities[1])).round() as usize,
        sparsities: sparsities.to_vec(),
        accuracy,
    }
}

#[test]
fn too_many_are_thinned_out_but_every_kind_stays() {
    let mut population = Population::default();
    for sparsities in [[0.8, 0.1], [0.82, 0.1], [0.84, 0.1], [0.1, 0.3]] {
        population.insert(individual(sparsities, 0.9), 4, 2);
    }
    assert_eq!(population.0.len(), 4);
    population.insert(individual([0.86, 0.1], 0.9), 4, 2);
    // Two of each kind at most; the poor one is the only one of its kind.
    let vectors: Vec<[f64; 2]> = population
        .0
        .iter()
        .map(|one| [one.sparsities[0], one.sparsities[1]])
        .collect();
    assert_eq!(vectors, [[0.84, 0.1], [0.1, 0.3], [0.86, 0.1]]);
}

#[test]
fn of_equal_vectors_the_last_one_lives() {
    let mut population = Population::default();
    population.insert(individual([0.5, 0.5], 0.8), 3, 2);
    population.insert(individual([0.2, 0.5], 0.8), 3, 2);
    population.insert(individual([0.5, 0.5], 0.9), 3, 2);
    assert_eq!(population.0.len(), 2);
    assert_eq!(population.0[1].accuracy, 0.9);
}

#[test]
fn parents_are_fit() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut population = Population::default();
    assert_eq!(population.parent(&mut rng), None);
    for at in 0..10 {
        population.insert(individual([0.09 * f64::from(at), 0.0], 0.9), 10, 1);
    }
    let draws = 4000;
    let drawn = (0..draws).map(|_| population.parent(&mut rng).unwrap().sparsities[0]);
    let mean = drawn.sum::<f64>() / f64::from(draws);
    // The larger of two of 0..=9: 6.15 on average.
    assert!((mean / 0.09 - 6.15).abs() < 0.15, "{mean}");
}
