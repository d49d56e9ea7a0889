//! What `masaminfer` takes it gives back: buffers, threads and the model. Alone in its process, since threads are
//! counted.

mod stream_support;

use gst::prelude::*;
use gstreamer as gst;
use masam::geometry::Size;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use stream_support::{Bench, Fake, infer_with, rgb_caps};

const SIZE: Size = Size {
    width_px: 32,
    height_px: 16,
};

/// Bytes that are counted while a buffer holds them.
struct Counted {
    bytes: Vec<u8>,
    _alive: Arc<()>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Threads of workers, once those that have been joined have left the system's list, which takes a moment.
fn worker_threads() -> usize {
    let until = Instant::now() + Duration::from_secs(1);
    loop {
        match listed_threads() {
            0 => return 0,
            count if Instant::now() > until => return count,
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Threads of workers in the system's list. Linux only; elsewhere none are found and nothing is checked.
fn listed_threads() -> usize {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return 0;
    };
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == "masam-infer").count()
}

#[test]
fn nothing_is_left() {
    let fake = Fake::new();
    let alive = Arc::new(());
    let frame = |index: u64| {
        let counted = Counted {
            bytes: vec![100; SIZE.area() * 3],
            _alive: Arc::clone(&alive),
        };
        let mut buffer = gst::Buffer::from_slice(counted);
        buffer
            .get_mut()
            .unwrap()
            .set_pts(gst::ClockTime::from_mseconds(40) * index);
        buffer
    };
    for (live, emit, delay) in [
        (false, "ensemble", 0),
        (false, "newest", 0),
        (true, "newest", 200_000_000_u64),
    ] {
        let element = infer_with(&fake);
        element.set_property_from_str("emit", emit);
        element.set_property("video-delay", delay);
        let bench = Bench::new(element, live);
        for round in 0..8_u64 {
            bench.begin(&rgb_caps(SIZE, 25));
            fake.failing.store(round == 3, Ordering::SeqCst);
            fake.panicking.store(round == 5, Ordering::SeqCst);
            for index in 0..20 {
                bench.push(frame(index)).unwrap();
            }
            match round % 4 {
                0 => bench.end(),
                1 => {
                    assert!(bench.src.push_event(gst::event::FlushStart::new()));
                    assert!(bench.src.push_event(gst::event::FlushStop::new(true)));
                }
                2 => (),
                _ => assert!(bench.src.push_event(gst::event::Caps::new(&rgb_caps(SIZE, 50)))),
            }
            // Stopped with frames held, clips queued and a clip under way.
            bench.element.set_state(gst::State::Null).unwrap();
            bench.take();
            assert_eq!(
                Arc::strong_count(&alive),
                1,
                "{emit} round {round}: buffers are left"
            );
            assert_eq!(worker_threads(), 0, "{emit} round {round}: threads are left");
            bench.element.set_state(gst::State::Playing).unwrap();
        }
        drop(bench);
    }
    assert_eq!(Arc::strong_count(&fake.asked), 1, "a model is left");
}
