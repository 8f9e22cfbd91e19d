use super::{InputScale, Int8Weight, conv, linear};
use crate::{
    ConvProblem, SparseError, catalogue,
    cpu::{Isa, RowFinish},
    reference::{self, error_bound},
};

const RANGE: [f32; 2] = [-0.7, 1.0];

fn sets() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available())
}

/// The weight and the inputs as the floats that their integers stand for.
fn quantised(weight: &Int8Weight, x: &[f32], scale: InputScale) -> [Vec<f32>; 2] {
    let [inputs, positions] = weight.inputs();
    let weights = (0..weight.rows()).flat_map(|row| {
        (0..inputs * positions).map(move |at| {
            let integer = weight.integer(row, [at / positions, at % positions]);
            f32::from(integer) * weight.scales()[row]
        })
    });
    let mut bytes = vec![0; x.len()];
    scale.quantise(x, &mut bytes);
    let zero = f32::from(scale.zero());
    let x = bytes.iter().map(|&u| (f32::from(u) - zero) * scale.step());
    [weights.collect(), x.collect()]
}

/// Integers are summed exactly; what remains are the roundings of the scales, of their product with the
/// sum, of a bias and of a residual.
fn bound(row_len: usize) -> f64 {
    error_bound(6, row_len as f64 + 2.0, f64::from(f32::EPSILON))
}

fn check_linear(isa: Isa, [m, len, rows]: [usize; 3]) {
    let weight = catalogue::values(rows * len, 1);
    let (x, bias) = (catalogue::values(m * len, 2), catalogue::values(rows, 3));
    let more = catalogue::values(m * rows, 4);
    let scale = InputScale::new(RANGE).unwrap();
    let int8 = Int8Weight::linear(&weight, [rows, len]).unwrap();
    let [weight_q, x_q] = quantised(&int8, &x, scale);
    let sums = reference::linear(&x_q, &weight_q, Some(&bias), len);
    for (residual, relu) in [(None, false), (Some(&*more), true)] {
        let mut out = vec![f32::NAN; m * rows];
        let finish = RowFinish {
            bias: Some(&bias),
            residual,
            relu,
        };
        linear::run(isa, &x, &int8, scale, finish, &mut out);
        for (at, (&y, sum)) in out.iter().zip(&sums).enumerate() {
            let sum = sum + residual.map_or(0.0, |more| f64::from(more[at]));
            let expected = if relu { sum.max(0.0) } else { sum };
            assert!(
                (f64::from(y) - expected).abs() <= bound(len),
                "{}, {m} by {len} by {rows}: {y} at {at}, expected {expected}",
                isa.name()
            );
        }
    }
}

#[test]
fn products_of_any_size_match_the_reference() {
    for isa in sets() {
        for m in [0, 1, 2, 3, 5, 6, 13] {
            for (len, rows) in [(1, 1), (3, 5), (4, 16), (31, 17), (70, 100), (9, 0)] {
                check_linear(isa, [m, len, rows]);
            }
        }
        check_linear(isa, [1, 1030, 1001]);
        check_linear(isa, [7, 515, 301]);
    }
}

fn check_conv(isa: Isa, problem: ConvProblem) {
    let [rows, channels, height, width] = problem.weight_shape();
    let len: usize = problem.weight_shape().iter().product();
    let weight = catalogue::values(len, 1);
    let x = catalogue::values(problem.input_shape().iter().product(), 2);
    let bias = catalogue::values(rows, 3);
    let more = catalogue::values(problem.output_shape().iter().product(), 4);
    let scale = InputScale::new(RANGE).unwrap();
    let shape = [rows, channels, height * width];
    let int8 = Int8Weight::new(&weight, shape, problem.groups, None).unwrap();
    let [weight_q, x_q] = quantised(&int8, &x, scale);
    let sums = reference::conv2d(&x_q, &weight_q, Some(&bias), &problem);
    for (residual, relu) in [(None, false), (Some(&*more), true)] {
        let mut out = vec![f32::NAN; more.len()];
        let finish = RowFinish {
            bias: Some(&bias),
            residual,
            relu,
        };
        conv::run(isa, &x, &int8, scale, &problem, finish, &mut out);
        for (at, (&y, sum)) in out.iter().zip(&sums).enumerate() {
            let sum = sum + residual.map_or(0.0, |more| f64::from(more[at]));
            let expected = if relu { sum.max(0.0) } else { sum };
            assert!(
                (f64::from(y) - expected).abs() <= bound(int8.row_len()),
                "{}, {problem:?}: {y} at {at}, expected {expected}",
                isa.name()
            );
        }
    }
}

#[test]
fn convolutions_of_every_kind_match_the_reference() {
    let problems = [
        ConvProblem::new(1, [1, 1], [1, 1], [1, 1]),
        ConvProblem::new(2, [3, 5], [7, 9], [3, 3]).with_padding([1, 1]),
        ConvProblem::new(1, [6, 40], [9, 8], [3, 2]).with_stride([2, 3]),
        ConvProblem::new(3, [17, 70], [5, 6], [1, 1]),
        ConvProblem::new(1, [4, 4], [11, 11], [5, 3])
            .with_dilation([2, 3])
            .with_padding([2, 3]),
        ConvProblem::new(1, [6, 9], [6, 6], [3, 3])
            .with_groups(3)
            .with_padding([1, 0]),
        ConvProblem::new(2, [8, 8], [5, 5], [3, 3])
            .with_groups(8)
            .with_stride([2, 2]),
        ConvProblem::new(0, [3, 5], [7, 9], [3, 3]),
    ];
    let mut uneven = ConvProblem::new(1, [5, 33], [6, 7], [3, 3]);
    uneven.padding = [[2, 0], [0, 1]];
    for isa in sets() {
        for problem in problems.into_iter().chain([uneven]) {
            check_conv(isa, problem);
        }
        check_conv(
            isa,
            ConvProblem::new(1, [32, 96], [20, 20], [3, 3]).with_padding([1, 1]),
        );
    }
}

/// Against floats: half a step for each input, and half a scale for each weight.
#[test]
fn floats_are_as_near_as_the_steps_say() {
    let (m, len, rows) = (4, 200, 30);
    let (weight, x) = (
        catalogue::values(rows * len, 1),
        catalogue::values(m * len, 2),
    );
    let scale = InputScale::new([-1.0, 1.0]).unwrap();
    let int8 = Int8Weight::linear(&weight, [rows, len]).unwrap();
    let mut out = vec![0.0; m * rows];
    linear::run(
        Isa::current(),
        &x,
        &int8,
        scale,
        RowFinish::default(),
        &mut out,
    );
    let sums = reference::linear(&x, &weight, None, len);
    for (at, (&y, sum)) in out.iter().zip(&sums).enumerate() {
        let (i, k) = (at / rows, at % rows);
        let (of_x, of_w) = (0.5 * scale.step() * 1.001, 0.5 * int8.scales()[k] * 1.001);
        let rounding: f32 = (0..len)
            .map(|j| (weight[k * len + j].abs() + of_w) * of_x + x[i * len + j].abs() * of_w)
            .sum();
        let bound = f64::from(rounding) + bound(len);
        assert!((f64::from(y) - sum).abs() <= bound, "{y} for {sum}");
    }
}

#[test]
fn bytes_are_the_nearest_and_zero_is_exact() {
    for range in [
        [-0.7, 1.0],
        [0.0, 6.0],
        [0.5, 2.0],
        [-3.0, -1.0],
        [0.0, 0.0],
        [-1e-30, 1e-30],
    ] {
        let scale = InputScale::new(range).unwrap();
        let (step, zero) = (f64::from(scale.step()), f64::from(scale.zero()));
        let mut byte = [0];
        scale.quantise(&[0.0], &mut byte);
        assert_eq!(byte[0], scale.zero());
        for at in 0..1000 {
            let x = range[0] + (range[1] - range[0]) * at as f32 / 999.0;
            scale.quantise(&[x], &mut byte);
            let back = (f64::from(byte[0]) - zero) * step;
            // The zero point was rounded, so the ends may be half a step off as well.
            assert!(
                (back - f64::from(x)).abs() <= 1.001 * step,
                "{x} of {range:?}: {back}"
            );
        }
        scale.quantise(&[f32::MAX], &mut byte);
        assert_eq!(byte, [255]);
        for lowest in [f32::MIN, f32::NEG_INFINITY, f32::NAN] {
            scale.quantise(&[lowest], &mut byte);
            assert_eq!(byte, [0]);
        }
    }
}

#[test]
fn ranges_and_weights_that_make_no_sense_are_refused() {
    for range in [
        [1.0, 0.0],
        [f32::NAN, 1.0],
        [0.0, f32::INFINITY],
        [0.0, 1e-40],
    ] {
        let error = InputScale::new(range).unwrap_err();
        assert!(matches!(error, SparseError::InputRange { .. }), "{error}");
    }
    let new = |shape: [usize; 3], groups, ranges: Option<&[f32]>| {
        Int8Weight::new(&[1.0; 6], shape, groups, ranges).map(|_| ())
    };
    assert!(new([2, 3, 1], 2, Some(&[0.5, 2.0])).is_ok());
    for (result, says) in [
        (new([2, 2, 1], 1, None), "6 weights"),
        (
            new([usize::MAX, 2, 1], 1, None),
            "more bytes than there are",
        ),
        (new([2, 3, 1], 0, None), "0 groups"),
        (new([3, 2, 1], 2, None), "3 output channels"),
        (new([2, 3, 1], 1, Some(&[1.0])), "1 ranges"),
        (new([2, 3, 1], 1, Some(&[1.0, -1.0])), "row 1 has -1"),
    ] {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    let error = Int8Weight::linear(&[1.0, f32::NAN], [1, 2]).unwrap_err();
    assert!(matches!(error, SparseError::NonFinite { index: 1, .. }));
    let long = vec![1.0; 66_312];
    let error = Int8Weight::linear(&long, [1, 66_312])
        .unwrap_err()
        .to_string();
    assert!(error.contains("fit 32 bits"), "{error}");
}

/// The largest sums that are possible.
#[test]
fn nothing_overflows() {
    let len = 66_311;
    let weight = Int8Weight::linear(&vec![-1.0; len], [1, len]).unwrap();
    let scale = InputScale::new([0.0, 255.0]).unwrap();
    for isa in sets() {
        let mut out = [0.0];
        linear::run(
            isa,
            &vec![255.0; len],
            &weight,
            scale,
            RowFinish::default(),
            &mut out,
        );
        let expected = -255.0 * len as f32;
        assert!((out[0] / expected - 1.0).abs() < 1e-6, "{}", out[0]);
    }
}

#[test]
fn no_inputs_leave_bias_and_residual() {
    let weight = Int8Weight::linear(&[], [3, 0]).unwrap();
    let scale = InputScale::new(RANGE).unwrap();
    let finish = RowFinish {
        bias: Some(&[1.0, -2.0, 3.0]),
        residual: Some(&[1.0, 1.0, 1.0, 0.0, 0.0, 0.0]),
        relu: true,
    };
    let mut out = [f32::NAN; 6];
    linear::run(Isa::current(), &[], &weight, scale, finish, &mut out);
    assert_eq!(out, [2.0, 0.0, 4.0, 1.0, 0.0, 3.0]);
}

#[test]
#[should_panic(expected = "int8_linear: 2 rows of 3 for 4 inputs")]
fn inputs_of_another_length_panic() {
    let weight = Int8Weight::linear(&[1.0; 6], [2, 3]).unwrap();
    let scale = InputScale::new(RANGE).unwrap();
    linear::run(
        Isa::current(),
        &[0.0; 4],
        &weight,
        scale,
        RowFinish::default(),
        &mut [0.0; 2],
    );
}
