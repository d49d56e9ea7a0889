//! `gelu(norm(u))`, u a transposed convolution of side and stride two: each token becomes a square of four.

use super::{Back, Layer, Stage, Work, add, add_rows, fill_rows, parts, parts_mut};
use crate::kernels::gelu::{gelu_rows, slope_rows};
use crate::kernels::layer_norm::{norm_rows, slopes_of_rows};
use crate::kernels::product::Start;
use candle_core::Result;

/// One step of the mask decoder's way up to pixels. Packed weights: the convolution's `[2, 2, outputs, inputs]` and
/// bias, the norm's weight and bias where there is one.
#[derive(Debug, Clone, Copy)]
pub struct UpscaleStage {
    /// Rows and columns of the input.
    pub grid: (usize, usize),
    /// Channels of the input.
    pub inputs: usize,
    /// Channels of the output.
    pub outputs: usize,
    /// Epsilon of the norm, `None` without one.
    pub norm_eps: Option<f64>,
}

impl UpscaleStage {
    fn lengths(&self) -> [usize; 4] {
        let Self { inputs, outputs, .. } = *self;
        let norm = if self.norm_eps.is_some() { outputs } else { 0 };
        [4 * outputs * inputs, outputs, norm, norm]
    }

    /// Brings squares of tokens, `[height, width, 2, 2, outputs]`, to their places, `[2 height, 2 width, outputs]`.
    fn spread(&self, tokens: &[f32], pixels: &mut [f32]) {
        let pair = 2 * self.outputs;
        let row = self.grid.1 * pair;
        for (tokens, rows) in tokens.chunks_exact(2 * row).zip(pixels.chunks_exact_mut(2 * row)) {
            let (upper, lower) = rows.split_at_mut(row);
            let places = upper.chunks_exact_mut(pair).zip(lower.chunks_exact_mut(pair));
            for (token, (upper, lower)) in tokens.chunks_exact(2 * pair).zip(places) {
                upper.copy_from_slice(&token[..pair]);
                lower.copy_from_slice(&token[pair..]);
            }
        }
    }

    /// The way back of [`UpscaleStage::spread`].
    fn gather(&self, pixels: &[f32], tokens: &mut [f32]) {
        let pair = 2 * self.outputs;
        let row = self.grid.1 * pair;
        for (tokens, rows) in tokens.chunks_exact_mut(2 * row).zip(pixels.chunks_exact(2 * row)) {
            let (upper, lower) = rows.split_at(row);
            let places = upper.chunks_exact(pair).zip(lower.chunks_exact(pair));
            for (token, (upper, lower)) in tokens.chunks_exact_mut(2 * pair).zip(places) {
                token[..pair].copy_from_slice(upper);
                token[pair..].copy_from_slice(lower);
            }
        }
    }

    fn layer<'a>(&self, weight: &'a [f32]) -> Layer<'a> {
        Layer::new(weight, self.inputs, 4 * self.outputs)
    }
}

impl Stage for UpscaleStage {
    const NAME: &'static str = "upscale-stage";

    fn unit(&self) -> usize {
        self.grid.0 * self.grid.1 * self.inputs
    }

    fn output(&self) -> usize {
        4 * self.grid.0 * self.grid.1 * self.outputs
    }

    fn shape(&self, x: &[usize]) -> Vec<usize> {
        let images = x.first().copied().unwrap_or(0);
        vec![images, 2 * self.grid.0, 2 * self.grid.1, self.outputs]
    }

    fn packed(&self) -> usize {
        self.lengths().iter().sum()
    }

    /// What comes out of the convolution.
    fn kept(&self) -> usize {
        self.output()
    }

    fn forward(
        &self,
        work: &mut Work,
        packed: &[f32],
        x: &[f32],
        y: &mut [f32],
        kept: &mut [f32],
    ) -> Result<()> {
        let [weight, bias, norm, norm_bias] = parts(packed, self.lengths())?;
        let [tokens, normed, ..] = work.take([y.len(), y.len(), 0, 0]);
        fill_rows(tokens, bias);
        self.layer(weight).forward(x, tokens, Start::Output)?;
        self.spread(tokens, kept);
        match self.norm_eps {
            Some(eps) => {
                norm_rows(kept, norm, norm_bias, eps, normed);
                gelu_rows(normed, y);
            }
            None => gelu_rows(kept, y),
        }
        Ok(())
    }

    fn backward(&self, work: &mut Work, packed: &[f32], back: Back<'_>) -> Result<()> {
        let [weight, _, norm, norm_bias] = parts(packed, self.lengths())?;
        let Back {
            x,
            kept,
            grad,
            grad_x,
            grad_packed,
        } = back;
        let outputs = self.outputs;
        let [normed, slopes, pixels, norm_sums] =
            work.take([kept.len(), kept.len(), kept.len(), 2 * outputs]);
        norm_sums.fill(0.0);
        match self.norm_eps {
            Some(eps) => {
                norm_rows(kept, norm, norm_bias, eps, normed);
                slope_rows(normed, grad, slopes);
                slopes_of_rows(kept, slopes, norm, eps, pixels, norm_sums);
            }
            None => slope_rows(kept, grad, pixels),
        }
        let tokens = normed;
        self.gather(pixels, tokens);
        self.layer(weight).backward(tokens, grad_x, Start::Zero)?;
        if let Some(grad_packed) = grad_packed {
            let [g_weight, g_bias, g_norm, g_norm_bias] = parts_mut(grad_packed, self.lengths())?;
            self.layer(weight).slopes(tokens, x, g_weight)?;
            add_rows(g_bias, pixels);
            if self.norm_eps.is_some() {
                add(g_norm, &norm_sums[..outputs]);
                add(g_norm_bias, &norm_sums[outputs..]);
            }
        }
        Ok(())
    }
}
