use super::*;
use crate::catalogue::{self, AWKWARD};
use crate::reference::factored_conv2d;

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
    // Each of these sums is rounded once for every term, and all of them to their own size.
    let sizes = |values: &[f32]| values.iter().map(|v| v.abs()).collect::<Vec<f32>>();
    let absolute = factors.map(|factor| factor.map(sizes));
    let absolute = [0, 1, 2].map(|index| absolute[index].as_deref());
    let most = factored_conv2d(
        &sizes(&input),
        absolute,
        [d1, d2],
        Some(&sizes(&bias)),
        problem,
    );
    let terms = (problem.in_channels + d1 * taps + d2 + 2) as f64;
    let bounds: Vec<f64> = most
        .iter()
        .map(|most| terms * f64::from(f32::EPSILON) * (most + 1.0))
        .collect();
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
        // Memory that is used again holds whatever its last user left.
        for size in 8..22 {
            Buffer::new(1 << size).fill(f32::NAN);
        }
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
            assert!(
                off <= bounds[index],
                "{label}: {found} at {index}, not {expected}"
            );
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

/// Threads work on the same strip of a small image with many channels.
#[test]
fn threads_that_share_a_strip_give_the_same() {
    for (channels, size, ranks) in [([96, 128], [7, 7], [64, 80]), ([70, 90], [9, 5], [50, 66])] {
        let problem = ConvProblem::new(1, channels, size, [3, 3]).with_padding([1, 1]);
        for threads in [2, 3, 5] {
            let [d1, d2] = ranks;
            let (reduce, core) = (vec![0.5; d1 * channels[0]], vec![0.5; d2 * d1 * 9]);
            let expand = vec![0.5; channels[1] * d2];
            let weights = ChainWeights {
                reduce: Some(&reduce),
                core: &core,
                expand: Some(&expand),
                ranks,
            };
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let chain = || Chain::new(&problem, weights, Isa::current()).unwrap();
            let chain = pool.unwrap().install(chain);
            assert!(chain.shared && chain.macs > LEAST_WORK);
            for ranks in [[Some(d1), Some(d2)], [Some(d1), None], [None, Some(d2)]] {
                check(&problem, ranks, Isa::current(), threads);
            }
        }
    }
}

#[test]
fn relu_and_what_the_output_holds_are_part_of_it() {
    let problem = ConvProblem::new(2, [3, 5], [6, 4], [3, 3]).with_padding([1, 1]);
    let (reduce, core) = (catalogue::values(2 * 3, 1), catalogue::values(4 * 2 * 9, 2));
    let (expand, input) = (
        catalogue::values(5 * 4, 3),
        catalogue::values(2 * 3 * 24, 4),
    );
    let before = catalogue::values(2 * 5 * 24, 5);
    let weights = ChainWeights {
        reduce: Some(&reduce),
        core: &core,
        expand: Some(&expand),
        ranks: [2, 4],
    };
    let factors = [Some(&reduce[..]), Some(&core[..]), Some(&expand[..])];
    let expected = factored_conv2d(&input, factors, [2, 4], None, &problem);
    let chain = Chain::new(&problem, weights, Isa::current()).unwrap();
    let mut out = before.clone();
    let finish = Finish {
        bias: None,
        residual: Residual::Output,
        relu: true,
    };
    let images = Images::contiguous(&input, [3, 24]);
    chain.run(2, images, finish, ImagesMut::contiguous(&mut out, [5, 24]));
    for ((&found, expected), before) in out.iter().zip(&expected).zip(&before) {
        let wanted = (expected + f64::from(*before)).max(0.0);
        assert!(
            (f64::from(found) - wanted).abs() < 1e-4,
            "{found}, not {wanted}"
        );
    }
    // Of another size, ordered no more.
    let small = ConvProblem {
        batch: 1,
        input: [3, 4],
        ..problem
    };
    let resized = chain.resized(&small).unwrap();
    let (mut a, mut b) = (vec![f32::NAN; 5 * 12], vec![f32::NAN; 5 * 12]);
    let images = Images::contiguous(&input[..3 * 12], [3, 12]);
    resized.run(
        1,
        images,
        Finish::default(),
        ImagesMut::contiguous(&mut a, [5, 12]),
    );
    let fresh = Chain::new(&small, weights, Isa::current()).unwrap();
    fresh.run(
        1,
        images,
        Finish::default(),
        ImagesMut::contiguous(&mut b, [5, 12]),
    );
    assert_eq!(a, b);
    assert!(chain.resized(&problem.with_stride([2, 1])).is_err());
}

#[test]
#[should_panic(expected = "overlap")]
fn outputs_that_overlap_are_refused() {
    let problem = ConvProblem::new(2, [1, 2], [4, 4], [3, 3]);
    let weights = ChainWeights {
        reduce: None,
        core: &[0.5; 2 * 9],
        expand: None,
        ranks: [1, 2],
    };
    let chain = Chain::new(&problem, weights, Isa::current()).unwrap();
    let mut out = [0.0; 16];
    let target = ImagesMut {
        data: &mut out,
        batch_stride: 0,
        channel_stride: 4,
    };
    chain.run(
        2,
        Images::contiguous(&[0.0; 32], [1, 16]),
        Finish::default(),
        target,
    );
}

#[test]
#[should_panic(expected = "too few")]
fn strides_that_wrap_are_refused() {
    let problem = ConvProblem::new(1, [9, 1], [2, 2], [1, 1]);
    let weights = ChainWeights {
        reduce: None,
        core: &[0.5; 9],
        expand: None,
        ranks: [9, 1],
    };
    let chain = Chain::new(&problem, weights, Isa::current()).unwrap();
    let images = Images {
        data: &[0.0; 36],
        batch_stride: 0,
        channel_stride: 1 << 61,
    };
    let mut out = [0.0; 4];
    chain.run(
        1,
        images,
        Finish::default(),
        ImagesMut::contiguous(&mut out, [1, 4]),
    );
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
