//! A forward pass against its reference: logits, labels, features, IoU estimates and every block that is stored.

use super::{Check, Engine, GoldenFile, Measure, Setting, Tolerance};
use crate::checkpoint::{adopt, names, source, weights::Weights};
use crate::error::{Error, Result};
use crate::kernels::packed::Number;
use crate::model::weights::uniform;
use crate::model::{Decoder, FactMode, FormulaWeights, MaSam, ModelConfig, Prompts};
use crate::runtime::executor::{Executor, Job, Masks, Picture};
use candle_core::{DType, Device, Tensor};
use std::path::Path;

/// Side of the grid of logits that reference files thin their tensors to.
struct Thinning {
    stride: usize,
}

impl Thinning {
    /// Every `stride`-th element of the last two axes, from stride / 2.
    fn planes(&self, x: &Tensor) -> Result<Tensor> {
        let pick = |length: usize| -> Result<Tensor> {
            let indices: Vec<u32> = (self.stride / 2..length)
                .step_by(self.stride)
                .map(|i| i as u32)
                .collect();
            Ok(Tensor::new(indices, x.device())?)
        };
        let (rows, columns) = (pick(x.dim(2)?)?, pick(x.dim(3)?)?);
        Ok(x.contiguous()?
            .index_select(&rows, 2)?
            .contiguous()?
            .index_select(&columns, 3)?)
    }

    /// Every `stride`-th channel, from the first.
    fn channels(&self, x: &Tensor) -> Result<Tensor> {
        let indices: Vec<u32> = (0..x.dim(1)?).step_by(self.stride).map(|i| i as u32).collect();
        Ok(x.contiguous()?
            .index_select(&Tensor::new(indices, x.device())?, 1)?)
    }
}

fn floats(x: &Tensor) -> Result<Vec<f32>> {
    Ok(x.to_device(&Device::Cpu)?
        .to_dtype(DType::F32)?
        .flatten_all()?
        .to_vec1()?)
}

pub(super) fn run(file: &GoldenFile, setting: &Setting) -> Result<Check> {
    let config = file.config()?;
    check(
        file,
        &named(&file.name, setting),
        model(file, &config, setting)?,
        setting,
    )
}

/// The same with weights from the original software's two files.
pub(super) fn run_pair(file: &GoldenFile, sam: &Path, masam: &Path, setting: &Setting) -> Result<Check> {
    let config = file.config()?;
    let (sam, masam) = (source::read(sam)?, source::read(masam)?);
    let weights = adopt::combine(&config, Some(&sam), Some(&masam))?.weights;
    let model = MaSam::new(
        &config,
        FactMode::Folded,
        weights.builder(setting.weights(), &setting.device),
    )?;
    check(
        file,
        &named(&format!("{}.pth", file.name), setting),
        model,
        setting,
    )
}

fn named(name: &str, setting: &Setting) -> String {
    match setting.engine {
        Engine::Plain => name.into(),
        Engine::Executor => format!("{name} (executor)"),
    }
}

fn check(file: &GoldenFile, name: &str, model: MaSam, setting: &Setting) -> Result<Check> {
    let config = &model.config().clone();
    let (batch, frames): (usize, usize) = (file.number("batch")?, file.number("frames")?);
    let stride: usize = file.number("stride")?;
    let bounded = |name: &str, value: usize| match value {
        1..=64 => Ok(()),
        _ => Err(Error::config(
            format!("metadata {name} of {}", file.name),
            value,
            "it has to be 1 to 64",
        )),
    };
    bounded("batch", batch)?;
    bounded("frames", frames)?;
    bounded("stride", stride)?;
    // One label a pixel is in the file, so what the file claims cannot ask for more memory than it is worth.
    let images = [batch * frames, config.image_side_px, config.image_side_px];
    let (labels_shape, _) = file.bytes("labels")?;
    if labels_shape != images {
        let cause = format!("its shape is {labels_shape:?}, the metadata says {images:?}");
        return Err(Error::tensor(format!("labels of {}", file.name), cause));
    }
    let clip = clip(config, file.text("clip")?, batch, frames, setting)?;
    let prompts = prompts(config, file.text("prompts")?, setting)?;
    let found = match (setting.engine, setting.precision) {
        (Engine::Plain, _) => plain(&model, &clip, &prompts)?,
        (Engine::Executor, DType::F32) => executed::<f32>(model, &clip, &prompts)?,
        (Engine::Executor, DType::BF16) => executed::<half::bf16>(model, &clip, &prompts)?,
        (Engine::Executor, other) => {
            return Err(Error::config(
                "precision",
                format!("{other:?}"),
                "the executor takes f32 and bf16",
            ));
        }
    };
    let thin = Thinning { stride };
    let grid = found.features.permute((0, 3, 1, 2))?; // [images, channels, grid, grid]
    let mut outputs = vec![
        ("logits".to_owned(), thin.planes(&found.logits)?),
        ("features".to_owned(), thin.channels(&grid)?),
        ("iou".to_owned(), found.iou),
    ];
    outputs.extend(
        found
            .low_res_logits
            .map(|logits| ("low_res_logits".to_owned(), logits)),
    );
    outputs.extend(found.blocks);

    let encoder = Tolerance::of(setting.precision);
    let tolerance = encoder.for_decoder(config, setting.precision);
    let is_decoded = |name: &str| ["logits", "low_res_logits", "iou"].contains(&name);
    let stored = file.names()?;
    // Every forward file has these; where one block is stored, all are.
    let blocks = stored.iter().any(|name| name.starts_with("block_"));
    let blocks = (0..if blocks { config.encoder_depth } else { 0 }).map(|block| format!("block_{block}"));
    for name in ["logits", "features", "iou"]
        .map(str::to_owned)
        .into_iter()
        .chain(blocks)
    {
        if !stored.contains(&name) {
            let cause = format!("{} does not hold it, so it cannot be checked", file.name);
            return Err(Error::tensor(name, cause));
        }
    }
    let mut measures = Vec::new();
    for (name, tensor) in &outputs {
        if stored.contains(name) {
            let (shape, wanted) = file.floats(name)?;
            if tensor.dims() != shape {
                let cause = format!("the model gives {:?}, the file holds {shape:?}", tensor.dims());
                return Err(Error::tensor(format!("{} of {}", name, file.name), cause));
            }
            measures.push(Measure {
                tolerance: (!is_decoded(name)).then_some(encoder),
                ..Measure::of(name, &floats(tensor)?, &wanted)
            });
        }
    }
    // The executor shows no logits of the decoder's own resolution.
    let hidden = |name: &str| name == "labels" || name == "low_res_logits";
    let known = |name: &String| hidden(name) || outputs.iter().any(|(n, _)| n == name);
    if let Some(name) = stored.iter().find(|name| !known(name)) {
        return Err(Error::tensor(
            name,
            format!("{} holds it, but no such tensor is computed", file.name),
        ));
    }
    let (label_agreement, clear_disagreements) = labels(file, &found.logits, stride, &tolerance)?;
    Ok(Check {
        name: name.into(),
        measures,
        label_agreement,
        clear_disagreements,
        tolerance,
    })
}

/// What a forward pass gives.
struct Found {
    logits: Tensor,
    features: Tensor,
    iou: Tensor,
    low_res_logits: Option<Tensor>,
    /// `patch_embed` and every `block_N`.
    blocks: Vec<(String, Tensor)>,
}

fn plain(model: &MaSam, clip: &Tensor, prompts: &Prompts) -> Result<Found> {
    let mut blocks = Vec::new();
    let features = model.encode(clip, &mut |name, x| blocks.push((name.to_owned(), x.clone())))?;
    let output = model.decode(&features, prompts)?;
    Ok(Found {
        logits: output.logits,
        features: features.grid,
        iou: output.iou,
        low_res_logits: Some(output.low_res_logits),
        blocks,
    })
}

fn executed<N: Number>(model: MaSam, clip: &Tensor, prompts: &Prompts) -> Result<Found> {
    let (clips, frames, _, side, _) = clip.dims5()?;
    let mut executor = Executor::<N>::new(model)?;
    executor.prompt(prompts)?;
    let config = executor.config().clone();
    let (images, grid) = (clips * frames, config.grid_side());
    let pixels = floats(clip)?;
    let picture = |image: usize| Picture::Planes(&pixels[image * 3 * side * side..][..3 * side * side]);
    let outputs: Vec<usize> = (0..images).collect();
    let job = Job {
        clips,
        frames,
        outputs: &outputs,
        picture: &picture,
    };
    let mut logits = vec![0f32; images * config.classes * side * side];
    let mut masks: Vec<Masks<'_>> = logits
        .chunks_exact_mut(config.classes * side * side)
        .map(Masks::Logits)
        .collect();
    let mut seen: Vec<(String, Vec<f32>)> = Vec::new();
    let mut observer = |name: &str, values: &[f32]| seen.push((name.to_owned(), values.to_vec()));
    executor.observed(&job, &mut masks, Some(&mut observer))?;
    let tensor = |values: Vec<f32>, shape: &[usize]| Tensor::from_vec(values, shape, &Device::Cpu);
    let (mut features, mut iou, mut blocks) = (None, None, Vec::new());
    for (name, values) in seen {
        match name.as_str() {
            "features" => features = Some(tensor(values, &[images, grid, grid, config.prompt_width])?),
            "iou" => iou = Some(tensor(values, &[images, config.classes])?),
            _ => blocks.push((name, tensor(values, &[images, grid, grid, config.encoder_width])?)),
        }
    }
    let missing = |name: &str| Error::tensor(name, "the executor did not show it");
    Ok(Found {
        logits: tensor(logits, &[images, config.classes, side, side])?,
        features: features.ok_or_else(|| missing("features"))?,
        iou: iou.ok_or_else(|| missing("iou"))?,
        low_res_logits: None,
        blocks,
    })
}

/// The model of the file: weights by formula, or a SAM release of another side adapted to it.
fn model(file: &GoldenFile, config: &ModelConfig, setting: &Setting) -> Result<MaSam> {
    let sam_side: usize = file.number("sam_size")?;
    if sam_side == 0 {
        let weights = FormulaWeights::builder(setting.weights(), &setting.device);
        return MaSam::new(config, FactMode::Folded, weights);
    }
    // A stand-in for SAM's release: its own side, four mask tokens, two upscaling steps; the rest by formula too.
    let release = ModelConfig {
        image_side_px: sam_side,
        decoder: Decoder::Sam,
        classes: 4,
        ..config.clone()
    };
    release.validate()?;
    let formula = |specs: Vec<crate::model::WeightSpec>, keep: &dyn Fn(&str) -> bool| -> Result<Weights> {
        let mut weights = Weights::default();
        for spec in specs.into_iter().filter(|s| keep(&s.name)) {
            let values = FormulaWeights::values(&spec.name, &spec.shape);
            weights.insert(spec.name, Tensor::from_vec(values, spec.shape, &Device::Cpu)?);
        }
        Ok(weights)
    };
    let sam = formula(release.weights(), &|name| names::is_sam(name))?;
    let masam = formula(config.weights(), &|name| names::is_in_masam_file(name))?;
    let weights = adopt::combine(config, Some(&sam), Some(&masam))?.weights;
    MaSam::new(
        config,
        FactMode::Folded,
        weights.builder(setting.weights(), &setting.device),
    )
}

pub(super) fn clip(
    config: &ModelConfig,
    name: &str,
    batch: usize,
    frames: usize,
    setting: &Setting,
) -> Result<Tensor> {
    let side = config.image_side_px;
    let values: Vec<f32> = uniform(name, batch * frames * 3 * side * side)
        .map(|u| ((u + 1.0) / 2.0) as f32)
        .collect();
    let clip = Tensor::from_vec(values, (batch, frames, 3, side, side), &setting.device)?;
    Ok(clip.to_dtype(setting.weights())?)
}

/// The prompts that the words stand for, in parts of the side: box 0.2 0.3 0.7 0.8; points (0.25, 0.5) inside and
/// (0.75, 0.6) outside; mask: 4 uniform("mask").
fn prompts(config: &ModelConfig, words: &str, setting: &Setting) -> Result<Prompts> {
    let side = config.image_side_px as f32;
    let place = |values: Vec<f32>, shape: &[usize]| -> Result<Tensor> {
        Ok(Tensor::from_vec(values, shape, &setting.device)?)
    };
    let tensor = |values: Vec<f32>, shape: &[usize]| -> Result<Tensor> {
        Ok(place(values, shape)?.to_dtype(setting.weights())?)
    };
    let mut prompts = Prompts::default();
    for word in words.split('+').filter(|w| !w.is_empty() && *w != "none") {
        match word {
            "box" => {
                let corners = [0.2, 0.3, 0.7, 0.8].map(|part| part * side);
                prompts.boxes = Some(place(corners.to_vec(), &[1, 4])?);
            }
            "points" => {
                let points = [0.25, 0.5, 0.75, 0.6].map(|part| part * side);
                prompts.points = Some(place(points.to_vec(), &[1, 2, 2])?);
                prompts.point_labels = Some(tensor(vec![1.0, 0.0], &[1, 2])?);
            }
            "mask" => {
                let side = 4 * config.grid_side();
                let values = uniform("mask", side * side).map(|u| (4.0 * u) as f32).collect();
                prompts.masks = Some(tensor(values, &[1, 1, side, side])?);
            }
            _ => {
                return Err(Error::config(
                    "prompts",
                    word,
                    "it has to be box, points or mask, joined by +",
                ));
            }
        }
    }
    Ok(prompts)
}

/// Share of equal labels, and how many differ although the reference is sure of them. The margin between the two
/// best logits is only known where the file stores logits; elsewhere our own decides.
fn labels(file: &GoldenFile, logits: &Tensor, stride: usize, tolerance: &Tolerance) -> Result<(f64, usize)> {
    let (shape, wanted) = file.bytes("labels")?;
    let (images, classes, height, width) = logits.dims4()?;
    if shape != [images, height, width] {
        let cause = format!(
            "the model gives {:?}, the file holds {shape:?}",
            [images, height, width]
        );
        return Err(Error::tensor(format!("labels of {}", file.name), cause));
    }
    let own = floats(logits)?;
    let (thin_shape, reference) = file.floats("logits")?;
    let largest = reference.iter().fold(0f64, |m, v| m.max(f64::from(v.abs())));
    let (thin_rows, thin_columns) = (thin_shape[2], thin_shape[3]);
    let margin = |values: &mut dyn Iterator<Item = f32>| {
        let (mut best, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
        for value in values {
            (best, second) = if value > best {
                (value, best)
            } else {
                (best, second.max(value))
            };
        }
        f64::from(best - second)
    };
    let (mut agree, mut clear) = (0usize, 0usize);
    for (at, wanted) in wanted.iter().enumerate() {
        let (image, y, x) = (at / (height * width), at / width % height, at % width);
        let logit = |class: usize| own[((image * classes + class) * height + y) * width + x];
        let mut best = 0;
        for class in 1..classes {
            if logit(class) > logit(best) {
                best = class;
            }
        }
        if best == usize::from(*wanted) {
            agree += 1;
            continue;
        }
        let stored = y % stride == stride / 2 && x % stride == stride / 2;
        let (row, column) = (y / stride, x / stride);
        let apart = if stored && row < thin_rows && column < thin_columns {
            let at = |class: usize| ((image * classes + class) * thin_rows + row) * thin_columns + column;
            margin(&mut (0..classes).map(|class| reference[at(class)]))
        } else {
            margin(&mut (0..classes).map(logit))
        };
        if apart > tolerance.margin * largest {
            clear += 1;
        }
    }
    Ok((agree as f64 / wanted.len().max(1) as f64, clear))
}
