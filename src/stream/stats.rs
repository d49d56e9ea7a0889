//! Quantiles of the newest values, for the property `stats` and for the watchdog.

use crate::pulse::ProcessorTime;
use std::collections::VecDeque;

/// Values kept: at 60 Hz the last 17 seconds.
const KEPT: usize = 1024;

/// The newest values of something measured.
#[derive(Debug, Clone)]
pub struct Recent {
    values: VecDeque<u64>,
}

impl Default for Recent {
    /// With memory for all that are kept, so that none is taken while frames pass.
    fn default() -> Self {
        Self {
            values: VecDeque::with_capacity(KEPT),
        }
    }
}

impl Recent {
    /// Adds a value, forgetting the oldest when full.
    pub fn add(&mut self, value: u64) {
        if self.values.len() == KEPT {
            self.values.pop_front();
        }
        self.values.push_back(value);
    }

    /// The smallest value that at least `per_cent` of the values do not exceed (nearest rank); `None` of none.
    pub fn percentile(&self, per_cent: usize) -> Option<u64> {
        let mut sorted: Vec<u64> = self.values.iter().copied().collect();
        sorted.sort_unstable();
        let rank = (sorted.len() * per_cent.min(100)).div_ceil(100);
        sorted.get(rank.saturating_sub(1)).copied()
    }
}

/// The part of the processor time that threads wanted lately and had.
#[derive(Debug, Clone, Copy, Default)]
pub struct RecentShare {
    /// When, in ns, and what they had had by then; at least [`LATELY_NANOS`] before `newer`.
    older: (u64, ProcessorTime),
    newer: (u64, ProcessorTime),
}

/// A share is one of this time at least, and of no more than twice that where it is asked for so often.
pub const LATELY_NANOS: u64 = 1_000_000_000;

/// A share of less says nothing: a thread that hardly runs is late by chance.
const LEAST_WANTED_NANOS: u64 = LATELY_NANOS / 20;

impl RecentShare {
    /// The share at `now_nanos`, where threads have had `time` in all; `None` where they wanted hardly anything.
    pub fn share(&mut self, now_nanos: u64, time: ProcessorTime) -> Option<f64> {
        if now_nanos.saturating_sub(self.newer.0) >= LATELY_NANOS {
            self.older = std::mem::replace(&mut self.newer, (now_nanos, time));
        }
        let lately = time.since(self.older.1);
        let wanted = lately.ran_nanos.saturating_add(lately.waited_nanos);
        lately.share().filter(|_| wanted >= LEAST_WANTED_NANOS)
    }
}

/// Numbers of frames, kept as ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrameRanges {
    /// First and last of each, ascending.
    ranges: Vec<(u64, u64)>,
    count: u64,
}

/// Ranges kept; later frames are counted only.
const MOST_RANGES: usize = 100;

impl FrameRanges {
    /// Adds a frame later than all before.
    pub fn add(&mut self, frame: u64) {
        self.count += 1;
        let is_kept = self
            .ranges
            .iter()
            .map(|(first, last)| last - first + 1)
            .sum::<u64>()
            + 1
            == self.count;
        let has_place = self.ranges.len() < MOST_RANGES;
        match self.ranges.last_mut() {
            _ if !is_kept => (),
            Some((_, last)) if *last + 1 == frame => *last = frame,
            _ if has_place => self.ranges.push((frame, frame)),
            _ => (),
        }
    }

    /// How many frames.
    pub fn count(&self) -> u64 {
        self.count
    }
}

impl std::fmt::Display for FrameRanges {
    /// `3-5, 9`, and `and later ones` where not all are kept.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut kept = 0;
        for (index, (first, last)) in self.ranges.iter().enumerate() {
            kept += last - first + 1;
            let comma = if index > 0 { ", " } else { "" };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        match kept < self.count {
            true => f.write_str(" and later ones"),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_those_of_the_last_second_or_two() {
        let time = |ran_nanos, waited_nanos| ProcessorTime {
            ran_nanos,
            waited_nanos,
        };
        let mut recent = RecentShare::default();
        let second = LATELY_NANOS;
        assert_eq!(recent.share(0, time(0, 0)), None);
        assert_eq!(
            recent.share(0, time(1_000_000, 2_000_000)),
            None,
            "hardly anything"
        );
        // Ten seconds alone, and then beside others.
        for at in 1..=10 {
            assert_eq!(recent.share(at * second, time(at * second, 0)), Some(1.0));
        }
        assert!(
            recent
                .share(10 * second + second / 2, time(10 * second, second / 2))
                .unwrap()
                < 0.7
        );
        recent.share(11 * second, time(10 * second, second));
        assert_eq!(
            recent.share(12 * second, time(10 * second, 2 * second)),
            Some(0.0)
        );
    }

    #[test]
    fn frames_are_told_in_ranges_and_counted_beyond_those_kept() {
        let mut frames = FrameRanges::default();
        assert_eq!((frames.to_string(), frames.count()), (String::new(), 0));
        for frame in [3, 4, 5, 9, 11, 12] {
            frames.add(frame);
        }
        assert_eq!(
            (frames.to_string().as_str(), frames.count()),
            ("3-5, 9, 11-12", 6)
        );
        (0..500).for_each(|index| frames.add(20 + 2 * index));
        assert_eq!(frames.count(), 506);
        let text = frames.to_string();
        assert!(
            text.starts_with("3-5, 9, 11-12, 20, 22, ") && text.ends_with("212 and later ones"),
            "{text}"
        );
        frames.add(213);
        assert_eq!(frames.to_string(), text, "one is missing between");
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let mut recent = Recent::default();
        assert_eq!(recent.percentile(50), None);
        for value in (1..=100).rev() {
            recent.add(value);
        }
        assert_eq!(
            [0, 1, 50, 95, 99, 100].map(|p| recent.percentile(p).unwrap()),
            [1, 1, 50, 95, 99, 100]
        );
        for _ in 0..KEPT {
            recent.add(7);
        }
        assert_eq!(recent.percentile(0), Some(7), "old values are forgotten");
    }
}
