//! The engine of one stream, in exact or live mode: frames and answers in, clips to run and masks out.
//!
//! It is bookkeeping only. The caller pushes frames, carries [`Job`]s to whoever runs them and brings [`Done`]s
//! back; nothing here waits, locks or asks what time it is.
//!
//! ```text
//! push(frame) -> index      next_job() -> Job      accept(Done)      take(index) -> Outcome
//! ```

use super::exact::{ExactConfig, ExactEngine};
use super::live::{LiveConfig, LiveEngine};
use super::time::FrameTime;
use super::worker::{Done, Job};
use crate::error::Result;
use crate::segmenter::{ModelFrame, Prompt, Request, SegmentError, SegmenterSpec};
use std::sync::Arc;

/// What an engine is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum EngineConfig {
    /// Every frame gets its own mask.
    Exact(ExactConfig),
    /// Every frame gets the newest mask there is.
    Live(LiveConfig),
}

/// The mask of one frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Mask {
    /// `[side, side]` class ids, upright, covering the region of interest.
    pub labels: Arc<[u8]>,
    /// Side of the plane.
    pub side_px: u32,
    /// Index of the frame it was computed from, within its epoch.
    pub frame: u64,
    /// That frame's time.
    pub time: FrameTime,
    /// The epoch that frame belongs to.
    pub epoch: u64,
    /// The labels were moved forward to the frame they are given for; `frame`, `time` and `epoch` stay those of the
    /// frame they were computed from.
    pub carried: bool,
    /// `[classes, side, side]` mean softmax in the orientation of the model's input, where kept.
    pub probabilities: Option<Vec<f32>>,
}

/// What is known about a frame's mask.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Later frames, or the end of the epoch, have to come first.
    NeedsFrames,
    /// Every clip it needs has been cut; answers are outstanding. Exact mode only.
    Running,
    /// Its mask.
    Mask(Mask),
    /// There is none that is young enough. Live mode only.
    None,
    /// It has none, and why.
    Failed(SegmentError),
    /// The engine does not know such a frame, or has already given its outcome.
    Unknown,
}

/// Numbers that only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Frames pushed.
    pub frames: u64,
    /// Clips answered with planes.
    pub clips_run: u64,
    /// Clips answered with an error.
    pub clips_failed: u64,
    /// Clips that were cut and gave way to a newer one. Live mode only.
    pub clips_skipped: u64,
    /// Answers that came after their epoch had ended.
    pub answers_stale: u64,
}

impl std::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            frames: self.frames + other.frames,
            clips_run: self.clips_run + other.clips_run,
            clips_failed: self.clips_failed + other.clips_failed,
            clips_skipped: self.clips_skipped + other.clips_skipped,
            answers_stale: self.answers_stale + other.answers_stale,
        }
    }
}

/// The engine of one stream.
#[allow(
    clippy::large_enum_variant,
    reason = "a stream has one, which stays where it is"
)]
pub enum Engine {
    /// Exact mode.
    Exact(ExactEngine),
    /// Live mode.
    Live(LiveEngine),
}

impl Engine {
    /// An engine whose first epoch is `epoch`, for the model that `spec` describes.
    ///
    /// # Errors
    /// A configuration that does not validate or does not fit the model.
    pub fn new(epoch: u64, config: EngineConfig, spec: &SegmenterSpec) -> Result<Self> {
        match config {
            EngineConfig::Exact(config) => ExactEngine::new(epoch, config, spec).map(Engine::Exact),
            EngineConfig::Live(config) => LiveEngine::new(epoch, config, spec).map(Engine::Live),
        }
    }

    /// The current epoch.
    pub fn epoch(&self) -> u64 {
        match self {
            Engine::Exact(exact) => exact.epoch(),
            Engine::Live(live) => live.epoch(),
        }
    }

    /// What has been counted since the engine was made.
    pub fn counts(&self) -> Counts {
        match self {
            Engine::Exact(exact) => exact.counts(),
            Engine::Live(live) => live.counts(),
        }
    }

    /// Frames pushed in this epoch.
    pub fn received(&self) -> u64 {
        match self {
            Engine::Exact(exact) => exact.received(),
            Engine::Live(live) => live.received(),
        }
    }

    /// Whether the next frame, shown at `time`, has to be pushed with its pixels.
    pub fn wants_pixels(&self, time: FrameTime) -> bool {
        match self {
            Engine::Exact(_) => true,
            Engine::Live(live) => live.wants_pixels(time),
        }
    }

    /// Takes the next frame; its index within the epoch. `frame` may be missing where [`Engine::wants_pixels`] was
    /// false.
    pub fn push(&mut self, frame: Option<ModelFrame>, time: FrameTime) -> Option<u64> {
        match self {
            Engine::Exact(exact) => frame.map(|frame| exact.push(frame, time)),
            Engine::Live(live) => Some(live.push(frame, time)),
        }
    }

    /// The epoch's last frame has been pushed: nothing waits for later frames any more.
    pub fn finish(&mut self) {
        match self {
            Engine::Exact(exact) => exact.finish(),
            Engine::Live(live) => live.finish(),
        }
    }

    /// Ends the epoch without finishing it: forgets frames, clips and masks. Answers of older epochs that still come
    /// are dropped and counted.
    pub fn begin_epoch(&mut self) {
        match self {
            Engine::Exact(exact) => exact.begin_epoch(),
            Engine::Live(live) => live.begin_epoch(),
        }
    }

    /// Puts another prompt in the place of the one of the configuration, for clips that are cut from now on. Clips of
    /// one epoch should share a prompt: begin an epoch with it.
    pub fn set_prompt(&mut self, prompt: Prompt) {
        match self {
            Engine::Exact(exact) => exact.set_prompt(prompt),
            Engine::Live(live) => live.set_prompt(prompt),
        }
    }

    /// From now on masks of frames older than this, in ns, are not given out. Live mode only.
    pub fn set_max_age(&mut self, max_age_nanos: u64) {
        if let Engine::Live(live) = self {
            live.set_max_age(max_age_nanos);
        }
    }

    /// The next clip to run. In live mode it takes the place of one that has not been begun.
    pub fn next_job(&mut self) -> Option<Job> {
        match self {
            Engine::Exact(exact) => exact.next_job(),
            Engine::Live(live) => live.next_job(),
        }
    }

    /// A clip that was handed out will not be run: a newer one took its place. Live mode only.
    pub fn skip(&mut self, job: Job) {
        if let Engine::Live(live) = self {
            live.skip(job);
        }
    }

    /// Takes a request that nobody needs any more, for its memory. Live mode only.
    pub fn recycle(&mut self, request: Request) {
        if let Engine::Live(live) = self {
            live.recycle(request);
        }
    }

    /// Takes an answer.
    pub fn accept(&mut self, done: Done) {
        match self {
            Engine::Exact(exact) => exact.accept(done),
            Engine::Live(live) => live.accept(done),
        }
    }

    /// No answer will come for the clips that are open.
    pub fn abandon(&mut self, error: &SegmentError) {
        match self {
            Engine::Exact(exact) => exact.abandon(error),
            Engine::Live(live) => live.abandon(error),
        }
    }

    /// Live mode: why there are no new masks, until a clip succeeds; and how often that has come up.
    pub fn fault(&self) -> Option<(&SegmentError, u64)> {
        match self {
            Engine::Exact(_) => None,
            Engine::Live(live) => live.fault(),
        }
    }

    /// The clock behind the arrival times of frames reads `now_nanos`. Live mode with a delay asks for it before
    /// [`Engine::take`]; without it, time passes with the frames.
    pub fn pass_time(&mut self, now_nanos: u64) {
        if let Engine::Live(live) = self {
            live.pass_time(now_nanos);
        }
    }

    /// When the oldest frame that is held leaves, of the clock behind arrival times, and 0 for at once: live mode with a
    /// delay.
    pub fn due_nanos(&self) -> Option<u64> {
        match self {
            Engine::Exact(_) => None,
            Engine::Live(live) => live.due_nanos(),
        }
    }

    /// The outcome of a frame. [`Outcome::Mask`], [`Outcome::None`] and [`Outcome::Failed`] are given once; afterwards
    /// the frame is [`Outcome::Unknown`].
    pub fn take(&mut self, index: u64) -> Outcome {
        match self {
            Engine::Exact(exact) => exact.take(index),
            Engine::Live(live) => live.take(index),
        }
    }
}
