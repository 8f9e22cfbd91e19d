//! The sparse product with values as codes.

use burn::tensor::DType;
use burn_sparse::{
    SparseError,
    kernel::{CodedEntries, Epilogue, GatherTile, coded_linear},
    quant::{BitCodes, Levels, Quantized},
};

use crate::support::*;

fn levels(kind: &str, bits: u8, rows: usize) -> Levels {
    let scales = |count: usize| {
        (0..count)
            .map(|row| 0.8f32.powi((row % 7) as i32))
            .collect()
    };
    match kind {
        "nonzero" => Levels::Nonzero {
            scales: scales(rows),
        },
        "signed" => Levels::Signed { scales: scales(1) },
        _ => Levels::Codebook((0..1 << bits).map(|c| (c as f32 + 0.5).cos()).collect()),
    }
}

fn run([m, features, rows]: [usize; 3], bits: u8, kind: &str, dtype: DType, fused: bool) {
    let mut rng = rng((m * 1000 + features + rows) as u64);
    let csr = weight(&mut rng, [rows, features], 0.3, dtype);
    let codes = (0..csr.stored()).map(|entry| (entry * 7919) as u16 % (1 << bits));
    let codes = BitCodes::new(bits, codes).unwrap();
    let quantized = Quantized::new(codes, levels(kind, bits, rows), rows).unwrap();
    let values = quantized.values(csr.row_ptr());
    let input = numbers(&mut rng, m * features, dtype);
    let bias = numbers(&mut rng, rows, dtype);
    let residual = numbers(&mut rng, m * rows, dtype);
    let mut exact = vec![Exact::default(); m * rows];
    for i in 0..m {
        for k in 0..rows {
            let sum = &mut exact[i * rows + k];
            for j in csr.row_ptr()[k] as usize..csr.row_ptr()[k + 1] as usize {
                let x = input[i * features + csr.columns()[j] as usize];
                sum.add(f64::from(values[j]) * f64::from(x));
            }
            if fused {
                sum.add(f64::from(bias[k]));
                sum.add(f64::from(residual[i * rows + k]));
                *sum = sum.relu();
            }
        }
    }
    for (name, device) in devices() {
        let entries = CodedEntries::new(&csr, &quantized, &device).unwrap();
        assert_eq!((entries.nnz(), entries.bits()), (csr.stored(), bits.into()));
        let units = max_units(&device);
        let tiles = [[64, 16, 1], [32, 4, 3], [units.min(48), 1, 2]]
            .into_iter()
            .filter(|&[wide, lanes, inputs]| {
                let shared = lanes == 1 || has_shared_memory(&device);
                wide <= units && inputs <= m && shared
            })
            .map(|tile| Some(GatherTile::new(tile)));
        for tile in tiles.chain([None]) {
            let epilogue = Epilogue {
                bias: fused.then(|| floats(&device, &bias, [rows], dtype)),
                residual: fused.then(|| floats(&device, &residual, [m, rows], dtype)),
                relu: fused,
            };
            let input = floats(&device, &input, [m, features], dtype);
            poison(&device, m * rows, dtype);
            let got = coded_linear(input, &entries, epilogue, tile);
            let what =
                format!("{name} [{m}, {features}] x {rows} {bits} {kind} {dtype:?} {tile:?}");
            check(&read(got), &exact, dtype, &what);
        }
    }
}

#[test]
fn every_kind_of_code() {
    for (bits, kind) in [
        (1, "nonzero"),
        (2, "signed"),
        (3, "nonzero"),
        (3, "codebook"),
        (4, "signed"),
        (5, "codebook"),
        (8, "signed"),
        (8, "codebook"),
    ] {
        run([3, 130, 17], bits, kind, DType::F32, true);
    }
}

#[test]
fn every_shape_of_codes() {
    for shape in [[1, 40, 17], [5, 1, 9], [2, 64, 1], [1, 1, 1], [13, 29, 31]] {
        run(shape, 4, "nonzero", DType::F32, false);
        run(shape, 3, "signed", DType::F16, true);
    }
}

#[test]
fn codes_that_do_not_fit_are_refused() {
    let mut rng = rng(1);
    let csr = weight(&mut rng, [4, 10], 0.5, DType::F32);
    for (_, device) in devices() {
        let stored = csr.stored();
        for (len, bits, scales, says) in [
            (stored + 1, 4, 1, "codes for a matrix"),
            (stored, 9, 1, "codes of 9 bits"),
            (stored, 4, 3, "3 scales"),
        ] {
            let codes = BitCodes::new(bits, (0..len).map(|_| 0)).unwrap();
            let levels = Levels::Signed {
                scales: vec![1.0; scales],
            };
            let quantized = Quantized::new(codes, levels, scales).unwrap();
            let error = CodedEntries::new(&csr, &quantized, &device).unwrap_err();
            assert!(matches!(error, SparseError::Format { .. }));
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
