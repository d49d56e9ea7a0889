//! The thread that lets go of frames held for `video-delay` when their time is over, whether or not later ones come.
//!
//! ```text
//! chain: take in, release what is due, set the alarm for the rest ---> task of the source pad: sleep, release, set it
//! ```
//! While it waits in a sink for a frame's time, the streaming thread goes on taking frames in, as many as are to be held.

use super::imp::{CAT, Infer};
use super::state::{State, Stream};
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
            if error != gst::FlowError::Flushing
                && let Some(state) = self.state().as_mut()
                && state.flushes == flushes
            {
                state.flow_of_held = Some(error);
            }
        }
        self.plan_release();
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

impl State {
    /// When the oldest frame that is held leaves at the latest.
    fn due_nanos(&self) -> Option<u64> {
        let stream = self.stream.as_ref().filter(|_| !self.held.is_empty())?;
        stream.engine.due_nanos()
    }

    /// Whether the streaming thread has to wait until frames have left: all of them but where others leave on the
    /// thread of held frames, or more than are to be held.
    pub(super) fn has_to_wait(&self) -> bool {
        let is_overfull = |stream: &Stream| stream.engine.is_overfull();
        self.due_nanos().is_none() || self.stream.as_ref().is_some_and(is_overfull)
    }
}
