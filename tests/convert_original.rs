//! `masam convert` between the original software's files and a model file: there and back, files that are swapped or
//! foreign, and what is assumed.

use masam::checkpoint::{CardFile, ModelFile};
use masam::segmenter::{Normalisation, Temporal};
use std::path::Path;
use std::process::{Command, Output};

fn masam(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_masam"));
    command.args(arguments).current_dir(folder).output().unwrap()
}

/// What a command said on standard output that ended well.
#[track_caller]
fn good(folder: &Path, line: &str) -> String {
    let arguments: Vec<&str> = line.split_whitespace().collect();
    let output = masam(folder, &arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a command said on standard error that ended with status 1.
#[track_caller]
fn bad(folder: &Path, line: &str, parts: &[&str]) -> String {
    let arguments: Vec<&str> = line.split_whitespace().collect();
    let output = masam(folder, &arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{line}: {said}");
    for part in parts {
        assert!(said.contains(part), "{line}: no {part:?} in {said}");
    }
    said
}

/// A small model that differs from the assumptions in everything, and its two exports.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let classes = r#"[{"name": "a", "color": [1, 2, 3]}, {"name": "b", "color": [4, 5, 6]}]"#;
    std::fs::write(folder.path().join("classes.json"), classes).unwrap();
    good(
        folder.path(),
        "convert --untrained demo --size 64 -o model.st --half --classes classes.json --causal \
         --set encoder_depth=2 --set global_blocks=[1] --set classes=2 --set fact_scale=0.5 --set name=mine \
         --set encoder_width=24 --set prompt_width=32 --set adapter_width=8 --set decoder_mlp_width=16 \
         --resize reference --orientation transposed --normalization 0.01,-0.5 --frame-interval-ms 40",
    );
    good(
        folder.path(),
        "convert --model model.st --to-sam sam.pth --to-masam epoch.pth",
    );
    folder
}

fn bytes(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).unwrap()
}

#[test]
fn the_way_there_and_back_changes_no_byte() {
    let folder = folder();
    let folder = folder.path();
    let said = good(folder, "convert --sam sam.pth --masam epoch.pth -o back.st");
    assert!(said.contains("card read from epoch.pth.card.json"), "{said}");
    assert!(!said.contains("assumed"), "{said}");
    assert!(bytes(folder, "back.st") == bytes(folder, "model.st"));

    // The card may lie elsewhere; then nothing says that the files are its own.
    std::fs::remove_file(folder.join("sam.pth.card.json")).unwrap();
    std::fs::rename(folder.join("epoch.pth.card.json"), folder.join("kept.json")).unwrap();
    good(
        folder,
        "convert --sam sam.pth --masam epoch.pth --card kept.json -o given.st",
    );
    let (given, first) = ["given.st", "model.st"]
        .map(|name| ModelFile::read(&folder.join(name)).unwrap())
        .into();
    assert_eq!(
        (given.card.model, given.card.classes),
        (first.card.model, first.card.classes)
    );
    assert_eq!(given.card.preprocessing, first.card.preprocessing);
    let names: Vec<_> = given
        .card
        .provenance
        .sources
        .iter()
        .map(|source| &source.file)
        .collect();
    assert_eq!(names, ["sam.pth", "epoch.pth"]);
}

#[test]
fn a_card_does_not_vouch_for_other_weights() {
    let folder = folder();
    let folder = folder.path();
    let path = folder.join("epoch.pth.card.json");
    let mut card = CardFile::read(&path).unwrap();
    card.card.scores.insert("iou".into(), 0.9);
    std::fs::write(&path, serde_json::to_string(&card).unwrap()).unwrap();
    let scores = |name: &str| ModelFile::read_card(&folder.join(name)).unwrap().scores;
    std::fs::remove_file(folder.join("sam.pth.card.json")).unwrap();
    // One of two files without a card: it may be any.
    let said = good(folder, "convert --sam sam.pth --masam epoch.pth -o one.st");
    assert!(
        said.contains("not carried over") && scores("one.st").is_empty(),
        "{said}"
    );
    std::fs::write(folder.join("sam.pth.card.json"), std::fs::read(&path).unwrap()).unwrap();
    // Beside it lies the card of another file's bytes.
    let said = good(folder, "convert --sam sam.pth --masam epoch.pth -o other.st");
    assert!(
        said.contains("not carried over") && scores("other.st").is_empty(),
        "{said}"
    );
    std::fs::write(&path, "{\"card\": 1}").unwrap();
    bad(
        folder,
        "convert --sam sam.pth --masam epoch.pth -o x.st",
        &["epoch.pth.card.json"],
    );
}

#[test]
fn what_is_assumed_is_said_and_has_an_option() {
    let folder = folder();
    let folder = folder.path();
    for card in ["sam.pth.card.json", "epoch.pth.card.json"] {
        std::fs::remove_file(folder.join(card)).unwrap();
    }
    let said = good(folder, "convert --sam sam.pth --masam epoch.pth -o plain.st");
    let assumed: Vec<&str> = said.lines().filter(|line| line.starts_with("assumed ")).collect();
    for (what, option) in [
        ("64 px, as of the position table", "--size"),
        ("centered taps", "--causal"),
        ("name custom", "--set name="),
        ("8 heads in the decoder", "--set decoder_heads="),
        ("FacT scale of 1", "--set fact_scale="),
        ("resize reference", "--resize"),
        ("normalization clip-min-max", "--normalization"),
        ("transposed frames", "--orientation"),
        ("1000 ms between frames", "--frame-interval-ms"),
        ("class", "--classes"),
    ] {
        let found = assumed
            .iter()
            .any(|line| line.contains(what) && line.contains(option));
        assert!(found, "{what}, {option}: {said}");
    }
    assert_eq!(assumed.len(), 10, "{said}");
    // With every option none is left, and the model is the first one.
    let options = "--size 64 --causal --set decoder_heads=4 --set fact_scale=0.5 --set name=mine --resize reference \
                   --normalization 0.01,-0.5 --orientation transposed --frame-interval-ms 40 --classes classes.json";
    let said = good(
        folder,
        &format!("convert --sam sam.pth --masam epoch.pth -o all.st {options} --half"),
    );
    assert!(!said.contains("assumed"), "{said}");
    let [mut all, first] = ["all.st", "model.st"].map(|name| ModelFile::read(&folder.join(name)).unwrap());
    assert_eq!(all.card.model.temporal, Temporal::Causal);
    let fixed = Normalisation::Fixed {
        scale: 0.01,
        offset: -0.5,
    };
    assert_eq!(all.card.preprocessing.normalisation, fixed);
    all.card.provenance = first.card.provenance.clone();
    assert_eq!(all.card, first.card);
    for (name, tensor) in first.weights.iter() {
        let other = all.weights.get(name).unwrap();
        let values = |tensor: &candle_core::Tensor| {
            let flat = tensor
                .to_dtype(candle_core::DType::F32)
                .unwrap()
                .flatten_all()
                .unwrap();
            flat.to_vec1::<f32>().unwrap()
        };
        assert_eq!(values(other), values(tensor), "{name}");
    }
    // The values of an option that are none.
    for option in [
        "--normalization x",
        "--normalization 1,inf",
        "--frame-interval-ms never",
    ] {
        let line = format!("convert --sam sam.pth --masam epoch.pth -o x.st {option}");
        let output = masam(folder, &line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(2), "{option}");
    }
    good(
        folder,
        "convert --sam sam.pth --masam epoch.pth -o x.st --frame-interval-ms every --normalization bytes",
    );
    let card = ModelFile::read_card(&folder.join("x.st")).unwrap();
    assert_eq!(card.preprocessing.frame_interval_nanos, None);
}

#[test]
fn files_in_the_wrong_place_are_named() {
    let folder = folder();
    let folder = folder.path();
    bad(
        folder,
        "convert --sam epoch.pth --masam sam.pth -o x.st",
        &["Exchange them: --sam sam.pth --masam epoch.pth"],
    );
    bad(
        folder,
        "convert --masam epoch.pth -o x.st",
        &["without SAM's image encoder", "--sam SAM.pth --masam epoch.pth"],
    );
    bad(
        folder,
        "convert --masam sam.pth -o x.st",
        &[
            "expected a MA-SAM checkpoint, found a SAM checkpoint",
            "masam convert --sam sam.pth",
        ],
    );
    bad(
        folder,
        "convert --sam sam.pth --masam model.st -o x.st",
        &["--masam model.st", "found a masam model file", "--model"],
    );
    bad(
        folder,
        "convert --model epoch.pth -o x.st",
        &["a MA-SAM checkpoint", "masam convert --sam"],
    );
    bad(
        folder,
        "convert --sam sam.pth --masam epoch.pth --ema -o x.st",
        &["epoch.pth", "no averaged"],
    );
    for command in ["run videotestsrc -o x.mp4 --model", "inspect"] {
        std::fs::write(folder.join("page.safetensors"), "<html>").unwrap();
        bad(
            folder,
            &format!("{command} page.safetensors"),
            &["web page", "download"],
        );
    }
    bad(
        folder,
        "run videotestsrc -o x.mp4 --model sam.pth",
        &["a SAM checkpoint", "masam convert --sam sam.pth"],
    );
    assert!(!folder.join("x.st").exists());
    let said = good(folder, "inspect epoch.pth");
    assert!(
        said.starts_with("epoch.pth: a MA-SAM checkpoint") && said.contains("masam convert --sam"),
        "{said}"
    );
    let said = good(folder, "inspect sam.pth --json");
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["card"], "sam.pth.card.json");
    assert!(
        said["use"]
            .as_str()
            .unwrap()
            .starts_with("masam convert --sam sam.pth"),
        "{said}"
    );
}

/// SAM's own release makes a model that says of itself that it is untrained.
#[test]
fn sam_alone_converts() {
    let folder = folder();
    let folder = folder.path();
    std::fs::remove_file(folder.join("sam.pth.card.json")).unwrap();
    let said = good(
        folder,
        "convert --sam sam.pth -o start.st --classes classes.json --set decoder_heads=4",
    );
    assert!(said.contains("its masks mean nothing"), "{said}");
    let start = ModelFile::read(&folder.join("start.st")).unwrap();
    assert!(!start.card.provenance.trained);
    assert_eq!(start.card.model.classes, 2);
    let first = ModelFile::read(&folder.join("model.st")).unwrap();
    let values = |file: &ModelFile, name: &str| {
        let tensor = file
            .weights
            .get(name)
            .unwrap()
            .to_dtype(candle_core::DType::F32)
            .unwrap();
        tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let name = "image_encoder.blocks.1.mlp.lin1.weight";
    assert_eq!(values(&start, name), values(&first, name));
    assert!(
        values(&start, "image_encoder.fact_v.weight")
            .iter()
            .all(|v| *v == 0.0)
    );
}

/// `Fact_tt_Sam.state_dict()`, and SAM's and MA-SAM's names in one file.
#[test]
fn a_whole_model_needs_no_sam() {
    let folder = folder();
    let folder = folder.path();
    let [sam, epoch] = ["sam.pth", "epoch.pth"]
        .map(|name| masam::checkpoint::pth::PthFile::open(&folder.join(name)).unwrap());
    let read = |file: &masam::checkpoint::pth::PthFile, rename: &dyn Fn(&str) -> Option<String>| {
        let names = file.tensors().keys();
        let tensors = names.filter_map(|name| Some((rename(name)?, file.read(name).unwrap())));
        tensors.collect::<Vec<_>>()
    };
    let two = [
        read(&sam, &|name| Some(format!("sam.{name}"))),
        read(&epoch, &|name| Some(name.to_owned())),
    ]
    .concat();
    let inside = |name: &str| {
        let rest = name.strip_prefix("image_encoder.")?;
        let Some((block, rest)) = rest.strip_prefix("blocks.").and_then(|rest| rest.split_once('.')) else {
            return Some(format!("model.sam.image_encoder.ImageEncoderViT.{rest}"));
        };
        let rest = rest
            .replace("attn.", "attn.Attention.")
            .replace("qkv.", "qkv.qkv.");
        Some(format!(
            "model.sam.image_encoder.ImageEncoderViT.blocks.{block}.Block.{rest}"
        ))
    };
    let own = |name: &str| {
        Some(match (name.strip_suffix(".weight"), name.split_at_checked(7)) {
            (_, Some((which @ ("q_FacTs" | "v_FacTs"), block))) => {
                let block: usize = block[1..].parse().unwrap();
                format!(
                    "model.sam.image_encoder.ImageEncoderViT.blocks.{block}.Block.attn.Attention.qkv.{which}.weight"
                )
            }
            (Some("image_encoder.FacTu"), _) => "model.FacTu.weight".into(),
            (Some("image_encoder.FacTv"), _) => "model.FacTv.weight".into(),
            _ => format!("model.sam.{name}"),
        })
    };
    let real = [read(&sam, &inside), read(&epoch, &own)].concat();
    std::fs::rename(folder.join("epoch.pth.card.json"), folder.join("card.json")).unwrap();
    let first = ModelFile::read(&folder.join("model.st")).unwrap();
    for tensors in [two, real] {
        let path = folder.join("whole.pth");
        masam::checkpoint::pth::write(&path, tensors.iter().map(|(name, tensor)| (name, tensor))).unwrap();
        for sam in ["", "--sam sam.pth"] {
            let said = good(
                folder,
                &format!("convert {sam} --masam whole.pth --card card.json -o whole.st"),
            );
            assert!(said.contains("a whole MA-SAM model"), "{said}");
            let whole = ModelFile::read(&folder.join("whole.st")).unwrap();
            assert_eq!(whole.card.model, first.card.model);
            for (name, tensor) in first.weights.iter() {
                let values = |tensor: &candle_core::Tensor| {
                    let flat = tensor
                        .to_dtype(candle_core::DType::F32)
                        .unwrap()
                        .flatten_all()
                        .unwrap();
                    flat.to_vec1::<f32>().unwrap()
                };
                assert_eq!(values(whole.weights.get(name).unwrap()), values(tensor), "{name}");
            }
        }
    }
}
