//! One stream's way to a worker: submit, wait, interrupt.

use super::desk::{Command, Desk, Done, Job, Preview, Shared};
use super::sync::wait_while;
use crate::segmenter::{Request, StreamId};
use std::sync::Arc;
use std::time::Duration;

/// What [`Port::wait`] came back with.
#[derive(Debug, PartialEq)]
pub enum Wait {
    /// The oldest answer.
    Done(Done),
    /// [`Port::interrupt`] was called.
    Interrupted,
    /// The thread is gone or was given up; no answer will come.
    Gone,
    /// Nothing of this stream is queued or under way, so nothing would ever come.
    Idle,
    /// Nothing came in time.
    TimedOut,
}

/// One stream's access to a [`Worker`](super::worker::Worker).
pub struct Port {
    pub(super) shared: Arc<Shared>,
    pub(super) stream: StreamId,
}

impl Port {
    /// The stream that requests have to name.
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// Has `preview` told of every later answer that has planes, before it can be taken.
    pub fn set_preview(&self, preview: Preview) {
        if let Some(lane) = self.shared.desk().lanes.get_mut(&self.stream) {
            lane.preview = Some(preview);
        }
    }

    /// Queues a clip behind those already waiting.
    pub fn submit(&self, job: Job) {
        self.shared.desk().enqueue(self.stream, Command::Run(job));
        self.shared.work.notify_one();
    }

    /// Queues a clip in the place of one of this stream that waits, which is given back.
    pub fn submit_latest(&self, job: Job) -> Option<Job> {
        let mut desk = self.shared.desk();
        let waiting = desk.lanes.get_mut(&self.stream).and_then(|lane| {
            lane.commands.iter_mut().find_map(|(_, command)| match command {
                Command::Run(waiting) => Some(waiting),
                Command::Reset => None,
            })
        });
        if let Some(waiting) = waiting {
            return Some(std::mem::replace(waiting, job));
        }
        desk.enqueue(self.stream, Command::Run(job));
        drop(desk);
        self.shared.work.notify_one();
        None
    }

    /// Drops everything that waits for this stream, answers included, and has the segmenter forget its state. A clip
    /// under way is finished; its answer carries its epoch.
    pub fn reset(&self) {
        let mut desk = self.shared.desk();
        if let Some(lane) = desk.lanes.get_mut(&self.stream) {
            lane.commands.clear();
            lane.mailbox.clear();
        }
        desk.enqueue(self.stream, Command::Reset);
        drop(desk);
        self.shared.work.notify_one();
    }

    /// The oldest answer, if one is there.
    pub fn try_take(&self) -> Option<Done> {
        self.shared
            .desk()
            .lanes
            .get_mut(&self.stream)?
            .mailbox
            .pop_front()
    }

    /// A request that has been answered, for its memory.
    pub fn try_take_spent(&self) -> Option<Request> {
        self.shared.desk().lanes.get_mut(&self.stream)?.spent.pop()
    }

    /// Whether the thread is gone or was given up.
    pub fn is_gone(&self) -> bool {
        self.shared.desk().gone
    }

    /// Waits for an answer, at most `within`. Returns [`Wait::Idle`] instead of waiting for what cannot come.
    pub fn wait(&self, within: Duration) -> Wait {
        let waiting = |desk: &mut Desk| {
            let lane = desk.lanes.get(&self.stream);
            lane.is_some_and(|lane| !lane.interrupted && lane.mailbox.is_empty() && lane.is_pending())
                && !desk.gone
        };
        let mut desk = wait_while(&self.shared.news, self.shared.desk(), within, waiting);
        let gone = desk.gone;
        let Some(lane) = desk.lanes.get_mut(&self.stream) else {
            return Wait::Gone;
        };
        if lane.interrupted {
            Wait::Interrupted
        } else if let Some(done) = lane.mailbox.pop_front() {
            Wait::Done(done)
        } else if gone {
            Wait::Gone
        } else if lane.is_pending() {
            Wait::TimedOut
        } else {
            Wait::Idle
        }
    }

    /// Wakes whoever waits, and keeps later waits from waiting until [`Port::resume`].
    pub fn interrupt(&self) {
        if let Some(lane) = self.shared.desk().lanes.get_mut(&self.stream) {
            lane.interrupted = true;
        }
        self.shared.news.notify_all();
    }

    /// Ends a [`Port::interrupt`].
    pub fn resume(&self) {
        if let Some(lane) = self.shared.desk().lanes.get_mut(&self.stream) {
            lane.interrupted = false;
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let mut desk = self.shared.desk();
        desk.lanes.remove(&self.stream);
        desk.departed.push(self.stream);
        drop(desk);
        self.shared.work.notify_one();
    }
}
