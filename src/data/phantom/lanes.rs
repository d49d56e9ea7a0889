//! Runs inner loops with the widest vectors this machine has.
//!
//! The loops consist of additions, multiplications, divisions, square roots and comparisons, lane by lane, never of
//! fused multiply-adds or reordered sums: every instruction set gives the same bits, which a test checks.

use pulp::{Arch, WithSimd};

/// Points worked on together.
pub const LANES: usize = 32;

/// One number for each of them.
pub type Lanes = [f32; LANES];

/// Runs `work` compiled for the best instruction set at hand.
#[inline(always)]
pub fn dispatch<W: WithSimd>(work: W) -> W::Output {
    #[cfg(test)]
    if tests::PLAIN.load(std::sync::atomic::Ordering::Relaxed) {
        return work.with_simd(pulp::Scalar);
    }
    Arch::new().dispatch(work)
}

#[cfg(test)]
mod tests {
    use crate::data::phantom::{PhantomConfig, Sequence};
    use crate::geometry::Size;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Whether to do without vectors. Tests beside this one may run either way: the bits are the same.
    pub static PLAIN: AtomicBool = AtomicBool::new(false);

    #[test]
    fn frames_are_the_same_without_vectors() {
        let size = Size {
            width_px: 203,
            height_px: 131,
        };
        let config = PhantomConfig {
            seed: 91,
            size,
            ..PhantomConfig::default()
        };
        for index in 0..8 {
            let frame = || Sequence::new(&config, index).unwrap().render(40);
            let vectors = frame();
            PLAIN.store(true, Ordering::Relaxed);
            let plain = frame();
            PLAIN.store(false, Ordering::Relaxed);
            assert!(vectors == plain, "sequence {index} of seed 91");
        }
    }
}
