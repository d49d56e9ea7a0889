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
    /// So many frames are still to repeat what was drawn at that time, as `videorate` does after a pause.
    repeats: (u32, u64),
    size: Size,
}

impl Source {
    fn push(&mut self, bench: &Bench) {
        let byte = (self.shown_ms.len() % NUMBERS) as u8;
        let mut frame = gray_frame(self.size, byte, 0);
        let pts = gst::ClockTime::from_mseconds(self.now_ms - self.behind_ms);
        frame.get_mut().unwrap().set_pts(pts);
        let (repeats, drawn_ms) = &mut self.repeats;
        self.shown_ms
            .push(if *repeats > 0 { *drawn_ms } else { self.now_ms });
        *repeats = repeats.saturating_sub(1);
        bench.push(frame).unwrap();
        self.now_ms += FRAME_MS;
    }

    /// A pause of 5 s: running time stands still.
    fn pause(&mut self, repeats: u32) {
        self.repeats = (repeats, self.now_ms.saturating_sub(FRAME_MS));
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
        repeats: (0, 0),
        size: sizes[0],
    };
    bench.begin(&rgb_caps(source.size, 25));
    let (mut masks, mut oldest_ms, mut out) = (0, 0, 0);
    // Frames that come while the element is paused, and frames that somebody upstream held over a pause.
    let (mut early, mut held): (Option<u64>, Option<u64>) = (None, None);
    let (mut to_be_held, mut stood_still) = (0, gst::ClockTime::ZERO);
    for step in 0..1500_u32 {
        // The source is paused after the element, and the last of its frames come when all goes on.
        if step % 100 == 40 {
            let while_paused = 3 * u64::from(noise.below(4));
            to_be_held = u64::from(noise.below(4));
            let now_ms = source.now_ms - source.behind_ms;
            let before =
                |running_ms: u64| gst::ClockTime::from_mseconds(running_ms.saturating_sub(FRAME_MS / 2));
            stood_still = before(now_ms + (while_paused + to_be_held) * FRAME_MS);
            bench.run_at(before(now_ms));
            bench.element.set_state(gst::State::Paused).unwrap();
            early = Some(while_paused);
        }
        if early == Some(0) {
            bench.element.set_start_time(stood_still);
            bench.element.set_state(gst::State::Playing).unwrap();
            held = Some(to_be_held);
        }
        early = early.and_then(|frames| frames.checked_sub(1));
        if held == Some(0) {
            source.pause(noise.below(3));
        }
        held = held.and_then(|frames| frames.checked_sub(1));
        match (step % 100, noise.below(40)) {
            _ if early.is_some() || held.is_some() || source.repeats.0 > 0 => (),
            // A seek: the timestamps begin again.
            (20, _) => {
                assert!(bench.src.push_event(gst::event::FlushStart::new()));
                assert!(bench.src.push_event(gst::event::FlushStop::new(true)));
                bench.segment();
                source.behind_ms = source.now_ms;
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
