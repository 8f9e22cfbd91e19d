use super::*;

/// All ranks that are worth a look.
fn ranks_of(shape: WeightShape) -> Vec<Ranks> {
    let full = Ranks::full(shape);
    let mut ranks = vec![
        Ranks::new(1, 1),
        Ranks::new(full.output.div_ceil(2), full.input.div_ceil(3)),
        Ranks::new(full.output, full.input.div_ceil(2)),
        full,
        // More than the weight can fill.
        Ranks::new(shape.rows, shape.channels),
    ];
    ranks.dedup();
    ranks
}

/// `K̂` by the formula: all six loops.
fn composed(tucker: &Tucker2) -> Vec<f32> {
    let shape = tucker.shape();
    let Ranks { output, input } = tucker.ranks();
    let (reduce, core, expand) = (tucker.reduce(), tucker.core(), tucker.expand());
    let (c, k) = (shape.channels, shape.positions());
    let mut weights = Vec::new();
    for o in 0..shape.rows {
        for i in 0..c {
            for p in 0..k {
                let mut sum = 0.0_f64;
                for a in 0..output {
                    for b in 0..input {
                        sum += f64::from(expand[o * output + a])
                            * f64::from(core[(a * input + b) * k + p])
                            * f64::from(reduce[b * c + i]);
                    }
                }
                weights.push(sum as f32);
            }
        }
    }
    weights
}

#[test]
fn full_ranks_lose_nothing() {
    for (seed, shape) in SHAPES.into_iter().enumerate() {
        let weights = random(shape, seed as u64);
        let spectra = Spectra::new(&weights, shape).unwrap();
        for ranks in [Ranks::full(shape), Ranks::new(shape.rows, shape.channels)] {
            let tucker = spectra.hosvd(ranks).unwrap();
            assert_near(&composed(&tucker), &weights, &format!("{shape} at {ranks}"));
            assert!(tucker.relative_error() < 1e-7, "{shape}");
        }
    }
}

#[test]
fn factors_are_convolutions_whose_product_is_the_reconstruction() {
    for (seed, shape) in SHAPES.into_iter().enumerate() {
        let weights = random(shape, 10 + seed as u64);
        let spectra = Spectra::new(&weights, shape).unwrap();
        for ranks in ranks_of(shape) {
            let tucker = spectra.hooi(ranks, HooiConfig::default()).unwrap();
            // Layers in a row have none that leaves all channels.
            let chain = tucker.chain().into_iter().flatten();
            let weights_of_chain = chain.map(|factor| factor.nrows() * factor.ncols());
            assert_eq!(weights_of_chain.sum::<usize>(), ranks.parameters(shape));
            let rebuilt = tucker.reconstruct();
            assert_near(&composed(&tucker), &rebuilt, &format!("{shape} at {ranks}"));
            let error = squared_distance(&rebuilt, &weights);
            let energy = energy(&weights);
            let stated = tucker.squared_error();
            assert!((error - stated).abs() < 1e-6 * energy, "{error} {stated}");
        }
    }
}

#[test]
fn discarded_energy_bounds_the_error_and_alternation_does_not_make_it_worse() {
    for (seed, shape) in SHAPES.into_iter().enumerate() {
        let weights = random(shape, 20 + seed as u64);
        let spectra = Spectra::new(&weights, shape).unwrap();
        assert!((spectra.energy() - energy(&weights)).abs() < 1e-9 * spectra.energy());
        for ranks in ranks_of(shape) {
            let bounds = spectra.error_bounds(ranks).unwrap();
            let hosvd = spectra.hosvd(ranks).unwrap().squared_error();
            let hooi = spectra.hooi(ranks, HooiConfig::default()).unwrap();
            let room = 1e-10 * spectra.energy();
            assert!(
                bounds.least <= hooi.squared_error() + room,
                "{shape} {ranks}"
            );
            assert!(hooi.squared_error() <= hosvd, "{shape} {ranks}");
            assert!(hosvd <= bounds.most + room, "{shape} {ranks}");
        }
    }
}

#[test]
fn alternation_gains_where_both_modes_are_cut() {
    let shape = shape(24, 20, [3, 3]);
    let spectra = Spectra::new(&random(shape, 7), shape).unwrap();
    let ranks = Ranks::new(16, 12);
    let hosvd = spectra.hosvd(ranks).unwrap();
    let hooi = spectra.hooi(ranks, HooiConfig::default()).unwrap();
    // Of white noise, where a tenth of the error is about what there is to gain.
    assert!(hooi.squared_error() < 0.97 * hosvd.squared_error());
    assert!(hooi.iterations() > 1 && hosvd.iterations() == 0);
}

#[test]
fn planted_ranks_are_found_again() {
    for (shape, ranks) in [
        (shape(24, 20, [3, 3]), Ranks::new(5, 3)),
        (shape(7, 5, [3, 3]), Ranks::new(2, 4)),
        (shape(6, 9, [5, 2]), Ranks::new(1, 1)),
    ] {
        let weights = planted(shape, ranks, 3);
        let spectra = Spectra::new(&weights, shape).unwrap();
        let tucker = spectra.hosvd(ranks).unwrap();
        assert_near(&tucker.reconstruct(), &weights, &shape.to_string());
        let less = Ranks::new(ranks.output, ranks.input.max(2) - 1);
        if less != ranks {
            assert!(spectra.hosvd(less).unwrap().relative_error() > 1e-2);
        }
    }
}

#[test]
fn columns_of_the_factors_are_orthonormal() {
    let shape = shape(24, 20, [3, 3]);
    let spectra = Spectra::new(&random(shape, 8), shape).unwrap();
    let tucker = spectra
        .hooi(Ranks::new(10, 6), HooiConfig::default())
        .unwrap();
    let reduce = tucker.reduce();
    for (i, a) in reduce.chunks(20).enumerate() {
        for (j, b) in reduce.chunks(20).enumerate() {
            let dot: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
            let expected = f32::from(u8::from(i == j));
            assert!((dot - expected).abs() < 1e-5, "{i} {j}: {dot}");
        }
    }
}

#[test]
fn zeros_decompose_into_zeros() {
    let shape = shape(4, 3, [3, 3]);
    let spectra = Spectra::new(&[0.0; 108], shape).unwrap();
    let tucker = spectra
        .hooi(Ranks::new(2, 2), HooiConfig::default())
        .unwrap();
    assert_eq!(tucker.reconstruct(), [0.0; 108]);
    assert_eq!(
        (tucker.relative_error(), tucker.squared_error()),
        (0.0, 0.0)
    );
}

#[test]
fn costs_are_those_of_three_convolutions() {
    // A layer of ResNet-18 with the ranks that TDC gives it: 83.5 MFLOP instead of 231.2.
    let layer = shape(64, 64, [3, 3]);
    let ranks = Ranks::new(32, 32);
    let positions = 56 * 56;
    assert_eq!(ranks.macs(layer, positions, positions), 41_746_432);
    assert_eq!(ranks.parameters(layer), 64 * 32 + 32 * 32 * 9 + 32 * 64);
}

/// Shapes, ranks and relative errors of `partial_tucker` of `TensorLy`: `scripts/peers/tensorly_tucker`.
const TENSORLY: [(WeightShape, Ranks, f64); 6] = [
    (shape(24, 20, [3, 3]), Ranks::new(16, 12), 0.533919309),
    (shape(24, 20, [3, 3]), Ranks::new(4, 15), 0.803490418),
    (shape(7, 5, [3, 3]), Ranks::new(3, 2), 0.823894793),
    (shape(5, 7, [1, 3]), Ranks::new(4, 4), 0.480429412),
    (shape(48, 64, [3, 3]), Ranks::new(16, 24), 0.840772393),
    (shape(6, 9, [5, 2]), Ranks::new(1, 1), 0.925739641),
];

#[test]
fn errors_are_those_of_tensorly() {
    // To its fixed point, as the script lets TensorLy.
    let config = HooiConfig {
        iterations: 2000,
        tolerance: 1e-12,
    };
    for (shape, ranks, expected) in TENSORLY {
        let wave = |i: usize| (0.37 * (i * i) as f64).sin() as f32;
        let weights: Vec<f32> = (0..shape.len()).map(wave).collect();
        let spectra = Spectra::new(&weights, shape).unwrap();
        let error = spectra.hooi(ranks, config).unwrap().relative_error();
        assert!(
            (error - expected).abs() < 1e-6,
            "{shape} at {ranks}: {error}, TensorLy {expected}"
        );
    }
}
