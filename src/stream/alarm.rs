//! When a thread has to wake: what it is for may be due sooner or no longer at all while it sleeps.
//!
//! ```text
//! any thread: set(due) ---> its own thread: sleep until then, see to what is due, set(due) itself, sleep
//! ```

use super::sync::{Condvar, Mutex, MutexGuard, wait_while};
use std::sync::PoisonError;
use std::time::Duration;

/// Off until it is allowed.
#[derive(Default)]
pub(crate) struct Alarm {
    plan: Mutex<Plan>,
    changed: Condvar,
}

#[derive(Default)]
struct Plan {
    /// Its thread may be started.
    is_allowed: bool,
    /// Its thread has been started.
    is_on: bool,
    /// Of the clock that [`Alarm::sleep`] is given.
    due_nanos: Option<u64>,
}

impl Alarm {
    /// Sets it to what `due_nanos` says, and calls `start` where its thread is needed for the first time.
    ///
    /// Several threads set it: what one has seen must not take the place of what another has seen since, so the alarm
    /// stays locked while `due_nanos` looks.
    pub fn set(&self, due_nanos: impl FnOnce() -> Option<u64>, start: impl FnOnce()) {
        let mut plan = self.plan();
        let due_nanos = due_nanos();
        if due_nanos.is_some() && plan.is_allowed && !plan.is_on {
            plan.is_on = true;
            start();
        }
        let before = std::mem::replace(&mut plan.due_nanos, due_nanos);
        drop(plan);
        // A thread that wakes too early looks again.
        if due_nanos.is_some_and(|due| before.is_none_or(|before| due < before)) {
            self.changed.notify_all();
        }
    }

    /// Sleeps until it is time, by the clock `now_nanos`; false once it has been turned off.
    pub fn sleep(&self, now_nanos: impl Fn() -> u64) -> bool {
        let mut plan = self.plan();
        while plan.is_on {
            let due_nanos = plan.due_nanos;
            let wait = due_nanos.map_or(Duration::MAX, |due| {
                Duration::from_nanos(due.saturating_sub(now_nanos()))
            });
            if wait.is_zero() {
                plan.due_nanos = None;
                return true;
            }
            plan = wait_while(&self.changed, plan, wait, |plan| {
                plan.is_on && plan.due_nanos == due_nanos
            });
        }
        false
    }

    /// Its thread may run from now on.
    pub fn allow(&self) {
        *self.plan() = Plan {
            is_allowed: true,
            ..Plan::default()
        };
    }

    /// Turns it off until it is allowed again. Whether its thread had been started: it is to be waited for.
    pub fn turn_off(&self) -> bool {
        let was_on = std::mem::take(&mut *self.plan()).is_on;
        self.changed.notify_all();
        was_on
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, not(masam_loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::thread::{scope, sleep, yield_now};

    const A_WHILE: Duration = Duration::from_millis(50);

    fn never() {
        panic!("it has been started before");
    }

    #[test]
    fn its_thread_is_started_once_it_is_needed() {
        let alarm = Alarm::default();
        alarm.set(|| Some(5), never);
        alarm.allow();
        alarm.set(|| None, never);
        let started = AtomicBool::new(false);
        alarm.set(|| Some(5), || started.store(true, Ordering::SeqCst));
        assert!(started.into_inner());
        alarm.set(|| Some(6), never);
        assert!(alarm.sleep(|| 6));
        assert!(alarm.turn_off());
        assert!(!alarm.turn_off());
        assert!(!alarm.sleep(|| 6));
    }

    #[test]
    fn a_sleeper_hears_what_is_due_sooner_and_that_it_is_turned_off() {
        let (alarm, now) = (Alarm::default(), AtomicU64::new(0));
        let woken = AtomicU64::new(0);
        let an_hour = 3_600_000_000_000;
        let sleeps = || {
            while alarm.sleep(|| now.load(Ordering::SeqCst)) {
                woken.fetch_add(1, Ordering::SeqCst);
            }
        };
        let waits_for = |count| {
            while woken.load(Ordering::SeqCst) < count {
                yield_now();
            }
        };
        alarm.allow();
        alarm.set(|| Some(an_hour), || ());
        scope(|threads| {
            let sleeper = threads.spawn(sleeps);
            sleep(A_WHILE);
            assert_eq!(woken.load(Ordering::SeqCst), 0);
            now.store(7, Ordering::SeqCst);
            alarm.set(|| Some(7), never);
            waits_for(1);
            // Later than before, and then not at all.
            alarm.set(|| Some(an_hour), never);
            alarm.set(|| None, never);
            sleep(A_WHILE);
            alarm.set(|| Some(6), never);
            waits_for(2);
            alarm.turn_off();
            sleeper.join().unwrap();
        });
        assert_eq!(woken.into_inner(), 2);
    }
}

#[cfg(all(test, masam_loom))]
#[path = "../../tests/loom_support/mod.rs"]
mod loom_support;

/// In every order of the threads: `scripts/sanitize.sh loom`.
#[cfg(all(test, masam_loom))]
mod interleavings {
    use super::loom_support::in_every_order;
    use super::*;
    use crate::stream::turn::Turn;
    use loom::thread;
    use std::sync::Arc;

    const PREEMPTIONS: usize = 3;

    /// A stream of held frames, all due at once: what masaminfer's two threads do.
    #[derive(Default)]
    struct Delayed {
        alarm: Alarm,
        turn: Turn,
        held: Mutex<Vec<u8>>,
        left: Mutex<Vec<u8>>,
        leaves: Condvar,
    }

    impl Delayed {
        /// One frame is held, and its thread has been started.
        fn begun() -> (Arc<Self>, thread::JoinHandle<()>) {
            let stream = Arc::new(Self::default());
            stream.alarm.allow();
            stream.held.lock().unwrap().push(0);
            stream.plans();
            let runs = Arc::clone(&stream);
            let releasing = thread::spawn(move || runs.runs());
            (stream, releasing)
        }

        fn plans(&self) {
            self.alarm
                .set(|| (!self.held.lock().unwrap().is_empty()).then_some(1), || ());
        }

        /// Frames leave one by one; the lock is not held while they are sent.
        fn releases(&self) {
            loop {
                let mut held = self.held.lock().unwrap();
                if held.is_empty() {
                    break;
                }
                let frame = held.remove(0);
                drop(held);
                self.left.lock().unwrap().push(frame);
            }
            self.leaves.notify_all();
        }

        /// The thread of held frames; what it does not let go before it is turned off stays.
        fn runs(&self) {
            while self.alarm.sleep(|| 1) {
                if let Some(_turn) = self.turn.take() {
                    self.releases();
                    self.plans();
                }
            }
        }

        fn waits_for(&self, frames: usize) {
            let left = wait_while(&self.leaves, self.left.lock().unwrap(), Duration::MAX, |left| {
                left.len() < frames
            });
            assert!(left.is_sorted(), "{left:?}");
        }
    }

    /// Every frame leaves, in order, though the streaming thread only takes frames in.
    #[test]
    fn no_frame_stays_until_a_later_one_comes() {
        in_every_order(PREEMPTIONS, || {
            let (stream, releasing) = Delayed::begun();
            for frame in 1..3 {
                stream.held.lock().unwrap().push(frame);
                if let Some(_turn) = stream.turn.try_take() {
                    stream.releases();
                }
                stream.plans();
            }
            stream.waits_for(3);
            assert!(stream.alarm.turn_off());
            releasing.join().unwrap();
        });
    }

    /// A flush wakes the thread of held frames whatever it waits for, and takes its turn away.
    #[test]
    fn a_flush_ends_the_thread_wherever_it_is() {
        in_every_order(PREEMPTIONS, || {
            let (stream, releasing) = Delayed::begun();
            let flushes = Arc::clone(&stream);
            let flushing = thread::spawn(move || {
                flushes.turn.set_flushing(true);
                let _turn = flushes.turn.take_to_flush();
                flushes.held.lock().unwrap().clear();
            });
            flushing.join().unwrap();
            stream.turn.set_flushing(false);
            stream.alarm.turn_off();
            releasing.join().unwrap();
            assert!(stream.held.lock().unwrap().is_empty());
        });
    }
}
