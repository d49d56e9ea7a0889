//! What a card can do and holds, for `masam bench`.

use crate::runtime::Place;
use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use std::time::Instant;

/// Fastest of several square products of the vendor's library, in GFLOP/s.
pub(super) fn gflops(place: &Place) -> Result<f64> {
    const SIDE: usize = 8192;
    const PRODUCTS: u32 = 10;
    // Not of ones: a card takes less power for equal numbers, and runs faster than on any others.
    let square = Tensor::randn(0f32, 1.0, (SIDE, SIDE), &place.device)?.to_dtype(place.dtype)?;
    square.matmul(&square)?;
    let mut best = 0f64;
    for _ in 0..5 {
        place.device.synchronize()?;
        let start = Instant::now();
        for _ in 0..PRODUCTS {
            square.matmul(&square)?;
        }
        place.device.synchronize()?;
        let operations = 2.0 * (SIDE as f64).powi(3) * f64::from(PRODUCTS);
        best = best.max(operations / start.elapsed().as_secs_f64() / 1e9);
    }
    Ok(best)
}

/// Largest difference over the largest magnitude of `b`; NaN where a value is.
pub(super) fn apart(a: &Tensor, b: &Tensor) -> Result<f64> {
    let largest = |t: &Tensor| -> candle_core::Result<f64> {
        let all = t.to_dtype(DType::F32)?.abs()?.sum_all()?.to_scalar::<f32>()?;
        if all.is_nan() {
            return Ok(f64::NAN);
        }
        Ok(f64::from(
            t.to_dtype(DType::F32)?.abs()?.max_all()?.to_scalar::<f32>()?,
        ))
    };
    Ok(largest(&(a - b)?)? / largest(b)?)
}

/// The most bytes of the card's memory that this process has held for tensors so far, those of recorded passes
/// included; `None` where there is no card.
#[cfg(feature = "cuda")]
pub(super) fn used_bytes(device: &Device) -> Option<u64> {
    use candle_core::cuda_backend::cudarc::driver::{result, sys};
    let Device::Cuda(cuda) = device else { return None };
    let card = cuda.cuda_stream().context().cu_device();
    let (mut pool_bytes, mut graph_bytes) = (0u64, 0u64);
    // SAFETY: the device is that of a live context, and both attributes are integers of 64 bits.
    unsafe {
        let pool = result::device::get_default_mem_pool(card).ok()?;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH;
        let told = sys::cuMemPoolGetAttribute(pool, attribute, (&raw mut pool_bytes).cast());
        told.result().ok()?;
        let attribute = sys::CUgraphMem_attribute::CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH;
        let told = sys::cuDeviceGetGraphMemAttribute(card, attribute, (&raw mut graph_bytes).cast());
        told.result().ok()?;
    }
    Some(pool_bytes + graph_bytes)
}

/// As with CUDA: there is no card here.
#[cfg(not(feature = "cuda"))]
pub(super) fn used_bytes(_: &Device) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_apart_is_seen() {
        let tensor = |values: [f32; 3]| Tensor::new(&values, &Device::Cpu).unwrap();
        let b = tensor([1.0, -4.0, 2.0]);
        assert_eq!(apart(&b, &b).unwrap(), 0.0);
        assert_eq!(apart(&tensor([1.0, -4.0, 3.0]), &b).unwrap(), 0.25);
        assert!(apart(&tensor([1.0, f32::NAN, 2.0]), &b).unwrap().is_nan());
    }
}
