//! What a worker and its ports share: a queue and a mailbox per stream.

use super::batch::BatchPace;
use super::stats::{Recent, RecentShare};
use super::sync::{Condvar, Mutex, MutexGuard};
use super::time::Clock;
use crate::pulse::Pulse;
use crate::segmenter::{Reply, Request, SegmentError, StreamId};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, PoisonError};

/// Most clips in one batch: each takes the memory of a forward pass.
const BATCH_CLIPS: usize = 8;

/// Most answered requests kept for their stream.
pub(super) const SPENT: usize = 2;

/// One clip to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// The epoch of its frames.
    pub epoch: u64,
    /// Number of the clip, unique within its engine.
    pub clip: u64,
    /// What the segmenter is asked.
    pub request: Request,
}

/// The answer to a [`Job`].
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    /// Whose clip it was.
    pub stream: StreamId,
    /// The job's epoch.
    pub epoch: u64,
    /// The job's number.
    pub clip: u64,
    /// Planes, or why there are none.
    pub result: std::result::Result<Reply, SegmentError>,
    /// Time the forward pass took.
    pub forward_nanos: u64,
}

/// Numbers of a worker.
#[derive(Debug, Clone, Default)]
pub struct WorkerStats {
    /// Nanoseconds per forward pass.
    pub forward_nanos: Recent,
    /// Their median.
    pub median_nanos: Option<u64>,
    /// Forward passes that have been answered, failed ones included.
    pub passes: u64,
    /// How often the model was opened anew.
    pub restarts: u64,
    /// The largest batch so far, in clips.
    pub largest_batch: usize,
}

/// Told of the epoch and of an answer before it can be taken, on the worker's thread, so that a viewer can prepare for it. The answer waits
/// a short time for what comes when that is done, if there is anything to wait for.
pub type Preview = Arc<dyn Fn(u64, &Reply) -> Option<Receiver<()>> + Send + Sync>;

pub(super) enum Command {
    Run(Job),
    Reset,
}

/// What the thread does next.
pub(super) enum Work {
    Batch(Vec<Job>),
    Reset(StreamId),
    Stop,
}

/// One stream's part of the desk.
#[derive(Default)]
pub(super) struct Lane {
    /// With the order of their arrival.
    pub commands: VecDeque<(u64, Command)>,
    pub mailbox: VecDeque<Done>,
    /// Requests that have been answered, for their memory.
    pub spent: Vec<Request>,
    /// A job of this stream is under way.
    pub busy: bool,
    pub interrupted: bool,
    pub preview: Option<Preview>,
}

/// What worker and ports share. The lock is held for queue operations only.
#[derive(Default)]
pub(super) struct Desk {
    pub lanes: BTreeMap<StreamId, Lane>,
    /// Streams that have left, whose state the segmenter still holds.
    pub departed: Vec<StreamId>,
    pub arrivals: u64,
    /// When the batch under way was begun.
    pub busy_since_nanos: Option<u64>,
    pub stopping: bool,
    /// The thread has ended, or nobody waits for it any more.
    pub gone: bool,
    /// The thread has ended.
    pub ended: bool,
    /// Where it is counted until then.
    pub left: Option<LeftThreads>,
    pub stats: WorkerStats,
    pub processor: RecentShare,
    pub pace: BatchPace,
}

/// Counts threads that were left to themselves and have not ended yet: they hold the memory of a model each.
#[derive(Debug, Clone, Default)]
pub struct LeftThreads(Arc<AtomicU32>);

impl LeftThreads {
    /// How many there are now.
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn one_more(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn one_less(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) struct Shared {
    pub desk: Mutex<Desk>,
    /// Signals the thread: commands or stop.
    pub work: Condvar,
    /// Signals the ports: answers, interrupts or gone.
    pub news: Condvar,
    pub clock: Clock,
    pub pulse: Pulse,
}

impl Shared {
    /// The desk; it holds plain queues, so a panic elsewhere cannot have left it half changed.
    pub fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    /// Whether an answer can still come.
    pub fn is_pending(&self) -> bool {
        self.busy || !self.commands.is_empty()
    }
}

impl Desk {
    /// The command that came first; with it, where it is a clip, the waiting clips of other streams.
    pub fn next_work(&mut self, now_nanos: u64) -> Option<Work> {
        if self.stopping {
            return Some(Work::Stop);
        }
        if let Some(stream) = self.departed.pop() {
            return Some(Work::Reset(stream));
        }
        let arrival = |lane: &Lane| lane.commands.front().map(|(order, _)| *order);
        let (first, _) = self
            .lanes
            .iter()
            .filter_map(|(id, lane)| Some((*id, arrival(lane)?)))
            .min_by_key(|x| x.1)?;
        let lane = self.lanes.get_mut(&first)?;
        if matches!(lane.commands.front(), Some((_, Command::Reset))) {
            lane.commands.pop_front();
            return Some(Work::Reset(first));
        }
        let mut batch = Vec::new();
        let mut others: Vec<(u64, StreamId)> = self
            .lanes
            .iter()
            .filter(|(id, _)| **id != first)
            .filter_map(|(id, lane)| Some((arrival(lane)?, *id)))
            .collect();
        // Where not all fit, those that have waited longest.
        others.sort_unstable();
        let most = if others.is_empty() {
            1
        } else {
            self.pace.most_clips(BATCH_CLIPS)
        };
        for id in std::iter::once(first).chain(others.into_iter().map(|(_, id)| id)) {
            let Some(lane) = self.lanes.get_mut(&id) else {
                continue;
            };
            if let Some((order, command)) = lane.commands.pop_front() {
                match command {
                    Command::Run(job) => {
                        lane.busy = true;
                        batch.push(job);
                    }
                    Command::Reset => lane.commands.push_front((order, command)),
                }
            }
            if batch.len() >= most {
                break;
            }
        }
        self.busy_since_nanos = Some(now_nanos);
        self.stats.largest_batch = self.stats.largest_batch.max(batch.len());
        Some(Work::Batch(batch))
    }

    pub fn enqueue(&mut self, stream: StreamId, command: Command) {
        let order = self.arrivals;
        self.arrivals += 1;
        if let Some(lane) = self.lanes.get_mut(&stream) {
            lane.commands.push_back((order, command));
        }
    }
}
