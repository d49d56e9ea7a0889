//! The zip archive that `torch.save` writes: `FOLDER/data.pkl`, `FOLDER/byteorder`, `FOLDER/data/0` and so
//! on, stored without compression.
//!
//! The archive is never unpacked. Its directory is read once, with bounds on entries and bytes; after that a
//! range of an entry is read when it is asked for. PyTorch itself never compresses, but an archive that has
//! been packed again may be deflated: then what each entry claims to hold is held against what its compressed
//! bytes can hold, and all of them against a bound on the whole.

use super::shown;
use crate::checkpoint::regular_file;
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use zip::read::{ArchiveOffset, Config};
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive, ZipReadOptions};

/// Most entries of an archive: one for each storage and a handful more.
const MAX_ENTRIES: u64 = 1 << 16;

/// Most bytes that are read to learn the directory.
const MAX_DIRECTORY_BYTES: u64 = 64 << 20;

/// Longest name of an entry.
const MAX_NAME_BYTES: usize = 512;

/// Deflate turns at most 258 bytes into two bits, and so one byte into no more than this many (RFC 1951).
const MAX_DEFLATE_RATIO: u64 = 1032;

/// All deflated entries together may claim this many times the file's size.
const MAX_INFLATED_RATIO: u64 = 64;

/// An allowance on top of bounds that grow with the file, so that small files are not refused for their
/// zeros.
pub(super) const SMALL_BYTES: u64 = 64 << 20;

/// All deflated entries together may claim this at most, whatever the file's size.
const MAX_INFLATED_BYTES: u64 = 16 << 30;

/// An opened archive.
#[derive(Debug)]
pub(super) struct Archive {
    path: PathBuf,
    zip: ZipArchive<BufReader<Metered>>,
    file_bytes: u64,
    folder: String,
    entries: HashMap<String, Entry>,
}

/// What the directory says of an entry.
#[derive(Debug)]
struct Entry {
    index: usize,
    size_bytes: u64,
    deflated: bool,
    /// PyTorch can be told to write no checksums; they are zero then.
    has_checksum: bool,
    /// The whole entry has been read once and its checksum was right.
    verified: bool,
}

impl Archive {
    /// Opens the archive at `path` and checks its directory.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let fail = |cause: String| Error::file(path, cause);
        let (mut file, file_bytes) = regular_file::open(path)?;
        check_zip64_ends(&mut file, file_bytes).map_err(fail)?;

        let budget_bytes = Arc::new(AtomicU64::new(MAX_DIRECTORY_BYTES));
        let reader = BufReader::new(Metered {
            file,
            budget_bytes: Arc::clone(&budget_bytes),
        });
        let config = Config {
            archive_offset: ArchiveOffset::Known(0),
        };
        let zip = ZipArchive::with_config(config, reader).map_err(|err| {
            fail(format!(
                "the archive's directory cannot be read, as of a file of {file_bytes} bytes that was cut short: {err}; \
                 download or save it again"
            ))
        })?;
        budget_bytes.store(u64::MAX, Ordering::Relaxed);

        let (folder, entries) = read_directory(&zip, file_bytes).map_err(fail)?;
        Ok(Self {
            path: path.to_path_buf(),
            zip,
            file_bytes,
            folder,
            entries,
        })
    }

    /// Size of entry `name`, given without the top folder; `None` when there is no such entry.
    pub(super) fn size_bytes(&self, name: &str) -> Option<u64> {
        self.entries.get(name).map(|entry| entry.size_bytes)
    }

    /// Size of all entries, unpacked.
    pub(super) fn total_bytes(&self) -> u64 {
        self.entries
            .values()
            .fold(0, |sum, entry| sum.saturating_add(entry.size_bytes))
    }

    /// Bytes that have to be gone through for a range of `len_bytes` of entry `name`.
    pub(super) fn cost_bytes(&self, name: &str, len_bytes: u64) -> u64 {
        match self.entries.get(name) {
            Some(entry) if entry.deflated => entry.size_bytes,
            _ => len_bytes,
        }
    }

    /// The name of `entry` in messages.
    pub(super) fn full_name(&self, entry: &str) -> String {
        shown(&format!("{}/{entry}", self.folder))
    }

    /// Reads the whole of entry `name`, which must not be larger than `max_bytes`.
    pub(super) fn read_all(&mut self, name: &str, max_bytes: u64) -> Result<Vec<u8>> {
        let size_bytes = self.size_bytes(name).unwrap_or(0);
        if size_bytes > max_bytes {
            let cause = format!(
                "entry {} has {size_bytes} bytes, but at most {max_bytes} are read",
                self.full_name(name)
            );
            return Err(Error::file(&self.path, cause));
        }
        self.read(name, 0, size_bytes)
    }

    /// Reads `len_bytes` bytes of entry `name` from `start_byte`. The entry's checksum is checked the first
    /// time.
    pub(super) fn read(&mut self, name: &str, start_byte: u64, len_bytes: u64) -> Result<Vec<u8>> {
        self.try_read(name, start_byte, len_bytes)
            .map_err(|cause| Error::file(&self.path, format!("entry {}: {cause}", self.full_name(name))))
    }

    fn try_read(&mut self, name: &str, start_byte: u64, len_bytes: u64) -> Result<Vec<u8>, String> {
        let entry = self.entries.get_mut(name).ok_or("is not in the archive")?;
        match start_byte.checked_add(len_bytes) {
            Some(end) if end <= entry.size_bytes => {}
            _ => return Err(format!("bytes past its end at {} are needed", entry.size_bytes)),
        }
        let mut taken = Vec::new();
        let capacity = usize::try_from(len_bytes).map_err(|_| "is too large for this machine")?;
        taken
            .try_reserve_exact(capacity)
            .map_err(|_| format!("no memory for {len_bytes} bytes"))?;

        if entry.verified && !entry.deflated {
            let mut reader = self.zip.by_index_seek(entry.index).map_err(describe)?;
            reader
                .seek(SeekFrom::Start(start_byte))
                .map_err(|err| err.to_string())?;
            let got = reader
                .take(len_bytes)
                .read_to_end(&mut taken)
                .map_err(|err| err.to_string())?;
            return if got as u64 == len_bytes {
                Ok(taken)
            } else {
                Err("the file has become shorter".into())
            };
        }

        let options = ZipReadOptions::new().ignore_crc32(!entry.has_checksum);
        let mut reader = self
            .zip
            .by_index_with_options(entry.index, options)
            .map_err(describe)?;
        let end_byte = reader
            .data_start()
            .unwrap_or(u64::MAX)
            .saturating_add(reader.compressed_size());
        if end_byte > self.file_bytes {
            return Err(format!(
                "ends at byte {end_byte}, but the file has {}",
                self.file_bytes
            ));
        }
        // To its end, past the wanted bytes, for the checksum of the whole.
        let read = |err: io::Error| format!("damaged: {err}");
        let before = io::copy(&mut reader.by_ref().take(start_byte), &mut io::sink()).map_err(read)?;
        let wanted = reader
            .by_ref()
            .take(len_bytes)
            .read_to_end(&mut taken)
            .map_err(read)? as u64;
        let after = io::copy(&mut reader, &mut io::sink()).map_err(read)?;
        if before + wanted + after != entry.size_bytes {
            return Err(format!(
                "holds {} bytes, but claims {}",
                before + wanted + after,
                entry.size_bytes
            ));
        }
        entry.verified = true;
        Ok(taken)
    }
}

fn describe(err: ZipError) -> String {
    err.to_string()
}

/// Checks what every zip64 end record at the end of the file claims: the zip reader takes memory for as many
/// entries.
fn check_zip64_ends(file: &mut File, file_bytes: u64) -> Result<(), String> {
    /// Longest comment and the fixed parts of the records around it.
    const TAIL_BYTES: u64 = (1 << 16) + 256;
    /// A locator: its magic, the disk, and the offset of the record.
    const LOCATOR_MAGIC: &[u8] = b"PK\x06\x07";
    const RECORD_MAGIC: &[u8] = b"PK\x06\x06";
    /// Longest record. Nothing is known to make it longer than its 56 fixed bytes.
    const MAX_RECORD_BYTES: u64 = 1 << 12;

    let io = |err: io::Error| err.to_string();
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(file_bytes.saturating_sub(TAIL_BYTES)))
        .map_err(io)?;
    file.by_ref()
        .take(TAIL_BYTES)
        .read_to_end(&mut tail)
        .map_err(io)?;
    let u64_at = |bytes: &[u8], at: usize| {
        bytes
            .get(at..at + 8)
            .and_then(|raw| raw.try_into().ok())
            .map_or(0, u64::from_le_bytes)
    };
    for (at, _) in tail
        .windows(4)
        .enumerate()
        .filter(|(_, window)| *window == LOCATOR_MAGIC)
    {
        let mut record = Vec::new();
        file.seek(SeekFrom::Start(u64_at(&tail, at + 8)))
            .map_err(|_| "a zip64 record lies outside the file")?;
        file.by_ref().take(56).read_to_end(&mut record).map_err(io)?;
        if !record.starts_with(RECORD_MAGIC) {
            continue;
        }
        let (record_bytes, entries) = (u64_at(&record, 4), u64_at(&record, 24).max(u64_at(&record, 32)));
        if entries > MAX_ENTRIES {
            return Err(format!(
                "the archive claims {entries} entries, but at most {MAX_ENTRIES} are read"
            ));
        }
        if record_bytes > MAX_RECORD_BYTES {
            return Err(format!("the archive has an end record of {record_bytes} bytes"));
        }
    }
    Ok(())
}

/// Names the files in an archive that is not `torch.save`'s own, but one that was packed around a checkpoint or arrays.
fn refuse_packed<R: Read + Seek>(zip: &ZipArchive<R>) -> Result<(), String> {
    let ends = |name: &str, suffixes: &[&str]| {
        let name = name.to_ascii_lowercase();
        suffixes.iter().any(|suffix| name.ends_with(suffix))
    };
    if zip.file_names().flatten().any(|name| ends(&name, &["/data.pkl"])) {
        return Ok(());
    }
    for name in zip.file_names().flatten() {
        if ends(&name, &[".pth", ".pt", ".ckpt", ".bin", ".safetensors"]) {
            let name = shown(&name);
            return Err(format!(
                "is a zip archive with {name} in it; unpack it with unzip"
            ));
        }
        if ends(&name, &[".npy"]) {
            return Err(
                "is an archive of NumPy arrays (.npz); a checkpoint is a dict of tensors: \
                        torch.save({k: torch.from_numpy(v) for k, v in numpy.load(path).items()}, new_path)"
                    .into(),
            );
        }
    }
    Ok(())
}

/// Checks every entry, and returns the top folder with the entries by their names inside it.
fn read_directory<R: Read + Seek>(
    zip: &ZipArchive<R>,
    file_bytes: u64,
) -> Result<(String, HashMap<String, Entry>), String> {
    if zip.has_duplicate_names() {
        return Err("the archive has two entries of one name".into());
    }
    refuse_packed(zip)?;
    let mut folder = None;
    let mut entries = HashMap::new();
    let (mut packed_bytes, mut inflated_bytes) = (0u64, 0u64);
    for index in 0..zip.len() {
        let data = zip.by_index_data(index).map_err(describe)?;
        let name =
            std::str::from_utf8(data.name_raw()).map_err(|_| "the archive has a name that is not UTF-8")?;
        let inside = inside_folder(name, &mut folder)?;

        let (packed, size_bytes) = (data.compressed_size(), data.size());
        let name = || shown(name);
        packed_bytes = packed_bytes.saturating_add(packed);
        let deflated = match data.compression() {
            CompressionMethod::Stored if packed == size_bytes => false,
            CompressionMethod::Stored => {
                return Err(format!(
                    "entry {} is stored in {packed} bytes, but claims {size_bytes}",
                    name()
                ));
            }
            CompressionMethod::Deflated => {
                if size_bytes > packed.saturating_mul(MAX_DEFLATE_RATIO) {
                    return Err(format!(
                        "entry {} claims {size_bytes} bytes, more than its {packed} deflated ones can hold",
                        name()
                    ));
                }
                inflated_bytes = inflated_bytes.saturating_add(size_bytes);
                true
            }
            other => {
                return Err(format!(
                    "entry {} is compressed by {other:?}, which is not read",
                    name()
                ));
            }
        };
        if data.encrypted() {
            return Err(format!("entry {} is encrypted", name()));
        }
        let has_checksum = data.crc32() != 0;
        if !inside.is_empty() {
            let entry = Entry {
                index,
                size_bytes,
                deflated,
                has_checksum,
                verified: false,
            };
            entries.insert(inside.to_string(), entry);
        }
    }
    // Entries that lie over each other could make a small file stand for a large one.
    if packed_bytes > file_bytes {
        return Err(format!(
            "the entries take {packed_bytes} bytes, but the file has {file_bytes}"
        ));
    }
    let max_bytes = file_bytes
        .saturating_mul(MAX_INFLATED_RATIO)
        .saturating_add(SMALL_BYTES)
        .min(MAX_INFLATED_BYTES);
    if inflated_bytes > max_bytes {
        return Err(format!(
            "the deflated entries claim {inflated_bytes} bytes, but at most {max_bytes} are unpacked"
        ));
    }
    let folder = folder.ok_or("the archive has no entries")?;
    Ok((folder, entries))
}

/// The part of `name` below the top folder, which the first name sets; empty for the folder itself.
fn inside_folder<'a>(name: &'a str, folder: &mut Option<String>) -> Result<&'a str, String> {
    if name.len() > MAX_NAME_BYTES {
        return Err(format!("the archive has a name of {} bytes", name.len()));
    }
    let (top, inside) = name.split_once('/').ok_or_else(|| {
        format!(
            "entry {} lies in no folder, so torch.save did not write this archive",
            shown(name)
        )
    })?;
    let odd = |part: &str| part.is_empty() || part == "." || part == ".." || part.contains(['\\', '\0']);
    if odd(top) || (!inside.is_empty() && inside.trim_end_matches('/').split('/').any(odd)) {
        return Err(format!(
            "entry {} has a path that leads out of its folder",
            shown(name)
        ));
    }
    let folder = folder.get_or_insert_with(|| top.to_string());
    if folder != top {
        return Err(format!(
            "entry {} lies outside the top folder {}",
            shown(name),
            shown(folder)
        ));
    }
    Ok(inside)
}

/// A file of which only so many bytes may be read.
#[derive(Debug)]
struct Metered {
    file: File,
    budget_bytes: Arc<AtomicU64>,
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read(buffer)?;
        let left = self.budget_bytes.load(Ordering::Relaxed);
        if left < u64::MAX {
            let left = left.checked_sub(got as u64).ok_or_else(|| {
                io::Error::other(format!(
                    "the directory takes more than {MAX_DIRECTORY_BYTES} bytes"
                ))
            })?;
            self.budget_bytes.store(left, Ordering::Relaxed);
        }
        Ok(got)
    }
}

impl Seek for Metered {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}
