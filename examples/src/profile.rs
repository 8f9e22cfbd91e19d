//! Where a network spends its time, and how far each layer is from what the processor can do.

use std::fmt;

use burn::module::Module;
use burn_sparse::ConvProblem;
use burn_sparse::cpu::{Isa, Peak, Share};
use burn_sparse::nn::{AnyWeight, LayerTime, NamedWeight, Profile, weights};
use serde::Serialize;

use crate::bench::table::{Table, digits};

/// One layer of a [`NetworkProfile`].
#[derive(Clone, Debug, Serialize)]
pub struct LayerProfile {
    /// The layer's path.
    pub layer: String,
    /// Median milliseconds within the network.
    pub ms: f64,
    /// Part of the network's time.
    pub part: f64,
    /// 10⁹ operations a second, two for each non-zero weight and output pixel.
    pub gflops: f64,
    /// Parts of the processor's rates.
    pub share: Share,
}

/// Layers alike: one kernel and stride on maps of one size.
#[derive(Clone, Debug, Serialize)]
pub struct KindProfile {
    /// Kernel, stride if any, and input: `3×3 / 2 on 56×56`.
    pub kind: String,
    /// How many layers.
    pub layers: usize,
    /// Milliseconds of all.
    pub ms: f64,
    /// Part of the network's time.
    pub part: f64,
    /// 10⁹ operations a second of all together.
    pub gflops: f64,
    /// Parts of the processor's rates; those of loads only where they are known of every layer.
    pub share: Share,
}

/// Milliseconds that the layers of a network could not fall below, if each ran at one of the
/// processor's rates; layers whose loads are not known count with their multiply-adds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Bounds {
    /// Multiply-adds alone.
    pub flops_ms: f64,
    /// Multiply-adds or loads from the first cache, whichever takes longer in a layer.
    pub loads_ms: f64,
    /// Multiply-adds or loads from the second cache, whichever takes longer in a layer.
    pub second_loads_ms: f64,
}

/// The layers of a network in one forward pass, beside what the processor can do.
///
/// Multiply-adds are those of weights that are not zero. Vector loads are those of a packed
/// convolution's inputs (see [`Plan::vector_loads`](burn_sparse::cpu::Plan::vector_loads)); of
/// other kernels they are not known.
#[derive(Clone, Debug, Serialize)]
pub struct NetworkProfile {
    /// What the processor can do.
    pub peak: Peak,
    /// The instruction set.
    pub isa: Isa,
    /// Threads.
    pub threads: usize,
    /// The layers, in the order in which they ran.
    pub layers: Vec<LayerProfile>,
    /// The same, layers alike together, in the order in which the first of each ran.
    pub kinds: Vec<KindProfile>,
    /// What the processor's rates allow.
    pub bounds: Bounds,
    /// Median milliseconds of a pass.
    pub ms: f64,
    /// Of them, those between the layers: pooling, and whatever else is no layer with a weight.
    pub rest_ms: f64,
}

impl NetworkProfile {
    /// What `times`, of passes through `model` on the CPU, are of `peak`.
    pub fn new<M: Module>(model: &M, times: &Profile, peak: Peak) -> Self {
        let named = weights(model);
        let isa = Isa::current();
        let mut layers = Vec::with_capacity(times.layers.len());
        let mut groups: Vec<(String, usize, Work)> = Vec::new();
        let mut bounds = Bounds::default();
        for time in &times.layers {
            let found = named.iter().find(|named| named.weight.id() == time.weight);
            let work = Work::of(time, found, isa);
            layers.push(LayerProfile {
                layer: found.map_or_else(|| "?".into(), |named| named.layer.clone()),
                ms: 1e3 * work.seconds,
                part: work.seconds / times.seconds,
                gflops: work.gflops(),
                share: work.share(peak),
            });
            work.bound(peak, &mut bounds);
            let kind = kind(&time.problem);
            match groups.iter_mut().find(|(other, ..)| *other == kind) {
                Some((_, layers, sum)) => {
                    *layers += 1;
                    sum.add(work);
                }
                None => groups.push((kind, 1, work)),
            }
        }
        let kinds = groups
            .into_iter()
            .map(|(kind, layers, work)| KindProfile {
                kind,
                layers,
                ms: 1e3 * work.seconds,
                part: work.seconds / times.seconds,
                gflops: work.gflops(),
                share: work.share(peak),
            })
            .collect();
        let inside: f64 = times.layers.iter().map(|layer| layer.seconds).sum();
        Self {
            peak,
            isa,
            threads: rayon::current_num_threads(),
            layers,
            kinds,
            bounds,
            ms: 1e3 * times.seconds,
            rest_ms: 1e3 * (times.seconds - inside).max(0.0),
        }
    }
}

/// What a layer, or several, do in their time.
#[derive(Clone, Copy, Debug)]
struct Work {
    seconds: f64,
    /// Multiply-adds of weights that are not zero.
    macs: u64,
    /// Vector loads of inputs, where known.
    loads: Option<u64>,
}

impl Work {
    fn of(time: &LayerTime, named: Option<&NamedWeight>, isa: Isa) -> Self {
        let csr = named.and_then(|named| named.weight.to_csr().ok());
        let macs = csr.as_ref().map_or(0, |csr| time.problem.macs(csr.nnz()));
        let direct = |named: &&NamedWeight| !matches!(named.weight, AnyWeight::Linear(_));
        // Shared kernels follow no plan of their coefficients.
        let planned = |named: &&NamedWeight| named.shared.is_none();
        let sparse = named
            .filter(direct)
            .filter(planned)
            .and_then(|named| named.weight.sparse());
        let loads = sparse.map(|weight| {
            let stored = weight.pattern().csr().stored();
            let plan = weight.pattern().plan(&time.problem);
            plan.vector_loads(&time.problem, stored, isa)
        });
        Self {
            seconds: time.seconds,
            macs,
            loads,
        }
    }

    fn add(&mut self, other: Self) {
        self.seconds += other.seconds;
        self.macs += other.macs;
        self.loads = self.loads.zip(other.loads).map(|(a, b)| a + b);
    }

    fn bound(&self, peak: Peak, bounds: &mut Bounds) {
        let flops = 2e3 * self.macs as f64 / peak.flops;
        let loaded = |rate: f64| flops.max(1e3 * self.loads.unwrap_or(0) as f64 / rate);
        bounds.flops_ms += flops;
        bounds.loads_ms += loaded(peak.loads);
        bounds.second_loads_ms += loaded(peak.second_loads);
    }

    fn gflops(&self) -> f64 {
        2.0 * self.macs as f64 / self.seconds / 1e9
    }

    fn share(&self, peak: Peak) -> Share {
        peak.share(self.macs, self.loads, self.seconds)
    }
}

fn kind(problem: &ConvProblem) -> String {
    let [kernel, stride, input] =
        [problem.kernel, problem.stride, problem.input].map(|[h, w]| format!("{h}×{w}"));
    match problem.stride {
        _ if input == "1×1" => "linear".into(),
        [1, 1] => format!("{kernel} on {input}"),
        [h, w] if h == w => format!("{kernel} / {h} on {input}"),
        _ => format!("{kernel} / {stride} on {input}"),
    }
}

impl fmt::Display for NetworkProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "peak of {} threads, {}: {} GFLOP/s of multiply-adds; {} x 10⁹ vector loads a second from \
             the first cache, {} from the second",
            self.threads,
            self.isa.name(),
            digits(self.peak.flops / 1e9),
            digits(self.peak.loads / 1e9),
            digits(self.peak.second_loads / 1e9)
        )?;
        let percent = |part: f64| format!("{:.0} %", 100.0 * part);
        let mut table = Table::new(&[
            "layer", "ms", "part", "GF/s", "of peak", "of loads", "of 2nd", "",
        ]);
        let loads = |part: Option<f64>| part.map_or_else(|| "-".into(), percent);
        for layer in &self.layers {
            table.push(vec![
                layer.layer.clone(),
                format!("{:.3}", layer.ms),
                format!("{:.1} %", 100.0 * layer.part),
                digits(layer.gflops),
                percent(layer.share.flops),
                loads(layer.share.loads),
                loads(layer.share.second_loads),
                String::new(),
            ]);
        }
        table.push(vec![
            "between the layers".into(),
            format!("{:.3}", self.rest_ms),
            format!("{:.1} %", 100.0 * self.rest_ms / self.ms),
        ]);
        table.push(vec!["all".into(), format!("{:.3}", self.ms)]);
        writeln!(f, "{table}")?;
        let mut table = Table::new(&[
            "layers alike",
            "",
            "ms",
            "part",
            "GF/s",
            "of peak",
            "of loads",
            "of 2nd",
            "",
        ]);
        for kind in &self.kinds {
            table.push(vec![
                kind.kind.clone(),
                kind.layers.to_string(),
                format!("{:.3}", kind.ms),
                format!("{:.1} %", 100.0 * kind.part),
                digits(kind.gflops),
                percent(kind.share.flops),
                loads(kind.share.loads),
                loads(kind.share.second_loads),
                String::new(),
            ]);
        }
        writeln!(f, "{table}")?;
        writeln!(
            f,
            "at these rates the layers would take {} ms by their multiply-adds, {} ms if all inputs came \
             from the first cache, {} ms if all came from the second",
            digits(self.bounds.flops_ms),
            digits(self.bounds.loads_ms),
            digits(self.bounds.second_loads_ms)
        )
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{Device, Distribution, Tensor};
    use models::{Classifier, ResNetConfig};

    use super::*;
    use crate::infer::{Packing, store};

    #[test]
    fn layers_have_names_and_shares() {
        let device = Device::flex();
        let model = Classifier::fold(ResNetConfig::cifar(1, 10).with_width(8).init(&device));
        let input = Tensor::<4>::random([1, 3, 16, 16], Distribution::Default, &device);
        let (packed, _) = store(model, Packing::Csr, &input).unwrap();
        let times = Profile::of(3, &device, || drop(packed.forward(input.clone())));
        let peak = Peak {
            flops: 1e15,
            loads: 1e14,
            second_loads: 5e13,
        };
        let profile = NetworkProfile::new(&packed, &times, peak);
        assert_eq!(profile.layers.len(), weights(&packed).len());
        let first = &profile.layers[0];
        assert_eq!(first.layer, "conv1");
        assert!(first.share.loads.unwrap() > 0.0 && first.share.loads.unwrap() < 1.0);
        let last = profile.layers.last().unwrap();
        assert_eq!((last.layer.as_str(), last.share.loads), ("fc", None));
        assert!(last.share.flops > 0.0);
        let sum: f64 = profile.kinds.iter().map(|kind| kind.ms).sum();
        let layers: f64 = profile.layers.iter().map(|layer| layer.ms).sum();
        assert!((sum - layers).abs() < 1e-9 * layers, "{sum} {layers}");
        let Bounds {
            flops_ms,
            loads_ms,
            second_loads_ms,
        } = profile.bounds;
        assert!(0.0 < flops_ms && flops_ms <= loads_ms && loads_ms <= second_loads_ms);
        let first = &profile.kinds[0];
        assert!(
            first.kind == "3×3 on 16×16" && first.layers > 1,
            "{first:?}"
        );
        assert_eq!(profile.kinds.last().unwrap().kind, "linear");
        let text = profile.to_string();
        assert!(text.contains("conv1") && text.contains("between"), "{text}");
    }
}
