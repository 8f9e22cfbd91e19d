//! The sparse product with values as codes, of single entries and of panels.

use burn::tensor::DType;
use burn_cubecl::CubeDevice;
use burn_sparse::{
    format::{CodeWords, Csr, PanelEntries},
    kernel::{Choice, Codes, Epilogue, GatherTile, LinearTile, Panels, sparse_linear},
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

/// A product of codes, and what it gives exactly.
struct Product {
    sizes: [usize; 3],
    csr: Csr,
    words: CodeWords,
    /// Rows that agree, for a weight in bands of so many.
    panels: Option<PanelEntries>,
    dtype: DType,
    fused: bool,
    input: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
    exact: Vec<Exact>,
    what: String,
}

impl Product {
    fn new(
        sizes: [usize; 3],
        (bits, kind): (u8, &str),
        band: Option<usize>,
        dtype: DType,
        fused: bool,
    ) -> Self {
        let [m, features, rows] = sizes;
        let mut rng = rng((m * 1000 + features + rows) as u64);
        let csr = match band {
            Some(height) => {
                let bands = Structure::Bands(height);
                structured(&mut rng, [rows, features], 1, bands, dtype)
            }
            None => weight(&mut rng, [rows, features], 0.3, dtype),
        };
        let codes = (0..csr.stored()).map(|entry| (entry * 7919) as u16 % (1 << bits));
        let codes = BitCodes::new(bits, codes).unwrap();
        let quantized = Quantized::new(codes, levels(kind, bits, rows), rows).unwrap();
        let values = quantized.values(csr.row_ptr());
        let mut random = |len| numbers(&mut rng, len, dtype);
        let [input, bias, residual] = [m * features, rows, m * rows].map(&mut random);
        let more = fused.then_some((&bias[..], &residual[..]));
        let exact = exact_product(&csr, &values, &input, more);
        let panels = band.map(|height| {
            PanelEntries::new(&csr, 1, height, features).expect("a valid height and width")
        });
        Self {
            sizes,
            words: CodeWords::new(&csr, &quantized).unwrap(),
            csr,
            panels,
            dtype,
            fused,
            input,
            bias,
            residual,
            exact,
            what: format!("{sizes:?} {bits} {kind} {dtype:?} bands {band:?}"),
        }
    }

    fn check(&self, name: &str, device: &CubeDevice, choice: Choice<LinearTile>) {
        let ([m, features, rows], dtype) = (self.sizes, self.dtype);
        let index = integers(device, self.words.index().to_vec());
        let codes = Codes::new(index, &self.words);
        assert_eq!(codes.bits(), self.words.bits());
        let panels = self.panels.as_ref().map(|panels| {
            let index = integers(device, panels.index().to_vec());
            Panels::new(index, panels)
        });
        let mut entries = entries(device, &self.csr, self.csr.columns(), dtype)
            .with_panels(panels)
            .with_codes(codes);
        if self.csr.stored() > 0 {
            // Whoever reads the values instead of the codes is found out.
            let nothing = vec![f32::NAN; self.csr.stored()];
            entries.values = floats(device, &nothing, [self.csr.stored()], dtype);
        }
        let epilogue = Epilogue {
            bias: self
                .fused
                .then(|| floats(device, &self.bias, [rows], dtype)),
            residual: self
                .fused
                .then(|| floats(device, &self.residual, [m, rows], dtype)),
            relu: self.fused,
        };
        let input = floats(device, &self.input, [m, features], dtype);
        poison(device, m * rows, dtype);
        let got = sparse_linear(input, entries, epilogue, rows, choice);
        let what = format!("{name} {} {choice:?}", self.what);
        check(&read(got), &self.exact, dtype, &what);
    }

    /// With several tiles, and the one that the rule of thumb chooses.
    fn check_all(&self) {
        let [m, ..] = self.sizes;
        for (name, device) in devices() {
            let units = max_units(&device);
            let tiles = [[64, 16, 1], [32, 4, 3], [units.min(48), 1, 2]]
                .into_iter()
                .filter(|&[wide, lanes, inputs]| {
                    let shared = lanes == 1 || has_shared_memory(&device);
                    wide <= units && inputs <= m && shared
                })
                .map(GatherTile::new);
            for tile in tiles {
                let tile = match self.panels {
                    Some(_) => LinearTile::GatherPanelCodes(tile),
                    None => LinearTile::GatherCodes(tile),
                };
                self.check(name, &device, Choice::Forced(tile));
            }
            if m <= 8 {
                self.check(name, &device, Choice::Heuristic);
            }
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
        // One kernel is compiled for each kind and tile: panels are there for one of each kind.
        let bands: &[_] = match bits {
            3 | 4 => &[None, Some(4)],
            _ => &[None],
        };
        for &band in bands {
            Product::new([3, 130, 17], (bits, kind), band, DType::F32, true).check_all();
        }
    }
}

#[test]
fn every_shape_of_codes() {
    for shape in [[1, 40, 17], [5, 1, 9], [2, 64, 1], [1, 1, 1], [13, 29, 31]] {
        Product::new(shape, (4, "nonzero"), None, DType::F32, false).check_all();
        Product::new(shape, (3, "signed"), None, DType::F16, true).check_all();
    }
}

#[test]
fn panels_of_codes() {
    for (shape, band) in [([1, 40, 17], 16), ([5, 1, 9], 4), ([13, 29, 31], 4)] {
        Product::new(shape, (4, "nonzero"), Some(band), DType::F16, false).check_all();
    }
}
