//! MA-SAM whole: clips in, logits per class and pixel out, by plain differentiable operations.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use masam::model::{FactMode, FormulaWeights, MaSam, ModelConfig, Prompts};
//!
//! let config = ModelConfig { image_side_px: 64, encoder_depth: 3, ..ModelConfig::demo() };
//! let config = ModelConfig { global_blocks: vec![2], ..config };
//! let model = MaSam::new(&config, FactMode::Folded, FormulaWeights::builder(DType::F32, &Device::Cpu))?;
//! let clip = Tensor::zeros((1, 5, 3, 64, 64), DType::F32, &Device::Cpu)?;
//! let output = model.forward(&clip, &Prompts::default())?;
//! assert_eq!(output.logits.dims(), [5, 12, 64, 64]);
//! # Ok::<(), masam::Error>(())
//! ```

use super::causal::{CausalState, Passing};
use super::config::ModelConfig;
use super::image_encoder::{Blocks, Features, ImageEncoder};
use super::mask_decoder::MaskDecoder;
use super::prompt_encoder::{PromptEncoder, Prompts};
use super::resize;
use crate::error::{Error, Result};
use candle_core::Tensor;
use candle_nn::VarBuilder;

/// Whether FacT's factors are folded into the projections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FactMode {
    /// One product per projection: for inference, and for training where the projections are trained too. Built once,
    /// so later changes of the factors have no effect.
    Folded,
    /// Factors run as products of their own: for training with frozen projections.
    Apart,
}

/// Is shown intermediate tensors under the names of the reference tensors: `patch_embed`, `block_N`.
pub type Observer<'a> = &'a mut dyn FnMut(&str, &Tensor);

/// What a forward pass gives; `images` is batch times frames, frames of one clip side by side.
#[derive(Debug, Clone)]
pub struct Output {
    /// `[images, classes, side_px, side_px]`, not normalised: softmax over classes gives probabilities.
    pub logits: Tensor,
    /// `[images, classes]`
    pub iou: Tensor,
    /// `[images, classes, decoded, decoded]`: the logits before they were brought to the input's side.
    pub low_res_logits: Tensor,
}

/// The model.
#[derive(Debug, Clone)]
pub struct MaSam {
    pub(crate) config: ModelConfig,
    pub(crate) image_encoder: ImageEncoder,
    pub(crate) prompt_encoder: PromptEncoder,
    pub(crate) mask_decoder: MaskDecoder,
    /// Brings logits to the input's side, where they have another.
    enlargement: Option<Tensor>,
}

impl MaSam {
    /// Takes the weights that [`ModelConfig::weights`](super::weights) lists, by canonical name.
    ///
    /// # Errors
    /// A configuration out of bounds, or a weight that `weights` cannot give.
    pub fn new(config: &ModelConfig, mode: FactMode, weights: VarBuilder) -> Result<Self> {
        let (mut model, blocks) = Self::apart(config, mode, weights)?;
        model.image_encoder.blocks = blocks.collect::<candle_core::Result<_>>()?;
        Ok(model)
    }

    /// All but the encoder's blocks, and the blocks, for who does not want all of them at once.
    pub(crate) fn apart<'a>(
        config: &'a ModelConfig,
        mode: FactMode,
        weights: VarBuilder<'a>,
    ) -> Result<(Self, Blocks<'a>)> {
        config.validate()?;
        let (decoded, side) = (config.decoded_side_px(), config.image_side_px);
        let enlarge = || resize::matrix(decoded, side, weights.dtype(), weights.device());
        let enlargement = (decoded != side).then(enlarge).transpose()?;
        let (image_encoder, blocks) = ImageEncoder::apart(config, mode, weights.pp("image_encoder"))?;
        let model = Self {
            image_encoder,
            prompt_encoder: PromptEncoder::new(config, weights.pp("prompt_encoder"))?,
            mask_decoder: MaskDecoder::new(config, weights.pp("mask_decoder"))?,
            enlargement,
            config: config.clone(),
        };
        Ok((model, blocks))
    }

    /// Sizes and choices.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The image encoder, whose blocks training may want one by one.
    pub(crate) fn image_encoder(&self) -> &ImageEncoder {
        &self.image_encoder
    }

    /// Runs `clip`, `[batch, frames, 3, side_px, side_px]` with values in [0, 1], any batch and number of frames.
    ///
    /// # Errors
    /// A clip of another shape, or Candle's own.
    pub fn forward(&self, clip: &Tensor, prompts: &Prompts) -> Result<Output> {
        let features = self.encode(clip, &mut |_, _| {})?;
        self.decode(&features, prompts)
    }

    /// The image encoder alone: features of every frame.
    ///
    /// # Errors
    /// As [`MaSam::forward`].
    pub fn encode(&self, clip: &Tensor, observer: Observer<'_>) -> Result<Features> {
        let frames = self.frames(clip)?;
        Ok(self
            .image_encoder
            .forward(&clip.flatten(0, 1)?, frames, observer)?)
    }

    /// As [`MaSam::encode`] and [`Features::select`], without computing what only the other frames would need.
    ///
    /// * `wanted`: indices into `batch * frames`, u32
    ///
    /// # Errors
    /// As [`MaSam::encode`], or an index out of range.
    pub fn encode_wanted(&self, clip: &Tensor, wanted: &Tensor) -> Result<Features> {
        let frames = self.frames(clip)?;
        Ok(self
            .image_encoder
            .forward_wanted(&clip.flatten(0, 1)?, frames, wanted)?)
    }

    /// Frames of a clip of the right shape.
    fn frames(&self, clip: &Tensor) -> Result<usize> {
        let side = self.config.image_side_px;
        match *clip.dims() {
            [batch, frames, 3, height, width]
                if batch > 0 && frames > 0 && height == side && width == side =>
            {
                Ok(frames)
            }
            _ => {
                let wanted = format!("[batch, frames, 3, {side}, {side}]");
                Err(Error::tensor(
                    "clip",
                    format!("its shape is {:?}, not {wanted}", clip.dims()),
                ))
            }
        }
    }

    /// One new frame of each stream, `[streams, 3, side_px, side_px]`, through the image encoder of a causal model:
    /// features of those frames, and the state after them. They equal those of [`MaSam::encode`] over all frames since
    /// the state was empty.
    ///
    /// # Errors
    /// A state of another number of streams, frames of another shape, or Candle's own.
    pub fn step(&self, frames: &Tensor, state: &CausalState) -> Result<(Features, CausalState)> {
        let (streams, side) = (state.streams(), self.config.image_side_px);
        if frames.dims() != [streams, 3, side, side] {
            let wanted = format!("[{streams}, 3, {side}, {side}]");
            return Err(Error::tensor(
                "frames",
                format!("their shape is {:?}, not {wanted}", frames.dims()),
            ));
        }
        let mut passing = Passing::new(state);
        let features = self.image_encoder.step(frames, &mut passing)?;
        Ok((features, passing.finish()?))
    }

    /// Prompt encoder and mask decoder, for all features or those left by [`Features::select`].
    ///
    /// # Errors
    /// Prompts of the wrong shape, or Candle's own.
    pub fn decode(&self, features: &Features, prompts: &Prompts) -> Result<Output> {
        let encoded = self.prompt_encoder.forward(prompts)?;
        let positions = self.prompt_encoder.grid_positions()?;
        let decoded = self.mask_decoder.forward(features, &positions, &encoded)?;
        let logits = match &self.enlargement {
            Some(by) => resize::planes_by(&decoded.logits, by, by)?,
            None => decoded.logits.clone(),
        };
        Ok(Output {
            logits,
            iou: decoded.iou,
            low_res_logits: decoded.logits,
        })
    }

    /// As [`MaSam::decode`], but only the class of each pixel, for models on a card: bytes
    /// `[images, side_px * side_px + 1]`, class ids in rows of pixels, and at the end of each row 1 where a logit was not
    /// finite.
    ///
    /// # Errors
    /// As [`MaSam::decode`], or features that are not on a card.
    pub fn labels(&self, features: &Features, prompts: &Prompts) -> Result<Tensor> {
        let encoded = self.prompt_encoder.forward(prompts)?;
        let positions = self.prompt_encoder.grid_positions()?;
        let side = self.config.image_side_px;
        Ok(self.mask_decoder.labels(features, &positions, &encoded, side)?)
    }
}
