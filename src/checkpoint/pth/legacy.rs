//! The format of `torch.save` before PyTorch 1.6: five pickles (a magic number, a version, the machine's sizes, the
//! checkpoint, the keys of its storages), then each storage as its length and its bytes.

use crate::checkpoint::pickle::{self, Element, Object, Pickle, StorageRecord, Value, shown};
use crate::checkpoint::regular_file;
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Version of the format; there was only one.
const VERSION: i64 = 1001;

/// Most storages of a checkpoint.
const MAX_STORAGES: usize = 1 << 16;

/// An opened file: where each storage lies.
#[derive(Debug)]
pub(super) struct Legacy {
    path: PathBuf,
    file: File,
    /// First byte and bytes of each storage, by key.
    storages: HashMap<String, (u64, u64)>,
}

impl Legacy {
    /// Opens the file at `path`; returns it with the pickle of its checkpoint.
    pub(super) fn open(path: &Path) -> Result<(Self, Pickle)> {
        let fail = |cause: String| Error::file(path, cause);
        let (mut file, length) = regular_file::open(path)?;
        let mut start = Vec::new();
        file.by_ref()
            .take(pickle::MAX_PICKLE_BYTES as u64)
            .read_to_end(&mut start)
            .map_err(|err| fail(err.to_string()))?;
        let start: Arc<[u8]> = start.into();
        let load = |at| pickle::load_at(Arc::clone(&start), at).map_err(|flaw| fail(cut_or(flaw)));
        let (_, at) = load(0)?;
        let (version, at) = load(at)?;
        if version.root() != Value::Int(VERSION) {
            return Err(fail(format!("its version is not {VERSION}")));
        }
        let (machine, at) = load(at)?;
        check_byte_order(&machine).map_err(fail)?;
        let (checkpoint, at) = load(at)?;
        let (keys, end) = load(at)?;
        let storages = lay_out(&mut file, length, end as u64, &checkpoint, &keys).map_err(fail)?;
        let path = path.to_path_buf();
        Ok((Self { path, file, storages }, checkpoint))
    }

    /// Bytes of storage `key`; `None` when there is no such storage.
    pub(super) fn size_bytes(&self, key: &str) -> Option<u64> {
        self.storages.get(key).map(|&(_, bytes)| bytes)
    }

    /// Bytes of all storages.
    pub(super) fn total_bytes(&self) -> u64 {
        self.storages
            .values()
            .fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }

    /// Reads `len_bytes` bytes of storage `key` from `start_byte`.
    pub(super) fn read(&mut self, key: &str, start_byte: u64, len_bytes: u64) -> Result<Vec<u8>> {
        let fail = |cause: String| Error::file(&self.path, format!("storage {}: {cause}", shown(key)));
        let &(first, bytes) = self
            .storages
            .get(key)
            .ok_or_else(|| fail("is not in the file".into()))?;
        let inside = start_byte.checked_add(len_bytes).is_some_and(|end| end <= bytes);
        let mut taken = Vec::new();
        match usize::try_from(len_bytes) {
            Ok(capacity) if inside && taken.try_reserve_exact(capacity).is_ok() => {}
            _ => return Err(fail(format!("no room for {len_bytes} of its {bytes} bytes"))),
        }
        let got = self
            .file
            .seek(SeekFrom::Start(first + start_byte))
            .and_then(|_| self.file.by_ref().take(len_bytes).read_to_end(&mut taken))
            .map_err(|err| fail(err.to_string()))?;
        if got as u64 != len_bytes {
            return Err(fail("the file has become shorter".into()));
        }
        Ok(taken)
    }
}

/// A file that ends inside its pickles has been cut short, or holds more than pickles do.
fn cut_or(flaw: pickle::Flaw) -> String {
    format!("{flaw}; if the file was cut short, download or save it again")
}

/// Refuses what a big-endian machine wrote.
fn check_byte_order(machine: &Pickle) -> Result<(), String> {
    let entries = machine.dict(machine.root()).unwrap_or_default();
    let little = entries
        .iter()
        .find(|(key, _)| machine.text(*key) == Some("little_endian"));
    match little {
        Some((_, Value::Bool(false))) => Err(
            "holds big-endian numbers, which are not read; save it again on a little-endian machine".into(),
        ),
        _ => Ok(()),
    }
}

/// Goes through the storages' lengths and holds each against the file and against what the checkpoint says.
fn lay_out(
    file: &mut File,
    length: u64,
    mut at: u64,
    checkpoint: &Pickle,
    keys: &Pickle,
) -> Result<HashMap<String, (u64, u64)>, String> {
    let mut claimed: HashMap<&str, StorageRecord> = HashMap::new();
    for object in checkpoint.objects() {
        if let Object::Storage(record) = object {
            claimed.insert(checkpoint.span(record.key), *record);
        }
    }
    let Some(Object::List(listed)) = keys.object(keys.root()) else {
        return Err("the list of its storages is missing".into());
    };
    if listed.len() > MAX_STORAGES {
        return Err(format!(
            "lists {} storages, but at most {MAX_STORAGES} are read",
            listed.len()
        ));
    }
    let mut storages = HashMap::new();
    for &key in listed {
        let key = keys.text(key).ok_or("a storage's key is no text")?;
        let record = claimed
            .get(key)
            .ok_or_else(|| format!("storage {} is of no tensor", shown(key)))?;
        let mut count = [0u8; 8];
        file.seek(SeekFrom::Start(at))
            .and_then(|_| file.read_exact(&mut count))
            .map_err(|_| cut(length, at.saturating_add(8)))?;
        if u64::try_from(i64::from_le_bytes(count)) != Ok(record.len) {
            return Err(format!(
                "storage {} has {} elements, but {} are claimed",
                shown(key),
                i64::from_le_bytes(count),
                record.len
            ));
        }
        let bytes = record
            .len
            .checked_mul(record.element.map_or(1, Element::size_bytes) as u64);
        let first = at + 8;
        let end = bytes.and_then(|bytes| first.checked_add(bytes));
        match (bytes, end) {
            (Some(bytes), Some(end)) if end <= length => {
                if storages.insert(key.to_owned(), (first, bytes)).is_some() {
                    return Err(format!("storage {} is there twice", shown(key)));
                }
                at = end;
            }
            _ => return Err(cut(length, end.unwrap_or(u64::MAX))),
        }
    }
    Ok(storages)
}

fn cut(length: u64, needed: u64) -> String {
    format!("is cut short: it has {length} bytes and needs at least {needed}; download or save it again")
}
