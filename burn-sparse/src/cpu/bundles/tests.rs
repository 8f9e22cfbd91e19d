use std::sync::Arc;

use super::{BUNDLE, Bundles, Order, RowFinish};
use crate::{
    catalogue,
    cpu::{Isa, Rows},
    format::Csr,
    quant::{BitCodes, Levels, Quantized},
    reference::{self, error_bound},
};

/// Rows of which `density` is not zero, `shared` neighbours at the same places.
fn pruned([rows, len]: [usize; 2], density: f64, shared: usize) -> Csr {
    let mut dense = catalogue::values(rows * len, 1);
    for (row, weights) in dense.chunks_mut(len.max(1)).enumerate() {
        let kept = catalogue::weight(len, density, 1_000_003 * (1 + row / shared) as u64);
        for (weight, kept) in weights.iter_mut().zip(kept) {
            if kept == 0.0 {
                *weight = 0.0;
            }
        }
    }
    Csr::from_dense(&dense, [rows, len]).unwrap()
}

/// Blocks of `block` rows by `width` columns, a tenth of each: some columns of all the rows that stay,
/// which are others in every block.
fn block_pruned([rows, len]: [usize; 2], block: usize, width: usize) -> Csr {
    let kept = |count: usize, seed: usize| catalogue::weight(count, 0.3, seed as u64);
    let (blocks, across) = (rows.div_ceil(block), len.div_ceil(width));
    let mut dense = vec![0.0; rows * len];
    for at in 0..blocks * across {
        let (rows_kept, columns_kept) = (kept(block, 2 * at + 1), kept(width, 2 * at + 2));
        let (row, column) = (at / across * block, at % across * width);
        for (r, c) in (row..rows.min(row + block))
            .flat_map(|r| (column..len.min(column + width)).map(move |c| (r, c)))
        {
            if rows_kept[r - row] != 0.0 && columns_kept[c - column] != 0.0 {
                dense[r * len + c] = rows_kept[r - row] * columns_kept[c - column];
            }
        }
    }
    Csr::from_dense(&dense, [rows, len]).unwrap()
}

fn check(csr: &Csr, isa: Isa) -> &'static str {
    let (rows, len) = (csr.rows(), csr.row_len());
    let order = Arc::new(Order::new(Rows::from(csr), len, isa));
    assert_eq!((order.rows(), order.d_input()), (rows, len));
    let bundles = Bundles::new(order.clone(), csr.values());
    let (x, bias) = (catalogue::values(len, 2), catalogue::values(rows, 3));
    let residual = catalogue::values(rows, 4);
    let mut sums = reference::linear(&x, &csr.to_dense(), Some(&bias), len);
    for (sum, &residual) in sums.iter_mut().zip(&residual) {
        *sum += f64::from(residual);
    }
    // Products of values below 1, a bias and a residual.
    let longest = (0..rows).map(|row| csr.row_nnz(row)).max().unwrap_or(0) + 2;
    let bound = error_bound(longest, longest as f64, f64::from(f32::EPSILON));
    for relu in [false, true] {
        let mut out = vec![f32::NAN; rows];
        let finish = RowFinish {
            bias: Some(&bias),
            residual: Some(&residual),
            relu,
        };
        bundles.run(&x, finish, &mut out);
        for (row, (&y, &expected)) in out.iter().zip(&sums).enumerate() {
            let expected = if relu { expected.max(0.0) } else { expected };
            let name = isa.name();
            assert!(
                (f64::from(y) - expected).abs() <= bound,
                "{name}, {rows} by {len}, {}: {y} in row {row}, expected {expected}",
                order.layout()
            );
        }
    }
    order.layout()
}

fn sets() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available())
}

#[test]
fn every_set_and_shape_matches_the_reference() {
    let shapes = [
        [1, 1],
        [3, 5],
        [16, 32],
        [17, 31],
        [33, 33],
        [15, 15],
        [8, 16],
        [9, 17],
        [100, 1],
        [1, 100],
        [65, 257],
        [3, 1024],
    ];
    for isa in sets() {
        for shape in shapes {
            for density in [0.0, 0.03, 0.1, 0.5, 1.0] {
                for shared in [1, 8, 16] {
                    check(&pruned(shape, density, shared), isa);
                }
            }
        }
    }
}

#[test]
fn matrices_that_threads_share_match_the_reference() {
    for isa in sets() {
        for shared in [1, 16] {
            check(&pruned([1001, 1003], 0.2, shared), isa);
        }
    }
}

#[test]
fn rows_of_blocks_match_the_reference() {
    for isa in sets() {
        for shape in [[1, 1], [128, 128], [129, 257], [300, 70], [511, 513]] {
            for (block, width) in [(128, 64), (64, 33), (16, 16), (200, 1000)] {
                check(&block_pruned(shape, block, width), isa);
            }
        }
    }
}

#[test]
fn layouts_are_those_of_the_pattern() {
    for isa in sets() {
        assert_eq!(check(&block_pruned([1024, 1024], 128, 256), isa), "panels");
        assert_eq!(check(&pruned([64, 256], 0.1, BUNDLE), isa), "shared");
        assert_eq!(check(&pruned([64, 256], 1.0, 1), isa), "shared");
        let windows = matches!(isa, Isa::Avx512 | Isa::Avx2);
        let scattered = if windows { "windows" } else { "rows" };
        assert_eq!(check(&pruned([64, 256], 0.1, 1), isa), scattered);
        assert_eq!(check(&pruned([64, 4096], 0.0005, 1), isa), "rows");
    }
}

/// The last window must not end behind the vector, nor a bundle behind the rows.
#[test]
fn entries_at_the_ends_are_found() {
    for isa in sets() {
        for len in [1, 15, 16, 31, 32, 33, 64, 100] {
            let mut dense = vec![0.0; 19 * len];
            for row in dense.chunks_mut(len) {
                (row[0], row[len / 2], row[len - 1]) = (1.0, 2.0, 3.0);
            }
            check(&Csr::from_dense(&dense, [19, len]).unwrap(), isa);
        }
    }
}

#[test]
fn nothing_is_nothing() {
    for isa in sets() {
        for [rows, len] in [[0, 7], [7, 0], [0, 0]] {
            let csr = Csr::new([rows, len], vec![0; rows + 1], vec![], vec![]).unwrap();
            let order = Order::new(Rows::from(&csr), len, isa);
            let mut out = vec![f32::NAN; rows];
            let x = vec![1.0; len];
            Bundles::new(Arc::new(order), &[]).run(&x, RowFinish::default(), &mut out);
            assert_eq!(out, vec![0.0; rows]);
        }
    }
}

#[test]
fn other_values_keep_the_order() {
    let csr = pruned([40, 70], 0.2, 1);
    let order = Arc::new(Order::new(Rows::from(&csr), 70, Isa::current()));
    let twice: Vec<f32> = csr.values().iter().map(|value| 2.0 * value).collect();
    let x = catalogue::values(70, 5);
    let run = |values: &[f32]| {
        let mut out = vec![0.0; 40];
        Bundles::new(order.clone(), values).run(&x, RowFinish::default(), &mut out);
        out
    };
    let doubled: Vec<f32> = run(csr.values()).into_iter().map(|y| 2.0 * y).collect();
    assert_eq!(run(&twice), doubled);
}

#[test]
#[should_panic(expected = "a matrix of 2 rows by 3, a vector of 4")]
fn a_vector_of_another_length_panics() {
    let csr = Csr::from_dense(&[1.0; 6], [2, 3]).unwrap();
    let order = Order::new(Rows::from(&csr), 3, Isa::current());
    Bundles::new(Arc::new(order), &[1.0; 6]).run(&[0.0; 4], RowFinish::default(), &mut [0.0; 2]);
}

/// A level of `bits` bits for each entry of `csr`: by what `kind` names, with scales of very different
/// size for different rows.
fn quantised(csr: &Csr, kind: &str, bits: u8) -> Quantized {
    let count = 1u16 << bits;
    let scales = |rows: usize| {
        (0..rows.max(1))
            .map(|r| 0.9f32.powi((r % 40) as i32))
            .collect()
    };
    let levels = match kind {
        "nonzero" => Levels::Nonzero {
            scales: scales(csr.rows()),
        },
        "signed" => Levels::Signed {
            scales: scales(csr.rows()),
        },
        "one scale" => Levels::Nonzero { scales: vec![0.37] },
        _ => Levels::Codebook((0..count).map(|c| (f32::from(c) + 0.3).sin()).collect()),
    };
    // Every code occurs, if there are as many entries.
    let codes = (0..csr.stored()).map(|entry| (entry * 7919) as u16 % count);
    let codes = BitCodes::new(bits, codes).unwrap();
    Quantized::new(codes, levels, csr.rows()).unwrap()
}

/// Runs codes where they are chosen and where they are forced.
fn check_codes(csr: &Csr, isa: Isa, kind: &str, bits: u8) -> Vec<usize> {
    let (rows, len) = (csr.rows(), csr.row_len());
    let quantized = quantised(csr, kind, bits);
    let values = quantized.values(csr.row_ptr());
    let matrix = Rows {
        values: &values,
        ..Rows::from(csr)
    };
    let order = Arc::new(Order::new(matrix, len, isa));
    let dense = {
        let (row_ptr, columns) = (csr.row_ptr().to_vec(), csr.columns().to_vec());
        let csr = Csr::new([rows, len], row_ptr, columns, values.clone());
        csr.unwrap().to_dense()
    };
    let (x, bias) = (catalogue::values(len, 2), catalogue::values(rows, 3));
    let sums = reference::linear(&x, &dense, Some(&bias), len);
    // As many products of values below 1 and the largest weight, a bias, and the scale of the row.
    let longest = (0..rows).map(|row| csr.row_nnz(row)).max().unwrap_or(0) + 2;
    let largest = values
        .iter()
        .fold(1.0f32, |most, value| most.max(value.abs()));
    let magnitude = longest as f64 * f64::from(largest);
    let bound = error_bound(longest + 1, magnitude, f64::from(f32::EPSILON));
    let mut taken = Vec::new();
    let forced = Bundles::coded(order.clone(), &quantized);
    let chosen = Bundles::compact(order.clone(), matrix);
    for bundles in forced.into_iter().chain([chosen]) {
        taken.push(bundles.bits());
        for relu in [false, true] {
            let mut out = vec![f32::NAN; rows];
            let finish = RowFinish {
                bias: Some(&bias),
                residual: None,
                relu,
            };
            bundles.run(&x, finish, &mut out);
            for (row, (&y, &expected)) in out.iter().zip(&sums).enumerate() {
                let expected = if relu { expected.max(0.0) } else { expected };
                let (name, layout, found) = (isa.name(), order.layout(), bundles.bits());
                assert!(
                    (f64::from(y) - expected).abs() <= bound,
                    "{name}, {rows} by {len}, {layout}, {kind} of {bits} bits as {found}: {y} in row \
                     {row}, expected {expected}"
                );
            }
        }
    }
    taken
}

const KINDS: [&str; 4] = ["nonzero", "signed", "one scale", "codebook"];

#[test]
fn codes_of_every_kind_and_shape_match_the_reference() {
    let shapes = [
        [1, 1],
        [3, 5],
        [16, 32],
        [17, 31],
        [33, 33],
        [9, 17],
        [100, 1],
        [1, 100],
        [65, 257],
    ];
    for isa in sets() {
        for bits in [1, 2, 3, 4, 5, 7, 8] {
            for kind in KINDS {
                for shape in shapes {
                    for (density, shared) in [(0.0, 1), (0.1, 1), (0.3, 16), (1.0, 1)] {
                        check_codes(&pruned(shape, density, shared), isa, kind, bits);
                    }
                }
                for shape in [[129, 257], [300, 70]] {
                    check_codes(&block_pruned(shape, 64, 33), isa, kind, bits);
                }
            }
        }
    }
}

#[test]
fn codes_that_threads_share_match_the_reference() {
    for isa in sets() {
        for (bits, kind) in [
            (2, "signed"),
            (3, "nonzero"),
            (4, "codebook"),
            (8, "signed"),
        ] {
            for shared in [1, 16] {
                check_codes(&pruned([1001, 1003], 0.2, shared), isa, kind, bits);
            }
        }
    }
}

#[test]
fn few_bits_are_taken_where_they_are_fast() {
    // 4 MiB of floats, and less than 256 KiB.
    let (large, small) = (
        pruned([1024, 2048], 0.5, BUNDLE),
        pruned([128, 512], 0.2, BUNDLE),
    );
    let scattered = pruned([1024, 2048], 0.1, 1);
    for isa in sets() {
        let taken = |csr: &Csr, kind, bits| *check_codes(csr, isa, kind, bits).last().unwrap();
        let of = |avx512: usize, avx2: usize| match isa {
            Isa::Avx512 => avx512,
            Isa::Avx2 => avx2,
            Isa::Neon | Isa::Portable => 32,
        };
        for (kind, bits, expected) in [
            ("nonzero", 2, of(2, 3)),
            ("signed", 2, of(2, 3)),
            ("nonzero", 3, of(3, 3)),
            ("one scale", 3, of(3, 3)),
            ("signed", 4, of(4, 4)),
            ("codebook", 4, of(4, 32)),
            ("signed", 8, of(8, 32)),
            ("nonzero", 8, 32),
            ("codebook", 8, 32),
        ] {
            assert_eq!(
                taken(&large, kind, bits),
                expected,
                "{} {kind} {bits}",
                isa.name()
            );
            assert_eq!(
                taken(&small, kind, bits),
                32,
                "{} {kind} {bits}",
                isa.name()
            );
        }
        assert_eq!(taken(&scattered, "nonzero", 3), 32);
    }
}

#[test]
fn values_without_levels_stay_floats() {
    let csr = pruned([40, 70], 0.3, 1);
    for isa in sets() {
        let order = Arc::new(Order::new(Rows::from(&csr), 70, isa));
        assert_eq!(Bundles::compact(order, Rows::from(&csr)).bits(), 32);
    }
}

#[test]
fn codes_that_do_not_fit_are_refused() {
    let csr = pruned([20, 30], 1.0, 1);
    let order = Arc::new(Order::new(Rows::from(&csr), 30, Isa::current()));
    let coded = |codes: usize, bits: u8, scales: usize, rows: usize| {
        let codes = BitCodes::new(bits, (0..codes).map(|c| c as u16 % (1 << bits))).unwrap();
        let levels = Levels::Signed {
            scales: vec![1.0; scales],
        };
        let quantized = Quantized::new(codes, levels, rows).unwrap();
        Bundles::coded(order.clone(), &quantized)
    };
    assert!(coded(600, 4, 20, 20).is_ok());
    for (codes, bits, scales, says) in [
        (599, 4, 1, "599 codes for a matrix of 600 entries"),
        (600, 4, 19, "19 scales for a matrix of 20 rows"),
        (600, 12, 1, "600 different values"),
    ] {
        let error = coded(codes, bits, scales, scales).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}
