//! A checkpoint as people have it: a file of `torch.save` or safetensors, told apart by content, under canonical names.

use super::format::{self, Format, MAX_HEADER_BYTES};
use super::kind::Kind;
use super::names;
use super::pickle::shown;
use super::pth::PthFile;
use super::regular_file;
use super::select::{self, Candidate, Place, Selection};
use super::weights::Weights;
use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, tensor::Metadata};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Reads every tensor of a checkpoint, in its own type, under canonical names. Where SAM's part lies apart, as in a whole
/// MA-SAM model, MA-SAM's own weights take the place of SAM's.
///
/// # Errors
/// A file that is neither, is broken, holds several state dicts, or two tensors of one canonical name.
pub fn read(path: &Path) -> Result<Weights> {
    let (own, sam) = Checkpoint::open(path, &Selection::Usual)?.read()?;
    let mut weights = sam.unwrap_or_default();
    for (name, tensor) in own.iter() {
        weights.insert(name, tensor.clone());
    }
    Ok(weights)
}

/// An opened checkpoint: names and shapes are known, weights are not read.
pub struct Checkpoint {
    file: Container,
    /// Place, canonical name and name in the file of every tensor.
    tensors: Vec<(Place, String, String)>,
    kind: Kind,
    taken: Option<String>,
    others: Vec<Candidate>,
}

enum Container {
    Pth(PthFile),
    Safetensors(SafetensorsFile),
}

impl Checkpoint {
    /// Opens the checkpoint at `path`, whatever its name.
    ///
    /// # Errors
    /// [`Error::File`] for what is no checkpoint, saying what it is, for one that is broken, and for a choice among its
    /// state dicts that it does not have or that is needed.
    pub fn open(path: &Path, selection: &Selection) -> Result<Self> {
        let (file, places, taken, others) = match format::of(path)? {
            Format::Safetensors => {
                let file = SafetensorsFile::open(path)?;
                let keys = file.names();
                let paths = keys.iter().zip(0..).map(|(key, at)| (key.as_str(), at));
                let chosen = select::choose(paths, selection).map_err(|cause| Error::file(path, cause))?;
                let place = |key: &str| chosen.as_ref().map_or(Place::Beside, |chosen| chosen.place(key));
                let places: Vec<(Place, String)> = keys.iter().map(|key| (place(key), key.clone())).collect();
                let prefix = chosen.as_ref().map(|chosen| chosen.prefix.trim_end_matches('.'));
                let taken = prefix.filter(|prefix| !prefix.is_empty()).map(str::to_owned);
                let others = chosen.map(|chosen| chosen.others).unwrap_or_default();
                (Container::Safetensors(file), places, taken, others)
            }
            Format::Zip | Format::Legacy | Format::Pickle => {
                let file = PthFile::open_selected(path, selection)?;
                let places = file
                    .tensors()
                    .iter()
                    .map(|(key, info)| (info.place(), key.clone()));
                let places: Vec<(Place, String)> = places.collect();
                let (taken, others) = (file.nested_under().map(str::to_owned), file.others().to_vec());
                (Container::Pth(file), places, taken, others)
            }
        };
        let mut names: BTreeMap<(bool, String), String> = BTreeMap::new();
        let mut tensors = Vec::new();
        for (place, key) in places.into_iter().filter(|(place, _)| *place != Place::Elsewhere) {
            let name = names::canonical(&key);
            if let Some(first) = names.insert((place == Place::Sam, name.clone()), key.clone()) {
                let cause = format!(
                    "tensor {}: {} is there twice, as {} too",
                    shown(&key),
                    shown(&name),
                    shown(&first)
                );
                return Err(Error::file(path, cause));
            }
            tensors.push((place, name, key));
        }
        let mut checkpoint = Self {
            file,
            tensors,
            kind: Kind::Masam,
            taken,
            others,
        };
        let names = checkpoint.tensors.iter().map(|(_, name, _)| name.as_str());
        checkpoint.kind = Kind::of(names, |name| checkpoint.shape(name));
        Ok(checkpoint)
    }

    /// What its weights are.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The keys that the weights lie under, joined by dots; `None` where they are the whole checkpoint.
    pub fn taken(&self) -> Option<&str> {
        self.taken.as_deref()
    }

    /// The state dicts that are not read.
    pub fn others(&self) -> &[Candidate] {
        &self.others
    }

    /// Number of tensors that are read.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether it holds no tensors.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Canonical names in the order of the file; a whole model may have one twice, MA-SAM's and SAM's.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.iter().map(|(_, name, _)| name.as_str())
    }

    /// Shape of the tensor of that canonical name, MA-SAM's before SAM's.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let found = self.tensors.iter().filter(|(_, canonical, _)| canonical == name);
        let (_, _, key) = found.min_by_key(|(place, ..)| *place == Place::Sam)?;
        match &self.file {
            Container::Pth(file) => Some(file.tensors().get(key)?.shape().to_vec()),
            Container::Safetensors(file) => file.info(key).map(|(_, shape)| shape.to_vec()),
        }
    }

    /// The text of a safetensors file's metadata under `key`.
    pub fn text(&self, key: &str) -> Option<&str> {
        match &self.file {
            Container::Pth(_) => None,
            Container::Safetensors(file) => file.text(key),
        }
    }

    /// Reads all tensors; SAM's apart where they lie apart.
    ///
    /// # Errors
    /// A tensor that is damaged or of a type that Candle lacks.
    pub fn read(mut self) -> Result<(Weights, Option<Weights>)> {
        let (mut own, mut sam) = (Weights::default(), None::<Weights>);
        for (place, name, key) in &self.tensors {
            let tensor = match &mut self.file {
                Container::Pth(file) => file.read(key)?,
                Container::Safetensors(file) => file.read(key)?,
            };
            match place {
                Place::Sam => sam.get_or_insert_default().insert(name, tensor),
                _ => own.insert(name, tensor),
            }
        }
        Ok((own, sam))
    }
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
        if format::of(path)? != Format::Safetensors {
            return Err(wrong(
                "is a file of torch.save or a pickle, not a safetensors file".into(),
            ));
        }
        let (mut file, length) = regular_file::open(path)?;
        let mut start = [0u8; 8];
        file.read_exact(&mut start).map_err(|e| wrong(e.to_string()))?;
        let header = u64::from_le_bytes(start);
        if header > MAX_HEADER_BYTES || header > length.saturating_sub(8) {
            let cause = format!(
                "is cut short: its header has {header} bytes, the file {length}; download or save it again"
            );
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
            let there = length - 8 - header;
            let cause = format!(
                "truncated or padded: the header describes {data} bytes of data, {there} are there; download or save it again"
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
