//! How long a frame stays in `masaminfer` and in `masamoverlay` while the demo model runs beside them. Run with
//! `cargo test --release --test chain_time -- --ignored --nocapture`; GStreamer's own tracer says the same of any
//! pipeline: `GST_TRACERS="latency(flags=element)" GST_DEBUG=GST_TRACER:7 gst-launch-1.0 …`.

use gst::prelude::*;
use gstreamer as gst;
use masam::geometry::Size;
use masam::gst::meta::MaskMeta;
use std::cell::Cell;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/weights/demo.safetensors");
const FRAMES: usize = 600;
const FPS: u32 = 30;

thread_local! {
    /// When this thread handed a frame to the element.
    static ENTERED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Times between the pads of `element`, as long as it neither queues nor changes threads.
fn time(element: &gst::Element) -> Arc<Mutex<Vec<Duration>>> {
    let times = Arc::new(Mutex::new(Vec::with_capacity(FRAMES)));
    let pad = |name: &str| element.static_pad(name).unwrap();
    pad("sink").add_probe(gst::PadProbeType::BUFFER, |_, _| {
        ENTERED.set(Some(Instant::now()));
        gst::PadProbeReturn::Ok
    });
    let noted = Arc::clone(&times);
    pad("src").add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        if let Some(entered) = ENTERED.take() {
            noted.lock().unwrap().push(entered.elapsed());
        }
        gst::PadProbeReturn::Ok
    });
    times
}

/// Median, p99 and maximum, in ms, of the frames behind the first second.
fn quantiles(times: &Mutex<Vec<Duration>>) -> [f64; 3] {
    let mut times = times.lock().unwrap().split_off(FPS as usize);
    times.sort();
    [50, 99, 100].map(|per_cent| {
        let rank = (times.len() * per_cent).div_ceil(100) - 1;
        times[rank].as_secs_f64() * 1e3
    })
}

#[test]
#[ignore = "a measurement that needs an idle machine"]
fn with_the_demo_model_at_work() {
    gst::init().unwrap();
    masam::gst::register().unwrap();
    println!(
        "{:22}{:14}{:>9}{:>9}{:>9}",
        "frames, roi", "element", "p50 ms", "p99 ms", "max ms"
    );
    let mut misses = Vec::new();
    let full = Size {
        width_px: 1920,
        height_px: 1080,
    };
    let ultra = Size {
        width_px: 3840,
        height_px: 2160,
    };
    // The ball on black is a video without a region to be found, which `auto` looks for nevertheless.
    for (format, size, share, roi) in [
        ("NV12", full, 1.0, "none"),
        ("RGBA", full, 1.0, "none"),
        ("NV12", ultra, 4.0, "none"),
        ("RGBA", ultra, 4.0, "none"),
        ("NV12", full, 1.0, "auto"),
        ("RGBA", full, 1.0, "auto"),
    ] {
        let (width, height) = (size.width_px, size.height_px);
        let pipeline = gst::parse::launch(&format!(
            "videotestsrc is-live=true num-buffers={FRAMES} pattern=ball \
             ! video/x-raw,format={format},width={width},height={height},framerate={FPS}/1 \
             ! masaminfer name=infer model={MODEL} roi={roi} max-mask-age=60000000000 \
             ! identity name=tap ! masamoverlay name=overlay expire-after=60000000000 ! fakesink sync=true"
        ));
        let pipeline = pipeline.unwrap().downcast::<gst::Pipeline>().unwrap();
        let element = |name: &str| pipeline.by_name(name).unwrap();
        let (infer, overlay) = (time(&element("infer")), time(&element("overlay")));
        // Every pixel masked: the model's masks are replaced, each by a plane of one class.
        element("tap")
            .static_pad("src")
            .unwrap()
            .add_probe(gst::PadProbeType::BUFFER, |_, info| {
                if let Some(buffer) = info.buffer_mut()
                    && let Some(meta) = MaskMeta::from_buffer(buffer)
                {
                    // The same plane while the mask is the same, as it would be.
                    thread_local!(static PLANE: std::cell::RefCell<Option<(u64, gst::glib::Bytes)>> =
                    const { std::cell::RefCell::new(None) });
                    let made = meta.running_time_nanos.unwrap_or(0);
                    let plane = PLANE.with_borrow_mut(|known| match known {
                        Some((of, plane)) if *of == made && plane.len() == meta.plane.len() => plane.clone(),
                        slot => {
                            let class = 1 + (made / 1_000_000 % 8) as u8;
                            let plane = gst::glib::Bytes::from_owned(vec![class; meta.plane.len()]);
                            *slot = Some((made, plane.clone()));
                            plane
                        }
                    });
                    MaskMeta { plane, ..meta }.attach(buffer.make_mut());
                }
                gst::PadProbeReturn::Ok
            });
        pipeline.set_state(gst::State::Playing).unwrap();
        let wanted = [gst::MessageType::Eos, gst::MessageType::Error];
        let bus = pipeline.bus().unwrap();
        let end = bus
            .timed_pop_filtered(gst::ClockTime::from_seconds(120), &wanted)
            .unwrap();
        assert_eq!(end.type_(), gst::MessageType::Eos, "{end:?}");
        pipeline.set_state(gst::State::Null).unwrap();
        for (name, times, median, p99) in [
            ("masaminfer", &infer, 1.5, 4.0),
            ("masamoverlay", &overlay, 2.5, 5.0),
        ] {
            let [p50, high, max] = quantiles(times);
            println!(
                "{:22}{name:14}{p50:9.3}{high:9.3}{max:9.3}",
                format!("{format} {width}x{height} {roi}")
            );
            if p50 > median * share || high > p99 * share {
                misses.push(format!("{name} {format} {width}x{height} {roi}"));
            }
        }
    }
    assert!(misses.is_empty(), "{misses:?}");
}
