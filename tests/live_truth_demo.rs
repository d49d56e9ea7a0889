//! The age a mask of the demo model claims is its true age, in a pipeline that plays: passes of random length, frames
//! that are lost, new caps, a seek, and a pause of 5 s over which a queue holds frames.
//!
//! Each frame has its number drawn into it. The model reads the number out of the picture it is shown and writes it
//! into its mask; the sink reads the number of the frame and that of its mask, and what lies between the two moments
//! they were drawn at is the true age.

mod stream_support;

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use masam::geometry::{Orientation, Size};
use masam::gst::infer::Infer;
use masam::gst::meta::MaskMeta;
use masam::runtime::OpenOptions;
use masam::segmenter::{
    ModelFrame, Plane, Reply, Request, SegmentError, Segmenter, SegmenterSpec, Step, StreamId,
};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use stream_support::{LONG, Noise, init};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/weights/demo.safetensors");
const FPS: u64 = 30;
const LIMIT: gst::ClockTime = gst::ClockTime::from_mseconds(500);
const PAUSE: Duration = Duration::from_secs(5);
/// Longest time that a pass is held up by, in ms.
const HELD_UP_MS: u32 = 150;

/// Bits of a number: 12 of the number itself and its complement's lowest 4 as a check.
const BITS: u32 = 16;

/// A number with its check.
fn word(number: u16) -> u16 {
    number << 4 | (!number & 15)
}

/// The number of a word whose check is right.
fn number(word: u16) -> Option<u16> {
    (word & 15 == !(word >> 4) & 15).then_some(word >> 4)
}

/// Draws `number` into a strip across the top of an RGB picture: a bit is white and black or black and white, two
/// blocks side by side, so that what is laid over both does not turn it.
fn draw(rgb: &mut [u8], size: Size, number: u16) {
    let (width, height) = (size.width_px as usize, size.height_px as usize);
    for (y, row) in rgb.chunks_exact_mut(width * 3).take(height / 16).enumerate() {
        assert!(y < height);
        for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
            let block = x as u32 * 2 * BITS / size.width_px;
            let is_set = word(number) >> (block / 2) & 1 == 1;
            pixel.fill(if is_set == block.is_multiple_of(2) {
                235
            } else {
                16
            });
        }
    }
}

/// The number drawn into a picture.
fn read(rgb: &[u8], size: Size) -> Option<u16> {
    let middle = |block: u32| {
        let x = (2 * block + 1) * size.width_px / (4 * BITS);
        let at = (size.height_px / 32 * size.width_px + x) as usize * 3;
        rgb[at..at + 3].iter().map(|&byte| u32::from(byte)).sum::<u32>()
    };
    let bits = (0..BITS).map(|bit| u16::from(middle(2 * bit) > middle(2 * bit + 1)) << bit);
    number(bits.sum())
}

/// The demo model, held up at random, and its masks marked with the number of their frame: a pixel a bit.
struct Marking {
    model: Box<dyn Segmenter>,
    noise: Noise,
}

impl Marking {
    fn mark(&mut self, frame: Option<&ModelFrame>, plane: &mut Plane) {
        let side = Size::square(self.model.spec().side_px);
        let Plane::Labels(labels) = plane else {
            panic!("{plane:?}")
        };
        // A frame without a number makes a mask without one: all bits 0 are none.
        let word = frame.and_then(|frame| read(&frame.rgb, side)).map_or(0, word);
        for (bit, label) in labels.iter_mut().take(BITS as usize).enumerate() {
            *label = u8::from(word >> bit & 1 == 1);
        }
    }

    fn hold_up(&mut self) {
        std::thread::sleep(Duration::from_millis(self.noise.below(HELD_UP_MS).into()));
    }
}

/// The number in a mask.
fn marked(mask: &MaskMeta) -> Option<u16> {
    let bits = mask.plane.iter().take(BITS as usize).enumerate();
    number(bits.map(|(bit, &label)| u16::from(label == 1) << bit).sum())
}

impl Segmenter for Marking {
    fn spec(&self) -> &SegmenterSpec {
        self.model.spec()
    }

    fn segment(&mut self, requests: &[Request], until: Option<Instant>) -> Vec<Result<Reply, SegmentError>> {
        self.hold_up();
        let mut results = self.model.segment(requests, until);
        for (request, result) in requests.iter().zip(&mut results) {
            let reply = result.as_mut().expect("the demo model runs");
            for (&position, plane) in request.outputs.iter().zip(&mut reply.planes) {
                self.mark(request.frames.get(position), plane);
            }
        }
        results
    }

    fn step(&mut self, steps: &[Step], until: Option<Instant>) -> Vec<Result<Plane, SegmentError>> {
        self.hold_up();
        let mut results = self.model.step(steps, until);
        for (step, result) in steps.iter().zip(&mut results) {
            self.mark(Some(&step.frame), result.as_mut().expect("the demo model runs"));
        }
        results
    }

    fn reset(&mut self, stream: StreamId) {
        self.model.reset(stream);
    }
}

/// What is known of frame `n`, which is drawn as number `n + 1`: when, by the pipeline's clock.
type Drawn = Arc<Mutex<Vec<gst::ClockTime>>>;

/// What came to the sink.
#[derive(Debug, Default)]
struct Seen {
    frames: usize,
    /// Frames or masks without a number.
    unread: usize,
    /// Frames in the order they came, each with its mask's: claimed and true age, in ns.
    masks: Vec<(u16, u16, u64, u64)>,
}

fn note(sample: &gst::Sample, drawn: &Drawn, seen: &Mutex<Seen>) {
    let caps = sample.caps().unwrap().structure(0).unwrap();
    let side = |name: &str| caps.get::<i32>(name).unwrap() as u32;
    let size = Size {
        width_px: side("width"),
        height_px: side("height"),
    };
    let buffer = sample.buffer().unwrap();
    let shown = read(&buffer.map_readable().unwrap(), size);
    let mut seen = seen.lock().unwrap();
    seen.frames += 1;
    let mask = MaskMeta::from_frame(buffer, size).filter(|mask| mask.mask != Size::square(1));
    let Some(mask) = mask else { return };
    let (Some(shown), Some(made)) = (shown, marked(&mask)) else {
        seen.unread += 1;
        return;
    };
    let drawn = drawn.lock().unwrap();
    let drawn = |number: u16| drawn[usize::from(number) - 1];
    let truth = drawn(shown) - drawn(made); // a mask of a later frame would panic here
    seen.masks.push((shown, made, mask.age_nanos, truth.nseconds()));
}

/// What happens at once before some frames.
type Part<'a> = &'a dyn Fn(&mut Source);

/// A live source: draws each frame's number and stamps it by the pipeline's clock, at the same moment.
struct Source {
    pipeline: gst::Pipeline,
    appsrc: gst_app::AppSrc,
    clock: gst::Clock,
    drawn: Drawn,
    size: Size,
    /// The pipeline is being paused.
    is_pausing: bool,
    /// Where the last seek went to.
    position: gst::ClockTime,
    noise: Noise,
}

impl Source {
    fn caps(&self) -> gst::Caps {
        stream_support::rgb_caps(self.size, FPS as i32)
    }

    /// A frame with its number, or without: one that only prepares the sink.
    fn push(&mut self, numbered: bool) {
        let (width, height) = (self.size.width_px as usize, self.size.height_px as usize);
        let mut rgb: Vec<u8> = (0..width * height)
            .flat_map(|at| {
                let (x, y) = (at % width, at / width);
                [
                    120 + (x * 90 / width) as u8,
                    40 + (y * 60 / height) as u8,
                    50 + ((x / 24 + y / 24) % 2 * 20) as u8,
                ]
            })
            .collect();
        let mut drawn = self.drawn.lock().unwrap();
        if numbered {
            draw(&mut rgb, self.size, drawn.len() as u16 + 1);
        }
        let now = self.clock.time();
        // A source that is paused draws no frames; it is paused after the other elements, before time stands still.
        if self.is_pausing && self.appsrc.current_state() != gst::State::Playing {
            return;
        }
        let running = now.saturating_sub(self.pipeline.base_time().unwrap());
        if numbered {
            drawn.push(now);
        }
        drop(drawn);
        let mut buffer = gst::Buffer::from_mut_slice(rgb);
        buffer
            .get_mut()
            .unwrap()
            .set_pts(self.position + if numbered { running } else { gst::ClockTime::ZERO });
        self.appsrc.push_buffer(buffer).unwrap();
    }

    /// So many frames at the rate of the video; some are lost on their way here, and now and then many.
    fn play(&mut self, frames: u64) {
        let begun = Instant::now();
        let mut frame = 0;
        while frame < frames {
            frame += match self.noise.below(40) {
                0 => 20,
                1..4 => 2,
                _ => 1,
            };
            let due = Duration::from_secs(frame) / FPS as u32;
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
            self.push(true);
        }
    }

    fn set_size(&mut self, width_px: u32, height_px: u32) {
        self.size = Size { width_px, height_px };
        self.appsrc.set_caps(Some(&self.caps()));
    }

    fn is_playing(&self) {
        let (done, state, _) = self.pipeline.state(gst::ClockTime::from_seconds(LONG.as_secs()));
        assert_eq!(
            (done, state),
            (Ok(gst::StateChangeSuccess::Success), gst::State::Playing)
        );
    }

    /// Goes to another position, as a player of a recording that is still being written would.
    fn seek(&mut self, position: gst::ClockTime) {
        self.position = position;
        self.pipeline
            .seek_simple(gst::SeekFlags::FLUSH, position)
            .unwrap();
        // The clock's zero is set when the first frame has come, so nothing can be said of its own age.
        self.push(false);
        self.is_playing();
    }

    /// Frames that are on their way when the pause begins wait in the queue until it is over.
    fn pause(&mut self) {
        let pipeline = self.pipeline.clone();
        let pausing = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            pipeline.set_state(gst::State::Paused).unwrap();
        });
        self.is_pausing = true;
        while !pausing.is_finished() {
            self.push(true);
            std::thread::sleep(Duration::from_millis(7));
        }
        pausing.join().unwrap();
        self.is_pausing = false;
        std::thread::sleep(PAUSE);
        self.pipeline.set_state(gst::State::Playing).unwrap();
        self.is_playing();
    }
}

#[test]
fn a_mask_of_the_demo_model_is_as_old_as_it_says() {
    let seed = 20_261_126;
    println!("seed {seed}");
    init();
    let pipeline = gst::parse::launch(&format!(
        "appsrc name=src is-live=true format=time stream-type=seekable \
         ! queue max-size-buffers=8 leaky=downstream \
         ! masaminfer name=infer mode=live roi=none max-mask-age={} \
         ! masamoverlay status=false legend=false style=fill opacity=0.3 ! queue ! appsink name=sink sync=true",
        LIMIT.nseconds()
    ));
    let pipeline = pipeline.unwrap().downcast::<gst::Pipeline>().unwrap();
    let infer = pipeline.by_name("infer").unwrap();
    infer.downcast_ref::<Infer>().unwrap().set_segmenter(move || {
        let model = masam::runtime::open(Path::new(MODEL), &OpenOptions::default())?;
        assert_eq!(model.spec().orientation, Orientation::Upright);
        let noise = Noise(seed);
        Ok(Box::new(Marking { model, noise }))
    });
    let clock = gst::SystemClock::obtain();
    pipeline.use_clock(Some(&clock));
    let (drawn, seen) = (Drawn::default(), Arc::new(Mutex::new(Seen::default())));
    let appsink = pipeline.by_name("sink").unwrap();
    let (of_frames, noted) = (Arc::clone(&drawn), Arc::clone(&seen));
    appsink.downcast_ref::<gst_app::AppSink>().unwrap().set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Flushing)?;
                note(&sample, &of_frames, &noted);
                Ok(gst::FlowSuccess::Ok)
            })
            .build(),
    );
    let appsrc = pipeline
        .by_name("src")
        .unwrap()
        .downcast::<gst_app::AppSrc>()
        .unwrap();
    appsrc.set_callbacks(gst_app::AppSrcCallbacks::builder().seek_data(|_, _| true).build());
    let mut source = Source {
        pipeline: pipeline.clone(),
        appsrc,
        clock,
        drawn,
        size: Size::square(16),
        is_pausing: false,
        position: gst::ClockTime::ZERO,
        noise: Noise(seed + 1),
    };
    let parts: [(&str, Part); 6] = [
        ("start", &|source| source.set_size(640, 480)),
        ("new caps", &|source| source.set_size(848, 480)),
        ("a seek", &|source| source.seek(gst::ClockTime::from_seconds(100))),
        ("a pause", &Source::pause),
        ("smaller caps", &|source| source.set_size(320, 256)),
        ("a seek back", &|source| {
            source.seek(gst::ClockTime::from_seconds(3))
        }),
    ];
    let mut before = 0;
    for (at, (what, happens)) in parts.into_iter().enumerate() {
        happens(&mut source);
        if at == 0 {
            pipeline.set_state(gst::State::Playing).unwrap();
        }
        // A machine that does other work beside leaves a model of the idle policy little time.
        let masks = || seen.lock().unwrap().masks.len();
        let began = Instant::now();
        source.play(3 * FPS);
        while masks() < before + 20 && began.elapsed() < LONG {
            source.play(FPS);
        }
        {
            let seen = seen.lock().unwrap();
            let (frames, masks, unread) = (seen.frames, seen.masks.len(), seen.unread);
            println!("{what}: {frames} frames, {masks} masks, {unread} unread");
        }
        assert!(masks() >= before + 20, "no masks after {what}");
        before = masks();
    }
    source.appsrc.end_of_stream().unwrap();
    let wanted = [gst::MessageType::Eos, gst::MessageType::Error];
    let bus = pipeline.bus().unwrap();
    let end = bus.timed_pop_filtered(gst::ClockTime::from_seconds(LONG.as_secs()), &wanted);
    assert_eq!(end.map(|message| message.type_()), Some(gst::MessageType::Eos));
    pipeline.set_state(gst::State::Null).unwrap();
    let seen = seen.lock().unwrap();
    for &(shown, made, claimed, truth) in &seen.masks {
        assert_eq!(claimed, truth, "frame {shown}, the mask of {made}");
        assert!(
            truth <= LIMIT.nseconds(),
            "frame {shown}, the mask of {made}: {truth} ns"
        );
    }
    // However long the model itself takes here: passes were held up, and not all of them for as long.
    let ages: Vec<u64> = seen.masks.iter().map(|mask| mask.3).collect();
    let spread = ages.iter().max().unwrap() - ages.iter().min().unwrap();
    assert!(spread > 100_000_000, "{ages:?}");
    assert!(seen.unread * 20 < seen.masks.len(), "{} unread", seen.unread);
}
