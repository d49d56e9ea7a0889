//! `masaminfer` in exact mode, between two pads of the test's own.

mod stream_support;

use gst::prelude::*;
use gstreamer as gst;
use masam::geometry::Size;
use masam::gst::meta::MaskMeta;
use std::sync::atomic::Ordering;
use stream_support::{
    Asked, Bench, Fake, LONG, Out, class_of, gray_frame, infer_with, init, rgb_caps, status_of,
};

const SIZE: Size = Size {
    width_px: 32,
    height_px: 16,
};

fn bench(fake: &Fake, properties: &[(&str, &str)]) -> Bench {
    let element = infer_with(fake);
    for (name, value) in properties {
        element.set_property_from_str(name, value);
    }
    let bench = Bench::new(element, false);
    bench.begin(&rgb_caps(SIZE, 25));
    bench
}

#[test]
fn every_frame_leaves_with_the_mask_of_its_own_index() {
    let newest = (1..=5).map(|hop| ("newest", hop, 1));
    let strided = (1..=15).flat_map(|stride| [("newest", 1, stride), ("centre", 1, stride)]);
    let ensemble = [1, 2, 7, 15].map(|stride| ("ensemble", 1, stride));
    for (emit, hop, stride) in newest.chain(strided).chain(ensemble) {
        for total in [0_u8, 1, 2, 3, 4, 5, 12, 70] {
            let fake = Fake::new();
            let (hop, stride) = (hop.to_string(), stride.to_string());
            let bench = bench(&fake, &[("emit", emit), ("hop", &hop), ("frame-stride", &stride)]);
            for index in 0..total {
                bench.push(gray_frame(SIZE, index, index.into())).unwrap();
            }
            bench.end();
            let out = bench.take();
            assert!(matches!(out.last(), Some(Out::Event(e)) if e.type_() == gst::EventType::Eos));
            let frames: Vec<_> = out
                .iter()
                .filter_map(|o| {
                    if let Out::Frame(b) = o {
                        Some(b.clone())
                    } else {
                        None
                    }
                })
                .collect();
            assert_eq!(frames.len(), usize::from(total), "{emit} {hop} {stride}");
            for (index, frame) in frames.iter().enumerate() {
                assert_eq!(
                    class_of(frame),
                    Some(index as u8),
                    "{emit} hop {hop} stride {stride} of {total}"
                );
                let meta = MaskMeta::from_buffer(frame).unwrap();
                assert_eq!(meta.age_nanos, 0);
                assert_eq!(meta.running_time_nanos, Some(index as u64 * 40_000_000));
                assert_eq!(
                    (meta.frame, meta.region, meta.mask),
                    (SIZE, SIZE.rect(), Size::square(8))
                );
                assert!(meta.untrained && !meta.carried);
            }
            assert_eq!(bench.complaints(), Vec::<String>::new());
        }
    }
}

#[test]
fn clips_are_cut_from_the_frames_of_the_stride() {
    let fake = Fake::new();
    let bench = bench(&fake, &[("frame-stride", "2")]);
    for index in 0..10 {
        bench.push(gray_frame(SIZE, index, index.into())).unwrap();
    }
    let asked = fake.asked();
    assert_eq!(asked[9].bytes, [1, 3, 5, 7, 9]);
    assert_eq!(asked[3].bytes, [0, 0, 0, 1, 3]);
    assert!(asked.iter().all(|Asked { outputs, .. }| outputs == &[4]));
}

#[test]
fn the_stride_follows_the_models_interval_and_the_frame_rate() {
    let mut fake = Fake::new();
    fake.spec.frame_interval_nanos = Some(100_000_000);
    let bench = bench(&fake, &[]);
    for index in 0..12 {
        bench.push(gray_frame(SIZE, index, index.into())).unwrap();
    }
    // 100 ms at 25 Hz are two and a half frames: three.
    assert_eq!(fake.asked()[11].bytes, [0, 2, 5, 8, 11]);
}

#[test]
fn no_frame_is_changed_and_no_time_either() {
    let fake = Fake::new();
    let bench = bench(&fake, &[("emit", "centre")]);
    let caps = rgb_caps(SIZE, 25);
    let mut sent = Vec::new();
    for index in 0..9_u8 {
        let mut buffer = gst::Buffer::from_mut_slice(
            (0..SIZE.area() * 3)
                .map(|i| (i as u8) ^ index)
                .collect::<Vec<_>>(),
        );
        {
            let buffer = buffer.get_mut().unwrap();
            buffer.set_pts(gst::ClockTime::from_mseconds(1000 + 33 * u64::from(index)));
            buffer.set_duration(gst::ClockTime::from_mseconds(33));
            buffer.set_offset(index.into());
        }
        sent.push(buffer.copy_deep().unwrap());
        bench.push(buffer).unwrap();
    }
    bench.end();
    let _ = caps;
    let frames = bench.frames();
    assert_eq!(frames.len(), sent.len());
    for (got, sent) in frames.iter().zip(&sent) {
        assert_eq!(
            got.map_readable().unwrap().as_slice(),
            sent.map_readable().unwrap().as_slice()
        );
        assert_eq!(
            (got.pts(), got.duration(), got.offset()),
            (sent.pts(), sent.duration(), sent.offset())
        );
    }
}

#[test]
fn a_failing_or_panicking_pass_costs_the_mask_and_not_the_frame() {
    let fake = Fake::new();
    let bench = bench(&fake, &[]);
    for index in 0..6_u8 {
        fake.failing.store(index == 2, Ordering::SeqCst);
        fake.panicking.store(index == 4, Ordering::SeqCst);
        bench.push(gray_frame(SIZE, index, index.into())).unwrap();
    }
    let frames = bench.frames();
    let classes: Vec<_> = frames.iter().map(class_of).collect();
    assert_eq!(classes, [Some(0), Some(1), None, Some(3), None, Some(5)]);
    let told: Vec<_> = frames
        .iter()
        .map(|frame| status_of(frame).unwrap_or_default())
        .collect();
    assert!(
        told[2].contains("told to fail") && told[4].contains("told to panic"),
        "{told:?}"
    );
    assert_eq!(
        bench.stat("restarts"),
        1,
        "the model that panicked was opened anew"
    );
    let complaints = bench.complaints();
    assert!(
        complaints[0].starts_with("warning") && complaints[0].contains("told to fail"),
        "{complaints:?}"
    );
    assert!(
        complaints[1].starts_with("warning") && complaints[1].contains("told to panic"),
        "{complaints:?}"
    );
    assert_eq!(
        (
            bench.stat("clips-run"),
            bench.stat("clips-failed"),
            bench.stat("frames-out")
        ),
        (4, 2, 6)
    );
}

#[test]
fn a_flush_wakes_a_waiting_chain_function() {
    let fake = Fake::new();
    let bench = bench(&fake, &[]);
    bench.push(gray_frame(SIZE, 1, 0)).unwrap();
    fake.gate.set(false);
    std::thread::scope(|scope| {
        let pushing = scope.spawn(|| bench.push(gray_frame(SIZE, 2, 1)));
        fake.gate.wait_for(2);
        assert!(bench.src.push_event(gst::event::FlushStart::new()));
        assert_eq!(pushing.join().unwrap(), Err(gst::FlowError::Flushing));
    });
    fake.gate.set(true);
    assert!(bench.src.push_event(gst::event::FlushStop::new(true)));
    bench.segment();
    bench.take();
    bench.push(gray_frame(SIZE, 3, 0)).unwrap();
    let frames = bench.frames();
    assert_eq!(frames.len(), 1, "the flushed frame is gone");
    assert_eq!(class_of(&frames[0]), Some(3));
    let meta = MaskMeta::from_buffer(&frames[0]).unwrap();
    assert!(meta.epoch > 1);
    // The clip of the new epoch holds no frame from before the flush.
    assert_eq!(fake.asked().last().unwrap().bytes, [3; 5]);
}

#[test]
fn stopping_wakes_a_waiting_chain_function_too() {
    let fake = Fake::new();
    let bench = bench(&fake, &[]);
    fake.gate.set(false);
    std::thread::scope(|scope| {
        let pushing = scope.spawn(|| bench.push(gray_frame(SIZE, 2, 0)));
        fake.gate.wait_for(1);
        bench.element.set_state(gst::State::Ready).unwrap();
        assert!(pushing.join().unwrap().is_err());
    });
    fake.gate.set(true);
}

#[test]
fn events_keep_their_place_between_held_frames() {
    let fake = Fake::new();
    let bench = bench(&fake, &[("emit", "centre")]);
    let tag = |title: &str| {
        let mut tags = gst::TagList::new();
        tags.get_mut()
            .unwrap()
            .add::<gst::tags::Title>(&title, gst::TagMergeMode::Replace);
        gst::event::Tag::new(tags)
    };
    bench.take();
    bench.push(gray_frame(SIZE, 0, 0)).unwrap();
    assert!(bench.src.push_event(tag("between")));
    for index in 1..4 {
        bench.push(gray_frame(SIZE, index, index.into())).unwrap();
    }
    bench.end();
    let order: Vec<String> = bench
        .take()
        .iter()
        .map(|out| match out {
            Out::Frame(frame) => class_of(frame).unwrap().to_string(),
            Out::Event(event) => event.type_().name().to_string(),
        })
        .collect();
    assert_eq!(order, ["0", "tag", "1", "2", "3", "eos"]);
}

#[test]
fn gaps_caps_segments_and_discontinuities_end_the_window_without_losing_frames() {
    let fake = Fake::new();
    let bench = bench(&fake, &[("emit", "ensemble")]);
    let other = Size {
        width_px: 20,
        height_px: 30,
    };
    let mut epochs = Vec::new();
    let mut index = 0_u8;
    for change in 0..5 {
        let size = if change >= 2 { other } else { SIZE };
        for n in 0..3 {
            let mut frame = gray_frame(size, index, index.into());
            if n == 0 && change == 4 {
                frame.get_mut().unwrap().set_flags(gst::BufferFlags::DISCONT);
            }
            bench.push(frame).unwrap();
            index += 1;
        }
        match change {
            0 => assert!(
                bench
                    .src
                    .push_event(gst::event::Gap::new(gst::ClockTime::ZERO, gst::ClockTime::NONE))
            ),
            1 => assert!(bench.src.push_event(gst::event::Caps::new(&rgb_caps(other, 25)))),
            2 => bench.segment(),
            3 => (),
            _ => bench.end(),
        }
        if change != 3 {
            let frames = bench.frames();
            assert_eq!(frames.len(), if change == 4 { 6 } else { 3 }, "change {change}");
            for frame in &frames {
                epochs.push((
                    class_of(frame).unwrap(),
                    MaskMeta::from_buffer(frame).unwrap().epoch,
                ));
            }
        }
    }
    assert!(epochs.iter().map(|(class, _)| *class).eq(0..15));
    let starts: Vec<bool> = epochs.windows(2).map(|pair| pair[0].1 < pair[1].1).collect();
    let expected: Vec<bool> = (1..15).map(|n| n % 3 == 0).collect();
    assert_eq!(starts, expected, "{epochs:?}");
    // No clip mixes frames of two epochs.
    for asked in fake.asked() {
        assert!(
            asked.bytes.iter().all(|b| b / 3 == asked.bytes[0] / 3),
            "{asked:?}"
        );
    }
}

#[test]
fn frames_without_timestamps_have_masks() {
    let fake = Fake::new();
    let bench = bench(&fake, &[]);
    let mut frame = gray_frame(SIZE, 9, 0);
    frame.get_mut().unwrap().set_pts(gst::ClockTime::NONE);
    bench.push(frame).unwrap();
    let meta = MaskMeta::from_buffer(&bench.frames()[0]).unwrap();
    assert_eq!((meta.running_time_nanos, meta.age_nanos), (None, 0));
}

#[test]
fn buffers_too_small_for_their_caps_pass_with_a_warning() {
    let fake = Fake::new();
    let bench = bench(&fake, &[]);
    bench.push(gray_frame(SIZE, 1, 0)).unwrap();
    bench.push(gst::Buffer::from_mut_slice(vec![0; 100])).unwrap();
    bench.push(gst::Buffer::new()).unwrap();
    bench.push(gray_frame(SIZE, 2, 3)).unwrap();
    let frames = bench.frames();
    assert_eq!(
        frames.iter().map(class_of).collect::<Vec<_>>(),
        [Some(1), None, None, Some(2)]
    );
    assert_eq!((frames[1].size(), frames[2].size()), (100, 0));
    let complaints = bench.complaints();
    assert!(
        complaints[0].contains("bytes of plane 0 is 100"),
        "{complaints:?}"
    );
    assert_eq!(bench.stat("frames-unreadable"), 2);
}

#[test]
fn the_region_of_interest_is_what_the_model_sees() {
    let fake = Fake::new();
    let bench = bench(&fake, &[("roi", "8,4,16,8")]);
    // 77 inside the region, 5 outside.
    let mut pixels = vec![5_u8; SIZE.area() * 3];
    for y in 4..12 {
        pixels[(y * 32 + 8) * 3..(y * 32 + 24) * 3].fill(77);
    }
    bench.push(gst::Buffer::from_mut_slice(pixels)).unwrap();
    let frames = bench.frames();
    assert_eq!(class_of(&frames[0]), Some(77));
    let region = MaskMeta::from_buffer(&frames[0]).unwrap().region;
    assert_eq!(
        (region.x_px, region.y_px, region.width_px, region.height_px),
        (8, 4, 16, 8)
    );

    // On frames it does not fit the video goes on, and the bus says why there is no mask.
    let small = Size {
        width_px: 16,
        height_px: 16,
    };
    assert!(bench.src.push_event(gst::event::Caps::new(&rgb_caps(small, 25))));
    bench.push(gray_frame(small, 3, 1)).unwrap();
    assert_eq!(bench.frames().iter().map(class_of).collect::<Vec<_>>(), [None]);
    assert!(bench.complaints()[0].contains("roi is 8,4,16,8"));
}

#[test]
fn a_model_that_cannot_be_opened_is_an_error_at_ready() {
    init();
    let fails_with = |path: Option<&str>, wanted: &[&str]| {
        let element = gst::ElementFactory::make("masaminfer")
            .property("model", path)
            .build()
            .unwrap();
        let bus = gst::Bus::new();
        element.set_bus(Some(&bus));
        assert!(element.set_state(gst::State::Ready).is_err());
        let message = bus.pop_filtered(&[gst::MessageType::Error]).unwrap();
        let gst::MessageView::Error(error) = message.view() else {
            unreachable!()
        };
        let text = format!("{} {:?}", error.error(), error.debug());
        for wanted in wanted {
            assert!(text.contains(wanted), "{text}");
        }
        assert!(error.error().is::<gst::ResourceError>());
        element.set_state(gst::State::Null).unwrap();
    };
    fails_with(None, &["model is not set", "name a model file"]);
    fails_with(
        Some("/no/such/model.safetensors"),
        &["/no/such/model.safetensors", "No such file"],
    );
}

#[test]
fn settings_that_no_stream_could_satisfy_are_refused_at_ready() {
    let refused = |properties: &[(&str, &str)]| {
        let element = infer_with(&Fake::new());
        for (name, value) in properties {
            element.set_property_from_str(name, value);
        }
        let bus = gst::Bus::new();
        element.set_bus(Some(&bus));
        assert!(element.set_state(gst::State::Ready).is_err());
        let message = bus.pop_filtered(&[gst::MessageType::Error]).unwrap();
        let gst::MessageView::Error(error) = message.view() else {
            unreachable!()
        };
        error.error().to_string()
    };
    assert!(refused(&[("hop", "2"), ("frame-stride", "3")]).contains("not neighbours"));
    assert!(refused(&[("hop", "2"), ("emit", "ensemble")]).contains("emit=ensemble takes others"));
    let hop = infer_with(&Fake::new()).find_property("hop").unwrap();
    let hop = hop.downcast::<gst::glib::ParamSpecUInt>().unwrap();
    assert_eq!((hop.minimum(), hop.maximum()), (1, 5), "a clip has five frames");
    assert!(refused(&[("roi", "1,2,3")]).contains("roi is 1,2,3"));
    assert!(refused(&[("device", "tpu")]).contains("device is tpu"));
}

#[test]
fn look_ahead_is_in_the_latency_and_in_the_allocation_query() {
    let fake = Fake::new();
    let bench = bench(&fake, &[("emit", "ensemble"), ("frame-stride", "3")]);
    let mut latency = gst::query::Latency::new();
    assert!(bench.sink.peer_query(&mut latency));
    let (live, min, max) = latency.result();
    assert_eq!(
        (live, min, max),
        (false, gst::ClockTime::from_mseconds(3 + 12 * 40), None)
    );

    let caps = rgb_caps(SIZE, 25);
    let mut allocation = gst::query::Allocation::new(Some(&caps), true);
    assert!(bench.src.peer_query(&mut allocation));
    let pools: Vec<_> = allocation.allocation_pools().collect();
    assert_eq!((pools.len(), pools[0].2, pools[0].3), (1, 12, 0));
    assert_eq!(pools[0].1, (SIZE.area() * 3) as u32);
}

#[test]
fn it_starts_and_stops_two_hundred_times() {
    let fake = Fake::new();
    let element = infer_with(&fake);
    let bench = Bench::new(element, false);
    let begun = std::time::Instant::now();
    for round in 0..200_u8 {
        bench.element.set_state(gst::State::Playing).unwrap();
        bench.begin(&rgb_caps(SIZE, 25));
        bench.push(gray_frame(SIZE, round, 0)).unwrap();
        assert_eq!(
            bench.frames().iter().map(class_of).collect::<Vec<_>>(),
            [Some(round % 200)]
        );
        let down = if round % 2 == 0 {
            gst::State::Null
        } else {
            gst::State::Ready
        };
        bench.element.set_state(down).unwrap();
    }
    assert!(begun.elapsed() < LONG);
}

#[test]
fn properties_set_in_ready_count_from_paused_on() {
    let fake = Fake::new();
    let bench = bench(&fake, &[]);
    let order = |stride: &str, roi: &str| {
        bench.element.set_state(gst::State::Ready).unwrap();
        bench.element.set_property_from_str("frame-stride", stride);
        bench.element.set_property_from_str("roi", roi);
        bench.element.set_state(gst::State::Playing)
    };
    order("2", "0,0,16,16").unwrap();
    bench.begin(&rgb_caps(SIZE, 25));
    for index in 0..10 {
        bench.push(gray_frame(SIZE, 40 + index, index.into())).unwrap();
    }
    assert_eq!(fake.asked()[9].bytes, [41, 43, 45, 47, 49]);
    assert_eq!(
        MaskMeta::from_buffer(&bench.frames()[9]).unwrap().region.width_px,
        16
    );
    assert!(order("2", "wide").is_err());
    assert!(bench.complaints().last().unwrap().contains("roi is wide"));
    order("1", "none").unwrap();
    // Another device means another model: it is opened anew, and this one cannot be.
    bench.element.set_state(gst::State::Ready).unwrap();
    bench.element.set_property_from_str("device", "abacus");
    assert!(bench.element.set_state(gst::State::Playing).is_err());
    assert!(bench.complaints().last().unwrap().contains("device is abacus"));
}

#[test]
fn the_models_resize_is_used_in_exact_mode_and_the_area_filter_in_live_mode() {
    // One bright column between dark ones: a spline through aligned corners keeps the last column, an average
    // of two does not.
    let size = Size {
        width_px: 16,
        height_px: 16,
    };
    let pixels: Vec<u8> = (0..16 * 16)
        .flat_map(|i| [if i % 16 == 15 { 199 } else { 99 }; 3])
        .collect();
    for (mode, resize, last) in [
        ("exact", masam::segmenter::Resize::Reference, 199),
        ("exact", masam::segmenter::Resize::Area, 149),
        ("live", masam::segmenter::Resize::Reference, 149),
    ] {
        let mut fake = Fake::new();
        fake.spec.resize = resize;
        let element = infer_with(&fake);
        element.set_property_from_str("mode", mode);
        let bench = Bench::new(element, false);
        bench.begin(&rgb_caps(size, 25));
        for _ in 0..2 {
            bench.push(gst::Buffer::from_mut_slice(pixels.clone())).unwrap();
            bench.wait_for_passes(1);
        }
        let meta = MaskMeta::from_buffer(&bench.frames()[1]).unwrap();
        assert_eq!(meta.plane[7], last, "{mode} {resize:?}");
    }
}

#[test]
fn what_upstream_has_heard_of_is_not_told_again_at_the_end() {
    let fake = Fake::new();
    let bench = bench(&fake, &[("emit", "centre")]);
    bench.refuse_frames(gst::FlowError::NotLinked);
    let mut pushed = (0..10_u8).map(|index| bench.push(gray_frame(SIZE, index, index.into())));
    assert!(pushed.any(|flow| flow == Err(gst::FlowError::NotLinked)));
    bench.end();
    assert_eq!(bench.complaints(), Vec::<String>::new());
}

#[test]
fn an_end_before_the_first_frame_has_left_says_that_it_was_not_taken() {
    let fake = Fake::new();
    let bench = bench(&fake, &[("emit", "centre")]);
    bench.refuse_frames(gst::FlowError::NotLinked);
    bench.push(gray_frame(SIZE, 1, 0)).unwrap();
    bench.end();
    let said = bench.complaints().join("; ");
    assert!(said.contains("downstream did not take the last frames"), "{said}");
}
