//! The names of weights: ours (canonical) and those in the files of the original software.
//!
//! | canonical | in MA-SAM's `epoch_N.pth` |
//! |---|---|
//! | `image_encoder.blocks.3.adapter_conv.bias` | `image_encoder.ImageEncoderViT.blocks.3.Block.adapter_conv.bias` |
//! | `image_encoder.blocks.3.attn.q_fact.weight` | `q_FacTs_003` |
//! | `image_encoder.fact_u.weight` | `image_encoder.FacTu.weight` |
//! | `mask_decoder.…`, `prompt_encoder.…` | the same |
//!
//! SAM's own files use canonical names throughout. Whatever stands before a name, and the wrappers of PyTorch and of the
//! original software within it, are taken off: `model.module.image_encoder._orig_mod.pos_embed` is
//! `image_encoder.pos_embed`.

use crate::model::Part;

const ADAPTERS_BELOW: &str = "image_encoder.ImageEncoderViT.blocks.";

/// Names of modules that stand around others and change nothing: of DataParallel, `torch.compile`, FSDP and activation
/// checkpointing.
const WRAPPERS: [&str; 4] = [
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
];

/// The same of MA-SAM's own software, inside the image encoder.
const ENCODER_WRAPPERS: [&str; 3] = ["ImageEncoderViT", "Block", "Attention"];

/// Where the name of a SAM or MA-SAM weight begins in `path`, its keys joined by dots; `None` where there is none.
pub(crate) fn root(path: &str) -> Option<usize> {
    let mut at = 0;
    for part in path.split('.') {
        let rest = path.get(at + part.len()..).unwrap_or_default();
        let found = match part {
            "image_encoder" | "prompt_encoder" | "mask_decoder" => !rest.is_empty(),
            "FacTu" | "FacTv" => rest == ".weight",
            _ => fact_block(part).is_some(),
        };
        if found {
            return Some(at);
        }
        at += part.len() + 1;
    }
    None
}

/// Which factor `q_FacTs_007` is, and of which block.
fn fact_block(part: &str) -> Option<(&'static str, usize)> {
    let (which, block) = match part.split_at_checked(8)? {
        ("q_FacTs_", block) => ("q_fact", block),
        ("v_FacTs_", block) => ("v_fact", block),
        _ => return None,
    };
    Some((which, block.parse().ok()?))
}

/// The canonical name of `key` in a SAM or MA-SAM file; of another key, the key without wrappers.
pub fn canonical(key: &str) -> String {
    let start = root(key).unwrap_or(0);
    let key = key.get(start..).unwrap_or(key);
    let in_encoder = key.starts_with("image_encoder.");
    let mut parts: Vec<&str> = key.split('.').filter(|part| !WRAPPERS.contains(part)).collect();
    if in_encoder {
        parts.retain(|part| !ENCODER_WRAPPERS.contains(part));
        // Around SAM's own projection in a whole model of the original software: `attn.qkv.qkv`, `attn.qkv.q_FacTs`.
        if let Some(at) = parts.iter().position(|part| *part == "qkv") {
            match parts.get(at + 1) {
                Some(&"qkv") => drop(parts.remove(at)),
                Some(&"q_FacTs") => drop(parts.splice(at..at + 2, ["q_fact"])),
                Some(&"v_FacTs") => drop(parts.splice(at..at + 2, ["v_fact"])),
                _ => {}
            }
        }
    }
    match parts.as_slice() {
        ["image_encoder", "FacTu", "weight"] | ["FacTu", "weight"] => "image_encoder.fact_u.weight".into(),
        ["image_encoder", "FacTv", "weight"] | ["FacTv", "weight"] => "image_encoder.fact_v.weight".into(),
        [only] | [only, "weight"] => match fact_block(only) {
            Some((which, block)) => format!("image_encoder.blocks.{block}.attn.{which}.weight"),
            None => parts.join("."),
        },
        _ => parts.join("."),
    }
}

/// Whether a canonical name is one of MA-SAM's additions: FacT or adapters.
pub(crate) fn is_ours(canonical: &str) -> bool {
    matches!(Part::of(canonical), Part::Fact | Part::Adapters)
}

/// The key of a canonical name in the file that the original software's `save_parameters` writes; `None` for
/// weights of SAM's image encoder, which are not in it.
pub fn masam_key(canonical: &str) -> Option<String> {
    match Part::of(canonical) {
        Part::ImageEncoder => None,
        Part::PromptEncoder | Part::MaskDecoder => Some(canonical.into()),
        Part::Adapters => {
            let (block, part) = canonical.strip_prefix("image_encoder.blocks.")?.split_once('.')?;
            Some(format!("{ADAPTERS_BELOW}{block}.Block.{part}"))
        }
        Part::Fact => match canonical {
            "image_encoder.fact_u.weight" => Some("image_encoder.FacTu.weight".into()),
            "image_encoder.fact_v.weight" => Some("image_encoder.FacTv.weight".into()),
            _ => {
                let (block, part) = canonical.strip_prefix("image_encoder.blocks.")?.split_once('.')?;
                let letter = if part.contains("q_fact") { 'q' } else { 'v' };
                Some(format!("{letter}_FacTs_{:03}", block.parse::<usize>().ok()?))
            }
        },
    }
}

/// Whether SAM's own software knows a weight of that name.
pub fn is_sam(canonical: &str) -> bool {
    !is_ours(canonical)
}

/// Whether the original software's `save_parameters` writes a weight of that name.
pub fn is_in_masam_file(canonical: &str) -> bool {
    Part::of(canonical) != Part::ImageEncoder
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ModelConfig;

    #[test]
    fn names_go_there_and_back() {
        let mut written = 0;
        for spec in ModelConfig::vit_h().weights() {
            if let Some(key) = masam_key(&spec.name) {
                assert_eq!(canonical(&key), spec.name, "{key}");
                assert_eq!(canonical(&format!("module.{key}")), spec.name, "{key}");
                written += 1;
            } else {
                assert!(
                    !is_in_masam_file(&spec.name) && is_sam(&spec.name),
                    "{}",
                    spec.name
                );
            }
        }
        assert!(written > 400);
    }

    #[test]
    fn the_table_holds() {
        assert_eq!(
            canonical("q_FacTs_031"),
            "image_encoder.blocks.31.attn.q_fact.weight"
        );
        assert_eq!(
            masam_key("image_encoder.blocks.3.attn.v_fact.weight").unwrap(),
            "v_FacTs_003"
        );
        let key = "image_encoder.ImageEncoderViT.blocks.3.Block.adapter_linear_up_2.weight";
        assert_eq!(
            canonical(key),
            "image_encoder.blocks.3.adapter_linear_up_2.weight"
        );
        assert_eq!(canonical("q_FacTs_x"), "q_FacTs_x");
    }

    /// Names of `Fact_tt_Sam.state_dict()` and of wrapped parts.
    #[test]
    fn wrappers_are_taken_off() {
        for (key, name) in [
            (
                "module.sam.image_encoder.ImageEncoderViT.blocks.7.Block.attn.Attention.qkv.qkv.weight",
                "image_encoder.blocks.7.attn.qkv.weight",
            ),
            (
                "sam.image_encoder.ImageEncoderViT.blocks.7.Block.attn.Attention.qkv.v_FacTs.weight",
                "image_encoder.blocks.7.attn.v_fact.weight",
            ),
            (
                "sam.image_encoder.ImageEncoderViT.blocks.7.Block.attn.Attention.rel_pos_h",
                "image_encoder.blocks.7.attn.rel_pos_h",
            ),
            ("FacTu.weight", "image_encoder.fact_u.weight"),
            (
                "model.image_encoder.module._orig_mod.neck.1.bias",
                "image_encoder.neck.1.bias",
            ),
            (
                "net.mask_decoder.module.iou_token.weight",
                "mask_decoder.iou_token.weight",
            ),
            (
                "anything.at.all.q_FacTs_003",
                "image_encoder.blocks.3.attn.q_fact.weight",
            ),
            ("module.pixel_mean", "pixel_mean"),
            ("blocks.0.attn.qkv.weight", "blocks.0.attn.qkv.weight"),
        ] {
            assert_eq!(canonical(key), name);
        }
        assert_eq!(root("a.b.prompt_encoder.x"), Some(4));
        assert_eq!(root("mask_decoder"), None);
        assert_eq!(root("sam_mask_decoder.x"), None);
    }
}
