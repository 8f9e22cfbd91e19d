//! `vpdpbusd`, and pairs of 16 bits where it is missing.

use core::arch::x86_64::{
    __m256i, __m512i, _mm256_add_epi32, _mm256_cvtepi8_epi16, _mm256_dpbusd_avx_epi32,
    _mm256_madd_epi16, _mm512_dpbusd_epi32,
};

use super::{BLOCK, DEPTH, Dot, ROWS, Work};

/// `vpdpbusd` on registers of 64 bytes.
#[derive(Clone, Copy)]
pub(crate) struct Vnni512(());

impl Vnni512 {
    pub(crate) fn try_new() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        has.then_some(Self(()))
    }

    pub(super) fn run(self, work: impl Work) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
        fn run(dot: Vnni512, work: impl Work) {
            work.run::<_, 6, 4>(dot);
        }
        // SAFETY: there is no value of this type without these features.
        unsafe { run(self, work) }
    }
}

impl Dot for Vnni512 {
    type Sums = __m512i;

    #[inline(always)]
    fn zero(self) -> __m512i {
        pulp::cast([0i32; 16])
    }

    #[inline(always)]
    fn add(self, sums: __m512i, weights: &[i8; BLOCK], x: [u8; DEPTH]) -> __m512i {
        let x = pulp::cast([u32::from_ne_bytes(x); 16]);
        // SAFETY: there is no value of this type without the feature.
        unsafe { _mm512_dpbusd_epi32(sums, x, pulp::cast(*weights)) }
    }

    #[inline(always)]
    fn total(self, sums: __m512i) -> [i32; ROWS] {
        pulp::cast(sums)
    }
}

/// `vpdpbusd` on registers of 32 bytes.
#[derive(Clone, Copy)]
pub(crate) struct Vnni256(());

impl Vnni256 {
    pub(crate) fn try_new() -> Option<Self> {
        let has = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("avxvnni");
        has.then_some(Self(()))
    }

    pub(super) fn run(self, work: impl Work) {
        #[target_feature(enable = "avx2,avxvnni")]
        fn run(dot: Vnni256, work: impl Work) {
            work.run::<_, 3, 2>(dot);
        }
        // SAFETY: there is no value of this type without these features.
        unsafe { run(self, work) }
    }
}

impl Dot for Vnni256 {
    type Sums = [__m256i; 2];

    #[inline(always)]
    fn zero(self) -> Self::Sums {
        pulp::cast([0i32; 16])
    }

    #[inline(always)]
    fn add(self, sums: Self::Sums, weights: &[i8; BLOCK], x: [u8; DEPTH]) -> Self::Sums {
        let x: __m256i = pulp::cast([u32::from_ne_bytes(x); 8]);
        let [low, high]: [__m256i; 2] = pulp::cast(*weights);
        // SAFETY: there is no value of this type without the feature.
        unsafe {
            [
                _mm256_dpbusd_avx_epi32(sums[0], x, low),
                _mm256_dpbusd_avx_epi32(sums[1], x, high),
            ]
        }
    }

    #[inline(always)]
    fn total(self, sums: Self::Sums) -> [i32; ROWS] {
        pulp::cast(sums)
    }
}

/// Products of 16-bit integers, added in pairs: two sums for each row. (Bytes multiplied directly,
/// by `vpmaddubsw`, would be cut off at 16 bits.)
#[derive(Clone, Copy)]
pub(crate) struct Pairs(());

impl Pairs {
    pub(crate) fn try_new() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }

    pub(super) fn run(self, work: impl Work) {
        #[target_feature(enable = "avx2")]
        fn run(dot: Pairs, work: impl Work) {
            work.run::<_, 2, 1>(dot);
        }
        // SAFETY: there is no value of this type without the feature.
        unsafe { run(self, work) }
    }
}

impl Dot for Pairs {
    type Sums = [__m256i; 4];

    #[inline(always)]
    fn zero(self) -> Self::Sums {
        pulp::cast([0i32; 32])
    }

    #[inline(always)]
    fn add(self, sums: Self::Sums, weights: &[i8; BLOCK], x: [u8; DEPTH]) -> Self::Sums {
        let x: __m256i = pulp::cast([x.map(u16::from); 4]);
        let (quarters, _) = weights.as_chunks::<16>();
        let mut sums = sums;
        for (sum, weights) in sums.iter_mut().zip(quarters) {
            // SAFETY: there is no value of this type without the feature.
            *sum = unsafe {
                let weights = _mm256_cvtepi8_epi16(pulp::cast(*weights));
                _mm256_add_epi32(*sum, _mm256_madd_epi16(weights, x))
            };
        }
        sums
    }

    #[inline(always)]
    fn total(self, sums: Self::Sums) -> [i32; ROWS] {
        let pairs: [[i32; 2]; ROWS] = pulp::cast(sums);
        pairs.map(|[a, b]| a.wrapping_add(b))
    }
}
