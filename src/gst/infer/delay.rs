//! The thread that lets go of frames held for `video-delay` when their time is over, whether or not later ones come.
//!
//! ```text
//! streaming thread: hold, set the alarm ---> task of the source pad: sleep, let go, set the alarm
//! ```
//! It alone sends what is held, as a queue's does: a sink that waits for a frame's time holds up no camera.

use super::imp::{CAT, Infer};
use super::state::State;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gstreamer as gst;

impl Infer {
    /// Has the frames that are still held leave in time.
    pub(super) fn plan_release(&self) {
        let due_nanos = || self.state().as_ref().and_then(State::due_nanos);
        self.delay.set(due_nanos, || {
            let element = self.obj().downgrade();
            let task = move || match element.upgrade() {
                Some(element) => element.imp().release_when_due(),
                // Its pads are gone as well.
                None => std::thread::yield_now(),
            };
            if let Err(error) = self.srcpad.start_task(task) {
                gst::error!(CAT, imp = self, "held frames wait for later ones: {error}");
            }
        });
    }

    /// Sleeps until frames are due, and lets them go. The source pad's task calls it again and again.
    fn release_when_due(&self) {
        if !self.delay.sleep(|| self.now_nanos()) {
            // Who stops the task waits for this call to return.
            let _ = self.srcpad.pause_task();
            return;
        }
        // A flush takes what is held away.
        let Some(_turn) = self.turn.take() else { return };
        let flushes = self.flushes();
        if let Some(state) = self.state().as_mut() {
            state.exchange();
        }
        if let Err(error) = self.release() {
            gst::debug!(CAT, imp = self, "pushing held frames: {error}");
            self.fails(error, flushes);
        }
        self.plan_release();
    }

    /// Pushing a held frame has failed: nothing that is held can go anywhere. The streaming thread hears of it with its
    /// next frame; where there is none, the bus does.
    fn fails(&self, error: gst::FlowError, flushes: u64) {
        // A flush that has come through here has seen to everything.
        let is_flush = |state: &State| {
            state.flushes != flushes || (error == gst::FlowError::Flushing && state.interrupted)
        };
        if self.state().as_ref().is_none_or(is_flush) {
            return;
        }
        let end = self.discard_waiting();
        if let Some(state) = self.state().as_mut() {
            state.flow_of_held = Some(error);
        }
        if let Some(end) = end {
            self.tell_flow_of_held();
            let _ = self.srcpad.push_event(end);
        }
        self.room.notify_all();
    }

    /// Stops the thread, if there is one. Whatever it is pushing has to come back first.
    pub(super) fn stop_releasing(&self) {
        if self.delay.turn_off()
            && let Err(error) = self.srcpad.stop_task()
        {
            gst::error!(
                CAT,
                imp = self,
                "could not stop the thread of held frames: {error}"
            );
        }
    }
}
