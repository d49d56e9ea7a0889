//! Which frames each part of a forward pass has to compute.
//!
//! An output depends on its own frame everywhere but in the temporal adapters, which look at a frame or two beside it.
//! So where only some outputs are wanted, the last blocks need not compute the others: going from the outputs
//! backwards, each adapter adds the frames under its taps.

use crate::model::{Adapters, ModelConfig};
use crate::segmenter::Temporal;

/// Images, counted through all clips, ascending.
pub(super) type Images = Vec<usize>;

/// What one block computes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct BlockPlan {
    /// Inputs of the first adapter's convolution; empty without one.
    pub(super) low_1: Images,
    /// Outputs of the first adapter, and of attention.
    pub(super) attention: Images,
    /// Inputs of the second adapter's convolution.
    pub(super) low_2: Images,
    /// Outputs of the second adapter, and of the MLP.
    pub(super) mlp: Images,
}

/// What a forward pass computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) clips: usize,
    /// Of a clip.
    pub(super) frames: usize,
    /// Images that go through the decoder.
    pub(super) decoded: Images,
    /// Images whose patches are embedded.
    pub(super) embedded: Images,
    pub(super) blocks: Vec<BlockPlan>,
}

impl Plan {
    /// For `clips` clips of `frames` frames, of which the images `decoded` are wanted.
    pub(super) fn new(config: &ModelConfig, clips: usize, frames: usize, decoded: &[usize]) -> Self {
        let before = matches!(config.adapters, Adapters::Both | Adapters::Before);
        let after = matches!(config.adapters, Adapters::Both | Adapters::After);
        let mut needed = decoded.to_vec();
        let mut blocks: Vec<BlockPlan> = (0..config.encoder_depth)
            .map(|_| {
                let mut block = BlockPlan {
                    mlp: needed.clone(),
                    ..BlockPlan::default()
                };
                if after {
                    needed = under_taps(&needed, frames, config.temporal);
                    block.low_2.clone_from(&needed);
                }
                block.attention.clone_from(&needed);
                if before {
                    needed = under_taps(&needed, frames, config.temporal);
                    block.low_1.clone_from(&needed);
                }
                block
            })
            .collect();
        blocks.reverse();
        Self {
            clips,
            frames,
            decoded: decoded.to_vec(),
            embedded: needed,
            blocks,
        }
    }

    /// Whether it is for this job.
    pub(super) fn is_for(&self, clips: usize, frames: usize, decoded: &[usize]) -> bool {
        self.clips == clips && self.frames == frames && self.decoded == decoded
    }

    /// What it costs, in floating-point operations, counted as [`ModelConfig::operations`] counts.
    pub(super) fn operations(&self, config: &ModelConfig) -> f64 {
        let times = |images: &Images, each: f64| images.len() as f64 * each;
        let blocks = self.blocks.iter().enumerate().map(|(index, block)| {
            let frame = config.block_operations(index);
            // An adapter gives as many frames as what follows it takes.
            let adapter = |low: &Images, wanted: &Images| match low.is_empty() {
                true => 0.0,
                false => times(low, frame.adapter_down) + times(wanted, frame.adapter_rest),
            };
            adapter(&block.low_1, &block.attention)
                + times(&block.attention, frame.projections + frame.attention)
                + adapter(&block.low_2, &block.mlp)
                + times(&block.mlp, frame.mlp)
        });
        times(&self.embedded, config.patch_operations())
            + blocks.sum::<f64>()
            + times(
                &self.decoded,
                config.neck_operations() + config.decoder_operations(),
            )
    }

    /// Images in all.
    pub(super) fn images(&self) -> usize {
        self.clips * self.frames
    }
}

/// How far the taps lie from their frame.
pub(super) fn shifts(temporal: Temporal) -> [isize; 3] {
    match temporal {
        Temporal::Centered => [-1, 0, 1],
        Temporal::Causal => [-2, -1, 0],
    }
}

/// The image of the same clip that lies `shift` frames beside `image`.
pub(super) fn beside(image: usize, shift: isize, frames: usize) -> Option<usize> {
    let frame = (image % frames).checked_add_signed(shift)?;
    (frame < frames).then(|| image / frames * frames + frame)
}

fn under_taps(images: &[usize], frames: usize, temporal: Temporal) -> Images {
    let mut under: Images = images
        .iter()
        .flat_map(|&image| shifts(temporal).map(|shift| beside(image, shift, frames)))
        .flatten()
        .collect();
    under.sort_unstable();
    under.dedup();
    under
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(adapters: Adapters, temporal: Temporal, decoded: &[usize]) -> Plan {
        let config = ModelConfig {
            encoder_depth: 2,
            adapters,
            temporal,
            ..ModelConfig::demo()
        };
        Plan::new(&config, 2, 5, decoded)
    }

    #[test]
    fn the_newest_frame_needs_ever_more_of_the_past() {
        let plan = plan(Adapters::Both, Temporal::Causal, &[4]);
        assert_eq!(plan.blocks[1].mlp, [4]);
        assert_eq!(plan.blocks[1].low_2, [2, 3, 4]);
        assert_eq!(plan.blocks[1].attention, [2, 3, 4]);
        assert_eq!(plan.blocks[1].low_1, [0, 1, 2, 3, 4]);
        assert_eq!(plan.blocks[0].mlp, [0, 1, 2, 3, 4]);
        assert_eq!(plan.embedded, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn clips_do_not_look_at_one_another() {
        let plan = plan(Adapters::After, Temporal::Centered, &[4, 5]);
        assert_eq!(plan.blocks[1].low_2, [3, 4, 5, 6]);
        assert_eq!(plan.blocks[0].low_2, [2, 3, 4, 5, 6, 7]);
        assert!(plan.blocks[0].low_1.is_empty());
    }

    #[test]
    fn all_frames_cost_what_the_model_counts() {
        for adapters in [Adapters::Both, Adapters::Before, Adapters::None] {
            let config = ModelConfig {
                adapters,
                ..ModelConfig::demo()
            };
            let of = |decoded: &[usize]| Plan::new(&config, 1, 5, decoded).operations(&config);
            let (all, counted) = (of(&[0, 1, 2, 3, 4]), config.operations(5, 5).total());
            assert!((all / counted - 1.0).abs() < 1e-12, "{all} {counted}");
            assert!(of(&[4]) < all);
        }
    }

    #[test]
    fn without_adapters_nothing_else_is_needed() {
        let plan = plan(Adapters::None, Temporal::Centered, &[1, 7]);
        assert_eq!(plan.embedded, [1, 7]);
        assert!(
            plan.blocks
                .iter()
                .all(|block| block.mlp == [1, 7] && block.attention == [1, 7])
        );
    }
}
