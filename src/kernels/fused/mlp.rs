//! `x + lin2(gelu(lin1(norm(x))))`.

use super::{Back, Layer, Stage, Work, add, add_rows, fill_rows, parts, parts_mut};
use crate::kernels::gelu::{gelu_rows, slope_rows};
use crate::kernels::layer_norm::{norm_rows, slopes_of_rows};
use crate::kernels::product::Start;
use candle_core::Result;

/// The MLP of a block. Packed weights: norm weight and bias, first product's weight `[hidden, width]` and bias, the
/// second's weight `[width, hidden]` and bias.
#[derive(Debug, Clone, Copy)]
pub struct MlpStage {
    /// Tokens of an image.
    pub tokens: usize,
    /// Channels of a token.
    pub width: usize,
    /// Channels between the products.
    pub hidden: usize,
    /// Of the norm.
    pub eps: f64,
}

impl MlpStage {
    fn lengths(&self) -> [usize; 6] {
        let Self { width, hidden, .. } = *self;
        [width, width, hidden * width, hidden, width * hidden, width]
    }
}

impl Stage for MlpStage {
    const NAME: &'static str = "mlp-stage";

    fn unit(&self) -> usize {
        self.tokens * self.width
    }

    fn packed(&self) -> usize {
        self.lengths().iter().sum()
    }

    /// What goes into the GELU.
    fn kept(&self) -> usize {
        self.tokens * self.hidden
    }

    fn forward(
        &self,
        work: &mut Work,
        packed: &[f32],
        x: &[f32],
        y: &mut [f32],
        kept: &mut [f32],
    ) -> Result<()> {
        let Self { width, hidden, .. } = *self;
        let [norm, norm_bias, first, first_bias, second, second_bias] = parts(packed, self.lengths())?;
        let [normed, active, ..] = work.take([x.len(), kept.len(), 0, 0]);
        norm_rows(x, norm, norm_bias, self.eps, normed);
        fill_rows(kept, first_bias);
        Layer::new(first, width, hidden).forward(normed, kept, Start::Output)?;
        gelu_rows(kept, active);
        fill_rows(y, second_bias);
        add(y, x);
        Layer::new(second, hidden, width).forward(active, y, Start::Output)
    }

    fn backward(&self, work: &mut Work, packed: &[f32], back: Back<'_>) -> Result<()> {
        let Self { width, hidden, .. } = *self;
        let [norm, norm_bias, first, _, second, _] = parts(packed, self.lengths())?;
        let Back {
            x,
            kept,
            grad,
            grad_x,
            grad_packed,
        } = back;
        let (first, second) = (
            Layer::new(first, width, hidden),
            Layer::new(second, hidden, width),
        );
        let [normed, active, grad_hidden, norm_sums] =
            work.take([x.len(), kept.len(), kept.len(), 2 * width]);
        norm_sums.fill(0.0);
        second.backward(grad, active, Start::Zero)?;
        slope_rows(kept, active, grad_hidden);
        first.backward(grad_hidden, normed, Start::Zero)?;
        slopes_of_rows(x, normed, norm, self.eps, grad_x, norm_sums);
        add(grad_x, grad);
        if let Some(grad_packed) = grad_packed {
            let [
                g_norm,
                g_norm_bias,
                g_first,
                g_first_bias,
                g_second,
                g_second_bias,
            ] = parts_mut(grad_packed, self.lengths())?;
            add(g_norm, &norm_sums[..width]);
            add(g_norm_bias, &norm_sums[width..]);
            norm_rows(x, norm, norm_bias, self.eps, normed);
            first.slopes(grad_hidden, normed, g_first)?;
            add_rows(g_first_bias, grad_hidden);
            gelu_rows(kept, active);
            second.slopes(grad, active, g_second)?;
            add_rows(g_second_bias, grad);
        }
        Ok(())
    }
}
