//! From the original software's two files to a model file and back, and that the weights are the same ones.

use candle_core::{DType, Device, Tensor};
use masam::checkpoint::model_file::Storage;
use masam::checkpoint::{ModelCard, ModelFile, Preprocessing, Weights, adopt, names, pth, source};
use masam::golden::{FIXTURES, GoldenFile};
use masam::model::weights::uniform;
use masam::model::{Decoder, FactMode, FormulaWeights, MaSam, ModelConfig, Prompts};
use std::path::Path;

fn formula(config: &ModelConfig, keep: fn(&str) -> bool) -> Weights {
    let mut weights = Weights::default();
    for spec in config.weights().into_iter().filter(|s| keep(&s.name)) {
        let values = FormulaWeights::values(&spec.name, &spec.shape);
        weights.insert(
            spec.name,
            Tensor::from_vec(values, spec.shape, &Device::Cpu).unwrap(),
        );
    }
    weights
}

/// Writes the pair of files a user of the original software has: SAM's release of side `sam_side`, and MA-SAM's.
fn write_pair(folder: &Path, config: &ModelConfig, sam_side: usize) {
    let release = ModelConfig {
        image_side_px: sam_side,
        decoder: Decoder::Sam,
        classes: 4,
        ..config.clone()
    };
    let (sam, masam) = (
        formula(&release, names::is_sam),
        formula(config, names::is_in_masam_file),
    );
    pth::write(&folder.join("sam.pth"), sam.iter()).unwrap();
    let keyed: Vec<(String, &Tensor)> = masam
        .iter()
        .map(|(name, tensor)| (names::masam_key(name).unwrap(), tensor))
        .collect();
    pth::write(
        &folder.join("epoch_1.pth"),
        keyed.iter().map(|(key, tensor)| (key, *tensor)),
    )
    .unwrap();
}

fn logits(config: &ModelConfig, file: ModelFile) -> Vec<f32> {
    let model = MaSam::new(
        config,
        FactMode::Folded,
        file.weights.builder(DType::F32, &Device::Cpu),
    )
    .unwrap();
    let side = config.image_side_px;
    let clip: Vec<f32> = uniform("clip", 2 * 3 * side * side)
        .map(|u| ((u + 1.0) / 2.0) as f32)
        .collect();
    let clip = Tensor::from_vec(clip, (1, 2, 3, side, side), &Device::Cpu).unwrap();
    let output = model.forward(&clip, &Prompts::default()).unwrap();
    output.logits.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn a_resized_release_gives_the_reference_logits_through_files() {
    let fixture = FIXTURES.iter().find(|f| f.name == "sam_resized").unwrap();
    let golden = GoldenFile::from_bytes(fixture.name, fixture.bytes.to_vec()).unwrap();
    let config = golden.config().unwrap();
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path(), &config, golden.number("sam_size").unwrap());

    let sam = source::read(&folder.path().join("sam.pth")).unwrap();
    let masam = source::read(&folder.path().join("epoch_1.pth")).unwrap();
    let inferred = adopt::infer_config(&sam, Some(&masam), config.image_side_px).unwrap();
    let expected = ModelConfig {
        name: "custom".into(),
        decoder_heads: 8,
        ..config.clone()
    };
    assert_eq!(inferred, expected, "all that shapes can tell");

    let adopted = adopt::combine(&config, Some(&sam), Some(&masam)).unwrap();
    assert!(
        adopted.resized.iter().any(|line| line.contains("pos_embed")),
        "{:?}",
        adopted.resized
    );
    let card = ModelCard::new(config.clone(), Preprocessing::reference()).unwrap();
    let path = folder.path().join("model.safetensors");
    ModelFile {
        card,
        weights: adopted.weights,
    }
    .write(&path, Storage::F32)
    .unwrap();
    let got = logits(&config, ModelFile::read(&path).unwrap());

    // The file's logits are every fourth of both axes, from the second.
    let (shape, wanted) = golden.floats("logits").unwrap();
    let (side, largest) = (
        config.image_side_px,
        wanted.iter().fold(0f32, |m, v| m.max(v.abs())),
    );
    for (i, wanted) in wanted.iter().enumerate() {
        let (plane, y, x) = (i / (shape[2] * shape[3]), i / shape[3] % shape[2], i % shape[3]);
        let own = got[(plane * side + 2 + 4 * y) * side + 2 + 4 * x];
        assert!((own - wanted).abs() <= 5e-5 * largest, "{i}: {own} {wanted}");
    }
}

#[test]
fn original_names_come_back_bit_for_bit() {
    let config = ModelConfig {
        image_side_px: 64,
        encoder_depth: 2,
        global_blocks: vec![1],
        ..ModelConfig::demo()
    };
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path(), &config, 64);
    let (first, second) = (folder.path().join("sam.pth"), folder.path().join("epoch_1.pth"));
    let masam = source::read(&second).unwrap();
    let adopted = adopt::combine(&config, Some(&source::read(&first).unwrap()), Some(&masam)).unwrap();
    let again = folder.path().join("again.pth");
    let keyed: Vec<(String, &Tensor)> = adopted
        .weights
        .iter()
        .filter_map(|(name, tensor)| names::masam_key(name).map(|key| (key, tensor)))
        .collect();
    pth::write(&again, keyed.iter().map(|(key, tensor)| (key, *tensor))).unwrap();
    let (a, b) = (
        pth::PthFile::open(&second).unwrap(),
        pth::PthFile::open(&again).unwrap(),
    );
    assert_eq!(
        a.tensors().keys().collect::<Vec<_>>(),
        b.tensors().keys().collect::<Vec<_>>()
    );
    for key in a.tensors().keys() {
        let values = |file: &pth::PthFile| {
            file.read(key)
                .unwrap()
                .flatten_all()
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()
        };
        assert_eq!(values(&a), values(&b), "{key}");
    }
}

#[test]
fn a_checkpoint_of_another_model_is_refused_with_all_that_differs() {
    let config = ModelConfig {
        image_side_px: 64,
        encoder_depth: 2,
        global_blocks: vec![1],
        ..ModelConfig::demo()
    };
    let sam = formula(&config, names::is_sam);
    let other = ModelConfig {
        classes: 5,
        adapter_width: 8,
        ..config.clone()
    };
    let masam = formula(&other, names::is_in_masam_file);
    let text = adopt::combine(&config, Some(&sam), Some(&masam))
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("missing") && text.contains("output_hypernetworks_mlps.5"),
        "{text}"
    );
    assert!(
        text.contains("misshapen") && text.contains("adapter_conv.bias ([8] in the file, [64]"),
        "{text}"
    );
    let text = adopt::combine(&config, Some(&sam), None).unwrap_err().to_string();
    assert!(text.contains("adapter_conv.bias"), "{text}");

    let mut poisoned = formula(&config, names::is_in_masam_file);
    let nan = Tensor::new(&[f32::NAN], &Device::Cpu)
        .unwrap()
        .broadcast_as(config.prompt_width)
        .unwrap();
    poisoned.insert(
        "mask_decoder.transformer.norm_final_attn.bias",
        nan.contiguous().unwrap(),
    );
    let text = adopt::combine(&config, Some(&sam), Some(&poisoned))
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("norm_final_attn.bias") && text.contains("NaN"),
        "{text}"
    );
}

#[test]
fn inference_of_a_configuration_does_not_trust_shapes() {
    let config = ModelConfig {
        image_side_px: 64,
        encoder_depth: 2,
        global_blocks: vec![1],
        ..ModelConfig::demo()
    };
    let (sam, masam) = (
        formula(&config, names::is_sam),
        formula(&config, names::is_in_masam_file),
    );
    for name in [
        "image_encoder.pos_embed",
        "image_encoder.blocks.0.attn.rel_pos_h",
        "mask_decoder.mask_tokens.weight",
    ] {
        let (mut sam, mut masam) = (sam.clone(), masam.clone());
        sam.remove(name);
        masam.remove(name);
        let text = adopt::infer_config(&sam, Some(&masam), 64)
            .unwrap_err()
            .to_string();
        assert!(text.contains(name), "{text}");
        let odd = Tensor::zeros((0, 0), DType::F32, &Device::Cpu).unwrap();
        sam.insert(name, odd.clone());
        masam.insert(name, odd);
        // Whatever comes out of shapes like these, it must not be a panic, and never a valid model.
        assert!(
            adopt::infer_config(&sam, Some(&masam), 64)
                .and_then(|c| c.validate())
                .is_err(),
            "{name}"
        );
    }
}

#[test]
fn tensors_without_elements_and_integers_are_no_weights() {
    let config = ModelConfig {
        image_side_px: 64,
        encoder_depth: 2,
        global_blocks: vec![1],
        ..ModelConfig::demo()
    };
    let (sam, masam) = (
        formula(&config, names::is_sam),
        formula(&config, names::is_in_masam_file),
    );
    for (name, shape) in [
        ("image_encoder.pos_embed", vec![1, 0, 8, config.encoder_width]),
        ("image_encoder.pos_embed", vec![1, 8, 0, config.encoder_width]),
        (
            "image_encoder.blocks.1.attn.rel_pos_h",
            vec![0, config.head_width()],
        ),
        (
            "image_encoder.blocks.0.attn.rel_pos_w",
            vec![0, config.head_width()],
        ),
    ] {
        let (mut sam, mut both) = (sam.clone(), formula(&config, |_| true));
        sam.insert(name, Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap());
        both.remove(name);
        for text in [
            adopt::combine(&config, Some(&sam), Some(&masam)).map(|_| ()),
            adopt::on_top(&config, &sam, both).map(|_| ()),
        ]
        .map(|outcome| outcome.unwrap_err().to_string())
        {
            assert!(
                text.contains(name) && text.contains("holds no elements"),
                "{text}"
            );
        }
    }
    let mut empty = sam.clone();
    let name = "image_encoder.blocks.1.attn.rel_pos_h";
    empty.insert(name, Tensor::zeros((0, 64), DType::F32, &Device::Cpu).unwrap());
    let text = adopt::infer_config(&empty, Some(&masam), 64)
        .unwrap_err()
        .to_string();
    assert!(
        text.contains(name) && text.contains("holds no elements"),
        "{text}"
    );

    for (name, dtype) in [
        ("image_encoder.neck.1.bias", DType::I64),
        ("image_encoder.pos_embed", DType::U8),
    ] {
        let mut sam = sam.clone();
        let whole = sam.get(name).unwrap().to_dtype(dtype).unwrap();
        sam.insert(name, whole);
        let text = adopt::combine(&config, Some(&sam), Some(&masam))
            .unwrap_err()
            .to_string();
        assert!(text.contains(name) && text.contains("not floats"), "{text}");
    }
}
