//! SAM's prompt encoder: boxes and points become tokens, a mask becomes a grid.
//!
//! A position p in [0, 1]² is encoded as sine and cosine of `2 pi (2 p - 1) G` with a fixed random matrix `G`.

use super::config::ModelConfig;
use super::layers::{ENCODER_EPS, LayerNorm, PatchConv, made_once};
use crate::kernels::gelu::gelu;
use candle_core::{D, DType, Device, Result, Tensor, bail};
use candle_nn::VarBuilder;

/// What the model is told about a picture. All frames of all clips in a batch get the same prompt, or, where the
/// leading dimension is the number of pictures, each its own.
#[derive(Debug, Clone, Default)]
pub struct Prompts {
    /// `[prompts, 4]`: x0, y0, x1, y1 in pixels of the model's square.
    pub boxes: Option<Tensor>,
    /// `[prompts, points, 2]`: x, y in the same pixels.
    pub points: Option<Tensor>,
    /// `[prompts, points]`: 1 inside the object, 0 outside, in the type of the points.
    pub point_labels: Option<Tensor>,
    /// `[prompts, 1, 4 * grid, 4 * grid]`: logits of a mask.
    pub masks: Option<Tensor>,
}

/// Prompts as the mask decoder takes them.
#[derive(Debug, Clone)]
pub struct EncodedPrompts {
    /// `[prompts, tokens, width]`; no tokens without boxes and points.
    pub sparse: Option<Tensor>,
    /// `[prompts or 1, grid or 1, grid or 1, width]`, to be added to the features.
    pub dense: Tensor,
}

/// SAM's prompt encoder.
#[derive(Debug, Clone)]
pub struct PromptEncoder {
    /// `[2, width / 2]`, float32 in every precision: angles of many turns have no digits to spare.
    gaussian: Tensor,
    /// As [`PromptEncoder::grid_positions`] gives them.
    positions: Option<Tensor>,
    /// For a point outside, a point inside, a box's first and second corner: `[1, width]` each.
    points: [Tensor; 4],
    not_a_point: Tensor,
    no_mask: Tensor,
    mask_convs: [PatchConv; 3],
    mask_norms: [LayerNorm; 2],
    side: usize,
    image_side_px: usize,
}

impl PromptEncoder {
    /// Weights below `prompt_encoder`.
    pub fn new(config: &ModelConfig, weights: VarBuilder) -> Result<Self> {
        let width = config.prompt_width;
        let point = |i: usize| weights.pp("point_embeddings").pp(i).get((1, width), "weight");
        let mask = weights.pp("mask_downscaling");
        let gaussian = weights
            .pp("pe_layer")
            .to_dtype(DType::F32)
            .get((2, width / 2), "positional_encoding_gaussian_matrix")?;
        let mut encoder = Self {
            gaussian,
            positions: None,
            points: [point(0)?, point(1)?, point(2)?, point(3)?],
            not_a_point: weights.pp("not_a_point_embed").get((1, width), "weight")?,
            no_mask: weights.pp("no_mask_embed").get((1, width), "weight")?,
            mask_convs: [
                PatchConv::new(1, 4, 2, mask.pp(0))?,
                PatchConv::new(4, 16, 2, mask.pp(3))?,
                PatchConv::new(16, width, 1, mask.pp(6))?,
            ],
            mask_norms: [
                LayerNorm::new(4, ENCODER_EPS, mask.pp(1))?,
                LayerNorm::new(16, ENCODER_EPS, mask.pp(4))?,
            ],
            side: config.grid_side(),
            image_side_px: config.image_side_px,
        };
        encoder.positions = made_once(&[&encoder.gaussian], |_| encoder.positions_of_grid())?;
        Ok(encoder)
    }

    /// The model's own type.
    fn dtype(&self) -> DType {
        self.no_mask.dtype()
    }

    /// `[.., 2]` positions in [0, 1], float32, to `[.., width]`.
    fn encode(&self, positions: &Tensor) -> Result<Tensor> {
        let mut shape = positions.dims().to_vec();
        let centred = positions.affine(2.0, -1.0)?.reshape(((), 2))?;
        let angle = (centred.matmul(&self.gaussian)? * std::f64::consts::TAU)?;
        if let Some(last) = shape.last_mut() {
            *last = 2 * self.gaussian.dim(1)?;
        }
        Tensor::cat(&[angle.sin()?, angle.cos()?], D::Minus1)?
            .reshape(shape)?
            .to_dtype(self.dtype())
    }

    /// The encoded centres of the grid's cells, `[1, grid * grid, width]`.
    pub fn grid_positions(&self) -> Result<Tensor> {
        match &self.positions {
            Some(positions) => Ok(positions.clone()),
            None => self.positions_of_grid(),
        }
    }

    fn positions_of_grid(&self) -> Result<Tensor> {
        let side = self.side;
        let centre = |i: usize| (i as f32 + 0.5) / side as f32;
        let xy: Vec<f32> = (0..side * side)
            .flat_map(|i| [centre(i % side), centre(i / side)])
            .collect();
        let xy = Tensor::from_vec(xy, (1, side * side, 2), &Device::Cpu)?;
        self.encode(&xy.to_device(self.gaussian.device())?)
    }

    /// Pixel positions to encodings of their pixels' centres.
    fn encode_pixels(&self, positions_px: &Tensor) -> Result<Tensor> {
        let scale = 1.0 / self.image_side_px as f64;
        self.encode(&positions_px.to_dtype(DType::F32)?.affine(scale, 0.5 * scale)?)
    }

    /// Encodes any combination of prompts; none at all is the automatic mode.
    pub fn forward(&self, prompts: &Prompts) -> Result<EncodedPrompts> {
        let mut sparse: Vec<Tensor> = Vec::new();
        match (&prompts.points, &prompts.point_labels) {
            (Some(points), Some(labels)) => {
                let (count, per_prompt, _) = points.dims3()?;
                if labels.dims() != [count, per_prompt] {
                    bail!(
                        "prompts: points {:?} with labels {:?}",
                        points.shape(),
                        labels.shape()
                    );
                }
                let inside = labels.to_dtype(self.dtype())?.unsqueeze(2)?;
                let outside = inside.affine(-1.0, 1.0)?;
                let kind = inside
                    .broadcast_mul(&self.points[1])?
                    .add(&outside.broadcast_mul(&self.points[0])?)?;
                sparse.push((self.encode_pixels(points)? + kind)?);
                if prompts.boxes.is_none() {
                    // SAM pads points without a box by one token that says "not a point".
                    sparse.push(self.not_a_point.unsqueeze(0)?.repeat((count, 1, 1))?);
                }
            }
            (None, None) => {}
            _ => bail!("prompts: points and their labels go together"),
        }
        if let Some(boxes) = &prompts.boxes {
            let count = boxes.dims2()?.0;
            let corners = self.encode_pixels(&boxes.reshape((count, 2, 2))?)?;
            let kind = Tensor::cat(&[&self.points[2], &self.points[3]], 0)?;
            sparse.push(corners.broadcast_add(&kind)?);
        }
        let sparse = if sparse.is_empty() {
            None
        } else {
            Some(Tensor::cat(&sparse, 1)?)
        };
        let dense = match &prompts.masks {
            Some(masks) => self.encode_mask(masks)?,
            None => self.no_mask.reshape((1, 1, 1, ()))?,
        };
        Ok(EncodedPrompts { sparse, dense })
    }

    fn encode_mask(&self, masks: &Tensor) -> Result<Tensor> {
        let (_, channels, height, width) = masks.dims4()?;
        if (channels, height, width) != (1, 4 * self.side, 4 * self.side) {
            bail!(
                "prompts: a mask is [prompts, 1, {0}, {0}], not {1:?}",
                4 * self.side,
                masks.shape()
            );
        }
        let x = masks
            .to_dtype(self.dtype())?
            .permute((0, 2, 3, 1))?
            .contiguous()?;
        let [first, second, third] = &self.mask_convs;
        let x = gelu(&self.mask_norms[0].forward(&first.forward(&x)?)?)?;
        let x = gelu(&self.mask_norms[1].forward(&second.forward(&x)?)?)?;
        third.forward(&x) // [prompts, grid, grid, width]
    }
}
