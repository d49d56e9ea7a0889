//! One new frame at a time against the whole causal forward pass.

use candle_core::{DType, Device, Tensor};
use masam::checkpoint::{ModelCard, ModelFile, Preprocessing, Weights};
use masam::model::{Adapters, CausalState, Decoder, FactMode, FormulaWeights, MaSam, ModelConfig, Prompts};
use masam::runtime::{ModelSegmenter, Place, tensor_of};
use masam::segmenter::{
    ModelFrame, Plane, Prompt, Request, SegmentError, Segmenter, StateSnapshot, Step, StreamId, Temporal,
    Want,
};

use masam::stream::{Emit, Next, Offline, Priority, Window, Worker, WorkerConfig};
use std::sync::Arc;
use std::time::Duration;

const SIDE: usize = 64;

fn config(adapters: Adapters) -> ModelConfig {
    ModelConfig {
        image_side_px: SIDE,
        encoder_width: 48,
        encoder_depth: 3,
        global_blocks: vec![2],
        partition_side: 3,
        adapter_width: 12,
        adapters,
        prompt_width: 64,
        decoder_mlp_width: 64,
        ..ModelConfig::demo()
    }
}

fn frame(seed: usize) -> ModelFrame {
    let byte = |i: usize| ((i * 31 + seed * 977) ^ (i >> 5) ^ (seed * 13)) as u8;
    ModelFrame {
        rgb: (0..SIDE * SIDE * 3).map(byte).collect(),
    }
}

fn place() -> Place {
    Place {
        device: Device::Cpu,
        dtype: DType::F32,
        description: "cpu".into(),
    }
}

fn segmenter(config: &ModelConfig, preprocessing: Preprocessing) -> ModelSegmenter {
    let builder = FormulaWeights::builder(DType::F32, &Device::Cpu);
    let mut weights = Weights::default();
    for spec in config.weights() {
        weights.insert(
            spec.name.clone(),
            builder.get(spec.shape.as_slice(), &spec.name).unwrap(),
        );
    }
    let card = ModelCard::new(config.clone(), preprocessing).unwrap();
    ModelSegmenter::new(ModelFile { card, weights }, place(), Some(2)).unwrap()
}

fn step(stream: StreamId, frame: ModelFrame) -> Step {
    Step {
        stream,
        frame,
        want: Want::Probabilities,
        prompt: Prompt::default(),
    }
}

fn probabilities(plane: &Plane) -> &[f32] {
    match plane {
        Plane::Probabilities(values) => values,
        Plane::Labels(_) => panic!("probabilities were asked for"),
    }
}

#[test]
fn features_of_steps_are_those_of_the_whole_clip() {
    for adapters in [Adapters::Both, Adapters::Before, Adapters::After, Adapters::None] {
        let config = config(adapters);
        let builder = FormulaWeights::builder(DType::F32, &Device::Cpu);
        let model = MaSam::new(&config, FactMode::Folded, builder).unwrap();
        let frames: Vec<ModelFrame> = (0..9).map(frame).collect();
        let normalisation = Preprocessing::live().normalisation;
        let clip = tensor_of(&[&frames], SIDE, normalisation).unwrap();
        let whole = model.encode(&clip, &mut |_, _| {}).unwrap();
        let whole = model.decode(&whole, &Prompts::default()).unwrap().logits;
        let largest = whole
            .abs()
            .unwrap()
            .max_all()
            .unwrap()
            .to_scalar::<f32>()
            .unwrap();
        let mut state = CausalState::new(&config, 1, DType::F32, &Device::Cpu).unwrap();
        for i in 0..frames.len() {
            let one = clip.get(0).unwrap().narrow(0, i, 1).unwrap();
            let (features, after) = model.step(&one, &state).unwrap();
            state = after;
            let logits = model.decode(&features, &Prompts::default()).unwrap().logits;
            let differ = (logits - whole.narrow(0, i, 1).unwrap()).unwrap();
            let worst = differ
                .abs()
                .unwrap()
                .max_all()
                .unwrap()
                .to_scalar::<f32>()
                .unwrap();
            assert!(
                worst <= 5e-5 * largest,
                "{adapters:?}, frame {i}: {worst} of {largest}"
            );
        }
    }
}

#[test]
fn what_is_wanted_alone_is_what_it_is_among_all() {
    for decoder in [Decoder::Progressive, Decoder::MultiScale] {
        for adapters in [Adapters::Both, Adapters::Before, Adapters::None] {
            let config = ModelConfig {
                decoder,
                global_blocks: vec![0, 2],
                ..config(adapters)
            };
            let builder = FormulaWeights::builder(DType::F32, &Device::Cpu);
            let model = MaSam::new(&config, FactMode::Folded, builder).unwrap();
            let clips: Vec<Vec<ModelFrame>> = (0..2)
                .map(|c| (0..3).map(|i| frame(10 * c + i)).collect())
                .collect();
            let rows: Vec<&[ModelFrame]> = clips.iter().map(Vec::as_slice).collect();
            let clip = tensor_of(&rows, SIDE, Preprocessing::live().normalisation).unwrap();
            let wanted = Tensor::new(&[2u32, 3, 5], &Device::Cpu).unwrap();
            let logits = |features| model.decode(&features, &Prompts::default()).unwrap().logits;
            let all = model.encode(&clip, &mut |_, _| {}).unwrap();
            let among_all = logits(all.select(&wanted).unwrap());
            let alone = logits(model.encode_wanted(&clip, &wanted).unwrap());
            let largest = among_all
                .abs()
                .unwrap()
                .max_all()
                .unwrap()
                .to_scalar::<f32>()
                .unwrap();
            let differ = (alone - among_all).unwrap().abs().unwrap();
            let worst = differ.max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(
                worst <= 5e-5 * largest,
                "{decoder:?}, {adapters:?}: {worst} of {largest}"
            );
            assert!(
                model
                    .encode_wanted(&clip, &Tensor::new(&[6u32], &Device::Cpu).unwrap())
                    .is_err()
            );
        }
    }
}

#[test]
fn streams_keep_to_themselves_and_states_can_be_put_back() {
    let config = config(Adapters::Both);
    let mut model = segmenter(&config, Preprocessing::live());
    let streams = [StreamId(3), StreamId(8)];
    let of = |stream: usize, i: usize| frame(100 * stream + i);
    // Each stream alone, by whole clips: what every step has to give.
    let wanted: Vec<Vec<Plane>> = (0..2)
        .map(|s| {
            let request = Request {
                stream: streams[s],
                frames: (0..8).map(|i| of(s, i)).collect(),
                outputs: (0..8).collect(),
                want: Want::Probabilities,
                prompt: Prompt::default(),
                step: None,
            };
            model.segment(&[request], None).remove(0).unwrap().planes
        })
        .collect();
    let near = |plane: &Plane, wanted: &Plane, what: &str| {
        let worst = probabilities(plane)
            .iter()
            .zip(probabilities(wanted))
            .fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(worst < 2e-5, "{what}: {worst}");
    };
    let mut kept: Option<StateSnapshot> = None;
    for (i, both) in wanted[0].iter().zip(&wanted[1]).enumerate() {
        let both = [both.0, both.1];
        if i == 5 {
            kept = model.snapshot(streams[0]);
        }
        // Sometimes both in one batch, sometimes one after the other, in either order.
        let order = if i % 3 == 2 { [1, 0] } else { [0, 1] };
        let given = order.map(|s| step(streams[s], of(s, i)));
        let planes: Vec<Plane> = if i % 2 == 0 {
            model.step(&given, None).into_iter().map(Result::unwrap).collect()
        } else {
            let one = |g: &Step| model.step(std::slice::from_ref(g), None).remove(0).unwrap();
            given.iter().map(one).collect()
        };
        for (s, plane) in order.into_iter().zip(&planes) {
            near(plane, both[s], &format!("stream {s}, frame {i}"));
        }
    }
    // Put back, it goes on from frame 5; in another model of the same kind too.
    let mut other = segmenter(&config, Preprocessing::live());
    other.restore(StreamId(1), &kept.unwrap()).unwrap();
    let again = other
        .step(&[step(StreamId(1), of(0, 5))], None)
        .remove(0)
        .unwrap();
    near(&again, &wanted[0][5], "restored");
    // Without its past it gives something else.
    let cold = other
        .step(&[step(StreamId(2), of(0, 5))], None)
        .remove(0)
        .unwrap();
    let differ = probabilities(&cold)
        .iter()
        .zip(probabilities(&wanted[0][5]))
        .fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(differ > 1e-3, "the past makes a difference of {differ} only");
    // Forgotten, it begins anew.
    model.reset(streams[0]);
    assert!(model.snapshot(streams[0]).is_none());
    let first = model.step(&[step(streams[0], of(0, 0))], None).remove(0).unwrap();
    near(&first, &wanted[0][0], "reset");
}

#[test]
fn a_sequence_in_steps_equals_one_causal_pass_per_phase() {
    let config = config(Adapters::Both);
    let stride = 3;
    let frames: Vec<ModelFrame> = (0..11).map(frame).collect();
    let mut plain = segmenter(&config, Preprocessing::live());
    // Every third frame is a clip of its own.
    let mut wanted: Vec<Option<Plane>> = vec![None; frames.len()];
    for phase in 0..stride {
        let of_phase: Vec<usize> = (phase..frames.len()).step_by(stride).collect();
        let request = Request {
            stream: StreamId(1),
            frames: of_phase.iter().map(|&i| frames[i].clone()).collect(),
            outputs: (0..of_phase.len()).collect(),
            want: Want::Labels,
            prompt: Prompt::default(),
            step: None,
        };
        let planes = plain.segment(&[request], None).remove(0).unwrap().planes;
        of_phase
            .into_iter()
            .zip(planes)
            .for_each(|(i, plane)| wanted[i] = Some(plane));
    }
    let worker = WorkerConfig {
        name: "steps".into(),
        clock: Arc::new(|| 0),
        priority: Priority::Normal,
    };
    let open = move || -> masam::Result<Box<dyn Segmenter>> {
        Ok(Box::new(segmenter(&config, Preprocessing::live())))
    };
    let window = Window {
        clip_frames: 5,
        emit: Emit::Step,
        hop_frames: 1,
        stride_frames: stride,
    };
    let mut offline = Offline::new(Worker::spawn(worker, Arc::new(open)).unwrap(), window).unwrap();
    // Twice: the second time nothing of the first may be left.
    for round in 0..2 {
        offline.begin();
        frames.iter().for_each(|frame| offline.push(frame.clone()));
        offline.finish();
        for (i, wanted) in wanted.iter().enumerate() {
            let mask = loop {
                match offline.next(Duration::from_secs(10)) {
                    Next::Mask(mask) => break mask,
                    Next::TimedOut => (),
                    other => panic!("round {round}, frame {i}: {other:?}"),
                }
            };
            let Some(Plane::Labels(wanted)) = wanted else {
                panic!("labels")
            };
            let differ = mask.labels.iter().zip(wanted).filter(|(a, b)| a != b).count();
            // Sums in another order may turn a pixel between two classes that are as good as equal.
            assert!(
                differ * 1000 <= wanted.len(),
                "round {round}, frame {i}: {differ} pixels differ"
            );
        }
    }
}

#[test]
fn what_cannot_be_stepped_says_why() {
    let says = |config: &ModelConfig, preprocessing, part: &str| {
        let mut model = segmenter(config, preprocessing);
        let found = model.step(&[step(StreamId(1), frame(1))], None).remove(0);
        assert!(
            matches!(&found, Err(SegmentError::Unsupported(why)) if why.contains(part)),
            "{found:?}"
        );
    };
    let causal = config(Adapters::Both);
    let centered = ModelConfig {
        temporal: Temporal::Centered,
        ..causal.clone()
    };
    says(&centered, Preprocessing::live(), "centered");
    says(&causal, Preprocessing::reference(), "range");
    let mut model = segmenter(&causal, Preprocessing::live());
    let twice = [step(StreamId(1), frame(1)), step(StreamId(1), frame(2))];
    assert!(matches!(
        model.step(&twice, None)[..],
        [Ok(_), Err(SegmentError::Request(_))]
    ));
    let short = ModelFrame {
        rgb: [0u8; 3].as_slice().into(),
    };
    assert!(matches!(
        model.step(&[step(StreamId(1), short)], None)[..],
        [Err(SegmentError::Request(_))]
    ));
    // A stream's bad frame is its own.
    let short = ModelFrame {
        rgb: [0u8; 3].as_slice().into(),
    };
    let mixed = model.step(&[step(StreamId(4), short), step(StreamId(5), frame(1))], None);
    assert!(matches!(mixed[..], [Err(SegmentError::Request(_)), Ok(_)]));
    let past = std::time::Instant::now();
    let late = model.step(&[step(StreamId(1), frame(1))], Some(past));
    assert_eq!(late, [Err(SegmentError::Late)]);
    assert!(model.step(&[], None).is_empty());
    model
        .step(&[step(StreamId(1), frame(1))], None)
        .remove(0)
        .unwrap();
    let bytes = model.snapshot(StreamId(1)).unwrap().bytes;
    let broken = |bytes: &[u8]| StateSnapshot { bytes: bytes.into() };
    assert!(
        model
            .restore(StreamId(2), &broken(&bytes[..bytes.len() - 4]))
            .is_err()
    );
    let mut poisoned = bytes.to_vec();
    poisoned[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(model.restore(StreamId(2), &broken(&poisoned)).is_err());
    assert!(model.snapshot(StreamId(2)).is_none());
}
