//! The oracle: the same decompositions by plain loops over the four indices of a weight.

use burn_sparse::WeightShape;

use super::Ranks;

/// A symmetric matrix.
type Square = Vec<Vec<f64>>;

/// The weight nearest to `weights` of these ranks that alternation from the HOSVD finds.
pub(super) fn tucker(
    weights: &[f32],
    shape: WeightShape,
    ranks: Ranks,
    iterations: usize,
) -> Vec<f32> {
    let [n, c, k] = [
        shape.rows,
        shape.channels,
        shape.kernel[0] * shape.kernel[1],
    ];
    let full: Vec<f64> = weights.iter().map(|w| f64::from(*w)).collect();
    let mut output = leading(&gram(&full, [n, c, k], 0), ranks.output);
    let mut input = leading(&gram(&full, [n, c, k], 1), ranks.input);
    for _ in 0..iterations {
        // Projecting onto a subspace keeps what multiplying by its basis keeps.
        let narrow = within(&full, [n, c, k], 1, &input);
        let next = leading(&gram(&narrow, [n, c, k], 0), ranks.output);
        let moved = distance(&output, &next);
        output = next;
        let narrow = within(&full, [n, c, k], 0, &output);
        let next = leading(&gram(&narrow, [n, c, k], 1), ranks.input);
        let moved = moved.max(distance(&input, &next));
        input = next;
        if moved < 1e-12 {
            break;
        }
    }
    let narrow = within(&full, [n, c, k], 1, &input);
    let both = within(&narrow, [n, c, k], 0, &output);
    both.iter().map(|w| *w as f32).collect()
}

/// The weight nearest to `weights` whose columns and rows of kernels meet in so many channels.
pub(super) fn spatial(weights: &[f32], shape: WeightShape, rank: usize) -> Vec<f32> {
    let [height, width] = shape.kernel;
    let (rows, columns) = (shape.channels * height, shape.rows * width);
    // Where entry `(i, r), (o, s)` of the matrix is in the weight.
    let place = |at: usize| {
        let (i, r) = (at / columns / height, at / columns % height);
        let (o, s) = (at % columns / width, at % columns % width);
        ((o * shape.channels + i) * height + r) * width + s
    };
    let matrix: Vec<f64> = (0..rows * columns)
        .map(|at| f64::from(weights[place(at)]))
        .collect();
    let sides = [rows, columns, 1];
    let basis = leading(&gram(&matrix, sides, 0), rank);
    let near = within(&matrix, sides, 0, &basis);
    let mut values = vec![0.0; weights.len()];
    for (at, value) in near.iter().enumerate() {
        values[place(at)] = *value as f32;
    }
    values
}

/// How far apart two subspaces are: the largest entry of the difference of their projectors.
fn distance(a: &[Vec<f64>], b: &[Vec<f64>]) -> f64 {
    let size = a.first().map_or(0, Vec::len);
    let entry = |vectors: &[Vec<f64>], i: usize, j: usize| -> f64 {
        vectors.iter().map(|v| v[i] * v[j]).sum()
    };
    let mut largest = 0.0_f64;
    for i in 0..size {
        for j in 0..size {
            largest = largest.max((entry(a, i, j) - entry(b, i, j)).abs());
        }
    }
    largest
}

/// Products of the slices of mode 0 or 1 of an `n × c × k` tensor.
fn gram(tensor: &[f64], [n, c, k]: [usize; 3], mode: usize) -> Square {
    let size = [n, c][mode];
    let mut gram = vec![vec![0.0; size]; size];
    for (a, row) in gram.iter_mut().enumerate() {
        for (b, entry) in row.iter_mut().enumerate() {
            for other in 0..[c, n][mode] {
                for p in 0..k {
                    let at = |i: usize| match mode {
                        0 => tensor[(i * c + other) * k + p],
                        _ => tensor[(other * c + i) * k + p],
                    };
                    *entry += at(a) * at(b);
                }
            }
        }
    }
    gram
}

/// The part of a tensor whose mode 0 or 1 lies in the space of orthonormal vectors.
fn within(tensor: &[f64], [n, c, k]: [usize; 3], mode: usize, vectors: &[Vec<f64>]) -> Vec<f64> {
    let mut part = vec![0.0; tensor.len()];
    for other in 0..[c, n][mode] {
        for p in 0..k {
            let at = |i: usize| match mode {
                0 => (i * c + other) * k + p,
                _ => (other * c + i) * k + p,
            };
            for vector in vectors {
                let along: f64 = (0..vector.len()).map(|i| vector[i] * tensor[at(i)]).sum();
                for (i, v) in vector.iter().enumerate() {
                    part[at(i)] += along * v;
                }
            }
        }
    }
    part
}

/// Eigenvectors of the largest eigenvalues by Jacobi's rotations (Golub and Van Loan, section 8.5).
pub(super) fn leading(matrix: &Square, rank: usize) -> Vec<Vec<f64>> {
    let size = matrix.len();
    let mut a = matrix.clone();
    // Row `i` is eigenvector `i`.
    let mut vectors: Square = (0..size)
        .map(|i| (0..size).map(|j| f64::from(u8::from(i == j))).collect())
        .collect();
    for _ in 0..100 {
        let mut off = 0.0_f64;
        for p in 0..size {
            for q in p + 1..size {
                off = off.max(a[p][q].abs());
                if a[p][q] == 0.0 {
                    continue;
                }
                let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
                let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                let t = if theta == 0.0 { 1.0 } else { t };
                let cos = 1.0 / (t * t + 1.0).sqrt();
                let sin = t * cos;
                for row in a.iter_mut() {
                    let (x, y) = (row[p], row[q]);
                    (row[p], row[q]) = (cos * x - sin * y, sin * x + cos * y);
                }
                for rows in [&mut a, &mut vectors] {
                    let (before, after) = rows.split_at_mut(q);
                    for (x, y) in before[p].iter_mut().zip(&mut after[0]) {
                        (*x, *y) = (cos * *x - sin * *y, sin * *x + cos * *y);
                    }
                }
            }
        }
        let largest = (0..size).map(|i| a[i][i].abs()).fold(0.0, f64::max);
        if off <= 1e-15 * largest {
            break;
        }
    }
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|&i, &j| a[j][j].total_cmp(&a[i][i]));
    order
        .iter()
        .take(rank)
        .map(|&i| vectors[i].clone())
        .collect()
}
