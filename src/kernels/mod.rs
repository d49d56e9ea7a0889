//! Numeric kernels: one signature each, a plain `reference` on Candle tensors, and faster twins chosen in one place.
//!
//! All of them are differentiable, and each twin has a gradient as fast as itself. Which twin runs is decided by
//! device and type of an argument (`is_cpu_f32`, `is_on_card`) and, within a twin, by [`simd::dispatch`]. The stages of [`fused`] are
//! made of the others, which are what they are tested against.

pub mod argmax;
pub mod attention;
mod by_reference;
pub mod class_product;
#[cfg(any(feature = "cuda", test))]
mod cuda;
pub mod fused;
pub mod gelu;
pub mod labels;
pub mod layer_norm;
pub mod linear;
pub mod math;
pub mod memory;
pub mod packed;
pub mod picture;
pub mod prepare;
pub mod product;
pub mod simd;
pub mod softmax;
pub mod temporal;
pub mod upscale;

use candle_core::{CpuStorage, DType, Device, Layout, Result, Storage, Tensor, bail};

/// Whether the CPU's float32 twins apply to this tensor.
fn is_cpu_f32(x: &Tensor) -> bool {
    matches!(x.device(), Device::Cpu) && x.dtype() == DType::F32
}

/// Whether the card's kernels apply to this tensor.
pub(crate) fn is_on_card(x: &Tensor) -> bool {
    #[cfg(test)]
    if pretended_card::is_here() {
        return is_cpu_f32(x);
    }
    cfg!(feature = "cuda")
        && x.device().is_cuda()
        && matches!(x.dtype(), DType::F32 | DType::BF16 | DType::F16)
}

/// Whether a tensor lies where the CPU passes for a card, whatever its type.
#[cfg(test)]
pub(crate) fn passes_for_card(x: &Tensor) -> bool {
    pretended_card::is_here() && x.device().is_cpu()
}

/// Whether a gradient is wanted for one of these.
pub(crate) fn is_tracked(tensors: &[&Tensor]) -> bool {
    tensors.iter().any(|t| t.track_op())
}

/// Whether an operation on these tensors is part of a training step that the CPU's float32 twins can take.
pub(crate) fn is_trained_on_cpu(x: &Tensor, weights: &[&Tensor]) -> bool {
    is_cpu_f32(x) && (x.track_op() || weights.iter().any(|w| w.track_op()))
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

/// The elements of a contiguous float32 tensor on the CPU, handed to `f` without a copy.
fn with_elements<T>(x: &Tensor, f: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    let (storage, layout) = x.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => f(contiguous_f32(storage, layout)?),
        _ => bail!("a tensor of shape {:?} has to be on the CPU here", layout.shape()),
    }
}

/// Lets the CPU pass for a card on the calling thread, so that tests see the ways through the model that a card takes;
/// its own operations are their references there.
#[cfg(test)]
pub(crate) mod pretended_card {
    use std::cell::Cell;

    thread_local! {
        static IS_HERE: Cell<bool> = const { Cell::new(false) };
    }

    pub(super) fn is_here() -> bool {
        IS_HERE.get()
    }

    /// Runs `f` meanwhile.
    pub(crate) fn during<T>(f: impl FnOnce() -> T) -> T {
        IS_HERE.set(true);
        let result = f();
        IS_HERE.set(false);
        result
    }
}
