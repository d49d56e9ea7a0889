//! Worker, ports and supervisor in every order in which their threads can run, up to a number of preemptions: the very
//! code, on loom's locks (src/stream/sync.rs). `scripts/sanitize.sh loom` runs it; without `--cfg masam_loom` it is empty.

#![cfg(masam_loom)]

mod loom_support;

use loom::thread;
use loom_support::in_every_order;
use masam::geometry::Orientation;
use masam::labels::ClassSet;
use masam::segmenter::{
    ModelFrame, Plane, Prompt, Reply, Request, Resize, SegmentError, Segmenter, SegmenterSpec, StreamId,
    Temporal, Want,
};
use masam::stream::{
    Done, Incident, Job, LeftThreads, Open, Port, Priority, Stopped, Supervisor, Wait, Worker, WorkerConfig,
};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// For ever, to loom.
const LONG: Duration = Duration::from_secs(60);

/// What the segmenter was told, in order. No other thread ever waits for this lock.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Segment(StreamId, u8),
    Reset(StreamId),
}

type Log = Arc<Mutex<Vec<Told>>>;

struct Echo {
    spec: SegmenterSpec,
    log: Log,
}

impl Segmenter for Echo {
    fn spec(&self) -> &SegmenterSpec {
        &self.spec
    }

    /// A frame's byte as its label.
    fn segment(&mut self, requests: &[Request], _: Option<Instant>) -> Vec<Result<Reply, SegmentError>> {
        let bytes: Vec<u8> = requests.iter().map(|request| request.frames[0].rgb[0]).collect();
        for (request, byte) in requests.iter().zip(&bytes) {
            self.log
                .lock()
                .unwrap()
                .push(Told::Segment(request.stream, *byte));
        }
        let reply = |byte: u8| Reply {
            planes: vec![Plane::Labels(vec![byte])],
        };
        bytes.into_iter().map(|byte| Ok(reply(byte))).collect()
    }

    fn reset(&mut self, stream: StreamId) {
        self.log.lock().unwrap().push(Told::Reset(stream));
    }
}

fn spec() -> SegmenterSpec {
    SegmenterSpec {
        model_id: "echo".into(),
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

fn config() -> WorkerConfig {
    WorkerConfig {
        name: "worker".into(),
        clock: Arc::new(|| 0),
        priority: Priority::Normal,
    }
}

fn open(log: &Log) -> Open {
    let log = Arc::clone(log);
    Arc::new(move || {
        let (spec, log) = (spec(), Arc::clone(&log));
        Ok(Box::new(Echo { spec, log }) as Box<dyn Segmenter>)
    })
}

fn worker(log: &Log) -> Worker {
    Worker::replace(config(), open(log), spec()).unwrap()
}

fn job(port: &Port, epoch: u64, byte: u8) -> Job {
    let rgb = Arc::from([byte; 3]);
    let (stream, want, prompt) = (port.stream(), Want::Labels, Prompt::default());
    let request = Request {
        stream,
        frames: vec![ModelFrame { rgb }],
        outputs: vec![0],
        want,
        prompt,
        step: None,
    };
    let clip = u64::from(byte);
    Job { epoch, clip, request }
}

/// Whether the answer is that of its own clip.
fn checked(done: Done) -> u64 {
    let label = u8::try_from(done.clip).unwrap();
    assert_eq!(done.result.unwrap().planes, [Plane::Labels(vec![label])]);
    done.clip
}

/// Every clip that is handed in is given back or answered, once, in order, and the newest is always answered.
#[test]
fn no_clip_is_lost_or_answered_twice() {
    in_every_order(3, || {
        let log = Log::default();
        let worker = worker(&log);
        let port = worker.port(StreamId(1));
        let mut back = Vec::new();
        let mut answered = Vec::new();
        for byte in 1..=3 {
            back.extend(port.submit_latest(job(&port, 0, byte)).map(|job| job.clip));
            answered.extend(port.try_take().map(checked));
        }
        loop {
            match port.wait(LONG) {
                Wait::Done(done) => answered.push(checked(done)),
                Wait::Idle => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(
            answered.is_sorted() && answered.last() == Some(&3),
            "{answered:?}"
        );
        back.extend(&answered);
        back.sort_unstable();
        assert_eq!(back, [1, 2, 3]);
        assert_eq!(worker.stop(LONG), Stopped::Joined);
    });
}

/// A flush in another thread: whoever waits comes back, and after it nothing of the old epoch but a clip that was
/// under way. The segmenter forgets the stream before it sees the new epoch.
#[test]
fn a_flush_wakes_the_waiter_and_ends_the_epoch() {
    in_every_order(2, || {
        let log = Log::default();
        let worker = worker(&log);
        let port = Arc::new(worker.port(StreamId(1)));
        port.submit(job(&port, 0, 1));
        port.submit(job(&port, 0, 2));
        let flusher = {
            let port = Arc::clone(&port);
            thread::spawn(move || port.interrupt())
        };
        let mut old = 0;
        while let Wait::Done(_) = port.wait(LONG) {
            old += 1;
        }
        flusher.join().unwrap();
        assert!(old <= 2);
        assert_eq!(port.wait(LONG), Wait::Interrupted, "until it is resumed");
        port.reset();
        port.resume();
        port.submit(job(&port, 1, 3));
        let mut late = 0;
        loop {
            match port.wait(LONG) {
                Wait::Done(done) if done.epoch == 0 => late += 1,
                Wait::Done(done) => {
                    assert_eq!(checked(done), 3);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(late <= 1, "{late} clips were under way");
        assert_eq!(port.wait(LONG), Wait::Idle);
        let log = log.lock().unwrap().clone();
        // A model that was not open yet has nothing to forget.
        let reset = log.iter().position(|told| *told == Told::Reset(StreamId(1)));
        let new = log.iter().position(|told| *told == Told::Segment(StreamId(1), 3));
        assert!(new == Some(0) || (reset.is_some() && reset < new), "{log:?}");
        assert_eq!(worker.stop(LONG), Stopped::Joined);
    });
}

/// Answers once it is let.
struct Gated {
    spec: SegmenterSpec,
    gate: Gate,
}

type Gate = Arc<(loom::sync::Mutex<bool>, loom::sync::Condvar)>;

impl Segmenter for Gated {
    fn spec(&self) -> &SegmenterSpec {
        &self.spec
    }

    fn segment(&mut self, requests: &[Request], _: Option<Instant>) -> Vec<Result<Reply, SegmentError>> {
        let (is_open, opened) = &*self.gate;
        let mut is_open = is_open.lock().unwrap();
        while !*is_open {
            is_open = opened.wait(is_open).unwrap();
        }
        requests
            .iter()
            .map(|_| Ok(Reply { planes: Vec::new() }))
            .collect()
    }
}

/// While a clip is under way nothing but the interrupt can wake who waits for it.
#[test]
fn an_interrupt_wakes_the_waiter_of_a_clip_under_way() {
    in_every_order(3, || {
        let gate = Gate::default();
        let theirs = Arc::clone(&gate);
        let open: Open = Arc::new(move || {
            let (spec, gate) = (spec(), Arc::clone(&theirs));
            Ok(Box::new(Gated { spec, gate }) as Box<dyn Segmenter>)
        });
        let worker = Worker::replace(config(), open, spec()).unwrap();
        let port = Arc::new(worker.port(StreamId(1)));
        port.submit(job(&port, 0, 1));
        let flusher = {
            let port = Arc::clone(&port);
            thread::spawn(move || port.interrupt())
        };
        assert_eq!(port.wait(LONG), Wait::Interrupted);
        flusher.join().unwrap();
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
        assert_eq!(worker.stop(LONG), Stopped::Joined);
    });
}

/// Two streams, each in its own thread: each gets its own answers, batched or not, and the state of one that leaves
/// is forgotten.
#[test]
fn streams_that_share_a_worker_get_their_own() {
    in_every_order(2, || {
        let log = Log::default();
        let worker = worker(&log);
        let (one, two) = (worker.port(StreamId(1)), worker.port(StreamId(2)));
        let other = thread::spawn(move || {
            two.submit(job(&two, 0, 7));
            match two.wait(LONG) {
                Wait::Done(done) => assert_eq!((done.stream, checked(done)), (StreamId(2), 7)),
                other => panic!("{other:?}"),
            }
        });
        one.submit(job(&one, 0, 5));
        match one.wait(LONG) {
            Wait::Done(done) => assert_eq!((done.stream, checked(done)), (StreamId(1), 5)),
            other => panic!("{other:?}"),
        }
        other.join().unwrap();
        // What comes after it shows that it has been done.
        one.reset();
        one.submit(job(&one, 0, 6));
        assert!(matches!(one.wait(LONG), Wait::Done(_)));
        let log = log.lock().unwrap().clone();
        assert!(log.contains(&Told::Reset(StreamId(2))), "{log:?}");
        assert_eq!(worker.stop(LONG), Stopped::Joined);
    });
}

/// Giving a worker up wakes whoever waits for it, whatever it is doing just then.
#[test]
fn a_worker_that_is_given_up_leaves_nobody_waiting() {
    in_every_order(3, || {
        let log = Log::default();
        let worker = worker(&log);
        let port = worker.port(StreamId(1));
        port.submit(job(&port, 0, 1));
        let waiter = thread::spawn(move || {
            let mut answers = 0;
            loop {
                match port.wait(LONG) {
                    Wait::Done(_) => answers += 1,
                    Wait::Gone | Wait::Idle => break answers,
                    other => panic!("{other:?}"),
                }
            }
        });
        worker.stop(Duration::ZERO);
        assert!(waiter.join().unwrap() <= 1);
    });
}

/// The watchdog takes the worker away under a stream that waits; the stream goes on with the next one.
#[test]
fn a_replaced_worker_is_followed_by_its_streams() {
    in_every_order(2, || {
        let log = Log::default();
        // Every pass that is under way counts as hung.
        let supervisor =
            Arc::new(Supervisor::start(config(), open(&log), 0, LeftThreads::default()).unwrap());
        let port = supervisor.port(StreamId(1)).unwrap();
        port.submit(job(&port, 0, 1));
        let watchdog = {
            let supervisor = Arc::clone(&supervisor);
            thread::spawn(move || supervisor.tend(1))
        };
        let first = port.wait(LONG);
        let incident = watchdog.join().unwrap();
        match (&first, &incident) {
            (Wait::Gone | Wait::Done(_), Some(Incident::Replaced { .. })) => {
                drop(port);
                let port = supervisor.port(StreamId(1)).unwrap();
                port.submit(job(&port, 0, 2));
                assert!(matches!(port.wait(LONG), Wait::Done(done) if done.clip == 2));
            }
            (Wait::Done(_), None) => (),
            other => panic!("{other:?}"),
        }
        supervisor.stop(LONG);
        assert!(supervisor.detached() <= 1);
    });
}
