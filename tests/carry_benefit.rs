//! What carrying masks forward is worth: IoU of the mask shown at some ages, with and without, on generated scenes whose
//! exact labels stand for the model's masks, so that only age makes a difference. Run with
//! `cargo test --release --test carry_benefit -- --ignored --nocapture`.

use masam::data::phantom::{PhantomConfig, Sequence};
use masam::geometry::{Orientation, Size};
use masam::segmenter::ModelFrame;
use masam::stream::carry::Carrier;
use std::time::Instant;

const SIDE: u32 = 256;
const AGES: [usize; 6] = [0, 1, 3, 6, 10, 15];
const SEQUENCES: u64 = 8;
const CLASSES: usize = 12;

/// Intersections and unions by class.
#[derive(Clone, Default)]
struct Overlap([[u64; 2]; CLASSES]);

impl Overlap {
    fn add(&mut self, shown: &[u8], truth: &[u8]) {
        for (&shown, &truth) in shown.iter().zip(truth) {
            let (shown, truth) = (usize::from(shown), usize::from(truth));
            if shown == truth {
                self.0[shown][0] += 1;
                self.0[shown][1] += 1;
            } else {
                self.0[shown][1] += 1;
                self.0[truth][1] += 1;
            }
        }
    }

    /// Mean over classes that occur, background left out, and of the instruments' three parts.
    fn mean(&self, classes: impl Iterator<Item = usize>) -> f64 {
        let scores: Vec<f64> = classes
            .filter(|&class| self.0[class][1] > 0)
            .map(|class| self.0[class][0] as f64 / self.0[class][1] as f64)
            .collect();
        100.0 * scores.iter().sum::<f64>() / scores.len().max(1) as f64
    }
}

#[test]
#[ignore = "a measurement, not a check"]
fn benefit_by_age() {
    let longest = AGES[AGES.len() - 1];
    let mut scores = vec![[Overlap::default(), Overlap::default()]; AGES.len()];
    let mut times = Vec::new();
    for index in 0..SEQUENCES {
        let config = PhantomConfig {
            seed: 4242,
            size: Size::square(SIDE),
            frames: 60,
            supersample: 1,
            ..PhantomConfig::default()
        };
        let sequence = Sequence::new(&config, index).unwrap();
        for start in [0, 20, 40, 60, 80, 100] {
            let frames: Vec<_> = (start..=start + longest).map(|n| sequence.render(n)).collect();
            let mut carrier = Carrier::new(SIDE, Orientation::Upright);
            for (n, frame) in frames.iter().enumerate() {
                let rgb = frame.rgb.as_slice().into();
                carrier.see(n as u64, &ModelFrame { rgb });
            }
            let shown = &frames[longest].labels;
            for (age, [without, with]) in AGES.into_iter().zip(&mut scores) {
                let made = &frames[longest - age].labels;
                let began = Instant::now();
                let moved = carrier
                    .carry(made, (longest - age) as u64, longest as u64)
                    .unwrap();
                times.push(began.elapsed());
                without.add(made, shown);
                with.add(&moved, shown);
            }
        }
    }
    println!("mean IoU, %, of all classes but background, and of instruments (ids 1 to 3)");
    println!(
        "{:>12}{:>10}{:>10}{:>14}{:>10}",
        "age, frames", "without", "with", "instruments", "with"
    );
    for (age, [without, with]) in AGES.iter().zip(&scores) {
        println!(
            "{age:>12}{:>10.1}{:>10.1}{:>14.1}{:>10.1}",
            without.mean(1..CLASSES),
            with.mean(1..CLASSES),
            without.mean(1..4),
            with.mean(1..4)
        );
    }
    times.sort();
    println!(
        "carrying takes {:?} (median), {:?} at most",
        times[times.len() / 2],
        times[times.len() - 1]
    );
}
