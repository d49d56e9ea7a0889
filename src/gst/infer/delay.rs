//! The thread that lets go of frames held for `video-delay` when their time is over, whether or not later ones come.
//!
//! ```text
//! chain: take in, release what is due, then set(due of the oldest) ---> task of the source pad: sleep until then, release
//! ```
//! While it waits in a sink for a frame's time, the streaming thread goes on taking frames in, as many as are to be held.

use super::imp::{CAT, Infer};
use super::state::{State, Stream};
use gst::prelude::*;
use gst::subclass::prelude::*;
use gstreamer as gst;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// When the thread is to look.
#[derive(Default)]
pub(super) struct Delay {
    plan: Mutex<Plan>,
    changed: Condvar,
}

#[derive(Default)]
struct Plan {
    /// The source pad is active, so its task may be started.
    may_run: bool,
    /// The task of the source pad has been started.
    runs: bool,
    /// Of the element's clock.
    due_nanos: Option<u64>,
}

impl Delay {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Infer {
    /// Has the frames that are still held leave in time. Both threads plan: what one has seen must not take the place of
    /// what the other has seen since, so the plan stays locked meanwhile.
    pub(super) fn plan_release(&self) {
        let mut plan = self.delay.plan();
        let due_nanos = self.state().as_ref().and_then(State::due_nanos);
        if due_nanos.is_some() && plan.may_run && !plan.runs {
            plan.runs = true;
            let element = self.obj().downgrade();
            let task = move || match element.upgrade() {
                Some(element) => element.imp().release_when_due(),
                // Its pads are gone as well.
                None => std::thread::yield_now(),
            };
            if let Err(error) = self.srcpad.start_task(task) {
                gst::error!(CAT, imp = self, "held frames wait for later ones: {error}");
            }
        }
        let before = std::mem::replace(&mut plan.due_nanos, due_nanos);
        drop(plan);
        // A thread that wakes too early looks again.
        if due_nanos.is_some_and(|due| before.is_none_or(|before| due < before)) {
            self.delay.changed.notify_all();
        }
    }

    /// Sleeps until frames are due, and lets them go. The source pad's task calls it again and again.
    fn release_when_due(&self) {
        {
            let mut plan = self.delay.plan();
            loop {
                if !plan.runs {
                    // Who stops the task waits for this call to return.
                    let _ = self.srcpad.pause_task();
                    return;
                }
                let wait_nanos = match plan.due_nanos {
                    Some(due) => due.saturating_sub(self.now_nanos()),
                    None => u64::MAX,
                };
                if wait_nanos == 0 {
                    break;
                }
                let waited = self
                    .delay
                    .changed
                    .wait_timeout(plan, Duration::from_nanos(wait_nanos).min(LONGEST_SLEEP));
                plan = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            plan.due_nanos = None;
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

    /// The source pad becomes active: the thread may run from now on.
    pub(super) fn allow_releasing(&self) {
        *self.delay.plan() = Plan {
            may_run: true,
            ..Plan::default()
        };
    }

    /// Stops the thread, if there is one. Whatever it is pushing has to come back first.
    pub(super) fn stop_releasing(&self) {
        let did_run = std::mem::take(&mut *self.delay.plan()).runs;
        self.delay.changed.notify_all();
        if did_run && let Err(error) = self.srcpad.stop_task() {
            gst::error!(
                CAT,
                imp = self,
                "could not stop the thread of held frames: {error}"
            );
        }
    }
}

/// However far away the next frame's time is.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

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
