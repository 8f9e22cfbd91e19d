//! Named problems, the same for tests and benches.
//!
//! A kernel that is right and fast on these has met every case the formats distinguish: strides and
//! phases, asymmetric padding, dilation, groups, odd batches, single pixels, planes that no vector
//! width divides, rows without entries, no entries at all.

use crate::ConvProblem;

/// A convolution and the density of its weight.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Names the boundary it probes or the network it comes from.
    pub name: &'static str,
    /// The geometry.
    pub problem: ConvProblem,
    /// Fraction of non-zeros.
    pub density: f64,
}

const fn conv(
    batch: usize,
    channels: [usize; 2],
    input: [usize; 2],
    kernel: [usize; 2],
) -> ConvProblem {
    ConvProblem {
        batch,
        in_channels: channels[0],
        out_channels: channels[1],
        input,
        kernel,
        stride: [1, 1],
        padding: [[0, 0], [0, 0]],
        dilation: [1, 1],
        groups: 1,
    }
}

const fn case(name: &'static str, problem: ConvProblem, density: f64) -> Case {
    Case {
        name,
        problem,
        density,
    }
}

/// Small problems at every boundary, for correctness.
pub const AWKWARD: &[Case] = &[
    case("one_pixel", conv(1, [3, 5], [1, 1], [1, 1]), 0.5),
    case(
        "one_pixel_batch_of_three",
        conv(3, [17, 4], [1, 1], [1, 1]),
        0.3,
    ),
    case("one_channel", conv(1, [1, 1], [4, 4], [3, 3]), 0.5),
    case(
        "padded",
        ConvProblem {
            padding: [[1, 1], [1, 1]],
            ..conv(2, [4, 6], [7, 7], [3, 3])
        },
        0.3,
    ),
    case(
        "padding_of_two_on_five_by_five",
        ConvProblem {
            padding: [[2, 2], [2, 2]],
            ..conv(1, [3, 4], [6, 9], [5, 5])
        },
        0.2,
    ),
    case(
        "asymmetric_padding",
        ConvProblem {
            padding: [[0, 2], [3, 1]],
            ..conv(1, [2, 3], [5, 6], [3, 4])
        },
        0.4,
    ),
    case(
        "padding_wider_than_the_kernel",
        ConvProblem {
            padding: [[3, 3], [3, 3]],
            ..conv(1, [2, 2], [3, 3], [2, 2])
        },
        0.5,
    ),
    case(
        "stride_two",
        ConvProblem {
            stride: [2, 2],
            padding: [[1, 1], [1, 1]],
            ..conv(1, [4, 5], [9, 8], [3, 3])
        },
        0.3,
    ),
    case(
        "stride_two_one_by_one",
        ConvProblem {
            stride: [2, 2],
            ..conv(3, [8, 6], [7, 7], [1, 1])
        },
        0.3,
    ),
    case(
        "stride_beyond_kernel",
        ConvProblem {
            stride: [3, 4],
            ..conv(1, [3, 4], [10, 11], [2, 2])
        },
        0.5,
    ),
    case(
        "unequal_strides",
        ConvProblem {
            stride: [1, 3],
            padding: [[1, 0], [0, 2]],
            ..conv(2, [3, 4], [6, 13], [3, 5])
        },
        0.3,
    ),
    case(
        "stem_of_a_resnet",
        ConvProblem {
            stride: [2, 2],
            padding: [[3, 3], [3, 3]],
            ..conv(1, [3, 8], [21, 19], [7, 7])
        },
        0.2,
    ),
    case(
        "dilated",
        ConvProblem {
            dilation: [2, 2],
            padding: [[2, 2], [2, 2]],
            ..conv(1, [3, 4], [8, 8], [3, 3])
        },
        0.4,
    ),
    case(
        "dilated_and_strided",
        ConvProblem {
            dilation: [2, 3],
            stride: [2, 2],
            padding: [[1, 1], [3, 3]],
            ..conv(1, [4, 4], [9, 12], [3, 3])
        },
        0.4,
    ),
    case(
        "groups",
        ConvProblem {
            groups: 3,
            padding: [[1, 1], [1, 1]],
            ..conv(2, [6, 9], [5, 5], [3, 3])
        },
        0.3,
    ),
    case(
        "depthwise",
        ConvProblem {
            groups: 8,
            padding: [[1, 1], [1, 1]],
            ..conv(1, [8, 8], [6, 6], [3, 3])
        },
        0.5,
    ),
    case(
        "odd_batch",
        ConvProblem {
            padding: [[1, 1], [1, 1]],
            ..conv(5, [4, 3], [6, 5], [3, 3])
        },
        0.3,
    ),
    case("batch_of_thirteen", conv(13, [4, 3], [3, 5], [1, 1]), 0.5),
    case(
        "plane_of_seven_by_seven",
        ConvProblem {
            padding: [[1, 1], [1, 1]],
            ..conv(2, [16, 16], [7, 7], [3, 3])
        },
        0.1,
    ),
    case(
        "wider_than_a_register_tile",
        conv(1, [2, 2], [2, 700], [1, 3]),
        0.6,
    ),
    case(
        "rows_without_entries",
        ConvProblem {
            padding: [[1, 1], [1, 1]],
            ..conv(1, [4, 40], [5, 5], [3, 3])
        },
        0.02,
    ),
    case("no_non_zeros", conv(2, [4, 4], [5, 5], [3, 3]), 0.0),
    case("no_zeros", conv(1, [4, 4], [5, 5], [3, 3]), 1.0),
    case(
        "one_dimensional",
        ConvProblem {
            padding: [[0, 0], [2, 2]],
            ..conv(2, [5, 7], [1, 33], [1, 5])
        },
        0.3,
    ),
    case(
        "one_dimensional_strided",
        ConvProblem {
            stride: [1, 2],
            dilation: [1, 2],
            ..conv(3, [4, 4], [1, 40], [1, 3])
        },
        0.3,
    ),
];

/// The distinct convolutions of ResNet-50 at 224x224, batch 1, 90 % sparse, for timing.
pub const RESNET50: &[Case] = &[
    case(
        "resnet50_conv1x1_64_64_56",
        conv(1, [64, 64], [56, 56], [1, 1]),
        0.1,
    ),
    case(
        "resnet50_conv3x3_64_64_56",
        ConvProblem {
            padding: [[1, 1], [1, 1]],
            ..conv(1, [64, 64], [56, 56], [3, 3])
        },
        0.1,
    ),
    case(
        "resnet50_conv1x1_64_256_56",
        conv(1, [64, 256], [56, 56], [1, 1]),
        0.1,
    ),
    case(
        "resnet50_conv1x1_256_64_56",
        conv(1, [256, 64], [56, 56], [1, 1]),
        0.1,
    ),
    case(
        "resnet50_conv1x1_256_128_56",
        conv(1, [256, 128], [56, 56], [1, 1]),
        0.1,
    ),
    case(
        "resnet50_conv3x3s2_128_128_56",
        ConvProblem {
            stride: [2, 2],
            padding: [[1, 1], [1, 1]],
            ..conv(1, [128, 128], [56, 56], [3, 3])
        },
        0.1,
    ),
    case(
        "resnet50_conv1x1_128_512_28",
        conv(1, [128, 512], [28, 28], [1, 1]),
        0.1,
    ),
    case(
        "resnet50_conv1x1s2_256_512_56",
        ConvProblem {
            stride: [2, 2],
            ..conv(1, [256, 512], [56, 56], [1, 1])
        },
        0.1,
    ),
    case(
        "resnet50_conv1x1_512_128_28",
        conv(1, [512, 128], [28, 28], [1, 1]),
        0.1,
    ),
    case(
        "resnet50_conv3x3_128_128_28",
        ConvProblem {
            padding: [[1, 1], [1, 1]],
            ..conv(1, [128, 128], [28, 28], [3, 3])
        },
        0.1,
    ),
    case(
        "resnet50_conv3x3_256_256_14",
        ConvProblem {
            padding: [[1, 1], [1, 1]],
            ..conv(1, [256, 256], [14, 14], [3, 3])
        },
        0.1,
    ),
    case(
        "resnet50_conv1x1_1024_256_14",
        conv(1, [1024, 256], [14, 14], [1, 1]),
        0.1,
    ),
    case(
        "resnet50_conv3x3_512_512_7",
        ConvProblem {
            padding: [[1, 1], [1, 1]],
            ..conv(1, [512, 512], [7, 7], [3, 3])
        },
        0.1,
    ),
    case(
        "resnet50_conv1x1_512_2048_7",
        conv(1, [512, 2048], [7, 7], [1, 1]),
        0.1,
    ),
];

/// A linear layer: rows of input, input and output features, density.
#[derive(Debug, Clone, Copy)]
pub struct LinearCase {
    /// Names the boundary it probes.
    pub name: &'static str,
    /// Rows of input.
    pub m: usize,
    /// Input features.
    pub d_input: usize,
    /// Output features.
    pub d_output: usize,
    /// Fraction of non-zeros.
    pub density: f64,
}

const fn linear(
    name: &'static str,
    m: usize,
    [d_input, d_output]: [usize; 2],
    density: f64,
) -> LinearCase {
    LinearCase {
        name,
        m,
        d_input,
        d_output,
        density,
    }
}

/// Linear layers at every boundary.
pub const LINEAR: &[LinearCase] = &[
    linear("one_by_one", 1, [1, 1], 1.0),
    linear("one_row", 1, [67, 33], 0.3),
    linear("two_rows", 2, [64, 10], 0.2),
    linear("rows_that_no_vector_divides", 19, [31, 7], 0.4),
    linear("many_rows", 130, [20, 12], 0.3),
    linear("no_non_zeros", 5, [8, 8], 0.0),
    linear("rows_without_entries", 3, [16, 64], 0.02),
    linear("no_zeros", 4, [9, 5], 1.0),
];

/// The weight of a case: `density` of the entries random in `[-1, 1)`, the rest zero; reproducible.
pub fn weight(len: usize, density: f64, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            let value = uniform(&mut state);
            if f64::from(uniform(&mut state)) < 2.0 * density - 1.0 {
                value
            } else {
                0.0
            }
        })
        .collect()
}

/// Reproducible values in `[-1, 1)`.
pub fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0xD134_2543_DE82_EF95) | 1;
    (0..len).map(|_| uniform(&mut state)).collect()
}

/// splitmix64, cut to 24 bits so that every value is exact in f32.
fn uniform(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 23) as f32 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_valid_and_named_once() {
        let mut names = std::collections::HashSet::new();
        for case in AWKWARD.iter().chain(RESNET50) {
            case.problem
                .check()
                .unwrap_or_else(|error| panic!("{}: {error}", case.name));
            assert!(names.insert(case.name), "{} twice", case.name);
        }
    }

    #[test]
    fn densities_are_met() {
        for density in [0.0, 0.1, 0.5, 1.0] {
            let weight = weight(20_000, density, 3);
            let nnz = weight.iter().filter(|&&w| w != 0.0).count();
            assert!(
                (nnz as f64 / 20_000.0 - density).abs() < 0.02,
                "{density}: {nnz}"
            );
        }
    }
}
