//! Frames on their passage through elements, and threads that compute and hold still for them.
//!
//! A thread of the idle policy gets out of the way when a frame's thread wakes up ([`crate::priority`]), and may come
//! between all the same: when the frame's thread has used up its slice, Linux gives the others that wait for the processor
//! a turn, until it next looks at the clock, milliseconds later. That is more than a frame takes.
//!
//! So threads that compute look for themselves, between tasks and between the products within one. Each time they offer the processor to whoever waits for
//! it: by then the frame's thread has the better claim. One that has it back and still finds itself on the processor on
//! which a frame began its passage sleeps a little besides. If the frame's thread wants the processor, it has it then,
//! and the sleeper gets it back when the frame has passed; if it is back at once, nobody wanted it, and it goes on.
//! Sleeping alone is not enough, since a frame's thread has more to do than what passages cover, nor is offering alone,
//! since the next turn may come before the frame has passed: benchmarks/passage-2026-11-27.txt.

use crate::priority::processor;
use std::cell::Cell;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// In any [`WINDOW`] threads hold still for the first part only, so that frames without end leave time to compute.
const HOLDS: Duration = Duration::from_millis(8);
const WINDOW: Duration = Duration::from_millis(16);
/// A thread that has looked does not look again for that long: looking takes about a microsecond, and small products less.
const REST: Duration = Duration::from_micros(50);
/// How long a thread sleeps before it looks again.
const NAP: Duration = Duration::from_micros(100);
/// Who is back that soon has kept nobody from the processor.
const PROMPT: Duration = Duration::from_micros(300);
/// Processors that are told apart.
const PROCESSORS: usize = 1024;

static PASSAGES: Passages = Passages::new();

thread_local! {
    /// Whether this thread holds still for frames.
    static HOLDS_STILL: Cell<bool> = const { Cell::new(false) };
    /// When it last looked.
    static LOOKED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A frame's passage on this thread, until it is dropped.
#[cfg(any(feature = "gst", test))]
pub(crate) struct Passage<'a>(Option<&'a AtomicU32>);

#[cfg(any(feature = "gst", test))]
impl Passage<'_> {
    pub(crate) fn begin() -> Self {
        #[cfg(test)]
        counts::add(1, 1, 0);
        PASSAGES.begin()
    }
}

#[cfg(any(feature = "gst", test))]
impl Drop for Passage<'_> {
    fn drop(&mut self) {
        #[cfg(test)]
        counts::add(0, -1, 0);
        if let Some(frames) = self.0 {
            frames.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Has this thread hold still for frames from now on, wherever it calls [`hold_still`].
pub(crate) fn join_those_who_hold_still() {
    HOLDS_STILL.set(true);
}

/// Whether this thread does.
#[cfg(test)]
pub(crate) fn holds_still() -> bool {
    HOLDS_STILL.get()
}

/// Lets others have the processor, and sleeps while this thread is in a frame's way; for threads that hold still for
/// frames. Whether it slept.
pub(crate) fn hold_still() -> bool {
    #[cfg(test)]
    counts::add(0, 0, 1);
    if !HOLDS_STILL.get() || LOOKED.get().is_some_and(|looked| looked.elapsed() < REST) {
        return false;
    }
    std::thread::yield_now();
    let held = PASSAGES.hold_still();
    LOOKED.set(Some(Instant::now()));
    held
}

/// What this thread has done, for the tests of those who call.
#[cfg(test)]
pub(crate) mod counts {
    use std::cell::Cell;

    /// Passages begun, those not ended, and how often it looked whether to hold still.
    pub(crate) type Counts = (i32, i32, i32);

    thread_local! {
        static COUNTS: Cell<Counts> = const { Cell::new((0, 0, 0)) };
    }

    pub(crate) fn get() -> Counts {
        COUNTS.get()
    }

    pub(super) fn add(begun: i32, under_way: i32, looked: i32) {
        let counts = COUNTS.get();
        COUNTS.set((counts.0 + begun, counts.1 + under_way, counts.2 + looked));
    }
}

/// Frames by the processor on which they began. Counts and times are hints: nothing else depends on them.
struct Passages {
    frames: [AtomicU32; PROCESSORS],
    /// When the latest window began, in ns of a clock of its own; 0 before the first.
    window_nanos: AtomicU64,
}

impl Passages {
    const fn new() -> Self {
        Self {
            frames: [const { AtomicU32::new(0) }; PROCESSORS],
            window_nanos: AtomicU64::new(0),
        }
    }

    fn on(&self, processor: usize) -> &AtomicU32 {
        &self.frames[processor % PROCESSORS]
    }

    #[cfg(any(feature = "gst", test))]
    fn begin(&self) -> Passage<'_> {
        let here = processor().map(|processor| self.on(processor));
        if let Some(frames) = here {
            frames.fetch_add(1, Ordering::Relaxed);
        }
        Passage(here)
    }

    fn any_here(&self) -> bool {
        processor().is_some_and(|processor| self.on(processor).load(Ordering::Relaxed) > 0)
    }

    /// Whether threads may hold still at that time, in ns.
    fn may_hold(&self, now_nanos: u64) -> bool {
        let (holds, window) = (HOLDS.as_nanos() as u64, WINDOW.as_nanos() as u64);
        let begun = self.window_nanos.load(Ordering::Relaxed);
        let passed = now_nanos.saturating_sub(begun);
        if begun > 0 && passed < window {
            return passed < holds;
        }
        // Where two begin a window at once, the later one holds.
        self.window_nanos.store(now_nanos, Ordering::Relaxed);
        true
    }

    fn hold_still(&self) -> bool {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        let mut held = false;
        while self.any_here() {
            let begun = Instant::now();
            if !self.may_hold(begun.saturating_duration_since(*START).as_nanos() as u64) {
                break;
            }
            std::thread::sleep(NAP);
            held = true;
            if begun.elapsed() < PROMPT {
                break;
            }
        }
        held
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    /// The processors that this thread may run on.
    fn processors() -> Vec<usize> {
        // SAFETY: a set of processors is bits only, and is as large as is said.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            assert_eq!(libc::sched_getaffinity(0, size_of_val(&set), &raw mut set), 0);
            let all = 0..8 * size_of_val(&set);
            all.filter(|&cpu| libc::CPU_ISSET(cpu, &set)).collect()
        }
    }

    /// What `work` gives on a thread that stays on `processor`.
    fn on<R: Send + 'static>(processor: usize, work: impl FnOnce() -> R + Send + 'static) -> R {
        let thread = std::thread::spawn(move || {
            // SAFETY: as above.
            unsafe {
                let mut set: libc::cpu_set_t = std::mem::zeroed();
                libc::CPU_SET(processor, &mut set);
                assert_eq!(libc::sched_setaffinity(0, size_of_val(&set), &raw const set), 0);
            }
            work()
        });
        thread.join().unwrap()
    }

    #[test]
    fn who_is_in_a_frames_way_sleeps_or_finds_that_it_has_passed() {
        let here = processors()[0];
        let passages = Arc::new(Passages::new());
        let [in_the_way, has_passed] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let (theirs, other_came, passed) = (
            Arc::clone(&passages),
            Arc::clone(&in_the_way),
            Arc::clone(&has_passed),
        );
        let begun = Arc::new(AtomicBool::new(false));
        let has_begun = Arc::clone(&begun);
        // The frame's thread wants the processor until the other one has come between, and 3 ms more.
        let frame = std::thread::spawn(move || {
            on(here, move || {
                let passage = theirs.begin();
                has_begun.store(true, Ordering::Release);
                while !other_came.load(Ordering::Acquire) {
                    std::hint::spin_loop();
                }
                let start = Instant::now();
                while start.elapsed() < Duration::from_millis(3) {
                    std::hint::spin_loop();
                }
                passed.store(true, Ordering::Release);
                drop(passage);
            });
        });
        let (held, had_passed) = on(here, move || {
            while !begun.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            in_the_way.store(true, Ordering::Release);
            (passages.hold_still(), has_passed.load(Ordering::Acquire))
        });
        frame.join().unwrap();
        assert!(held || had_passed);
    }

    /// Tasks that a thread of the idle policy does in each of its turns on a processor that another thread wants all the
    /// time, holding still between any two of them.
    fn turns() -> Vec<u32> {
        const TASK: Duration = Duration::from_micros(100);
        let spin = |time: Duration| {
            let start = Instant::now();
            while start.elapsed() < time {
                std::hint::spin_loop();
            }
        };
        // The other tests use the first.
        let here = *processors().last().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let other = std::thread::spawn(move || {
            on(here, move || {
                while !is_over.load(Ordering::Acquire) {
                    std::hint::spin_loop();
                }
            });
        });
        let turns = on(here, move || {
            crate::priority::give_way();
            join_those_who_hold_still();
            let mut turns = vec![0];
            let patience = Instant::now();
            while turns.len() < 8 && patience.elapsed() < Duration::from_secs(30) {
                let start = Instant::now();
                spin(TASK);
                // A task that somebody came between is the last of its turn, and not counted.
                if start.elapsed() < 2 * TASK
                    && let Some(tasks) = turns.last_mut()
                {
                    *tasks += 1;
                }
                hold_still();
                if start.elapsed() > 2 * TASK {
                    turns.push(0);
                }
            }
            turns
        });
        over.store(true, Ordering::Release);
        other.join().unwrap();
        turns
    }

    #[test]
    fn between_tasks_the_processor_is_given_to_who_waits_for_it() {
        let mut tasks = turns();
        // A machine at work may give few turns; the first one alone says nothing.
        assert!(tasks.len() > 2, "turns in half a minute: {tasks:?}");
        tasks.sort();
        // Without it a turn lasts until the system looks at the clock, dozens of tasks.
        assert!(tasks[tasks.len() / 2] <= 2, "tasks of each turn: {tasks:?}");
    }

    #[test]
    fn nobody_sleeps_for_a_frame_elsewhere_or_for_none() {
        let processors = processors();
        let passages = Arc::new(Passages::new());
        let theirs = Arc::clone(&passages);
        assert!(!on(processors[0], move || theirs.hold_still()));
        passages.on(processors[0]).store(1, Ordering::Relaxed);
        let theirs = Arc::clone(&passages);
        assert!(on(processors[0], move || theirs.hold_still()));
        let Some(&other) = processors.get(1) else {
            println!("skipped: one processor only");
            return;
        };
        assert!(!on(other, move || passages.hold_still()));
    }

    #[test]
    fn a_frame_that_does_not_want_the_processor_holds_nobody_for_long() {
        let here = processors()[0];
        let passages = Passages::new();
        passages.on(here).store(1, Ordering::Relaxed);
        on(here, move || {
            // A machine at work may let a sleeper wait, but not each time.
            let begun = Instant::now();
            let mut shortest = Duration::MAX;
            while begun.elapsed() < 10 * WINDOW {
                let start = Instant::now();
                if passages.hold_still() {
                    shortest = shortest.min(start.elapsed());
                }
            }
            assert!(shortest < HOLDS / 2, "{shortest:?}");
        });
    }

    #[test]
    fn frames_without_end_leave_time_to_compute() {
        let passages = Passages::new();
        let micros = |n: u64| n * 1000;
        let held = (1..=160_000).filter(|&n| passages.may_hold(micros(n))).count();
        // 8 of every 16 ms over 160 ms.
        assert_eq!(held, 80_000);
        // After a rest a window begins with the first hold.
        assert!(passages.may_hold(micros(1_000_000)) && passages.may_hold(micros(1_007_999)));
        assert!(!passages.may_hold(micros(1_008_000)) && !passages.may_hold(micros(1_015_999)));
        assert!(passages.may_hold(micros(1_016_000)));
    }

    #[test]
    fn a_passage_lasts_from_begin_to_drop() {
        on(processors()[0], || {
            let passages = Passages::new();
            let (first, second) = (passages.begin(), passages.begin());
            drop(first);
            assert!(passages.any_here());
            drop(second);
            assert!(!passages.any_here());
        });
    }

    #[test]
    fn only_those_who_joined_hold_still() {
        on(processors()[0], || {
            let _passage = Passage::begin();
            assert!(!hold_still());
            join_those_who_hold_still();
            // Other tests' frames may have used up the window.
            let begun = Instant::now();
            while !hold_still() {
                assert!(begun.elapsed() < Duration::from_secs(20));
            }
        });
    }
}
