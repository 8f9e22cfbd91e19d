//! Whether a kernel's outputs are right, on a sample that takes well under a second.

use burn_sparse::reference::{self, error_bound};
use rand::seq::index;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Dtype, Operands};

/// Multiply-adds that the reference may take. It runs twice, the second time on magnitudes.
const WORK: u64 = 40_000_000;

/// The precision of TF32, which some cards use for products of f32 in dense kernels.
const TF32: f64 = 1.0 / 1024.0;

/// How far outputs were from the reference, where they were checked.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verified {
    /// Outputs compared.
    pub checked: usize,
    /// Outputs there are.
    pub outputs: usize,
    /// Largest absolute error.
    pub max_error: f64,
    /// What rounding explains at the output nearest to its bound.
    pub bound: f64,
    /// Largest error in parts of its own bound; below one, or the row is an error.
    pub of_bound: f64,
}

/// Outputs of the reference: whole planes of some channels of some images.
#[derive(Clone, Debug)]
pub struct Expected {
    outputs: usize,
    /// Where in the output, what it should be, the sum of its terms' magnitudes, and how many.
    samples: Vec<Sample>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: usize,
    value: f64,
    magnitude: f64,
    terms: usize,
}

impl Expected {
    /// Computes the reference on as much of a layer as it can in a fraction of a second: the first
    /// and the last image and channel, and others at random.
    ///
    /// Each channel of each image is a problem of its own, with one output channel and the inputs
    /// of its group.
    #[must_use]
    pub fn new(operands: &Operands, seed: u64) -> Self {
        let problem = operands.problem();
        let [batch, rows, height, width] = problem.output_shape();
        let plane = height * width;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let each = (problem.row_len() * plane).max(1) as u64;
        let wanted = (WORK / each).clamp(1, (batch * rows) as u64) as usize;
        let images = choose(&mut rng, batch, wanted.div_ceil(rows).max(2));
        let channels = choose(&mut rng, rows, wanted.div_ceil(images.len()));
        let inputs = problem.in_channels / problem.groups;
        let input_len = inputs * problem.input[0] * problem.input[1];
        let mut one = problem.with_batch(1).with_groups(1);
        (one.in_channels, one.out_channels) = (inputs, 1);
        let pairs = images
            .iter()
            .flat_map(|&n| channels.iter().map(move |&k| (n, k)));
        let mut samples = Vec::new();
        let absolute = |values: &[f32]| values.iter().map(|v| v.abs()).collect::<Vec<f32>>();
        for (image, channel) in pairs.take(wanted) {
            let mut weight = vec![0.0; problem.row_len()];
            let mut terms = 0;
            for (column, value) in operands.csr().row(channel) {
                weight[column] = value;
                terms += 1;
            }
            let group = channel / (rows / problem.groups);
            let start = (image * problem.groups + group) * input_len;
            let input = &operands.input()[start..start + input_len];
            let values = reference::conv2d(input, &weight, None, &one);
            let magnitudes = reference::conv2d(&absolute(input), &absolute(&weight), None, &one);
            let first = (image * rows + channel) * plane;
            let planes = values.into_iter().zip(magnitudes);
            samples.extend(
                (first..)
                    .zip(planes)
                    .map(|(at, (value, magnitude))| Sample {
                        at,
                        value,
                        magnitude,
                        terms,
                    }),
            );
        }
        Self {
            outputs: batch * rows * plane,
            samples,
        }
    }

    /// Compares a kernel's outputs.
    ///
    /// # Errors
    /// A sentence with the worst output, if rounding operands of `dtype` and f32 sums do not
    /// explain it.
    pub fn check(&self, outputs: &[f32], dtype: Dtype) -> Result<Verified, String> {
        self.compare(outputs, |sample| {
            error_bound(sample.terms, sample.magnitude, dtype.epsilon())
        })
    }

    /// [`check`](Self::check) for kernels that are not ours: where f32 sums do not explain the
    /// outputs, products in TF32 or sums in `dtype` may. The second result says whether they had
    /// to.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn check_rival(&self, outputs: &[f32], dtype: Dtype) -> Result<(Verified, bool), String> {
        if let Ok(verified) = self.check(outputs, dtype) {
            return Ok((verified, false));
        }
        let reduced = |sample: &Sample| {
            let unit = dtype.epsilon().max(TF32);
            let sums = match dtype {
                Dtype::F32 => 0.0,
                // Zeros are terms too in a dense sum, but add no error.
                Dtype::F16 | Dtype::Bf16 => sample.terms as f64 * unit,
            };
            error_bound(sample.terms, sample.magnitude, unit) + sums * sample.magnitude
        };
        Ok((self.compare(outputs, reduced)?, true))
    }

    fn compare(&self, outputs: &[f32], bound: impl Fn(&Sample) -> f64) -> Result<Verified, String> {
        if outputs.len() != self.outputs {
            let (got, wanted) = (outputs.len(), self.outputs);
            return Err(format!("{got} outputs instead of {wanted}"));
        }
        let mut verified = Verified {
            checked: self.samples.len(),
            outputs: self.outputs,
            max_error: 0.0,
            bound: 0.0,
            of_bound: 0.0,
        };
        for sample in &self.samples {
            let got = f64::from(outputs[sample.at]);
            let (error, bound) = ((got - sample.value).abs(), bound(sample));
            // So that NaN does not pass.
            if error.is_nan() || error > bound {
                return Err(format!(
                    "output {} is {got:e}, the reference {:e}: off by {error:.2e}, and rounding \
                     explains {bound:.2e}",
                    sample.at, sample.value
                ));
            }
            verified.max_error = verified.max_error.max(error);
            if error / bound >= verified.of_bound {
                (verified.of_bound, verified.bound) = (error / bound, bound);
            }
        }
        Ok(verified)
    }
}

/// The first and the last of `len` and others at random, about `amount`, ascending.
fn choose(rng: &mut impl Rng, len: usize, amount: usize) -> Vec<usize> {
    if amount >= len {
        return (0..len).collect();
    }
    let mut chosen = index::sample(rng, len, amount).into_vec();
    if let [first, second, ..] = chosen.as_mut_slice() {
        (*first, *second) = (0, len - 1);
    }
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::bench::{Layer, Pattern};

    fn operands(line: &str, batch: usize) -> Operands {
        let layer: Layer = line.parse().unwrap();
        let problem = layer.problem(batch).unwrap();
        let csr = Pattern::Unstructured.weight(&problem, 0.7, 1).unwrap();
        let device = Device::flex();
        Operands::new(layer.kind(), problem, csr, Dtype::F32, 2, &device, true)
    }

    #[test]
    fn right_outputs_pass_and_wrong_ones_do_not() {
        for line in [
            "kind=conv in=4 out=6 size=9x8 kernel=3 stride=2 padding=1 groups=2",
            "kind=conv1d in=5 out=3 size=20 kernel=4",
            "kind=linear in=30 out=7",
        ] {
            let operands = operands(line, 3);
            let expected = Expected::new(&operands, 1);
            for form in operands.forms() {
                let mut outputs = form().values();
                let verified = expected.check(&outputs, Dtype::F32).unwrap();
                assert_eq!(verified.checked, outputs.len(), "{line}");
                assert!(verified.of_bound <= 1.0);
                let off = 1e-3 * expected.samples[5].magnitude as f32;
                for wrong in [f32::NAN, outputs[5] + off] {
                    outputs[5] = wrong;
                    let error = expected.check(&outputs, Dtype::F32).unwrap_err();
                    assert!(error.contains("output 5"), "{error}");
                }
                assert!(expected.check_rival(&outputs, Dtype::F32).unwrap().1);
                assert!(expected.check(&outputs[1..], Dtype::F32).is_err());
            }
        }
    }

    /// Enough work that only a part is checked, which includes first and last.
    #[test]
    fn large_layers_are_sampled() {
        let operands = operands("kind=conv in=64 out=64 size=112 kernel=3 padding=1", 3);
        let expected = Expected::new(&operands, 1);
        let checked = expected.samples.len();
        assert!(
            (4 * 112 * 112..expected.outputs / 10).contains(&checked),
            "{checked}"
        );
        assert_eq!(expected.samples[0].at, 0);
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        assert_eq!(choose(&mut rng, 3, 9), [0, 1, 2]);
        let some = choose(&mut rng, 100, 5);
        assert_eq!((some[0], some[some.len() - 1]), (0, 99));
    }
}
