//! The list of a model's weights, and weights that are pure functions of their names.
//!
//! [`ModelConfig::weights`] names every weight with its shape, in the order data meets them: checkpoints are
//! checked against it before anything is built. [`FormulaWeights`] gives each weight by formula, so that a reference
//! tensor needs no weight file beside it and every program regenerates the same model bit for bit.

use super::config::{Adapters, ModelConfig};
use super::temporal_adapter::Position;
use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;

/// The part of the model a weight belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// SAM's own image encoder, frozen in MA-SAM.
    ImageEncoder,
    /// FacT's factors.
    Fact,
    /// Temporal adapters.
    Adapters,
    /// Prompt encoder.
    PromptEncoder,
    /// Mask decoder.
    MaskDecoder,
}

impl Part {
    /// The part that a canonical name belongs to.
    pub fn of(name: &str) -> Self {
        if name.contains("fact_") || name.contains("_fact.") {
            Part::Fact
        } else if name.contains(".adapter_") {
            Part::Adapters
        } else if name.starts_with("prompt_encoder.") {
            Part::PromptEncoder
        } else if name.starts_with("mask_decoder.") {
            Part::MaskDecoder
        } else {
            Part::ImageEncoder
        }
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Part::ImageEncoder => "image encoder",
            Part::Fact => "FacT",
            Part::Adapters => "adapters",
            Part::PromptEncoder => "prompt encoder",
            Part::MaskDecoder => "mask decoder",
        })
    }
}

/// A weight's canonical name and shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightSpec {
    /// Canonical name.
    pub name: String,
    /// Row-major shape.
    pub shape: Vec<usize>,
}

impl WeightSpec {
    /// Elements.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

#[derive(Default)]
struct List(Vec<WeightSpec>);

impl List {
    fn add(&mut self, name: impl Into<String>, shape: &[usize]) {
        self.0.push(WeightSpec {
            name: name.into(),
            shape: shape.to_vec(),
        });
    }

    fn linear(&mut self, name: impl std::fmt::Display, inputs: usize, outputs: usize) {
        self.add(format!("{name}.weight"), &[outputs, inputs]);
        self.add(format!("{name}.bias"), &[outputs]);
    }

    fn norm(&mut self, name: impl std::fmt::Display, width: usize) {
        self.add(format!("{name}.weight"), &[width]);
        self.add(format!("{name}.bias"), &[width]);
    }

    fn mlp3(&mut self, name: impl std::fmt::Display, inputs: usize, hidden: usize, outputs: usize) {
        self.linear(format!("{name}.layers.0"), inputs, hidden);
        self.linear(format!("{name}.layers.1"), hidden, hidden);
        self.linear(format!("{name}.layers.2"), hidden, outputs);
    }
}

impl ModelConfig {
    /// Every weight of the model. The configuration has to be valid.
    pub fn weights(&self) -> Vec<WeightSpec> {
        let mut list = List::default();
        self.image_encoder_weights(&mut list);
        self.prompt_encoder_weights(&mut list);
        self.mask_decoder_weights(&mut list);
        list.0
    }

    /// Parameters in all.
    pub fn parameters(&self) -> usize {
        self.weights().iter().map(WeightSpec::count).sum()
    }

    fn image_encoder_weights(&self, list: &mut List) {
        let (width, side, rank) = (self.encoder_width, self.grid_side(), self.fact_rank);
        list.add("image_encoder.pos_embed", &[1, side, side, width]);
        list.add(
            "image_encoder.patch_embed.proj.weight",
            &[width, 3, self.patch_side_px, self.patch_side_px],
        );
        list.add("image_encoder.patch_embed.proj.bias", &[width]);
        list.add("image_encoder.fact_u.weight", &[rank, width]);
        list.add("image_encoder.fact_v.weight", &[width, rank]);
        for i in 0..self.encoder_depth {
            let block = format!("image_encoder.blocks.{i}");
            let mut adapter = |position: Position| {
                let part = |name: &str| format!("{block}.adapter_{name}{}", position.suffix());
                list.norm(part("norm"), width);
                list.add(part("linear_down") + ".weight", &[self.adapter_width, width]);
                list.add(
                    part("conv") + ".weight",
                    &[self.adapter_width, self.adapter_width, 3, 1, 1],
                );
                list.add(part("conv") + ".bias", &[self.adapter_width]);
                list.add(part("linear_up") + ".weight", &[width, self.adapter_width]);
            };
            if matches!(self.adapters, Adapters::Both | Adapters::Before) {
                adapter(Position::Before);
            }
            if matches!(self.adapters, Adapters::Both | Adapters::After) {
                adapter(Position::After);
            }
            list.norm(format!("{block}.norm1"), width);
            let entries = 2 * self.span_side(i) - 1;
            list.add(format!("{block}.attn.rel_pos_h"), &[entries, self.head_width()]);
            list.add(format!("{block}.attn.rel_pos_w"), &[entries, self.head_width()]);
            list.linear(format!("{block}.attn.qkv"), width, 3 * width);
            list.add(format!("{block}.attn.q_fact.weight"), &[rank, rank]);
            list.add(format!("{block}.attn.v_fact.weight"), &[rank, rank]);
            list.linear(format!("{block}.attn.proj"), width, width);
            list.norm(format!("{block}.norm2"), width);
            list.linear(format!("{block}.mlp.lin1"), width, self.mlp_ratio * width);
            list.linear(format!("{block}.mlp.lin2"), self.mlp_ratio * width, width);
        }
        list.add("image_encoder.neck.0.weight", &[self.prompt_width, width, 1, 1]);
        list.norm("image_encoder.neck.1", self.prompt_width);
        list.add(
            "image_encoder.neck.2.weight",
            &[self.prompt_width, self.prompt_width, 3, 3],
        );
        list.norm("image_encoder.neck.3", self.prompt_width);
    }

    fn prompt_encoder_weights(&self, list: &mut List) {
        let width = self.prompt_width;
        list.add(
            "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
            &[2, width / 2],
        );
        for i in 0..4 {
            list.add(format!("prompt_encoder.point_embeddings.{i}.weight"), &[1, width]);
        }
        list.add("prompt_encoder.not_a_point_embed.weight", &[1, width]);
        for (layer, inputs, outputs, side) in [(0, 1, 4, 2), (3, 4, 16, 2), (6, 16, width, 1)] {
            let name = format!("prompt_encoder.mask_downscaling.{layer}");
            list.add(format!("{name}.weight"), &[outputs, inputs, side, side]);
            list.add(format!("{name}.bias"), &[outputs]);
        }
        list.norm("prompt_encoder.mask_downscaling.1", 4);
        list.norm("prompt_encoder.mask_downscaling.4", 16);
        list.add("prompt_encoder.no_mask_embed.weight", &[1, width]);
    }

    fn mask_decoder_weights(&self, list: &mut List) {
        let (width, widths) = (self.prompt_width, self.upscaling_widths());
        let mut attention = |name: String, inner: usize| {
            for projection in ["q_proj", "k_proj", "v_proj"] {
                list.linear(format!("{name}.{projection}"), width, inner);
            }
            list.linear(format!("{name}.out_proj"), inner, width);
        };
        let transformer = "mask_decoder.transformer";
        for i in 0..self.decoder_depth {
            attention(format!("{transformer}.layers.{i}.self_attn"), width);
            attention(
                format!("{transformer}.layers.{i}.cross_attn_token_to_image"),
                width / 2,
            );
            attention(
                format!("{transformer}.layers.{i}.cross_attn_image_to_token"),
                width / 2,
            );
        }
        attention(format!("{transformer}.final_attn_token_to_image"), width / 2);
        for i in 0..self.decoder_depth {
            let layer = format!("{transformer}.layers.{i}");
            for norm in 1..=4 {
                list.norm(format!("{layer}.norm{norm}"), width);
            }
            list.linear(format!("{layer}.mlp.lin1"), width, self.decoder_mlp_width);
            list.linear(format!("{layer}.mlp.lin2"), self.decoder_mlp_width, width);
        }
        list.norm(format!("{transformer}.norm_final_attn"), width);
        list.add("mask_decoder.iou_token.weight", &[1, width]);
        list.add("mask_decoder.mask_tokens.weight", &[self.classes, width]);
        for (i, pair) in widths.windows(2).enumerate() {
            let name = format!("mask_decoder.output_upscaling.{}", 3 * i);
            list.add(format!("{name}.weight"), &[pair[0], pair[1], 2, 2]);
            list.add(format!("{name}.bias"), &[pair[1]]);
            if i + 2 < widths.len() {
                list.norm(format!("mask_decoder.output_upscaling.{}", 3 * i + 1), pair[1]);
            }
            if i < self.skips() {
                list.linear(
                    format!("mask_decoder.skip_projections.{i}"),
                    self.encoder_width,
                    pair[1],
                );
            }
        }
        let pixel = widths[widths.len() - 1];
        for i in 0..self.classes {
            list.mlp3(
                format!("mask_decoder.output_hypernetworks_mlps.{i}"),
                width,
                width,
                pixel,
            );
        }
        list.mlp3("mask_decoder.iou_prediction_head", width, width, self.classes);
    }
}

/// Weights by formula: reproducible, meaningless, and good for tests, benchmarks and placeholders.
///
/// With u = [`uniform`]`(name, count)` in [-1, 1):
/// * tables (positions, tokens, embeddings): 0.2 u
/// * the prompt encoder's random matrix: u
/// * one dimension, name ending in `.weight` (norm scales): 1 + 0.1 u
/// * other one-dimensional (biases): 0.05 u
/// * all else: u sqrt(3 / fan_in), fan_in the product of all dimensions but the first; for the transposed
///   convolutions of the upscaling, the first
#[derive(Debug, Clone, Copy)]
pub struct FormulaWeights;

impl FormulaWeights {
    /// A [`VarBuilder`] that gives every weight by formula.
    pub fn builder(dtype: DType, device: &Device) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(FormulaWeights), dtype, device.clone())
    }

    /// The weight of that name and shape, computed in float64 and rounded once.
    pub fn values(name: &str, shape: &[usize]) -> Vec<f32> {
        let count = shape.iter().product();
        let (factor, offset) = if is_table(name) {
            (0.2, 0.0)
        } else if name.ends_with("positional_encoding_gaussian_matrix") {
            (1.0, 0.0)
        } else if shape.len() == 1 {
            if name.ends_with(".weight") {
                (0.1, 1.0)
            } else {
                (0.05, 0.0)
            }
        } else {
            let fan_in = match name.contains("output_upscaling") {
                true => shape[0],
                false => shape[1..].iter().product(),
            };
            ((3.0 / fan_in as f64).sqrt(), 0.0)
        };
        uniform(name, count)
            .map(|u| (offset + factor * u) as f32)
            .collect()
    }
}

fn is_table(name: &str) -> bool {
    let point = name
        .strip_suffix(".weight")
        .and_then(|n| n.rsplit_once("point_embeddings."));
    point.is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
        || ["pos_embed", "rel_pos_h", "rel_pos_w"]
            .iter()
            .any(|table| name.ends_with(table))
        || ["not_a_point_embed", "no_mask_embed", "iou_token", "mask_tokens"]
            .iter()
            .any(|table| name.strip_suffix(".weight").is_some_and(|n| n.ends_with(table)))
}

/// `count` values in [-1, 1): the top 24 bits of splitmix64 over the FNV-1a hash of `name`.
pub fn uniform(name: &str, count: usize) -> impl Iterator<Item = f64> {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    let seed = name.bytes().fold(0xCBF2_9CE4_8422_2325, fnv);
    (1..=count as u64).map(move |i| {
        let mut z = seed.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f64 / f64::from(1u32 << 23) - 1.0
    })
}

impl SimpleBackend for FormulaWeights {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: candle_nn::Init,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        Tensor::from_vec(Self::values(name, shape.dims()), shape, device)?.to_dtype(dtype)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        candle_core::bail!("{name}: a weight by formula needs a shape")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Decoder, FactMode, MaSam};
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    /// Gives weights by formula and notes what was asked for.
    struct Recorder(Arc<Mutex<BTreeMap<String, Vec<usize>>>>);

    impl SimpleBackend for Recorder {
        fn get(
            &self,
            shape: Shape,
            name: &str,
            init: candle_nn::Init,
            dtype: DType,
            device: &Device,
        ) -> Result<Tensor> {
            self.0.lock().unwrap().insert(name.into(), shape.dims().to_vec());
            FormulaWeights.get(shape, name, init, dtype, device)
        }

        fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
            FormulaWeights.get_unchecked(name, dtype, device)
        }

        fn contains_tensor(&self, _: &str) -> bool {
            true
        }
    }

    #[test]
    fn the_list_is_what_the_model_asks_for() {
        for decoder in [Decoder::Progressive, Decoder::Sam, Decoder::MultiScale] {
            for adapters in [Adapters::Both, Adapters::Before, Adapters::After, Adapters::None] {
                let config = ModelConfig {
                    decoder,
                    adapters,
                    image_side_px: 64,
                    ..ModelConfig::demo()
                };
                let asked = Arc::new(Mutex::new(BTreeMap::new()));
                let recorder = Box::new(Recorder(asked.clone()));
                let weights = VarBuilder::from_backend(recorder, DType::F32, Device::Cpu);
                MaSam::new(&config, FactMode::Apart, weights).unwrap();
                let listed: BTreeMap<_, _> =
                    config.weights().into_iter().map(|w| (w.name, w.shape)).collect();
                assert_eq!(listed.len(), config.weights().len(), "a name is listed twice");
                assert_eq!(*asked.lock().unwrap(), listed, "{decoder:?} {adapters:?}");
            }
        }
    }

    #[test]
    fn the_demo_is_small() {
        let parameters = ModelConfig::demo().parameters();
        assert!(parameters <= 10_000_000, "{parameters}");
    }

    #[test]
    fn formula_values_are_fixed() {
        let values: Vec<f64> = uniform("clip", 3).collect();
        assert!(values.iter().all(|v| (-1.0..1.0).contains(v)));
        assert_eq!(values, uniform("clip", 3).collect::<Vec<_>>());
        assert_ne!(values[0], uniform("clap", 1).next().unwrap());
        assert!(is_table("prompt_encoder.point_embeddings.3.weight"));
        assert!(!is_table("prompt_encoder.point_embeddings.x.weight"));
        assert!(!is_table("mask_decoder.iou_prediction_head.layers.0.weight"));
    }
}
