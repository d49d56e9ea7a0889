//! Four elements that share a model hold its weights once. Alone in its process, since memory is measured.

mod stream_support;

use gst::prelude::*;
use gstreamer as gst;
use stream_support::init;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/weights/demo.safetensors");

/// Memory of the process that is no file, in bytes; `None` where the system does not tell.
fn anonymous_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[test]
fn weights_are_in_memory_once() {
    init();
    let Some(before) = anonymous_bytes() else {
        println!("skipped: this system does not tell how much memory a process has");
        return;
    };
    let weights = std::fs::metadata(MODEL).unwrap().len();
    let open = || {
        let element = gst::ElementFactory::make("masaminfer")
            .property("model", MODEL)
            .property("model-instance-id", "ward")
            .build()
            .unwrap();
        element.set_state(gst::State::Ready).unwrap();
        element
    };
    let mut elements = vec![open()];
    let one = anonymous_bytes().unwrap().saturating_sub(before);
    elements.extend((0..3).map(|_| open()));
    let four = anonymous_bytes().unwrap().saturating_sub(before);
    println!("weights {weights} bytes: one element takes {one}, four take {four}");
    assert!(one >= weights / 2, "the model is there");
    assert!(
        four < one + weights / 4,
        "four take {four} bytes, one takes {one}"
    );
    for element in elements {
        element.set_state(gst::State::Null).unwrap();
    }
}
