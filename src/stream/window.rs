//! The temporal window: which source frames make a clip, and which frames its outputs serve.
//!
//! Frames of one epoch are numbered 0, 1, 2, … A clip has `N` frames, `stride` source frames apart. With
//! `m = N / 2` (the middle position) and frame indices clamped to the epoch's first and last frame:
//! ```text
//! newest    clip of e: e-(N-1)s, …, e-s, e       the last `hop` outputs serve frames e-hop+1 ..= e
//! centre    clip of c: c-ms, …, c, …, c+(N-1-m)s  output m serves frame c
//! ensemble  the same clips; output k serves c+(k-m)s, unless that position was clamped
//! step      e alone, to a causal model's state of phase e mod s; the output serves e
//! ```
//! At the ends the first and last frame thus stand twice more, as in the reference protocol, and the outputs for
//! those copies are thrown away: with five frames and stride 1, frame 0 averages three softmaxes.
//!
//! ```
//! use masam::stream::window::{Emit, Planner, Window};
//! let window = Window { clip_frames: 5, emit: Emit::Newest, hop_frames: 1, stride_frames: 2 };
//! window.validate().unwrap();
//! let mut planner = Planner::new(window);
//! planner.receive();
//! assert_eq!(planner.next_clip().unwrap().frames, [0, 0, 0, 0, 0]);
//! ```

use crate::error::{Error, Result, all_of};
use crate::segmenter::Temporal;
use std::fmt;
use std::str::FromStr;

/// Most source frames between two frames of a clip: ten seconds at 60 Hz, and a bound on the memory of a ring.
pub const MAX_STRIDE_FRAMES: usize = 600;

/// Which output is shown for a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Emit {
    /// The clip's last outputs: no look-ahead beyond `hop - 1` frames.
    #[default]
    Newest,
    /// The middle output: look-ahead of two strides.
    Centre,
    /// The mean of the softmax over every clip that contains the frame: look-ahead of four strides.
    Ensemble,
    /// A causal model run one new frame at a time, its past kept as a state: no look-ahead. With a stride there are
    /// as many states as frames in it, each fed every so-many-th frame.
    Step,
}

impl Emit {
    /// What suits a model whose taps lie as `temporal` says, without look-ahead: `step` where they are causal, `newest`
    /// otherwise.
    pub fn for_taps(temporal: Temporal) -> Self {
        match temporal {
            Temporal::Causal => Emit::Step,
            Temporal::Centered => Emit::Newest,
        }
    }
}

impl FromStr for Emit {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "newest" => Ok(Emit::Newest),
            // The spelling of earlier versions.
            "center" | "centre" => Ok(Emit::Centre),
            "ensemble" => Ok(Emit::Ensemble),
            "step" => Ok(Emit::Step),
            _ => Err(Error::config(
                "emit",
                text,
                "it has to be newest, center, ensemble or step",
            )),
        }
    }
}

impl fmt::Display for Emit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Emit::Newest => "newest",
            Emit::Centre => "center",
            Emit::Ensemble => "ensemble",
            Emit::Step => "step",
        })
    }
}

/// Source frames between two frames of a clip, in a stream with `frame_nanos` between frames, that come closest to
/// `interval_nanos`, the model's own interval: 1 to [`MAX_STRIDE_FRAMES`], and 1 where either is unknown.
pub fn stride_frames(interval_nanos: Option<u64>, frame_nanos: Option<u64>) -> usize {
    match (interval_nanos, frame_nanos) {
        (Some(interval), Some(frame)) if frame > 0 => {
            let frames = (interval.saturating_add(frame / 2) / frame).clamp(1, MAX_STRIDE_FRAMES as u64);
            frames as usize
        }
        _ => 1,
    }
}

/// How clips are cut from a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Frames in a clip, at least 1.
    pub clip_frames: usize,
    /// Which outputs are used.
    pub emit: Emit,
    /// Frames served by one clip, 1 to `clip_frames`; above 1 only with `emit` newest and stride 1.
    pub hop_frames: usize,
    /// Source frames between two frames of a clip, 1 to [`MAX_STRIDE_FRAMES`].
    pub stride_frames: usize,
}

impl Window {
    /// Checks every field and every combination, and says why one is refused.
    ///
    /// # Errors
    /// All broken fields at once.
    pub fn validate(&self) -> Result<()> {
        let mut errors = Vec::new();
        if self.clip_frames == 0 {
            errors.push(Error::config("clip_frames", 0, "a clip has at least one frame"));
        }
        if self.stride_frames == 0 || self.stride_frames > MAX_STRIDE_FRAMES {
            let bound = format!("it has to be 1 to {MAX_STRIDE_FRAMES}");
            errors.push(Error::config("frame-stride", self.stride_frames, bound));
        }
        if self.hop_frames == 0 || self.hop_frames > self.clip_frames {
            let bound = format!("a clip of {} frames can serve 1 to {0}", self.clip_frames);
            errors.push(Error::config("hop", self.hop_frames, bound));
        }
        if self.hop_frames > 1 && self.stride_frames > 1 {
            let bound = format!(
                "with frame-stride {} the outputs of a clip belong to frames that are not neighbours, so a clip \
                 serves one frame; set hop or frame-stride to 1",
                self.stride_frames
            );
            errors.push(Error::config("hop", self.hop_frames, bound));
        }
        if self.hop_frames > 1 && self.emit != Emit::Newest {
            let bound = format!(
                "it takes the clip's last outputs, while emit={} takes others; set hop to 1 or emit to newest",
                self.emit
            );
            errors.push(Error::config("hop", self.hop_frames, bound));
        }
        all_of(errors)
    }

    /// Source frames from the first to the last frame of a clip: what a ring has to keep.
    pub fn span_frames(&self) -> usize {
        if self.emit == Emit::Step {
            return 1;
        }
        self.clip_frames.saturating_sub(1) * self.stride_frames + 1
    }

    /// Frames that have to come after a frame before its mask can be computed, at worst.
    pub fn look_ahead_frames(&self) -> usize {
        match self.emit {
            Emit::Newest => self.hop_frames.saturating_sub(1),
            Emit::Step => 0,
            Emit::Centre => self.after() * self.stride_frames,
            Emit::Ensemble => (self.middle() + self.after()) * self.stride_frames,
        }
    }

    /// Position of a clip's middle frame.
    fn middle(&self) -> usize {
        self.clip_frames / 2
    }

    /// Positions behind the middle frame.
    fn after(&self) -> usize {
        self.clip_frames - 1 - self.middle()
    }

    /// How many clips serve `frame` in an epoch of `total` frames; without `total`, of an epoch that goes on for
    /// at least [`Window::look_ahead_frames`] more.
    pub fn clips_serving(&self, frame: u64, total: Option<u64>) -> usize {
        if self.emit != Emit::Ensemble {
            return 1;
        }
        // The clip whose position k is this frame has its middle at frame + (m - k) s.
        let middles = (0..self.clip_frames).map(|k| {
            let steps = self.middle() as i64 - k as i64;
            frame as i64 + steps * self.stride_frames as i64
        });
        middles
            .filter(|&c| c >= 0 && total.is_none_or(|total| c < total as i64))
            .count()
    }
}

/// One clip: source frames and what its outputs are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clip {
    /// Source indices of the clip's frames, oldest first, clamped to the epoch.
    pub frames: Vec<u64>,
    /// `(position in the clip, frame it serves)`, ascending.
    pub serves: Vec<(usize, u64)>,
}

/// Deals out the clips of one epoch in order, each as soon as its frames are there.
#[derive(Debug, Clone)]
pub struct Planner {
    window: Window,
    received: u64,
    ended: bool,
    /// Newest, step: first frame that no clip serves yet. Centre, ensemble: middle of the next clip.
    next: u64,
}

impl Planner {
    /// The start of an epoch. `window` has been [validated](Window::validate).
    pub fn new(window: Window) -> Self {
        Self {
            window,
            received: 0,
            ended: false,
            next: 0,
        }
    }

    /// The next frame has come; its index.
    pub fn receive(&mut self) -> u64 {
        let index = self.received;
        self.received += 1;
        index
    }

    /// No more frames will come in this epoch.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Frames received so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Number of frames of the epoch, once it is known.
    pub fn total(&self) -> Option<u64> {
        self.ended.then_some(self.received)
    }

    /// The next clip whose frames are all there, once each.
    pub fn next_clip(&mut self) -> Option<Clip> {
        let (clip, next) = match self.window.emit {
            Emit::Newest => self.newest_clip()?,
            Emit::Step => self.single_frame()?,
            Emit::Centre | Emit::Ensemble => self.middle_clip()?,
        };
        self.next = next;
        Some(clip)
    }

    fn newest_clip(&self) -> Option<(Clip, u64)> {
        let hop = self.window.hop_frames as u64;
        let served_end = if self.next + hop <= self.received {
            self.next + hop
        } else if self.ended && self.next < self.received {
            self.received // the rest of a hop at the end of the epoch
        } else {
            return None;
        };
        let last = self.window.clip_frames - 1;
        let newest = served_end - 1;
        let frames = (0..=last)
            .map(|k| self.clamped(newest, k as i64 - last as i64))
            .collect();
        let serves = (self.next..served_end)
            .map(|f| (last - (newest - f) as usize, f))
            .collect();
        Some((Clip { frames, serves }, served_end))
    }

    fn single_frame(&self) -> Option<(Clip, u64)> {
        let frame = self.next;
        let clip = Clip {
            frames: vec![frame],
            serves: vec![(0, frame)],
        };
        (frame < self.received).then_some((clip, frame + 1))
    }

    fn middle_clip(&self) -> Option<(Clip, u64)> {
        let window = &self.window;
        let middle = self.next;
        let needed = middle + (window.after() * window.stride_frames) as u64;
        if middle >= self.received || (needed >= self.received && !self.ended) {
            return None;
        }
        let steps = |k: usize| k as i64 - window.middle() as i64;
        let frames = (0..window.clip_frames)
            .map(|k| self.clamped(middle, steps(k)))
            .collect();
        let serves = match window.emit {
            Emit::Ensemble => (0..window.clip_frames)
                .filter_map(|k| Some((k, self.inside(middle, steps(k))?)))
                .collect(),
            _ => vec![(window.middle(), middle)],
        };
        Some((Clip { frames, serves }, middle + 1))
    }

    /// The source index `steps` strides from `anchor`, where the epoch has it.
    fn inside(&self, anchor: u64, steps: i64) -> Option<u64> {
        let index = anchor as i64 + steps * self.window.stride_frames as i64;
        u64::try_from(index).ok().filter(|&i| i < self.received)
    }

    /// As [`Planner::inside`], clamped to the epoch.
    fn clamped(&self, anchor: u64, steps: i64) -> u64 {
        let index = anchor as i64 + steps * self.window.stride_frames as i64;
        index.clamp(0, self.received.saturating_sub(1) as i64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn window(emit: Emit, hop_frames: usize, stride_frames: usize) -> Window {
        Window {
            clip_frames: 5,
            emit,
            hop_frames,
            stride_frames,
        }
    }

    /// Clips of an epoch of `total` frames, drained after every frame, and how many frames had come at each.
    fn clips(window: Window, total: u64) -> Vec<(u64, Clip)> {
        window.validate().unwrap();
        let mut planner = Planner::new(window);
        let mut found = Vec::new();
        for _ in 0..total {
            planner.receive();
            while let Some(clip) = planner.next_clip() {
                found.push((planner.received(), clip));
            }
        }
        planner.end();
        while let Some(clip) = planner.next_clip() {
            found.push((planner.received(), clip));
        }
        assert!(planner.next_clip().is_none());
        found
    }

    #[test]
    fn every_frame_is_served_by_its_own_index_in_time() {
        let newest = (1..=5).map(|hop| window(Emit::Newest, hop, 1));
        let steps = (1..=15).map(|stride| window(Emit::Step, 1, stride));
        let strided = (1..=15).map(|stride| window(Emit::Newest, 1, stride));
        let middle = (1..=15).flat_map(|s| [window(Emit::Centre, 1, s), window(Emit::Ensemble, 1, s)]);
        for window in newest.chain(strided).chain(middle).chain(steps) {
            for total in 0..80 {
                let mut served: BTreeMap<u64, usize> = BTreeMap::new();
                for (received, clip) in clips(window, total) {
                    let length = if window.emit == Emit::Step { 1 } else { 5 };
                    assert_eq!(clip.frames.len(), length);
                    for pair in clip.frames.windows(2) {
                        assert!(pair[0] <= pair[1]);
                    }
                    // A ring of `span_frames` still has the oldest frame when the clip is cut.
                    assert!(clip.frames[0] + window.span_frames() as u64 >= received.min(total));
                    for &(position, frame) in &clip.serves {
                        assert_eq!(clip.frames[position], frame, "{window:?} {total}");
                        *served.entry(frame).or_default() += 1;
                        if received < total {
                            assert!(received <= frame + 1 + window.look_ahead_frames() as u64);
                        }
                    }
                }
                for frame in 0..total {
                    let count = window.clips_serving(frame, Some(total));
                    assert_eq!(served.get(&frame), Some(&count), "{window:?} {frame} of {total}");
                }
                assert_eq!(served.len() as u64, total);
            }
        }
    }

    #[test]
    fn the_ends_follow_the_reference() {
        // The reference repeats the first and last frame twice, cuts every run of five, and drops the outputs for
        // the repeats: a list of (frames, positions kept) for seven frames.
        let padded = [0, 0, 0, 1, 2, 3, 4, 5, 6, 6, 6];
        let expected: Vec<Clip> = (0..7)
            .map(|c| Clip {
                frames: padded[c..c + 5].to_vec(),
                serves: (0..5)
                    .filter(|k| (2..9).contains(&(c + k)))
                    .map(|k| (k, padded[c + k]))
                    .collect(),
            })
            .collect();
        let found: Vec<Clip> = clips(window(Emit::Ensemble, 1, 1), 7)
            .into_iter()
            .map(|(_, c)| c)
            .collect();
        assert_eq!(found, expected);
        let counts: Vec<usize> = (0..7)
            .map(|f| window(Emit::Ensemble, 1, 1).clips_serving(f, Some(7)))
            .collect();
        assert_eq!(counts, [3, 4, 5, 5, 5, 4, 3]);
    }

    #[test]
    fn a_hop_is_cut_short_at_the_end() {
        let found = clips(window(Emit::Newest, 3, 1), 4);
        assert_eq!(
            found[0].1,
            Clip {
                frames: vec![0, 0, 0, 1, 2],
                serves: vec![(2, 0), (3, 1), (4, 2)]
            }
        );
        assert_eq!(
            found[1].1,
            Clip {
                frames: vec![0, 0, 1, 2, 3],
                serves: vec![(4, 3)]
            }
        );
    }

    #[test]
    fn refused_combinations_say_why() {
        let message = |w: Window| w.validate().unwrap_err().to_string();
        assert!(message(window(Emit::Newest, 2, 2)).contains("not neighbours"));
        assert!(message(window(Emit::Centre, 2, 1)).contains("emit=center takes others"));
        assert!(message(window(Emit::Newest, 6, 1)).contains("can serve 1 to 5"));
        assert!(message(window(Emit::Newest, 0, 0)).contains("frame-stride is 0"));
        assert!(message(window(Emit::Newest, 1, 601)).contains("1 to 600"));
    }
}
