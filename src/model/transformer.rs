//! SAM's two-way transformer: tokens look at themselves and at the picture, then the picture looks at the tokens.

use super::config::ModelConfig;
use super::layers::{Activation, DECODER_EPS, LayerNorm, Linear, Mlp};
use crate::kernels::softmax::softmax;
use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

/// Attention between two sets of tokens.
#[derive(Debug, Clone)]
pub(crate) struct TokenAttention {
    pub(crate) q_proj: Linear,
    pub(crate) k_proj: Linear,
    pub(crate) v_proj: Linear,
    pub(crate) out_proj: Linear,
    pub(crate) heads: usize,
}

impl TokenAttention {
    fn new(width: usize, inner: usize, heads: usize, weights: VarBuilder) -> Result<Self> {
        Ok(Self {
            q_proj: Linear::new(width, inner, weights.pp("q_proj"))?,
            k_proj: Linear::new(width, inner, weights.pp("k_proj"))?,
            v_proj: Linear::new(width, inner, weights.pp("v_proj"))?,
            out_proj: Linear::new(inner, width, weights.pp("out_proj"))?,
            heads,
        })
    }

    /// `[images, tokens, width]` each; `k` and `v` have the same number of tokens. Gives the shape of `q`.
    fn forward(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let split = |x: Tensor| -> Result<Tensor> {
            let (images, tokens, inner) = x.dims3()?;
            x.reshape((images, tokens, self.heads, inner / self.heads))?
                .transpose(1, 2)?
                .contiguous()
        }; // [images, heads, tokens, head_width]
        let (q, k) = (split(self.q_proj.forward(q)?)?, split(self.k_proj.forward(k)?)?);
        let v = split(self.v_proj.forward(v)?)?;
        let scale = 1.0 / (q.dim(3)? as f64).sqrt();
        let weights = softmax(&((q * scale)?.matmul(&k.t()?)?))?;
        let mixed = weights
            .matmul(&v)?
            .transpose(1, 2)?
            .contiguous()?
            .flatten_from(2)?; // [images, tokens, inner]
        self.out_proj.forward(&mixed)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct TwoWayBlock {
    pub(crate) self_attn: TokenAttention,
    pub(crate) norm1: LayerNorm,
    pub(crate) cross_attn_token_to_image: TokenAttention,
    pub(crate) norm2: LayerNorm,
    pub(crate) mlp: Mlp,
    pub(crate) norm3: LayerNorm,
    pub(crate) norm4: LayerNorm,
    pub(crate) cross_attn_image_to_token: TokenAttention,
    /// The first block's self-attention sees no positions and has no residual.
    pub(crate) first: bool,
}

impl TwoWayBlock {
    fn new(config: &ModelConfig, first: bool, weights: VarBuilder) -> Result<Self> {
        let (width, heads) = (config.prompt_width, config.decoder_heads);
        let norm = |i: usize| LayerNorm::new(width, DECODER_EPS, weights.pp(format!("norm{i}")));
        let cross = |name: &str| TokenAttention::new(width, width / 2, heads, weights.pp(name));
        Ok(Self {
            self_attn: TokenAttention::new(width, width, heads, weights.pp("self_attn"))?,
            norm1: norm(1)?,
            cross_attn_token_to_image: cross("cross_attn_token_to_image")?,
            norm2: norm(2)?,
            mlp: Mlp::new(
                width,
                config.decoder_mlp_width,
                Activation::Relu,
                weights.pp("mlp"),
            )?,
            norm3: norm(3)?,
            norm4: norm(4)?,
            cross_attn_image_to_token: cross("cross_attn_image_to_token")?,
            first,
        })
    }

    fn forward(
        &self,
        tokens: &Tensor,
        image: &Tensor,
        token_positions: &Tensor,
        image_positions: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let tokens = if self.first {
            self.self_attn.forward(tokens, tokens, tokens)?
        } else {
            let placed = (tokens + token_positions)?;
            (tokens + self.self_attn.forward(&placed, &placed, tokens)?)?
        };
        let tokens = self.norm1.forward(&tokens)?;
        let placed_image = image.broadcast_add(image_positions)?;

        let placed = (&tokens + token_positions)?;
        let seen = self
            .cross_attn_token_to_image
            .forward(&placed, &placed_image, image)?;
        let tokens = self.norm2.forward(&(tokens + seen)?)?;
        let tokens = self.norm3.forward(&(&tokens + self.mlp.forward(&tokens)?)?)?;

        let placed = (&tokens + token_positions)?;
        let seen = self
            .cross_attn_image_to_token
            .forward(&placed_image, &placed, &tokens)?;
        let image = self.norm4.forward(&(image + seen)?)?;
        Ok((tokens, image))
    }
}

/// SAM's two-way transformer.
#[derive(Debug, Clone)]
pub struct TwoWayTransformer {
    pub(crate) layers: Vec<TwoWayBlock>,
    pub(crate) final_attn_token_to_image: TokenAttention,
    pub(crate) norm_final_attn: LayerNorm,
}

impl TwoWayTransformer {
    /// Weights below `mask_decoder.transformer`.
    pub fn new(config: &ModelConfig, weights: VarBuilder) -> Result<Self> {
        let (width, heads) = (config.prompt_width, config.decoder_heads);
        let last = weights.pp("final_attn_token_to_image");
        Ok(Self {
            layers: (0..config.decoder_depth)
                .map(|i| TwoWayBlock::new(config, i == 0, weights.pp("layers").pp(i)))
                .collect::<Result<_>>()?,
            final_attn_token_to_image: TokenAttention::new(width, width / 2, heads, last)?,
            norm_final_attn: LayerNorm::new(width, DECODER_EPS, weights.pp("norm_final_attn"))?,
        })
    }

    /// * `tokens`: `[images, tokens, width]`, which are also the tokens' positions
    /// * `image`: `[images, grid * grid, width]`
    /// * `image_positions`: `[1, grid * grid, width]`
    ///
    /// Gives tokens and image in their shapes.
    pub fn forward(
        &self,
        tokens: &Tensor,
        image: &Tensor,
        image_positions: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let (mut t, mut x) = (tokens.clone(), image.clone());
        for layer in &self.layers {
            (t, x) = layer.forward(&t, &x, tokens, image_positions)?;
        }
        let placed = x.broadcast_add(image_positions)?;
        let seen = self
            .final_attn_token_to_image
            .forward(&(&t + tokens)?, &placed, &x)?;
        Ok((self.norm_final_attn.forward(&(t + seen)?)?, x))
    }
}
