//! Events: what ends an epoch, what waits its turn, what goes ahead.

use super::held::Held;
use super::imp::{CAT, Infer};
use super::picture::Format;
use crate::stream::time::Timekeeper;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gstreamer as gst;

impl Infer {
    pub(super) fn sink_event(&self, event: gst::Event) -> Result<gst::FlowSuccess, gst::FlowError> {
        use gst::EventView;
        let is_caps = event.type_() == gst::EventType::Caps;
        let was_taken = match event.view() {
            EventView::FlushStart(_) => {
                // Not serialised: the chain function may be waiting right now.
                self.interrupt(true);
                self.forward(event)
            }
            EventView::FlushStop(_) => {
                // Whoever still pushes does so in vain, and what it pushes must not come behind this.
                let _turn = self.turn.take_to_flush();
                self.discard_waiting();
                if let Some(state) = self.state().as_mut() {
                    state.segment = gst::FormattedSegment::new();
                    (state.earliest_nanos, state.came) = (None, None);
                    state.flow_of_held = None;
                    (state.barren_epochs, state.epoch_has_masks) = (0, false);
                    state.refused = None;
                    state
                        .timekeeper
                        .iter_mut()
                        .for_each(|keeper| *keeper = Timekeeper::default());
                    state.flushes += 1;
                    // Nobody holds frames of before a pause any more, and running time begins anew.
                    state.pause.take_if(|pause| !pause.lasts);
                    if let Some(pause) = &mut state.pause {
                        pause.running_nanos = None;
                    }
                }
                self.interrupt(false);
                self.forward(event)
            }
            // It waits behind the frames that are held.
            _ if event.is_serialized() && self.is_delayed() => self.serialized_event(event),
            _ if event.is_serialized() => {
                let _turn = self.turn.take().ok_or(gst::FlowError::Flushing)?;
                self.serialized_event(event)
            }
            _ => self.forward(event),
        };
        match (was_taken, is_caps) {
            (true, _) => Ok(gst::FlowSuccess::Ok),
            (false, true) => Err(gst::FlowError::NotNegotiated),
            (false, false) => Err(gst::FlowError::Error),
        }
    }

    /// An event that comes between frames; whether it was taken.
    fn serialized_event(&self, event: gst::Event) -> bool {
        use gst::EventView;
        let flushes = self.flushes();
        let ends_epoch = match event.view() {
            EventView::Caps(caps) => !self.has_caps(caps.caps()),
            EventView::Segment(_) | EventView::StreamStart(_) | EventView::Eos(_) => true,
            _ => false,
        };
        if ends_epoch {
            if let Err(error) = self.end_epoch()
                && error != gst::FlowError::Flushing
                && let Some(state) = self.state().as_mut()
            {
                state.flow_of_held = Some(error);
            }
        } else if let EventView::Gap(_) = event.view() {
            let _ = self.drain_for_gap();
        }
        // Somebody downstream has seeked on this thread, while frames left: this is of before as well.
        if self.flushes() != flushes {
            return true;
        }
        match event.view() {
            EventView::Caps(caps) if self.has_caps(caps.caps()) => self.queue_event(event),
            EventView::Caps(caps) => {
                if let Err(message) = self.set_caps(caps.caps()) {
                    self.post_error_message(message);
                    return false;
                }
                self.send(event)
            }
            EventView::Segment(segment) => match segment.segment().downcast_ref::<gst::ClockTime>() {
                Some(time) => {
                    if let Some(state) = self.state().as_mut() {
                        state.segment = time.clone();
                        (state.earliest_nanos, state.came) = (None, None);
                    }
                    self.send(event)
                }
                None => {
                    let format = segment.segment().format();
                    gst::element_imp_error!(
                        self,
                        gst::StreamError::Format,
                        ("the segment is in {format:?}, but it has to be in time")
                    );
                    false
                }
            },
            EventView::Gap(_) => self.send(event),
            EventView::StreamStart(_) | EventView::Eos(_) if self.is_delayed() => {
                // Nothing follows that would have to keep its distance.
                let now_nanos = self.now_nanos();
                if let Some(state) = self.state().as_mut() {
                    state.hurry(now_nanos);
                }
                self.send(event)
            }
            EventView::StreamStart(_) | EventView::Eos(_) => {
                self.tell_flow_of_held();
                self.warn_of_missing_masks();
                self.forward(event)
            }
            _ => self.queue_event(event),
        }
    }

    /// Upstream sends no more frames that would hear what came of the last ones.
    pub(super) fn tell_flow_of_held(&self) {
        let flow = self.state().as_mut().and_then(|state| {
            let flow = state.flow_of_held.take();
            flow.filter(|error| Some(*error) != state.refused)
        });
        if let Some(error) = flow
            && ![gst::FlowError::Eos, gst::FlowError::Flushing].contains(&error)
        {
            gst::element_imp_error!(
                self,
                gst::StreamError::Failed,
                ("downstream did not take the last frames: {error}")
            );
        }
    }

    pub(super) fn src_event(&self, event: gst::Event) -> bool {
        match (event.view(), self.state().as_mut()) {
            (gst::EventView::Qos(qos), Some(state)) => {
                let (_, _, jitter, timestamp) = qos.get();
                if let Some(timestamp) = timestamp {
                    // As the base class of filters has it: frames behind this one are as late, and ours takes time too.
                    let late = u64::try_from(jitter).map_or(0, |nanos| nanos.saturating_mul(2));
                    state.earliest_nanos = (late > 0).then(|| timestamp.nseconds().saturating_add(late));
                }
            }
            (gst::EventView::Latency(latency), Some(state)) => {
                state.pipeline_latency_nanos = latency.latency().nseconds();
            }
            _ => (),
        }
        gst::Pad::event_default(&self.srcpad, Some(&*self.obj()), event)
    }

    /// Whether the stream goes on with the caps it has.
    fn has_caps(&self, caps: &gst::CapsRef) -> bool {
        let state = self.state();
        state
            .as_ref()
            .is_some_and(|state| state.caps.as_deref() == Some(caps))
    }

    fn forward(&self, event: gst::Event) -> bool {
        gst::Pad::event_default(&self.sinkpad, Some(&*self.obj()), event)
    }

    /// Keeps an event between the frames it came between.
    fn queue_event(&self, event: gst::Event) -> bool {
        if self.is_delayed() {
            return self.send(event);
        }
        {
            let mut state = self.state();
            if let Some(state) = state.as_mut()
                && !state.held.is_empty()
            {
                state.held.push_back(Held::Event(event));
                return true;
            }
        }
        self.forward(event)
    }

    /// Sends an event on, behind everything that is held for a time. One that a sink waits for, as for a frame, leaves on
    /// the thread of held frames.
    fn send(&self, event: gst::Event) -> bool {
        if !self.is_delayed() {
            // The thread of held frames may still be sending the last of them.
            return self.turn.take().is_none_or(|_turn| self.forward(event));
        }
        if !matches!(event.type_(), gst::EventType::Gap | gst::EventType::Eos)
            && let Some(_turn) = self.turn.try_take()
            && self.state().as_ref().is_none_or(|state| state.held.is_empty())
        {
            return self.forward(event);
        }
        if let Some(state) = self.state().as_mut() {
            state.held.push_back(Held::Event(event));
        }
        self.plan_release();
        true
    }

    /// Begins a stream for new caps. The element goes on without masks where they cannot be made for such frames,
    /// and says so.
    pub(super) fn set_caps(&self, caps: &gst::CapsRef) -> Result<(), gst::ErrorMessage> {
        let format = Format::from_caps(caps)
            .map_err(|error| gst::error_msg!(gst::StreamError::Format, ("{error}")))?;
        let mut latency = gst::query::Latency::new();
        // Who has no answer is a camera that does not know its rate: what can tell its latency without one knows it.
        let live_source = !self.sinkpad.peer_query(&mut latency) || latency.result().0;
        gst::debug!(
            CAT,
            imp = self,
            "{caps:?} from a source that is live: {live_source}"
        );
        // What waits for a time leaves before a stream in which nothing does.
        let hurries = match &*self.state() {
            Some(state) => state.is_delayed() && !state.session.goes_live(live_source),
            None => return Ok(()),
        };
        if hurries && !self.hurry_out() {
            return Ok(());
        }
        let begun = match self.state().as_mut() {
            Some(state) => {
                let begun = state.begin_stream(format, live_source);
                state.caps = begun.is_ok().then(|| caps.to_owned());
                begun
            }
            None => return Ok(()),
        };
        let changed = self.state().as_mut().is_some_and(|state| state.latency_differs());
        if changed {
            gst::debug!(CAT, imp = self, "the latency is another for these caps");
            self.post_message(gst::message::Latency::builder().src(&*self.obj()).build());
        }
        match begun {
            Ok(None) => Ok(()),
            Ok(Some(error)) => {
                self.warn_of_settings(&error);
                Ok(())
            }
            Err(error) => Err(gst::error_msg!(gst::LibraryError::Settings, ("{error}"))),
        }
    }

    /// The frames go on, but what the user has set does not fit them.
    pub(super) fn warn_of_settings(&self, error: &crate::Error) {
        gst::element_imp_warning!(
            self,
            gst::LibraryError::Settings,
            ("no masks for this stream: {error}")
        );
    }
}
