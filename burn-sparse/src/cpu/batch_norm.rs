//! Batch normalisation with the statistics of the batch, and its gradients: every channel by one thread, in
//! two or three passes of which the later ones find it in a cache.

use pulp::{Simd, WithSimd};

use super::{Isa, team};

/// Elements of a task below which a second thread costs more than it gains.
const TASK: usize = 1 << 14;

/// Mean and biased variance of each channel.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Moments {
    /// `mean[c] = sum_{n,p} x[n,c,p] / m`.
    pub mean: Vec<f32>,
    /// `variance[c] = sum_{n,p} (x[n,c,p] - mean[c])^2 / m`.
    pub variance: Vec<f32>,
}

/// Scale, shift and numerical slack of a batch norm.
#[derive(Debug, Clone, Copy)]
pub struct Affine<'a> {
    /// One per channel.
    pub gamma: &'a [f32],
    /// One per channel; not read for gradients.
    pub beta: &'a [f32],
    /// Added to variances.
    pub epsilon: f32,
}

impl Affine<'_> {
    fn inverse(&self, variance: f32) -> f32 {
        1.0 / (variance + self.epsilon).sqrt()
    }
}

/// What came out and what comes back.
#[derive(Debug, Clone, Copy)]
pub struct Upstream<'a> {
    /// The gradient of the outputs.
    pub grad: &'a [f32],
    /// The outputs, if what is negative became zero: it has no gradient.
    pub output: Option<&'a [f32]>,
}

/// The planes of each channel, all images one after the other.
fn channels<T>(planes: impl Iterator<Item = T>, count: usize) -> Vec<Vec<T>> {
    let mut channels: Vec<Vec<T>> = (0..count).map(|_| Vec::new()).collect();
    for (index, plane) in planes.enumerate() {
        channels[index % count].push(plane);
    }
    channels
}

fn check(what: &str, len: usize, wanted: usize) {
    assert!(len == wanted, "{what}: {len} elements, not {wanted}");
}

/// `y[n,c,p] = act(gamma[c] (x[n,c,p] - mean[c]) / sqrt(variance[c] + epsilon) + beta[c] + residual[n,c,p])`
/// with the moments of `x`, which are returned; `act` is the identity or `max(0, .)`. All tensors
/// `[batch, channels, pixels]` without gaps; every output is written.
///
/// Sums over a plane are f32, those over planes f64.
///
/// # Panics
/// If slices have other lengths, or there are no elements to a channel.
///
/// # References
/// S. Ioffe and C. Szegedy, *Batch Normalization*, 2015, algorithm 1.
pub fn batch_norm_train(
    x: &[f32],
    [channels_of, pixels]: [usize; 2],
    affine: Affine<'_>,
    residual: Option<&[f32]>,
    relu: bool,
    out: &mut [f32],
) -> Moments {
    train(
        x,
        [channels_of, pixels],
        affine,
        residual,
        relu,
        out,
        Isa::current(),
    )
}

fn train(
    x: &[f32],
    [channels_of, pixels]: [usize; 2],
    affine: Affine<'_>,
    residual: Option<&[f32]>,
    relu: bool,
    out: &mut [f32],
    isa: Isa,
) -> Moments {
    assert!(
        pixels > 0 && channels_of > 0 && !x.is_empty(),
        "an empty batch has no mean"
    );
    check("x", x.len() % (channels_of * pixels), 0);
    check("out", out.len(), x.len());
    check("residual", residual.map_or(x.len(), <[f32]>::len), x.len());
    check("gamma", affine.gamma.len(), channels_of);
    check("beta", affine.beta.len(), channels_of);
    let per_channel = x.len() / channels_of;
    let outs = channels(out.chunks_exact_mut(pixels), channels_of);
    let mut done: Vec<_> = outs.into_iter().map(|out| (out, [0.0; 2])).collect();
    team::chunks(&mut done, 1, TASK.div_ceil(per_channel), |channel, done| {
        let (out, moments) = &mut done[0];
        let (mean, variance) = isa.dispatch(Normalize {
            planes: Planes {
                pixels,
                channel,
                channels: channels_of,
            },
            x,
            affine,
            residual,
            relu,
            out: core::mem::take(out),
        });
        *moments = [mean, variance];
    });
    let (mean, variance) = done
        .iter()
        .map(|(_, [mean, variance])| (*mean, *variance))
        .unzip();
    Moments { mean, variance }
}

/// The gradients of [`batch_norm_train`]: that of `x` into `x_grad`, that of the residual into `residual_grad`
/// where there was one, and those of `gamma` and `beta`, one per channel.
///
/// With `h = (x - mean) / sqrt(variance + epsilon)` and `g` the gradient where the output is not zero:
/// `beta_grad = sum g`, `gamma_grad = sum g h`, and
/// `x_grad = gamma / sqrt(variance + epsilon) (g - beta_grad / m - h gamma_grad / m)`.
///
/// # Panics
/// As there.
pub fn batch_norm_train_grad(
    x: &[f32],
    [channels_of, pixels]: [usize; 2],
    affine: Affine<'_>,
    moments: &Moments,
    upstream: Upstream<'_>,
    x_grad: &mut [f32],
    residual_grad: Option<&mut [f32]>,
) -> [Vec<f32>; 2] {
    let shape = [channels_of, pixels];
    grads(
        x,
        shape,
        affine,
        moments,
        upstream,
        (x_grad, residual_grad),
        Isa::current(),
    )
}

fn grads(
    x: &[f32],
    [channels_of, pixels]: [usize; 2],
    affine: Affine<'_>,
    moments: &Moments,
    upstream: Upstream<'_>,
    (x_grad, residual_grad): (&mut [f32], Option<&mut [f32]>),
    isa: Isa,
) -> [Vec<f32>; 2] {
    assert!(
        pixels > 0 && channels_of > 0 && !x.is_empty(),
        "an empty batch has no mean"
    );
    check("x", x.len() % (channels_of * pixels), 0);
    check("grad", upstream.grad.len(), x.len());
    check(
        "output",
        upstream.output.map_or(x.len(), <[f32]>::len),
        x.len(),
    );
    check("x_grad", x_grad.len(), x.len());
    check(
        "residual_grad",
        residual_grad.as_ref().map_or(x.len(), |grad| grad.len()),
        x.len(),
    );
    check("gamma", affine.gamma.len(), channels_of);
    check("mean", moments.mean.len(), channels_of);
    check("variance", moments.variance.len(), channels_of);
    let per_channel = x.len() / channels_of;
    let x_grads = channels(x_grad.chunks_exact_mut(pixels), channels_of);
    let residual_grads = match residual_grad {
        Some(grad) => channels(grad.chunks_exact_mut(pixels), channels_of),
        None => (0..channels_of).map(|_| Vec::new()).collect(),
    };
    let grads = x_grads.into_iter().zip(residual_grads);
    let mut done: Vec<_> = grads.map(|grads| (grads, [0.0; 2])).collect();
    team::chunks(&mut done, 1, TASK.div_ceil(per_channel), |channel, done| {
        let ((x_grad, residual_grad), of_affine) = &mut done[0];
        let (gamma, beta) = isa.dispatch(Gradients {
            planes: Planes {
                pixels,
                channel,
                channels: channels_of,
            },
            x,
            affine,
            moments,
            upstream,
            x_grad: core::mem::take(x_grad),
            residual_grad: core::mem::take(residual_grad),
        });
        *of_affine = [gamma, beta];
    });
    let (gamma, beta) = done
        .iter()
        .map(|(_, [gamma, beta])| (*gamma, *beta))
        .unzip();
    [gamma, beta]
}

/// The planes of one channel in a tensor.
#[derive(Clone, Copy)]
struct Planes {
    pixels: usize,
    channel: usize,
    channels: usize,
}

impl Planes {
    #[inline(always)]
    fn of<'a>(&self, tensor: &'a [f32], image: usize) -> &'a [f32] {
        &tensor[(image * self.channels + self.channel) * self.pixels..][..self.pixels]
    }

    fn images(&self, tensor: &[f32]) -> usize {
        tensor.len() / (self.channels * self.pixels)
    }
}

/// Lanes of the widest vector: loops over arrays of so many elements are what the compiler makes vectors of.
const WIDE: usize = 16;

/// `sum f(a, b)` over two planes, as `WIDE` partial sums and the rest.
#[inline(always)]
fn sum(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f64 {
    let (a, a_rest) = a.as_chunks::<WIDE>();
    let (b, b_rest) = b.as_chunks::<WIDE>();
    // Two sums for each lane hide the latency of an addition.
    let mut sums = [[0.0f32; WIDE]; 2];
    for (index, (a, b)) in a.iter().zip(b).enumerate() {
        let sums = &mut sums[index % 2];
        for lane in 0..WIDE {
            sums[lane] += f(a[lane], b[lane]);
        }
    }
    let mut total = 0.0f64;
    let [even, odd] = sums;
    for (even, odd) in even.into_iter().zip(odd) {
        total += f64::from(even + odd);
    }
    for (&a, &b) in a_rest.iter().zip(b_rest) {
        total += f64::from(f(a, b));
    }
    total
}

/// `out = f(a, b)`, element by element.
#[inline(always)]
fn map(a: &[f32], b: &[f32], out: &mut [f32], f: impl Fn(f32, f32) -> f32) {
    for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
        *out = f(a, b);
    }
}

/// The larger of both; unlike `f32::max` it lets NaN through, as the activation of Burn does.
#[inline(always)]
fn at_least(floor: f32, y: f32) -> f32 {
    if y < floor { floor } else { y }
}

struct Normalize<'a> {
    planes: Planes,
    x: &'a [f32],
    affine: Affine<'a>,
    residual: Option<&'a [f32]>,
    relu: bool,
    out: Vec<&'a mut [f32]>,
}

impl WithSimd for Normalize<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> (f32, f32) {
        let Self {
            planes,
            x,
            affine,
            residual,
            relu,
            out,
        } = self;
        let images = planes.images(x);
        let count = (images * planes.pixels) as f64;
        let mut total = 0.0;
        for image in 0..images {
            let x = planes.of(x, image);
            total += sum(
                x,
                x,
                #[inline(always)]
                |x, _| x,
            );
        }
        let mean = (total / count) as f32;
        let mut total = 0.0;
        for image in 0..images {
            let x = planes.of(x, image);
            total += sum(
                x,
                x,
                #[inline(always)]
                |x, _| (x - mean) * (x - mean),
            );
        }
        let variance = (total / count) as f32;
        let scale = affine.gamma[planes.channel] * affine.inverse(variance);
        let beta = affine.beta[planes.channel];
        let floor = if relu { 0.0 } else { f32::NEG_INFINITY };
        for (image, out) in out.into_iter().enumerate() {
            let x = planes.of(x, image);
            match residual {
                Some(residual) => map(
                    x,
                    planes.of(residual, image),
                    out,
                    #[inline(always)]
                    |x, more| at_least(floor, (x - mean) * scale + beta + more),
                ),
                None => map(
                    x,
                    x,
                    out,
                    #[inline(always)]
                    |x, _| at_least(floor, (x - mean) * scale + beta),
                ),
            }
        }
        (mean, variance)
    }
}

struct Gradients<'a> {
    planes: Planes,
    x: &'a [f32],
    affine: Affine<'a>,
    moments: &'a Moments,
    upstream: Upstream<'a>,
    x_grad: Vec<&'a mut [f32]>,
    residual_grad: Vec<&'a mut [f32]>,
}

impl WithSimd for Gradients<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> (f32, f32) {
        let Self {
            planes,
            x,
            affine,
            moments,
            upstream,
            mut x_grad,
            mut residual_grad,
        } = self;
        let images = planes.images(x);
        let mean = moments.mean[planes.channel];
        let inverse = affine.inverse(moments.variance[planes.channel]);
        let (mut sum_grad, mut sum_product) = (0.0, 0.0);
        // What passes the activation goes to the residual, or waits in the place of the result.
        for (image, x_grad) in x_grad.iter_mut().enumerate() {
            let grad = planes.of(upstream.grad, image);
            let to = residual_grad.get_mut(image).unwrap_or(x_grad);
            match upstream.output {
                Some(output) => map(
                    grad,
                    planes.of(output, image),
                    to,
                    #[inline(always)]
                    |grad, output| if output <= 0.0 { 0.0 } else { grad },
                ),
                None => to.copy_from_slice(grad),
            }
            let x = planes.of(x, image);
            sum_grad += sum(
                to,
                to,
                #[inline(always)]
                |grad, _| grad,
            );
            sum_product += sum(
                to,
                x,
                #[inline(always)]
                |grad, x| grad * (x - mean),
            );
        }
        let gamma_grad = sum_product * f64::from(inverse);
        let count = (images * planes.pixels) as f64;
        let scale = affine.gamma[planes.channel] * inverse;
        let mean_grad = (sum_grad / count) as f32;
        let slope = (gamma_grad / count) as f32 * inverse;
        for (image, out) in x_grad.iter_mut().enumerate() {
            let x = planes.of(x, image);
            match residual_grad.get(image) {
                Some(grad) => map(
                    grad,
                    x,
                    out,
                    #[inline(always)]
                    |grad, x| scale * (grad - mean_grad - slope * (x - mean)),
                ),
                None => {
                    for (out, &x) in out.iter_mut().zip(x) {
                        *out = scale * (*out - mean_grad - slope * (x - mean));
                    }
                }
            }
        }
        (gamma_grad as f32, sum_grad as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;
    use crate::reference::{self, error_bound};

    const EPSILON: f64 = 1e-5;

    struct Data {
        shape: [usize; 3],
        x: Vec<f32>,
        gamma: Vec<f32>,
        beta: Vec<f32>,
        residual: Option<Vec<f32>>,
        weights: Vec<f32>,
    }

    impl Data {
        fn new(shape: [usize; 3], residual: bool, seed: u64) -> Self {
            let len = shape.iter().product();
            Self {
                shape,
                x: catalogue::values(len, seed),
                gamma: catalogue::values(shape[1], seed + 1),
                beta: catalogue::values(shape[1], seed + 2),
                residual: residual.then(|| catalogue::values(len, seed + 3)),
                weights: catalogue::values(len, seed + 4),
            }
        }

        fn affine(&self) -> Affine<'_> {
            Affine {
                gamma: &self.gamma,
                beta: &self.beta,
                epsilon: EPSILON as f32,
            }
        }

        /// `sum weights · y` of the reference for other operands.
        fn loss(
            &self,
            x: &[f64],
            affine: [&[f64]; 2],
            residual: Option<&[f64]>,
            relu: bool,
        ) -> f64 {
            let y = reference::batch_norm_train(x, self.shape, affine, EPSILON, residual, relu);
            y.iter()
                .zip(&self.weights)
                .map(|(y, &w)| y * f64::from(w))
                .sum()
        }
    }

    fn wide(values: &[f32]) -> Vec<f64> {
        values.iter().copied().map(f64::from).collect()
    }

    fn close(label: &str, actual: &[f32], expected: &[f64], bound: f64) {
        assert_eq!(actual.len(), expected.len(), "{label}");
        for (index, (&a, &e)) in actual.iter().zip(expected).enumerate() {
            let off = (f64::from(a) - e).abs();
            assert!(off <= bound, "{label}: {a} at {index}, expected {e}");
        }
    }

    /// Batches, channels, pixels: single ones, whole vectors and not.
    const SHAPES: [[usize; 3]; 6] = [
        [2, 1, 1],
        [1, 3, 16],
        [3, 2, 15],
        [2, 5, 17],
        [5, 2, 33],
        [2, 3, 64],
    ];

    #[test]
    fn outputs_and_gradients_match_the_reference_on_every_instruction_set() {
        let isas = || Isa::ALL.into_iter().filter(|isa| isa.is_available());
        for (seed, shape) in SHAPES.into_iter().enumerate() {
            for (isa, residual, relu) in isas().flat_map(|isa| {
                [
                    (isa, false, false),
                    (isa, false, true),
                    (isa, true, false),
                    (isa, true, true),
                ]
            }) {
                let label = format!("{} {shape:?} {residual} {relu}", isa.name());
                let data = Data::new(shape, residual, 10 * seed as u64);
                let (len, count) = (data.x.len(), shape[0] * shape[2]);
                let size = [shape[1], shape[2]];
                let mut y = vec![f32::NAN; len];
                let add = data.residual.as_deref();
                let moments = train(&data.x, size, data.affine(), add, relu, &mut y, isa);

                let (x, gamma, beta) = (wide(&data.x), wide(&data.gamma), wide(&data.beta));
                let more = data.residual.as_deref().map(wide);
                let (affine, more) = ([&gamma[..], &beta[..]], more.as_deref());
                let expected = reference::batch_norm_train(&x, shape, affine, EPSILON, more, relu);
                // Deviations are divided by the standard deviation of their channel, of which the least counts.
                let inverse = moments
                    .variance
                    .iter()
                    .map(|&v| 1.0 / (f64::from(v) + EPSILON).sqrt());
                let inverse = inverse.fold(1.0, f64::max);
                let bound = inverse.powi(3) * error_bound(count + 4, 4.0, f64::from(f32::EPSILON));
                close(&label, &y, &expected, bound);

                let (mut x_grad, mut more_grad) = (vec![f32::NAN; len], vec![f32::NAN; len]);
                let upstream = Upstream {
                    grad: &data.weights,
                    output: relu.then_some(&y),
                };
                let residual_grad = residual.then_some(&mut more_grad[..]);
                let outs = (&mut x_grad[..], residual_grad);
                let [gamma_grad, beta_grad] =
                    grads(&data.x, size, data.affine(), &moments, upstream, outs, isa);

                // Central differences, in f64 and far from where the activation bends.
                let step = 1e-6;
                let slope = |of: &dyn Fn(f64) -> f64| (of(step) - of(-step)) / (2.0 * step);
                let moved = |values: &[f64], index: usize, by: f64| {
                    let mut values = values.to_vec();
                    values[index] += by;
                    values
                };
                let smooth = !relu || expected.iter().all(|&y| y == 0.0 || y > 1e-4);
                let bound = 8.0 * inverse.powi(2) * bound * count as f64 + 1e-6 * inverse.powi(4);
                let all =
                    |len: usize, of: &dyn Fn(usize) -> f64| (0..len).map(of).collect::<Vec<_>>();
                if smooth {
                    let wanted = all(len, &|i| {
                        slope(&|by| data.loss(&moved(&x, i, by), affine, more, relu))
                    });
                    close(&format!("{label}: x"), &x_grad, &wanted, bound);
                    let wanted = all(shape[1], &|i| {
                        slope(&|by| data.loss(&x, [&moved(&gamma, i, by), &beta], more, relu))
                    });
                    close(&format!("{label}: gamma"), &gamma_grad, &wanted, bound);
                    let wanted = all(shape[1], &|i| {
                        slope(&|by| data.loss(&x, [&gamma, &moved(&beta, i, by)], more, relu))
                    });
                    close(&format!("{label}: beta"), &beta_grad, &wanted, bound);
                }
                if residual {
                    let passed = y.iter().zip(&data.weights);
                    let wanted: Vec<f32> = passed
                        .map(|(&y, &w)| if relu && y <= 0.0 { 0.0 } else { w })
                        .collect();
                    assert_eq!(more_grad, wanted, "{label}");
                }
            }
        }
    }

    #[test]
    fn a_channel_of_one_value_becomes_beta_and_a_nan_stays_in_its_channel() {
        let affine = Affine {
            gamma: &[2.0, 3.0],
            beta: &[0.5, -1.0],
            epsilon: 1e-5,
        };
        let x = [7.0, 7.0, f32::NAN, 1.0, 7.0, 7.0, 2.0, 3.0];
        let mut y = [0.0; 8];
        let moments = batch_norm_train(&x, [2, 2], affine, None, true, &mut y);
        assert_eq!((moments.mean[0], moments.variance[0]), (7.0, 0.0));
        assert_eq!([y[0], y[1], y[4], y[5]], [0.5; 4]);
        assert!([y[2], y[3], y[6], y[7]].iter().all(|y| y.is_nan()));
    }

    #[test]
    #[should_panic(expected = "gamma: 1 elements, not 2")]
    fn parameters_of_another_layer_are_refused() {
        let affine = Affine {
            gamma: &[1.0],
            beta: &[0.0],
            epsilon: 1e-5,
        };
        batch_norm_train(&[0.0; 8], [2, 2], affine, None, false, &mut [0.0; 8]);
    }
}
