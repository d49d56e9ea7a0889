//! `x + proj(attention(qkv(norm(x))))`.

use super::{Back, Layer, Stage, Work, add, add_rows, fill_rows, parts, parts_mut};
use crate::kernels::attention::{Sizes, Span, gradients, values};
use crate::kernels::layer_norm::{norm_rows, slopes_of_rows};
use crate::kernels::product::Start;
use candle_core::Result;

/// The attention of a block. Packed weights: norm weight and bias, `qkv` weight `[3 * width, width]` and bias, `proj`
/// weight `[width, width]` and bias, the relative positions `[2 * (2 * side - 1), head_width]`.
#[derive(Debug, Clone, Copy)]
pub struct AttentionStage {
    /// Rows and columns of the grid.
    pub grid: (usize, usize),
    /// Channels of a token.
    pub width: usize,
    /// Heads and span.
    pub span: Span,
    /// Of the norm.
    pub eps: f64,
}

impl AttentionStage {
    fn lengths(&self) -> [usize; 7] {
        let width = self.width;
        let relative = 2 * (2 * self.span.side - 1) * (width / self.span.heads);
        [
            width,
            width,
            3 * width * width,
            3 * width,
            width * width,
            width,
            relative,
        ]
    }

    fn sizes(&self) -> Sizes {
        Sizes {
            images: 1,
            height: self.grid.0,
            width: self.grid.1,
            heads: self.span.heads,
            head_width: self.width / self.span.heads,
            side: self.span.side,
        }
    }
}

impl Stage for AttentionStage {
    const NAME: &'static str = "attention-stage";

    fn unit(&self) -> usize {
        self.grid.0 * self.grid.1 * self.width
    }

    fn packed(&self) -> usize {
        self.lengths().iter().sum()
    }

    /// Queries, keys and values, and what attention makes of them.
    fn kept(&self) -> usize {
        4 * self.unit()
    }

    fn forward(
        &self,
        work: &mut Work,
        packed: &[f32],
        x: &[f32],
        y: &mut [f32],
        kept: &mut [f32],
    ) -> Result<()> {
        let width = self.width;
        let [norm, norm_bias, qkv, qkv_bias, proj, proj_bias, relative] = parts(packed, self.lengths())?;
        let (projected, mixed) = kept.split_at_mut(3 * x.len());
        let [normed, ..] = work.take([x.len(), 0, 0, 0]);
        norm_rows(x, norm, norm_bias, self.eps, normed);
        fill_rows(projected, qkv_bias);
        Layer::new(qkv, width, 3 * width).forward(normed, projected, Start::Output)?;
        mixed.copy_from_slice(&values(projected, qkv_bias, relative, &self.sizes())?);
        fill_rows(y, proj_bias);
        add(y, x);
        Layer::new(proj, width, width).forward(mixed, y, Start::Output)
    }

    fn backward(&self, work: &mut Work, packed: &[f32], back: Back<'_>) -> Result<()> {
        let width = self.width;
        let [norm, norm_bias, qkv, qkv_bias, proj, _, relative] = parts(packed, self.lengths())?;
        let Back {
            x,
            kept,
            grad,
            grad_x,
            grad_packed,
        } = back;
        let (projected, mixed) = kept.split_at(3 * x.len());
        let (qkv, proj) = (Layer::new(qkv, width, 3 * width), Layer::new(proj, width, width));
        let [normed, grad_mixed, norm_sums, _] = work.take([x.len(), x.len(), 2 * width, 0]);
        norm_sums.fill(0.0);
        proj.backward(grad, grad_mixed, Start::Zero)?;
        let found = gradients(projected, qkv_bias, relative, grad_mixed, &self.sizes())?;
        qkv.backward(&found.qkv, normed, Start::Zero)?;
        slopes_of_rows(x, normed, norm, self.eps, grad_x, norm_sums);
        add(grad_x, grad);
        if let Some(grad_packed) = grad_packed {
            let [
                g_norm,
                g_norm_bias,
                g_qkv,
                g_qkv_bias,
                g_proj,
                g_proj_bias,
                g_relative,
            ] = parts_mut(grad_packed, self.lengths())?;
            add(g_norm, &norm_sums[..width]);
            add(g_norm_bias, &norm_sums[width..]);
            norm_rows(x, norm, norm_bias, self.eps, normed);
            qkv.slopes(&found.qkv, normed, g_qkv)?;
            add_rows(g_qkv_bias, &found.qkv);
            // A padded token's key and value are the bias itself.
            add(g_qkv_bias, &found.bias);
            proj.slopes(grad, mixed, g_proj)?;
            add_rows(g_proj_bias, grad);
            add(g_relative, &found.relative);
        }
        Ok(())
    }
}
