//! Windows on x86-64: elements of the vector are picked from two registers by an index in each
//! lane, instead of being gathered from memory one by one.

use core::arch::x86_64::{__m128i, __m256, __m512};

use pulp::NullaryFnOnce;
use pulp::x86::{V3, V4};

use super::{super::Isa, RowFinish};

/// Windows at a time, with sums of their own.
const AT_ONCE: usize = 2;

pub(super) struct Windows<'a> {
    /// First group of lanes.
    pub(super) first: usize,
    pub(super) starts: &'a [u32],
    pub(super) firsts: &'a [u32],
    pub(super) picks: &'a [u8],
    pub(super) values: &'a [f32],
    pub(super) x: &'a [f32],
    pub(super) finish: RowFinish<'a>,
    pub(super) out: &'a mut [f32],
}

impl Windows<'_> {
    /// # Panics
    /// If this machine cannot run the instruction set, or it has no windows.
    pub(super) fn run(self, isa: Isa) {
        const MISSING: &str = "an instruction set that this machine has";
        match isa {
            Isa::Avx512 => {
                let lanes = V4::try_new().expect(MISSING);
                lanes.vectorize(Run(self, lanes));
            }
            Isa::Avx2 => {
                let lanes = V3::try_new().expect(MISSING);
                lanes.vectorize(Run(self, lanes));
            }
            Isa::Neon | Isa::Portable => unreachable!("windows are of AVX-512 and AVX2"),
        }
    }
}

/// A vector register of `L` lanes.
pub(super) trait Lanes<const L: usize>: Copy {
    type Register: Copy;

    fn zero(self) -> Self::Register;

    /// `window[picks]` for a window of `2 L` elements.
    fn picked(self, window: [&[f32; L]; 2], picks: &[u8; L]) -> Self::Register;

    /// `sums + values ⊙ window[picks]`.
    fn add(
        self,
        sums: Self::Register,
        window: [&[f32; L]; 2],
        picks: &[u8; L],
        values: &[f32; L],
    ) -> Self::Register;

    fn total(self, sums: [Self::Register; AT_ONCE]) -> [f32; L];
}

impl Lanes<16> for V4 {
    type Register = __m512;

    #[inline(always)]
    fn zero(self) -> __m512 {
        pulp::cast([0.0f32; 16])
    }

    #[inline(always)]
    fn picked(self, window: [&[f32; 16]; 2], picks: &[u8; 16]) -> __m512 {
        let [low, high] = window.map(|half| pulp::cast(*half));
        let picks = self.avx512f._mm512_cvtepu8_epi32(pulp::cast(*picks));
        self.avx512f._mm512_permutex2var_ps(low, picks, high)
    }

    #[inline(always)]
    fn add(
        self,
        sums: __m512,
        window: [&[f32; 16]; 2],
        picks: &[u8; 16],
        values: &[f32; 16],
    ) -> __m512 {
        let x = self.picked(window, picks);
        self.avx512f._mm512_fmadd_ps(x, pulp::cast(*values), sums)
    }

    #[inline(always)]
    fn total(self, [a, b]: [__m512; 2]) -> [f32; 16] {
        pulp::cast(self.avx512f._mm512_add_ps(a, b))
    }
}

impl Lanes<8> for V3 {
    type Register = __m256;

    #[inline(always)]
    fn zero(self) -> __m256 {
        pulp::cast([0.0f32; 8])
    }

    #[inline(always)]
    fn picked(self, window: [&[f32; 8]; 2], picks: &[u8; 8]) -> __m256 {
        let [low, high] = window.map(|half| pulp::cast(*half));
        let bytes: __m128i = self.sse2._mm_set_epi64x(0, i64::from_le_bytes(*picks));
        let picks = self.avx2._mm256_cvtepu8_epi32(bytes);
        // Only the lowest three bits count; the fourth tells the halves apart.
        let low = self.avx2._mm256_permutevar8x32_ps(low, picks);
        let high = self.avx2._mm256_permutevar8x32_ps(high, picks);
        let which = self.avx2._mm256_slli_epi32::<28>(picks);
        self.avx._mm256_blendv_ps(low, high, pulp::cast(which))
    }

    #[inline(always)]
    fn add(
        self,
        sums: __m256,
        window: [&[f32; 8]; 2],
        picks: &[u8; 8],
        values: &[f32; 8],
    ) -> __m256 {
        let x = self.picked(window, picks);
        self.fma._mm256_fmadd_ps(x, pulp::cast(*values), sums)
    }

    #[inline(always)]
    fn total(self, [a, b]: [__m256; 2]) -> [f32; 8] {
        pulp::cast(self.avx._mm256_add_ps(a, b))
    }
}

struct Run<'a, T>(Windows<'a>, T);

impl NullaryFnOnce for Run<'_, V4> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        run::<V4, 16>(self.0, self.1);
    }
}

impl NullaryFnOnce for Run<'_, V3> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        run::<V3, 8>(self.0, self.1);
    }
}

#[inline(always)]
fn run<T: Lanes<L>, const L: usize>(windows: Windows<'_>, lanes: T) {
    let Windows {
        first,
        starts,
        firsts,
        picks,
        values,
        x,
        finish,
        out,
    } = windows;
    let ((picks, _), (values, _)) = (picks.as_chunks::<L>(), values.as_chunks::<L>());
    for (at, out) in out.chunks_mut(L).enumerate() {
        let group = first + at;
        let range = starts[group] as usize..starts[group + 1] as usize;
        let (firsts, picks) = (&firsts[range.clone()], &picks[range.clone()]);
        let values = &values[range];
        let add = |sums: T::Register, first: u32, picks: &[u8; L], values: &[f32; L]| {
            let (window, _) = x[first as usize..][..2 * L].as_chunks::<L>();
            lanes.add(sums, [&window[0], &window[1]], picks, values)
        };
        let mut sums = [lanes.zero(); AT_ONCE];
        let (firsts2, firsts1) = firsts.as_chunks::<AT_ONCE>();
        let (picks2, picks1) = picks.as_chunks::<AT_ONCE>();
        let (values2, values1) = values.as_chunks::<AT_ONCE>();
        for ((firsts, picks), values) in firsts2.iter().zip(picks2).zip(values2) {
            for i in 0..AT_ONCE {
                sums[i] = add(sums[i], firsts[i], &picks[i], &values[i]);
            }
        }
        for ((&first, picks), values) in firsts1.iter().zip(picks1).zip(values1) {
            sums[0] = add(sums[0], first, picks, values);
        }
        finish.store(&lanes.total(sums), group * L, out);
    }
}
