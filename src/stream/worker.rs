//! The one thread that owns the model: clips go in, answers come out, nobody holds a lock meanwhile.
//!
//! Several streams can share it. Each has a [`Port`]: its own queue, its own mailbox, and its own interrupt, which is
//! what a flush uses to wake whoever waits. Clips of different streams that wait at the same time run as one batch.
//!
//! ```text
//! Port::submit(Job) --> commands --> [thread: segment_isolated] --> mailbox --> Port::wait() -> Done
//! ```
//!
//! The model is opened on the thread itself, so that threads it starts inherit its priority, and opened anew when it
//! panics or keeps failing ([`super::restart`]).

use super::desk::{Desk, Lane, SPENT, Shared, Work};
use super::keeper::Keeper;
use super::stats::{LATELY_NANOS, Recent};
use super::sync::{Builder, Condvar, JoinHandle, Mutex, channel, wait_while};
use super::time::Clock;
use crate::error::{Error, Result};
use crate::pulse::Pulse;
use crate::segmenter::{Reply, Request, SegmentError, Segmenter, SegmenterSpec, StreamId, panic_message};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

pub use super::desk::{Done, Job, LeftThreads, Preview, WorkerStats};
pub use super::port::{Port, Wait};
pub use crate::priority::Priority;

/// How long the answers of a batch wait for what viewers prepare: far longer than that takes, and less than a frame.
const PREVIEWS: Duration = Duration::from_millis(20);

/// Opens the model; called again after faults.
pub type Open = Arc<dyn Fn() -> Result<Box<dyn Segmenter>> + Send + Sync>;

/// How a worker is set up.
#[derive(Clone)]
pub struct WorkerConfig {
    /// Name of the thread.
    pub name: String,
    /// What forward passes are timed with.
    pub clock: Clock,
    /// Against other threads of the machine.
    pub priority: Priority,
}

/// How [`Worker::stop`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// The thread has ended.
    Joined,
    /// A forward pass did not end in time: the thread was left to itself and ends after it.
    Detached,
}

/// A name for a stream that no other stream of this process has.
pub fn unique_stream() -> StreamId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    StreamId(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Owner's side of the thread.
pub struct Worker {
    shared: Arc<Shared>,
    /// Taken by [`Worker::stop`].
    thread: Mutex<Option<JoinHandle<()>>>,
    spec: SegmenterSpec,
}

impl Worker {
    /// Starts the thread and returns when it has opened the model.
    ///
    /// # Errors
    /// What `open` gave, a panic inside it, or a thread that could not be started.
    pub fn spawn(config: WorkerConfig, open: Open) -> Result<Self> {
        let (opened, is_open) = channel();
        let (shared, thread) = start(config, move |keeper| {
            let first = keeper.open(&open);
            let spec = first.map(|segmenter| {
                let spec = segmenter.spec().clone();
                (keeper.segmenter, keeper.was_open) = (Some(segmenter), true);
                spec
            });
            let go_on = spec.is_ok();
            keeper.spec = spec.as_ref().ok().cloned();
            // The owner waits for exactly this message, so it is there to take it.
            let _ = opened.send(spec);
            go_on.then_some(open)
        })?;
        let spec = is_open.recv().unwrap_or_else(|_| {
            let why = "its thread ended while opening it".into();
            Err(Error::Unavailable {
                what: "the model".into(),
                why,
            })
        })?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
            spec,
        })
    }

    /// Starts a thread in place of one that was given up. Returns at once; clips wait until the model is open.
    ///
    /// # Errors
    /// A thread that could not be started.
    pub fn replace(config: WorkerConfig, open: Open, spec: SegmenterSpec) -> Result<Self> {
        let expected = spec.clone();
        let (shared, thread) = start(config, move |keeper| {
            keeper.spec = Some(expected);
            Some(open)
        })?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
            spec,
        })
    }

    /// What the model wants and gives.
    pub fn spec(&self) -> &SegmenterSpec {
        &self.spec
    }

    /// Access to the worker for `stream`, of which there is one port at a time.
    pub fn port(&self, stream: StreamId) -> Port {
        self.shared.desk().lanes.insert(stream, Lane::default());
        Port {
            shared: Arc::clone(&self.shared),
            stream,
        }
    }

    /// What has been measured since the thread was started.
    pub fn stats(&self) -> WorkerStats {
        self.shared.desk().stats.clone()
    }

    /// For how long the batch under way has been running at `now_nanos`.
    pub fn busy_nanos(&self, now_nanos: u64) -> Option<u64> {
        self.shared
            .desk()
            .busy_since_nanos
            .map(|since| now_nanos.saturating_sub(since))
    }

    /// How often the model has shown that it goes on, also while it is opened.
    pub fn beats(&self) -> u64 {
        self.shared.pulse.beats()
    }

    /// The part of the processor time that the model's threads wanted lately and had, 0 to 1, at `now_nanos` of the
    /// worker's clock; `None` where they wanted none, or the system does not tell.
    pub fn processor_share(&self, now_nanos: u64) -> Option<f64> {
        let time = self.shared.pulse.processor_time();
        self.shared.desk().processor.share(now_nanos, time)
    }

    /// Forward passes that have ended.
    pub fn passes(&self) -> u64 {
        self.shared.desk().stats.passes
    }

    /// Median of the forward passes.
    pub fn median_nanos(&self) -> Option<u64> {
        self.shared.desk().stats.median_nanos
    }

    /// Drops what waits, lets a batch under way end, and joins the thread, waiting at most `within`. Ports find it
    /// gone. A second call finds nothing to join.
    pub fn stop(&self, within: Duration) -> Stopped {
        let mut desk = self.shared.desk();
        desk.stopping = true;
        for lane in desk.lanes.values_mut() {
            lane.commands.clear();
        }
        self.shared.work.notify_all();
        let mut desk = wait_while(&self.shared.news, desk, within, |desk| !desk.gone);
        let ended = std::mem::replace(&mut desk.gone, true);
        drop(desk);
        self.shared.news.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if !ended {
            return Stopped::Detached;
        }
        if let Some(Err(payload)) = thread.map(JoinHandle::join) {
            tracing::warn!("the worker panicked: {}", panic_message(payload.as_ref()));
        }
        Stopped::Joined
    }

    /// Counts the thread, which was left to itself, in `left` until it ends.
    pub fn count_in(&self, left: &LeftThreads) {
        let mut desk = self.shared.desk();
        if !desk.ended && desk.left.is_none() {
            left.one_more();
            desk.left = Some(left.clone());
        }
    }
}

impl Drop for Worker {
    /// Lets the thread end by itself.
    fn drop(&mut self) {
        self.shared.desk().stopping = true;
        self.shared.work.notify_all();
    }
}

/// Starts the thread: `begin` sets up its keeper and gives what opens the model, or nothing to end at once.
fn start(
    config: WorkerConfig,
    begin: impl FnOnce(&mut Keeper) -> Option<Open> + Send + 'static,
) -> Result<(Arc<Shared>, JoinHandle<()>)> {
    let WorkerConfig {
        name,
        clock,
        priority,
    } = config;
    let desk = Mutex::<Desk>::default();
    let shared = Arc::new(Shared {
        desk,
        work: Condvar::new(),
        news: Condvar::new(),
        clock,
        pulse: Pulse::new(),
    });
    let theirs = Arc::clone(&shared);
    let thread = Builder::new().name(name).spawn(move || {
        let _gone = Gone(Arc::clone(&theirs));
        priority.enter();
        let mut keeper = Keeper::new(theirs.pulse.clone());
        if let Some(open) = begin(&mut keeper) {
            serve(&theirs, &mut keeper, &open);
        }
        keeper.discard();
    })?;
    Ok((shared, thread))
}

/// Marks the thread as gone however it ends.
struct Gone(Arc<Shared>);

impl Drop for Gone {
    fn drop(&mut self) {
        let mut desk = self.0.desk();
        (desk.gone, desk.ended) = (true, true);
        if let Some(left) = desk.left.take() {
            left.one_less();
        }
        drop(desk);
        self.0.news.notify_all();
    }
}

/// Serves commands until stopped.
fn serve(shared: &Shared, keeper: &mut Keeper, open: &Open) {
    // The same numbers as the desk's, so that their median is not sought while a video waits for the desk.
    let mut forward = Recent::default();
    // When the threads' processor time was last looked up.
    let mut measured = 0_u64;
    loop {
        let work = {
            let mut desk = shared.desk();
            loop {
                desk.busy_since_nanos = None;
                if let Some(work) = desk.next_work((shared.clock)()) {
                    break work;
                }
                desk = shared.work.wait(desk).unwrap_or_else(PoisonError::into_inner);
            }
        };
        match work {
            Work::Stop => return,
            Work::Reset(stream) => keeper.reset(stream),
            Work::Batch(jobs) => {
                let begun = (shared.clock)();
                let requests: Vec<Request> = jobs.iter().map(|job| job.request.clone()).collect();
                let restarts = keeper.restarts;
                let results = keeper.run(&requests, open, &shared.clock);
                let forward_nanos = (shared.clock)().saturating_sub(begun);
                let is_good = results.iter().any(std::result::Result::is_ok);
                if is_good {
                    forward.add(forward_nanos);
                }
                let median_nanos = forward.percentile(50);
                drop(requests);
                preview(shared, &jobs, &results);
                let over = begun.saturating_add(forward_nanos);
                let had = (over >= measured.saturating_add(LATELY_NANOS)).then(|| {
                    measured = over;
                    shared.pulse.processor_time()
                });
                let mut desk = shared.desk();
                if let Some(time) = had {
                    desk.processor.share(over, time);
                }
                desk.stats.passes += 1;
                desk.stats.restarts += keeper.restarts - restarts;
                if is_good {
                    desk.stats.forward_nanos.add(forward_nanos);
                    desk.stats.median_nanos = median_nanos;
                }
                // Rows that failed were run twice.
                if results.iter().all(std::result::Result::is_ok) {
                    desk.pace.took(results.len(), forward_nanos);
                }
                for (job, result) in jobs.into_iter().zip(results) {
                    let (stream, epoch, clip) = (job.request.stream, job.epoch, job.clip);
                    // A stream that has left the worker has no lane any more.
                    if let Some(lane) = desk.lanes.get_mut(&stream) {
                        lane.busy = false;
                        if lane.spent.len() < SPENT {
                            lane.spent.push(job.request);
                        }
                        lane.mailbox.push_back(Done {
                            stream,
                            epoch,
                            clip,
                            result,
                            forward_nanos,
                        });
                    }
                }
            }
        }
        shared.news.notify_all();
    }
}

/// Tells whom the streams have named of their answers, and waits for all of them for at most [`PREVIEWS`].
fn preview(shared: &Shared, jobs: &[Job], results: &[std::result::Result<Reply, SegmentError>]) {
    let tell = |(job, result): (&Job, &std::result::Result<Reply, SegmentError>)| {
        let reply = result.as_ref().ok()?;
        let lane_of = |desk: &Desk| desk.lanes.get(&job.request.stream)?.preview.clone();
        let preview = lane_of(&shared.desk())?;
        preview(job.epoch, reply)
    };
    let told: Vec<_> = jobs.iter().zip(results).filter_map(tell).collect();
    if told.is_empty() {
        return;
    }
    let until = Instant::now() + PREVIEWS;
    for done in told {
        // Late, or given up: the answer goes on.
        let _ = done.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

#[cfg(test)]
pub(super) mod tests;
