//! Memory between pages that nobody may touch: what reads or writes one byte beside a buffer, or after it has been freed,
//! ends the test with a fault. For tests of loops whose bounds the compiler does not check.
//!
//! ```text
//! | no access |      buffer | no access |      Side::End
//! | no access | buffer      | no access |      Side::Start
//! ```

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Which end of a buffer lies at a fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Start,
    End,
}

/// Address space for all fenced buffers of a run; none is used twice. Memory is taken only where there is a buffer.
const ARENA_BYTES: usize = 1 << 36;

const PAGE: usize = 4096;

thread_local! {
    static FENCED: Cell<Option<Side>> = const { Cell::new(None) };
}

/// Every buffer that `work` allocates on this thread is fenced on `side`.
pub fn during<R>(side: Side, work: impl FnOnce() -> R) -> R {
    struct Until;
    impl Drop for Until {
        fn drop(&mut self) {
            FENCED.set(None);
        }
    }
    FENCED.set(Some(side));
    let _until = Until;
    work()
}

struct Fences;

#[global_allocator]
static ALLOCATOR: Fences = Fences;

/// The first address of the arena, 0 where there is none.
static ARENA: OnceLock<usize> = OnceLock::new();
static TAKEN: AtomicUsize = AtomicUsize::new(0);

fn arena() -> usize {
    *ARENA.get_or_init(|| {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: new memory, wherever there is room.
        let start = unsafe { libc::mmap(ptr::null_mut(), ARENA_BYTES, libc::PROT_NONE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            0
        } else {
            start as usize
        }
    })
}

fn fenced(side: Side, layout: Layout) -> *mut u8 {
    let bytes = layout.size().next_multiple_of(PAGE);
    let start = arena();
    // A page that stays closed follows each buffer; the arena's first is closed as well.
    let at = TAKEN.fetch_add(bytes + PAGE, Ordering::Relaxed) + PAGE;
    if start == 0 || layout.align() > PAGE || at + bytes + PAGE > ARENA_BYTES {
        return ptr::null_mut();
    }
    let first = (start + at) as *mut u8;
    // SAFETY: pages of the arena that nobody else has.
    let opened = unsafe { libc::mprotect(first.cast(), bytes, libc::PROT_READ | libc::PROT_WRITE) };
    match (opened, side) {
        (0, Side::Start) => first,
        // SAFETY: within the pages.
        (0, Side::End) => unsafe { first.add((bytes - layout.size()) & !(layout.align() - 1)) },
        _ => ptr::null_mut(),
    }
}

// SAFETY: memory comes from the system's allocator or is a piece of the arena that is given out once.
unsafe impl GlobalAlloc for Fences {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match FENCED.try_with(Cell::get).ok().flatten() {
            Some(side) => fenced(side, layout),
            // SAFETY: the caller's.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        let at = (place as usize).wrapping_sub(ARENA.get().copied().unwrap_or(usize::MAX));
        if at >= ARENA_BYTES {
            // SAFETY: the caller's; it is none of the arena's.
            return unsafe { System.dealloc(place, layout) };
        }
        let first = place as usize & !(PAGE - 1);
        let bytes = layout.size().next_multiple_of(PAGE);
        // SAFETY: the pages of this buffer alone.
        unsafe {
            libc::madvise(first as *mut _, bytes, libc::MADV_DONTNEED);
            libc::mprotect(first as *mut _, bytes, libc::PROT_NONE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a process that does so ends with a fault.
    fn faults(side: Side, act: fn(*mut u8, usize)) -> bool {
        let (mut buffer, length) = during(side, || (vec![7_u8; 5000], 5000));
        // SAFETY: the child does nothing but read or write a byte, and ends without anything of its parent's.
        let status = unsafe {
            let child = libc::fork();
            if child == 0 {
                libc::signal(libc::SIGSEGV, libc::SIG_DFL);
                act(buffer.as_mut_ptr(), length);
                libc::_exit(0);
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(child, &mut status, 0), child);
            status
        };
        libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV
    }

    #[test]
    fn a_byte_beside_a_buffer_is_a_fault_and_one_in_it_is_none() {
        let last: fn(*mut u8, usize) = |start, length| {
            // SAFETY: in the buffer.
            unsafe { start.add(length - 1).write_volatile(1) };
        };
        // Beside it, which is what faults.
        let behind: fn(*mut u8, usize) = |start, length| {
            // SAFETY: no buffer is there: nothing but the fault.
            unsafe { start.wrapping_add(length).read_volatile() };
        };
        let before: fn(*mut u8, usize) = |start, _| {
            // SAFETY: as before.
            unsafe { start.wrapping_sub(1).read_volatile() };
        };
        assert!(!faults(Side::End, last) && !faults(Side::Start, last));
        assert!(faults(Side::End, behind) && faults(Side::Start, before));
        let mut kept = during(Side::End, || vec![1_u64; 3]);
        kept.extend([2; 100]); // moved to where it is not fenced
        assert_eq!(kept.iter().sum::<u64>(), 203);
    }
}
