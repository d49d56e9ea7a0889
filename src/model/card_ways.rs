//! The ways through the model that only a card takes, with the CPU passing for one: shapes, stacked weights and packed
//! biases, against the ways that the reference tensors hold.

use super::{Adapters, CausalState, Decoder, FactMode, FormulaWeights, MaSam, ModelConfig, Prompts};
use crate::golden::{self, FIXTURES, GoldenFile, Kind, Setting};
use crate::kernels::pretended_card;
use crate::model::weights::uniform;
use crate::segmenter::Temporal;
use candle_core::{DType, Device, Tensor};

fn tiny() -> ModelConfig {
    ModelConfig {
        image_side_px: 112,
        encoder_width: 32,
        encoder_depth: 3,
        encoder_heads: 2,
        global_blocks: vec![1],
        partition_side: 3,
        adapter_width: 12,
        fact_rank: 4,
        prompt_width: 64,
        decoder_heads: 4,
        decoder_mlp_width: 64,
        classes: 5,
        ..ModelConfig::vit_b()
    }
}

fn model(config: &ModelConfig) -> MaSam {
    let weights = FormulaWeights::builder(DType::F32, &Device::Cpu);
    MaSam::new(config, FactMode::Folded, weights).unwrap()
}

fn clip(config: &ModelConfig, frames: usize) -> Tensor {
    let side = config.image_side_px;
    let values: Vec<f32> = uniform("clip", 2 * frames * 3 * side * side)
        .map(|u| ((u + 1.0) / 2.0) as f32)
        .collect();
    Tensor::from_vec(values, (2, frames, 3, side, side), &Device::Cpu).unwrap()
}

fn apart(a: &Tensor, b: &Tensor) -> f32 {
    let largest = |t: &Tensor| t.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    largest(&(a - b).unwrap()) / largest(b)
}

#[test]
fn reference_tensors_are_met() {
    let setting = Setting {
        engine: crate::golden::Engine::Plain,
        device: Device::Cpu,
        precision: DType::F32,
    };
    let mut checked = 0;
    for fixture in FIXTURES {
        let file = GoldenFile::from_bytes(fixture.name, fixture.bytes.to_vec()).unwrap();
        if file.kind() == Kind::Forward {
            let check = pretended_card::during(|| golden::run(&file, &setting))
                .unwrap()
                .unwrap();
            assert!(check.passed(), "{check}");
            checked += 1;
        }
    }
    assert!(checked > 5, "{checked}");
}

#[test]
fn labels_are_the_classes_of_the_largest_logits() {
    for (decoder, adapters) in [
        (Decoder::Progressive, Adapters::Both),
        (Decoder::Sam, Adapters::Before),
        (Decoder::MultiScale, Adapters::None),
    ] {
        let config = ModelConfig {
            decoder,
            adapters,
            ..tiny()
        };
        let (clip, prompts) = (clip(&config, 2), Prompts::default());
        let logits = model(&config).forward(&clip, &prompts).unwrap().logits;
        let bytes = pretended_card::during(|| {
            let model = model(&config);
            let features = model.encode(&clip, &mut |_, _| {}).unwrap();
            let logits_too = model.decode(&features, &prompts).unwrap().logits;
            let far = apart(&logits_too, &logits);
            // As near as float32 is to the reference tensors: how sums are split up differs between machines.
            assert!(far < 5e-5, "{:?}: {far}", config.decoder);
            model.labels(&features, &prompts).unwrap()
        });
        let side = config.image_side_px;
        assert_eq!(bytes.dims(), [4, side * side + 1]);
        let wanted = logits.argmax(1).unwrap().flatten_from(1).unwrap();
        let same = bytes
            .narrow(1, 0, side * side)
            .unwrap()
            .to_dtype(DType::U32)
            .unwrap()
            .eq(&wanted)
            .unwrap();
        let same = same
            .to_dtype(DType::F32)
            .unwrap()
            .mean_all()
            .unwrap()
            .to_scalar::<f32>()
            .unwrap();
        assert!(same > 0.9999, "{decoder:?} {same}");
        let flags = bytes.narrow(1, side * side, 1).unwrap().flatten_all().unwrap();
        assert_eq!(flags.to_vec1::<u8>().unwrap(), [0; 4]);
    }
}

#[test]
fn steps_go_the_same_way() {
    let config = ModelConfig {
        temporal: Temporal::Causal,
        ..tiny()
    };
    let clip = clip(&config, 4);
    let wanted = model(&config).encode(&clip, &mut |_, _| {}).unwrap().grid; // [2 * 4, grid, grid, width]
    pretended_card::during(|| {
        let model = model(&config);
        let mut state = CausalState::new(&config, 2, DType::F32, &Device::Cpu).unwrap();
        for frame in 0..4 {
            let frames = clip
                .narrow(1, frame, 1)
                .unwrap()
                .squeeze(1)
                .unwrap()
                .contiguous()
                .unwrap();
            let (features, after) = model.step(&frames, &state).unwrap();
            // Parted and joined again, a state is what it was.
            let parts = [after.stream(0).unwrap(), after.stream(1).unwrap()];
            state = CausalState::join(&[&parts[0], &parts[1]]).unwrap();
            assert_eq!(state.to_bytes().unwrap(), after.to_bytes().unwrap());
            for stream in 0..2 {
                let got = features.grid.get(stream).unwrap();
                let error = apart(&got, &wanted.get(stream * 4 + frame).unwrap());
                assert!(error < 1e-4, "{error}");
            }
        }
    });
}

#[test]
fn narrow_types_go_all_the_way() {
    let config = tiny();
    let clip = clip(&config, 2);
    let side = config.image_side_px as f32;
    let prompts = |dtype: DType| {
        let tensor = |values: &[f32], shape: &[usize]| {
            let tensor = Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
            Some(tensor.to_dtype(dtype).unwrap())
        };
        Prompts {
            boxes: tensor(&[0.2 * side, 0.3 * side, 0.7 * side, 0.8 * side], &[1, 4]),
            points: tensor(&[0.25 * side, 0.5 * side], &[1, 1, 2]),
            point_labels: tensor(&[1.0], &[1, 1]),
            masks: None,
        }
    };
    let wanted = model(&config)
        .forward(&clip, &prompts(DType::F32))
        .unwrap()
        .logits;
    for dtype in [DType::F16, DType::BF16] {
        let weights = FormulaWeights::builder(dtype, &Device::Cpu);
        let model = MaSam::new(&config, FactMode::Folded, weights).unwrap();
        let clip = clip.to_dtype(dtype).unwrap();
        let logits = model.forward(&clip, &prompts(dtype)).unwrap().logits;
        assert_eq!(logits.dtype(), dtype);
        let apart = (logits.to_dtype(DType::F32).unwrap() - &wanted).unwrap();
        let rms = |t: &Tensor| {
            t.sqr()
                .unwrap()
                .mean_all()
                .unwrap()
                .to_scalar::<f32>()
                .unwrap()
                .sqrt()
        };
        let error = rms(&apart) / rms(&wanted);
        assert!(error < 0.1, "{dtype:?} {error}");
    }
}
