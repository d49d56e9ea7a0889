//! Bytes on their way to a card and back, through memory that the card reads and writes by itself: pinned, kept from clip
//! to clip.

use crate::error::Result;
use candle_core::{Device, Tensor};

/// Page-locked memory for one upload and one download at a time.
#[derive(Default)]
pub(super) struct Staging {
    #[cfg(feature = "cuda")]
    pinned: Option<candle_core::cuda_backend::cudarc::driver::PinnedHostSlice<u8>>,
    /// Comes when the copy before has been made: with event tracking off nobody else knows.
    #[cfg(feature = "cuda")]
    copied: Option<candle_core::cuda_backend::cudarc::driver::CudaEvent>,
    #[cfg(feature = "cuda")]
    returned: Option<candle_core::cuda_backend::cudarc::driver::PinnedHostSlice<u8>>,
    /// Downloads fail while this is set.
    #[cfg(test)]
    pub(super) fails: bool,
}

impl Staging {
    /// The bytes that `fill` writes, as a tensor of `shape` on `device`. On a card the copy is under way when this
    /// returns; `fill` is called once the one before has been made.
    ///
    /// # Errors
    /// Those of the driver, or Candle's own.
    pub(super) fn upload(
        &mut self,
        shape: &[usize],
        device: &Device,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let Device::Cuda(card) = device {
            return Ok(self.upload_to_card(shape, card, fill)?);
        }
        let mut bytes = vec![0; shape.iter().product()];
        fill(&mut bytes);
        Ok(Tensor::from_vec(bytes, shape, device)?)
    }

    /// The rows of bytes `[rows, length]`, once everything that leads to them has been done.
    ///
    /// # Errors
    /// Those of the driver, or Candle's own.
    pub(super) fn download(&mut self, bytes: &Tensor) -> Result<Vec<Vec<u8>>> {
        #[cfg(test)]
        if self.fails {
            return Err(crate::error::Error::Candle(candle_core::Error::msg(
                "told to fail",
            )));
        }
        #[cfg(feature = "cuda")]
        if let Device::Cuda(card) = bytes.device() {
            return Ok(self.download_from_card(bytes, card)?);
        }
        Ok(bytes.to_vec2()?)
    }

    #[cfg(feature = "cuda")]
    fn download_from_card(
        &mut self,
        bytes: &Tensor,
        card: &candle_core::CudaDevice,
    ) -> candle_core::Result<Vec<Vec<u8>>> {
        use candle_core::{Error, Storage};
        let (rows, width) = bytes.dims2()?;
        let length = rows * width;
        let stream = card.cuda_stream();
        if self.returned.as_ref().is_none_or(|pinned| pinned.len() < length) {
            self.returned = None;
            // Read by the processor, hence cached.
            // SAFETY: the copy writes what is read of it before that.
            let pinned = unsafe { stream.context().alloc_pinned_with_flags::<u8>(length, 0) };
            self.returned = Some(pinned.map_err(Error::wrap)?);
        }
        let (storage, layout) = bytes.storage_and_layout();
        let (Some(pinned), Storage::Cuda(storage), Some((start, end))) =
            (&mut self.returned, &*storage, layout.contiguous_offsets())
        else {
            candle_core::bail!("bytes of shape {:?} have to be contiguous here", layout.shape())
        };
        let slice = storage.as_cuda_slice::<u8>()?.slice(start..end);
        let pinned = &mut pinned.as_mut_slice().map_err(Error::wrap)?[..length];
        stream.memcpy_dtoh(&slice, pinned).map_err(Error::wrap)?;
        stream.synchronize().map_err(Error::wrap)?;
        Ok(pinned.chunks_exact(width.max(1)).map(<[u8]>::to_vec).collect())
    }

    #[cfg(feature = "cuda")]
    fn upload_to_card(
        &mut self,
        shape: &[usize],
        card: &candle_core::CudaDevice,
        fill: impl FnOnce(&mut [u8]),
    ) -> candle_core::Result<Tensor> {
        use candle_core::op::BackpropOp;
        use candle_core::{CudaStorage, Error, Storage};
        let length = shape.iter().product();
        let stream = card.cuda_stream();
        if let Some(copied) = self.copied.take() {
            copied.synchronize().map_err(Error::wrap)?;
        }
        if self.pinned.as_ref().is_none_or(|pinned| pinned.len() < length) {
            self.pinned = None;
            // SAFETY: what is read of it is written by `fill` before.
            let pinned = unsafe { stream.context().alloc_pinned::<u8>(length) };
            self.pinned = Some(pinned.map_err(Error::wrap)?);
        }
        let Some(pinned) = &mut self.pinned else {
            candle_core::bail!("no pinned memory")
        };
        let pinned = &mut pinned.as_mut_slice().map_err(Error::wrap)?[..length];
        fill(pinned);
        // SAFETY: the copy writes all of it, in the order of the one stream that reads it.
        let mut bytes = unsafe { card.alloc::<u8>(length)? };
        stream.memcpy_htod(&*pinned, &mut bytes).map_err(Error::wrap)?;
        self.copied = Some(stream.record_event(None).map_err(Error::wrap)?);
        let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(bytes, card.clone()));
        Ok(Tensor::from_storage(storage, shape, BackpropOp::none(), false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive_in_their_shape() {
        let mut staging = Staging::default();
        for length in [6u8, 4] {
            let shape = [2, usize::from(length) / 2];
            let tensor = staging.upload(&shape, &Device::Cpu, |bytes| {
                bytes.iter_mut().zip(0..).for_each(|(byte, i)| *byte = i);
            });
            let tensor = tensor.unwrap();
            assert_eq!(tensor.dims(), shape);
            let got = tensor.flatten_all().unwrap().to_vec1::<u8>().unwrap();
            assert_eq!(got, (0..length).collect::<Vec<_>>());
        }
    }
}
