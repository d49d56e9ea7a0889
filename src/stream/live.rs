//! The engine in live mode: the video never waits. Every frame gets the newest mask there is, or none.
//!
//! Frames worth a look make, with those about one, two, … strides before them ([`super::past`]), the newest clip,
//! which takes the place of one that has not been begun. How long a pass takes thus decides how many clips are run,
//! and never how long a frame takes.
//!
//! ```text
//! mask of frame i: the newest with source <= i, unless it is older than `max_age_nanos`
//! ```
//! With `delay_nanos` a frame is held for so long: a model that is fast enough answers meanwhile, and the frame leaves
//! with its own mask. Frames may come faster than they are shown, so one that is so much later ends it too.

use super::carry::Carrier;
use super::engine::{Counts, Mask, Outcome};
use super::fuse::Fuser;
use super::past::{Past, Place, Spacing};
use super::phases::Phases;
use super::time::FrameTime;
use super::window::Emit;
use super::worker::{Done, Job};
use crate::error::{Error, Result, all_of};
use crate::segmenter::{ModelFrame, Prompt, Request, SegmentError, SegmenterSpec, StreamId, Temporal, Want};
use std::collections::VecDeque;

/// What a live engine is to do.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveConfig {
    /// Whose frames these are; requests carry it.
    pub stream: StreamId,
    /// Frames in a clip, as many as the model takes.
    pub clip_frames: usize,
    /// Newest or step; see [`check_emit`].
    pub emit: Emit,
    /// Distance between two frames of a clip, or between two frames that a causal state is fed.
    pub spacing: Spacing,
    /// Masks older than this are not given.
    pub max_age_nanos: u64,
    /// How long frames are held, by their timestamps or by the clock, whichever is over first; 0 for not at all.
    pub delay_nanos: u64,
    /// Whether masks are moved along to the frame they are shown on ([`super::carry`]).
    pub carry: bool,
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
    /// The latest reading of the clock behind arrival times.
    now_nanos: u64,
    ended: bool,
    past: Past,
    /// Causal states, where the model runs one frame at a time.
    phases: Option<Phases>,
    fuser: Fuser,
    job: Option<Job>,
    /// Source frames of clips that have been cut and neither answered nor replaced, by number.
    open: VecDeque<(u64, Place)>,
    next_clip: u64,
    /// Newest last. More than one only while frames are held.
    masks: VecDeque<Mask>,
    fault: Option<SegmentError>,
    /// How often a fault came up.
    faults: u64,
    /// Frames whose outcome has not been taken, oldest first.
    waiting: VecDeque<Place>,
    counts: Counts,
    /// Where masks are to be carried.
    carrier: Option<Carrier>,
    /// Requests to be filled, so that a clip takes no memory.
    spares: Vec<Request>,
}

/// How much more time may pass from one frame's arrival to another's than by their timestamps: bursts and stalls of a
/// network. Timestamps that are further off stand still, and say nothing of an age.
const LENIENCE_NANOS: u64 = 500_000_000;

/// For waking up when a frame's delay is over, and for sending it on.
const LEAVING_NANOS: u64 = 1_000_000;

/// Requests kept: one is cut, one waits, one is under way, and one is on its way back.
const SPARES: usize = 4;

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
        errors.extend(check_emit(config.emit).err());
        if config.emit == Emit::Step && spec.temporal != Temporal::Causal {
            let bound = "the model's temporal taps are centered: it looks at later frames";
            errors.push(Error::config("emit", config.emit, bound));
        }
        all_of(errors)?;
        Ok(Self {
            phases: (config.emit == Emit::Step).then(|| Phases::new(config.spacing)),
            side_px: spec.side_px,
            epoch,
            received: 0,
            newest: None,
            now_nanos: 0,
            ended: false,
            past: Past::new(
                config.spacing,
                match config.emit {
                    Emit::Step => 1,
                    _ => config.clip_frames,
                },
            ),
            fuser: Fuser::new(spec.side_px, spec.classes.len(), spec.orientation),
            job: None,
            open: VecDeque::new(),
            next_clip: 0,
            masks: VecDeque::new(),
            fault: None,
            faults: 0,
            waiting: VecDeque::new(),
            counts: Counts::default(),
            carrier: config.carry.then(|| Carrier::new(spec.side_px, spec.orientation)),
            spares: (0..SPARES).map(|_| blank(&config)).collect(),
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
    /// masks of their own or masks are carried to it.
    pub fn wants_pixels(&self, time: FrameTime) -> bool {
        self.config.delay_nanos > 0
            || self.config.carry
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
        self.pass_time(time.arrival_nanos);
        self.ended = false;
        self.waiting.push_back(place);
        if let Some(frame) = frame {
            if let Some(carrier) = &mut self.carrier {
                carrier.see(index, &frame);
            }
            if self.past.wants(place) {
                self.past.keep(frame.clone(), place);
            }
            self.cut_clip(frame, place);
        }
        index
    }

    /// The clock behind arrival times reads `now_nanos`.
    pub fn pass_time(&mut self, now_nanos: u64) {
        self.now_nanos = self.now_nanos.max(now_nanos);
    }

    /// When the oldest frame that is held leaves, of the clock behind arrival times; 0 for at once, as frames come faster
    /// than they are shown. `None` where none is held, or none for a time.
    pub fn due_nanos(&self) -> Option<u64> {
        let oldest = self.waiting.front().filter(|_| self.config.delay_nanos > 0)?;
        Some(match self.is_overfull() {
            true => 0,
            false => end_of_delay_nanos(self.config.delay_nanos, oldest.time),
        })
    }

    /// Whether frames come faster than they leave: the oldest that is held should have left by its timestamp.
    fn is_overfull(&self) -> bool {
        let oldest = self.waiting.front().map(|frame| frame.time);
        oldest
            .zip(self.newest)
            .is_some_and(|(oldest, newest)| newest.since_nanos(oldest) >= self.config.delay_nanos)
    }

    /// The frames pushed so far wait for no later ones. More may be pushed.
    pub fn finish(&mut self) {
        self.ended = true;
    }

    /// As [`Engine::set_prompt`](super::Engine::set_prompt).
    pub fn set_prompt(&mut self, prompt: Prompt) {
        self.config.prompt = prompt;
    }

    /// As [`Engine::set_max_age`](super::Engine::set_max_age).
    pub fn set_max_age(&mut self, max_age_nanos: u64) {
        self.config.max_age_nanos = max_age_nanos;
    }

    /// Forgets frames, clips and masks.
    pub fn begin_epoch(&mut self) {
        self.epoch += 1;
        self.received = 0;
        self.newest = None;
        self.ended = false;
        self.past.clear();
        if let Some(phases) = &mut self.phases {
            phases.clear();
        }
        if let Some(carrier) = &mut self.carrier {
            carrier.clear();
        }
        self.job = None;
        self.open.clear();
        self.masks.clear();
        self.waiting.clear();
    }

    /// The newest clip, once.
    pub fn next_job(&mut self) -> Option<Job> {
        let mut job = self.job.take()?;
        let source = self.open.iter().find(|(clip, _)| *clip == job.clip);
        if let (Some(phases), Some((_, place))) = (&mut self.phases, source) {
            job.request.step = phases.feed(job.clip, *place);
            if job.request.step.is_none() {
                self.skip(job);
                return None;
            }
        }
        Some(job)
    }

    /// A clip that was handed out will not be run: a newer one took its place.
    pub fn skip(&mut self, job: Job) {
        if job.epoch == self.epoch {
            self.open.retain(|(clip, _)| *clip != job.clip);
            self.counts.clips_skipped += 1;
            if let Some(phases) = &mut self.phases {
                phases.skipped(job.clip);
            }
        }
        self.recycle(job.request);
    }

    /// Takes a request that nobody needs any more, so that the next clip takes no memory.
    pub fn recycle(&mut self, mut request: Request) {
        request.frames.clear();
        if self.spares.len() < SPARES {
            self.spares.push(request);
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
        if let Some(phases) = &mut self.phases {
            match &done.result {
                Ok(_) => phases.ran(done.clip),
                Err(_) => phases.skipped(done.clip),
            }
        }
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
                    carried: false,
                    probabilities: None,
                });
            }
            Err(error) => {
                self.counts.clips_failed += 1;
                self.faults += 1;
                self.fault = Some(error);
            }
        }
    }

    /// No answer will come for the clips that are open.
    pub fn abandon(&mut self, error: &SegmentError) {
        self.open.clear();
        if let Some(phases) = &mut self.phases {
            phases.clear();
        }
        // Said again for every frame while it lasts: it is one fault.
        if self.fault.as_ref() != Some(error) {
            self.faults += 1;
            self.fault = Some(error.clone());
        }
    }

    /// Why there are no new masks, until a clip succeeds; and how often that has come up.
    pub fn fault(&self) -> Option<(&SegmentError, u64)> {
        self.fault.as_ref().map(|error| (error, self.faults))
    }

    /// The outcome of a frame. Frames are taken in order: one before it is given up.
    pub fn take(&mut self, index: u64) -> Outcome {
        while self.waiting.front().is_some_and(|frame| frame.index < index) {
            self.waiting.pop_front();
        }
        let Some(frame) = self.waiting.front().copied().filter(|frame| frame.index == index) else {
            return Outcome::Unknown;
        };
        let leaves_nanos = end_of_delay_nanos(self.config.delay_nanos, frame.time);
        let held_long_enough = self.now_nanos >= leaves_nanos || self.is_overfull();
        if !self.ended && !held_long_enough {
            return Outcome::NeedsFrames;
        }
        self.waiting.pop_front();
        // Later frames are never older: whatever lies before the newest mask for this one is done with.
        while self.masks.get(1).is_some_and(|next| next.frame <= index) {
            self.masks.pop_front();
        }
        let young = |mask: &&Mask| {
            mask.frame <= index
                && frame.time.since_nanos(mask.time) <= self.config.max_age_nanos
                && frame.time.waited_nanos(mask.time)
                    <= self.config.max_age_nanos.saturating_add(LENIENCE_NANOS)
        };
        match (self.masks.front().filter(young), &self.fault) {
            (Some(mask), _) => Outcome::Mask(carried(mask, index, self.carrier.as_mut())),
            (None, Some(error)) => Outcome::Failed(error.clone()),
            (None, None) => Outcome::None,
        }
    }

    /// Makes the newest clip of a frame.
    fn cut_clip(&mut self, newest: ModelFrame, place: Place) {
        let mut request = self.spares.pop().unwrap_or_else(|| blank(&self.config));
        match self.phases {
            Some(_) => request.frames.push(newest),
            None => self.past.clip(newest, place, &mut request.frames),
        }
        request.prompt.clone_from(&self.config.prompt);
        let clip = self.next_clip;
        self.next_clip += 1;
        if let Some(older) = self.job.replace(Job {
            epoch: self.epoch,
            clip,
            request,
        }) {
            self.skip(older);
        }
        self.open.push_back((clip, place));
    }
}

/// When a frame that is held for `delay_nanos` leaves by the clock behind arrival times: a little early, so that it has left
/// when its delay is over.
pub fn end_of_delay_nanos(delay_nanos: u64, time: FrameTime) -> u64 {
    let margin_nanos = LEAVING_NANOS.min(delay_nanos / 4);
    time.arrival_nanos.saturating_add(delay_nanos - margin_nanos)
}

/// A request for the newest output, without its frames and prompt.
fn blank(config: &LiveConfig) -> Request {
    Request {
        stream: config.stream,
        frames: Vec::with_capacity(config.clip_frames),
        outputs: vec![match config.emit {
            Emit::Step => 0,
            _ => config.clip_frames - 1,
        }],
        want: Want::Labels,
        prompt: Prompt::default(),
        step: None,
    }
}

/// `mask` on frame `index`: moved along where that can be done, else as it is.
fn carried(mask: &Mask, index: u64, carrier: Option<&mut Carrier>) -> Mask {
    let moved = carrier
        .filter(|_| mask.frame < index)
        .and_then(|carrier| carrier.carry(&mask.labels, mask.frame, index));
    match moved {
        Some(labels) => Mask {
            labels,
            carried: true,
            ..mask.clone()
        },
        None => mask.clone(),
    }
}

/// Live mode shows the newest output, of a clip or of a step; the others need frames that have not come yet.
///
/// # Errors
/// Any other, saying why.
pub fn check_emit(emit: Emit) -> Result<()> {
    match emit {
        Emit::Newest | Emit::Step => Ok(()),
        Emit::Centre | Emit::Ensemble => Err(Error::config(
            "emit",
            emit,
            "it waits for later frames, while in mode=live the video never waits; set emit=newest, emit=step or mode=exact",
        )),
    }
}

#[cfg(test)]
mod tests;
