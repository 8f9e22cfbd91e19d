//! Timing a layer in both forms, on its device.

use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor, module::conv2d, ops::ConvOptions};
use serde::{Deserialize, Serialize};

use super::verify::{Difference, floats};
use crate::{
    ConvProblem, cpu,
    ops::{
        ConvWindow, Epilogue, SparseWeight, dense_conv2d, dense_linear, is_flex, sparse_conv2d,
        sparse_linear,
    },
};

/// Which layer it is: each has a dense form of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    Linear,
    Conv1d,
    Conv2d,
}

/// A layer's input, dense weight and packed weight, ready to run either way.
///
/// A 1-D convolution runs as the 2-D one of height 1 that it is; a linear layer as itself.
pub(super) struct Candidate {
    pub(super) problem: ConvProblem,
    pub(super) kind: Kind,
    pub(super) input: Tensor<4>,
    pub(super) dense: Tensor<4>,
    pub(super) sparse: SparseWeight,
}

impl Candidate {
    fn options(&self) -> ConvOptions<2> {
        ConvOptions::new_with_padding(
            self.problem.stride,
            self.problem.padding.map(|[before, after]| (before, after)),
            self.problem.dilation,
            self.problem.groups,
        )
    }

    /// What the dense layer runs on its input; the linear weight is laid out as the layer holds it.
    pub(super) fn dense(&self) -> Layer<'_> {
        if self.kind == Kind::Linear {
            let problem = self.problem;
            let weight: Tensor<2> = self
                .dense
                .clone()
                .reshape([problem.out_channels, problem.in_channels])
                .transpose();
            // As the layer holds it, not a view that every product would have to copy.
            let (data, at) = (weight.clone().into_data(), weight.device());
            let weight = Tensor::from_data(data, (&at, weight.dtype()));
            return Box::new(move |x| images(dense_linear(rows(x), weight.clone(), None)));
        }
        if self.kind == Kind::Conv1d {
            return Box::new(|x| conv2d(x, self.dense.clone(), None, self.options()));
        }
        let window = self.window();
        Box::new(move |x| dense_conv2d(x, self.dense.clone(), None, &window))
    }

    fn window(&self) -> ConvWindow<2> {
        let problem = &self.problem;
        ConvWindow {
            kernel: problem.kernel,
            stride: problem.stride,
            padding: problem.padding,
            dilation: problem.dilation,
            groups: problem.groups,
        }
    }

    /// How far both forms are apart on its input.
    pub(super) fn difference(&self) -> Difference {
        let x = || self.input.clone();
        let (dense, packed) = (self.dense()(x()), self.packed()(x()));
        Difference::between(&floats(dense), &floats(packed))
    }

    /// Median milliseconds of both forms. On Flex as networks are to run there, on a thread of rayon's
    /// ([`cpu::on_pool`]): from elsewhere each layer would pay for waking them, which hides what kernels take.
    pub(super) fn medians(&self, runs: usize, device: &Device) -> [f64; 2] {
        let (dense, packed) = (self.dense(), self.packed());
        let x = || self.input.clone();
        let work = || medians(&|| dense(x()), &|| packed(x()), runs, device);
        if is_flex(device) {
            cpu::on_pool(work)
        } else {
            work()
        }
    }

    /// The kernel of this crate.
    pub(super) fn packed(&self) -> Layer<'_> {
        if self.kind == Kind::Linear {
            return Box::new(|x| images(sparse_linear(rows(x), &self.sparse, Epilogue::new())));
        }
        let window = self.window();
        Box::new(move |x| sparse_conv2d(x, &self.sparse, &window, Epilogue::new()))
    }
}

/// A layer without its parameters: images in, images out.
pub(super) type Layer<'a> = Box<dyn Fn(Tensor<4>) -> Tensor<4> + Sync + 'a>;

/// The rows of a linear layer, which are images of one pixel here.
fn rows(images: Tensor<4>) -> Tensor<2> {
    let [rows, features, ..] = images.dims();
    images.reshape([rows, features])
}

fn images(rows: Tensor<2>) -> Tensor<4> {
    let [images, channels] = rows.dims();
    rows.reshape([images, channels, 1, 1])
}

/// Whether every run of one took less than half of every run of the other.
fn decided([first, second]: [&[Duration]; 2]) -> bool {
    let apart = |slow: &[Duration], fast: &[Duration]| {
        slow.iter().min() > fast.iter().max().map(|fast| *fast * 2).as_ref()
    };
    apart(first, second) || apart(second, first)
}

/// Longest time given to one candidate; slow layers get fewer runs, never fewer than three.
const BUDGET: Duration = Duration::from_millis(400);

/// Runs `form` and waits for the device.
fn time(form: &(dyn Fn() -> Tensor<4> + Sync), device: &Device) -> Duration {
    let start = Instant::now();
    let out = form();
    device
        .sync()
        .expect("the device runs what was queued on it");
    drop(out);
    start.elapsed()
}

/// Median milliseconds of both, run in turn so that a slower machine slows both alike. The device
/// is synchronised inside the timed region.
fn medians(
    first: &(dyn Fn() -> Tensor<4> + Sync),
    second: &(dyn Fn() -> Tensor<4> + Sync),
    runs: usize,
    device: &Device,
) -> [f64; 2] {
    let least = if is_flex(device) { 2 } else { 3 };
    let early = |run: usize, times: &[Vec<Duration>]| {
        run >= least && matches!(times, [first, second] if decided([first, second]))
    };
    let times = in_turn(&[first, second], runs, device, early);
    [times[0], times[1]]
}

/// Median milliseconds of each form. Rounds end when `enough` says so, of their number and all times, or when
/// the budget of all forms is spent.
pub(super) fn in_turn(
    forms: &[&(dyn Fn() -> Tensor<4> + Sync)],
    runs: usize,
    device: &Device,
    enough: impl Fn(usize, &[Vec<Duration>]) -> bool,
) -> Vec<f64> {
    // The first runs compile kernels and tune them, where there is something to compile.
    let warmup = if is_flex(device) { 1 } else { 2 };
    for _ in 0..warmup {
        for form in forms {
            time(form, device);
        }
    }
    let mut times = vec![Vec::new(); forms.len()];
    let mut spent = Duration::ZERO;
    for run in 0..runs.max(3) {
        if enough(run, &times) || run >= 3 && spent > BUDGET * forms.len() as u32 {
            break;
        }
        for (times, form) in times.iter_mut().zip(forms) {
            let elapsed = time(form, device);
            spent += elapsed;
            times.push(elapsed);
        }
    }
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64() * 1e3
    };
    times.into_iter().map(median).collect()
}
