//! The model card: everything about a model but its weights, as JSON in the model file's metadata.

use crate::error::{Error, Result};
use crate::geometry::Orientation;
use crate::labels::ClassSet;
use crate::model::ModelConfig;
use crate::segmenter::{Normalisation, Resize};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the format that this software writes and reads.
pub const FORMAT: u32 = 1;

/// Longest time between two frames of a clip: an hour, far beyond any data set's.
pub const MAX_FRAME_INTERVAL_NANOS: u64 = 3_600_000_000_000;

/// How frames are prepared for the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// How the region becomes a square.
    pub resize: Resize,
    /// How bytes become numbers.
    pub normalisation: Normalisation,
    /// How the square is turned.
    pub orientation: Orientation,
    /// Time between two frames of a clip in the training data, in nanoseconds, 1 to [`MAX_FRAME_INTERVAL_NANOS`].
    pub frame_interval_nanos: Option<u64>,
}

impl Preprocessing {
    /// What the authors' EndoVis checkpoints want; their data is at 1 Hz.
    pub fn reference() -> Self {
        Self {
            resize: Resize::Reference,
            normalisation: Normalisation::ClipMinMax,
            orientation: Orientation::Transposed,
            frame_interval_nanos: Some(1_000_000_000),
        }
    }

    /// What live video wants: area resize, bytes over 255, upright, every frame.
    pub fn live() -> Self {
        Self {
            resize: Resize::Area,
            normalisation: Normalisation::Fixed {
                scale: 1.0 / 255.0,
                offset: 0.0,
            },
            orientation: Orientation::Upright,
            frame_interval_nanos: None,
        }
    }
}

/// A file that weights came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Name of the file, without its folder.
    pub file: String,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
}

impl Source {
    /// Reads the file at `path` for its digest.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn of(path: &std::path::Path) -> Result<Self> {
        let file = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Ok(Self {
            file,
            sha256: super::source::sha256(path)?,
        })
    }
}

/// Where the weights come from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Provenance {
    /// False for placeholders: whatever is drawn from such a model has to say so.
    pub trained: bool,
    /// Every file that went in.
    pub sources: Vec<Source>,
    /// What the model was trained on.
    pub data: Option<String>,
    /// Seed of the training run.
    pub seed: Option<u64>,
    /// Day of training or conversion, ISO 8601.
    pub date: Option<String>,
    /// Revision of the software that trained it.
    pub commit: Option<String>,
}

/// Everything about a model but its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCard {
    /// Version of the format, [`FORMAT`].
    pub format: u32,
    /// Sizes and choices.
    pub model: ModelConfig,
    /// Classes in the order of their ids.
    pub classes: ClassSet,
    /// Preparation of frames.
    pub preprocessing: Preprocessing,
    /// Where the weights come from.
    pub provenance: Provenance,
    /// Scores the model was released with, by name.
    #[serde(default)]
    pub scores: BTreeMap<String, f64>,
}

impl ModelCard {
    /// A card for `model` with the default classes for its number and nothing known of its origin.
    ///
    /// # Errors
    /// A configuration out of bounds.
    pub fn new(model: ModelConfig, preprocessing: Preprocessing) -> Result<Self> {
        let classes = ClassSet::default_for(model.classes)?;
        let card = Self {
            format: FORMAT,
            model,
            classes,
            preprocessing,
            provenance: Provenance::default(),
            scores: BTreeMap::new(),
        };
        card.validate()?;
        Ok(card)
    }

    /// Checks the version, the configuration, the classes and that they fit one another.
    ///
    /// # Errors
    /// The first of these that does not hold.
    pub fn validate(&self) -> Result<()> {
        if self.format != FORMAT {
            return Err(Error::config(
                "format",
                self.format,
                format!("this software reads format {FORMAT}"),
            ));
        }
        self.model.validate()?;
        self.classes.validate()?;
        if self.classes.len() != self.model.classes {
            let bound = format!("the model has {} output channels", self.model.classes);
            return Err(Error::config(
                "number of class names and colours",
                self.classes.len(),
                bound,
            ));
        }
        if let Normalisation::Fixed { scale, offset } = self.preprocessing.normalisation
            && !(scale.is_finite() && offset.is_finite())
        {
            return Err(Error::config(
                "normalisation",
                format!("{scale}, {offset}"),
                "it has to be finite",
            ));
        }
        if let Some(interval) = self.preprocessing.frame_interval_nanos
            && !(1..=MAX_FRAME_INTERVAL_NANOS).contains(&interval)
        {
            let bound = format!("it has to be 1 to {MAX_FRAME_INTERVAL_NANOS}");
            return Err(Error::config("frame_interval_nanos", interval, bound));
        }
        Ok(())
    }
}
