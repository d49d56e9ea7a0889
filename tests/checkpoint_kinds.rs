//! Checkpoints as people save them: each is read, or named as what it is with the cure. The files are made by
//! `tests/fixtures/checkpoints/make.py`, with PyTorch.

use candle_core::{DType, Device, Tensor};
use masam::checkpoint::kind::Foreign;
use masam::checkpoint::{Checkpoint, Kind, ModelFile, Selection, pth};
use std::path::{Path, PathBuf};

/// Its weights, as `make.py` has them.
const WEIGHTS: [(&str, [usize; 2]); 3] = [
    ("image_encoder.blocks.0.attn.q_fact.weight", [2, 2]),
    ("image_encoder.fact_u.weight", [2, 3]),
    ("mask_decoder.iou_token.weight", [1, 4]),
];

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/checkpoints")
        .join(name)
}

#[track_caller]
fn assert_weights(path: &Path, selection: &Selection) {
    let checkpoint = Checkpoint::open(path, selection).unwrap();
    assert_eq!(checkpoint.kind(), Kind::Masam, "{}", path.display());
    let (weights, sam) = checkpoint.read().unwrap();
    assert!(sam.is_none());
    let ours = weights
        .iter()
        .filter(|(name, _)| WEIGHTS.iter().any(|(own, _)| own == name));
    let mut read = 0;
    for ((name, tensor), (_, shape)) in ours.zip(WEIGHTS) {
        let values = tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap();
        let ramp: Vec<f32> = (0..shape.iter().product())
            .map(|i| i as f32 * 0.5 - 1.0)
            .collect();
        assert_eq!(tensor.dims(), shape, "{}: {name}", path.display());
        assert_eq!(
            values.to_vec1::<f32>().unwrap(),
            ramp,
            "{}: {name}",
            path.display()
        );
        read += 1;
    }
    assert_eq!(read, WEIGHTS.len(), "{}", path.display());
}

#[test]
fn weights_are_found_in_every_wrapping() {
    for name in [
        "legacy.bin",
        "legacy_protocol_4.ckpt",
        "namespace.pth",
        "namespace_legacy.pth",
        "numpy.pth",
        "path.pth",
        "defaultdict.pth",
        "dict_class.pth",
        "function.pth",
        "random_state.pth",
        "lightning.ckpt",
        "list.pth",
        "whole_module.pth",
        "whole_module_legacy.pth",
        "parameters.pth",
        "double.pth",
        "optimizer.pth",
        "ema.pth",
        "modules_apart.pth",
        "cuda.pth",
        "cuda_legacy.pth",
    ] {
        assert_weights(&fixture(name), &Selection::Usual);
    }
}

#[test]
fn what_cannot_be_read_is_named_with_the_cure() {
    for (name, parts) in [
        ("sparse.pth", &["a sparse tensor", "and 2 more", "to_dense()"][..]),
        ("numpy_weights.pth", &["a NumPy array", "torch.from_numpy"]),
        ("plain_numpy.pth", &["a bare pickle", "a NumPy array"]),
        ("plain_tensors.pth", &["a bare pickle", "torch.save(pickle.load"]),
        (
            "ambiguous.pth",
            &[
                "best_state (3 tensors)",
                "ema_state_dict (3 tensors, averaged)",
                "--key",
            ],
        ),
        (
            "other_module.pth",
            &[
                "object of torch.nn.modules.linear.Linear",
                "weight",
                "state_dict()",
            ],
        ),
    ] {
        let error = Checkpoint::open(&fixture(name), &Selection::Usual)
            .err()
            .unwrap()
            .to_string();
        for part in parts.iter().chain(&[name]) {
            assert!(error.contains(part), "{name}: {error}");
        }
    }
}

#[test]
fn averages_and_keys_are_taken_when_asked_for() {
    let open = |name: &str, selection: &Selection| Checkpoint::open(&fixture(name), selection).unwrap();
    let usual = open("ema.pth", &Selection::Usual);
    assert_eq!(usual.taken(), Some("model"));
    assert_eq!(usual.others()[0].key, "model_ema");
    let averaged = open("ema.pth", &Selection::Ema);
    assert_eq!(averaged.taken(), Some("model_ema"));
    let (weights, _) = averaged.read().unwrap();
    for (name, _) in WEIGHTS {
        let sum = weights.get(name).unwrap().sum_all().unwrap();
        assert_eq!(sum.to_vec0::<f32>().unwrap(), 0.0);
    }
    assert_weights(&fixture("ambiguous.pth"), &Selection::Key("best_state".into()));
    // One object under two keys is under both.
    let same = fixture("ambiguous_same.pth");
    let error = Checkpoint::open(&same, &Selection::Usual)
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("best_state (3") && error.contains("ema_state_dict (3"),
        "{error}"
    );
    assert_weights(&same, &Selection::Key("best_state".into()));
    assert_weights(&same, &Selection::Ema);
    let none = Checkpoint::open(&fixture("list.pth"), &Selection::Ema);
    assert!(none.err().unwrap().to_string().contains("no averaged"));
}

/// The name of a file counts for nothing, in either direction; prefixes of any chain are taken off in both formats.
#[test]
fn formats_are_told_by_content() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["a.safetensors", "b.bin", "c.ckpt", "no_suffix", "e.onnx"];
    for name in names {
        let path = folder.path().join(name);
        std::fs::copy(fixture("legacy.bin"), &path).unwrap();
        assert_weights(&path, &Selection::Usual);
        std::fs::copy(fixture("cuda.pth"), &path).unwrap();
        assert_weights(&path, &Selection::Usual);
    }
    let tensors: Vec<(String, Tensor)> = [
        "image_encoder._orig_mod.FacTu.weight",
        "q_FacTs_000",
        "mask_decoder.module.iou_token.weight",
    ]
    .into_iter()
    .zip([[2, 3], [2, 2], [1, 4]])
    .map(|(name, shape)| {
        let ramp = Tensor::arange(0f32, (shape[0] * shape[1]) as f32, &Device::Cpu).unwrap();
        let ramp = (ramp.affine(0.5, -1.0)).unwrap().reshape(&shape[..]).unwrap();
        (format!("model.net.student.module.{name}"), ramp)
    })
    .collect();
    let path = folder.path().join("flat.pth");
    pth::write(&path, tensors.iter().map(|(name, tensor)| (name, tensor))).unwrap();
    assert_weights(&path, &Selection::Usual);
    let map: std::collections::HashMap<String, Tensor> = tensors.into_iter().collect();
    candle_core::safetensors::save(&map, &path).unwrap();
    assert_weights(&path, &Selection::Usual);
}

#[test]
fn cut_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut");
    for name in ["legacy.bin", "cuda.pth", "namespace_legacy.pth"] {
        let whole = std::fs::read(fixture(name)).unwrap();
        for len in (0..whole.len()).step_by(7) {
            std::fs::write(&path, &whole[..len]).unwrap();
            let error = Checkpoint::open(&path, &Selection::Usual)
                .err()
                .unwrap_or_else(|| panic!("{name} of {len} bytes is read"));
            assert!(error.to_string().contains("cut: "), "{error}");
        }
        let half = &whole[..whole.len() - 9];
        std::fs::write(&path, half).unwrap();
        let error = Checkpoint::open(&path, &Selection::Usual)
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("cut short") && error.contains("download"),
            "{name}: {error}"
        );
    }
}

/// A file of tensors of these names, of no meaning.
fn write(path: &Path, names: &[&str]) {
    let tensor = Tensor::zeros((4, 3), DType::F32, &Device::Cpu).unwrap();
    pth::write(path, names.iter().map(|name| (name, &tensor))).unwrap();
}

#[test]
fn foreign_models_are_named_with_what_to_bring() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("foreign.pth");
    let decoder = "mask_decoder.iou_token.weight";
    let patch = "image_encoder.patch_embed.proj.weight";
    let block = "image_encoder.blocks.0.attn.qkv.weight";
    for (names, kind, said) in [
        (
            &["image_encoder.trunk.blocks.0.x", "memory_attention.norm.weight"][..],
            Foreign::Sam2,
            "SAM 2",
        ),
        (&["sam_mask_decoder.x", "obj_ptr_proj.x"], Foreign::Sam2, "SAM 2"),
        (
            &["vision_encoder.layers.0.attn.qkv.weight", decoder],
            Foreign::Transformers,
            "Hugging Face",
        ),
        (&["w_a_000", "w_b_000", decoder], Foreign::Samed, "SAMed"),
        (&["base_model.model.x.lora_A.weight"], Foreign::Lora, "LoRA"),
        (
            &["image_encoder.patch_embed.seq.0.c.weight", decoder],
            Foreign::TinyVit,
            "LiteMedSAM",
        ),
        (
            &[
                patch,
                block,
                decoder,
                "image_encoder.blocks.0.Adapter.channel.0.weight",
            ],
            Foreign::OtherAdapters,
            "SAM-Med2D",
        ),
        (&[patch, block], Foreign::EncoderAlone, "encoder alone"),
        (
            &["patch_embed.proj.weight", "blocks.0.attn.qkv.weight"],
            Foreign::EncoderAlone,
            "encoder alone",
        ),
        (&[decoder], Foreign::OtherEncoder, "a part of a SAM"),
        (&["layer1.0.conv1.weight"], Foreign::Other, "another model"),
    ] {
        write(&path, names);
        let found = Checkpoint::open(&path, &Selection::Usual).unwrap().kind();
        assert_eq!(found, Kind::Foreign(kind), "{names:?}");
        assert!(found.to_string().contains(said), "{found}");
        assert!(found.cure().contains("sam_vit_b_01ec64.pth"));
        // Given as a model, it is named likewise.
        let error = ModelFile::read(&path).unwrap_err().to_string();
        assert!(
            error.contains(said) && error.contains("not a masam model file"),
            "{error}"
        );
    }
    write(&path, &[patch, block, decoder, "mask_decoder.hf_token.weight"]);
    let kind = Checkpoint::open(&path, &Selection::Usual).unwrap().kind();
    assert_eq!(kind, Kind::SamHq(None));
    write(&path, &[patch, block, decoder]);
    let kind = Checkpoint::open(&path, &Selection::Usual).unwrap().kind();
    assert_eq!(kind, Kind::Sam(None));
    let error = ModelFile::read(&path).unwrap_err().to_string();
    assert!(error.contains("masam convert --sam foreign.pth"), "{error}");
}
