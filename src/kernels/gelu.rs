//! GELU in its exact form, x/2 (1 + erf(x / sqrt 2)), as SAM and MA-SAM use it.

use super::{by_reference, is_cpu_f32, is_on_card, linear::for_rows, math, simd};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

/// GELU of every element. Differentiable.
///
/// # Errors
/// Candle's own.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    if is_cpu_f32(x) || is_on_card(x) {
        x.contiguous()?.apply_op1(GeluOp)
    } else {
        reference(x)
    }
}

/// The same by Candle's own operation.
///
/// # Errors
/// Candle's own.
pub fn reference(x: &Tensor) -> Result<Tensor> {
    x.gelu_erf()
}

struct GeluOp;

struct GeluRows<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
}

impl simd::Body for GeluRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for (y, x) in self.y.iter_mut().zip(self.x) {
            *y = math::gelu::<FMA>(*x);
        }
    }
}

struct SlopeRows<'a> {
    x: &'a [f32],
    grad: &'a [f32],
    slopes: &'a mut [f32],
}

impl simd::Body for SlopeRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for ((slope, x), grad) in self.slopes.iter_mut().zip(self.x).zip(self.grad) {
            *slope = grad * math::gelu_slope::<FMA>(*x);
        }
    }
}

struct InPlace<'a>(&'a mut [f32]);

impl simd::Body for InPlace<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for x in self.0 {
            *x = math::gelu::<FMA>(*x);
        }
    }
}

/// GELU of every element where it stands.
pub(crate) fn gelu_in_place(x: &mut [f32]) {
    simd::dispatch(InPlace(x));
}

/// GELU of every element of `x` into `y`.
pub(super) fn gelu_rows(x: &[f32], y: &mut [f32]) {
    simd::dispatch(GeluRows { x, y });
}

/// Its slopes at `x`, times `grad`, into `slopes`.
pub(super) fn slope_rows(x: &[f32], grad: &[f32], slopes: &mut [f32]) {
    simd::dispatch(SlopeRows { x, grad, slopes });
}

impl CustomOp1 for GeluOp {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = super::contiguous_f32(x, layout)?;
        let mut y = vec![0f32; x.len()];
        for_rows(&mut y, 1, |first, y| {
            gelu_rows(&x[first..first + y.len()], y);
        });
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        super::cuda::forward::gelu((x, layout))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        if !is_cpu_f32(x) {
            let [slopes] = by_reference::gradients([x], grad, |[x]| reference(x))?;
            return Ok(slopes);
        }
        let (x, grad) = (x.contiguous()?, grad.contiguous()?);
        let mut slopes = vec![0f32; x.elem_count()];
        super::with_elements(&x, |x| {
            super::with_elements(&grad, |grad| {
                for_rows(&mut slopes, 1, |first, slopes| {
                    let (x, grad) = (&x[first..][..slopes.len()], &grad[first..][..slopes.len()]);
                    slope_rows(x, grad, slopes);
                });
                Ok(())
            })
        })?;
        Ok(Some(Tensor::from_vec(slopes, x.shape(), x.device())?))
    }
}
