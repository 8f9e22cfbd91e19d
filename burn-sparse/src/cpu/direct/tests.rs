//! Every instruction set and plan against the f64 reference.

use super::*;
use crate::cpu::{Buffer, Finish, Images, ImagesMut};
use crate::{
    catalogue::{self, AWKWARD, Case},
    format::Csr,
    reference::{self, error_bound},
};

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

/// Runs with planes of input, residual and output at these distances; gaps hold NaN.
fn run(direct: &Direct, problem: &ConvProblem, data: &Data, rounded: [bool; 3]) -> Vec<f32> {
    let batch = problem.batch;
    let stride = |plane: usize, rounded: bool| match rounded {
        true => plane_stride(plane),
        false => plane,
    };
    let spread = |values: &[f32], plane: usize, rounded: bool| {
        let stride = stride(plane, rounded);
        let mut out = vec![f32::NAN; values.len() / plane * stride];
        for (out, values) in out.chunks_mut(stride).zip(values.chunks(plane)) {
            out[..plane].copy_from_slice(values);
        }
        (out, stride)
    };
    let [in_plane, out_plane] = [problem.input, problem.output()].map(|[h, w]| h * w);
    let (input, in_stride) = spread(&data.input, in_plane, rounded[0]);
    let (residual, residual_stride) = spread(&data.residual, out_plane, rounded[1]);
    let out_stride = stride(out_plane, rounded[2]);
    let channels = problem.out_channels;
    let mut out = vec![f32::NAN; batch * channels * out_stride];
    let finish = Finish {
        bias: Some(&data.bias),
        residual: Some(Images {
            data: &residual,
            batch_stride: channels * residual_stride,
            channel_stride: residual_stride,
        }),
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
    direct.run(batch, input, finish, target);
    out.chunks(out_stride)
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
            for rows in ROWS {
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
                        };
                        let direct = Direct::new(problem, matrix, plan, isa).unwrap();
                        let name = format!("{} {}: {plan:?}", isa.name(), case.name);
                        for rounded in [[false; 3], [true; 3], [true, false, true]] {
                            check(&name, &run(&direct, problem, &data, rounded), &data);
                        }
                    }
                }
            }
        }
    }
}

/// The plans that packing chooses from are followed to the letter, and right.
#[test]
fn guesses_and_candidates_are_plans_that_exist() {
    for case in AWKWARD {
        let problem = &case.problem;
        let data = data(case, 7);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            for rows in ROWS {
                for plan in Plan::candidates(problem, case.density, rows, isa) {
                    let direct = Direct::new(problem, Rows::from(&data.csr), plan, isa).unwrap();
                    let grouped = problem.groups > 1;
                    assert!(direct.plan() == plan || grouped, "{}: {plan:?}", case.name);
                    let got = run(&direct, problem, &data, [false; 3]);
                    check(case.name, &got, &data);
                }
            }
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
    let plan = Plan::guess(&problem, 1.0, 1, Isa::current());
    let direct = Direct::new(&problem, matrix, plan, Isa::current()).unwrap();
    let mut out = vec![5.0; 48];
    let finish = Finish {
        relu: true,
        ..Finish::default()
    };
    for stride in [40, 48] {
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

#[test]
#[ignore]
fn zz_timing() {
    use std::time::Instant;
    let density: f64 = std::env::var("DENS")
        .map(|s| s.parse().unwrap())
        .unwrap_or(0.1);
    let block: usize = std::env::var("BLK")
        .map(|s| s.parse().unwrap())
        .unwrap_or(1);
    let threads: usize = std::env::var("THR")
        .map(|s| s.parse().unwrap())
        .unwrap_or(1);
    let ls = [
        (3, 64, 224, 7, 2, 1),
        (64, 64, 56, 1, 1, 1),
        (64, 64, 56, 3, 1, 3),
        (64, 256, 56, 1, 1, 4),
        (256, 64, 56, 1, 1, 2),
        (256, 128, 56, 1, 1, 1),
        (128, 128, 56, 3, 2, 1),
        (128, 128, 28, 3, 1, 3),
        (128, 512, 28, 1, 1, 4),
        (256, 512, 56, 1, 2, 1),
        (512, 128, 28, 1, 1, 3),
        (512, 256, 28, 1, 1, 1),
        (256, 256, 28, 3, 2, 1),
        (256, 256, 14, 3, 1, 5),
        (256, 1024, 14, 1, 1, 6),
        (512, 1024, 28, 1, 2, 1),
        (1024, 256, 14, 1, 1, 5),
        (1024, 512, 14, 1, 1, 1),
        (512, 512, 14, 3, 2, 1),
        (512, 512, 7, 3, 1, 2),
        (512, 2048, 7, 1, 1, 3),
        (1024, 2048, 14, 1, 2, 1),
        (2048, 512, 7, 1, 1, 2),
    ];
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .unwrap();
    pool.install(|| {
    let (mut tg, mut tb) = (0.0, 0.0);
    for (cin, cout, hw, k, s, cnt) in ls {
        let problem = ConvProblem::new(1, [cin, cout], [hw, hw], [k, k]).with_stride([s, s]).with_padding([k / 2, k / 2]);
        let density = if cin == 3 { 1.0 } else { density };
        let nnz = (problem.row_len() as f64 * density).round() as usize;
        let mut state = 88172645463325252u64;
        let (mut ptr, mut cols) = (vec![0u32], vec![]);
        let mut last: Vec<u32> = vec![];
        for r in 0..cout {
            if r % block == 0 {
                let n = problem.row_len();
                let mut idx: Vec<u32> = (0..n as u32).collect();
                for i in 0..nnz { state ^= state << 13; state ^= state >> 7; state ^= state << 17; let j = i + state as usize % (n - i); idx.swap(i, j); }
                last = idx[..nnz].to_vec(); last.sort_unstable();
            }
            cols.extend(&last); ptr.push(cols.len() as u32);
        }
        let values = catalogue::values(cols.len(), 3);
        let matrix = Rows { row_ptr: &ptr, columns: &cols, values: &values };
        let isa = Isa::current();
        let [oh, ow] = problem.output();
        let ics = plane_stride(hw * hw); let ocs = plane_stride(oh * ow);
        let mut ib = Buffer::new(cin * ics); ib.copy_from_slice(&catalogue::values(cin * ics, 1));
        let mut ob = Buffer::new(cout * ocs);
        let bias = catalogue::values(cout, 9);
        let rows: &[usize] = if cin == 3 { &[4, 8] } else if block > 1 { &[block] } else { &[1] };
        let mut res = vec![];
        for &rows in rows { for (i, plan) in Plan::candidates(&problem, density, rows, isa).into_iter().enumerate() {
            let direct = Direct::new(&problem, matrix, plan, isa).unwrap();
            let mut best = f64::MAX;
            for _ in 0..12 {
                let t = Instant::now();
                direct.run(1, Images { data: &ib, batch_stride: cin * ics, channel_stride: ics }, Finish { bias: Some(&bias), residual: None, relu: true }, ImagesMut { data: &mut ob, batch_stride: cout * ocs, channel_stride: ocs });
                best = best.min(t.elapsed().as_secs_f64());
            }
            res.push((best, i, direct.plan()));
        } }
        let guess = res.iter().find(|r| r.1 == 0).unwrap().clone();
        res.sort_by(|a, b| a.0.total_cmp(&b.0));
        let direct = Direct::new(&problem, matrix, res[0].2, isa).unwrap();
        let mut gt = f64::MAX;
        if !direct.working.plain {
            let mut copies = Buffer::new(direct.working.image());
            for _ in 0..20 {
                let t = Instant::now();
                super::gather::gather(Images { data: &ib, batch_stride: cin * ics, channel_stride: ics }, 0, 0, &direct.problem, &direct.working, isa, &mut copies);
                gt = gt.min(t.elapsed().as_secs_f64());
            }
            println!("   gather {:.0}us", gt * 1e6);
        }
        let flop = 2.0 * (nnz * cout * oh * ow) as f64;
        tg += guess.0 * cnt as f64; tb += res[0].0 * cnt as f64;
        println!("{cin}->{cout} {hw} k{k}s{s} x{cnt}: guess {:.0}us {:.1} {:?} | best {:.0}us {:.1} {:?} | 2nd {:.1} {:?} of {}", guess.0*1e6, flop/guess.0/1e9, (guess.2.rows,guess.2.vectors,guess.2.blocks,guess.2.shifted,guess.2.align), res[0].0*1e6, flop/res[0].0/1e9, (res[0].2.rows,res[0].2.vectors,res[0].2.blocks,res[0].2.shifted,res[0].2.align), flop/res[1].0/1e9, (res[1].2.rows,res[1].2.vectors,res[1].2.blocks,res[1].2.shifted,res[1].2.align), res.len());
    }
    println!("total guess {:.2} ms best {:.2} ms", tg * 1e3, tb * 1e3);
    });
}
