//! What tasks work in: buffers of a thread, a buffer that tasks share, and how rows are cut into tasks.

use crate::kernels::memory::Buffer;
use crate::kernels::packed::{Number, Panels, attention};
use crate::pulse;
use crate::runtime::thread_pool::{current_threads, try_for_each};
use candle_core::{Result, bail};
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Rows of a task where there are plenty: enough to use a panel of weights often, few enough for a core's cache.
const MOST_ROWS: usize = 128;
/// Rows that tiles are made of.
const STRIP: usize = 8;

/// Buffers of one thread, used again from task to task.
#[derive(Debug)]
pub(super) struct Room<N> {
    pub(super) floats: [Buffer<f32>; 6],
    pub(super) numbers: [Buffer<N>; 3],
    pub(super) attention: attention::Room<N>,
    pub(super) head: Head<N>,
}

/// Keys and values of one head.
#[derive(Debug)]
pub(super) struct Head<N> {
    /// `[head_width, rows]`
    pub(super) keys: Panels<N>,
    /// `[rows, head_width]`
    pub(super) values: Panels<N>,
}

impl<N: Number> Head<N> {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            keys: Panels::zeros(0, 0)?,
            values: Panels::zeros(0, 0)?,
        })
    }

    /// Packs `width` channels from `first` of rows of keys and values, `inner` in a row.
    pub(super) fn pack(
        &mut self,
        keys: &[f32],
        values: &[f32],
        inner: usize,
        (first, width): (usize, usize),
        narrow: &mut Buffer<N>,
    ) -> Result<()> {
        let rows = keys.len() / inner;
        self.keys.reshape(width, rows);
        self.values.reshape(rows, width);
        let pairs = keys.chunks_exact(inner).zip(values.chunks_exact(inner));
        for (row, (key, value)) in pairs.enumerate() {
            self.keys
                .set_column(row, N::of_all(&key[first..first + width], narrow))?;
            self.values
                .set_row(row, N::of_all(&value[first..first + width], narrow))?;
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> usize {
        self.keys.bytes() + self.values.bytes()
    }
}

impl<N: Number> Room<N> {
    fn new() -> Result<Self> {
        Ok(Self {
            floats: Default::default(),
            numbers: Default::default(),
            attention: attention::Room::default(),
            head: Head::new()?,
        })
    }
}

/// The first `length` of a buffer, with whatever was in them.
pub(super) fn take<T: Clone + Default>(buffer: &mut Buffer<T>, length: usize) -> &mut [T] {
    if buffer.len() < length {
        buffer.resize(length, T::default());
    }
    &mut buffer[..length]
}

/// The buffers of all threads of a pool.
#[derive(Debug)]
pub(super) struct Rooms<N>(Vec<Mutex<Room<N>>>);

impl<N> Default for Rooms<N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<N: Number> Rooms<N> {
    /// Makes room for every thread of the current pool.
    pub(super) fn fit(&mut self) -> Result<()> {
        while self.0.len() < current_threads() {
            self.0.push(Mutex::new(Room::new()?));
        }
        Ok(())
    }

    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> usize {
        let rooms = self.0.iter().map(|room| {
            let room = room.lock().unwrap_or_else(PoisonError::into_inner);
            let floats: usize = room.floats.iter().map(|b| size_of_val(b.as_slice())).sum();
            let numbers: usize = room.numbers.iter().map(|b| size_of_val(b.as_slice())).sum();
            floats + numbers + room.attention.bytes() + room.head.bytes()
        });
        rooms.sum()
    }

    /// Runs tasks 0 to `count` on the threads of the pool, each with the buffers of its thread.
    pub(super) fn run(
        &self,
        count: usize,
        task: impl Fn(usize, &mut Room<N>) -> Result<()> + Sync,
    ) -> Result<()> {
        pulse::beat();
        try_for_each(count, |index, thread| {
            let Some(room) = self.0.get(thread % self.0.len().max(1)) else {
                bail!("the executor has no room for thread {thread}")
            };
            // What a task that panicked left behind is only ever written over.
            task(index, &mut room.lock().unwrap_or_else(PoisonError::into_inner))
        })
    }
}

/// How some rows in each of several images are cut into tasks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    rows: usize,
    piece: usize,
    pieces: usize,
}

impl Cut {
    /// `rows` rows in each of `images` images, where a task goes through `depth` images at once.
    pub(super) fn new(rows: usize, images: usize, depth: usize) -> Self {
        let threads = current_threads();
        let depth = depth.max(1);
        // At least two tasks for each thread, as long as they are worth it.
        let even = (rows * images.max(1) / depth).div_ceil(2 * threads);
        let most = (MOST_ROWS / depth).max(STRIP);
        let piece = even.clamp(1, most).next_multiple_of(STRIP).min(rows.max(1));
        Self {
            rows,
            piece,
            pieces: rows.div_ceil(piece),
        }
    }

    /// Tasks of one image.
    pub(super) fn pieces(&self) -> usize {
        self.pieces
    }

    /// Which image and which of its rows are task `index`.
    pub(super) fn piece(&self, index: usize) -> (usize, Range<usize>) {
        let first = index % self.pieces * self.piece;
        (index / self.pieces, first..self.rows.min(first + self.piece))
    }
}

/// A buffer that tasks write to side by side.
#[derive(Debug)]
pub(super) struct Shared<'a, T> {
    start: *mut T,
    length: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: it gives out slices of what it has borrowed for itself, and whoever takes one promises that nobody else has
// it.
unsafe impl<T: Send> Sync for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(super) fn new(buffer: &'a mut [T]) -> Self {
        Self {
            start: buffer.as_mut_ptr(),
            length: buffer.len(),
            borrow: PhantomData,
        }
    }

    /// Some of it.
    ///
    /// # Errors
    /// A range that reaches beyond its end.
    ///
    /// # Safety
    /// As long as the slice is used nobody else uses any of the range.
    #[allow(clippy::mut_from_ref)] // that is what it is for
    pub(super) unsafe fn slice(&self, range: Range<usize>) -> Result<&mut [T]> {
        if range.start > range.end || range.end > self.length {
            bail!("{range:?} of a buffer of {}", self.length);
        }
        // SAFETY: the range lies inside the buffer, and the caller promises that nobody else has it.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) })
    }
}

/// Rows `rows` of image `image`, `rows_of_image` rows of `width` in each image.
pub(super) fn span(image: usize, rows_of_image: usize, rows: &Range<usize>, width: usize) -> Range<usize> {
    (image * rows_of_image + rows.start) * width..(image * rows_of_image + rows.end) * width
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_cover_every_row_once() {
        for (rows, images, depth) in [
            (1, 1, 1),
            (49, 1, 5),
            (256, 1, 1),
            (1024, 5, 1),
            (1024, 1, 5),
            (196, 3, 7),
        ] {
            let cut = Cut::new(rows, images, depth);
            let mut seen = vec![0; rows * images];
            for index in 0..cut.pieces() * images {
                let (image, range) = cut.piece(index);
                assert!(!range.is_empty(), "{rows} {images} {depth}: an empty task");
                range.for_each(|row| seen[image * rows + row] += 1);
            }
            assert!(seen.iter().all(|times| *times == 1), "{rows} {images} {depth}");
        }
    }

    #[test]
    fn slices_beyond_the_end_are_refused() {
        let mut buffer = [0u8; 4];
        let shared = Shared::new(&mut buffer);
        // SAFETY: nobody else uses the buffer.
        unsafe {
            assert!(shared.slice(1..4).is_ok());
            assert!(shared.slice(1..5).is_err());
        }
    }
}
