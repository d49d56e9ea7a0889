//! The locks and threads of worker, ports, supervisor and whatever else waits: the standard library's, or loom's under `--cfg masam_loom`,
//! so that `tests/interleavings.rs` can run the very same code in every order (`scripts/sanitize.sh loom`).

#[cfg(all(masam_loom, any(feature = "gst", test)))]
pub(super) use loom::thread::{ThreadId, current};
#[cfg(masam_loom)]
pub(super) use loom::{
    sync::mpsc::channel,
    sync::{Condvar, Mutex, MutexGuard},
    thread::{Builder, JoinHandle},
};
use std::sync::PoisonError;
#[cfg(all(not(masam_loom), feature = "gst"))]
pub(super) use std::thread::{ThreadId, current};
use std::time::Duration;
#[cfg(not(masam_loom))]
pub(super) use std::{
    sync::mpsc::channel,
    sync::{Condvar, Mutex, MutexGuard},
    thread::{Builder, JoinHandle},
};

/// Waits until `waiting` no longer holds, at most `within`.
#[cfg(not(masam_loom))]
pub(super) fn wait_while<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    within: Duration,
    waiting: impl FnMut(&mut T) -> bool,
) -> MutexGuard<'a, T> {
    condvar
        .wait_timeout_while(guard, within, waiting)
        .unwrap_or_else(PoisonError::into_inner)
        .0
}

/// Loom knows no time: no time at all is over at once, any other never.
#[cfg(masam_loom)]
pub(super) fn wait_while<'a, T>(
    condvar: &Condvar,
    mut guard: MutexGuard<'a, T>,
    within: Duration,
    mut waiting: impl FnMut(&mut T) -> bool,
) -> MutexGuard<'a, T> {
    while !within.is_zero() && waiting(&mut guard) {
        guard = condvar.wait(guard).unwrap_or_else(PoisonError::into_inner);
    }
    guard
}
