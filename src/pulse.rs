//! Signs of life of a long computation: how somebody who waits tells a slow one from one that hangs.
//!
//! ```text
//! watcher: Pulse::new() --clone--> thread: pulse.on_thread(|| { …; beat(); … })      watcher: has pulse.beats() grown?
//! ```
//! Whoever computes calls [`beat`] now and then and needs not know who watches. The forward passes of this crate do so
//! for every part of a block, and loading a model for every block.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the beats of the threads it is given to.
#[derive(Debug, Clone, Default)]
pub struct Pulse(Arc<AtomicU64>);

thread_local! {
    static OF_THREAD: RefCell<Option<Pulse>> = const { RefCell::new(None) };
}

impl Pulse {
    /// One without beats.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many beats there have been.
    pub fn beats(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The pulse of this thread, to be given to another that goes on with the computation.
    pub fn of_thread() -> Option<Self> {
        OF_THREAD.with_borrow(Option::clone)
    }

    /// Has the beats of this thread count here until `work` ends.
    pub fn on_thread<R>(self, work: impl FnOnce() -> R) -> R {
        /// Puts the pulse before back however `work` ends.
        struct Before(Option<Pulse>);
        impl Drop for Before {
            fn drop(&mut self) {
                OF_THREAD.set(self.0.take());
            }
        }
        let _before = Before(OF_THREAD.replace(Some(self)));
        work()
    }
}

/// Says that the computation on this thread goes on, where somebody watches it.
pub fn beat() {
    OF_THREAD.with_borrow(|pulse| {
        if let Some(Pulse(beats)) = pulse {
            beats.fetch_add(1, Ordering::Relaxed);
        }
    });
}

/// Does `work` on a thread of `pool`, with the pulse of this one.
pub(crate) fn install<R: Send>(pool: &rayon::ThreadPool, work: impl FnOnce() -> R + Send) -> R {
    let pulse = Pulse::of_thread();
    pool.install(|| match pulse {
        Some(pulse) => pulse.on_thread(work),
        None => work(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;

    #[test]
    fn beats_count_where_the_thread_belongs_and_nowhere_else() {
        beat(); // nobody watches
        let (outer, inner) = (Pulse::new(), Pulse::new());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        outer.clone().on_thread(|| {
            beat();
            let panicked = catch_unwind(|| {
                inner.clone().on_thread(|| {
                    beat();
                    panic!("on purpose");
                })
            });
            assert!(panicked.is_err());
            install(&pool, beat);
            pool.install(beat); // of a thread without one
        });
        beat();
        assert_eq!((outer.beats(), inner.beats()), (2, 1));
        assert!(Pulse::of_thread().is_none());
    }
}
