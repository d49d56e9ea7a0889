//! The reference tensors that are part of the program, and the large ones where they are at hand.

use candle_core::{DType, Device};
use masam::golden::{self, Check, Engine, FIXTURES, GoldenFile, Kind, Setting};
use safetensors::SafeTensors;
use std::path::Path;

const SETTING: Setting = Setting {
    device: Device::Cpu,
    precision: DType::F32,
    engine: Engine::Plain,
};

/// The settings that a file is checked with: a forward pass by both engines.
fn settings(file: &GoldenFile) -> Vec<Setting> {
    let mut settings = vec![SETTING];
    if file.kind() == Kind::Forward {
        settings.push(Setting {
            engine: Engine::Executor,
            ..SETTING
        });
    }
    settings
}

#[test]
fn every_fixture_passes() {
    assert_eq!(FIXTURES.len(), 17);
    let mut failed = Vec::new();
    for fixture in FIXTURES {
        let file = GoldenFile::from_bytes(fixture.name, fixture.bytes.to_vec()).unwrap();
        for setting in settings(&file) {
            let check = golden::run(&file, &setting)
                .unwrap()
                .expect("all of them can be checked");
            println!("{check}");
            if file.kind() == Kind::Forward {
                assert!(
                    check.measures.len() >= 3 + file.config().unwrap().encoder_depth,
                    "{check}: blocks are compared too"
                );
            }
            if !check.passed() {
                failed.push(check.name);
            }
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

/// The outcome in bfloat16; `None`, said aloud, where this processor has none.
fn in_bfloat16(file: &GoldenFile) -> Option<Check> {
    let setting = Setting {
        precision: DType::BF16,
        engine: Engine::Executor,
        ..SETTING
    };
    match golden::run(file, &setting) {
        Err(error @ masam::Error::Unavailable { .. }) => {
            println!("SKIPPED: {error}");
            None
        }
        outcome => outcome.unwrap(),
    }
}

#[test]
fn every_forward_pass_passes_in_bfloat16() {
    let (mut passed, mut failed) = (0, Vec::new());
    for fixture in FIXTURES {
        let file = GoldenFile::from_bytes(fixture.name, fixture.bytes.to_vec()).unwrap();
        if file.kind() != Kind::Forward {
            continue;
        }
        let Some(check) = in_bfloat16(&file) else { return };
        println!("{check}");
        match check.passed() {
            true => passed += 1,
            false => failed.push(check.to_string()),
        }
    }
    assert!(failed.is_empty() && passed > 10, "{passed}, {failed:?}");
}

/// A fixture with the last float of one of its tensors changed by `change`.
fn damaged(name: &str, tensor: &str, change: impl Fn(f32) -> f32) -> GoldenFile {
    let fixture = FIXTURES.iter().find(|f| f.name == name).unwrap();
    let (length, header) = SafeTensors::read_metadata(fixture.bytes).unwrap();
    let end = 8 + length + header.info(tensor).unwrap().data_offsets.1;
    let mut bytes = fixture.bytes.to_vec();
    let last: [u8; 4] = bytes[end - 4..end].try_into().unwrap();
    bytes[end - 4..end].copy_from_slice(&change(f32::from_le_bytes(last)).to_le_bytes());
    GoldenFile::from_bytes("damaged", bytes).unwrap()
}

#[test]
fn a_wrong_result_fails_in_bfloat16() {
    let whole = damaged("odd_sizes", "iou", |x| x);
    let Some(check) = in_bfloat16(&whole) else { return };
    assert!(check.passed(), "{check}");
    for (tensor, change) in [("iou", 0.5), ("features", 0.5), ("block_1", 0.5)] {
        let largest = {
            let (_, values) = whole.floats(tensor).unwrap();
            values.iter().fold(0f32, |most, x| most.max(x.abs()))
        };
        let file = damaged("odd_sizes", tensor, |x| x + change * largest);
        let check = in_bfloat16(&file).unwrap();
        assert!(!check.passed(), "{tensor}: {check}");
    }
}

#[test]
fn a_wrong_result_fails() {
    let fixture = FIXTURES.iter().find(|f| f.name == "sam_box").unwrap();
    // The last bytes belong to the last tensor; a float near zero becomes a large one.
    let mut bytes = fixture.bytes.to_vec();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&1e3f32.to_le_bytes());
    let file = GoldenFile::from_bytes("damaged", bytes).unwrap();
    assert!(!golden::run(&file, &SETTING).unwrap().unwrap().passed());
}

#[test]
fn the_large_reference_tensors_pass_where_they_are() {
    let folder = std::env::var("MASAM_GOLDENS").unwrap_or_default();
    let Ok(entries) = std::fs::read_dir(Path::new(&folder)) else {
        println!("SKIPPED: MASAM_GOLDENS does not name a folder with reference tensors ({folder:?})");
        return;
    };
    let mut checked = 0;
    for entry in entries {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "safetensors") {
            continue;
        }
        if let Some(check) = golden::run(&GoldenFile::open(&path).unwrap(), &SETTING).unwrap() {
            println!("{check}");
            assert!(check.passed(), "{check}");
            checked += 1;
        }
    }
    assert!(checked > 0, "{folder} holds nothing that can be checked");
}

#[test]
fn metadata_out_of_bounds_is_an_error() {
    let fixture = FIXTURES[0];
    let text = String::from_utf8_lossy(fixture.bytes).into_owned();
    for (good, bad) in [
        ("\"frames\":\"3\"", "\"frames\":\"0\""),
        ("\"image\":\"48\"", "\"image\":\"47\""),
    ] {
        assert!(text.contains(good), "{good} is not in {}", fixture.name);
        let at = text.find(good).unwrap();
        let mut bytes = fixture.bytes.to_vec();
        bytes[at..at + bad.len()].copy_from_slice(bad.as_bytes());
        let file = GoldenFile::from_bytes("bad", bytes).unwrap();
        assert!(golden::run(&file, &SETTING).is_err(), "{bad}");
    }
}

#[test]
fn a_file_that_lacks_what_it_has_to_hold_is_an_error() {
    let fixture = FIXTURES.iter().find(|f| f.name == "sam_box").unwrap();
    let (_, header) = SafeTensors::read_metadata(fixture.bytes).unwrap();
    let tensors = SafeTensors::deserialize(fixture.bytes).unwrap();
    for lost in ["labels", "features", "iou", "block_2"] {
        let kept = tensors.tensors().into_iter().filter(|(name, _)| name != lost);
        let bytes = safetensors::serialize(kept, header.metadata().clone()).unwrap();
        let file = GoldenFile::from_bytes("thinned", bytes).unwrap();
        let text = golden::run(&file, &SETTING).unwrap_err().to_string();
        assert!(text.contains(lost), "{lost}: {text}");
    }
    // Low-resolution logits stand where they are of use, and blocks in all files or in none.
    let kept = tensors
        .tensors()
        .into_iter()
        .filter(|(name, _)| name != "low_res_logits" && !name.starts_with("block_"));
    let bytes = safetensors::serialize(kept, header.metadata().clone()).unwrap();
    let file = GoldenFile::from_bytes("thinned", bytes).unwrap();
    assert!(golden::run(&file, &SETTING).unwrap().unwrap().passed());
}
