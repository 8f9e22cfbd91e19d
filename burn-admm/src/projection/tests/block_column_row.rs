//! How near the heuristic comes to the nearest point.

use super::*;
use crate::testing::gaussian;

fn project(search: BlockSearch, weights: &[f32], [rows, columns]: [usize; 2]) -> Projected {
    let shape = WeightShape::matrix(8, 16);
    let budget = Budget::Nnz(rows * columns);
    BlockColumnRowSearch::new([8, 16], Budget::Nnz(rows), budget, search)
        .project(weights, shape)
        .unwrap()
}

fn energy(weights: &[f32]) -> f64 {
    weights.iter().map(|&w| f64::from(w).powi(2)).sum()
}

/// The best rows and columns of 8 × 16: of each choice of rows the best columns.
fn optimum(weights: &[f32], rows: usize, kept: usize) -> f64 {
    let mut best = 0.0f64;
    for rows in (0u32..1 << 8).filter(|mask| mask.count_ones() as usize == rows) {
        let mut columns = [0.0f64; 16];
        for (row, weights) in weights.chunks_exact(16).enumerate() {
            for (column, &weight) in columns.iter_mut().zip(weights) {
                *column += f64::from(rows >> row & 1) * f64::from(weight).powi(2);
            }
        }
        columns.sort_by(|a, b| b.total_cmp(a));
        best = best.max(columns[..kept].iter().sum());
    }
    best
}

#[test]
fn alternation_comes_near_the_optimum_and_never_loses_to_the_published_form() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let (mut sequential, mut alternating, mut best) = (0.0, 0.0, 0.0);
    for _ in 0..400 {
        let weights: Vec<f32> = (0..128).map(|_| gaussian(&mut rng)).collect();
        let a = energy(&project(BlockSearch::Sequential, &weights, [4, 8]).values);
        let b = energy(&project(BlockSearch::Alternating, &weights, [4, 8]).values);
        let most = optimum(&weights, 4, 8);
        // Sums of 32 squares in different orders.
        assert!(b >= a * (1.0 - 1e-13), "{b} after {a}");
        assert!(b <= most * (1.0 + 1e-13), "{b} of {most}");
        (sequential, alternating, best) = (sequential + a, alternating + b, best + most);
    }
    assert!(alternating > 0.98 * best, "{}", alternating / best);
    assert!(sequential < alternating);
}

/// The ratios that the documentation of [`BlockColumnRowSearch`] states, of the energy that is kept to the most that
/// rows and columns of a block can keep.
#[test]
fn energy_of_each_search_against_the_optimum() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    println!("rows x columns kept  sequential mean, least  alternating mean, least");
    for (rows, columns, stated) in [
        (2, 4, [0.86, 0.984]),
        (4, 8, [0.953, 0.994]),
        (6, 4, [0.986, 0.997]),
        (8, 2, [1.0, 1.0]),
    ] {
        let mut ratios = [Vec::new(), Vec::new()];
        for _ in 0..400 {
            let weights: Vec<f32> = (0..128).map(|_| gaussian(&mut rng)).collect();
            let most = optimum(&weights, rows, columns);
            for (ratios, search) in ratios
                .iter_mut()
                .zip([BlockSearch::Sequential, BlockSearch::Alternating])
            {
                let kept = project(search, &weights, [rows, columns]);
                ratios.push(energy(&kept.values) / most);
            }
        }
        let [sequential, alternating] = ratios.map(|ratios| {
            let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
            (mean, ratios.iter().copied().fold(1.0, f64::min))
        });
        println!(
            "{rows} x {columns}                {:.4} {:.3}            {:.4} {:.3}",
            sequential.0, sequential.1, alternating.0, alternating.1
        );
        assert!(sequential.0 > stated[0] - 1e-12, "{sequential:?}");
        assert!(alternating.0 > stated[1] - 1e-12, "{alternating:?}");
    }
}

#[test]
fn with_all_rows_or_all_columns_it_is_exact() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let shape = WeightShape::matrix(6, 10);
    for _ in 0..50 {
        let weights: Vec<f32> = (0..60).map(|_| gaussian(&mut rng)).collect();
        let blocks = |rows, budget| {
            BlockColumnRowSearch::new([3, 10], rows, budget, BlockSearch::Alternating)
                .project(&weights, shape)
                .unwrap()
        };
        // All rows: columns of bands.
        let columns = blocks(Budget::Sparsity(0.0), Budget::Sparsity(0.6));
        let shared = SharedPatternTopK::new(3, Budget::Sparsity(0.6));
        assert_eq!(columns, shared.project(&weights, shape).unwrap());
        // All columns: one row of three in each band, the one of largest norm.
        let rows = blocks(Budget::Nnz(1), Budget::Nnz(10));
        for (band, kept) in weights.chunks(30).zip(rows.mask.chunks(30)) {
            let norms: Vec<f64> = band.chunks(10).map(energy).collect();
            let largest = norms.iter().copied().fold(0.0, f64::max);
            for (norm, kept) in norms.iter().zip(kept.chunks(10)) {
                assert!(kept.iter().all(|&kept| kept == (*norm == largest)));
            }
        }
    }
}
