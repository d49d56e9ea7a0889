//! Quantiles of the newest values, for the property `stats` and for the watchdog.

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

#[cfg(test)]
mod tests {
    use super::*;

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
