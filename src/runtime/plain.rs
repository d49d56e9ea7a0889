//! The plain forward behind a [`Segmenter`](crate::segmenter::Segmenter): the reference for every faster one.

use super::clip::input_at;
use super::device::Place;
use super::prompt::prompts;
use super::segmenter::Forward;
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
    pub(super) model: MaSam,
    pub(super) normalisation: Normalisation,
    pub(super) place: Place,
    pub(super) staging: Staging,
    /// One stream each.
    pub(super) states: BTreeMap<StreamId, CausalState>,
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
    fn planes(
        &mut self,
        features: &Features,
        prompts: &Prompts,
        wants: &[Want],
    ) -> Result<Vec<(Plane, usize)>> {
        if self.place.device.is_cuda() && wants.iter().all(|want| *want == Want::Labels) {
            let labels = self.model.labels(features, prompts)?;
            return Ok(label_planes(self.staging.download(&labels)?).collect());
        }
        let logits = self.model.decode(features, prompts)?.logits;
        let logits = logits.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let mut planes = Vec::with_capacity(wants.len());
        for (image, want) in wants.iter().enumerate() {
            planes.push(plane(&logits.get(image)?, *want)?);
        }
        Ok(planes)
    }

    /// The state of each stream, empty where it is new.
    pub(super) fn states_of(&self, streams: &[StreamId]) -> Result<Vec<CausalState>> {
        let Place { device, dtype, .. } = &self.place;
        let state = |stream| match self.states.get(stream) {
            Some(state) => Ok(state.clone()),
            None => Ok(CausalState::new(self.model.config(), 1, *dtype, device)?),
        };
        streams.iter().map(state).collect()
    }

    /// The outputs of all rows' wanted frames, one after the other and each with its count of logits that are not finite,
    /// as the replies to the rows.
    pub(super) fn replies(
        rows: &[&Request],
        planes: impl IntoIterator<Item = (Plane, usize)>,
    ) -> Vec<Result<Reply, SegmentError>> {
        let mut all = planes.into_iter();
        let reply = |row: &&Request| {
            let (planes, counts): (Vec<Plane>, Vec<usize>) = all.by_ref().take(row.outputs.len()).unzip();
            match counts.into_iter().sum() {
                0 => Ok(Reply { planes }),
                count => Err(SegmentError::NotFinite { count }),
            }
        };
        rows.iter().map(reply).collect()
    }
}

/// Images of a batch of clips of equal length that an output is wanted for, in order.
pub(super) fn wanted_images(rows: &[&Request]) -> Vec<u32> {
    let images = |(row, request): (usize, &&Request)| -> Vec<u32> {
        let first = row * request.frames.len();
        request.outputs.iter().map(|&i| (first + i) as u32).collect()
    };
    rows.iter().enumerate().flat_map(images).collect()
}

/// Class ids and a flag of each image, as they come from a card.
pub(super) fn label_planes(rows: Vec<Vec<u8>>) -> impl Iterator<Item = (Plane, usize)> {
    rows.into_iter().map(|mut row| {
        let flag = row.pop().unwrap_or(1);
        (Plane::Labels(row), usize::from(flag))
    })
}

impl Forward for Plain {
    fn clips(&mut self, rows: &[&Request]) -> Result<Vec<Result<Reply, SegmentError>>> {
        let clips: Vec<&[ModelFrame]> = rows.iter().map(|r| r.frames.as_slice()).collect();
        let clip = self.input(&clips)?;
        let prompts = prompts(&rows[0].prompt, &self.place.device, self.place.dtype)?;
        // Only the frames that somebody wants go through the decoder.
        let wanted = wanted_images(rows);
        if wanted.is_empty() {
            return Ok(rows.iter().map(|_| Ok(Reply { planes: Vec::new() })).collect());
        }
        let wanted = Tensor::new(wanted.as_slice(), &self.place.device)?;
        let features = self.model.encode_wanted(&clip, &wanted)?;
        let wants: Vec<Want> = rows
            .iter()
            .flat_map(|row| row.outputs.iter().map(|_| row.want))
            .collect();
        let planes = self.planes(&features, &prompts, &wants)?;
        Ok(Self::replies(rows, planes))
    }

    /// States change at the end, once nothing can go wrong any more.
    fn steps(&mut self, steps: &[&Step]) -> Result<Vec<Result<Plane, SegmentError>>> {
        let clips: Vec<&[ModelFrame]> = steps
            .iter()
            .map(|step| std::slice::from_ref(&step.frame))
            .collect();
        let input = self.input(&clips)?.squeeze(1)?;
        let streams: Vec<StreamId> = steps.iter().map(|step| step.stream).collect();
        let states = self.states_of(&streams)?;
        let all: Vec<&CausalState> = states.iter().collect();
        let (features, after) = self.model.step(&input, &CausalState::join(&all)?)?;
        let Place { device, dtype, .. } = self.place.clone();
        let mut planes = Vec::with_capacity(steps.len());
        // Frames with one prompt go through the decoder together.
        for alike in steps.chunk_by(|a, b| a.prompt == b.prompt) {
            let first = planes.len() as u32;
            let rows: Vec<u32> = (first..first + alike.len() as u32).collect();
            let features = features.select(&Tensor::new(rows.as_slice(), &device)?)?;
            let prompts = prompts(&alike[0].prompt, &device, dtype)?;
            let wants: Vec<Want> = alike.iter().map(|step| step.want).collect();
            planes.extend(self.planes(&features, &prompts, &wants)?);
        }
        let after = (0..steps.len())
            .map(|index| after.stream(index))
            .collect::<candle_core::Result<Vec<_>>>()?;
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
