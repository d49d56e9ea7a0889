//! Decodes clips ahead on worker threads and hands them on in order.
//!
//! ```text
//! places --> workers (decode, a few clips ahead) --> one clip after the other, errors in their place
//! ```
//! At most [`LoaderConfig::ahead_clips`] clips are decoded or being decoded at any time, so memory is bounded however
//! slow the consumer is; neighbouring clips share frames through a cache of [`LoaderConfig::cache_frames`]. A clip
//! that cannot be read is an error in its place, and the next clip follows. Dropping the loader stops the workers
//! after the picture each is decoding, and waits for them.

use super::clips::{Clip, ClipFrame, ClipPlace};
use super::dataset::Sequence;
use crate::error::{Error, Result, all_of};
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Most worker threads.
pub const MAX_THREADS: usize = 64;

/// Most clips ahead: 1024 clips of five 1280x1024 frames are 26 GB, far more than anyone needs.
pub const MAX_AHEAD_CLIPS: usize = 1024;

/// How far and on how many threads clips are decoded ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoaderConfig {
    /// Worker threads.
    pub threads: usize,
    /// Clips decoded or being decoded, beyond the one the consumer holds.
    pub ahead_clips: usize,
    /// Decoded frames kept for clips that share them; 0 keeps none. In order of time, two clips' worth is enough.
    pub cache_frames: usize,
}

impl Default for LoaderConfig {
    fn default() -> Self {
        Self {
            threads: 2,
            ahead_clips: 4,
            cache_frames: 10,
        }
    }
}

impl LoaderConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// Threads or clips of 0 or beyond [`MAX_THREADS`] and [`MAX_AHEAD_CLIPS`].
    pub fn validate(&self) -> Result<()> {
        let mut errors = Vec::new();
        for (field, value, most) in [
            ("threads", self.threads, MAX_THREADS),
            ("ahead_clips", self.ahead_clips, MAX_AHEAD_CLIPS),
        ] {
            if value == 0 || value > most {
                errors.push(Error::config(field, value, format!("it has to be 1 to {most}")));
            }
        }
        all_of(errors)
    }
}

/// Sequence and frame.
type FrameKey = (usize, usize);

/// What workers and consumer share.
struct Shared {
    sequences: Vec<Sequence>,
    places: Vec<ClipPlace>,
    config: LoaderConfig,
    desk: Mutex<Desk>,
    /// Anything on the desk has changed.
    changed: Condvar,
    stop: AtomicBool,
    cache: Mutex<VecDeque<(FrameKey, Arc<ClipFrame>)>>,
}

#[derive(Default)]
struct Desk {
    /// First place no worker has taken.
    next: usize,
    /// First place the consumer has not had.
    wanted: usize,
    ready: BTreeMap<usize, Result<Clip>>,
}

/// Clips in the order of their places. See the module.
pub struct Loader {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Loader {
    /// Starts to decode. `places` refer to `sequences` by position.
    ///
    /// # Errors
    /// As [`LoaderConfig::validate`]; a place outside of `sequences`; a thread that cannot be started.
    pub fn new(sequences: &[&Sequence], places: Vec<ClipPlace>, config: LoaderConfig) -> Result<Self> {
        config.validate()?;
        for place in &places {
            let sequence = sequences.get(place.sequence).ok_or_else(|| {
                let bound = format!("there are {} sequences", sequences.len());
                Error::config("sequence of a clip", place.sequence, bound)
            })?;
            for &frame in &place.frames {
                sequence.frame(frame)?;
            }
        }
        let workers = config.threads.min(places.len());
        let shared = Arc::new(Shared {
            sequences: sequences.iter().map(|s| (*s).clone()).collect(),
            places,
            config,
            desk: Mutex::default(),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
            cache: Mutex::default(),
        });
        // Made first, so that workers already started are stopped when one cannot be.
        let mut loader = Self {
            shared,
            workers: Vec::new(),
        };
        for _ in 0..workers {
            let shared = loader.shared.clone();
            let worker = std::thread::Builder::new().name("masam-decode".into());
            loader.workers.push(worker.spawn(move || work(&shared))?);
        }
        Ok(loader)
    }

    /// Clips that are still to come.
    pub fn remaining(&self) -> usize {
        self.shared.places.len() - lock(&self.shared.desk).wanted
    }

    /// Decoded clips that wait to be taken; never more than [`LoaderConfig::ahead_clips`].
    pub fn waiting(&self) -> usize {
        lock(&self.shared.desk).ready.len()
    }
}

impl Iterator for Loader {
    type Item = Result<Clip>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut desk = lock(&self.shared.desk);
        loop {
            if desk.wanted >= self.shared.places.len() {
                return None;
            }
            let wanted = desk.wanted;
            if let Some(clip) = desk.ready.remove(&wanted) {
                desk.wanted += 1;
                self.shared.changed.notify_all();
                return Some(clip);
            }
            desk = wait(&self.shared.changed, desk);
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining(), Some(self.remaining()))
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Under the lock, so that no worker misses it between looking and waiting.
        let desk = lock(&self.shared.desk);
        self.shared.changed.notify_all();
        drop(desk);
        for worker in self.workers.drain(..) {
            // A worker's panics have become errors of their clips.
            let _ = worker.join();
        }
    }
}

/// A worker: takes the next place while it is near enough to the consumer, decodes it, lays it on the desk.
fn work(shared: &Shared) {
    loop {
        let mut desk = lock(&shared.desk);
        let index = loop {
            if shared.stop.load(Ordering::Relaxed) || desk.next >= shared.places.len() {
                return;
            }
            if desk.next < desk.wanted + shared.config.ahead_clips {
                break desk.next;
            }
            desk = wait(&shared.changed, desk);
        };
        desk.next += 1;
        drop(desk);
        let decoded = catch_unwind(AssertUnwindSafe(|| decode(shared, index)));
        let clip = decoded.unwrap_or_else(|_| {
            Err(Error::Unavailable {
                what: format!("clip {index}"),
                why: "decoding it panicked".into(),
            })
        });
        lock(&shared.desk).ready.insert(index, clip);
        shared.changed.notify_all();
    }
}

/// Decodes one clip; gives up between frames when the loader is being dropped.
fn decode(shared: &Shared, index: usize) -> Result<Clip> {
    let gone = || {
        Error::config(
            "clip",
            index,
            "it has to be one of the loader's, while the loader lives",
        )
    };
    let place = shared.places.get(index).ok_or_else(gone)?;
    let sequence = shared.sequences.get(place.sequence).ok_or_else(gone)?;
    let mut frames: Vec<Arc<ClipFrame>> = Vec::with_capacity(place.frames.len());
    for (position, &frame) in place.frames.iter().enumerate() {
        if shared.stop.load(Ordering::Relaxed) {
            return Err(gone());
        }
        let repeated = place.frames[..position].iter().position(|f| *f == frame);
        let key = (place.sequence, frame);
        let known = repeated
            .and_then(|p| frames.get(p).cloned())
            .or_else(|| cached(shared, key));
        let decoded = match known {
            Some(known) => known,
            None => {
                let image = sequence.image(frame)?;
                let labels = sequence.read_labels(frame)?;
                let decoded = Arc::new(ClipFrame { image, labels });
                keep(shared, key, &decoded);
                decoded
            }
        };
        frames.push(decoded);
    }
    Ok(Clip {
        sequence: sequence.name.clone(),
        place: place.clone(),
        frames,
    })
}

fn cached(shared: &Shared, key: FrameKey) -> Option<Arc<ClipFrame>> {
    let cache = lock(&shared.cache);
    cache
        .iter()
        .find(|(k, _)| *k == key)
        .map(|(_, frame)| frame.clone())
}

/// Keeps a frame and forgets the oldest beyond the limit.
fn keep(shared: &Shared, key: FrameKey, frame: &Arc<ClipFrame>) {
    let mut cache = lock(&shared.cache);
    cache.push_back((key, frame.clone()));
    while cache.len() > shared.config.cache_frames {
        cache.pop_front();
    }
}

/// Panics are caught before they can leave anything half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait<'a, T>(changed: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    changed.wait(guard).unwrap_or_else(PoisonError::into_inner)
}
