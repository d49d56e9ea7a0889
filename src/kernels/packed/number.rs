//! Types that products multiply: float32, and bfloat16 where the processor has an instruction for it.

use super::lanes::FloatLanes;
use super::tile::Job;
use crate::kernels::memory::Buffer;
use candle_core::{Result, bail};
use half::bf16;
use pulp::{Arch, Simd, WithSimd};

/// A number of a product's operands; sums are float32 whatever it is.
pub trait Number: Copy + Default + Send + Sync + std::fmt::Debug + 'static {
    /// Inputs that one instruction multiplies and adds for each output.
    const DEPTH: usize;
    /// 0.
    const ZERO: Self;
    /// For reports.
    const NAME: &'static str;

    /// Rounds to the nearest, ties to even.
    fn of(value: f32) -> Self;

    /// Exactly.
    fn float(self) -> f32;

    /// Outputs of one vector on this processor.
    ///
    /// # Errors
    /// A type that this processor does not multiply.
    fn lanes() -> Result<usize>;

    /// Rounds every number of `values`.
    fn narrow(values: &[f32], numbers: &mut [Self]);

    /// `values` as numbers: themselves, or rounded into `room`.
    fn of_all<'a>(values: &'a [f32], room: &'a mut Buffer<Self>) -> &'a [Self];

    /// Numbers that are floats, as floats.
    fn as_floats(numbers: &mut [Self]) -> Option<&mut [f32]>;

    #[doc(hidden)]
    fn run(job: Job<'_, '_, Self>) -> Result<()>;
}

/// Sums of one vector of the widest instruction set here.
fn float_lanes() -> usize {
    struct Count;
    impl WithSimd for Count {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            S::F32_LANES
        }
    }
    Arch::new().dispatch(Count)
}

impl Number for f32 {
    const DEPTH: usize = 1;
    const ZERO: Self = 0.0;
    const NAME: &'static str = "f32";

    #[inline(always)]
    fn of(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn float(self) -> f32 {
        self
    }

    fn lanes() -> Result<usize> {
        Ok(float_lanes())
    }

    fn narrow(values: &[f32], numbers: &mut [Self]) {
        numbers.copy_from_slice(values);
    }

    fn of_all<'a>(values: &'a [f32], _: &'a mut Buffer<Self>) -> &'a [Self] {
        values
    }

    fn as_floats(numbers: &mut [Self]) -> Option<&mut [f32]> {
        Some(numbers)
    }

    fn run(job: Job<'_, '_, Self>) -> Result<()> {
        struct Floats<'a, 'b>(Job<'a, 'b, f32>);
        impl WithSimd for Floats<'_, '_> {
            type Output = ();
            #[inline(always)]
            fn with_simd<S: Simd>(self, simd: S) {
                // Sixteen registers hold four rows of sums, thirty-two hold eight.
                if S::F32_LANES == 8 || S::F32_LANES == 1 {
                    self.0.run::<_, 4>(FloatLanes(simd));
                } else {
                    self.0.run::<_, 8>(FloatLanes(simd));
                }
            }
        }
        Arch::new().dispatch(Floats(job));
        Ok(())
    }
}

impl Number for bf16 {
    const DEPTH: usize = 2;
    const ZERO: Self = bf16::ZERO;
    const NAME: &'static str = "bf16";

    #[inline(always)]
    fn of(value: f32) -> Self {
        bf16::from_f32(value)
    }

    #[inline(always)]
    fn float(self) -> f32 {
        self.to_f32()
    }

    fn lanes() -> Result<usize> {
        #[cfg(target_arch = "x86_64")]
        if super::lanes::has_bfloat() {
            return Ok(16);
        }
        bail!("this processor has no bfloat16 products (AVX512-BF16)")
    }

    fn narrow(values: &[f32], numbers: &mut [Self]) {
        #[cfg(target_arch = "x86_64")]
        if super::lanes::has_bfloat() {
            // SAFETY: the processor has the instructions.
            unsafe { super::lanes::narrow(values, numbers) };
            return;
        }
        for (number, value) in numbers.iter_mut().zip(values) {
            *number = bf16::from_f32(*value);
        }
    }

    fn of_all<'a>(values: &'a [f32], room: &'a mut Buffer<Self>) -> &'a [Self] {
        if room.len() < values.len() {
            room.resize(values.len(), Self::ZERO);
        }
        Self::narrow(values, &mut room[..values.len()]);
        &room[..values.len()]
    }

    fn as_floats(_: &mut [Self]) -> Option<&mut [f32]> {
        None
    }

    fn run(job: Job<'_, '_, Self>) -> Result<()> {
        #[cfg(target_arch = "x86_64")]
        if super::lanes::has_bfloat() {
            // SAFETY: the processor has the instructions.
            unsafe { super::lanes::run_bfloat(job) };
            return Ok(());
        }
        let _ = job;
        Self::lanes().map(|_| ())
    }
}
