//! Bytes of frames to the model's input.

use super::device::Place;
use super::staging::Staging;
use crate::error::Result;
use crate::kernels::prepare;
use crate::segmenter::{ModelFrame, Normalisation};
use candle_core::{Device, Tensor};

/// The value of each byte under `normalisation`, for a clip of `frames`.
pub(super) fn values(frames: &[ModelFrame], normalisation: Normalisation) -> [f32; 256] {
    let (scale, offset) = match normalisation {
        Normalisation::Fixed { scale, offset } => (f64::from(scale), f64::from(offset)),
        Normalisation::ClipMinMax => {
            let bytes = || frames.iter().flat_map(|f| f.rgb.iter());
            let min = f64::from(bytes().min().copied().unwrap_or(0));
            let max = f64::from(bytes().max().copied().unwrap_or(0));
            let range = max - min + 1e-8;
            // As the reference computes it, in float64: (x - min) / (max - min + 1e-8).
            return std::array::from_fn(|byte| ((byte as f64 - min) / range) as f32);
        }
    };
    std::array::from_fn(|byte| (byte as f64 * scale + offset) as f32)
}

/// Several clips of equal length as `[clips, frames, 3, side, side]`, float32, on the CPU. Every frame holds
/// `side * side * 3` bytes.
///
/// # Errors
/// Candle's own, for frames of another size.
pub fn tensor_of(clips: &[&[ModelFrame]], side: usize, normalisation: Normalisation) -> Result<Tensor> {
    let frames = clips.first().map_or(0, |c| c.len());
    let area = side * side;
    let mut input = Vec::with_capacity(clips.len() * frames * 3 * area);
    for clip in clips {
        let values = values(clip, normalisation);
        for frame in *clip {
            let pixels = frame.rgb.as_chunks::<3>().0;
            for channel in 0..3 {
                input.extend(pixels.iter().map(|pixel| values[usize::from(pixel[channel])]));
            }
        }
    }
    Ok(Tensor::from_vec(
        input,
        (clips.len(), frames, 3, side, side),
        &Device::Cpu,
    )?)
}

/// As [`tensor_of`], where and as which type the model wants it. To a card the bytes cross as they are. Every frame holds
/// `side * side * 3` bytes.
pub(super) fn input_at(
    place: &Place,
    staging: &mut Staging,
    clips: &[&[ModelFrame]],
    side: usize,
    normalisation: Normalisation,
) -> Result<Tensor> {
    let Place { device, dtype, .. } = place;
    if !device.is_cuda() {
        return Ok(tensor_of(clips, side, normalisation)?
            .to_device(device)?
            .to_dtype(*dtype)?);
    }
    let frames = clips.first().map_or(0, |c| c.len());
    let [bytes, tables] = bytes_at(device, staging, clips, side, normalisation)?;
    Ok(prepare::planes(&bytes, &tables, *dtype)?.reshape((clips.len(), frames, 3, side, side))?)
}

/// Clips of equal length as they cross to a card: bytes `[images, side, side, 3]`, and for each clip the values of its
/// bytes, `[clips, 256]`. Every frame holds `side * side * 3` bytes.
pub(super) fn bytes_at(
    device: &Device,
    staging: &mut Staging,
    clips: &[&[ModelFrame]],
    side: usize,
    normalisation: Normalisation,
) -> Result<[Tensor; 2]> {
    let images = clips.iter().map(|clip| clip.len()).sum();
    let bytes = staging.upload(&[images, side, side, 3], device, |bytes| {
        let places = bytes.chunks_exact_mut(side * side * 3);
        for (to, frame) in places.zip(clips.iter().copied().flatten()) {
            to.copy_from_slice(&frame.rgb);
        }
    })?;
    let tables: Vec<f32> = clips
        .iter()
        .flat_map(|clip| values(clip, normalisation))
        .collect();
    Ok([bytes, Tensor::from_vec(tables, (clips.len(), 256), device)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clips_are_stretched_over_their_own_range() {
        let frame = |bytes: [u8; 12]| ModelFrame {
            rgb: bytes.as_slice().into(),
        };
        let clip = [
            frame([50, 60, 70, 80, 90, 100, 110, 120, 130, 140, 150, 160]),
            frame([50; 12]),
        ];
        let x = tensor_of(&[&clip], 2, Normalisation::ClipMinMax).unwrap();
        assert_eq!(x.dims(), [1, 2, 3, 2, 2]);
        let x = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!((x[0], x[11]), (0.0, 1.0));
        assert!((x[4] - 10.0 / 110.0).abs() < 1e-7, "green of the first pixel");
        let fixed = Normalisation::Fixed {
            scale: 1.0 / 255.0,
            offset: -0.5,
        };
        let x = tensor_of(&[&clip], 2, fixed)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        assert!((x[0] - (50.0 / 255.0 - 0.5)).abs() < 1e-6);
    }

    #[test]
    fn a_flat_clip_is_zero() {
        let clip = [ModelFrame {
            rgb: [7u8; 3].as_slice().into(),
        }];
        let x = tensor_of(&[&clip], 1, Normalisation::ClipMinMax).unwrap();
        assert_eq!(x.flatten_all().unwrap().to_vec1::<f32>().unwrap(), [0.0; 3]);
    }
}
