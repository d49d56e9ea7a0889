//! A custom sink: plays a video and prints, for every frame, how much of it each class covers.
//!
//! ```sh
//! cargo run --release --example mask_sink -- input.mp4 weights/demo.safetensors
//! ```

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use masam::gst::meta::MaskMeta;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: mask_sink VIDEO MODEL";
    let (video, model) = (arguments.next().ok_or(usage)?, arguments.next().ok_or(usage)?);
    gst::init()?;
    masam::gst::register()?;
    let pipeline = gst::parse::launch(
        "filesrc name=in ! decodebin ! videoconvert ! masaminfer name=infer mode=exact ! appsink name=out sync=false",
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
    let sink = pipeline
        .by_name("out")
        .and_then(|e| e.downcast::<gst_app::AppSink>().ok())
        .ok_or("out")?;
    pipeline.set_state(gst::State::Playing)?;
    while let Ok(sample) = sink.pull_sample() {
        let Some(mask) = sample.buffer().and_then(MaskMeta::from_buffer) else {
            continue;
        };
        let plane: &[u8] = &mask.plane;
        let mut counts = vec![0usize; mask.classes.len()];
        for &id in plane {
            if let Some(count) = counts.get_mut(usize::from(id)) {
                *count += 1;
            }
        }
        let shares = mask.classes.iter().zip(&counts).filter(|(_, count)| **count > 0);
        let shares: Vec<String> = shares
            .map(|(class, count)| {
                format!(
                    "{} {:.1} %",
                    class.name,
                    100.0 * *count as f64 / plane.len() as f64
                )
            })
            .collect();
        let time = mask.running_time_nanos.map_or(0, |t| t / 1_000_000);
        println!("{time:>7} ms  {}", shares.join(", "));
    }
    pipeline.set_state(gst::State::Null)?;
    Ok(())
}
