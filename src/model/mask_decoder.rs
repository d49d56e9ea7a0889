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
use crate::kernels::{class_product::class_product, gelu::gelu, labels};
use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;

/// One step of upscaling: transposed convolution, perhaps a skip, perhaps a norm, GELU.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) upscale: Upscale,
    pub(crate) skip_projection: Option<Linear>,
    /// From the grid's side to this step's, where there is a skip.
    enlargement: Option<Tensor>,
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
            let grid = config.grid_side();
            let enlargement = skip
                .is_some()
                .then(|| resize::matrix(grid, grid << (i + 1), weights.dtype(), weights.device()));
            let norm = (i < last).then(|| LayerNorm::new(outputs, ENCODER_EPS, upscaling.pp(3 * i + 1)));
            Ok(Step {
                upscale: Upscale::new(inputs, outputs, upscaling.pp(3 * i))?,
                skip_projection: skip.transpose()?,
                enlargement: enlargement.transpose()?,
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
        let (tokens, mut x) = self.transformed(features, positions, prompts)?;
        for i in 0..self.steps.len() {
            x = self.enlarge(i, &x, features)?;
        }
        let (images, height, width, channels) = x.dims4()?;
        let pixels = x.reshape((images, height * width, channels))?;
        let logits = class_product(&self.class_kernels(&tokens)?, &pixels)?;
        let iou = self
            .iou_prediction_head
            .forward(&tokens.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?)?;
        Ok(Decoded {
            logits: logits.reshape((images, (), height, width))?,
            iou,
        })
    }

    /// Class ids at the input's side, on a card: bytes `[images, side_px * side_px + 1]`, the last of each row 1 where a
    /// logit was not finite. Where the decoder's own side is the input's, no logits are written.
    pub fn labels(
        &self,
        features: &Features,
        positions: &Tensor,
        prompts: &EncodedPrompts,
        side_px: usize,
    ) -> Result<Tensor> {
        if let Some((last, before)) = self.steps.split_last()
            && last.norm.is_none()
            && last.skip_projection.is_none()
        {
            let (tokens, mut x) = self.transformed(features, positions, prompts)?;
            for i in 0..before.len() {
                x = self.enlarge(i, &x, features)?;
            }
            let (product, bias) = last.upscale.for_labels(&x)?;
            let kernels = self.class_kernels(&tokens)?;
            if 2 * x.dim(1)? == side_px && labels::takes_product(&product, kernels.dim(1)?) {
                return labels::of_product(&product, bias, &kernels);
            }
        }
        labels::of_planes(&self.forward(features, positions, prompts)?.logits, side_px)
    }

    /// The two-way transformer: tokens `[images, 1 + classes + prompts, width]` and picture
    /// `[images, grid, grid, width]`.
    fn transformed(
        &self,
        features: &Features,
        positions: &Tensor,
        prompts: &EncodedPrompts,
    ) -> Result<(Tensor, Tensor)> {
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

        Ok((tokens, image.reshape((images, side, side, width))?))
    }

    /// Step `index` of upscaling: `[images, height, width, inputs]` to `[images, 2 * height, 2 * width, outputs]`.
    fn enlarge(&self, index: usize, x: &Tensor, features: &Features) -> Result<Tensor> {
        let Some(step) = self.steps.get(index) else {
            bail!("there is no upscaling step {index} among {}", self.steps.len())
        };
        let skip = step.skip_projection.as_ref().zip(features.skips.get(index));
        let Some(((projection, skip), by)) = skip.zip(step.enlargement.as_ref()) else {
            return step.upscale.activated(x, step.norm.as_ref());
        };
        let mut x = step.upscale.forward(x)?;
        let skip = projection.forward(skip)?;
        x = (x + resize::squares_by(&skip, &by.to_dtype(skip.dtype())?)?)?;
        if let Some(norm) = &step.norm {
            x = norm.forward(&x)?;
        }
        gelu(&x)
    }

    /// What each class multiplies pixels with, `[images, classes, channels]`.
    fn class_kernels(&self, tokens: &Tensor) -> Result<Tensor> {
        let kernels = (self.output_hypernetworks_mlps.iter().enumerate())
            .map(|(i, mlp)| mlp.forward(&tokens.narrow(1, 1 + i, 1)?.contiguous()?))
            .collect::<Result<Vec<_>>>()?;
        Tensor::cat(&kernels, 1)
    }
}
