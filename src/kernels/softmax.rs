//! Softmax over the last dimension.

use super::{is_cpu_f32, is_on_card, linear::for_rows, math, simd};
use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor, bail};

/// Softmax of each row of `x`, `[.., width]`. Differentiable.
///
/// # Errors
/// An input without dimensions, or Candle's own.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    if is_cpu_f32(x) || is_on_card(x) {
        x.contiguous()?.apply_op1(SoftmaxOp)
    } else {
        reference(x)
    }
}

/// The same by Candle's own operations.
///
/// # Errors
/// As [`softmax`].
pub fn reference(x: &Tensor) -> Result<Tensor> {
    let powers = x.broadcast_sub(&x.max_keepdim(D::Minus1)?)?.exp()?;
    powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)
}

/// Softmax of the first `width` numbers of each row of `pitch`, times `scale` before; the others become zero.
pub(crate) fn softmax_rows(rows: &mut [f32], pitch: usize, width: usize, scale: f32) {
    simd::dispatch(Scaled {
        rows,
        pitch,
        width,
        scale,
    });
}

struct Scaled<'a> {
    rows: &'a mut [f32],
    pitch: usize,
    width: usize,
    scale: f32,
}

impl simd::Body for Scaled<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for row in self.rows.chunks_exact_mut(self.pitch) {
            let (row, rest) = row.split_at_mut(self.width);
            row.iter_mut().for_each(|x| *x *= self.scale);
            let factor = 1.0 / exp_shifted::<FMA>(row);
            row.iter_mut().for_each(|x| *x *= factor);
            rest.fill(0.0);
        }
    }
}

struct SoftmaxOp;

struct Rows<'a> {
    rows: &'a mut [f32],
    width: usize,
}

impl simd::Body for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for row in self.rows.chunks_exact_mut(self.width) {
            let factor = 1.0 / exp_shifted::<FMA>(row);
            for x in row {
                *x *= factor;
            }
        }
    }
}

/// Replaces a row by e^(x - max) and returns the sum: a softmax before its division.
#[inline(always)]
pub(super) fn exp_shifted<const FMA: bool>(row: &mut [f32]) -> f32 {
    let max = max_of(row);
    // A row that is all NaN or -inf has no maximum to take away; NaN then spreads by itself.
    exp_minus::<FMA>(row, if max.is_finite() { max } else { 0.0 })
}

/// Numbers of a row that are looked at together: one vector of the widest instruction set.
const STRANDS: usize = 16;

/// The largest number of a row, NaN left out.
#[inline(always)]
pub(super) fn max_of(row: &[f32]) -> f32 {
    let mut strands = [f32::NEG_INFINITY; STRANDS];
    let mut blocks = row.chunks_exact(STRANDS);
    for block in &mut blocks {
        for (strand, x) in strands.iter_mut().zip(block) {
            *strand = if *x > *strand { *x } else { *strand };
        }
    }
    let mut max = f32::NEG_INFINITY;
    for x in strands.iter().chain(blocks.remainder()) {
        max = if *x > max { *x } else { max };
    }
    max
}

/// Replaces a row by e^(x - taken) and returns the sum.
#[inline(always)]
pub(super) fn exp_minus<const FMA: bool>(row: &mut [f32], taken: f32) -> f32 {
    let mut sums = [0f32; STRANDS];
    let mut blocks = row.chunks_exact_mut(STRANDS);
    for block in &mut blocks {
        for (sum, x) in sums.iter_mut().zip(block) {
            *x = math::exp::<FMA>(*x - taken);
            *sum += *x;
        }
    }
    let mut total = 0.0;
    for x in blocks.into_remainder() {
        *x = math::exp::<FMA>(*x - taken);
        total += *x;
    }
    total + sums.iter().sum::<f32>()
}

impl CustomOp1 for SoftmaxOp {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let Some(&width) = layout.dims().last() else {
            bail!("softmax: the input has no dimension")
        };
        let mut y = super::contiguous_f32(x, layout)?.to_vec();
        if width > 0 {
            for_rows(&mut y, width, |_, rows| simd::dispatch(Rows { rows, width }));
        }
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        super::cuda::forward::softmax((x, layout))
    }

    fn bwd(&self, _: &Tensor, y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        // dx = y (g - sum(g y))
        let along = (grad * y)?.sum_keepdim(D::Minus1)?;
        Ok(Some((y * grad.broadcast_sub(&along)?)?))
    }
}
