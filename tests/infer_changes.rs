//! Properties of `masaminfer` that are set while it plays: their effect begins with the next frame, or a warning says
//! why not.

mod stream_support;

use gst::prelude::*;
use gstreamer as gst;
use masam::geometry::Size;
use masam::gst::infer::{Emit, Infer};
use masam::gst::meta::MaskMeta;
use masam::segmenter::{Segmenter, Temporal};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use stream_support::{Bench, Fake, Gate, LONG, class_of, gray_frame, infer_with, init, rgb_caps};

const SIZE: Size = Size {
    width_px: 32,
    height_px: 16,
};

/// The element around `fake` with the whole frame as its region, playing.
fn bench(fake: &Fake, live: bool, properties: &[(&str, &str)]) -> Bench {
    let element = infer_with(fake);
    element.set_property_from_str("roi", "none");
    for (name, value) in properties {
        element.set_property_from_str(name, value);
    }
    let bench = Bench::new(element, live);
    bench.begin(&rgb_caps(SIZE, 25));
    bench
}

/// Pushes a frame and returns what came out of it.
fn through(bench: &Bench, byte: u8, index: u64) -> gst::Buffer {
    bench.push(gray_frame(SIZE, byte, index)).unwrap();
    bench.frames().pop().expect("a frame")
}

fn meta(buffer: &gst::Buffer) -> MaskMeta {
    MaskMeta::from_buffer(buffer).expect("a mask")
}

#[test]
fn emit_changes_with_the_next_frame() {
    let fake = Fake::new();
    let bench = bench(&fake, false, &[("emit", "newest")]);
    let epoch = meta(&through(&bench, 10, 0)).epoch;
    // Upstream's, and that of a pass.
    assert!(bench.latency().1 < gst::ClockTime::from_mseconds(40));
    bench.element.set_property_from_str("emit", "center");
    // Two frames of look-ahead: nothing leaves before the third.
    for (byte, index) in [(11, 1), (12, 2)] {
        bench.push(gray_frame(SIZE, byte, index)).unwrap();
        assert_eq!(bench.frames().len(), 0);
    }
    let first = through(&bench, 13, 3);
    assert_eq!(class_of(&first), Some(11));
    assert!(meta(&first).epoch > epoch);
    assert_eq!(fake.asked().last().unwrap().outputs, [2]);
    assert!(bench.latency().1 >= gst::ClockTime::from_mseconds(3 + 80));
    let is_latency = |message: &gst::Message| message.type_() == gst::MessageType::Latency;
    assert!(
        bench.bus.iter().any(|message| is_latency(&message)),
        "the latency is another"
    );
}

#[test]
fn the_deprecated_spelling_of_center_reads_back_as_center() {
    let element = infer_with(&Fake::new());
    element.set_property_from_str("emit", "centre");
    let emit = element.property_value("emit");
    assert_eq!(emit.get::<Emit>(), Ok(Emit::Center));
}

#[test]
fn auto_is_step_for_causal_models_and_newest_for_others() {
    for (temporal, emit) in [(Temporal::Centered, "newest"), (Temporal::Causal, "step")] {
        let mut fake = Fake::new();
        fake.spec.temporal = temporal;
        let bench = bench(&fake, true, &[]);
        let stats = bench.element.property::<gst::Structure>("stats");
        assert_eq!(stats.get::<&str>("emit"), Ok(emit), "{temporal:?}");
        assert!(bench.stat_bool("live"));
    }
}

#[test]
fn a_live_video_is_not_made_to_wait_by_emit() {
    let fake = Fake::new();
    let bench = bench(&fake, true, &[]);
    through(&bench, 10, 0);
    bench.complaints();
    bench.element.set_property_from_str("emit", "ensemble");
    let said = bench.complaints();
    assert!(said[0].contains("emit stays as it was"), "{said:?}");
    assert_eq!(bench.element.property::<Emit>("emit"), Emit::Auto);
    through(&bench, 11, 1); // at once
}

#[test]
fn the_region_changes_with_the_next_frame_and_stays_where_another_does_not_fit() {
    let bench = bench(&Fake::new(), false, &[]);
    let width = |byte, index| meta(&through(&bench, byte, index)).region.width_px;
    assert_eq!(width(10, 0), 32);
    bench.element.set_property_from_str("roi", "8,4,16,8");
    assert_eq!(width(11, 1), 16);
    for wrong in ["8,4,30,8", "40,0,8,8", "wide"] {
        bench.element.set_property_from_str("roi", wrong);
        let said = bench.complaints();
        assert!(said[0].contains("roi stays as it was"), "{said:?}");
        assert_eq!(bench.element.property::<String>("roi"), "8,4,16,8");
    }
    assert_eq!(width(12, 2), 16);
}

#[test]
fn a_region_outside_the_frame_is_an_error_before_the_first_frame() {
    for roi in ["40,0,8,8", "8,4,30,8"] {
        let element = infer_with(&Fake::new());
        element.set_property_from_str("roi", roi);
        let bench = Bench::new(element, false);
        assert!(bench.src.push_event(gst::event::StreamStart::new("bench")));
        bench.src.push_event(gst::event::Caps::new(&rgb_caps(SIZE, 25)));
        bench.segment();
        let flow = bench.push(gray_frame(SIZE, 1, 0));
        assert_eq!(flow, Err(gst::FlowError::NotNegotiated), "{roi}");
        let said = bench.complaints();
        assert!(
            said[0].starts_with("error: ") && said[0].contains(&format!("roi is {roi}")),
            "{said:?}"
        );
    }
}

#[test]
fn the_largest_mask_age_changes_without_a_new_epoch() {
    let fake = Fake::new();
    let bench = bench(&fake, true, &[("max-mask-age", "10000000000")]);
    through(&bench, 10, 0);
    bench.wait_for_passes(1);
    let shown = through(&bench, 11, 1);
    assert_eq!(class_of(&shown), Some(10));
    fake.gate.set(false);
    bench.element.set_property("max-mask-age", 50_000_000_u64);
    assert_eq!(class_of(&through(&bench, 12, 20)), None, "its mask is 800 ms old");
    bench.element.set_property("max-mask-age", 10_000_000_000_u64);
    let later = through(&bench, 13, 21);
    assert!(class_of(&later).is_some());
    assert_eq!(meta(&later).epoch, meta(&shown).epoch);
    fake.gate.set(true);
}

#[test]
fn carry_changes_with_the_next_frame() {
    let fake = Fake::new();
    let bench = bench(&fake, true, &[("max-mask-age", "10000000000")]);
    let carried = |from: u64| {
        let passes = bench.stat("passes");
        through(&bench, 10, from);
        bench.wait_for_passes(passes + 1);
        fake.gate.set(false);
        through(&bench, 10, from + 1);
        let carried = meta(&through(&bench, 10, from + 2)).carried;
        fake.gate.set(true);
        carried
    };
    assert!(!carried(0));
    bench.element.set_property("carry", true);
    let begun = Instant::now();
    // The motion estimation works beside the video.
    let mut from = 10;
    while !carried(from) {
        assert!(begun.elapsed() < LONG, "no mask was carried");
        from += 10;
    }
}

#[test]
fn what_takes_effect_at_the_next_start_says_so() {
    let bench = bench(&Fake::new(), true, &[]);
    for (name, value) in [("threads", "3"), ("mode", "exact"), ("video-delay", "1000000")] {
        bench.element.set_property_from_str(name, value);
        let said = bench.complaints();
        assert!(
            said[0].contains(&format!("{name} takes effect at the next start")),
            "{said:?}"
        );
        bench.element.set_property_from_str(name, value);
        assert_eq!(bench.complaints().len(), 0, "{name} has that value already");
    }
    bench.element.set_property("stats-interval", 1_000_000_000_u64);
    assert_eq!(bench.complaints().len(), 0);
}

/// An element whose opener opens `models` in their order, and fails behind the last. Opening waits for `door`.
fn with_models(models: Vec<Fake>, door: &Arc<Gate>) -> gst::Element {
    init();
    let element = gst::ElementFactory::make("masaminfer").build().unwrap();
    let (models, next, door) = (
        Mutex::new(models.into_iter()),
        AtomicUsize::new(0),
        Arc::clone(door),
    );
    element.downcast_ref::<Infer>().unwrap().set_segmenter(move || {
        // The first belongs to the start of the element.
        if next.fetch_add(1, Ordering::SeqCst) > 0 {
            door.pass();
        }
        match models.lock().unwrap().next() {
            Some(fake) => Ok(Box::new(fake) as Box<dyn Segmenter>),
            None => Err(masam::Error::file("absent.safetensors", "no such file")),
        }
    });
    element.set_property_from_str("roi", "none");
    element.set_property("model", "first.safetensors");
    element
}

fn named(id: &str) -> Fake {
    let mut fake = Fake::new();
    fake.spec.model_id = id.into();
    fake
}

#[test]
fn another_model_takes_its_place_when_it_is_loaded_and_no_frame_waits() {
    for live in [false, true] {
        let mut other = named("other");
        // Another side: the frames are preprocessed for it from its first frame on.
        other.spec.side_px = 4;
        let door = Arc::new(Gate::default());
        let bench = Bench::new(with_models(vec![named("first"), other], &door), live);
        bench.begin(&rgb_caps(SIZE, 25));
        let model = |buffer: &gst::Buffer| MaskMeta::from_buffer(buffer).map(|meta| meta.model_id);
        through(&bench, 10, 0);
        bench.wait_for_passes(1);
        let before = through(&bench, 10, 1);
        assert_eq!(model(&before).as_deref(), Some("first"));
        bench.element.set_property("model", "other.safetensors");
        door.wait_for_blocked();
        let mut index = 2;
        for _ in 0..5 {
            assert_eq!(model(&through(&bench, 10, index)).as_deref(), Some("first"));
            index += 1;
        }
        door.set(true);
        let begun = Instant::now();
        let first = loop {
            let frame = through(&bench, 10, index);
            index += 1;
            if model(&frame).as_deref() == Some("other") {
                break meta(&frame);
            }
            assert!(begun.elapsed() < LONG, "the model was not adopted");
            std::thread::sleep(Duration::from_millis(1));
        };
        assert!(first.epoch > meta(&before).epoch);
        assert_eq!(first.plane.len(), if first.mask.width_px == 1 { 1 } else { 16 });
        assert_eq!(bench.element.property::<String>("model"), "other.safetensors");
        let stats = bench.element.property::<gst::Structure>("stats");
        assert_eq!(stats.get::<&str>("model-id"), Ok("other"));
        assert_eq!(bench.stat("frames-in"), index);
        assert_eq!(bench.stat("frames-out"), index);
        assert_eq!(bench.complaints(), Vec::<String>::new());
    }
}

#[test]
fn a_model_that_cannot_be_loaded_leaves_the_one_in_use() {
    let door = Arc::new(Gate::default());
    door.set(true);
    let bench = Bench::new(with_models(vec![named("first")], &door), false);
    bench.begin(&rgb_caps(SIZE, 25));
    let epoch = meta(&through(&bench, 10, 0)).epoch;
    bench.element.set_property("model", "absent.safetensors");
    let begun = Instant::now();
    let said = loop {
        let said = bench.complaints();
        if !said.is_empty() {
            break said;
        }
        assert!(begun.elapsed() < LONG, "not a word");
        std::thread::sleep(Duration::from_millis(1));
    };
    assert!(
        said[0].starts_with("warning: ") && said[0].contains("model stays as it was: absent.safetensors"),
        "{said:?}"
    );
    assert_eq!(bench.element.property::<String>("model"), "first.safetensors");
    let frame = meta(&through(&bench, 11, 1));
    assert_eq!((frame.model_id.as_str(), frame.epoch), ("first", epoch));
}

#[test]
fn of_several_models_the_last_one_asked_for_stays() {
    let door = Arc::new(Gate::default());
    let models = vec![named("first"), named("second"), named("third")];
    let bench = Bench::new(with_models(models, &door), false);
    bench.begin(&rgb_caps(SIZE, 25));
    through(&bench, 10, 0);
    bench.element.set_property("model", "second.safetensors");
    door.wait_for_blocked();
    bench.element.set_property("model", "third.safetensors");
    door.wait_for(2);
    door.set(true);
    let begun = Instant::now();
    // Which of the two opens which fake is a matter of their threads; one alone is adopted.
    let mut index = 1;
    while meta(&through(&bench, 10, index)).model_id == "first" {
        index += 1;
        assert!(begun.elapsed() < LONG, "no model was adopted");
        std::thread::sleep(Duration::from_millis(1));
    }
    let [one, two] = [1, 2].map(|more| meta(&through(&bench, 10, index + more)));
    assert_eq!((one.model_id, one.epoch), (two.model_id, two.epoch));
    assert_eq!(bench.element.property::<String>("model"), "third.safetensors");
}
