//! Frames on their way in: what they follow, whether they are looked at, where they are held.

use super::imp::{CAT, Infer};
use super::report::is_told;
use super::state::{Came, Eye, State};
use crate::geometry::Rect;
use crate::segmenter::{ModelFrame, SegmentError};
use crate::stream::FrameTime;
use gst::subclass::prelude::*;
use gstreamer as gst;

/// Timestamps that go back by more than this are a new start that nobody announced; less is a source's jitter.
const BACKWARDS_NANOS: u64 = 100_000_000;

/// Epochs in a row that broke off before a mask came, for the viewer to be told.
const BARREN_EPOCHS: u32 = 5;

/// A frame that comes so soon after the one before has been dealt with has waited for that.
const AT_THE_DOOR_NANOS: u64 = 5_000_000;

impl Infer {
    pub(super) fn sink_chain(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        // Before anything that may wait: the delay runs from here.
        let now_nanos = self.now_nanos();
        let (time, flushes) = {
            let mut state = self.state();
            let state = state.as_mut().ok_or(gst::FlowError::Flushing)?;
            if let Some(error) = state.flow_of_held.take() {
                state.refused = Some(error);
                return Err(error);
            }
            (state.arrives(&buffer, now_nanos), state.flushes)
        };
        let flow = self.chain_frame(buffer, now_nanos, time, flushes);
        let over_nanos = self.now_nanos();
        if let Some(state) = self.state().as_mut() {
            state.refused = flow.err();
            if let Some(came) = &mut state.came {
                came.over_nanos = over_nanos;
            }
        }
        flow
    }

    fn chain_frame(
        &self,
        buffer: gst::Buffer,
        now_nanos: u64,
        time: FrameTime,
        flushes: u64,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.tend();
        let follows_pause = self.state().as_mut().is_some_and(|state| {
            let running_nanos = state.running_nanos(&buffer);
            state.follows_pause(running_nanos, now_nanos)
        });
        if self.is_under_way() && ((follows_pause && self.is_live()) || self.breaks_off(&buffer)) {
            gst::debug!(CAT, imp = self, "discontinuity");
            self.end_epoch()?;
        }
        self.follow_changes()?;
        self.take_in(buffer, time, flushes)?;
        let flow = self.let_go();
        self.post_stats();
        flow
    }

    /// Has later clips show `region`, and says so where the prompt does not lie in it.
    pub(super) fn aim(&self, region: Rect) {
        let trouble = self.state().as_mut().and_then(|state| state.aim(region));
        if let Some(error) = trouble {
            self.warn_of_settings(&error);
        }
    }

    /// Whether frames have been taken in since the epoch began.
    pub(super) fn is_under_way(&self) -> bool {
        let state = self.state();
        state
            .as_ref()
            .and_then(|s| s.stream.as_ref())
            .is_some_and(|stream| stream.engine.received() > 0)
    }

    fn is_live(&self) -> bool {
        let state = self.state();
        state
            .as_ref()
            .and_then(|s| s.stream.as_ref())
            .is_some_and(|stream| stream.live)
    }

    /// Whether this frame does not follow the one before it: it says so, or its time lies far before. The epoch that
    /// ends with that is counted where it has brought nothing.
    fn breaks_off(&self, buffer: &gst::BufferRef) -> bool {
        let mut state = self.state();
        let Some(state) = state.as_mut() else { return false };
        let running_nanos = state.running_nanos(buffer);
        let newest_nanos = state.stream.as_ref().and_then(|stream| stream.newest_nanos);
        let jumps_back = newest_nanos
            .zip(running_nanos)
            .is_some_and(|(newest, now)| now.saturating_add(BACKWARDS_NANOS) < newest);
        let says_so = buffer.flags().contains(gst::BufferFlags::DISCONT);
        let comes_from_elsewhere = says_so && !state.is_loss(running_nanos);
        if comes_from_elsewhere {
            state.barren_epochs = match std::mem::take(&mut state.epoch_has_masks) {
                true => 0,
                false => state.barren_epochs.saturating_add(1),
            };
        }
        jumps_back || comes_from_elsewhere
    }

    /// Shows a frame to the engine and queues it.
    fn take_in(&self, mut buffer: gst::Buffer, time: FrameTime, flushes: u64) -> Result<(), gst::FlowError> {
        let (is_scarce, eye) = {
            let mut state = self.state();
            let state = state.as_mut().ok_or(gst::FlowError::Flushing)?;
            state.numbers.frames_in += 1;
            let held = state.most_held();
            if let Some(stream) = &mut state.stream {
                // The latest of the epoch: many small steps back are a large one.
                stream.newest_nanos = time.running_nanos.max(stream.newest_nanos);
            }
            (state.pools.is_scarce(&buffer, held), state.borrow_eye(time))
        };
        // Pixels are read and copied without the lock: properties and queries stay answered.
        if is_scarce && let Ok(copy) = buffer.copy_deep() {
            buffer = copy;
            if let Some(state) = self.state().as_mut() {
                state.numbers.frames_copied += 1;
            }
        }
        let (eye, seen) = match eye {
            Some(mut eye) => {
                let seen = self.look(&mut eye, &buffer, time);
                (Some(eye), Some(seen))
            }
            None => (None, None),
        };
        let (trouble, fault) = {
            let mut state = self.state();
            let state = state.as_mut().ok_or(gst::FlowError::Flushing)?;
            state.give_back(eye);
            // Somebody downstream has seeked on this thread, while frames before this one left: it is of before as well.
            if state.flushes != flushes {
                return Ok(());
            }
            let (index, trouble) = state.show(seen.transpose()?, time);
            state.exchange();
            state.hold(buffer, index, time);
            (trouble, state.new_fault())
        };
        if let Some((error, count)) = trouble
            && is_told(count - 1, count)
        {
            self.warn_of_frame(&error, count);
        }
        if let Some((error, count)) = fault {
            self.warn_of_fault("no new masks", &error, count);
        }
        Ok(())
    }

    /// Reads the pixels of the region of interest; where that has changed, the epoch ends before this frame.
    fn look(
        &self,
        eye: &mut Eye,
        buffer: &gst::Buffer,
        time: FrameTime,
    ) -> Result<crate::Result<ModelFrame>, gst::FlowError> {
        let Some((format, mut region)) = self.state().as_ref().and_then(State::view) else {
            return Err(gst::FlowError::Flushing);
        };
        match eye.find_region(&format, buffer, time) {
            Ok(Some(found)) if found != region => {
                gst::info!(CAT, imp = self, "region of interest: {found:?}");
                if self.is_under_way() {
                    self.end_epoch()?;
                }
                self.aim(found);
                region = found;
            }
            // A buffer that cannot be read is reported by the next look.
            _ => (),
        }
        Ok(eye.look(&format, buffer, region))
    }
}

impl State {
    /// Running time of the frame in `buffer`; none where it has no timestamp, or lies outside the segment.
    fn running_nanos(&self, buffer: &gst::BufferRef) -> Option<u64> {
        let running = self.segment.to_running_time(buffer.pts()?);
        running.map(gst::ClockTime::nseconds)
    }

    /// Whether a frame of that running time that is said not to follow the one before it comes after frames that were
    /// lost, and not from elsewhere: its timestamp leaves room for them, and masks of before are still young enough.
    /// Live mode only, where a clip may span what is missing.
    fn is_loss(&self, running_nanos: Option<u64>) -> bool {
        let Some(stream) = self.stream.as_ref().filter(|stream| stream.live) else {
            return false;
        };
        let Some((newest, now)) = stream.newest_nanos.zip(running_nanos) else {
            return false;
        };
        // Where no rate is known any distance leaves room.
        let at_least = stream.format.frame_nanos().map_or(1, |frame| frame + frame / 2);
        let at_most = self.session.settings.max_mask_age_nanos;
        now.checked_sub(newest)
            .is_some_and(|missing| (at_least..=at_most).contains(&missing))
    }

    /// What the viewer is told where the stream begins anew so often that no mask ever comes.
    pub(super) fn restlessness(&self) -> Option<String> {
        (self.barren_epochs >= BARREN_EPOCHS).then(|| {
            "the source says of frame after frame that it does not follow the one before (DISCONT): no masks".into()
        })
    }

    /// The time of the frame in `buffer`, and when it came, now that it is here. Had the one before not been held up, by
    /// a sink that waits for its time, this one would have come as long after it as their timestamps say. Timestamps of a
    /// live source that do not keep up with the clock are left out.
    fn arrives(&mut self, buffer: &gst::BufferRef, now_nanos: u64) -> FrameTime {
        let here = FrameTime {
            running_nanos: self.running_nanos(buffer),
            arrival_nanos: now_nanos,
        };
        let stood_at_the_door = self
            .came
            .as_ref()
            .is_some_and(|before| now_nanos.saturating_sub(before.over_nanos) < AT_THE_DOOR_NANOS);
        let running_nanos = match &mut self.timekeeper {
            // When it comes says nothing of its source.
            Some(keeper) if stood_at_the_door => keeper.unchecked(here),
            Some(keeper) => keeper.checked(here),
            None => here,
        }
        .running_nanos;
        let unhindered = self.came.as_ref().and_then(|before| {
            let apart = running_nanos?.checked_sub(before.time.running_nanos?)?;
            let expected = before.time.arrival_nanos.saturating_add(apart);
            (apart > 0 && stood_at_the_door && before.over_nanos > expected).then_some(expected)
        });
        let arrival_nanos = unhindered.map_or(now_nanos, |expected| expected.min(now_nanos));
        let time = FrameTime {
            running_nanos,
            arrival_nanos,
        };
        self.came = Some(Came { time, over_nanos: 0 });
        time
    }

    /// The stream's eye, where the engine wants to see the frame of `time`.
    fn borrow_eye(&mut self, time: FrameTime) -> Option<Eye> {
        let hurried = self.is_hurried(time);
        let stream = self.stream.as_mut()?;
        if !stream.engine.wants_pixels(time) {
            return None;
        }
        if hurried {
            self.numbers.frames_hurried += 1;
            return None;
        }
        stream.looked = Some(time);
        stream.eye.take()
    }

    /// Whether downstream has said that a frame of `time` comes too late anyway, so that the time for a look is better
    /// saved. Live mode only, and never for longer than half a mask's life.
    fn is_hurried(&self, time: FrameTime) -> bool {
        let Some(stream) = self.stream.as_ref().filter(|stream| stream.live) else {
            return false;
        };
        let late = time
            .running_nanos
            .zip(self.earliest_nanos)
            .is_some_and(|(running, earliest)| running < earliest);
        let looked_lately = stream
            .looked
            .is_some_and(|looked| time.since_nanos(looked) < self.session.settings.max_mask_age_nanos / 2);
        late && looked_lately
    }

    /// Format and region of the frames.
    fn view(&self) -> Option<(super::picture::Format, Rect)> {
        self.stream
            .as_ref()
            .map(|stream| (stream.format.clone(), stream.square.region))
    }

    fn give_back(&mut self, eye: Option<Eye>) {
        if let (Some(stream), Some(eye)) = (&mut self.stream, eye) {
            stream.eye = Some(eye);
        }
    }

    /// Shows a frame to the engine, with its pixels where they were looked at. Its index there; or none, with the
    /// reason and how often that has happened.
    fn show(
        &mut self,
        seen: Option<crate::Result<ModelFrame>>,
        time: FrameTime,
    ) -> (Option<u64>, Option<(crate::Error, u64)>) {
        let Some(stream) = &mut self.stream else {
            return (None, None);
        };
        match seen.transpose() {
            Ok(frame) => (stream.engine.push(frame, time), None),
            Err(error) => {
                self.numbers.frames_unread += 1;
                (None, Some((error, self.numbers.frames_unread)))
            }
        }
    }

    /// A fault of the live engine that has come up since the last call and is to be told, and how many there have been.
    fn new_fault(&mut self) -> Option<(SegmentError, u64)> {
        let (error, count) = self.stream.as_ref()?.engine.fault()?;
        let stream_faults = &mut self.numbers.faults_of_stream;
        let before = self.numbers.faults;
        self.numbers.faults += count.saturating_sub(*stream_faults);
        *stream_faults = count;
        is_told(before, self.numbers.faults).then(|| (error.clone(), self.numbers.faults))
    }
}
