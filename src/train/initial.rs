//! Weights to begin with, drawn from a seed: PyTorch's defaults, as the original software has them.
//!
//! Products and convolutions are uniform within 1 / sqrt(inputs), norms start as the identity, position tables at a
//! deviation of 0.02, tokens and embeddings at one of 1, and FacT's V at zero, so that FacT changes nothing at first.

use crate::checkpoint::Weights;
use crate::data::phantom::random::Random;
use crate::error::Result;
use crate::model::ModelConfig;
use candle_core::{Device, Tensor};

/// Every weight of `config`, drawn from `seed`; a weight depends on its name alone, not on the others.
///
/// # Errors
/// Candle's own.
pub fn weights(config: &ModelConfig, seed: u64) -> Result<Weights> {
    let mut weights = Weights::default();
    for spec in config.weights() {
        let values = values(&spec.name, &spec.shape, &mut Random::stream(seed, &spec.name));
        weights.insert(spec.name, Tensor::from_vec(values, spec.shape, &Device::Cpu)?);
    }
    Ok(weights)
}

fn values(name: &str, shape: &[usize], random: &mut Random) -> Vec<f32> {
    let count: usize = shape.iter().product();
    let mut normal = |deviation: f32| {
        (0..count)
            .map(|_| random.normal() * deviation)
            .collect::<Vec<_>>()
    };
    let is = |part: &str| name.contains(part);
    if is("fact_v") {
        return vec![0.0; count];
    }
    if is("pos_embed") || is("rel_pos_") {
        return normal(0.02);
    }
    let embedding = [
        "iou_token",
        "mask_tokens",
        "point_embeddings",
        "not_a_point",
        "no_mask_embed",
        "gaussian_matrix",
    ];
    if embedding.iter().any(|part| is(part)) {
        return normal(1.0);
    }
    let is_norm = is("norm")
        || is("upscaling.1.")
        || is("upscaling.4.")
        || is("upscaling.7.")
        || is("neck.1.")
        || is("neck.3.");
    let is_norm = is_norm || is("mask_downscaling.1.") || is("mask_downscaling.4.");
    match (shape, is_norm) {
        ([_], true) if name.ends_with("weight") => vec![1.0; count],
        ([_], _) => vec![0.0; count],
        ([first, rest @ ..], _) => {
            // A transposed convolution keeps its inputs in front.
            let inputs = if is("output_upscaling") {
                *first
            } else {
                rest.iter().product::<usize>()
            };
            let bound = 1.0 / (inputs.max(1) as f32).sqrt();
            (0..count).map(|_| random.range(-bound, bound)).collect()
        }
        ([], _) => normal(1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_starts_as_it_should() {
        let weights = weights(&ModelConfig::demo(), 3).unwrap();
        for (name, tensor) in weights.iter() {
            let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let largest = values.iter().fold(0f32, |m, v| m.max(v.abs()));
            let is_norm_weight = name.contains("norm") && name.ends_with("weight");
            if name.contains("fact_v") || name.ends_with("bias") {
                assert_eq!(largest, 0.0, "{name}");
            } else if is_norm_weight && tensor.rank() == 1 {
                assert!(values.iter().all(|v| *v == 1.0), "{name}");
            } else {
                assert!(largest > 0.0 && largest < 7.0, "{name}: {largest}");
                assert!(
                    tensor.rank() > 1 || largest == 1.0,
                    "{name}: rank {}",
                    tensor.rank()
                );
            }
        }
        let again = super::weights(&ModelConfig::demo(), 3).unwrap();
        let name = "image_encoder.patch_embed.proj.weight";
        let of = |w: &Weights| {
            w.get(name)
                .unwrap()
                .flatten_all()
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()
        };
        assert_eq!(of(&weights), of(&again));
        assert_ne!(
            of(&weights),
            of(&super::weights(&ModelConfig::demo(), 4).unwrap())
        );
    }
}
