//! Prompts as tensors: what of them makes two passes different work, and what are only numbers.

use crate::error::Result;
use crate::model::Prompts;
use crate::segmenter::Prompt;
use candle_core::{DType, Device, Tensor};

/// A prompt as tensors at a place.
pub(super) fn prompts(prompt: &Prompt, device: &Device, dtype: DType) -> Result<Prompts> {
    // Places stay in float32: 16 bits cannot tell two pixels apart in a picture of 512.
    let place = |values: Vec<f32>, shape: &[usize]| -> Result<Tensor> {
        Ok(Tensor::from_vec(values, shape, device)?)
    };
    let mut prompts = Prompts::default();
    if let Some(corners) = prompt.box_px {
        prompts.boxes = Some(place(corners.to_vec(), &[1, 4])?);
    }
    let points = &prompt.points_px;
    if !points.is_empty() {
        let xy = points.iter().flat_map(|(xy, _)| *xy).collect();
        prompts.points = Some(place(xy, &[1, points.len(), 2])?);
        let inside = points
            .iter()
            .map(|&(_, inside)| f32::from(u8::from(inside)))
            .collect();
        prompts.point_labels = Some(place(inside, &[1, points.len()])?.to_dtype(dtype)?);
    }
    Ok(prompts)
}

/// What two prompts have in common that one recorded pass serves: how many of what, wherever they lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PromptShape {
    has_box: bool,
    points: usize,
}

impl PromptShape {
    pub(super) fn of(prompt: &Prompt) -> Self {
        Self {
            has_box: prompt.box_px.is_some(),
            points: prompt.points_px.len(),
        }
    }

    /// The tensors of a prompt of this shape, in an order of their own.
    pub(super) fn flat(prompts: Prompts) -> impl Iterator<Item = Tensor> {
        [prompts.boxes, prompts.points, prompts.point_labels]
            .into_iter()
            .flatten()
    }

    /// The way back, from tensors that another may have written to since.
    pub(super) fn prompts(self, flat: &[Tensor]) -> Prompts {
        let mut flat = flat.iter().cloned();
        let mut next = |is_there: bool| is_there.then(|| flat.next()).flatten();
        let has_points = self.points > 0;
        Prompts {
            boxes: next(self.has_box),
            points: next(has_points),
            point_labels: next(has_points),
            masks: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_of_a_shape_come_back_in_their_places() {
        let points = vec![([3.0, 4.0], true), ([5.0, 6.0], false)];
        for (box_px, points_px) in [
            (None, vec![]),
            (Some([1.0, 2.0, 3.0, 4.0]), vec![]),
            (None, points.clone()),
            (Some([1.0, 2.0, 3.0, 4.0]), points),
        ] {
            let prompt = Prompt { box_px, points_px };
            let whole = prompts(&prompt, &Device::Cpu, DType::F32).unwrap();
            let flat: Vec<Tensor> = PromptShape::flat(whole.clone()).collect();
            let back = PromptShape::of(&prompt).prompts(&flat);
            let dims = |p: &Prompts| {
                [&p.boxes, &p.points, &p.point_labels].map(|t| t.as_ref().map(|t| t.dims().to_vec()))
            };
            assert_eq!(dims(&back), dims(&whole));
            assert_eq!(back.boxes.is_some(), prompt.box_px.is_some());
            assert_eq!(back.points.is_some(), !prompt.points_px.is_empty());
        }
    }
}
