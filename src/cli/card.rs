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
