//! Batches under each other, against the reference of single images.

use super::*;
use crate::cpu::direct::Fold;

/// Images `[n][c][..]` with the planes of a channel `period` rows apart, NaN between them.
fn under_each_other(
    values: &[f32],
    [images, channels]: [usize; 2],
    [height, width]: [usize; 2],
    period: usize,
    rounded: bool,
) -> (Vec<f32>, usize) {
    let fold = Fold { images, period };
    let stride = if rounded {
        fold.plane([height, width])
    } else {
        fold.rows(height) * width
    };
    let mut out = vec![f32::NAN; channels * stride];
    let plane = height * width;
    for (index, values) in values.chunks(plane).enumerate() {
        let (n, c) = (index / channels, index % channels);
        out[c * stride + n * period * width..][..plane].copy_from_slice(values);
    }
    (out, stride)
}

/// How the operands of a folded layer lie.
#[derive(Clone, Copy)]
struct Lie {
    /// Rows between the images of the input, if they lie under each other.
    input: Option<usize>,
    rounded: bool,
    in_place: bool,
    edge: Edge,
}

fn run(direct: &Direct, problem: &ConvProblem, data: &Data, period: usize, lie: Lie) -> Vec<f32> {
    let batch = problem.batch;
    let of_output = [batch, problem.out_channels];
    let [height, width] = problem.output();
    let [in_height, in_width] = problem.input;
    let plane = in_height * in_width;
    let of_input = [batch, problem.in_channels];
    let (input, batch_stride, channel_stride) = match lie.input {
        Some(apart) => {
            let (period, rounded) = (in_height + apart, lie.rounded);
            let (input, stride) =
                under_each_other(&data.input, of_input, problem.input, period, rounded);
            (input, period * in_width, stride)
        }
        None => {
            let (input, stride) = spread::<f32>(&data.input, plane, lie.rounded);
            (input, problem.in_channels * stride, stride)
        }
    };
    let tall =
        |values: &[f32]| under_each_other(values, of_output, [height, width], period, lie.rounded);
    let (residual, stride) = tall(&data.residual);
    let nans = vec![f32::NAN; data.residual.len()];
    let (out, _) = if lie.in_place {
        (residual.clone(), stride)
    } else {
        tall(&nans)
    };
    let [input, residual] = [input, residual].map(|values| Guarded::new(&values, lie.edge));
    let mut out = Guarded::new(&out, lie.edge);
    let finish = Finish {
        bias: Some(&data.bias),
        residual: if lie.in_place {
            Residual::Output
        } else {
            Residual::Images(Images {
                data: &residual,
                batch_stride: 0,
                channel_stride: stride,
            })
        },
        relu: true,
    };
    let images = Images {
        data: &input,
        batch_stride,
        channel_stride,
    };
    let target = ImagesMut {
        data: &mut out,
        batch_stride: 0,
        channel_stride: stride,
    };
    direct.run_folded(images, finish, target);
    let at = |n: usize, c: usize| c * stride + n * period * width;
    (0..batch)
        .flat_map(|n| (0..of_output[1]).map(move |c| at(n, c)))
        .flat_map(|at| out[at..at + height * width].to_vec())
        .collect()
}

const LIES: [(bool, bool, Edge); 4] = [
    (false, false, Edge::End),
    (true, false, Edge::Start),
    (true, true, Edge::End),
    (true, false, Edge::End),
];

/// Whatever lies between images, and however far they are apart, each is convolved alone.
#[test]
fn images_under_each_other_do_not_see_each_other() {
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        for (seed, case) in AWKWARD.iter().enumerate() {
            let batch = 2 + seed % 3;
            let case = Case {
                problem: case.problem.with_batch(batch),
                ..*case
            };
            let problem = &case.problem;
            let data = data(&case, 10 * seed as u64 + 7);
            let matrix = Rows::from(&data.csr);
            let shared = Plan {
                panel: PANELS[1],
                ..Plan::guess(problem, case.density, 4, isa)
            };
            let plans = [1, 2, 4]
                .map(|rows| Plan::guess(problem, case.density, rows, isa))
                .into_iter()
                .chain([shared])
                .chain(Plan::compiled_candidates(problem, case.density, isa));
            for plan in plans {
                for more in [0, 1, 3] {
                    let fold = Fold {
                        images: batch,
                        period: problem.output()[0] + Fold::apart(problem) + more,
                    };
                    let direct = Direct::folded(problem, fold, matrix, plan, isa).unwrap();
                    let name = format!("{} {} {fold:?}: {plan:?}", isa.name(), case.name);
                    for input in [None, Some(Fold::apart(problem) + more), Some(2)] {
                        for (rounded, in_place, edge) in LIES {
                            let lie = Lie {
                                input,
                                rounded,
                                in_place,
                                edge,
                            };
                            let got = run(&direct, problem, &data, fold.period, lie);
                            check(&name, &got, &data);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn folds_in_which_images_meet_are_refused() {
    let problem = ConvProblem::new(1, [1, 1], [7, 7], [3, 3]).with_padding([1, 1]);
    let matrix = Rows {
        row_ptr: &[0, 0],
        columns: &[],
        values: &[],
    };
    let plan = Plan::guess(&problem, 0.1, 1, Isa::current());
    let folded = |images, period| {
        let fold = Fold { images, period };
        Direct::folded(&problem, fold, matrix, plan, Isa::current())
    };
    assert!(folded(2, 8).is_ok());
    for (images, period) in [(2, 7), (0, 8), (2, 0)] {
        let error = folded(images, period).unwrap_err().to_string();
        assert!(error.contains("rows apart"), "{error}");
    }
}
