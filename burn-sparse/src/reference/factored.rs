//! A convolution as three.

use crate::ConvProblem;

/// `y = expand (core ∗ (reduce x)) + bias`, where
///
/// ```text
/// t[n,b,y,x] = Σ_i reduce[b,i] x[n,i,y,x]
/// s[n,a,e,f] = Σ_{b,r,q} core[a,b,r,q] t[n,b, e·u + r·d − top, f·v + q·d − left]
/// y[n,o,e,f] = bias[o] + Σ_a expand[o,a] s[n,a,e,f]
/// ```
///
/// A factor that is not there is the identity; the core then has all input or all output channels.
/// `d1` and `d2` are the channels that enter and leave the core.
///
/// # Panics
/// Without a core, or if a slice is shorter than its shape says.
pub fn factored_conv2d(
    input: &[f32],
    [reduce, core, expand]: [Option<&[f32]>; 3],
    [d1, d2]: [usize; 2],
    bias: Option<&[f32]>,
    problem: &ConvProblem,
) -> Vec<f64> {
    let core = core.expect("a core");
    let [height, width] = problem.input;
    let [out_height, out_width] = problem.output();
    let (channels, outputs) = (problem.in_channels, problem.out_channels);
    let reduced = |image: usize, b: usize, y: usize, x: usize| -> f64 {
        let at = |i: usize| f64::from(input[((image * channels + i) * height + y) * width + x]);
        match reduce {
            None => at(b),
            Some(reduce) => (0..channels)
                .map(|i| f64::from(reduce[b * channels + i]) * at(i))
                .sum(),
        }
    };
    let inner: Vec<f64> = (0..problem.batch * d1 * height * width)
        .map(|index| {
            let (x, y) = (index % width, index / width % height);
            let (b, image) = (index / width / height % d1, index / width / height / d1);
            reduced(image, b, y, x)
        })
        .collect();
    let cored = |image: usize, a: usize, e: usize, f: usize| -> f64 {
        let mut sum = 0.0;
        for b in 0..d1 {
            for r in 0..problem.kernel[0] {
                for q in 0..problem.kernel[1] {
                    let y = e * problem.stride[0] + r * problem.dilation[0];
                    let x = f * problem.stride[1] + q * problem.dilation[1];
                    let y = y.wrapping_sub(problem.padding[0][0]);
                    let x = x.wrapping_sub(problem.padding[1][0]);
                    if y >= height || x >= width {
                        continue;
                    }
                    let tap = ((a * d1 + b) * problem.kernel[0] + r) * problem.kernel[1] + q;
                    let value = inner[((image * d1 + b) * height + y) * width + x];
                    sum += f64::from(core[tap]) * value;
                }
            }
        }
        sum
    };
    let mut out = Vec::with_capacity(problem.batch * outputs * out_height * out_width);
    for image in 0..problem.batch {
        let planes: Vec<f64> = (0..d2 * out_height * out_width)
            .map(|index| {
                let (f, e) = (index % out_width, index / out_width % out_height);
                cored(image, index / out_width / out_height, e, f)
            })
            .collect();
        for o in 0..outputs {
            let bias = bias.map_or(0.0, |bias| f64::from(bias[o]));
            for pixel in 0..out_height * out_width {
                let at = |a: usize| planes[a * out_height * out_width + pixel];
                let sum: f64 = match expand {
                    None => at(o),
                    Some(expand) => (0..d2).map(|a| f64::from(expand[o * d2 + a]) * at(a)).sum(),
                };
                out.push(bias + sum);
            }
        }
    }
    out
}
