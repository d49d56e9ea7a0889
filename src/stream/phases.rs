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

    /// The phase of a frame that is now run as clip `clip`; `None` where all have been fed too lately.
    pub fn feed(&mut self, clip: u64, place: Place) -> Option<u16> {
        let phase = self.choose(place)?;
        if phase == self.last.len() {
            self.last.push(None);
        }
        if self.under_way.len() == MOST {
            self.under_way.pop_front();
        }
        if let Some(last) = self.last.get_mut(phase) {
            self.under_way.push_back((clip, phase, last.replace(place)));
        }
        Some(phase as u16)
    }

    fn choose(&self, place: Place) -> Option<usize> {
        let off = |share: f64| (share - 1.0).abs();
        let fed = self.last.iter().enumerate().filter_map(|(phase, last)| {
            let share = self.share((*last)?, place);
            (share >= LEAST_SHARE).then_some((phase, share))
        });
        let closest = fed.min_by(|a, b| off(a.1).total_cmp(&off(b.1)));
        let unfed = || self.last.iter().position(Option::is_none);
        let new = (self.last.len() < MOST).then_some(self.last.len());
        closest.map(|(phase, _)| phase).or_else(unfed).or(new)
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

    /// Clip `clip` has not been run or came to nothing: its phase is where it was.
    pub fn skipped(&mut self, clip: u64) {
        let Some(at) = self.under_way.iter().position(|(other, ..)| *other == clip) else {
            return;
        };
        let Some((_, phase, before)) = self.under_way.remove(at) else {
            return;
        };
        // What took its place may have been fed to the same phase already.
        let later = self
            .under_way
            .iter_mut()
            .skip(at)
            .find(|(_, other, _)| *other == phase);
        if let Some((_, _, fed_before)) = later {
            *fed_before = before;
        } else if let Some(last) = self.last.get_mut(phase) {
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

    fn phases_at(every_ms: u64, count: u64) -> Vec<Option<u16>> {
        let mut phases = Phases::new(Spacing::Nanos(100 * MS));
        (0..count)
            .map(|i| {
                let phase = phases.feed(i, at(i * every_ms));
                phases.ran(i);
                phase
            })
            .collect()
    }

    fn some<const N: usize>(phases: [u16; N]) -> Vec<Option<u16>> {
        phases.map(Some).to_vec()
    }

    #[test]
    fn frames_of_a_phase_lie_an_interval_apart() {
        assert_eq!(phases_at(34, 9), some([0, 1, 2, 0, 1, 2, 0, 1, 2]));
        assert_eq!(phases_at(50, 6), some([0, 1, 0, 1, 0, 1]));
        assert_eq!(phases_at(90, 4), some([0; 4]));
        assert_eq!(phases_at(400, 4), some([0; 4]), "too slow for more than one");
        // Frame by frame at 1000 Hz there are not a hundred states, and none is fed too early.
        let fast = phases_at(1, 500);
        let mut last = [None::<usize>; MOST];
        for (ms, phase) in fast.iter().enumerate() {
            let Some(phase) = phase else { continue };
            let before = last[usize::from(*phase)].replace(ms);
            assert!(before.is_none_or(|before| ms - before >= 75), "{ms}");
        }
        assert!(last.iter().all(Option::is_some) && fast.contains(&None));
    }

    #[test]
    fn a_slow_model_keeps_its_one_state() {
        // Thirty frames a second wait, every eighth is run: what is replaced was handed out before.
        let mut phases = Phases::new(Spacing::Nanos(100 * MS));
        let mut ran = Vec::new();
        for i in 0..40 {
            let phase = phases.feed(i, at(i * 33));
            if i % 8 == 0 {
                phases.ran(i);
                ran.push(phase);
            } else {
                phases.skipped(i);
            }
        }
        assert_eq!(ran, some([0; 5]));
    }

    #[test]
    fn a_frame_that_was_skipped_fed_nobody() {
        let mut phases = Phases::new(Spacing::Frames(3));
        assert_eq!(phases.feed(0, at(0)), Some(0));
        phases.ran(0);
        assert_eq!(phases.feed(1, at(33)), Some(1));
        phases.skipped(1);
        assert_eq!(phases.feed(2, at(66)), Some(1), "it is still empty");
        phases.ran(2);
        assert_eq!(phases.feed(3, at(99)), Some(0));
        phases.clear();
        assert_eq!(phases.feed(4, at(132)), Some(0));
    }

    #[test]
    fn the_newer_clip_is_fed_before_the_older_is_skipped() {
        // At 10 Hz both go to one phase.
        let mut phases = Phases::new(Spacing::Nanos(100 * MS));
        for (clip, ms) in [(0, 0), (1, 100), (2, 200)] {
            assert_eq!(phases.feed(clip, at(ms)), Some(0));
        }
        phases.ran(0);
        phases.skipped(1);
        assert_eq!(phases.last, [Some(at(200))]);
        phases.skipped(2);
        assert_eq!(phases.last, [Some(at(0))], "the one that was run");
    }
}
