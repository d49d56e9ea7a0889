//! `masam bench --host`: from a frame in the machine's memory to class ids there, with all that lies between.

use crate::checkpoint::card::{ModelCard, Preprocessing};
use crate::checkpoint::model_file::ModelFile;
use crate::checkpoint::weights::Weights;
use crate::geometry::Size;
use crate::kernels::picture::convert::{ColorSpace, Matrix, Picture, PixelFormat, PlaneRef, Range};
use crate::model::weights::uniform;
use crate::model::{FormulaWeights, ModelConfig};
use crate::runtime::{ModelSegmenter, Place};
use crate::segmenter::{Prompt, Request, Segmenter, Step, StreamId, Want};
use crate::stream::Squarer;
use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use std::time::Instant;

const FRAME: Size = Size {
    width_px: 1920,
    height_px: 1080,
};

/// Seconds from the newest 1080p NV12 frame of a clip of `frames` (or, with `step`, from one new frame of a causal model)
/// to its class ids, ascending. The frames before are squares already, as they are in a stream.
pub(super) fn seconds(
    config: &ModelConfig,
    place: &Place,
    (frames, step): (usize, bool),
    (warmup, runs): (usize, usize),
) -> Result<Vec<f64>> {
    let mut weights = Weights::default();
    for spec in config.weights() {
        let values = FormulaWeights::values(&spec.name, &spec.shape);
        weights.insert(spec.name, Tensor::from_vec(values, spec.shape, &Device::Cpu)?);
    }
    let card = ModelCard::new(config.clone(), Preprocessing::live())?;
    let mut segmenter = ModelSegmenter::new(ModelFile { card, weights }, place.clone(), None)?;
    let mut squarer = Squarer::of(segmenter.spec());
    let luma = FRAME.area();
    let bytes: Vec<u8> = uniform("frame", luma + luma / 2)
        .map(|u| ((u + 1.0) * 127.5) as u8)
        .collect();
    let (luma, chroma) = bytes.split_at(luma);
    let plane = |data| PlaneRef {
        data,
        stride_bytes: FRAME.width_px as usize,
    };
    let colors = ColorSpace {
        matrix: Matrix::BT709,
        range: Range::Limited,
    };
    let picture = Picture::new(PixelFormat::Nv12, FRAME, &[plane(luma), plane(chroma)], colors)?;
    let past = squarer.square(&picture, FRAME.rect())?;
    let mut seconds = Vec::with_capacity(runs);
    for run in 0..warmup + runs {
        let start = Instant::now();
        let newest = squarer.square(&picture, FRAME.rect())?;
        if step {
            let step = Step {
                stream: StreamId(1),
                frame: newest,
                want: Want::Labels,
                prompt: Prompt::default(),
            };
            let results = segmenter.step(&[step], None);
            results.into_iter().next().context("no answer")??;
        } else {
            let mut clip = vec![past.clone(); frames - 1];
            clip.push(newest);
            let request = Request {
                stream: StreamId(1),
                frames: clip,
                outputs: vec![frames - 1],
                want: Want::Labels,
                prompt: Prompt::default(),
                step: None,
            };
            let results = segmenter.segment(&[request], None);
            results.into_iter().next().context("no answer")??;
        }
        if run >= warmup {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    if seconds.is_empty() {
        bail!("no run counts");
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds)
}

/// The value below which `part` of the ascending `values` lie.
pub(super) fn quantile(values: &[f64], part: f64) -> f64 {
    let last = values.len().saturating_sub(1);
    let at = (part * last as f64).round() as usize;
    values.get(at.min(last)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{DeviceChoice, PrecisionChoice};
    use crate::segmenter::Temporal;

    #[test]
    fn clips_and_steps_are_timed() {
        let config = ModelConfig {
            image_side_px: 64,
            encoder_depth: 3,
            global_blocks: vec![2],
            temporal: Temporal::Causal,
            ..ModelConfig::demo()
        };
        let place = Place::choose(&DeviceChoice::Cpu, PrecisionChoice::F32).unwrap();
        for step in [false, true] {
            let seconds = seconds(&config, &place, (3, step), (1, 2)).unwrap();
            assert!(seconds.len() == 2 && seconds[0] > 0.0 && seconds[0] <= seconds[1]);
        }
        assert_eq!(quantile(&[1.0, 2.0, 3.0], 0.5), 2.0);
        assert_eq!(quantile(&[1.0, 2.0, 3.0], 0.99), 3.0);
    }
}
