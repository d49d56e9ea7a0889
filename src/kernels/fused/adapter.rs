//! `x + up(gelu(conv(down(norm(x)))))`, the convolution over the frames of a clip.

use super::{Back, Layer, Stage, Work, add, add_rows, fill_rows, parts, parts_mut};
use crate::kernels::gelu::{gelu_rows, slope_rows};
use crate::kernels::layer_norm::{norm_rows, slopes_of_rows};
use crate::kernels::product::Start;
use candle_core::Result;
use std::ops::Range;

/// A temporal adapter. Packed weights: norm weight and bias, `down` `[adapter, width]`, the taps
/// `[3, adapter, adapter]` and their bias, `up` `[width, adapter]`.
#[derive(Debug, Clone, Copy)]
pub struct AdapterStage {
    /// Frames of a clip.
    pub frames: usize,
    /// Tokens of an image.
    pub tokens: usize,
    /// Channels of a token.
    pub width: usize,
    /// Channels inside.
    pub adapter: usize,
    /// How many frames the first tap looks back: 1 for centered taps, 2 for causal ones.
    pub before: usize,
    /// Of the norm.
    pub eps: f64,
}

impl AdapterStage {
    fn lengths(&self) -> [usize; 6] {
        let Self { width, adapter, .. } = *self;
        [
            width,
            width,
            adapter * width,
            3 * adapter * adapter,
            adapter,
            width * adapter,
        ]
    }

    /// For each tap the frames that have a frame under it, and how far that one lies from them: frames outside the
    /// clip are zero and cost nothing.
    fn taps(&self) -> impl Iterator<Item = (Range<usize>, isize)> {
        let (frames, before) = (self.frames as isize, self.before as isize);
        (0..3).map(move |tap| {
            let shift = tap as isize - before;
            let first = (-shift).clamp(0, frames) as usize;
            let end = (frames - shift).clamp(0, frames) as usize;
            (first..end.max(first), shift)
        })
    }

    /// Floats of some frames and of those under the tap.
    fn spans(&self, frames: &Range<usize>, shift: isize) -> [Range<usize>; 2] {
        let frame = self.tokens * self.adapter;
        let under = |f: usize| f.saturating_add_signed(shift);
        [
            frames.start * frame..frames.end * frame,
            under(frames.start) * frame..under(frames.end) * frame,
        ]
    }
}

impl Stage for AdapterStage {
    const NAME: &'static str = "adapter-stage";

    fn unit(&self) -> usize {
        self.frames * self.tokens * self.width
    }

    fn packed(&self) -> usize {
        self.lengths().iter().sum()
    }

    /// What goes into the convolution and what comes out of it.
    fn kept(&self) -> usize {
        2 * self.frames * self.tokens * self.adapter
    }

    fn forward(
        &self,
        work: &mut Work,
        packed: &[f32],
        x: &[f32],
        y: &mut [f32],
        kept: &mut [f32],
    ) -> Result<()> {
        let Self { width, adapter, .. } = *self;
        let [norm, norm_bias, down, taps, taps_bias, up] = parts(packed, self.lengths())?;
        let (low, sum) = kept.split_at_mut(kept.len() / 2);
        let [normed, active, ..] = work.take([x.len(), sum.len(), 0, 0]);
        norm_rows(x, norm, norm_bias, self.eps, normed);
        Layer::new(down, width, adapter).forward(normed, low, Start::Zero)?;
        fill_rows(sum, taps_bias);
        for ((frames, shift), weight) in self.taps().zip(taps.chunks_exact(adapter * adapter)) {
            let [to, from] = self.spans(&frames, shift);
            Layer::new(weight, adapter, adapter).forward(&low[from], &mut sum[to], Start::Output)?;
        }
        gelu_rows(sum, active);
        y.copy_from_slice(x);
        Layer::new(up, adapter, width).forward(active, y, Start::Output)
    }

    fn backward(&self, work: &mut Work, packed: &[f32], back: Back<'_>) -> Result<()> {
        let Self { width, adapter, .. } = *self;
        let [norm, norm_bias, down, taps, _, up] = parts(packed, self.lengths())?;
        let Back {
            x,
            kept,
            grad,
            grad_x,
            grad_packed,
        } = back;
        let (low, sum) = kept.split_at(kept.len() / 2);
        let (down, up) = (Layer::new(down, width, adapter), Layer::new(up, adapter, width));
        let [normed, active, inner, norm_sums] = work.take([x.len(), sum.len(), 2 * sum.len(), 2 * width]);
        let (grad_sum, grad_low) = inner.split_at_mut(sum.len());
        norm_sums.fill(0.0);
        up.backward(grad, active, Start::Zero)?;
        slope_rows(sum, active, grad_sum);
        grad_low.fill(0.0);
        for ((frames, shift), weight) in self.taps().zip(taps.chunks_exact(adapter * adapter)) {
            let [to, from] = self.spans(&frames, shift);
            Layer::new(weight, adapter, adapter).backward(
                &grad_sum[to],
                &mut grad_low[from],
                Start::Output,
            )?;
        }
        down.backward(grad_low, normed, Start::Zero)?;
        slopes_of_rows(x, normed, norm, self.eps, grad_x, norm_sums);
        add(grad_x, grad);
        if let Some(grad_packed) = grad_packed {
            let [g_norm, g_norm_bias, g_down, g_taps, g_taps_bias, g_up] =
                parts_mut(grad_packed, self.lengths())?;
            add(g_norm, &norm_sums[..width]);
            add(g_norm_bias, &norm_sums[width..]);
            norm_rows(x, norm, norm_bias, self.eps, normed);
            down.slopes(grad_low, normed, g_down)?;
            let weights = taps
                .chunks_exact(adapter * adapter)
                .zip(g_taps.chunks_exact_mut(adapter * adapter));
            for ((frames, shift), (weight, g_weight)) in self.taps().zip(weights) {
                let [to, from] = self.spans(&frames, shift);
                Layer::new(weight, adapter, adapter).slopes(&grad_sum[to], &low[from], g_weight)?;
            }
            add_rows(g_taps_bias, grad_sum);
            gelu_rows(sum, active);
            up.slopes(grad, active, g_up)?;
        }
        Ok(())
    }
}
