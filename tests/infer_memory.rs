//! What a live frame costs `masaminfer` in memory: nothing of Rust's allocator once it runs, and of the C library's
//! little more than `identity` takes.
//!
//! Counted on the streaming thread between the element's pads, so that the worker's own needs are left out.

mod stream_support;

use gst::prelude::*;
use gstreamer as gst;
use masam::geometry::Size;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::c_void;
use stream_support::{Bench, Fake, class_of, gray_frame, infer_with, rgb_caps};

thread_local! {
    /// Whether this thread counts, and what it has counted: through Rust's allocator, and all calls of malloc.
    static COUNTING: Cell<bool> = const { Cell::new(false) };
    static RUST: Cell<u64> = const { Cell::new(0) };
    static MALLOC: Cell<u64> = const { Cell::new(0) };
}

fn count(counter: &'static std::thread::LocalKey<Cell<u64>>) {
    // A thread that ends has no counters any more.
    if COUNTING.try_with(Cell::get).unwrap_or(false) {
        let _ = counter.try_with(|n| n.set(n.get() + 1));
    }
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting takes no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(&RUST);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(&RUST);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
unsafe extern "C" {
    fn __libc_malloc(size: usize) -> *mut c_void;
    fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
}

/// In the place of the C library's, for all libraries of this program.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[unsafe(no_mangle)]
unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
    count(&MALLOC);
    // SAFETY: the C library's own, which its `free` belongs to.
    unsafe { __libc_malloc(size) }
}

/// As [`malloc`].
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[unsafe(no_mangle)]
unsafe extern "C" fn calloc(number: usize, size: usize) -> *mut c_void {
    count(&MALLOC);
    // SAFETY: as above.
    unsafe { __libc_calloc(number, size) }
}

const SIZE: Size = Size {
    width_px: 64,
    height_px: 48,
};

/// A bench that counts while its element has a frame.
fn counting_bench(element: gst::Element) -> Bench {
    for (pad, counting) in [("sink", true), ("src", false)] {
        element
            .static_pad(pad)
            .unwrap()
            .add_probe(gst::PadProbeType::BUFFER, move |_, _| {
                COUNTING.set(counting);
                gst::PadProbeReturn::Ok
            });
    }
    let bench = Bench::new(element, true);
    bench.begin(&rgb_caps(SIZE, 25));
    bench
}

/// Calls through Rust's allocator and of malloc for one frame.
fn cost(bench: &Bench, index: u64) -> (u64, u64) {
    let frame = gray_frame(SIZE, (index % 100) as u8, index);
    bench.take();
    RUST.set(0);
    MALLOC.set(0);
    bench.push(frame).unwrap();
    COUNTING.set(false);
    (RUST.get(), MALLOC.get())
}

#[test]
fn a_live_frame_takes_no_memory() {
    let identity = {
        stream_support::init();
        let element = gst::ElementFactory::make("identity")
            .property("silent", true)
            .build();
        let bench = counting_bench(element.unwrap());
        (0..20).fold(0, |_, index| cost(&bench, index).1)
    };
    let fake = Fake::new();
    let element = infer_with(&fake);
    element.set_property("max-mask-age", 60_000_000_000_u64);
    element.set_property("roi", "none");
    let bench = counting_bench(element);
    // Warm: the kept frames are complete, spent requests have come back.
    let mut index = 0;
    let mut next = |bench: &Bench| {
        index += 1;
        cost(bench, index)
    };
    for passes in 1..=100 {
        next(&bench);
        bench.wait_for_passes(passes);
    }
    // A pass is under way the whole time; each frame's clip takes the place of the one before.
    fake.gate.set(false);
    next(&bench);
    fake.gate.wait_for_blocked();
    // Only now does the worker surely hold a clip for good: one more may have to be made in its place.
    for _ in 0..20 {
        next(&bench);
    }
    for round in 0..50 {
        let (rust, malloc) = next(&bench);
        let frame = bench.frames().remove(0);
        assert!(class_of(&frame).is_some(), "frame {round} has a mask");
        assert_eq!(rust, 0, "frame {round} takes memory");
        if cfg!(all(target_os = "linux", target_env = "gnu")) {
            let more = malloc.saturating_sub(identity);
            if round == 0 {
                println!("{more} calls of malloc more than identity's {identity}");
            }
            // The structure of the meta and its fields, and the meta's place on the buffer.
            assert!(
                (1..=MALLOCS_OF_A_META).contains(&more),
                "{more} more than identity's {identity}"
            );
        }
    }
    fake.gate.set(true);
    // A new mask costs its own memory, once: the labels, and the object that GStreamer shares them by.
    for _ in 0..20 {
        let (before, passes) = (bench.stat("clips-run"), bench.stat("passes"));
        let (rust, _) = next(&bench);
        let masks = bench.stat("clips-run") - before;
        assert!(rust <= 2 * masks, "{rust} for a frame with {masks} new masks");
        bench.wait_for_passes(passes + 1);
    }
}

/// Most calls of malloc that attaching a meta takes in GStreamer 1.22.
const MALLOCS_OF_A_META: u64 = 4;
