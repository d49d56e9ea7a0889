//! The plain forward behind a [`Segmenter`](crate::segmenter::Segmenter): the reference for every faster one.

use super::clip::input_at;
use super::device::Place;
use super::segmenter::{Forward, prompts};
use super::staging::Staging;
use crate::error::Result;
use crate::kernels::{argmax::argmax, softmax::softmax};
use crate::model::image_encoder::Features;
use crate::model::{CausalState, MaSam, Prompts};
use crate::segmenter::{
    ModelFrame, Normalisation, Plane, Reply, Request, SegmentError, Step, StreamId, Want,
};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;

/// A model as Candle tensors.
pub(super) struct Plain {
    model: MaSam,
    normalisation: Normalisation,
    place: Place,
    staging: Staging,
    states: BTreeMap<StreamId, CausalState>,
}

impl Plain {
    pub(super) fn new(model: MaSam, normalisation: Normalisation, place: Place) -> Self {
        Self {
            model,
            normalisation,
            place,
            staging: Staging::default(),
            states: BTreeMap::new(),
        }
    }

    fn input(&mut self, clips: &[&[ModelFrame]]) -> Result<Tensor> {
        let side = self.model.config().image_side_px;
        input_at(&self.place, &mut self.staging, clips, side, self.normalisation)
    }

    /// The output of every image and how many of its logits are not finite. From a card only class ids cross, where
    /// nobody wants more, and all that is known of the rest is whether there was one.
    fn planes(&self, features: &Features, prompts: &Prompts, wants: &[Want]) -> Result<Vec<(Plane, usize)>> {
        if self.place.device.is_cuda() && wants.iter().all(|want| *want == Want::Labels) {
            let rows = self.model.labels(features, prompts)?.to_vec2::<u8>()?;
            let plane = |mut row: Vec<u8>| {
                let flag = row.pop().unwrap_or(1);
                (Plane::Labels(row), usize::from(flag))
            };
            return Ok(rows.into_iter().map(plane).collect());
        }
        let logits = self.model.decode(features, prompts)?.logits;
        let logits = logits.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let mut planes = Vec::with_capacity(wants.len());
        for (image, want) in wants.iter().enumerate() {
            planes.push(plane(&logits.get(image)?, *want)?);
        }
        Ok(planes)
    }
}

impl Forward for Plain {
    fn clips(&mut self, rows: &[&Request]) -> Result<Vec<Result<Reply, SegmentError>>> {
        let frames = rows[0].frames.len();
        let clips: Vec<&[ModelFrame]> = rows.iter().map(|r| r.frames.as_slice()).collect();
        let clip = self.input(&clips)?;
        let prompts = prompts(&rows[0].prompt, &self.place.device, self.place.dtype)?;
        // Only the frames that somebody wants go through the decoder.
        let wanted: Vec<u32> = (rows.iter().enumerate())
            .flat_map(|(row, r)| r.outputs.iter().map(move |&i| (row * frames + i) as u32))
            .collect();
        if wanted.is_empty() {
            return Ok(rows.iter().map(|_| Ok(Reply { planes: Vec::new() })).collect());
        }
        let wanted = Tensor::new(wanted.as_slice(), &self.place.device)?;
        let features = self.model.encode_wanted(&clip, &wanted)?;
        let wants: Vec<Want> = rows
            .iter()
            .flat_map(|row| row.outputs.iter().map(|_| row.want))
            .collect();
        let mut all = self.planes(&features, &prompts, &wants)?.into_iter();
        let mut replies = Vec::with_capacity(rows.len());
        for row in rows {
            let mut planes = Vec::with_capacity(row.outputs.len());
            let mut not_finite = 0;
            for (plane, count) in all.by_ref().take(row.outputs.len()) {
                not_finite += count;
                planes.push(plane);
            }
            replies.push(match not_finite {
                0 => Ok(Reply { planes }),
                count => Err(SegmentError::NotFinite { count }),
            });
        }
        Ok(replies)
    }

    /// States change at the end, once nothing can go wrong any more.
    fn steps(&mut self, steps: &[&Step]) -> Result<Vec<Result<Plane, SegmentError>>> {
        let clips: Vec<&[ModelFrame]> = steps
            .iter()
            .map(|step| std::slice::from_ref(&step.frame))
            .collect();
        let input = self.input(&clips)?.squeeze(1)?;
        let Place { device, dtype, .. } = &self.place;
        // Zeros as large as a state: only where a stream begins.
        let begins = steps.iter().any(|step| !self.states.contains_key(&step.stream));
        let empty = match begins {
            true => Some(CausalState::new(self.model.config(), *dtype, device)?),
            false => None,
        };
        let before: Vec<&CausalState> = steps
            .iter()
            .filter_map(|step| self.states.get(&step.stream).or(empty.as_ref()))
            .collect();
        let (features, after) = self.model.step(&input, &before)?;
        let mut planes = Vec::with_capacity(steps.len());
        // Frames with one prompt go through the decoder together.
        for alike in steps.chunk_by(|a, b| a.prompt == b.prompt) {
            let first = planes.len() as u32;
            let rows: Vec<u32> = (first..first + alike.len() as u32).collect();
            let features = features.select(&Tensor::new(rows.as_slice(), device)?)?;
            let prompts = prompts(&alike[0].prompt, device, *dtype)?;
            let wants: Vec<Want> = alike.iter().map(|step| step.want).collect();
            planes.extend(self.planes(&features, &prompts, &wants)?);
        }
        let mut results = Vec::with_capacity(steps.len());
        for ((step, after), (plane, not_finite)) in steps.iter().zip(after).zip(planes) {
            results.push(match not_finite {
                0 => {
                    self.states.insert(step.stream, after);
                    Ok(plane)
                }
                // A state that leads to no numbers would lead to none for ever.
                count => {
                    self.states.remove(&step.stream);
                    Err(SegmentError::NotFinite { count })
                }
            });
        }
        Ok(results)
    }

    fn reset(&mut self, stream: StreamId) {
        self.states.retain(|phase, _| phase.whole() != stream.whole());
    }

    fn snapshot(&self, stream: StreamId) -> Option<Vec<u8>> {
        self.states.get(&stream)?.to_bytes().ok()
    }

    fn restore(&mut self, stream: StreamId, bytes: &[u8]) -> Result<()> {
        let Place { device, dtype, .. } = &self.place;
        let state = CausalState::from_bytes(bytes, self.model.config(), *dtype, device)?;
        self.states.insert(stream, state);
        Ok(())
    }
}

/// The output of one frame and how many of its logits are not finite; `logits` is `[classes, side, side]`.
fn plane(logits: &Tensor, want: Want) -> Result<(Plane, usize)> {
    let classes = logits.dim(0)?;
    match want {
        Want::Labels => {
            let labels = argmax(&logits.flatten_all()?.to_vec1::<f32>()?, classes);
            Ok((Plane::Labels(labels.ids), labels.not_finite))
        }
        Want::Probabilities => {
            let (_, height, width) = logits.dims3()?;
            let pixels = logits.reshape((classes, height * width))?.t()?.contiguous()?; // [pixels, classes]
            let values = softmax(&pixels)?
                .t()?
                .contiguous()?
                .flatten_all()?
                .to_vec1::<f32>()?;
            let not_finite = values.iter().filter(|v| !v.is_finite()).count();
            Ok((Plane::Probabilities(values), not_finite))
        }
    }
}
