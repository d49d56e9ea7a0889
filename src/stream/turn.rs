//! Whose turn it is to send frames and events on: the streaming thread's, or that of the thread which lets go of held
//! frames when their time is over. What one of them has begun to send stays in its order.

use super::sync::{Condvar, Mutex, MutexGuard, ThreadId, current, wait_while};
use std::sync::PoisonError;
use std::time::Duration;

/// A lock that a flush ends the wait for, and that its owner may take again: an event handler of downstream may seek,
/// and the flush comes back through the element on the same thread.
#[derive(Default)]
pub(crate) struct Turn {
    holder: Mutex<Holder>,
    freed: Condvar,
}

#[derive(Default)]
struct Holder {
    /// Who has it, and how often.
    owner: Option<(ThreadId, u32)>,
    /// Waiting is in vain.
    flushing: bool,
}

impl Holder {
    fn is_anothers(&self) -> bool {
        self.owner.is_some_and(|(owner, _)| owner != current().id())
    }
}

/// The turn, until dropped.
pub(crate) struct Taken<'a>(&'a Turn);

impl Turn {
    /// Waits for the turn; `None` once a flush has begun while another thread has it.
    pub fn take(&self) -> Option<Taken<'_>> {
        let holder = self.wait_while(|holder| holder.is_anothers() && !holder.flushing);
        (!holder.is_anothers()).then(|| self.have(holder))
    }

    /// The turn, if no other thread has it.
    pub fn try_take(&self) -> Option<Taken<'_>> {
        let holder = self.holder();
        (!holder.is_anothers()).then(|| self.have(holder))
    }

    /// Waits for the turn even during a flush, which makes whoever has it give it up.
    pub fn take_to_flush(&self) -> Taken<'_> {
        let holder = self.wait_while(|holder| holder.is_anothers());
        self.have(holder)
    }

    /// Ends waiting, or makes it possible again.
    pub fn set_flushing(&self, flushing: bool) {
        self.holder().flushing = flushing;
        self.freed.notify_all();
    }

    fn wait_while(&self, waits: impl Fn(&Holder) -> bool) -> MutexGuard<'_, Holder> {
        wait_while(&self.freed, self.holder(), Duration::MAX, |holder| waits(holder))
    }

    fn have(&self, mut holder: MutexGuard<'_, Holder>) -> Taken<'_> {
        let depth = holder.owner.map_or(0, |(_, depth)| depth);
        holder.owner = Some((current().id(), depth + 1));
        Taken(self)
    }

    fn holder(&self) -> MutexGuard<'_, Holder> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut holder = self.0.holder();
        holder.owner = holder
            .owner
            .and_then(|(owner, depth)| (depth > 1).then(|| (owner, depth - 1)));
        let is_free = holder.owner.is_none();
        drop(holder);
        if is_free {
            self.0.freed.notify_all();
        }
    }
}

#[cfg(all(test, not(masam_loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread::{scope, sleep};
    use std::time::Duration;

    const A_WHILE: Duration = Duration::from_millis(50);

    #[test]
    fn one_thread_has_it_and_may_take_it_again() {
        let (turn, let_go) = (Turn::default(), AtomicBool::new(false));
        let outer = turn.take().unwrap();
        scope(|threads| {
            threads.spawn(|| {
                let _taken = turn.take().unwrap();
                assert!(let_go.load(Ordering::SeqCst), "it was still another's");
            });
            drop(turn.take().unwrap());
            sleep(A_WHILE);
            let_go.store(true, Ordering::SeqCst);
            drop(outer);
        });
    }

    #[test]
    fn a_flush_ends_the_wait_and_waits_for_its_own_turn() {
        let (turn, let_go) = (Turn::default(), AtomicBool::new(false));
        let taken = turn.take().unwrap();
        scope(|threads| {
            let waiting = threads.spawn(|| turn.take().is_none());
            sleep(A_WHILE);
            turn.set_flushing(true);
            assert!(waiting.join().unwrap());
            threads.spawn(|| {
                let _taken = turn.take_to_flush();
                assert!(let_go.load(Ordering::SeqCst), "it was still another's");
            });
            sleep(A_WHILE);
            let_go.store(true, Ordering::SeqCst);
            drop(taken);
        });
        // It is free: a flush bars nobody from it.
        drop(turn.take().unwrap());
        turn.set_flushing(false);
    }
}
