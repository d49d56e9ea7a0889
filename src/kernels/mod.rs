//! Numeric kernels: one signature each, a plain `reference` on Candle tensors, and faster twins chosen in one place.
//!
//! All of them are differentiable: a twin without a gradient of its own recomputes the reference's. Which twin runs
//! is decided by device and type of the first argument (`is_cpu_f32`) and, within a twin, by [`simd::dispatch`].

pub mod argmax;
pub mod attention;
pub mod gelu;
pub mod layer_norm;
pub mod linear;
pub mod math;
pub mod picture;
pub mod product;
pub mod simd;
pub mod softmax;

use candle_core::{CpuStorage, DType, Device, Layout, Result, Tensor, bail};

/// Whether the CPU's float32 twins apply to this tensor.
fn is_cpu_f32(x: &Tensor) -> bool {
    matches!(x.device(), Device::Cpu) && x.dtype() == DType::F32
}

/// The elements of a contiguous float32 tensor.
fn contiguous_f32<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("a tensor of shape {:?} has to be contiguous here", layout.shape());
    };
    match storage.as_slice::<f32>()?.get(start..end) {
        Some(elements) => Ok(elements),
        None => bail!("the layout {:?} reaches beyond its storage", layout.shape()),
    }
}
