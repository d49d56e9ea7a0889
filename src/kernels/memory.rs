//! Memory of a model: what is large comes from the system in pages of its own, and goes back to it at once.
//!
//! A model that is closed after a fault, or because its stream has ended, leaves nothing behind in a process that may
//! run for weeks: from `malloc` the same memory would come out of several threads' heaps, where what is freed lies
//! between what is not. Pages also begin where vectors like to begin.
//!
//! ```
//! use masam::kernels::memory::Buffer;
//! let mut buffer = Buffer::<f32>::default();
//! buffer.resize(100_000, 0.0);
//! assert_eq!(buffer.as_ptr() as usize % 64, 0);
//! ```

use allocator_api2::alloc::{AllocError, Allocator, Global, Layout};
use allocator_api2::vec::Vec;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes from which memory has pages of its own: less would be many mappings and little gained.
const LARGE: usize = 64 << 10;

/// No page is smaller.
const PAGE: usize = 4096;

static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// Numbers that may be many, as a vector whose memory comes from [`Pages`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buffer<T>(Vec<T, Pages>);

impl<T: Clone> Buffer<T> {
    /// So many of one number.
    pub fn of(number: T, count: usize) -> Self {
        let mut buffer = Self::default();
        buffer.resize(count, number);
        buffer
    }
}

impl<T: Clone> From<&[T]> for Buffer<T> {
    fn from(numbers: &[T]) -> Self {
        let mut buffer = Self::default();
        buffer.extend_from_slice(numbers);
        buffer
    }
}

impl<T> Default for Buffer<T> {
    fn default() -> Self {
        Self(Vec::new_in(Pages))
    }
}

impl<T> Deref for Buffer<T> {
    type Target = Vec<T, Pages>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

/// How often pages have been taken from the system so far, by the whole process.
pub fn times_taken() -> usize {
    TAKEN.load(Ordering::Relaxed)
}

/// Takes large memory from the system, and small memory from Rust's allocator.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pages;

/// Whether memory of this layout has pages of its own.
fn has_pages(layout: Layout) -> bool {
    cfg!(all(unix, not(miri))) && layout.size() >= LARGE && layout.align() <= PAGE
}

// SAFETY: a block stays where it is until it is freed, whatever becomes of the allocator, which holds nothing; blocks
// are freed with the layout they were taken with, and that alone says where they came from.
unsafe impl Allocator for Pages {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        match has_pages(layout) {
            true => system::take(layout.size()),
            false => Global.allocate(layout),
        }
    }

    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        match has_pages(layout) {
            true => system::take(layout.size()), // new pages are zero
            false => Global.allocate_zeroed(layout),
        }
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        match has_pages(layout) {
            // SAFETY: the caller's promise.
            true => unsafe { system::give_back(block, layout.size()) },
            // SAFETY: as above.
            false => unsafe { Global.deallocate(block, layout) },
        }
    }
}

#[cfg(unix)]
mod system {
    use super::{AllocError, NonNull, Ordering, TAKEN};

    pub(super) fn take(size: usize) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: new memory, wherever the system likes; no other's is touched.
        let start = unsafe {
            let (access, kind) = (
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANON,
            );
            libc::mmap(std::ptr::null_mut(), size, access, kind, -1, 0)
        };
        if start == libc::MAP_FAILED {
            return Err(AllocError);
        }
        TAKEN.fetch_add(1, Ordering::Relaxed);
        let start = NonNull::new(start.cast()).ok_or(AllocError)?;
        Ok(NonNull::slice_from_raw_parts(start, size))
    }

    /// # Safety
    /// [`take`] gave it, for this size, and nobody uses it any more.
    pub(super) unsafe fn give_back(start: NonNull<u8>, size: usize) {
        // SAFETY: the caller's promise.
        let result = unsafe { libc::munmap(start.as_ptr().cast(), size) };
        debug_assert_eq!(result, 0);
    }
}

#[cfg(not(unix))]
mod system {
    use super::{AllocError, NonNull};

    pub(super) fn take(_: usize) -> Result<NonNull<[u8]>, AllocError> {
        Err(AllocError)
    }

    pub(super) unsafe fn give_back(_: NonNull<u8>, _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_grow_through_both_kinds_of_memory() {
        let mut buffer = Buffer::<u32>::default();
        for value in 0..100_000 {
            buffer.push(value);
        }
        assert!(buffer.iter().copied().eq(0..100_000));
        buffer.truncate(10);
        buffer.shrink_to_fit();
        assert!(buffer.iter().copied().eq(0..10));
        assert_eq!(buffer.clone(), buffer);
    }

    #[test]
    fn large_memory_is_zero_where_asked_and_on_a_page() {
        for size in [1, PAGE - 1, LARGE - 1, LARGE, LARGE + 1, 10 * LARGE + 3] {
            let layout = Layout::from_size_align(size, 64).unwrap();
            let block = Pages.allocate_zeroed(layout).unwrap();
            // SAFETY: it has so many bytes, all zero.
            let bytes = unsafe { std::slice::from_raw_parts_mut(block.cast::<u8>().as_ptr(), size) };
            assert!(bytes.iter().all(|byte| *byte == 0), "{size}");
            bytes.fill(7);
            assert_eq!(block.cast::<u8>().as_ptr() as usize % 64, 0);
            // SAFETY: taken above with this layout.
            unsafe { Pages.deallocate(block.cast(), layout) };
        }
        let before = times_taken();
        drop(Buffer::of(1u8, LARGE));
        assert!(times_taken() > before || !cfg!(unix));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_is_given_back_is_gone() {
        let resident = || {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * PAGE
        };
        // Beside other tests, so much that theirs do not count.
        const SIZE: usize = 256 << 20;
        let buffer = Buffer::of(1u8, SIZE);
        let with = resident();
        drop(buffer);
        let without = resident();
        assert!(with > without + SIZE / 2, "{with} {without}");
    }
}
