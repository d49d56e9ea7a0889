//! Elements with the same `model-instance-id` share one model.

mod stream_support;

use gst::prelude::*;
use gstreamer as gst;
use masam::geometry::Size;
use masam::gst::infer::Infer;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use stream_support::{Bench, Fake, class_of, gray_frame, init, rgb_caps};

const SIZE: Size = Size {
    width_px: 32,
    height_px: 16,
};

/// An element that counts how often it opens a model.
fn element(id: &str, fake: &Fake, opened: &Arc<AtomicUsize>) -> gst::Element {
    init();
    let element = gst::ElementFactory::make("masaminfer")
        .property("model-instance-id", id)
        .build()
        .unwrap();
    let (fake, opened) = (fake.clone(), Arc::clone(opened));
    element.downcast_ref::<Infer>().unwrap().set_segmenter(move || {
        opened.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(fake.clone()))
    });
    element
}

#[test]
fn one_model_serves_all_and_their_clips_run_together() {
    let (fake, opened) = (Fake::new(), Arc::new(AtomicUsize::new(0)));
    let benches: Vec<Bench> = (0..3)
        .map(|_| Bench::new(element("theatre", &fake, &opened), false))
        .collect();
    assert_eq!(opened.load(Ordering::SeqCst), 1);
    for bench in &benches {
        bench.begin(&rgb_caps(SIZE, 25));
    }
    fake.gate.set(false);
    std::thread::scope(|scope| {
        let push = |number: usize| {
            let bench = &benches[number];
            move || bench.push(gray_frame(SIZE, 10 + number as u8, 0)).unwrap()
        };
        scope.spawn(push(0));
        fake.gate.wait_for(1);
        scope.spawn(push(1));
        scope.spawn(push(2));
        // Both wait for the worker once they have been counted in.
        for bench in &benches[1..] {
            while bench.stat("frames-in") == 0 {
                std::thread::yield_now();
            }
        }
        fake.gate.set(true);
    });
    for (number, bench) in benches.iter().enumerate() {
        assert_eq!(class_of(&bench.frames()[0]), Some(10 + number as u8));
    }
    let streams: std::collections::BTreeSet<_> = fake.asked().iter().map(|asked| asked.stream).collect();
    assert_eq!(streams.len(), 3, "streams do not mix");

    // A flush of one does not wake or empty another.
    assert!(benches[0].src.push_event(gst::event::FlushStart::new()));
    benches[1].push(gray_frame(SIZE, 77, 1)).unwrap();
    assert_eq!(class_of(&benches[1].frames()[0]), Some(77));

    // The model stays while one uses it, and is opened again after the last has gone.
    drop(benches);
    assert!(Arc::strong_count(&fake.asked) >= 1);
    let again = Bench::new(element("theatre", &fake, &opened), false);
    assert_eq!(opened.load(Ordering::SeqCst), 2);
    drop(again);
}

#[test]
fn other_settings_under_the_same_id_are_refused() {
    let (fake, opened) = (Fake::new(), Arc::new(AtomicUsize::new(0)));
    let first = Bench::new(element("lab", &fake, &opened), false);
    let other = element("lab", &fake, &opened);
    other.set_property("device", "cpu");
    let bus = gst::Bus::new();
    other.set_bus(Some(&bus));
    assert!(other.set_state(gst::State::Ready).is_err());
    let message = bus.pop_filtered(&[gst::MessageType::Error]).unwrap();
    let gst::MessageView::Error(error) = message.view() else {
        unreachable!()
    };
    assert!(
        error.error().to_string().contains("model-instance-id is lab"),
        "{}",
        error.error()
    );
    first.begin(&rgb_caps(SIZE, 25));
    first.push(gray_frame(SIZE, 3, 0)).unwrap();
    assert_eq!(class_of(&first.frames()[0]), Some(3), "the first goes on");
}
