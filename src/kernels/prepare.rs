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
    dtype: DType,
}

impl CustomOp2 for Planes {
    fn name(&self) -> &'static str {
        "prepare"
    }

    /// The same for what passes for a card: float32 alone.
    fn cpu_fwd(
        &self,
        bytes: &CpuStorage,
        bytes_layout: &Layout,
        tables: &CpuStorage,
        tables_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (images, side, across, channels) = bytes_layout.shape().dims4()?;
        let clips = tables_layout.shape().dims2()?.0;
        if across != side || channels != 3 || clips == 0 || images % clips != 0 || self.dtype != DType::F32 {
            bail!(
                "prepare: bytes {:?}, tables {:?}, {:?}",
                bytes_layout.shape(),
                tables_layout.shape(),
                self.dtype
            );
        }
        let (Some((start, end)), CpuStorage::U8(bytes)) = (bytes_layout.contiguous_offsets(), bytes) else {
            bail!("prepare: bytes have to be contiguous");
        };
        let tables = super::contiguous_f32(tables, tables_layout)?;
        let pixels = side * side;
        let mut planes = vec![0.0; images * 3 * pixels];
        let frames = bytes[start..end].chunks_exact(3 * pixels);
        for (image, (frame, planes)) in frames.zip(planes.chunks_exact_mut(3 * pixels)).enumerate() {
            let table = &tables[image / (images / clips) * 256..][..256];
            for (pixel, colors) in frame.as_chunks::<3>().0.iter().enumerate() {
                for (channel, &color) in colors.iter().enumerate() {
                    planes[channel * pixels + pixel] = table[usize::from(color)];
                }
            }
        }
        Ok((CpuStorage::F32(planes), Shape::from((images, 3, side, side))))
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
