//! Which part of a frame's way through the elements is its passage.

use crate::passage::counts;
use gst::prelude::*;
use gstreamer as gst;
use std::sync::{Arc, Mutex};

const FRAMES: usize = 6;

#[test]
fn a_frame_passes_while_its_pixels_are_read_and_drawn_on_and_no_longer() {
    gst::init().unwrap();
    super::register().unwrap();
    let pipeline = gst::parse::launch(&format!(
        "videotestsrc num-buffers={FRAMES} is-live=true \
         ! video/x-raw,format=NV12,width=64,height=48,framerate=30/1 \
         ! masaminfer name=infer mode=live model={}/weights/demo.safetensors \
         ! masamoverlay name=overlay ! fakesink",
        env!("CARGO_MANIFEST_DIR")
    ));
    let pipeline = pipeline.unwrap().downcast::<gst::Pipeline>().unwrap();
    // Counts are those of the streaming thread, which runs the probes as well.
    let noted: Arc<Mutex<Vec<counts::Counts>>> = Arc::default();
    for (element, pad) in [("infer", "sink"), ("infer", "src"), ("overlay", "src")] {
        let (pad, noted) = (
            pipeline.by_name(element).unwrap().static_pad(pad).unwrap(),
            Arc::clone(&noted),
        );
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            noted.lock().unwrap().push(counts::get());
            gst::PadProbeReturn::Ok
        });
    }
    pipeline.set_state(gst::State::Playing).unwrap();
    let wanted = [gst::MessageType::Eos, gst::MessageType::Error];
    let end = pipeline
        .bus()
        .unwrap()
        .timed_pop_filtered(gst::ClockTime::from_seconds(60), &wanted);
    pipeline.set_state(gst::State::Null).unwrap();
    assert_eq!(end.map(|message| message.type_()), Some(gst::MessageType::Eos));
    let noted = noted.lock().unwrap();
    assert_eq!(noted.len(), 3 * FRAMES);
    for frame in noted.chunks(3) {
        assert!(frame.iter().all(|(_, under_way, _)| *under_way == 0), "{frame:?}");
        let (seen, drawn) = (frame[1].0 - frame[0].0, frame[2].0 - frame[1].0);
        assert!(seen >= 1 && drawn == 1, "{frame:?}");
    }
}
