//! Writing a checkpoint that PyTorch reads.

use crate::checkpoint::pickle::{TensorEntry, shown, write_state_dict};
use crate::error::{Error, Result};
use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Alignment of a storage in the file, as PyTorch writes it for mapping.
const ALIGNMENT_BYTES: u16 = 64;

/// Entries from this size on need the zip64 fields.
const LARGE_BYTES: u64 = u32::MAX as u64;

/// Bytes of a tensor that are converted at a time.
const CHUNK_BYTES: usize = 1 << 16;

/// Writes `tensors` to `path` as `torch.save` writes a dict of them: contiguous, on the CPU, each with a
/// storage of its own, in the order given. The file is written beside `path` and then takes its place, so
/// that `path` never holds half a checkpoint.
///
/// # Errors
/// [`Error::Tensor`] for a name given twice or a type that PyTorch's storages lack (`U32` and the small
/// floats), [`Error::Candle`] when a tensor cannot be brought to the CPU, [`Error::File`] when the file
/// cannot be written.
pub fn write<'a, N: AsRef<str>>(
    path: &Path,
    tensors: impl IntoIterator<Item = (N, &'a Tensor)>,
) -> Result<()> {
    let tensors: Vec<(N, &Tensor)> = tensors.into_iter().collect();
    let mut names = HashSet::new();
    let mut entries = Vec::with_capacity(tensors.len());
    for (index, (name, tensor)) in tensors.iter().enumerate() {
        let name = name.as_ref();
        if !names.insert(name) {
            return Err(Error::tensor(shown(name), "is given twice"));
        }
        let storage_class = storage_class(tensor.dtype()).ok_or_else(|| {
            Error::tensor(
                shown(name),
                format!(
                    "elements of {} cannot be written to a .pth",
                    tensor.dtype().as_str()
                ),
            )
        })?;
        entries.push(TensorEntry {
            name,
            storage_class,
            key: index.to_string(),
            shape: tensor.dims(),
        });
    }
    let pickle = write_state_dict(&entries).map_err(|cause| Error::file(path, cause))?;

    let fail = |err: io::Error| Error::file(path, format!("cannot be written: {err}"));
    let (part, file) = create_beside(path).map_err(fail)?;
    let written = write_archive(file, &pickle, tensors.iter().map(|(_, tensor)| *tensor));
    let moved = written.and_then(|()| fs::rename(&part, path).map_err(Failure::Io));
    moved.map_err(|failure| {
        // The first failure is what the user needs to know.
        let _ = fs::remove_file(&part);
        match failure {
            Failure::Io(err) => fail(err),
            Failure::Candle(err) => err.into(),
        }
    })
}

enum Failure {
    Io(io::Error),
    Candle(candle_core::Error),
}

impl From<io::Error> for Failure {
    fn from(err: io::Error) -> Self {
        Failure::Io(err)
    }
}

impl From<zip::result::ZipError> for Failure {
    fn from(err: zip::result::ZipError) -> Self {
        Failure::Io(err.into())
    }
}

impl From<candle_core::Error> for Failure {
    fn from(err: candle_core::Error) -> Self {
        Failure::Candle(err)
    }
}

fn write_archive<'a>(
    file: File,
    pickle: &[u8],
    tensors: impl Iterator<Item = &'a Tensor>,
) -> Result<(), Failure> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .with_alignment(ALIGNMENT_BYTES);
    let mut zip = ZipWriter::new(Quiet::new(BufWriter::new(file)));
    zip.start_file("archive/data.pkl", options)?;
    zip.write_all(pickle)?;
    zip.start_file("archive/byteorder", options)?;
    zip.write_all(b"little")?;
    for (index, tensor) in tensors.enumerate() {
        let size_bytes = (tensor.elem_count() as u64).saturating_mul(tensor.dtype().size_in_bytes() as u64);
        zip.start_file(
            format!("archive/data/{index}"),
            options.large_file(size_bytes >= LARGE_BYTES),
        )?;
        write_tensor(&mut zip, tensor)?;
    }
    zip.start_file("archive/version", options)?;
    zip.write_all(b"3\n")?;
    let file = zip
        .finish()?
        .inner
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    Ok(file.sync_all()?)
}

/// A writer that reports its first failure and then takes all that comes. A `ZipWriter` that is given up tries to
/// finish the archive, and prints when it cannot; by then the failure has been reported.
struct Quiet<W> {
    inner: W,
    failed: bool,
    /// What a writer that still worked would answer.
    position: u64,
}

impl<W> Quiet<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            failed: false,
            position: 0,
        }
    }

    fn noted<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        self.failed |= result
            .as_ref()
            .is_err_and(|err| err.kind() != io::ErrorKind::Interrupted);
        result
    }
}

impl<W: Write> Write for Quiet<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = if self.failed {
            bytes.len()
        } else {
            let written = self.inner.write(bytes);
            self.noted(written)?
        };
        self.position = self.position.saturating_add(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.failed {
            return Ok(());
        }
        let flushed = self.inner.flush();
        self.noted(flushed)
    }
}

impl<W: Seek> Seek for Quiet<W> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = if self.failed {
            match to {
                SeekFrom::Start(position) => position,
                SeekFrom::Current(by) | SeekFrom::End(by) => self.position.saturating_add_signed(by),
            }
        } else {
            let position = self.inner.seek(to);
            self.noted(position)?
        };
        Ok(self.position)
    }
}

fn write_tensor(out: &mut impl Write, tensor: &Tensor) -> Result<(), Failure> {
    let tensor = tensor.to_device(&Device::Cpu)?.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let range = layout.start_offset()..layout.start_offset() + layout.shape().elem_count();
    let Storage::Cpu(storage) = &*storage else {
        return Err(candle_core::Error::Msg("a tensor did not come to the CPU".into()).into());
    };
    match storage {
        CpuStorage::U8(values) => write_elements(out, values.get(range), |value| value.to_le_bytes()),
        CpuStorage::I16(values) => write_elements(out, values.get(range), |value| value.to_le_bytes()),
        CpuStorage::I32(values) => write_elements(out, values.get(range), |value| value.to_le_bytes()),
        CpuStorage::I64(values) => write_elements(out, values.get(range), |value| value.to_le_bytes()),
        CpuStorage::BF16(values) => write_elements(out, values.get(range), |value| value.to_le_bytes()),
        CpuStorage::F16(values) => write_elements(out, values.get(range), |value| value.to_le_bytes()),
        CpuStorage::F32(values) => write_elements(out, values.get(range), |value| value.to_le_bytes()),
        CpuStorage::F64(values) => write_elements(out, values.get(range), |value| value.to_le_bytes()),
        _ => Err(io::Error::other("a type without a storage class")),
    }?;
    Ok(())
}

fn write_elements<T: Copy, const N: usize>(
    out: &mut impl Write,
    values: Option<&[T]>,
    encode: impl Fn(T) -> [u8; N],
) -> io::Result<()> {
    let values = values.ok_or_else(|| io::Error::other("a tensor reaches past its storage"))?;
    let mut bytes = Vec::with_capacity(CHUNK_BYTES);
    for chunk in values.chunks(CHUNK_BYTES / N.max(1)) {
        bytes.clear();
        bytes.extend(chunk.iter().flat_map(|&value| encode(value)));
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// The storage class of PyTorch for `dtype`; `None` where there is none.
fn storage_class(dtype: DType) -> Option<&'static str> {
    match dtype {
        DType::U8 => Some("ByteStorage"),
        DType::I16 => Some("ShortStorage"),
        DType::I32 => Some("IntStorage"),
        DType::I64 => Some("LongStorage"),
        DType::BF16 => Some("BFloat16Storage"),
        DType::F16 => Some("HalfStorage"),
        DType::F32 => Some("FloatStorage"),
        DType::F64 => Some("DoubleStorage"),
        _ => None,
    }
}

/// A new file in the folder of `path`, named after it.
fn create_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    /// Leftovers of killed programs that are stepped over.
    const ATTEMPTS: u32 = 100;
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::other("the path has no file name"))?;
    for attempt in 0..ATTEMPTS {
        let mut part = std::ffi::OsString::from(".");
        part.push(name);
        part.push(format!(".{}-{attempt}.part", std::process::id()));
        let part = path.with_file_name(part);
        match File::create_new(&part) {
            Ok(file) => return Ok((part, file)),
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
            Err(err) => return Err(err),
        }
    }
    Err(io::Error::other("too many unfinished files beside it"))
}
