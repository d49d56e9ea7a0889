//! The card beside an export: what the original software's files cannot say of a model, as `FILE.card.json`.
//!
//! Written with `sam.pth` and `epoch.pth` and read again with them, so that the way to the original software and back
//! changes nothing. The SHA-256 of the export tells whether the weights are still the ones that the card was written
//! for.

use super::card::{ModelCard, Source};
use super::model_file::{Storage, replace};
use super::regular_file;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Longest card that is read, in bytes; one of 255 classes takes some 20 kB.
const MAX_CARD_BYTES: u64 = 1 << 20;

/// A model's card and the export that it was written for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardFile {
    /// The export it lies beside.
    pub export: Source,
    /// How the model file stored its weights.
    pub storage: Storage,
    /// The model's card.
    pub card: ModelCard,
}

impl CardFile {
    /// The card's place beside the export at `path`.
    pub fn beside(path: &Path) -> PathBuf {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".card.json");
        path.with_file_name(name)
    }

    /// Writes the card beside the export at `path`, and returns its own path.
    ///
    /// # Errors
    /// An export that cannot be read, or a card that cannot be written.
    pub fn write(path: &Path, storage: Storage, card: &ModelCard) -> Result<PathBuf> {
        let file = Self {
            export: Source::of(path)?,
            storage,
            card: card.clone(),
        };
        let own = Self::beside(path);
        let mut text = serde_json::to_string_pretty(&file).map_err(|err| Error::file(&own, err))?;
        text.push('\n');
        replace(&own, text.as_bytes())
            .map_err(|err| Error::file(&own, format!("cannot be written: {err}")))?;
        Ok(own)
    }

    /// Reads the card at `path`.
    ///
    /// # Errors
    /// A file that cannot be read or is no card of this format.
    pub fn read(path: &Path) -> Result<Self> {
        let text = regular_file::read_text(path, MAX_CARD_BYTES)?;
        let file: Self = serde_json::from_str(&text).map_err(|err| Error::file(path, err))?;
        file.card.validate().map_err(|err| Error::file(path, err))?;
        Ok(file)
    }

    /// Reads the card beside the export at `path`; `None` where there is none.
    ///
    /// # Errors
    /// As [`CardFile::read`].
    pub fn read_beside(path: &Path) -> Result<Option<Self>> {
        let own = Self::beside(path);
        match own.try_exists() {
            Ok(true) => Self::read(&own).map(Some),
            Ok(false) => Ok(None),
            Err(err) => Err(Error::file(&own, err)),
        }
    }
}
