use burn_sparse::WeightShape;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

/// Offers at random: the dense one first, others cheaper in one way or the other.
fn offers(rng: &mut ChaCha8Rng) -> Offers {
    let mut offers = blank();
    for at in 0..rng.random_range(1..5) {
        let dense = Offer {
            sparsity: None,
            ms: 1.0,
            bytes: 100.0,
            harm: 0.0,
        };
        let others = (0..rng.random_range(1..6)).map(|_| Offer {
            sparsity: Some(Sparsity::row_balanced(0.5).unwrap()),
            ms: rng.random_range(0.1..1.0),
            bytes: rng.random_range(10.0..120.0),
            harm: rng.random_range(0.0..1.0),
        });
        offers.layers.push(OfferedLayer {
            path: format!("{at}"),
            offers: core::iter::once(dense).chain(others).collect(),
        });
    }
    offers
}

fn blank() -> Offers {
    let (table, known) = (LatencyTable::new(""), Sensitivity::new(""));
    let rest = Rest {
        ms: 0.2,
        bytes: 30.0,
    };
    Offers::new(&[], &table, &known, rest).unwrap()
}

/// Layers of which each can be twice as fast, more and more harmfully.
pub(super) fn ladder() -> Offers {
    let mut offers = blank();
    for at in 1..=10 {
        let offer = |sparsity, ms, harm| Offer {
            sparsity,
            ms,
            bytes: 100.0 * ms,
            harm,
        };
        let half = Some(Sparsity::row_balanced(0.5).unwrap());
        offers.layers.push(OfferedLayer {
            path: format!("{at}"),
            offers: vec![
                offer(None, 1.0, 0.0),
                offer(half, 0.5, 0.01 * f64::from(at)),
            ],
        });
    }
    offers
}

/// Least harm within bounds, over all combinations.
fn brute(layers: &[OfferedLayer], ms: f64, bytes: f64) -> Option<f64> {
    let Some((first, rest)) = layers.split_first() else {
        return (ms >= 0.0 && bytes >= 0.0).then_some(0.0);
    };
    let harms = first
        .offers
        .iter()
        .filter_map(|offer| Some(offer.harm + brute(rest, ms - offer.ms, bytes - offer.bytes)?));
    harms.min_by(f64::total_cmp)
}

#[test]
fn measured_networks_tell_the_rest_and_what_layers_take_in_a_network() {
    // Layers of 1 ms each alone, some more and some less where they are pruned; less in a network.
    let uneven = || {
        let mut offers = ladder();
        for (at, layer) in offers.layers.iter_mut().enumerate() {
            layer.offers[1].ms = 0.05 * (at + 1) as f64;
        }
        offers
    };
    let some = |first: usize, end: usize| -> Vec<usize> {
        let pruned = |at: &usize| (first..end).contains(at);
        (0..10).map(|at| usize::from(pruned(&at))).collect()
    };
    let ms = |chosen: &[usize]| {
        let layers = chosen.iter().enumerate();
        let of_layer = |(at, &pruned)| match pruned {
            0 => 0.8,
            _ => 0.6 * 0.05 * (at + 1) as f64,
        };
        2.0 + layers.map(of_layer).sum::<f64>()
    };
    let chosen = [some(0, 0), some(0, 10), some(0, 4), some(3, 9), some(5, 10)];
    let networks = |off: f64| {
        chosen
            .clone()
            .map(|chosen| (chosen.clone(), ms(&chosen) + off))
    };
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-4, "{a} and {b}");
    let told = uneven().with_measured(&networks(0.0));
    near(told.rest.ms, 2.0);
    near(told.shortened[0], 0.8);
    near(told.shortened[1], 0.6);
    let other = some(2, 7);
    near(told.selection(&other).ms, ms(&other));
    near(told.dense()[0], 10.0);
    told.check().unwrap();
    // A rest below nothing is none.
    let told = uneven().with_measured(&networks(-2.5));
    assert_eq!(told.rest.ms, 0.0);
    told.check().unwrap();
    // One network tells what the whole does.
    let whole = ladder().with_whole(7.0);
    let one = ladder().with_measured(&[(some(0, 0), 7.0)]);
    assert_eq!(one, whole);
    // Pruned networks that take longer: no layer is chosen for its time.
    let odd = ladder().with_measured(&[(some(0, 0), 7.0), (some(0, 10), 9.0)]);
    odd.check().unwrap();
    let chosen = odd.front(3);
    assert_eq!(chosen.len(), 1, "{chosen:?}");
    assert_eq!(ladder().with_measured(&[]), ladder());
}

#[test]
fn a_mapping_from_elsewhere_is_told_its_time() {
    let offers = ladder();
    let of = |ms: Option<[f64; 2]>, path: &str| Decision {
        path: path.into(),
        sparsity: None,
        ms,
        reason: String::new(),
    };
    let nothing = Mapping { layers: Vec::new() };
    assert_eq!(offers.ms_of(&nothing), offers.dense()[0]);
    // One layer half as fast again, one slower than dense, one without times, and one that has no offers.
    let layers = vec![
        of(Some([1.0, 0.5]), "1"),
        of(Some([1.0, 3.0]), "2"),
        of(None, "3"),
        of(Some([1.0, 0.1]), "other"),
    ];
    let mapping = Mapping { layers };
    assert!((offers.ms_of(&mapping) - (offers.dense()[0] - 0.5)).abs() < 1e-12);
    // In a network that takes half of what its layers take alone, that is worth a quarter.
    let short = ladder().with_whole(5.0);
    assert_eq!(short.shortened, [0.5; 2]);
    assert!((short.ms_of(&mapping) - 4.75).abs() < 1e-12);
    assert!((short.selection(&[1; 10]).ms - 2.5).abs() < 1e-12);
}

#[test]
fn one_bound_is_kept_at_the_least_harm() {
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    let (mut found, mut refused) = (0, 0);
    for _ in 0..200 {
        let offers = offers(rng);
        let [dense_ms, dense_bytes] = offers.dense();
        let part = rng.random_range(0.2..1.1);
        for (budget, limits) in [
            (format!("latency={part}x"), [part * dense_ms, f64::INFINITY]),
            (format!("size={part}x"), [f64::INFINITY, part * dense_bytes]),
        ] {
            let best = brute(
                &offers.layers,
                limits[0] - offers.rest.ms,
                limits[1] - offers.rest.bytes,
            );
            match offers.select(&budget.parse().unwrap()) {
                Ok(selection) => {
                    found += 1;
                    assert!(selection.ms <= limits[0] && selection.bytes <= limits[1]);
                    // Costs are rounded to thousandths of the budget.
                    assert!(selection.harm >= best.unwrap() - 1e-9);
                    let narrower = brute(
                        &offers.layers,
                        0.999 * limits[0] - offers.rest.ms,
                        0.999 * limits[1] - offers.rest.bytes,
                    );
                    assert!(narrower.is_none_or(|best| selection.harm <= best + 1e-9));
                }
                Err(error) => {
                    refused += 1;
                    assert!(best.is_none(), "{error}");
                    assert!(error.to_string().contains(&budget), "{error}");
                    assert!(error.to_string().contains("nearest"), "{error}");
                }
            }
        }
    }
    assert!(found > 100 && refused > 20, "{found}, {refused}");
}

#[test]
fn two_bounds_are_kept_together() {
    let rng = &mut ChaCha8Rng::seed_from_u64(2);
    let (mut found, mut missed, mut harm, mut least) = (0, 0, 0.0, 0.0);
    for _ in 0..300 {
        let offers = offers(rng);
        let [dense_ms, dense_bytes] = offers.dense();
        let parts = [0, 1].map(|_| rng.random_range(0.3..1.0));
        let budget = format!("latency={}x,size={}x", parts[0], parts[1]);
        let [ms, bytes] = [parts[0] * dense_ms, parts[1] * dense_bytes];
        let best = brute(
            &offers.layers,
            ms - offers.rest.ms,
            bytes - offers.rest.bytes,
        );
        match (offers.select(&budget.parse().unwrap()), best) {
            (Ok(selection), best) => {
                found += 1;
                assert!(selection.ms <= ms && selection.bytes <= bytes);
                harm += selection.harm;
                least += best.unwrap();
            }
            (Err(_), Some(_)) => missed += 1,
            (Err(_), None) => {}
        }
    }
    // Few networks cost the same: here none is missed, and hardly any is worse than it has to be.
    assert!(found > 100 && missed == 0, "{found}, {missed}");
    assert!(harm <= 1.001 * least, "{harm} of {least}");
}

#[test]
fn the_front_goes_from_dense_to_fastest() {
    let rng = &mut ChaCha8Rng::seed_from_u64(3);
    for _ in 0..50 {
        let offers = offers(rng);
        let front = offers.front(20);
        assert_eq!(front[0].ms, offers.dense()[0]);
        assert_eq!(front[0].harm, 0.0);
        let fastest: f64 = offers
            .layers
            .iter()
            .map(|layer| {
                layer
                    .offers
                    .iter()
                    .map(|o| o.ms)
                    .fold(f64::INFINITY, f64::min)
            })
            .sum();
        let last = front.last().unwrap();
        assert!((last.ms - offers.rest.ms - fastest).abs() < 1e-9);
        for pair in front.windows(2) {
            assert!(pair[1].ms < pair[0].ms && pair[1].harm >= pair[0].harm);
        }
    }
    // Nothing to choose is the dense network.
    assert_eq!(blank().front(5).len(), 1);
}

#[test]
fn times_and_harms_meet_by_layer_and_scheme() {
    let schemes = vec![
        Sparsity::row_balanced(0.5).unwrap(),
        Sparsity::punched(0.75, [2, 2]).unwrap(),
    ];
    let layer = LayerOptions {
        path: "a.weight".into(),
        operation: Operation::Conv2d,
        problem: conv([8, 8], 10, 3),
        shape: WeightShape::new(8, 8, [3, 3]),
        schemes,
    };
    let mut table = LatencyTable::new("imagined");
    for (case, packed_ms) in layer.cases().zip([3.0, 0.5]) {
        let entry = LatencyEntry {
            case,
            dense_ms: 2.0,
            packed_ms,
        };
        table.insert(entry).unwrap();
    }
    let layers = [layer];
    let rest = Rest::default();
    let unknown = Offers::new(&layers, &table, &Sensitivity::new("a"), rest);
    assert!(matches!(unknown, Err(MappingError::NoLoss(path)) if path == "a.weight"));
    let json = serde_json::json!({"network": "a", "dense": 1.0, "entries": [
        {"path": "a.weight", "sparsity": layers[0].schemes[0], "loss": 1.25},
        {"path": "a.weight", "sparsity": layers[0].schemes[1], "loss": 0.5},
    ]});
    let known: Sensitivity = serde_json::from_value(json).unwrap();
    let untimed = Offers::new(&layers, &LatencyTable::new("none"), &known, rest);
    assert!(matches!(untimed, Err(MappingError::NoTime { .. })));
    let offers = Offers::new(&layers, &table, &known, rest).unwrap();
    let offered = &offers.layers[0].offers;
    // Slower than dense counts as dense, and a loss below that of the dense network as none.
    let costs: Vec<[f64; 2]> = offered.iter().map(|offer| [offer.ms, offer.harm]).collect();
    assert_eq!(costs, [[2.0, 0.0], [2.0, 0.25], [0.5, 0.0]]);
    let weights = 8.0 * 8.0 * 9.0;
    assert_eq!(offered[0].bytes, 4.0 * weights);
    assert_eq!(offered[1].bytes, 0.5 * 6.0 * weights);
    assert_eq!(offered[2].bytes, 0.25 * 4.5 * weights);
    let selection = offers.select(&"latency=0.9x".parse().unwrap()).unwrap();
    let plan = selection.mapping.plan().unwrap();
    assert_eq!(plan.rules().len(), 1);
    assert!(selection.mapping.to_string().contains("0.25x the time"));
}

#[test]
fn budgets_are_read_and_refused() {
    for (text, again) in [
        ("latency=0.5x", "latency=0.5x"),
        (" latency = 3ms , loss=1.0 ", "latency=3ms,loss=1"),
        ("latency=2s", "latency=2000ms"),
        ("latency=250us", "latency=0.25ms"),
        ("size=2MiB,loss=0.5points", "size=2097152B,loss=0.5"),
        ("size=100kB,", "size=100000B"),
    ] {
        let budget: MapBudget = text.parse().unwrap();
        assert_eq!(budget.to_string(), again);
        let json = serde_json::to_string(&budget).unwrap();
        assert_eq!(serde_json::from_str::<MapBudget>(&json).unwrap(), budget);
    }
    for (text, reason) in [
        ("", "nothing"),
        (" , ", "nothing"),
        ("latency", "latency=0.5x"),
        ("latency=0.5", "`latency=0.5`"),
        ("latency=x", "`latency=x`"),
        ("speed=2x", "`speed=2x`"),
        ("size=3ms", "`size=3ms`"),
        ("loss=1x", "`loss=1x`"),
        ("latency=0x", "above 0"),
        ("latency=-1ms", "above 0"),
        ("latency=infx", ""),
        ("loss=200", "100 points"),
        ("latency=0.5x,latency=3ms", "twice"),
    ] {
        let error = text.parse::<MapBudget>().unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
}

#[test]
fn offers_of_a_file_are_checked() {
    let rng = &mut ChaCha8Rng::seed_from_u64(4);
    let offers = offers(rng);
    let json = serde_json::to_string(&offers).unwrap();
    let again: Offers = serde_json::from_str(&json).unwrap();
    again.check().unwrap();
    // Numbers come back to the last bit but one.
    let [a, b] = [&again, &offers].map(|offers| offers.select(&"latency=0.7x".parse().unwrap()));
    let same = |a: Selection, b: Selection| (a.ms - b.ms).abs() < 1e-9;
    assert!(a.ok().zip(b.ok()).is_none_or(|(a, b)| same(a, b)));
    let mut empty = offers.clone();
    empty.layers[0].offers.clear();
    let mut sparse = offers.clone();
    sparse.layers[0].offers.remove(0);
    let mut negative = offers.clone();
    negative.layers[0].offers[1].ms = -1.0;
    let mut none = offers;
    none.rest.ms = f64::NAN;
    for wrong in [empty, sparse, negative, none] {
        assert!(wrong.check().is_err());
    }
}

mod accuracy {
    use super::*;
    use crate::hardware::Effort;

    /// Every part of the harm costs as much accuracy; short training loses half as much again.
    fn accuracy(selection: &Selection, effort: Effort) -> Result<f64, MappingError> {
        let more = if effort == Effort::Proxy { 1.5 } else { 1.0 };
        Ok(0.9 - more * 0.1 * selection.harm)
    }

    #[test]
    fn the_fastest_within_a_loss_is_found_by_short_training_and_confirmed() {
        let offers = ladder();
        let budget = "loss=2.0".parse().unwrap();
        let mut efforts = Vec::new();
        let found = within_budget(&offers, &budget, [0.9; 2], |selection, effort| {
            efforts.push(effort);
            accuracy(selection, effort)
        })
        .unwrap();
        // 0.133 of harm after short training, 0.2 after all: the layers 1 to 5, and 6 would be too much.
        assert!((found.selection.harm - 0.15).abs() < 1e-9, "{found:?}");
        assert!((found.accuracy - 0.885).abs() < 1e-9);
        assert_eq!(efforts.last(), Some(&Effort::Full));
        assert!(efforts.len() < 10);
        assert_eq!(found.trials.len(), efforts.len());
    }

    #[test]
    fn a_proxy_that_is_too_hopeful_costs_a_step_each() {
        let offers = ladder();
        let budget = "loss=2.0".parse().unwrap();
        let found = within_budget(
            &offers,
            &budget,
            [0.9; 2],
            |selection, effort| match effort {
                Effort::Proxy => Ok::<_, MappingError>(0.9),
                Effort::Full => accuracy(selection, effort),
            },
        )
        .unwrap();
        assert!((found.selection.harm - 0.15).abs() < 1e-9, "{found:?}");
        let nothing = within_budget(&offers, &budget, [1.5; 2], accuracy).unwrap_err();
        assert!(
            nothing.to_string().contains("the dense network"),
            "{nothing}"
        );
    }

    #[test]
    fn both_bounds_are_kept_or_the_nearest_point_is_named() {
        let offers = ladder();
        let both = |text: &str| within_budget(&offers, &text.parse().unwrap(), [0.9; 2], accuracy);
        let found = both("latency=0.8x,loss=5").unwrap();
        assert!(found.selection.ms <= 0.8 * offers.dense()[0]);
        assert_eq!(found.trials.len(), 1);
        let error = both("latency=0.6x,loss=0.5").unwrap_err().to_string();
        assert!(
            error.contains("latency=0.6x,loss=0.5 (which lost"),
            "{error}"
        );
        assert!(error.contains("nearest is latency=0."), "{error}");
        let error = both("latency=0.6x,loss=0.01").unwrap_err().to_string();
        assert!(error.contains("nearest is the dense network"), "{error}");
    }
}
