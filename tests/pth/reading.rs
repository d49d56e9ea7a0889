//! Files that PyTorch wrote (`tests/fixtures/pth/make.py`), against the values it said they hold.

use crate::archives::{
    PLAIN, archive, checkpoint, deflated, dict, fixture, int, pickle, six_floats, stored, text,
};
use candle_core::{DType, Device, Tensor};
use masam::checkpoint::pth::PthFile;

/// Reads every tensor of `NAME.pth` and holds it against `NAME.safetensors`.
fn assert_as_expected(name: &str) -> PthFile {
    let file = PthFile::open(&fixture(&format!("{name}.pth"))).unwrap();
    let expected =
        candle_core::safetensors::load(fixture(&format!("{name}.safetensors")), &Device::Cpu).unwrap();
    let mut names: Vec<_> = expected.keys().collect();
    names.sort();
    assert_eq!(file.tensors().keys().collect::<Vec<_>>(), names);
    for (name, expected) in expected {
        let info = &file.tensors()[&name];
        assert_eq!(info.shape(), expected.dims(), "{name}");
        assert_eq!(info.dtype(), expected.dtype(), "{name}");
        let tensor = file.read(&name).unwrap();
        assert!(tensor.is_contiguous(), "{name}");
        assert_same_bits(&name, &tensor, &expected);
    }
    file
}

pub fn assert_same_bits(name: &str, tensor: &Tensor, expected: &Tensor) {
    assert_eq!(tensor.dims(), expected.dims(), "{name}");
    assert_eq!(tensor.dtype(), expected.dtype(), "{name}");
    let bits = |tensor: &Tensor| -> Vec<u64> {
        let flat = tensor.flatten_all().unwrap();
        match flat.dtype() {
            DType::F64 => flat
                .to_vec1::<f64>()
                .unwrap()
                .iter()
                .map(|value| value.to_bits())
                .collect(),
            DType::F32 => flat
                .to_vec1::<f32>()
                .unwrap()
                .iter()
                .map(|value| value.to_bits().into())
                .collect(),
            DType::F16 => flat
                .to_vec1::<half::f16>()
                .unwrap()
                .iter()
                .map(|value| value.to_bits().into())
                .collect(),
            DType::BF16 => flat
                .to_vec1::<half::bf16>()
                .unwrap()
                .iter()
                .map(|value| value.to_bits().into())
                .collect(),
            DType::I64 => flat
                .to_vec1::<i64>()
                .unwrap()
                .iter()
                .map(|&value| value as u64)
                .collect(),
            DType::I32 => flat
                .to_vec1::<i32>()
                .unwrap()
                .iter()
                .map(|&value| value as u64)
                .collect(),
            DType::I16 => flat
                .to_vec1::<i16>()
                .unwrap()
                .iter()
                .map(|&value| value as u64)
                .collect(),
            DType::U32 => flat
                .to_vec1::<u32>()
                .unwrap()
                .iter()
                .map(|&value| value.into())
                .collect(),
            DType::U8 => flat
                .to_vec1::<u8>()
                .unwrap()
                .iter()
                .map(|&value| value.into())
                .collect(),
            other => panic!("{name}: no test for {other:?}"),
        }
    };
    assert_eq!(bits(tensor), bits(expected), "{name}");
}

#[test]
fn every_type_is_read_or_skipped_by_name() {
    let file = assert_as_expected("types");
    let stored_as = |name: &str| file.tensors()[name].stored_as();
    assert_eq!(
        (stored_as("i8"), stored_as("bool"), stored_as("u16")),
        ("int8", "bool", "uint16")
    );
    assert_eq!(file.tensors()["scalar"].elem_count(), 1);
    assert_eq!(file.tensors()["empty"].elem_count(), 0);
    let skipped: Vec<_> = file
        .skipped()
        .named()
        .iter()
        .map(|(name, kind)| (name.as_str(), kind.as_str()))
        .collect();
    assert_eq!(
        skipped,
        [
            ("complex", "tensor of complex64"),
            ("u64", "tensor of uint64"),
            ("f8", "tensor of float8_e4m3fn")
        ]
    );
    assert!(file.read("complex").is_err());
}

#[test]
fn views_and_shared_storages_are_read() {
    let file = assert_as_expected("views");
    assert_eq!(file.skipped().count(), 0);
    // A second time, now that the checksums have been checked.
    let (base, same) = (file.read("base").unwrap(), file.read("same").unwrap());
    assert_same_bits("same", &same, &base);
    let transposed = file.read("transposed").unwrap();
    assert_same_bits(
        "transposed",
        &transposed,
        &base.t().unwrap().contiguous().unwrap(),
    );
}

#[test]
fn a_state_dict_beside_an_optimiser_is_found() {
    let file = assert_as_expected("epoch_299");
    assert_eq!(file.nested_under(), Some("state_dict"));
    let skipped = file.skipped();
    assert_eq!(skipped.count(), 11);
    let kind = |key: &str| {
        skipped
            .named()
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, kind)| kind.as_str())
    };
    assert_eq!(kind("epoch"), Some("int"));
    assert_eq!(kind("seed"), Some("int of more than 64 bits"));
    assert_eq!(kind("optimizer"), Some("dict of 2"));
    assert_eq!(kind("raw"), Some("bytes"));
    assert_eq!(kind("size"), Some("tuple of 2"));
}

#[test]
fn protocol_4_is_read() {
    assert_eq!(assert_as_expected("protocol_4").nested_under(), Some("net"));
}

#[test]
fn a_file_without_checksums_is_read() {
    assert_eq!(assert_as_expected("no_checksums").nested_under(), None);
}

/// The format of `torch.save` before PyTorch 1.6.
#[test]
fn the_older_format_is_read() {
    let file = PthFile::open(&fixture("before_1_6.pth")).unwrap();
    assert_eq!(file.tensors()["weight"].shape(), [2]);
    assert_eq!(values(&file, "weight"), [-3.0, 0.37 - 3.0]);
}

/// Beside the weights is an `argparse.Namespace`.
#[test]
fn foreign_objects_beside_tensors_are_skipped() {
    let file = PthFile::open(&fixture("foreign.pth")).unwrap();
    assert_eq!(values(&file, "weight"), [-3.0, 0.37 - 3.0]);
    let skipped = [("arguments".to_owned(), "object of argparse.Namespace".to_owned())];
    assert_eq!(file.skipped().named(), skipped);
}

#[test]
fn a_missing_tensor_is_named() {
    let file = PthFile::open(&fixture("types.pth")).unwrap();
    let error = file.read("nowhere").unwrap_err().to_string();
    assert!(
        error.contains("types.pth") && error.contains("has no tensor nowhere"),
        "{error}"
    );
}

/// Opens a checkpoint of these bytes.
fn open(bytes: &[u8]) -> PthFile {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made.pth");
    std::fs::write(&path, bytes).unwrap();
    PthFile::open(&path).unwrap()
}

fn values(file: &PthFile, name: &str) -> Vec<f32> {
    file.read(name).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn a_made_checkpoint_is_read() {
    let file = open(&PLAIN.checkpoint());
    assert_eq!(values(&file, "weight"), [1., 2., 3., 4., 5., 6.]);
}

#[test]
fn deflated_entries_are_read_more_than_once() {
    let halves = dict(&[
        (text("all"), PLAIN.pickled()),
        (
            text("second"),
            crate::archives::Tensor {
                offset: 3,
                shape: &[3],
                strides: &[1],
                ..PLAIN
            }
            .pickled(),
        ),
    ]);
    let file = open(&archive(&[
        stored("packed again/", b""),
        deflated("packed again/data.pkl", &pickle(&halves)),
        stored("packed again/data/", b""),
        deflated("packed again/data/0", &six_floats()),
    ]));
    for _ in 0..2 {
        assert_eq!(values(&file, "all"), [1., 2., 3., 4., 5., 6.]);
        assert_eq!(values(&file, "second"), [4., 5., 6.]);
    }
}

#[test]
fn the_state_dict_is_looked_for_in_order() {
    let one = || dict(&[(text("weight"), PLAIN.pickled())]);
    let found = |top: &[(Vec<u8>, Vec<u8>)]| {
        open(&checkpoint(&pickle(&dict(top)), &[&six_floats()]))
            .nested_under()
            .map(str::to_string)
    };
    // A usual key wins over another, the first of them over the rest, and over tensors at the top.
    assert_eq!(
        found(&[(text("ema"), one()), (text("model"), one())]).as_deref(),
        Some("model")
    );
    assert_eq!(
        found(&[(text("model"), one()), (text("state_dict"), one())]).as_deref(),
        Some("state_dict")
    );
    assert_eq!(
        found(&[(text("loss"), PLAIN.pickled()), (text("model"), one())]).as_deref(),
        Some("model")
    );
    // Tensors at the top win over a key that is not usual, and a usual key without tensors is passed over.
    assert_eq!(
        found(&[(text("weight"), PLAIN.pickled()), (text("ema"), one())]),
        None
    );
    assert_eq!(
        found(&[(text("model"), int(3)), (text("generator"), one())]).as_deref(),
        Some("generator")
    );
}
