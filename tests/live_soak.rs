//! Four streams with overlays that share one model with faults injected at random: every frame is accounted for, memory
//! and threads stay what they were. With a model that takes no time, so that faults are many, and with the demo model.
//!
//! The short form runs with the other tests; the long one, 100,000 frames each:
//! `MASAM_SOAK_FRAMES=100000 cargo test --release --test live_soak -- --nocapture`

mod stream_support;

use gst::prelude::*;
use gstreamer as gst;
use masam::data::phantom::{PhantomConfig, Sequence};
use masam::geometry::Size;
use masam::gst::infer::Infer;
use masam::runtime::OpenOptions;
use masam::segmenter::Segmenter;
use masam::stream::faulty::{FaultPlan, Faulty};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Once};
use std::time::Duration;
use stream_support::{Bench, Fake, Noise, gray_frame, init, rgb_caps};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/weights/demo.safetensors");
const STREAMS: u64 = 4;
const SIZE: Size = Size {
    width_px: 64,
    height_px: 36,
};

/// Opens the model that the streams share.
type Open = Arc<dyn Fn() -> masam::Result<Box<dyn Segmenter>> + Send + Sync>;

/// Of the process, in bytes, without what malloc keeps for later, which comes and goes by 2 MB; 0 where the system does not
/// tell.
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

/// An inference element and an overlay behind it.
struct Stream {
    bench: Bench,
    overlay: gst::Element,
    /// Frames without their timestamps, one after another, again and again.
    pictures: Arc<Vec<gst::Buffer>>,
}

impl Stream {
    fn new(instance: &str, open: &Open, passes: &Arc<AtomicU64>, pictures: &Arc<Vec<gst::Buffer>>) -> Self {
        let element = gst::ElementFactory::make("masaminfer")
            .property("model-instance-id", instance)
            .build()
            .unwrap();
        let (open, passes) = (Arc::clone(open), Arc::clone(passes));
        element.downcast_ref::<Infer>().unwrap().set_segmenter(move || {
            Ok(Box::new(Faulty::new(
                open()?,
                FaultPlan::Random(7),
                Arc::clone(&passes),
            )))
        });
        let bench = Bench::new(element, true);
        let overlay = gst::ElementFactory::make("masamoverlay").build().unwrap();
        let [src, into, out] = [
            bench.element.static_pad("src").unwrap(),
            overlay.static_pad("sink").unwrap(),
            overlay.static_pad("src").unwrap(),
        ];
        src.unlink(&bench.sink).unwrap();
        out.link(&bench.sink).unwrap();
        src.link(&into).unwrap();
        overlay.set_state(gst::State::Playing).unwrap();
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
        let _ = self.overlay.set_state(gst::State::Null);
    }
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
        // Messages would pile up in a bus that nobody reads.
        bench.bus.set_flushing(true);
        bench.bus.set_flushing(false);
    }
}

/// So many frames, or as many as the environment says, a pass at every so many.
fn soak(
    what: &str,
    (frames, frames_per_pass): (u64, u64),
    open: Open,
    pictures: Vec<gst::Buffer>,
    forget: impl Fn(),
) {
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
    let frames: u64 = told.and_then(|n| n.parse().ok()).unwrap_or(frames);
    let per_stream = frames / STREAMS;
    let warm_up = per_stream / 2;
    let (passes, pictures) = (Arc::new(AtomicU64::new(0)), Arc::new(pictures));
    let streams: Vec<Stream> = (0..STREAMS)
        .map(|_| Stream::new(what, &open, &passes, &pictures))
        .collect();
    let barrier = Barrier::new(STREAMS as usize + 1);
    let (mut warm, mut done) = ((0, 0), (0, 0));
    std::thread::scope(|scope| {
        for (number, stream) in (0..).zip(&streams) {
            let barrier = &barrier;
            scope.spawn(move || {
                drive(stream, number, 0..warm_up, frames_per_pass);
                barrier.wait();
                barrier.wait();
                drive(stream, number, warm_up..per_stream, frames_per_pass);
                barrier.wait();
                barrier.wait();
            });
        }
        let measure = || {
            barrier.wait();
            forget();
            let threads = threads();
            let now = (resident_bytes(), threads);
            barrier.wait();
            now
        };
        warm = measure();
        done = measure();
    });
    for (number, stream) in streams.iter().enumerate() {
        let (came, left) = (stream.bench.stat("frames-in"), stream.bench.stat("frames-out"));
        assert_eq!((came, left), (per_stream, per_stream), "stream {number}");
    }
    let grown = done.0.saturating_sub(warm.0);
    println!(
        "{what}: {frames} frames, {} passes, {} restarts; resident {} kB and {grown} bytes more, {} threads",
        passes.load(Ordering::Relaxed),
        streams[0].bench.stat("restarts"),
        warm.0 / 1024,
        done.1
    );
    assert!(passes.load(Ordering::Relaxed) > 5, "faults were injected");
    assert!(grown < 2_000_000, "{grown} bytes");
    assert_eq!(done.1, warm.1, "threads");
}

/// Both measure the whole process, so that one follows the other.
#[test]
fn nothing_is_lost_and_nothing_grows() {
    init();
    let mut fake = Fake::new();
    fake.spec.side_px = 64;
    let asked = Arc::clone(&fake.asked);
    let open: Open = Arc::new(move || Ok(Box::new(fake.clone())));
    let gray = (0..200).map(|byte| gray_frame(SIZE, byte, 0)).collect();
    // What the fake was asked is not kept: that would grow.
    soak("a fake", (8000, 10), open, gray, || {
        let mut asked = asked.lock().unwrap();
        asked.clear();
        asked.shrink_to_fit();
    });
    let config = PhantomConfig {
        size: SIZE,
        frames: 20,
        ..PhantomConfig::default()
    };
    let sequence = Sequence::new(&config, 0).unwrap();
    let phantom = (0..config.frames).map(|index| gst::Buffer::from_slice(sequence.render(index).rgb));
    let open: Open = Arc::new(|| masam::runtime::open(Path::new(MODEL), &OpenOptions::default()));
    soak("the demo model", (2000, 50), open, phantom.collect(), || ());
}
