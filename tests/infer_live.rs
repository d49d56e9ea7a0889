//! `masaminfer` in live mode: the video never waits.

mod stream_support;

use gst::prelude::*;
use gstreamer as gst;
use masam::geometry::Size;
use masam::gst::meta::MaskMeta;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use stream_support::{Bench, Fake, Out, class_of, gray_frame, infer_with, rgb_caps, status_of};

const SIZE: Size = Size {
    width_px: 32,
    height_px: 16,
};

fn bench(fake: &Fake, live_source: bool, properties: &[(&str, &str)]) -> Bench {
    let element = infer_with(fake);
    for (name, value) in properties {
        element.set_property_from_str(name, value);
    }
    let bench = Bench::new(element, live_source);
    bench.begin(&rgb_caps(SIZE, 25));
    bench
}

fn is_live(bench: &Bench) -> bool {
    bench
        .element
        .property::<gst::Structure>("stats")
        .get("live")
        .unwrap()
}

/// Pushes a frame while no forward pass can end, so that it cannot be answered itself; what came out.
fn push_unanswered(bench: &Bench, fake: &Fake, frame: gst::Buffer) -> gst::Buffer {
    fake.gate.set(false);
    bench.take();
    bench.push(frame).unwrap();
    fake.gate.set(true);
    bench.frames().remove(0)
}

fn age_ms(buffer: &gst::Buffer) -> u64 {
    MaskMeta::from_buffer(buffer).unwrap().age_nanos / 1_000_000
}

#[test]
fn the_mode_follows_the_source_and_the_look_ahead() {
    let fake = Fake::new();
    for (live_source, properties, live) in [
        (true, vec![], true),
        (false, vec![], false),
        (true, vec![("emit", "centre")], false),
        (true, vec![("mode", "exact")], false),
        (false, vec![("mode", "live")], true),
    ] {
        assert_eq!(
            is_live(&bench(&fake, live_source, &properties)),
            live,
            "{live_source} {properties:?}"
        );
    }
    let element = infer_with(&fake);
    element.set_property_from_str("mode", "live");
    element.set_property_from_str("emit", "ensemble");
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    assert!(element.set_state(gst::State::Ready).is_err());
    let message = bus.pop_filtered(&[gst::MessageType::Error]).unwrap();
    let gst::MessageView::Error(error) = message.view() else {
        unreachable!()
    };
    assert!(error.error().to_string().contains("the video never waits"));
}

#[test]
fn a_model_that_never_answers_costs_masks_and_no_frame() {
    let fake = Fake::new();
    fake.gate.set(false);
    let bench = bench(&fake, true, &[]);
    for index in 0..100_u8 {
        bench.push(gray_frame(SIZE, index, index.into())).unwrap();
        let frames = bench.frames();
        assert_eq!(frames.len(), 1, "each frame leaves at once");
        assert_eq!(class_of(&frames[0]), None);
        fake.gate.wait_for(1);
    }
    // One clip is under way and one waits; the others gave way to newer ones.
    assert_eq!((bench.stat("clips-run"), bench.stat("clips-skipped")), (0, 98));
    assert_eq!(bench.stat("frames-without-mask"), 100);
    fake.gate.set(true);
    bench.wait_for_passes(2);
    // The newest clip before was of frame 99.
    let frame = push_unanswered(&bench, &fake, gray_frame(SIZE, 100, 100));
    assert_eq!((class_of(&frame), age_ms(&frame)), (Some(99), 40));
    assert_eq!(fake.asked()[1].bytes, [95, 96, 97, 98, 99]);
}

#[test]
fn masks_older_than_allowed_are_not_attached() {
    let fake = Fake::new();
    let bench = bench(&fake, true, &[("max-mask-age", "200000000")]);
    push_unanswered(&bench, &fake, gray_frame(SIZE, 50, 0));
    bench.wait_for_passes(1);
    fake.gate.set(false);
    bench.take();
    let shown: Vec<_> = (1..9_u8)
        .map(|index| {
            bench.push(gray_frame(SIZE, 60, index.into())).unwrap();
            let frame = bench.frames().remove(0);
            class_of(&frame).map(|class| (class, age_ms(&frame)))
        })
        .collect();
    let expected: Vec<_> = (1..9)
        .map(|index| (index <= 5).then_some((50, index * 40)))
        .collect();
    assert_eq!(shown, expected);
    fake.gate.set(true);
    assert_eq!(bench.stat("mask-age-p50"), 120_000_000);
}

#[test]
fn a_delay_gives_each_frame_its_own_mask_and_is_in_the_latency() {
    let fake = Fake::new();
    let bench = bench(&fake, true, &[("video-delay", "1000000000")]);
    assert_eq!(bench.latency(), (true, gst::ClockTime::from_mseconds(3 + 1000)));
    let mut allocation = gst::query::Allocation::new(Some(&rgb_caps(SIZE, 25)), true);
    assert!(bench.src.peer_query(&mut allocation));
    // 25 frames of delay, and three for a sink that keeps one waiting.
    assert_eq!(allocation.allocation_pools().next().unwrap().2, 28);
    let mut shown = Vec::new();
    for index in 0..60_u8 {
        bench.push(gray_frame(SIZE, index, index.into())).unwrap();
        bench.wait_for_passes(u64::from(index) + 1);
        shown.extend(bench.frames());
    }
    bench.end();
    shown.extend(buffers(frames_in_time(&bench, 60 - shown.len())));
    assert_eq!(shown.len(), 60);
    for (index, frame) in shown.iter().enumerate() {
        assert_eq!((class_of(frame), age_ms(frame)), (Some(index as u8), 0));
    }
}

/// What has left between or as frames: without announcements, which overtake them.
fn in_order(bench: &Bench) -> Vec<Out> {
    let overtakes = |out: &Out| matches!(out, Out::Event(event) if !event.is_serialized());
    bench.take().into_iter().filter(|out| !overtakes(out)).collect()
}

fn buffers(out: Vec<Out>) -> Vec<gst::Buffer> {
    let frame = |out| match out {
        Out::Frame(frame) => Some(frame),
        Out::Event(_) => None,
    };
    out.into_iter().filter_map(frame).collect()
}

/// What leaves until `count` frames have.
fn frames_in_time(bench: &Bench, count: usize) -> Vec<Out> {
    let begun = Instant::now();
    let is_frame = |out: &&Out| matches!(out, Out::Frame(_));
    let mut left = Vec::new();
    while left.iter().filter(is_frame).count() < count {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "no frame leaves: {left:?}"
        );
        std::thread::sleep(Duration::from_millis(1));
        left.extend(in_order(bench));
    }
    left
}

#[test]
fn frames_wait_for_the_delay_and_for_no_later_frame() {
    /// But for the time it takes to leave.
    const DELAY: Duration = Duration::from_millis(250 - 1);
    let fake = Fake::new();
    let bench = bench(&fake, true, &[("video-delay", "250000000")]);
    for round in 0..3_u8 {
        bench.take();
        let pushed = Instant::now();
        bench
            .push(gray_frame(SIZE, 20 * round, 8 * u64::from(round)))
            .unwrap();
        bench.wait_for_passes(2 * u64::from(round) + 1);
        let tag = gst::event::CustomDownstream::new(gst::Structure::new_empty("between"));
        assert!(bench.src.push_event(tag));
        bench
            .push(gray_frame(SIZE, 20 * round + 1, 8 * u64::from(round) + 1))
            .unwrap();
        let at_once = in_order(&bench);
        assert!(pushed.elapsed() >= DELAY || at_once.is_empty(), "{at_once:?}");
        // What came between them leaves between them.
        let left = frames_in_time(&bench, 2);
        assert!(pushed.elapsed() >= DELAY);
        let kinds: Vec<_> = left.iter().map(|out| matches!(out, Out::Frame(_))).collect();
        assert_eq!(kinds, [true, false, true], "{left:?}");
        let classes: Vec<_> = left
            .iter()
            .filter_map(|out| match out {
                Out::Frame(frame) => Some((class_of(frame), age_ms(frame))),
                _ => None,
            })
            .collect();
        assert_eq!(classes, [(Some(20 * round), 0), (Some(20 * round + 1), 0)]);
    }
}

#[test]
fn a_flush_takes_held_frames_away_and_the_end_lets_them_go() {
    let fake = Fake::new();
    let bench = bench(&fake, true, &[("video-delay", "300000000")]);
    bench.push(gray_frame(SIZE, 1, 0)).unwrap();
    assert!(bench.src.push_event(gst::event::FlushStart::new()));
    assert!(bench.src.push_event(gst::event::FlushStop::new(true)));
    bench.segment();
    bench.take();
    std::thread::sleep(Duration::from_millis(400));
    assert!(bench.frames().is_empty());
    bench.push(gray_frame(SIZE, 2, 0)).unwrap();
    while fake.asked().last().is_none_or(|asked| asked.bytes != [2; 5]) {
        std::thread::yield_now();
    }
    bench.wait_for_passes(bench_passes(&fake));
    let ended = Instant::now();
    bench.end();
    let frames = buffers(frames_in_time(&bench, 1));
    assert!(ended.elapsed() < Duration::from_millis(250), "nothing follows it");
    assert_eq!((frames.len(), class_of(&frames[0])), (1, Some(2)));
}

#[test]
fn upstream_hears_that_held_frames_were_not_taken() {
    let fake = Fake::new();
    let bench = bench(&fake, true, &[("video-delay", "50000000")]);
    let probe = bench.refuse_frames(gst::FlowError::NotLinked);
    bench.push(gray_frame(SIZE, 1, 0)).unwrap();
    while bench.stat("frames-out") == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(bench.push(gray_frame(SIZE, 2, 1)), Err(gst::FlowError::NotLinked));
    // Somebody is there again.
    bench.element.static_pad("src").unwrap().remove_probe(probe);
    bench.push(gray_frame(SIZE, 3, 2)).unwrap();
    let is_third =
        |out: &Out| matches!(out, Out::Frame(frame) if frame.pts() == gray_frame(SIZE, 3, 2).pts());
    assert!(frames_in_time(&bench, 1).iter().any(is_third));
}

#[test]
fn the_end_leaves_although_downstream_takes_no_more_frames() {
    for (error, told) in [(gst::FlowError::Eos, 0), (gst::FlowError::NotLinked, 1)] {
        let fake = Fake::new();
        let bench = bench(&fake, true, &[("video-delay", "100000000")]);
        bench.refuse_frames(error);
        for index in 0..3 {
            bench.push(gray_frame(SIZE, index, index.into())).unwrap();
        }
        bench.complaints();
        bench.end();
        let is_end = |out: &Out| matches!(out, Out::Event(event) if event.type_() == gst::EventType::Eos);
        let begun = Instant::now();
        while !bench.take().iter().any(is_end) {
            assert!(begun.elapsed() < Duration::from_secs(20), "no end after {error}");
            std::thread::sleep(Duration::from_millis(1));
        }
        let said = bench.complaints();
        assert_eq!(said.len(), told, "{said:?}");
    }
}

#[test]
fn events_between_frames_take_no_room_from_them() {
    let fake = Fake::new();
    let bench = bench(&fake, true, &[("video-delay", "1000000000")]);
    let begun = Instant::now();
    for index in 0..20_u8 {
        for _ in 0..10 {
            let between = gst::event::CustomDownstream::new(gst::Structure::new_empty("between"));
            assert!(bench.src.push_event(between));
        }
        bench.push(gray_frame(SIZE, index, index.into())).unwrap();
    }
    assert!(begun.elapsed() < Duration::from_millis(900), "nobody had to wait");
    bench.end();
    let out = frames_in_time(&bench, 20);
    let events = out.iter().filter(|out| matches!(out, Out::Event(_))).count();
    assert!(events >= 190, "{events}");
}

/// As while a sink waits for the time of a frame.
#[test]
fn a_frame_that_does_not_leave_yet_costs_the_next_no_time() {
    let fake = Fake::new();
    let bench = bench(&fake, true, &[("video-delay", "500000000")]);
    let (let_go, blocked) = std::sync::mpsc::channel();
    let blocked = std::sync::Mutex::new(blocked);
    let source_pad = bench.element.static_pad("src").unwrap();
    source_pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        // Nobody sends for later frames.
        let _ = blocked.lock().unwrap().recv_timeout(Duration::from_secs(5));
        gst::PadProbeReturn::Ok
    });
    bench.push(gray_frame(SIZE, 1, 0)).unwrap();
    while bench.stat("frames-out") == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    // Comes in although the one before is still on its way.
    bench.push(gray_frame(SIZE, 2, 1)).unwrap();
    assert_eq!(bench.stat("frames-in"), 2);
    std::thread::sleep(Duration::from_millis(500));
    let_go.send(()).unwrap();
    drop(let_go);
    let begun = Instant::now();
    frames_in_time(&bench, 2);
    assert!(
        begun.elapsed() < Duration::from_millis(400),
        "its delay began when it came"
    );
}

/// A camera must not wait for a sink that shows frames in their time: it would lose those that come meanwhile.
#[test]
fn a_sink_that_waits_for_the_time_of_held_frames_holds_up_no_camera() {
    const DELAY: Duration = Duration::from_millis(400);
    const FRAME: Duration = Duration::from_millis(40);
    let fake = Fake::new();
    let bench = bench(&fake, true, &[("video-delay", "400000000")]);
    let begun = Instant::now();
    let left = Arc::new(Mutex::new(Vec::new()));
    let leaves = Arc::clone(&left);
    let source_pad = bench.element.static_pad("src").unwrap();
    source_pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let shown = info.buffer().unwrap().pts().unwrap();
        leaves.lock().unwrap().push((shown, begun.elapsed()));
        // One frame later than it could: others in the pipeline are slower.
        let due = Duration::from_nanos(shown.nseconds()) + DELAY + FRAME;
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        gst::PadProbeReturn::Ok
    });
    let (mut came, mut longest) = (Vec::new(), Duration::ZERO);
    for index in (0..50_u8).filter(|index| !(10..15).contains(index)) {
        let mut frame = gray_frame(SIZE, index, index.into());
        let shown = frame.pts().unwrap();
        // Frames are missing in front of one, and none in front of the other.
        if [15, 20].contains(&index) {
            frame.get_mut().unwrap().set_flags(gst::BufferFlags::DISCONT);
        }
        std::thread::sleep(Duration::from_nanos(shown.nseconds()).saturating_sub(begun.elapsed()));
        let comes = begun.elapsed();
        came.push((shown, comes));
        if index == 30 {
            let gap = gst::event::Gap::builder(shown).build();
            assert!(bench.src.push_event(gap));
            bench.element.set_property("prompt", "box=1,1,8,8");
        }
        bench.push(frame).unwrap();
        longest = longest.max(begun.elapsed() - comes);
    }
    bench.end();
    frames_in_time(&bench, came.len());
    let left = left.lock().unwrap();
    assert_eq!(left.len(), came.len());
    for (&(shown, came), &(leaving, left)) in came.iter().zip(left.iter()) {
        assert_eq!(shown, leaving);
        // Two frames of it: the sink keeps one waiting while the next is due.
        let held = left - came;
        let early = held + FRAME < DELAY && shown < gst::ClockTime::from_mseconds(1500);
        assert!(!early, "{shown}: {held:?}");
    }
    assert!(longest < DELAY / 2, "the camera had to wait for {longest:?}");
}

#[test]
fn a_flush_by_whoever_gets_the_last_frames_takes_away_what_drove_them_out() {
    for by_frame in [true, false] {
        let fake = Fake::new();
        let bench = bench(&fake, true, &[("video-delay", "100000000")]);
        let source = bench.src.clone();
        let source_pad = bench.element.static_pad("src").unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let told = Mutex::new(told);
        source_pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            // What comes next has come.
            told.lock().unwrap().recv().unwrap();
            assert!(source.push_event(gst::event::FlushStart::new()));
            assert!(source.push_event(gst::event::FlushStop::new(true)));
            gst::PadProbeReturn::Remove
        });
        bench.take();
        bench.push(gray_frame(SIZE, 1, 0)).unwrap();
        let mut frame = gray_frame(SIZE, 2, 1);
        frame.get_mut().unwrap().set_flags(gst::BufferFlags::DISCONT);
        match by_frame {
            true => assert!(bench.push(frame).is_ok()),
            false => bench.segment(),
        }
        tell.send(()).unwrap();
        let is_stop =
            |out: &Out| matches!(out, Out::Event(event) if event.type_() == gst::EventType::FlushStop);
        let mut out = Vec::new();
        while !out.iter().any(is_stop) {
            std::thread::sleep(Duration::from_millis(1));
            out.extend(bench.take());
        }
        // Of the new start there is nothing yet.
        std::thread::sleep(Duration::from_millis(150));
        out.extend(bench.take());
        let stop = out.iter().position(is_stop).unwrap();
        let is_old = |out: &Out| match out {
            Out::Frame(frame) => frame.pts() == gray_frame(SIZE, 2, 1).pts(),
            Out::Event(event) => event.type_() == gst::EventType::Segment,
        };
        assert!(!out[stop..].iter().any(is_old), "{out:?}");
    }
}

#[test]
fn frames_lost_on_the_way_cost_no_mask_and_a_jump_does() {
    let fake = Fake::new();
    let bench = bench(&fake, true, &[]);
    let apart = |byte, index| {
        let mut frame = gray_frame(SIZE, byte, index);
        frame.get_mut().unwrap().set_flags(gst::BufferFlags::DISCONT);
        frame
    };
    let begun = bench.stat("epoch");
    bench.push(gray_frame(SIZE, 50, 0)).unwrap();
    bench.wait_for_passes(1);
    // Two frames are missing.
    let frame = push_unanswered(&bench, &fake, apart(51, 3));
    assert_eq!((class_of(&frame), age_ms(&frame)), (Some(50), 120));
    bench.wait_for_passes(2);
    // None is: what does not follow comes from elsewhere.
    let frame = push_unanswered(&bench, &fake, apart(52, 4));
    assert_eq!(class_of(&frame), None);
    bench.wait_for_passes(3);
    // So many that no mask is young enough any more.
    let frame = push_unanswered(&bench, &fake, apart(53, 4 + 13));
    assert_eq!(class_of(&frame), None);
    assert_eq!(bench.stat("epoch") - begun, 2);
}

#[test]
fn who_says_of_each_frame_that_it_does_not_follow_is_told_why_there_are_no_masks() {
    let fake = Fake::new();
    let bench = bench(&fake, true, &[]);
    fake.gate.set(false);
    for index in 0..8_u8 {
        let mut frame = gray_frame(SIZE, index, index.into());
        frame.get_mut().unwrap().set_flags(gst::BufferFlags::DISCONT);
        bench.push(frame).unwrap();
        let status = status_of(&bench.frames()[0]);
        assert_eq!(
            status.is_some_and(|text| text.contains("DISCONT")),
            index >= 5,
            "frame {index}"
        );
    }
    fake.gate.set(true);
}

#[test]
fn where_timestamps_lag_behind_the_clock_masks_age_by_arrival() {
    let fake = Fake::new();
    let bench = bench(&fake, true, &[("max-mask-age", "150000000")]);
    let begun = Instant::now();
    let mut made = None;
    for index in 0..45_u64 {
        std::thread::sleep((Duration::from_millis(40) * index as u32).saturating_sub(begun.elapsed()));
        // The last frames get no masks of their own.
        if index == 38 {
            bench.wait_for_passes(bench_passes(&fake));
            fake.gate.set(false);
        }
        let mut frame = gray_frame(SIZE, index as u8, 0);
        let shown = gst::ClockTime::from_mseconds(4 * index);
        frame.get_mut().unwrap().set_pts(shown);
        let came = begun.elapsed();
        bench.push(frame).unwrap();
        let age = came - *made.get_or_insert(came);
        let frame = bench.frames().remove(0);
        match index {
            0..38 => made = None,
            _ => {
                let claimed = class_of(&frame).map(|_| Duration::from_millis(age_ms(&frame)));
                // By the timestamps it would be 4 ms a frame, and never too old.
                let lies = claimed.is_some_and(|claimed| claimed + Duration::from_millis(30) < age);
                assert!(!lies, "frame {index}: {claimed:?}, {age:?} have passed");
                assert!(claimed.is_none() || age < Duration::from_millis(200));
            }
        }
    }
    fake.gate.set(true);
}

#[test]
fn without_timestamps_masks_age_by_arrival() {
    let fake = Fake::new();
    let bench = bench(&fake, true, &[("max-mask-age", "60000000000")]);
    let untimed = |byte| {
        let mut frame = gray_frame(SIZE, byte, 0);
        frame.get_mut().unwrap().set_pts(gst::ClockTime::NONE);
        frame
    };
    bench.push(untimed(7)).unwrap();
    bench.wait_for_passes(1);
    let frame = push_unanswered(&bench, &fake, untimed(8));
    let meta = MaskMeta::from_buffer(&frame).unwrap();
    assert_eq!((class_of(&frame), meta.running_time_nanos), (Some(7), None));
    assert!(meta.age_nanos > 0);
}

#[test]
fn timestamps_that_stand_still_stop_no_delayed_video_and_keep_no_mask() {
    let fake = Fake::new();
    let bench = bench(
        &fake,
        true,
        &[("video-delay", "100000000"), ("max-mask-age", "100000000")],
    );
    let next = || match frames_in_time(&bench, 1).pop() {
        Some(Out::Frame(frame)) => frame,
        other => panic!("{other:?}"),
    };
    bench.push(gray_frame(SIZE, 1, 0)).unwrap();
    bench.wait_for_passes(1);
    fake.gate.set(false);
    bench.take();
    // All of them at the same time, as they say: arrival counts.
    assert_eq!(class_of(&next()), Some(1));
    std::thread::sleep(Duration::from_millis(101));
    bench.push(gray_frame(SIZE, 2, 0)).unwrap();
    assert_eq!(class_of(&next()), None, "the mask is of before the limit");
    fake.gate.set(true);
}

#[test]
fn a_hop_is_of_exact_mode_only() {
    let mut fake = Fake::new();
    fake.spec.frame_interval_nanos = Some(80_000_000);
    let element = infer_with(&fake);
    element.set_property("hop", 3_u32);
    let bench = Bench::new(element, true);
    // Two frames of the source to one of a clip.
    bench.begin(&rgb_caps(SIZE, 25));
    for index in 0..6_u8 {
        bench.push(gray_frame(SIZE, index, index.into())).unwrap();
        bench.wait_for_passes(u64::from(index) + 1);
    }
    assert_eq!(bench.frames().len(), 6);
}

#[test]
fn a_stream_without_a_rate_is_cut_by_time() {
    let mut fake = Fake::new();
    fake.spec.frame_interval_nanos = Some(80_000_000);
    let element = infer_with(&fake);
    element.set_property("video-delay", 100_000_000_u64);
    let bench = Bench::new(element, true);
    bench.begin(&rgb_caps(SIZE, 0));
    assert_eq!(bench.latency().1, gst::ClockTime::from_mseconds(3 + 100));
    for index in 0..12_u8 {
        bench.push(gray_frame(SIZE, index, index.into())).unwrap();
        bench.wait_for_passes(u64::from(index) + 1);
    }
    assert_eq!(fake.asked()[11].bytes, [3, 5, 7, 9, 11]);
}

#[test]
fn flush_discontinuity_and_new_caps_leave_no_mask_of_before() {
    let fake = Fake::new();
    let bench = bench(&fake, true, &[]);
    let other = Size {
        width_px: 20,
        height_px: 30,
    };
    let mut size = SIZE;
    let mut last_epoch = 0;
    for change in 0..3_u8 {
        bench.push(gray_frame(size, 10 + change, 0)).unwrap();
        bench.wait_for_passes(bench_passes(&fake));
        // While the next clip is under way the stream breaks off.
        let begun = fake.asked().len();
        fake.gate.set(false);
        bench.push(gray_frame(size, 20 + change, 1)).unwrap();
        fake.gate.wait_for(begun + 1);
        let mut frame = gray_frame(size, 30 + change, 2);
        match change {
            0 => {
                assert!(bench.src.push_event(gst::event::FlushStart::new()));
                assert!(bench.src.push_event(gst::event::FlushStop::new(true)));
                bench.segment();
            }
            1 => frame.get_mut().unwrap().set_flags(gst::BufferFlags::DISCONT),
            _ => {
                size = other;
                frame = gray_frame(size, 30 + change, 2);
                assert!(bench.src.push_event(gst::event::Caps::new(&rgb_caps(size, 25))));
            }
        }
        bench.take();
        bench.push(frame).unwrap();
        assert_eq!(class_of(&bench.frames()[0]), None, "change {change}");
        fake.gate.set(true);
        bench.wait_for_passes(begun as u64 + 2);
        let frame = push_unanswered(&bench, &fake, gray_frame(size, 40, 3));
        let meta = MaskMeta::from_buffer(&frame).unwrap();
        assert_eq!(
            (class_of(&frame), meta.frame),
            (Some(30 + change), size),
            "change {change}"
        );
        assert!(meta.epoch > last_epoch);
        last_epoch = meta.epoch;
        assert_eq!(
            fake.asked()[begun + 1].bytes,
            [30 + change; 5],
            "no frame from before in the clip"
        );
        bench.wait_for_passes(bench_passes(&fake));
    }
    // The answer to a clip of earlier caps finds nobody any more.
    assert_eq!(bench.stat("answers-stale"), 2);
}

/// Passes that have been begun.
fn bench_passes(fake: &Fake) -> u64 {
    fake.asked().len() as u64
}

#[test]
fn a_gap_does_not_take_the_mask_away() {
    let fake = Fake::new();
    let bench = bench(&fake, true, &[]);
    bench.push(gray_frame(SIZE, 9, 0)).unwrap();
    bench.wait_for_passes(1);
    assert!(
        bench
            .src
            .push_event(gst::event::Gap::new(gst::ClockTime::ZERO, gst::ClockTime::NONE))
    );
    let frame = push_unanswered(&bench, &fake, gray_frame(SIZE, 11, 4));
    assert_eq!(class_of(&frame), Some(9));
}

#[test]
fn faults_are_said_to_the_viewer_until_they_are_over() {
    let fake = Fake::new();
    let bench = bench(&fake, true, &[]);
    fake.failing.store(true, Ordering::SeqCst);
    bench.push(gray_frame(SIZE, 5, 0)).unwrap();
    bench.wait_for_passes(1);
    let frame = push_unanswered(&bench, &fake, gray_frame(SIZE, 6, 1));
    assert!(status_of(&frame).unwrap().contains("told to fail"));
    assert_eq!(class_of(&frame), None);
    bench.wait_for_passes(2);
    fake.failing.store(false, Ordering::SeqCst);
    bench.push(gray_frame(SIZE, 7, 2)).unwrap();
    bench.wait_for_passes(3);
    let frame = push_unanswered(&bench, &fake, gray_frame(SIZE, 8, 3));
    assert_eq!((class_of(&frame), status_of(&frame)), (Some(7), None));
    assert!(bench.complaints().iter().all(|c| c.starts_with("warning")));
}

#[test]
fn time_that_jumps_back_is_a_new_start() {
    let fake = Fake::new();
    let bench = bench(&fake, true, &[]);
    bench.push(gray_frame(SIZE, 50, 100)).unwrap();
    bench.wait_for_passes(1);
    // Jitter is not: two frames change places.
    let frame = push_unanswered(&bench, &fake, gray_frame(SIZE, 51, 98));
    assert_eq!(class_of(&frame), Some(50));
    bench.wait_for_passes(2);
    // A source that began anew without saying so: the mask of before would look 4 s younger than it is.
    let frame = push_unanswered(&bench, &fake, gray_frame(SIZE, 52, 0));
    assert_eq!(class_of(&frame), None);
    bench.wait_for_passes(3);
    let frame = push_unanswered(&bench, &fake, gray_frame(SIZE, 53, 1));
    assert_eq!((class_of(&frame), age_ms(&frame)), (Some(52), 40));
    assert_eq!(fake.asked()[2].bytes, [52; 5]);
}

#[test]
fn time_that_walks_back_is_a_new_start_as_well() {
    let fake = Fake::new();
    let bench = bench(&fake, true, &[]);
    bench.push(gray_frame(SIZE, 50, 100)).unwrap();
    bench.wait_for_passes(1);
    // Each step alone would be jitter; after the third, 120 ms in all, the masks of before could be of any age.
    for (passes, (byte, index, class)) in (2..).zip([(51, 99, Some(50)), (52, 98, Some(51)), (53, 97, None)])
    {
        let frame = push_unanswered(&bench, &fake, gray_frame(SIZE, byte, index));
        assert_eq!(class_of(&frame), class, "frame {index}");
        bench.wait_for_passes(passes);
    }
    assert_eq!(fake.asked()[3].bytes, [53; 5]);
}

#[test]
fn a_carried_mask_is_marked_and_keeps_its_age() {
    let fake = Fake::new();
    let bench = bench(&fake, true, &[("carry", "true"), ("roi", "none")]);
    bench.push(gray_frame(SIZE, 60, 0)).unwrap();
    bench.wait_for_passes(1);
    let frame = push_unanswered(&bench, &fake, gray_frame(SIZE, 62, 3));
    let meta = MaskMeta::from_buffer(&frame).unwrap();
    assert_eq!(
        (class_of(&frame), age_ms(&frame), meta.carried),
        (Some(60), 120, true)
    );
    assert_eq!(meta.running_time_nanos, Some(0));
}

/// What an overlay hears of masks before the frames that show them.
#[test]
fn masks_are_announced_before_a_frame_shows_them() {
    for (properties, announced) in [
        (vec![], true),
        (vec![("mode", "exact")], false),
        (vec![("carry", "true")], false),
    ] {
        let fake = Fake::new();
        let bench = bench(&fake, true, &properties);
        let mut planes = Vec::new();
        let mut shown = 0;
        for index in 0..12_u8 {
            bench.push(gray_frame(SIZE, index, index.into())).unwrap();
            if is_live(&bench) {
                bench.wait_for_passes(u64::from(index) + 1);
            }
            for out in bench.take() {
                match out {
                    Out::Event(event) => {
                        let structure = event
                            .structure()
                            .filter(|structure| structure.name() == "MasamMask");
                        let Some(structure) = structure else { continue };
                        assert_eq!(event.type_(), gst::EventType::CustomDownstreamOob);
                        assert_eq!(structure.get::<u32>("frame-width").unwrap(), SIZE.width_px);
                        planes.push(structure.get::<gst::glib::Bytes>("mask").unwrap());
                    }
                    Out::Frame(buffer) => {
                        let Some(mask) =
                            MaskMeta::from_buffer(&buffer).filter(|mask| mask.mask != Size::square(1))
                        else {
                            continue;
                        };
                        shown += 1;
                        assert!(
                            !announced || planes.contains(&mask.plane),
                            "{index}: not announced"
                        );
                    }
                }
            }
        }
        assert_eq!(planes.len(), if announced { 12 } else { 0 }, "{properties:?}");
        assert!(shown >= 4, "{properties:?}");
    }
}

/// As where an application has blocked a pad: announcements never return, and masks come all the same.
#[test]
fn who_never_returns_from_an_announcement_holds_up_no_mask() {
    let fake = Fake::new();
    let bench = bench(&fake, true, &[]);
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let pad = bench.element.static_pad("src").unwrap();
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if info.event().unwrap().type_() == gst::EventType::CustomDownstreamOob {
            // Until the test is over.
            let _ = released.lock().unwrap().recv();
        }
        gst::PadProbeReturn::Ok
    });
    let mut shown = 0;
    for index in 0..12_u8 {
        bench.push(gray_frame(SIZE, index, index.into())).unwrap();
        bench.wait_for_passes(u64::from(index) + 1);
        shown += bench
            .frames()
            .iter()
            .filter(|frame| class_of(frame).is_some())
            .count();
    }
    assert!(shown >= 10, "{shown}");
    assert_eq!((bench.stat("restarts"), bench.stat_u32("detached")), (0, 0));
    drop(release);
}
