//! Recorded passes beside the plain forward, with the CPU passing for a card.

use super::*;
use crate::kernels::pretended_card;
use crate::model::weights::uniform;
use crate::model::{Adapters, FactMode, FormulaWeights, MaSam, ModelConfig};
use crate::runtime::device::Place;
use crate::segmenter::{Normalisation, Temporal};
use candle_core::Device;
use std::sync::Arc;

const SIDE: usize = 64;

fn plain(adapters: Adapters) -> Plain {
    let config = ModelConfig {
        image_side_px: SIDE,
        encoder_width: 16,
        encoder_depth: 2,
        encoder_heads: 2,
        global_blocks: vec![1],
        partition_side: 3,
        adapter_width: 8,
        adapters,
        fact_rank: 2,
        prompt_width: 32,
        decoder_heads: 2,
        decoder_mlp_width: 16,
        classes: 4,
        temporal: Temporal::Causal,
        ..ModelConfig::vit_b()
    };
    let weights = FormulaWeights::builder(DType::F32, &Device::Cpu);
    let model = MaSam::new(&config, FactMode::Folded, weights).unwrap();
    let normalisation = Normalisation::Fixed {
        scale: 1.0 / 255.0,
        offset: 0.0,
    };
    let place = Place {
        device: Device::Cpu,
        dtype: DType::F32,
        description: "a pretended card".into(),
    };
    Plain::new(model, normalisation, place)
}

fn frame(seed: &str) -> ModelFrame {
    let rgb: Vec<u8> = uniform(seed, SIDE * SIDE * 3)
        .map(|u| ((u + 1.0) * 127.5) as u8)
        .collect();
    ModelFrame { rgb: Arc::from(rgb) }
}

fn point() -> Prompt {
    Prompt {
        points_px: vec![([20.0, 30.0], true)],
        ..Prompt::default()
    }
}

fn step(stream: u64, frame: ModelFrame, prompt: &Prompt, want: Want) -> Step {
    Step {
        stream: StreamId(stream),
        frame,
        want,
        prompt: prompt.clone(),
    }
}

/// Whether two planes are one but for pixels where two classes are as good as equal.
fn are_alike(a: &Plane, b: &Plane) -> bool {
    match (a, b) {
        (Plane::Labels(a), Plane::Labels(b)) => {
            let apart = a.iter().zip(b).filter(|(a, b)| a != b).count();
            a.len() == b.len() && apart * 1000 < a.len()
        }
        (a, b) => a == b,
    }
}

/// What both make of the same, which has to be one thing.
fn both(card: &mut OnCard, plain: &mut Plain, steps: &[Step]) -> Vec<Result<Plane, SegmentError>> {
    let steps: Vec<&Step> = steps.iter().collect();
    let (ours, theirs) = (card.steps(&steps).unwrap(), plain.steps(&steps).unwrap());
    let counted = |results: &[Result<Plane, SegmentError>]| -> Vec<bool> {
        results
            .iter()
            .map(|r| matches!(r, Err(SegmentError::NotFinite { .. })))
            .collect()
    };
    assert_eq!(counted(&ours), counted(&theirs));
    for (ours, theirs) in ours.iter().zip(&theirs) {
        if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
            assert!(are_alike(ours, theirs), "another plane");
        }
    }
    ours
}

fn is_recorded(card: &OnCard, streams: usize, prompt: &Prompt) -> bool {
    let shape = StepShape {
        streams,
        prompt: PromptShape::of(prompt),
    };
    matches!(card.steps.find(&shape), Ok(Some(_)))
}

#[test]
fn streams_come_and_go_between_recorded_steps() {
    let prompts = [Prompt::default(), point()];
    pretended_card::during(|| {
        for (round, adapters) in [Adapters::Both, Adapters::None].into_iter().enumerate() {
            let (mut card, mut other) = (OnCard::new(plain(adapters)), plain(adapters));
            let seed = format!("dice {round}");
            let mut dice = uniform(&seed, 4000).map(|u| (u + 1.0) / 2.0 * 0.999_999);
            let mut roll = |sides: usize| (dice.next().unwrap() * sides as f64) as usize;
            let mut different = 0;
            for turn in 0..120 {
                match roll(12) {
                    0 => {
                        let stream = StreamId(roll(4) as u64);
                        card.reset(stream);
                        other.reset(stream);
                    }
                    1 => {
                        let (from, to) = (StreamId(roll(4) as u64), StreamId(roll(4) as u64));
                        let state = card.snapshot(from);
                        assert_eq!(state, other.snapshot(from), "turn {turn}");
                        if let Some(state) = state {
                            card.restore(to, &state).unwrap();
                            other.restore(to, &state).unwrap();
                        }
                    }
                    _ => {
                        let mut streams: Vec<usize> = (0..4).collect();
                        streams.rotate_left(roll(2));
                        streams.truncate(1 + roll(3));
                        let prompt = &prompts[roll(5) / 4];
                        let want = [Want::Labels, Want::Probabilities][roll(20) / 19];
                        let steps: Vec<Step> = streams
                            .iter()
                            .map(|&s| step(s as u64, frame(&format!("{}", (turn + s) % 7)), prompt, want))
                            .collect();
                        let results = both(&mut card, &mut other, &steps);
                        if let [Ok(Plane::Labels(a)), Ok(Plane::Labels(b)), ..] = &results[..] {
                            different += usize::from(a != b);
                        }
                    }
                }
            }
            for streams in 1..=3 {
                assert!(is_recorded(&card, streams, &prompts[0]), "{streams} streams");
            }
            assert!(different > 20, "the masks of two streams are alike: {different}");
        }
    });
}

#[test]
fn one_recording_serves_prompts_that_move() {
    pretended_card::during(|| {
        let (mut card, mut other) = (OnCard::new(plain(Adapters::Both)), plain(Adapters::Both));
        let mut seen = Vec::new();
        for turn in 0..8u8 {
            let place = f32::from(turn) * 7.0;
            let prompt = Prompt {
                box_px: Some([place, 2.0, place + 9.0, 20.0 + place / 2.0]),
                points_px: vec![([place, 30.0], true), ([40.0, place], turn % 2 == 0)],
            };
            // One frame, so that nothing but the prompt makes a difference.
            card.reset(StreamId(0));
            other.reset(StreamId(0));
            let steps = [step(0, frame("one"), &prompt, Want::Labels)];
            seen.extend(
                both(&mut card, &mut other, &steps)
                    .into_iter()
                    .map(Result::unwrap),
            );
        }
        assert_eq!(card.steps.made().count(), 1);
        let recorded = &seen[FAMILIAR as usize..];
        assert!(recorded.windows(2).all(|pair| !are_alike(&pair[0], &pair[1])));
    });
}

#[test]
fn one_recording_serves_clips_whose_prompts_move() {
    pretended_card::during(|| {
        let (mut card, mut other) = (OnCard::new(plain(Adapters::Both)), plain(Adapters::Both));
        let mut seen = Vec::new();
        for turn in 0..8u8 {
            let place = f32::from(turn) * 7.0;
            let request = Request {
                stream: StreamId(0),
                frames: (0..3).map(|i| frame(&format!("clip {i}"))).collect(),
                outputs: vec![2],
                want: Want::Labels,
                prompt: Prompt {
                    box_px: (turn > 3).then_some([2.0, place, 30.0 + place / 2.0, place + 9.0]),
                    points_px: vec![([place, 30.0], true)],
                },
                step: None,
            };
            let (ours, theirs) = (
                card.clips(&[&request]).unwrap(),
                other.clips(&[&request]).unwrap(),
            );
            let plane = |replies: Vec<Result<Reply, SegmentError>>| {
                let mut replies = replies.into_iter().map(|reply| reply.unwrap().planes.remove(0));
                replies.next().unwrap()
            };
            let (ours, theirs) = (plane(ours), plane(theirs));
            assert!(are_alike(&ours, &theirs), "turn {turn}");
            seen.push(ours);
        }
        // With a box, and without one.
        assert_eq!(card.clips.made().count(), 2);
        assert!(seen.windows(2).all(|pair| !are_alike(&pair[0], &pair[1])));
    });
}

#[test]
fn a_state_of_no_numbers_is_forgotten_and_the_others_go_on() {
    pretended_card::during(|| {
        let (mut card, mut other) = (OnCard::new(plain(Adapters::Both)), plain(Adapters::Both));
        let automatic = Prompt::default();
        let two =
            |turn: usize| [0, 1].map(|s| step(s, frame(&format!("{turn} {s}")), &automatic, Want::Labels));
        for turn in 0..4 {
            both(&mut card, &mut other, &two(turn))
                .into_iter()
                .for_each(|r| drop(r.unwrap()));
        }
        assert!(is_recorded(&card, 2, &automatic));
        let state = card.snapshot(StreamId(1)).unwrap();
        let huge: Vec<u8> = state
            .chunks_exact(4)
            .flat_map(|_| f32::MAX.to_le_bytes())
            .collect();
        card.restore(StreamId(1), &huge).unwrap();
        other.restore(StreamId(1), &huge).unwrap();
        let results = both(&mut card, &mut other, &two(4));
        assert!(results[0].is_ok());
        assert!(matches!(results[1], Err(SegmentError::NotFinite { .. })));
        assert!(card.snapshot(StreamId(1)).is_none());
        for turn in 5..8 {
            let results = both(&mut card, &mut other, &two(turn));
            assert!(results.iter().all(Result::is_ok));
            for stream in [StreamId(0), StreamId(1)] {
                assert_eq!(card.snapshot(stream), other.snapshot(stream));
            }
        }
    });
}

#[test]
fn a_step_that_fails_leaves_the_states_as_they_were() {
    pretended_card::during(|| {
        let (mut card, mut other) = (OnCard::new(plain(Adapters::Both)), plain(Adapters::Both));
        let automatic = Prompt::default();
        let two =
            |turn: usize| [0, 1].map(|s| step(s, frame(&format!("{turn} {s}")), &automatic, Want::Labels));
        let states = |card: &OnCard| [StreamId(0), StreamId(1)].map(|stream| card.snapshot(stream).unwrap());
        for turn in 0..8 {
            if turn > 4 {
                assert!(is_recorded(&card, 2, &automatic));
                let before = states(&card);
                card.plain.staging.fails = true;
                let wrong = two(turn + 100);
                assert!(card.steps(&wrong.iter().collect::<Vec<_>>()).is_err());
                card.plain.staging.fails = false;
                assert!(states(&card) == before);
            }
            let results = both(&mut card, &mut other, &two(turn));
            assert!(results.iter().all(Result::is_ok));
            for stream in [StreamId(0), StreamId(1)] {
                assert_eq!(card.snapshot(stream), other.snapshot(stream));
            }
        }
    });
}

#[test]
fn states_outlive_the_recording_that_they_lay_at() {
    pretended_card::during(|| {
        let (mut card, mut other) = (OnCard::new(plain(Adapters::Both)), plain(Adapters::Both));
        let at = |stream: usize| Prompt {
            points_px: (0..stream).map(|x| ([x as f32, 30.0], true)).collect(),
            ..Prompt::default()
        };
        // A recorded shape for each stream, at which its state lies: so many points.
        let mut turn = 0;
        let mut go_on = |card: &mut OnCard, stream: usize| {
            turn += 1;
            let steps = [step(
                stream as u64,
                frame(&format!("{turn}")),
                &at(stream),
                Want::Labels,
            )];
            assert!(both(card, &mut other, &steps)[0].is_ok());
            let stream = StreamId(stream as u64);
            assert!(card.snapshot(stream) == other.snapshot(stream));
        };
        for stream in (0..MOST_SHAPES).flat_map(|stream| [stream; 3]) {
            go_on(&mut card, stream);
        }
        (0..MOST_SHAPES).for_each(|stream| go_on(&mut card, stream));
        assert!((0..MOST_SHAPES).all(|stream| is_recorded(&card, 1, &at(stream))));
        assert_eq!(
            card.steps
                .made()
                .filter(|steps| !steps.streams.is_empty())
                .count(),
            MOST_SHAPES
        );
        // Another takes the place of the first.
        go_on(&mut card, MOST_SHAPES);
        assert!(!is_recorded(&card, 1, &at(0)));
        (0..=MOST_SHAPES).for_each(|stream| go_on(&mut card, stream));
    });
}

#[test]
fn what_was_seen_longest_ago_is_forgotten() {
    let mut familiar: Familiar<usize, usize> = Familiar::new();
    let mut made = |key: usize| familiar.get(key, || Ok(key)).copied();
    for key in 0..MOST_SHAPES {
        // Made the third time it comes, and then there.
        assert_eq!([(); 4].map(|()| made(key)), [None, None, Some(key), Some(key)]);
    }
    assert_eq!(made(0), Some(0));
    assert_eq!(made(MOST_SHAPES), None);
    let is_there = |key: usize| matches!(familiar.find(&key), Ok(Some(_)));
    assert!(!is_there(1) && [0].into_iter().chain(2..MOST_SHAPES).all(is_there));
    assert!(familiar.find(&1).is_err());
}

#[test]
fn clips_are_the_same_before_and_after_they_are_familiar() {
    let request = |seed: usize, frames: usize, outputs: &[usize], prompt: &Prompt, want: Want| Request {
        stream: StreamId(0),
        frames: (0..frames).map(|i| frame(&format!("{seed} {i}"))).collect(),
        outputs: outputs.to_vec(),
        want,
        prompt: prompt.clone(),
        step: None,
    };
    pretended_card::during(|| {
        let (mut card, mut other) = (OnCard::new(plain(Adapters::Both)), plain(Adapters::Both));
        let mut seen = Vec::new();
        for turn in 0..10 {
            for (frames, outputs) in [(5, vec![4]), (5, vec![0, 2]), (3, vec![1]), (2, vec![])] {
                for prompt in [Prompt::default(), point()] {
                    for want in [Want::Labels, Want::Probabilities] {
                        let rows = [0, 1].map(|row| request(turn + row, frames, &outputs, &prompt, want));
                        let rows: Vec<&Request> = rows.iter().take(1 + turn / 5).collect();
                        let (ours, theirs) = (card.clips(&rows).unwrap(), other.clips(&rows).unwrap());
                        let replies = |replies: Vec<Result<Reply, SegmentError>>| -> Vec<Reply> {
                            replies.into_iter().map(Result::unwrap).collect()
                        };
                        let (ours, theirs) = (replies(ours), replies(theirs));
                        assert_eq!(ours.len(), theirs.len());
                        for (ours, theirs) in ours.iter().zip(&theirs) {
                            assert_eq!([ours.planes.len(), theirs.planes.len()], [outputs.len(); 2]);
                            let mut pairs = ours.planes.iter().zip(&theirs.planes);
                            assert!(pairs.all(|(a, b)| are_alike(a, b)), "turn {turn}, {outputs:?}");
                        }
                        seen.extend(ours);
                    }
                }
            }
        }
        assert_eq!(card.clips.known.len(), MOST_SHAPES);
        assert!(card.clips.made().count() >= 6);
        assert!(seen.iter().any(|reply| *reply != seen[0]));
    });
}

#[test]
fn what_cannot_be_recorded_is_run_as_ever() {
    // Nothing passes for a card here, so that recording fails.
    let (mut card, mut other) = (OnCard::new(plain(Adapters::Both)), plain(Adapters::Both));
    for turn in 0..FAMILIAR + 2 {
        let steps = [step(
            7,
            frame(&format!("{turn}")),
            &Prompt::default(),
            Want::Labels,
        )];
        assert!(both(&mut card, &mut other, &steps)[0].is_ok());
    }
    let shape = StepShape {
        streams: 1,
        prompt: PromptShape::of(&Prompt::default()),
    };
    assert!(matches!(card.steps.find(&shape), Ok(None)));
}
