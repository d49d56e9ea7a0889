//! When a model that fails is opened anew: at once the first time, then after longer and longer pauses.
//!
//! ```text
//! a panic, or 3 failed passes in a row  ->  open anew after 0, 1, 2, 4, … 60 s       a success  ->  as if new
//! ```

use crate::segmenter::SegmentError;

/// Failed passes in a row after which the model is opened anew; a panic is enough alone.
const FAILURES_BORNE: u32 = 3;

const FIRST_PAUSE_NANOS: u64 = 1_000_000_000;
const LONGEST_PAUSE_NANOS: u64 = 60_000_000_000;

/// Counts failures and says when to try again.
#[derive(Debug, Clone, Copy, Default)]
pub struct BackOff {
    failures: u32,
    /// Openings since the last success.
    openings: u32,
    not_before_nanos: u64,
}

impl BackOff {
    /// A pass ended with `errors`, those of all its rows; whether the model has to be opened anew.
    pub fn failed(&mut self, errors: &[&SegmentError], now_nanos: u64) -> bool {
        let (mut failed, mut panicked) = (false, false);
        for error in errors {
            match error {
                // The request was wrong, not the model.
                SegmentError::Request(_) | SegmentError::Late | SegmentError::Unsupported(_) => (),
                SegmentError::Panicked(_) => panicked = true,
                _ => failed = true,
            }
        }
        match (panicked, failed) {
            (true, _) => self.failures = FAILURES_BORNE,
            (false, true) => self.failures += 1,
            (false, false) => return false,
        }
        let anew = self.failures >= FAILURES_BORNE;
        if anew {
            self.pause(now_nanos);
        }
        anew
    }

    /// A pass succeeded.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Opening failed, or the model just opened has to be given up.
    pub fn pause(&mut self, now_nanos: u64) {
        let pause = match self.openings {
            0 => 0,
            n => FIRST_PAUSE_NANOS
                .saturating_mul(1 << (n - 1).min(10))
                .min(LONGEST_PAUSE_NANOS),
        };
        self.openings = self.openings.saturating_add(1);
        self.failures = 0;
        self.not_before_nanos = now_nanos.saturating_add(pause);
    }

    /// Whether the model may be opened now.
    pub fn may_open(&self, now_nanos: u64) -> bool {
        now_nanos >= self.not_before_nanos
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_a_success_ends_them() {
        let failure = SegmentError::Forward("x".into());
        let mut back_off = BackOff::default();
        assert!(
            !back_off.failed(&[&failure], 0) && !back_off.failed(&[&SegmentError::NotFinite { count: 1 }], 0)
        );
        assert!(
            !back_off.failed(&[&SegmentError::Late], 0),
            "not the model's fault"
        );
        assert!(back_off.failed(&[&failure], 5));
        assert!(back_off.may_open(5), "the first time at once");
        let mut seconds = Vec::new();
        for _ in 0..9 {
            assert!(back_off.failed(&[&SegmentError::Panicked("y".into())], 0));
            seconds.push((0..100).find(|s| back_off.may_open(s * 1_000_000_000)).unwrap());
        }
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        back_off.succeeded();
        assert!(back_off.failed(&[&SegmentError::Panicked("z".into())], 9) && back_off.may_open(9));
    }

    #[test]
    fn a_pass_counts_once_however_many_rows_fail() {
        let (failure, panic) = (
            SegmentError::Forward("x".into()),
            SegmentError::Panicked("y".into()),
        );
        let mut back_off = BackOff::default();
        assert!(!back_off.failed(&[&failure; 4], 0) && !back_off.failed(&[&SegmentError::Late, &failure], 0));
        assert!(back_off.failed(&[&failure], 5) && back_off.may_open(5));
        back_off.succeeded();
        assert!(back_off.failed(&[&failure, &panic, &panic, &panic], 9) && back_off.may_open(9));
    }
}
