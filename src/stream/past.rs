//! The frames of the past that a live clip is cut from.
//!
//! A clip can span minutes, so not every frame is kept: [`KEPT_PER_STRIDE`] between two frames of a clip are enough.
//! The newest frame is part of its clip whether it is kept or not.
//!
//! ```text
//! kept     every n-th frame, n = stride / 16 rounded up; or one every 16th of the interval
//! clip     the newest frame t, and the kept ones nearest to t - s, t - 2s, …; the oldest where none is so old
//! ```

use super::ring::FrameRing;
use super::time::FrameTime;
use super::window::MAX_STRIDE_FRAMES;
use crate::error::{Error, Result};
use crate::segmenter::ModelFrame;
use std::collections::VecDeque;

/// Kept frames between two frames of a clip: finer costs memory and shrinking, coarser makes clips less regular.
pub const KEPT_PER_STRIDE: usize = 16;

/// Distance between two frames of a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spacing {
    /// In source frames: 1 to [`MAX_STRIDE_FRAMES`].
    Frames(usize),
    /// In time, for streams whose rate is unknown or changes; above 0.
    Nanos(u64),
}

impl Spacing {
    /// Checks the bounds.
    ///
    /// # Errors
    /// A distance outside them.
    pub fn validate(self) -> Result<()> {
        match self {
            Spacing::Frames(frames) if frames == 0 || frames > MAX_STRIDE_FRAMES => {
                let bound = format!("it has to be 1 to {MAX_STRIDE_FRAMES}");
                Err(Error::config("frame-stride", frames, bound))
            }
            Spacing::Nanos(0) => Err(Error::config("frame interval", 0, "it has to be above 0 ns")),
            _ => Ok(()),
        }
    }
}

/// Where a frame stands in its epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Index of the frame.
    pub index: u64,
    /// Its time.
    pub time: FrameTime,
}

/// The kept frames of one epoch.
pub struct Past {
    spacing: Spacing,
    clip_frames: usize,
    ring: FrameRing,
    /// Of the frames in the ring, oldest first, and the ring's index of the first of them.
    places: VecDeque<Place>,
    first: u64,
}

impl Past {
    /// An empty past for clips of `clip_frames` frames, at least one, with a validated `spacing`.
    pub fn new(spacing: Spacing, clip_frames: usize) -> Self {
        // One more than a stride holds: the kept frame before a target can be the nearest.
        let per_stride = match spacing {
            Spacing::Frames(frames) => frames.div_ceil(keep_every(frames)),
            Spacing::Nanos(_) => KEPT_PER_STRIDE + 1,
        };
        let ring = FrameRing::new(clip_frames.saturating_sub(1) * per_stride + 2);
        Self {
            spacing,
            clip_frames,
            ring,
            places: VecDeque::new(),
            first: 0,
        }
    }

    /// Whether the frame at `place` is one to be kept.
    pub fn wants(&self, place: Place) -> bool {
        let Some(last) = self.places.back() else {
            return true;
        };
        match self.spacing {
            Spacing::Frames(frames) => place.index.saturating_sub(last.index) >= keep_every(frames) as u64,
            Spacing::Nanos(nanos) => place.time.since_nanos(last.time) >= nanos / KEPT_PER_STRIDE as u64,
        }
    }

    /// Keeps the frame at `place`, forgetting the oldest when full.
    pub fn keep(&mut self, frame: ModelFrame, place: Place) {
        self.ring.push(frame);
        self.places.push_back(place);
        while self.places.len() > self.ring.len() {
            self.places.pop_front();
            self.first += 1;
        }
    }

    /// Makes `frames` the clip whose newest frame is `newest`, oldest first.
    pub fn clip(&mut self, newest: ModelFrame, at: Place, frames: &mut Vec<ModelFrame>) {
        let (stride, spacing) = match self.spacing {
            Spacing::Frames(frames) => (frames as u64, self.spacing),
            Spacing::Nanos(nanos) => (nanos, self.spacing),
        };
        let behind = |place: &Place| match spacing {
            Spacing::Frames(_) => at.index.saturating_sub(place.index),
            Spacing::Nanos(_) => at.time.since_nanos(place.time),
        };
        frames.clear();
        for steps in (1..self.clip_frames as u64).rev() {
            let target = steps.saturating_mul(stride);
            let nearest = self
                .places
                .iter()
                .enumerate()
                .min_by_key(|(_, place)| behind(place).abs_diff(target));
            let kept = nearest.and_then(|(offset, _)| self.ring.get(self.first + offset as u64));
            frames.push(kept.unwrap_or_else(|| newest.clone()));
        }
        frames.push(newest);
    }

    /// Frames kept.
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.ring.clear();
        self.places.clear();
        self.first = 0;
    }
}

/// Every how many frames one is kept.
fn keep_every(stride_frames: usize) -> usize {
    stride_frames.div_ceil(KEPT_PER_STRIDE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const MS: u64 = 1_000_000;

    fn frame(number: u64) -> ModelFrame {
        ModelFrame {
            rgb: Arc::from(number.to_le_bytes()),
        }
    }

    fn number(frame: &ModelFrame) -> u64 {
        u64::from_le_bytes(frame.rgb[..].try_into().unwrap())
    }

    fn place(index: u64, ms: u64) -> Place {
        Place {
            index,
            time: FrameTime {
                running_nanos: Some(ms * MS),
                arrival_nanos: 0,
            },
        }
    }

    /// Shows a frame; its clip, as indices.
    fn show(past: &mut Past, index: u64, ms: u64) -> Vec<u64> {
        let at = place(index, ms);
        if past.wants(at) {
            past.keep(frame(index), at);
        }
        let mut clip = Vec::new();
        past.clip(frame(index), at, &mut clip);
        clip.iter().map(number).collect()
    }

    #[test]
    fn short_strides_are_exact() {
        for stride in 1..=KEPT_PER_STRIDE {
            let mut past = Past::new(Spacing::Frames(stride), 5);
            for index in 0..200_u64 {
                let clip = show(&mut past, index, index * 40);
                let exact: Vec<u64> = (0..5)
                    .rev()
                    .map(|k| index.saturating_sub(k * stride as u64))
                    .collect();
                assert_eq!(clip, exact);
            }
        }
    }

    #[test]
    fn long_strides_are_near_and_memory_is_bounded() {
        for stride in [17, 25, 60, 333, MAX_STRIDE_FRAMES] {
            let mut past = Past::new(Spacing::Frames(stride), 5);
            for index in 0..6 * stride as u64 {
                let clip = show(&mut past, index, index * 40);
                assert_eq!(clip[4], index, "the newest frame is in its clip");
                for (k, got) in (1..5_u64).zip(clip.iter().rev().skip(1)) {
                    let exact = index.saturating_sub(k * stride as u64);
                    assert!(
                        got.abs_diff(exact) <= stride.div_ceil(KEPT_PER_STRIDE) as u64,
                        "{stride}: {got} {exact}"
                    );
                }
            }
            assert!(past.len() <= 4 * KEPT_PER_STRIDE + 2);
        }
    }

    #[test]
    fn without_a_rate_the_clip_is_cut_by_time() {
        let mut past = Past::new(Spacing::Nanos(160 * MS), 5);
        // 25 Hz, then 50 Hz.
        let times: Vec<u64> = (0..20)
            .map(|i| i * 40)
            .chain((0..100).map(|i| 800 + i * 20))
            .collect();
        let mut clip = Vec::new();
        for (index, &ms) in times.iter().enumerate() {
            clip = show(&mut past, index as u64, ms);
        }
        let behind: Vec<u64> = clip
            .iter()
            .map(|&index| times[119] - times[index as usize])
            .collect();
        assert_eq!(behind, [640, 480, 320, 160, 0]);
    }

    #[test]
    fn distances_have_bounds() {
        for good in [
            Spacing::Frames(1),
            Spacing::Frames(MAX_STRIDE_FRAMES),
            Spacing::Nanos(1),
        ] {
            good.validate().unwrap();
        }
        for bad in [
            Spacing::Frames(0),
            Spacing::Frames(MAX_STRIDE_FRAMES + 1),
            Spacing::Nanos(0),
        ] {
            assert!(bad.validate().is_err());
        }
    }
}
