//! Threads of one model: the tasks of a layer are shared out among them, and the next layer begins when all are done.
//!
//! ```text
//! caller: install(work) --> thread 0: work() ... for_each(tasks) ... for_each(tasks) ...     caller: its result
//!                           thread 1:            takes tasks         takes tasks
//! ```
//! Not rayon's, for the way in which its threads wait: an idle one calls `sched_yield` again and again. Since version 6.6
//! Linux takes a slice off the share of whoever calls it, so that a pool that waits like that beside a busy program is
//! left with next to nothing: of 270 live masks 51 came where without these calls 210 did. Threads here spin for up to
//! [`SPIN`], less after they have done so in vain, and then sleep.

use crate::error::{Error, Result};
use crate::priority::Priority;
use crate::pulse::Pulse;
use rayon::prelude::*;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest time that a thread spins: waking one that sleeps takes longer than a small layer.
const SPIN: Duration = Duration::from_micros(200);
/// The same for a thread that has not been successful for a while.
const SHORTEST_SPIN: Duration = Duration::from_micros(5);

/// What threads run: the index of the thread goes in.
type Work<'a> = dyn Fn(usize) + Sync + 'a;

/// Work that outlives its borrow in the types only; see [`Shared::run`] and [`ThreadPool::install`].
#[derive(Clone, Copy)]
struct Erased(&'static Work<'static>);

impl Erased {
    /// # Safety
    /// The caller does not return before the last thread has left `work`.
    unsafe fn new<'a>(work: &'a Work<'a>) -> Self {
        // SAFETY: only the lifetimes change, and the caller keeps to the real ones.
        Self(unsafe { std::mem::transmute::<&'a Work<'a>, &'static Work<'static>>(work) })
    }
}

type Panic = Box<dyn Any + Send>;

#[derive(Default)]
struct State {
    /// For thread 0.
    call: Option<Erased>,
    /// For all other threads.
    job: Option<Erased>,
    /// Threads that sleep until there is a job.
    sleeping: usize,
    /// What the first of the other threads to panic panicked with.
    panic: Option<Panic>,
    stopping: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// There is a job, or the pool stops.
    begun: Condvar,
    /// The last thread has left the job.
    left: Condvar,
    /// There is a call, or the pool stops.
    called: Condvar,
    /// The call has returned.
    returned: Condvar,
    /// Number of the newest job. Changes with the lock only, like `active`; both are read without it.
    jobs: AtomicU64,
    /// Threads other than 0 in the job.
    active: AtomicUsize,
    threads: usize,
}

thread_local! {
    /// The pool of this thread, and its index in it.
    static CURRENT: RefCell<Option<(Arc<Shared>, usize)>> = const { RefCell::new(None) };
    /// Of thread 0, while it does not share out tasks.
    static SPINNER: Cell<Option<Spinner>> = const { Cell::new(None) };
}

/// Spins for as long as it has been worth it.
struct Spinner(Duration);

impl Spinner {
    /// Spins while `waits` says so; whether it ended with that.
    fn spin(&mut self, waits: impl Fn() -> bool) -> bool {
        let start = Instant::now();
        while waits() {
            if start.elapsed() >= self.0 {
                self.0 = (self.0 / 2).max(SHORTEST_SPIN);
                return false;
            }
            for _ in 0..16 {
                std::hint::spin_loop();
            }
        }
        self.0 = (self.0 * 2).min(SPIN);
        true
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Has every thread of the pool do `work`, except those that come too late. On thread 0 only. What the first of them
    /// to panic panicked with.
    fn run(&self, spinner: &mut Spinner, work: &Work<'_>) -> Option<Panic> {
        // SAFETY: no thread enters the job once it is taken back below, and this waits until the last has left it.
        let job = unsafe { Erased::new(work) };
        let sleeping = {
            let mut state = self.state();
            state.job = Some(job);
            self.jobs.fetch_add(1, Ordering::Release);
            state.sleeping
        };
        if sleeping > 0 {
            self.begun.notify_all();
        }
        let own = catch_unwind(AssertUnwindSafe(|| work(0)));
        self.state().job = None;
        spinner.spin(|| self.active.load(Ordering::Acquire) > 0);
        let waits = |_: &mut State| self.active.load(Ordering::Acquire) > 0;
        let mut state = (self.left.wait_while(self.state(), waits)).unwrap_or_else(PoisonError::into_inner);
        own.err().or(state.panic.take())
    }

    /// What threads other than 0 do until the pool stops.
    fn help(&self, index: usize) {
        let (mut spinner, mut seen) = (Spinner(SPIN), 0);
        loop {
            spinner.spin(|| self.jobs.load(Ordering::Acquire) == seen);
            let job = {
                let mut state = self.state();
                loop {
                    if state.stopping {
                        return;
                    }
                    let jobs = self.jobs.load(Ordering::Acquire);
                    if jobs != seen {
                        seen = jobs;
                        if let Some(job) = state.job {
                            self.active.fetch_add(1, Ordering::AcqRel);
                            break job;
                        }
                    }
                    state.sleeping += 1;
                    state = self.begun.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.sleeping -= 1;
                }
            };
            let done = catch_unwind(AssertUnwindSafe(|| (job.0)(index)));
            let mut state = self.state();
            if let Err(panic) = done {
                state.panic.get_or_insert(panic);
            }
            if self.active.fetch_sub(1, Ordering::AcqRel) == 1 {
                drop(state);
                self.left.notify_one();
            }
        }
    }

    /// What thread 0 does until the pool stops.
    fn answer(&self) {
        let mut state = self.state();
        loop {
            if let Some(call) = state.call {
                drop(state);
                (call.0)(0);
                state = self.state();
                state.call = None;
                self.returned.notify_all();
            } else if state.stopping {
                return;
            } else {
                state = self.called.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

/// Threads that run one model's passes, one pass at a time.
pub(crate) struct ThreadPool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Held while one installs its work.
    turn: Mutex<()>,
}

impl ThreadPool {
    /// `threads` threads, or as many as the machine has, named `name` and a number, with the priority of this thread's
    /// model ([`crate::priority`]).
    ///
    /// # Errors
    /// [`Error::Unavailable`] where the system starts no threads.
    pub fn new(name: &str, threads: Option<usize>) -> Result<Self> {
        let available = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = threads.unwrap_or_else(available).max(1);
        let shared = Arc::new(Shared {
            threads,
            ..Shared::default()
        });
        let mut pool = Self {
            shared,
            threads: Vec::with_capacity(threads),
            turn: Mutex::default(),
        };
        let (priority, pulse) = (Priority::of_thread(), Pulse::of_thread());
        for index in 0..threads {
            let (shared, pulse) = (Arc::clone(&pool.shared), pulse.clone());
            let run = move || {
                priority.enter_to_compute();
                if let Some(pulse) = pulse {
                    pulse.count_thread();
                }
                CURRENT.set(Some((Arc::clone(&shared), index)));
                match index {
                    0 => {
                        SPINNER.set(Some(Spinner(SPIN)));
                        shared.answer();
                    }
                    _ => shared.help(index),
                }
            };
            let thread = std::thread::Builder::new()
                .name(format!("{name}-{index}"))
                .spawn(run)
                .map_err(|e| Error::Unavailable {
                    what: format!("threads for {name}"),
                    why: e.to_string(),
                })?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// Does `work` on thread 0, with the heartbeat of this thread; what it panics with, this panics with.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        let _turn = locked(&self.turn);
        let pulse = Pulse::of_thread();
        let (work, result) = (Mutex::new(Some(work)), Mutex::new(None));
        let call = |_: usize| {
            let Some(work) = locked(&work).take() else { return };
            let done = catch_unwind(AssertUnwindSafe(|| match &pulse {
                Some(pulse) => pulse.clone().on_thread(work),
                None => work(),
            }));
            *locked(&result) = Some(done);
        };
        // SAFETY: this waits below until thread 0 has returned from the call. It does not end before that, since panics
        // in a call are caught.
        let erased = unsafe { Erased::new(&call) };
        let mut state = self.shared.state();
        state.call = Some(erased);
        self.shared.called.notify_one();
        let calls = |state: &mut State| state.call.is_some();
        drop(self.shared.returned.wait_while(state, calls));
        let done = locked(&result).take();
        match done {
            Some(Ok(result)) => result,
            Some(Err(panic)) => resume_unwind(panic),
            None => resume_unwind(Box::new("the pool's thread did not run the call")),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.state().stopping = true;
        self.shared.begun.notify_all();
        self.shared.called.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // what panicked has been told
        }
    }
}

/// Threads among which [`try_for_each`] shares tasks out when it is called on this one.
pub(crate) fn current_threads() -> usize {
    CURRENT.with_borrow(|current| match current {
        Some((shared, _)) => shared.threads,
        None => rayon::current_num_threads(),
    })
}

/// Runs tasks 0 to `count`, each with the index of its thread: on thread 0 of a pool on all of its threads, outside of one
/// on rayon's. After an error, which is returned, no further ones are begun.
pub(crate) fn try_for_each<E: Send>(
    count: usize,
    task: impl Fn(usize, usize) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let Some((shared, own)) = CURRENT.with_borrow(Option::clone) else {
        let thread = || rayon::current_thread_index().unwrap_or(0);
        let tasks = (0..count).into_par_iter().with_max_len(1);
        return tasks.try_for_each(|index| task(index, thread()));
    };
    // None within a task: it shares nothing out.
    let Some(mut spinner) = SPINNER.take() else {
        return (0..count).try_for_each(|index| task(index, own));
    };
    let (pulse, next, error) = (Pulse::of_thread(), AtomicUsize::new(0), Mutex::new(None));
    let work = |thread: usize| {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return;
            }
            if let Some(pulse) = &pulse {
                pulse.beat();
            }
            if let Err(found) = task(index, thread) {
                next.store(count, Ordering::Relaxed);
                locked(&error).get_or_insert(found);
            }
        }
    };
    let panic = shared.run(&mut spinner, &work);
    SPINNER.set(Some(spinner));
    if let Some(panic) = panic {
        resume_unwind(panic);
    }
    let error = locked(&error).take();
    error.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_task_is_run_once_by_one_of_the_threads() {
        for threads in [1, 2, 5] {
            let pool = ThreadPool::new("test", Some(threads)).unwrap();
            for count in [0, 1, 2, 7, 1000] {
                let times: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                let done = pool.install(|| {
                    assert_eq!(current_threads(), threads);
                    try_for_each(count, |index, thread| {
                        assert!(thread < threads);
                        times[index].fetch_add(1, Ordering::Relaxed);
                        Ok::<(), ()>(())
                    })
                });
                assert_eq!(done, Ok(()));
                let once = |times: &AtomicUsize| times.load(Ordering::Relaxed) == 1;
                assert!(times.iter().all(once), "{threads} threads, {count} tasks");
            }
        }
    }

    #[test]
    fn threads_work_side_by_side() {
        let pool = ThreadPool::new("test", Some(2)).unwrap();
        // Each task waits until both have begun.
        let (begun, both) = (Mutex::new(BTreeSet::new()), Condvar::new());
        let done = pool.install(|| {
            try_for_each(2, |_, thread| {
                let mut begun = locked(&begun);
                begun.insert(thread);
                both.notify_all();
                let patience = Duration::from_secs(30);
                let both = both.wait_timeout_while(begun, patience, |begun| begun.len() < 2);
                let waited = both.unwrap().1;
                if waited.timed_out() { Err(()) } else { Ok(()) }
            })
        });
        assert_eq!(done, Ok(()));
    }

    #[test]
    fn errors_and_panics_come_back_and_the_pool_goes_on() {
        let pool = ThreadPool::new("test", Some(2)).unwrap();
        for round in 0..50 {
            let run = AtomicUsize::new(0);
            let failed = pool.install(|| {
                try_for_each(100_000, |index, _| {
                    run.fetch_add(1, Ordering::Relaxed);
                    if index == 3 { Err(index) } else { Ok(()) }
                })
            });
            assert_eq!(failed, Err(3));
            assert!(run.into_inner() < 100_000, "tasks are begun after an error");
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                pool.install(|| {
                    try_for_each(10, |index, _| {
                        if index == round % 10 {
                            panic!("x")
                        } else {
                            Ok::<(), ()>(())
                        }
                    })
                })
            }));
            assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"x"));
            let panicked = catch_unwind(AssertUnwindSafe(|| pool.install(|| panic!("y"))));
            assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"y"));
        }
    }

    #[test]
    fn a_task_that_shares_out_tasks_runs_them_itself() {
        let pool = ThreadPool::new("test", Some(3)).unwrap();
        let run = AtomicUsize::new(0);
        let inner = |own: usize| {
            try_for_each(5, |_, thread| {
                assert_eq!(thread, own);
                run.fetch_add(1, Ordering::Relaxed);
                Ok::<(), ()>(())
            })
        };
        assert_eq!(
            pool.install(|| try_for_each(4, |_, thread| inner(thread))),
            Ok(())
        );
        assert_eq!(run.into_inner(), 20);
    }

    #[test]
    fn every_task_is_a_sign_of_life() {
        let pool = ThreadPool::new("test", Some(2)).unwrap();
        let pulse = Pulse::new();
        let work = || pool.install(|| try_for_each(7, |_, _| Ok::<(), ()>(())));
        assert_eq!(pulse.clone().on_thread(work), Ok(()));
        assert_eq!(pulse.beats(), 7);
    }

    #[test]
    fn a_spin_in_vain_makes_the_next_shorter() {
        let mut spinner = Spinner(SPIN);
        for _ in 0..10 {
            assert!(!spinner.spin(|| true));
        }
        assert_eq!(spinner.0, SHORTEST_SPIN);
        for _ in 0..10 {
            assert!(spinner.spin(|| false));
        }
        assert_eq!(spinner.0, SPIN);
    }
}
