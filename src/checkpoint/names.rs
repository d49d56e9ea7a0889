//! The names of weights: ours (canonical) and those in the files of the original software.
//!
//! | canonical | in MA-SAM's `epoch_N.pth` |
//! |---|---|
//! | `image_encoder.blocks.3.adapter_conv.bias` | `image_encoder.ImageEncoderViT.blocks.3.Block.adapter_conv.bias` |
//! | `image_encoder.blocks.3.attn.q_fact.weight` | `q_FacTs_003` |
//! | `image_encoder.fact_u.weight` | `image_encoder.FacTu.weight` |
//! | `mask_decoder.…`, `prompt_encoder.…` | the same |
//!
//! SAM's own files use canonical names throughout. Checkpoints of wrapped models carry a prefix `module.`; it is
//! taken off.

use crate::model::Part;

const ADAPTERS_BELOW: &str = "image_encoder.ImageEncoderViT.blocks.";

/// The canonical name of `key` in a SAM or MA-SAM file.
pub fn canonical(key: &str) -> String {
    let key = key.strip_prefix("module.").unwrap_or(key);
    if let Some((block, part)) = key
        .strip_prefix(ADAPTERS_BELOW)
        .and_then(|rest| rest.split_once(".Block."))
    {
        return format!("image_encoder.blocks.{block}.{part}");
    }
    for (prefix, which) in [("q_FacTs_", "q_fact"), ("v_FacTs_", "v_fact")] {
        if let Some(Ok(block)) = key.strip_prefix(prefix).map(str::parse::<usize>) {
            return format!("image_encoder.blocks.{block}.attn.{which}.weight");
        }
    }
    match key {
        "image_encoder.FacTu.weight" => "image_encoder.fact_u.weight".into(),
        "image_encoder.FacTv.weight" => "image_encoder.fact_v.weight".into(),
        _ => key.into(),
    }
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
    !matches!(Part::of(canonical), Part::Fact | Part::Adapters)
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
}
