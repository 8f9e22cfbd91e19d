use super::*;

/// A sum of outer products of three vectors, by loops.
fn planted_cp(shape: WeightShape, rank: usize, seed: u64) -> Vec<f32> {
    let (n, c, k) = (shape.rows, shape.channels, shape.positions());
    let factors = random(WeightShape::matrix(rank, n + c + k), seed);
    let mut weights = vec![0.0; shape.len()];
    for component in factors.chunks(n + c + k) {
        let (output, rest) = component.split_at(n);
        let (input, spatial) = rest.split_at(c);
        for (index, weight) in weights.iter_mut().enumerate() {
            *weight += output[index / (c * k)] * input[index / k % c] * spatial[index % k];
        }
    }
    weights
}

/// The three convolutions put together by the formula.
fn composed(cp: &Cp, shape: WeightShape) -> Vec<f32> {
    let (c, k, rank) = (shape.channels, shape.positions(), cp.rank());
    let (reduce, depthwise, expand) = (cp.reduce(), cp.depthwise(), cp.expand());
    let entry = |index: usize| {
        let (o, i, p) = (index / (c * k), index / k % c, index % k);
        let of = |a: usize| {
            f64::from(expand[o * rank + a])
                * f64::from(reduce[a * c + i])
                * f64::from(depthwise[a * k + p])
        };
        (0..rank).map(of).sum::<f64>() as f32
    };
    (0..shape.len()).map(entry).collect()
}

#[test]
fn planted_components_are_found_again() {
    let exact = CpConfig {
        iterations: 2000,
        tolerance: 0.0,
    };
    for (shape, rank) in [(shape(12, 10, [3, 3]), 3), (shape(7, 5, [3, 3]), 2)] {
        let weights = planted_cp(shape, rank, 5);
        let cp = Cp::new(&weights, shape, rank, exact).unwrap();
        assert!(
            cp.relative_error() < 1e-4,
            "{shape}: {}",
            cp.relative_error()
        );
    }
}

#[test]
fn factors_are_convolutions_and_the_error_is_what_it_says() {
    for (seed, shape) in SHAPES.into_iter().enumerate() {
        let weights = random(shape, 40 + seed as u64);
        let mut last = f64::INFINITY;
        let sides = [shape.rows, shape.channels, shape.positions()];
        let enough = sides.iter().product::<usize>() / sides.iter().max().unwrap();
        for rank in [1, 2, 5, 12].into_iter().filter(|rank| *rank <= enough) {
            let cp = Cp::new(&weights, shape, rank, CpConfig::default()).unwrap();
            let rebuilt = cp.reconstruct();
            assert_near(
                &composed(&cp, shape),
                &rebuilt,
                &format!("{shape} by {rank}"),
            );
            let error = squared_distance(&rebuilt, &weights);
            assert!((error - cp.squared_error()).abs() < 1e-5 * energy(&weights));
            assert!(error <= last * 1.01, "{shape}: {rank} components");
            last = error;
            let lengths = [cp.reduce(), cp.depthwise(), cp.expand()].map(|f| f.len());
            assert_eq!(lengths.iter().sum::<usize>(), cp.parameters());
        }
    }
}

#[test]
fn more_rounds_are_never_worse() {
    let shape = shape(24, 20, [3, 3]);
    let weights = random(shape, 6);
    let mut last = f64::INFINITY;
    for iterations in [1, 2, 4, 8, 16] {
        let config = CpConfig {
            iterations,
            tolerance: 0.0,
        };
        let cp = Cp::new(&weights, shape, 10, config).unwrap();
        assert!(cp.squared_error() <= last && cp.iterations() <= iterations);
        last = cp.squared_error();
    }
}

#[test]
fn kernels_of_one_position_are_the_singular_value_decomposition() {
    let shape = shape(9, 6, [1, 1]);
    let weights = random(shape, 4);
    for rank in 1..=6 {
        let cp = Cp::new(&weights, shape, rank, CpConfig::default()).unwrap();
        let best = LowRank::new(&weights, shape, rank).unwrap();
        let room = 1e-9 * energy(&weights);
        assert!(cp.squared_error() <= best.squared_error() + room, "{rank}");
    }
}
