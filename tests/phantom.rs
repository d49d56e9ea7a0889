//! Phantom scenes as a data set: the same everywhere, alive, complete, and not to be told apart by colour.

use masam::data::phantom::{Frame, PhantomConfig, Sequence};
use masam::geometry::Size;
use masam::labels::ClassSet;
use sha2::{Digest, Sha256};

const SMALL: Size = Size {
    width_px: 160,
    height_px: 128,
};

fn config(seed: u64, frame_rate: (u32, u32)) -> PhantomConfig {
    PhantomConfig {
        seed,
        size: SMALL,
        frame_rate,
        ..PhantomConfig::default()
    }
}

/// `frames` frames of each of `sequences` sequences.
fn frames(config: &PhantomConfig, sequences: u64, frames: usize) -> Vec<Frame> {
    (0..sequences)
        .flat_map(|index| {
            let sequence = Sequence::new(config, index).unwrap();
            (0..frames).map(move |frame| sequence.render(frame))
        })
        .collect()
}

/// Pixels of each class.
fn areas(frame: &Frame) -> [usize; 12] {
    let mut areas = [0; 12];
    for &label in &frame.labels {
        areas[usize::from(label)] += 1;
    }
    areas
}

/// How often each colour, in steps of `2^shift`, shows each class: a Bayes classifier of single pixels.
struct ColorClassifier {
    shift: u32,
    counts: Vec<[u32; 12]>,
    totals: [u64; 12],
}

impl ColorClassifier {
    fn bin(&self, rgb: &[u8]) -> usize {
        rgb.iter().fold(0, |bin, &value| {
            (bin << (8 - self.shift)) + usize::from(value >> self.shift)
        })
    }

    fn fit(frames: &[Frame], shift: u32) -> Self {
        let mut fitted = Self {
            shift,
            counts: vec![[0; 12]; 1 << (3 * (8 - shift))],
            totals: [0; 12],
        };
        for frame in frames {
            for (rgb, &label) in frame.rgb.chunks_exact(3).zip(&frame.labels) {
                let bin = fitted.bin(rgb);
                fitted.counts[bin][usize::from(label)] += 1;
                fitted.totals[usize::from(label)] += 1;
            }
        }
        fitted
    }

    /// The likeliest class; with `even`, as if all classes were equally frequent.
    fn classify(&self, rgb: &[u8], even: bool) -> usize {
        let counts = &self.counts[self.bin(rgb)];
        let score = |class: usize| {
            let share = if even {
                self.totals[class].max(1) as f64
            } else {
                1.0
            };
            f64::from(counts[class]) / share
        };
        (0..12).fold(
            0,
            |best, class| if score(class) > score(best) { class } else { best },
        )
    }

    /// Mean intersection over union of the classes that occur, over all frames together; and each class's.
    fn score(&self, frames: &[Frame], even: bool) -> (f64, [f64; 12]) {
        let (mut both, mut either) = ([0u64; 12], [0u64; 12]);
        for frame in frames {
            for (rgb, &label) in frame.rgb.chunks_exact(3).zip(&frame.labels) {
                let (label, guess) = (usize::from(label), self.classify(rgb, even));
                either[label] += 1;
                if label == guess {
                    both[label] += 1;
                } else {
                    either[guess] += 1;
                }
            }
        }
        let iou: [f64; 12] = std::array::from_fn(|class| both[class] as f64 / either[class].max(1) as f64);
        (iou.iter().sum::<f64>() / 12.0, iou)
    }
}

#[test]
fn color_does_not_give_the_class_away() {
    let train = frames(&config(101, (1, 1)), 32, 4);
    let test = frames(&config(202, (1, 1)), 16, 4);
    let names: Vec<String> = ClassSet::endovis_2018()
        .iter()
        .map(|class| class.name.clone())
        .collect();
    for (shift, even) in [
        (3, false),
        (3, true),
        (4, false),
        (4, true),
        (5, false),
        (5, true),
    ] {
        let classifier = ColorClassifier::fit(&train, shift);
        let (mean, iou) = classifier.score(&test, even);
        let list: Vec<String> = names
            .iter()
            .zip(iou)
            .map(|(name, iou)| format!("{name} {iou:.3}"))
            .collect();
        println!(
            "pixel colour in steps of {}, even priors {even}: mean IoU {mean:.3}: {}",
            1 << shift,
            list.join(", ")
        );
        assert!(
            mean <= 0.35,
            "a classifier of single pixels reaches a mean IoU of {mean:.3}"
        );
        // The measurement itself works: it knows its own training scenes better.
        assert!(classifier.score(&train, even).0 > mean);
    }
}

#[test]
fn frequencies_are_plausible() {
    let names: Vec<String> = ClassSet::endovis_2018()
        .iter()
        .map(|class| class.name.clone())
        .collect();
    let shown = frames(&config(303, (1, 2)), 24, 5);
    let mut present = [0usize; 12];
    let mut area = [0usize; 12];
    for frame in &shown {
        for (class, pixels) in areas(frame).into_iter().enumerate() {
            present[class] += usize::from(pixels > 0);
            area[class] += pixels;
        }
    }
    let total = (shown.len() * SMALL.area()) as f64;
    for ((name, present), area) in names.iter().zip(present).zip(area) {
        let frames = present as f64 / shown.len() as f64;
        println!(
            "{name}: in {frames:.3} of the frames, {:.4} of the area",
            area as f64 / total
        );
    }
    // Frames of EndoVis 2018 with each class, of 2235. The needle is an exception: it is in one sequence of eight here,
    // so that a model can learn it and a small set has every class, and in 12 frames there.
    let endovis = [2235, 2077, 2194, 1645, 1396, 1391, 649, 372, 12, 269, 1015, 156];
    for (class, (present, endovis)) in present.into_iter().zip(endovis).enumerate() {
        let (here, there) = (present as f64 / shown.len() as f64, f64::from(endovis) / 2235.0);
        assert!(
            (here - there).abs() < 0.25 && (here < 2.0 * there || names[class] == "suturing-needle"),
            "{}: in {here:.3} of the frames, {there:.3} in EndoVis",
            names[class]
        );
        assert!(present > 0, "{} never occurs", names[class]);
    }
}

#[test]
fn each_block_of_eight_shows_every_class() {
    for seed in [1, 2, 3] {
        let shown = frames(&config(seed, (1, 1)), 8, 3);
        let mut seen = [0usize; 12];
        for frame in &shown {
            for (class, pixels) in areas(frame).into_iter().enumerate() {
                seen[class] += pixels;
            }
        }
        assert!(seen.iter().all(|&pixels| pixels > 20), "seed {seed}: {seen:?}");
    }
}

#[test]
fn motion_is_continuous_at_30_hz() {
    let config = config(404, (30, 1));
    for index in 0..6 {
        let sequence = Sequence::new(&config, index).unwrap();
        let shown: Vec<Frame> = (0..31).map(|frame| sequence.render(frame)).collect();
        let differ = |a: &Frame, b: &Frame| {
            let count = a.labels.iter().zip(&b.labels).filter(|(a, b)| a != b).count();
            count as f64 / a.labels.len() as f64
        };
        let steps: Vec<f64> = shown.windows(2).map(|pair| differ(&pair[0], &pair[1])).collect();
        let largest = steps.iter().copied().fold(0.0, f64::max);
        let whole = differ(&shown[0], &shown[30]);
        println!(
            "sequence {index}: labels change by at most {largest:.4} a frame, by {whole:.4} in a second"
        );
        assert!(
            largest < 0.06,
            "sequence {index}: {largest:.4} of the labels change in one frame"
        );
        assert!(whole > 0.005, "sequence {index}: nothing moves");
    }
}

#[test]
fn frames_do_not_depend_on_order_or_threads() {
    let config = config(505, (30, 1));
    let sequence = Sequence::new(&config, 3).unwrap();
    let forward: Vec<Frame> = (0..4).map(|frame| sequence.render(frame)).collect();
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let again = pool.install(|| Sequence::new(&config, 3).unwrap().render(2));
        assert!(again == forward[2], "{threads} threads");
    }
    assert!(sequence.render(0) == forward[0]);
    assert!(forward[0].rgb != forward[3].rgb);
}

/// What is on this machine has to be on every machine: no table here depends on the processor. A change of the
/// scenes changes these; take the new ones from the failure only after looking at the pictures.
#[test]
fn the_same_seed_gives_the_same_bytes_everywhere() {
    let expected = [
        "2d9acb644c4abc753fd603dec39967de6a8a5415a36196380e08f13dfadb7427",
        "8e3f10d3e37d37f14d30b6a709db87c20ac320d43a6ef3970f03e8b863d9e6ce",
        "cd61efd04d6f64c02875f7c6943fab7fb64b7ad37cf3205ac20660e0fad62577",
    ];
    for ((seed, index, frame), expected) in [(1, 0, 0), (7, 5, 31), (2024, 10, 400)].into_iter().zip(expected)
    {
        let shown = Sequence::new(&config(seed, (30, 1)), index)
            .unwrap()
            .render(frame);
        let mut hash = Sha256::new();
        hash.update(&shown.rgb);
        hash.update(&shown.labels);
        let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected, "seed {seed}, sequence {index}, frame {frame}");
    }
}

/// Run alone, with `--ignored --nocapture`: the rate depends on the machine and on what else it does.
#[test]
#[ignore = "a measurement, for a quiet machine with two cores"]
fn fifteen_frames_a_second_at_full_size_on_two_cores() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    pool.install(|| {
        for index in 0..8 {
            let sequence = Sequence::new(
                &PhantomConfig {
                    seed: 606,
                    ..PhantomConfig::default()
                },
                index,
            )
            .unwrap();
            sequence.render(0);
            let start = std::time::Instant::now();
            let frames = 45;
            for frame in 0..frames {
                std::hint::black_box(sequence.render(frame));
            }
            let rate = frames as f64 / start.elapsed().as_secs_f64();
            println!("sequence {index}: {rate:.1} frames a second at 1280x1024");
            assert!(rate >= 15.0, "sequence {index}: {rate:.1} frames a second");
        }
    });
}
