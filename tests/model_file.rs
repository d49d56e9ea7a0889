//! Model files that are damaged, hostile or simply not ours: each gives an error that names file and cause.

use candle_core::{Device, Tensor};
use masam::checkpoint::model_file::Storage;
use masam::checkpoint::{ModelCard, ModelFile, Preprocessing, Weights};
use masam::model::{FormulaWeights, ModelConfig};
use std::path::{Path, PathBuf};

/// Small enough to be written and read hundreds of times.
fn tiny() -> ModelConfig {
    ModelConfig {
        name: "tiny".into(),
        image_side_px: 32,
        encoder_width: 8,
        encoder_depth: 2,
        encoder_heads: 2,
        global_blocks: vec![1],
        partition_side: 2,
        mlp_ratio: 1,
        adapter_width: 4,
        fact_rank: 2,
        prompt_width: 32,
        decoder_depth: 1,
        decoder_heads: 2,
        decoder_mlp_width: 8,
        ..ModelConfig::vit_b()
    }
}

fn model() -> ModelFile {
    let config = tiny();
    let mut weights = Weights::default();
    for spec in config.weights() {
        let values = FormulaWeights::values(&spec.name, &spec.shape);
        weights.insert(
            spec.name,
            Tensor::from_vec(values, spec.shape, &Device::Cpu).unwrap(),
        );
    }
    ModelFile {
        card: ModelCard::new(config, Preprocessing::live()).unwrap(),
        weights,
    }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A good file and its bytes.
    fn good(&self) -> (PathBuf, Vec<u8>) {
        let path = self.path("good.safetensors");
        model().write(&path, Storage::F32).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        (path, bytes)
    }

    fn error(&self, bytes: &[u8]) -> String {
        let path = self.path("bad.safetensors");
        std::fs::write(&path, bytes).unwrap();
        error_of(&path)
    }
}

fn error_of(path: &Path) -> String {
    let text = ModelFile::read(path)
        .map(|_| ())
        .expect_err("the file has to be refused")
        .to_string();
    assert!(
        text.contains(&*path.file_name().unwrap().to_string_lossy()),
        "the file is not named: {text}"
    );
    text
}

/// Replaces the JSON header of a safetensors file; offsets stay as they are.
fn with_header(bytes: &[u8], edit: impl Fn(&mut serde_json::Value)) -> Vec<u8> {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    edit(&mut header);
    let text = serde_json::to_vec(&header).unwrap();
    [
        &(text.len() as u64).to_le_bytes(),
        text.as_slice(),
        &bytes[8 + length..],
    ]
    .concat()
}

/// Edits the card inside the header.
fn with_card(bytes: &[u8], edit: impl Fn(&mut serde_json::Value)) -> Vec<u8> {
    with_header(bytes, |header| {
        let text = header["__metadata__"]["masam"].as_str().unwrap();
        let mut card: serde_json::Value = serde_json::from_str(text).unwrap();
        edit(&mut card);
        header["__metadata__"]["masam"] = card.to_string().into();
    })
}

#[test]
fn a_model_survives_the_round_trip_bit_for_bit() {
    let folder = Folder::new();
    let (path, _) = folder.good();
    let (wrote, read) = (model(), ModelFile::read(&path).unwrap());
    assert_eq!(read.card, wrote.card);
    assert_eq!(read.weights.len(), wrote.weights.len());
    for ((name, a), (_, b)) in wrote.weights.iter().zip(read.weights.iter()) {
        let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(a), values(b), "{name}");
    }
    let half = folder.path("half.safetensors");
    wrote.write(&half, Storage::F16).unwrap();
    let (small, large) = (
        std::fs::metadata(&half).unwrap().len(),
        std::fs::metadata(&path).unwrap().len(),
    );
    assert!(small < large * 2 / 3, "{small} {large}");
    ModelFile::read(&half).unwrap();
    // The same model is the same bytes, whatever order a map of the writer had by chance.
    let bytes = std::fs::read(&half).unwrap();
    for again in 0..8 {
        wrote.write(&half, Storage::F16).unwrap();
        assert!(std::fs::read(&half).unwrap() == bytes, "writing {again} differs");
    }
}

#[test]
fn every_truncation_is_refused() {
    let folder = Folder::new();
    let (_, bytes) = folder.good();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for length in [
        0,
        1,
        7,
        8,
        9,
        header,
        8 + header - 1,
        8 + header,
        8 + header + 1,
        bytes.len() / 2,
        bytes.len() - 1,
    ] {
        folder.error(&bytes[..length]);
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(folder.error(&longer).contains("truncated or padded"));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let folder = Folder::new();
    let (_, bytes) = folder.good();
    // All of the length and a sample of the rest, by a fixed stride that meets every byte position modulo 4.
    let sample = (0..64).chain((64..bytes.len() * 8).step_by(997));
    for bit in sample {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        // serde_json reads some whitespace and escapes alike; what it reads must then be what was written.
        let path = folder.path("flipped.safetensors");
        std::fs::write(&path, &bad).unwrap();
        if let Ok(read) = ModelFile::read(&path) {
            assert_eq!(read.card, model().card, "bit {bit} changed the model unnoticed");
        }
    }
}

#[test]
fn a_header_of_two_to_the_63_takes_no_memory() {
    let folder = Folder::new();
    for length in [1u64 << 63, u64::MAX, 1 << 40, 100_000_001] {
        let text = folder.error(&[&length.to_le_bytes()[..], b"{}"].concat());
        assert!(
            text.contains("neither a file of torch.save nor safetensors"),
            "{text}"
        );
    }
}

#[test]
fn misfits_are_listed_all_at_once() {
    let folder = Folder::new();
    let path = folder.path("model.safetensors");
    let mut file = model();
    file.weights.remove("image_encoder.neck.0.weight");
    file.weights
        .insert("surplus", Tensor::new(&[1f32], &Device::Cpu).unwrap());
    let wide = Tensor::zeros((7, 8), candle_core::DType::F32, &Device::Cpu).unwrap();
    file.weights
        .insert("image_encoder.blocks.0.attn.proj.weight", wide);
    let text = file.write(&path, Storage::F32).unwrap_err().to_string();
    for part in [
        "1 missing: image_encoder.neck.0.weight",
        "1 extra: surplus",
        "blocks.0.attn.proj.weight ([7, 8]",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!path.exists(), "nothing is written");

    let (_, bytes) = folder.good();
    let renamed = with_header(&bytes, |header| {
        let tensors = header.as_object_mut().unwrap();
        let moved = tensors.remove("mask_decoder.iou_token.weight").unwrap();
        tensors.insert("mask_decoder.iou_taken.weight".into(), moved);
        let shape = &mut tensors["mask_decoder.mask_tokens.weight"]["shape"];
        *shape = serde_json::json!([32, 12]);
    });
    let text = folder.error(&renamed);
    for part in [
        "missing: mask_decoder.iou_token.weight",
        "extra: mask_decoder.iou_taken.weight",
        "[32, 12]",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn lying_offsets_and_shapes_are_refused() {
    let folder = Folder::new();
    let (_, bytes) = folder.good();
    let name = "mask_decoder.iou_token.weight";
    for (field, value) in [
        ("shape", serde_json::json!([u64::MAX, 8])),
        (
            "shape",
            serde_json::json!([4_294_967_296u64, 4_294_967_296u64, 4_294_967_296u64]),
        ),
        ("data_offsets", serde_json::json!([0, u64::MAX])),
        ("data_offsets", serde_json::json!([4, 0])),
        ("dtype", serde_json::json!("F64")),
        ("dtype", serde_json::json!("F99")),
    ] {
        folder.error(&with_header(&bytes, |header| header[name][field] = value.clone()));
    }
}

#[test]
fn values_that_are_not_finite_are_named() {
    let folder = Folder::new();
    let path = folder.path("model.safetensors");
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut file = model();
        let name = "image_encoder.neck.1.bias";
        let mut values = vec![0f32; 32];
        values[5] = value;
        file.weights
            .insert(name, Tensor::from_vec(values, 32, &Device::Cpu).unwrap());
        let text = file.write(&path, Storage::F32).unwrap_err().to_string();
        assert!(text.contains(name) && text.contains("element 5"), "{text}");
    }
    // The same in a file that somebody else wrote.
    let (_, mut bytes) = folder.good();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    let text = folder.error(&bytes);
    assert!(text.contains("NaN") && text.contains("tensor"), "{text}");
}

#[test]
fn classes_have_to_fit_the_model_and_the_palette() {
    let folder = Folder::new();
    let (_, bytes) = folder.good();
    let text = folder.error(&with_card(&bytes, |card| {
        card["classes"].as_array_mut().unwrap().pop();
    }));
    assert!(
        text.contains("class names and colours is 11") && text.contains("12 output channels"),
        "{text}"
    );
    let text = folder.error(&with_card(&bytes, |card| {
        card["classes"][3]["name"] = "thread".into()
    }));
    assert!(text.contains("classes[6].name"), "{text}");
    let text = folder.error(&with_card(&bytes, |card| card["model"]["classes"] = 300.into()));
    assert!(text.contains("classes is 300"), "{text}");
    let text = folder.error(&with_card(&bytes, |card| {
        card["classes"][0]["color"] = serde_json::json!([0, 0, 256])
    }));
    assert!(text.contains("256"), "{text}");
}

#[test]
fn cards_are_checked_field_by_field() {
    let folder = Folder::new();
    let (_, bytes) = folder.good();
    for (field, value, part) in [
        ("image_side_px", serde_json::json!(40), "image_side_px is 40"),
        ("image_side_px", serde_json::json!(u64::MAX), "image_side_px"),
        ("patch_side_px", serde_json::json!(0), "patch_side_px is 0"),
        ("encoder_heads", serde_json::json!(0), "encoder_heads is 0"),
        ("global_blocks", serde_json::json!([9]), "global_blocks"),
        ("decoder", serde_json::json!("none"), "multi-scale"),
        ("encoder_width", serde_json::json!("wide"), "wide"),
        ("unknown", serde_json::json!(1), "unknown"),
    ] {
        let text = folder.error(&with_card(&bytes, |card| card["model"][field] = value.clone()));
        assert!(text.contains(part), "{field}: {text}");
    }
    let text = folder.error(&with_card(&bytes, |card| card["format"] = 2.into()));
    assert!(text.contains("format is 2"), "{text}");
    let text = folder.error(&with_card(&bytes, |card| card["model"]["name"] = "other".into()));
    assert!(text.contains("checksum"), "{text}");
    let text = folder.error(&with_header(&bytes, |header| {
        header["__metadata__"]
            .as_object_mut()
            .unwrap()
            .remove("masam_sha256");
    }));
    assert!(text.contains("masam_sha256"), "{text}");
}

#[test]
fn files_of_another_kind_say_so() {
    let folder = Folder::new();
    assert!(folder.error(b"").contains("the file is empty"));
    assert!(
        folder
            .error(b"this is some text, not a model")
            .contains("neither a file of torch.save nor safetensors")
    );
    let (_, bytes) = folder.good();
    let foreign = with_header(&bytes, |header| {
        header.as_object_mut().unwrap().remove("__metadata__");
    });
    assert!(folder.error(&foreign).contains("masam convert"));
    let absent = folder.path("absent.safetensors");
    assert!(error_of(&absent).contains("No such file"));
    let directory = folder.path("directory.safetensors");
    std::fs::create_dir(&directory).unwrap();
    error_of(&directory);
}

#[test]
fn a_side_that_the_patch_does_not_divide_is_refused_before_weights_are_built() {
    let config = ModelConfig {
        image_side_px: 500,
        ..ModelConfig::vit_h()
    };
    let weights = FormulaWeights::builder(candle_core::DType::F32, &Device::Cpu);
    let text = masam::model::MaSam::new(&config, masam::model::FactMode::Folded, weights)
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("image_side_px is 500") && text.contains("patch_side_px, 16"),
        "{text}"
    );
}
