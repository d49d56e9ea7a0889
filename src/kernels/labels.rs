//! Class ids on a card, so that only they cross to the machine: one byte a pixel, and one for each image that says
//! whether some logit was not finite.
//!
//! On other devices logits come to the machine and [`argmax`](super::argmax) takes over.

use super::{argmax::argmax, by_reference, class_product, is_on_card, upscale};
use crate::model::resize;
use candle_core::{CpuStorage, CustomOp1, CustomOp3, Device, Layout, Result, Shape, Tensor};

/// Whether [`of_product`] can take this: on a card, and a pixel has few enough channels.
///
/// * `product`: `[images, height, width, 2, 2, channels]`
pub fn takes_product(product: &Tensor, classes: usize) -> bool {
    is_on_card(product) && has_kernel(product.dims(), classes)
}

#[cfg(any(feature = "cuda", test))]
fn has_kernel(product: &[usize], classes: usize) -> bool {
    super::cuda::has_labels(product, classes)
}

#[cfg(not(any(feature = "cuda", test)))]
fn has_kernel(_: &[usize], _: usize) -> bool {
    false
}

/// The last upscaling step after its product, the class products and the maximum, in one kernel.
///
/// * `product`: `[images, height, width, 2, 2, channels]`, without its bias
/// * `bias`: `[channels]`
/// * `kernels`: `[images, classes, channels]`
///
/// Gives bytes `[images, 4 * height * width + 1]`: class ids, the lower one where two are equal, and 1 at the end where
/// a logit was not finite.
///
/// # Errors
/// A tensor that is not on a card, shapes that do not fit, or Candle's own.
pub fn of_product(product: &Tensor, bias: &Tensor, kernels: &Tensor) -> Result<Tensor> {
    product
        .contiguous()?
        .apply_op3_no_bwd(&bias.contiguous()?, &kernels.contiguous()?, &OfProduct)
}

/// Logits enlarged bilinearly to `side` (pixel centres at half integers) and their maximum, in one kernel.
///
/// * `logits`: `[images, classes, height, width]`
///
/// Gives bytes `[images, side * side + 1]` as [`of_product`].
///
/// # Errors
/// As [`of_product`].
pub fn of_planes(logits: &Tensor, side: usize) -> Result<Tensor> {
    logits.contiguous()?.apply_op1_no_bwd(&OfPlanes { side })
}

/// Bytes as the kernels give them, from logits `[images, classes, pixels]`.
fn reference(logits: &Tensor) -> Result<Tensor> {
    let (images, classes, pixels) = logits.dims3()?;
    let mut bytes = Vec::with_capacity(images * (pixels + 1));
    for image in 0..images {
        let labels = argmax(&logits.get(image)?.flatten_all()?.to_vec1::<f32>()?, classes);
        bytes.extend(labels.ids);
        bytes.push(u8::from(labels.not_finite > 0));
    }
    Tensor::from_vec(bytes, (images, pixels + 1), &Device::Cpu)
}

struct OfProduct;

impl CustomOp3 for OfProduct {
    fn name(&self) -> &'static str {
        "labels-of-product"
    }

    fn cpu_fwd(
        &self,
        product: &CpuStorage,
        product_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
        kernels: &CpuStorage,
        kernels_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let inputs = [
            (product, product_layout),
            (bias, bias_layout),
            (kernels, kernels_layout),
        ];
        by_reference::forward(inputs, |x| {
            let pixels = upscale::reference(&x[0], &x[1].unsqueeze(0)?, None)?;
            let (images, height, width, channels) = pixels.dims4()?;
            let pixels = pixels.reshape((images, height * width, channels))?;
            reference(&class_product::reference(&x[2], &pixels)?)
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        product: &candle_core::CudaStorage,
        product_layout: &Layout,
        bias: &candle_core::CudaStorage,
        bias_layout: &Layout,
        kernels: &candle_core::CudaStorage,
        kernels_layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        super::cuda::forward::labels_of_product(
            (product, product_layout),
            (bias, bias_layout),
            (kernels, kernels_layout),
        )
    }
}

struct OfPlanes {
    side: usize,
}

impl CustomOp1 for OfPlanes {
    fn name(&self) -> &'static str {
        "labels-of-planes"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        by_reference::forward([(logits, layout)], |x| {
            let large = resize::planes(&x[0], (self.side, self.side))?;
            reference(&large.flatten_from(2)?)
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        logits: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        super::cuda::forward::labels_of_planes((logits, layout), self.side)
    }
}
