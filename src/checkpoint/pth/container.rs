//! Where a checkpoint's pickle and storages lie: in a zip archive, or in a file of the format before PyTorch 1.6.

use super::archive::Archive;
use super::legacy::Legacy;
use super::shown;
use super::state_dict;
use crate::checkpoint::format::{self, Format};
use crate::checkpoint::pickle::{self, Pickle};
use crate::checkpoint::regular_file;
use crate::checkpoint::select::Selection;
use crate::error::{Error, Result};
use std::path::Path;

/// Newest version of the archive's layout that is known; it is also the newest that PyTorch 2 reads.
const MAX_VERSION: u64 = 10;

/// An opened file of `torch.save`.
#[derive(Debug)]
pub(super) enum Container {
    Zip(Archive),
    Legacy(Legacy),
}

impl Container {
    /// Opens the file at `path`; returns it with its pickle.
    pub(super) fn open(path: &Path) -> Result<(Self, Pickle)> {
        match format::of(path)? {
            Format::Zip => open_archive(path),
            Format::Legacy => Legacy::open(path).map(|(file, pickle)| (Self::Legacy(file), pickle)),
            Format::Pickle => Err(bare_pickle(path)),
            Format::Safetensors => Err(Error::file(path, "is a safetensors file, not one of torch.save")),
        }
    }

    /// Bytes of the storage `key`; `None` when there is no such storage.
    pub(super) fn size_bytes(&self, key: &str) -> Option<u64> {
        match self {
            Self::Zip(archive) => archive.size_bytes(&entry(key)),
            Self::Legacy(file) => file.size_bytes(key),
        }
    }

    /// Bytes of all that it holds, unpacked.
    pub(super) fn total_bytes(&self) -> u64 {
        match self {
            Self::Zip(archive) => archive.total_bytes(),
            Self::Legacy(file) => file.total_bytes(),
        }
    }

    /// Bytes that have to be gone through for a range of `len_bytes` of storage `key`.
    pub(super) fn cost_bytes(&self, key: &str, len_bytes: u64) -> u64 {
        match self {
            Self::Zip(archive) => archive.cost_bytes(&entry(key), len_bytes),
            Self::Legacy(_) => len_bytes,
        }
    }

    /// The storage's name in messages.
    pub(super) fn full_name(&self, key: &str) -> String {
        match self {
            Self::Zip(archive) => archive.full_name(&entry(key)),
            Self::Legacy(_) => shown(key),
        }
    }

    /// Reads `len_bytes` bytes of storage `key` from `start_byte`.
    pub(super) fn read(&mut self, key: &str, start_byte: u64, len_bytes: u64) -> Result<Vec<u8>> {
        match self {
            Self::Zip(archive) => archive.read(&entry(key), start_byte, len_bytes),
            Self::Legacy(file) => file.read(key, start_byte, len_bytes),
        }
    }
}

/// The archive's entry of a storage.
fn entry(key: &str) -> String {
    format!("data/{key}")
}

fn open_archive(path: &Path) -> Result<(Container, Pickle)> {
    let mut archive = Archive::open(path)?;
    let fail = |cause: String| Error::file(path, cause);
    if archive.size_bytes("constants.pkl").is_some() {
        return Err(fail(
            "is a TorchScript program; save its weights: torch.save(torch.jit.load(path).state_dict(), new_path)"
                .into(),
        ));
    }
    let Some(bytes) = archive.size_bytes("data.pkl") else {
        return Err(fail(
            "has no data.pkl, so torch.save did not write this archive".into(),
        ));
    };
    check_version(&mut archive, path)?;
    check_byte_order(&mut archive, path)?;
    if bytes > pickle::MAX_PICKLE_BYTES as u64 {
        return Err(fail(long_pickle(bytes)));
    }
    let program = archive.read_all("data.pkl", pickle::MAX_PICKLE_BYTES as u64)?;
    let pickle = pickle::load(program).map_err(|flaw| fail(flaw.to_string()))?;
    Ok((Container::Zip(archive), pickle))
}

/// A pickle that is longer than the names and shapes of any model.
fn long_pickle(bytes: u64) -> String {
    format!(
        "its pickle has {bytes} bytes, but at most {} are read; weights that lie in it are no tensors, but NumPy arrays \
         or the like: torch.save({{k: torch.from_numpy(v) for k, v in weights.items()}}, new_path)",
        pickle::MAX_PICKLE_BYTES
    )
}

/// What is wrong with a pickle without storages beside it.
fn bare_pickle(path: &Path) -> Error {
    let read = || -> Result<Pickle, String> {
        let (file, length) = regular_file::open(path).map_err(|err| err.to_string())?;
        if length > pickle::MAX_PICKLE_BYTES as u64 {
            return Err(long_pickle(length));
        }
        let bytes = regular_file::read(path, file, length, pickle::MAX_PICKLE_BYTES as u64);
        pickle::load(bytes.map_err(|err| err.to_string())?).map_err(|flaw| flaw.to_string())
    };
    let cause = match read() {
        Ok(pickle) => state_dict::find(&pickle, &Selection::Usual).map_or_else(
            |cause| cause,
            |_| "save it again: torch.save(pickle.load(open(path, 'rb')), new_path)".into(),
        ),
        Err(cause) => cause,
    };
    let kind = "is a bare pickle, as Python's own module writes, not a file of torch.save";
    Error::file(path, format!("{kind}; {cause}"))
}

/// Refuses data that a big-endian machine wrote. Files of PyTorch before 2.1 do not say, and are
/// little-endian.
fn check_byte_order(archive: &mut Archive, path: &Path) -> Result<()> {
    if archive.size_bytes("byteorder").is_none() {
        return Ok(());
    }
    match archive.read_all("byteorder", 16)?.as_slice() {
        b"little" => Ok(()),
        b"big" => {
            let cause =
                "holds big-endian numbers, which are not read; save it again on a little-endian machine";
            Err(Error::file(path, cause))
        }
        other => {
            let order = shown(&String::from_utf8_lossy(other));
            Err(Error::file(
                path,
                format!("its byteorder is \"{order}\", but little or big is known"),
            ))
        }
    }
}

fn check_version(archive: &mut Archive, path: &Path) -> Result<()> {
    if archive.size_bytes("version").is_none() {
        return Ok(());
    }
    let text = archive.read_all("version", 16)?;
    let text = String::from_utf8_lossy(&text);
    match text.trim().parse::<u64>() {
        Ok(version) if (1..=MAX_VERSION).contains(&version) => Ok(()),
        _ => Err(Error::file(
            path,
            format!(
                "its version is \"{}\", but 1 to {MAX_VERSION} are read",
                shown(&text)
            ),
        )),
    }
}
