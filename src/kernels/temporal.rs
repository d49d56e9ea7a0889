//! Frames side by side, so that the temporal convolution is one product with stacked weights.

use super::{by_reference, is_on_card};
use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};

/// Every token beside itself in the frames that its three taps look at.
///
/// * `x`: `[clips, frames, tokens, channels]`
/// * `before`: frames that the first tap looks back: output frame f, tap t holds input frame f + t - before, or zeros
///   outside the clip
///
/// Gives `[clips, frames_out, tokens, 3 * channels]`. On a card it is one kernel without a gradient, so that training
/// takes [`reference()`].
///
/// # Errors
/// Another rank, or Candle's own.
pub fn stacked(x: &Tensor, frames_out: usize, before: usize) -> Result<Tensor> {
    if is_on_card(x) && !x.track_op() {
        x.contiguous()?.apply_op1_no_bwd(&Stacked { frames_out, before })
    } else {
        reference(x, frames_out, before)
    }
}

/// The same by Candle's own operations. Differentiable.
///
/// # Errors
/// As [`stacked`].
pub fn reference(x: &Tensor, frames_out: usize, before: usize) -> Result<Tensor> {
    let (_, frames, _, _) = x.dims4()?;
    let padded = x.pad_with_zeros(1, before, (frames_out + 2).saturating_sub(before + frames))?;
    let taps = (0..3)
        .map(|tap| padded.narrow(1, tap, frames_out))
        .collect::<Result<Vec<_>>>()?;
    Tensor::cat(&taps, D::Minus1)
}

struct Stacked {
    frames_out: usize,
    before: usize,
}

impl CustomOp1 for Stacked {
    fn name(&self) -> &'static str {
        "stacked-frames"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        by_reference::forward([(x, layout)], |x| reference(&x[0], self.frames_out, self.before))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        super::cuda::forward::temporal((x, layout), self.frames_out, self.before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn taps_look_where_they_should() {
        let x = Tensor::new(&[[[[1f32]], [[2.0]], [[3.0]]]], &Device::Cpu).unwrap(); // three frames of one token
        let taps = |frames_out, before| {
            let y = stacked(&x, frames_out, before).unwrap();
            y.reshape((frames_out, 3)).unwrap().to_vec2::<f32>().unwrap()
        };
        assert_eq!(taps(3, 1), [[0.0, 1.0, 2.0], [1.0, 2.0, 3.0], [2.0, 3.0, 0.0]]);
        assert_eq!(taps(3, 2), [[0.0, 0.0, 1.0], [0.0, 1.0, 2.0], [1.0, 2.0, 3.0]]);
        assert_eq!(taps(1, 0), [[1.0, 2.0, 3.0]]);
    }
}
