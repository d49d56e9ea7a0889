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

use super::desk::{Desk, Lane, Shared, Work};
use super::keeper::Keeper;
use super::time::Clock;
use crate::error::{Error, Result};
use crate::segmenter::{Request, Segmenter, SegmenterSpec, StreamId, panic_message};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

pub use super::desk::{Done, Job, WorkerStats};
pub use super::port::{Port, Wait};

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

/// Scheduling priority of the worker's thread and of those that it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Priority {
    /// As the thread that starts it.
    #[default]
    Inherited,
    /// The lowest (nice 19 on Linux): streaming threads win.
    Lowest,
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
        let (opened, is_open) = std::sync::mpsc::sync_channel(1);
        let (shared, thread) = start(config, move |keeper| {
            let first = keeper.open(&open);
            let spec = first.map(|segmenter| {
                let spec = segmenter.spec().clone();
                keeper.segmenter = Some(segmenter);
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

    /// Drops what waits, lets a batch under way end, and joins the thread, waiting at most `within`. Ports find it
    /// gone. A second call finds nothing to join.
    pub fn stop(&self, within: Duration) -> Stopped {
        let mut desk = self.shared.desk();
        desk.stopping = true;
        for lane in desk.lanes.values_mut() {
            lane.commands.clear();
        }
        self.shared.work.notify_all();
        let (mut desk, _) = self
            .shared
            .news
            .wait_timeout_while(desk, within, |desk| !desk.gone)
            .unwrap_or_else(PoisonError::into_inner);
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
    });
    let theirs = Arc::clone(&shared);
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        let _gone = Gone(Arc::clone(&theirs));
        if priority == Priority::Lowest {
            lower_priority();
        }
        let mut keeper = Keeper::default();
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
        self.0.desk().gone = true;
        self.0.news.notify_all();
    }
}

/// Serves commands until stopped.
fn serve(shared: &Shared, keeper: &mut Keeper, open: &Open) {
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
                let mut desk = shared.desk();
                desk.stats.passes += 1;
                desk.stats.restarts += keeper.restarts - restarts;
                if results.iter().any(std::result::Result::is_ok) {
                    desk.stats.forward_nanos.add(forward_nanos);
                }
                for (job, result) in jobs.into_iter().zip(results) {
                    let (stream, epoch, clip) = (job.request.stream, job.epoch, job.clip);
                    // A stream that has left the worker has no lane any more.
                    if let Some(lane) = desk.lanes.get_mut(&stream) {
                        lane.busy = false;
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

/// Gives this thread, and those it will start, the lowest priority.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    {
        unsafe extern "C" {
            fn setpriority(
                which: std::ffi::c_int,
                who: std::ffi::c_uint,
                priority: std::ffi::c_int,
            ) -> std::ffi::c_int;
        }
        const PRIO_PROCESS: std::ffi::c_int = 0;
        const NICEST: std::ffi::c_int = 19;
        // SAFETY: the signature is the C library's; the call takes numbers only. On Linux 0 is the calling thread.
        let result = unsafe { setpriority(PRIO_PROCESS, 0, NICEST) };
        if result != 0 {
            tracing::debug!("the worker's priority stays: {}", std::io::Error::last_os_error());
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::geometry::Orientation;
    use crate::labels::ClassSet;
    use crate::segmenter::{ModelFrame, Plane, Prompt, Reply, Resize, SegmentError, Temporal, Want};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Instant;

    /// Says when it begins a batch, and then waits for leave to end it.
    struct Gated {
        spec: SegmenterSpec,
        begun: Sender<Vec<u8>>,
        leave: Arc<Mutex<Receiver<()>>>,
    }

    impl Segmenter for Gated {
        fn spec(&self) -> &SegmenterSpec {
            &self.spec
        }

        fn segment(
            &mut self,
            requests: &[Request],
            _: Option<Instant>,
        ) -> Vec<std::result::Result<Reply, SegmentError>> {
            let bytes: Vec<u8> = requests.iter().map(|r| r.frames[0].rgb[0]).collect();
            let _ = self.begun.send(bytes.clone());
            let _ = self.leave.lock().unwrap().recv();
            assert!(!bytes.contains(&13), "thirteen");
            let answer = |byte| match byte {
                14 => Err(SegmentError::Forward("fourteen".into())),
                byte => Ok(Reply {
                    planes: vec![Plane::Labels(vec![byte])],
                }),
            };
            bytes.into_iter().map(answer).collect()
        }
    }

    fn spec() -> SegmenterSpec {
        SegmenterSpec {
            model_id: "gated".into(),
            clip_frames: 1,
            side_px: 1,
            classes: ClassSet::endovis_2018(),
            resize: Resize::Area,
            orientation: Orientation::Upright,
            frame_interval_nanos: None,
            temporal: Temporal::Centered,
            untrained: true,
            device: "none".into(),
        }
    }

    pub fn job(port: &Port, epoch: u64, byte: u8) -> Job {
        let frames = vec![ModelFrame {
            rgb: Arc::from([byte; 3]),
        }];
        let (stream, want, prompt) = (port.stream(), Want::Labels, Prompt::default());
        Job {
            epoch,
            clip: u64::from(byte),
            request: Request {
                stream,
                frames,
                outputs: vec![0],
                want,
                prompt,
                step: None,
            },
        }
    }

    /// An opener; what its segmenters begin; and leave for them to end.
    pub fn gated_open() -> (Open, Receiver<Vec<u8>>, Sender<()>) {
        let (begun, is_begun) = channel();
        let (give, leave) = channel();
        let leave = Arc::new(Mutex::new(leave));
        let begun = Mutex::new(begun);
        let open = move || {
            let begun = begun.lock().unwrap().clone();
            Ok(Box::new(Gated {
                spec: spec(),
                begun,
                leave: Arc::clone(&leave),
            }) as Box<dyn Segmenter>)
        };
        (Arc::new(open), is_begun, give)
    }

    /// A clock that moves on by ten with every reading.
    fn config() -> WorkerConfig {
        let ticks = AtomicU64::new(0);
        let clock = Arc::new(move || ticks.fetch_add(10, Ordering::Relaxed));
        WorkerConfig {
            name: "test-worker".into(),
            clock,
            priority: Priority::Inherited,
        }
    }

    /// Ends a test that would hang; no test waits it out.
    pub const LONG: Duration = Duration::from_secs(60);

    fn done(wait: Wait) -> Done {
        if let Wait::Done(done) = wait {
            done
        } else {
            panic!("{wait:?}")
        }
    }

    #[test]
    fn answers_come_in_order_and_panics_are_answers() {
        let (open, _begun, leave) = gated_open();
        let worker = Worker::spawn(config(), open).unwrap();
        let port = worker.port(unique_stream());
        assert_eq!(port.wait(LONG), Wait::Idle);
        for byte in [1, 13, 2] {
            port.submit(job(&port, 7, byte));
            leave.send(()).unwrap();
        }
        let first = done(port.wait(LONG));
        assert_eq!((first.epoch, first.clip), (7, 1));
        assert!(first.forward_nanos >= 10);
        assert!(
            matches!(done(port.wait(LONG)).result, Err(SegmentError::Panicked(m)) if m.contains("thirteen"))
        );
        assert_eq!(
            done(port.wait(LONG)).result.unwrap().planes,
            [Plane::Labels(vec![2])]
        );
        assert_eq!(worker.stats().restarts, 1, "a model that panicked is opened anew");
        assert_eq!(worker.stop(LONG), Stopped::Joined);
        assert_eq!(port.wait(LONG), Wait::Gone);
    }

    #[test]
    fn an_interrupt_wakes_a_waiter_while_a_clip_is_under_way() {
        let (open, begun, leave) = gated_open();
        let worker = Worker::spawn(config(), open).unwrap();
        let port = worker.port(unique_stream());
        port.submit(job(&port, 0, 1));
        assert_eq!(begun.recv().unwrap(), [1]);
        assert_eq!(port.wait(Duration::ZERO), Wait::TimedOut);
        let woken = std::thread::scope(|scope| {
            let waiter = scope.spawn(|| port.wait(LONG));
            port.interrupt();
            waiter.join().unwrap()
        });
        assert_eq!(woken, Wait::Interrupted);
        port.submit(job(&port, 0, 2));
        port.reset(); // drops clip 2, not the one under way
        port.resume();
        leave.send(()).unwrap();
        assert_eq!(done(port.wait(LONG)).clip, 1);
        assert_eq!(port.wait(LONG), Wait::Idle);
        assert_eq!(worker.stop(LONG), Stopped::Joined);
    }

    #[test]
    fn the_latest_clip_takes_the_place_of_one_that_waits() {
        let (open, begun, leave) = gated_open();
        let worker = Worker::spawn(config(), open).unwrap();
        let port = worker.port(unique_stream());
        assert!(port.submit_latest(job(&port, 0, 1)).is_none());
        begun.recv().unwrap(); // under way: no longer waiting
        assert!(port.submit_latest(job(&port, 0, 2)).is_none());
        assert_eq!(port.submit_latest(job(&port, 0, 3)).unwrap().clip, 2);
        leave.send(()).unwrap();
        leave.send(()).unwrap();
        assert_eq!(done(port.wait(LONG)).clip, 1);
        assert_eq!(done(port.wait(LONG)).clip, 3);
        assert_eq!(port.wait(LONG), Wait::Idle);
    }

    #[test]
    fn streams_share_a_worker_and_batch_together() {
        let (open, begun, leave) = gated_open();
        let worker = Worker::spawn(config(), open).unwrap();
        let ports: Vec<Port> = (0..3).map(|_| worker.port(unique_stream())).collect();
        ports[0].submit(job(&ports[0], 0, 1));
        assert_eq!(begun.recv().unwrap(), [1]);
        // These wait together; the failing one fails alone, and is run again alone.
        ports[2].submit(job(&ports[2], 0, 5));
        ports[1].submit(job(&ports[1], 0, 14));
        ports[0].submit(job(&ports[0], 0, 6));
        for _ in 0..3 {
            leave.send(()).unwrap();
        }
        assert_eq!(
            begun.recv().unwrap(),
            [5, 6, 14],
            "the first to come, then the others by stream"
        );
        assert_eq!(done(ports[0].wait(LONG)).clip, 1);
        assert_eq!(
            done(ports[0].wait(LONG)).result.unwrap().planes,
            [Plane::Labels(vec![6])]
        );
        assert!(done(ports[1].wait(LONG)).result.is_err());
        assert_eq!(
            done(ports[2].wait(LONG)).result.unwrap().planes,
            [Plane::Labels(vec![5])]
        );
        assert_eq!(worker.stats().largest_batch, 3);
        drop(ports);
        assert!(worker.shared.desk().lanes.is_empty());
    }

    #[test]
    fn a_hung_pass_is_left_behind() {
        let (open, begun, leave) = gated_open();
        let worker = Worker::spawn(config(), open).unwrap();
        let port = worker.port(unique_stream());
        port.submit(job(&port, 0, 1));
        begun.recv().unwrap();
        assert_eq!(worker.stop(Duration::from_millis(1)), Stopped::Detached);
        assert_eq!(port.wait(LONG), Wait::Gone);
        leave.send(()).unwrap(); // lets the thread end
    }

    #[test]
    fn a_model_that_keeps_failing_is_opened_anew_with_growing_pauses() {
        let (inner, _begun, leave) = gated_open();
        let now = Arc::new(AtomicU64::new(0));
        let (clock, opened) = (Arc::clone(&now), Arc::new(AtomicU64::new(0)));
        let counter = Arc::clone(&opened);
        let open: Open = Arc::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            inner()
        });
        let clock: Clock = Arc::new(move || clock.load(Ordering::Relaxed));
        let config = WorkerConfig { clock, ..config() };
        let worker = Worker::spawn(config, open).unwrap();
        let port = worker.port(unique_stream());
        let fail = |second: u64| {
            now.store(second * 1_000_000_000, Ordering::Relaxed);
            leave.send(()).unwrap();
            port.submit(job(&port, 0, 13));
            let Err(error) = done(port.wait(LONG)).result else {
                panic!("it failed")
            };
            error.to_string()
        };
        assert!(fail(0).contains("thirteen"));
        assert!(fail(0).contains("thirteen"), "opened anew at once");
        assert!(fail(0).contains("not open"), "then after a second");
        assert!(fail(1).contains("thirteen"));
        assert!(fail(2).contains("not open"), "then after two");
        assert!(fail(3).contains("thirteen"));
        assert_eq!((opened.load(Ordering::Relaxed), worker.stats().restarts), (4, 3));
    }

    #[test]
    fn errors_and_panics_of_opening_come_back() {
        let failed = Worker::spawn(
            config(),
            Arc::new(|| Err(Error::config("model", "x", "it has to be y"))),
        );
        assert!(failed.err().unwrap().to_string().contains("model is x"));
        let panicked = Worker::spawn(config(), Arc::new(|| panic!("bang")));
        assert!(panicked.err().unwrap().to_string().contains("bang"));
    }
}
