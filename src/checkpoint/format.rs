//! What kind of file weights lie in, told by its content; its name counts for nothing.

use super::pickle::shown;
use super::regular_file;
use crate::error::{Error, Result};
use std::io::Read;
use std::path::Path;

/// Bytes that are looked at. A tar archive shows itself at byte 257.
const LOOKED_AT: u64 = 1024;

/// First bytes of an entry of a zip archive.
const ZIP_MAGIC: &[u8] = b"PK\x03\x04";

/// The ten-byte number with which the format before PyTorch 1.6 begins, as every protocol from 2 on writes it.
const LEGACY_MAGIC: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";

/// First bytes of the text that Git LFS leaves in place of a file that was not fetched.
const LFS_MAGIC: &[u8] = b"version https://git-lfs";

/// Longest header of a safetensors file that is read, in bytes; the format's own software has the same bound.
pub(super) const MAX_HEADER_BYTES: u64 = 100_000_000;

/// A file that may hold weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// A zip archive, as `torch.save` writes since PyTorch 1.6.
    Zip,
    /// Pickles and storages one after the other, as `torch.save` wrote before.
    Legacy,
    /// A pickle and nothing else, as Python's own module writes.
    Pickle,
    /// A safetensors file, whole or cut short.
    Safetensors,
}

/// Files that weights are packed into or mistaken for, by their first bytes: what each is, and the cure.
const OTHERS: [(&[u8], &str, &str); 11] = [
    (b"\x1f\x8b", "is compressed by gzip", "unpack it: gunzip FILE"),
    (b"BZh", "is compressed by bzip2", "unpack it: bunzip2 FILE"),
    (b"\xfd7zXZ\0", "is compressed by xz", "unpack it: unxz FILE"),
    (
        b"\x28\xb5\x2f\xfd",
        "is compressed by Zstandard",
        "unpack it: unzstd FILE",
    ),
    (
        b"7z\xbc\xaf\x27\x1c",
        "is a 7-Zip archive",
        "unpack it: 7z x FILE",
    ),
    (b"Rar!\x1a\x07", "is a RAR archive", "unpack it: unrar x FILE"),
    (
        b"\x89HDF\r\n\x1a\n",
        "is an HDF5 file, as Keras writes weights",
        "MA-SAM's weights are PyTorch's or safetensors",
    ),
    (
        b"\x93NUMPY",
        "is a single NumPy array",
        "a checkpoint is a dict of tensors, saved by torch.save",
    ),
    (
        b"GGUF",
        "is a GGUF file, as language models come in",
        "MA-SAM's weights are PyTorch's or safetensors",
    ),
    (
        b"PK\x05\x06",
        "is an empty zip archive, not the zip archive that torch.save writes",
        "download it again",
    ),
    (
        b"PK\x07\x08",
        "is a part of a split zip archive",
        "join its parts and unpack them",
    ),
];

/// Tells what the regular file at `path` is.
///
/// # Errors
/// [`Error::File`] for a file that cannot be read or holds no weights, with what it is and the cure.
pub(crate) fn of(path: &Path) -> Result<Format> {
    let (file, length) = regular_file::open(path)?;
    let mut start = Vec::new();
    file.take(LOOKED_AT)
        .read_to_end(&mut start)
        .map_err(|err| Error::file(path, err))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    of_bytes(&start, length).map_err(|cause| Error::file(path, cause.replace("FILE", &name)))
}

/// The same from the first bytes of a file of `length`.
fn of_bytes(start: &[u8], length: u64) -> Result<Format, String> {
    if start.is_empty() {
        return Err("the file is empty; download or save it again".into());
    }
    if start.starts_with(ZIP_MAGIC) {
        return Ok(Format::Zip);
    }
    // Before a pickle: the first byte is the lowest of the header's length, and may be any.
    if let Some((header, [b'{', ..])) = start.split_first_chunk::<8>()
        && (2..=MAX_HEADER_BYTES).contains(&u64::from_le_bytes(*header))
    {
        return Ok(Format::Safetensors);
    }
    if start.first() == Some(&0x80) {
        let head = start.get(..32).unwrap_or(start);
        let legacy = head
            .windows(LEGACY_MAGIC.len())
            .any(|window| window == LEGACY_MAGIC);
        return Ok(if legacy { Format::Legacy } else { Format::Pickle });
    }
    if let Some((_, what, cure)) = OTHERS.iter().find(|(magic, ..)| start.starts_with(magic)) {
        return Err(format!("{what}; {cure}"));
    }
    if start.starts_with(LFS_MAGIC) {
        let text = String::from_utf8_lossy(start);
        let size = text.lines().find_map(|line| line.strip_prefix("size "));
        let size = size.map_or_else(String::new, |bytes| format!(" of {} bytes", shown(bytes)));
        return Err(format!(
            "is a Git LFS pointer, a text that stands for the file{size}; fetch the file itself: git lfs pull"
        ));
    }
    if start.get(257..262) == Some(b"ustar") {
        return Err("is a tar archive, as PyTorch wrote before 0.1.10, or with a checkpoint in it; unpack it with \
                    tar xf FILE, or load it with PyTorch and save it again: torch.save(torch.load(path), new_path)"
            .into());
    }
    let text = String::from_utf8_lossy(start);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let lower = text
        .get(..text.len().min(256))
        .unwrap_or(text)
        .to_ascii_lowercase();
    if ["<!doctype", "<html", "<head", "<?xml", "<error", "<script"]
        .iter()
        .any(|tag| lower.starts_with(tag))
    {
        return Err(
            "is a web page, as a download leaves that needs a login or a confirmation; download the file \
                    itself and compare its size"
                .into(),
        );
    }
    let begins = shown(&String::from_utf8_lossy(start.get(..16).unwrap_or(start)));
    if text.starts_with(['{', '[']) {
        return Err(format!(
            "is JSON text, which begins with \"{begins}\"; weights are a .pth or .safetensors file"
        ));
    }
    Err(format!(
        "is neither a file of torch.save nor safetensors: its {length} bytes begin with \"{begins}\"; download or \
         save it again"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_tells_what_a_file_is() {
        let of = |bytes: &[u8]| of_bytes(bytes, bytes.len() as u64);
        assert_eq!(of(b"PK\x03\x04rest"), Ok(Format::Zip));
        assert_eq!(
            of(&[b"\x80\x02", LEGACY_MAGIC, b"."].concat()),
            Ok(Format::Legacy)
        );
        assert_eq!(
            of(&[b"\x80\x04\x95\x0d\0\0\0\0\0\0\0", LEGACY_MAGIC, b"."].concat()),
            Ok(Format::Legacy)
        );
        assert_eq!(of(b"\x80\x04}."), Ok(Format::Pickle));
        assert_eq!(of(b"\x30\0\0\0\0\0\0\0{\"a\":"), Ok(Format::Safetensors));
        // Lengths of a header whose lowest byte begins a pickle, or a compressed file.
        assert_eq!(of(b"\x80\x71\0\0\0\0\0\0{\"a\":"), Ok(Format::Safetensors));
        assert_eq!(of(b"\x1f\x8b\0\0\0\0\0\0{\"a\":"), Ok(Format::Safetensors));
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        for (bytes, what, cure) in [
            (&b""[..], "empty", "again"),
            (b"\xef\xbb\xbf\n<!DOCTYPE html><html>", "web page", "download"),
            (b"<?xml version='1.0'?><Error>", "web page", "download"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 2564550879\n",
                "Git LFS pointer, a text that stands for the file of 2564550879 bytes",
                "git lfs pull",
            ),
            (b"\x1f\x8b\x08\0", "gzip", "gunzip"),
            (b"BZh91AY", "bzip2", "bunzip2"),
            (b"\xfd7zXZ\0\0", "xz", "unxz"),
            (b"\x89HDF\r\n\x1a\n", "HDF5", "PyTorch"),
            (b"\x93NUMPY\x01", "NumPy", "torch.save"),
            (&tar, "tar archive", "tar xf"),
            (b"{\"message\": \"Not Found\"}", "JSON", ".pth"),
            (b"\x08\x07\x12\x07pytorch", "neither", "again"),
            (b"\x1b[2J", "\\u{1b}[2J", "again"),
            (b"\0\0\0\0\0\0\0\0{", "neither", "again"),
            (b"\0\0\0\0\0\0\0\x80{}", "neither", "again"),
        ] {
            let error = of(bytes).unwrap_err();
            assert!(error.contains(what) && error.contains(cure), "{error}");
        }
    }
}
