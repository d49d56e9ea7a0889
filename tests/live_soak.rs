//! Four streams that share one model with faults injected at random: every frame is accounted for, memory and threads
//! stay what they were.
//!
//! The short form runs with the other tests; the long one, 100,000 frames:
//! `MASAM_SOAK_FRAMES=100000 cargo test --release --test live_soak -- --nocapture`

mod stream_support;

use gst::prelude::*;
use gstreamer as gst;
use masam::geometry::Size;
use masam::gst::infer::Infer;
use masam::stream::faulty::{FaultPlan, Faulty};
use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use stream_support::{Bench, Fake, Noise, gray_frame, init, rgb_caps};

const STREAMS: u64 = 4;
const SHORT_FRAMES: u64 = 4000;
const SIZE: Size = Size {
    width_px: 64,
    height_px: 36,
};

/// Of the process, in bytes; 0 where the system does not tell.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

fn element(fake: &Fake, passes: &Arc<AtomicU64>) -> gst::Element {
    let element = gst::ElementFactory::make("masaminfer")
        .property("model-instance-id", "soak")
        .build()
        .unwrap();
    let (fake, passes) = (fake.clone(), Arc::clone(passes));
    element.downcast_ref::<Infer>().unwrap().set_segmenter(move || {
        let model = Box::new(fake.clone());
        Ok(Box::new(Faulty::new(
            model,
            FaultPlan::Random(7),
            Arc::clone(&passes),
        )))
    });
    element
}

/// Pushes `count` frames from `first` on, with something odd now and then; every one has to come out, in order.
fn drive(bench: &Bench, stream: u64, first: u64, count: u64) {
    let mut noise = Noise(stream * 1000 + first);
    for index in first..first + count {
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
        let mut frame = gray_frame(SIZE, (index % 200) as u8, index);
        if noise.below(300) == 0 {
            frame.get_mut().unwrap().set_flags(gst::BufferFlags::DISCONT);
        }
        let passes = bench.stat("passes");
        bench.push(frame).unwrap();
        let out = bench.frames();
        assert_eq!(out.len(), 1, "stream {stream}, frame {index}");
        if index % 50 == 0 {
            // Frames come much faster than passes, of which there are to be some.
            bench.wait_for_passes(passes + 1);
        }
        assert_eq!(out[0].pts(), Some(gst::ClockTime::from_mseconds(40) * index));
        // Messages would pile up in a bus that nobody reads.
        bench.bus.set_flushing(true);
        bench.bus.set_flushing(false);
    }
}

#[test]
fn nothing_is_lost_and_nothing_grows() {
    init();
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>() != Some(&"made to panic") {
            before(info);
        }
    }));
    let frames = std::env::var("MASAM_SOAK_FRAMES").ok();
    let frames: u64 = frames.and_then(|n| n.parse().ok()).unwrap_or(SHORT_FRAMES);
    let per_stream = frames / STREAMS;
    let warm_up = per_stream / 4;
    let (mut fake, passes) = (Fake::new(), Arc::new(AtomicU64::new(0)));
    fake.spec.side_px = 64;
    // What the fake was asked is not kept: that would grow.
    let benches: Vec<Bench> = (0..STREAMS)
        .map(|_| {
            let bench = Bench::new(element(&fake, &passes), true);
            bench.begin(&rgb_caps(SIZE, 25));
            bench
        })
        .collect();
    let barrier = Barrier::new(STREAMS as usize + 1);
    let (mut warm, mut done) = ((0, 0), (0, 0));
    std::thread::scope(|scope| {
        for (stream, bench) in benches.iter().enumerate() {
            let barrier = &barrier;
            scope.spawn(move || {
                drive(bench, stream as u64, 0, warm_up);
                barrier.wait();
                barrier.wait();
                drive(bench, stream as u64, warm_up, per_stream - warm_up);
                barrier.wait();
                barrier.wait();
            });
        }
        let measure = || {
            barrier.wait();
            fake.asked.lock().unwrap().clear();
            fake.asked.lock().unwrap().shrink_to_fit();
            let now = (resident_bytes(), threads());
            barrier.wait();
            now
        };
        warm = measure();
        done = measure();
    });
    for (stream, bench) in benches.iter().enumerate() {
        let (came, left) = (bench.stat("frames-in"), bench.stat("frames-out"));
        assert_eq!((came, left), (per_stream, per_stream), "stream {stream}");
    }
    let grown = done.0.saturating_sub(warm.0);
    println!(
        "{frames} frames, {} passes, {} restarts; resident {} kB and {grown} bytes more, {} threads",
        passes.load(Ordering::Relaxed),
        benches[0].stat("restarts"),
        warm.0 / 1024,
        done.1
    );
    assert!(passes.load(Ordering::Relaxed) > 5, "faults were injected");
    assert!(grown < 2_000_000, "{grown} bytes");
    assert_eq!(done.1, warm.1, "threads");
}
