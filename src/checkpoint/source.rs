//! A checkpoint as people have it: `.pth` or safetensors, told apart by content, under canonical names.

use super::names;
use super::pth::PthFile;
use super::regular_file;
use super::weights::Weights;
use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, tensor::Metadata};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Longest header of a safetensors file that is read, in bytes; the format's own software has the same bound.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Reads every tensor of a `.pth` or safetensors file, in its own type, under canonical names.
///
/// # Errors
/// A file that is neither, is broken, or holds two tensors of one canonical name.
pub fn read(path: &Path) -> Result<Weights> {
    let mut weights = Weights::default();
    let mut add = |key: &str, tensor: Tensor| {
        let name = names::canonical(key);
        if weights.get(&name).is_some() {
            return Err(Error::file(path, format!("tensor {key}: {name} is there twice")));
        }
        weights.insert(name, tensor);
        Ok(())
    };
    if is_zip(path)? {
        let file = PthFile::open(path)?;
        for key in file.tensors().keys() {
            add(key, file.read(key)?)?;
        }
    } else {
        let mut file = SafetensorsFile::open(path)?;
        for key in file.names() {
            add(&key, file.read(&key)?)?;
        }
    }
    Ok(weights)
}

/// SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// A file that cannot be read.
pub fn sha256(path: &Path) -> Result<String> {
    let (mut file, _) = regular_file::open(path)?;
    let mut digest = Sha256::new();
    std::io::copy(&mut file, &mut digest).map_err(|e| Error::file(path, e))?;
    Ok(hex(&digest.finalize()))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether to treat the file as torch's: a zip archive, or named as one. A `.pth` that is no archive then gets
/// the error that fits its name.
fn is_zip(path: &Path) -> Result<bool> {
    let (mut file, _) = regular_file::open(path)?;
    let mut start = [0u8; 4];
    let zip = match file.read_exact(&mut start) {
        Ok(()) => start == *b"PK\x03\x04",
        Err(_) => false,
    };
    let named = path
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("pth") || e.eq_ignore_ascii_case("pt"));
    Ok(zip || named)
}

/// An open safetensors file whose header has been checked against the file's length; tensors are read one by one.
pub struct SafetensorsFile {
    path: std::path::PathBuf,
    file: File,
    metadata: Metadata,
    /// Bytes of the whole file, as its header describes them.
    length: u64,
    data_start: u64,
}

impl SafetensorsFile {
    /// Reads and checks the header.
    ///
    /// # Errors
    /// A file that is empty, no safetensors, truncated, or whose header lies about lengths.
    pub fn open(path: &Path) -> Result<Self> {
        let wrong = |cause: String| Error::file(path, cause);
        let (mut file, length) = regular_file::open(path)?;
        let mut start = [0u8; 8];
        file.read_exact(&mut start)
            .map_err(|_| wrong(format!("{length} bytes are too few for a safetensors file")))?;
        let header = u64::from_le_bytes(start);
        if header > MAX_HEADER_BYTES || header > length.saturating_sub(8) {
            let cause =
                format!("not a safetensors file: its header would be {header} bytes, the file has {length}");
            return Err(wrong(cause));
        }
        // Both bounds hold, so the header fits into memory and usize.
        let mut bytes = vec![0u8; 8 + header as usize];
        bytes[..8].copy_from_slice(&start);
        file.read_exact(&mut bytes[8..])
            .map_err(|e| wrong(e.to_string()))?;
        let metadata: Metadata =
            serde_json::from_slice(&bytes[8..]).map_err(|e| wrong(format!("safetensors header: {e}")))?;
        let data = covered(&metadata).map_err(&wrong)?;
        let described = (8 + header).checked_add(data);
        if described != Some(length) {
            let cause = format!(
                "truncated or padded: the header describes {data} bytes of data, {} are there",
                length - 8 - header
            );
            return Err(wrong(cause));
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            metadata,
            length,
            data_start: 8 + header,
        })
    }

    /// All bytes of the file, header included.
    ///
    /// # Errors
    /// More than `max_bytes`, or a read that fails.
    pub(crate) fn into_bytes(self, max_bytes: u64) -> Result<Vec<u8>> {
        regular_file::read(&self.path, self.file, self.length, max_bytes)
    }

    /// The header's free text under `key`.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.metadata.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.metadata.tensors().into_keys().collect();
        names.sort();
        names
    }

    /// Type and shape of a tensor.
    pub fn info(&self, name: &str) -> Option<(Dtype, &[usize])> {
        self.metadata
            .info(name)
            .map(|info| (info.dtype, info.shape.as_slice()))
    }

    /// The bytes of a tensor as they stand in the file.
    ///
    /// # Errors
    /// An unknown name or a read that fails.
    pub fn read_bytes(&mut self, name: &str) -> Result<Vec<u8>> {
        let info = self.metadata.info(name);
        let (start, end) = info
            .map(|i| i.data_offsets)
            .ok_or_else(|| Error::tensor(name, "it is not in the file"))?;
        let mut bytes = vec![0u8; end - start];
        let read = self.file.seek(SeekFrom::Start(self.data_start + start as u64));
        read.and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(|e| Error::file(&self.path, format!("tensor {name}: {e}")))?;
        Ok(bytes)
    }

    /// A tensor in its own type, on the CPU.
    ///
    /// # Errors
    /// An unknown name, a type that Candle lacks, or a read that fails.
    pub fn read(&mut self, name: &str) -> Result<Tensor> {
        let (dtype, shape) = self
            .info(name)
            .ok_or_else(|| Error::tensor(name, "it is not in the file"))?;
        let shape = shape.to_vec();
        let dtype = DType::try_from(dtype).map_err(|_| {
            Error::file(
                &self.path,
                format!("tensor {name}: the type {dtype:?} is not supported"),
            )
        })?;
        let bytes = self.read_bytes(name)?;
        Ok(Tensor::from_raw_buffer(&bytes, dtype, &shape, &Device::Cpu)?)
    }
}

/// Bytes of data that the tensors cover, after checking that they lie side by side without gap or overlap and that
/// each is as long as its type and shape say.
fn covered(metadata: &Metadata) -> std::result::Result<u64, String> {
    let mut tensors: Vec<_> = metadata.tensors().into_iter().collect();
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let mut end = 0usize;
    for (name, info) in tensors {
        let (start, stop) = info.data_offsets;
        if start != end || stop < start {
            return Err(format!(
                "tensor {name}: its data lies at {start}..{stop}, {end} was expected"
            ));
        }
        let bits = info
            .shape
            .iter()
            .try_fold(info.dtype.bitsize(), |bits, &length| bits.checked_mul(length));
        if bits != (stop - start).checked_mul(8) {
            let (dtype, shape) = (info.dtype, &info.shape);
            return Err(format!(
                "tensor {name}: {} bytes do not hold {dtype:?} {shape:?}",
                stop - start
            ));
        }
        end = stop;
    }
    Ok(end as u64)
}
