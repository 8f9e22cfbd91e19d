//! Every instruction set and plan against the f64 reference.

use super::*;
use crate::cpu::{Finish, Images, ImagesMut, Residual, Storage};
use crate::{
    catalogue::{self, AWKWARD, Case},
    format::Csr,
    reference::{self, error_bound},
};

mod fold;

#[cfg(unix)]
use crate::cpu::guarded::{Edge, Guarded};

/// Where pages cannot be protected, operands lie anywhere.
#[cfg(not(unix))]
mod anywhere {
    #[derive(Clone, Copy)]
    pub(super) enum Edge {
        Start,
        End,
    }

    pub(super) struct Guarded;

    impl Guarded {
        pub(super) fn new<T: Clone>(values: &[T], _: Edge) -> Vec<T> {
            values.to_vec()
        }
    }
}
#[cfg(not(unix))]
use anywhere::{Edge, Guarded};

struct Data {
    input: Vec<f32>,
    csr: Csr,
    bias: Vec<f32>,
    residual: Vec<f32>,
    expected: Vec<f64>,
    bound: f64,
}

fn len(shape: [usize; 4]) -> usize {
    shape.iter().product()
}

/// Operands lie in `[-1, 1)`.
fn data(case: &Case, seed: u64) -> Data {
    let problem = &case.problem;
    let weight = catalogue::weight(len(problem.weight_shape()), case.density, seed);
    let input = catalogue::values(len(problem.input_shape()), seed + 1);
    let bias = catalogue::values(problem.out_channels, seed + 2);
    let residual = catalogue::values(len(problem.output_shape()), seed + 3);
    let mut expected = reference::conv2d(&input, &weight, Some(&bias), problem);
    for (y, &residual) in expected.iter_mut().zip(&residual) {
        *y = (*y + f64::from(residual)).max(0.0);
    }
    let terms = problem.row_len() + 2;
    Data {
        csr: Csr::from_dense(&weight, [problem.out_channels, problem.row_len()]).unwrap(),
        input,
        bias,
        residual,
        expected,
        bound: error_bound(terms, terms as f64, f64::from(f32::EPSILON)),
    }
}

/// Where operands lie: whether planes of input, residual and output are rounded up to cache lines,
/// whether the residual is what the output holds before, and at which edge of all operands memory begins that
/// kills whoever touches it.
#[derive(Clone, Copy)]
struct Placed {
    rounded: [bool; 3],
    in_place: bool,
    edge: Edge,
}

/// Few columns, so that rows agree by chance; all of them; and none at all.
const PANELS: [Option<Panel>; 4] = [
    None,
    Some(Panel {
        rows: 3,
        columns: 2,
    }),
    Some(Panel {
        rows: usize::MAX,
        columns: usize::MAX,
    }),
    Some(Panel {
        rows: 0,
        columns: 0,
    }),
];

const PLACES: [Placed; 5] = [
    Placed {
        rounded: [false; 3],
        in_place: false,
        edge: Edge::End,
    },
    Placed {
        rounded: [false; 3],
        in_place: false,
        edge: Edge::Start,
    },
    Placed {
        rounded: [true; 3],
        in_place: false,
        edge: Edge::Start,
    },
    Placed {
        rounded: [true, false, true],
        in_place: false,
        edge: Edge::End,
    },
    Placed {
        rounded: [true; 3],
        in_place: true,
        edge: Edge::End,
    },
];

/// Values as planes at a distance, NaN in the gaps.
fn spread<T: Storage>(values: &[f32], plane: usize, rounded: bool) -> (Vec<T>, usize) {
    let stride = if rounded { plane_stride(plane) } else { plane };
    let mut wide = vec![f32::NAN; values.len() / plane * stride];
    for (out, values) in wide.chunks_mut(stride).zip(values.chunks(plane)) {
        out[..plane].copy_from_slice(values);
    }
    (stored(&wide), stride)
}

fn stored<T: Storage>(values: &[f32]) -> Vec<T> {
    let mut out = vec![T::zeroed(); values.len()];
    T::narrow(values, &mut out);
    out
}

fn run(direct: &Direct, problem: &ConvProblem, data: &Data, placed: Placed) -> Vec<f32> {
    run_as::<f32>(direct, problem, data, placed)
}

fn run_as<T: Storage>(
    direct: &Direct,
    problem: &ConvProblem,
    data: &Data,
    placed: Placed,
) -> Vec<f32> {
    let [in_plane, out_plane] = [problem.input, problem.output()].map(|[h, w]| h * w);
    let (input, in_stride) = spread::<T>(&data.input, in_plane, placed.rounded[0]);
    let (residual, residual_stride) = spread::<T>(&data.residual, out_plane, placed.rounded[1]);
    let [input, residual] = [input, residual].map(|values| Guarded::new(&values, placed.edge));
    let nans = vec![f32::NAN; data.residual.len()];
    let before = if placed.in_place {
        &data.residual
    } else {
        &nans
    };
    let (out, out_stride) = spread::<T>(before, out_plane, placed.rounded[2]);
    let mut out = Guarded::new(&out, placed.edge);
    let channels = problem.out_channels;
    let finish = Finish {
        bias: Some(&data.bias),
        residual: if placed.in_place {
            Residual::Output
        } else {
            Residual::Images(Images {
                data: &residual,
                batch_stride: channels * residual_stride,
                channel_stride: residual_stride,
            })
        },
        relu: true,
    };
    let input = Images {
        data: &input,
        batch_stride: problem.in_channels * in_stride,
        channel_stride: in_stride,
    };
    let target = ImagesMut {
        data: &mut out,
        batch_stride: channels * out_stride,
        channel_stride: out_stride,
    };
    direct.run(problem.batch, input, finish, target);
    let mut wide = vec![0.0; out.len()];
    T::widen(&out, &mut wide);
    wide.chunks(out_stride)
        .flat_map(|plane| plane[..out_plane].to_vec())
        .collect()
}

fn check(name: &str, got: &[f32], data: &Data) {
    assert_eq!(got.len(), data.expected.len(), "{name}");
    for (index, (&got, &expected)) in got.iter().zip(&data.expected).enumerate() {
        let error = (f64::from(got) - expected).abs();
        // NaN compares false: an output never written fails as well.
        assert!(
            error <= data.bound,
            "{name}: output {index} is {got}, not {expected}"
        );
    }
}

/// Every plan of every instruction set gives the catalogue's outputs. A set that this machine
/// lacks is named.
#[test]
fn plans_change_nothing_but_rounding() {
    for isa in Isa::ALL {
        if !isa.is_available() {
            println!("skipped {}: this machine cannot run it", isa.name());
            continue;
        }
        for (seed, case) in AWKWARD.iter().enumerate() {
            let problem = &case.problem;
            let data = data(case, 10 * seed as u64);
            let matrix = Rows::from(&data.csr);
            let sharing = ROWS
                .into_iter()
                .flat_map(|rows| PANELS.map(|panel| (rows, panel)));
            for (rows, panel) in sharing {
                for (shifted, align) in [(false, 1), (true, 1), (true, 16)] {
                    for (vectors, blocks, strip) in [
                        (1, 1, 1),
                        (2, 3, 2),
                        (5, 1, 3),
                        (14, 2, 100),
                        (14, 100, 2),
                        (3, 1, 100),
                    ] {
                        let plan = Plan {
                            rows,
                            vectors,
                            blocks,
                            shifted,
                            align,
                            strip,
                            panel,
                            compiled: false,
                        };
                        let direct = Direct::new(problem, matrix, plan, isa).unwrap();
                        let name = format!("{} {}: {plan:?}", isa.name(), case.name);
                        for placed in PLACES {
                            check(&name, &run(&direct, problem, &data, placed), &data);
                        }
                    }
                }
            }
        }
    }
}

/// Halves in, sums in f32, halves out: only the last rounding is coarser. What is stored of the
/// operands is what the reference computes with.
fn halves<T: Storage>(epsilon: f64) {
    let rounded = |values: &[f32]| {
        let mut out = vec![0.0; values.len()];
        T::widen(&stored::<T>(values), &mut out);
        out
    };
    for (seed, case) in AWKWARD.iter().enumerate() {
        let problem = &case.problem;
        let mut data = data(case, 10 * seed as u64 + 5);
        data.input = rounded(&data.input);
        data.residual = rounded(&data.residual);
        let weight = data.csr.to_dense();
        data.expected = reference::conv2d(&data.input, &weight, Some(&data.bias), problem);
        for (y, &residual) in data.expected.iter_mut().zip(&data.residual) {
            *y = (*y + f64::from(residual)).max(0.0);
        }
        let largest = data.expected.iter().copied().fold(0.0, f64::max);
        data.bound += epsilon * (largest + data.bound);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let guess = Plan::guess(problem, case.density, 1, isa);
            let compiled = Plan::compiled_candidates(problem, case.density, isa);
            let compiled = compiled.into_iter().take(1);
            let plans = [guess, guess.copying(problem), Plan { strip: 1, ..guess }];
            for plan in plans.into_iter().chain(compiled) {
                let direct = Direct::new(problem, Rows::from(&data.csr), plan, isa).unwrap();
                for placed in PLACES {
                    let got = run_as::<T>(&direct, problem, &data, placed);
                    check(case.name, &got, &data);
                }
            }
        }
    }
}

#[test]
fn halves_differ_by_their_own_rounding_only() {
    halves::<half::f16>(f64::from(half::f16::EPSILON));
    halves::<half::bf16>(f64::from(half::bf16::EPSILON));
}

/// The plans that packing chooses from are followed to the letter, and right.
#[test]
fn guesses_and_candidates_are_plans_that_exist() {
    for case in AWKWARD {
        let problem = &case.problem;
        let data = data(case, 7);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let sharing = ROWS
                .into_iter()
                .flat_map(|rows| PANELS.map(|panel| Sharing { rows, panel }));
            for sharing in sharing {
                for plan in Plan::candidates(problem, case.density, sharing, isa) {
                    let direct = Direct::new(problem, Rows::from(&data.csr), plan, isa).unwrap();
                    let grouped = problem.groups > 1;
                    assert!(direct.plan() == plan || grouped, "{}: {plan:?}", case.name);
                    let got = run(&direct, problem, &data, PLACES[0]);
                    check(case.name, &got, &data);
                }
            }
        }
    }
}

/// Weights as code: all numbers of channels, tiles and layouts.
#[test]
fn compiled_plans_change_nothing_but_rounding() {
    let isa = Isa::current();
    if !Plan::compiles(isa) {
        println!("skipped: no code for {}", isa.name());
        return;
    }
    for (seed, case) in AWKWARD.iter().enumerate() {
        let problem = &case.problem;
        let data = data(case, 10 * seed as u64 + 3);
        for (shifted, align) in [(false, 1), (true, 1), (true, 16)] {
            for (rows, vectors, blocks, strip) in [
                (1, 1, 1, 1),
                (28, 64, 2, 100),
                (3, 2, usize::MAX, 2),
                (13, 5, 3, 3),
            ] {
                let plan = Plan {
                    rows,
                    vectors,
                    blocks,
                    shifted,
                    align,
                    strip,
                    panel: None,
                    compiled: true,
                };
                let direct = Direct::new(problem, Rows::from(&data.csr), plan, isa).unwrap();
                assert!(direct.plan().compiled, "{}", case.name);
                let name = format!("{}: {plan:?}", case.name);
                for placed in PLACES {
                    check(&name, &run(&direct, problem, &data, placed), &data);
                }
            }
        }
        for layout in Plan::compiled_candidates(problem, case.density, isa) {
            for plan in [vec![layout], layout.compiled_neighbours(problem, isa)].concat() {
                let direct = Direct::new(problem, Rows::from(&data.csr), plan, isa).unwrap();
                assert_eq!(direct.plan(), plan, "{}", case.name);
                check(case.name, &run(&direct, problem, &data, PLACES[0]), &data);
            }
        }
    }
}

/// Rows of thousands of entries, so that values lie beyond what short offsets reach, and no entries at all.
#[test]
fn compiled_rows_are_as_long_as_they_are() {
    let isa = Isa::current();
    if !Plan::compiles(isa) {
        println!("skipped: no code for {}", isa.name());
        return;
    }
    let problem = ConvProblem::new(1, [700, 61], [5, 7], [3, 3]).with_padding([1, 1]);
    for (density, name) in [(0.3, "long"), (0.0, "empty"), (1.0, "dense")] {
        let case = Case {
            name,
            problem,
            density,
        };
        let data = data(&case, 5);
        for plan in Plan::compiled_candidates(&problem, density, isa) {
            let direct = Direct::new(&problem, Rows::from(&data.csr), plan, isa).unwrap();
            assert!(direct.plan().compiled && direct.bytes() >= 4 * data.csr.nnz());
            for placed in PLACES {
                check(name, &run(&direct, &problem, &data, placed), &data);
            }
        }
    }
}

/// Long rows are cut so that the code of a block stays in the first cache, short ones are not.
#[test]
fn compiled_plans_are_cut_where_their_rows_are_long() {
    let isa = Isa::current();
    if !Plan::compiles(isa) {
        println!("skipped: no code for {}", isa.name());
        return;
    }
    let blocks = |[inputs, outputs]: [usize; 2], kernel: usize, density: f64| {
        let problem = ConvProblem::new(1, [inputs, outputs], [7, 7], [kernel; 2]);
        let plans = Plan::compiled_candidates(&problem, density, isa);
        let all = plans.iter().flat_map(|plan| {
            let mut all = plan.compiled_neighbours(&problem, isa);
            all.push(*plan);
            all
        });
        assert!(
            all.into_iter()
                .all(|plan| (1..=inputs).contains(&plan.blocks))
        );
        plans[0].blocks
    };
    assert_eq!(blocks([64, 64], 1, 0.1), 1);
    assert_eq!(blocks([2, 64], 3, 1.0), 1);
    let long = blocks([512, 512], 3, 0.2);
    assert!(long.is_power_of_two() && long >= 8, "{long}");
    assert!(blocks([512, 512], 3, 0.05) < long);
    // Nothing to cut.
    assert_eq!(blocks([512, 512], 3, 0.0), 1);
}

/// A plan may come from a file that somebody else wrote.
#[test]
fn senseless_plans_are_brought_into_range() {
    for case in AWKWARD {
        let data = data(case, 11);
        for (most, shifted) in [(usize::MAX, true), (usize::MAX, false), (0, true)] {
            let plan = Plan {
                rows: most,
                vectors: most,
                blocks: most,
                shifted,
                align: most,
                strip: most,
                panel: shifted.then_some(Panel {
                    rows: most,
                    columns: most,
                }),
                compiled: shifted,
            };
            let isa = Isa::current();
            let direct = Direct::new(&case.problem, Rows::from(&data.csr), plan, isa).unwrap();
            let got = run(&direct, &case.problem, &data, PLACES[0]);
            check(case.name, &got, &data);
        }
    }
}

#[test]
fn a_fused_relu_lets_nan_through() {
    let problem = ConvProblem::new(1, [1, 1], [1, 40], [1, 1]);
    let matrix = Rows {
        row_ptr: &[0, 1],
        columns: &[0],
        values: &[1.0],
    };
    let mut input = vec![-1.0; 48];
    input[3] = f32::NAN;
    let guess = Plan::guess(&problem, 1.0, 1, Isa::current());
    let compiled = Plan {
        compiled: true,
        ..guess
    };
    let mut out = vec![5.0; 48];
    let finish = Finish {
        relu: true,
        ..Finish::default()
    };
    for (plan, stride) in [(guess, 40), (guess, 48), (compiled, 40), (compiled, 48)] {
        let direct = Direct::new(&problem, matrix, plan, Isa::current()).unwrap();
        let images = |len| [1, len];
        let target = ImagesMut::contiguous(&mut out, images(stride));
        direct.run(
            1,
            Images::contiguous(&input, images(stride)),
            finish,
            target,
        );
        assert!(out[3].is_nan());
        assert!(out[..3].iter().chain(&out[4..40]).all(|&y| y == 0.0));
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let problem = ConvProblem::new(1, [1, 2], [4, 4], [1, 1]);
    let matrix = Rows {
        row_ptr: &[0, 1],
        columns: &[0],
        values: &[1.0],
    };
    let plan = Plan::guess(&problem, 1.0, 1, Isa::current());
    let error = Direct::new(&problem, matrix, plan, Isa::current()).unwrap_err();
    assert!(error.to_string().contains("1 rows for 2 output channels"));
    let huge = ConvProblem::new(1, [1 << 20, 1], [1 << 10, 1 << 10], [1, 1]);
    let error = Direct::new(&huge, matrix, plan, Isa::current()).unwrap_err();
    assert!(error.to_string().contains("32-bit"));
}
