//! The age a mask claims is its true age, on every frame of a run in which everything happens: random forward times,
//! dropped frames, a seek, a pause, new caps, gaps, timestamps that jump. Every frame shows its own number, and the
//! fake model gives the number it saw as the mask, so the mask itself says which frame it was computed from.

mod stream_support;

use gst::prelude::*;
use gstreamer as gst;
use masam::geometry::Size;
use masam::gst::meta::MaskMeta;
use stream_support::{Bench, Fake, Noise, class_of, gray_frame, infer_with, rgb_caps};

/// Classes of the fake, hence numbers that it can tell apart: more than frames fit into a mask's life.
const NUMBERS: usize = 200;
const FRAME_MS: u64 = 40;
const LIMIT_MS: u64 = 500;

/// The source: what it shows when, by the wall and by its timestamps.
struct Source {
    /// Of each frame pushed, by the wall.
    shown_ms: Vec<u64>,
    now_ms: u64,
    /// Timestamps run behind the wall by this; running time as well.
    behind_ms: u64,
    size: Size,
}

impl Source {
    fn push(&mut self, bench: &Bench) {
        let byte = (self.shown_ms.len() % NUMBERS) as u8;
        let mut frame = gray_frame(self.size, byte, 0);
        let pts = gst::ClockTime::from_mseconds(self.now_ms - self.behind_ms);
        frame.get_mut().unwrap().set_pts(pts);
        self.shown_ms.push(self.now_ms);
        bench.push(frame).unwrap();
        self.now_ms += FRAME_MS;
    }

    /// A pause of 5 s: running time stands still.
    fn pause(&mut self) {
        self.now_ms += 5000;
        self.behind_ms += 5000;
    }

    /// The newest frame whose number ends so.
    fn number_of(&self, class: u8) -> usize {
        let newest = self.shown_ms.len() - 1;
        (0..=newest)
            .rev()
            .find(|number| number % NUMBERS == usize::from(class))
            .unwrap()
    }
}

fn run(seed: u64) -> (usize, usize) {
    println!("seed {seed}");
    let (fake, mut noise) = (Fake::new(), Noise(seed));
    let element = infer_with(&fake);
    // Carrying moves labels, not ages.
    element.set_property("carry", seed.is_multiple_of(2));
    let bench = Bench::new(element, true);
    let sizes = [(32, 16), (20, 30)].map(|(width_px, height_px)| Size { width_px, height_px });
    let mut source = Source {
        shown_ms: Vec::new(),
        now_ms: 0,
        behind_ms: 0,
        size: sizes[0],
    };
    bench.begin(&rgb_caps(source.size, 25));
    let (mut masks, mut oldest_ms, mut out) = (0, 0, 0);
    // Frames that somebody upstream held over a pause and that have not come yet.
    let mut held: Option<u64> = None;
    for step in 0..1500_u32 {
        if held == Some(0) {
            source.pause();
        }
        held = held.and_then(|frames| frames.checked_sub(1));
        match (step % 100, noise.below(40)) {
            _ if held.is_some() => (),
            // A seek: the timestamps begin again.
            (20, _) => {
                assert!(bench.src.push_event(gst::event::FlushStart::new()));
                assert!(bench.src.push_event(gst::event::FlushStop::new(true)));
                bench.segment();
                source.behind_ms = source.now_ms;
            }
            (40, _) => {
                let frames = u64::from(noise.below(4));
                // The clock that the frames to come were stamped by.
                let running_ms =
                    (source.now_ms - source.behind_ms + frames * FRAME_MS).saturating_sub(FRAME_MS / 2);
                let running = gst::ClockTime::from_mseconds(running_ms);
                // The source is paused after the element, and some of its frames come in between.
                let later = gst::ClockTime::from_mseconds(FRAME_MS * u64::from(noise.below(4)));
                bench.run_at(running.saturating_sub(later));
                bench.element.set_state(gst::State::Paused).unwrap();
                bench.element.set_start_time(running);
                bench.element.set_state(gst::State::Playing).unwrap();
                held = frames.checked_sub(1);
                if held.is_none() {
                    source.pause();
                }
            }
            (60, _) => {
                source.size = sizes[(step / 100) as usize % 2];
                let caps = rgb_caps(source.size, 25);
                assert!(bench.src.push_event(gst::event::Caps::new(&caps)));
            }
            // A source that begins again and says nothing.
            (80, _) => source.behind_ms = source.now_ms,
            (_, 0) => source.now_ms += 3000,
            (_, 1..6) => source.now_ms += FRAME_MS * u64::from(noise.below(12)),
            (_, 6) => {
                let start = gst::ClockTime::from_mseconds(source.now_ms - source.behind_ms);
                assert!(
                    bench
                        .src
                        .push_event(gst::event::Gap::new(start, gst::ClockTime::NONE))
                );
            }
            // Passes take as long as the door stays shut.
            (_, 7..14) => fake.gate.set(false),
            (_, 14..22) => fake.gate.set(true),
            (_, 22) => {
                fake.gate.set(true);
                bench.wait_for_passes(fake.asked().len() as u64);
            }
            _ => (),
        }
        source.push(&bench);
        let frames = bench.frames();
        assert_eq!(frames.len(), 1, "the video never waits");
        out += 1;
        let Some(class) = class_of(&frames[0]) else {
            continue;
        };
        let made = source.number_of(class);
        let true_ms = source.shown_ms[source.shown_ms.len() - 1] - source.shown_ms[made];
        let meta = MaskMeta::from_buffer(&frames[0]).unwrap();
        let claimed_ms = meta.age_nanos / 1_000_000;
        assert!(!meta.carried || (seed.is_multiple_of(2) && true_ms > 0));
        assert_eq!(claimed_ms, true_ms, "seed {seed}, step {step}, frame {made}");
        masks += 1;
        oldest_ms = oldest_ms.max(true_ms);
    }
    fake.gate.set(true);
    assert!(oldest_ms <= LIMIT_MS, "{oldest_ms} ms");
    assert_eq!(bench.stat("frames-out"), out);
    (masks, oldest_ms as usize)
}

#[test]
fn a_mask_is_as_old_as_it_says() {
    let runs: Vec<(usize, usize)> = (1..=8).map(run).collect();
    let masks: usize = runs.iter().map(|(masks, _)| masks).sum();
    let oldest = runs.iter().map(|(_, oldest)| *oldest).max();
    // Not for want of masks.
    assert!(masks > 500, "{masks} masks");
    assert!(oldest > Some(200), "the oldest was {oldest:?} ms");
}
