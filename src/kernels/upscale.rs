//! What follows the product of an upscaling step: bias, each token to its square of four pixels, norm, GELU.

use super::{by_reference, gelu::gelu, is_on_card, layer_norm::layer_norm};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

/// The rest of a step.
///
/// * `product`: `[images, height, width, 2, 2, channels]`, without its bias
/// * `biases`: the convolution's bias, `[1, channels]`; where a norm follows, with its weight and bias, `[3, channels]`
/// * `norm_eps`: of the norm, `None` without one
///
/// Gives `[images, 2 * height, 2 * width, channels]`. On a card it is one kernel without a gradient, so that training
/// takes [`reference()`].
///
/// # Errors
/// Shapes that do not fit, or Candle's own.
pub fn squares(product: &Tensor, biases: &Tensor, norm_eps: Option<f64>) -> Result<Tensor> {
    if is_on_card(product) && !product.track_op() && !biases.track_op() {
        product
            .contiguous()?
            .apply_op2_no_bwd(&biases.contiguous()?, &Squares { norm_eps })
    } else {
        reference(product, biases, norm_eps)
    }
}

/// The same, step by step. Differentiable.
///
/// # Errors
/// As [`squares`].
pub fn reference(product: &Tensor, biases: &Tensor, norm_eps: Option<f64>) -> Result<Tensor> {
    let [images, height, width, 2, 2, channels] = *product.dims() else {
        bail!("upscale: a product has no shape {:?}", product.shape())
    };
    let pixels = product
        .broadcast_add(&biases.get(0)?)?
        .permute([0, 1, 3, 2, 4, 5])? // [images, height, 2, width, 2, channels]
        .reshape((images, 2 * height, 2 * width, channels))?;
    gelu(&match norm_eps {
        Some(eps) => layer_norm(&pixels, &biases.get(1)?, &biases.get(2)?, eps)?,
        None => pixels,
    })
}

struct Squares {
    norm_eps: Option<f64>,
}

impl CustomOp2 for Squares {
    fn name(&self) -> &'static str {
        "upscale"
    }

    fn cpu_fwd(
        &self,
        product: &CpuStorage,
        product_layout: &Layout,
        biases: &CpuStorage,
        biases_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        by_reference::forward([(product, product_layout), (biases, biases_layout)], |x| {
            reference(&x[0], &x[1], self.norm_eps)
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        product: &candle_core::CudaStorage,
        product_layout: &Layout,
        biases: &candle_core::CudaStorage,
        biases_layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        super::cuda::forward::upscale((product, product_layout), (biases, biases_layout), self.norm_eps)
    }
}
