//! The decomposition of a weight, and what is counted of one.

use super::*;
use crate::decompose::DecomposeError;

fn shapes() -> [WeightShape; 7] {
    [
        WeightShape::new(12, 7, [3, 3]),
        WeightShape::new(1, 1, [3, 3]),
        WeightShape::new(2, 3, [5, 5]),
        WeightShape::new(6, 5, [1, 3]),
        WeightShape::new(5, 4, [1, 1]),
        WeightShape::new(3, 1, [4, 2]),
        WeightShape::new(33, 17, [3, 3]),
    ]
}

fn orthonormal(shared: &SharedKernels) -> f64 {
    let (m, k) = (shared.basis(), shared.shape().positions());
    let mut worst = 0.0_f64;
    for (i, a) in m.chunks(k).enumerate() {
        for (j, b) in m.chunks(k).enumerate() {
            let pairs = a.iter().zip(b);
            let dot: f64 = pairs.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            worst = worst.max((dot - f64::from(u8::from(i == j))).abs());
        }
    }
    worst
}

#[test]
fn as_many_kernels_as_positions_lose_nothing() {
    for (seed, shape) in shapes().into_iter().enumerate() {
        let weights = random(shape.len(), seed as u64);
        let spectrum = KernelSpectrum::new(&weights, shape).unwrap();
        let shared = spectrum.decompose(shape.positions()).unwrap();
        assert_near(&shared.reconstruct(), &weights, &shape.to_string());
        assert!(orthonormal(&shared) < 1e-6);
        assert_eq!(spectrum.discarded(shape.positions()).unwrap(), 0.0);
    }
}

#[test]
fn the_energy_that_is_discarded_is_the_squared_error() {
    for (seed, shape) in shapes().into_iter().enumerate() {
        // With a mean: it must not get lost.
        let weights: Vec<f32> = random(shape.len(), seed as u64)
            .iter()
            .map(|w| w + 1.0)
            .collect();
        let spectrum = KernelSpectrum::new(&weights, shape).unwrap();
        assert!(spectrum.values().is_sorted_by(|a, b| a >= b));
        for d in 1..=shape.positions() {
            let shared = spectrum.decompose(d).unwrap();
            let error = squared_distance(&shared.reconstruct(), &weights);
            let discarded = spectrum.discarded(d).unwrap();
            // Coefficients, kernels and products are rounded to f32.
            let rounding =
                1e-12 * spectrum.energy() + 1e-6 * (discarded * spectrum.energy()).sqrt();
            assert!(
                (error - discarded).abs() <= rounding,
                "{shape} {d}: {error} {discarded}"
            );
            let relative = spectrum.relative_error(d).unwrap();
            assert!(
                (relative.powi(2) * spectrum.energy() - discarded).abs() < 1e-9 * spectrum.energy()
            );
        }
    }
}

#[test]
fn planted_kernels_are_found() {
    let shape = WeightShape::new(9, 8, [3, 3]);
    let planted = random(3 * 9, 1);
    let coefficients = random(9 * 8 * 3, 2);
    let weights = SharedKernels::new(shape, 3, coefficients, planted.clone()).unwrap();
    let spectrum = KernelSpectrum::new(&weights.reconstruct(), shape).unwrap();
    assert!(spectrum.relative_error(3).unwrap() < 1e-6);
    assert!(spectrum.relative_error(2).unwrap() > 1e-2);
    // Each planted kernel lies in the span of those that were found.
    let found = spectrum.decompose(3).unwrap();
    for kernel in planted.chunks(9) {
        let mut rest: Vec<f64> = kernel.iter().map(|&w| f64::from(w)).collect();
        for basis in found.basis().chunks(9) {
            let pairs = basis.iter().zip(kernel);
            let dot: f64 = pairs.map(|(&b, &w)| f64::from(b) * f64::from(w)).sum();
            rest.iter_mut()
                .zip(basis)
                .for_each(|(r, &b)| *r -= dot * f64::from(b));
        }
        assert!(rest.iter().all(|r| r.abs() < 1e-5), "{rest:?}");
    }
}

#[test]
fn orthonormal_kernels_give_the_same_weights() {
    for (seed, shape) in shapes().into_iter().enumerate() {
        for d in 1..=shape.positions() {
            let a = random(shape.rows * shape.channels * d, seed as u64);
            let m = random(d * shape.positions(), 50 + seed as u64);
            let shared = SharedKernels::new(shape, d, a, m).unwrap();
            let unit = shared.orthonormal();
            assert!(orthonormal(&unit) < 1e-6, "{shape} {d}");
            assert_near(
                &unit.reconstruct(),
                &shared.reconstruct(),
                &format!("{shape} {d}"),
            );
            // Nothing to do the second time: signs and order stay.
            let again = unit.orthonormal();
            assert_near(again.coefficients(), unit.coefficients(), "coefficients");
            assert_near(again.basis(), unit.basis(), "basis");
        }
    }
    // Kernels that depend on each other are completed to orthonormal ones.
    let shape = WeightShape::new(2, 2, [3, 3]);
    let kernel = random(9, 7);
    let both = [&kernel[..], &kernel].concat();
    let shared = SharedKernels::new(shape, 2, random(8, 8), both).unwrap();
    assert_near(
        &shared.orthonormal().reconstruct(),
        &shared.reconstruct(),
        "dependent",
    );
}

#[test]
fn weights_of_zeros_have_a_basis_too() {
    let shape = WeightShape::new(4, 3, [3, 3]);
    let spectrum = KernelSpectrum::new(&vec![0.0; shape.len()], shape).unwrap();
    assert_eq!(spectrum.relative_error(1).unwrap(), 0.0);
    let shared = spectrum.decompose(4).unwrap();
    assert!(orthonormal(&shared) < 1e-6 && shared.nnz() == 0 && shared.parameters() == 0);
}

#[test]
fn what_is_used_is_counted() {
    let shape = WeightShape::new(2, 3, [2, 2]);
    // Kernel 1 on channel 0 for both outputs, kernel 0 on channel 2 for one.
    let mut a = vec![0.0; 2 * 3 * 3];
    for (o, c, b, value) in [(0, 0, 1, -0.5), (1, 0, 1, 2.0), (1, 2, 0, -1e-9)] {
        a[(o * 3 + c) * 3 + b] = value;
    }
    let shared = SharedKernels::new(shape, 3, a, random(12, 3)).unwrap();
    assert_eq!((shared.nnz(), shared.used(), shared.maps()), (3, 2, 2));
    assert_eq!(shared.parameters(), 3 + 2 * 4);
    assert_eq!(shared.macs(), 3 + 2 * 4);
    let part = shared.select(&[1], &[0, 2]);
    assert_eq!((part.nnz(), part.shape().len()), (2, 8));
    let (whole, part) = (shared.reconstruct(), part.reconstruct());
    assert_eq!(part, [&whole[12..16], &whole[20..24]].concat());
}

#[test]
fn what_is_no_weight_is_refused() {
    let shape = WeightShape::new(3, 2, [3, 3]);
    let weights = random(shape.len(), 0);
    let spectrum = KernelSpectrum::new(&weights, shape).unwrap();
    for d in [0, 10] {
        let error = spectrum.decompose(d).unwrap_err();
        assert!(
            matches!(error, DecomposeError::Rank { max: 9, .. }),
            "{error}"
        );
        assert!(spectrum.discarded(d).is_err() && spectrum.relative_error(d).is_err());
        assert!(SharedKernels::new(shape, d, Vec::new(), Vec::new()).is_err());
    }
    assert!(KernelSpectrum::new(&weights[1..], shape).is_err());
    let mut broken = weights;
    broken[4] = f32::INFINITY;
    let error = KernelSpectrum::new(&broken, shape).unwrap_err();
    assert!(matches!(error, DecomposeError::NonFinite { index: 4, .. }));
    assert!(SharedKernels::new(shape, 2, vec![0.0; 11], vec![0.0; 18]).is_err());
    assert!(SharedKernels::new(shape, 2, vec![0.0; 12], vec![f32::NAN; 18]).is_err());
}
