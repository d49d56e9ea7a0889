//! Our model file: one safetensors file with the weights under canonical names and the model card in its metadata.
//!
//! | metadata key | value |
//! |---|---|
//! | `masam` | the [`ModelCard`] as JSON |
//! | `masam_sha256` | SHA-256 over the card's text and over name, type, shape and bytes of every tensor, by name |
//!
//! The checksum makes a flipped bit an error instead of a wrong mask.

use super::card::ModelCard;
use super::format::{self, Format};
use super::select::Selection;
use super::source::{Checkpoint, SafetensorsFile, hex};
use super::weights::{Weights, misfit};
use crate::error::{Error, Result};
use candle_core::{DType, Tensor};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

const CARD_KEY: &str = "masam";
const CHECKSUM_KEY: &str = "masam_sha256";

/// A model as it stands on disk: card and weights.
#[derive(Debug, Clone)]
pub struct ModelFile {
    /// Everything but the weights.
    pub card: ModelCard,
    /// Complete, finite, in the type they were stored in.
    pub weights: Weights,
}

/// Type that weights are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// Four bytes a weight, exact.
    #[default]
    F32,
    /// Two bytes a weight, rounded to 11 significant bits.
    F16,
}

/// What comes before the weights, checked against the file's length and the configuration.
fn open(path: &Path) -> Result<(SafetensorsFile, ModelCard, String)> {
    if format::of(path)? != Format::Safetensors {
        return Err(not_a_model(path));
    }
    let file = SafetensorsFile::open(path)?;
    let text = file
        .text(CARD_KEY)
        .map(str::to_owned)
        .ok_or_else(|| not_a_model(path))?;
    let card: ModelCard =
        serde_json::from_str(&text).map_err(|e| Error::file(path, format!("metadata `{CARD_KEY}`: {e}")))?;
    card.validate()
        .map_err(|e| Error::file(path, format!("metadata `{CARD_KEY}`: {e}")))?;
    let names = file.names();
    let infos = names
        .iter()
        .filter_map(|n| file.info(n).map(|(dtype, shape)| (n.as_str(), dtype, shape)));
    for (name, dtype, _) in infos.clone() {
        if !matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(Error::file(
                path,
                format!("tensor {name}: its type {dtype:?} is no float of 16 or 32 bits"),
            ));
        }
    }
    misfit(&card.model, infos.map(|(name, _, shape)| (name, shape))).map_err(|e| Error::file(path, e))?;
    Ok((file, card, text))
}

/// What the checkpoint at `path` is, which is no model file, and the command that takes it.
fn not_a_model(path: &Path) -> Error {
    match Checkpoint::open(path, &Selection::Usual) {
        Ok(checkpoint) => {
            let kind = checkpoint.kind();
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            let cure = kind.cure().replace("FILE", &file);
            Error::file(path, format!("is {kind}, not a masam model file; {cure}"))
        }
        // It cannot be read as a checkpoint either, and says why.
        Err(error) => error,
    }
}

/// Whether the checkpoint is a model file of ours.
pub fn is_model_file(checkpoint: &Checkpoint) -> bool {
    checkpoint.text(CARD_KEY).is_some()
}

impl ModelFile {
    /// How its weights are stored: in half precision only where all of them are.
    pub fn storage(&self) -> Storage {
        match self
            .weights
            .iter()
            .all(|(_, tensor)| tensor.dtype() == DType::F16)
        {
            true => Storage::F16,
            false => Storage::F32,
        }
    }

    /// Reads the card and checks names, types and shapes, without reading weights.
    ///
    /// # Errors
    /// As [`ModelFile::read`], but for what only the weights' bytes can show.
    pub fn read_card(path: &Path) -> Result<ModelCard> {
        open(path).map(|(_, card, _)| card)
    }

    /// Reads and checks a whole model.
    ///
    /// # Errors
    /// [`Error::File`] naming the path and the cause: truncated, not ours, another version, weights missing, extra or
    /// misshapen (all at once), a value that is not finite, or bytes that do not match their checksum.
    pub fn read(path: &Path) -> Result<Self> {
        let (mut file, card, text) = open(path)?;
        let wanted = file
            .text(CHECKSUM_KEY)
            .map(str::to_owned)
            .ok_or_else(|| Error::file(path, format!("no metadata `{CHECKSUM_KEY}`")))?;
        let mut checksum = Checksum::new(&text);
        let mut weights = Weights::default();
        for name in file.names() {
            let (dtype, shape) = match file.info(&name) {
                Some((dtype, shape)) => (dtype, shape.to_vec()),
                None => continue,
            };
            let bytes = file.read_bytes(&name)?;
            checksum.add(&name, dtype, &shape, &bytes);
            let candle = DType::try_from(dtype)?;
            let tensor = Tensor::from_raw_buffer(&bytes, candle, &shape, &candle_core::Device::Cpu)?;
            super::weights::check_finite(&name, &tensor).map_err(|e| Error::file(path, e))?;
            weights.insert(name, tensor);
        }
        let found = checksum.finish();
        if found != wanted {
            let cause = format!("damaged: its checksum is {found}, {wanted} was written");
            return Err(Error::file(path, cause));
        }
        Ok(Self { card, weights })
    }

    /// Writes the file beside its destination and renames it, so that a full disk leaves no half model.
    ///
    /// # Errors
    /// Weights that do not fit the card, or a file that cannot be written.
    pub fn write(&self, path: &Path, storage: Storage) -> Result<()> {
        self.card.validate()?;
        self.weights.check_fit(&self.card.model)?;
        self.weights.check_finite()?;
        let text = serde_json::to_string(&self.card).map_err(|e| Error::file(path, e))?;
        let dtype = match storage {
            Storage::F32 => DType::F32,
            Storage::F16 => DType::F16,
        };
        let mut checksum = Checksum::new(&text);
        let mut stored = Weights::default();
        for (name, tensor) in self.weights.iter() {
            let tensor = tensor.to_dtype(dtype)?;
            let bytes = little_endian(&tensor)?;
            checksum.add(name, Dtype::from_candle(dtype), tensor.dims(), &bytes);
            stored.insert(name, tensor);
        }
        let metadata = HashMap::from([
            (CARD_KEY.to_owned(), text),
            (CHECKSUM_KEY.to_owned(), checksum.finish()),
        ]);
        write_tensors(path, &stored, metadata)
    }
}

/// Writes tensors of 16 or 32 bits as safetensors, beside `path` first and then in its place.
///
/// # Errors
/// A file that cannot be written; what was there is left as it was.
pub(crate) fn write_tensors(path: &Path, tensors: &Weights, metadata: HashMap<String, String>) -> Result<()> {
    let parts = tensors
        .iter()
        .map(|(name, tensor)| {
            Ok((
                name,
                Dtype::from_candle(tensor.dtype()),
                tensor.dims().to_vec(),
                little_endian(tensor)?,
            ))
        })
        .collect::<Result<Vec<_>>>()?;
    let views = parts
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            let view = TensorView::new(*dtype, shape.clone(), bytes);
            view.map(|v| (name.as_str(), v))
                .map_err(|e| Error::tensor(*name, e))
        })
        .collect::<Result<Vec<_>>>()?;
    let mut bytes = safetensors::serialize(views, Some(metadata)).map_err(|e| Error::file(path, e))?;
    sort_header(&mut bytes).map_err(|e| Error::file(path, e))?;
    replace(path, &bytes).map_err(|e| Error::file(path, e))
}

/// Puts the keys of a safetensors file's header in order: the library writes the metadata in an order drawn by chance,
/// and the same content is to be the same bytes. In place: the tensors behind it may be gigabytes.
fn sort_header(file: &mut [u8]) -> Result<(), Box<dyn std::error::Error>> {
    let (length, rest) = file.split_first_chunk_mut::<8>().ok_or("no header")?;
    let length = usize::try_from(u64::from_le_bytes(*length))?;
    let place = rest.get_mut(..length).ok_or("no header")?;
    let header: BTreeMap<String, BTreeMap<String, serde_json::Value>> = serde_json::from_slice(place)?;
    let sorted = serde_json::to_vec(&header)?;
    let (text, padding) = place
        .split_at_mut_checked(sorted.len())
        .ok_or("a longer header")?;
    text.copy_from_slice(&sorted);
    padding.fill(b' ');
    Ok(())
}

/// Writes `bytes` to a neighbour of `path`, flushes it to the disk and renames it.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let written = std::fs::File::create(&part)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&part, path));
    if written.is_err() {
        // The error that matters is the first; the part may not even exist.
        let _ = std::fs::remove_file(&part);
    }
    written
}

/// Removes what [`replace`] had half written in `folder` when its process was killed.
#[cfg_attr(
    not(feature = "cli"),
    allow(dead_code, reason = "the program's runs leave it")
)]
pub(crate) fn remove_parts(folder: &Path) {
    let is_part = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str());
        let stem = name.and_then(|name| name.strip_suffix(".part"));
        stem.and_then(|stem| stem.rsplit_once('.'))
            .is_some_and(|(name, process)| !name.is_empty() && process.parse::<u32>().is_ok())
    };
    // They are in nobody's way: one that cannot be removed is left.
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if is_part(&entry.path()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn little_endian(tensor: &Tensor) -> Result<Vec<u8>> {
    let flat = tensor.flatten_all()?;
    Ok(match tensor.dtype() {
        DType::F16 => flat
            .to_vec1::<half::f16>()?
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        _ => flat
            .to_vec1::<f32>()?
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
    })
}

/// The two types that are written, in the container's words.
trait FromCandle {
    fn from_candle(dtype: DType) -> Self;
}

impl FromCandle for Dtype {
    fn from_candle(dtype: DType) -> Self {
        if dtype == DType::F16 {
            Dtype::F16
        } else {
            Dtype::F32
        }
    }
}

struct Checksum(Sha256);

impl Checksum {
    fn new(card: &str) -> Self {
        let mut digest = Sha256::new();
        digest.update((card.len() as u64).to_le_bytes());
        digest.update(card);
        Self(digest)
    }

    fn add(&mut self, name: &str, dtype: Dtype, shape: &[usize], bytes: &[u8]) {
        self.0
            .update(format!("{name} {dtype:?} {shape:?} {}\n", bytes.len()));
        self.0.update(bytes);
    }

    fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}
