use super::*;
use crate::catalogue::{self, AWKWARD};
use crate::reference::{error_bound, factored_conv2d};

/// Factors of these ranks, one of them left out where the rank says so.
fn check(problem: &ConvProblem, ranks: [Option<usize>; 2], isa: Isa, threads: usize) {
    let [d1, d2] = [
        ranks[0].unwrap_or(problem.in_channels),
        ranks[1].unwrap_or(problem.out_channels),
    ];
    let taps = problem.kernel[0] * problem.kernel[1];
    let reduce = ranks[0].map(|_| catalogue::values(d1 * problem.in_channels, 1));
    let core = catalogue::values(d2 * d1 * taps, 2);
    let expand = ranks[1].map(|_| catalogue::values(problem.out_channels * d2, 3));
    let bias = catalogue::values(problem.out_channels, 4);
    let input = catalogue::values(problem.input_shape().iter().product(), 5);
    let outputs: usize = problem.output_shape().iter().product();
    let residual = catalogue::values(outputs, 6);
    let weights = ChainWeights {
        reduce: reduce.as_deref(),
        core: &core,
        expand: expand.as_deref(),
        ranks: [d1, d2],
    };
    let factors = [reduce.as_deref(), Some(&core[..]), expand.as_deref()];
    let expected = factored_conv2d(&input, factors, [d1, d2], Some(&bias), problem);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.unwrap();
    let label = format!("{problem:?} at {ranks:?}, {isa:?}, {threads} threads");
    let terms = problem.in_channels + d1 * taps + d2 + 2;
    let most = (problem.in_channels * d1 * taps * d2) as f64 + 2.0;
    let bound = error_bound(terms, most, f64::from(f32::EPSILON));
    let [height, width] = problem.output();
    let plane = height * width;
    let in_plane: usize = problem.input.iter().product();
    // Planes as they come, and padded ones, whose gaps nobody may touch.
    for gap in [0, 5] {
        let stride = plane + gap;
        let mut out = vec![f32::NAN; problem.batch * problem.out_channels * stride];
        let padded: Vec<f32> = input
            .chunks(in_plane.max(1))
            .flat_map(|p| p.iter().copied().chain((0..gap).map(|_| f32::NAN)))
            .collect();
        pool.install(|| {
            let chain = Chain::new(problem, weights, isa).unwrap();
            let images = Images {
                data: &padded,
                batch_stride: problem.in_channels * (in_plane + gap),
                channel_stride: in_plane + gap,
            };
            let finish = Finish {
                bias: Some(&bias),
                residual: Residual::Images(Images::contiguous(
                    &residual,
                    [problem.out_channels, plane],
                )),
                relu: false,
            };
            let target = ImagesMut {
                data: &mut out,
                batch_stride: problem.out_channels * stride,
                channel_stride: stride,
            };
            chain.run(problem.batch, images, finish, target);
        });
        for (index, (&expected, &residual)) in expected.iter().zip(&residual).enumerate() {
            let found = out[index / plane * stride + index % plane];
            let off = (f64::from(found) - expected - f64::from(residual)).abs();
            assert!(off <= bound, "{label}: {found} at {index}, not {expected}");
        }
        let gaps = out.iter().enumerate().filter(|(i, _)| i % stride >= plane);
        assert!(
            gaps.into_iter().all(|(_, v)| v.is_nan()),
            "{label}: a gap was written"
        );
    }
}

#[test]
fn matches_three_convolutions() {
    let whole = |case: &&catalogue::Case| case.problem.groups == 1;
    for case in AWKWARD.iter().filter(whole) {
        let problem = &case.problem;
        for ranks in [
            [Some(3), Some(5)],
            [None, Some(2)],
            [Some(2), None],
            [None, None],
        ] {
            for threads in [1, 3] {
                check(problem, ranks, Isa::current(), threads);
            }
        }
    }
}

#[test]
fn every_instruction_set_gives_the_same() {
    // Blocks of pixels and channels that nothing divides, and one pixel.
    let ragged = ConvProblem::new(2, [19, 37], [7, 11], [3, 3]).with_padding([1, 1]);
    let strided = ragged.with_stride([2, 3]).with_dilation([1, 2]);
    let pixel = ConvProblem::new(1, [5, 40], [3, 3], [3, 3]);
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        for problem in [ragged, strided, pixel] {
            for ranks in [[Some(17), Some(35)], [None, Some(3)], [Some(5), None]] {
                check(&problem, ranks, isa, 2);
            }
        }
    }
}

#[test]
fn outputs_that_see_only_padding_are_written() {
    let mut problem = ConvProblem::new(1, [3, 4], [1, 5], [1, 1]).with_stride([2, 1]);
    problem.padding = [[1, 0], [0, 0]];
    for ranks in [[Some(2), Some(2)], [None, Some(2)], [None, None]] {
        check(&problem, ranks, Isa::current(), 2);
    }
    problem.padding = [[4, 3], [6, 2]];
    check(&problem, [Some(2), Some(3)], Isa::current(), 2);
}

#[test]
fn strips_of_a_tall_image_meet() {
    let tall = ConvProblem::new(1, [24, 20], [67, 53], [3, 3]).with_padding([1, 1]);
    for problem in [tall, tall.with_stride([2, 2]), tall.with_dilation([3, 2])] {
        for threads in [1, 2, 5] {
            check(&problem, [Some(48), Some(40)], Isa::current(), threads);
        }
        let chain = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let (reduce, core) = (vec![0.5; 48 * 24], vec![0.5; 40 * 48 * 9]);
            let expand = vec![0.5; 20 * 40];
            let weights = ChainWeights {
                reduce: Some(&reduce),
                core: &core,
                expand: Some(&expand),
                ranks: [48, 40],
            };
            let chain = || Chain::new(&problem, weights, Isa::current()).unwrap();
            pool.unwrap().install(chain)
        };
        assert!(chain(1).strips() > 1 && chain(5).strips() % 5 == 0);
    }
}

#[test]
fn factors_that_do_not_fit_are_refused() {
    let problem = ConvProblem::new(1, [4, 6], [5, 5], [3, 3]);
    let weights = ChainWeights {
        reduce: None,
        core: &[0.0; 6 * 4 * 9],
        expand: None,
        ranks: [4, 6],
    };
    assert!(Chain::new(&problem, weights, Isa::current()).is_ok());
    for weights in [
        ChainWeights {
            ranks: [4, 5],
            ..weights
        },
        ChainWeights {
            reduce: Some(&[0.0; 15]),
            ..weights
        },
        ChainWeights {
            expand: Some(&[0.0; 35]),
            ..weights
        },
    ] {
        assert!(Chain::new(&problem, weights, Isa::current()).is_err());
    }
    let grouped = ConvProblem::new(1, [4, 6], [5, 5], [3, 3]).with_groups(2);
    assert!(Chain::new(&grouped, weights, Isa::current()).is_err());
}
