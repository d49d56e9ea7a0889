//! A file of reference tensors and the configuration in its metadata.

use crate::checkpoint::source::SafetensorsFile;
use crate::error::{Error, Result};
use crate::model::{Adapters, Decoder, ModelConfig};
use crate::segmenter::Temporal;
use safetensors::{Dtype, SafeTensors};
use std::collections::HashMap;
use std::path::Path;
use std::str::FromStr;

/// Most parameters that are made by formula for a check: a third more than the largest published model has.
const MAX_PARAMETERS: usize = 1_000_000_000;

/// Longest file that is read, in bytes: room for every trained weight of the largest published model, its gradient and
/// its step.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// What a file checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A forward pass: `logits`, `labels`, `features`, `iou` and perhaps every block's output.
    Forward,
    /// A training step: `loss`, `grad.NAME`, `step.NAME`.
    Gradients,
    /// Preparation of frames: `frames`, `resized`, `clip`.
    Preprocess,
}

/// An open file: its tensors and its metadata.
pub struct GoldenFile {
    /// Name without folder and suffix.
    pub name: String,
    bytes: Vec<u8>,
    metadata: HashMap<String, String>,
    kind: Kind,
}

impl GoldenFile {
    /// Reads a file from disk.
    ///
    /// # Errors
    /// A file that is no regular one, cannot be read, is not as long as its header says or longer than 1 GiB, or of no
    /// known kind.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path
            .file_stem()
            .map(|s| s.to_string_lossy().into_owned())
            .unwrap_or_default();
        // The header is held against the file's length before memory is taken.
        let bytes = SafetensorsFile::open(path)?.into_bytes(MAX_FILE_BYTES)?;
        Self::from_bytes(&name, bytes).map_err(|e| Error::file(path, e))
    }

    /// Takes a file that is already in memory.
    ///
    /// # Errors
    /// Bytes that are no safetensors file or of no known kind.
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Self> {
        let wrong = |cause: String| Error::config("reference file", name, cause);
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| wrong(e.to_string()))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let names = header.tensors();
        let kind = if names.contains_key("logits") {
            Kind::Forward
        } else if names.contains_key("loss") && names.keys().any(|k| k.starts_with("grad.")) {
            Kind::Gradients
        } else if names.contains_key("frames") && names.contains_key("clip") {
            Kind::Preprocess
        } else {
            return Err(wrong(
                "it has to hold `logits`, `loss` with `grad.*`, or `frames` with `clip`".into(),
            ));
        };
        Ok(Self {
            name: name.into(),
            bytes,
            metadata,
            kind,
        })
    }

    /// What the file checks.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Names of its tensors, sorted.
    ///
    /// # Errors
    /// None for a file that could be opened.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> = self.tensors()?.names().into_iter().map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    fn tensors(&self) -> Result<SafeTensors<'_>> {
        SafeTensors::deserialize(&self.bytes)
            .map_err(|e| Error::config("reference file", &self.name, e.to_string()))
    }

    fn view(&self, name: &str, wanted: Dtype) -> Result<(Vec<usize>, Vec<u8>)> {
        let tensors = self.tensors()?;
        let view = tensors.tensor(name).map_err(|e| Error::tensor(name, e))?;
        if view.dtype() != wanted {
            return Err(Error::tensor(
                name,
                format!("its type is {:?}, not {wanted:?}", view.dtype()),
            ));
        }
        Ok((view.shape().to_vec(), view.data().to_vec()))
    }

    /// Shape and elements of a float32 tensor.
    ///
    /// # Errors
    /// A tensor that is absent or of another type.
    pub fn floats(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        let (shape, bytes) = self.view(name, Dtype::F32)?;
        let floats = bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect();
        Ok((shape, floats))
    }

    /// Shape and elements of a byte tensor.
    ///
    /// # Errors
    /// A tensor that is absent or of another type.
    pub fn bytes(&self, name: &str) -> Result<(Vec<usize>, Vec<u8>)> {
        self.view(name, Dtype::U8)
    }

    /// The metadata under `key`.
    ///
    /// # Errors
    /// A key that is absent.
    pub fn text(&self, key: &str) -> Result<&str> {
        self.metadata.get(key).map(String::as_str).ok_or_else(|| {
            Error::config(
                format!("metadata {key} of {}", self.name),
                "absent",
                "it is needed",
            )
        })
    }

    /// The metadata under `key` as a number.
    ///
    /// # Errors
    /// A key that is absent or does not parse.
    pub fn number<T: FromStr>(&self, key: &str) -> Result<T> {
        let text = self.text(key)?;
        text.parse().map_err(|_| {
            Error::config(
                format!("metadata {key} of {}", self.name),
                text,
                "it has to be a number",
            )
        })
    }

    /// The model configuration, checked.
    ///
    /// # Errors
    /// Fields that are absent, do not parse or are out of bounds.
    pub fn config(&self) -> Result<ModelConfig> {
        let choice = |key: &str, words: &[&str]| -> Result<usize> {
            let text = self.text(key)?;
            words.iter().position(|w| *w == text).ok_or_else(|| {
                let bound = format!("it has to be one of {}", words.join(", "));
                Error::config(format!("metadata {key} of {}", self.name), text, bound)
            })
        };
        let blocks = self.text("global_blocks")?;
        let global_blocks = blocks
            .split(',')
            .filter(|b| !b.is_empty())
            .map(|b| {
                b.trim()
                    .parse()
                    .map_err(|_| Error::config("global_blocks", blocks, "it has to be numbers"))
            })
            .collect::<Result<_>>()?;
        let config = ModelConfig {
            name: self.text("name")?.into(),
            image_side_px: self.number("image")?,
            patch_side_px: self.number("patch")?,
            encoder_width: self.number("dim")?,
            encoder_depth: self.number("depth")?,
            encoder_heads: self.number("heads")?,
            global_blocks,
            partition_side: self.number("window")?,
            mlp_ratio: self.number("mlp_ratio")?,
            adapter_width: self.number("adapter")?,
            adapters: [Adapters::Both, Adapters::Before, Adapters::After, Adapters::None]
                [choice("adapters", &["both", "before", "after", "none"])?],
            temporal: [Temporal::Centered, Temporal::Causal][choice("temporal", &["centered", "causal"])?],
            fact_rank: self.number("rank")?,
            fact_scale: self.number("fact_scale")?,
            prompt_width: self.number("prompt_dim")?,
            decoder_depth: self.number("decoder_depth")?,
            decoder_heads: self.number("decoder_heads")?,
            decoder_mlp_width: self.number("decoder_mlp")?,
            decoder: [Decoder::Progressive, Decoder::Sam, Decoder::MultiScale]
                [choice("decoder", &["progressive", "sam", "multi-scale"])?],
            classes: self.number("classes")?,
        };
        config.validate()?;
        let parameters = config.parameters();
        if parameters > MAX_PARAMETERS {
            let bound = format!("a model by formula has at most {MAX_PARAMETERS}");
            return Err(Error::config(
                format!("parameters of {}", self.name),
                parameters,
                bound,
            ));
        }
        Ok(config)
    }
}
