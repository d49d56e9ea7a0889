//! Files that are read whole: regular ones, of a bounded size.
//!
//! A pipe would block for ever and a device has no end, so what a path names is asked before it is opened, and again
//! of the open file, which nobody can exchange any more.

use crate::error::{Error, Result};
use std::fs::{File, FileType, Metadata};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Opens the regular file at `path` for reading; with it its length in bytes.
///
/// # Errors
/// [`Error::File`] for what is absent, unreadable, or a directory, pipe, socket or device.
pub(crate) fn open(path: &Path) -> Result<(File, u64)> {
    let fail = |err: std::io::Error| Error::file(path, err);
    let check = |metadata: Metadata| match metadata.is_file() {
        true => Ok(metadata.len()),
        false => {
            let kind = kind(metadata.file_type());
            Err(Error::file(path, format!("is not a regular file, but {kind}")))
        }
    };
    check(std::fs::metadata(path).map_err(fail)?)?;
    let file = File::open(path).map_err(fail)?;
    let length = check(file.metadata().map_err(fail)?)?;
    Ok((file, length))
}

/// Reads the text of a regular file of at most `max_bytes`.
///
/// # Errors
/// As [`open`], and a longer file or one that is not UTF-8.
pub(crate) fn read_text(path: &Path, max_bytes: u64) -> Result<String> {
    let (file, length) = open(path)?;
    let bytes = read(path, file, length, max_bytes)?;
    String::from_utf8(bytes).map_err(|err| Error::file(path, err.utf8_error()))
}

/// Reads the `length` bytes of an open `file` from its start.
///
/// # Errors
/// [`Error::File`] for more than `max_bytes`, or a file that is shorter by now.
pub(crate) fn read(path: &Path, mut file: File, length: u64, max_bytes: u64) -> Result<Vec<u8>> {
    if length > max_bytes {
        let cause = format!("has {length} bytes, but at most {max_bytes} are read");
        return Err(Error::file(path, cause));
    }
    let mut bytes = Vec::new();
    let read = file
        .seek(SeekFrom::Start(0))
        .and_then(|_| file.take(length).read_to_end(&mut bytes))
        .map_err(|err| Error::file(path, err))?;
    if read as u64 != length {
        let cause = format!("ended after {read} of {length} bytes");
        return Err(Error::file(path, cause));
    }
    Ok(bytes)
}

/// Whether two paths lead to one file: by device and inode where both are there, hard and symbolic links included; by
/// folder and name where neither is there yet.
#[cfg(feature = "cli")]
pub(crate) fn same(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    let place = |path: &Path| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).canonicalize().ok()?;
        Some((folder, path.file_name()?.to_owned()))
    };
    match (identity(a), identity(b)) {
        (Some(a), Some(b)) => a == b,
        (None, None) => a == b || place(a).is_some_and(|a| Some(a) == place(b)),
        _ => false,
    }
}

fn kind(file_type: FileType) -> &'static str {
    if file_type.is_dir() {
        "a directory"
    } else if file_type.is_fifo() {
        "a pipe"
    } else if file_type.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}
