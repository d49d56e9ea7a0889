//! The worker against a model that waits for leave.

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
        priority: Priority::Normal,
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
    assert!(matches!(done(port.wait(LONG)).result, Err(SegmentError::Panicked(m)) if m.contains("thirteen")));
    assert_eq!(
        done(port.wait(LONG)).result.unwrap().planes,
        [Plane::Labels(vec![2])]
    );
    assert_eq!(worker.stats().restarts, 1, "a model that panicked is opened anew");
    assert_eq!(worker.stop(LONG), Stopped::Joined);
    assert_eq!(port.wait(LONG), Wait::Gone);
}

#[test]
fn a_preview_comes_before_its_answer_and_only_to_its_stream() {
    let (open, _begun, leave) = gated_open();
    let worker = Worker::spawn(config(), open).unwrap();
    let (port, other) = (worker.port(unique_stream()), worker.port(unique_stream()));
    let (tell, told) = channel();
    let (tell, shared) = (std::sync::Mutex::new(tell), Arc::clone(&port.shared));
    let stream = port.stream();
    port.set_preview(Arc::new(move |epoch, reply: &Reply| {
        assert_eq!(epoch, 7);
        let lane = &shared.desk().lanes[&stream];
        assert!(lane.busy && lane.mailbox.is_empty());
        tell.lock().unwrap().send(reply.clone()).unwrap();
        None
    }));
    for (port, byte) in [(&port, 1), (&other, 2), (&port, 14)] {
        port.submit(job(port, 7, byte));
        leave.send(()).unwrap();
        let answer = done(port.wait(LONG)).result;
        assert_eq!(
            told.try_iter().collect::<Vec<_>>(),
            if byte == 1 { vec![answer.unwrap()] } else { vec![] }
        );
    }
}

#[test]
fn a_preview_that_never_ends_holds_up_no_answer() {
    let (open, _begun, leave) = gated_open();
    let worker = Worker::spawn(config(), open).unwrap();
    let port = worker.port(unique_stream());
    let kept = std::sync::Mutex::new(Vec::new());
    port.set_preview(Arc::new(move |_, _: &Reply| {
        let (never, done) = std::sync::mpsc::sync_channel(1);
        kept.lock().unwrap().push(never);
        Some(done)
    }));
    for byte in [1, 2] {
        port.submit(job(&port, 7, byte));
        leave.send(()).unwrap();
        let begun = Instant::now();
        assert!(done(port.wait(LONG)).result.is_ok());
        assert!(begun.elapsed() >= PREVIEWS, "it waited for nothing");
    }
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
fn news_for_others_does_not_prolong_a_wait() {
    let (open, begun, leave) = gated_open();
    let worker = Worker::spawn(config(), open).unwrap();
    let (port, other) = (worker.port(unique_stream()), worker.port(unique_stream()));
    port.submit(job(&port, 0, 1));
    begun.recv().unwrap();
    let over = std::sync::atomic::AtomicBool::new(false);
    let waited = std::thread::scope(|scope| {
        scope.spawn(|| {
            let begun = Instant::now();
            while !over.load(Ordering::SeqCst) && begun.elapsed() < LONG {
                other.interrupt(); // wakes all who wait
                std::thread::yield_now();
            }
        });
        let begun = Instant::now();
        assert_eq!(port.wait(Duration::from_millis(200)), Wait::TimedOut);
        over.store(true, Ordering::SeqCst);
        begun.elapsed()
    });
    assert!(waited < LONG / 2, "{waited:?}");
    leave.send(()).unwrap();
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
        [5, 14, 6],
        "in the order in which they came"
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

/// A port's next answer.
fn next(port: &Port) -> std::result::Result<Vec<Plane>, SegmentError> {
    done(port.wait(LONG)).result.map(|reply| reply.planes)
}

#[test]
fn a_stream_that_panics_does_not_cost_the_others_their_model() {
    let (inner, begun, leave) = gated_open();
    let opened = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&opened);
    let open: Open = Arc::new(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        inner()
    });
    let worker = Worker::spawn(config(), open).unwrap();
    let (good, bad) = (worker.port(unique_stream()), worker.port(unique_stream()));
    for round in 0..6 {
        // While the good clip is under way the bad one comes, and the next good one with it.
        good.submit(job(&good, 0, 1));
        leave.send(()).unwrap();
        assert_eq!(begun.recv().unwrap(), [1], "round {round}");
        assert_eq!(next(&good).unwrap(), [Plane::Labels(vec![1])], "round {round}");
        bad.submit(job(&bad, 0, 13));
        leave.send(()).unwrap();
        assert_eq!(begun.recv().unwrap(), [13]);
        assert!(matches!(next(&bad), Err(SegmentError::Panicked(_))));
    }
    // The good stream has shown each time that it was not the model.
    assert_eq!((opened.load(Ordering::Relaxed), worker.stats().restarts), (1, 0));
}

#[test]
fn no_stream_starves_however_much_the_others_ask() {
    let (open, begun, leave) = gated_open();
    let worker = Worker::spawn(config(), open).unwrap();
    let ports: Vec<Port> = (0..12).map(|_| worker.port(unique_stream())).collect();
    // A pass is under way while all the others come to wait, the quiet one last.
    ports[0].submit(job(&ports[0], 0, 100));
    begun.recv().unwrap();
    for port in &ports[1..] {
        port.submit_latest(job(port, 0, 1));
    }
    let mut served = Vec::new();
    for _ in 0..3 {
        leave.send(()).unwrap();
        let batch = begun.recv().unwrap();
        served.extend(batch);
        // Whoever was served asks again at once, and again with a newer clip.
        for port in &ports[..11] {
            if port.try_take().is_some() {
                port.submit_latest(job(port, 0, 2));
                port.submit_latest(job(port, 0, 3));
            }
        }
        if served.iter().filter(|&&byte| byte == 1).count() == 11 {
            break;
        }
    }
    assert_eq!(
        served.iter().filter(|&&byte| byte == 1).count(),
        11,
        "first turns come before second ones: {served:?}"
    );
    for _ in 0..8 {
        let _ = leave.send(()); // lets the thread end
    }
}

/// Says whose state it is told to forget.
struct Forgetful(SegmenterSpec, Sender<StreamId>);

impl Segmenter for Forgetful {
    fn spec(&self) -> &SegmenterSpec {
        &self.0
    }

    fn segment(
        &mut self,
        requests: &[Request],
        _: Option<Instant>,
    ) -> Vec<std::result::Result<Reply, SegmentError>> {
        requests.iter().map(|_| Err(SegmentError::Late)).collect()
    }

    fn reset(&mut self, stream: StreamId) {
        let _ = self.1.send(stream);
    }
}

#[test]
fn a_stream_that_leaves_leaves_no_state_behind() {
    let (forgotten, heard) = channel();
    let open: Open = Arc::new(move || Ok(Box::new(Forgetful(spec(), forgotten.clone()))));
    let worker = Worker::spawn(config(), open).unwrap();
    let (stays, leaves) = (worker.port(unique_stream()), worker.port(unique_stream()));
    let id = leaves.stream();
    drop(leaves);
    assert_eq!(heard.recv_timeout(Duration::from_secs(10)), Ok(id));
    stays.reset();
    assert_eq!(heard.recv_timeout(Duration::from_secs(10)), Ok(stays.stream()));
}
