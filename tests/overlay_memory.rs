//! Neither attaching a mask nor drawing it takes memory through Rust's allocator, once a few frames have passed.

#![cfg(feature = "gst")]

mod overlay_support;

use masam::geometry::Size;
use masam::gst::meta::MaskMeta;
use overlay_support::{Frame, Overlay, Random, info, meta};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Counts what is taken by threads while it is counted.
struct Counting;

static COUNTING: AtomicBool = AtomicBool::new(false);
static TAKEN: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged; counting takes no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTING.load(Ordering::Relaxed) {
            TAKEN.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if COUNTING.load(Ordering::Relaxed) {
            TAKEN.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn no_memory_is_taken_for_a_frame() {
    use gstreamer::prelude::*;
    let size = Size {
        width_px: 640,
        height_px: 360,
    };
    for format in overlay_support::FORMATS {
        let info = info(format, size, None);
        let frame = Frame::random(&info, 0, &mut Random(2));
        let overlay = Overlay::new(&info.to_caps().unwrap(), "style=both");
        // Count between the element's pads, where nothing but the element is at work.
        let within = |name: &str, counting: bool| {
            overlay.element.static_pad(name).unwrap().add_probe(
                gstreamer::PadProbeType::BUFFER,
                move |_, _| {
                    COUNTING.store(counting, Ordering::Relaxed);
                    gstreamer::PadProbeReturn::Ok
                },
            );
        };
        within("sink", true);
        within("src", false);
        // Two masks in turn, and an age that changes the status line for every frame.
        let masks: Vec<MaskMeta> = (0..2)
            .map(|shift| {
                let ids = (0..64 * 64).map(|at| ((at / 7 + shift * 3) % 12) as u8).collect();
                meta(size, size.rect(), Size::square(64), ids)
            })
            .collect();
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock();
        for number in 0..24_u64 {
            if number == 12 {
                TAKEN.store(0, Ordering::Relaxed);
            }
            let age_nanos = number % 12 * 10_000_000;
            let meta = MaskMeta {
                age_nanos,
                running_time_nanos: None,
                ..masks[number as usize % 2].clone()
            };
            let mut buffer = frame.to_buffer();
            COUNTING.store(true, Ordering::Relaxed);
            meta.attach(buffer.get_mut().unwrap());
            COUNTING.store(false, Ordering::Relaxed);
            overlay.push(buffer);
        }
        assert_eq!(TAKEN.load(Ordering::Relaxed), 0, "{format}");
    }
}
