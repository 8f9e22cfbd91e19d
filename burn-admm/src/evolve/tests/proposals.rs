use super::*;
use crate::evolve::population::Population;
use crate::evolve::propose::Proposer;
use crate::evolve::space::Space;

fn space() -> Space {
    Space::new(plan().resolve(&net()).unwrap()).unwrap()
}

fn at(space: &Space, sparsities: [f64; 2]) -> Individual {
    Individual {
        nnz: space.nnz(&sparsities).unwrap(),
        sparsities: sparsities.to_vec(),
        accuracy: 0.5,
    }
}

fn statistics(sensitivities: [f64; 2], migrations: [f64; 2]) -> [Statistics; 2] {
    core::array::from_fn(|at| Statistics {
        sensitivity: sensitivities[at],
        migration: migrations[at],
    })
}

/// Vectors that are proposed, with where they come from.
fn proposals(
    config: EvolveConfig,
    present: [f64; 2],
    statistics: [Statistics; 2],
    rewinds: usize,
) -> Vec<(Origin, Vec<f64>)> {
    let space = space();
    let mut population = Population::default();
    for sparsities in [[0.1, 0.2], [0.3, 0.6], [0.6, 0.5], [0.7, 0.1]] {
        population.insert(at(&space, sparsities), 8, 3);
    }
    let present = at(&space, present);
    let proposer = Proposer {
        config: &config,
        space: &space,
        population: &population,
        statistics: &statistics,
        present: &present,
        rewinds,
    };
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let all: Vec<_> = (0..500)
        .map(|_| proposer.propose(&mut rng).unwrap())
        .collect();
    for (_, vector) in &all {
        let nnz = space.nnz(vector).unwrap();
        assert!(nnz <= present.nnz, "{vector:?} is denser");
        assert!((0..2).all(|l| (0.0..=space.most(l)).contains(&vector[l])));
    }
    all
}

#[test]
fn steps_are_parts_of_what_is_left() {
    let calm = statistics([0.0, 0.0], [0.0, 0.0]);
    let all = proposals(config(), [0.5, 0.25], calm, 0);
    for (origin, vector) in &all {
        assert_eq!(*origin, Origin::Grown);
        // One of two layers.
        let grown = [vector[0] - 0.5, vector[1] - 0.25];
        let expected = if grown[0] > 0.0 {
            [0.1, 0.0]
        } else {
            [0.0, 0.15]
        };
        assert!(
            (0..2).all(|l| (grown[l] - expected[l]).abs() < 1e-12),
            "{vector:?}"
        );
    }
    let both = proposals(config().with_layers(1.0), [0.5, 0.25], calm, 0);
    assert!(both.iter().all(|(_, v)| v[0] > 0.5 && v[1] > 0.25));
}

#[test]
fn sensitive_layers_are_drawn_less_and_take_shorter_steps() {
    let all = proposals(config(), [0.5, 0.5], statistics([4.0, -3.0], [0.0; 2]), 0);
    let first: Vec<f64> = all
        .iter()
        .map(|(_, v)| v[0] - 0.5)
        .filter(|d| *d > 0.0)
        .collect();
    // 1/5 against 1.
    assert!(
        (first.len() as f64 / 500.0 - 1.0 / 6.0).abs() < 0.05,
        "{}",
        first.len()
    );
    assert!(first.iter().all(|d| (d - 0.1 / 5.0).abs() < 1e-12));
    // Below zero is not better than zero.
    let other = all.iter().map(|(_, v)| v[1] - 0.5).fold(0.0, f64::max);
    assert!((other - 0.1).abs() < 1e-12);
}

#[test]
fn migration_damps_the_step() {
    let all = proposals(config(), [0.5, 0.5], statistics([0.0; 2], [0.3, 0.0]), 0);
    let first = all.iter().map(|(_, v)| v[0] - 0.5).fold(0.0, f64::max);
    // 1 + 10 · 0.3
    assert!((first - 0.1 / 4.0).abs() < 1e-12, "{first}");
}

#[test]
fn after_a_rewind_there_are_mutations_and_crossings() {
    let calm = statistics([0.0; 2], [0.0; 2]);
    let all = proposals(config(), [0.2, 0.2], calm, 1);
    let count = |origin| all.iter().filter(|(o, _)| *o == origin).count();
    assert_eq!(count(Origin::Grown), 0);
    let (mutated, crossed) = (count(Origin::Mutated), count(Origin::Crossed));
    assert!(mutated > 150 && crossed > 150, "{mutated} {crossed}");
    let parents = [[0.1, 0.2], [0.3, 0.6], [0.6, 0.5], [0.7, 0.1]];
    let sparse_enough = |v: &[f64]| v[0] + v[1] > 0.5;
    for (_, vector) in all
        .iter()
        .filter(|(o, v)| *o == Origin::Crossed && sparse_enough(v))
    {
        for (l, value) in vector.iter().enumerate() {
            assert!(
                parents.iter().any(|parent| parent[l] == *value),
                "{vector:?}"
            );
        }
    }
    // A mutation moves a parent half a step back at most, and one step on.
    for (_, vector) in all
        .iter()
        .filter(|(o, v)| *o == Origin::Mutated && sparse_enough(v))
    {
        let near = |parent: &[f64; 2]| {
            (0..2).all(|l| {
                let step = 0.2 * (1.0 - parent[l]);
                (-0.5 * step - 1e-9..=step + 1e-9).contains(&(vector[l] - parent[l]))
            })
        };
        assert!(parents.iter().any(near), "{vector:?}");
    }
}

#[test]
fn a_network_that_is_rewound_again_and_again_rests() {
    let calm = statistics([0.0; 2], [0.0; 2]);
    let rests = |config, rewinds| {
        let all = proposals(config, [0.2, 0.2], calm, rewinds);
        all.iter()
            .all(|(origin, vector)| *origin == Origin::Rest && vector[..] == [0.2, 0.2])
    };
    let when: Vec<usize> = (0..9).filter(|&rewinds| rests(config(), rewinds)).collect();
    assert_eq!(when, [2, 5, 8]);
    let never = EvolveConfig {
        rest_after: 0,
        ..config()
    };
    assert!((0..9).all(|rewinds| !rests(never, rewinds)));
}

#[test]
fn nothing_grows_beyond_the_target_or_the_plan() {
    let calm = statistics([0.0; 2], [0.0; 2]);
    let space = space();
    for rewinds in [0, 1] {
        let all = proposals(config().with_target(0.5), [0.45, 0.45], calm, rewinds);
        for (_, vector) in all {
            assert!(space.nnz(&vector).unwrap() >= 66, "{vector:?}");
        }
    }
    let most = [space.most(0), space.most(1)];
    let all = proposals(config(), most, calm, 0);
    assert!(
        all.iter()
            .all(|(origin, v)| *origin == Origin::Rest && v[..] == most)
    );
}

#[test]
fn one_factor_changes_all_densities() {
    let space = space();
    let fitted = space.fitted(&[0.1, 0.2], [0, 60]).unwrap();
    assert_eq!(space.nnz(&fitted).unwrap(), 60);
    let factor = (1.0 - fitted[0]) / 0.9;
    assert!(((1.0 - fitted[1]) / 0.8 - factor).abs() < 1e-9);
    let fitted = space.fitted(&[0.8, 0.9], [60, 70]).unwrap();
    assert_eq!(space.nnz(&fitted).unwrap(), 60);
    let same = [0.5, 0.5];
    assert_eq!(space.fitted(&same, [0, 66]).unwrap(), same);
    // Not even the most of all layers is enough.
    let most = space.fitted(&[0.0, 0.0], [0, 1]).unwrap();
    assert_eq!(most, [space.most(0), space.most(1)]);
}

#[test]
fn sensitivities_are_means_that_forget() {
    let mut statistics = Statistics::default();
    // Half a step cost two tolerances: four for a whole one.
    statistics.learn(2.0, 0.5, 0.75);
    assert_eq!(statistics.sensitivity, 0.25 * 4.0);
    statistics.learn(-1.0, 1.0, 0.75);
    assert_eq!(statistics.sensitivity, 0.75 - 0.25);
    // Nothing grew, or too little to tell.
    statistics.learn(5.0, 0.0, 0.75);
    statistics.learn(5.0, -1.0, 0.75);
    assert_eq!(statistics.sensitivity, 0.5);
    statistics.learn(5.0, 1e-300, 0.0);
    assert_eq!(statistics.sensitivity, 10.0);
    assert_eq!(migration(&[true; 4], &[true; 4]), 0.0);
    assert_eq!(
        migration(&[true, true, true, false], &[true, false, false, true]),
        1.5
    );
    assert_eq!(migration(&[true, false], &[false, false]), 1.0);
}
