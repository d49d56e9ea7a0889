//! How many masks the demo model makes of a live video, and how long after its frame each is there, while the video plays
//! through the overlay: `cargo test --release --test mask_rate -- --ignored --nocapture`

mod camera_support;
mod stream_support;

use camera_support::{FPS, Pictures, shoot};
use gst::prelude::*;
use gstreamer as gst;
use masam::geometry::Size;
use masam::gst::meta::MaskMeta;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use stream_support::init;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/weights/demo.safetensors");
const SECONDS: u64 = 60;

/// What is seen of one frame.
#[derive(Default)]
struct Seen {
    came: Option<Instant>,
    /// From when it came to when its mask was announced to the overlay.
    answered: Option<Duration>,
    /// How old its mask was on the first frame that showed it.
    shown_at: Option<Duration>,
}

#[test]
#[ignore = "a measurement that needs an idle machine"]
fn of_a_live_video_beside_the_overlay() {
    init();
    let full = Size {
        width_px: 1920,
        height_px: 1080,
    };
    let pictures = Arc::new(Pictures::new(full));
    println!(
        "model at 256 px, a step a frame, two cores; video NV12 1920x1080 at {FPS} frames/s for {SECONDS} s"
    );
    println!("{:>28}{:>9}{:>9}{:>9}", "ms from frame to", "p50", "p99", "max");
    let pipeline = gst::parse::launch(&format!(
        "appsrc name=camera is-live=true format=time max-buffers=1 min-latency={} \
         ! masaminfer name=infer model={MODEL} emit=step threads=2 ! masamoverlay style=both ! fakesink name=sink sync=true",
        1_000_000_000 / FPS
    ));
    let pipeline = pipeline.unwrap().downcast::<gst::Pipeline>().unwrap();
    let camera = pipeline.by_name("camera").unwrap();
    shoot(camera.downcast_ref().unwrap(), &pictures, FPS * SECONDS);
    let frames: Arc<Mutex<BTreeMap<u64, Seen>>> = Arc::default();
    let infer = pipeline.by_name("infer").unwrap();
    let noted = Arc::clone(&frames);
    infer
        .static_pad("sink")
        .unwrap()
        .add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let time = info.buffer().and_then(|buffer| buffer.pts()).unwrap();
            noted.lock().unwrap().entry(time.nseconds()).or_default().came = Some(Instant::now());
            gst::PadProbeReturn::Ok
        });
    let noted = Arc::clone(&frames);
    let what = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    // Announcements do not say whose mask it is; frames do.
    let announced = Mutex::new(VecDeque::<(Instant, gst::glib::Bytes)>::new());
    infer.static_pad("src").unwrap().add_probe(what, move |_, info| {
        let now = Instant::now();
        let mut announced = announced.lock().unwrap();
        if let Some(structure) = info.event().and_then(|event| event.structure())
            && structure.name() == "MasamMask"
        {
            announced.push_front((now, structure.get("mask").unwrap()));
            announced.truncate(4);
        }
        if let Some(buffer) = info.buffer()
            && let Some(mask) = MaskMeta::from_buffer(buffer)
            && mask.mask != Size::square(1) // which only says a status
            && let Some(time) = mask.running_time_nanos
        {
            let mut frames = noted.lock().unwrap();
            let seen = frames.entry(time).or_default();
            if seen.shown_at.is_none() {
                seen.shown_at = Some(Duration::from_nanos(mask.age_nanos));
                let its = announced.iter().find(|(_, plane)| *plane == mask.plane);
                seen.answered = its.and_then(|(then, _)| Some(*then - seen.came?));
            }
        }
        gst::PadProbeReturn::Ok
    });
    let sink = pipeline.by_name("sink").unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let wanted = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = pipeline
        .bus()
        .unwrap()
        .timed_pop_filtered(gst::ClockTime::from_seconds(SECONDS + 60), &wanted);
    let message = message.expect("the pipeline hangs");
    assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
    let stats = sink.property::<gst::Structure>("stats");
    assert_eq!(stats.get::<u64>("rendered").unwrap(), FPS * SECONDS);
    let passes = infer
        .property::<gst::Structure>("stats")
        .get::<u64>("passes")
        .unwrap();
    pipeline.set_state(gst::State::Null).unwrap();
    println!(
        "{passes} masks of {} frames, opening the model included",
        frames.lock().unwrap().len()
    );

    // Without the first two seconds, in which the model is opened and plans, and the last frame, for whose mask nobody waits.
    let frames = std::mem::take(&mut *frames.lock().unwrap());
    let steady: Vec<&Seen> = frames.values().skip(2 * FPS as usize).collect();
    let steady = &steady[..steady.len() - 1];
    let quantiles = |name: &str, of: &dyn Fn(&Seen) -> Option<Duration>| {
        let mut times: Vec<Duration> = steady.iter().filter_map(|seen| of(seen)).collect();
        times.sort();
        assert!(!times.is_empty(), "no mask");
        let ms = |per_cent: usize| times[(times.len() * per_cent).div_ceil(100) - 1].as_secs_f64() * 1e3;
        let rate = FPS as f64 * times.len() as f64 / steady.len() as f64;
        println!(
            "{name:>28}{:9.1}{:9.1}{:9.1}   {rate:.2} a second",
            ms(50),
            ms(99),
            ms(100)
        );
        (rate, ms(99))
    };
    let (rate, p99) = quantiles("its mask being there", &|seen| seen.answered);
    let (shown, shown_p99) = quantiles("a frame that shows it", &|seen| seen.shown_at);
    // A video of 30 frames a second has 30 masks a second when hardly any frame is left out.
    assert!(
        rate > 0.99 * FPS as f64 && p99 < 60.0,
        "{rate} masks a second, p99 {p99} ms"
    );
    assert!(
        shown > 0.99 * FPS as f64 && shown_p99 < 60.0,
        "{shown} shown, p99 {shown_p99} ms"
    );
}
