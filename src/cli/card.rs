//! What a card can do and holds, for `masam bench`.

use crate::runtime::Place;
use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use std::time::Instant;

/// Fastest of several square products of the vendor's library, in GFLOP/s.
pub(super) fn gflops(place: &Place) -> Result<f64> {
    const SIDE: usize = 8192;
    const PRODUCTS: u32 = 10;
    let square = Tensor::ones((SIDE, SIDE), DType::F32, &place.device)?.to_dtype(place.dtype)?;
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

/// Bytes of the card's memory in use, by whomever; `None` where there is no card.
#[cfg(feature = "cuda")]
pub(super) fn used_bytes(device: &Device) -> Option<u64> {
    let Device::Cuda(cuda) = device else { return None };
    let (free, total) = cuda.cuda_stream().context().mem_get_info().ok()?;
    Some((total - free) as u64)
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
