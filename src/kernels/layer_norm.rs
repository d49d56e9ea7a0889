//! Layer norm over the last dimension, `(x - mean) / sqrt(variance + eps) * weight + bias`.
//!
//! The model keeps channels last everywhere, so SAM's channel norm is the same kernel.

use super::{is_cpu_f32, linear::for_rows, math::mul_add, simd};
use candle_core::{CpuStorage, CustomOp3, D, Layout, Result, Shape, Tensor, bail};

/// Normalises each row of `x`, `[.., width]`, with `weight` and `bias`, `[width]`. Differentiable in all three.
///
/// # Errors
/// Shapes that do not fit, or Candle's own.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    if is_cpu_f32(x) {
        x.contiguous()?
            .apply_op3(&weight.contiguous()?, &bias.contiguous()?, LayerNormOp { eps })
    } else {
        reference(x, weight, bias, eps)
    }
}

/// The same by Candle's own operations.
///
/// # Errors
/// As [`layer_norm`].
pub fn reference(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    normalised(x, eps)?.0.broadcast_mul(weight)?.broadcast_add(bias)
}

/// `x` with zero mean and unit variance in each row, and the factor 1 / sqrt(variance + eps) of each row.
fn normalised(x: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let inverse = (centred.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?.recip()?;
    Ok((centred.broadcast_mul(&inverse)?, inverse))
}

struct LayerNormOp {
    eps: f64,
}

struct Rows<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    y: &'a mut [f32],
    eps: f32,
}

/// Sums `f(x)` in sixteen strands, so that additions do not wait for one another.
#[inline(always)]
fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut strands = [0f32; 16];
    let mut blocks = x.chunks_exact(16);
    for block in &mut blocks {
        for (strand, x) in strands.iter_mut().zip(block) {
            *strand += f(*x);
        }
    }
    strands.iter().sum::<f32>() + blocks.remainder().iter().map(|x| f(*x)).sum::<f32>()
}

impl simd::Body for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let width = self.weight.len();
        for (x, y) in self.x.chunks_exact(width).zip(self.y.chunks_exact_mut(width)) {
            let mean = sum(x, |x| x) / width as f32;
            let variance = sum(x, |x| (x - mean) * (x - mean)) / width as f32;
            let inverse = 1.0 / (variance + self.eps).sqrt();
            for (((y, x), weight), bias) in y.iter_mut().zip(x).zip(self.weight).zip(self.bias) {
                *y = mul_add::<FMA>((x - mean) * inverse, *weight, *bias);
            }
        }
    }
}

impl CustomOp3 for LayerNormOp {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let width = x_layout.dims().last().copied().unwrap_or(0);
        if width == 0 || weight_layout.dims() != [width] || bias_layout.dims() != [width] {
            let shapes = (x_layout.shape(), weight_layout.shape(), bias_layout.shape());
            bail!("layer norm: input, weight and bias have shapes {shapes:?}");
        }
        let x = super::contiguous_f32(x, x_layout)?;
        let weight = super::contiguous_f32(weight, weight_layout)?;
        let bias = super::contiguous_f32(bias, bias_layout)?;
        let mut y = vec![0f32; x.len()];
        for_rows(&mut y, width, |first, y| {
            let x = &x[first * width..first * width + y.len()];
            simd::dispatch(Rows {
                x,
                weight,
                bias,
                y,
                eps: self.eps as f32,
            });
        });
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let width = weight.dim(0)?;
        let (unit, inverse) = normalised(x, self.eps)?;
        let grad_unit = grad.broadcast_mul(weight)?;
        // dx = inverse (g - mean(g) - unit mean(g unit)), g the gradient of the normalised row.
        let mean = grad_unit.mean_keepdim(D::Minus1)?;
        let along = (&grad_unit * &unit)?.mean_keepdim(D::Minus1)?;
        let grad_x = grad_unit
            .broadcast_sub(&mean)?
            .sub(&unit.broadcast_mul(&along)?)?;
        let grad_x = grad_x.broadcast_mul(&inverse)?;
        let grad_weight = (grad * &unit)?.reshape(((), width))?.sum(0)?;
        let grad_bias = grad.reshape(((), width))?.sum(0)?;
        Ok((Some(grad_x), Some(grad_weight), Some(grad_bias)))
    }
}
