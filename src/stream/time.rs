//! Time as the engine sees it: numbers handed in by the caller, in nanoseconds.

use std::sync::Arc;

/// A monotonic clock in nanoseconds since some fixed moment. The worker uses one to time forward passes; a test
/// hands in its own.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// When a frame is shown and when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameTime {
    /// Running time of the frame within its epoch; `None` where the source gives no timestamps.
    pub running_nanos: Option<u64>,
    /// Reading of a monotonic [`Clock`] at the frame's arrival: what ages rest on where timestamps are missing.
    pub arrival_nanos: u64,
}

impl FrameTime {
    /// How much later than `earlier` this frame is: in running time where both have one, else in arrival. Timestamps
    /// that are the same say nothing, so arrival counts there too. Zero where it is not later at all.
    pub fn since_nanos(self, earlier: FrameTime) -> u64 {
        match (self.running_nanos, earlier.running_nanos) {
            (Some(now), Some(then)) if now != then => now.saturating_sub(then),
            _ => self.waited_nanos(earlier),
        }
    }

    /// How much later than `earlier` this frame arrived. Zero where it did not.
    pub fn waited_nanos(self, earlier: FrameTime) -> u64 {
        self.arrival_nanos.saturating_sub(earlier.arrival_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_time_counts_where_both_have_it() {
        let at = |running_nanos, arrival_nanos| FrameTime {
            running_nanos,
            arrival_nanos,
        };
        assert_eq!(at(Some(70), 1000).since_nanos(at(Some(30), 0)), 40);
        assert_eq!(at(Some(70), 1000).since_nanos(at(None, 900)), 100);
        assert_eq!(at(Some(30), 0).since_nanos(at(Some(70), 9)), 0);
        // Timestamps that stand still.
        assert_eq!(at(Some(30), 1000).since_nanos(at(Some(30), 900)), 100);
    }
}
