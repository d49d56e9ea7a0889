//! What a MA-SAM model is made of: plain data, presets, and one check that names every field out of bounds.
//!
//! ```
//! use masam::model::{Decoder, ModelConfig};
//! let config = ModelConfig { image_side_px: 256, decoder: Decoder::Sam, ..ModelConfig::vit_b() };
//! config.validate()?;
//! assert_eq!(config.grid_side(), 16);
//! # Ok::<(), masam::Error>(())
//! ```

use crate::error::{Error, Result, all_of};
use crate::labels::MAX_CLASSES;
use crate::segmenter::Temporal;
use serde::{Deserialize, Serialize};

/// Where the temporal adapters stand, relative to attention (paper, table of adapter positions: both is best).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Adapters {
    /// Before and after, as published.
    #[default]
    Both,
    /// Only before.
    Before,
    /// Only after.
    After,
    /// No adapters: every frame is seen alone.
    None,
}

/// How the decoder comes from the feature grid to pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decoder {
    /// Four transposed convolutions, to 16 times the grid: the published best.
    #[default]
    Progressive,
    /// SAM's own two, to four times the grid; the rest is bilinear.
    Sam,
    /// Progressive, with the outputs of the last global blocks added on the way up.
    MultiScale,
}

/// Sizes and choices of one model. Lengths are in tokens or channels unless the name says pixels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Name of the preset or the user's own.
    pub name: String,
    /// Side of the square input, a multiple of `patch_side_px`.
    pub image_side_px: usize,
    /// Side of a patch (16 in SAM).
    pub patch_side_px: usize,
    /// Channels of the image encoder.
    pub encoder_width: usize,
    /// Blocks of the image encoder.
    pub encoder_depth: usize,
    /// Attention heads of the image encoder.
    pub encoder_heads: usize,
    /// Blocks whose attention spans the whole grid, ascending; the others work in partitions.
    pub global_blocks: Vec<usize>,
    /// Side of an attention partition (14 in SAM).
    pub partition_side: usize,
    /// Hidden width of a block's MLP over `encoder_width` (4 in SAM).
    pub mlp_ratio: usize,
    /// Channels inside a temporal adapter (384 in MA-SAM).
    pub adapter_width: usize,
    /// Where the adapters stand.
    pub adapters: Adapters,
    /// Taps of the temporal convolution.
    pub temporal: Temporal,
    /// Rank of FacT (32 in MA-SAM).
    pub fact_rank: usize,
    /// Factor of the FacT update (1 in MA-SAM).
    pub fact_scale: f64,
    /// Channels of prompts, features and mask decoder (256 in SAM).
    pub prompt_width: usize,
    /// Blocks of the two-way transformer (2 in SAM).
    pub decoder_depth: usize,
    /// Heads of the two-way transformer (8 in SAM).
    pub decoder_heads: usize,
    /// Hidden width of the two-way transformer's MLP (2048 in SAM).
    pub decoder_mlp_width: usize,
    /// Way up to pixels.
    pub decoder: Decoder,
    /// Output channels, background included.
    pub classes: usize,
}

/// Largest input side: positions and areas stay far inside 32 bits, and one float clip below 250 MB.
pub const MAX_IMAGE_SIDE_PX: usize = 2048;
/// Most tokens along one side of the grid: attention over a larger one would take memory beyond any use.
pub const MAX_GRID_SIDE: usize = 128;
/// Bounds on widths and depths: beyond any published model, small enough that no product of three overflows.
const MAX_WIDTH: usize = 8192;
const MAX_DEPTH: usize = 128;

impl ModelConfig {
    fn vit(name: &str, width: usize, depth: usize, heads: usize, global_blocks: [usize; 4]) -> Self {
        Self {
            name: name.into(),
            image_side_px: 512,
            patch_side_px: 16,
            encoder_width: width,
            encoder_depth: depth,
            encoder_heads: heads,
            global_blocks: global_blocks.to_vec(),
            partition_side: 14,
            mlp_ratio: 4,
            adapter_width: 384,
            adapters: Adapters::Both,
            temporal: Temporal::Centered,
            fact_rank: 32,
            fact_scale: 1.0,
            prompt_width: 256,
            decoder_depth: 2,
            decoder_heads: 8,
            decoder_mlp_width: 2048,
            decoder: Decoder::Progressive,
            classes: 12,
        }
    }

    /// SAM's ViT-B with MA-SAM's adapters and progressive decoder, 512 px, twelve classes.
    pub fn vit_b() -> Self {
        Self::vit("vit_b", 768, 12, 12, [2, 5, 8, 11])
    }

    /// SAM's ViT-L, likewise.
    pub fn vit_l() -> Self {
        Self::vit("vit_l", 1024, 24, 16, [5, 11, 17, 23])
    }

    /// SAM's ViT-H, likewise: the published best.
    pub fn vit_h() -> Self {
        Self::vit("vit_h", 1280, 32, 16, [7, 15, 23, 31])
    }

    /// The same architecture, small enough for live video on two CPU cores: 256 px, 4 million parameters, causal so
    /// that it can also be run one frame at a time.
    pub fn demo() -> Self {
        Self {
            name: "demo".into(),
            image_side_px: 256,
            encoder_width: 192,
            encoder_depth: 6,
            encoder_heads: 3,
            global_blocks: vec![2, 5],
            partition_side: 8,
            adapter_width: 64,
            temporal: Temporal::Causal,
            fact_rank: 8,
            prompt_width: 192,
            decoder_heads: 4,
            decoder_mlp_width: 512,
            ..Self::vit_b()
        }
    }

    /// The preset of that name: `vit_b`, `vit_l`, `vit_h` or `demo`.
    ///
    /// # Errors
    /// Any other name.
    pub fn preset(name: &str) -> Result<Self> {
        match name {
            "vit_b" => Ok(Self::vit_b()),
            "vit_l" => Ok(Self::vit_l()),
            "vit_h" => Ok(Self::vit_h()),
            "demo" => Ok(Self::demo()),
            _ => Err(Error::config(
                "config",
                name,
                "the presets are vit_b, vit_l, vit_h and demo",
            )),
        }
    }

    /// Tokens along one side of the feature grid.
    pub fn grid_side(&self) -> usize {
        self.image_side_px / self.patch_side_px
    }

    /// Channels of one attention head of the encoder.
    pub fn head_width(&self) -> usize {
        self.encoder_width / self.encoder_heads
    }

    /// Whether attention of that block spans the whole grid.
    pub fn is_global(&self, block: usize) -> bool {
        self.global_blocks.contains(&block)
    }

    /// Side of the attention span of that block: the partition's, or the grid's for a global block.
    pub fn span_side(&self, block: usize) -> usize {
        if self.is_global(block) {
            self.grid_side()
        } else {
            self.partition_side
        }
    }

    /// Channels after each upscaling step, the decoder's own width first.
    pub fn upscaling_widths(&self) -> Vec<usize> {
        let steps = if self.decoder == Decoder::Sam { 2 } else { 4 };
        let narrower = (2..2 + steps).map(|halvings| self.prompt_width >> halvings);
        std::iter::once(self.prompt_width).chain(narrower).collect()
    }

    /// How many global blocks, counted from the last, the multi-scale decoder adds in.
    pub fn skips(&self) -> usize {
        let steps = self.upscaling_widths().len() - 1;
        if self.decoder == Decoder::MultiScale {
            steps.min(self.global_blocks.len())
        } else {
            0
        }
    }

    /// Temporal adapters of each block.
    pub fn adapters_in_block(&self) -> usize {
        match self.adapters {
            Adapters::Both => 2,
            Adapters::Before | Adapters::After => 1,
            Adapters::None => 0,
        }
    }

    /// Which step of the multi-scale decoder's way up is shown the output of `block`, counted from the first: the last
    /// global block's goes to step 0.
    pub fn skip_of(&self, block: usize) -> Option<usize> {
        let later = self
            .global_blocks
            .iter()
            .filter(|global| **global > block)
            .count();
        (self.is_global(block) && later < self.skips()).then_some(later)
    }

    /// Side of the decoder's own output, before it is brought to the input's.
    pub fn decoded_side_px(&self) -> usize {
        self.grid_side() << (self.upscaling_widths().len() - 1)
    }

    /// Checks every field and reports all that are out of bounds at once.
    ///
    /// # Errors
    /// [`Error::Config`] for one field, [`Error::Several`] for more.
    pub fn validate(&self) -> Result<()> {
        let mut errors = Vec::new();
        let mut within = |field: &'static str, value: usize, low: usize, high: usize| {
            let fits = (low..=high).contains(&value);
            if !fits {
                errors.push(Error::config(
                    field,
                    value,
                    format!("it has to be {low} to {high}"),
                ));
            }
            fits
        };
        let patch = within("patch_side_px", self.patch_side_px, 1, 64);
        let image = within("image_side_px", self.image_side_px, 1, MAX_IMAGE_SIDE_PX);
        let width = within("encoder_width", self.encoder_width, 1, MAX_WIDTH);
        let heads = within("encoder_heads", self.encoder_heads, 1, 256);
        let prompt = within("prompt_width", self.prompt_width, 4, MAX_WIDTH);
        let decoder_heads = within("decoder_heads", self.decoder_heads, 1, 256);
        within("encoder_depth", self.encoder_depth, 1, MAX_DEPTH);
        within("partition_side", self.partition_side, 1, 64);
        within("mlp_ratio", self.mlp_ratio, 1, 16);
        within("adapter_width", self.adapter_width, 1, MAX_WIDTH);
        within("fact_rank", self.fact_rank, 1, 1024);
        within("decoder_depth", self.decoder_depth, 1, MAX_DEPTH);
        within("decoder_mlp_width", self.decoder_mlp_width, 1, 4 * MAX_WIDTH);
        within("classes", self.classes, 1, MAX_CLASSES);

        let mut divides = |whole: &'static str, value: usize, part: &'static str, by: usize| {
            if !value.is_multiple_of(by) {
                errors.push(Error::config(
                    whole,
                    value,
                    format!("it has to be a multiple of {part}, {by}"),
                ));
            }
        };
        if patch && image {
            divides(
                "image_side_px",
                self.image_side_px,
                "patch_side_px",
                self.patch_side_px,
            );
        }
        if width && heads {
            divides(
                "encoder_width",
                self.encoder_width,
                "encoder_heads",
                self.encoder_heads,
            );
        }
        if prompt && decoder_heads {
            // Cross attention works at half the width; sine and cosine halve it as well.
            divides(
                "prompt_width",
                self.prompt_width,
                "twice decoder_heads",
                2 * self.decoder_heads,
            );
            let halvings = self.upscaling_widths().len();
            divides(
                "prompt_width",
                self.prompt_width,
                "the upscaling's narrowing",
                1 << halvings,
            );
        }
        if patch && image && self.grid_side() > MAX_GRID_SIDE {
            let bound = format!("a side has at most {MAX_GRID_SIDE} tokens of patch_side_px");
            errors.push(Error::config("image_side_px", self.image_side_px, bound));
        }
        if !self.fact_scale.is_finite() {
            errors.push(Error::config(
                "fact_scale",
                self.fact_scale,
                "it has to be finite",
            ));
        }
        let ascending = self.global_blocks.is_sorted_by(|a, b| a < b);
        if !ascending
            || self
                .global_blocks
                .iter()
                .any(|&block| block >= self.encoder_depth)
        {
            let bound = format!(
                "it has to be ascending block numbers below {}",
                self.encoder_depth
            );
            errors.push(Error::config(
                "global_blocks",
                format!("{:?}", self.global_blocks),
                bound,
            ));
        }
        all_of(errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_valid() {
        for name in ["vit_b", "vit_l", "vit_h", "demo"] {
            ModelConfig::preset(name).unwrap().validate().unwrap();
        }
        assert!(ModelConfig::preset("vit_x").is_err());
        assert_eq!(ModelConfig::vit_h().upscaling_widths(), [256, 64, 32, 16, 8]);
        let sam = ModelConfig {
            decoder: Decoder::Sam,
            ..ModelConfig::vit_b()
        };
        assert_eq!(
            (sam.upscaling_widths(), sam.decoded_side_px()),
            (vec![256, 64, 32], 128)
        );
    }

    #[test]
    fn every_broken_field_is_named() {
        let config = ModelConfig {
            image_side_px: 500,
            encoder_heads: 7,
            classes: 0,
            global_blocks: vec![3, 3],
            fact_scale: f64::NAN,
            ..ModelConfig::vit_b()
        };
        let text = config.validate().unwrap_err().to_string();
        for field in [
            "image_side_px",
            "encoder_width",
            "classes",
            "global_blocks",
            "fact_scale",
        ] {
            assert!(text.contains(field), "{field}: {text}");
        }
        assert!(text.contains("image_side_px is 500"), "{text}");
    }
}
