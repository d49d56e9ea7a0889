//! Reading what must be refused, and watching what it costs.

use crate::archives::{checkpoint, peak_mapped_bytes, six_floats};
use masam::checkpoint::pth::PthFile;
use std::path::Path;

/// No test may have mapped this much more than before: far above what threads and bounds add up to, far below
/// every size that is claimed here.
const MAX_MAPPED_BYTES: u64 = 6 << 30;

/// Opens the checkpoint at `path` and reads all of it; returns the error of either.
pub fn error_at(path: &Path) -> String {
    let before = peak_mapped_bytes();
    let outcome = PthFile::open(path).and_then(|file| {
        for name in file.tensors().keys() {
            file.read(name)?;
        }
        Ok(file.tensors().len())
    });
    if let (Some(before), Some(after)) = (before, peak_mapped_bytes()) {
        assert!(
            after - before < MAX_MAPPED_BYTES,
            "{} bytes were mapped",
            after - before
        );
    }
    match outcome {
        Ok(read) => panic!("{read} tensors were read"),
        Err(masam::Error::File { path: named, cause }) => {
            assert_eq!(named, path);
            cause
        }
        Err(other) => panic!("an error of another kind: {other}"),
    }
}

pub fn error_of(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile.pth");
    std::fs::write(&path, bytes).unwrap();
    error_at(&path)
}

#[track_caller]
pub fn assert_cause(bytes: &[u8], parts: &[&str]) {
    let cause = error_of(bytes);
    for part in parts {
        assert!(cause.contains(part), "the cause is {cause:?}, without {part:?}");
    }
}

/// A checkpoint of this pickle with one storage of six floats.
pub fn with_pickle(program: &[u8]) -> Vec<u8> {
    checkpoint(program, &[&six_floats()])
}
