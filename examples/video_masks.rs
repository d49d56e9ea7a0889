//! A video file through the library: GStreamer decodes it, a `Predictor` segments it, and a line for each frame says how
//! much of it each class covers.
//!
//! ```sh
//! cargo run --release --example video_masks -- input.mp4 weights/demo.safetensors
//! ```

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use masam::{FrameMask, Predictor, PredictorConfig, image::RgbImage};
use std::time::Duration;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: video_masks VIDEO MODEL";
    let (video, model) = (arguments.next().ok_or(usage)?, arguments.next().ok_or(usage)?);
    gst::init()?;
    let pipeline = gst::parse::launch(
        "filesrc name=in ! decodebin ! videoconvert ! video/x-raw,format=RGB ! appsink name=out sync=false max-buffers=4",
    )?;
    let pipeline = pipeline
        .downcast::<gst::Pipeline>()
        .map_err(|_| "not a pipeline")?;
    pipeline
        .by_name("in")
        .ok_or("in")?
        .set_property("location", &video);
    let sink = pipeline
        .by_name("out")
        .and_then(|e| e.downcast::<gst_app::AppSink>().ok())
        .ok_or("out")?;
    pipeline.set_state(gst::State::Playing)?;

    let mut predictor = None;
    while let Ok(sample) = sink.pull_sample() {
        let info = gst_video::VideoInfo::from_caps(sample.caps().ok_or("caps")?)?;
        let predictor = match &mut predictor {
            Some(open) => open,
            // The model file says how far apart the frames of a clip are; the caps say how far apart these are.
            None => predictor.insert(Predictor::open_with(&model, &config(&info))?),
        };
        if let Some(mask) = predictor.push(frame(&sample, &info)?)? {
            print(&mask);
        }
    }
    for mask in predictor.iter_mut().flat_map(Predictor::finish) {
        print(&mask?);
    }
    let bus = pipeline.bus().ok_or("bus")?;
    let failed = bus.pop_filtered(&[gst::MessageType::Error]);
    pipeline.set_state(gst::State::Null)?;
    match failed.as_ref().map(|message| message.view()) {
        Some(gst::MessageView::Error(error)) => Err(error.error().into()),
        _ => Ok(()),
    }
}

fn config(info: &gst_video::VideoInfo) -> PredictorConfig {
    let (frames, seconds) = (info.fps().numer(), info.fps().denom());
    PredictorConfig {
        frame_interval: (frames > 0).then(|| Duration::from_secs(1) * seconds as u32 / frames as u32),
        ..PredictorConfig::default()
    }
}

/// Rows of GStreamer's frames may be padded.
fn frame(sample: &gst::Sample, info: &gst_video::VideoInfo) -> Result<RgbImage> {
    let buffer = sample.buffer().ok_or("buffer")?;
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, info)?;
    let row_bytes = info.width() as usize * 3;
    let rows = frame.plane_data(0)?.chunks(frame.plane_stride()[0] as usize);
    let bytes = rows.flat_map(|row| &row[..row_bytes]).copied().collect();
    Ok(RgbImage::from_vec(info.width(), info.height(), bytes).ok_or("a whole frame")?)
}

fn print(mask: &FrameMask) {
    let pixels = mask.ids.as_raw().len() as f64;
    let areas = mask.classes.iter().zip(mask.areas_px());
    let shares: Vec<String> = areas
        .filter(|(_, area)| *area > 0)
        .map(|(class, area)| format!("{} {:.1} %", class.name, 100.0 * area as f64 / pixels))
        .collect();
    println!("frame {:>5}  {}", mask.frame, shares.join(", "));
}
