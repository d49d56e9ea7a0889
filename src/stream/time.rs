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

/// How long a source's timestamps are compared with the clock before that says anything.
const WINDOW_NANOS: u64 = 500_000_000;

/// Frames so far apart have been held up, or come so seldom that nothing can be said.
const STALL_NANOS: u64 = 250_000_000;

/// Windows in a row in which timestamps lag behind until they are no longer believed.
const SLOW_WINDOWS: u32 = 2;

/// Whether the timestamps of a live source keep up with the clock. Where less than half as much time passes by them as
/// between the arrivals of frames, ages that rest on them would be lies.
#[derive(Debug, Default)]
pub struct Timekeeper {
    /// First and last frame of the window.
    window: Option<(FrameTime, FrameTime)>,
    slow_windows: u32,
}

impl Timekeeper {
    /// The time of a frame that has come: without its timestamp, while those of the source are not to be believed.
    pub fn checked(&mut self, time: FrameTime) -> FrameTime {
        let since = |from: FrameTime| Some(time.running_nanos?.saturating_sub(from.running_nanos?));
        let goes_on = |last: FrameTime| {
            time.running_nanos >= last.running_nanos && time.waited_nanos(last) <= STALL_NANOS
        };
        let first = match self.window {
            Some((first, last)) if goes_on(last) => first,
            _ => {
                self.slow_windows = 0;
                time
            }
        };
        self.window = Some((first, time));
        let clock_nanos = time.waited_nanos(first);
        if let Some(claimed_nanos) = since(first).filter(|_| clock_nanos >= WINDOW_NANOS) {
            self.window = Some((time, time));
            self.slow_windows = match claimed_nanos < clock_nanos / 2 {
                true => self.slow_windows.saturating_add(1),
                false => 0,
            };
        }
        self.believed(time)
    }

    /// The same of a frame that was kept waiting on its way, so that its arrival says nothing.
    pub fn unchecked(&mut self, time: FrameTime) -> FrameTime {
        self.window = self.window.is_some().then_some((time, time));
        self.believed(time)
    }

    fn believed(&self, time: FrameTime) -> FrameTime {
        FrameTime {
            running_nanos: time.running_nanos.filter(|_| self.slow_windows < SLOW_WINDOWS),
            ..time
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn at(running_ms: u64, arrival_ms: u64) -> FrameTime {
        FrameTime {
            running_nanos: Some(running_ms * MS),
            arrival_nanos: arrival_ms * MS,
        }
    }

    #[test]
    fn timestamps_that_lag_behind_the_clock_are_not_believed_until_they_keep_up() {
        let mut keeper = Timekeeper::default();
        let mut believed =
            |running_ms, arrival_ms| keeper.checked(at(running_ms, arrival_ms)).running_nanos.is_some();
        // A tenth of the time.
        let slow: Vec<bool> = (0..40).map(|frame| believed(4 * frame, 40 * frame)).collect();
        assert!(
            slow[..26].iter().all(|&believed| believed) && !slow[26..].contains(&true),
            "{slow:?}"
        );
        // As it should be, from 1600 ms on.
        let good: Vec<bool> = (0..40)
            .map(|frame| believed(160 + 40 * frame, 1600 + 40 * frame))
            .collect();
        assert!(
            !good[0] && good[26..].iter().all(|&believed| believed),
            "{good:?}"
        );
    }

    #[test]
    fn stalls_bursts_and_new_starts_are_no_lag() {
        let mut keeper = Timekeeper::default();
        let (mut running, mut arrival) = (0, 0);
        for frame in 0..400 {
            running += 33;
            arrival += match frame % 30 {
                0 => 800, // a stall; what was held up comes at once
                1..=24 => 0,
                _ => 33,
            };
            let at = at(running, arrival);
            assert_eq!(keeper.checked(at), at, "frame {frame}");
            if frame == 200 {
                running = 0;
            }
        }
        // Frames that were kept waiting for the ones before them.
        for _ in 0..100 {
            (running, arrival) = (running + 10, arrival + 90);
            let at = at(running, arrival);
            assert_eq!(keeper.unchecked(at), at);
        }
        // Frames without timestamps, and so few that nothing can be said.
        for frame in 0..10 {
            let bare = FrameTime {
                running_nanos: None,
                arrival_nanos: arrival * MS + frame,
            };
            assert_eq!(keeper.checked(bare), bare);
        }
        for frame in 0..10 {
            let seldom = at(running + frame, arrival + 1000 * frame);
            assert_eq!(keeper.checked(seldom), seldom);
        }
    }

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
