use burn::tensor::Device;
use burn_sparse::{Budget, ConvProblem, Sparsity};

use super::fit::amounts;
use super::*;

mod devices;
mod network;
mod search;
mod select;
mod sensitivity;

fn conv(channels: [usize; 2], size: usize, kernel: usize) -> ConvProblem {
    let padding = kernel / 2;
    ConvProblem::new(1, channels, [size, size], [kernel, kernel]).with_padding([padding, padding])
}

fn case(problem: ConvProblem, sparsity: f64) -> LatencyCase {
    let scheme = Sparsity::RowBalanced(Budget::Sparsity(sparsity));
    LatencyCase::new(Operation::Conv2d, problem, scheme)
}

/// Layers of a few sizes on a device whose times are `rates` times what they do, and a `step` in the channels.
fn imagined(rates: [f64; 4], step: f64) -> LatencyTable {
    let mut table = LatencyTable::new("imagined");
    for channels in [16, 32, 48, 64, 128] {
        for size in [7, 14, 28, 56] {
            for kernel in [1, 3] {
                for sparsity in [0.5, 0.75, 0.9] {
                    let case = case(conv([channels, channels], size, kernel), sparsity);
                    let ms = |density: f64| {
                        let amounts = amounts(&case, density);
                        let sum: f64 = rates.iter().zip(amounts).map(|(r, a)| r * a).sum();
                        sum * (1.0 + step * f64::from(u8::from(channels % 32 != 0)))
                    };
                    let entry = LatencyEntry {
                        case,
                        dense_ms: ms(1.0),
                        packed_ms: 3.0 * ms(case.density().unwrap()),
                    };
                    table.insert(entry).unwrap();
                }
            }
        }
    }
    table
}

#[test]
fn a_roofline_is_found_again() {
    let table = imagined([0.02, 0.4, 0.1, 0.003], 0.0);
    let error = LatencyModel::held_out(&table, 5).unwrap().unwrap();
    assert!(error.worst < 1e-3, "{error:?}");
    assert!(error.tau > 0.999);
    assert_eq!(error.cases, 2 * table.entries().len());
}

#[test]
fn what_no_roofline_says_is_learnt_from_neighbours() {
    let table = imagined([0.02, 0.4, 0.1, 0.003], 0.5);
    let model = LatencyModel::fit(&table).unwrap();
    for entry in table.entries() {
        let [dense, packed] = model.predict(&entry.case).unwrap().unwrap();
        assert!(
            (dense / entry.dense_ms - 1.0).abs() < 0.05,
            "{entry:?}: {dense}"
        );
        assert!(
            (packed / entry.packed_ms - 1.0).abs() < 0.05,
            "{entry:?}: {packed}"
        );
    }
    let error = LatencyModel::held_out(&table, 5).unwrap().unwrap();
    assert!(error.median < 0.25 && error.tau > 0.9, "{error:?}");
}

#[test]
fn kinds_that_nobody_measured_are_not_guessed() {
    let table = imagined([0.02, 0.4, 0.1, 0.003], 0.0);
    let model = LatencyModel::fit(&table).unwrap();
    let known = case(conv([24, 24], 10, 3), 0.8);
    assert!(model.predict(&known).unwrap().is_some());
    let other = LatencyCase {
        sparsity: Sparsity::filter(0.5).unwrap(),
        ..known
    };
    assert_eq!(model.predict(&other).unwrap(), None);
    assert_eq!(
        model
            .predict(&known.with_precision(Precision::F16))
            .unwrap(),
        None
    );
    let empty = LatencyTable::new("none");
    assert!(LatencyModel::held_out(&empty, 5).unwrap().is_none());
    // No layer has no channels.
    assert!(model.predict(&case(conv([0, 8], 10, 3), 0.5)).is_err());
}

#[test]
fn tau_counts_pairs() {
    assert_eq!(kendall_tau(&[], &[]), 0.0);
    assert_eq!(kendall_tau(&[1.0, 2.0], &[5.0, 5.0]), 0.0);
    assert_eq!(
        kendall_tau(&[1.0, 2.0, 3.0, 4.0], &[4.0, 3.0, 2.0, 1.0]),
        -1.0
    );
    // Five of six pairs alike, and one tie in the second list: 5 / sqrt(6 * 5).
    let tau = kendall_tau(&[1.0, 2.0, 3.0, 4.0], &[1.0, 2.0, 2.0, 4.0]);
    assert!((tau - 5.0 / 30f64.sqrt()).abs() < 1e-12);
}

#[test]
fn every_kind_of_layer_is_measured_once() {
    let device = Device::flex();
    let layer = conv([8, 8], 6, 3);
    let grouped = ConvProblem {
        groups: 4,
        ..conv([8, 8], 6, 3)
    };
    let long = ConvProblem::new(2, [6, 10], [1, 9], [1, 3]);
    let rows = ConvProblem::new(5, [12, 7], [1, 1], [1, 1]);
    let schemes = [
        Sparsity::row_balanced(0.5).unwrap(),
        Sparsity::punched(0.5, [4, 2]).unwrap(),
        Sparsity::block_column_row(0.5, [4, 8]).unwrap(),
        Sparsity::filter(0.5).unwrap(),
    ];
    let mut cases: Vec<LatencyCase> = Vec::new();
    for scheme in schemes {
        cases.push(LatencyCase::new(Operation::Conv2d, layer, scheme));
        cases.push(LatencyCase::new(Operation::Conv2d, grouped, scheme));
        cases.push(LatencyCase::new(Operation::Conv1d, long, scheme));
        cases.push(LatencyCase::new(Operation::Linear, rows, scheme));
    }
    cases.push(cases[0].with_precision(Precision::F16));
    // Twice the same.
    cases.push(cases[0]);
    let mut table = LatencyTable::new("flex");
    let mut told = Vec::new();
    // Interrupted after three.
    let stop = |table: &LatencyTable, done: usize, all: usize| {
        told.push([table.entries().len(), done, all]);
        match done {
            3 => Err(MappingError::Stopped("enough".into())),
            _ => Ok(()),
        }
    };
    assert!(matches!(
        table.measure(&cases, &device, stop),
        Err(MappingError::Stopped(_))
    ));
    assert_eq!(told, [[0, 0, 17], [1, 1, 17], [2, 2, 17], [3, 3, 17]]);
    let first = table.entries()[..3].to_vec();
    table
        .measure(&cases, &device, |_, _, all| {
            assert_eq!(all, 14);
            Ok(())
        })
        .unwrap();
    assert_eq!(table.entries().len(), 17);
    assert_eq!(table.entries()[..3], first);
    assert!(table.entries().iter().all(|entry| entry.ms() > 0.0));
}

#[test]
fn a_case_that_cannot_be_is_named() {
    let mut table = LatencyTable::new("flex");
    let pattern = Sparsity::kernel_pattern(0.5, 4).unwrap();
    for bad in [
        case(conv([0, 8], 6, 3), 0.5),
        // Patterns are of 3×3 kernels.
        LatencyCase::new(Operation::Conv2d, conv([8, 8], 6, 5), pattern),
    ] {
        let error = table.measure(&[bad], &Device::flex(), |_, _, _| Ok(()));
        assert!(error.unwrap_err().to_string().contains("Conv2d"));
    }
    assert!(table.entries().is_empty());
}

#[test]
fn files_are_kept_and_distrusted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("times").join("flex.json");
    let opened = LatencyTable::open(&path, "imagined").unwrap();
    assert!(opened.dropped.is_none() && opened.table.entries().is_empty());
    let table = imagined([0.02, 0.4, 0.1, 0.003], 0.0);
    table.save(&path).unwrap();
    let opened = LatencyTable::open(&path, "imagined").unwrap();
    assert!(opened.dropped.is_none());
    assert_eq!(opened.table.entries().len(), table.entries().len());

    let other = LatencyTable::open(&path, "another").unwrap();
    assert!(other.table.entries().is_empty());
    assert!(other.dropped.unwrap().contains("imagined"));

    let text = std::fs::read_to_string(&path).unwrap();
    let older = text.replacen(&format!("\"kernels\":{KERNELS}"), "\"kernels\":0", 1);
    for (damaged, reason) in [
        (older.as_str(), "version 0"),
        (&text[..text.len() / 2], "EOF"),
        ("", "EOF"),
        (&text.replacen("\"dense_ms\":", "\"dense_ms\":-", 1), "ms"),
        (
            &text.replacen("\"in_channels\":16", "\"in_channels\":0", 1),
            "channels",
        ),
        (
            &text.replacen(
                "\"in_channels\":16",
                "\"in_channels\":18446744073709551615",
                1,
            ),
            "",
        ),
    ] {
        std::fs::write(&path, damaged).unwrap();
        let opened = LatencyTable::open(&path, "imagined").unwrap();
        assert!(opened.table.entries().is_empty());
        let dropped = opened.dropped.expect("a reason");
        assert!(
            dropped.contains(reason) && dropped.contains("again"),
            "{dropped}"
        );
    }
    // A folder is no file that could be read.
    assert!(LatencyTable::open(folder.path(), "imagined").is_err());
}

mod by_rules {
    use burn::tensor::Tensor;
    use burn_sparse::nn::{Conv2d, Conv2dConfig, Linear, LinearConfig, Trace};

    use super::*;

    #[derive(burn::module::Module, Debug)]
    struct Net {
        stem: Conv2d,
        body: Conv2d,
        depthwise: Conv2d,
        point: Conv2d,
        wide: Conv2d,
        fc: Linear,
        unused: Linear,
    }

    impl Net {
        fn new(device: &Device) -> Self {
            let conv = |channels, kernel: usize, groups| {
                Conv2dConfig::new(channels, [kernel, kernel])
                    .with_groups(groups)
                    .init(device)
            };
            Self {
                stem: conv([4, 16], 3, 1),
                body: conv([16, 16], 3, 1),
                depthwise: conv([16, 16], 3, 16),
                point: conv([16, 32], 1, 1),
                wide: conv([32, 32], 5, 1),
                fc: LinearConfig::new(32, 10).init(device),
                unused: LinearConfig::new(10, 10).init(device),
            }
        }

        fn trace(&self, device: &Device) -> Trace {
            Trace::of(|| {
                let x = self.stem.forward(Tensor::zeros([1, 4, 18, 18], device));
                let x = self.body.forward(x);
                let x = self
                    .wide
                    .forward(self.point.forward(self.depthwise.forward(x)));
                let x: Tensor<2> = x.mean_dim(3).mean_dim(2).flatten(1, 3);
                self.fc.forward(x);
            })
        }
    }

    /// Every case takes 1 ms with blocks of 64 weights or more, and `fine` with smaller ones.
    fn table(cases: &[LatencyCase], fine: f64) -> LatencyTable {
        let mut table = LatencyTable::new("imagined");
        for &case in cases {
            let block = match case.sparsity {
                Sparsity::Punched {
                    filters, channels, ..
                } => filters * channels,
                Sparsity::BlockColumnRow { block, .. } => block[0] * block[1],
                _ => 64,
            };
            let packed_ms = if block < 64 { fine } else { 1.0 };
            table
                .insert(LatencyEntry {
                    case,
                    dense_ms: 2.0,
                    packed_ms,
                })
                .unwrap();
        }
        table
    }

    fn map(fine: f64, config: &RuleConfig) -> Mapping {
        let device = Device::flex();
        let net = Net::new(&device);
        let trace = net.trace(&device);
        let cases = cases_of_rules(&net, &trace, config).unwrap();
        map_by_rules(&net, &trace, &table(&cases, fine), config).unwrap()
    }

    fn of<'a>(mapping: &'a Mapping, path: &str) -> &'a Decision {
        let mut layers = mapping.layers.iter();
        layers
            .find(|layer| layer.path == path)
            .expect("a layer of the network")
    }

    #[test]
    fn each_kind_has_its_scheme_and_its_reason() {
        let mapping = map(1.1, &RuleConfig::default());
        assert_eq!(mapping.layers.len(), 7);
        let outermost = of(&mapping, "stem.weight");
        assert!(outermost.sparsity.is_none() && outermost.reason.contains("first"));
        let kept = of(&mapping, "depthwise.weight");
        assert!(kept.sparsity.is_none() && kept.reason.contains("depthwise"));
        let unused = of(&mapping, "unused.weight");
        assert!(unused.sparsity.is_none() && unused.reason.contains("no forward pass"));
        for (path, name) in [
            ("body.weight", "punched"),
            ("point.weight", "block column-row"),
            ("wide.weight", "punched"),
            ("fc.weight", "block column-row"),
        ] {
            let layer = of(&mapping, path);
            assert_eq!(layer.sparsity.unwrap().name(), name, "{path}");
            // The finest is fast enough.
            assert!(scheme_is(layer, [4, 4]), "{layer:?}");
            assert!(layer.reason.contains("1.10x"), "{}", layer.reason);
        }
        let hard = RuleConfig {
            difficulty: Difficulty::Hard,
            ..RuleConfig::default()
        };
        let mapping = map(1.1, &hard);
        assert_eq!(
            of(&mapping, "body.weight").sparsity.unwrap().name(),
            "kernel-pattern"
        );
        assert_eq!(
            of(&mapping, "wide.weight").sparsity.unwrap().name(),
            "punched"
        );
        // Milliseconds of what is known: four layers.
        assert_eq!(mapping.ms()[0], 8.0);
    }

    fn scheme_is(layer: &Decision, sides: [usize; 2]) -> bool {
        match layer.sparsity {
            Some(Sparsity::Punched {
                filters, channels, ..
            }) => [filters, channels] == sides,
            Some(Sparsity::BlockColumnRow { block, .. }) => block == sides,
            _ => false,
        }
    }

    #[test]
    fn blocks_grow_where_small_ones_cost_time() {
        let mapping = map(1.5, &RuleConfig::default());
        assert!(scheme_is(of(&mapping, "wide.weight"), [8, 8]));
        assert!(scheme_is(of(&mapping, "body.weight"), [8, 8]));
        let patient = RuleConfig {
            slack: 0.6,
            ..RuleConfig::default()
        };
        assert!(scheme_is(of(&map(1.5, &patient), "wide.weight"), [4, 4]));
        let plan = mapping.plan().unwrap();
        let net = Net::new(&Device::flex());
        assert_eq!(plan.resolve(&net).unwrap().layers().len(), 4);
        assert!(mapping.to_string().contains("punched 8x8"));
        // Slower than dense, at any size: dense.
        let slow = map(2.5, &patient);
        assert!(scheme_is(of(&slow, "wide.weight"), [8, 8]));
        let coarse = RuleConfig {
            blocks: vec![[4, 4]],
            slack: 2.0,
            ..RuleConfig::default()
        };
        let dense = map(2.5, &coarse);
        let wide = of(&dense, "wide.weight");
        assert!(
            wide.sparsity.is_none() && wide.reason.contains("dense is faster"),
            "{wide:?}"
        );
    }

    #[test]
    fn blocks_of_which_nothing_stays_are_no_choice() {
        // One block has nine positions, of which a twentieth is none.
        let sparse = RuleConfig {
            sparsity: 0.95,
            ..RuleConfig::default()
        };
        let mapping = map(1.1, &sparse);
        let body = of(&mapping, "body.weight");
        assert!(body.sparsity.is_some(), "{body:?}");
        let device = Device::flex();
        let net = Net::new(&device);
        mapping.plan().unwrap().resolve(&net).unwrap();
        for case in cases_of_rules(&net, &net.trace(&device), &sparse).unwrap() {
            case.density().unwrap();
        }
    }

    #[test]
    fn what_cannot_be_decided_is_said() {
        let device = Device::flex();
        let net = Net::new(&device);
        let trace = net.trace(&device);
        let config = RuleConfig::default();
        let empty = LatencyTable::new("none");
        let error = map_by_rules(&net, &trace, &empty, &config).unwrap_err();
        assert!(error.to_string().contains("body.weight"), "{error}");
        let blind = map_by_rules(&net, &Trace::default(), &empty, &config);
        assert!(matches!(blind, Err(MappingError::NoLayers)));
        for wrong in [
            RuleConfig {
                sparsity: 1.0,
                ..config.clone()
            },
            RuleConfig {
                slack: f64::NAN,
                ..config.clone()
            },
            RuleConfig {
                blocks: Vec::new(),
                ..config.clone()
            },
            RuleConfig {
                blocks: vec![[0, 4]],
                ..config.clone()
            },
        ] {
            let error = cases_of_rules(&net, &trace, &wrong);
            assert!(matches!(error, Err(MappingError::Settings(_))), "{wrong:?}");
        }
    }
}
