//! Signs of life of a long computation: how somebody who waits tells a slow one from one that hangs.
//!
//! ```text
//! watcher: Pulse::new() --clone--> thread: pulse.on_thread(|| { …; beat(); … })      watcher: has pulse.beats() grown?
//! ```
//! Whoever computes calls [`beat`] now and then and needs not know who watches. The forward passes of this crate do so
//! for every task of a layer, and loading a model for every block. The same place tells how much of the processor the
//! threads that compute had, so that a model that others keep from it is told from one that is slow.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts the beats of the threads it is given to.
#[derive(Debug, Clone, Default)]
pub struct Pulse(Arc<Counted>);

#[derive(Debug, Default)]
struct Counted {
    beats: AtomicU64,
    /// Threads that compute, by the system's number.
    threads: Mutex<Vec<i32>>,
}

/// What threads had of the processor, and what they wanted of it besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProcessorTime {
    /// Time in which they ran, in ns.
    pub ran_nanos: u64,
    /// Time in which they were ready to run and others ran, in ns.
    pub waited_nanos: u64,
}

impl ProcessorTime {
    /// What has come since `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            ran_nanos: self.ran_nanos.saturating_sub(before.ran_nanos),
            waited_nanos: self.waited_nanos.saturating_sub(before.waited_nanos),
        }
    }

    /// The part of the time they wanted that they had, 0 to 1; `None` where they wanted none.
    pub fn share(self) -> Option<f64> {
        let wanted = self.ran_nanos.saturating_add(self.waited_nanos);
        (wanted > 0).then(|| self.ran_nanos as f64 / wanted as f64)
    }
}

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
        self.0.beats.load(Ordering::Relaxed)
    }

    /// Says that whatever is counted here goes on.
    pub fn beat(&self) {
        self.0.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// Has the processor time of this thread count here as long as the thread lives.
    pub fn count_thread(&self) {
        #[cfg(target_os = "linux")]
        {
            // SAFETY: the call takes nothing and always succeeds.
            let own = unsafe { libc::gettid() };
            let mut threads = self.threads();
            if !threads.contains(&own) {
                threads.push(own);
            }
        }
    }

    /// Processor time of the threads that count here, since they were started. Nothing where the system does not tell;
    /// less than before where one has ended.
    pub fn processor_time(&self) -> ProcessorTime {
        let mut sum = ProcessorTime::default();
        self.threads().retain(|thread| {
            let Ok(text) = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")) else {
                return false;
            };
            let mut numbers = text
                .split_ascii_whitespace()
                .map_while(|number| number.parse::<u64>().ok());
            sum.ran_nanos += numbers.next().unwrap_or(0);
            sum.waited_nanos += numbers.next().unwrap_or(0);
            true
        });
        sum
    }

    fn threads(&self) -> MutexGuard<'_, Vec<i32>> {
        self.0.threads.lock().unwrap_or_else(PoisonError::into_inner)
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
        if let Some(pulse) = pulse {
            pulse.beat();
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

    #[test]
    fn shares_are_of_what_was_wanted() {
        let time = |ran_nanos, waited_nanos| ProcessorTime {
            ran_nanos,
            waited_nanos,
        };
        assert_eq!(time(0, 0).share(), None);
        assert_eq!(time(30, 10).share(), Some(0.75));
        assert_eq!(time(30, 70).since(time(20, 0)).share(), Some(0.125));
        assert_eq!(time(1, 1).since(time(2, 2)), time(0, 0), "a thread has ended");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn threads_that_share_a_processor_have_half_of_it_each() {
        use std::time::{Duration, Instant};
        let until = Instant::now() + Duration::from_millis(500);
        // Two for each processor.
        let threads = 2 * std::thread::available_parallelism().unwrap().get();
        let pulse = Pulse::new();
        let run = || {
            pulse.count_thread();
            pulse.count_thread(); // counts once
            while Instant::now() < until {
                std::hint::spin_loop();
            }
            pulse.processor_time()
        };
        let last = std::thread::scope(|scope| {
            let all: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
            all.into_iter()
                .map(|thread| thread.join().unwrap())
                .next()
                .unwrap()
        });
        let share = last.share().unwrap();
        // Other tests may want the processors as well.
        assert!((0.02..0.8).contains(&share), "{share}");
        let slept = Pulse::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                slept.count_thread();
                std::thread::sleep(Duration::from_millis(100));
                let time = slept.processor_time();
                assert!(time.ran_nanos < 50_000_000, "{time:?}");
            });
        });
        assert_eq!(pulse.processor_time(), ProcessorTime::default(), "all have ended");
    }
}
