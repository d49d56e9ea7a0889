//! Loss and gradients of one batch, with every intermediate result kept, or with the blocks' inputs alone.
//!
//! Kept inputs cost a second forward pass and save most of the memory: going backward, the decoder is run again image
//! by image and each block from its input, and the gradient g of an output y goes through it as that of `sum(y g)`.

use super::batches::Batch;
use super::loss::{LossConfig, Losses, losses_with};
use super::parameters::Parameters;
use crate::error::{Error, Result};
use crate::model::image_encoder::Features;
use crate::model::{MaSam, Prompts};
use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};
use serde::{Deserialize, Serialize};

/// What is kept of a forward pass for the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kept {
    /// Every intermediate result.
    #[default]
    Everything,
    /// The inputs of the image encoder's blocks and of the decoder; what is inside them is computed again.
    BlockInputs,
}

/// Losses and, where the loss is a number, the gradients of all parameters that have one.
#[derive(Debug)]
pub struct Found {
    /// As [`losses_with`] gives them.
    pub losses: Losses,
    /// Gradients by variable, of the loss taken [`Wanted::scale`] times.
    pub gradients: Option<GradStore>,
}

/// How gradients are computed.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The loss.
    pub loss: &'a LossConfig,
    /// What is kept.
    pub kept: Kept,
    /// Factor on the loss, so that small gradients survive in 16 bits.
    pub scale: f64,
}

/// The gradients of `parameters`, which `model` was built from, for a batch on its device.
///
/// # Errors
/// As [`losses_with`], a clip of the wrong shape, or Candle's own.
pub fn gradients(
    model: &MaSam,
    parameters: &Parameters,
    batch: &Batch,
    wanted: &Wanted<'_>,
) -> Result<Found> {
    match wanted.kept {
        Kept::Everything => {
            let logits = model.forward(&batch.clips, &Prompts::default())?.logits;
            finish(&logits, batch, wanted)
        }
        Kept::BlockInputs => from_block_inputs(model, parameters, batch, wanted),
    }
}

/// From logits to gradients.
fn finish(logits: &Tensor, batch: &Batch, wanted: &Wanted<'_>) -> Result<Found> {
    let losses = losses_with(&logits.to_dtype(DType::F32)?, &batch.labels, wanted.loss)?;
    let finite = losses.total.to_dtype(DType::F64)?.to_scalar::<f64>()?.is_finite();
    let gradients = match finite {
        true if wanted.scale == 1.0 => Some(backward(&losses.total)?),
        true => Some(backward(&(&losses.total * wanted.scale)?)?),
        false => None, // They would be no better.
    };
    // A loss that knew how it was made would keep everything it was made from.
    let losses = Losses {
        total: losses.total.detach(),
        cross_entropy: losses.cross_entropy.detach(),
        dice: losses.dice.detach(),
    };
    Ok(Found { losses, gradients })
}

fn from_block_inputs(
    model: &MaSam,
    parameters: &Parameters,
    batch: &Batch,
    wanted: &Wanted<'_>,
) -> Result<Found> {
    let encoder = model.image_encoder();
    let frames = batch.clips.dim(1)?;
    let images = batch.clips.flatten(0, 1)?;
    // Detached, a result forgets how it was made, and what is inside the block is freed.
    let embedded = encoder.embed(&images)?;
    let mut trained_so_far = embedded.track_op();
    let mut x = embedded.detach();
    drop(embedded);
    // Input of each block, and whether anything trained lies in it or before it.
    let mut inputs = Vec::with_capacity(encoder.depth());
    let mut skips = Vec::new();
    for index in 0..encoder.depth() {
        let y = encoder.block(index, &x, frames)?;
        let before = trained_so_far;
        trained_so_far |= y.track_op();
        inputs.push((std::mem::replace(&mut x, y.detach()), before, trained_so_far));
        if encoder.is_skip(index) {
            skips.insert(0, (index, x.clone()));
        }
    }
    let skip_outputs: Vec<&Tensor> = skips.iter().map(|(_, output)| output).collect();
    let (mut found, mut all, head) =
        match decoder_gradients(model, parameters, &x, &skip_outputs, batch, wanted)? {
            (found, Some((all, head))) => (found, all, head),
            (found, None) => return Ok(found),
        };
    drop(x);
    let mut head = head.into_iter();
    let mut gradient = head.next();
    let mut of_skips: Vec<(usize, Tensor)> = skips.iter().map(|(index, _)| *index).zip(head).collect();
    drop(skips);
    for (index, (input, before, so_far)) in inputs.into_iter().enumerate().rev() {
        if let Some(at) = of_skips.iter().position(|(skip, _)| *skip == index) {
            let (_, own) = of_skips.swap_remove(at);
            gradient = Some(match gradient {
                Some(later) => (later + own)?,
                None => own,
            });
        }
        let Some(own) = gradient.take().filter(|_| so_far) else {
            break;
        };
        // Without anything trained before it, the input needs no gradient.
        let input = if before {
            Var::from_tensor(&input)?.into_inner()
        } else {
            input
        };
        let mut inside = through(&encoder.block(index, &input, frames)?, &own)?;
        gradient = inside.remove(&input);
        parameters.add_gradients(&mut all, &inside)?;
    }
    if let Some(own) = gradient {
        parameters.add_gradients(&mut all, &through(&encoder.embed(&images)?, &own)?)?;
    }
    found.gradients = Some(all);
    Ok(found)
}

/// Gradients of the parameters behind the encoder, then of the encoder's last output and of the skips.
type Behind = (GradStore, Vec<Tensor>);

/// Neck and decoder, one image at a time: the loss needs all logits at once, but nothing else of the images.
fn decoder_gradients(
    model: &MaSam,
    parameters: &Parameters,
    last: &Tensor,
    skips: &[&Tensor],
    batch: &Batch,
    wanted: &Wanted<'_>,
) -> Result<(Found, Option<Behind>)> {
    let decode = |inputs: &[Tensor]| -> Result<Tensor> {
        let (last, skips) = inputs
            .split_first()
            .ok_or_else(|| Error::tensor("features", "there are none"))?;
        let features = Features {
            grid: model.image_encoder().finish(last)?,
            skips: skips.to_vec(),
        };
        Ok(model.decode(&features, &Prompts::default())?.logits)
    };
    let of_image = |image: usize| -> candle_core::Result<Vec<Tensor>> {
        let whole = std::iter::once(last).chain(skips.iter().copied());
        whole.map(|x| x.narrow(0, image, 1)).collect()
    };
    let images = last.dim(0)?;
    let logits = (0..images)
        .map(|image| Ok(decode(&of_image(image)?)?.detach()))
        .collect::<Result<Vec<_>>>()?;
    let logits = Var::from_tensor(&Tensor::cat(&logits, 0)?)?;
    let mut found = finish(logits.as_tensor(), batch, wanted)?;
    let Some(mut all) = found.gradients.take() else {
        return Ok((found, None));
    };
    let Some(slopes) = all.remove(logits.as_tensor()) else {
        return Err(Error::tensor("logits", "the loss does not depend on them"));
    };
    drop(logits);
    let mut of_inputs = vec![Vec::with_capacity(images); 1 + skips.len()];
    for image in 0..images {
        let inputs = of_image(image)?
            .iter()
            .map(|x| Ok(Var::from_tensor(x)?.into_inner()))
            .collect::<Result<Vec<_>>>()?;
        let mut own = through(&decode(&inputs)?, &slopes.narrow(0, image, 1)?)?;
        for (of_input, input) in of_inputs.iter_mut().zip(&inputs) {
            of_input.push(own.remove(input).map_or_else(|| input.zeros_like(), Ok)?);
        }
        parameters.add_gradients(&mut all, &own)?;
    }
    let of_inputs = of_inputs
        .iter()
        .map(|own| Tensor::cat(own, 0))
        .collect::<candle_core::Result<_>>()?;
    Ok((found, Some((all, of_inputs))))
}

/// The gradients of `total`, detached: as they come they know how they were made, and keep everything that they were
/// made from.
fn backward(total: &Tensor) -> Result<GradStore> {
    let mut gradients = total.backward()?;
    let ids: Vec<_> = gradients.get_ids().copied().collect();
    for id in ids {
        if let Some(gradient) = gradients.get_id(id).map(Tensor::detach) {
            gradients.insert_id(id, gradient);
        }
    }
    Ok(gradients)
}

/// Gradients behind `y`, whose own is `gradient`.
fn through(y: &Tensor, gradient: &Tensor) -> Result<GradStore> {
    backward(&(y * gradient.detach())?.sum_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::weights::uniform;
    use crate::model::{Decoder, FactMode, ModelConfig};
    use crate::train::{Trained, initial};
    use candle_core::Device;

    fn batch(config: &ModelConfig) -> Batch {
        let (side, images) = (config.image_side_px, 3);
        let count = images * side * side;
        let clips: Vec<f32> = uniform("clip", count * 3)
            .map(|u| (u * 0.5 + 0.5) as f32)
            .collect();
        let labels: Vec<u8> = (0..count).map(|i| (i / 37 % config.classes) as u8).collect();
        Batch {
            clips: Tensor::from_vec(clips, (1, images, 3, side, side), &Device::Cpu).unwrap(),
            labels: Tensor::from_vec(labels, (images, side, side), &Device::Cpu).unwrap(),
        }
    }

    #[test]
    fn kept_inputs_give_the_gradients_that_kept_everything_gives() {
        for decoder in [Decoder::Progressive, Decoder::MultiScale] {
            let config = ModelConfig {
                image_side_px: 64,
                encoder_depth: 4,
                global_blocks: vec![1, 3],
                decoder,
                ..ModelConfig::demo()
            };
            let weights = initial::weights(&config, 5).unwrap();
            for trained in [
                Trained::Full,
                Trained::FactAndAdapters,
                Trained::Fact,
                Trained::Decoder,
            ] {
                let parameters = Parameters::new(&weights, trained, &Device::Cpu).unwrap();
                let model = MaSam::new(&config, FactMode::Apart, parameters.builder(&Device::Cpu)).unwrap();
                let loss = LossConfig::default();
                let of = |kept, scale| {
                    let wanted = Wanted {
                        loss: &loss,
                        kept,
                        scale,
                    };
                    gradients(&model, &parameters, &batch(&config), &wanted).unwrap()
                };
                let (plain, again) = (of(Kept::Everything, 1.0), of(Kept::BlockInputs, 1.0));
                let total = |found: &Found| found.losses.total.to_scalar::<f32>().unwrap();
                assert_eq!(total(&plain), total(&again));
                let (plain, again) = (plain.gradients.unwrap(), again.gradients.unwrap());
                let scaled = of(Kept::Everything, 1024.0).gradients.unwrap();
                let mut compared = 0;
                for (name, var) in parameters.trained() {
                    let of = |store: &GradStore| {
                        let gradient = store.get(var.as_tensor())?;
                        Some(gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap())
                    };
                    let what = format!("{decoder:?} {trained:?} {name}");
                    let (Some(wanted), Some(got)) = (of(&plain), of(&again)) else {
                        assert!(
                            of(&plain).is_none() && of(&again).is_none(),
                            "{what}: one has no gradient"
                        );
                        continue;
                    };
                    let largest = wanted.iter().fold(1e-6f32, |m, w| m.max(w.abs()));
                    for ((got, wanted), scaled) in got.iter().zip(&wanted).zip(of(&scaled).unwrap()) {
                        assert!(
                            (got - wanted).abs() <= 1e-4 * largest,
                            "{what}: {got} for {wanted}"
                        );
                        assert!(
                            (scaled / 1024.0 - wanted).abs() <= 1e-4 * largest,
                            "{what}: scaled"
                        );
                    }
                    compared += 1;
                }
                assert!(compared > 20, "{decoder:?} {trained:?}: {compared} gradients");
            }
        }
    }
}
