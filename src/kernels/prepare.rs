//! Bytes of frames to the model's planes, on a card: what crosses to it is one byte a colour of a pixel.

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};

/// Every byte through its clip's table.
///
/// * `bytes`: `[images, side, side, 3]`, RGB, on a card
/// * `tables`: `[clips, 256]`, float32, the value of each byte; the images of a clip follow one another
/// * `dtype`: of the planes: float32, bfloat16 or float16
///
/// Gives `[images, 3, side, side]`.
///
/// # Errors
/// A tensor that is not on a card, shapes that do not fit, or Candle's own.
pub fn planes(bytes: &Tensor, tables: &Tensor, dtype: DType) -> Result<Tensor> {
    bytes
        .contiguous()?
        .apply_op2_no_bwd(&tables.contiguous()?, &Planes { dtype })
}

struct Planes {
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "only a card has this"))]
    dtype: DType,
}

impl CustomOp2 for Planes {
    fn name(&self) -> &'static str {
        "prepare"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("prepare: this way is the card's")
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        bytes: &candle_core::CudaStorage,
        bytes_layout: &Layout,
        tables: &candle_core::CudaStorage,
        tables_layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        super::cuda::forward::prepare((bytes, bytes_layout), (tables, tables_layout), self.dtype)
    }
}
