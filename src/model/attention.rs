//! The image encoder's attention: one projection to queries, keys and values with FacT's change, attention with
//! decomposed relative positions over a partition or the whole grid, one projection back.

use super::fact::{Fact, SharedFactors};
use super::layers::{LayerNorm, Linear, made_once};
use super::masam::FactMode;
use crate::kernels::attention::{Span, attention};
use crate::kernels::fused::{AttentionStage, fused, pack};
use crate::kernels::{is_trained_on_cpu, linear::linear_onto};
use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

/// Attention of one block.
#[derive(Debug, Clone)]
pub struct Attention {
    pub(crate) qkv: Linear,
    pub(crate) fact: Option<Fact>,
    pub(crate) proj: Linear,
    pub(crate) rel_pos_h: Tensor,
    pub(crate) rel_pos_w: Tensor,
    /// One above the other, unless they are trained.
    relative: Option<Tensor>,
    pub(crate) span: Span,
}

impl Attention {
    /// Weights below a block's `attn`; `rank` as in the configuration.
    pub fn new(
        width: usize,
        rank: usize,
        span: Span,
        shared: &SharedFactors,
        mode: FactMode,
        weights: VarBuilder,
    ) -> Result<Self> {
        let (entries, head_width) = (2 * span.side - 1, width / span.heads);
        let qkv = Linear::new(width, 3 * width, weights.pp("qkv"))?;
        let fact = Fact::new(rank, shared, weights.clone())?;
        let (qkv, fact) = match mode {
            FactMode::Folded => (fact.fold(&qkv)?, None),
            FactMode::Apart => (qkv, Some(fact)),
        };
        let rel_pos_h = weights.get((entries, head_width), "rel_pos_h")?;
        let rel_pos_w = weights.get((entries, head_width), "rel_pos_w")?;
        Ok(Self {
            qkv,
            fact,
            proj: Linear::new(width, width, weights.pp("proj"))?,
            relative: made_once(&[&rel_pos_h, &rel_pos_w], |tables| Tensor::cat(tables, 0))?,
            rel_pos_h,
            rel_pos_w,
            span,
        })
    }

    /// `x + attention(norm(x))`, `[images, height, width, channels]` to the same; in training as one operation, unless
    /// FacT stands apart.
    pub(crate) fn residual(&self, x: &Tensor, norm: &LayerNorm) -> Result<Tensor> {
        let weights = [
            &norm.weight,
            &norm.bias,
            &self.qkv.weight,
            &self.qkv.bias,
            &self.proj.weight,
            &self.proj.bias,
            &self.rel_pos_h,
            &self.rel_pos_w,
        ];
        if self.fact.is_some() || !is_trained_on_cpu(x, &weights) {
            let mixed = self.mixed(&norm.forward(x)?)?;
            return linear_onto(&mixed, &self.proj.weight, &self.proj.bias, x);
        }
        let (_, height, width, channels) = x.dims4()?;
        let stage = AttentionStage {
            grid: (height, width),
            width: channels,
            span: self.span,
            eps: norm.eps,
        };
        fused(x, &pack(&weights)?, stage)
    }

    /// `[images, height, width, channels]` to the same.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.proj.forward(&self.mixed(x)?)
    }

    /// The heads' outputs side by side, before the projection back.
    fn mixed(&self, x: &Tensor) -> Result<Tensor> {
        let mut qkv = self.qkv.forward(x)?;
        if let Some(fact) = &self.fact {
            qkv = (qkv + fact.forward(x)?)?;
        }
        let relative = match &self.relative {
            Some(relative) => relative.clone(),
            None => Tensor::cat(&[&self.rel_pos_h, &self.rel_pos_w], 0)?,
        };
        attention(&qkv, &self.qkv.bias, &relative, self.span)
    }
}
