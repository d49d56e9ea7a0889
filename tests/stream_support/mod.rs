//! What the stream and element tests share: a segmenter whose answers can be predicted, and a bench that is both
//! neighbours of one element.

#![allow(dead_code, reason = "each test file uses its own part")]

use gst::prelude::*;
use gstreamer as gst;
use masam::geometry::{Orientation, Rect, Size};
use masam::gst::infer::Infer;
use masam::gst::meta::MaskMeta;
use masam::labels::ClassSet;
use masam::segmenter::{
    Plane, Reply, Request, Resize, SegmentError, Segmenter, SegmenterSpec, StreamId, Temporal, Want,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Ends a test that would hang; never a way to wait for something.
pub const LONG: Duration = Duration::from_secs(60);

/// A door that segmenters wait at until it is opened.
#[derive(Default)]
pub struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    open: bool,
    /// Passes that have come to the door.
    begun: usize,
    /// Passes that stand before it.
    blocked: usize,
}

impl Gate {
    pub fn set(&self, open: bool) {
        self.state.lock().unwrap().open = open;
        self.changed.notify_all();
    }

    pub fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.begun += 1;
        state.blocked += 1;
        self.changed.notify_all();
        let mut state = self.changed.wait_while(state, |state| !state.open).unwrap();
        state.blocked -= 1;
    }

    /// Waits until `count` forward passes have begun since the start.
    pub fn wait_for(&self, count: usize) {
        self.wait_until(|state| state.begun >= count);
    }

    /// Waits until a forward pass stands before the closed door.
    pub fn wait_for_blocked(&self) {
        self.wait_until(|state| state.blocked > 0);
    }

    fn wait_until(&self, done: impl Fn(&GateState) -> bool) {
        let state = self.state.lock().unwrap();
        let (state, timeout) = self
            .changed
            .wait_timeout_while(state, LONG, |state| !done(state))
            .unwrap();
        assert!(
            !timeout.timed_out(),
            "{} forward passes began, {} are blocked",
            state.begun,
            state.blocked
        );
    }
}

/// What a fake segmenter was asked: the first byte of every frame, and the outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub stream: StreamId,
    pub bytes: Vec<u8>,
    pub outputs: Vec<usize>,
}

/// Gives every pixel its own red byte as class (modulo the number of classes).
#[derive(Clone)]
pub struct Fake {
    pub spec: SegmenterSpec,
    pub asked: Arc<Mutex<Vec<Asked>>>,
    /// Forward passes fail while this is set.
    pub failing: Arc<AtomicBool>,
    /// Forward passes panic while this is set.
    pub panicking: Arc<AtomicBool>,
    pub gate: Arc<Gate>,
}

impl Fake {
    /// A segmenter for 8x8 squares and 200 classes, its gate open.
    pub fn new() -> Self {
        let gate = Gate::default();
        gate.set(true);
        let spec = SegmenterSpec {
            model_id: "fake".into(),
            clip_frames: 5,
            side_px: 8,
            classes: ClassSet::numbered(200).unwrap(),
            resize: Resize::Area,
            orientation: Orientation::Upright,
            frame_interval_nanos: None,
            temporal: Temporal::Centered,
            untrained: true,
            device: "none".into(),
        };
        Self {
            spec,
            asked: Arc::default(),
            failing: Arc::default(),
            panicking: Arc::default(),
            gate: Arc::new(gate),
        }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl Segmenter for Fake {
    fn spec(&self) -> &SegmenterSpec {
        &self.spec
    }

    fn segment(&mut self, requests: &[Request], _: Option<Instant>) -> Vec<Result<Reply, SegmentError>> {
        let note = |r: &Request| Asked {
            stream: r.stream,
            bytes: r.frames.iter().map(|f| f.rgb[0]).collect(),
            outputs: r.outputs.clone(),
        };
        self.asked.lock().unwrap().extend(requests.iter().map(note));
        self.gate.pass();
        assert!(!self.panicking.load(Ordering::SeqCst), "told to panic");
        if self.failing.load(Ordering::SeqCst) {
            return requests
                .iter()
                .map(|_| Err(SegmentError::Forward("told to fail".into())))
                .collect();
        }
        let classes = self.spec.classes.len();
        let plane = |request: &Request, position: usize| {
            let ids: Vec<u8> = request.frames[position]
                .rgb
                .chunks_exact(3)
                .map(|p| (usize::from(p[0]) % classes) as u8)
                .collect();
            match request.want {
                Want::Labels => Plane::Labels(ids),
                Want::Probabilities => {
                    let mut values = vec![0.0; classes * ids.len()];
                    for (pixel, &id) in ids.iter().enumerate() {
                        values[usize::from(id) * ids.len() + pixel] = 1.0;
                    }
                    Plane::Probabilities(values)
                }
            }
        };
        let reply = |r: &Request| Reply {
            planes: r.outputs.iter().map(|&k| plane(r, k)).collect(),
        };
        requests.iter().map(|r| Ok(reply(r))).collect()
    }
}

/// What came out of the element.
#[derive(Debug, Clone)]
pub enum Out {
    Frame(gst::Buffer),
    Event(gst::Event),
}

/// An element between two pads of ours.
pub struct Bench {
    pub element: gst::Element,
    pub src: gst::Pad,
    pub sink: gst::Pad,
    pub bus: gst::Bus,
    out: Arc<Mutex<Vec<Out>>>,
}

pub fn init() {
    use std::sync::Once;
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        gst::init().unwrap();
        masam::gst::plugin_register_static().unwrap();
    });
}

/// A `masaminfer` that asks `fake`.
pub fn infer_with(fake: &Fake) -> gst::Element {
    init();
    let element = gst::ElementFactory::make("masaminfer").build().unwrap();
    let fake = fake.clone();
    let infer = element.downcast_ref::<Infer>().unwrap();
    infer.set_segmenter(move || Ok(Box::new(fake.clone())));
    element
}

/// How the downstream neighbour answers the ALLOCATION query.
pub type AnswerAllocation = fn(&mut gst::query::Allocation);

impl Bench {
    /// A bench around `element`, whose upstream neighbour is live or not; everything is playing.
    pub fn new(element: gst::Element, live: bool) -> Self {
        Self::with_allocation(element, live, None)
    }

    /// The same with a downstream neighbour that answers the ALLOCATION query.
    pub fn with_allocation(element: gst::Element, live: bool, answer: Option<AnswerAllocation>) -> Self {
        let src = gst::Pad::builder(gst::PadDirection::Src)
            .query_function(move |pad, parent, query| {
                if let gst::QueryViewMut::Latency(latency) = query.view_mut() {
                    latency.set(live, gst::ClockTime::from_mseconds(3), gst::ClockTime::NONE);
                    return true;
                }
                gst::Pad::query_default(pad, parent, query)
            })
            .build();
        let out: Arc<Mutex<Vec<Out>>> = Arc::default();
        let (frames, events) = (out.clone(), out.clone());
        let any = gst::Caps::new_any();
        let way = gst::PadDirection::Sink;
        let template = gst::PadTemplate::new("sink", way, gst::PadPresence::Always, &any).unwrap();
        let sink = gst::Pad::builder_from_template(&template)
            .chain_function(move |_, _, buffer| {
                frames.lock().unwrap().push(Out::Frame(buffer));
                Ok(gst::FlowSuccess::Ok)
            })
            .event_function(move |pad, parent, event| {
                events.lock().unwrap().push(Out::Event(event.clone()));
                gst::Pad::event_default(pad, parent, event)
            })
            .query_function(move |pad, parent, query| match (query.view_mut(), answer) {
                (gst::QueryViewMut::Allocation(allocation), Some(answer)) => {
                    answer(allocation);
                    true
                }
                _ => gst::Pad::query_default(pad, parent, query),
            })
            .build();
        src.link(&element.static_pad("sink").unwrap()).unwrap();
        element.static_pad("src").unwrap().link(&sink).unwrap();
        sink.set_active(true).unwrap();
        src.set_active(true).unwrap();
        let bus = gst::Bus::new();
        element.set_bus(Some(&bus));
        element.set_state(gst::State::Playing).unwrap();
        Self {
            element,
            src,
            sink,
            bus,
            out,
        }
    }

    /// The events that open a stream of `caps`.
    pub fn begin(&self, caps: &gst::Caps) {
        assert!(self.src.push_event(gst::event::StreamStart::new("bench")));
        assert!(self.src.push_event(gst::event::Caps::new(caps)));
        self.segment();
    }

    pub fn segment(&self) {
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        assert!(self.src.push_event(gst::event::Segment::new(&segment)));
    }

    /// Gives the element a clock by which its running time is that now.
    pub fn run_at(&self, running: gst::ClockTime) {
        let clock = gst::SystemClock::obtain();
        self.element.set_clock(Some(&clock)).unwrap();
        self.element.set_base_time(clock.time().saturating_sub(running));
    }

    pub fn push(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.src.push(buffer)
    }

    pub fn end(&self) {
        assert!(self.src.push_event(gst::event::Eos::new()));
    }

    /// Everything that came out since the last call.
    pub fn take(&self) -> Vec<Out> {
        std::mem::take(&mut *self.out.lock().unwrap())
    }

    /// The frames among it.
    pub fn frames(&self) -> Vec<gst::Buffer> {
        let frame = |out| {
            if let Out::Frame(buffer) = out {
                Some(buffer)
            } else {
                None
            }
        };
        self.take().into_iter().filter_map(frame).collect()
    }

    /// Has downstream answer every frame with `error`, until the probe is removed.
    pub fn refuse_frames(&self, error: gst::FlowError) -> gst::PadProbeId {
        let source_pad = self.element.static_pad("src").unwrap();
        let refuse = move |_: &gst::Pad, info: &mut gst::PadProbeInfo| {
            info.flow_res = Err(error);
            gst::PadProbeReturn::Handled
        };
        source_pad.add_probe(gst::PadProbeType::BUFFER, refuse).unwrap()
    }

    /// Texts of errors and warnings posted since the last call.
    pub fn complaints(&self) -> Vec<String> {
        let mut found = Vec::new();
        while let Some(message) = self.bus.pop() {
            match message.view() {
                gst::MessageView::Error(e) => found.push(format!("error: {} {:?}", e.error(), e.debug())),
                gst::MessageView::Warning(w) => found.push(format!("warning: {} {:?}", w.error(), w.debug())),
                _ => (),
            }
        }
        found
    }

    /// Waits until `count` forward passes have been answered.
    pub fn wait_for_passes(&self, count: u64) {
        let begun = Instant::now();
        while self.stat("passes") < count {
            assert!(
                begun.elapsed() < LONG,
                "{} of {count} passes were answered",
                self.stat("passes")
            );
            // Whoever looks all the time leaves none to a model of the idle policy.
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    pub fn latency(&self) -> (bool, gst::ClockTime) {
        let mut latency = gst::query::Latency::new();
        assert!(self.sink.peer_query(&mut latency));
        let (live, min, _) = latency.result();
        (live, min)
    }

    pub fn stat_u32(&self, name: &str) -> u32 {
        self.element
            .property::<gst::Structure>("stats")
            .get(name)
            .unwrap()
    }

    pub fn stat_bool(&self, name: &str) -> bool {
        self.element
            .property::<gst::Structure>("stats")
            .get(name)
            .unwrap()
    }

    pub fn stat(&self, name: &str) -> u64 {
        self.element
            .property::<gst::Structure>("stats")
            .get(name)
            .unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Also while a test fails: an element must not be freed in PLAYING.
        let _ = self.element.set_state(gst::State::Null);
        let _ = self.src.set_active(false);
        let _ = self.sink.set_active(false);
        // Messages on the bus hold the element, which holds the bus.
        self.element.set_bus(None);
    }
}

pub fn rgb_caps(size: Size, fps: i32) -> gst::Caps {
    gst::Caps::builder("video/x-raw")
        .field("format", "RGB")
        .field("width", size.width_px as i32)
        .field("height", size.height_px as i32)
        .field("framerate", gst::Fraction::new(fps, 1))
        .build()
}

/// An RGB frame all of whose bytes are `byte`, shown at `index` times 40 ms.
pub fn gray_frame(size: Size, byte: u8, index: u64) -> gst::Buffer {
    let stride = (size.width_px as usize * 3).next_multiple_of(4);
    let mut buffer = gst::Buffer::from_mut_slice(vec![byte; stride * size.height_px as usize]);
    buffer
        .get_mut()
        .unwrap()
        .set_pts(gst::ClockTime::from_mseconds(40) * index);
    buffer
}

/// The one class of a frame's mask, `None` for a frame without a mask.
pub fn class_of(buffer: &gst::Buffer) -> Option<u8> {
    let meta = MaskMeta::from_buffer(buffer)?;
    let first = meta.plane[0];
    assert!(meta.plane.iter().all(|&id| id == first));
    (first != masam::labels::NO_MASK).then_some(first)
}

/// What a frame says to the viewer.
pub fn status_of(buffer: &gst::Buffer) -> Option<String> {
    MaskMeta::from_buffer(buffer)?.status
}

pub fn whole(size: Size) -> Rect {
    size.rect()
}

/// A small generator, so that a failing case can be run again from the seed it prints.
pub struct Noise(pub u64);

impl Noise {
    pub fn below(&mut self, bound: u32) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(bound)) as u32
    }
}
