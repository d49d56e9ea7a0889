//! `masaminfer` in whole pipelines: nothing is lost, moved in time or left hanging.

mod stream_support;

use gst::prelude::*;
use gstreamer as gst;
use masam::gst::meta::MaskMeta;
use std::sync::{Arc, Mutex};
use stream_support::{Fake, LONG, infer_with, init};

/// What the sink got: time and, where there is one, the mask's epoch.
type Got = Arc<Mutex<Vec<(Option<gst::ClockTime>, Option<u64>)>>>;

fn pipeline(source: &str, infer: Option<gst::Element>) -> (gst::Pipeline, Got) {
    init();
    let pipeline = gst::Pipeline::new();
    let caps = "capsfilter caps=video/x-raw,format=RGB,width=64,height=48,framerate=25/1";
    let source = gst::parse::bin_from_description(&format!("{source} ! {caps}"), true).unwrap();
    let sink = gst::ElementFactory::make("fakesink")
        .property("sync", false)
        .build()
        .unwrap();
    let mut chain = vec![source.upcast::<gst::Element>()];
    chain.extend(infer);
    chain.push(sink.clone());
    pipeline.add_many(&chain).unwrap();
    gst::Element::link_many(&chain).unwrap();
    let got: Got = Arc::default();
    let into = Arc::clone(&got);
    sink.static_pad("sink")
        .unwrap()
        .add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let buffer = info.buffer().unwrap();
            into.lock()
                .unwrap()
                .push((buffer.pts(), MaskMeta::from_buffer(buffer).map(|meta| meta.epoch)));
            gst::PadProbeReturn::Ok
        });
    (pipeline, got)
}

fn wait_for_end(pipeline: &gst::Pipeline) {
    let wanted = [gst::MessageType::Eos, gst::MessageType::Error];
    let timeout = gst::ClockTime::from_seconds(LONG.as_secs());
    let message = pipeline
        .bus()
        .unwrap()
        .timed_pop_filtered(timeout, &wanted)
        .expect("the pipeline hangs");
    assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
}

fn stop(pipeline: &gst::Pipeline) {
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn times_at_the_sink_are_those_without_the_element() {
    let source = "videotestsrc num-buffers=60";
    let (plain, want) = pipeline(source, None);
    plain.set_state(gst::State::Playing).unwrap();
    wait_for_end(&plain);
    stop(&plain);
    for emit in ["newest", "centre", "ensemble"] {
        let infer = infer_with(&Fake::new());
        infer.set_property_from_str("emit", emit);
        infer.set_property_from_str("frame-stride", "3");
        let (with, got) = pipeline(source, Some(infer));
        with.set_state(gst::State::Playing).unwrap();
        wait_for_end(&with);
        stop(&with);
        let times = |got: &Got| {
            got.lock()
                .unwrap()
                .iter()
                .map(|(time, _)| *time)
                .collect::<Vec<_>>()
        };
        assert_eq!(times(&got), times(&want), "{emit}");
        assert!(got.lock().unwrap().iter().all(|(_, epoch)| epoch.is_some()));
    }
}

#[test]
fn pausing_and_going_on_loses_nothing() {
    let fake = Fake::new();
    let infer = infer_with(&fake);
    infer.set_property_from_str("emit", "centre");
    let (pipeline, got) = pipeline("videotestsrc num-buffers=200", Some(infer));
    for pass in [20, 70, 120] {
        pipeline.set_state(gst::State::Playing).unwrap();
        fake.gate.wait_for(pass);
        pipeline.set_state(gst::State::Paused).unwrap();
    }
    pipeline.set_state(gst::State::Playing).unwrap();
    wait_for_end(&pipeline);
    stop(&pipeline);
    let got = got.lock().unwrap();
    assert_eq!(got.len(), 200);
    assert!(
        got.iter().all(|&(_, epoch)| epoch == got[0].1),
        "a pause is no new epoch"
    );
}

#[test]
fn a_flushing_seek_is_not_held_up_by_a_clip_under_way() {
    let fake = Fake::new();
    let infer = infer_with(&fake);
    infer.set_property_from_str("emit", "centre");
    let (pipeline, got) = pipeline("videotestsrc", Some(infer));
    pipeline.set_state(gst::State::Playing).unwrap();
    let set = gst::SeekType::Set;
    let [from, to] = [400, 2000].map(gst::ClockTime::from_mseconds);
    for round in 0..5 {
        fake.gate.wait_for(3 + round);
        fake.gate.set(false);
        fake.gate.wait_for_blocked();
        pipeline
            .seek(1.0, gst::SeekFlags::FLUSH, set, from, set, to)
            .unwrap();
        got.lock().unwrap().clear();
        fake.gate.set(true);
    }
    wait_for_end(&pipeline);
    stop(&pipeline);
    let got = got.lock().unwrap();
    let times: Vec<u64> = got
        .iter()
        .filter_map(|(time, _)| Some(time.as_ref()?.mseconds()))
        .collect();
    assert!(
        times.iter().copied().eq((10..50).map(|index| index * 40)),
        "{times:?}"
    );
    let epochs: Vec<_> = got.iter().filter_map(|(_, epoch)| *epoch).collect();
    assert_eq!(epochs.len(), got.len(), "every frame has a mask");
    assert!(
        epochs.iter().all(|&epoch| epoch == epochs[0] && epoch >= 5),
        "{epochs:?}"
    );
}

#[test]
fn live_sources_are_served_live() {
    let fake = Fake::new();
    let infer = infer_with(&fake);
    let (pipeline, got) = pipeline("videotestsrc is-live=true num-buffers=15", Some(infer.clone()));
    pipeline.set_state(gst::State::Playing).unwrap();
    wait_for_end(&pipeline);
    let stats = infer.property::<gst::Structure>("stats");
    stop(&pipeline);
    assert!(stats.get::<bool>("live").unwrap());
    assert_eq!(got.lock().unwrap().len(), 15);
}

#[test]
fn states_change_two_hundred_times_in_a_row() {
    let fake = Fake::new();
    let infer = infer_with(&fake);
    infer.set_property_from_str("emit", "ensemble");
    let (pipeline, _) = pipeline("videotestsrc", Some(infer));
    let states = [
        gst::State::Playing,
        gst::State::Paused,
        gst::State::Ready,
        gst::State::Null,
    ];
    for round in 0..200_usize {
        // Without waiting for any of them to be complete.
        pipeline.set_state(gst::State::Playing).unwrap();
        pipeline.set_state(states[round % 4]).unwrap();
    }
    stop(&pipeline);
}
