//! Where a network spends its time, and how far each layer is from what the processor can do.

use std::fmt;

use burn::module::Module;
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
        let layers: Vec<_> = times
            .layers
            .iter()
            .map(|time| {
                let found = named.iter().find(|named| named.weight.id() == time.weight);
                layer(time, found, times.seconds, peak, isa)
            })
            .collect();
        let inside: f64 = times.layers.iter().map(|layer| layer.seconds).sum();
        Self {
            peak,
            isa,
            threads: rayon::current_num_threads(),
            layers,
            ms: 1e3 * times.seconds,
            rest_ms: 1e3 * (times.seconds - inside).max(0.0),
        }
    }
}

fn layer(
    time: &LayerTime,
    named: Option<&NamedWeight>,
    total: f64,
    peak: Peak,
    isa: Isa,
) -> LayerProfile {
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
    LayerProfile {
        layer: named.map_or_else(|| "?".into(), |named| named.layer.clone()),
        ms: 1e3 * time.seconds,
        part: time.seconds / total,
        gflops: 2.0 * macs as f64 / time.seconds / 1e9,
        share: peak.share(macs, loads, time.seconds),
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
        write!(f, "{table}")
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
        let text = profile.to_string();
        assert!(text.contains("conv1") && text.contains("between"), "{text}");
    }
}
