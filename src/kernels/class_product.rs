//! One product per class: the mask decoder's last step, `logits[class, pixel] = kernel[class] . feature[pixel]`.

use super::product::{Start, Threads, View, product};
use super::{is_cpu_f32, with_elements};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// Logits of every class at every pixel. Differentiable in both.
///
/// * `kernels`: `[images, classes, channels]`
/// * `pixels`: `[images, pixels, channels]`
///
/// Gives `[images, classes, pixels]`.
///
/// # Errors
/// Shapes that do not fit, or Candle's own.
pub fn class_product(kernels: &Tensor, pixels: &Tensor) -> Result<Tensor> {
    if is_cpu_f32(pixels) {
        kernels
            .contiguous()?
            .apply_op2(&pixels.contiguous()?, ClassProductOp)
    } else {
        reference(kernels, pixels)
    }
}

/// The same by Candle's own product.
///
/// # Errors
/// As [`class_product`].
pub fn reference(kernels: &Tensor, pixels: &Tensor) -> Result<Tensor> {
    kernels.matmul(&pixels.t()?)
}

struct ClassProductOp;

/// Images, classes, pixels, channels.
fn sizes(kernels: &[usize], pixels: &[usize]) -> Result<[usize; 4]> {
    match (kernels, pixels) {
        (&[images, classes, channels], &[same, count, width])
            if same == images && width == channels && classes * count * channels > 0 =>
        {
            Ok([images, classes, count, channels])
        }
        _ => bail!("class product: kernels {kernels:?}, pixels {pixels:?}"),
    }
}

impl CustomOp2 for ClassProductOp {
    fn name(&self) -> &'static str {
        "class-product"
    }

    fn cpu_fwd(
        &self,
        kernels: &CpuStorage,
        kernels_layout: &Layout,
        pixels: &CpuStorage,
        pixels_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let [images, classes, count, channels] = sizes(kernels_layout.dims(), pixels_layout.dims())?;
        let kernels = super::contiguous_f32(kernels, kernels_layout)?;
        let pixels = super::contiguous_f32(pixels, pixels_layout)?;
        let mut logits = vec![0f32; images * classes * count];
        logits
            .par_chunks_mut(classes * count)
            .zip(kernels.par_chunks(classes * channels))
            .zip(pixels.par_chunks(count * channels))
            .try_for_each(|((logits, kernels), pixels)| {
                let kernels = View::rows(kernels, classes, channels, channels);
                let pixels = View::rows(pixels, count, channels, channels).transposed();
                product(logits, Start::Zero, 1.0, kernels, pixels, Threads::Pool)
            })?;
        Ok((CpuStorage::F32(logits), (images, classes, count).into()))
    }

    fn bwd(
        &self,
        kernels: &Tensor,
        pixels: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [_, classes, count, channels] = sizes(kernels.dims(), pixels.dims())?;
        let grad = grad.contiguous()?;
        let mut grad_kernels = vec![0f32; kernels.elem_count()];
        let mut grad_pixels = vec![0f32; pixels.elem_count()];
        with_elements(kernels, |kernels| {
            with_elements(pixels, |pixels| {
                with_elements(&grad, |grad| {
                    let found = grad_kernels
                        .par_chunks_mut(classes * channels)
                        .zip(grad_pixels.par_chunks_mut(count * channels));
                    let given = kernels
                        .par_chunks(classes * channels)
                        .zip(pixels.par_chunks(count * channels));
                    found
                        .zip(given)
                        .zip(grad.par_chunks(classes * count))
                        .try_for_each(|(((grad_kernels, grad_pixels), (kernels, pixels)), grad)| {
                            let grad = View::rows(grad, classes, count, count);
                            let pixels = View::rows(pixels, count, channels, channels);
                            let kernels = View::rows(kernels, classes, channels, channels);
                            product(grad_kernels, Start::Zero, 1.0, grad, pixels, Threads::One)?;
                            product(
                                grad_pixels,
                                Start::Zero,
                                1.0,
                                grad.transposed(),
                                kernels,
                                Threads::One,
                            )
                        })
                })
            })
        })?;
        let like = |values, t: &Tensor| Tensor::from_vec(values, t.shape(), t.device()).map(Some);
        Ok((like(grad_kernels, kernels)?, like(grad_pixels, pixels)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::weights::uniform;
    use candle_core::{Device, Var};

    #[test]
    fn it_equals_its_reference_and_so_do_its_gradients() {
        for (images, classes, count, channels) in
            [(1, 1, 1, 1), (2, 12, 35, 6), (3, 5, 64, 8), (1, 3, 1000, 7)]
        {
            let values = |name: &str, shape: &[usize]| {
                let name = format!("class product {images} {name}");
                let values: Vec<f32> = uniform(&name, shape.iter().product()).map(|u| u as f32).collect();
                Var::from_vec(values, shape, &Device::Cpu).unwrap()
            };
            let kernels = values("kernels", &[images, classes, channels]);
            let pixels = values("pixels", &[images, count, channels]);
            let slopes = values("slopes", &[images, classes, count]);
            let both = [
                class_product(&kernels, &pixels).unwrap(),
                reference(&kernels, &pixels).unwrap(),
            ];
            let near = |what: &str, a: &Tensor, b: &Tensor| {
                let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                for (a, b) in flat(a).iter().zip(flat(b)) {
                    assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{what}: {a} for {b}");
                }
            };
            near("logits", &both[0], &both[1]);
            let [got, wanted] = both.map(|logits| {
                (logits * slopes.as_tensor())
                    .unwrap()
                    .sum_all()
                    .unwrap()
                    .backward()
                    .unwrap()
            });
            near(
                "kernels",
                got.get(&kernels).unwrap(),
                wanted.get(&kernels).unwrap(),
            );
            near("pixels", got.get(&pixels).unwrap(), wanted.get(&pixels).unwrap());
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let zeros = |shape: (usize, usize, usize)| {
            Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap()
        };
        assert!(class_product(&zeros((1, 2, 3)), &zeros((2, 5, 3))).is_err());
        assert!(class_product(&zeros((1, 2, 3)), &zeros((1, 5, 4))).is_err());
    }
}
