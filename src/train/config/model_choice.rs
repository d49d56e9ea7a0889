//! The model of a run: a preset, and what differs from it.

use super::{parse, renamed};
use crate::error::{Error, Result, all_of};
use crate::model::{Adapters, Decoder, ModelConfig};
use crate::segmenter::Temporal;
use serde::{Deserialize, Serialize};

/// Names of the presets.
const PRESETS: [&str; 4] = ["vit_b", "vit_l", "vit_h", "demo"];

/// A preset and the fields that differ from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelChoice {
    /// `vit_b`, `vit_l`, `vit_h` or `demo`.
    pub preset: String,
    /// Side of the square input, pixels.
    pub image_side_px: Option<usize>,
    /// Rank of FacT.
    pub fact_rank: Option<usize>,
    /// Width of the adapters.
    pub adapter_width: Option<usize>,
    /// Where adapters stand.
    pub adapters: Option<Adapters>,
    /// Which decoder.
    pub decoder: Option<Decoder>,
    /// Where the temporal taps lie.
    pub temporal: Option<Temporal>,
    /// Number of classes.
    pub classes: Option<usize>,
    /// Blocks of the image encoder.
    pub encoder_depth: Option<usize>,
    /// Width of the image encoder.
    pub encoder_width: Option<usize>,
    /// Blocks with global attention.
    pub global_blocks: Option<Vec<usize>>,
}

impl Default for ModelChoice {
    fn default() -> Self {
        Self {
            preset: "vit_b".into(),
            image_side_px: None,
            fact_rank: None,
            adapter_width: None,
            adapters: None,
            decoder: None,
            temporal: None,
            classes: None,
            encoder_depth: None,
            encoder_width: None,
            global_blocks: None,
        }
    }
}

impl ModelChoice {
    /// The configuration meant.
    ///
    /// # Errors
    /// No such preset, or a model out of bounds; the fields have their full names, `model.preset`.
    pub fn config(&self) -> Result<ModelConfig> {
        let (preset, unknown) = match ModelConfig::preset(&self.preset) {
            Ok(preset) => (preset, Vec::new()),
            Err(_) => {
                let bound = format!("it has to be {}", PRESETS.join(", "));
                let unknown = Error::config("model.preset", &self.preset, bound);
                // The other fields are checked with the preset that is probably meant.
                match parse::nearest(&self.preset, PRESETS.into_iter()) {
                    Some(meant) => (ModelConfig::preset(meant)?, vec![unknown]),
                    None => return Err(unknown),
                }
            }
        };
        let config = ModelConfig {
            image_side_px: self.image_side_px.unwrap_or(preset.image_side_px),
            fact_rank: self.fact_rank.unwrap_or(preset.fact_rank),
            adapter_width: self.adapter_width.unwrap_or(preset.adapter_width),
            adapters: self.adapters.unwrap_or(preset.adapters),
            decoder: self.decoder.unwrap_or(preset.decoder),
            temporal: self.temporal.unwrap_or(preset.temporal),
            classes: self.classes.unwrap_or(preset.classes),
            encoder_depth: self.encoder_depth.unwrap_or(preset.encoder_depth),
            encoder_width: self.encoder_width.unwrap_or(preset.encoder_width),
            global_blocks: self.global_blocks.clone().unwrap_or(preset.global_blocks.clone()),
            ..preset
        };
        let invalid = renamed(config.validate(), |field| format!("model.{field}"));
        all_of(unknown.into_iter().chain(invalid).collect())?;
        Ok(config)
    }
}
