//! Files that are written: read back here, and by PyTorch where there is one.

use crate::reading::assert_same_bits;
use candle_core::{DType, Device, Tensor};
use masam::checkpoint::pth::{self, PthFile};
use std::process::Command;

/// Tensors of every type that can be written, in shapes that are easily got wrong.
fn samples() -> Vec<(&'static str, Tensor)> {
    let ramp = Tensor::arange(-12f32, 12., &Device::Cpu).unwrap();
    let of = |dtype, shape: &[usize]| ramp.to_dtype(dtype).unwrap().reshape(shape).unwrap();
    vec![
        ("f64", of(DType::F64, &[24])),
        ("f32", of(DType::F32, &[2, 3, 4])),
        ("f16", of(DType::F16, &[4, 6])),
        ("bf16", of(DType::BF16, &[1, 24])),
        ("i64", of(DType::I64, &[24, 1])),
        ("i32", of(DType::I32, &[6, 4])),
        ("i16", of(DType::I16, &[3, 8])),
        ("u8", Tensor::arange(0u8, 255, &Device::Cpu).unwrap()),
        ("transposed", of(DType::F32, &[6, 4]).t().unwrap()),
        ("narrow", of(DType::F32, &[6, 4]).narrow(0, 2, 3).unwrap()),
        (
            "expanded",
            Tensor::new(&[1.5f32], &Device::Cpu)
                .unwrap()
                .expand((3, 2))
                .unwrap(),
        ),
        ("scalar", Tensor::new(2.5f32, &Device::Cpu).unwrap()),
        ("empty", Tensor::zeros((0, 3), DType::F32, &Device::Cpu).unwrap()),
        ("long", Tensor::arange(0f32, 70_000., &Device::Cpu).unwrap()),
        ("name with \"quotes\", ünïcödé", of(DType::F32, &[24])),
    ]
}

#[test]
fn what_is_written_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("written.pth");
    let samples = samples();
    pth::write(&path, samples.iter().map(|(name, tensor)| (*name, tensor))).unwrap();
    let file = PthFile::open(&path).unwrap();
    assert_eq!(file.tensors().len(), samples.len());
    assert_eq!(file.skipped().count(), 0);
    for (name, tensor) in &samples {
        assert_same_bits(name, &file.read(name).unwrap(), tensor);
    }
}

#[test]
fn the_same_tensors_give_the_same_bytes_in_aligned_entries() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one.pth"), folder.path().join("two.pth"));
    let samples = samples();
    for path in [&one, &two] {
        pth::write(path, samples.iter().map(|(name, tensor)| (*name, tensor))).unwrap();
    }
    assert_eq!(std::fs::read(&one).unwrap(), std::fs::read(&two).unwrap());
    let mut zip = zip::ZipArchive::new(std::fs::File::open(&one).unwrap()).unwrap();
    for index in 0..zip.len() {
        let entry = zip.by_index(index).unwrap();
        assert_eq!(entry.compression(), zip::CompressionMethod::Stored);
        assert_eq!(entry.data_start().unwrap() % 64, 0, "{}", entry.name().unwrap());
    }
}

#[test]
fn a_failed_write_leaves_the_old_file_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kept.pth");
    std::fs::write(&path, b"old").unwrap();
    let tensor = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
    let error = pth::write(&path, [("twice", &tensor), ("twice", &tensor)]).unwrap_err();
    assert_eq!(error.to_string(), "tensor twice: is given twice");
    let unsigned = Tensor::zeros(3, DType::U32, &Device::Cpu).unwrap();
    let error = pth::write(&path, [("unsigned", &unsigned)]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tensor unsigned: elements of u32 cannot be written to a .pth"
    );
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    // A folder cannot be replaced by a file: the finished neighbour has to go again.
    let taken = folder.path().join("taken.pth");
    std::fs::create_dir(&taken).unwrap();
    let error = pth::write(&taken, [("weight", &tensor)]).unwrap_err().to_string();
    assert!(error.contains("taken.pth: cannot be written"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    let error = pth::write(&folder.path().join("no/such.pth"), [("weight", &tensor)])
        .unwrap_err()
        .to_string();
    assert!(error.contains("such.pth: cannot be written"), "{error}");
}

/// What PyTorch is asked to do: load both files with `weights_only` and compare them tensor by tensor.
const COMPARE: &str = r#"
import sys
import torch
from safetensors.torch import load_file
written, expected = torch.load(sys.argv[1], weights_only=True), load_file(sys.argv[2])
assert type(written) is dict, type(written)
assert sorted(written) == sorted(expected), sorted(written)
for name, tensor in expected.items():
    other = written[name]
    assert other.dtype == tensor.dtype and other.shape == tensor.shape, name
    assert other.is_contiguous() and torch.equal(other, tensor), name
mapped = torch.load(sys.argv[1], weights_only=True, mmap=True)
assert all(torch.equal(mapped[name], tensor) for name, tensor in expected.items())
print("same:", len(expected))
"#;

#[test]
fn pytorch_reads_what_is_written() {
    let python = std::env::var_os("MASAM_PYTHON").unwrap_or_else(|| "python3".into());
    let imports = Command::new(&python)
        .args(["-c", "import torch, safetensors.torch"])
        .output();
    if !imports.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "SKIPPED: {} has no torch and safetensors; set MASAM_PYTHON to one that has",
            python.display()
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (path, expected) = (
        folder.path().join("written.pth"),
        folder.path().join("expected.safetensors"),
    );
    let samples = samples();
    pth::write(&path, samples.iter().map(|(name, tensor)| (*name, tensor))).unwrap();
    candle_core::safetensors::save(&samples.iter().cloned().collect(), &expected).unwrap();
    let output = Command::new(&python)
        .args(["-c", COMPARE])
        .arg(&path)
        .arg(&expected)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        format!("same: {}", samples.len())
    );
}
