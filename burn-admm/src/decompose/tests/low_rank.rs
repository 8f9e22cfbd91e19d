use super::*;

#[test]
fn no_pair_of_that_rank_is_nearer() {
    for (rows, columns) in [(12, 30), (30, 12), (9, 9), (1, 5), (5, 1)] {
        let shape = WeightShape::matrix(rows, columns);
        let weights = random(shape, 1);
        let full = rows.min(columns);
        for rank in 1..=full {
            let low = LowRank::new(&weights, shape, rank).unwrap();
            assert_eq!(
                (low.left().len(), low.right().len()),
                (rows * rank, rank * columns)
            );
            let error = squared_distance(&low.reconstruct(), &weights);
            assert!((error - low.squared_error()).abs() < 1e-6 * energy(&weights));
            // What the singular values say is left out: those of both sides are the same.
            let spectra = Spectra::new(&weights, WeightShape::new(rows, columns, [1, 1])).unwrap();
            let out: f64 = spectra.output_values()[rank..].iter().sum();
            assert!(
                (out - low.squared_error()).abs() < 1e-9 * energy(&weights),
                "{rank}"
            );
        }
        let all = LowRank::new(&weights, shape, full).unwrap();
        assert_near(&all.reconstruct(), &weights, "all ranks");
    }
}

#[test]
fn both_factors_have_one_size() {
    let shape = WeightShape::matrix(20, 50);
    let low = LowRank::new(&random(shape, 2), shape, 4).unwrap();
    let (left, right) = (low.left(), low.right());
    for r in 0..4 {
        let column: f64 = (0..20).map(|i| f64::from(left[i * 4 + r]).powi(2)).sum();
        let row = energy(&right[r * 50..][..50]);
        assert!((column / row - 1.0).abs() < 1e-5, "{column} {row}");
    }
}

/// Both convolutions put together by the formula.
fn composed(spatial: &SpatialSvd, shape: WeightShape, d: usize) -> Vec<f32> {
    let (vertical, horizontal) = (spatial.vertical(), spatial.horizontal());
    let [height, width] = shape.kernel;
    let mut weights = Vec::new();
    for o in 0..shape.rows {
        for i in 0..shape.channels {
            for r in 0..height {
                for s in 0..width {
                    let of = |a: usize| {
                        f64::from(vertical[(a * shape.channels + i) * height + r])
                            * f64::from(horizontal[(o * d + a) * width + s])
                    };
                    weights.push((0..d).map(of).sum::<f64>() as f32);
                }
            }
        }
    }
    weights
}

#[test]
fn a_vertical_and_a_horizontal_convolution_make_the_weight() {
    for (seed, shape) in SHAPES.into_iter().enumerate() {
        let weights = random(shape, 30 + seed as u64);
        let full = (shape.channels * shape.kernel[0]).min(shape.rows * shape.kernel[1]);
        for d in [1, full.div_ceil(2), full] {
            let spatial = SpatialSvd::new(&weights, shape, d).unwrap();
            let rebuilt = spatial.reconstruct();
            assert_near(
                &composed(&spatial, shape, d),
                &rebuilt,
                &format!("{shape} by {d}"),
            );
            let error = squared_distance(&rebuilt, &weights);
            let stated = spatial.factors().squared_error();
            assert!(
                (error - stated).abs() < 1e-6 * energy(&weights),
                "{shape} by {d}"
            );
            let lengths = spatial.vertical().len() + spatial.horizontal().len();
            assert_eq!(spatial.macs(1, 1), lengths);
        }
        let all = SpatialSvd::new(&weights, shape, full).unwrap();
        assert_near(&all.reconstruct(), &weights, "all channels");
    }
}
