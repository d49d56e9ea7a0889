//! What the weights of a checkpoint are: SAM's, MA-SAM's, or those of another model.

use super::names;
use crate::model::ModelConfig;
use std::fmt;

/// What a checkpoint's names and shapes say that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// SAM's release, or one trained further, such as MedSAM, with the preset of its size where it is one of SAM's.
    Sam(Option<&'static str>),
    /// SAM-HQ: SAM's weights and more.
    SamHq(Option<&'static str>),
    /// What MA-SAM's `save_parameters` writes: all but SAM's image encoder.
    Masam,
    /// A MA-SAM model with SAM's image encoder in it.
    Whole(Option<&'static str>),
    /// Weights of another model.
    Foreign(Foreign),
}

/// Models whose files are taken for SAM's or MA-SAM's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// SAM 2 or 2.1: a hierarchical encoder and a memory.
    Sam2,
    /// SAM under the names of Hugging Face Transformers.
    Transformers,
    /// SAM's decoder on a TinyViT: MobileSAM, LiteMedSAM.
    TinyVit,
    /// SAMed: SAM with LoRA, without SAM's weights.
    Samed,
    /// A LoRA of another program.
    Lora,
    /// SAM with weights of another program's inside its image encoder, such as SAM-Med2D's adapters.
    OtherAdapters,
    /// SAM's image encoder or another vision transformer alone.
    EncoderAlone,
    /// SAM's decoder or prompt encoder on an image encoder of another kind, or on none.
    OtherEncoder,
    /// Nothing of SAM's at all.
    Other,
}

impl Kind {
    /// Tells the kind by `names`, canonical where they can be; `shape` gives the shape of one.
    pub(crate) fn of<'a>(
        names: impl Iterator<Item = &'a str> + Clone,
        shape: impl Fn(&str) -> Option<Vec<usize>>,
    ) -> Self {
        let any = |part: &str| names.clone().any(|name| name.contains(part));
        let starts = |prefix: &str| names.clone().any(|name| name.starts_with(prefix));
        let ours = names.clone().any(names::is_ours);
        let encoder = shape("image_encoder.patch_embed.proj.weight").is_some()
            && starts("image_encoder.blocks.0.attn.");
        let decoder = starts("mask_decoder.");
        let size = || size(names.clone(), &shape);
        if ours && encoder {
            Kind::Whole(size())
        } else if ours {
            Kind::Masam
        } else if any("memory_attention.") || any("sam_mask_decoder.") || starts("image_encoder.trunk.") {
            Kind::Foreign(Foreign::Sam2)
        } else if any("vision_encoder.") || any("shared_image_embedding.") {
            Kind::Foreign(Foreign::Transformers)
        } else if starts("w_a_0") || any("linear_a_q.") {
            Kind::Foreign(Foreign::Samed)
        } else if any("lora_") {
            Kind::Foreign(Foreign::Lora)
        } else if starts("image_encoder.patch_embed.seq.") || starts("image_encoder.layers.") {
            Kind::Foreign(Foreign::TinyVit)
        } else if encoder && names.clone().any(is_inside_encoder) {
            Kind::Foreign(Foreign::OtherAdapters)
        } else if encoder && starts("mask_decoder.hf_token") {
            Kind::SamHq(size())
        } else if encoder && decoder {
            Kind::Sam(size())
        } else if encoder || any("patch_embed.proj.weight") && any("blocks.0.attn.qkv.weight") {
            Kind::Foreign(Foreign::EncoderAlone)
        } else if decoder || starts("prompt_encoder.") || starts("image_encoder.") {
            Kind::Foreign(Foreign::OtherEncoder)
        } else {
            Kind::Foreign(Foreign::Other)
        }
    }

    /// The command that takes the file, with `FILE` for its name; for a foreign one, what to bring instead.
    pub fn cure(self) -> &'static str {
        match self {
            Kind::Sam(_) | Kind::SamHq(_) => {
                "masam convert --sam FILE --masam epoch.pth -o model.safetensors"
            }
            Kind::Masam => "masam convert --sam sam_vit_h_4b8939.pth --masam FILE -o model.safetensors",
            Kind::Whole(_) => "masam convert --masam FILE -o model.safetensors",
            Kind::Foreign(Foreign::Transformers) => {
                "bring SAM's own release (sam_vit_b_01ec64.pth, sam_vit_l_0b3195.pth or sam_vit_h_4b8939.pth), which holds \
                 the same weights under SAM's names"
            }
            Kind::Foreign(_) => {
                "MA-SAM needs SAM's own release (sam_vit_b_01ec64.pth, sam_vit_l_0b3195.pth or sam_vit_h_4b8939.pth) and a \
                 MA-SAM checkpoint trained on it"
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sized = |f: &mut fmt::Formatter<'_>, what: &str, size: &Option<&str>| match size {
            Some(size) => write!(f, "{what} ({size})"),
            None => write!(f, "{what} (of a size of its own)"),
        };
        match self {
            Kind::Sam(size) => sized(f, "a SAM checkpoint", size),
            Kind::SamHq(size) => sized(f, "a SAM-HQ checkpoint", size),
            Kind::Masam => f.write_str("a MA-SAM checkpoint without SAM's image encoder"),
            Kind::Whole(size) => sized(f, "a whole MA-SAM model of the original software", size),
            Kind::Foreign(foreign) => f.write_str(match foreign {
                Foreign::Sam2 => "a SAM 2 checkpoint, a model of another kind",
                Foreign::Transformers => "a SAM checkpoint under the names of Hugging Face Transformers",
                Foreign::TinyVit => {
                    "a SAM with a TinyViT for an image encoder, as MobileSAM and LiteMedSAM are"
                }
                Foreign::Samed => "a SAMed checkpoint: LoRA on SAM, not MA-SAM's FacT and adapters",
                Foreign::Lora => "a LoRA of another program, not MA-SAM's FacT and adapters",
                Foreign::OtherAdapters => {
                    "a SAM with adapters of another program in its image encoder, such as SAM-Med2D's"
                }
                Foreign::EncoderAlone => "an image encoder alone, without a mask decoder",
                Foreign::OtherEncoder => "a part of a SAM, or a SAM on an image encoder of another kind",
                Foreign::Other => {
                    "a checkpoint of another model, without one weight of SAM's or MA-SAM's names"
                }
            }),
        }
    }
}

/// Whether a name lies inside SAM's image encoder and is none of SAM's: leaving it out would change what the encoder sees.
fn is_inside_encoder(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("image_encoder.") else {
        return false;
    };
    let parts: Vec<&str> = rest.split('.').collect();
    let own = matches!(
        parts.as_slice(),
        ["pos_embed"]
            | ["patch_embed", "proj", _]
            | ["neck", _, _]
            | ["blocks", _, "attn", "rel_pos_h" | "rel_pos_w"]
            | ["blocks", _, "norm1" | "norm2", _]
            | ["blocks", _, "attn", "qkv" | "proj", _]
            | ["blocks", _, "mlp", "lin1" | "lin2", _]
    );
    let constant = matches!(
        parts.last(),
        Some(&("pixel_mean" | "pixel_std" | "num_batches_tracked"))
    );
    !own && !constant
}

/// The preset whose width and depth the image encoder has.
fn size<'a>(
    names: impl Iterator<Item = &'a str> + Clone,
    shape: impl Fn(&str) -> Option<Vec<usize>>,
) -> Option<&'static str> {
    let width = *shape("image_encoder.patch_embed.proj.weight")?.first()?;
    let depth = names
        .filter_map(|name| {
            name.strip_prefix("image_encoder.blocks.")?
                .split('.')
                .next()?
                .parse::<usize>()
                .ok()
        })
        .max()?
        .checked_add(1)?;
    ["vit_b", "vit_l", "vit_h", "demo"].into_iter().find(|preset| {
        ModelConfig::preset(preset).is_ok_and(|own| own.encoder_width == width && own.encoder_depth == depth)
    })
}
