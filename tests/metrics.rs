//! Every convention against its definition over sets of pixels, and by hand where classes are absent.

use masam::metrics::{
    Confusion, Convention, ENDOVIS_2018_TEST, Flicker, FlickerCounts, FrameCounts, IGNORED, Scores,
};
use std::collections::BTreeSet;

/// Random small numbers; the seed of a failing case is printed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }
}

/// One frame: true and predicted ids.
type Frame = (Vec<u8>, Vec<u8>);

/// Sequences of frames in which classes are often absent, pixels ignored and predictions missing.
struct Case {
    classes: usize,
    sequences: Vec<Vec<Frame>>,
}

impl Case {
    fn random(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let classes = 1 + dice.below(5);
        let mut sequences = Vec::new();
        for _ in 0..1 + dice.below(3) {
            let pixels = 1 + dice.below(6);
            // Few of the classes in a frame, so that absence is common.
            let mut frames = Vec::new();
            for _ in 0..1 + dice.below(4) {
                let few = 1 + dice.below(classes);
                let mut ids = |strange: usize| -> Vec<u8> {
                    (0..pixels)
                        .map(|_| match dice.below(strange) {
                            0 => IGNORED,
                            _ => dice.below(few) as u8,
                        })
                        .collect()
                };
                frames.push((ids(5), ids(9)));
            }
            sequences.push(frames);
        }
        Self { classes, sequences }
    }

    fn counts(&self) -> Vec<Vec<FrameCounts>> {
        let of = |(truth, predicted): &Frame| FrameCounts::of(truth, predicted, self.classes).unwrap();
        self.sequences
            .iter()
            .map(|s| s.iter().map(of).collect())
            .collect()
    }

    fn score(&self, convention: Convention) -> Scores {
        let counts = self.counts();
        let sequences: Vec<&[FrameCounts]> = counts.iter().map(Vec::as_slice).collect();
        convention.score(&sequences, self.classes)
    }
}

/// Pixels, by sequence, frame and place.
type Pixels = BTreeSet<(usize, usize, usize)>;

/// The scored pixels whose true id (or predicted one) is `class`, of the sequences and frames that `keep` keeps.
fn pixels(case: &Case, class: usize, of_truth: bool, keep: &dyn Fn(usize, usize) -> bool) -> Pixels {
    let mut set = Pixels::new();
    for (s, sequence) in case.sequences.iter().enumerate() {
        for (f, (truth, predicted)) in sequence.iter().enumerate() {
            for place in 0..truth.len() {
                let id = if of_truth { truth[place] } else { predicted[place] };
                if keep(s, f) && truth[place] != IGNORED && usize::from(id) == class {
                    set.insert((s, f, place));
                }
            }
        }
    }
    set
}

#[derive(Clone, Copy, PartialEq)]
enum Ratio {
    Iou,
    Dice,
}

fn ratio(truth: &Pixels, predicted: &Pixels, kind: Ratio) -> Option<f64> {
    let shared = truth.intersection(predicted).count() as f64;
    let (part, whole) = match kind {
        Ratio::Iou => (shared, truth.union(predicted).count() as f64),
        Ratio::Dice => (2.0 * shared, (truth.len() + predicted.len()) as f64),
    };
    if whole == 0.0 { None } else { Some(part / whole) }
}

fn average(values: &[f64]) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    Some(values.iter().sum::<f64>() / values.len() as f64)
}

/// Per frame: the mean over classes `from..`, those of the truth or those of either; then over frames with one.
fn by_frames(case: &Case, from: usize, truth_only: bool, kind: Ratio) -> Option<f64> {
    let mut frames = Vec::new();
    for (s, sequence) in case.sequences.iter().enumerate() {
        for f in 0..sequence.len() {
            let mut scores = Vec::new();
            for class in from..case.classes {
                let truth = pixels(case, class, true, &|a, b| (a, b) == (s, f));
                let predicted = pixels(case, class, false, &|a, b| (a, b) == (s, f));
                if !truth.is_empty() || (!truth_only && !predicted.is_empty()) {
                    scores.push(ratio(&truth, &predicted, kind).unwrap());
                }
            }
            frames.extend(average(&scores));
        }
    }
    average(&frames)
}

/// The definitions, without a thought for speed.
fn defined(case: &Case, convention: Convention, kind: Ratio) -> Option<f64> {
    match convention {
        Convention::Challenge2018 => by_frames(case, 0, true, kind),
        Convention::ChIou => by_frames(case, 1, true, kind),
        Convention::Iou => by_frames(case, 1, false, kind),
        Convention::McIou => {
            let mut classes = Vec::new();
            for class in 1..case.classes {
                let mut frames = Vec::new();
                for (s, sequence) in case.sequences.iter().enumerate() {
                    for f in 0..sequence.len() {
                        let here = |a, b| (a, b) == (s, f);
                        let (truth, predicted) = (
                            pixels(case, class, true, &here),
                            pixels(case, class, false, &here),
                        );
                        frames.extend(ratio(&truth, &predicted, kind));
                    }
                }
                classes.extend(average(&frames));
            }
            average(&classes)
        }
        Convention::MaSam => {
            // Every class and sequence has a value, so the order of averaging does not matter.
            let mut values = Vec::new();
            for s in 0..case.sequences.len() {
                for class in 1..case.classes {
                    let truth = pixels(case, class, true, &|a, _| a == s);
                    let predicted = pixels(case, class, false, &|a, _| a == s);
                    values.push(if truth.is_empty() && predicted.is_empty() {
                        1.0
                    } else {
                        ratio(&truth, &predicted, kind).unwrap()
                    });
                }
            }
            average(&values)
        }
        Convention::DatasetWide => {
            let mut values = Vec::new();
            for class in 0..case.classes {
                let truth = pixels(case, class, true, &|_, _| true);
                let predicted = pixels(case, class, false, &|_, _| true);
                values.extend(ratio(&truth, &predicted, kind));
            }
            average(&values)
        }
    }
}

fn close(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() < 1e-12,
        (None, None) => true,
        _ => false,
    }
}

#[test]
fn conventions_equal_their_definitions_over_sets_of_pixels() {
    let mut without_value = 0;
    for seed in 1..=3000 {
        let case = Case::random(seed);
        for convention in Convention::ALL {
            let scores = case.score(convention);
            for (found, kind) in [(scores.mean_iou, Ratio::Iou), (scores.mean_dice, Ratio::Dice)] {
                let wanted = defined(&case, convention, kind);
                assert!(
                    close(found, wanted),
                    "seed {seed}, {convention}: {found:?}, by definition {wanted:?}\n{:?}",
                    case.sequences
                );
                without_value += usize::from(wanted.is_none());
            }
        }
    }
    assert!(
        without_value > 100,
        "the cases do not reach what has no value: {without_value}"
    );
}

#[test]
fn conventions_differ_where_their_definitions_do() {
    let apart = |a: Convention, b: Convention| {
        (1..=200)
            .map(Case::random)
            .filter(|case| !close(case.score(a).mean_iou, case.score(b).mean_iou))
            .count()
    };
    for (i, &a) in Convention::ALL.iter().enumerate() {
        for &b in &Convention::ALL[i + 1..] {
            assert!(apart(a, b) > 20, "{a} and {b} are the same on nearly every case");
        }
    }
}

/// Three frames of four pixels, three classes and a fourth that never occurs.
///
/// | frame | truth | prediction | IoU of 0 | of 1 | of 2 |
/// |---|---|---|---|---|---|
/// | a0 | 0 0 1 1 | 0 0 1 2 | 1 | 1/2 | 0 (predicted only) |
/// | a1 | 0 0 0 0 | 0 0 0 0 | 1 | absent | absent |
/// | b0 | 1 1 - 0 | 1 1 2 2 | 0 | 1 | 0 (predicted only; the ignored pixel does not count) |
#[test]
fn absent_classes_are_treated_as_each_convention_says() {
    let a = [
        FrameCounts::of(&[0, 0, 1, 1], &[0, 0, 1, 2], 4).unwrap(),
        FrameCounts::of(&[0; 4], &[0; 4], 4).unwrap(),
    ];
    let b = [FrameCounts::of(&[1, 1, 255, 0], &[1, 1, 2, 2], 4).unwrap()];
    let score = |convention: Convention| convention.score(&[&a, &b], 4);
    let third = |x: f64, y: f64, z: f64| Some((x + y + z) / 3.0);

    let challenge = score(Convention::Challenge2018);
    assert!(close(challenge.mean_iou, third(0.75, 1.0, 0.5)));
    assert!(close(challenge.class_iou[0], third(1.0, 1.0, 0.0)));
    assert_eq!(challenge.class_iou[1..], [Some(0.75), None, None]);

    // Frame a1 has background alone: not scored.
    let ch = score(Convention::ChIou);
    assert_eq!(ch.mean_iou, Some(0.75));
    assert_eq!(ch.class_iou, [None, Some(0.75), None, None]);

    // What is predicted only counts as 0.
    let iou = score(Convention::Iou);
    assert_eq!(iou.mean_iou, Some((0.25 + 0.5) / 2.0));
    assert_eq!(score(Convention::McIou).mean_iou, Some((0.75 + 0.0) / 2.0));

    // Sequence a: class 1 1/2, class 2 0, class 3 absent: 1. Sequence b: 1, 0, 1.
    let authors = score(Convention::MaSam);
    assert!(close(authors.mean_iou, third(0.75, 0.0, 1.0)));
    assert_eq!(authors.class_iou, [None, Some(0.75), Some(0.0), Some(1.0)]);
    assert!(close(authors.class_dice[1], Some((2.0 / 3.0 + 1.0) / 2.0)));

    // Pixels of all frames: 0: 6 of 7; 1: 3 of 4; 2: 0 of 2.
    let wide = score(Convention::DatasetWide);
    assert!(close(wide.class_iou[0], Some(6.0 / 7.0)));
    assert_eq!(wide.class_iou[1..], [Some(0.75), Some(0.0), None]);
    assert!(close(wide.mean_iou, third(6.0 / 7.0, 0.75, 0.0)));
}

#[test]
fn a_missing_frame_costs_in_every_convention() {
    let truth = [0, 0, 1, 2];
    let good = FrameCounts::of(&truth, &truth, 3).unwrap();
    let missing = FrameCounts::missing(&truth, 3).unwrap();
    for convention in Convention::ALL {
        let full = convention.score(&[&[good.clone(), good.clone()]], 3).mean_iou;
        let half = convention.score(&[&[good.clone(), missing.clone()]], 3).mean_iou;
        assert_eq!(full, Some(1.0), "{convention}");
        assert_eq!(half, Some(0.5), "{convention}");
    }
}

#[test]
fn nothing_to_score_is_no_value_rather_than_a_number() {
    let ignored = FrameCounts::of(&[255; 3], &[0, 1, 255], 2).unwrap();
    for convention in Convention::ALL {
        assert_eq!(convention.score(&[], 2).mean_iou, None, "{convention}");
        let scores = convention.score(&[std::slice::from_ref(&ignored)], 2);
        // The authors' rule gives a class that is nowhere 1.
        let wanted = (convention == Convention::MaSam).then_some(1.0);
        assert_eq!(scores.mean_iou, wanted, "{convention}");
    }
}

#[test]
fn the_matrix_and_flicker_equal_their_definitions() {
    for seed in 1..=2000 {
        let case = Case::random(seed);
        let mut confusion = Confusion::new(case.classes).unwrap();
        let mut rest = Confusion::new(case.classes).unwrap();
        let mut flicker = FlickerCounts::new(case.classes);
        let (mut steady, mut changed) = (0_u64, 0_u64);
        for (s, sequence) in case.sequences.iter().enumerate() {
            let mut watch = Flicker::new(case.classes);
            for (f, (truth, predicted)) in sequence.iter().enumerate() {
                if s % 2 == 0 { &mut confusion } else { &mut rest }
                    .add(truth, predicted)
                    .unwrap();
                watch.add(truth, predicted).unwrap();
                let before = f.checked_sub(1).map(|before| &sequence[before]);
                for place in 0..truth.len() {
                    if let Some((truth_before, predicted_before)) = before
                        && truth[place] == truth_before[place]
                        && truth[place] != IGNORED
                    {
                        steady += 1;
                        changed += u64::from(predicted[place] != predicted_before[place]);
                    }
                }
            }
            flicker.merge(watch.counts());
        }
        confusion.merge(&rest).unwrap();
        let wanted = (steady > 0).then(|| changed as f64 / steady as f64);
        assert_eq!(flicker.rate(), wanted, "seed {seed}");
        for truth in 0..case.classes {
            let of_truth = pixels(&case, truth, true, &|_, _| true);
            assert_eq!(confusion.truth_size(truth), of_truth.len() as u64, "seed {seed}");
            let mut called = confusion.unpredicted(truth);
            for predicted in 0..case.classes {
                let of_prediction = pixels(&case, predicted, false, &|_, _| true);
                let both = of_truth.intersection(&of_prediction).count() as u64;
                assert_eq!(confusion.count(truth, predicted), both, "seed {seed}");
                called += both;
            }
            assert_eq!(called, of_truth.len() as u64, "seed {seed}");
        }
    }
}

#[test]
fn names_are_distinct_and_those_of_json() {
    let names: BTreeSet<&str> = Convention::ALL.iter().map(|c| c.name()).collect();
    assert_eq!(names.len(), Convention::ALL.len());
    for convention in Convention::ALL {
        let json = serde_json::to_value(convention).unwrap();
        assert_eq!(json, convention.name());
    }
    assert!(
        ENDOVIS_2018_TEST
            .iter()
            .any(|row| row.method == "MA-SAM" && row.mean_iou == 69.2)
    );
}
