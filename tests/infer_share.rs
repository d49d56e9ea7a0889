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
    for (name, value) in [("device", "cpu"), ("watchdog", "7000000000")] {
        let other = element("lab", &fake, &opened);
        other.set_property_from_str(name, value);
        let bus = gst::Bus::new();
        other.set_bus(Some(&bus));
        assert!(other.set_state(gst::State::Ready).is_err(), "{name}");
        let message = bus.pop_filtered(&[gst::MessageType::Error]).unwrap();
        let gst::MessageView::Error(error) = message.view() else {
            unreachable!()
        };
        assert!(
            error.error().to_string().contains("model-instance-id is lab"),
            "{name}: {}",
            error.error()
        );
    }
    first.begin(&rgb_caps(SIZE, 25));
    first.push(gray_frame(SIZE, 3, 0)).unwrap();
    assert_eq!(class_of(&first.frames()[0]), Some(3), "the first goes on");
}

/// The real model: what a stream gets does not depend on who shares the model with it.
#[test]
fn masks_are_those_of_a_stream_alone() {
    const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/weights/demo.safetensors");
    const FRAMES: u64 = 2;
    let size = Size {
        width_px: 160,
        height_px: 120,
    };
    init();
    let bench = |id: &str| {
        let element = gst::ElementFactory::make("masaminfer")
            .property("model", MODEL)
            .property("model-instance-id", id)
            .property("roi", "none")
            .build()
            .unwrap();
        let bench = Bench::new(element, false);
        bench.begin(&rgb_caps(size, 25));
        bench
    };
    // A picture of its own for each stream.
    let frame = |stream: usize, index: u64| {
        let mut frame = gray_frame(size, 0, index);
        let buffer = frame.get_mut().unwrap();
        for (at, byte) in buffer.map_writable().unwrap().iter_mut().enumerate() {
            let (x, y) = (at % 480 / 3, at / 480);
            let disc = (x.abs_diff(40 + stream * 20)).pow(2) + (y.abs_diff(60)).pow(2) < 900;
            *byte = if disc {
                210 - (at % 3 * 40) as u8
            } else {
                (x + y * 2 + index as usize) as u8 / 2
            };
        }
        frame
    };
    let planes = |bench: &Bench, stream: usize| -> Vec<Vec<u8>> {
        for index in 0..FRAMES {
            bench.push(frame(stream, index)).unwrap();
        }
        let metas = bench.frames();
        assert_eq!(metas.len(), FRAMES as usize);
        let plane = |buffer: &gst::Buffer| {
            masam::gst::meta::MaskMeta::from_buffer(buffer)
                .unwrap()
                .plane
                .to_vec()
        };
        metas.iter().map(plane).collect()
    };
    let together: Vec<Bench> = (0..4).map(|_| bench("together")).collect();
    let shared: Vec<Vec<Vec<u8>>> = std::thread::scope(|scope| {
        let run = |stream: usize| {
            let bench = &together[stream];
            scope.spawn(move || planes(bench, stream))
        };
        let running: Vec<_> = (0..4).map(run).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    drop(together);
    for (stream, shared) in shared.iter().enumerate() {
        assert_eq!(*shared, planes(&bench("alone"), stream), "stream {stream}");
    }
    assert_ne!(shared[0], shared[3], "the pictures differ");
}

#[test]
fn a_stream_that_feeds_nan_fails_alone() {
    let (fake, opened) = (Fake::new(), Arc::new(AtomicUsize::new(0)));
    let poisoned = Arc::new(std::sync::Mutex::new(None));
    let element = |id: &str| {
        let element = element(id, &fake, &opened);
        let (fake, opened, poisoned) = (fake.clone(), Arc::clone(&opened), Arc::clone(&poisoned));
        element.downcast_ref::<Infer>().unwrap().set_segmenter(move || {
            opened.fetch_add(1, Ordering::SeqCst);
            Ok(Box::new(Picky {
                fake: fake.clone(),
                poisoned: Arc::clone(&poisoned),
            }))
        });
        element
    };
    let benches: Vec<Bench> = (0..2).map(|_| Bench::new(element("clinic"), false)).collect();
    for bench in &benches {
        bench.begin(&rgb_caps(SIZE, 25));
    }
    // Exact mode: each push waits for its mask. Bytes from 190 on are the poison.
    for round in 0..8_u8 {
        benches[0].push(gray_frame(SIZE, round, round.into())).unwrap();
        benches[1].push(gray_frame(SIZE, 195, round.into())).unwrap();
    }
    let good: Vec<_> = benches[0].frames().iter().map(class_of).collect();
    assert_eq!(good, (0..8).map(Some).collect::<Vec<_>>());
    let bad = benches[1].frames();
    assert!(bad.iter().all(|frame| {
        class_of(frame).is_none() && stream_support::status_of(frame).unwrap().contains("not finite")
    }));
    assert_eq!(
        opened.load(Ordering::SeqCst),
        1,
        "the model is not opened anew for it"
    );
    assert_eq!(*poisoned.lock().unwrap(), Some(8));
}

/// A model that gives NaN for a whole batch in which one clip holds a byte of 190 or more.
struct Picky {
    fake: Fake,
    /// Clips that were refused when they came alone.
    poisoned: Arc<std::sync::Mutex<Option<u32>>>,
}

impl masam::segmenter::Segmenter for Picky {
    fn spec(&self) -> &masam::segmenter::SegmenterSpec {
        &self.fake.spec
    }

    fn segment(
        &mut self,
        requests: &[masam::segmenter::Request],
        deadline: Option<std::time::Instant>,
    ) -> Vec<Result<masam::segmenter::Reply, masam::segmenter::SegmentError>> {
        if requests.iter().any(|r| r.frames.iter().any(|f| f.rgb[0] >= 190)) {
            if requests.len() == 1 {
                *self.poisoned.lock().unwrap().get_or_insert(0) += 1;
            }
            let error = masam::segmenter::SegmentError::NotFinite { count: 3 };
            return requests.iter().map(|_| Err(error.clone())).collect();
        }
        self.fake.segment(requests, deadline)
    }
}
