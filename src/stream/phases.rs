//! Which causal state a live frame goes on from.
//!
//! A causal model has learnt from frames that lie a certain time apart, its interval. Video is faster, and a live model
//! takes what frames it can. So a stream has several states, its phases, each fed with frames about an interval apart:
//! a frame goes to the state whose last frame lies closest to one interval before it, and to a new one while all have
//! been fed too lately.

use super::past::{Place, Spacing};
use std::collections::VecDeque;

/// Most states of one live stream.
const MOST: usize = 16;

/// Share of an interval that has to lie between two frames of a phase while another phase may be begun.
const LEAST_SHARE: f64 = 0.75;

/// The phases of one stream.
#[derive(Debug)]
pub(super) struct Phases {
    spacing: Spacing,
    /// The last frame that each was fed.
    last: Vec<Option<Place>>,
    /// Clips that were handed out and not heard of since: number, phase, and what that was fed before.
    under_way: VecDeque<(u64, usize, Option<Place>)>,
}

impl Phases {
    pub fn new(spacing: Spacing) -> Self {
        Self {
            spacing,
            last: Vec::with_capacity(MOST),
            under_way: VecDeque::with_capacity(MOST),
        }
    }

    /// The phase of a frame that is now run as clip `clip`.
    pub fn feed(&mut self, clip: u64, place: Place) -> u16 {
        let phase = self.choose(place);
        if phase == self.last.len() {
            self.last.push(None);
        }
        if self.under_way.len() == MOST {
            self.under_way.pop_front();
        }
        if let Some(last) = self.last.get_mut(phase) {
            self.under_way.push_back((clip, phase, last.replace(place)));
        }
        phase as u16
    }

    fn choose(&self, place: Place) -> usize {
        let off = |share: f64| (share - 1.0).abs();
        let shares = self.last.iter().enumerate().map(|(phase, last)| {
            // One that was never fed is as good as new.
            let share = last.map_or(1.0, |last| self.share(last, place));
            (phase, share)
        });
        let fed_long_ago = shares.clone().filter(|&(_, share)| share >= LEAST_SHARE);
        let closest = fed_long_ago.min_by(|a, b| off(a.1).total_cmp(&off(b.1)));
        match closest {
            Some((phase, _)) => phase,
            None if self.last.len() < MOST => self.last.len(),
            None => shares
                .max_by(|a, b| a.1.total_cmp(&b.1))
                .map_or(0, |(phase, _)| phase),
        }
    }

    /// Time or frames between two places, in intervals.
    fn share(&self, earlier: Place, later: Place) -> f64 {
        match self.spacing {
            Spacing::Frames(frames) => {
                later.index.saturating_sub(earlier.index) as f64 / frames.max(1) as f64
            }
            Spacing::Nanos(nanos) => later.time.since_nanos(earlier.time) as f64 / nanos.max(1) as f64,
        }
    }

    /// Clip `clip` has been run.
    pub fn ran(&mut self, clip: u64) {
        self.under_way.retain(|(other, ..)| *other != clip);
    }

    /// Clip `clip` will not be run: its phase is where it was.
    pub fn skipped(&mut self, clip: u64) {
        if let Some(at) = self.under_way.iter().position(|(other, ..)| *other == clip)
            && let Some((_, phase, before)) = self.under_way.remove(at)
            && let Some(last) = self.last.get_mut(phase)
        {
            *last = before;
        }
    }

    /// The stream begins anew.
    pub fn clear(&mut self) {
        self.last.clear();
        self.under_way.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::time::FrameTime;

    const MS: u64 = 1_000_000;

    fn at(ms: u64) -> Place {
        Place {
            index: ms / 33,
            time: FrameTime {
                running_nanos: Some(ms * MS),
                arrival_nanos: 0,
            },
        }
    }

    fn phases_at(every_ms: u64, count: u64) -> Vec<u16> {
        let mut phases = Phases::new(Spacing::Nanos(100 * MS));
        (0..count)
            .map(|i| {
                let phase = phases.feed(i, at(i * every_ms));
                phases.ran(i);
                phase
            })
            .collect()
    }

    #[test]
    fn frames_of_a_phase_lie_an_interval_apart() {
        assert_eq!(phases_at(34, 9), [0, 1, 2, 0, 1, 2, 0, 1, 2]);
        assert_eq!(phases_at(50, 6), [0, 1, 0, 1, 0, 1]);
        assert_eq!(phases_at(90, 4), [0; 4]);
        assert_eq!(phases_at(400, 4), [0; 4], "too slow for more than one");
        // Frame by frame at 1000 Hz there are not a hundred states.
        assert!(
            phases_at(1, 500)
                .into_iter()
                .all(|phase| usize::from(phase) < MOST)
        );
    }

    #[test]
    fn a_frame_that_was_skipped_fed_nobody() {
        let mut phases = Phases::new(Spacing::Frames(3));
        assert_eq!(phases.feed(0, at(0)), 0);
        phases.ran(0);
        assert_eq!(phases.feed(1, at(33)), 1);
        phases.skipped(1);
        assert_eq!(phases.feed(2, at(66)), 1, "it is still empty");
        phases.ran(2);
        assert_eq!(phases.feed(3, at(99)), 0);
        phases.clear();
        assert_eq!(phases.feed(4, at(132)), 0);
    }
}
