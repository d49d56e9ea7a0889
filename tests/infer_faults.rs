//! `masaminfer` when the model fails: the video goes on, the bus and the viewer are told.

mod stream_support;

use gst::prelude::*;
use gstreamer as gst;
use masam::geometry::Size;
use masam::gst::infer::Infer;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use stream_support::{Bench, Fake, class_of, gray_frame, infer_with, init, rgb_caps, status_of};

const SIZE: Size = Size {
    width_px: 32,
    height_px: 16,
};

fn off(bench: &Bench) -> bool {
    bench
        .element
        .property::<gst::Structure>("stats")
        .get("inference-off")
        .unwrap()
}

#[test]
fn a_hung_pass_is_given_up_and_after_two_inference_stays_off() {
    let fake = Fake::new();
    let element = infer_with(&fake);
    element.set_property("watchdog", 300_000_000_u64);
    let bench = Bench::new(element, false);
    bench.begin(&rgb_caps(SIZE, 25));
    bench.push(gray_frame(SIZE, 1, 0)).unwrap();
    assert_eq!(class_of(&bench.frames()[0]), Some(1));
    fake.gate.set(false);

    bench.push(gray_frame(SIZE, 2, 1)).unwrap();
    let frame = bench.frames().remove(0);
    assert_eq!(class_of(&frame), None);
    assert!(status_of(&frame).unwrap().contains("given up"));
    let complaints = bench.complaints();
    assert!(
        complaints[0].contains("hangs since") && complaints[0].contains("opened anew"),
        "{complaints:?}"
    );
    assert!(!off(&bench));

    // The second worker is given up too, and there is no third.
    bench.push(gray_frame(SIZE, 3, 2)).unwrap();
    bench.push(gray_frame(SIZE, 4, 3)).unwrap();
    let frames = bench.frames();
    assert_eq!(frames.len(), 2);
    assert!(
        status_of(&frames[1])
            .unwrap()
            .contains("inference is off: 2 forward passes have been given up")
    );
    assert!(bench.complaints()[0].contains("inference stays off"));
    assert!(off(&bench));

    // Also after a restart of the element: their memory is still held.
    bench.element.set_state(gst::State::Null).unwrap();
    bench.element.set_state(gst::State::Playing).unwrap();
    assert!(off(&bench));
    assert!(bench.complaints()[0].contains("inference is off"));
    bench.begin(&rgb_caps(SIZE, 25));
    bench.push(gray_frame(SIZE, 5, 0)).unwrap();
    assert!(
        status_of(&bench.frames()[0])
            .unwrap()
            .contains("inference is off")
    );
    fake.gate.set(true); // lets the two threads end
}

#[test]
fn a_model_that_cannot_be_opened_again_leaves_the_video_alone() {
    init();
    let fake = Fake::new();
    let opened = Arc::new(AtomicUsize::new(0));
    let element = gst::ElementFactory::make("masaminfer").build().unwrap();
    let (inner, counter) = (fake.clone(), Arc::clone(&opened));
    element.downcast_ref::<Infer>().unwrap().set_segmenter(move || {
        if counter.fetch_add(1, Ordering::SeqCst) == 0 {
            Ok(Box::new(inner.clone()))
        } else {
            Err(masam::Error::file("demo.safetensors", "it was deleted"))
        }
    });
    let bench = Bench::new(element, false);
    bench.begin(&rgb_caps(SIZE, 25));
    fake.panicking.store(true, Ordering::SeqCst);
    for index in 0..10_u8 {
        bench.push(gray_frame(SIZE, index, index.into())).unwrap();
    }
    let frames = bench.frames();
    assert_eq!(frames.len(), 10);
    assert!(status_of(&frames[0]).unwrap().contains("told to panic"));
    for frame in &frames[1..] {
        assert!(
            status_of(frame).unwrap().contains("it was deleted"),
            "{:?}",
            status_of(frame)
        );
    }
    // At once after the panic, and then after pauses: not for every frame.
    assert!((2..10).contains(&opened.load(Ordering::SeqCst)));
    // Ten faults are four warnings: the 1st, 2nd, 4th and 8th.
    assert_eq!(bench.complaints().len(), 4);
}

#[test]
fn stopping_while_a_pass_hangs_does_not_wait_for_it() {
    let fake = Fake::new();
    fake.gate.set(false);
    let bench = Bench::new(infer_with(&fake), true);
    bench.begin(&rgb_caps(SIZE, 25));
    bench.push(gray_frame(SIZE, 1, 0)).unwrap();
    fake.gate.wait_for(1);
    let begun = std::time::Instant::now();
    bench.element.set_state(gst::State::Null).unwrap();
    // The promise is half a second; a machine under load may take longer, but the pass would never end.
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    assert_eq!(bench.stat_u32("detached"), 1);

    // It still holds its memory; so does the next one, and then there is none until one has ended.
    for count in 1..=2 {
        bench.element.set_state(gst::State::Playing).unwrap();
        bench.begin(&rgb_caps(SIZE, 25));
        assert_eq!(off(&bench), count == 2);
        if count == 1 {
            bench.push(gray_frame(SIZE, 1, 0)).unwrap();
            fake.gate.wait_for(2);
            bench.element.set_state(gst::State::Null).unwrap();
            assert_eq!(bench.stat_u32("detached"), 2);
        }
    }
    bench.push(gray_frame(SIZE, 1, 0)).unwrap();
    let frame = bench.frames().pop().unwrap();
    assert!(
        status_of(&frame)
            .unwrap()
            .contains("it begins when one of them has ended")
    );
    fake.gate.set(true);
    while bench.stat_u32("detached") > 0 {
        std::thread::yield_now();
    }
    let mut index = 1;
    while class_of(&frame_after(&bench, &mut index)).is_none() {
        assert!(index < 100_000, "no mask after the slow passes have ended");
    }
    assert!(!off(&bench));
}

/// What comes of one more frame.
fn frame_after(bench: &Bench, index: &mut u64) -> gst::Buffer {
    bench.push(gray_frame(SIZE, 5, *index)).unwrap();
    *index += 1;
    bench.frames().pop().unwrap()
}

#[test]
fn elements_that_stop_together_do_not_wait_one_after_another() {
    let fakes: Vec<Fake> = (0..6).map(|_| Fake::new()).collect();
    let benches: Vec<Bench> = fakes
        .iter()
        .map(|fake| {
            fake.gate.set(false);
            let bench = Bench::new(infer_with(fake), true);
            bench.begin(&rgb_caps(SIZE, 25));
            bench.push(gray_frame(SIZE, 1, 0)).unwrap();
            fake.gate.wait_for(1);
            bench
        })
        .collect();
    // As a pipeline does it: all of them a step down, then the next step.
    let begun = std::time::Instant::now();
    for state in [gst::State::Ready, gst::State::Null] {
        for bench in &benches {
            bench.element.set_state(state).unwrap();
        }
    }
    // Half a second for the first and little for the others; one after another they take three.
    assert!(begun.elapsed().as_secs_f64() < 2.5, "{:?}", begun.elapsed());
    for (fake, bench) in fakes.iter().zip(&benches) {
        assert_eq!(bench.stat_u32("detached"), 1);
        fake.gate.set(true);
    }
}

#[test]
fn frames_of_exact_mode_without_their_masks_are_told_of_at_the_end() {
    let fake = Fake::new();
    let element = infer_with(&fake);
    element.set_property_from_str("mode", "exact");
    let bench = Bench::new(element, false);
    let missing = |bench: &Bench| {
        let stats = bench.element.property::<gst::Structure>("stats");
        let frames = stats.get::<String>("missing-mask-frames").ok();
        (stats.get::<u64>("frames-missing-mask").unwrap(), frames)
    };
    bench.begin(&rgb_caps(SIZE, 25));
    for index in 0..9_u8 {
        fake.failing.store([2, 3, 7].contains(&index), Ordering::SeqCst);
        bench.push(gray_frame(SIZE, index, index.into())).unwrap();
    }
    assert_eq!(missing(&bench), (3, Some("2-3, 7".into())));
    let before = bench.complaints();
    assert!(
        before.iter().all(|text| !text.contains("no mask on")),
        "{before:?}"
    );
    bench.end();
    let at_end = bench.complaints();
    assert_eq!(at_end.len(), 1, "{at_end:?}");
    assert!(
        at_end[0].contains("no mask on 3 of 9 frames: 2-3, 7"),
        "{at_end:?}"
    );
    assert_eq!(bench.frames().len(), 9, "the frames go on");
}

#[test]
fn a_stream_of_exact_mode_with_all_its_masks_ends_in_silence() {
    let bench = Bench::new(infer_with(&Fake::new()), false);
    bench.begin(&rgb_caps(SIZE, 25));
    for index in 0..4_u8 {
        bench.push(gray_frame(SIZE, index, index.into())).unwrap();
    }
    bench.end();
    assert_eq!(bench.complaints(), Vec::<String>::new());
    let stats = bench.element.property::<gst::Structure>("stats");
    assert_eq!(stats.get("frames-missing-mask"), Ok(0_u64));
}

/// Takes far longer than the watchdog allows, and beats meanwhile.
struct Slow(Fake);

impl masam::segmenter::Segmenter for Slow {
    fn spec(&self) -> &masam::segmenter::SegmenterSpec {
        &self.0.spec
    }

    fn segment(
        &mut self,
        requests: &[masam::segmenter::Request],
        deadline: Option<std::time::Instant>,
    ) -> Vec<Result<masam::segmenter::Reply, masam::segmenter::SegmentError>> {
        for _ in 0..self.0.asked().len().pow(2) * 10 {
            std::thread::sleep(std::time::Duration::from_millis(10));
            masam::pulse::beat();
        }
        self.0.segment(requests, deadline)
    }
}

#[test]
fn exact_mode_waits_for_a_pass_that_shows_life_however_long_it_takes() {
    let fake = Fake::new();
    let element = infer_with(&fake);
    let inner = fake.clone();
    let infer = element.downcast_ref::<Infer>().unwrap();
    infer.set_segmenter(move || Ok(Box::new(Slow(inner.clone()))));
    // The last pass takes 1.6 s, more than three times the watchdog's time and ten times the median's.
    element.set_property("watchdog", 500_000_000_u64);
    element.set_property_from_str("mode", "exact");
    let bench = Bench::new(element, false);
    bench.begin(&rgb_caps(SIZE, 25));
    for index in 0..5_u8 {
        bench.push(gray_frame(SIZE, index, index.into())).unwrap();
    }
    bench.end();
    let classes: Vec<_> = bench.frames().iter().map(class_of).collect();
    assert_eq!(classes, (0..5).map(Some).collect::<Vec<_>>());
    assert_eq!(bench.complaints(), Vec::<String>::new());
    let stats = bench.element.property::<gst::Structure>("stats");
    assert_eq!(stats.get("restarts"), Ok(0_u64));
}
