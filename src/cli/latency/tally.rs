//! What is noted of the frames at the sink, and its quantiles.

use serde_json::{Value, json};

/// What one run gave.
#[derive(Debug, Default, Clone)]
pub(super) struct Tally {
    /// Frames at the sink after the warm-up.
    pub(super) frames: u64,
    /// Frames whose code could not be read.
    pub(super) unread: u64,
    /// From source to sink, in nanoseconds.
    pub(super) delays: Vec<u64>,
    /// When frames came to the sink.
    pub(super) arrivals: Vec<u64>,
    /// Frames with a mask.
    pub(super) masked: u64,
    /// Masks that do not say which frame they are of.
    pub(super) masks_unread: u64,
    /// The same, before the first mask that does: of frames from before the code was drawn.
    pub(super) masks_early: u64,
    /// Age of each mask shown, from its code to that of the frame it is on.
    pub(super) ages: Vec<u64>,
    /// Age that the mask claims less its age by the code, in nanoseconds.
    pub(super) claims: Vec<i64>,
    /// Of forward passes, as the element gives them: median and p99.
    pub(super) forward: Option<(u64, u64)>,
    /// What the frames are.
    pub(super) caps: String,
}

impl Tally {
    /// Adds the frames of another run.
    pub(super) fn add(&mut self, other: &Tally) {
        self.frames += other.frames;
        self.unread += other.unread;
        self.masked += other.masked;
        self.masks_unread += other.masks_unread;
        self.delays.extend(&other.delays);
        self.ages.extend(&other.ages);
        self.claims.extend(&other.claims);
        self.forward = other.forward.or(self.forward);
        self.caps.clone_from(&other.caps);
    }

    /// Ends a run. Where no mask says which frame it is of, that is not because they came early.
    pub(super) fn finish(&mut self) {
        if self.ages.is_empty() {
            self.masked += self.masks_early;
            self.masks_unread += self.masks_early;
        }
    }

    /// How far the time between two frames at the sink strays from its median: one value per pair of frames.
    pub(super) fn jitter(&self) -> Vec<u64> {
        let between: Vec<u64> = self
            .arrivals
            .windows(2)
            .filter_map(|pair| pair[1].checked_sub(pair[0]))
            .collect();
        let median = Quantiles::of(&between).map_or(0, |q| q.p50);
        between.iter().map(|&nanos| nanos.abs_diff(median)).collect()
    }
}

/// Values that occurred, nearest rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quantiles {
    pub(super) p50: u64,
    pub(super) p95: u64,
    pub(super) p99: u64,
    pub(super) max: u64,
}

impl Quantiles {
    /// `None` of nothing.
    pub(super) fn of(values: &[u64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        let at = |per_cent: usize| {
            let rank = (sorted.len() * per_cent).div_ceil(100);
            sorted.get(rank.saturating_sub(1)).copied()
        };
        Some(Self {
            p50: at(50)?,
            p95: at(95)?,
            p99: at(99)?,
            max: at(100)?,
        })
    }

    /// In milliseconds.
    pub(super) fn json(self) -> Value {
        let [p50, p95, p99, max] = [self.p50, self.p95, self.p99, self.max].map(millis);
        json!({ "p50": p50, "p95": p95, "p99": p99, "max": max })
    }
}

/// Milliseconds, to a thousandth.
pub(super) fn millis(nanos: u64) -> f64 {
    (nanos as f64 / 1e3).round() / 1e3
}

/// The middle one; of two the lower.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

/// Bars of a histogram: the last takes all that is longer.
pub(super) const EDGES_MS: [f64; 14] = [
    0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 35.0, 70.0, 150.0, 300.0, 500.0, 1000.0,
];

/// How many values lie from each edge up to the next.
pub(super) fn histogram(nanos: &[u64]) -> [u64; EDGES_MS.len()] {
    let mut bars = [0; EDGES_MS.len()];
    for &value in nanos {
        let bar = EDGES_MS.partition_point(|&edge| edge <= value as f64 / 1e6);
        if let Some(bar) = bars.get_mut(bar.saturating_sub(1)) {
            *bar += 1;
        }
    }
    bars
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        assert_eq!(Quantiles::of(&[]), None);
        let values: Vec<u64> = (1..=200).rev().collect();
        let all = Quantiles::of(&values).unwrap();
        assert_eq!((all.p50, all.p95, all.p99, all.max), (100, 190, 198, 200));
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn early_masks_count_where_no_mask_can_be_read() {
        let mut tally = Tally {
            masks_early: 3,
            ..Tally::default()
        };
        tally.finish();
        assert_eq!((tally.masked, tally.masks_unread), (3, 3));
        let mut tally = Tally {
            masks_early: 3,
            masked: 1,
            ages: vec![7],
            ..Tally::default()
        };
        tally.finish();
        assert_eq!((tally.masked, tally.masks_unread), (1, 0));
    }

    #[test]
    fn jitter_is_about_the_median_interval() {
        let tally = Tally {
            arrivals: vec![0, 100, 200, 330, 400],
            ..Tally::default()
        };
        assert_eq!(tally.jitter(), [0, 0, 30, 30]);
    }

    #[test]
    fn bars_hold_every_value_once() {
        let bars = histogram(&[0, 499_999, 500_000, 2_000_000, u64::MAX]);
        assert_eq!((bars[0], bars[1], bars[3], bars[13]), (2, 1, 1, 1));
        assert_eq!(bars.iter().sum::<u64>(), 5);
    }
}
