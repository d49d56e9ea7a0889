//! Frames and events that wait their turn, and how they leave.
//!
//! ```text
//! without a delay:   streaming thread: take in, let go of what may leave, and wait for masks in exact mode
//! with video-delay:  streaming thread: take in, wait while too much is held
//!                    thread of held frames: let go of what is due, wait in sinks downstream
//! ```

use super::imp::Infer;
use super::report::is_told;
use super::settings::Mode;
use super::state::{State, UNKNOWN_FRAME_NANOS};
use crate::segmenter::SegmentError;
use crate::stream::live::end_of_delay_nanos;
use crate::stream::{FrameTime, Outcome, Wait};
use gst::prelude::*;
use gst::subclass::prelude::*;
use gstreamer as gst;
use std::time::Duration;

/// How often a chain function that waits looks whether the model hangs.
const TEND_EVERY: Duration = Duration::from_millis(500);

/// Frames that may be held beyond those that the delay asks for: one that is being sent, and what a sink keeps waiting.
const SPARE_FRAMES: u64 = 3;

/// Frames held for a time, at most.
pub(super) fn held_for(delay_nanos: u64, frame_nanos: Option<u64>) -> u32 {
    let frame_nanos = frame_nanos.unwrap_or(UNKNOWN_FRAME_NANOS).max(1);
    u32::try_from(delay_nanos.div_ceil(frame_nanos) + SPARE_FRAMES).unwrap_or(u32::MAX)
}

/// Waits its turn.
pub(super) enum Held {
    /// A frame.
    Frame {
        buffer: gst::Buffer,
        time: FrameTime,
        leaves: Leaves,
    },
    /// A serialised event between frames.
    Event(gst::Event),
}

/// When a frame leaves, and how.
#[derive(Clone, Copy)]
pub(super) enum Leaves {
    /// With what the engine has for the frame of that index, when the engine lets go of it.
    Masked(u64),
    /// As it is, when the element's clock reads so much.
    At(u64),
}

/// What to do about the first item that waits.
pub(super) enum Next {
    Push(gst::Buffer),
    Forward(gst::Event),
    /// Its mask is being computed.
    Wait,
    /// Nothing more can leave until something comes, or is due.
    Rest,
}

impl Infer {
    /// Whether frames are held for a time, and leave on a thread of their own.
    pub(super) fn is_delayed(&self) -> bool {
        self.state().as_ref().is_some_and(State::is_delayed)
    }

    /// Lets go of what may leave now that a frame has come, or has the other thread do so. That one alone waits in sinks
    /// for the time of what it sends: a camera must not have to.
    pub(super) fn let_go(&self) -> Result<gst::FlowSuccess, gst::FlowError> {
        if self.is_delayed() {
            self.plan_release();
            if !self.wait_while(State::is_full) {
                return Err(gst::FlowError::Flushing);
            }
            let failed = self.state().as_mut().and_then(|state| state.flow_of_held.take());
            return failed.map_or(Ok(gst::FlowSuccess::Ok), Err);
        }
        let _turn = self.turn.take().ok_or(gst::FlowError::Flushing)?;
        self.release()
    }

    /// Has all that is held leave at once, and waits until it has; false for a flush that ended that.
    pub(super) fn hurry_out(&self) -> bool {
        let now_nanos = self.now_nanos();
        if let Some(state) = self.state().as_mut() {
            state.hurry(now_nanos);
        }
        self.plan_release();
        self.wait_while(|state| !state.held.is_empty())
    }

    /// Waits until the thread of held frames has made room; a failure of what it has sent ends that, and so does a flush,
    /// for which it is false.
    fn wait_while(&self, waits: impl Fn(&State) -> bool) -> bool {
        let waits = |state: &mut Option<State>| {
            let state = state.as_ref();
            state.is_some_and(|state| !state.interrupted && state.flow_of_held.is_none() && waits(state))
        };
        let state = self
            .room
            .wait_while(self.state(), waits)
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        state.as_ref().is_some_and(|state| !state.interrupted)
    }

    /// How often the stream has been flushed.
    pub(super) fn flushes(&self) -> u64 {
        self.state().as_ref().map_or(0, |state| state.flushes)
    }

    /// Lets go of everything whose turn has come, waiting for masks that are being computed. Who calls it has the turn.
    pub(super) fn release(&self) -> Result<gst::FlowSuccess, gst::FlowError> {
        loop {
            match self.next()? {
                Next::Push(buffer) => {
                    self.srcpad.push(buffer)?;
                }
                Next::Forward(event) => {
                    if event.type_() == gst::EventType::Eos {
                        self.tell_flow_of_held();
                    }
                    let _ = self.srcpad.push_event(event);
                }
                Next::Wait => self.wait()?,
                Next::Rest => return Ok(gst::FlowSuccess::Ok),
            }
        }
    }

    fn next(&self) -> Result<Next, gst::FlowError> {
        let (mut failure, now_nanos) = (None, self.now_nanos());
        let (next, makes_room) = {
            let mut state = self.state();
            let state = state.as_mut().ok_or(gst::FlowError::Flushing)?;
            (state.next(&mut failure, now_nanos), state.is_delayed())
        };
        if makes_room {
            self.room.notify_all();
        }
        if let Some((error, count)) = failure
            && is_told(count - 1, count)
        {
            self.warn_of_fault("a frame goes on without its mask", &error, count);
        }
        Ok(next)
    }

    /// Waits for an answer without holding the state.
    fn wait(&self) -> Result<(), gst::FlowError> {
        let (port, tend_every) = match &mut *self.state() {
            Some(state) => {
                let watchdog = Duration::from_nanos(state.session.settings.watchdog_nanos);
                (
                    state.stream.as_ref().and_then(|stream| stream.port.clone()),
                    watchdog.min(TEND_EVERY),
                )
            }
            None => return Err(gst::FlowError::Flushing),
        };
        let begun_nanos = self.now_nanos();
        let waited = port.map_or(Wait::Gone, |port| port.wait(tend_every));
        if waited == Wait::TimedOut {
            let now_nanos = self.now_nanos();
            let waited_nanos = now_nanos.saturating_sub(begun_nanos);
            // Where this thread could not run, the model's could not either: the process was stopped, or starved.
            if waited_nanos > 2 * tend_every.as_nanos() as u64
                && let Some(state) = self.state().as_ref()
            {
                state.session.supervisor.excuse(now_nanos);
            }
            self.tend();
        }
        let grown = {
            let mut state = self.state();
            let state = state.as_mut().ok_or(gst::FlowError::Flushing)?;
            let Some(stream) = &mut state.stream else {
                return Ok(());
            };
            match waited {
                Wait::Done(done) => stream.engine.accept(done),
                Wait::Interrupted => return Err(gst::FlowError::Flushing),
                Wait::Gone => state.exchange(),
                Wait::Idle => stream
                    .engine
                    .abandon(&SegmentError::Forward("the model lost the clip".into())),
                Wait::TimedOut => (),
            }
            state.latency_has_grown()
        };
        if grown {
            gst::debug!(
                super::imp::CAT,
                imp = self,
                "forward passes take longer: the latency has to be asked for again"
            );
            self.post_message(gst::message::Latency::builder().src(&*self.obj()).build());
        }
        Ok(())
    }

    /// Gives every held frame its mask as if the stream ended here, and lets all go.
    fn drain(&self) -> Result<gst::FlowSuccess, gst::FlowError> {
        let _turn = self.turn.take().ok_or(gst::FlowError::Flushing)?;
        if let Some(state) = self.state().as_mut() {
            if let Some(stream) = &mut state.stream {
                stream.engine.finish();
            }
            state.exchange();
        }
        self.release()
    }

    /// Lets all held frames go before something that takes their place in time. In live mode the window goes on
    /// behind it, and it waits its turn where frames have a delay; in exact mode it cannot span what is not there.
    pub(super) fn drain_for_gap(&self) -> Result<gst::FlowSuccess, gst::FlowError> {
        let (delayed, live) = match &*self.state() {
            Some(state) => (
                state.is_delayed(),
                state.stream.as_ref().is_some_and(|stream| stream.live),
            ),
            None => return Err(gst::FlowError::Flushing),
        };
        match (delayed, live) {
            (true, _) => Ok(gst::FlowSuccess::Ok),
            (false, true) => self.drain(),
            (false, false) => self.end_epoch(),
        }
    }

    /// Begins a new epoch. What is held leaves with what masks there are: at once, or with a delay in its time.
    pub(super) fn end_epoch(&self) -> Result<gst::FlowSuccess, gst::FlowError> {
        if self.is_delayed() {
            let now_nanos = self.now_nanos();
            if let Some(state) = self.state().as_mut() {
                state.settle(now_nanos);
                state.begin_epoch();
            }
            return Ok(gst::FlowSuccess::Ok);
        }
        let _turn = self.turn.take().ok_or(gst::FlowError::Flushing)?;
        let flow = self.drain();
        // After a failed push nothing that still waits can go anywhere.
        if flow.is_err() {
            self.discard_waiting();
        } else if let Some(state) = self.state().as_mut() {
            state.begin_epoch();
        }
        flow
    }

    /// Drops everything that waits; the stream's end, if that was among it. Other sticky events stay on the source pad.
    pub(super) fn discard_waiting(&self) -> Option<gst::Event> {
        let held = match self.state().as_mut() {
            Some(state) => {
                state.begin_epoch();
                std::mem::take(&mut state.held)
            }
            None => return None,
        };
        let mut end = None;
        for item in held {
            match item {
                Held::Event(event) if event.type_() == gst::EventType::Eos => end = Some(event),
                Held::Event(event) if event.is_sticky() => {
                    let _ = self.srcpad.store_sticky_event(&event);
                }
                _ => (),
            }
        }
        self.room.notify_all();
        end
    }

    /// Has whoever waits give up, or lets waiting be possible again.
    pub(super) fn interrupt(&self, interrupted: bool) {
        self.turn.set_flushing(interrupted);
        if let Some(state) = self.state().as_mut() {
            state.interrupted = interrupted;
            if let Some(port) = state.stream.as_ref().and_then(|stream| stream.port.as_ref()) {
                if interrupted {
                    port.interrupt()
                } else {
                    port.resume()
                }
            }
        }
        self.room.notify_all();
    }
}

impl State {
    /// Whether frames are held for a time, and leave on a thread of their own.
    pub(super) fn is_delayed(&self) -> bool {
        self.delay_nanos > 0
    }

    /// Forgets the window: later masks rest on later frames alone.
    fn begin_epoch(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.engine.begin_epoch();
            stream.newest_nanos = None;
            if let Some(port) = &stream.port {
                port.reset();
            }
        }
    }

    /// The most frames that are held: as many as the delay asks for, or the latency of the whole pipeline where that is
    /// longer, as a sink that waits for another branch keeps frames here for as long; in exact mode the look-ahead.
    pub(super) fn most_held(&self) -> u32 {
        let stream = self.stream.as_ref();
        if !self.is_delayed() {
            return stream.map_or(0, |stream| stream.held_frames);
        }
        let frame_nanos = stream.and_then(|stream| stream.format.frame_nanos());
        let longest = self.delay_nanos.max(self.pipeline_latency_nanos);
        held_for(longest, frame_nanos)
    }

    /// Whether every frame is to leave with its own mask.
    fn is_exact(&self) -> bool {
        match &self.stream {
            Some(stream) => !stream.live,
            None => self.session.settings.mode == Mode::Exact,
        }
    }

    fn is_full(&self) -> bool {
        let is_frame = |item: &&Held| matches!(item, Held::Frame { .. });
        self.held.iter().filter(is_frame).count() > self.most_held() as usize
    }

    /// When the first item leaves that is held for a time, of the element's clock.
    pub(super) fn due_nanos(&self) -> Option<u64> {
        let first = self.held.front().filter(|_| self.is_delayed())?;
        Some(match first {
            Held::Event(_) => 0,
            Held::Frame {
                leaves: Leaves::At(nanos),
                ..
            } => *nanos,
            Held::Frame { .. } => {
                let stream = self.stream.as_ref();
                stream.and_then(|stream| stream.engine.due_nanos()).unwrap_or(0)
            }
        })
    }

    /// Has a frame wait its turn: the one of that index, or one that the engine was not shown.
    pub(super) fn hold(&mut self, mut buffer: gst::Buffer, index: Option<u64>, time: FrameTime) {
        let leaves = match index {
            Some(index) => Leaves::Masked(index),
            None => {
                self.numbers.frames_bare += 1;
                self.attach_trouble(&mut buffer, time);
                self.leaves_in_time(time)
            }
        };
        self.held.push_back(Held::Frame { buffer, time, leaves });
    }

    /// A frame that leaves as it is leaves when its delay is over.
    fn leaves_in_time(&self, time: FrameTime) -> Leaves {
        Leaves::At(match self.is_delayed() {
            true => end_of_delay_nanos(self.delay_nanos, time),
            false => 0,
        })
    }

    /// Gives all frames that are held what masks there are, so that the engine need not know them any more. They still
    /// leave in their time.
    pub(super) fn settle(&mut self, now_nanos: u64) {
        if let Some(stream) = &mut self.stream {
            stream.engine.finish();
        }
        self.exchange();
        let mut held = std::mem::take(&mut self.held);
        for item in &mut held {
            if let Held::Frame { buffer, time, leaves } = item
                && let Leaves::Masked(index) = *leaves
            {
                let outcome = self.outcome(index);
                // In live mode, where alone there is a delay, faults are reported when they come up.
                let _ = self.dress(buffer, *time, outcome, now_nanos);
                *leaves = self.leaves_in_time(*time);
            }
        }
        self.held = held;
    }

    /// Has all frames that are held leave at once, with what masks there are.
    pub(super) fn hurry(&mut self, now_nanos: u64) {
        self.settle(now_nanos);
        for item in &mut self.held {
            if let Held::Frame { leaves, .. } = item {
                *leaves = Leaves::At(0);
            }
        }
    }

    fn outcome(&mut self, index: u64) -> Outcome {
        match &mut self.stream {
            Some(stream) => stream.engine.take(index),
            None => Outcome::Unknown,
        }
    }

    pub(super) fn next(&mut self, failure: &mut Option<(SegmentError, u64)>, now_nanos: u64) -> Next {
        let index = match self.held.front() {
            None => return Next::Rest,
            Some(Held::Frame {
                leaves: Leaves::At(nanos),
                ..
            }) if *nanos > now_nanos => return Next::Rest,
            Some(Held::Frame {
                leaves: Leaves::Masked(index),
                ..
            }) => Some(*index),
            _ => None,
        };
        if let Some(stream) = &mut self.stream {
            stream.engine.pass_time(now_nanos);
        }
        let outcome = index.map(|index| self.outcome(index));
        match outcome {
            Some(Outcome::NeedsFrames) => return Next::Rest,
            Some(Outcome::Running) => return Next::Wait,
            _ => (),
        }
        match self.held.pop_front() {
            None => Next::Rest,
            Some(Held::Event(event)) => Next::Forward(event),
            Some(Held::Frame { mut buffer, time, .. }) => {
                let bare_before = self.numbers.frames_bare;
                let was_shown = outcome.is_some();
                if let Some(outcome) = outcome {
                    *failure = self.dress(&mut buffer, time, outcome, now_nanos);
                }
                if self.is_exact() && (!was_shown || self.numbers.frames_bare > bare_before) {
                    self.numbers.missing.add(self.numbers.frames_out);
                }
                self.numbers.frames_out += 1;
                Next::Push(buffer)
            }
        }
    }

    /// Attaches to a frame what the engine has for it. Where a mask could not be computed, why and how often that was so,
    /// for the warning of exact mode.
    fn dress(
        &mut self,
        buffer: &mut gst::Buffer,
        time: FrameTime,
        outcome: Outcome,
        now_nanos: u64,
    ) -> Option<(SegmentError, u64)> {
        let reason = match outcome {
            Outcome::None => self.slowness(now_nanos).or_else(|| self.restlessness()),
            _ => None,
        };
        match (outcome, &mut self.stream) {
            (Outcome::Mask(mask), Some(stream)) => {
                let age_nanos = stream.attach_mask(buffer.make_mut(), &mask, time);
                self.numbers.age_nanos.add(age_nanos);
                self.epoch_has_masks = true;
                return None;
            }
            (Outcome::Failed(error), Some(stream)) => {
                stream.attach_nothing(buffer.make_mut(), time, format!("no mask: {error}"));
                self.numbers.frames_bare += 1;
                self.numbers.frames_failed += 1;
                // In live mode faults are reported when they come up, and not for every frame.
                return (!stream.live).then_some((error, self.numbers.frames_failed));
            }
            (_, Some(stream)) => {
                if let Some(reason) = reason {
                    stream.attach_nothing(buffer.make_mut(), time, reason);
                }
            }
            (_, None) => (),
        }
        self.numbers.frames_bare += 1;
        None
    }
}
