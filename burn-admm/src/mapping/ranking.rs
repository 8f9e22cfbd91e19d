//! How well one order agrees with another.

/// Kendall's tau-b of two lists of the same cases: of all pairs of cases, those that both lists order alike less
/// those that they order the other way, over the pairs that either could order; 1 for the same order, -1 for the
/// opposite, 0 where one list has nothing but ties.
///
/// # Panics
/// If the lists differ in length.
///
/// # Example
/// ```
/// use burn_admm::mapping::kendall_tau;
///
/// assert_eq!(kendall_tau(&[1.0, 2.0, 3.0], &[10.0, 40.0, 90.0]), 1.0);
/// // One of three pairs is the other way round.
/// assert!((kendall_tau(&[1.0, 2.0, 3.0], &[10.0, 90.0, 40.0]) - 1.0 / 3.0).abs() < 1e-12);
/// ```
pub fn kendall_tau(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "two lists of the same cases");
    let (mut agree, mut in_a, mut in_b) = (0.0, 0.0, 0.0);
    for i in 0..a.len() {
        for j in 0..i {
            let order = |list: &[f64]| match list[i].partial_cmp(&list[j]) {
                Some(order) => f64::from(order as i8),
                None => 0.0,
            };
            let (x, y) = (order(a), order(b));
            agree += x * y;
            in_a += x * x;
            in_b += y * y;
        }
    }
    if in_a == 0.0 || in_b == 0.0 {
        return 0.0;
    }
    agree / (in_a * in_b).sqrt()
}
