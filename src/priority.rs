//! Scheduling of the threads that run models beside a live video.
//!
//! | priority | niceness | policy | slice (Linux 6.12 and later) |
//! |---|---|---|---|
//! | `normal` | as the process | as the process | the system's |
//! | `low` | as the process | as the process | [`MODEL_SLICE`] |
//! | `idle` | 19 | `SCHED_IDLE`, for the threads that compute | the system's |
//!
//! A slice is how long a thread that runs may go on once another one wants the processor. Whoever wakes up with a shorter
//! one has its turn at once, which is what a video's thread needs; how much of the processor each gets in the end is a
//! matter of niceness alone. So masks keep their share beside other programs, and frames do not wait for them. Without
//! privileges a thread that is once nice or idle stays so: nothing here changes that in mid-stream.

use crate::error::{Error, Result};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::cell::Cell;
use std::time::Duration;

/// Slice of a model's threads with [`Priority::Low`], to be compared with the system's 1.4 to 3 ms: see
/// benchmarks/priority-2026-12-01.txt.
const MODEL_SLICE: Duration = Duration::from_millis(5);

/// Scheduling of a worker's thread and of the threads that its model computes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Priority {
    /// As the thread that starts the worker.
    #[default]
    Normal,
    /// The same share of the processor, with a slice that lets whoever wakes up run at once.
    Low,
    /// Whatever no other program wants.
    Idle,
}

thread_local! {
    static OF_THREAD: Cell<Priority> = const { Cell::new(Priority::Normal) };
    static IN_BACKGROUND: Cell<bool> = const { Cell::new(false) };
}

impl Priority {
    /// The priority of the model that this thread works for.
    pub(crate) fn of_thread() -> Self {
        OF_THREAD.get()
    }

    /// Has this thread, and those that it starts, work for a model of this priority. It may share locks with the video,
    /// so it does not become idle.
    pub(crate) fn enter(self) {
        OF_THREAD.set(self);
        IN_BACKGROUND.set(true);
        match self {
            Self::Normal => (),
            Self::Low => set_slice(MODEL_SLICE),
            Self::Idle => lower(),
        }
    }

    /// The same for a thread that computes and shares no locks with the video.
    pub(crate) fn enter_to_compute(self) {
        self.enter();
        if self == Self::Idle {
            become_idle();
        }
    }
}

/// Whether this thread works for a model, and no video waits for it.
pub(crate) fn is_in_background() -> bool {
    IN_BACKGROUND.get()
}

/// Gives this thread, and those it will start, the lowest niceness. Stays as it is elsewhere than on Linux.
fn lower() {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: the call takes numbers only. On Linux 0 is the calling thread.
        let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
        if result != 0 {
            tracing::debug!("niceness unchanged: {}", std::io::Error::last_os_error());
        }
    }
}

/// Has this thread give way to every other of the machine from now on.
fn become_idle() {
    #[cfg(target_os = "linux")]
    {
        let parameters = libc::sched_param { sched_priority: 0 };
        // SAFETY: the pointer is to a value that lives through the call. 0 is the calling thread.
        let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &parameters) };
        if result != 0 {
            tracing::debug!("scheduling policy unchanged: {}", std::io::Error::last_os_error());
        }
    }
}

/// Gives this thread, and those it will start, a slice. A kernel before 6.12 ignores it, and so does a thread of
/// another policy. `MASAM_SLICES=off` in the environment leaves slices as they are.
fn set_slice(slice: Duration) {
    #[cfg(target_os = "linux")]
    {
        if std::env::var_os("MASAM_SLICES").is_some_and(|value| value == "off") {
            return;
        }
        let result = attributes::of_thread().and_then(|mut own| {
            if own.policy != libc::SCHED_OTHER as u32 {
                return Ok(());
            }
            own.runtime_nanos = slice.as_nanos() as u64;
            own.set()
        });
        if let Err(error) = result {
            tracing::debug!("slice unchanged: {error}");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = slice;
}

/// The calls that the C library does not have.
#[cfg(target_os = "linux")]
mod attributes {
    use std::io::{Error, Result};

    /// `struct sched_attr`, version 0.
    #[repr(C)]
    #[derive(Debug, Clone, Copy, Default)]
    pub(super) struct Attributes {
        size: u32,
        pub policy: u32,
        pub flags: u64,
        pub nice: i32,
        pub priority: u32,
        /// The slice, for a thread of the default policy.
        pub runtime_nanos: u64,
        pub deadline_nanos: u64,
        pub period_nanos: u64,
    }

    const SIZE: u32 = size_of::<Attributes>() as u32;

    /// Those of the calling thread.
    pub(super) fn of_thread() -> Result<Attributes> {
        let mut own = Attributes::default();
        // SAFETY: the kernel writes at most the size that it is given, that of the value pointed to. 0 is the calling thread.
        match unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut own, SIZE, 0) } {
            0 => Ok(own),
            _ => Err(Error::last_os_error()),
        }
    }

    impl Attributes {
        /// Gives them to the calling thread.
        pub fn set(mut self) -> Result<()> {
            self.size = SIZE;
            // SAFETY: the pointer is to a value of the size that it names, which lives through the call.
            match unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const self, 0) } {
                0 => Ok(()),
                _ => Err(Error::last_os_error()),
            }
        }
    }
}

/// Threads of rayon's that compute, named `name` and a number, as many as the machine has where `threads` is none, with
/// the priority of this thread's model.
///
/// # Errors
/// [`Error::Unavailable`] where the system starts no threads.
pub(crate) fn pool(name: &'static str, threads: Option<usize>) -> Result<ThreadPool> {
    let priority = Priority::of_thread();
    ThreadPoolBuilder::new()
        .num_threads(threads.unwrap_or(0))
        .thread_name(move |i| format!("{name}-{i}"))
        .start_handler(move |_| priority.enter_to_compute())
        .build()
        .map_err(|e| Error::Unavailable {
            what: format!("a pool of threads, {name}"),
            why: e.to_string(),
        })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::runtime::thread_pool;

    /// Policy, niceness and slice of this thread.
    fn own() -> (i32, i32, u64) {
        let own = attributes::of_thread().unwrap();
        (own.policy as i32, own.nice, own.runtime_nanos)
    }

    /// The same of both kinds of threads that compute, and of the thread that started them.
    fn of(priority: Priority) -> [(i32, i32, u64); 3] {
        let thread = std::thread::spawn(move || {
            priority.enter();
            let computing = thread_pool::ThreadPool::new("test", Some(1))
                .unwrap()
                .install(own);
            [computing, pool("test", Some(1)).unwrap().install(own), own()]
        });
        thread.join().unwrap()
    }

    #[test]
    fn priorities_are_what_their_table_says() {
        let normal = own();
        assert_eq!(of(Priority::Normal), [normal; 3]);
        // Before Linux 6.12 there are no slices.
        let slice = if normal.2 == 0 {
            0
        } else {
            MODEL_SLICE.as_nanos() as u64
        };
        assert_eq!(of(Priority::Low), [(normal.0, normal.1, slice); 3]);
        let [computing, rayons, worker] = of(Priority::Idle);
        assert_eq!(
            [computing, rayons].map(|of| (of.0, of.1)),
            [(libc::SCHED_IDLE, 19); 2]
        );
        assert_eq!((worker.0, worker.1), (normal.0, 19));
    }
}
