//! Where a vector width is chosen: AVX-512, AVX2 with FMA, NEON, or what the target has anyway. The two modules `wide` under
//! `picture` are apart from this: they are written for AVX-512 alone, ask for it themselves, and leave everything else to
//! bodies as these.
//!
//! A kernel's body is plain Rust that the compiler vectorises; [`dispatch`] compiles it once per instruction set
//! and picks at run time. `FMA` tells the body whether fused multiply-add is one instruction: without it
//! `f32::mul_add` would be a slow library call. Dispatch inside each parallel task, not around them: a closure
//! that another thread runs does not inherit the instruction set.

use pulp::{Arch, Simd, WithSimd};

/// A kernel body to be compiled for every instruction set. Mark `run` `#[inline(always)]`.
pub trait Body {
    /// What the body returns.
    type Output;
    /// Does the work; `FMA` is true where `mul_add` is one instruction.
    fn run<const FMA: bool>(self) -> Self::Output;
}

struct Vectorised<B>(B);

impl<B: Body> WithSimd for Vectorised<B> {
    type Output = B::Output;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> B::Output {
        // Every x86-64 and Arm level above scalar that is dispatched to has fused multiply-add.
        if S::F32_LANES > 1 && cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
            self.0.run::<true>()
        } else {
            self.0.run::<false>()
        }
    }
}

/// Runs `body` with the widest instruction set this machine has.
#[inline]
pub fn dispatch<B: Body>(body: B) -> B::Output {
    Arch::new().dispatch(Vectorised(body))
}

/// A mask of the first `count` of 64 lanes.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn first_lanes(count: usize) -> u64 {
    match count {
        0..64 => (1 << count) - 1,
        _ => u64::MAX,
    }
}

/// Name of the instruction set [`dispatch`] picks here, for reports.
pub fn instruction_set() -> &'static str {
    struct Lanes;
    impl WithSimd for Lanes {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            S::F32_LANES
        }
    }
    match (Arch::new().dispatch(Lanes), cfg!(target_arch = "x86_64")) {
        (16, true) => "avx512",
        (8, true) => "avx2",
        (4, false) => "simd128",
        _ => "scalar",
    }
}
