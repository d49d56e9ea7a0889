//! Layer norm over the last dimension, `(x - mean) / sqrt(variance + eps) * weight + bias`.
//!
//! The model keeps channels last everywhere, so SAM's channel norm is the same kernel.

use super::{by_reference, is_cpu_f32, is_on_card, linear::for_rows, math::mul_add, simd};
use candle_core::{CpuStorage, CustomOp3, D, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// Normalises each row of `x`, `[.., width]`, with `weight` and `bias`, `[width]`. Differentiable in all three.
///
/// # Errors
/// Shapes that do not fit, or Candle's own.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    if is_cpu_f32(x) || is_on_card(x) {
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
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let inverse = (centred.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?.recip()?;
    let unit = centred.broadcast_mul(&inverse)?; // zero mean and unit variance in each row
    unit.broadcast_mul(weight)?.broadcast_add(bias)
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

/// Sums `f(x)` in sixteen strands, so that additions do not wait for one another; what is left in four, and then one.
#[inline(always)]
fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let (blocks, rest) = x.as_chunks::<16>();
    let (fours, ones) = rest.as_chunks::<4>();
    let mut strands = [0f32; 16];
    for block in blocks {
        for (strand, x) in strands.iter_mut().zip(block) {
            *strand += f(*x);
        }
    }
    let mut few = [0f32; 4];
    for four in fours {
        for (strand, x) in few.iter_mut().zip(four) {
            *strand += f(*x);
        }
    }
    let whole = if blocks.is_empty() {
        0.0
    } else {
        strands.iter().sum::<f32>()
    };
    whole + few.iter().sum::<f32>() + ones.iter().map(|x| f(*x)).sum::<f32>()
}

/// `y = (x - mean) inverse weight + bias`, four at a time where sixteen are too many.
#[inline(always)]
fn scale<const FMA: bool>(x: &[f32], weight: &[f32], bias: &[f32], y: &mut [f32], mean: f32, inverse: f32) {
    #[inline(always)]
    fn pieces<const FMA: bool, const N: usize>(
        x: &[[f32; N]],
        weight: &[[f32; N]],
        bias: &[[f32; N]],
        y: &mut [[f32; N]],
        mean: f32,
        inverse: f32,
    ) {
        for (((y, x), weight), bias) in y.iter_mut().zip(x).zip(weight).zip(bias) {
            for i in 0..N {
                y[i] = mul_add::<FMA>((x[i] - mean) * inverse, weight[i], bias[i]);
            }
        }
    }
    let ((x, x_rest), (w, w_rest), (b, b_rest)) = (
        x.as_chunks::<16>(),
        weight.as_chunks::<16>(),
        bias.as_chunks::<16>(),
    );
    let (y, y_rest) = y.as_chunks_mut::<16>();
    pieces::<FMA, 16>(x, w, b, y, mean, inverse);
    let ((x, x_rest), (w, w_rest), (b, b_rest)) = (
        x_rest.as_chunks::<4>(),
        w_rest.as_chunks::<4>(),
        b_rest.as_chunks::<4>(),
    );
    let (y, y_rest) = y_rest.as_chunks_mut::<4>();
    pieces::<FMA, 4>(x, w, b, y, mean, inverse);
    let (y, _) = y_rest.as_chunks_mut::<1>();
    pieces::<FMA, 1>(
        x_rest.as_chunks().0,
        w_rest.as_chunks().0,
        b_rest.as_chunks().0,
        y,
        mean,
        inverse,
    );
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
            scale::<FMA>(x, self.weight, self.bias, y, mean, inverse);
        }
    }
}

/// Strips that the rows of a gradient are cut into.
const STRIPS: usize = 16;

/// Gradients of some rows; `sums` holds those of weight and bias one after the other.
struct Slopes<'a> {
    x: &'a [f32],
    grad: &'a [f32],
    weight: &'a [f32],
    grad_x: &'a mut [f32],
    sums: &'a mut [f32],
    eps: f32,
}

impl simd::Body for Slopes<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let width = self.weight.len();
        let (weight_sums, bias_sums) = self.sums.split_at_mut(width);
        let rows = self.x.chunks_exact(width).zip(self.grad.chunks_exact(width));
        for ((x, grad), grad_x) in rows.zip(self.grad_x.chunks_exact_mut(width)) {
            let mean = sum(x, |x| x) / width as f32;
            let variance = sum(x, |x| (x - mean) * (x - mean)) / width as f32;
            let inverse = 1.0 / (variance + self.eps).sqrt();
            // dx = inverse (g - mean(g) - unit mean(g unit)), g the gradient of the normalised row.
            for (((g, grad), weight), ((x, weight_sum), bias_sum)) in grad_x
                .iter_mut()
                .zip(grad)
                .zip(self.weight)
                .zip(x.iter().zip(&mut *weight_sums).zip(&mut *bias_sums))
            {
                *g = grad * weight;
                *weight_sum = mul_add::<FMA>(*grad, (x - mean) * inverse, *weight_sum);
                *bias_sum += grad;
            }
            let grad_mean = sum(grad_x, |g| g) / width as f32;
            let along = dot(grad_x, x, mean) * inverse / width as f32;
            for (g, x) in grad_x.iter_mut().zip(x) {
                let unit = (x - mean) * inverse;
                *g = inverse * mul_add::<FMA>(-unit, along, *g - grad_mean);
            }
        }
    }
}

/// Sum of `g (x - mean)`, in sixteen strands.
#[inline(always)]
fn dot(g: &[f32], x: &[f32], mean: f32) -> f32 {
    let mut strands = [0f32; 16];
    let (mut gs, mut xs) = (g.chunks_exact(16), x.chunks_exact(16));
    for (g, x) in (&mut gs).zip(&mut xs) {
        for ((strand, g), x) in strands.iter_mut().zip(g).zip(x) {
            *strand += g * (x - mean);
        }
    }
    let rest = gs.remainder().iter().zip(xs.remainder());
    strands.iter().sum::<f32>() + rest.map(|(g, x)| g * (x - mean)).sum::<f32>()
}

/// Normalises the rows of `x` into `y`.
pub(crate) fn norm_rows(x: &[f32], weight: &[f32], bias: &[f32], eps: f64, y: &mut [f32]) {
    simd::dispatch(Rows {
        x,
        weight,
        bias,
        y,
        eps: eps as f32,
    });
}

/// Gradients of [`norm_rows`], `grad` being that of `y`: that of `x` into `grad_x`; those of weight and bias are added
/// to `sums`, one after the other.
pub(super) fn slopes_of_rows(
    x: &[f32],
    grad: &[f32],
    weight: &[f32],
    eps: f64,
    grad_x: &mut [f32],
    sums: &mut [f32],
) {
    simd::dispatch(Slopes {
        x,
        grad,
        weight,
        grad_x,
        sums,
        eps: eps as f32,
    });
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
            norm_rows(
                &x[first * width..first * width + y.len()],
                weight,
                bias,
                self.eps,
                y,
            );
        });
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        x_layout: &Layout,
        weight: &candle_core::CudaStorage,
        weight_layout: &Layout,
        bias: &candle_core::CudaStorage,
        bias_layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        super::cuda::forward::layer_norm(
            (x, x_layout),
            (weight, weight_layout),
            (bias, bias_layout),
            self.eps,
        )
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        if !is_cpu_f32(x) {
            let [x, weight, bias] = by_reference::gradients([x, weight, bias], grad, |[x, weight, bias]| {
                reference(x, weight, bias, self.eps)
            })?;
            return Ok((x, weight, bias));
        }
        let width = weight.dim(0)?;
        let (x, grad, weight) = (x.contiguous()?, grad.contiguous()?, weight.contiguous()?);
        let rows = x.elem_count() / width.max(1);
        let mut grad_x = vec![0f32; x.elem_count()];
        let grads = super::with_elements(&x, |x| {
            super::with_elements(&grad, |grad| {
                super::with_elements(&weight, |weight| {
                    // Strips of rows, each with sums of its own: a fixed number, so that the result depends on no
                    // thread count.
                    let strip = rows.div_ceil(STRIPS).max(1) * width;
                    let strips: Vec<Vec<f32>> = grad_x
                        .par_chunks_mut(strip)
                        .zip(x.par_chunks(strip).zip(grad.par_chunks(strip)))
                        .map(|(grad_x, (x, grad))| {
                            let mut sums = vec![0f32; 2 * width];
                            slopes_of_rows(x, grad, weight, self.eps, grad_x, &mut sums);
                            sums
                        })
                        .collect();
                    let mut sums = vec![0f32; 2 * width];
                    for strip in strips {
                        sums.iter_mut().zip(&strip).for_each(|(sum, value)| *sum += value);
                    }
                    Ok(sums)
                })
            })
        })?;
        let device = x.device();
        let grads = Tensor::from_vec(grads, (2, width), device)?;
        Ok((
            Some(Tensor::from_vec(grad_x, x.shape(), device)?),
            Some(grads.get(0)?),
            Some(grads.get(1)?),
        ))
    }
}
