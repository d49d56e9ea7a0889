//! What follows the product of an upscaling step: bias, each token to its square of four pixels, norm, GELU.

use super::{gelu::gelu, is_on_card, layer_norm::layer_norm};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

/// The rest of a step.
///
/// * `product`: `[images, height, width, 2, 2, channels]`, without its bias
/// * `biases`: the convolution's bias, `[1, channels]`; where a norm follows, with its weight and bias, `[3, channels]`
/// * `norm_eps`: of the norm, `None` without one
///
/// Gives `[images, 2 * height, 2 * width, channels]`. On a card it is one kernel without a gradient, so that training
/// takes [`reference`].
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
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "only a card has this"))]
    norm_eps: Option<f64>,
}

impl CustomOp2 for Squares {
    fn name(&self) -> &'static str {
        "upscale"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("upscale: this way is the card's")
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
