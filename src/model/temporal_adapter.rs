//! The temporal 3D adapter (paper, section 2.3): `x + up(gelu(conv(down(norm(x)))))`.
//!
//! The convolution is 3x1x1: over frames alone, so it is three products with shifted frames. Centered taps look at
//! t-1, t, t+1, causal ones at t-2, t-1, t; frames outside the clip are zero.

use super::causal::Passing;
use super::layers::{ENCODER_EPS, LayerNorm, made_once};
use crate::kernels::fused::{AdapterStage, fused, pack};
use crate::kernels::linear::{linear, linear_gelu, unbiased};
use crate::kernels::{gelu::gelu, is_on_card, is_trained_on_cpu, temporal};
use crate::segmenter::Temporal;
use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

/// Which of a block's two adapters: their weights stand side by side, told apart by a suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Before attention: `adapter_norm`, `adapter_linear_down`, …
    Before,
    /// After it: `adapter_norm_2`, `adapter_linear_down_2`, …
    After,
}

impl Position {
    /// What stands behind a part's name.
    pub fn suffix(self) -> &'static str {
        match self {
            Position::Before => "",
            Position::After => "_2",
        }
    }
}

/// One adapter.
#[derive(Debug, Clone)]
pub struct TemporalAdapter {
    pub(crate) norm: LayerNorm,
    /// `[adapter, width]`
    pub(crate) down: Tensor,
    /// `[adapter, adapter, 3, 1, 1]`
    pub(crate) taps: Tensor,
    pub(crate) taps_bias: Tensor,
    /// `[width, adapter]`
    pub(crate) up: Tensor,
    /// The taps side by side, `[adapter, 3 * adapter]`, unless they are trained: for a card's one product.
    stacked: Option<Tensor>,
    pub(crate) temporal: Temporal,
}

impl TemporalAdapter {
    /// Weights below a block's path.
    pub fn new(
        width: usize,
        adapter: usize,
        temporal: Temporal,
        position: Position,
        weights: &VarBuilder,
    ) -> Result<Self> {
        let part = |name: &str| weights.pp(format!("adapter_{name}{}", position.suffix()));
        let taps = part("conv").get((adapter, adapter, 3, 1, 1), "weight")?;
        let stacked = made_once(&[&taps], |_| {
            let taps = taps.reshape((adapter, adapter, 3))?.transpose(1, 2)?; // [outputs, 3, inputs]
            taps.contiguous()?.flatten_from(1)
        })?;
        Ok(Self {
            norm: LayerNorm::new(width, ENCODER_EPS, part("norm"))?,
            down: part("linear_down").get((adapter, width), "weight")?,
            stacked: stacked.filter(is_on_card),
            taps,
            taps_bias: part("conv").get(adapter, "bias")?,
            up: part("linear_up").get((width, adapter), "weight")?,
            temporal,
        })
    }

    /// `[batch * frames, height, width, channels]` to the same; `frames` is the length of a clip.
    pub fn forward(&self, x: &Tensor, frames: usize) -> Result<Tensor> {
        let (images, height, width, _) = x.dims4()?;
        let adapter = self.down.dim(0)?;
        let weights = [
            &self.norm.weight,
            &self.norm.bias,
            &self.down,
            &self.taps,
            &self.taps_bias,
            &self.up,
        ];
        let (before, after) = match self.temporal {
            Temporal::Centered => (1, 1),
            Temporal::Causal => (2, 0),
        };
        if is_trained_on_cpu(x, &weights) {
            let stage = AdapterStage {
                frames,
                tokens: height * width,
                width: x.dim(3)?,
                adapter,
                before,
                eps: self.norm.eps,
            };
            let taps = self.taps.reshape((adapter, adapter, 3))?.permute((2, 0, 1))?; // [3, adapter, adapter]
            let [norm, norm_bias, down, _, taps_bias, up] = weights;
            let packed = pack(&[norm, norm_bias, down, &taps.contiguous()?, taps_bias, up])?;
            return fused(x, &packed, stage);
        }
        let low = self
            .low(x)?
            .reshape((images / frames, frames, height * width, adapter))?;
        if let Some(weight) = &self.stacked {
            return self.finish_stacked(x, &temporal::stacked(&low, frames, before)?, weight);
        }
        let low = low.pad_with_zeros(1, before, after)?; // [batch, frames + 2, height * width, adapter]
        self.finish(x, &low)
    }

    /// One new frame of each stream, `[streams, height, width, channels]`, with the past that `passing` holds.
    pub(crate) fn step(&self, x: &Tensor, passing: &mut Passing<'_>) -> Result<Tensor> {
        let low = self.low(x)?.flatten(1, 2)?; // [streams, height * width, adapter]
        let taps = passing.taps(&low)?; // [streams, height * width, 3 * adapter]
        if let Some(weight) = &self.stacked {
            return self.finish_stacked(x, &taps, weight);
        }
        let (streams, tokens, adapter) = low.dims3()?;
        let window = taps.reshape((streams, tokens, 3, adapter))?.transpose(1, 2)?; // [streams, 3, tokens, adapter]
        self.finish(x, &window)
    }

    /// The convolution's input: `[images, height, width, channels]` to `[images, height, width, adapter]`.
    fn low(&self, x: &Tensor) -> Result<Tensor> {
        unbiased(&self.norm.forward(x)?, &self.down)
    }

    /// From the convolution's inputs side by side, `[batch, frames, tokens, 3 * adapter]`, to the output.
    fn finish_stacked(&self, x: &Tensor, stacked: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let (images, height, width, _) = x.dims4()?;
        let sum = linear_gelu(stacked, weight, &self.taps_bias)?;
        linear(&sum.reshape((images, height, width, ()))?, &self.up, x)
    }

    /// From the convolution's input with the frames around it, `[batch, frames + 2, tokens, adapter]`, to the output.
    fn finish(&self, x: &Tensor, low: &Tensor) -> Result<Tensor> {
        let (images, height, width, _) = x.dims4()?;
        let (_, padded, _, adapter) = low.dims4()?;
        let taps = self.taps.reshape((adapter, adapter, 3))?;
        let mut sum = self.taps_bias.clone();
        for tap in 0..3 {
            let weight = taps.narrow(2, tap, 1)?.squeeze(2)?;
            sum = linear(&low.narrow(1, tap, padded - 2)?, &weight, &sum)?;
        }
        let sum = gelu(&sum)?.reshape((images, height, width, adapter))?;
        linear(&sum, &self.up, x)
    }
}
