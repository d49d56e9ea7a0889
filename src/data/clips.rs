//! Clips: which frames go into one forward pass, and in which order clips are visited.
//!
//! ```
//! use masam::data::{ClipConfig, Ends};
//! use masam::stream::Emit;
//!
//! let config = ClipConfig { ends: Ends::Repeated(Emit::Ensemble), ..ClipConfig::default() };
//! let clips = config.places_of(0, 7)?;
//! assert_eq!(clips.len(), 7);
//! assert_eq!(clips[0].frames, [0, 0, 0, 1, 2]);
//! assert_eq!(clips[0].serves, [(2, 0), (3, 1), (4, 2)]);
//! # Ok::<(), masam::Error>(())
//! ```

use super::dataset::{Labels, Sequence};
use super::phantom::random::Random;
use crate::error::{Error, Result};
use crate::stream::window::{Emit, Planner, Window};
use image::RgbImage;
use std::sync::Arc;

/// What happens where a clip would reach beyond its sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// Only clips that lie inside; for training.
    Whole,
    /// A clip for every frame, the first and last frame repeated as [`Planner`] does it, with the outputs that
    /// count as this emission takes them; for evaluation. With [`Emit::Step`] a "clip" is one frame.
    Repeated(Emit),
}

/// How sequences are cut into clips.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClipConfig {
    /// Frames of a clip.
    pub clip_frames: usize,
    /// Source frames from one frame of a clip to the next.
    pub stride_frames: usize,
    /// What happens at the ends of a sequence.
    pub ends: Ends,
    /// Leaves out clips with a frame that has no labels.
    pub labelled_only: bool,
}

impl Default for ClipConfig {
    /// Five neighbouring frames inside the sequence, as the model was published.
    fn default() -> Self {
        Self {
            clip_frames: 5,
            stride_frames: 1,
            ends: Ends::Whole,
            labelled_only: false,
        }
    }
}

/// Where a clip's frames are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClipPlace {
    /// Position in the list of sequences that was cut.
    pub sequence: usize,
    /// Frames of that sequence, oldest first.
    pub frames: Vec<usize>,
    /// `(position in the clip, frame)` of the outputs that count, ascending.
    pub serves: Vec<(usize, usize)>,
}

/// One decoded frame of a clip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClipFrame {
    /// As [`Sequence::image`].
    pub image: RgbImage,
    /// As [`Sequence::read_labels`].
    pub labels: Option<Labels>,
}

/// A decoded clip.
#[derive(Debug, Clone)]
pub struct Clip {
    /// Name of its sequence.
    pub sequence: String,
    /// Where its frames are.
    pub place: ClipPlace,
    /// Its frames, oldest first; a repeated one is in memory once.
    pub frames: Vec<Arc<ClipFrame>>,
}

impl ClipConfig {
    /// The window that deals out the clips.
    fn window(&self) -> Window {
        Window {
            clip_frames: self.clip_frames,
            emit: match self.ends {
                Ends::Whole => Emit::Newest,
                Ends::Repeated(emit) => emit,
            },
            hop_frames: 1,
            stride_frames: self.stride_frames,
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// As [`Window::validate`].
    pub fn validate(&self) -> Result<()> {
        self.window().validate()
    }

    /// The clips of a sequence of `frames` frames that stands at `sequence`, in order of time. `labelled_only` is
    /// not looked at.
    ///
    /// # Errors
    /// As [`ClipConfig::validate`].
    pub fn places_of(&self, sequence: usize, frames: usize) -> Result<Vec<ClipPlace>> {
        self.validate()?;
        if self.ends == Ends::Whole {
            let span = self.window().span_frames();
            let whole = |start: usize| {
                let frames = (0..self.clip_frames).map(|k| start + k * self.stride_frames);
                let frames: Vec<usize> = frames.collect();
                let serves = frames.iter().copied().enumerate().collect();
                ClipPlace {
                    sequence,
                    frames,
                    serves,
                }
            };
            return Ok((0..(frames + 1).saturating_sub(span)).map(whole).collect());
        }
        let mut planner = Planner::new(self.window());
        for _ in 0..frames {
            planner.receive();
        }
        planner.end();
        let clips = std::iter::from_fn(|| planner.next_clip());
        // Indices of a list in memory fit.
        let place = |clip: crate::stream::window::Clip| ClipPlace {
            sequence,
            frames: clip.frames.iter().map(|f| *f as usize).collect(),
            serves: clip.serves.iter().map(|(k, f)| (*k, *f as usize)).collect(),
        };
        Ok(clips.map(place).collect())
    }

    /// The clips of all `sequences`, one sequence after the other in order of time.
    ///
    /// # Errors
    /// As [`ClipConfig::validate`], and no clip at all.
    pub fn places(&self, sequences: &[&Sequence]) -> Result<Vec<ClipPlace>> {
        let mut places = Vec::new();
        for (index, sequence) in sequences.iter().enumerate() {
            let labelled = |f: &usize| sequence.frames.get(*f).is_some_and(|f| f.label.is_some());
            let all = self.places_of(index, sequence.frames.len())?;
            let kept = |p: &ClipPlace| !self.labelled_only || p.frames.iter().all(labelled);
            places.extend(all.into_iter().filter(kept));
        }
        if places.is_empty() {
            let bound = format!(
                "none of the {} sequences has a {}clip of that length with stride {}",
                sequences.len(),
                if self.labelled_only { "labelled " } else { "" },
                self.stride_frames
            );
            return Err(Error::config("clip_frames", self.clip_frames, bound));
        }
        Ok(places)
    }
}

/// Puts `places` in the order of one epoch of training: the same seed and epoch give the same order, different
/// epochs different ones, whatever order they came in.
pub fn shuffle(places: &mut [ClipPlace], seed: u64, epoch: u64) {
    places.sort_by(|a, b| (a.sequence, &a.frames).cmp(&(b.sequence, &b.frames)));
    Random::stream(seed, &format!("clips of epoch {epoch}")).shuffle(places);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_clips_lie_inside() {
        let config = ClipConfig {
            stride_frames: 3,
            ..ClipConfig::default()
        };
        let frames = |total| -> Vec<Vec<usize>> {
            let places = config.places_of(4, total).unwrap();
            assert!(places.iter().all(|p| p.sequence == 4 && p.serves.len() == 5));
            places.into_iter().map(|p| p.frames).collect()
        };
        assert!(frames(0).is_empty() && frames(12).is_empty());
        assert_eq!(frames(14), [[0, 3, 6, 9, 12], [1, 4, 7, 10, 13]]);
    }

    #[test]
    fn every_frame_is_served_at_the_ends() {
        for emit in [Emit::Newest, Emit::Centre, Emit::Ensemble] {
            let ends = Ends::Repeated(emit);
            let config = ClipConfig {
                ends,
                ..ClipConfig::default()
            };
            for total in 1..9 {
                let places = config.places_of(0, total).unwrap();
                let mut served: Vec<usize> = places.iter().flat_map(|p| &p.serves).map(|s| s.1).collect();
                served.sort_unstable();
                served.dedup();
                assert_eq!(served, (0..total).collect::<Vec<_>>(), "{emit} {total}");
                assert!(places.iter().flat_map(|p| &p.frames).all(|f| *f < total));
            }
        }
    }

    #[test]
    fn an_order_comes_from_seed_and_epoch() {
        let places = ClipConfig::default().places_of(0, 40).unwrap();
        let order = |seed, epoch, start: &[ClipPlace]| {
            let mut places = start.to_vec();
            shuffle(&mut places, seed, epoch);
            places
        };
        let first = order(1, 0, &places);
        assert_eq!(first, order(1, 0, &order(9, 9, &places)));
        assert_ne!(first, order(1, 1, &places));
        assert_ne!(first, order(2, 0, &places));
        let mut sorted = first.clone();
        sorted.sort_by_key(|p| p.frames[0]);
        assert_eq!(sorted, places);
    }

    #[test]
    fn broken_settings_are_named() {
        let config = ClipConfig {
            clip_frames: 0,
            stride_frames: 0,
            ..ClipConfig::default()
        };
        let error = config.places_of(0, 9).unwrap_err().to_string();
        assert!(
            error.contains("clip_frames is 0") && error.contains("frame-stride is 0"),
            "{error}"
        );
        assert!(ClipConfig::default().places(&[]).is_err());
    }
}
