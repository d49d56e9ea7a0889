//! A video with masks, through the elements: what `masam run` does, in a program of your own.
//!
//! ```sh
//! cargo run --release --example offline_video -- input.mp4 weights/demo.safetensors overlay.mkv
//! ```

use gstreamer as gst;
use gstreamer::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: offline_video VIDEO MODEL OUTPUT.mkv";
    let mut next = || arguments.next().ok_or(usage);
    let (video, model, output) = (next()?, next()?, next()?);
    gst::init()?;
    masam::gst::register()?;
    let pipeline = gst::parse::launch(
        "filesrc name=in ! decodebin ! videoconvert ! masaminfer name=infer mode=exact ! masamoverlay style=both \
         ! videoconvert ! video/x-raw,format=I420 ! x264enc tune=zerolatency speed-preset=veryfast ! h264parse \
         ! matroskamux ! filesink name=out buffer-mode=unbuffered o-sync=true",
    )?;
    let pipeline = pipeline.downcast::<gst::Pipeline>().map_err(|_| "no pipeline")?;
    pipeline
        .by_name("in")
        .ok_or("in")?
        .set_property("location", &video);
    pipeline
        .by_name("infer")
        .ok_or("infer")?
        .set_property("model", &model);
    pipeline
        .by_name("out")
        .ok_or("out")?
        .set_property("location", &output);
    pipeline.set_state(gst::State::Playing)?;
    let bus = pipeline.bus().ok_or("a pipeline has a bus")?;
    let ends = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = bus
        .timed_pop_filtered(gst::ClockTime::NONE, &ends)
        .ok_or("the bus was shut")?;
    pipeline.set_state(gst::State::Null)?;
    if let gst::MessageView::Error(error) = message.view() {
        return Err(error.error().into());
    }
    println!("{output}");
    Ok(())
}
