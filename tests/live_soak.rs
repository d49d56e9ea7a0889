//! Four streams that share one model with faults injected at random: every frame is accounted for, memory and threads
//! stay what they were. With a model that takes no time, so that faults are many, the same with overlays, and with overlays
//! and the demo model.
//!
//! The short form runs with the other tests. What has overlays is not warm by then, so that its memory and threads are
//! judged in the long one only, 100,000 frames each:
//! `MASAM_SOAK_FRAMES=100000 cargo test --release --test live_soak -- --nocapture`

mod stream_support;

use gst::prelude::*;
use gstreamer as gst;
use masam::data::phantom::{PhantomConfig, Sequence};
use masam::geometry::Size;
use masam::gst::infer::Infer;
use masam::runtime::OpenOptions;
use masam::segmenter::{Plane, Reply, Request, SegmentError, Segmenter, SegmenterSpec, Step, StreamId};
use masam::stream::faulty::{FaultPlan, Faulty};
use std::ops::{Range, RangeFrom};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Once};
use std::time::{Duration, Instant};
use stream_support::{Bench, Fake, Noise, gray_frame, init, rgb_caps};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/weights/demo.safetensors");
const STREAMS: u64 = 4;
/// Models that last a few passes only, before those that fail at random.
const RESTARTS: u64 = 2;
const SIZE: Size = Size {
    width_px: 64,
    height_px: 36,
};

/// Opens the model that the streams share.
type Open = Arc<dyn Fn() -> masam::Result<Box<dyn Segmenter>> + Send + Sync>;

/// A model that tells the most rows that it has answered at once.
struct Watched {
    model: Box<dyn Segmenter>,
    most: Arc<AtomicUsize>,
}

impl Watched {
    fn answered<T>(&self, answers: Vec<Result<T, SegmentError>>) -> Vec<Result<T, SegmentError>> {
        if answers.iter().all(Result::is_ok) {
            self.most.fetch_max(answers.len(), Ordering::Relaxed);
        }
        answers
    }
}

impl Segmenter for Watched {
    fn spec(&self) -> &SegmenterSpec {
        self.model.spec()
    }

    fn segment(&mut self, requests: &[Request], until: Option<Instant>) -> Vec<Result<Reply, SegmentError>> {
        let replies = self.model.segment(requests, until);
        self.answered(replies)
    }

    fn step(&mut self, steps: &[Step], until: Option<Instant>) -> Vec<Result<Plane, SegmentError>> {
        let planes = self.model.step(steps, until);
        self.answered(planes)
    }

    fn reset(&mut self, stream: StreamId) {
        self.model.reset(stream);
    }
}

/// A model that has so many passes left, or none once it is its time, and panics in all later ones.
struct Mortal {
    model: Box<dyn Segmenter>,
    passes: u32,
    time: Arc<AtomicBool>,
}

impl Mortal {
    fn spend(&mut self) {
        if self.time.swap(false, Ordering::Relaxed) {
            self.passes = 0;
        }
        match self.passes.checked_sub(1) {
            Some(left) => self.passes = left,
            None => std::panic::panic_any("made to panic"),
        }
    }
}

impl Segmenter for Mortal {
    fn spec(&self) -> &SegmenterSpec {
        self.model.spec()
    }

    fn segment(&mut self, requests: &[Request], until: Option<Instant>) -> Vec<Result<Reply, SegmentError>> {
        self.spend();
        self.model.segment(requests, until)
    }

    fn step(&mut self, steps: &[Step], until: Option<Instant>) -> Vec<Result<Plane, SegmentError>> {
        self.spend();
        self.model.step(steps, until)
    }

    fn reset(&mut self, stream: StreamId) {
        self.model.reset(stream);
    }
}

/// Of the process, in bytes, without what malloc keeps for later, which comes and goes by 2 MB; 0 where the system does
/// not tell.
fn resident_bytes() -> u64 {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

/// Of the process, once nothing is being started or ended any more.
fn threads() -> usize {
    let count = || std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    let (mut last, mut same) = (count(), 0);
    while same < 20 {
        std::thread::sleep(Duration::from_millis(25));
        let now = count();
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    last
}

/// An inference element, and an overlay behind it where there is one.
struct Stream {
    bench: Bench,
    overlay: Option<gst::Element>,
    /// Frames without their timestamps, one after another, again and again.
    pictures: Arc<Vec<gst::Buffer>>,
}

impl Stream {
    fn new(soak: &Soak, open: &Open, pictures: &Arc<Vec<gst::Buffer>>) -> Self {
        let element = gst::ElementFactory::make("masaminfer")
            .property("model-instance-id", soak.what)
            .build()
            .unwrap();
        let open = Arc::clone(open);
        let infer = element.downcast_ref::<Infer>().unwrap();
        infer.set_segmenter(move || open());
        let bench = Bench::new(element, true);
        let overlay = soak.overlays.then(|| {
            let overlay = gst::ElementFactory::make("masamoverlay").build().unwrap();
            let src = bench.element.static_pad("src").unwrap();
            src.unlink(&bench.sink).unwrap();
            overlay.static_pad("src").unwrap().link(&bench.sink).unwrap();
            src.link(&overlay.static_pad("sink").unwrap()).unwrap();
            overlay.set_state(gst::State::Playing).unwrap();
            overlay
        });
        bench.begin(&rgb_caps(SIZE, 25));
        Self {
            bench,
            overlay,
            pictures: Arc::clone(pictures),
        }
    }

    /// Frame `index`, shown at `index` times 40 ms.
    fn frame(&self, index: u64) -> gst::Buffer {
        let mut frame = self.pictures[index as usize % self.pictures.len()]
            .copy_deep()
            .unwrap();
        frame
            .get_mut()
            .unwrap()
            .set_pts(gst::ClockTime::from_mseconds(40) * index);
        frame
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.bench.element.set_state(gst::State::Null);
        if let Some(overlay) = &self.overlay {
            let _ = overlay.set_state(gst::State::Null);
        }
    }
}

/// Messages would pile up in a bus that nobody reads.
fn forget_messages(bench: &Bench) {
    bench.bus.set_flushing(true);
    bench.bus.set_flushing(false);
}

/// Pushes these frames, with something odd now and then; every one has to come out, in order. They come much faster than
/// passes: one is waited for at every so many frames.
fn drive(of: &Stream, stream: u64, frames: Range<u64>, frames_per_pass: u64) {
    let bench = &of.bench;
    let mut noise = Noise(stream * 1000 + frames.start);
    for index in frames {
        match noise.below(500) {
            0 => {
                assert!(bench.src.push_event(gst::event::FlushStart::new()));
                assert!(bench.src.push_event(gst::event::FlushStop::new(true)));
                bench.segment();
            }
            1 => {
                let fps = 25 + (index % 3) as i32;
                assert!(bench.src.push_event(gst::event::Caps::new(&rgb_caps(SIZE, fps))));
            }
            _ => (),
        }
        let mut frame = of.frame(index);
        if noise.below(300) == 0 {
            frame.get_mut().unwrap().set_flags(gst::BufferFlags::DISCONT);
        }
        let passes = bench.stat("passes");
        bench.push(frame).unwrap();
        let out = bench.frames();
        assert_eq!(out.len(), 1, "stream {stream}, frame {index}");
        if index % frames_per_pass == 0 {
            bench.wait_for_passes(passes + 1);
        }
        assert_eq!(out[0].pts(), Some(gst::ClockTime::from_mseconds(40) * index));
        forget_messages(bench);
    }
}

/// Passes of the model itself, so that some of the faults have come: while it is closed, passes fail at once.
const LEAST_PASSES: u64 = 6;

/// Pushes frames until one pass has answered all streams at once, after some that have not. A model that has been opened anew, or whose streams have
/// just been flushed, takes less memory until then.
fn settle(of: &Stream, frames: RangeFrom<u64>, most: &AtomicUsize, passes: &AtomicU64) -> u64 {
    let until = Instant::now() + Duration::from_secs(120);
    for index in frames {
        let is_enough = passes.load(Ordering::Relaxed) >= LEAST_PASSES;
        if is_enough && most.load(Ordering::Relaxed) == STREAMS as usize {
            return index;
        }
        assert!(Instant::now() < until, "no pass has answered all streams at once");
        of.bench.push(of.frame(index)).unwrap();
        assert_eq!(of.bench.frames().len(), 1);
        forget_messages(&of.bench);
        std::thread::sleep(Duration::from_millis(4));
    }
    unreachable!("frames have no end")
}

/// What is run.
struct Soak {
    what: &'static str,
    /// As many as the environment says, where it does.
    frames: u64,
    /// A pass is waited for every so many.
    frames_per_pass: u64,
    overlays: bool,
    /// Memory and threads are judged from so many frames on.
    warm_from: u64,
}

fn run(soak: &Soak, open: Open, pictures: Vec<gst::Buffer>, forget: impl Fn()) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&"made to panic") {
                before(info);
            }
        }));
    });
    let told = std::env::var("MASAM_SOAK_FRAMES").ok();
    let frames: u64 = told.and_then(|n| n.parse().ok()).unwrap_or(soak.frames);
    let what = soak.what;
    let per_stream = frames / STREAMS;
    let warm_up = per_stream / 4;
    let (passes, pictures) = (Arc::new(AtomicU64::new(0)), Arc::new(pictures));
    let (counted, opened) = (Arc::clone(&passes), AtomicU64::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let time = Arc::new(AtomicBool::new(false));
    let (watch, due) = (Arc::clone(&most), Arc::clone(&time));
    let open: Open = Arc::new(move || {
        let model = open()?;
        watch.store(0, Ordering::Relaxed);
        // To be opened anew is part of the warm-up: malloc lays out large memory otherwise once some has been freed.
        let (model, passes): (Box<dyn Segmenter>, _) = match opened.fetch_add(1, Ordering::Relaxed) {
            0..RESTARTS => (model, 4),
            _ => {
                let most = Arc::clone(&watch);
                let watched = Box::new(Watched { model, most });
                let faulty = Faulty::new(watched, FaultPlan::Random(7), Arc::clone(&counted));
                (Box::new(faulty), u32::MAX)
            }
        };
        let time = Arc::clone(&due);
        Ok(Box::new(Mortal { model, passes, time }))
    });
    let streams: Vec<Stream> = (0..STREAMS)
        .map(|_| Stream::new(soak, &open, &pictures))
        .collect();
    let barrier = Barrier::new(STREAMS as usize + 1);
    let (mut warm, mut done, mut pushed) = ((0, 0), (0, 0), Vec::new());
    std::thread::scope(|scope| {
        let drivers = (0..).zip(&streams).map(|(number, stream)| {
            let (barrier, most, passes) = (&barrier, &*most, &*passes);
            scope.spawn(move || {
                let mut pushed = 0;
                for share in [warm_up, per_stream] {
                    drive(stream, number, pushed..share.max(pushed), soak.frames_per_pass);
                    barrier.wait();
                    barrier.wait();
                    pushed = settle(stream, share.max(pushed).., most, passes);
                    barrier.wait();
                    barrier.wait();
                }
                pushed
            })
        });
        let measure = || {
            barrier.wait();
            most.store(0, Ordering::Relaxed);
            barrier.wait();
            barrier.wait();
            forget();
            let threads = threads();
            let now = (resident_bytes(), threads);
            barrier.wait();
            now
        };
        let drivers: Vec<_> = drivers.collect();
        warm = measure();
        // Whatever else happens, the model is opened anew between the two.
        time.store(true, Ordering::Relaxed);
        done = measure();
        pushed = drivers.into_iter().map(|driver| driver.join().unwrap()).collect();
    });
    for (number, (stream, pushed)) in streams.iter().zip(&pushed).enumerate() {
        let (came, left) = (stream.bench.stat("frames-in"), stream.bench.stat("frames-out"));
        assert!(*pushed >= per_stream, "{pushed} of {per_stream}");
        assert_eq!((came, left), (*pushed, *pushed), "stream {number}");
    }
    let grown = done.0.saturating_sub(warm.0);
    println!(
        "{what}: {} frames, {} passes, {} restarts; resident {} kB and {grown} bytes more, {} threads",
        pushed.iter().sum::<u64>(),
        passes.load(Ordering::Relaxed),
        streams[0].bench.stat("restarts"),
        warm.0 / 1024,
        done.1
    );
    assert!(
        passes.load(Ordering::Relaxed) >= LEAST_PASSES,
        "faults were injected"
    );
    assert!(streams[0].bench.stat("restarts") > RESTARTS, "it was opened anew");
    if frames < soak.warm_from {
        println!(
            "{what}: memory and threads are judged from {} frames on",
            soak.warm_from
        );
        return;
    }
    assert!(grown < 2_000_000, "{grown} bytes");
    assert_eq!(done.1, warm.1, "threads");
}

/// All measure the whole process, so that one follows the other.
#[test]
fn nothing_is_lost_and_nothing_grows() {
    init();
    let mut fake = Fake::new();
    fake.spec.side_px = 64;
    let asked = Arc::clone(&fake.asked);
    let gray: Vec<gst::Buffer> = (0..200).map(|byte| gray_frame(SIZE, byte, 0)).collect();
    let alone = Soak {
        what: "a fake",
        frames: 4000,
        frames_per_pass: 50,
        overlays: false,
        warm_from: 0,
    };
    let with_overlays = Soak {
        what: "a fake with overlays",
        overlays: true,
        warm_from: 50_000,
        ..alone
    };
    for soak in [&alone, &with_overlays] {
        let fake = fake.clone();
        let open: Open = Arc::new(move || Ok(Box::new(fake.clone())));
        // What the fake was asked is not kept: that would grow.
        run(soak, open, gray.clone(), || {
            let mut asked = asked.lock().unwrap();
            asked.clear();
            asked.shrink_to_fit();
        });
    }
    let demo = Soak {
        what: "the demo model with overlays",
        frames: 2000,
        frames_per_pass: 40,
        ..with_overlays
    };
    let config = PhantomConfig {
        size: SIZE,
        frames: 20,
        ..PhantomConfig::default()
    };
    let sequence = Sequence::new(&config, 0).unwrap();
    let phantom = (0..config.frames).map(|index| gst::Buffer::from_slice(sequence.render(index).rgb));
    let open: Open = Arc::new(|| masam::runtime::open(Path::new(MODEL), &OpenOptions::default()));
    run(&demo, open, phantom.collect(), || ());
}
