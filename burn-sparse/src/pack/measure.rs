//! Timing a layer in both forms, on its device.

use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor, module::conv2d, ops::ConvOptions};

use crate::{
    ConvProblem, cpu,
    ops::{
        ConvWindow, Epilogue, SparseWeight, dense_conv2d, dense_linear, is_flex, sparse_conv2d,
        sparse_linear,
    },
};

/// Which layer it is: each has a dense form of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
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

    fn rows(&self) -> Tensor<2> {
        let problem = &self.problem;
        self.input
            .clone()
            .reshape([problem.batch, problem.in_channels])
    }

    /// What the dense layer runs; the linear weight is laid out as the layer holds it.
    pub(super) fn dense(&self) -> Box<dyn Fn() -> Tensor<4> + '_> {
        if self.kind == Kind::Linear {
            let problem = self.problem;
            let (x, weight) = (self.rows(), self.dense.clone());
            let weight: Tensor<2> = weight
                .reshape([problem.out_channels, problem.in_channels])
                .transpose();
            // As the layer holds it, not a view that every product would have to copy.
            let weight = Tensor::from_data(weight.clone().into_data(), &weight.device());
            return Box::new(move || dense_linear(x.clone(), weight.clone(), None).unsqueeze());
        }
        if self.kind == Kind::Conv1d {
            return Box::new(|| {
                conv2d(self.input.clone(), self.dense.clone(), None, self.options())
            });
        }
        let window = self.window();
        Box::new(move || dense_conv2d(self.input.clone(), self.dense.clone(), None, &window))
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

    /// Median milliseconds of both forms. On Flex as networks are to run there, on a thread of rayon's
    /// ([`cpu::on_pool`]): from elsewhere each layer would pay for waking them, which hides what kernels take.
    pub(super) fn medians(&self, runs: usize, device: &Device) -> [f64; 2] {
        let work = || medians(&self.dense(), &self.packed(), runs, device);
        if is_flex(device) {
            cpu::on_pool(work)
        } else {
            work()
        }
    }

    /// The kernel of this crate.
    pub(super) fn packed(&self) -> Box<dyn Fn() -> Tensor<4> + '_> {
        if self.kind == Kind::Linear {
            let x = self.rows();
            return Box::new(move || {
                sparse_linear(x.clone(), &self.sparse, Epilogue::new()).unsqueeze()
            });
        }
        let window = self.window();
        Box::new(move || sparse_conv2d(self.input.clone(), &self.sparse, &window, Epilogue::new()))
    }
}

/// Whether every run of one took less than half of every run of the other.
fn decided([first, second]: &[Vec<Duration>; 2]) -> bool {
    let apart = |slow: &[Duration], fast: &[Duration]| {
        slow.iter().min() > fast.iter().max().map(|fast| *fast * 2).as_ref()
    };
    apart(first, second) || apart(second, first)
}

/// Longest time given to one candidate; slow layers get fewer runs, never fewer than three.
const BUDGET: Duration = Duration::from_millis(400);

/// Median milliseconds of both, run in turn so that a slower machine slows both alike. The device
/// is synchronised inside the timed region.
fn medians(
    first: &dyn Fn() -> Tensor<4>,
    second: &dyn Fn() -> Tensor<4>,
    runs: usize,
    device: &Device,
) -> [f64; 2] {
    let sync = || {
        device
            .sync()
            .expect("the device runs what was queued on it")
    };
    let time = |run: &dyn Fn() -> Tensor<4>| {
        let start = Instant::now();
        let out = run();
        sync();
        drop(out);
        start.elapsed()
    };
    // The first runs compile kernels and tune them, where there is something to compile.
    let (warmup, least) = if is_flex(device) { (1, 2) } else { (2, 3) };
    for _ in 0..warmup {
        time(first);
        time(second);
    }
    let mut times = [Vec::new(), Vec::new()];
    let mut spent = Duration::ZERO;
    for run in 0..runs.max(3) {
        if run >= least && decided(&times) || run >= 3 && spent > 2 * BUDGET {
            break;
        }
        for (times, run) in times.iter_mut().zip([first, second]) {
            let elapsed = time(run);
            spent += elapsed;
            times.push(elapsed);
        }
    }
    times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64() * 1e3
    })
}
