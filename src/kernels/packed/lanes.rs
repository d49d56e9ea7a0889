//! What one instruction set can do with a vector of sums.

use super::number::Number;
use pulp::Simd;

/// Vectors of one instruction set for one type of number.
///
/// # Safety
/// An implementation may only exist where the processor has its instructions.
pub(super) unsafe trait Lanes: Copy {
    /// What is multiplied.
    type Number: Number;
    /// `COUNT` sums.
    type Sums: Copy;
    /// One step of inputs for each of `COUNT` outputs.
    type Factors: Copy;
    /// Sums of a vector.
    const COUNT: usize;

    /// No sums yet.
    fn zero(self) -> Self::Sums;

    /// The first `count` of a vector, or all of it.
    ///
    /// # Safety
    /// `count` numbers, at most `COUNT`, can be read there.
    unsafe fn load(self, from: *const f32, count: usize) -> Self::Sums;

    /// The way back.
    ///
    /// # Safety
    /// `count` numbers, at most `COUNT`, can be written there.
    unsafe fn store(self, to: *mut f32, sums: Self::Sums, count: usize);

    /// One step of a vector of a panel.
    ///
    /// # Safety
    /// `COUNT * DEPTH` numbers can be read there.
    unsafe fn factors(self, from: *const Self::Number) -> Self::Factors;

    /// One step of a row, the same for all outputs.
    ///
    /// # Safety
    /// `DEPTH` numbers can be read there.
    unsafe fn splat(self, from: *const Self::Number) -> Self::Factors;

    /// Two vectors of sums as one.
    fn add(self, a: Self::Sums, b: Self::Sums) -> Self::Sums;

    /// `sums + a b`, summed over the inputs of a step.
    fn multiply_add(self, a: Self::Factors, b: Self::Factors, sums: Self::Sums) -> Self::Sums;
}

/// float32 by any instruction set.
#[derive(Clone, Copy)]
pub(super) struct FloatLanes<S>(pub(super) S);

// SAFETY: a value of `S` is proof that the processor has its instructions.
unsafe impl<S: Simd> Lanes for FloatLanes<S> {
    type Number = f32;
    type Sums = S::f32s;
    type Factors = S::f32s;
    const COUNT: usize = S::F32_LANES;

    #[inline(always)]
    fn zero(self) -> S::f32s {
        self.0.splat_f32s(0.0)
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32, count: usize) -> S::f32s {
        // SAFETY: the caller's promise; `f32s` is plain data of `COUNT` floats.
        unsafe {
            if count >= Self::COUNT {
                from.cast::<S::f32s>().read_unaligned()
            } else {
                self.0.partial_load_f32s(std::slice::from_raw_parts(from, count))
            }
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, sums: S::f32s, count: usize) {
        // SAFETY: as in `load`.
        unsafe {
            if count >= Self::COUNT {
                to.cast::<S::f32s>().write_unaligned(sums);
            } else {
                self.0
                    .partial_store_f32s(std::slice::from_raw_parts_mut(to, count), sums);
            }
        }
    }

    #[inline(always)]
    unsafe fn factors(self, from: *const f32) -> S::f32s {
        // SAFETY: the caller's promise.
        unsafe { self.load(from, Self::COUNT) }
    }

    #[inline(always)]
    unsafe fn splat(self, from: *const f32) -> S::f32s {
        // SAFETY: the caller's promise.
        self.0.splat_f32s(unsafe { *from })
    }

    #[inline(always)]
    fn add(self, a: S::f32s, b: S::f32s) -> S::f32s {
        self.0.add_f32s(a, b)
    }

    #[inline(always)]
    fn multiply_add(self, a: S::f32s, b: S::f32s, sums: S::f32s) -> S::f32s {
        self.0.mul_add_e_f32s(a, b, sums)
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use bfloat::{has_bfloat, narrow, run_bfloat};

#[cfg(target_arch = "x86_64")]
mod bfloat {
    use super::Lanes;
    use crate::kernels::packed::tile::Job;
    use half::bf16;
    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _mm256_storeu_epi16, _mm512_add_ps, _mm512_cvtneps_pbh, _mm512_dpbf16_ps,
        _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_set1_epi32,
        _mm512_setzero_ps, _mm512_storeu_ps,
    };

    /// Whether this processor multiplies bfloat16.
    pub(in crate::kernels::packed) fn has_bfloat() -> bool {
        is_x86_feature_detected!("avx512bf16")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
    }

    /// Pairs of bfloat16 by AVX512-BF16. Made in [`run_bfloat`] alone.
    #[derive(Clone, Copy)]
    struct BfloatLanes(());

    // SAFETY: only `run_bfloat` makes one, and its caller has asked the processor.
    unsafe impl Lanes for BfloatLanes {
        type Number = bf16;
        type Sums = __m512;
        type Factors = __m512bh;
        const COUNT: usize = 16;

        #[inline(always)]
        fn zero(self) -> __m512 {
            // SAFETY: the processor has AVX-512, or there would be no value of this type.
            unsafe { _mm512_setzero_ps() }
        }

        #[inline(always)]
        unsafe fn load(self, from: *const f32, count: usize) -> __m512 {
            // SAFETY: the caller's promise, and as in `zero`.
            unsafe {
                if count >= 16 {
                    _mm512_loadu_ps(from)
                } else {
                    _mm512_maskz_loadu_ps((1 << count) - 1, from)
                }
            }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32, sums: __m512, count: usize) {
            // SAFETY: the caller's promise, and as in `zero`.
            unsafe {
                if count >= 16 {
                    _mm512_storeu_ps(to, sums);
                } else {
                    _mm512_mask_storeu_ps(to, (1 << count) - 1, sums);
                }
            }
        }

        #[inline(always)]
        unsafe fn factors(self, from: *const bf16) -> __m512bh {
            // SAFETY: the caller's promise, and as in `zero`; both types are 64 bytes without meaning of their own.
            unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(from.cast())) }
        }

        #[inline(always)]
        unsafe fn splat(self, from: *const bf16) -> __m512bh {
            // SAFETY: as in `factors`, for two numbers.
            unsafe {
                let pair = from.cast::<i32>().read_unaligned();
                std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(pair))
            }
        }

        #[inline(always)]
        fn add(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: as in `zero`.
            unsafe { _mm512_add_ps(a, b) }
        }

        #[inline(always)]
        fn multiply_add(self, a: __m512bh, b: __m512bh, sums: __m512) -> __m512 {
            // SAFETY: as in `zero`.
            unsafe { _mm512_dpbf16_ps(sums, a, b) }
        }
    }

    /// # Safety
    /// [`has_bfloat`] has said yes.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(in crate::kernels::packed) unsafe fn run_bfloat(job: Job<'_, '_, bf16>) {
        job.run::<_, 8>(BfloatLanes(()));
    }

    /// Rounds to the nearest, as many as the shorter of the two.
    ///
    /// # Safety
    /// [`has_bfloat`] has said yes.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(in crate::kernels::packed) unsafe fn narrow(values: &[f32], numbers: &mut [bf16]) {
        let (mut from, mut to) = (values.chunks_exact(16), numbers.chunks_exact_mut(16));
        for (from, to) in (&mut from).zip(&mut to) {
            // SAFETY: both hold sixteen numbers.
            unsafe {
                let rounded = _mm512_cvtneps_pbh(_mm512_loadu_ps(from.as_ptr()));
                _mm256_storeu_epi16(to.as_mut_ptr().cast(), std::mem::transmute_copy(&rounded));
            }
        }
        let done = values.len().min(numbers.len()) / 16 * 16;
        for (number, value) in numbers[done..].iter_mut().zip(&values[done..]) {
            *number = bf16::from_f32(*value);
        }
    }
}
