//! Reference tensors built into the program: small models that cover every decoder, prompt, adapter position and
//! temporal mode, padded partitions, several clips at once, odd sizes and a resized SAM release; a training step of two
//! of them; and the reference's preparation of frames.

/// A file of reference tensors that is part of the program.
#[derive(Debug, Clone, Copy)]
pub struct Fixture {
    /// Its name.
    pub name: &'static str,
    /// Its content, a safetensors file.
    pub bytes: &'static [u8],
}

macro_rules! fixture {
    ($name:literal) => {
        Fixture {
            name: $name,
            bytes: include_bytes!(concat!("../../tests/fixtures/golden/", $name, ".safetensors")),
        }
    };
}

/// All of them; a file that is missing does not compile.
pub const FIXTURES: &[Fixture] = &[
    fixture!("adapters_after"),
    fixture!("adapters_before"),
    fixture!("adapters_none"),
    fixture!("box_points"),
    fixture!("multi_scale"),
    fixture!("multi_scale_mask"),
    fixture!("odd_sizes"),
    fixture!("points_mask"),
    fixture!("preprocess"),
    fixture!("progressive_causal"),
    fixture!("progressive_one_frame"),
    fixture!("progressive_padded"),
    fixture!("sam_box"),
    fixture!("sam_causal_points"),
    fixture!("sam_resized"),
    fixture!("step_causal"),
    fixture!("step_centered"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::{GoldenFile, Kind};
    use crate::model::{Adapters, Decoder};
    use crate::segmenter::Temporal;

    #[test]
    fn together_they_cover_every_choice() {
        let files: Vec<GoldenFile> = FIXTURES
            .iter()
            .map(|f| GoldenFile::from_bytes(f.name, f.bytes.to_vec()).unwrap())
            .collect();
        assert!(files.iter().any(|f| f.kind() == Kind::Preprocess));
        let files: Vec<GoldenFile> = files.into_iter().filter(|f| f.kind() == Kind::Forward).collect();
        let configs: Vec<_> = files.iter().map(|f| f.config().unwrap()).collect();
        for decoder in [Decoder::Progressive, Decoder::Sam, Decoder::MultiScale] {
            assert!(configs.iter().any(|c| c.decoder == decoder), "{decoder:?}");
        }
        for adapters in [Adapters::Both, Adapters::Before, Adapters::After, Adapters::None] {
            assert!(configs.iter().any(|c| c.adapters == adapters), "{adapters:?}");
        }
        for temporal in [Temporal::Centered, Temporal::Causal] {
            assert!(configs.iter().any(|c| c.temporal == temporal), "{temporal:?}");
        }
        for prompts in ["none", "box", "points", "mask", "box+points", "points+mask"] {
            assert!(
                files.iter().any(|f| f.text("prompts").unwrap() == prompts),
                "{prompts}"
            );
        }
        assert!(
            configs
                .iter()
                .any(|c| !c.grid_side().is_multiple_of(c.partition_side)),
            "a padded partition"
        );
        assert!(
            files.iter().any(|f| f.number::<usize>("batch").unwrap() > 1),
            "a batch"
        );
        assert!(
            files.iter().any(|f| f.number::<usize>("sam_size").unwrap() > 0),
            "a resized release"
        );
    }
}
