//! Fits checkpoints to a model: SAM's release below, MA-SAM's file on top.
//!
//! * position tables of another side are resized bilinearly, as the original software does
//! * class tokens, their hypernetworks and the IoU head belong to another number of classes: never taken from SAM
//! * a SAM weight of another shape is left out (its decoder ends two steps earlier) and has to come from MA-SAM

use super::weights::{Weights, check_finite};
use crate::error::{Error, Result};
use crate::model::{Adapters, Decoder, ModelConfig, Part, resize};
use crate::segmenter::Temporal;
use candle_core::{DType, Tensor};

/// Weights for a model and how they came about.
#[derive(Debug, Clone)]
pub struct Adopted {
    /// Float32, canonical names; complete for the configuration.
    pub weights: Weights,
    /// Tables that were resized, with both shapes.
    pub resized: Vec<String>,
    /// Names in SAM's file that the model does not use.
    pub unused: Vec<String>,
    /// Names in MA-SAM's file that are no weights of its model: constants and counters of the program that wrote it.
    pub beside: Vec<String>,
}

/// Whether a tensor of MA-SAM's file may be left out without changing the model: it has no elements, is a constant or
/// counter that training programs write, or lies outside the three parts of a SAM.
fn is_harmless(name: &str, tensor: &Tensor) -> bool {
    const CONSTANTS: [&str; 3] = ["pixel_mean", "pixel_std", "num_batches_tracked"];
    let last = name.rsplit('.').next().unwrap_or(name);
    tensor.elem_count() == 0 || CONSTANTS.contains(&last) || super::names::root(name).is_none()
}

fn replaced_by_classes(name: &str) -> bool {
    ["mask_tokens", "output_hypernetworks_mlps", "iou_prediction_head"]
        .iter()
        .any(|part| name.contains(part))
}

/// Builds the weights of `config` from a SAM release, a MA-SAM file, or both.
///
/// # Errors
/// [`Error::Misfit`] with everything that neither file gives or gives in the wrong shape, or that MA-SAM's file has more;
/// [`Error::Tensor`] for one without elements, of integers, or with values not finite.
pub fn combine(config: &ModelConfig, sam: Option<&Weights>, masam: Option<&Weights>) -> Result<Adopted> {
    config.validate()?;
    let (mut weights, mut resized) = (Weights::default(), Vec::new());
    let (mut missing, mut misshapen) = (Vec::new(), Vec::new());
    for spec in config.weights() {
        let own = masam.and_then(|m| m.get(&spec.name));
        let sams = sam
            .filter(|_| !replaced_by_classes(&spec.name))
            .and_then(|s| s.get(&spec.name));
        let Some(found) = own.or(sams) else {
            missing.push(spec.name);
            continue;
        };
        let found = weight(&spec.name, found)?;
        let fitted = match own {
            Some(_) => found,
            None => {
                let fitted = resize_table(&spec.name, &found, &spec.shape)?;
                if fitted.dims() != found.dims() {
                    resized.push(format!("{} {:?} -> {:?}", spec.name, found.dims(), fitted.dims()));
                }
                fitted
            }
        };
        if fitted.dims() != spec.shape {
            let text = format!(
                "{} ({:?} in the file, {:?} in the model)",
                spec.name,
                fitted.dims(),
                spec.shape
            );
            misshapen.push(text);
            continue;
        }
        check_finite(&spec.name, &fitted)?;
        weights.insert(spec.name, fitted);
    }
    let known: std::collections::HashSet<String> = config.weights().into_iter().map(|w| w.name).collect();
    let (beside, extra): (Vec<_>, Vec<_>) = masam
        .into_iter()
        .flat_map(Weights::iter)
        .filter(|(name, _)| !known.contains(*name))
        .partition(|(name, tensor)| is_harmless(name, tensor));
    let names = |found: Vec<(&String, &Tensor)>| found.into_iter().map(|(name, _)| name.clone()).collect();
    let (beside, extra): (Vec<String>, Vec<String>) = (names(beside), names(extra));
    if !missing.is_empty() || !misshapen.is_empty() || !extra.is_empty() {
        return Err(Error::Misfit {
            missing,
            extra,
            misshapen,
        });
    }
    let unused = sam.into_iter().flat_map(Weights::iter).map(|(n, _)| n.clone());
    let unused = unused
        .filter(|n| !known.contains(n) || replaced_by_classes(n))
        .collect();
    Ok(Adopted {
        weights,
        resized,
        unused,
        beside,
    })
}

/// Lays SAM's release over `weights`, which are complete for `config`: what fits replaces what was there, position
/// tables are resized, class tokens and a decoder of another shape stay as they were.
///
/// # Errors
/// [`Error::Misfit`] where SAM's image encoder is not complete, [`Error::Tensor`] for a tensor without elements, of
/// integers, or with values not finite.
pub fn on_top(config: &ModelConfig, sam: &Weights, mut weights: Weights) -> Result<Weights> {
    let mut missing = Vec::new();
    for spec in config.weights() {
        let ours = matches!(Part::of(&spec.name), Part::Fact | Part::Adapters);
        let found = sam.get(&spec.name).filter(|_| !replaced_by_classes(&spec.name));
        let fitted = match found {
            Some(found) => resize_table(&spec.name, &weight(&spec.name, found)?, &spec.shape)?,
            None => {
                if !ours && Part::of(&spec.name) == Part::ImageEncoder {
                    missing.push(spec.name);
                }
                continue;
            }
        };
        if fitted.dims() == spec.shape {
            check_finite(&spec.name, &fitted)?;
            weights.insert(spec.name, fitted);
        } else if Part::of(&spec.name) == Part::ImageEncoder {
            missing.push(spec.name);
        }
    }
    if missing.is_empty() {
        return Ok(weights);
    }
    let (extra, misshapen) = (Vec::new(), Vec::new());
    Err(Error::Misfit {
        missing,
        extra,
        misshapen,
    })
}

/// A weight of a file in float32: it has elements, and they are floats.
fn weight(name: &str, found: &Tensor) -> Result<Tensor> {
    if found.elem_count() == 0 {
        return Err(empty(name, found.dims()));
    }
    if !found.dtype().is_float() {
        let cause = format!("its elements are {}, not floats", found.dtype().as_str());
        return Err(Error::tensor(name, cause));
    }
    Ok(found.to_dtype(DType::F32)?)
}

fn empty(name: &str, shape: &[usize]) -> Error {
    Error::tensor(name, format!("its shape {shape:?} holds no elements"))
}

/// Brings a position table to `shape`; anything else comes back as it is.
fn resize_table(name: &str, found: &Tensor, shape: &[usize]) -> Result<Tensor> {
    if found.dims() == shape {
        return Ok(found.clone());
    }
    let same = |axis: usize| found.dims().get(axis) == shape.get(axis);
    if name.ends_with("pos_embed") && found.rank() == 4 && shape.len() == 4 && same(0) && same(3) {
        return Ok(resize::channels_last(found, (shape[1], shape[2]))?);
    }
    if name.contains("rel_pos_") && found.rank() == 2 && shape.len() == 2 && same(1) {
        return Ok(resize::planes(&found.unsqueeze(0)?, (shape[0], shape[1]))?.squeeze(0)?);
    }
    Ok(found.clone())
}

/// Side of the model's input that SAM's position table was made for, in pixels.
///
/// # Errors
/// A table or projection that is absent or has no elements.
pub fn table_side_px(sam: &Weights) -> Result<usize> {
    let axis = |name: &str, axis: usize| {
        let found = sam.get(name).and_then(|table| table.dims().get(axis).copied());
        found.ok_or_else(|| Error::tensor(name, "it is needed to tell the configuration, and is not there"))
    };
    let patch = axis("image_encoder.patch_embed.proj.weight", 2)?;
    Ok(axis("image_encoder.pos_embed", 1)?.saturating_mul(patch))
}

/// Reads the configuration off the shapes of a SAM release and a MA-SAM file. What shapes cannot tell is taken as
/// published: eight decoder heads, centered taps, FacT scale 1; without a MA-SAM file also its own parts: both adapters,
/// the progressive decoder and twelve classes.
///
/// # Errors
/// A weight that is needed for this and absent or without elements, or shapes that no configuration explains.
pub fn infer_config(sam: &Weights, masam: Option<&Weights>, image_side_px: usize) -> Result<ModelConfig> {
    let published = ModelConfig::vit_b();
    let shape = |name: &str| -> Result<Vec<usize>> {
        let found = masam.and_then(|masam| masam.get(name)).or_else(|| sam.get(name));
        let shape = found.map(|t| t.dims().to_vec()).ok_or_else(|| {
            Error::tensor(
                name,
                "it is needed to tell the configuration, and neither file has it",
            )
        })?;
        if shape.contains(&0) {
            return Err(empty(name, &shape));
        }
        Ok(shape)
    };
    let axis = |name: &str, axis: usize| -> Result<usize> {
        let shape = shape(name)?;
        let found = shape.get(axis).copied();
        found.ok_or_else(|| Error::tensor(name, format!("its shape {shape:?} has no dimension {axis}")))
    };
    let patch = axis("image_encoder.patch_embed.proj.weight", 2)?.max(1);
    let width = axis("image_encoder.pos_embed", 3)?;
    let grid = axis("image_encoder.pos_embed", 1)?;
    let depth = (0..1024)
        .find(|i| {
            sam.get(&format!("image_encoder.blocks.{i}.norm1.weight"))
                .is_none()
        })
        .unwrap_or(0);
    let entries = (0..depth)
        .map(|i| axis(&format!("image_encoder.blocks.{i}.attn.rel_pos_h"), 0))
        .collect::<Result<Vec<_>>>()?;
    // Blocks whose table spans SAM's own grid are global; what is left tells the partition.
    let global_blocks: Vec<usize> = (0..depth).filter(|&i| entries[i] + 1 == 2 * grid).collect();
    let partition = (0..depth)
        .find(|i| !global_blocks.contains(i))
        .map_or(14, |i| entries[i].div_ceil(2));
    let head = axis("image_encoder.blocks.0.attn.rel_pos_h", 1)?.max(1);
    let has = |name: &str| masam.is_some_and(|masam| masam.get(name).is_some());
    let adapters = match (
        has("image_encoder.blocks.0.adapter_norm.weight"),
        has("image_encoder.blocks.0.adapter_norm_2.weight"),
    ) {
        _ if masam.is_none() => published.adapters,
        (true, true) => Adapters::Both,
        (true, false) => Adapters::Before,
        (false, true) => Adapters::After,
        (false, false) => Adapters::None,
    };
    let conv = match adapters {
        Adapters::After => "image_encoder.blocks.0.adapter_conv_2.bias",
        _ => "image_encoder.blocks.0.adapter_conv.bias",
    };
    let decoder = if masam.is_none() {
        published.decoder
    } else if has("mask_decoder.skip_projections.0.weight") {
        Decoder::MultiScale
    } else if has("mask_decoder.output_upscaling.9.weight") {
        Decoder::Progressive
    } else {
        Decoder::Sam
    };
    let preset = [ModelConfig::vit_b(), ModelConfig::vit_l(), ModelConfig::vit_h()]
        .into_iter()
        .find(|p| p.encoder_width == width && p.encoder_depth == depth);
    let config = ModelConfig {
        name: preset.map_or_else(|| "custom".into(), |p| p.name),
        image_side_px,
        patch_side_px: patch,
        encoder_width: width,
        encoder_depth: depth,
        encoder_heads: width / head,
        global_blocks,
        partition_side: partition,
        mlp_ratio: axis("image_encoder.blocks.0.mlp.lin1.weight", 0)? / width.max(1),
        adapter_width: if masam.is_none() || adapters == Adapters::None {
            published.adapter_width
        } else {
            axis(conv, 0)?
        },
        adapters,
        temporal: Temporal::Centered,
        fact_rank: match masam {
            Some(_) => axis("image_encoder.fact_u.weight", 0)?,
            None => published.fact_rank,
        },
        fact_scale: 1.0,
        prompt_width: axis("mask_decoder.mask_tokens.weight", 1)?,
        decoder_depth: (0..1024)
            .find(|i| {
                sam.get(&format!("mask_decoder.transformer.layers.{i}.norm1.weight"))
                    .is_none()
            })
            .unwrap_or(0),
        decoder_heads: 8,
        decoder_mlp_width: axis("mask_decoder.transformer.layers.0.mlp.lin1.weight", 0)?,
        decoder,
        classes: match masam {
            Some(_) => axis("mask_decoder.mask_tokens.weight", 0)?,
            None => published.classes,
        },
    };
    Ok(config)
}
