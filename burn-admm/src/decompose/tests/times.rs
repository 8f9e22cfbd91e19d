//! Ranks by the clock.

use burn::module::Module;
use burn::nn::PaddingConfig2d;
use burn::tensor::{Device, Tensor};
use burn_sparse::ConvProblem;
use burn_sparse::nn::{Conv2d, Conv2dConfig, Trace};

use super::*;

#[derive(Module, Debug)]
struct Net {
    first: Conv2d,
    second: Conv2d,
}

impl Net {
    fn new() -> Self {
        let device = Device::flex();
        let same = PaddingConfig2d::Explicit(1, 1, 1, 1);
        let conv = |channels| {
            let config = Conv2dConfig::new(channels, [3, 3]).with_padding(same.clone());
            config.init(&device)
        };
        Self {
            first: conv([8, 16]),
            second: conv([16, 16]),
        }
    }

    fn plan(&self) -> RankPlan {
        let x = Tensor::zeros([1, 8, 6, 6], &Device::flex());
        let trace = Trace::of(|| drop(self.second.forward(self.first.forward(x))));
        RankPlan::new(RankChoice::new(RankRule::Energy(1.0))).with_geometry(self, &trace)
    }
}

fn problem(channels: [usize; 2]) -> ConvProblem {
    ConvProblem::new(1, channels, [6, 6], [3, 3]).with_padding([1, 1])
}

/// Times that only depend on which step of four a rank is on.
fn staircase(step: usize) -> RankTimes {
    let stairs = |rank: usize| rank.div_ceil(4) as f64;
    let layer = |[input, output]: [usize; 2]| {
        let grid = super::super::times::grid(shape(output, input, [3, 3]), step);
        LayerTimes {
            problem: problem([input, output]),
            dense_ms: stairs(input) * stairs(output) + 1.5,
            factored_ms: grid
                .map(|r| (r, stairs(r.output) * stairs(r.input) + 1.0))
                .collect(),
        }
    };
    RankTimes {
        layers: vec![layer([8, 16]), layer([16, 16])],
        ..RankTimes::new(step)
    }
}

fn milliseconds(times: &RankTimes, report: &RankReport) -> f64 {
    let of = |layer: &RankDecision| {
        let channels = [layer.shape[1], layer.shape[0]];
        let times = times.of(&problem(channels)).unwrap();
        layer.ranks.map_or(times.dense_ms, |ranks| {
            let mut known = times.factored_ms.iter();
            known.find(|(known, _)| *known == ranks).unwrap().1
        })
    };
    report.layers.iter().map(of).sum()
}

#[test]
fn a_budget_of_time_is_kept_with_the_largest_ranks_of_a_step() {
    let (net, times) = (Net::new(), staircase(1));
    let whole: f64 = times.layers.iter().map(|layer| layer.dense_ms).sum();
    for part in [0.9, 0.7, 0.5, 0.3] {
        let plan = net.plan().within_time(&net, &times, part).unwrap();
        let report = plan.explain(&net).unwrap();
        let now = milliseconds(&times, &report);
        assert!(now <= part * whole + 1e-9, "{part}: {now} of {whole}");
        for layer in &report.layers {
            let Some(ranks) = layer.ranks else { continue };
            // Less rank on the same step would lose for nothing; all of both is the layer as it is.
            let [out, input] = [layer.shape[0], layer.shape[1]];
            let up = |rank: usize, all: usize| rank.next_multiple_of(4).min(all);
            let largest = Ranks::new(up(ranks.output, out), up(ranks.input, input));
            let whole = largest == Ranks::new(out, input);
            assert!(ranks == largest || whole, "{part}: {report}");
        }
    }
}

#[test]
fn no_other_ranks_within_the_time_lose_less() {
    let (net, times) = (Net::new(), staircase(4));
    let whole: f64 = times.layers.iter().map(|layer| layer.dense_ms).sum();
    let tails = net.plan().tails(&net).unwrap();
    let lost = |choice: [Option<Ranks>; 2]| -> f64 {
        let both = tails.iter().zip(choice);
        both.map(|((.., tails), ranks)| ranks.map_or(0.0, |r| tails.discarded(r)))
            .sum()
    };
    let options = |layer: &LayerTimes| -> Vec<(Option<Ranks>, f64)> {
        let factored = layer.factored_ms.iter().map(|&(r, ms)| (Some(r), ms));
        [(None, layer.dense_ms)]
            .into_iter()
            .chain(factored)
            .collect()
    };
    for part in [0.8, 0.6, 0.45] {
        let plan = net.plan().within_time(&net, &times, part).unwrap();
        let report = plan.explain(&net).unwrap();
        let found = lost([report.layers[0].ranks, report.layers[1].ranks]);
        let mut best = f64::INFINITY;
        for (a, cost_a) in options(&times.layers[0]) {
            for (b, cost_b) in options(&times.layers[1]) {
                if cost_a + cost_b <= part * whole {
                    best = best.min(lost([a, b]));
                }
            }
        }
        assert!(
            found <= best * (1.0 + 1e-9) + 1e-12,
            "{part}: {found}, not {best}"
        );
    }
}

#[test]
fn layers_that_factors_make_slower_stay_whole() {
    let net = Net::new();
    let mut times = staircase(4);
    for (_, ms) in &mut times.layers[0].factored_ms {
        *ms += 100.0;
    }
    let plan = net.plan().within_time(&net, &times, 0.8).unwrap();
    let report = plan.explain(&net).unwrap();
    assert!(
        report.layer("first.weight").unwrap().ranks.is_none(),
        "{report}"
    );
    assert!(
        report.layer("second.weight").unwrap().ranks.is_some(),
        "{report}"
    );
    let tdc = net.plan().by_tdc(&net, &times, 0.3, 0.15).unwrap();
    assert!(
        tdc.explain(&net)
            .unwrap()
            .layer("first.weight")
            .unwrap()
            .ranks
            .is_none()
    );
}

#[test]
fn the_rule_of_tdc_takes_the_fastest_and_on_its_step_the_largest() {
    let (net, times) = (Net::new(), staircase(1));
    let beta = 0.5;
    let report = net.plan().by_tdc(&net, &times, beta, 0.15).unwrap();
    let report = report.explain(&net).unwrap();
    for (layer, channels) in report.layers.iter().zip([[8, 16], [16, 16]]) {
        let (problem, times) = (problem(channels), times.of(&problem(channels)).unwrap());
        let most = (1.0 - beta) * problem.dense_macs() as f64;
        let macs =
            |ranks: Ranks| ranks.macs(shape(channels[1], channels[0], [3, 3]), 36, 36) as f64;
        let feasible = times
            .factored_ms
            .iter()
            .filter(|(ranks, _)| macs(*ranks) <= most);
        let fastest = feasible
            .clone()
            .map(|(_, ms)| *ms)
            .min_by(f64::total_cmp)
            .unwrap();
        let on_step = feasible.filter(|(_, ms)| *ms <= fastest * 1.02);
        let largest = on_step
            .map(|(ranks, _)| macs(*ranks))
            .max_by(f64::total_cmp);
        assert_eq!(layer.ranks.map(macs), largest, "{report}");
    }
    // Nothing gains 99 % of its time.
    let none = net.plan().by_tdc(&net, &times, beta, 0.99).unwrap();
    assert!(
        none.explain(&net)
            .unwrap()
            .layers
            .iter()
            .all(|layer| layer.ranks.is_none())
    );
}

#[test]
fn layers_of_one_geometry_are_measured_once_and_only_once() {
    let device = Device::flex();
    let net = Net {
        first: Conv2dConfig::new([8, 8], [3, 3])
            .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
            .init(&device),
        second: Conv2dConfig::new([8, 8], [3, 3])
            .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
            .init(&device),
    };
    let plan = net.plan();
    let mut times = RankTimes::new(4).on("here");
    let mut seen = Vec::new();
    times
        .measure(&net, &plan, &device, |done, all| seen.push((done, all)))
        .unwrap();
    assert_eq!(seen, [(0, 1), (1, 1)]);
    assert_eq!(times.layers.len(), 1);
    assert_eq!(times.layers[0].factored_ms.len(), 2 * 2 - 1);
    times.check().unwrap();
    let before = times.clone();
    times.measure(&net, &plan, &device, |_, _| {}).unwrap();
    assert_eq!(times, before);
    let blind = RankPlan::new(RankChoice::new(RankRule::Energy(1.0)));
    let unknown = RankTimes::new(4).measure(&net, &blind, &device, |_, _| {});
    assert!(matches!(unknown, Err(RankPlanError::NoGeometry)));
}

#[test]
fn ranks_that_a_narrow_layer_cannot_have_are_not_measured() {
    // 3 channels by 9 positions: no output rank above 27, but 64 without a last factor.
    let device = Device::flex();
    let stem = Conv2dConfig::new([3, 64], [3, 3]).init(&device);
    let x = Tensor::<4>::zeros([1, 3, 4, 4], &device);
    let trace = Trace::of(|| drop(stem.forward(x)));
    let plan = RankPlan::new(RankChoice::new(RankRule::Energy(1.0))).with_geometry(&stem, &trace);
    let mut times = RankTimes::new(8);
    times.measure(&stem, &plan, &device, |_, _| {}).unwrap();
    let measured = times.layers.iter().flat_map(|layer| &layer.factored_ms);
    let outputs: Vec<usize> = measured.map(|(ranks, _)| ranks.output).collect();
    assert_eq!(outputs, [8, 16, 24]);
    times.layers[0].factored_ms[0].0 = Ranks::new(28, 3);
    assert!(times.check().unwrap_err().contains("28"));
}

#[test]
fn times_that_cannot_be_are_refused() {
    let net = Net::new();
    let plan = net.plan();
    for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let mut times = staircase(4);
        times.layers[0].factored_ms[2].1 = wrong;
        let within = plan.within_time(&net, &times, 0.5);
        assert!(matches!(within, Err(RankPlanError::Times(_))), "{wrong}");
        let tdc = plan.by_tdc(&net, &times, 0.5, 0.15);
        assert!(matches!(tdc, Err(RankPlanError::Times(_))), "{wrong}");
    }
    let mut times = staircase(4);
    times.layers[1].factored_ms[0].0 = Ranks::new(17, 1);
    assert!(times.check().unwrap_err().contains("17"));
    for part in [0.0, f64::NAN, -1.0] {
        let within = plan.within_time(&net, &staircase(4), part);
        assert!(matches!(within, Err(RankPlanError::Part(_))), "{part}");
    }
    let unreachable = plan.within_time(&net, &staircase(4), 0.01).unwrap_err();
    let RankPlanError::Budget { least, what, .. } = unreachable else {
        panic!("{unreachable}");
    };
    assert_eq!(what, "time");
    assert!(
        plan.within_time(&net, &staircase(4), least * 1.000_001)
            .is_ok()
    );
    let none = plan.within_time(&net, &RankTimes::new(4), 0.5);
    assert!(matches!(none, Err(RankPlanError::NoTimes)));
}

#[test]
fn files_of_times_come_back_or_say_why_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("more").join("times.json");
    let times = staircase(4).on("a device");
    times.save(&path).unwrap();
    assert_eq!(RankTimes::load(&path).unwrap(), times);
    let text = std::fs::read_to_string(&path).unwrap();
    for (wrong, says) in [
        (text[..text.len() / 2].to_owned(), "EOF"),
        ("[1, 2]".to_owned(), "invalid"),
        (text.replacen("\"step\": 4", "\"step\": 0", 1), "steps of 0"),
        (
            text.replacen("\"dense_ms\": ", "\"dense_ms\": -", 1),
            "ms for a layer",
        ),
        (text.replacen("\"groups\": 1", "\"groups\": 0", 1), "group"),
    ] {
        std::fs::write(&path, wrong).unwrap();
        let error = RankTimes::load(&path).unwrap_err().to_string();
        assert!(error.contains(says), "{says}: {error}");
        assert!(error.contains("times.json"), "{error}");
    }
    assert!(matches!(
        RankTimes::load(&folder.path().join("nothing.json")),
        Err(RankTimesError::Io { .. })
    ));
}

#[test]
fn plans_are_held_against_each_other_before_they_are_trained_for() {
    let (net, times) = (Net::new(), staircase(4));
    let whole: f64 = times.layers.iter().map(|layer| layer.dense_ms).sum();
    let tails = net.plan().tails(&net).unwrap();
    let tdc = net.plan().by_tdc(&net, &times, 0.5, 0.15).unwrap();
    let by_tdc = tdc.predicted(&net, &times).unwrap();
    // In the time that the rule takes, the knapsack discards no more.
    let part = by_tdc.ms / by_tdc.dense_ms;
    let knapsack = net.plan().within_time(&net, &times, part).unwrap();
    let by_knapsack = knapsack.predicted(&net, &times).unwrap();
    assert!(by_knapsack.ms <= by_tdc.ms * (1.0 + 1e-9));
    assert!(by_knapsack.discarded <= by_tdc.discarded + 1e-9);
    for (plan, predicted) in [(tdc, by_tdc), (knapsack, by_knapsack)] {
        let report = plan.explain(&net).unwrap();
        assert_eq!(predicted.timed, 2);
        assert!((predicted.dense_ms - whole).abs() < 1e-12);
        assert!((predicted.ms - milliseconds(&times, &report)).abs() < 1e-12);
        assert_eq!(predicted.macs, report.macs());
        assert_eq!(predicted.flop_ratio, report.flop_ratio());
        let lost = tails
            .iter()
            .zip(&report.layers)
            .map(|((.., tails), layer)| layer.ranks.map_or(0.0, |ranks| tails.discarded(ranks)));
        assert!((predicted.discarded - lost.sum::<f64>()).abs() < 1e-12);
        let factored = report.layers.iter().filter(|layer| layer.ranks.is_some());
        assert_eq!(predicted.factored, factored.count());
    }
    // What was not timed cannot be told.
    let rule = RankRule::Fixed(Ranks::new(3, 3));
    let other = net.plan().with_rule("second.weight", RankChoice::new(rule));
    let error = other.unwrap().predicted(&net, &times).unwrap_err();
    assert!(error.to_string().contains("[3, 3]"), "{error}");
}
