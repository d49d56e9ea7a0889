//! What `masaminfer` says of itself: structured warnings, status for the viewer, numbers as messages, latency; and what
//! it is told: that frames come late, that it was paused.

mod stream_support;

use gst::prelude::*;
use gstreamer as gst;
use masam::geometry::Size;
use masam::gst::infer::Infer;
use masam::segmenter::{Reply, Request, SegmentError, Segmenter, SegmenterSpec};
use masam::stream::faulty::{FaultPlan, Faulty};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use stream_support::{Bench, Fake, class_of, gray_frame, infer_with, init, rgb_caps, status_of};

const SIZE: Size = Size {
    width_px: 32,
    height_px: 16,
};

/// A `masaminfer` that asks `fake`, made to fail as `plan` says.
fn faulty_infer(fake: &Fake, plan: &str) -> gst::Element {
    init();
    let element = gst::ElementFactory::make("masaminfer").build().unwrap();
    let (fake, plan) = (fake.clone(), plan.parse::<FaultPlan>().unwrap());
    let passes = Arc::new(AtomicU64::new(0));
    element.downcast_ref::<Infer>().unwrap().set_segmenter(move || {
        let model = Box::new(fake.clone());
        Ok(Box::new(Faulty::new(model, plan, Arc::clone(&passes))))
    });
    element
}

/// Details of the warnings posted since the last call.
fn details(bench: &Bench) -> Vec<gst::Structure> {
    let mut found = Vec::new();
    while let Some(message) = bench.bus.pop_filtered(&[gst::MessageType::Warning]) {
        if let gst::MessageView::Warning(warning) = message.view() {
            found.extend(warning.details().map(|details| details.to_owned()));
        }
    }
    found
}

#[test]
fn warnings_say_what_kind_of_fault_it_was() {
    for (plan, kind, cause) in [
        ("error", "error", "made to fail"),
        ("panic", "panic", "made to panic"),
        ("nan", "not-finite", "not finite"),
    ] {
        let bench = Bench::new(faulty_infer(&Fake::new(), plan), true);
        bench.begin(&rgb_caps(SIZE, 25));
        for index in 0..3_u8 {
            bench.push(gray_frame(SIZE, index, index.into())).unwrap();
            bench.wait_for_passes(u64::from(index) + 1);
        }
        bench.push(gray_frame(SIZE, 3, 3)).unwrap();
        let found = details(&bench);
        // The 1st, 2nd and 4th, as far as they have come.
        assert!((1..=3).contains(&found.len()), "{plan}: {found:?}");
        assert_eq!(found[0].name(), "masam-fault");
        assert_eq!(found[0].get::<&str>("kind"), Ok(kind));
        assert!(
            found[0].get::<&str>("cause").unwrap().contains(cause),
            "{found:?}"
        );
        let counts: Vec<u64> = found
            .iter()
            .map(|details| details.get("count").unwrap())
            .collect();
        assert!(counts.is_sorted_by(|a, b| a < b) && counts[0] <= 2, "{counts:?}");
        let stats = bench.element.property::<gst::Structure>("stats");
        assert!(stats.get::<&str>("fault").unwrap().contains(cause));
        let frames = bench.frames();
        assert_eq!(frames.len(), 4, "{plan}: no frame is missing");
        assert!(status_of(&frames[3]).unwrap().contains(cause));
    }
}

#[test]
fn a_fault_is_said_while_an_older_mask_is_still_shown() {
    let fake = Fake::new();
    let bench = Bench::new(infer_with(&fake), true);
    bench.begin(&rgb_caps(SIZE, 25));
    bench.push(gray_frame(SIZE, 7, 0)).unwrap();
    bench.wait_for_passes(1);
    fake.failing.store(true, Ordering::SeqCst);
    bench.push(gray_frame(SIZE, 8, 1)).unwrap();
    bench.wait_for_passes(2);
    bench.take();
    fake.gate.set(false);
    bench.push(gray_frame(SIZE, 9, 2)).unwrap();
    fake.gate.set(true);
    let frame = bench.frames().remove(0);
    assert_eq!(class_of(&frame), Some(7), "the mask is young enough");
    assert!(
        status_of(&frame)
            .unwrap()
            .starts_with("no new masks: the forward pass failed")
    );
    assert_eq!(details(&bench).len(), 1, "and the bus is told");
}

/// Takes three milliseconds more for a pass.
struct Slow(Fake);

impl Segmenter for Slow {
    fn spec(&self) -> &SegmenterSpec {
        self.0.spec()
    }

    fn segment(
        &mut self,
        requests: &[Request],
        deadline: Option<Instant>,
    ) -> Vec<Result<Reply, SegmentError>> {
        std::thread::sleep(Duration::from_millis(3));
        self.0.segment(requests, deadline)
    }
}

#[test]
fn a_model_slower_than_its_masks_may_be_old_says_so() {
    let fake = Fake::new();
    let element = infer_with(&fake);
    let slow = fake.clone();
    let infer = element.downcast_ref::<Infer>().unwrap();
    infer.set_segmenter(move || Ok(Box::new(Slow(slow.clone()))));
    element.set_property("max-mask-age", 1_000_000_u64);
    let bench = Bench::new(element, true);
    bench.begin(&rgb_caps(SIZE, 25));
    let said = |index| {
        bench.push(gray_frame(SIZE, 1, index)).unwrap();
        let frame = bench.frames().remove(0);
        assert_eq!(class_of(&frame), None);
        status_of(&frame).unwrap_or_default()
    };
    fake.gate.set(false);
    said(0);
    // It has been under way for more than a millisecond, and does not end.
    fake.gate.wait_for_blocked();
    // The first pass says nothing of those behind it.
    let status = said(1);
    let starting = "the model is starting: 0 s for a clip so far, masks older than 0.0 s";
    assert!(status.contains(starting), "{status}");
    fake.gate.set(true);
    let mut index = 2;
    while bench.stat("passes") < 3 {
        let passes = bench.stat("passes");
        let status = said(index);
        let is_slow = status.contains("too slow");
        assert!(!is_slow || bench.stat("passes") >= 3, "{status}");
        index += 1;
        bench.wait_for_passes(passes + 1);
    }
    let status = said(index);
    assert!(
        status.contains("too slow: 0.0 s for a clip, masks older than 0.0 s"),
        "{status}"
    );
    assert!(bench.complaints().is_empty(), "slow is not broken");
}

#[test]
fn numbers_are_posted_at_the_interval() {
    let fake = Fake::new();
    let element = infer_with(&fake);
    element.set_property("stats-interval", 1_u64);
    let bench = Bench::new(element, true);
    bench.begin(&rgb_caps(SIZE, 25));
    for index in 0..4_u8 {
        bench.push(gray_frame(SIZE, index, index.into())).unwrap();
    }
    let mut posted = Vec::new();
    while let Some(message) = bench.bus.pop_filtered(&[gst::MessageType::Element]) {
        posted.push(message.structure().unwrap().to_owned());
    }
    // The first frame begins the interval.
    assert_eq!(posted.len(), 3);
    assert_eq!(posted[2].name(), "masam-stats");
    assert_eq!(posted[2].get("frames-in"), Ok(4_u64));
    assert_eq!(posted[2].get::<&str>("model-id"), Ok("fake"));
    bench.element.set_property("stats-interval", 0_u64);
    bench.push(gray_frame(SIZE, 4, 4)).unwrap();
    assert!(bench.bus.pop_filtered(&[gst::MessageType::Element]).is_none());
}

#[test]
fn frames_that_come_too_late_are_not_looked_at() {
    let fake = Fake::new();
    let bench = Bench::new(infer_with(&fake), true);
    bench.begin(&rgb_caps(SIZE, 25));
    bench.push(gray_frame(SIZE, 1, 0)).unwrap();
    // Frame 0 came 100 ms late: those before 200 ms will be as late.
    let late = |index: u64, jitter| {
        let kind = gst::QOSType::Underflow;
        gst::event::Qos::new(kind, 2.0, jitter, gst::ClockTime::from_mseconds(40) * index)
    };
    assert!(bench.sink.push_event(late(0, 100_000_000)));
    for index in 1..8_u8 {
        bench.push(gray_frame(SIZE, index, index.into())).unwrap();
    }
    // 40, 80, 120 and 160 ms.
    assert_eq!(bench.stat("frames-not-looked-at"), 4);
    assert_eq!(bench.frames().len(), 8, "all frames leave");
    // In good time again.
    assert!(bench.sink.push_event(late(7, -1)));
    bench.push(gray_frame(SIZE, 9, 8)).unwrap();
    assert_eq!(bench.stat("frames-not-looked-at"), 4);
    // However late everything is, a look is taken before the masks run out.
    assert!(bench.sink.push_event(late(8, 60_000_000_000)));
    for index in 9..29_u8 {
        bench.push(gray_frame(SIZE, index, index.into())).unwrap();
    }
    let hurried = bench.stat("frames-not-looked-at") - 4;
    assert!((10..20).contains(&hurried), "{hurried}");
}

#[test]
fn another_latency_for_new_caps_is_posted() {
    let fake = Fake::new();
    let element = infer_with(&fake);
    element.set_property_from_str("emit", "centre");
    let bench = Bench::new(element, true);
    bench.begin(&rgb_caps(SIZE, 25));
    // Two frames of look-ahead.
    let own = |bench: &Bench| bench.latency().1.mseconds() - 3;
    assert_eq!(own(&bench), 80);
    let posted = || bench.bus.pop_filtered(&[gst::MessageType::Latency]).is_some();
    while posted() {}
    assert!(bench.src.push_event(gst::event::Caps::new(&rgb_caps(SIZE, 50))));
    assert!(posted(), "the pipeline has to ask again");
    assert_eq!(own(&bench), 40);
    assert!(
        bench
            .src
            .push_event(gst::event::Caps::new(&rgb_caps(Size::square(16), 50)))
    );
    assert!(!posted(), "it is the same for these");
}

#[test]
fn a_pause_of_a_live_stream_leaves_no_mask_of_before() {
    let fake = Fake::new();
    let bench = Bench::new(infer_with(&fake), true);
    bench.begin(&rgb_caps(SIZE, 25));
    bench.push(gray_frame(SIZE, 7, 0)).unwrap();
    bench.wait_for_passes(1);
    bench.element.set_state(gst::State::Paused).unwrap();
    bench.element.set_state(gst::State::Playing).unwrap();
    bench.take();
    fake.gate.set(false);
    // Running time goes on where it stood, while the picture may be minutes younger.
    bench.push(gray_frame(SIZE, 8, 1)).unwrap();
    assert_eq!(class_of(&bench.frames()[0]), None);
    fake.gate.set(true);
    bench.wait_for_passes(2);
    fake.gate.set(false);
    bench.push(gray_frame(SIZE, 9, 2)).unwrap();
    fake.gate.set(true);
    assert_eq!(class_of(&bench.frames()[0]), Some(8));
}

/// The timestamps of a pause mean nothing any more when a seek came during it.
#[test]
fn masks_come_at_once_after_a_seek_while_paused() {
    let fake = Fake::new();
    let bench = Bench::new(infer_with(&fake), true);
    bench.begin(&rgb_caps(SIZE, 25));
    bench.push(gray_frame(SIZE, 7, 0)).unwrap();
    bench.wait_for_passes(1);
    bench.run_at(gst::ClockTime::from_seconds(100));
    bench.element.set_state(gst::State::Paused).unwrap();
    assert!(bench.src.push_event(gst::event::FlushStart::new()));
    assert!(bench.src.push_event(gst::event::FlushStop::new(true)));
    bench.segment();
    bench.element.set_start_time(gst::ClockTime::ZERO);
    bench.element.set_state(gst::State::Playing).unwrap();
    bench.take();
    bench.push(gray_frame(SIZE, 8, 10)).unwrap();
    bench.wait_for_passes(2);
    fake.gate.set(false);
    bench.push(gray_frame(SIZE, 9, 11)).unwrap();
    fake.gate.set(true);
    let frames = bench.frames();
    assert_eq!((class_of(&frames[0]), class_of(&frames[1])), (None, Some(8)));
}

#[test]
fn a_live_video_outlives_its_hung_passes() {
    let fake = Fake::new();
    fake.gate.set(false);
    let element = infer_with(&fake);
    element.set_property("watchdog", 1_000_000_u64);
    let bench = Bench::new(element, true);
    bench.begin(&rgb_caps(SIZE, 25));
    let mut told = Vec::new();
    for index in 0..6_u8 {
        bench.push(gray_frame(SIZE, index, index.into())).unwrap();
        assert_eq!(bench.frames().len(), 1, "each frame leaves at once");
        told.extend(details(&bench));
        if index < 2 {
            // The pass that this frame began has to have been under way for longer than the watchdog waits.
            fake.gate.wait_for(usize::from(index) + 1);
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(3) {
                std::thread::yield_now();
            }
        }
    }
    let kinds: Vec<&str> = told.iter().map(|details| details.get("kind").unwrap()).collect();
    let of = |kind: &str| {
        told.iter()
            .find(|details| details.get::<&str>("kind") == Ok(kind))
    };
    let hung = of("hung").unwrap_or_else(|| panic!("{kinds:?}"));
    assert!(hung.get::<u64>("after").unwrap() >= 1_000_000);
    assert_eq!(
        (hung.get("restarts"), hung.get("detached")),
        (Ok(1_u64), Ok(1_u32))
    );
    let off = of("off").unwrap_or_else(|| panic!("{kinds:?}"));
    assert_eq!(off.get("detached"), Ok(2_u32));
    bench.push(gray_frame(SIZE, 6, 6)).unwrap();
    let said = status_of(&bench.frames()[0]).unwrap();
    assert!(
        said.contains("inference is off: 2 forward passes have been given up"),
        "{said}"
    );
    let stats = bench.element.property::<gst::Structure>("stats");
    assert_eq!(stats.get("inference-off"), Ok(true));
    fake.gate.set(true); // lets the two threads end
}

/// The property is there in debug builds only: `cargo test --test infer_report`.
#[test]
fn faults_can_be_injected_by_property_in_debug_builds() {
    let element = infer_with(&Fake::new());
    if !cfg!(debug_assertions) {
        assert!(element.find_property("inject-fault").is_none());
        return;
    }
    element.set_property("inject-fault", "boom");
    assert!(element.set_state(gst::State::Ready).is_err());
    element.set_property("inject-fault", "nan");
    let bench = Bench::new(element, true);
    bench.begin(&rgb_caps(SIZE, 25));
    bench.push(gray_frame(SIZE, 1, 0)).unwrap();
    bench.wait_for_passes(1);
    bench.push(gray_frame(SIZE, 2, 1)).unwrap();
    assert!(status_of(&bench.frames()[1]).unwrap().contains("not finite"));
}
