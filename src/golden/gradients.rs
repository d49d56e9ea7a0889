//! One training step against its reference: loss, every gradient, every weight after AdamW, and what must not move.

use super::forward::clip;
use super::{Check, GoldenFile, Measure, Setting, Tolerance};
use crate::checkpoint::Weights;
use crate::error::{Error, Result};
use crate::model::weights::uniform;
use crate::model::{FactMode, FormulaWeights, MaSam, ModelConfig, Prompts};
use crate::train::{AdamW, AdamWConfig, Parameters, Trained, losses};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor};

/// Learning rate of the step in the files.
const RATE: f64 = 8e-4;
/// A gradient may be off by this share of its own largest element …
const GRADIENT: f64 = 1e-3;
/// … plus this share of the largest of all gradients: some have a true value of zero.
const OF_LARGEST: f64 = 1e-7;
/// After the step 99.9 % of elements are this close, and all within five times it.
const STEP: f64 = 1e-5;
const STEP_SHARE: f64 = 0.999;
/// Most pixels in a step: every intermediate tensor is kept until the gradients are known.
const MAX_PIXELS: usize = 1 << 20;
/// Relative bound on the loss and its parts.
const LOSS: f64 = 1e-5;

pub(super) fn run(file: &GoldenFile, setting: &Setting) -> Result<Check> {
    step(file, setting, |_, _| Ok(()))
}

/// The step, with something done to the gradients before they are compared and applied.
fn step(
    file: &GoldenFile,
    setting: &Setting,
    meddle: impl FnOnce(&Parameters, &mut GradStore) -> Result<()>,
) -> Result<Check> {
    let config = file.config()?;
    let (batch, frames): (usize, usize) = (file.number("batch")?, file.number("frames")?);
    if !(1..=64).contains(&batch) || !(1..=64).contains(&frames) {
        return Err(Error::config(
            "batch and frames",
            format!("{batch}, {frames}"),
            "each has to be 1 to 64",
        ));
    }
    let pixels = batch * frames * config.image_side_px.pow(2);
    if pixels > MAX_PIXELS {
        return Err(Error::config(
            "pixels of all clips",
            pixels,
            format!("it has to be at most {MAX_PIXELS}"),
        ));
    }
    let mut weights = Weights::default();
    for spec in config.weights() {
        let values = FormulaWeights::values(&spec.name, &spec.shape);
        weights.insert(spec.name, Tensor::from_vec(values, spec.shape, &Device::Cpu)?);
    }
    let parameters = Parameters::new(&weights, Trained::FactAndAdapters, &setting.device)?;
    let model = MaSam::new(&config, FactMode::Apart, parameters.builder(&setting.device))?;
    let clip = clip(&config, file.text("clip")?, batch, frames, setting)?;
    let labels = labels(&config, file.text("labels")?, batch * frames)?.to_device(&setting.device)?;
    let found = losses(&model.forward(&clip, &Prompts::default())?.logits, &labels)?;
    let mut gradients = found.total.backward()?;
    meddle(&parameters, &mut gradients)?;

    let mut measures = Vec::new();
    for (name, got) in [
        ("loss", &found.total),
        ("ce", &found.cross_entropy),
        ("dice", &found.dice),
    ] {
        measures.push(Measure {
            bound: Some(LOSS),
            ..Measure::of(name, &flat(got)?, &file.floats(name)?.1)
        });
    }
    let names = file.names()?;
    let mut largest = 0f64;
    for name in names.iter().filter(|n| n.starts_with("grad.")) {
        largest = file
            .floats(name)?
            .1
            .iter()
            .fold(largest, |m, v| m.max(f64::from(v.abs())));
    }
    for name in names.iter().filter_map(|n| n.strip_prefix("grad.")) {
        let key = format!("grad.{name}");
        let wanted = file.floats(&key)?.1;
        let var = parameters
            .get(name)
            .ok_or_else(|| Error::tensor(&key, "it is not trained here"))?;
        let error = match gradients.get(var.as_tensor()) {
            Some(gradient) => worst(&flat(gradient)?, &wanted),
            None => f64::INFINITY,
        };
        let own = wanted.iter().fold(0f64, |m, v| m.max(f64::from(v.abs())));
        // Some gradients are zero in truth: what is left of them is measured against the largest of all.
        measures.push(bounded(
            &key,
            error / (own + OF_LARGEST / GRADIENT * largest),
            GRADIENT,
        ));
    }
    for (name, var) in parameters.trained() {
        if gradients.get(var.as_tensor()).is_some() && !names.contains(&format!("grad.{name}")) {
            return Err(Error::tensor(name, "it has a gradient here and none in the file"));
        }
    }

    AdamW::new(AdamWConfig::default()).step(&parameters, &gradients, RATE)?;
    let after = parameters.weights()?;
    let (mut close, mut all) = (0usize, 0usize);
    for (name, tensor) in after.iter() {
        let key = format!("step.{name}");
        let got = flat(tensor)?;
        if !names.contains(&key) {
            if names.contains(&format!("grad.{name}")) {
                // A small file leaves large weights after the step out.
                continue;
            }
            // Frozen, or without a gradient: bit for bit what it was.
            let before = weights.get(name).map(flat).transpose()?.unwrap_or_default();
            measures.push(bounded(&format!("frozen.{name}"), worst(&got, &before), 0.0));
            continue;
        }
        let wanted = file.floats(&key)?.1;
        measures.push(bounded(&key, worst(&got, &wanted), 5.0 * STEP));
        all += wanted.len();
        close += got
            .iter()
            .zip(&wanted)
            .filter(|(a, b)| f64::from((**a - **b).abs()) <= STEP)
            .count();
    }
    let label_agreement = close as f64 / all.max(1) as f64;
    let clear_disagreements = if label_agreement >= STEP_SHARE {
        0
    } else {
        all - close
    };
    // Every measure has a bound of its own; the one nearest to it first: that is the one a report shows.
    let tolerance = Tolerance::of(DType::F32);
    measures.sort_by(|a, b| b.share(&tolerance).total_cmp(&a.share(&tolerance)));
    Ok(Check {
        name: file.name.clone(),
        measures,
        label_agreement,
        clear_disagreements,
        tolerance,
    })
}

/// A largest error and its bound.
fn bounded(name: &str, error: f64, bound: f64) -> Measure {
    Measure {
        name: name.into(),
        max_rel_err: error,
        rms: error,
        elements: 1,
        bound: Some(bound),
        tolerance: None,
    }
}

fn flat(x: &Tensor) -> Result<Vec<f32>> {
    Ok(x.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

/// Largest difference; infinite for other lengths or NaN.
fn worst(got: &[f32], wanted: &[f32]) -> f64 {
    if got.len() != wanted.len() {
        return f64::INFINITY;
    }
    let worse = |worst: f64, (a, b): (&f32, &f32)| {
        let difference = f64::from((a - b).abs());
        if difference.is_nan() {
            f64::INFINITY
        } else {
            worst.max(difference)
        }
    };
    got.iter().zip(wanted).fold(0.0, worse)
}

/// Squares of 8 x 8 pixels, each of one class drawn by [`uniform`].
fn labels(config: &ModelConfig, name: &str, images: usize) -> Result<Tensor> {
    let side = config.image_side_px;
    let squares = side / 8;
    let ids: Vec<u8> = uniform(name, images * squares * squares)
        .map(|u| ((u + 1.0) / 2.0 * config.classes as f64) as u8)
        .collect();
    let pixel = |at: usize| {
        let (image, y, x) = (at / (side * side), at / side % side, at % side);
        ids[(image * squares + y / 8) * squares + x / 8]
    };
    let labels: Vec<u8> = (0..images * side * side).map(pixel).collect();
    Ok(Tensor::from_vec(labels, (images, side, side), &Device::Cpu)?)
}

#[cfg(test)]
mod tests {
    use super::super::{FIXTURES, GoldenFile};
    use super::*;
    use crate::golden::Engine;

    const SETTING: Setting = Setting {
        device: Device::Cpu,
        precision: DType::F32,
        engine: Engine::Plain,
    };

    fn reference(name: &str) -> GoldenFile {
        let fixture = FIXTURES.iter().find(|f| f.name == name).unwrap();
        GoldenFile::from_bytes(name, fixture.bytes.to_vec()).unwrap()
    }

    /// The largest element of each gradient in the file.
    fn largest(file: &GoldenFile) -> Vec<(String, f32)> {
        let names = file.names().unwrap();
        let names = names.iter().filter_map(|name| name.strip_prefix("grad."));
        names
            .map(|name| {
                let (_, values) = file.floats(&format!("grad.{name}")).unwrap();
                (name.to_owned(), values.iter().fold(0f32, |m, v| m.max(v.abs())))
            })
            .collect()
    }

    #[test]
    fn a_broken_gradient_fails_the_check() {
        let file = reference("step_causal");
        assert!(run(&file, &SETTING).unwrap().passed());
        let all = largest(&file);
        let largest = all.iter().fold(0f32, |m, (_, v)| m.max(*v));
        // Of an adapter, of FacT, of the decoder; gradients that are zero in truth cannot be a hundredth too large.
        for part in ["adapter_", "fact", "mask_decoder."] {
            let (name, _) = all
                .iter()
                .find(|(name, own)| name.contains(part) && *own > 1e-3 * largest)
                .unwrap_or_else(|| panic!("no gradient of {part}"));
            // Each is a hundredth too large, as a forgotten factor would have it; or it is not there.
            for factor in [Some(1.01), None] {
                let check = step(&file, &SETTING, |parameters, gradients| {
                    let var = parameters.get(name).unwrap().as_tensor();
                    let gradient = gradients.remove(var).unwrap();
                    if let Some(factor) = factor {
                        gradients.insert(var, (gradient * factor)?);
                    }
                    Ok(())
                });
                let check = check.unwrap();
                assert!(!check.passed(), "{name} times {factor:?}");
                let at = format!("grad.{name}");
                assert!(
                    check
                        .measures
                        .iter()
                        .any(|m| m.name == at && m.share(&check.tolerance) > 1.0),
                    "{name} times {factor:?}: {check}"
                );
            }
        }
    }

    #[test]
    fn a_weight_that_moved_elsewhere_fails_the_check() {
        let file = reference("step_centered");
        assert!(run(&file, &SETTING).unwrap().passed());
        let check = step(&file, &SETTING, |parameters, _| {
            let (_, var) = parameters.trained().next().unwrap();
            Ok(var.set(&(var.as_tensor() + 1e-3)?)?)
        });
        assert!(!check.unwrap().passed());
    }
}
