//! The live engine, frame by frame.

use super::*;
use crate::geometry::Orientation;
use crate::labels::ClassSet;
use crate::segmenter::{Plane, Reply, Resize, Temporal};
use std::sync::Arc;

const MS: u64 = 1_000_000;

fn spec() -> SegmenterSpec {
    SegmenterSpec {
        model_id: "fake".into(),
        clip_frames: 5,
        side_px: 1,
        classes: ClassSet::numbered(250).unwrap(),
        resize: Resize::Area,
        orientation: Orientation::Upright,
        frame_interval_nanos: None,
        temporal: Temporal::Centered,
        untrained: true,
        device: "none".into(),
    }
}

fn config(spacing: Spacing) -> LiveConfig {
    let prompt = Prompt::default();
    let (max_age_nanos, delay_nanos) = (500 * MS, 0);
    LiveConfig {
        stream: StreamId(1),
        clip_frames: 5,
        emit: Emit::Newest,
        spacing,
        max_age_nanos,
        delay_nanos,
        carry: false,
        prompt,
    }
}

fn engine(config: LiveConfig) -> LiveEngine {
    LiveEngine::new(0, config, &spec()).unwrap()
}

fn at(ms: u64) -> FrameTime {
    FrameTime {
        running_nanos: Some(ms * MS),
        arrival_nanos: 0,
    }
}

fn frame(byte: u8) -> ModelFrame {
    ModelFrame {
        rgb: Arc::from([byte; 3]),
    }
}

fn push(engine: &mut LiveEngine, byte: u8, ms: u64) -> u64 {
    let pixels = engine.wants_pixels(at(ms)).then(|| frame(byte));
    engine.push(pixels, at(ms))
}

fn bytes(job: &Job) -> Vec<u8> {
    job.request.frames.iter().map(|f| f.rgb[0]).collect()
}

fn answer(job: &Job) -> Done {
    let byte = *bytes(job).last().unwrap();
    let result = Ok(Reply {
        planes: vec![Plane::Labels(vec![byte])],
    });
    Done {
        stream: job.request.stream,
        epoch: job.epoch,
        clip: job.clip,
        result,
        forward_nanos: 0,
    }
}

#[test]
fn the_newest_clip_replaces_one_that_was_not_begun() {
    let mut engine = engine(config(Spacing::Frames(2)));
    for i in 0..10 {
        push(&mut engine, i, u64::from(i) * 40);
    }
    assert_eq!(bytes(&engine.next_job().unwrap()), [1, 3, 5, 7, 9]);
    assert!(engine.next_job().is_none());
    assert_eq!((engine.counts().clips_skipped, engine.open.len()), (9, 1));
}

#[test]
fn a_slow_pass_is_heard_however_many_clips_came_after_it() {
    let mut engine = engine(LiveConfig {
        max_age_nanos: 10_000 * MS,
        ..config(Spacing::Frames(1))
    });
    push(&mut engine, 1, 0);
    let slow = engine.next_job().unwrap();
    let mut waiting = None;
    for i in 1..100 {
        push(&mut engine, i, u64::from(i) * 40);
        let newer = engine.next_job();
        if let Some(older) = std::mem::replace(&mut waiting, newer) {
            engine.skip(older);
        }
    }
    engine.accept(answer(&slow));
    assert!(matches!(engine.take(99), Outcome::Mask(mask) if mask.frame == 0));
    assert_eq!((engine.counts().clips_skipped, engine.open.len()), (98, 1));
}

#[test]
fn only_frames_worth_a_look_are_asked_for() {
    let mut slow = engine(config(Spacing::Frames(60)));
    let asked = (0..600).filter(|i| {
        let wanted = slow.wants_pixels(at(i * 16));
        push(&mut slow, (i % 250) as u8, i * 16);
        wanted
    });
    assert_eq!(asked.count(), 150, "every fourth");
    // 596, 536, 476, 416, 356
    assert_eq!(bytes(&slow.next_job().unwrap()), [106, 166, 226, 36, 96]);
    // For masks of their own all are wanted, and still only every fourth is kept.
    let mut held = engine(LiveConfig {
        delay_nanos: MS,
        ..config(Spacing::Frames(60))
    });
    for i in 0..600 {
        assert!(held.wants_pixels(at(i * 16)));
        push(&mut held, (i % 250) as u8, i * 16);
    }
    assert_eq!(bytes(&held.next_job().unwrap())[4], 99);
    assert!(held.past.len() <= 4 * 15 + 2);
}

#[test]
fn masks_age_and_are_not_shown_when_too_old() {
    let mut engine = engine(config(Spacing::Frames(1)));
    let first = push(&mut engine, 7, 0);
    assert_eq!(engine.take(first), Outcome::None);
    let job = engine.next_job().unwrap();
    engine.accept(answer(&job));
    for (ms, young) in [(40, true), (500, true), (501, false)] {
        let index = push(&mut engine, 8, ms);
        match engine.take(index) {
            Outcome::Mask(mask) => {
                assert!(young);
                assert_eq!((mask.labels[0], mask.frame, mask.time), (7, 0, at(0)));
            }
            other => assert!(!young && other == Outcome::None, "{ms}: {other:?}"),
        }
        assert_eq!(engine.take(index), Outcome::Unknown);
    }
}

#[test]
fn a_delay_gives_a_fast_model_time_for_every_frame() {
    let mut engine = engine(LiveConfig {
        delay_nanos: 100 * MS,
        ..config(Spacing::Frames(40))
    });
    let mut next = 0;
    for i in 0..50_u8 {
        push(&mut engine, i, u64::from(i) * 40);
        // The answer comes one frame later.
        let job = engine.next_job().unwrap();
        while let Outcome::Mask(mask) = engine.take(next) {
            assert_eq!((mask.frame, mask.labels[0]), (next, next as u8));
            next += 1;
        }
        assert_eq!(next, u64::from(i).saturating_sub(2), "held for 100 ms at 25 Hz");
        engine.accept(answer(&job));
    }
    assert_eq!(engine.take(next), Outcome::NeedsFrames);
    engine.finish();
    for index in next..50 {
        assert!(matches!(engine.take(index), Outcome::Mask(mask) if mask.frame == index));
    }
    assert!(engine.waiting.is_empty() && engine.masks.len() <= 1);
}

#[test]
fn a_delay_ends_by_the_clock_where_no_frame_comes() {
    let mut engine = engine(LiveConfig {
        delay_nanos: 100 * MS,
        ..config(Spacing::Frames(1))
    });
    assert_eq!(engine.due_nanos(), None);
    let time = |running_ms: u64, arrival_ms: u64| FrameTime {
        running_nanos: Some(running_ms * MS),
        arrival_nanos: arrival_ms * MS,
    };
    engine.push(Some(frame(1)), time(0, 1000));
    engine.push(Some(frame(2)), time(40, 1070));
    // A millisecond for leaving.
    assert_eq!(engine.due_nanos(), Some(1099 * MS));
    engine.pass_time(1099 * MS - 1);
    assert_eq!(engine.take(0), Outcome::NeedsFrames);
    engine.pass_time(1099 * MS);
    assert_eq!(engine.take(0), Outcome::None);
    assert_eq!(
        (engine.take(1), engine.due_nanos()),
        (Outcome::NeedsFrames, Some(1169 * MS))
    );
    // The clock does not go back.
    engine.pass_time(1169 * MS);
    engine.pass_time(0);
    assert_eq!((engine.take(1), engine.due_nanos()), (Outcome::None, None));
}

#[test]
fn a_mask_of_a_later_frame_is_never_shown() {
    let mut engine = engine(LiveConfig {
        delay_nanos: 100 * MS,
        ..config(Spacing::Frames(1))
    });
    for i in 0..3 {
        push(&mut engine, i, u64::from(i) * 40);
    }
    let job = engine.next_job().unwrap(); // of frame 2
    engine.accept(answer(&job));
    push(&mut engine, 3, 120);
    assert_eq!(engine.take(0), Outcome::None);
    push(&mut engine, 4, 160);
    assert_eq!(engine.take(1), Outcome::None);
    push(&mut engine, 5, 200);
    assert!(matches!(engine.take(2), Outcome::Mask(mask) if mask.frame == 2));
}

#[test]
fn a_fault_is_reported_until_a_clip_succeeds() {
    let mut engine = engine(config(Spacing::Frames(1)));
    push(&mut engine, 1, 0);
    let job = engine.next_job().unwrap();
    let error = SegmentError::Forward("cold".into());
    engine.accept(Done {
        result: Err(error.clone()),
        ..answer(&job)
    });
    assert_eq!(engine.take(0), Outcome::Failed(error));
    push(&mut engine, 2, 40);
    let job = engine.next_job().unwrap();
    engine.accept(answer(&job));
    assert!(matches!(engine.take(1), Outcome::Mask(_)));
    assert_eq!((engine.counts().clips_run, engine.counts().clips_failed), (1, 1));
}

#[test]
fn an_epoch_takes_nothing_from_the_one_before() {
    let mut engine = engine(config(Spacing::Frames(1)));
    push(&mut engine, 1, 0);
    let old = engine.next_job().unwrap();
    engine.begin_epoch();
    let index = push(&mut engine, 2, 40);
    engine.accept(answer(&old));
    assert_eq!((index, engine.take(0)), (0, Outcome::None));
    assert_eq!(bytes(&engine.next_job().unwrap()), [2; 5]);
    assert_eq!(engine.counts().answers_stale, 1);
}

#[test]
fn what_cannot_be_live_says_why() {
    assert!(check_emit(Emit::Newest).is_ok());
    assert!(
        check_emit(Emit::Centre)
            .unwrap_err()
            .to_string()
            .contains("the video never waits")
    );
    assert!(LiveEngine::new(0, config(Spacing::Frames(0)), &spec()).is_err());
    assert!(LiveEngine::new(0, config(Spacing::Nanos(0)), &spec()).is_err());
}

#[test]
fn a_carried_mask_keeps_its_age_and_says_that_it_was_carried() {
    let spec = SegmenterSpec {
        side_px: 64,
        ..spec()
    };
    let config = LiveConfig {
        carry: true,
        ..config(Spacing::Frames(2))
    };
    let mut engine = LiveEngine::new(0, config, &spec).unwrap();
    // A bright square of 24 pixels that moves 6 to the right with every frame.
    let at_frame = |n: usize| {
        let inside =
            move |at: &usize| (20..44).contains(&(at / 64)) && (8 + 6 * n..32 + 6 * n).contains(&(at % 64));
        let rgb: Vec<u8> = (0..64 * 64)
            .flat_map(|at| [if inside(&at) { 200 + (at % 5 * 7) as u8 } else { 40 }; 3])
            .collect();
        let labels: Vec<u8> = (0..64 * 64).map(|at| u8::from(inside(&at))).collect();
        (ModelFrame { rgb: rgb.into() }, labels)
    };
    let (frame, labels) = at_frame(0);
    assert!(engine.wants_pixels(at(0)));
    engine.push(Some(frame), at(0));
    let job = engine.next_job().unwrap();
    engine.accept(Done {
        result: Ok(Reply {
            planes: vec![Plane::Labels(labels.clone())],
        }),
        ..answer(&job)
    });
    let Outcome::Mask(own) = engine.take(0) else {
        panic!("a mask of its own")
    };
    assert!(!own.carried && *own.labels == labels[..]);
    assert!(
        engine.wants_pixels(at(40)),
        "every frame, though every second makes a clip"
    );
    let (frame, truth) = at_frame(1);
    engine.push(Some(frame), at(40));
    let Outcome::Mask(moved) = engine.take(1) else {
        panic!("a mask")
    };
    let wrong = |mask: &[u8]| mask.iter().zip(&truth).filter(|(a, b)| a != b).count();
    assert!(moved.carried && (moved.frame, moved.time) == (0, at(0)));
    assert!(
        wrong(&moved.labels) * 4 < wrong(&labels),
        "{} {}",
        wrong(&moved.labels),
        wrong(&labels)
    );
    // A frame that was not looked at gets the mask as it is.
    engine.push(None, at(80));
    assert!(matches!(engine.take(2), Outcome::Mask(mask) if !mask.carried && *mask.labels == labels[..]));
}

#[test]
fn steps_carry_one_frame_and_the_phase_that_waits_for_it() {
    let causal = SegmenterSpec {
        temporal: Temporal::Causal,
        ..spec()
    };
    let config = LiveConfig {
        emit: Emit::Step,
        ..config(Spacing::Nanos(100 * MS))
    };
    assert!(
        LiveEngine::new(0, config.clone(), &spec()).is_err(),
        "centered taps"
    );
    let mut engine = LiveEngine::new(0, config, &causal).unwrap();
    let mut phases = Vec::new();
    for i in 0..6_u8 {
        push(&mut engine, i, u64::from(i) * 34);
        let job = engine.next_job().unwrap();
        assert_eq!((bytes(&job), &job.request.outputs[..]), (vec![i], &[0][..]));
        phases.push(job.request.step.unwrap());
        if i == 1 {
            // A newer one takes its place: its phase was not fed.
            engine.skip(job);
        } else {
            engine.accept(answer(&job));
        }
    }
    assert_eq!(phases, [0, 1, 1, 0, 2, 1]);
    engine.begin_epoch();
    push(&mut engine, 9, 1000);
    assert_eq!(engine.next_job().unwrap().request.step, Some(0));
}
