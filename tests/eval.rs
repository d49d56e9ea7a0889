//! The evaluation behind `masam eval`: known predictions give known scores.

use masam::cli::eval::{Plan, Seen, SequenceScores, evaluate};
use masam::data::{Dataset, Split};
use masam::geometry::{Orientation, Size};
use masam::labels::ClassSet;
use masam::metrics::{Convention, FrameCounts};
use masam::segmenter::{
    Plane, Reply, Request, Resize, SegmentError, Segmenter, SegmenterSpec, Temporal, Want,
};
use masam::stream::{Emit, Offline, Priority, Window, Worker, WorkerConfig};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// What the fake answers for a frame of a clip.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Answer {
    /// The class whose colour each pixel has.
    Colors,
    /// The same, of the clip's first frame.
    ColorsOfFirst,
    /// The pixel's place, modulo the classes.
    Places,
    /// An error.
    Nothing,
}

/// A segmenter that reads classes off the colours of its frames.
struct Fake {
    spec: SegmenterSpec,
    answer: Answer,
}

impl Fake {
    fn plane(&self, request: &Request, position: usize) -> Vec<u8> {
        let position = if self.answer == Answer::ColorsOfFirst {
            0
        } else {
            position
        };
        let pixels = request.frames[position].rgb.chunks_exact(3);
        let id_of = |rgb: &[u8]| self.spec.classes.iter().position(|c| c.color == *rgb).unwrap() as u8;
        match self.answer {
            Answer::Places => (0..pixels.len())
                .map(|at| (at % self.spec.classes.len()) as u8)
                .collect(),
            _ => pixels.map(id_of).collect(),
        }
    }
}

impl Segmenter for Fake {
    fn spec(&self) -> &SegmenterSpec {
        &self.spec
    }

    fn segment(&mut self, requests: &[Request], _: Option<Instant>) -> Vec<Result<Reply, SegmentError>> {
        let answer = |request: &Request| {
            if self.answer == Answer::Nothing {
                return Err(SegmentError::Forward("told to fail".into()));
            }
            let planes = request.outputs.iter().map(|&position| {
                let ids = self.plane(request, position);
                if request.want == Want::Labels {
                    return Plane::Labels(ids);
                }
                let classes = 0..self.spec.classes.len();
                let share = |class: usize| {
                    ids.iter()
                        .map(move |&id| f32::from(u8::from(usize::from(id) == class)))
                };
                Plane::Probabilities(classes.flat_map(share).collect())
            });
            Ok(Reply {
                planes: planes.collect(),
            })
        };
        requests.iter().map(answer).collect()
    }
}

/// How a test runs the fake.
#[derive(Debug, Clone, Copy)]
struct Setup {
    answer: Answer,
    side_px: u32,
    resize: Resize,
    orientation: Orientation,
    emit: Emit,
    stride_frames: usize,
}

impl Setup {
    fn new(answer: Answer, side_px: u32) -> Self {
        Self {
            answer,
            side_px,
            resize: Resize::Area,
            orientation: Orientation::Upright,
            emit: Emit::Newest,
            stride_frames: 1,
        }
    }

    fn open(self) -> Offline {
        let begun = Instant::now();
        let config = WorkerConfig {
            name: "test".into(),
            clock: Arc::new(move || begun.elapsed().as_nanos() as u64),
            priority: Priority::Normal,
        };
        let open = move || -> masam::Result<Box<dyn Segmenter>> {
            let spec = SegmenterSpec {
                model_id: "fake".into(),
                clip_frames: 5,
                side_px: self.side_px,
                classes: ClassSet::endovis_2018(),
                resize: self.resize,
                orientation: self.orientation,
                frame_interval_nanos: None,
                temporal: Temporal::Centered,
                untrained: true,
                device: "none".into(),
            };
            Ok(Box::new(Fake {
                spec,
                answer: self.answer,
            }))
        };
        let window = Window {
            clip_frames: 5,
            emit: self.emit,
            hop_frames: 1,
            stride_frames: self.stride_frames,
        };
        Offline::new(Worker::spawn(config, Arc::new(open)).unwrap(), window).unwrap()
    }

    fn evaluate(self, data: &Dataset, see: &mut dyn FnMut(&Seen<'_>)) -> anyhow::Result<Vec<SequenceScores>> {
        let plan = Plan {
            sequences: data.split(&Split::All).unwrap(),
            limit: None,
            with_images: false,
        };
        let shown = &mut |seen: &Seen<'_>| {
            see(seen);
            Ok(())
        };
        let scores = evaluate(&mut self.open(), &plan, &AtomicBool::new(false), shown)?;
        Ok(scores.expect("nobody stopped it"))
    }
}

/// Labels of sequences, `[sequence][frame][pixel]`: blocks of few classes that change from frame to frame.
fn random_labels(seed: u64, sequences: usize, frames: usize, size: Size) -> Vec<Vec<Vec<u8>>> {
    let mut state = seed | 1;
    let mut below = move |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % bound
    };
    let (width, height) = (size.width_px as usize, size.height_px as usize);
    let mut frame = || {
        let mut ids = vec![0; width * height];
        for _ in 0..4 {
            let (id, left, top) = (
                below(12) as u8,
                below(size.width_px.into()),
                below(size.height_px.into()),
            );
            let (left, top) = (left as usize, top as usize);
            for y in top..(top + 1 + below(20) as usize).min(height) {
                ids[y * width + left..(y * width + left + 17).min((y + 1) * width)].fill(id);
            }
        }
        ids
    };
    (0..sequences)
        .map(|_| (0..frames).map(|_| frame()).collect())
        .collect()
}

/// Writes labels as a data set in which the pictures are the labels' colours.
fn write(folder: &Path, labels: &[Vec<Vec<u8>>], size: Size) -> Dataset {
    let classes = ClassSet::endovis_2018();
    for (s, frames) in labels.iter().enumerate() {
        for part in ["left_frames", "labels"] {
            let folder = folder.join(format!("seq_{}", s + 1)).join(part);
            std::fs::create_dir_all(&folder).unwrap();
            for (f, ids) in frames.iter().enumerate() {
                let colors = ids
                    .iter()
                    .flat_map(|&id| classes.get(id).unwrap().color)
                    .collect();
                image::RgbImage::from_raw(size.width_px, size.height_px, colors)
                    .unwrap()
                    .save(folder.join(format!("frame{f:03}.png")))
                    .unwrap();
            }
        }
    }
    Dataset::open(folder).unwrap()
}

fn all(scores: &[SequenceScores], convention: Convention) -> masam::metrics::Scores {
    let counts: Vec<&[FrameCounts]> = scores.iter().map(|s| s.counts(convention)).collect();
    convention.score(&counts, 12)
}

#[test]
fn a_perfect_prediction_scores_one_however_frames_are_prepared() {
    let (folder, size) = (tempfile::tempdir().unwrap(), Size::square(48));
    let data = write(folder.path(), &random_labels(5, 2, 9, size), size);
    let plain = Setup::new(Answer::Colors, 48);
    let setups = [
        plain,
        Setup {
            emit: Emit::Centre,
            ..plain
        },
        Setup {
            emit: Emit::Ensemble,
            ..plain
        },
        Setup {
            orientation: Orientation::Transposed,
            ..plain
        },
        Setup {
            resize: Resize::Reference,
            ..plain
        },
        Setup {
            emit: Emit::Ensemble,
            stride_frames: 3,
            orientation: Orientation::Transposed,
            ..plain
        },
    ];
    for setup in setups {
        let scores = setup.evaluate(&data, &mut |_| ()).unwrap();
        assert_eq!(scores.iter().map(|s| s.scored.len()).sum::<usize>(), 18);
        for convention in Convention::ALL {
            let all = all(&scores, convention);
            assert_eq!(
                (all.mean_iou, all.mean_dice),
                (Some(1.0), Some(1.0)),
                "{setup:?} {convention}"
            );
        }
        assert!(scores.iter().all(|s| s.flicker.rate() == Some(0.0)), "{setup:?}");
    }
}

#[test]
fn each_mask_is_scored_against_its_own_frame() {
    let (folder, size) = (tempfile::tempdir().unwrap(), Size::square(32));
    let labels = random_labels(11, 2, 8, size);
    write(folder.path(), &labels, size);
    // Without its label, a frame is shown to the model and not scored.
    std::fs::remove_file(folder.path().join("seq_2/labels/frame003.png")).unwrap();
    let data = Dataset::open(folder.path()).unwrap();
    let setup = Setup {
        stride_frames: 1,
        ..Setup::new(Answer::ColorsOfFirst, 32)
    };
    let mut seen = Vec::new();
    let scores = setup
        .evaluate(&data, &mut |frame| {
            seen.push((frame.place, frame.index, frame.counts.is_some()))
        })
        .unwrap();
    let expected: Vec<_> = (0..2)
        .flat_map(|s| (0..8).map(move |f| (s, f, (s, f) != (1, 3))))
        .collect();
    assert_eq!(seen, expected);
    for (s, (scores, labels)) in scores.iter().zip(&labels).enumerate() {
        let (mut steady, mut changed) = (0, 0);
        let frames: Vec<usize> = (0..8).filter(|&f| (s, f) != (1, 3)).collect();
        assert_eq!((scores.frames, &scores.scored), (8, &frames));
        for (counts, &f) in scores.native.iter().zip(&frames) {
            // The first frame of a clip whose newest is f; an epoch of its own for each sequence.
            let predicted = |f: usize| &labels[f.saturating_sub(4)];
            assert_eq!(
                *counts,
                FrameCounts::of(&labels[f], predicted(f), 12).unwrap(),
                "{s} {f}"
            );
            if f > 0 && frames.contains(&(f - 1)) {
                let pixels = labels[f].iter().zip(&labels[f - 1]);
                let masks = predicted(f).iter().zip(predicted(f - 1));
                for ((now, before), (mask, mask_before)) in pixels.zip(masks) {
                    steady += u64::from(now == before);
                    changed += u64::from(now == before && mask != mask_before);
                }
            }
        }
        assert!(changed > 0);
        assert_eq!(scores.flicker.rate(), Some(changed as f64 / steady as f64));
    }
}

/// The id at the place of `from` that the centre of each pixel of `to` lies in.
fn nearest(ids: &[u8], from: Size, to: Size) -> Vec<u8> {
    let place =
        |at: u32, from: u32, to: u32| ((f64::from(at) + 0.5) * f64::from(from) / f64::from(to)) as u32;
    let mut result = Vec::new();
    for y in 0..to.height_px {
        for x in 0..to.width_px {
            let (u, v) = (
                place(x, from.width_px, to.width_px),
                place(y, from.height_px, to.height_px),
            );
            result.push(ids[(v * from.width_px + u) as usize]);
        }
    }
    result
}

#[test]
fn frames_are_scored_at_their_own_size_and_at_the_models_side() {
    let (folder, size) = (
        tempfile::tempdir().unwrap(),
        Size {
            width_px: 70,
            height_px: 44,
        },
    );
    let labels = random_labels(23, 1, 3, size);
    let data = write(folder.path(), &labels, size);
    let square = Size::square(24);
    let plane: Vec<u8> = (0..square.area()).map(|at| (at % 12) as u8).collect();
    let area = Setup::new(Answer::Places, 24);
    for resize in [Resize::Area, Resize::Reference] {
        let scores = Setup { resize, ..area }
            .evaluate(&data, &mut |seen| {
                assert_eq!(seen.predicted, nearest(&plane, square, size))
            })
            .unwrap();
        for (f, ids) in labels[0].iter().enumerate() {
            let native = FrameCounts::of(ids, &nearest(&plane, square, size), 12).unwrap();
            assert_eq!(scores[0].native[f], native, "{f}");
            let aligned =
                |at: u32, length: u32| (f64::from(at) * f64::from(length - 1) / 23.0 + 0.5) as usize;
            let small: Vec<u8> = match resize {
                Resize::Area => nearest(ids, size, square),
                // Where the reference samples frames: first and last pixels coincide.
                Resize::Reference => (0..24 * 24)
                    .map(|at| ids[aligned(at / 24, 44) * 70 + aligned(at % 24, 70)])
                    .collect(),
            };
            let side = FrameCounts::of(&small, &plane, 12).unwrap();
            assert_eq!(scores[0].side[f], side, "{resize:?} {f}");
            assert_eq!(scores[0].counts(Convention::MaSam)[f], side);
            assert_eq!(scores[0].counts(Convention::DatasetWide)[f], native);
        }
    }
}

#[test]
fn a_frame_without_a_mask_ends_the_evaluation_by_name() {
    let (folder, size) = (tempfile::tempdir().unwrap(), Size::square(16));
    let data = write(folder.path(), &random_labels(3, 1, 3, size), size);
    let error = Setup::new(Answer::Nothing, 16)
        .evaluate(&data, &mut |_| ())
        .unwrap_err();
    let said = format!("{error:#}");
    assert!(
        said.contains("seq_1 frame000") && said.contains("told to fail"),
        "{said}"
    );
}

#[test]
fn whoever_wishes_to_stop_need_not_wait_for_the_end() {
    let (folder, size) = (tempfile::tempdir().unwrap(), Size::square(16));
    let data = write(folder.path(), &random_labels(3, 2, 6, size), size);
    let plan = Plan {
        sequences: data.split(&Split::All).unwrap(),
        limit: Some(5),
        with_images: true,
    };
    assert_eq!(plan.total(), 10);
    let (stop, mut seen) = (AtomicBool::new(false), 0);
    let mut offline = Setup::new(Answer::Colors, 16).open();
    let scores = evaluate(&mut offline, &plan, &stop, &mut |frame| {
        assert!(frame.image.is_some());
        seen += 1;
        stop.store(seen == 7, Ordering::Relaxed);
        Ok(())
    });
    assert!(scores.unwrap().is_none());
    assert_eq!(seen, 7);
}
