//! The mask decoder: one token per class, the two-way transformer, a way up to pixels, and one product per class.
//!
//! * `progressive`: four transposed convolutions, to 16 times the grid (paper, section 2.4)
//! * `sam`: SAM's own two
//! * `multi-scale`: progressive, and before the norm of step i the output of the i-th global block from the end,
//!   projected to the step's width and bilinearly enlarged, is added

use super::config::ModelConfig;
use super::image_encoder::Features;
use super::layers::{ENCODER_EPS, LayerNorm, Linear, Mlp3, Upscale};
use super::prompt_encoder::EncodedPrompts;
use super::resize;
use super::transformer::TwoWayTransformer;
use crate::kernels::{class_product::class_product, gelu::gelu};
use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

/// One step of upscaling: transposed convolution, perhaps a skip, perhaps a norm, GELU.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) upscale: Upscale,
    pub(crate) skip_projection: Option<Linear>,
    pub(crate) norm: Option<LayerNorm>,
}

/// What the decoder gives.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// `[images, classes, side, side]` at the decoder's own resolution.
    pub logits: Tensor,
    /// `[images, classes]`: the model's own estimate of each mask's quality.
    pub iou: Tensor,
}

/// The mask decoder.
#[derive(Debug, Clone)]
pub struct MaskDecoder {
    pub(crate) transformer: TwoWayTransformer,
    pub(crate) iou_token: Tensor,
    pub(crate) mask_tokens: Tensor,
    pub(crate) steps: Vec<Step>,
    pub(crate) output_hypernetworks_mlps: Vec<Mlp3>,
    pub(crate) iou_prediction_head: Mlp3,
}

impl MaskDecoder {
    /// Weights below `mask_decoder`.
    pub fn new(config: &ModelConfig, weights: VarBuilder) -> Result<Self> {
        let width = config.prompt_width;
        let widths = config.upscaling_widths();
        let last = widths.len() - 2;
        let upscaling = weights.pp("output_upscaling");
        // Positions in SAM's sequence of layers: convolution, norm, GELU, convolution, norm, GELU, …; the last step
        // has no norm.
        let step = |i: usize| -> Result<Step> {
            let (inputs, outputs) = (widths[i], widths[i + 1]);
            let skip = (i < config.skips()).then(|| {
                Linear::new(
                    config.encoder_width,
                    outputs,
                    weights.pp("skip_projections").pp(i),
                )
            });
            let norm = (i < last).then(|| LayerNorm::new(outputs, ENCODER_EPS, upscaling.pp(3 * i + 1)));
            Ok(Step {
                upscale: Upscale::new(inputs, outputs, upscaling.pp(3 * i))?,
                skip_projection: skip.transpose()?,
                norm: norm.transpose()?,
            })
        };
        let hypernetworks = weights.pp("output_hypernetworks_mlps");
        Ok(Self {
            transformer: TwoWayTransformer::new(config, weights.pp("transformer"))?,
            iou_token: weights.pp("iou_token").get((1, width), "weight")?,
            mask_tokens: weights.pp("mask_tokens").get((config.classes, width), "weight")?,
            steps: (0..=last).map(step).collect::<Result<_>>()?,
            output_hypernetworks_mlps: (0..config.classes)
                .map(|i| Mlp3::new(width, width, widths[last + 1], hypernetworks.pp(i)))
                .collect::<Result<_>>()?,
            iou_prediction_head: Mlp3::new(width, width, config.classes, weights.pp("iou_prediction_head"))?,
        })
    }

    /// `positions`: `[1, grid * grid, width]` from the prompt encoder.
    pub fn forward(
        &self,
        features: &Features,
        positions: &Tensor,
        prompts: &EncodedPrompts,
    ) -> Result<Decoded> {
        let (images, side, _, width) = features.grid.dims4()?;
        let mut tokens = Tensor::cat(&[&self.iou_token, &self.mask_tokens], 0)?.unsqueeze(0)?;
        if let Some(sparse) = &prompts.sparse {
            tokens = Tensor::cat(&[&tokens.repeat((sparse.dim(0)?, 1, 1))?, sparse], 1)?;
        }
        if tokens.dim(0)? == 1 {
            tokens = tokens.repeat((images, 1, 1))?;
        }
        let image = features
            .grid
            .broadcast_add(&prompts.dense)?
            .reshape((images, side * side, width))?;
        let (tokens, image) = self.transformer.forward(&tokens, &image, positions)?;

        let mut x = image.reshape((images, side, side, width))?;
        for (i, step) in self.steps.iter().enumerate() {
            let skip = step.skip_projection.as_ref().zip(features.skips.get(i));
            let Some((projection, skip)) = skip else {
                x = step.upscale.activated(&x, step.norm.as_ref())?;
                continue;
            };
            x = step.upscale.forward(&x)?;
            let (_, height, width, _) = x.dims4()?;
            x = (x + resize::channels_last(&projection.forward(skip)?, (height, width))?)?;
            if let Some(norm) = &step.norm {
                x = norm.forward(&x)?;
            }
            x = gelu(&x)?;
        }
        let (_, height, width, channels) = x.dims4()?;
        let kernels = (self.output_hypernetworks_mlps.iter().enumerate())
            .map(|(i, mlp)| mlp.forward(&tokens.narrow(1, 1 + i, 1)?.contiguous()?))
            .collect::<Result<Vec<_>>>()?;
        let kernels = Tensor::cat(&kernels, 1)?; // [images, classes, channels]
        let pixels = x.reshape((images, height * width, channels))?;
        let logits = class_product(&kernels, &pixels)?.reshape((images, (), height, width))?;
        let iou = self
            .iou_prediction_head
            .forward(&tokens.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?)?;
        Ok(Decoded { logits, iou })
    }
}
