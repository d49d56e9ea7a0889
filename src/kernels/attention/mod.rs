//! Attention with decomposed relative positions, over the whole grid or over square partitions of it.
//!
//! For a query at row a, column b and a key at row c, column d of the same span:
//! ```text
//! score = q.k / sqrt(head width) + q.rel_h[a - c + side - 1] + q.rel_w[b - d + side - 1]
//! ```
//! Where the grid is no multiple of a partition's side it is padded below and to the right. SAM pads before the
//! qkv projection, so a padded token's key and value are the projection's bias: they take part in attention and are
//! never computed as tokens.

mod cpu;
mod gradient;
mod reference;

use super::{by_reference, is_cpu_f32, is_on_card, with_elements};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
pub(super) use cpu::attention as values;
pub(super) use gradient::gradients;
pub use reference::reference;

/// How far a query sees, and in how many heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Attention heads.
    pub heads: usize,
    /// Side of the square of tokens that see each other: a partition's, or the grid's for global attention.
    pub side: usize,
}

/// Attention of every token over its span.
///
/// * `qkv`: `[images, height, width, 3 * heads * head_width]`, queries before keys before values, in tokens
/// * `bias`: `[3 * heads * head_width]`, the qkv of a padded token
/// * `relative`: `[2 * (2 * side - 1), head_width]`, the table of rows above the table of columns
///
/// Gives `[images, height, width, heads * head_width]`. Differentiable in all three.
///
/// # Errors
/// Shapes that do not fit, or Candle's own.
pub fn attention(qkv: &Tensor, bias: &Tensor, relative: &Tensor, span: Span) -> Result<Tensor> {
    if is_cpu_f32(qkv) || is_on_card(qkv) && has_card_kernel(qkv, bias, relative, span) {
        let (bias, relative) = (bias.contiguous()?, relative.contiguous()?);
        qkv.contiguous()?
            .apply_op3(&bias, &relative, AttentionOp { span })
    } else {
        reference(qkv, bias, relative, span)
    }
}

/// Whether the card has a kernel for these; shapes that do not fit are for the reference to refuse.
#[cfg(feature = "cuda")]
fn has_card_kernel(qkv: &Tensor, bias: &Tensor, relative: &Tensor, span: Span) -> bool {
    let sizes = Sizes::of(qkv.dims(), bias.dims(), relative.dims(), span);
    sizes.is_ok_and(|sizes| super::cuda::forward::has_attention(&sizes))
}

#[cfg(not(feature = "cuda"))]
fn has_card_kernel(_: &Tensor, _: &Tensor, _: &Tensor, _: Span) -> bool {
    false
}

/// The lengths that follow from the arguments' shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) images: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) heads: usize,
    pub(super) head_width: usize,
    pub(super) side: usize,
}

impl Sizes {
    fn of(qkv: &[usize], bias: &[usize], relative: &[usize], span: Span) -> Result<Self> {
        let wrong = || format!("attention: qkv {qkv:?}, bias {bias:?}, relative {relative:?}, {span:?}");
        let [images, height, width, channels] = *qkv else {
            bail!("{}", wrong())
        };
        if span.heads == 0 || span.side == 0 || !channels.is_multiple_of(3 * span.heads) {
            bail!("{}", wrong());
        }
        let head_width = channels / 3 / span.heads;
        if head_width == 0 || bias != [channels] || relative != [2 * (2 * span.side - 1), head_width] {
            bail!("{}", wrong());
        }
        Ok(Self {
            images,
            height,
            width,
            heads: span.heads,
            head_width,
            side: span.side,
        })
    }

    /// Partitions from top to bottom and from left to right.
    pub(super) fn partitions(&self) -> (usize, usize) {
        (self.height.div_ceil(self.side), self.width.div_ceil(self.side))
    }

    /// Channels of the output.
    fn channels(&self) -> usize {
        self.heads * self.head_width
    }

    pub(super) fn scale(&self) -> f64 {
        1.0 / (self.head_width as f64).sqrt()
    }
}

struct AttentionOp {
    span: Span,
}

impl CustomOp3 for AttentionOp {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        qkv: &CpuStorage,
        qkv_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
        relative: &CpuStorage,
        relative_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let sizes = Sizes::of(
            qkv_layout.dims(),
            bias_layout.dims(),
            relative_layout.dims(),
            self.span,
        )?;
        let qkv = super::contiguous_f32(qkv, qkv_layout)?;
        let bias = super::contiguous_f32(bias, bias_layout)?;
        let relative = super::contiguous_f32(relative, relative_layout)?;
        let output = cpu::attention(qkv, bias, relative, &sizes)?;
        let shape = (sizes.images, sizes.height, sizes.width, sizes.channels());
        Ok((CpuStorage::F32(output), shape.into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        qkv: &candle_core::CudaStorage,
        qkv_layout: &Layout,
        bias: &candle_core::CudaStorage,
        bias_layout: &Layout,
        relative: &candle_core::CudaStorage,
        relative_layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let dims = [qkv_layout, bias_layout, relative_layout].map(Layout::dims);
        let sizes = Sizes::of(dims[0], dims[1], dims[2], self.span)?;
        super::cuda::forward::attention(
            (qkv, qkv_layout),
            (bias, bias_layout),
            (relative, relative_layout),
            &sizes,
        )
    }

    fn bwd(
        &self,
        qkv: &Tensor,
        bias: &Tensor,
        relative: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        if !is_cpu_f32(qkv) {
            let [qkv, bias, relative] =
                by_reference::gradients([qkv, bias, relative], grad, |[qkv, bias, relative]| {
                    reference(qkv, bias, relative, self.span)
                })?;
            return Ok((qkv, bias, relative));
        }
        let sizes = Sizes::of(qkv.dims(), bias.dims(), relative.dims(), self.span)?;
        let contiguous = grad.contiguous()?;
        let found = with_elements(qkv, |qkv_values| {
            with_elements(bias, |bias_values| {
                with_elements(relative, |relative_values| {
                    with_elements(&contiguous, |grad| {
                        gradient::gradients(qkv_values, bias_values, relative_values, grad, &sizes)
                    })
                })
            })
        })?;
        let like = |values, t: &Tensor| Tensor::from_vec(values, t.shape(), t.device()).map(Some);
        Ok((
            like(found.qkv, qkv)?,
            like(found.bias, bias)?,
            like(found.relative, relative)?,
        ))
    }
}
