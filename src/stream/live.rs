//! The engine in live mode: the video never waits. Every frame gets the newest mask there is, or none.
//!
//! Frames worth a look make, with those about one, two, … strides before them ([`super::past`]), the newest clip,
//! which takes the place of one that has not been begun. How long a pass takes thus decides how many clips are run,
//! and never how long a frame takes.
//!
//! ```text
//! mask of frame i: the newest with source <= i, unless it is older than `max_age_nanos`
//! ```
//! With `delay_nanos` a frame is held until one comes that is so much later: a model that is fast enough answers
//! meanwhile, and the frame leaves with its own mask.

use super::engine::{Counts, Mask, Outcome};
use super::fuse::Fuser;
use super::past::{Past, Place, Spacing};
use super::time::FrameTime;
use super::window::Emit;
use super::worker::{Done, Job};
use crate::error::{Error, Result, all_of};
use crate::segmenter::{ModelFrame, Prompt, Request, SegmentError, SegmenterSpec, StreamId, Want};
use std::collections::VecDeque;

/// What a live engine is to do.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveConfig {
    /// Whose frames these are; requests carry it.
    pub stream: StreamId,
    /// Frames in a clip, as many as the model takes.
    pub clip_frames: usize,
    /// Distance between two frames of a clip.
    pub spacing: Spacing,
    /// Masks older than this are not given.
    pub max_age_nanos: u64,
    /// How long frames are held; 0 for not at all.
    pub delay_nanos: u64,
    /// Spatial prompts for every clip, in pixels of the model's square.
    pub prompt: Prompt,
}

/// The live-mode engine of one stream.
pub struct LiveEngine {
    config: LiveConfig,
    side_px: u32,
    epoch: u64,
    received: u64,
    newest: Option<FrameTime>,
    ended: bool,
    past: Past,
    fuser: Fuser,
    job: Option<Job>,
    /// Source frames of clips that have been cut and neither answered nor replaced, by number.
    open: VecDeque<(u64, Place)>,
    next_clip: u64,
    /// Newest last. More than one only while frames are held.
    masks: VecDeque<Mask>,
    fault: Option<SegmentError>,
    /// Frames whose outcome has not been taken, oldest first.
    waiting: VecDeque<Place>,
    counts: Counts,
}

impl LiveEngine {
    /// An engine whose first epoch is `epoch`, for the model that `spec` describes.
    ///
    /// # Errors
    /// A spacing outside its bounds, or a clip length that is not the model's.
    pub fn new(epoch: u64, config: LiveConfig, spec: &SegmenterSpec) -> Result<Self> {
        let mut errors = Vec::new();
        errors.extend(config.spacing.validate().err());
        if config.clip_frames == 0 || config.clip_frames != spec.clip_frames {
            let bound = format!("the model takes clips of {} frames", spec.clip_frames);
            errors.push(Error::config("clip_frames", config.clip_frames, bound));
        }
        all_of(errors)?;
        Ok(Self {
            side_px: spec.side_px,
            epoch,
            received: 0,
            newest: None,
            ended: false,
            past: Past::new(config.spacing, config.clip_frames),
            fuser: Fuser::new(spec.side_px, spec.classes.len(), spec.orientation),
            job: None,
            open: VecDeque::new(),
            next_clip: 0,
            masks: VecDeque::new(),
            fault: None,
            waiting: VecDeque::new(),
            counts: Counts::default(),
            config,
        })
    }

    /// The current epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What has been counted since the engine was made.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Frames pushed in this epoch.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Whether the next frame, shown at `time`, is worth a look: one to be kept, or any while frames are held for
    /// masks of their own.
    pub fn wants_pixels(&self, time: FrameTime) -> bool {
        self.config.delay_nanos > 0
            || self.past.wants(Place {
                index: self.received,
                time,
            })
    }

    /// Takes the next frame, with its pixels where [`LiveEngine::wants_pixels`] asked for them; its index.
    pub fn push(&mut self, frame: Option<ModelFrame>, time: FrameTime) -> u64 {
        let index = self.received;
        let place = Place { index, time };
        self.received += 1;
        self.counts.frames += 1;
        self.newest = Some(time);
        self.ended = false;
        self.waiting.push_back(place);
        if let Some(frame) = frame {
            if self.past.wants(place) {
                self.past.keep(frame.clone(), place);
            }
            self.cut_clip(frame, place);
        }
        index
    }

    /// The frames pushed so far wait for no later ones. More may be pushed.
    pub fn finish(&mut self) {
        self.ended = true;
    }

    /// As [`Engine::set_prompt`](super::Engine::set_prompt).
    pub fn set_prompt(&mut self, prompt: Prompt) {
        self.config.prompt = prompt;
    }

    /// Forgets frames, clips and masks.
    pub fn begin_epoch(&mut self) {
        self.epoch += 1;
        self.received = 0;
        self.newest = None;
        self.ended = false;
        self.past.clear();
        self.job = None;
        self.open.clear();
        self.masks.clear();
        self.waiting.clear();
    }

    /// The newest clip, once.
    pub fn next_job(&mut self) -> Option<Job> {
        self.job.take()
    }

    /// A clip that was handed out will not be run: a newer one took its place.
    pub fn skip(&mut self, job: &Job) {
        if job.epoch == self.epoch {
            self.open.retain(|(clip, _)| *clip != job.clip);
            self.counts.clips_skipped += 1;
        }
    }

    /// Takes an answer.
    pub fn accept(&mut self, done: Done) {
        if done.epoch != self.epoch {
            self.counts.answers_stale += 1;
            return;
        }
        let Some(at) = self.open.iter().position(|(clip, _)| *clip == done.clip) else {
            return;
        };
        let Some((_, source)) = self.open.remove(at) else {
            return;
        };
        let labels = done.result.and_then(|mut reply| {
            let plane = reply
                .planes
                .pop()
                .ok_or_else(|| SegmentError::Forward("no plane came back".into()))?;
            self.fuser.labels(plane).map_err(SegmentError::Forward)
        });
        match labels {
            Ok(fused) => {
                self.counts.clips_run += 1;
                self.fault = None;
                self.masks.push_back(Mask {
                    labels: fused.labels.into(),
                    side_px: self.side_px,
                    frame: source.index,
                    time: source.time,
                    epoch: self.epoch,
                    probabilities: None,
                });
            }
            Err(error) => {
                self.counts.clips_failed += 1;
                self.fault = Some(error);
            }
        }
    }

    /// No answer will come for the clips that are open.
    pub fn abandon(&mut self, error: &SegmentError) {
        self.open.clear();
        self.fault = Some(error.clone());
    }

    /// The outcome of a frame. Frames are taken in order: one before it is given up.
    pub fn take(&mut self, index: u64) -> Outcome {
        while self.waiting.front().is_some_and(|frame| frame.index < index) {
            self.waiting.pop_front();
        }
        let Some(frame) = self.waiting.front().copied().filter(|frame| frame.index == index) else {
            return Outcome::Unknown;
        };
        let held_long_enough = self
            .newest
            .is_none_or(|now| now.since_nanos(frame.time) >= self.config.delay_nanos);
        if !self.ended && !held_long_enough {
            return Outcome::NeedsFrames;
        }
        self.waiting.pop_front();
        // Later frames are never older: whatever lies before the newest mask for this one is done with.
        while self.masks.get(1).is_some_and(|next| next.frame <= index) {
            self.masks.pop_front();
        }
        let young = |mask: &&Mask| {
            mask.frame <= index && frame.time.since_nanos(mask.time) <= self.config.max_age_nanos
        };
        match (self.masks.front().filter(young), &self.fault) {
            (Some(mask), _) => Outcome::Mask(mask.clone()),
            (None, Some(error)) => Outcome::Failed(error.clone()),
            (None, None) => Outcome::None,
        }
    }

    /// Makes the newest clip of a frame.
    fn cut_clip(&mut self, newest: ModelFrame, place: Place) {
        let frames = self.past.clip(newest, place);
        let clip = self.next_clip;
        self.next_clip += 1;
        let last = self.config.clip_frames - 1;
        let request = Request {
            stream: self.config.stream,
            frames,
            outputs: vec![last],
            want: Want::Labels,
            prompt: self.config.prompt.clone(),
            step: None,
        };
        if let Some(older) = self.job.replace(Job {
            epoch: self.epoch,
            clip,
            request,
        }) {
            self.skip(&older);
        }
        self.open.push_back((clip, place));
    }
}

/// Live mode shows the newest output; the others need frames that have not come yet.
///
/// # Errors
/// Any other, saying why.
pub fn check_emit(emit: Emit) -> Result<()> {
    match emit {
        Emit::Newest => Ok(()),
        Emit::Centre | Emit::Ensemble | Emit::Step => Err(Error::config(
            "emit",
            emit,
            "it waits for later frames, while in mode=live the video never waits; set emit=newest or mode=exact",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Orientation;
    use crate::labels::ClassSet;
    use crate::segmenter::{Plane, Reply, Resize, Temporal};
    use std::sync::Arc;

    const MS: u64 = 1_000_000;

    fn spec() -> SegmenterSpec {
        SegmenterSpec {
            model_id: "fake".into(),
            clip_frames: 5,
            side_px: 1,
            classes: ClassSet::numbered(250).unwrap(),
            resize: Resize::Area,
            orientation: Orientation::Upright,
            frame_interval_nanos: None,
            temporal: Temporal::Centered,
            untrained: true,
            device: "none".into(),
        }
    }

    fn config(spacing: Spacing) -> LiveConfig {
        let prompt = Prompt::default();
        let (max_age_nanos, delay_nanos) = (500 * MS, 0);
        LiveConfig {
            stream: StreamId(1),
            clip_frames: 5,
            spacing,
            max_age_nanos,
            delay_nanos,
            prompt,
        }
    }

    fn engine(config: LiveConfig) -> LiveEngine {
        LiveEngine::new(0, config, &spec()).unwrap()
    }

    fn at(ms: u64) -> FrameTime {
        FrameTime {
            running_nanos: Some(ms * MS),
            arrival_nanos: 0,
        }
    }

    fn frame(byte: u8) -> ModelFrame {
        ModelFrame {
            rgb: Arc::from([byte; 3]),
        }
    }

    fn push(engine: &mut LiveEngine, byte: u8, ms: u64) -> u64 {
        let pixels = engine.wants_pixels(at(ms)).then(|| frame(byte));
        engine.push(pixels, at(ms))
    }

    fn bytes(job: &Job) -> Vec<u8> {
        job.request.frames.iter().map(|f| f.rgb[0]).collect()
    }

    fn answer(job: &Job) -> Done {
        let byte = *bytes(job).last().unwrap();
        let result = Ok(Reply {
            planes: vec![Plane::Labels(vec![byte])],
        });
        Done {
            stream: job.request.stream,
            epoch: job.epoch,
            clip: job.clip,
            result,
            forward_nanos: 0,
        }
    }

    #[test]
    fn the_newest_clip_replaces_one_that_was_not_begun() {
        let mut engine = engine(config(Spacing::Frames(2)));
        for i in 0..10 {
            push(&mut engine, i, u64::from(i) * 40);
        }
        assert_eq!(bytes(&engine.next_job().unwrap()), [1, 3, 5, 7, 9]);
        assert!(engine.next_job().is_none());
        assert_eq!((engine.counts().clips_skipped, engine.open.len()), (9, 1));
    }

    #[test]
    fn a_slow_pass_is_heard_however_many_clips_came_after_it() {
        let mut engine = engine(LiveConfig {
            max_age_nanos: 10_000 * MS,
            ..config(Spacing::Frames(1))
        });
        push(&mut engine, 1, 0);
        let slow = engine.next_job().unwrap();
        let mut waiting = None;
        for i in 1..100 {
            push(&mut engine, i, u64::from(i) * 40);
            let newer = engine.next_job();
            if let Some(older) = std::mem::replace(&mut waiting, newer) {
                engine.skip(&older);
            }
        }
        engine.accept(answer(&slow));
        assert!(matches!(engine.take(99), Outcome::Mask(mask) if mask.frame == 0));
        assert_eq!((engine.counts().clips_skipped, engine.open.len()), (98, 1));
    }

    #[test]
    fn only_frames_worth_a_look_are_asked_for() {
        let mut slow = engine(config(Spacing::Frames(60)));
        let asked = (0..600).filter(|i| {
            let wanted = slow.wants_pixels(at(i * 16));
            push(&mut slow, (i % 250) as u8, i * 16);
            wanted
        });
        assert_eq!(asked.count(), 150, "every fourth");
        // 596, 536, 476, 416, 356
        assert_eq!(bytes(&slow.next_job().unwrap()), [106, 166, 226, 36, 96]);
        // For masks of their own all are wanted, and still only every fourth is kept.
        let mut held = engine(LiveConfig {
            delay_nanos: MS,
            ..config(Spacing::Frames(60))
        });
        for i in 0..600 {
            assert!(held.wants_pixels(at(i * 16)));
            push(&mut held, (i % 250) as u8, i * 16);
        }
        assert_eq!(bytes(&held.next_job().unwrap())[4], 99);
        assert!(held.past.len() <= 4 * 15 + 2);
    }

    #[test]
    fn masks_age_and_are_not_shown_when_too_old() {
        let mut engine = engine(config(Spacing::Frames(1)));
        let first = push(&mut engine, 7, 0);
        assert_eq!(engine.take(first), Outcome::None);
        let job = engine.next_job().unwrap();
        engine.accept(answer(&job));
        for (ms, young) in [(40, true), (500, true), (501, false)] {
            let index = push(&mut engine, 8, ms);
            match engine.take(index) {
                Outcome::Mask(mask) => {
                    assert!(young);
                    assert_eq!((mask.labels[0], mask.frame, mask.time), (7, 0, at(0)));
                }
                other => assert!(!young && other == Outcome::None, "{ms}: {other:?}"),
            }
            assert_eq!(engine.take(index), Outcome::Unknown);
        }
    }

    #[test]
    fn a_delay_gives_a_fast_model_time_for_every_frame() {
        let mut engine = engine(LiveConfig {
            delay_nanos: 100 * MS,
            ..config(Spacing::Frames(40))
        });
        let mut next = 0;
        for i in 0..50_u8 {
            push(&mut engine, i, u64::from(i) * 40);
            // The answer comes one frame later.
            let job = engine.next_job().unwrap();
            while let Outcome::Mask(mask) = engine.take(next) {
                assert_eq!((mask.frame, mask.labels[0]), (next, next as u8));
                next += 1;
            }
            assert_eq!(next, u64::from(i).saturating_sub(2), "held for 100 ms at 25 Hz");
            engine.accept(answer(&job));
        }
        assert_eq!(engine.take(next), Outcome::NeedsFrames);
        engine.finish();
        for index in next..50 {
            assert!(matches!(engine.take(index), Outcome::Mask(mask) if mask.frame == index));
        }
        assert!(engine.waiting.is_empty() && engine.masks.len() <= 1);
    }

    #[test]
    fn a_mask_of_a_later_frame_is_never_shown() {
        let mut engine = engine(LiveConfig {
            delay_nanos: 100 * MS,
            ..config(Spacing::Frames(1))
        });
        for i in 0..3 {
            push(&mut engine, i, u64::from(i) * 40);
        }
        let job = engine.next_job().unwrap(); // of frame 2
        engine.accept(answer(&job));
        push(&mut engine, 3, 120);
        assert_eq!(engine.take(0), Outcome::None);
        push(&mut engine, 4, 160);
        assert_eq!(engine.take(1), Outcome::None);
        push(&mut engine, 5, 200);
        assert!(matches!(engine.take(2), Outcome::Mask(mask) if mask.frame == 2));
    }

    #[test]
    fn a_fault_is_reported_until_a_clip_succeeds() {
        let mut engine = engine(config(Spacing::Frames(1)));
        push(&mut engine, 1, 0);
        let job = engine.next_job().unwrap();
        let error = SegmentError::Forward("cold".into());
        engine.accept(Done {
            result: Err(error.clone()),
            ..answer(&job)
        });
        assert_eq!(engine.take(0), Outcome::Failed(error));
        push(&mut engine, 2, 40);
        let job = engine.next_job().unwrap();
        engine.accept(answer(&job));
        assert!(matches!(engine.take(1), Outcome::Mask(_)));
        assert_eq!((engine.counts().clips_run, engine.counts().clips_failed), (1, 1));
    }

    #[test]
    fn an_epoch_takes_nothing_from_the_one_before() {
        let mut engine = engine(config(Spacing::Frames(1)));
        push(&mut engine, 1, 0);
        let old = engine.next_job().unwrap();
        engine.begin_epoch();
        let index = push(&mut engine, 2, 40);
        engine.accept(answer(&old));
        assert_eq!((index, engine.take(0)), (0, Outcome::None));
        assert_eq!(bytes(&engine.next_job().unwrap()), [2; 5]);
        assert_eq!(engine.counts().answers_stale, 1);
    }

    #[test]
    fn what_cannot_be_live_says_why() {
        assert!(check_emit(Emit::Newest).is_ok());
        assert!(
            check_emit(Emit::Centre)
                .unwrap_err()
                .to_string()
                .contains("the video never waits")
        );
        assert!(LiveEngine::new(0, config(Spacing::Frames(0)), &spec()).is_err());
        assert!(LiveEngine::new(0, config(Spacing::Nanos(0)), &spec()).is_err());
    }
}
