//! Scheduling priority of the threads that run models beside a live video.
//!
//! A video's thread that wakes up has to run at once. Niceness alone does not see to that: it gives a thread a small
//! share, but Linux lets what runs go on to the end of its slice, milliseconds later, before somebody else's turn
//! comes. A thread of the idle policy is put aside the moment any other wakes up. It may also wait long while others
//! work, so that a thread that shares a lock with the video only has the lowest priority, and the threads that
//! compute, which share none, the idle policy as well.

use crate::error::{Error, Result};
use rayon::{ThreadPool, ThreadPoolBuilder};

/// Gives this thread, and those it will start, the lowest priority. Stays as it is elsewhere than on Linux.
pub(crate) fn lower() {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: the call takes numbers only. On Linux 0 is the calling thread.
        let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICEST) };
        if result != 0 {
            tracing::debug!("the worker's priority stays: {}", std::io::Error::last_os_error());
        }
    }
}

/// Niceness of the lowest priority.
#[cfg(target_os = "linux")]
const NICEST: i32 = 19;

/// Whether this thread has the lowest priority.
pub(crate) fn is_lowest() -> bool {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: the call takes numbers only; what is the result of an error is no niceness of 19.
        (unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }) == NICEST
    }
    #[cfg(not(target_os = "linux"))]
    {
        false
    }
}

/// Has this thread give way to every other of the machine from now on.
pub(crate) fn give_way() {
    #[cfg(target_os = "linux")]
    {
        let parameters = libc::sched_param { sched_priority: 0 };
        // SAFETY: the pointer is to a value that lives through the call. 0 is the calling thread.
        let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &parameters) };
        if result != 0 {
            tracing::debug!("the model's threads stay: {}", std::io::Error::last_os_error());
        }
    }
}

/// The processor that this thread runs on, where the system tells.
pub(crate) fn processor() -> Option<usize> {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: the call takes nothing; what is negative is an error.
        usize::try_from(unsafe { libc::sched_getcpu() }).ok()
    }
    #[cfg(not(target_os = "linux"))]
    {
        None
    }
}

/// Threads that compute, named `name` and a number, as many as the machine has where `threads` is none. Those of a thread
/// of the lowest priority give way to every other, and hold still for frames ([`crate::passage`]).
///
/// # Errors
/// [`Error::Unavailable`] where the system starts no threads.
pub(crate) fn pool(name: &'static str, threads: Option<usize>) -> Result<ThreadPool> {
    let gives_way = is_lowest();
    ThreadPoolBuilder::new()
        .num_threads(threads.unwrap_or(0))
        .thread_name(move |i| format!("{name}-{i}"))
        .start_handler(move |_| {
            if gives_way {
                give_way();
                crate::passage::join_those_who_hold_still();
            }
        })
        .build()
        .map_err(|e| Error::Unavailable {
            what: format!("a pool of threads, {name}"),
            why: e.to_string(),
        })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// Policy and niceness of a model's thread, and whether it holds still for frames; the same of the thread that started
    /// it afterwards.
    fn of_pool(lowered: bool) -> [(i32, i32, bool); 2] {
        let own = || {
            // SAFETY: both calls take numbers only.
            unsafe {
                (
                    libc::sched_getscheduler(0),
                    libc::getpriority(libc::PRIO_PROCESS, 0),
                    crate::passage::holds_still(),
                )
            }
        };
        let thread = std::thread::spawn(move || {
            if lowered {
                lower();
            }
            [pool("test", Some(1)).unwrap().install(own), own()]
        });
        thread.join().unwrap()
    }

    #[test]
    fn only_the_threads_of_a_lowered_one_give_way() {
        let [pool, starter] = of_pool(true);
        assert_eq!(pool, (libc::SCHED_IDLE, NICEST, true));
        assert_eq!(starter, (libc::SCHED_OTHER, NICEST, false));
        let [pool, starter] = of_pool(false);
        if starter.1 < NICEST {
            assert_eq!(pool, starter);
        }
    }
}
