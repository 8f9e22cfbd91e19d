//! What the vector units do to codes.

use pulp::{Scalar256b, Simd};

use super::codes::ENTRIES;

/// A vector unit that turns codes into numbers.
pub(super) trait Unit: Simd {
    /// A table in registers.
    type Table: Copy;

    fn table(self, entries: &[f32; ENTRIES]) -> Self::Table;

    /// `words >> by`.
    fn shifted(self, words: Self::u32s, by: u32) -> Self::u32s;

    /// The entry that the lowest `BITS` bits of each lane name, for a table that repeats itself after
    /// as many entries as they can say.
    fn pick<const BITS: u32>(self, table: Self::Table, words: Self::u32s) -> Self::f32s;

    /// The signed integer in the bits of each lane that `above` others follow, after `below`.
    fn integers(self, words: Self::u32s, above: u32, below: u32) -> Self::f32s;

    /// Signed integers of one byte, one for each lane.
    fn widened(self, bytes: &[u8]) -> Self::f32s;

    /// `window[picks]` for a window of twice as many elements as there are lanes.
    fn window(self, window: &[f32], picks: &[u8]) -> Self::f32s;
}

/// Methods for lanes in an array, of which the compiler makes vectors.
macro_rules! arrays {
    ($lanes:literal) => {
        type Table = [f32; ENTRIES];

        #[inline(always)]
        fn table(self, entries: &[f32; ENTRIES]) -> Self::Table {
            *entries
        }

        #[inline(always)]
        fn shifted(self, words: Self::u32s, by: u32) -> Self::u32s {
            let words: [u32; $lanes] = pulp::cast(words);
            pulp::cast(words.map(|word| word >> by))
        }

        #[inline(always)]
        fn pick<const BITS: u32>(self, table: Self::Table, words: Self::u32s) -> Self::f32s {
            let words: [u32; $lanes] = pulp::cast(words);
            pulp::cast(words.map(|word| table[word as usize % ENTRIES]))
        }

        #[inline(always)]
        fn integers(self, words: Self::u32s, above: u32, below: u32) -> Self::f32s {
            let words: [u32; $lanes] = pulp::cast(words);
            pulp::cast(words.map(|word| ((word << above) as i32 >> (above + below)) as f32))
        }

        #[inline(always)]
        fn widened(self, bytes: &[u8]) -> Self::f32s {
            let bytes: [u8; $lanes] = *bytes.first_chunk().expect(A_REGISTER);
            pulp::cast(bytes.map(|byte| f32::from(byte as i8)))
        }

        #[inline(always)]
        fn window(self, window: &[f32], picks: &[u8]) -> Self::f32s {
            let picks: [u8; $lanes] = *picks.first_chunk().expect(A_REGISTER);
            pulp::cast(picks.map(|pick| window[usize::from(pick)]))
        }
    };
}

const A_REGISTER: &str = "as many bytes as a register has lanes";

impl Unit for Scalar256b {
    arrays!(8);
}

#[cfg(target_arch = "aarch64")]
impl Unit for pulp::aarch64::Neon {
    arrays!(4);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use core::arch::x86_64::{__m128i, __m256, __m256i, __m512, __m512i};

    use pulp::x86::{V3, V4};

    use super::{super::lookup::Lanes, A_REGISTER, ENTRIES, Unit};

    impl Unit for V4 {
        type Table = [__m512; 2];

        #[inline(always)]
        fn table(self, entries: &[f32; ENTRIES]) -> Self::Table {
            pulp::cast(*entries)
        }

        #[inline(always)]
        fn shifted(self, words: Self::u32s, by: u32) -> Self::u32s {
            let by: __m512i = pulp::cast([by; 16]);
            pulp::cast(self.avx512f._mm512_srlv_epi32(pulp::cast(words), by))
        }

        #[inline(always)]
        fn pick<const BITS: u32>(self, table: Self::Table, words: Self::u32s) -> Self::f32s {
            let words = pulp::cast(words);
            pulp::cast(if BITS <= 4 {
                self.avx512f._mm512_permutexvar_ps(words, table[0])
            } else {
                self.avx512f
                    ._mm512_permutex2var_ps(table[0], words, table[1])
            })
        }

        #[inline(always)]
        fn integers(self, words: Self::u32s, above: u32, below: u32) -> Self::f32s {
            let [left, right]: [__m512i; 2] = pulp::cast([[above; 16], [above + below; 16]]);
            let words = self.avx512f._mm512_sllv_epi32(pulp::cast(words), left);
            let words = self.avx512f._mm512_srav_epi32(words, right);
            pulp::cast(self.avx512f._mm512_cvtepi32_ps(words))
        }

        #[inline(always)]
        fn widened(self, bytes: &[u8]) -> Self::f32s {
            let bytes: [u8; 16] = *bytes.first_chunk().expect(A_REGISTER);
            let words = self.avx512f._mm512_cvtepi8_epi32(pulp::cast(bytes));
            pulp::cast(self.avx512f._mm512_cvtepi32_ps(words))
        }

        #[inline(always)]
        fn window(self, window: &[f32], picks: &[u8]) -> Self::f32s {
            let (halves, _) = window.as_chunks::<16>();
            let (picks, _) = picks.as_chunks::<16>();
            pulp::cast(self.picked([&halves[0], &halves[1]], &picks[0]))
        }
    }

    impl Unit for V3 {
        type Table = [__m256; 4];

        #[inline(always)]
        fn table(self, entries: &[f32; ENTRIES]) -> Self::Table {
            pulp::cast(*entries)
        }

        #[inline(always)]
        fn shifted(self, words: Self::u32s, by: u32) -> Self::u32s {
            let by: __m256i = pulp::cast([by; 8]);
            pulp::cast(self.avx2._mm256_srlv_epi32(pulp::cast(words), by))
        }

        #[inline(always)]
        fn pick<const BITS: u32>(self, table: Self::Table, words: Self::u32s) -> Self::f32s {
            let words: __m256i = pulp::cast(words);
            // Only the lowest three bits count; blends look at the highest.
            let [a, b, c, d] = [
                self.avx2._mm256_permutevar8x32_ps(table[0], words),
                self.avx2._mm256_permutevar8x32_ps(table[1], words),
                self.avx2._mm256_permutevar8x32_ps(table[2], words),
                self.avx2._mm256_permutevar8x32_ps(table[3], words),
            ];
            if BITS <= 3 {
                return pulp::cast(a);
            }
            let fourth: __m256 = pulp::cast(self.avx2._mm256_slli_epi32::<28>(words));
            let low = self.avx._mm256_blendv_ps(a, b, fourth);
            if BITS == 4 {
                return pulp::cast(low);
            }
            let high = self.avx._mm256_blendv_ps(c, d, fourth);
            let fifth: __m256 = pulp::cast(self.avx2._mm256_slli_epi32::<27>(words));
            pulp::cast(self.avx._mm256_blendv_ps(low, high, fifth))
        }

        #[inline(always)]
        fn integers(self, words: Self::u32s, above: u32, below: u32) -> Self::f32s {
            let [left, right]: [__m256i; 2] = pulp::cast([[above; 8], [above + below; 8]]);
            let words = self.avx2._mm256_sllv_epi32(pulp::cast(words), left);
            let words = self.avx2._mm256_srav_epi32(words, right);
            pulp::cast(self.avx._mm256_cvtepi32_ps(words))
        }

        #[inline(always)]
        fn widened(self, bytes: &[u8]) -> Self::f32s {
            let bytes: [u8; 8] = *bytes.first_chunk().expect(A_REGISTER);
            let bytes: __m128i = self.sse2._mm_set_epi64x(0, i64::from_le_bytes(bytes));
            let words = self.avx2._mm256_cvtepi8_epi32(bytes);
            pulp::cast(self.avx._mm256_cvtepi32_ps(words))
        }

        #[inline(always)]
        fn window(self, window: &[f32], picks: &[u8]) -> Self::f32s {
            let (halves, _) = window.as_chunks::<8>();
            let (picks, _) = picks.as_chunks::<8>();
            pulp::cast(self.picked([&halves[0], &halves[1]], &picks[0]))
        }
    }
}
