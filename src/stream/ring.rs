//! The sliding window's memory: the newest model-side frames under the indices they came with.
//!
//! A ring of `capacity` frames keeps the last `capacity` pushed; index 0 is the first frame of the epoch.

use crate::segmenter::ModelFrame;
use ringbuf::LocalRb;
use ringbuf::storage::Heap;
use ringbuf::traits::{Observer, RingBuffer};

/// A bounded run of frames with stable indices.
pub struct FrameRing {
    frames: LocalRb<Heap<ModelFrame>>,
    /// Index of the oldest frame kept.
    first: u64,
}

impl FrameRing {
    /// An empty ring for the last `capacity` frames, at least one.
    pub fn new(capacity: usize) -> Self {
        Self {
            frames: LocalRb::new(capacity.max(1)),
            first: 0,
        }
    }

    /// Adds the next frame, dropping the oldest when full; its index.
    pub fn push(&mut self, frame: ModelFrame) -> u64 {
        let index = self.first + self.frames.occupied_len() as u64;
        if self.frames.push_overwrite(frame).is_some() {
            self.first += 1;
        }
        index
    }

    /// The frame of that index, `None` when it has been dropped or has not come yet.
    pub fn get(&mut self, index: u64) -> Option<ModelFrame> {
        let offset = usize::try_from(index.checked_sub(self.first)?).ok()?;
        let (older, newer) = self.frames.as_slices();
        older
            .get(offset)
            .or_else(|| newer.get(offset.checked_sub(older.len())?))
            .cloned()
    }

    /// Frames kept.
    pub fn len(&self) -> usize {
        self.frames.occupied_len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Drops all frames: the next index is 0.
    pub fn clear(&mut self) {
        RingBuffer::clear(&mut self.frames);
        self.first = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn frame(byte: u8) -> ModelFrame {
        ModelFrame {
            rgb: Arc::from([byte; 3]),
        }
    }

    #[test]
    fn indices_stay_while_frames_go() {
        for capacity in 1..7 {
            let mut ring = FrameRing::new(capacity);
            for n in 0..40_u8 {
                assert_eq!(ring.push(frame(n)), u64::from(n));
                assert!(ring.len() <= capacity);
                for old in 0..=n {
                    let kept = usize::from(n - old) < capacity;
                    assert_eq!(ring.get(u64::from(old)), kept.then(|| frame(old)));
                }
                assert_eq!(ring.get(u64::from(n) + 1), None);
            }
            ring.clear();
            assert!(ring.is_empty());
            assert_eq!(ring.push(frame(7)), 0);
        }
    }
}
